package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/deploy"
)

// draft turns what came over the wire into what deploy takes, but for images
// and the versions of secrets.
func (b *backend) draft(s api.Submission, who string) (deploy.Submission, error) {
	p, err := compose.Parse([]byte(s.YAML))
	if err != nil {
		return deploy.Submission{}, err
	}
	if p.Name != s.Project {
		return deploy.Submission{}, tender.Errorf(tender.Invalid, "the submission is for project %q and its YAML for %q", s.Project, p.Name)
	}
	for name := range s.Secrets {
		if !slices.ContainsFunc(p.Services, func(v tender.Service) bool {
			return slices.ContainsFunc(v.Secrets, func(f tender.SecretFile) bool { return !f.External && f.Name == name })
		}) {
			delete(s.Secrets, name) // nobody uses it
		}
	}
	if err := b.refuseFar(p); err != nil {
		return deploy.Submission{}, err
	}
	if err := checkLogs(p); err != nil {
		return deploy.Submission{}, err
	}
	if err := checkAlerts(p); err != nil {
		return deploy.Submission{}, err
	}
	return deploy.Submission{
		Project: p, Files: s.Files, Who: who, Services: s.Services, NoDeps: s.NoDeps, Scale: s.Scale, Strategy: s.Strategy, Hold: s.Hold, StopIn: s.Grace,
		Supersede: s.Supersede, Recreate: s.Recreate, RenewAnon: s.RenewAnon, Orphans: s.Orphans, Token: s.Token,
		ComposeFiles: s.ComposeFiles, WorkingDir: s.WorkingDir,
	}, nil
}

// Plan says what up would do. It writes nothing, pulls nothing and keeps no
// secret: a changed value counts as the version that it would become.
func (b *backend) Plan(ctx context.Context, s api.Submission) (api.Plan, error) {
	d, err := b.draft(s, "")
	if err != nil {
		return api.Plan{}, err
	}
	var warnings []string
	if d.Images, warnings, err = b.lookUp(ctx, d.Project, s.Pull); err != nil {
		return api.Plan{}, err
	}
	if d.Versions, err = b.versions(ctx, d.Project.Name, s.Secrets, false, ""); err != nil {
		return api.Plan{}, err
	}
	services, err := chosen(d)
	if err != nil {
		return api.Plan{}, err
	}
	judged, err := b.judge(ctx, question{project: d.Project.Name, environment: d.Project.Environment, services: services, images: d.Images})
	if err != nil {
		return api.Plan{}, err
	}
	p, err := b.loop.Preview(ctx, d)
	if err != nil {
		return api.Plan{}, err
	}
	for _, s := range d.Project.Services {
		w, err := compose.Ephemeral(s.Spec, d.Images[s.Name].Volumes, b.missing())
		if err != nil {
			return api.Plan{}, err
		}
		warnings = append(warnings, w...)
	}
	warnings = append(warnings, lost(ctx, b.engine, p.Leaving)...)
	out := api.Plan{Project: p.Project, Token: p.Token, Warnings: append(warnings, p.Warnings...), Text: p.Plan.String()}
	if len(judged) > 0 {
		out.Gate = wireVerdicts(judged)
	}
	for _, v := range p.Verdicts {
		out.Services = append(out.Services, api.Decision{Service: v.Service, Verdict: v.Verdict, Why: v.Why, From: v.From, To: v.To, Gap: v.Gap, Diff: v.Diff})
	}
	for _, r := range p.Routes {
		out.Routes = append(out.Routes, api.RouteChange(r))
	}
	var verb, target int
	for _, a := range p.Plan {
		verb, target = max(verb, len(a.Verb)), max(target, len(a.Target()))
	}
	for _, a := range p.Plan {
		out.Actions = append(out.Actions, api.Action{
			Verb: string(a.Verb), Service: a.Service, Revision: a.Revision, Instance: a.Instance,
			Slots: a.Slots, Cause: a.Cause, Text: strings.TrimRight(fmt.Sprintf("%-*s  %-*s  %s", verb, a.Verb, target, a.Target(), a.Detail()), " "),
		})
	}
	return out, nil
}

