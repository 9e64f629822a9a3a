package deploy

import (
	"fmt"
	"slices"
	"strings"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// Verdict is what happens to one service.
type Verdict struct {
	Service  string
	Verdict  string // create, keep, replace, scale, remove, adopt, start
	Why      string
	From, To string // revisions
	Gap      string // for how long nobody serves; empty: no gap
	Diff     string
}

// draftRollout decides whether the service moves, and says what happens to it.
func (l *Loop) draftRollout(d *draft, s Submission, good store.Rollout, w, old store.WantedService, had bool, there []tender.Instance) {
	name, to := w.Service.Name, w.Service.Revision
	open, isOpen := d.base.open[name]
	last := d.base.last[name]
	foreign, adopted := false, 0
	for _, i := range there {
		if i.Foreign && w.Adopted[i.ID] != to {
			foreign = true
		}
		if i.Foreign && w.Adopted[i.ID] == to && (old.Adopted[i.ID] == "" || !had) {
			adopted++
		}
	}
	// Said again after a failure, it is tried again, whatever it ended with.
	failed := had && old.Service.Revision == to && (old.Halted != "" || !isOpen && last.To == to && last.State == store.RolloutFailed)
	v := Verdict{Service: name, To: to}
	if had {
		v.From = old.Service.Revision
	}
	// After a down everything begins anew.
	reborn := had && (old.Gone || d.base.head.Down != nil)
	moves := !had || old.Service.Revision != to || foreign || failed || reborn || isOpen && s.Supersede
	stays := !had && !foreign && adopted > 0 && adopted >= w.Service.Replicas
	switch {
	case len(there) == 0 && !had:
		v.Verdict, v.Why = "create", "new service"
	case reborn && len(there) == 0:
		v.Verdict, v.Why = "create", "was removed"
	case stays:
		v.Verdict, v.Why = "adopt", "Docker Compose made it just so"
	case failed:
		v.Verdict, v.Why = "replace", "the last rollout failed and is tried again"
	case moves:
		v.Verdict, v.Why = "replace", "changed"
		if s.Recreate && had {
			v.Why = "recreated by request"
		}
		if had && old.Service.Revision != to {
			v.Diff = changes(old, w)
		}
	case old.Stopped:
		v.Verdict, v.Why = "start", "was stopped"
	case old.Service.Replicas != w.Service.Replicas:
		v.Verdict, v.Why = "scale", fmt.Sprintf("from %d to %d", old.Service.Replicas, w.Service.Replicas)
	default:
		v.Verdict = "keep"
	}
	if rule := w.Service.Scale; rule != nil {
		// The rule is what the count comes from, so that it is said with each verdict.
		v.Why = strings.TrimPrefix(v.Why+"; scales "+rule.String(), "; ")
	}
	if !moves {
		d.say(v)
		return
	}
	if failed {
		s := &d.next.Services[len(d.next.Services)-1]
		s.StartAfter, s.StartOf = d.next.At, lives(there, name)
	}
	if isOpen {
		d.supersedes = append(d.supersedes, open)
	}
	r := store.Rollout{
		Project: d.next.Project, Service: name, Generation: d.next.N, To: to, ToImage: w.Image, Who: d.next.Who, Asked: w.Strategy, StopIn: s.StopIn,
		Started: d.next.At, First: (good.To == "" || reborn) && !foreign, Diff: v.Diff,
	}
	switch {
	case good.To != "" && good.To != to:
		// Back to what is proven, not to what was only tried.
		r.From, r.FromImage, r.Back = good.To, good.ToImage, true
	case had && old.Service.Revision != to:
		r.From, r.FromImage = old.Service.Revision, old.Image
	}
	if w.Service.Job {
		r.Back = false // a job that failed cannot be undone by the one before it
	}
	r.Strategy = d.strategy(w, r, there, to)
	if stays {
		// Nothing moves; the record says that from here on there is something to go back to.
		r.Strategy = "adopted"
	}
	if failed {
		d.retry = append(d.retry, name)
	}
	v.Gap = d.gap(w, r, there, to)
	if move := holderMoves(old, w, had, there); move != "" && v.Gap == "" {
		v.Gap = move
	}
	d.say(v)
	d.rollouts = append(d.rollouts, r)
}

// say adds a verdict; what adopt found out about the service is its reason.
func (d *draft) say(v Verdict) {
	for k := range d.verdicts {
		if d.verdicts[k].Service == v.Service {
			v.Why = d.verdicts[k].Why
			d.verdicts[k] = v
			return
		}
	}
	d.verdicts = append(d.verdicts, v)
}

// gap says for how long nobody serves while a service moves.
func (d *draft) gap(w store.WantedService, r store.Rollout, there []tender.Instance, to string) string {
	serves := slices.ContainsFunc(there, func(i tender.Instance) bool { return i.State == tender.Running })
	if w.Service.Job || !serves {
		return ""
	}
	order, why := d.order(w, r, there, to)
	if order == "start-first" || order == tender.BlueGreen || order == tender.Canary || order == "stop-first" && w.Service.Replicas > 1 && len(there) > 1 {
		return ""
	}
	return "from the stop of the old until the new is ready: " + why
}

// holderMoves says that the ports of a service change hands, which no two can
// hold at a time.
func holderMoves(old, w store.WantedService, had bool, there []tender.Instance) string {
	if !had || old.Service.Publish == w.Service.Publish || len(w.Service.Ports) == 0 ||
		!slices.ContainsFunc(there, func(i tender.Instance) bool { return i.State == tender.Running }) {
		return ""
	}
	if w.Service.Publish == tender.PublishProxy {
		return "a moment, as its ports go from the engine to the edge"
	}
	return "a moment, as its ports go from the edge to the engine"
}

// strategy says for people how a rollout goes.
func (d *draft) strategy(w store.WantedService, r store.Rollout, there []tender.Instance, to string) string {
	if w.Service.Job {
		return "job"
	}
	if r.First {
		return "first deploy"
	}
	order, _ := d.order(w, r, there, to)
	switch order {
	case tender.Recreate, tender.BlueGreen, tender.Canary:
		return order
	}
	return "rolling " + order
}

func (d *draft) order(w store.WantedService, r store.Rollout, there []tender.Instance, to string) (order, why string) {
	var old []*tender.Instance
	for k := range there {
		if i := &there[k]; i.Revision != to && w.Adopted[i.ID] != to {
			old = append(old, i)
		}
	}
	return plan.Order(&plan.Service{
		Service: w.Service, RenewAnon: w.RenewAnon, Traffic: foreseen(d.served)[w.Service.Name],
		Open: &plan.Rollout{Strategy: r.Asked, Reverse: r.Reverse},
	}, old)
}
