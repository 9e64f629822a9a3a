package deploy

import (
	"context"
	"fmt"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// patience is how long one action may take beside the grace of what it stops.
const patience = 5 * time.Minute

func isRecord(v plan.Verb) bool { return v == plan.Finish || v == plan.Fail || v == plan.Rollback }

// describe says what an action does, without its cause.
func describe(a plan.Action) string {
	text := string(a.Verb) + " " + a.Target()
	if d := a.Detail(); d != "" {
		text += " " + d
	}
	return text
}

// act takes one action.
func (w *worker) act(ctx context.Context, a plan.Action) error {
	ctx, cancel := context.WithTimeout(ctx, patience+a.Grace)
	defer cancel()
	e := w.l.o.Engine
	switch a.Verb {
	case plan.Ensure:
		return w.make(ctx)
	case plan.Scale:
		return w.scale(ctx, a)
	case plan.Name:
		return e.Name(ctx, a.ID)
	case plan.Promote:
		return e.Promote(ctx, a.ID)
	case plan.Demote:
		return e.Demote(ctx, a.ID)
	case plan.Start:
		if err := w.files(ctx, a.Service); err != nil {
			return err
		}
		return e.Start(ctx, a.ID)
	case plan.Stop:
		return e.Stop(ctx, a.ID, a.Grace)
	case plan.Restart:
		return e.Restart(ctx, a.ID, a.Grace)
	case plan.Remove:
		return e.Remove(ctx, a.ID, a.Grace, a.Volumes)
	case plan.Check:
		return w.check(ctx, a)
	case plan.Shift:
		return w.shift(ctx, a)
	case plan.RemoveNetwork:
		return e.RemoveNetwork(ctx, a.ID)
	case plan.RemoveVolume:
		return e.RemoveVolume(ctx, a.ID)
	}
	return fmt.Errorf("unknown action %s", a.Verb)
}

// make makes the project's networks and volumes and records their names, so
// that a lost one is noticed.
func (w *worker) make(ctx context.Context) error {
	g := w.known().head
	p := tender.Project{Name: w.project, Spec: g.YAML}
	for _, s := range g.Services {
		p.Services = append(p.Services, s.Service)
	}
	if err := w.l.o.Engine.Ensure(ctx, p); err != nil {
		return err
	}
	seen, err := w.l.o.Inventory.Fresh(ctx)
	if err != nil {
		return err
	}
	var m store.Made
	for _, n := range seen.Networks {
		if n.Project == w.project {
			m.Networks = append(m.Networks, n.Name)
		}
	}
	for _, v := range seen.Volumes {
		if v.Project == w.project {
			m.Volumes = append(m.Volumes, v.Name)
		}
	}
	return w.l.o.Store.Update(ctx, func(tx *store.Tx) error { return tx.SetMade(w.project, g.N, m) })
}

// files puts the files of a service on the host again.
func (w *worker) files(ctx context.Context, service string) error {
	s, ok := w.known().service(service)
	if !ok {
		return nil
	}
	_, err := w.l.o.Deliver(ctx, w.project, s.Service)
	return err
}

func (w *worker) scale(ctx context.Context, a plan.Action) error {
	r := w.known()
	s, ok := r.service(a.Service)
	if !ok || s.Service.Revision != a.Revision || s.Stopped || s.Gone || r.head.Down != nil {
		return nil // something else is wanted meanwhile
	}
	files, err := w.l.o.Deliver(ctx, w.project, s.Service)
	if err != nil {
		return err
	}
	want := wantOf(r.head, s)
	want.Slots, want.Drop, want.Inherit, want.Files = a.Slots, a.Drop, a.Inherit, files
	want.Unnamed, want.StopIn = a.Unnamed, a.StopIn
	return w.l.o.Engine.Scale(ctx, want)
}

func wantOf(g store.Generation, s store.WantedService) engine.Want {
	return engine.Want{
		Project: g.Project, Generation: g.N, Service: s.Service, Image: s.Image,
		ComposeFiles: g.ComposeFiles, WorkingDir: g.WorkingDir,
	}
}
