package plan

import (
	"fmt"
	"time"

	tender "github.com/tenderhq/tender"
)

// unmet says what v still waits for before an instance of it may be created
// or started; hopeless: that will not come by itself.
func (m *maker) unmet(v *view) (why string, hopeless bool) {
	if m.blocked != "" {
		return m.blocked, m.hopeless
	}
	for _, d := range v.DependsOn {
		on := m.views[d.Service]
		// Who was stopped is not missed by what served without them before: repair goes on.
		if on == nil || (on.Stopped || on.Gone) && v.Open == nil {
			continue
		}
		w, h := m.dependency(on, d.Condition)
		if w == "" {
			continue
		}
		if !d.Required && h {
			continue
		}
		// The first hopeless one is worth more than the first one.
		if why == "" || h && !hopeless {
			why, hopeless = w, h
		}
	}
	return why, hopeless
}

// held plans the wait for what v depends on, if there is something to wait for.
func (m *maker) held(v *view) bool {
	why, hopeless := m.unmet(v)
	switch {
	case why == "":
		return false
	case hopeless:
		m.stuck(v, "%s", why)
	default:
		m.wait(v, time.Time{}, "%s", why)
	}
	return true
}

func (m *maker) dependency(on *view, c tender.Condition) (why string, hopeless bool) {
	if on.Stopped || on.Gone {
		return on.Name + " is stopped", true
	}
	if c == tender.Completed {
		end, ended := on.ended(0)
		switch {
		case on.Replicas == 0:
		case !ended:
			return on.Name + " has not completed yet", on.Halted != ""
		case end.Code != 0:
			return fmt.Sprintf("%s failed with exit %d", on.Name, end.Code), true
		}
		return "", false
	}
	word, reached, crash := "started", 0, ""
	if c == tender.Healthy {
		word = "healthy"
	}
	for _, i := range on.fresh {
		shape, why := on.judge(i, m.now)
		if shape == sick && (i.State == tender.Restarting || crashing(i, m.now)) {
			crash = why
		}
		if shape == good || c != tender.Healthy && (shape == coming || shape == sick) && !i.Started.IsZero() {
			reached++
		}
	}
	if reached >= on.Replicas {
		return "", false
	}
	switch {
	case on.Failed != "":
		return fmt.Sprintf("%s is not %s and failed: %s", on.Name, word, on.Failed), true
	case on.Halted != "":
		return fmt.Sprintf("%s is not %s and paused: %s", on.Name, word, on.Halted), true
	case crash != "":
		return fmt.Sprintf("%s is not %s: %s", on.Name, word, crash), true
	case on.gaveUp():
		return fmt.Sprintf("%s is not %s and was given up", on.Name, word), true
	}
	return fmt.Sprintf("%s is not %s yet", on.Name, word), false
}

func (v *view) gaveUp() bool {
	for _, t := range v.Tries {
		if t.GaveUp() {
			return true
		}
	}
	return false
}

// ended returns the newest end of v as a job that ran for rollout; 0: for
// whatever, at this revision.
func (v *view) ended(rollout int64) (end JobEnd, ok bool) {
	for _, e := range v.Jobs {
		if rollout == 0 || e.For == rollout {
			end, ok = e, true
		}
	}
	return end, ok
}
