package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// Change is everything but up that changes a project.
type Change struct {
	Verb      string // down, stop, start, restart, kill, pause, unpause, rm, scale, rollback, release
	Services  []string
	Scale     map[string]int
	To        string         // rollback: the revision; empty: the one before
	Signal    string         // kill; default SIGKILL
	Grace     *time.Duration // down, stop, restart, rm
	Volumes   bool           // down, rm: volumes too
	Orphans   bool           // down
	Supersede bool
	Images    string // down: local or all; the caller removes them
}

// Change makes a change the newest generation of a project. kill, pause and
// unpause act at once and make none; release forgets the project and leaves its
// containers alone.
func (l *Loop) Change(ctx context.Context, who, project string, c Change) (Accepted, error) {
	if err := l.told(ctx); err != nil {
		return Accepted{}, err
	}
	unlock, err := l.lock(ctx, project)
	if err != nil {
		return Accepted{}, err
	}
	unlock = sync.OnceFunc(unlock)
	defer unlock()
	r, err := l.records(ctx, project)
	if err != nil {
		return Accepted{}, err
	}
	for _, name := range c.Services {
		if _, ok := r.service(name); !ok {
			return Accepted{}, noService(project, name)
		}
	}
	switch c.Verb {
	case "kill", "pause", "unpause":
		return Accepted{Generation: r.head.N, Nothing: true}, l.signal(ctx, r, c)
	case "release":
		return Accepted{Generation: r.head.N}, l.release(ctx, who, project, unlock)
	}
	d := draft{base: r, known: true}
	g := r.head
	g.N, g.At, g.Who, g.Origin, g.Reason = r.head.N+1, time.Now(), who, 0, c.reason()
	g.Services = slices.Clone(g.Services)
	d.next = g
	if err := l.change(ctx, &d, c); err != nil {
		return Accepted{}, err
	}
	if len(d.rollouts) == 0 && equalServices(r.head.Services, d.next.Services) && (d.next.Down == nil) == (r.head.Down == nil) {
		return Accepted{Generation: r.head.N, Nothing: true}, nil
	}
	return l.commit(ctx, d, nil)
}

func (c Change) reason() string {
	words := append([]string{c.Verb}, c.Services...)
	for _, name := range sortedKeys(c.Scale) {
		words = append(words, fmt.Sprintf("%s=%d", name, c.Scale[name]))
	}
	if c.To != "" {
		words = append(words, "to "+c.To)
	}
	if c.Volumes {
		words = append(words, "with volumes")
	}
	return strings.Join(words, " ")
}

// change fills in what c makes of d.next.
func (l *Loop) change(ctx context.Context, d *draft, c Change) error {
	g := &d.next
	on := func(s store.WantedService) bool {
		return len(c.Services) == 0 || slices.Contains(c.Services, s.Service.Name)
	}
	switch c.Verb {
	case "down":
		there := l.look(ctx, g.Project)
		if len(c.Services) == 0 {
			g.Down, g.Made = &store.Down{Volumes: c.Volumes, Grace: c.Grace}, nil
			g.Orphans = c.Orphans
		}
		for i := range g.Services {
			if s := &g.Services[i]; on(*s) {
				s.Gone, s.GoneAt, s.GoneOf, s.StopIn, s.RenewAnon = true, g.At, foreigners(there, s.Service.Name), c.Grace, c.Volumes
				d.supersede(s.Service.Name)
			}
		}
		return nil
	case "stop":
		for i := range g.Services {
			if s := &g.Services[i]; on(*s) && !s.Gone {
				s.Stopped, s.StopIn = true, c.Grace
				d.supersede(s.Service.Name)
			}
		}
		return nil
	case "rm":
		there := l.look(ctx, g.Project)
		for i := range g.Services {
			if s := &g.Services[i]; on(*s) && s.Stopped {
				s.Gone, s.GoneAt, s.GoneOf, s.StopIn, s.RenewAnon = true, g.At, foreigners(there, s.Service.Name), c.Grace, c.Volumes
			}
		}
		return nil
	case "start", "restart":
		return d.start(c, l.look(ctx, g.Project))
	case "scale":
		return l.scale(d, c)
	case "rollback":
		return l.rollback(ctx, d, c)
	}
	return tender.Errorf(tender.Invalid, "unknown change %q", c.Verb)
}

func (d *draft) supersede(service string) {
	if o, ok := d.base.open[service]; ok {
		d.supersedes = append(d.supersedes, o)
	}
}

// look returns the instances of a project: as they are now, or as they were last
// seen where the engine does not answer.
func (l *Loop) look(ctx context.Context, project string) []tender.Instance {
	seen, err := l.o.Inventory.Fresh(ctx)
	if err != nil {
		seen, _ = l.o.Inventory.Picture()
	}
	return seen.Of(project)
}

