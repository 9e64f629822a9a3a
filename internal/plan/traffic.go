package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

// Lane is what an instance gets of its service's traffic at the edge. Lanes are
// made of the same input as the plan, so that a table can be made anew at any
// time.
type Lane struct {
	Service  string
	Revision string
	ID       string // of the instance
	// Share is its revision's share of the service's traffic, in per mille. The instances of one
	// revision have the same.
	Share int
	State LaneState
}

// LaneState is what an instance may get.
type LaneState string

const (
	In      LaneState = "in"      // serves
	Leaving LaneState = "leaving" // nothing new; what is under way ends
	Out     LaneState = "out"     // not ready: nothing
)

// whole is all of a service's traffic, in per mille.
const whole = 1000

// edgeBound is how long a step waits for an edge that does not tell.
const edgeBound = time.Minute

// Traffic is what the edge says of a service that routes or ports of the edge
// lead to.
type Traffic struct {
	// Away says why the edge does not tell, or does not serve what it was given; empty: it does. Since is
	// when that began, or when it began to tell.
	Away  string
	Since time.Time
	// Instances is what it has of each instance in the table that it serves now, by id.
	Instances map[string]Flow
	// Revisions is what it has counted since Counting. It never falls while Counting is the same.
	Revisions map[string]tender.Served
	Counting  time.Time
}

// Flow is one instance at the edge.
type Flow struct {
	State  LaneState
	Since  time.Time // when it took this state
	Open   int       // requests and connections under way
	Idle   time.Time // since when none are; zero: not known
	Reason string    // why it is out, as the edge saw it
}

// Lanes says what each instance of the services in w gets of their traffic, by
// service and instance. It is empty where there is no picture yet: then what was
// said before holds. On a stale picture it says what was right when that was taken.
func Lanes(w Wanted, seen tender.Picture, now time.Time) []Lane {
	if seen.Taken.IsZero() {
		return nil
	}
	m := newMaker(w, seen, now)
	m.walk()
	return m.lanes()
}

// lanes reads the lanes off a plan that has been made.
func (m *maker) lanes() []Lane {
	var out []Lane
	for _, v := range m.ordered() {
		out = append(out, m.lanesOf(v)...)
	}
	return out
}

func (m *maker) lanesOf(v *view) []Lane {
	all := v.instances()
	alone := !slices.ContainsFunc(all, func(i *tender.Instance) bool { return m.lane(v, i, false) == In })
	var lanes []Lane
	in := map[string]int{}
	for _, i := range all {
		l := Lane{Service: v.Name, Revision: v.revision(i), ID: i.ID, State: m.lane(v, i, alone)}
		if l.State == In {
			in[l.Revision]++
		}
		lanes = append(lanes, l)
	}
	shares := v.shares(in)
	for k := range lanes {
		lanes[k].Share = shares[lanes[k].Revision]
	}
	return lanes
}

// lane says what i gets. A newcomer gets nothing before it was good for long
// enough, unless nobody else serves: alone.
func (m *maker) lane(v *view, i *tender.Instance, alone bool) LaneState {
	switch {
	case m.leaving[i.ID] && i.State != tender.Removing:
		return Leaving
	case !i.Ready():
		return Out
	case v.fresh[i.Slot] != i || alone || m.settled(v, i) && m.named(v, i) || m.served(v, i):
		return In
	}
	return Out
}

// served reports whether the edge sends to i already: a daemon that has just
// begun has not seen for how long it was good, and takes nothing away for that.
func (m *maker) served(v *view, i *tender.Instance) bool {
	shape, _ := v.judge(i, m.now)
	return shape == good && v.Traffic != nil && v.Traffic.Instances[i.ID].State == In
}

// revision is what i counts as.
func (v *view) revision(i *tender.Instance) string {
	if i.Foreign {
		return v.Adopted[i.ID]
	}
	return i.Revision
}

// shares divides the traffic among the revisions; in counts the instances that
// each of them serves with.
func (v *view) shares(in map[string]int) map[string]int {
	if r := v.rollout(); r != nil && v.beside() {
		return besideShares(r, v.Revision, in)
	}
	if len(v.kept) > 0 {
		return map[string]int{v.Revision: whole}
	}
	return proportional(in, v.Revision, whole)
}

// proportional gives each revision as much as it has instances; what rounding
// leaves goes to the one that is wanted, or who comes first by name.
func proportional(in map[string]int, wanted string, total int) map[string]int {
	n := 0
	for _, count := range in {
		n += count
	}
	if n == 0 {
		return map[string]int{wanted: total}
	}
	shares := map[string]int{}
	rest := total
	first := wanted
	for rev, count := range in {
		shares[rev] = total * count / n
		rest -= shares[rev]
		if in[first] == 0 || in[wanted] == 0 && rev < first {
			first = rev
		}
	}
	shares[first] += rest
	return shares
}

// besideShares gives the newcomer what the last shift said, and the rest to the
// revision that it replaces.
func besideShares(r *Rollout, wanted string, in map[string]int) map[string]int {
	share := r.share()
	old := map[string]int{}
	for rev, count := range in {
		if rev != wanted {
			old[rev] = count
		}
	}
	if len(old) == 0 {
		return map[string]int{wanted: whole}
	}
	shares := map[string]int{}
	if old[r.From] > 0 {
		shares[r.From] = whole - share
	} else {
		shares = proportional(old, "", whole-share)
	}
	shares[wanted] = share
	return shares
}

