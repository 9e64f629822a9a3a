package deploy

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/store"
)

// rebuildPause is between two attempts to rebuild a project.
const rebuildPause = 30 * time.Second

// Salvaged is what could still be read of the files of one service.
type Salvaged struct {
	Files    map[string][]byte // sha256 in hex -> content of configs
	Versions map[string]int    // key under secrets: -> version in the vault
	Lost     []string          // what could not, for people
}

// rebuild makes projects known again that the store has lost: those whose
// instances were made from this data directory, and that nobody released. What
// runs is what is wanted then, so that nothing restarts.
// again is when to try those that could not be; zero: there are none.
func (l *Loop) rebuild(ctx context.Context) (again time.Time, err error) {
	seen, _ := l.o.Inventory.Picture()
	if l.o.Home == "" || !seen.Stale.IsZero() {
		return again, nil
	}
	now := time.Now()
	found := map[string][]tender.Instance{}
	l.mu.Lock()
	for _, i := range seen.Instances {
		if i.Home == l.o.Home && !i.Foreign && !i.Oneoff && l.workers[i.Project] == nil {
			if t := l.later[i.Project]; t.After(now) {
				again = earliest(again, t)
				continue
			}
			found[i.Project] = seen.Of(i.Project)
		}
	}
	l.mu.Unlock()
	if len(found) == 0 {
		return again, nil
	}
	var known []string
	err = l.o.Store.View(ctx, func(tx *store.Tx) error {
		names, err := tx.Projects()
		if err != nil {
			return err
		}
		released, err := tx.Released()
		known = append(names, released...)
		return err
	})
	if err != nil {
		return again, err
	}
	for _, project := range slices.Sorted(maps.Keys(found)) {
		if slices.Contains(known, project) {
			continue
		}
		if err := l.rebuildOne(ctx, project, found[project]); err != nil && ctx.Err() == nil {
			l.log.Error("a project that the store has lost cannot be rebuilt yet; its instances run on, and tender up takes it back", "project", project, "err", err)
			l.mu.Lock()
			l.later[project] = now.Add(rebuildPause)
			l.mu.Unlock()
			again = earliest(again, now.Add(rebuildPause))
		}
	}
	return again, nil
}

// Looked closes once projects that the store had lost have been looked for. Until
// then what is wanted is not what the store says.
func (l *Loop) Looked() <-chan struct{} { return l.looked }

