package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

// maxSimulated bounds a simulation that would never end.
const maxSimulated = 10_000

// Simulate returns the whole way from seen to w: what Make would plan again and
// again if every instance became good and every job ended with 0. Waits for
// time and health are part of it, each once.
func Simulate(w Wanted, seen tender.Picture, now time.Time) Plan {
	if p := Make(w, seen, now); seen.Taken.IsZero() || !seen.Stale.IsZero() {
		return p
	}
	s := simulation{w: w, seen: seen, now: now, said: map[string]bool{}}
	s.w.Services = slices.Clone(w.Services)
	s.w.foreseen = true
	for k := range s.w.Services {
		s.foresee(&s.w.Services[k])
	}
	s.seen.Instances = slices.Clone(seen.Instances)
	s.flow(false)
	for len(s.way) < maxSimulated {
		p := Make(s.w, s.seen, s.now)
		if len(p) == 0 || !s.round(p) {
			break
		}
	}
	return s.way
}

// together is how far waits may end apart and pass at once.
const together = time.Second

type simulation struct {
	w    Wanted
	seen tender.Picture
	now  time.Time
	made int
	way  Plan
	said map[string]bool
}

// round carries out one plan, and reports whether that changed anything.
func (s *simulation) round(p Plan) bool {
	if !p.Waiting() {
		for _, a := range p {
			if !a.Waits() {
				s.way = append(s.way, a)
				s.do(a)
			}
		}
		s.flow(false)
		return true
	}
	// Nothing to do but wait: time passes, and what was coming is there.
	var until time.Time
	for _, a := range p {
		key := a.Service + a.ID + a.Cause
		if !s.said[key] {
			s.said[key] = true
			said := a
			said.Until = time.Time{} // in a simulation it is not a time of day
			s.way = append(s.way, said)
		}
		if !a.Stuck && !a.Until.IsZero() && (until.IsZero() || a.Until.Before(until)) {
			until = a.Until
		}
	}
	// What ends a moment later ends with it: services that began one after the other would each take a round.
	first := until
	for _, a := range p {
		if !a.Stuck && a.Until.After(until) && a.Until.Sub(first) <= together {
			until = a.Until
		}
	}
	for k := range s.seen.Instances {
		i := &s.seen.Instances[k]
		if i.Project == s.w.Project && i.Health == tender.Starting {
			i.Health, i.Since, until = tender.HealthyIs, s.now, s.now
		}
	}
	s.endJobs(&until)
	if s.flow(true) || s.resume() {
		until = s.now
	}
	if until.IsZero() {
		return false
	}
	if until.After(s.now) {
		s.now = until
	}
	return true
}

// foresee gives v an edge of the simulation's own, if the edge serves it, and
// a rollout that may be changed.
func (s *simulation) foresee(v *Service) {
	if v.Traffic != nil {
		v.Traffic = &Traffic{Instances: map[string]Flow{}}
		for _, i := range s.seen.Of(s.w.Project) {
			if i.Service == v.Name && i.Ready() {
				v.Traffic.Instances[i.ID] = Flow{State: In, Since: s.now}
			}
		}
	}
	if v.Open != nil {
		open := *v.Open
		open.Shifts = slices.Clone(open.Shifts)
		v.Open = &open
	}
}

// flow lets the edge follow the lanes: what serves at once, what leaves when
// there is nothing else to do, so that the way shows it. It reports whether
// that changed anything.
func (s *simulation) flow(leave bool) (changed bool) {
	if !slices.ContainsFunc(s.w.Services, func(v Service) bool { return v.Traffic != nil }) {
		return false
	}
	lanes := Lanes(s.w, s.seen, s.now)
	for _, l := range lanes {
		v := s.service(l.Service)
		if v == nil || v.Traffic == nil || l.State == Leaving && !leave || v.Traffic.Instances[l.ID].State == l.State {
			continue
		}
		v.Traffic.Instances[l.ID] = Flow{State: l.State, Since: s.now}
		changed = true
	}
	return changed
}

// resume lets a person say resume.
func (s *simulation) resume() (resumed bool) {
	for k := range s.w.Services {
		if o := s.w.Services[k].Open; o != nil && o.Held != "" {
			o.Held, resumed = "", true
		}
	}
	return resumed
}

