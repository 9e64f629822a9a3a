package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

// Make returns what can be done now towards w, given what is seen. It plans
// nothing before the first picture and nothing on a stale one.
func Make(w Wanted, seen tender.Picture, now time.Time) Plan {
	if seen.Taken.IsZero() {
		return Plan{{Verb: Wait, Service: w.Project, Cause: "there is no picture of the engine yet"}}
	}
	if !seen.Stale.IsZero() {
		return Plan{{Verb: Wait, Service: w.Project, Cause: "the engine does not answer since " + seen.Stale.UTC().Format(time.DateTime)}}
	}
	m := newMaker(w, seen, now)
	m.walk()
	return m.plan
}

// walk plans the whole project.
func (m *maker) walk() {
	switch {
	case m.w.Down != nil && m.w.Down.Ended:
		return
	case m.w.Down != nil:
		m.down()
		return
	}
	m.ensure()
	for _, v := range m.ordered() {
		m.service(v)
	}
	if m.w.Orphans {
		m.orphans()
	}
}

// maker holds one run of Make.
type maker struct {
	w     *Wanted
	now   time.Time
	seen  tender.Picture
	views map[string]*view
	names map[string]int // of all instances of the engine that we see
	all   []tender.Instance
	plan  Plan
	// blocked says why nothing can be created yet.
	blocked  string
	hopeless bool // and that it will not come
	jobs     map[string]bool
	// leaving are the instances that get nothing new from the edge, since something goes on with them.
	leaving map[string]bool
}

// view is one service with its instances.
type view struct {
	*Service
	fresh map[int]*tender.Instance // of the wanted revision, one per slot
	// leftover are of the wanted revision, too, and were created and never started: somebody was killed
	// there. Scale takes them up, so that their slots count as empty.
	leftover map[int]*tender.Instance
	extra    []*tender.Instance // of the wanted revision, above the replicas or doubled
	old      []*tender.Instance // of any other revision, foreign ones too
	kept     []*tender.Instance // of another revision, too, and they stay for a while
}

func newMaker(w Wanted, seen tender.Picture, now time.Time) *maker {
	m := &maker{w: &w, now: now, seen: seen, views: map[string]*view{}, names: map[string]int{}, jobs: map[string]bool{}, leaving: map[string]bool{}}
	for i := range w.Services {
		s := &w.Services[i]
		m.views[s.Name] = &view{Service: s, fresh: map[int]*tender.Instance{}, leftover: map[int]*tender.Instance{}}
	}
	for _, i := range seen.Instances {
		m.names[i.Name]++
		if i.Project == w.Project && !i.Oneoff {
			m.all = append(m.all, i)
		}
	}
	for k := range m.all {
		if v := m.views[m.all[k].Service]; v != nil {
			v.take(&m.all[k])
		}
	}
	for _, v := range m.views {
		v.sort()
		v.keep(now)
	}
	return m
}

func (v *view) take(i *tender.Instance) {
	rev := i.Revision
	if i.Foreign {
		rev = v.Adopted[i.ID]
	}
	if rev == "" || rev != v.Revision {
		v.old = append(v.old, i)
		return
	}
	if i.Slot < 1 || i.Slot > v.Replicas {
		v.extra = append(v.extra, i)
		return
	}
	have := v.fresh[i.Slot]
	if i.State == tender.Created && !i.Foreign && have == nil && v.leftover[i.Slot] == nil {
		v.leftover[i.Slot] = i
		return
	}
	switch {
	case have == nil:
		v.fresh[i.Slot] = i
	case !have.Ready() && i.Ready() || have.Ready() == i.Ready() && i.Created.Before(have.Created):
		v.fresh[i.Slot] = i
		v.extra = append(v.extra, have)
	default:
		v.extra = append(v.extra, i)
	}
}

func (v *view) sort() {
	for slot, i := range v.leftover {
		if v.fresh[slot] != nil {
			v.extra = append(v.extra, i)
			delete(v.leftover, slot)
		}
	}
	slices.SortFunc(v.old, func(a, b *tender.Instance) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Name, b.Name))
	})
	// Highest slot first: that is the order in which they go.
	slices.SortFunc(v.extra, func(a, b *tender.Instance) int {
		return cmp.Or(cmp.Compare(b.Slot, a.Slot), cmp.Compare(a.Name, b.Name))
	})
}

