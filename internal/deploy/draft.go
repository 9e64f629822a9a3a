package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// draft is what a submission would come to.
type draft struct {
	base       records // of a project that is not known: zero
	known      bool
	next       store.Generation
	rollouts   []store.Rollout
	supersedes []store.Rollout // open ones that these replace
	scalings   []store.Scaling
	retry      []string // jobs that failed and run again
	verdicts   []Verdict
	nothing    bool
	token      string
	routes     []RouteChange
	served     map[string]bool // by the edge, once it is accepted
}

// draft works out everything that may fail, and writes nothing.
func (l *Loop) draft(ctx context.Context, s Submission) (draft, error) {
	p := s.Project
	if p.Name == "" {
		return draft{}, tender.Errorf(tender.Invalid, "the project has no name").Hint("add name: to the file, or give -p NAME")
	}
	chosen, err := choose(p, s)
	if err != nil {
		return draft{}, err
	}
	base, good, known, err := l.base(ctx, p.Name)
	if err != nil {
		return draft{}, err
	}
	seen, err := l.o.Inventory.Fresh(ctx)
	if err != nil {
		return draft{}, tender.Errorf(tender.Unavailable, "look at the engine: %w", err).Hint("tender doctor checks the engine")
	}
	now := time.Now()
	d := draft{base: base, known: known, token: token(base.head.N, seen.Of(p.Name))}
	d.next = store.Generation{
		Project: p.Name, N: base.head.N + 1, At: now, Who: s.Who, Reason: "up", YAML: p.Spec, Files: slices.Sorted(maps.Keys(s.Files)),
		ComposeFiles: s.ComposeFiles, WorkingDir: s.WorkingDir, Orphans: s.Orphans,
		Routes: routesOf(p, chosen, base.head.Routes),
	}
	d.routes = routeChanges(base.head, d.next)
	if l.o.Edge != nil {
		d.served = servedBy(d.next.Routes, base.head.Services) // and what draftService moves to the edge
	}
	there := map[string][]tender.Instance{}
	for _, i := range seen.Of(p.Name) {
		if !i.Oneoff {
			there[i.Service] = append(there[i.Service], i)
		}
	}
	for _, svc := range p.Services {
		old, had := base.service(svc.Name)
		if !chosen[svc.Name] {
			if had {
				d.next.Services = append(d.next.Services, old)
			}
			continue
		}
		if err := l.draftService(ctx, s, &d, good[svc.Name], svc, there[svc.Name]); err != nil {
			return draft{}, err
		}
	}
	if err := sameEdge(d.next); err != nil {
		return draft{}, err
	}
	if err := l.clash(ctx, d.next); err != nil {
		return draft{}, err
	}
	for k := range d.rollouts {
		r := &d.rollouts[k]
		r.Begin = l.counts(p.Name, r.Service)
		if s.Hold && r.Beside() {
			r.HoldBy, r.HoldEach = s.Who, true
		}
		svc, _ := p.Service(r.Service)
		before := there[svc.Rollout.Before]
		if !svc.Job || slices.Contains(d.retry, svc.Name) {
			// A job that has run stays run, unless it failed.
			before = slices.Concat(there[svc.Name], before)
		}
		for _, i := range before {
			r.Stale = append(r.Stale, i.ID)
		}
	}
	for name, o := range base.open {
		if _, wanted := p.Service(name); !wanted {
			d.supersedes = append(d.supersedes, o)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if _, wanted := p.Service(name); !wanted {
			v := Verdict{Service: name, Verdict: "keep", Why: "not in the project any more; --remove-orphans removes it"}
			if s.Orphans {
				v.Verdict, v.Why = "remove", "not in the project any more"
			}
			d.verdicts = append(d.verdicts, v)
		}
	}
	if base.head.Made != nil && base.head.Down == nil && sameGround(base.head.YAML, p.Spec) {
		d.next.Made = base.head.Made
	}
	d.nothing = known && len(d.routes) == 0 && !base.head.Rebuilt && len(d.rollouts) == 0 && base.head.Down == nil && bytes.Equal(base.head.YAML, p.Spec) &&
		(!s.Orphans || base.head.Orphans || !slices.ContainsFunc(d.verdicts, func(v Verdict) bool { return v.Verdict == "remove" })) &&
		equalServices(base.head.Services, d.next.Services)
	return d, nil
}

// choose names the services that a submission is about.
func choose(p tender.Project, s Submission) (map[string]bool, error) {
	for name, n := range s.Scale {
		if _, ok := p.Service(name); !ok {
			return nil, noService(p.Name, name)
		}
		if n < 0 {
			return nil, tender.Errorf(tender.Invalid, "scale %s to %d: less than none", name, n)
		}
	}
	chosen := map[string]bool{}
	if len(s.Services) == 0 {
		for _, svc := range p.Services {
			chosen[svc.Name] = true
		}
		return chosen, nil
	}
	var visit func(name string) error
	visit = func(name string) error {
		svc, ok := p.Service(name)
		if !ok {
			return noService(p.Name, name)
		}
		if chosen[name] {
			return nil
		}
		chosen[name] = true
		if s.NoDeps {
			return nil
		}
		for _, d := range svc.DependsOn {
			if _, ok := p.Service(d.Service); !ok && !d.Required {
				continue
			}
			if err := visit(d.Service); err != nil {
				return err
			}
		}
		if svc.Rollout.Before != "" {
			return visit(svc.Rollout.Before)
		}
		return nil
	}
	for _, name := range s.Services {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return chosen, nil
}

func noService(project, name string) error {
	return tender.Errorf(tender.NotFound, "project %s has no service %s", project, name).Hint("tender ps -p %s shows its services", project)
}

// draftService works out one service.
func (l *Loop) draftService(ctx context.Context, s Submission, d *draft, good store.Rollout, svc tender.Service, there []tender.Instance) error {
	image, ok := s.Images[svc.Name]
	if !ok {
		return tender.Errorf(tender.Invalid, "service %s: no image was found for %s", svc.Name, svc.Image).Hint("tender pull, or tender build")
	}
	old, had := d.base.service(svc.Name)
	had = had && old.Service.Revision != ""
	counted, err := d.count(&svc, old, had, s)
	if err != nil {
		return err
	}
	svc, err = l.o.Hold(svc, had && old.Service.Publish == tender.PublishProxy)
	if err != nil {
		return err
	}
	if l.o.Edge != nil {
		d.served[svc.Name] = d.served[svc.Name] || svc.Publish == tender.PublishProxy
	}
	svc.Secrets = slices.Clone(svc.Secrets)
	for i := range svc.Secrets {
		if v, ok := s.Versions[svc.Secrets[i].Name]; ok && !svc.Secrets[i].External {
			svc.Secrets[i].Version = v
			continue
		}
		v, err := l.o.SecretVersion(ctx, d.next.Project, svc.Secrets[i])
		if err != nil {
			return fmt.Errorf("service %s: %w", svc.Name, err)
		}
		svc.Secrets[i].Version = v
	}
	w := store.WantedService{Service: svc, Image: image, RenewAnon: s.RenewAnon, Strategy: s.Strategy, RestartAfter: old.RestartAfter, RestartOf: old.RestartOf, StartAfter: old.StartAfter, StartOf: old.StartOf, Counted: counted}
	if old.Stopped {
		w.StartAfter, w.StartOf = d.next.At, lives(there, svc.Name)
	}
	if had && !s.Recreate && !s.RenewAnon && l.same(old, svc, image) {
		w.Service.Revision, w.Service.Spec, w.Image = old.Service.Revision, old.Service.Spec, old.Image
		w.RenewAnon, w.Strategy, w.Kept = old.RenewAnon, old.Strategy, old.Kept
	} else {
		salt := ""
		if s.Recreate || s.RenewAnon {
			salt = fmt.Sprintf("%d %d", d.next.N, d.next.At.UnixNano())
		}
		rev, err := l.revision(svc, image, salt)
		if err != nil {
			return fmt.Errorf("service %s: %w", svc.Name, err)
		}
		w.Service.Revision = rev
	}
	if err := l.adopt(ctx, d, &w, old, there); err != nil {
		return err
	}
	d.next.Services = append(d.next.Services, w)
	l.draftRollout(d, s, good, w, old, had, there)
	return nil
}

// adopt asks the engine which foreign instances are what w would make.
func (l *Loop) adopt(ctx context.Context, d *draft, w *store.WantedService, old store.WantedService, there []tender.Instance) error {
	for _, i := range there {
		if !i.Foreign {
			continue
		}
		if rev, ok := old.Adopted[i.ID]; ok {
			if w.Adopted == nil {
				w.Adopted = map[string]string{}
			}
			w.Adopted[i.ID] = rev
			continue
		}
		want := wantOf(d.next, *w)
		want.Slots = []int{max(i.Slot, 1)}
		same, why, err := l.o.Engine.Equal(ctx, want, i.ID)
		if err != nil {
			return fmt.Errorf("compare %s: %w", i.Name, err)
		}
		if !same {
			d.verdicts = append(d.verdicts, Verdict{Service: w.Service.Name, Verdict: "replace", Why: i.Name + " was made by Docker Compose: " + why, To: w.Service.Revision})
			continue
		}
		if w.Adopted == nil {
			w.Adopted = map[string]string{}
		}
		w.Adopted[i.ID] = w.Service.Revision
	}
	return nil
}

// token names a generation and the instances that were there. Health and time
// are no part of it.
func token(generation int, there []tender.Instance) string {
	var ids []string
	for _, i := range there {
		if !i.Oneoff {
			ids = append(ids, i.ID+" "+i.Revision)
		}
	}
	slices.Sort(ids)
	return short(fmt.Sprint(generation, ids))
}

func equalServices(a, b []store.WantedService) bool {
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && bytes.Equal(x, y)
}
