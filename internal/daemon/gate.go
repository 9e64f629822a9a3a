package daemon

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/policy"
	"github.com/tenderhq/tender/internal/store"
)

// knowledge is what a gate asks other rooms of an image; nil: no room of this daemon can say.
type knowledge struct {
	// scanned is the newest scan; nil without an error: there is none.
	scanned func(ctx context.Context, i tender.ImageID) (*policy.Scan, error)
	// signers are the names of the keys that signed it, promoted the steps that the digest was promoted to.
	signers  func(ctx context.Context, i tender.ImageID) ([]string, error)
	promoted func(ctx context.Context, digest string) ([]string, error)
}

// checkGates refuses a gate that asks for what nobody here can know: it would deny everything.
func checkGates(c Config, k knowledge) error {
	refuse := func(where string, g policy.Gate) error {
		scan, signers, promoted := g.Needs()
		for _, need := range []struct {
			asked   bool
			known   bool
			keys    string
			machine string
		}{
			{scan, k.scanned != nil, "deny, scan_age, and image.findings in rules", "scans of images"},
			{signers, k.signers != nil, "sign, and image.signers in rules", "signatures"},
			{promoted, k.promoted != nil, "from, and image.promoted in rules", "promotion"},
		} {
			if need.asked && !need.known {
				return tender.Errorf(tender.Invalid, "%s asks for %s, which this version does not have", where, need.machine).
					Hint("leave out %s; registries, base_age and other rules work", need.keys)
			}
		}
		return nil
	}
	if err := refuse("gate", c.Gate); err != nil {
		return err
	}
	for _, s := range c.Pipeline {
		if err := refuse("the gate of step "+s.Name, s.Gate); err != nil {
			return err
		}
	}
	return nil
}

// gates are those that hold in an environment.
func (c Config) gates(environment string) ([]policy.Gate, error) {
	var out []policy.Gate
	if !c.Gate.Empty() {
		out = append(out, c.Gate)
	}
	if environment == "" || len(c.Pipeline) == 0 {
		return out, nil
	}
	var names []string
	for _, s := range c.Pipeline {
		names = append(names, s.Name)
		if s.Name != environment {
			continue
		}
		if !s.Gate.Empty() {
			out = append(out, s.Gate)
		}
		return out, nil
	}
	e := tender.Errorf(tender.Invalid, "x-tender.environment: the pipeline has no step %q, only %s", environment, strings.Join(names, ", "))
	if near := tender.Nearest(environment, names); near != "" {
		return nil, e.Hint("did you mean: %s", near)
	}
	return nil, e.Hint("name one of them, or add it to pipeline: in tender.yaml")
}

// question is what the gate is asked.
type question struct {
	project, environment string
	services             []tender.Service
	images               map[string]tender.ImageID // that they would run; of those that are not in it the name alone is known
	there                bool                      // all of them must be here, for they are about to run
	tell                 func(api.Event)           // hears of scans that are under way; nil: nobody
}

// judge asks the gate about services with the images that they would run. Without a gate
// it asks nothing of anybody.
func (b *backend) judge(ctx context.Context, q question) ([]tender.Verdict, error) {
	gates, err := b.config.gates(q.environment)
	if err != nil || len(gates) == 0 {
		return nil, err
	}
	in := policy.Input{Now: time.Now().UTC(), Project: q.project, Environment: q.environment, Gates: gates}
	if err := b.store.View(ctx, func(tx *store.Tx) (err error) {
		in.Waivers, err = tx.Waivers()
		return err
	}); err != nil {
		return nil, err
	}
	for _, g := range gates {
		if len(g.Sign) > 0 {
			if in.Keys, err = b.keysThere(ctx); err != nil {
				return nil, err
			}
		}
	}
	known := map[string]policy.Image{}
	scans := slices.ContainsFunc(gates, func(g policy.Gate) bool { need, _, _ := g.Needs(); return need })
	look := func(id tender.ImageID) (policy.Image, error) {
		key := id.Reference + " " + id.ID
		image, seen := known[key]
		if seen {
			return image, nil
		}
		if scans && id.ID != "" {
			if err := b.scanFirst(ctx, id, q.tell); err != nil {
				return image, err
			}
		}
		image, err := b.imageOf(ctx, id)
		if err == nil {
			known[key] = image
		}
		return image, err
	}
	for _, s := range q.services {
		id, ok := q.images[s.Name]
		if !ok {
			id = tender.ImageID{Reference: s.Image}
		}
		fields, err := fieldsOf(s, id)
		if err != nil {
			return nil, err
		}
		one := policy.Service{Name: s.Name, Fields: fields}
		if one.Image, err = look(id); err != nil {
			return nil, err
		}
		for _, v := range fields.Volumes {
			if v.Type != "image" {
				continue
			}
			id, err := b.engine.Resolve(ctx, v.Source)
			if tender.KindOf(err) == tender.NotFound && !q.there {
				id, err = tender.ImageID{Reference: v.Source}, nil
			}
			if err != nil {
				return nil, fmt.Errorf("service %s mounts it: %w", s.Name, err)
			}
			i, err := look(id)
			if err != nil {
				return nil, err
			}
			one.Mounts = append(one.Mounts, i)
		}
		in.Services = append(in.Services, one)
	}
	return policy.Check(in), nil
}