// lives writes down which instances of these services are there, and in which
// life: when the engine says that each was started.
func lives(there []tender.Instance, services ...string) map[string]time.Time {
	of := map[string]time.Time{}
	for _, i := range there {
		if slices.Contains(services, i.Service) {
			of[i.ID] = i.Started
		}
	}
	return of
}

// restartsWith names a service and those that are restarted with it.
func restartsWith(services []store.WantedService, name string) []string {
	names := []string{name}
	for _, s := range services {
		for _, d := range s.Service.DependsOn {
			if d.Service == name && d.Restart {
				names = append(names, s.Service.Name)
			}
		}
	}
	return names
}

func foreigners(there []tender.Instance, service string) (ids []string) {
	for _, i := range there {
		if i.Foreign && i.Service == service {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

// start starts services and what they need; restart starts them anew.
func (d *draft) start(c Change, there []tender.Instance) error {
	if d.base.head.Down != nil {
		return tender.Errorf(tender.Conflict, "%s is down", d.next.Project).Hint("tender up")
	}
	todo := map[string]bool{}
	var visit func(name string, dependency bool)
	visit = func(name string, dependency bool) {
		s, ok := d.base.service(name)
		if !ok || todo[name] {
			return
		}
		if !dependency || s.Stopped || s.Gone {
			todo[name] = true
		}
		for _, on := range s.Service.DependsOn {
			if on.Required {
				visit(on.Service, true)
			}
		}
	}
	for _, s := range d.base.head.Services {
		if len(c.Services) == 0 || slices.Contains(c.Services, s.Service.Name) {
			visit(s.Service.Name, false)
		}
	}
	for i := range d.next.Services {
		s := &d.next.Services[i]
		if !todo[s.Service.Name] {
			continue
		}
		if s.Stopped {
			s.StartAfter, s.StartOf = d.next.At, lives(there, s.Service.Name)
		}
		s.Stopped, s.Gone, s.RenewAnon = false, false, false
		named := len(c.Services) == 0 || slices.Contains(c.Services, s.Service.Name)
		if c.Verb == "restart" && named && !s.Service.Job {
			s.RestartAfter, s.RestartOf, s.StopIn = d.next.At, lives(there, restartsWith(d.next.Services, s.Service.Name)...), c.Grace
			if _, open := d.base.open[s.Service.Name]; open && !c.Supersede {
				return openConflict(d.base)
			}
		}
	}
	return nil
}

func (l *Loop) scale(d *draft, c Change) error {
	if len(d.base.open) > 0 && !c.Supersede {
		return openConflict(d.base)
	}
	for _, name := range sortedKeys(c.Scale) {
		if c.Scale[name] < 0 {
			return tender.Errorf(tender.Invalid, "scale %s to %d: less than none", name, c.Scale[name])
		}
		i := slices.IndexFunc(d.next.Services, func(s store.WantedService) bool { return s.Service.Name == name })
		if i < 0 {
			return noService(d.next.Project, name)
		}
		s := &d.next.Services[i]
		n := store.Scaling{Project: d.next.Project, Service: name, At: d.next.At, Who: d.next.Who, From: s.Service.Replicas, To: c.Scale[name], Cause: "asked for by " + d.next.Who}
		if n.From == n.To {
			continue
		}
		if err := within(s.Service, n.To); err != nil {
			return err
		}
		s.Service.Replicas, s.Counted = n.To, s.Counted.After(n)
		d.scalings = append(d.scalings, n)
		if err := l.holder(d, s); err != nil {
			return err
		}
	}
	return nil
}

// rollback puts services back to the revision before, or to c.To.
func (l *Loop) rollback(ctx context.Context, d *draft, c Change) error {
	if d.base.head.Down != nil {
		return tender.Errorf(tender.Conflict, "%s is down", d.next.Project).Hint("tender up")
	}
	if c.To != "" && len(c.Services) != 1 {
		return tender.Errorf(tender.Invalid, "a revision belongs to one service").Hint("tender rollback SERVICE --to %s", c.To)
	}
	var all []store.Rollout
	var kept []store.Revision
	err := l.o.Store.View(ctx, func(tx *store.Tx) error {
		var err, err2 error
		all, err = tx.Rollouts(d.next.Project, "")
		kept, err2 = tx.Revisions(d.next.Project)
		return errors.Join(err, err2)
	})
	if err != nil {
		return err
	}
	for i := range d.next.Services {
		s := &d.next.Services[i]
		name := s.Service.Name
		named := slices.Contains(c.Services, name)
		if len(c.Services) > 0 && !named {
			continue
		}
		to := c.To
		if to == "" {
			to = previous(all, name, s.Service.Revision)
		}
		if to == "" {
			if named {
				return tender.Errorf(tender.Conflict, "%s has no earlier revision", name).Hint("tender history %s -p %s", name, d.next.Project)
			}
			continue
		}
		rev, err := find(kept, d.next.Project, name, to)
		if err != nil {
			return err
		}
		if rev.Service.Revision == s.Service.Revision {
			if c.To != "" {
				return tender.Errorf(tender.Conflict, "%s is at %s already", name, to)
			}
			continue
		}
		d.back(s, rev, l.ids(d.next.Project, name), l.counts(d.next.Project, name))
		if h, err := l.o.Hold(s.Service, s.Service.Publish == tender.PublishProxy); err != nil {
			return err
		} else if h.Publish != s.Service.Publish {
			return tender.Errorf(tender.Conflict, "%s published its ports at the engine, which does that for one instance", rev.Service.Revision).
				Hint("tender scale %s=1 -p %s, then roll back", name, d.next.Project)
		}
	}
	if len(d.rollouts) == 0 {
		return tender.Errorf(tender.Conflict, "%s has no earlier revisions", d.next.Project).Hint("tender history -p %s", d.next.Project)
	}
	return nil
}

// back moves a service to an earlier revision.
func (d *draft) back(s *store.WantedService, rev store.Revision, there []string, begin *store.Counts) {
	old := *s
	s.Service, s.Image, s.Strategy, s.Halted, s.Kept = rev.Service, rev.Image, "", "", nil
	s.Service.Replicas, s.Service.Scale = old.Service.Replicas, old.Service.Scale
	s.Stopped, s.Gone = false, false
	d.supersede(old.Service.Name)
	r := store.Rollout{
		Project: d.next.Project, Service: old.Service.Name, Generation: d.next.N, From: old.Service.Revision, To: rev.Service.Revision,
		FromImage: old.Image, ToImage: rev.Image, Who: d.next.Who, Strategy: "rollback", Reverse: true, Started: d.next.At, Diff: changes(old, *s), Stale: there,
		Begin: begin,
	}
	if open, ok := d.base.open[old.Service.Name]; ok {
		r.Returns(open, d.next.At)
	}
	d.rollouts = append(d.rollouts, r)
}

// previous is the revision that a service had before revision now, as far as
// the rollouts tell: the newest other one that was proven.
func previous(all []store.Rollout, service, now string) string {
	for _, r := range all {
		if r.Service != service {
			continue
		}
		if r.To == now && r.From != "" && !r.Reverse {
			return r.From
		}
	}
	for _, r := range all {
		if r.Service == service && r.State == store.RolloutDone && r.To != now {
			return r.To
		}
	}
	return ""
}

// find returns the revision that begins with prefix.
func find(kept []store.Revision, project, service, prefix string) (store.Revision, error) {
	var found []store.Revision
	for _, r := range kept {
		if r.Service.Name == service && strings.HasPrefix(r.Service.Revision, prefix) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return store.Revision{}, tender.Errorf(tender.NotFound, "service %s of %s has no revision %s", service, project, prefix).
			Hint("tender history %s -p %s shows the revisions there were", service, project)
	}
	return store.Revision{}, tender.Errorf(tender.Invalid, "revision %s of %s is not unique", prefix, service).Hint("give more of it")
}

// signal acts on the instances at once.
func (l *Loop) signal(ctx context.Context, r records, c Change) error {
	seen, err := l.o.Inventory.Fresh(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range seen.Of(r.head.Project) {
		if _, ours := r.service(i.Service); !ours || i.Oneoff || len(c.Services) > 0 && !slices.Contains(c.Services, i.Service) {
			continue
		}
		switch {
		case c.Verb == "pause" && i.State == tender.Running:
			errs = append(errs, l.o.Engine.Pause(ctx, i.ID))
		case c.Verb == "unpause" && i.State == tender.Paused:
			errs = append(errs, l.o.Engine.Unpause(ctx, i.ID))
		case c.Verb == "kill" && (i.State == tender.Running || i.State == tender.Paused):
			signal := c.Signal
			if signal == "" {
				signal = "SIGKILL"
			}
			errs = append(errs, l.o.Engine.Signal(ctx, i.ID, signal))
		}
	}
	return errors.Join(errs...)
}

// release forgets a project once nothing acts on it any more.
func (l *Loop) release(ctx context.Context, who, project string, unlock func()) error {
	l.mu.Lock()
	w := l.workers[project]
	l.mu.Unlock()
	if err := l.o.Store.Update(ctx, func(tx *store.Tx) error { return tx.Release(project, time.Now()) }); err != nil {
		return err
	}
	l.tell(News{Kind: NewsAccepted, Project: project, Text: project + " was released by " + who})
	l.poke(project)
	if w == nil {
		return nil
	}
	unlock() // what is in flight may want to record how it ended
	select {
	case <-w.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	l.mu.Lock()
	delete(l.rounds, project)
	l.mu.Unlock()
	return nil
}

func sortedKeys(m map[string]int) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