// told waits until those that the store had lost have been looked for: what is
// asked before would take their project for a new one.
func (l *Loop) told(ctx context.Context) error {
	select {
	case <-l.o.Inventory.Ready():
	default:
		// A daemon that has just started has no picture yet.
		if _, err := l.o.Inventory.Fresh(ctx); err != nil {
			return ctx.Err() // the engine is away, and whoever asks is told that
		}
	}
	if l.o.Home == "" {
		return nil
	}
	select {
	case <-l.looked:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Loop) rebuildOne(ctx context.Context, project string, there []tender.Instance) error {
	if err := l.o.Store.Spare(); err != nil {
		return err
	}
	unlock, err := l.lock(ctx, project)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := l.records(ctx, project); tender.KindOf(err) != tender.NotFound {
		return err // somebody was faster
	}
	now := time.Now()
	g := store.Generation{Project: project, At: now, Who: "tender", Reason: "rebuilt from what its instances carry", Rebuilt: true}
	var specs [][]byte
	recalled := map[string]engine.Want{}
	services := map[string][]tender.Instance{}
	for _, i := range there {
		if !i.Foreign && !i.Oneoff && i.Home == l.o.Home {
			services[i.Service] = append(services[i.Service], i)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		w, others, err := l.recall(ctx, services[name])
		if err != nil {
			return err
		}
		if others > 0 {
			g.Lost = append(g.Lost, fmt.Sprintf("which of %d revisions of %s is wanted: %s is taken, as most of it runs", others+1, name, w.Service.Revision))
		}
		recalled[name] = w
		specs = append(specs, w.Service.Spec)
		if w.Generation >= g.N {
			g.N, g.ComposeFiles, g.WorkingDir = w.Generation, w.ComposeFiles, w.WorkingDir
		}
	}
	g.N++
	p, absent, err := l.o.Join(specs)
	if err != nil {
		return err
	}
	if p.Name != project {
		return tender.Errorf(tender.Invalid, "the instances of %s carry specs of %s", project, p.Name)
	}
	g.YAML, g.Routes = p.Spec, p.Routes
	if l.o.Routes != nil {
		routes, lost := l.o.Routes(p)
		g.Routes, g.Lost = routes, append(g.Lost, lost...)
	}
	for _, name := range absent {
		g.Lost = append(g.Lost, fmt.Sprintf("service %s, of which no instance is there", name))
	}
	files := map[string][]byte{}
	var ends []store.JobEnd
	var rollouts []store.Rollout
	for _, svc := range p.Services {
		w := recalled[svc.Name]
		svc.Revision = w.Service.Revision
		if l.o.Salvage != nil {
			got, err := l.o.Salvage(ctx, project, svc)
			if err != nil {
				return err
			}
			maps.Copy(files, got.Files)
			svc.Secrets = slices.Clone(svc.Secrets)
			for k := range svc.Secrets {
				svc.Secrets[k].Version = got.Versions[svc.Secrets[k].Source]
			}
			g.Lost = append(g.Lost, got.Lost...)
		}
		wanted := store.WantedService{Service: svc, Image: w.Image}
		end, lost := asItIs(&wanted, services[svc.Name])
		g.Lost = append(g.Lost, lost...)
		if end != nil {
			end.Project = project
			ends = append(ends, *end)
		}
		if err := l.readopt(ctx, g, &wanted, there); err != nil {
			return err
		}
		g.Services = append(g.Services, wanted)
		if !svc.Job {
			// From here on there is something to go back to.
			rollouts = append(rollouts, store.Rollout{
				Project: project, Service: svc.Name, Generation: g.N, To: svc.Revision, ToImage: w.Image, Who: g.Who, Strategy: "rebuilt", Started: now,
			})
		}
	}
	g.Files = slices.Sorted(maps.Keys(files))
	err = l.o.Store.Update(ctx, func(tx *store.Tx) error {
		ids, err := commit(tx, g, files, rollouts)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := tx.AddStep(id, now, g.Reason); err != nil {
				return err
			}
			if _, err := tx.EndRollout(id, store.RolloutDone, "", now); err != nil {
				return err
			}
		}
		for _, e := range ends {
			if err := tx.AddJobEnd(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	text := fmt.Sprintf("generation %d of %s, %s", g.N, project, g.Reason)
	if len(g.Lost) > 0 {
		text += "; not known: " + strings.Join(g.Lost, "; ")
	}
	l.log.Warn("the store had lost a project: rebuilt from what its instances carry", "project", project, "generation", g.N, "services", len(g.Services), "not known", strings.Join(g.Lost, "; "))
	l.tell(News{Kind: NewsAccepted, Project: project, Generation: g.N, Text: text, Hint: "tender up, in the folder of its Compose file, completes it"})
	l.poke(project)
	return nil
}

// recall reads what the instances of one service were made from: of several
// revisions that of which most serve, and of equals the later one.
func (l *Loop) recall(ctx context.Context, of []tender.Instance) (best engine.Want, others int, err error) {
	type revision struct {
		engine.Want
		ready int
	}
	all := map[string]*revision{}
	for _, i := range of {
		r := all[i.Revision]
		if r == nil {
			w, err := l.o.Engine.Recall(ctx, i.ID)
			if err != nil {
				return best, 0, err
			}
			r = &revision{Want: w}
			all[i.Revision] = r
		}
		if i.Ready() {
			r.ready++
		}
	}
	list := slices.SortedFunc(maps.Values(all), func(a, b *revision) int {
		return cmp.Or(b.ready-a.ready, b.Generation-a.Generation, strings.Compare(a.Service.Revision, b.Service.Revision))
	})
	return list[0].Want, len(list) - 1, nil
}

// asItIs wants of a service what is there of it.
func asItIs(w *store.WantedService, there []tender.Instance) (end *store.JobEnd, lost []string) {
	s := &w.Service
	slots, alive, done := 0, false, true
	for _, i := range there {
		slots = max(slots, i.Slot)
		alive = alive || i.State == tender.Running || i.State == tender.Restarting || i.State == tender.Paused
		done = done && i.State == tender.Exited && (i.ExitCode == 0 && s.Restart != "always" && s.Restart != "unless-stopped" || s.Restart == "no")
		if s.Job && i.Revision == s.Revision && i.State == tender.Exited && (end == nil || i.Finished.After(end.Ended)) {
			end = &store.JobEnd{Service: s.Name, Revision: s.Revision, Code: i.ExitCode, Ended: i.Finished}
		}
	}
	if s.Job {
		return end, nil
	}
	if slots > 0 && slots != s.Replicas {
		lost = append(lost, fmt.Sprintf("how many of %s are wanted: %d are there, its file says %d", s.Name, slots, s.Replicas))
		s.Replicas = slots
	}
	if !alive && !done {
		w.Stopped = true
		lost = append(lost, fmt.Sprintf("whether %s is to run: it did not, and counts as stopped (tender start %s)", s.Name, s.Name))
	}
	return nil, lost
}

// readopt counts those of Docker Compose's instances as ours again that had been adopted.
func (l *Loop) readopt(ctx context.Context, g store.Generation, w *store.WantedService, there []tender.Instance) error {
	for _, i := range there {
		if !i.Foreign || i.Oneoff || i.Service != w.Service.Name {
			continue
		}
		want := wantOf(g, *w)
		want.Slots = []int{max(i.Slot, 1)}
		same, _, err := l.o.Engine.Equal(ctx, want, i.ID)
		if err != nil {
			return fmt.Errorf("compare %s: %w", i.Name, err)
		}
		if same {
			if w.Adopted == nil {
				w.Adopted = map[string]string{}
			}
			w.Adopted[i.ID] = w.Service.Revision
		}
	}
	return nil
}
