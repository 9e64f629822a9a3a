package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

// run plans a service that is to run: the rollout if one is open, and repair.
func (m *maker) run(v *view) {
	before := len(m.plan)
	bad := m.bad(v)
	tolerated := map[int]bool{}
	if len(bad) > 0 {
		if m.fails(v, bad) {
			return
		}
		for slot := range bad {
			tolerated[slot] = true
		}
	}
	if m.tidy(v, tolerated) {
		// Old ones leave before the next newcomers come.
		m.mend(v)
		m.promote(v)
		return
	}
	m.move(v, tolerated)
	m.mend(v)
	m.promote(v)
	m.restarts(v)
	done := func() bool {
		return !slices.ContainsFunc(m.plan[before:], func(a Action) bool { return a.Verb != Name })
	}
	if v.Open != nil && done() && v.beside() && !v.Open.promoted() {
		m.besideNext(v)
	}
	if v.Open != nil && done() {
		m.settle(v)
	}
	if v.Open != nil && done() {
		m.finish(v, tolerated)
	}
}

// bad collects, per slot, why the open rollout cannot succeed there; slot 0 is
// the service as a whole.
func (m *maker) bad(v *view) map[int]string {
	if v.Open == nil {
		return nil
	}
	bad := map[int]string{}
	first := v.Open.First
	if v.Open.Aborted != "" {
		bad[0] = "aborted by " + v.Open.Aborted
	} else if t := v.Tries[CheckSlot]; t.Count >= Hopeless {
		bad[0] = t.Reason
	} else if why := m.judgeStep(v); why != "" {
		bad[0] = why
	}
	for slot := 1; slot <= v.Replicas; slot++ {
		tries := v.tries(slot)
		i := v.fresh[slot]
		if i == nil {
			if tries.Count >= Hopeless {
				bad[slot] = tries.Reason
			}
			continue
		}
		shape, why := v.judge(i, m.now)
		// What was there before this rollout is mended first.
		earlier := slices.Contains(v.Open.Stale, i.ID) && tries.Count < Hopeless
		switch {
		case earlier:
		case shape == sick, shape == spent:
			bad[slot] = why
		case shape == broken:
			if tries.Count >= Hopeless {
				bad[slot] = why + tail(tries.Reason)
			}
		case shape == good:
			if why, yes := m.refused(v, i); yes {
				bad[slot] = why
			}
		case shape == ended && (!first && !v.endless() && !cut(i) || tries.Count >= Hopeless):
			bad[slot] = why
		}
	}
	if _, known := bad[0]; !known && len(v.fresh) < v.Replicas {
		if why, hopeless := m.unmet(v); hopeless {
			bad[0] = why
		} else if why == "" {
			if why, hopeless := m.before(v, false); hopeless {
				bad[0] = why
			}
		}
	}
	return bad
}

// fails plans what failure_action says; false: the rollout goes on.
func (m *maker) fails(v *view, bad map[int]string) bool {
	p := v.policy()
	_, whole := bad[0]
	if !whole && float64(len(bad)) <= p.MaxRatio*float64(v.Replicas) {
		return false
	}
	if p.Failure == "continue" && !whole {
		return false
	}
	slot := slices.Min(slices.Collect(maps.Keys(bad)))
	a := Action{Verb: Fail, Service: v.Name, Revision: v.Revision, Rollout: v.Open.ID, Cause: bad[slot]}
	switch {
	case p.Failure == "pause" && v.Open.Aborted == "":
		a.Pause = true
	case v.Open.Back:
		a.Verb = Rollback
	}
	m.add(a)
	return true
}

// tidy plans what has to leave or to be renamed whatever comes next; leaving
// says that something leaves.
func (m *maker) tidy(v *view, tolerated map[int]bool) (leaving bool) {
	before := len(m.plan)
	for _, i := range v.extra {
		switch {
		case i.State == tender.Removing:
		case i.Slot > v.Replicas:
			m.removeDrained(v, i, v.RenewAnon, "%d wanted%s", v.Replicas, tail(v.Counted.Cause))
		default:
			m.removeDrained(v, i, v.RenewAnon, "doubled in slot %d", i.Slot)
		}
	}
	if v.Open != nil && v.beside() {
		m.leaves(v)
	} else {
		m.replaced(v, tolerated)
	}
	leaving = len(m.plan) > before
	for _, slot := range slices.Sorted(maps.Keys(v.fresh)) {
		i := v.fresh[slot]
		name := plainName(i)
		if name == "" || m.names[name] > 0 || i.State == tender.Removing {
			continue
		}
		m.add(Action{Verb: Name, Service: v.Name, Revision: i.Revision, ID: i.ID, Instance: i.Name, Cause: "the name " + name + " is free"})
	}
	return leaving
}

