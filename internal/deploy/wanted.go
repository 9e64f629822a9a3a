package deploy

import (
	"context"
	"time"

	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// records is what the store knows of a project, as far as the worker needs it.
type records struct {
	head store.Generation
	open map[string]store.Rollout // by service
	last map[string]store.Rollout
	jobs []store.JobEnd
	// served names the services that the edge is to serve.
	served map[string]bool
}

func read(tx *store.Tx, project string) (r records, err error) {
	if r.head, err = tx.Head(project); err != nil {
		return r, err
	}
	open, err := tx.OpenRollouts(project)
	if err != nil {
		return r, err
	}
	last, err := tx.LastRollouts(project)
	if err != nil {
		return r, err
	}
	r.open, r.last = byService(open), byService(last)
	r.jobs, err = tx.JobEnds(project)
	return r, err
}

func byService(list []store.Rollout) map[string]store.Rollout {
	m := make(map[string]store.Rollout, len(list))
	for _, r := range list {
		m[r.Service] = r
	}
	return m
}

func (l *Loop) records(ctx context.Context, project string) (r records, err error) {
	err = l.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		r, err = read(tx, project)
		return err
	})
	return r, err
}

// serve fills in what the edge is to serve.
func (l *Loop) serve(r *records) {
	if l.o.Edge == nil {
		return
	}
	r.served = servedBy(r.head.Routes, r.head.Services)
}

// wanted says it in plan's words. tries and ensure are what the worker remembers.
// ended reports whether a down has come to its end: the project is known, but
// nothing is wanted of it and nothing under its name is ours.
func (r records) ended() bool { return r.head.Down != nil && r.head.Made != nil && r.head.Made.Ended }

func (r records) wanted(tries map[string]map[int]plan.Try, ensure plan.Try, traffic map[string]*plan.Traffic) plan.Wanted {
	g := r.head
	w := plan.Wanted{Project: g.Project, Generation: g.N, Orphans: g.Orphans, EnsureTry: ensure}
	if g.Down != nil {
		w.Down = &plan.Down{Volumes: g.Down.Volumes, Grace: g.Down.Grace, Ended: r.ended()}
	}
	if g.Made != nil {
		w.Ensured, w.Networks, w.Volumes = true, g.Made.Networks, g.Made.Volumes
	}
	for _, s := range g.Services {
		p := plan.Service{
			Service: s.Service, ImageHealthcheck: s.Image.Healthcheck,
			Stopped: s.Stopped, Gone: s.Gone, GoneOf: s.GoneOf, StopIn: s.StopIn, RestartOf: s.RestartOf, StartOf: s.StartOf,
			RenewAnon: s.RenewAnon, Halted: s.Halted, Adopted: s.Adopted, Tries: tries[s.Service.Name],
			Traffic: traffic[s.Service.Name],
		}
		if c := s.Counted; c != nil {
			p.Counted.At, p.Counted.From, p.Counted.Cause = c.At, c.From, c.Cause
		}
		if s.Kept != nil {
			p.Kept = plan.Kept(*s.Kept)
		}
		last := r.last[s.Service.Name]
		if o, ok := r.open[s.Service.Name]; ok {
			p.Open = planned(o)
		} else if s.Halted != "" {
			p.Paused = planned(last)
		} else if last.State == store.RolloutFailed && last.To == s.Service.Revision {
			p.Failed = last.Reason
		}
		for _, j := range r.jobs {
			if j.Service == s.Service.Name && j.Revision == s.Service.Revision {
				p.Jobs = append(p.Jobs, plan.JobEnd{For: j.Rollout, Code: j.Code})
			}
		}
		w.Services = append(w.Services, p)
	}
	return w
}

// planned says a rollout in plan's words.
func planned(o store.Rollout) *plan.Rollout {
	r := &plan.Rollout{
		ID: o.ID, From: o.From, To: o.To, Stale: o.Stale, First: o.First, Back: o.Back, Reverse: o.Reverse, Strategy: o.Asked, StopIn: o.StopIn,
		Checked: o.Checked, Held: o.Held(), Aborted: o.Aborted,
	}
	for _, s := range o.Shifts {
		r.Shifts = append(r.Shifts, plan.Shifted(s))
	}
	return r
}

// service returns what is wanted of one service.
func (r records) service(name string) (store.WantedService, bool) {
	for _, s := range r.head.Services {
		if s.Service.Name == name {
			return s, true
		}
	}
	return store.WantedService{}, false
}

// kept is when the first of the revisions that stay warm goes.
func (r records) kept(now time.Time) (next time.Time) {
	for _, s := range r.head.Services {
		if s.Kept != nil && now.Before(s.Kept.Until) {
			next = earliest(next, s.Kept.Until)
		}
	}
	return next
}