// confirmed reports whether the edge sends to i, as far as that can be waited
// for; why and until say what is waited for.
func (m *maker) confirmed(v *view, i *tender.Instance) (ok bool, why string, until time.Time) {
	t := v.Traffic
	if t == nil || !i.Ready() || v.Open == nil && i.Drift != "" {
		return true, "", time.Time{}
	}
	until = since(i).Add(v.holdOf(i))
	if t.Since.After(until) {
		until = t.Since
	}
	until = until.Add(edgeBound)
	late := !m.now.Before(until)
	if t.Away != "" {
		return late, fmt.Sprintf("%s is good, and the edge does not tell: %s", i.Name, t.Away), until
	}
	f, there := t.Instances[i.ID]
	if there && f.State == In {
		return true, "", time.Time{}
	}
	// One that was in and is out for a moment is no verdict.
	if t := f.Since.Add(sickFor); there && t.After(until) {
		until = t
		late = !m.now.Before(until)
	}
	return late, fmt.Sprintf("the edge does not send to %s yet%s", i.Name, tail(f.Reason)), until
}

// refused says why the edge holds i, which is good, for no target, if it has
// done so for long enough.
func (m *maker) refused(v *view, i *tender.Instance) (why string, yes bool) {
	t := v.Traffic
	if t == nil || t.Away != "" || !m.settled(v, i) || t.Instances[i.ID].State != Out {
		return "", false
	}
	ok, _, _ := m.confirmed(v, i)
	return fmt.Sprintf("the edge cannot serve from %s%s", i.Name, tail(t.Instances[i.ID].Reason)), ok && i.Ready()
}

// Drained is how an instance left the traffic.
type Drained struct {
	Instance string
	Took     time.Duration
	Cut      int    // requests and connections that were under way still
	Skipped  string // why it was not waited for
}

// note is what is added to the cause of what follows.
func (d Drained) note() string {
	switch {
	case d.Skipped != "":
		return ", not drained: " + d.Skipped
	case d.Cut > 0:
		return fmt.Sprintf(", %s under way after %s", count(d.Cut, "request"), took(d.Took))
	case d.Instance != "":
		return ", drained in " + took(d.Took)
	}
	return ""
}

// drained takes i out of the traffic and reports whether it may go: nothing is
// under way there any more, or that took longer than grace. Where it may not go
// yet, the plan says what is waited for. d is empty where there was nothing to drain.
func (m *maker) drained(v *view, i *tender.Instance, grace time.Duration, cause string) (d Drained, ok bool) {
	m.leaving[i.ID] = true
	t := v.Traffic
	if t == nil || i.State != tender.Running {
		return d, true
	}
	a := Action{Verb: Drain, Service: v.Name, Revision: i.Revision, ID: i.ID, Instance: i.Name}
	if t.Away != "" {
		a.Until = t.Since.Add(edgeBound)
		if !m.now.Before(a.Until) {
			return Drained{Instance: i.Name, Skipped: "the edge does not tell: " + t.Away}, true
		}
		a.Cause = cause + "; the edge does not tell: " + t.Away
		m.add(a)
		return d, false
	}
	f, there := t.Instances[i.ID]
	bound := f.Since.Add(grace)
	switch {
	case !there: // it gets nothing
		return d, true
	case f.State != Leaving:
		a.Cause = cause
	case f.Open == 0 && m.w.foreseen:
		return d, true
	case f.Open == 0 && !f.Idle.IsZero():
		return Drained{Instance: i.Name, Took: max(f.Idle.Sub(f.Since), 0)}, true
	case f.Open == 0 || !m.now.Before(bound):
		return Drained{Instance: i.Name, Took: m.now.Sub(f.Since), Cut: f.Open}, true
	default:
		a.Until, a.Cause = bound, fmt.Sprintf("%s; %s under way", cause, count(f.Open, "request"))
	}
	m.add(a)
	return d, false
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// took prints a span without false precision.
func took(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	text := d.Round(time.Second).String()
	if whole, ok := strings.CutSuffix(text, "m0s"); ok {
		text = whole + "m"
	}
	if whole, ok := strings.CutSuffix(text, "h0m"); ok {
		text = whole + "h"
	}
	return text
}

// removeDrained plans the removal of i once it is drained.
func (m *maker) removeDrained(v *view, i *tender.Instance, volumes bool, format string, args ...any) {
	cause := fmt.Sprintf(format, args...)
	if d, ok := m.drained(v, i, v.grace(), cause); ok {
		m.remove(i, v.grace(), volumes, "%s", cause)
		m.plan[len(m.plan)-1].after(d)
	}
}

// after says that an action follows on a drain.
func (a *Action) after(d Drained) {
	if d.Instance != "" {
		a.Drained = append(a.Drained, d)
		a.Cause += d.note()
	}
}

// emptied reports whether all of these are drained, so that newcomers may take their place.
func (m *maker) emptied(v *view, old []*tender.Instance, cause string) (all []Drained, ok bool) {
	ok = true
	for _, i := range old {
		d, drained := m.drained(v, i, v.grace(), cause)
		if ok = ok && drained; d.Instance != "" {
			all = append(all, d)
		}
	}
	return all, ok
}
