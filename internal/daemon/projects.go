package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/store"
)

// Projects lists what is known and what Docker Compose runs.
func (b *backend) Projects(ctx context.Context) ([]api.Project, error) {
	b.inventory.Since(ctx, time.Now(), lookPatience)
	return b.projects(ctx)
}

// projects are those of the last look.
func (b *backend) projects(ctx context.Context) ([]api.Project, error) {
	list, err := b.loop.Projects(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Project, 0, len(list))
	for _, p := range list {
		if p.State != "" { // down, with nothing left
			out = append(out, b.project(p))
		}
	}
	return out, nil
}

// Project returns one with its services.
func (b *backend) Project(ctx context.Context, name string) (api.Project, error) {
	p, err := b.loop.Project(ctx, name)
	if err != nil {
		return api.Project{}, err
	}
	return b.project(p), nil
}

func (b *backend) project(p deploy.ProjectState) api.Project {
	out := api.Project{
		Name: p.Name, State: p.State, Detail: p.Detail, Generation: p.Generation, Accepted: p.Accepted,
		Who: p.Who, Files: p.Files, Foreign: p.Foreign,
	}
	for _, s := range p.Services {
		v := api.Service{
			Project: p.Name, Name: s.Name, Image: s.Image, Revision: s.Revision, Wanted: s.Wanted, Ready: s.Ready,
			State: s.State, Detail: s.Detail, Since: s.Since, Scale: b.scaling.scaleOf(p, s),
		}
		if s.Rollout != nil {
			r := rollout(*s.Rollout)
			v.Rollout = &r
		}
		out.Services = append(out.Services, v)
	}
	return out
}

// Instances lists those of a project, or of all.
func (b *backend) Instances(ctx context.Context, name string, all bool) ([]api.Instance, error) {
	picture, err := b.pictureNow(ctx)
	if err != nil {
		return nil, err
	}
	if name != "" {
		if _, err := b.loop.Project(ctx, name); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	var out []api.Instance
	edge := b.edgePorts()
	for _, i := range picture.Instances {
		if !i.Oneoff {
			i.Ports = append(slices.Clone(i.Ports), edge[i.Project+"/"+i.Service]...)
		}
		if (name == "" || i.Project == name) && (all || i.State == tender.Running || i.State == tender.Paused || i.State == tender.Restarting) {
			out = append(out, instance(i, now))
		}
	}
	return out, nil
}

// Config returns the normal form of a generation.
func (b *backend) Config(ctx context.Context, project string, generation int) (string, error) {
	g, err := b.loop.Generation(ctx, project, generation)
	return string(g.YAML), err
}

// History lists rollouts and changes of counts, the newest first.
func (b *backend) History(ctx context.Context, project, service string) ([]api.Rollout, error) {
	list, err := b.loop.Rollouts(ctx, project, service)
	if err != nil {
		return nil, err
	}
	counts, err := b.loop.Scalings(ctx, project, service)
	out := make([]api.Rollout, 0, len(list)+len(counts))
	for _, r := range list {
		out = append(out, rollout(r))
	}
	for _, n := range counts {
		out = append(out, api.Rollout{
			Project: n.Project, Service: n.Service, Strategy: "scale", State: "done", Reason: n.Cause, Who: n.Who, Started: n.At, Ended: n.At,
			Scaled: &api.Scaled{From: n.From, To: n.To},
		})
	}
	slices.SortStableFunc(out, func(a, b api.Rollout) int { return b.Started.Compare(a.Started) })
	return out, err
}

// Rollout returns one with its proof.
func (b *backend) Rollout(ctx context.Context, id int64) (api.Rollout, error) {
	r, err := b.loop.Rollout(ctx, id)
	return rollout(r), err
}

// Steer says hold, resume or abort to an open rollout.
func (b *backend) Steer(ctx context.Context, who api.Person, id int64, verb string) (api.Rollout, error) {
	r, err := b.loop.Steer(ctx, who.Name, id, verb)
	b.auditEnd(ctx, who, "rollout "+verb, r.Project, fmt.Sprint(id), err)
	return rollout(r), err
}

func rollout(r store.Rollout) api.Rollout {
	out := api.Rollout{
		ID: r.ID, Project: r.Project, Service: r.Service, Generation: r.Generation, From: r.From, To: r.To,
		FromImage: r.FromImage.Reference, ToImage: r.ToImage.Reference, Strategy: r.Strategy, State: r.State, Reason: r.Reason,
		Who: r.Who, Started: r.Started, Ended: r.Ended, Diff: r.Diff,
	}
	for _, s := range r.Steps {
		out.Proof = append(out.Proof, api.Step(s))
	}
	for _, s := range r.Shifts {
		out.Shifts = append(out.Shifts, api.Shift{At: s.At, Percent: float64(s.Share) / 10})
	}
	if r.State == store.RolloutOpen {
		out.Held = r.Held()
	} else if r.Proof != nil {
		out.Evidence = evidence(*r.Proof)
	}
	return out
}

func evidence(p store.Proof) *api.Evidence {
	e := &api.Evidence{Verdict: p.Verdict, Partial: p.Partial}
	for _, s := range p.Served {
		e.Served = append(e.Served, api.ServedBy{
			Revision: s.Revision, Digest: s.Digest, Requests: s.Served.Requests, Failed: s.Failed, Cut: s.Served.Cut, P99: s.P99.Seconds(),
		})
	}
	for _, v := range p.Health {
		e.Health = append(e.Health, api.Vital{Instance: v.Instance, State: v.State, After: v.After.Seconds(), Restarts: v.Restarts})
	}
	for _, d := range p.Drains {
		e.Drains = append(e.Drains, api.Drain{Instance: d.Instance, Seconds: d.Took.Seconds(), Cut: d.Cut, Skipped: d.Skipped})
	}
	return e
}

// Events reports what happens from now on.
func (b *backend) Events(ctx context.Context, project string, all bool, report func(api.Event)) error {
	if !all {
		return b.loop.News(ctx, project, func(n deploy.News) { report(event(n)) })
	}
	var mu sync.Mutex // report writes to one connection
	in := func(e api.Event) {
		mu.Lock()
		defer mu.Unlock()
		report(e)
	}
	var both sync.WaitGroup
	defer both.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	both.Go(func() { b.engineEvents(ctx, project, in) })
	return b.loop.News(ctx, project, func(n deploy.News) { in(event(n)) })
}

// anew is the pause before the engine is asked again after the connection was lost.
const anew = time.Second

// engineEvents reports what the engine says of instances, over lost connections,
// of which it tells.
func (b *backend) engineEvents(ctx context.Context, project string, report func(api.Event)) {
	away := false
	for {
		err := b.engine.Events(ctx, project, func() { away = false }, func(e engine.Event) {
			report(api.Event{
				Time: e.Time.UTC(), Kind: api.KindContainer, Project: e.Project, Service: e.Service, Instance: e.Name, Text: e.Name + " " + e.Action,
				Type: "container", ID: e.ID, Action: e.Action, Attributes: e.Attributes,
			})
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil && !away {
			away = true
			report(api.Event{Time: time.Now().UTC(), Kind: api.KindWarning, Project: project, Text: err.Error() + "; what happened meanwhile is not told"})
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(anew):
		}
	}
}

func event(n deploy.News) api.Event {
	return api.Event{
		Time: n.Time, Kind: n.Kind, Project: n.Project, Service: n.Service, Instance: n.Instance,
		Generation: n.Generation, Rollout: n.Rollout, Revision: n.Revision, Text: n.Text, Hint: n.Hint,
	}
}