// replaced plans the way out of the old instances whose newcomer serves.
func (m *maker) replaced(v *view, tolerated map[int]bool) {
	busy, _ := m.busy(v, tolerated)
	moved := busy == 0 && len(v.fresh) >= v.Replicas
	for _, i := range v.old {
		if i.State == tender.Removing {
			continue
		}
		newcomer := v.fresh[i.Slot]
		switch {
		case newcomer != nil && !tolerated[i.Slot] && m.serves(v, newcomer):
			m.removeDrained(v, i, v.RenewAnon, "replaced by %s", v.revision(newcomer))
		case moved && newcomer != nil:
			m.removeDrained(v, i, v.RenewAnon, "replaced by %s, which failures are tolerated of", v.revision(newcomer))
		case moved:
			m.removeDrained(v, i, v.RenewAnon, "%d wanted", v.Replicas)
		}
	}
}

// serves reports whether a newcomer is settled, and gets traffic where the edge gives it.
func (m *maker) serves(v *view, i *tender.Instance) bool {
	ok, _, _ := m.confirmed(v, i)
	return ok && m.settled(v, i) && m.named(v, i)
}

// settled reports whether a newcomer is good and was so for long enough.
func (m *maker) settled(v *view, i *tender.Instance) bool {
	shape, _ := v.judge(i, m.now)
	return shape == good && !m.now.Before(since(i).Add(v.holdOf(i)))
}

// say adds a wait that has a cause; what mend deals with has none.
func (m *maker) say(what Action) {
	if what.Cause != "" {
		m.add(what)
	}
}

// busy counts the instances that the next step waits for.
func (m *maker) busy(v *view, tolerated map[int]bool) (n int, what Action) {
	for _, slot := range slices.Sorted(maps.Keys(v.fresh)) {
		i := v.fresh[slot]
		if tolerated[slot] || m.serves(v, i) {
			continue
		}
		n++
		if n > 1 {
			continue
		}
		what = Action{Verb: Wait, Service: v.Name, Revision: v.Revision}
		shape, why := v.judge(i, m.now)
		switch {
		case shape == good && m.settled(v, i) && !m.named(v, i):
			// That is planned beside it.
		case shape == good && m.settled(v, i):
			_, what.Cause, what.Until = m.confirmed(v, i)
		case shape == good:
			hold := v.holdOf(i)
			what.Until = since(i).Add(hold)
			what.Cause = fmt.Sprintf("%s must stay good for %s", i.Name, hold)
		case shape == coming:
			what.Cause = why
			if i.Health == tender.Starting && !i.Started.IsZero() {
				what.Until = since(i).Add(healthBound)
			}
		}
	}
	return n, what
}

// move plans the next newcomers: all at once where nobody is replaced, else
// batch by batch.
func (m *maker) move(v *view, tolerated map[int]bool) {
	var todo, drifted []int
	limit := m.limit(v)
	for slot := 1; slot <= v.Replicas; slot++ {
		switch i := v.fresh[slot]; {
		case i == nil && slot > limit:
		case i == nil:
			todo = append(todo, slot)
		case i.Drift != "" && i.State == tender.Running && v.Open == nil && (i.Found != tender.Nowhere || v.lost(i)):
			drifted = append(drifted, slot)
		}
	}
	if len(todo) == 0 && len(drifted) == 0 {
		if busy, what := m.busy(v, tolerated); busy > 0 && v.Open != nil {
			m.say(what)
		}
		return
	}
	if len(todo) == 0 {
		m.drift(v, drifted)
		return
	}
	if m.held(v) {
		return
	}
	if why, _ := m.before(v, true); why != "" {
		m.wait(v, time.Time{}, "%s", why)
		return
	}
	if t := v.tries(todo...); t.GaveUp() {
		m.stuck(v, "given up after %d attempts: %s", t.Count, t.Reason)
		return
	} else if m.now.Before(t.Next()) {
		m.pause(v, t, t.Reason)
		return
	}
	a := Action{Verb: Scale, Service: v.Name, Revision: v.Revision, Grace: v.grace(), StopIn: v.askedGrace()}
	if len(v.old) == 0 {
		a.Slots = todo
		switch {
		case v.Open == nil:
			a.Cause, a.Repair = m.missing(v, todo)
		case v.Open.First:
			a.Cause = "first deploy"
		default:
			a.Cause = "not there yet"
		}
		m.add(a)
		return
	}
	m.replace(v, a, todo, tolerated)
}