// keep sets aside what stays for the way back.
func (v *view) keep(now time.Time) {
	if v.Open != nil || !now.Before(v.Kept.Until) {
		return
	}
	v.old = slices.DeleteFunc(v.old, func(i *tender.Instance) bool {
		stays := !i.Foreign && i.Revision == v.Kept.Revision
		if stays {
			v.kept = append(v.kept, i)
		}
		return stays
	})
}

// ordered returns the services with dependencies first, else by name.
func (m *maker) ordered() []*view {
	var out []*view
	done := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		v := m.views[name]
		if v == nil || done[name] {
			return
		}
		done[name] = true
		for _, d := range v.needs() {
			visit(d)
		}
		out = append(out, v)
	}
	for _, name := range slices.Sorted(maps.Keys(m.views)) {
		visit(name)
	}
	return out
}

// needs names the services that v waits for, by name.
func (v *view) needs() []string {
	var names []string
	for _, d := range v.DependsOn {
		names = append(names, d.Service)
	}
	if b := v.Service.Rollout.Before; b != "" {
		names = append(names, b)
	}
	slices.Sort(names)
	return names
}

func (m *maker) add(a Action) { m.plan = append(m.plan, a) }

func (m *maker) wait(v *view, until time.Time, format string, args ...any) {
	m.add(Action{Verb: Wait, Service: v.Name, Revision: v.Revision, Until: until, Cause: fmt.Sprintf(format, args...)})
}

// pause plans the wait for the next attempt.
func (m *maker) pause(v *view, t Try, why string) {
	m.add(Action{
		Verb: Wait, Service: v.Name, Revision: v.Revision, Until: t.Next(), Tried: t.Count,
		Cause: fmt.Sprintf("%s, attempt %d follows", why, t.Count+1),
	})
}

func (m *maker) stuck(v *view, format string, args ...any) {
	m.add(Action{Verb: Wait, Service: v.Name, Revision: v.Revision, Stuck: true, Cause: fmt.Sprintf(format, args...)})
}

func (m *maker) remove(i *tender.Instance, grace time.Duration, volumes bool, format string, args ...any) {
	m.add(Action{
		Verb: Remove, Service: i.Service, Revision: i.Revision, ID: i.ID, Instance: i.Name, Grace: grace,
		Volumes: volumes && len(i.Anonymous) > 0, Cause: fmt.Sprintf(format, args...),
	})
}

// ensure plans the networks and volumes, without which nothing is created.
func (m *maker) ensure() {
	cause := fmt.Sprintf("networks and volumes of generation %d", m.w.Generation)
	if m.w.Ensured {
		lost := m.lost()
		if lost == "" {
			return
		}
		cause = lost
	}
	m.blocked = "networks and volumes are not there yet"
	if t := m.w.EnsureTry; t.Count > 0 {
		m.blocked = t.Reason
		m.hopeless = t.Count >= Hopeless
		if m.now.Before(t.Next()) {
			m.add(Action{Verb: Wait, Service: m.w.Project, Until: t.Next(), Tried: t.Count, Cause: t.Reason + ", is tried again"})
			return
		}
	}
	m.add(Action{Verb: Ensure, Service: m.w.Project, Cause: cause})
}

func (m *maker) lost() string {
	for _, name := range m.w.Networks {
		if !slices.ContainsFunc(m.seen.Networks, func(n tender.Network) bool { return n.Name == name }) {
			return fmt.Sprintf("network %s is missing", name)
		}
	}
	for _, name := range m.w.Volumes {
		if !slices.ContainsFunc(m.seen.Volumes, func(v tender.Volume) bool { return v.Name == name }) {
			return fmt.Sprintf("volume %s is missing", name)
		}
	}
	return ""
}

func (m *maker) orphans() {
	for k := range m.all {
		if i := &m.all[k]; m.views[i.Service] == nil && i.State != tender.Removing {
			m.remove(i, 10*time.Second, false, "service %s is not in the project any more", i.Service)
		}
	}
}

// service plans one service.
func (m *maker) service(v *view) {
	switch {
	case v.Gone:
		m.gone(v, false, "removed by request")
	case v.Stopped:
		m.stop(v)
	case v.Halted != "":
		m.stuck(v, "paused: %s", v.Halted)
	case m.beforeOnly(v):
		m.beforeJob(v)
	case v.Job:
		m.job(v)
	default:
		m.run(v)
	}
}

