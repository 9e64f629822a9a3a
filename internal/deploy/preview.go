package deploy

import (
	"context"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// Preview is what up would do.
type Preview struct {
	Project  string
	Token    string // given to Accept it is refused if the world has changed
	Verdicts []Verdict
	Plan     plan.Plan // the whole way, if all goes well
	Routes   []RouteChange
	Warnings []string
	Nothing  bool
	// Leaving are the instances that go on the way.
	Leaving []tender.Instance
}

// Preview works out what Accept would come to, and writes nothing.
func (l *Loop) Preview(ctx context.Context, s Submission) (Preview, error) {
	if err := l.told(ctx); err != nil {
		return Preview{}, err
	}
	d, err := l.draft(ctx, s)
	if err != nil {
		return Preview{}, err
	}
	p := Preview{Project: s.Project.Name, Token: d.token, Verdicts: d.verdicts, Nothing: d.nothing, Routes: d.routes}
	for _, svc := range d.next.Services {
		warnings, err := l.o.Engine.Check(ctx, svc.Service)
		if err != nil {
			return Preview{}, err
		}
		p.Warnings = append(p.Warnings, warnings...)
	}
	if len(d.base.open) > 0 && !d.nothing && !s.Supersede {
		p.Warnings = append(p.Warnings, openConflict(d.base).Error()+"; up needs --supersede")
	}
	seen, _ := l.o.Inventory.Picture()
	r := d.base
	if !d.nothing {
		r = d.after()
	}
	r.served = d.served
	p.Plan = plan.Simulate(r.wanted(nil, plan.Try{}, foreseen(r.served)), seen, time.Now())
	p.Leaving = p.Plan.Leaving(seen.Of(s.Project.Name))
	return p, nil
}

// foreseen is what a simulation needs to know of the edge: what it serves.
func foreseen(served map[string]bool) map[string]*plan.Traffic {
	t := map[string]*plan.Traffic{}
	for name := range served {
		t[name] = &plan.Traffic{}
	}
	return t
}

// after is what the store would say once d was accepted.
func (d *draft) after() records {
	r := records{head: d.next, open: map[string]store.Rollout{}, last: map[string]store.Rollout{}}
	for name, o := range d.base.last {
		r.last[name] = o
	}
	for name, o := range d.base.open {
		r.open[name] = o
	}
	for i, o := range d.rollouts {
		o.ID, o.State = int64(-1-i), store.RolloutOpen // ids of their own: no job has run for them
		r.open[o.Service], r.last[o.Service] = o, o
	}
	retry := map[string]bool{}
	for _, name := range d.retry {
		retry[name] = true
	}
	for _, j := range d.base.jobs {
		if !retry[j.Service] || j.Code == 0 {
			r.jobs = append(r.jobs, j)
		}
	}
	return r
}