// missing reports whether a path is not there; nil where the engine is not on this host.
func (b *backend) missing() func(string) bool {
	if !strings.HasPrefix(b.config.Engine, "unix://") {
		return nil
	}
	return func(path string) bool {
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
}

// Up makes a submission what is wanted, and follows it to its end.
func (b *backend) Up(ctx context.Context, who api.Person, s api.Submission, report func(api.Event)) (result api.Result, err error) {
	report = stamped(report, s.Project)
	d, err := b.draft(s, who.Name)
	if err != nil {
		return api.Result{}, err
	}
	defer func() { b.auditEnd(ctx, who, "up", d.Project.Name, strings.Join(s.Services, " "), err) }()
	if err := room(d.Project.Services, s.Scale); err != nil {
		return api.Result{}, err
	}
	for _, v := range d.Project.Services {
		warnings, err := b.engine.Check(ctx, v)
		if err != nil {
			return api.Result{}, fmt.Errorf("service %s: %w", v.Name, err)
		}
		for _, w := range warnings {
			report(api.Event{Kind: api.KindWarning, Service: v.Name, Text: w})
		}
	}
	// Until it is accepted nothing else says that these are needed.
	done := b.host.lease("an up of "+d.Project.Name+" is under way", b.refsOf(d.Project)...)
	defer done()
	if d.Images, err = b.fetch(ctx, d.Project, s, report); err != nil {
		return api.Result{}, err
	}
	// Before anything of it is kept.
	services, err := chosen(d)
	if err != nil {
		return api.Result{}, err
	}
	judged, err := b.judge(ctx, question{project: d.Project.Name, environment: d.Project.Environment, services: services, images: d.Images, there: true, tell: report})
	if err != nil {
		return api.Result{}, err
	}
	if err := pass(d.Project.Name, d.Project.Environment, judged, report); err != nil {
		return api.Result{}, err
	}
	if d.Versions, err = b.versions(ctx, d.Project.Name, s.Secrets, true, who.Name); err != nil {
		return api.Result{}, err
	}
	if err := b.losing(ctx, d, report); err != nil {
		return api.Result{}, err
	}
	accepted, err := b.loop.Accept(ctx, d)
	done()
	if err != nil {
		return api.Result{}, err
	}
	return b.end(ctx, d.Project.Name, accepted, s.Detach, report)
}

// losing warns of what goes with the instances that a submission replaces,
// before it does.
func (b *backend) losing(ctx context.Context, d deploy.Submission, report func(api.Event)) error {
	if seen, _ := b.inventory.Picture(); len(seen.Of(d.Project.Name)) == 0 {
		return nil
	}
	p, err := b.loop.Preview(ctx, d)
	if err != nil {
		return err
	}
	for _, text := range lost(ctx, b.engine, p.Leaving) {
		report(api.Event{Kind: api.KindWarning, Text: text})
	}
	return nil
}

// end follows what was accepted.
func (b *backend) end(ctx context.Context, project string, a deploy.Accepted, detach bool, report func(api.Event)) (api.Result, error) {
	text := fmt.Sprintf("generation %d of %s", a.Generation, project)
	if a.Nothing {
		text += ": nothing has changed"
	}
	report(api.Event{Kind: api.KindAccepted, Generation: a.Generation, Text: text})
	b.keeper.poke()
	if b.logs != nil {
		b.logs.poke()
	}
	if detach {
		return api.Result{Outcome: "accepted", Text: text}, nil
	}
	o, err := b.loop.Follow(ctx, project, a.Generation, func(n deploy.News) {
		if n.Kind != deploy.NewsAccepted {
			report(event(n))
		}
	})
	if err != nil {
		return api.Result{}, err
	}
	limit, cancel := context.WithTimeout(ctx, edgeSpawn)
	defer cancel()
	if err := b.keeper.settle(limit); err != nil && ctx.Err() == nil {
		report(api.Event{Kind: api.KindWarning, Text: err.Error()})
	}
	out := api.Result{Outcome: o.Outcome, Text: o.Text, Hint: o.Hint}
	if o.Outcome == deploy.Converged {
		p, err := b.loop.Project(ctx, project)
		if err != nil && tender.KindOf(err) != tender.NotFound {
			return api.Result{}, err
		}
		for _, v := range p.Services {
			if v.State != "foreign" {
				out.Services = append(out.Services, api.ServiceResult{Service: v.Name, State: v.State, Text: v.Detail})
			}
		}
	}
	for _, v := range o.Services {
		out.Services = append(out.Services, api.ServiceResult{Service: v.Service, State: v.State, Text: v.Text})
	}
	return out, nil
}

// Change does everything else.
func (b *backend) Change(ctx context.Context, who api.Person, project string, c api.Change, report func(api.Event)) (result api.Result, err error) {
	report = stamped(report, project)
	defer func() {
		b.auditEnd(ctx, who, c.Verb, project, strings.Join(append(slices.Clone(c.Services), scales(c.Scale)...), " "), err)
	}()
	if c.Verb == "scale" {
		g, err := b.loop.Generation(ctx, project, 0)
		if err != nil {
			return api.Result{}, err
		}
		var all []tender.Service
		for _, w := range g.Services {
			all = append(all, w.Service)
		}
		if err := room(all, c.Scale); err != nil {
			return api.Result{}, err
		}
	}
	var images []string
	if c.Verb == "down" && c.Images != "" {
		if images, err = b.imagesOf(ctx, project, c.Images); err != nil {
			return api.Result{}, err
		}
	}
	a, err := b.loop.Change(ctx, who.Name, project, deploy.Change{
		Verb: c.Verb, Services: c.Services, Scale: c.Scale, To: c.To, Signal: c.Signal, Grace: c.Grace,
		Volumes: c.Volumes, Orphans: c.Orphans, Supersede: c.Supersede, Images: c.Images,
	})
	if err != nil {
		return api.Result{}, err
	}
	if c.Verb == "rollback" {
		b.gateBack(ctx, project, a.Generation, report)
	}
	switch c.Verb {
	case "kill", "pause", "unpause":
		return api.Result{Outcome: deploy.Converged, Text: strings.TrimSpace(fmt.Sprintf("%s %s", project, strings.Join(c.Services, " "))) + ": " + c.Verb + " is done"}, nil
	case "release":
		return api.Result{Outcome: deploy.Converged, Text: project + " is released: its containers run on, docker compose may take them over"}, nil
	}
	result, err = b.end(ctx, project, a, c.Detach, report)
	if err != nil || result.Outcome != deploy.Converged {
		return result, err
	}
	for _, ref := range images {
		if err := b.engine.RemoveImage(ctx, ref); err != nil && tender.KindOf(err) != tender.NotFound {
			report(api.Event{Kind: api.KindWarning, Text: fmt.Sprintf("image %s stays: %v", ref, err)})
			continue
		}
		report(api.Event{Kind: api.KindEnded, Text: "remove image " + ref})
	}
	return result, nil
}

// room refuses to scale a service to more than its host ports let stand side by
// side, where the edge cannot hold them.
func room(services []tender.Service, scale map[string]int) error {
	for _, s := range services {
		n, asked := scale[s.Name]
		if !asked {
			continue
		}
		s.Replicas = n
		if _, err := compose.Hold(s, s.Publish == tender.PublishProxy); err == nil {
			continue // the engine publishes what it needs, or the edge holds its ports
		}
		most, port, err := compose.Room(s.Spec)
		if err != nil {
			return err
		}
		if most == 1 && n > 1 {
			return tender.Errorf(tender.Conflict, "scale %s to %d: it publishes host port %s, which one instance alone can hold", s.Name, n, port).
				Hint("let the edge hold it (x-tender: {publish: proxy}), publish a range, one port for each (8080-8089:80), or let the engine choose: ports: [\"80\"]")
		}
		if most > 0 && n > most {
			return tender.Errorf(tender.Conflict, "scale %s to %d: it publishes host ports %s, enough for %d", s.Name, n, port, most).
				Hint("publish a longer range, one port for each replica")
		}
	}
	return nil
}

func scales(n map[string]int) []string {
	var out []string
	for name, n := range n {
		out = append(out, fmt.Sprintf("%s=%d", name, n))
	}
	slices.SortFunc(out, cmp.Compare[string])
	return out
}

// stamped fills in what every event has.
func stamped(report func(api.Event), project string) func(api.Event) {
	return func(e api.Event) {
		if e.Time.IsZero() {
			e.Time = time.Now().UTC()
		}
		if e.Project == "" {
			e.Project = project
		}
		report(e)
	}
}
