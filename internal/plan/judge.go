package plan

import (
	"fmt"
	"slices"
	"time"

	tender "github.com/tenderhq/tender"
)

// shape is what an instance of the wanted revision amounts to.
type shape int

const (
	good   shape = iota // serves, has done its work, or was paused by somebody
	coming              // may become good by itself
	sick                // runs and is no good
	ended               // is not running and should be
	spent               // is not running, and nobody may start it again
	broken              // cannot be started as it is
)

// judge says what i amounts to, and why it is not good.
func (v *view) judge(i *tender.Instance, now time.Time) (shape, string) {
	switch i.State {
	case tender.Paused:
		return good, ""
	case tender.Running:
		switch i.Health {
		case tender.Unhealthy:
			return sick, i.Name + " is unhealthy" + tail(i.HealthOutput)
		case tender.Starting:
			if crashing(i, now) {
				return sick, fmt.Sprintf("%s was restarted %d times", i.Name, i.Restarts)
			}
			if now.Before(since(i).Add(healthBound)) {
				return coming, i.Name + " is not healthy yet"
			}
			return sick, fmt.Sprintf("%s is not healthy after %s", i.Name, healthBound)
		}
		if crashing(i, now) {
			return sick, fmt.Sprintf("%s was restarted %d times", i.Name, i.Restarts)
		}
		return good, ""
	case tender.Restarting:
		if i.Restarts >= Hopeless {
			return sick, fmt.Sprintf("%s %s and was restarted %d times", i.Name, exit(i), i.Restarts)
		}
		return coming, i.Name + " is being restarted by the engine"
	case tender.Removing:
		return coming, i.Name + " is being removed"
	case tender.Created:
		return ended, i.Name + " was created and not started" + tail(i.Error)
	case tender.Dead:
		return broken, i.Name + " is dead" + tail(i.Error)
	}
	why := i.Name + " " + exit(i)
	if !v.Job && lives(v.StartOf, i) {
		return ended, "started by request"
	}
	switch v.Restart {
	case "always", "unless-stopped":
		return ended, why
	}
	if i.ExitCode == 0 && i.Error == "" {
		return good, ""
	}
	switch {
	case v.Restart == "no":
		return spent, why + `, and restart is "no"`
	case v.Restart == "on-failure" && v.RestartMax > 0 && v.restartsOf(i) >= v.RestartMax:
		return spent, fmt.Sprintf("%s after %d restarts", why, v.restartsOf(i))
	}
	return ended, why
}

// restartsOf counts the restarts of i in a row, by whoever makes them.
func (v *view) restartsOf(i *tender.Instance) int {
	if v.ordered() {
		return v.Tries[i.Slot].Count
	}
	return i.Restarts
}

// ordered reports whether Tender starts and restarts v, and not the engine.
func (s *Service) ordered() bool { return s.Boot == tender.BootOrdered }

// endless reports whether restart: asks Tender to start what ended again for ever,
// as the engine would.
func (s *Service) endless() bool {
	return s.ordered() && (s.Restart == "always" || s.Restart == "unless-stopped" || s.Restart == "on-failure" && s.RestartMax == 0)
}

// crashing reports whether the engine keeps restarting i: often, and lately, by
// the engine's clock and as this process saw it. One of them says nothing where
// the clock was set, or where this process is new.
func crashing(i *tender.Instance, now time.Time) bool {
	return i.Restarts >= Hopeless && now.Before(i.Started.Add(Steady)) && now.Before(since(i).Add(Steady))
}

// lives reports whether i is in the life that it had when of was written down.
func lives(of map[string]time.Time, i *tender.Instance) bool {
	started, there := of[i.ID]
	return there && started.Equal(i.Started)
}

// cut reports whether i was ended from outside: by a signal, or together with
// its engine, which says 255 then. That proves nothing of its revision.
func cut(i *tender.Instance) bool {
	return !i.OOM && i.Error == "" && (i.ExitCode == 255 || i.ExitCode == 128+9 || i.ExitCode == 128+15)
}

func exit(i *tender.Instance) string {
	if i.OOM {
		return fmt.Sprintf("was ended for memory (exit %d)", i.ExitCode)
	}
	return fmt.Sprintf("exited with %d", i.ExitCode) + tail(i.Error)
}

func tail(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// since is when i became what it is now, as this process saw it: that clock
// only goes forward, and the engine's may not be ours.
func since(i *tender.Instance) time.Time {
	if i.Since.IsZero() {
		return i.Started
	}
	return i.Since
}

// hold is how long a newcomer must stay good before the next step.
func (v *view) hold() time.Duration {
	p := v.policy()
	switch {
	case v.Open == nil:
		return 0
	case p.Hold != nil:
		return *p.Hold
	case v.Open.First:
		return 0
	case p.Monitor > 0:
		return p.Monitor
	case v.HasHealthcheck():
		return 0
	}
	return defaultHold
}

// holdOf is the same for one instance: one without a healthcheck that ended
// already and was started again has to show that it stays.
func (v *view) holdOf(i *tender.Instance) time.Duration {
	if v.Open != nil && v.Service.Rollout.Hold == nil && i.Health == "" && (i.Restarts > 0 || v.Tries[i.Slot].Count > 0) {
		return max(v.hold(), defaultHold)
	}
	return v.hold()
}

// Order says in which order old and new instances change places, and why. old
// holds the instances that would be replaced.
func Order(s *Service, old []*tender.Instance) (order, why string) {
	p := s.policy()
	if p.Strategy == tender.Recreate {
		return tender.Recreate, "all old instances go first, as strategy says"
	}
	if p.Strategy == tender.BlueGreen || p.Strategy == tender.Canary {
		if why := s.notBeside(old); why == "" {
			return p.Strategy, "as strategy says"
		} else if order, _ := s.inTurn(p, old); order == "start-first" {
			return order, fmt.Sprintf("not %s: %s", p.Strategy, why)
		}
	}
	return s.inTurn(p, old)
}

// notBeside says why two whole revisions cannot share the traffic; empty: they can.
func (s *Service) notBeside(old []*tender.Instance) string {
	if s.Traffic == nil {
		return "the edge does not serve it"
	}
	if s.OneAtATime != "" {
		return s.OneAtATime
	}
	if s.moves(old) {
		return "its anonymous volume moves to the newcomer"
	}
	return ""
}

// inTurn is the order in which instances replace each other one by one.
func (s *Service) inTurn(p tender.Rollout, old []*tender.Instance) (order, why string) {
	if p.Order != "" {
		return p.Order, "as order says"
	}
	if s.OneAtATime != "" {
		return "stop-first", s.OneAtATime
	}
	if s.moves(old) {
		return "stop-first", "its anonymous volume moves to the newcomer"
	}
	return "start-first", "old and new can run side by side"
}

// moves reports whether an anonymous volume of old has to be taken over.
func (s *Service) moves(old []*tender.Instance) bool {
	return !s.RenewAnon && slices.ContainsFunc(old, func(i *tender.Instance) bool { return len(i.Anonymous) > 0 })
}
