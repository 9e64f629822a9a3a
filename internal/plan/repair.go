package plan

import (
	"maps"
	"slices"
	"time"

	tender "github.com/tenderhq/tender"
)

// mend plans the repair of instances of the wanted revision that are there and
// no good. Pauses between attempts grow; after GiveUp of them it stops, unless it
// stands in for the engine's restart policy, which does not.
func (m *maker) mend(v *view) {
	for _, slot := range slices.Sorted(maps.Keys(v.fresh)) {
		i := v.fresh[slot]
		shape, why := v.judge(i, m.now)
		a := Action{Service: v.Name, Revision: i.Revision, ID: i.ID, Instance: i.Name, Slot: slot, Grace: v.grace(), Repair: true, Cause: why}
		switch shape {
		case good:
			continue
		case coming:
			if v.Open == nil {
				m.wait(v, m.now.Add(maxPause), "%s", why)
			}
			continue
		case spent:
			m.stuck(v, "%s", why)
			continue
		case sick:
			if i.State == tender.Restarting || crashing(i, m.now) {
				// The engine restarts it already; another restart would only reset its pauses.
				m.add(Action{Verb: Wait, Service: v.Name, Revision: v.Revision, Until: m.now.Add(maxPause), Tried: i.Restarts, Cause: why})
				continue
			}
			if t := since(i).Add(sickFor); m.now.Before(t) {
				m.wait(v, t, "%s", why)
				continue
			}
			a.Verb = Restart
		case ended:
			a.Verb = Start
		case broken:
			a.Verb, a.ID, a.Instance, a.Slots = Scale, "", "", []int{slot}
			a.Drop, a.dropped = []string{i.ID}, []string{i.Name}
			if len(i.Anonymous) > 0 {
				a.Inherit = map[int]string{slot: i.ID}
			}
		}
		if m.held(v) {
			continue
		}
		if t := v.tries(slot); t.GaveUp() && !(shape == ended && v.endless()) {
			m.stuck(v, "given up after %d attempts: %s", t.Count, why)
			continue
		} else if m.now.Before(t.Next()) {
			m.pause(v, t, why)
			continue
		}
		if a.Verb == Scale {
			m.unnamed(v, &a)
		}
		m.add(a)
	}
}

// restarts plans the restarts that were asked for, or that the replacement of
// a dependency asks for: one batch at a time, so that the others serve.
func (m *maker) restarts(v *view) {
	why := map[int]string{}
	var due []int
	for _, slot := range slices.Sorted(maps.Keys(v.fresh)) {
		i := v.fresh[slot]
		if i.State != tender.Running && i.State != tender.Exited || i.Started.IsZero() {
			continue
		}
		if cause := m.restartCause(v, i); cause != "" {
			due, why[slot] = append(due, slot), cause
		}
	}
	if len(due) == 0 || slices.ContainsFunc(m.plan, func(a Action) bool { return a.Service == v.Name && !a.Waits() }) {
		return
	}
	for slot, i := range v.fresh {
		if shape, cause := v.judge(i, m.now); shape != good && why[slot] == "" {
			m.wait(v, time.Time{}, "%s, before the next restart", cause)
			return
		}
		if ok, cause, until := m.confirmed(v, i); !ok && why[slot] == "" {
			m.wait(v, until, "%s, before the next restart", cause)
			return
		}
	}
	size := 1
	if p := v.policy(); p.Parallel != nil {
		size = *p.Parallel
	}
	if size <= 0 || size > len(due) {
		size = len(due)
	}
	for _, slot := range due[:size] {
		i := v.fresh[slot]
		a := Action{Verb: Restart, Service: v.Name, Revision: i.Revision, ID: i.ID, Instance: i.Name, Grace: v.grace(), Cause: why[slot]}
		if i.State == tender.Exited {
			a.Verb = Start
		}
		d, ok := m.drained(v, i, v.grace(), a.Cause)
		if !ok {
			continue
		}
		a.after(d)
		m.add(a)
	}
}

func (m *maker) restartCause(v *view, i *tender.Instance) string {
	if lives(v.RestartOf, i) {
		return "restarted by request"
	}
	if i.State != tender.Running {
		return ""
	}
	for _, d := range v.DependsOn {
		on := m.views[d.Service]
		if !d.Restart || on == nil || on.Open != nil || len(on.fresh) < on.Replicas || len(on.fresh) == 0 || len(on.old) > 0 {
			continue
		}
		if lives(on.RestartOf, i) && on.restarted() {
			return on.Name + " was restarted"
		}
		replaced := true
		for _, other := range on.fresh {
			// The engine's clock says so, and this process did not see it the other way round.
			replaced = replaced && other.Created.After(i.Started) && !other.Begun.Before(i.Begun)
		}
		if replaced {
			return on.Name + " was replaced"
		}
	}
	return ""
}

// restarted reports whether every instance has been started since that was asked for.
func (v *view) restarted() bool {
	for _, i := range v.fresh {
		if lives(v.RestartOf, i) {
			return false
		}
	}
	return true
}