// imageOf gathers what is known of an image. One that has gone since its ID was found is
// an error: what comes again under its name may be another.
func (b *backend) imageOf(ctx context.Context, id tender.ImageID) (policy.Image, error) {
	out := policy.Image{Reference: id.Reference, ID: id.ID, Digest: id.Digest}
	if id.ID == "" {
		out.Absent = true
		return out, nil
	}
	d, err := b.engine.Describe(ctx, id.ID)
	if err != nil {
		return out, err
	}
	out.Created, out.User, out.Labels = d.Created, d.User, d.Labels
	k := b.knowledge
	if k.scanned != nil {
		if out.Scan, err = k.scanned(ctx, id); err != nil {
			return out, fmt.Errorf("read the scan of %s: %w", id.Reference, err)
		}
	}
	if k.signers != nil {
		out.Signers, err = k.signers(ctx, id)
		switch tender.KindOf(err) {
		case tender.Unavailable, tender.Denied: // a reason among the others
			out.Signers, out.Unsure, out.Ask = nil, err.Error(), tender.AdviceOf(err)
		default:
			if err != nil {
				return out, fmt.Errorf("find who signed %s: %w", id.Reference, err)
			}
		}
	}
	if k.promoted != nil {
		if out.Promoted, err = k.promoted(ctx, id.Digest); err != nil {
			return out, fmt.Errorf("find what %s was promoted to: %w", id.Reference, err)
		}
	}
	return out, nil
}

// fieldsOf are what rules may ask of a service.
func fieldsOf(s tender.Service, id tender.ImageID) (policy.Fields, error) {
	p, err := compose.Spec(s.Spec)
	if err != nil {
		return policy.Fields{}, err
	}
	c := p.Services[s.Name]
	out := policy.Fields{
		Privileged: c.Privileged, ReadOnly: c.ReadOnly, Init: c.Init != nil && *c.Init, Build: s.Build, User: c.User, NetworkMode: c.NetworkMode, PID: c.Pid, IPC: c.Ipc,
		Restart: s.Restart, Replicas: s.Replicas, MemoryLimit: int64(c.MemLimit), PidsLimit: c.PidsLimit, CPUs: float64(c.CPUS), Capabilities: c.CapAdd, CapDrop: c.CapDrop,
		SecurityOpt: c.SecurityOpt, GroupAdd: c.GroupAdd, Command: c.Command, Entrypoint: c.Entrypoint, Labels: c.Labels, Environment: map[string]string{},
		Healthcheck: s.Healthcheck == 1 || s.Healthcheck == 0 && id.Healthcheck,
	}
	if c.Deploy != nil && c.Deploy.Resources.Limits != nil {
		l := c.Deploy.Resources.Limits
		out.MemoryLimit, out.CPUs, out.PidsLimit = max(out.MemoryLimit, int64(l.MemoryBytes)), max(out.CPUs, float64(l.NanoCPUs)), max(out.PidsLimit, l.Pids)
	}
	for name, v := range c.Environment {
		if v != nil {
			out.Environment[name] = *v
		}
	}
	for _, h := range slices.Concat(c.PostStart, c.PreStop) {
		out.Privileged = out.Privileged || h.Privileged
	}
	for _, d := range c.Devices {
		out.Devices = append(out.Devices, d.Source)
	}
	for name := range c.Networks {
		out.Networks = append(out.Networks, name)
	}
	slices.Sort(out.Networks)
	for _, f := range s.Secrets {
		out.Secrets = append(out.Secrets, f.Source)
	}
	for _, port := range s.Ports {
		out.Ports = append(out.Ports, policy.Port{Target: int64(port.Container), Published: int64(port.HostPort), Protocol: port.Protocol, HostIP: port.HostIP})
	}
	for _, v := range c.Volumes {
		if v.Type == "bind" {
			v.Source = path.Clean(v.Source) // who forbids a path means all its spellings
		}
		out.Volumes = append(out.Volumes, policy.Volume{Type: v.Type, Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly})
	}
	return out, nil
}

