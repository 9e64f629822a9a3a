package deploy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// ProjectState is what is wanted of a project and what is there.
type ProjectState struct {
	Name string
	// State: healthy, converging, degraded, stopped, foreign; empty when it is down and nothing is left.
	State      string
	Detail     string
	Generation int
	Accepted   time.Time
	Who        string
	Files      []string // the Compose files
	WorkingDir string
	Foreign    bool // Docker Compose runs it and nobody said up
	Down       bool
	Services   []ServiceState
	Plan       plan.Plan // what comes next, at the last look
}

// ServiceState is what is wanted of a service and what is there.
type ServiceState struct {
	Name     string
	Image    string
	Revision string
	Wanted   int
	Ready    int
	// Scale is the rule that Wanted follows, and Counted how it came to be what it is; nil: neither.
	Scale   *tender.Scale
	Counted *store.Counted
	// State: healthy, starting, updating, degraded, failed, stopped, done, foreign
	State   string
	Detail  string
	Since   time.Time // of the newest change of an instance
	Stopped bool
	Job     bool
	Grace   time.Duration  // what it has to end in
	Rollout *store.Rollout // the open one
	Last    *store.Rollout // the newest one that has ended
	// Tries counts attempts to mend it in a row; Next is when the next one follows.
	Tries     int
	Next      time.Time
	GaveUp    time.Time // since when it is not tried any more; zero: it is
	Problems  []Problem // the newest last
	DependsOn []tender.Dependency
	Instances []tender.Instance
}

