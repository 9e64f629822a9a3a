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

	Open *Rollout
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
}

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
		return back
	}
	r := s.Service.Rollout
	if s.Open != nil && s.Open.Strategy != "" {
		r.Strategy = s.Open.Strategy
	}
	return r
}

func (s *Service) grace() time.Duration {
	if s.StopIn != nil {
		return *s.StopIn
	}
	return s.Grace
}