// replace plans the next batch of a move from old instances to new ones.
func (m *maker) replace(v *view, a Action, todo []int, tolerated map[int]bool) {
	order, why := Order(v.Service, v.old)
	from := v.from()
	if v.Open != nil && v.beside() {
		a.Slots = todo
		a.Cause = fmt.Sprintf("beside %s, %s: %s", from, order, why)
		if v.Open.promoted() {
			a.Cause = "missing"
		}
		m.unnamed(v, &a)
		m.add(a)
		return
	}
	if v.Open != nil && v.Open.Held != "" {
		m.wait(v, time.Time{}, "held by %s, until tender rollout resume %d", v.Open.Held, v.Open.ID)
		return
	}
	if order == "recreate" {
		drained, ok := m.emptied(v, v.old, "recreate: "+why)
		if !ok {
			return
		}
		a.Drained = drained
		a.Slots = todo
		m.dropOld(v, &a, func(*tender.Instance) bool { return true })
		a.Cause = fmt.Sprintf("replaces %s, recreate: %s", from, why)
		m.add(a)
		return
	}
	if busy, what := m.busy(v, tolerated); busy > 0 {
		m.say(what)
		return
	}
	p := v.policy()
	if p.Delay > 0 && len(v.fresh) > 0 {
		var last time.Time
		for _, i := range v.fresh {
			if t := since(i).Add(v.hold() + p.Delay); t.After(last) {
				last = t
			}
		}
		if m.now.Before(last) {
			m.wait(v, last, "delay of %s between batches", p.Delay)
			return
		}
	}
	size := 1
	if p.Parallel != nil {
		size = *p.Parallel
	}
	if size <= 0 || size > len(todo) {
		size = len(todo)
	}
	a.Slots = todo[:size]
	mine := func(i *tender.Instance) bool { return slices.Contains(a.Slots, i.Slot) }
	if order == "stop-first" {
		drained, ok := m.emptied(v, slices.DeleteFunc(slices.Clone(v.old), func(i *tender.Instance) bool { return !mine(i) }), "stop-first: "+why)
		if !ok {
			return
		}
		a.Drained = drained
		m.dropOld(v, &a, mine)
	} else if !v.RenewAnon {
		v.inherit(&a, mine)
	}
	if !slices.ContainsFunc(v.old, mine) {
		a.Cause = fmt.Sprintf("%d wanted", v.Replicas)
	} else {
		a.Cause = fmt.Sprintf("replaces %s, %s: %s", from, order, why)
	}
	m.unnamed(v, &a)
	m.add(a)
}

func (v *view) from() string {
	var names []string
	for _, i := range v.old {
		name := i.Revision
		if i.Foreign {
			name = "what Docker Compose made"
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, " and ")
}

func (m *maker) dropOld(v *view, a *Action, mine func(*tender.Instance) bool) {
	for _, i := range v.old {
		if mine(i) {
			a.Drop = append(a.Drop, i.ID)
			a.dropped = append(a.dropped, i.Name)
		}
	}
	if !v.RenewAnon {
		v.inherit(a, mine)
	} else {
		a.Volumes = len(a.Drop) > 0
	}
}

// inherit lets each newcomer take over the anonymous volumes of its slot.
func (v *view) inherit(a *Action, mine func(*tender.Instance) bool) {
	for _, i := range v.old {
		if mine(i) && len(i.Anonymous) > 0 && slices.Contains(a.Slots, i.Slot) {
			if a.Inherit == nil {
				a.Inherit = map[int]string{}
			}
			a.Inherit[i.Slot] = i.ID
		}
	}
}

// drift plans the replacement of one instance that somebody changed. The slot
// is taken by the same revision, so the old one goes first.
func (m *maker) drift(v *view, slots []int) {
	if busy, what := m.busy(v, nil); busy > 0 {
		m.say(what)
		return
	}
	i := v.fresh[slots[0]]
	if m.held(v) {
		return
	}
	if t := v.tries(i.Slot); t.GaveUp() {
		m.stuck(v, "given up after %d attempts: %s", t.Count, t.Reason)
		return
	} else if m.now.Before(t.Next()) {
		m.pause(v, t, i.Name+" has drifted: "+i.Drift)
		return
	}
	drained, ok := m.emptied(v, []*tender.Instance{i}, "drifted: "+i.Drift)
	if !ok {
		return
	}
	a := Action{
		Verb: Scale, Service: v.Name, Revision: v.Revision, Slots: slots[:1], Drop: []string{i.ID}, dropped: []string{i.Name},
		Grace: v.grace(), Repair: true, Cause: "drifted: " + i.Drift, Drained: drained,
	}
	if len(i.Anonymous) > 0 {
		a.Inherit = map[int]string{i.Slot: i.ID}
	}
	m.add(a)
}

func (m *maker) finish(v *view, tolerated map[int]bool) {
	cause := "all instances are good"
	switch {
	case v.Replicas == 0:
		cause = "none wanted"
	case len(tolerated) > 0:
		cause = fmt.Sprintf("%d of %d instances are good, the rest is tolerated", v.Replicas-len(tolerated), v.Replicas)
	}
	a := Action{Verb: Finish, Service: v.Name, Revision: v.Revision, Rollout: v.Open.ID}
	if keep := v.policy().Keep; keep > 0 && len(v.old) > 0 && v.Open.promoted() {
		// Whatever is left of the old ones was left on purpose.
		a.Kept = Kept{Revision: v.Open.From, Until: v.Open.shifted().At.Add(keep)}
		cause += fmt.Sprintf("; %s is kept for %s", v.Open.From, took(keep))
	}
	a.Cause = cause
	m.add(a)
}

// tries returns the worst of the attempts in these slots and in the service as a whole.
func (v *view) tries(slots ...int) Try {
	worst := v.Tries[0]
	for _, slot := range slots {
		if t := v.Tries[slot]; t.Count > worst.Count {
			worst = t
		}
	}
	return worst
}