// Projects returns all projects that are known or that Docker Compose runs, by name.
func (l *Loop) Projects(ctx context.Context) ([]ProjectState, error) {
	var names []string
	err := l.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		names, err = tx.Projects()
		return err
	})
	if err != nil {
		return nil, err
	}
	seen, _ := l.o.Inventory.Picture()
	for _, i := range seen.Instances {
		if i.Project != "" {
			names = append(names, i.Project)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	list := make([]ProjectState, 0, len(names))
	for _, name := range names {
		p, err := l.Project(ctx, name)
		if tender.KindOf(err) == tender.NotFound {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// Project returns one project: NotFound when it is not known and nothing of it runs.
func (l *Loop) Project(ctx context.Context, name string) (ProjectState, error) {
	seen, _ := l.o.Inventory.Picture()
	there := seen.Of(name)
	r, err := l.records(ctx, name)
	if tender.KindOf(err) == tender.NotFound && len(there) > 0 {
		return foreign(name, there), nil
	}
	if err != nil {
		return ProjectState{}, err
	}
	if r.ended() && len(there) > 0 {
		return foreign(name, there), nil
	}
	round, _ := l.round(name)
	p := ProjectState{
		Name: name, Generation: r.head.N, Accepted: r.head.At, Who: r.head.Who, Files: r.head.ComposeFiles,
		WorkingDir: r.head.WorkingDir, Down: r.head.Down != nil, Plan: round.plan,
	}
	l.mu.Lock()
	w := l.workers[name]
	l.mu.Unlock()
	for _, s := range r.head.Services {
		if p.Down || s.Gone {
			if !slices.ContainsFunc(there, func(i tender.Instance) bool { return i.Service == s.Service.Name }) {
				continue
			}
		}
		p.Services = append(p.Services, service(r, s, there, w, round.plan))
	}
	p.Services = append(p.Services, strays(r, there)...)
	p.State, p.Detail = p.sum(round, r.head.N)
	if r.head.Rebuilt {
		p.Detail = strings.TrimSuffix("rebuilt, run tender up in its folder; "+p.Detail, "; ")
	}
	if !seen.Stale.IsZero() {
		p.Detail = strings.TrimPrefix(p.Detail+"; the engine does not answer since "+seen.Stale.UTC().Format(time.DateTime), "; ")
	}
	return p, nil
}

// sum says how the project as a whole is.
func (p *ProjectState) sum(now round, generation int) (state, detail string) {
	counts := map[string][]string{}
	for _, s := range p.Services {
		counts[s.State] = append(counts[s.State], s.Name)
	}
	var parts []string
	for _, state := range []string{"failed", "degraded", "updating", "starting", "stopped", "foreign"} {
		if names := counts[state]; len(names) > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", strings.Join(names, ", "), state))
		}
	}
	detail = strings.Join(parts, "; ")
	switch {
	case p.Down && len(p.Services) == 0:
		return "", "down"
	case len(counts["failed"])+len(counts["degraded"]) > 0:
		return "degraded", detail
	case p.Down, len(counts["updating"])+len(counts["starting"]) > 0, now.generation != generation, now.busy, len(now.plan) > 0:
		return "converging", detail
	case len(p.Services) > 0 && len(counts["stopped"]) == len(p.Services):
		return "stopped", ""
	}
	return "healthy", detail
}

func foreign(name string, there []tender.Instance) ProjectState {
	p := ProjectState{Name: name, State: "foreign", Foreign: true, Detail: "made by Docker Compose; tender up takes it over"}
	ours := slices.ContainsFunc(there, func(i tender.Instance) bool { return !i.Foreign && !i.Oneoff })
	if ours {
		p.Detail = "made by Tender and released; tender up takes it back"
	}
	p.Services = strays(records{}, there)
	return p
}

// strays are instances of services that are not wanted.
func strays(r records, there []tender.Instance) (list []ServiceState) {
	by := map[string][]tender.Instance{}
	for _, i := range there {
		if _, wanted := r.service(i.Service); !wanted {
			by[i.Service] = append(by[i.Service], i)
		}
	}
	for name, instances := range by {
		s := ServiceState{Name: name, Image: instances[0].Image, State: "foreign", Detail: "not in the project", Instances: instances}
		for _, i := range instances {
			if i.Ready() {
				s.Ready++
			}
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b ServiceState) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// service says how one service is.
func service(r records, s store.WantedService, there []tender.Instance, w *worker, p plan.Plan) ServiceState {
	name := s.Service.Name
	v := ServiceState{
		Name: name, Image: s.Service.Image, Revision: s.Service.Revision, Wanted: s.Service.Replicas, Stopped: s.Stopped,
		Scale: s.Service.Scale, Counted: s.Counted,
		Job: s.Service.Job, DependsOn: s.Service.DependsOn, Grace: s.Service.Grace,
	}
	if s.StopIn != nil {
		v.Grace = *s.StopIn
	}
	ended, running := 0, 0
	for _, i := range there {
		if i.Service != name || i.Oneoff {
			continue
		}
		v.Instances = append(v.Instances, i)
		for _, t := range []time.Time{i.Since, i.Started, i.Finished} {
			if t.After(v.Since) {
				v.Since = t
			}
		}
		if i.State == tender.Running || i.State == tender.Restarting {
			running++
		}
		if i.Revision != s.Service.Revision && s.Adopted[i.ID] != s.Service.Revision {
			continue
		}
		if i.Ready() {
			v.Ready++
		}
		if i.State == tender.Exited && i.ExitCode == 0 {
			ended++
		}
	}
	if o, ok := r.open[name]; ok {
		v.Rollout = &o
	}
	if o, ok := r.last[name]; ok && o.State != store.RolloutOpen {
		v.Last = &o
	}
	w.remember(&v)
	v.State, v.Detail = v.judge(s, r, p, ended, running)
	return v
}

// remember adds what the worker knows of attempts.
func (w *worker) remember(v *ServiceState) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v.Problems = slices.Clone(w.errors[v.Name])
	for _, t := range w.tries[v.Name] {
		if t.Count <= v.Tries {
			continue
		}
		v.Tries, v.Next = t.Count, t.Next()
		if t.GaveUp() {
			v.GaveUp, v.Next = t.Last, time.Time{}
		}
	}
}

func (v *ServiceState) judge(s store.WantedService, r records, p plan.Plan, ended, running int) (state, detail string) {
	cause := ""
	for _, a := range p {
		if a.Service == v.Name && (cause == "" || a.Stuck) {
			cause = a.Cause
		}
	}
	switch {
	case s.Gone || r.head.Down != nil:
		return "stopped", "going"
	case s.Stopped:
		if running > 0 {
			return "stopped", fmt.Sprintf("%d run still", running)
		}
		return "stopped", ""
	case s.Halted != "":
		return "failed", "paused: " + s.Halted
	case v.Rollout != nil && v.Rollout.First:
		return "starting", cause
	case v.Rollout != nil:
		return "updating", cause
	}
	if v.Job {
		for k := len(r.jobs) - 1; k >= 0; k-- {
			if j := r.jobs[k]; j.Service == v.Name && j.Revision == v.Revision {
				if j.Code != 0 {
					return "failed", fmt.Sprintf("exited with %d", j.Code)
				}
				return "done", ""
			}
		}
		return "starting", cause
	}
	switch {
	case v.Wanted == 0:
		return "healthy", "none wanted"
	case v.Ready >= v.Wanted && cause == "" && s.Kept != nil && time.Now().Before(s.Kept.Until):
		return "healthy", fmt.Sprintf("%s is kept until %s", s.Kept.Revision, s.Kept.Until.UTC().Format(time.DateTime))
	case v.Ready >= v.Wanted && cause == "":
		return "healthy", ""
	case v.Ready+ended >= v.Wanted && ended > 0 && cause == "":
		return "done", ""
	case !v.GaveUp.IsZero():
		return "failed", cause
	case v.Ready >= v.Wanted:
		return "healthy", cause
	case v.Last != nil && v.Last.State == store.RolloutFailed && v.Last.To == v.Revision && v.Ready == 0:
		if cause == "" {
			cause = v.Last.Reason
		}
		return "failed", cause
	}
	return "degraded", cause
}