// busyDependent names a service that depends on v, goes as well, and is not
// gone yet: reverse order.
func (m *maker) busyDependent(v *view, going func(*view) bool, there func(*tender.Instance) bool) string {
	for _, other := range m.ordered() {
		if other == v || !going(other) || !slices.Contains(other.needs(), v.Name) {
			continue
		}
		for _, i := range other.instances() {
			if there(i) {
				return other.Name
			}
		}
	}
	return ""
}

func (v *view) instances() []*tender.Instance {
	var all []*tender.Instance
	for _, slot := range slices.Sorted(maps.Keys(v.fresh)) {
		all = append(all, v.fresh[slot])
	}
	for _, slot := range slices.Sorted(maps.Keys(v.leftover)) {
		all = append(all, v.leftover[slot])
	}
	return slices.Concat(all, v.extra, v.old, v.kept)
}

func active(i *tender.Instance) bool {
	return i.State == tender.Running || i.State == tender.Restarting || i.State == tender.Paused
}

// stop plans what tender stop asked for: dependents first.
func (m *maker) stop(v *view) {
	var running []*tender.Instance
	for _, i := range v.instances() {
		if active(i) {
			running = append(running, i)
		}
	}
	if len(running) == 0 {
		return
	}
	if d := m.busyDependent(v, func(o *view) bool { return o.Stopped || o.Gone }, active); d != "" {
		m.wait(v, time.Time{}, "%s stops first", d)
		return
	}
	for _, i := range running {
		if d, ok := m.drained(v, i, v.grace(), "stopped by request"); ok {
			a := Action{Verb: Stop, Service: v.Name, Revision: i.Revision, ID: i.ID, Instance: i.Name, Grace: v.grace(), Cause: "stopped by request"}
			a.after(d)
			m.add(a)
		}
	}
}

// gone plans the removal of all instances of a service: dependents first.
func (m *maker) gone(v *view, volumes bool, cause string) {
	// Whatever somebody else makes later under the same name is theirs.
	there := slices.DeleteFunc(v.instances(), func(i *tender.Instance) bool { return i.Foreign && !slices.Contains(v.GoneOf, i.ID) })
	if len(there) == 0 {
		return
	}
	going := func(o *view) bool { return o.Gone || m.w.Down != nil }
	if d := m.busyDependent(v, going, func(*tender.Instance) bool { return true }); d != "" {
		m.wait(v, time.Time{}, "%s goes first", d)
		return
	}
	for _, i := range there {
		if i.State == tender.Removing {
			m.wait(v, time.Time{}, "%s is being removed", i.Name)
			continue
		}
		m.removeDrained(v, i, volumes || v.RenewAnon, "%s", cause)
	}
}

// down plans the end of the project: instances, then networks, then volumes
// where that was asked for.
func (m *maker) down() {
	d := m.w.Down
	order := m.ordered()
	slices.Reverse(order)
	for _, v := range order {
		if d.Grace != nil {
			v.StopIn = d.Grace
		}
		m.gone(v, d.Volumes, "down")
	}
	if m.w.Orphans {
		m.orphans()
	}
	if len(m.plan) > 0 {
		return
	}
	used := map[string]bool{}
	for _, i := range m.seen.Instances {
		for network := range i.Addresses {
			used[network] = true
		}
	}
	for _, n := range m.seen.Networks {
		if n.Project == m.w.Project && !used[n.Name] {
			m.add(Action{Verb: RemoveNetwork, ID: n.ID, Instance: n.Name, Cause: "down"})
		}
	}
	for _, v := range m.seen.Volumes {
		// What is left may hold them: services that are not in the file any more.
		if d.Volumes && len(m.all) == 0 && v.Project == m.w.Project {
			m.add(Action{Verb: RemoveVolume, ID: v.Name, Cause: "down -v"})
		}
	}
	if len(m.plan) == 0 {
		m.add(Action{Verb: Finish, Cause: "all of it is gone"})
	}
}

// plainName is the name that i should have once nobody else does; empty if it
// has it. Newcomers are created as NAME-REVISION.
func plainName(i *tender.Instance) string {
	if i.Foreign || i.Revision == "" {
		return ""
	}
	name, found := strings.CutSuffix(i.Name, "-"+i.Revision)
	if !found {
		return ""
	}
	return name
}