// mostReasons is how many reasons an error lists; tender policy check lists all.
const mostReasons = 20

// pass is Denied, with every reason, when one of the verdicts denies; others are told of.
func pass(project, environment string, all []tender.Verdict, report func(api.Event)) error {
	var reasons []string
	n := policy.Denied(all)
	for _, v := range all {
		if !v.Deny {
			report(api.Event{Kind: api.KindWarning, Text: told(v)})
			continue
		}
		if len(reasons) < mostReasons {
			reasons = append(reasons, told(v))
		}
	}
	if n == 0 {
		return nil
	}
	if n > mostReasons {
		reasons = append(reasons, fmt.Sprintf("and %d more", n-mostReasons))
	}
	gate := "the gate denies it"
	if environment != "" {
		gate = "the gate of " + environment + " denies it"
	}
	return tender.Errorf(tender.Denied, "%s:\n%s", gate+", nothing has changed", strings.Join(reasons, "\n")).
		Hint("tender policy check says it again; an exception: tender policy waive WHAT --project %s --until 30d --reason '…'", project)
}

// told is a verdict in one line.
func told(v tender.Verdict) string {
	out := v.Rule + ": " + v.Why
	if len(v.Services) > 0 {
		out = strings.Join(v.Services, ", ") + ": " + out
	}
	if w := v.Waiver; w != nil {
		out += fmt.Sprintf(" (waived until %s by %s: %s)", w.Until.Format(time.DateOnly), w.By, w.Reason)
	} else if v.Fix != "" {
		out += ": " + v.Fix
	}
	return out
}

// chosen are the services that a submission is about, as many as it wants of each.
func chosen(d deploy.Submission) (out []tender.Service, err error) {
	names, err := d.Chosen()
	if err != nil {
		return nil, err
	}
	for _, s := range d.Project.Services {
		if n, asked := d.Scale[s.Name]; asked {
			s.Replicas = n
		}
		if names[s.Name] {
			out = append(out, s)
		}
	}
	return out, nil
}

// CheckPolicy is the gate on a submission, now.
func (b *backend) CheckPolicy(ctx context.Context, s api.Submission) (api.Policy, error) {
	d, err := b.draft(s, "")
	if err != nil {
		return api.Policy{}, err
	}
	services, err := chosen(d)
	if err != nil {
		return api.Policy{}, err
	}
	gates, err := b.config.gates(d.Project.Environment)
	if err != nil {
		return api.Policy{}, err
	}
	images, _, err := b.lookUp(ctx, d.Project, s.Pull)
	if err != nil {
		return api.Policy{}, err
	}
	all, err := b.judge(ctx, question{project: d.Project.Name, environment: d.Project.Environment, services: services, images: images})
	if err != nil {
		return api.Policy{}, err
	}
	return api.Policy{Project: d.Project.Name, Environment: d.Project.Environment, Gates: len(gates), Denied: policy.Denied(all), Verdicts: wireVerdicts(all)}, nil
}

func wireVerdicts(all []tender.Verdict) []api.Verdict {
	out := []api.Verdict{}
	for _, v := range all {
		w := api.Verdict{Verdict: "warn", Rule: v.Rule, Services: v.Services, Image: v.Image, Why: v.Why, Fix: v.Fix}
		if v.Deny {
			w.Verdict = "deny"
		}
		if v.Severity != 0 {
			w.Severity = v.Severity.String()
		}
		if v.Waiver != nil {
			waiver := api.Waiver(wireWaiver(*v.Waiver))
			w.Verdict, w.Waiver = "waived", &waiver
		}
		out = append(out, w)
	}
	return out
}

