package plan

import (
	"time"

	tender "github.com/tenderhq/tender"
)

// Wanted is what one generation of a project wants, with what is known of how
// it went so far.
type Wanted struct {
	Project    string
	Generation int
	Services   []Service
	// Orphans: instances of services that are not wanted any more are removed.
	Orphans bool
	// Down is set when the whole project is to go.
	Down *Down
	// Ensured: the networks and volumes of this generation were made; these are their names.
	Ensured  bool
	Networks []string
	Volumes  []string
	// EnsureTry counts what went wrong with that.
	EnsureTry Try
	// foreseen: it is a simulation, in which nobody counts requests.
	foreseen bool
}

// Down is what goes beside the instances and networks.
type Down struct {
	// Ended: all that was to go is gone. What comes later under the project's name is somebody else's.
	Ended   bool           `json:"-"`
	Volumes bool           `json:"volumes,omitempty"`
	Grace   *time.Duration `json:"grace,omitempty"` // nil: each service's own
}

// Service is one service at the revision that is wanted of it.
type Service struct {
	tender.Service
	// ImageHealthcheck: the image brings a healthcheck.
	ImageHealthcheck bool

	Stopped bool           // by tender stop
	Gone    bool           // by tender rm, or down of this service alone
	GoneOf  []string       // what others had made when that was said goes, too: ids
	StopIn  *time.Duration // grace asked for with stop, rm or restart; nil: the service's own
	// RestartOf holds the instances that were there when a restart of this service was asked for, its own and
	// those that depend on it, each with the start that it had: who has it still is restarted. The engine's
	// words alone, since its clock may not be ours.
	RestartOf map[string]time.Time
	// StartOf likewise: those of the service that ended are started, even if they ended well.
	StartOf map[string]time.Time
	// RenewAnon: newcomers get new anonymous volumes, the old ones go.
	RenewAnon bool
	// Halted says why a paused rollout leaves everything as it is.
	Halted string
	// Failed says why the last rollout to this revision failed.
	Failed string

	// Counted says why the count is what it is, if it was changed, and what it was before.
	Counted struct {
		At    time.Time
		From  int
		Cause string
	}

	Open *Rollout
	// Paused is the rollout that Halted is about: the traffic stays as it left it.
	Paused *Rollout
	// Kept is a revision whose instances stay for a while after it was replaced.
	Kept Kept
	// Traffic is what the edge says of it; nil: the edge does not serve it.
	Traffic *Traffic
	// Jobs are the ends of this service as a job, at this revision, the newest last.
	Jobs []JobEnd
	// Tries counts attempts in a row per slot; 0 is the service as a whole.
	Tries map[int]Try
	// Adopted maps foreign instances that are kept to the revision they count as.
	Adopted map[string]string
}

// Rollout is a move that has not ended.
type Rollout struct {
	ID       int64
	From, To string // revisions; From is empty at the first deploy
	// Stale are the instances that were there when it began, its own and those of the job that runs before
	// it: they prove nothing. Ids, since the engine's clock may not be ours.
	Stale []string
	// First: there was nothing before, not even instances of somebody else.
	First bool
	// Back: From is proven, a failure goes back to it.
	Back bool
	// Reverse: this is such a way back; rollback_config rules.
	Reverse bool
	// Strategy said on the command line; empty: the service's.
	Strategy string
	// StopIn is the grace asked for of what it stops; nil: the service's own.
	StopIn *time.Duration

	// Shifts are the shares that it was given, the newest last. Checked: its checks were answered well.
	Shifts  []Shifted
	Checked bool
	// Held says at whose word it waits before the next step; Aborted, that a person ends it.
	Held, Aborted string
}

// Shifted is one step of a rollout that gives traffic to the new revision.
type Shifted struct {
	At    time.Time `json:"at"`
	Share int       `json:"share"` // per mille
	// Counts is what the edge had counted by revision then, since Counting.
	Counts   map[string]tender.Served `json:"counts,omitempty"`
	Counting time.Time                `json:"counting,omitzero"`
}

// Kept is a revision that was replaced and stays warm until then.
type Kept struct {
	Revision string    `json:"revision"`
	Until    time.Time `json:"until"`
}

// share is what the new revision has of the traffic, in per mille.
func (r *Rollout) share() int {
	if len(r.Shifts) == 0 {
		return 0
	}
	return r.Shifts[len(r.Shifts)-1].Share
}

// promoted reports whether the new revision has all of the traffic.
func (r *Rollout) promoted() bool { return r.share() >= whole }

// JobEnd is how a job ended.
type JobEnd struct {
	For  int64 // the rollout it ran before; 0: for its own revision
	Code int
}

// Try counts what was tried in a row without lasting success.
type Try struct {
	Count  int
	Last   time.Time
	Reason string
}

const (
	// Hopeless is how many attempts in a row decide that a rollout fails.
	Hopeless = 3
	// GiveUp is how many attempts in a row are made at all.
	GiveUp = 10
	// Steady is how long an instance must be ready before its attempts are forgotten.
	Steady = time.Minute

	maxPause    = time.Minute
	sickFor     = 30 * time.Second // unhealthy that long is restarted
	defaultHold = 5 * time.Second
	// healthBound ends the wait for a health check that says neither. Docker's own
	// retries end well before for everything but very long start periods.
	healthBound = 15 * time.Minute
)

// Next is when the next attempt may be made.
func (t Try) Next() time.Time {
	if t.Count == 0 {
		return time.Time{}
	}
	pause := maxPause
	if t.Count < 7 {
		pause = time.Second << (t.Count - 1)
	}
	return t.Last.Add(pause)
}

// GaveUp reports whether no further attempt is made.
func (t Try) GaveUp() bool { return t.Count >= GiveUp }

// HasHealthcheck reports whether the engine will say healthy or not.
func (s *Service) HasHealthcheck() bool {
	return s.Healthcheck > 0 || s.Healthcheck == 0 && s.ImageHealthcheck
}

func (s *Service) policy() tender.Rollout {
	if s.Open != nil && s.Open.Reverse {
		back := s.Rollback
		// What rollback_config does not say holds as on the way forth.
		if back.Order == "" {
			back.Order = s.Service.Rollout.Order
		}
		back.Strategy, back.Hold = s.Service.Rollout.Strategy, s.Service.Rollout.Hold
		if s.Open.Strategy != "" {
			back.Strategy = s.Open.Strategy
		}
		if back.Strategy == tender.Canary {
			back.Strategy = tender.BlueGreen // what is known is not tried step by step
		}
		return back
	}
	r := s.Service.Rollout
	if o := s.rollout(); o != nil && o.Strategy != "" {
		r.Strategy = o.Strategy
	}
	return r
}

func (s *Service) grace() time.Duration {
	if g := s.askedGrace(); g != nil {
		return *g
	}
	return s.Grace
}

// askedGrace is what somebody said; nil: nobody did.
func (s *Service) askedGrace() *time.Duration {
	if s.StopIn == nil && s.Open != nil {
		return s.Open.StopIn
	}
	return s.StopIn
}