// endJobs lets the jobs that run end.
func (s *simulation) endJobs(until *time.Time) {
	for k := range s.seen.Instances {
		i := &s.seen.Instances[k]
		if v := s.service(i.Service); v != nil && v.Job && i.Project == s.w.Project && i.State == tender.Running {
			i.State, *until = tender.Exited, s.now
		}
	}
}

func (s *simulation) service(name string) *Service {
	for k := range s.w.Services {
		if s.w.Services[k].Name == name {
			return &s.w.Services[k]
		}
	}
	return nil
}

func (s *simulation) drop(ids ...string) {
	s.seen.Instances = slices.DeleteFunc(s.seen.Instances, func(i tender.Instance) bool { return slices.Contains(ids, i.ID) })
}

func (s *simulation) do(a Action) {
	v := s.service(a.Service)
	switch a.Verb {
	case Ensure:
		s.w.Ensured, s.w.Networks, s.w.Volumes = true, nil, nil
	case Scale:
		s.scale(a, v)
	case Remove:
		s.drop(a.ID)
	case RemoveNetwork:
		s.seen.Networks = slices.DeleteFunc(slices.Clone(s.seen.Networks), func(n tender.Network) bool { return n.ID == a.ID })
	case RemoveVolume:
		s.seen.Volumes = slices.DeleteFunc(slices.Clone(s.seen.Volumes), func(n tender.Volume) bool { return n.Name == a.ID })
	case Check:
		v.Open.Checked = true
	case Shift:
		v.Open.Shifts = append(v.Open.Shifts, Shifted{At: s.now, Share: a.Share})
	case Finish, Fail, Rollback:
		if v == nil {
			down := *s.w.Down
			down.Ended = true
			s.w.Down = &down
			return
		}
		if a.Job {
			v.Jobs = append(slices.Clone(v.Jobs), JobEnd{For: a.For, Code: a.Code})
		}
		if a.Rollout != 0 {
			v.Kept, v.Open = a.Kept, nil
		}
		if a.Verb != Finish {
			v.Halted = a.Cause
		}
	default:
		s.touch(a, v)
	}
}

// touch changes one instance.
func (s *simulation) touch(a Action, v *Service) {
	for k := range s.seen.Instances {
		i := &s.seen.Instances[k]
		if i.ID != a.ID {
			continue
		}
		switch a.Verb {
		case Name:
			i.Name = strings.TrimSuffix(i.Name, "-"+i.Revision)
		case Promote:
			i.Found = tender.ByService
		case Demote:
			i.Found = tender.BySlot
		case Stop:
			i.State, i.Health, i.ExitCode, i.Error, i.Since = tender.Exited, "", 0, "", s.now
		case Start, Restart:
			s.start(i, v)
		}
	}
}

func (s *simulation) start(i *tender.Instance, v *Service) {
	// A moment later, so that it counts as after the request.
	s.now = s.now.Add(time.Millisecond)
	i.State, i.Started, i.Since, i.Restarts, i.Error = tender.Running, s.now, s.now, 0, ""
	i.Health = ""
	if v != nil && v.HasHealthcheck() {
		i.Health = tender.Starting
	}
}

func (s *simulation) scale(a Action, v *Service) {
	s.drop(a.Drop...)
	for _, slot := range a.Slots {
		k := slices.IndexFunc(s.seen.Instances, func(i tender.Instance) bool {
			return i.Project == s.w.Project && i.Service == a.Service && i.Revision == a.Revision && i.Slot == slot && !i.Oneoff
		})
		if k < 0 {
			s.made++
			name := fmt.Sprintf("%s-%s-%d", s.w.Project, a.Service, slot)
			if slices.ContainsFunc(s.seen.Instances, func(i tender.Instance) bool { return i.Name == name }) {
				name += "-" + a.Revision
			}
			s.seen.Instances = append(s.seen.Instances, tender.Instance{
				ID: fmt.Sprintf("new-%d", s.made), Name: name, Project: s.w.Project, Service: a.Service,
				Revision: a.Revision, Slot: slot, Created: s.now.Add(time.Millisecond),
			})
			k = len(s.seen.Instances) - 1
			if a.Unnamed {
				s.seen.Instances[k].Found, s.seen.Instances[k].Pinned = tender.BySlot, true
			}
		}
		s.start(&s.seen.Instances[k], v)
	}
}
