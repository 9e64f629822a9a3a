package plan

import (
	"fmt"
	"maps"
	"slices"

	tender "github.com/tenderhq/tender"
)

// unnamed reports whether the newcomers of a are found by SERVICE-N alone until
// they have proven themselves. It adds to the cause why that cannot be, where
// somebody would expect it. As long as nobody else answers to the name, they have it at once.
func (m *maker) unnamed(v *view, a *Action) {
	if v.Open == nil || v.Open.First || !v.HasHealthcheck() || len(v.old) == 0 || len(v.Networks) == 0 {
		return
	}
	if !slices.ContainsFunc(v.instances(), func(i *tender.Instance) bool {
		return i.Found == tender.ByService && i.Ready() && !slices.Contains(a.Drop, i.ID)
	}) {
		return
	}
	if why := m.nameAtOnce(v); why != "" {
		a.Cause += "; found by name at once: " + why
		return
	}
	a.Unnamed = true
}

// nameAtOnce says why a newcomer of v cannot get its names later; empty: it can.
func (m *maker) nameAtOnce(v *view) string {
	if v.Publish != tender.PublishProxy && len(v.Ports) > 0 {
		return "the engine publishes its ports"
	}
	for _, name := range v.Networks {
		if !slices.ContainsFunc(m.seen.Networks, func(n tender.Network) bool { return n.Name == name && n.Roomy }) {
			return "network " + name + " has no addresses to keep"
		}
	}
	return ""
}

// mayBeNamed reports whether the wanted revision is to be found by name once it
// is good: not while it stands beside another one that has the traffic.
func (v *view) mayBeNamed() bool {
	r := v.rollout()
	return r == nil || !v.beside() || r.promoted()
}

// named reports whether a newcomer is found by name, or is not to be yet.
func (m *maker) named(v *view, i *tender.Instance) bool {
	return i.Found == tender.ByService || !v.mayBeNamed() || v.lost(i)
}

// lost reports whether i is outside of a network and could not be brought back: it is replaced.
func (v *view) lost(i *tender.Instance) bool {
	return i.Found == tender.Nowhere && v.tries(i.Slot).Count >= Hopeless
}

// promote plans the names of what has proven itself, and mends what has lost a network.
func (m *maker) promote(v *view) {
	for _, slot := range slices.Sorted(maps.Keys(v.fresh)) {
		i := v.fresh[slot]
		if i.State != tender.Running || i.Foreign || i.Found == tender.ByService || v.lost(i) {
			continue
		}
		due := v.mayBeNamed() && (m.settled(v, i) || v.Open == nil && i.Found == tender.Nowhere)
		t := v.tries(slot)
		switch {
		case i.Found == tender.BySlot && !due:
		case m.now.Before(t.Next()):
			m.pause(v, t, t.Reason)
		case i.Found == tender.Nowhere && !due:
			m.name(v, i, Demote, "it is not in a network of its revision")
		case i.Found == tender.Nowhere:
			m.name(v, i, Promote, "it is not in a network of its revision")
		default:
			m.name(v, i, Promote, "it is good: now it is found by name")
		}
	}
}

func (m *maker) name(v *view, i *tender.Instance, verb Verb, format string, args ...any) {
	m.add(Action{
		Verb: verb, Service: v.Name, Revision: i.Revision, ID: i.ID, Instance: i.Name, Slot: i.Slot, Repair: i.Found == tender.Nowhere,
		Cause: fmt.Sprintf(format, args...),
	})
}

// promoteAll plans the names of a whole revision that is about to get all of the
// traffic; false: it has them.
func (m *maker) promoteAll(v *view) bool {
	before := len(m.plan)
	for _, slot := range slices.Sorted(maps.Keys(v.fresh)) {
		if i := v.fresh[slot]; i.Found == tender.BySlot && i.State == tender.Running {
			m.name(v, i, Promote, "all of the traffic is the next step")
		}
	}
	return len(m.plan) > before
}

// demoted reports whether an old instance is not found by name any more, as far as
// that can be had, and plans it where it is; the new revision must have the name.
func (m *maker) demoted(v *view, i *tender.Instance) bool {
	has := i.Found == tender.ByService && i.Pinned || i.Found == tender.Nowhere
	if !has || i.Foreign || i.State != tender.Running || v.tries(i.Slot).Count >= Hopeless {
		return true
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(v.fresh)), func(n *tender.Instance) bool { return n.Ready() && n.Found == tender.ByService }) {
		return true
	}
	m.name(v, i, Demote, "who asks for %s by name gets %s", v.Name, v.Revision)
	return false
}