func wireWaiver(w tender.Waiver) api.Waiver {
	return api.Waiver{ID: w.ID, Finding: w.Finding, Scope: w.Scope, Reason: w.Reason, By: w.By, Made: w.Made, Until: w.Until}
}

// Waivers are all that hold, and those that ended within a year.
func (b *backend) Waivers(ctx context.Context) ([]api.Waiver, error) {
	var out []api.Waiver
	err := b.store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.Waivers()
		for _, w := range list {
			out = append(out, wireWaiver(w))
		}
		return err
	})
	return out, err
}

// Waive makes a dated exception.
func (b *backend) Waive(ctx context.Context, who api.Person, r api.Waiver) (out api.Waiver, err error) {
	defer func() {
		b.auditEnd(ctx, who, "policy waive", "", strings.TrimSpace(fmt.Sprintf("%s %s until %s: %s", r.Finding, r.Scope, r.Until.Format(time.DateOnly), r.Reason)), err)
	}()
	now := time.Now().UTC()
	w := tender.Waiver{Finding: strings.TrimSpace(r.Finding), Scope: r.Scope, Reason: strings.TrimSpace(r.Reason), By: who.Name, Made: now, Until: r.Until.UTC()}
	switch {
	case w.Finding == "":
		return out, tender.Errorf(tender.Invalid, "a waiver of nothing").Hint("name a CVE, or a rule as tender policy check prints it")
	case w.Reason == "":
		return out, tender.Errorf(tender.Invalid, "a waiver needs a reason").Hint("--reason 'not reachable from outside'")
	case !w.Until.After(now):
		return out, tender.Errorf(tender.Invalid, "a waiver until %s has ended already", w.Until.Format(time.DateOnly)).Hint("--until 30d")
	case w.Until.After(now.AddDate(1, 0, 1)):
		return out, tender.Errorf(tender.Invalid, "a waiver until %s is for longer than a year", w.Until.Format(time.DateOnly)).Hint("--until 365d at most; make it again when it ends")
	}
	if host, _, _ := strings.Cut(w.Scope, "/"); strings.ContainsAny(host, ".:") || strings.Count(w.Scope, "/") > 1 {
		if w.Scope, err = policy.Repository(w.Scope); err != nil {
			return out, err
		}
	}
	if err := b.store.Update(ctx, func(tx *store.Tx) (err error) {
		w.ID, err = tx.AddWaiver(w)
		return err
	}); err != nil {
		return out, err
	}
	return wireWaiver(w), nil
}

// RemoveWaiver ends one.
func (b *backend) RemoveWaiver(ctx context.Context, who api.Person, id int64) error {
	err := b.store.Update(ctx, func(tx *store.Tx) error { return tx.RemoveWaiver(id) })
	b.auditEnd(ctx, who, "policy waive --rm", "", fmt.Sprint(id), err)
	return err
}

// gateBack warns of what the gate would say of a generation that is gone back to: what
// ran before is the way out of trouble, and is never denied.
func (b *backend) gateBack(ctx context.Context, project string, n int, report func(api.Event)) {
	if b.config.Gate.Empty() && len(b.config.Pipeline) == 0 {
		return
	}
	g, err := b.loop.Generation(ctx, project, n)
	if err != nil {
		b.log.Error("the gate was not asked about a rollback", "project", project, "err", err)
		return
	}
	p, err := compose.Parse(g.YAML)
	var all []tender.Verdict
	if err == nil {
		q := question{project: project, environment: p.Environment, images: map[string]tender.ImageID{}}
		for _, w := range g.Services {
			if !w.Gone {
				q.services = append(q.services, w.Service)
				q.images[w.Service.Name] = w.Image
			}
		}
		all, err = b.judge(ctx, q)
	}
	if err != nil {
		report(api.Event{Kind: api.KindWarning, Text: err.Error()})
	}
	for _, v := range all {
		report(api.Event{Kind: api.KindWarning, Text: told(v)})
	}
}
