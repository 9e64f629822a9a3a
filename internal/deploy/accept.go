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
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// Submission is what up and plan ask for.
type Submission struct {
	Project tender.Project
	Files   map[string][]byte         // sha256 in hex -> content
	Images  map[string]tender.ImageID // per service, resolved
	Who     string

	Services     []string // only these and what they need; empty: all
	NoDeps       bool     // but not what they need
	Scale        map[string]int
	Versions     map[string]int // of the project's own secrets, where the caller knows them: key under secrets: -> version
	Strategy     string         // for this rollout
	Supersede    bool
	Recreate     bool   // new revisions although nothing changed
	RenewAnon    bool   // new anonymous volumes
	Orphans      bool   // services that are not in the project any more go
	Token        string // of a Preview; refused if the world has changed since
	ComposeFiles []string
	WorkingDir   string
}

// Accepted says what stands now.
type Accepted struct {
	Generation int
	Rollouts   []int64
	Nothing    bool // all was so already
}

// draft is what a submission would come to.
type draft struct {
	base       records // of a project that is not known: zero
	known      bool
	next       store.Generation
	rollouts   []store.Rollout
	supersedes []store.Rollout // open ones that these replace
	retry      []string        // jobs that failed and run again
	verdicts   []Verdict
	nothing    bool
	token      string
}

// Verdict is what happens to one service.
type Verdict struct {
	Service  string
	Verdict  string // create, keep, replace, scale, remove, adopt, start
	Why      string
	From, To string // revisions
	Gap      string // for how long nobody serves; empty: no gap
	Diff     string
}

// Accept makes a submission the newest generation of its project, in one
// transaction. Conflict: a rollout is open, or the token is not that of the
// world as it is now.
func (l *Loop) Accept(ctx context.Context, s Submission) (Accepted, error) {
	unlock, err := l.lock(ctx, s.Project.Name)
	if err != nil {
		return Accepted{}, err
	}
	defer unlock()
	d, err := l.draft(ctx, s)
	if err != nil {
		return Accepted{}, err
	}
	if s.Token != "" && s.Token != d.token {
		return Accepted{}, tender.Errorf(tender.Conflict, "%s has changed since the plan was made", s.Project.Name).
			Hint("make a new plan: tender plan")
	}
	if d.nothing {
		var ids []int64
		for _, r := range d.base.open {
			ids = append(ids, r.ID)
		}
		slices.Sort(ids)
		return Accepted{Generation: d.base.head.N, Rollouts: ids, Nothing: true}, nil
	}
	if !s.Supersede && len(d.base.open) > 0 {
		return Accepted{}, openConflict(d.base)
	}
	return l.commit(ctx, d, s.Files)
}

func openConflict(r records) error {
	names := slices.Sorted(maps.Keys(r.open))
	o := r.open[names[0]]
	return tender.Errorf(tender.Conflict, "a rollout of %s is open: by %s, since %s", o.Service, o.Who, o.Started.UTC().Format(time.DateTime)).
		Hint("wait for it, or take over with --supersede")
}

// commit writes a draft.
func (l *Loop) commit(ctx context.Context, d draft, files map[string][]byte) (Accepted, error) {
	if err := l.o.Store.Spare(); err != nil {
		return Accepted{}, err
	}
	project := d.next.Project
	var ids []int64
	err := l.o.Store.Update(ctx, func(tx *store.Tx) error {
		for _, r := range d.supersedes {
			if _, err := tx.EndRollout(r.ID, store.RolloutSuperseded, "by "+d.next.Who, d.next.At); err != nil {
				return err
			}
		}
		for _, name := range d.retry {
			if s, ok := serviceOf(d.next, name); ok {
				if err := tx.ForgetFailedJobs(project, name, s.Service.Revision); err != nil {
					return err
				}
			}
		}
		if d.next.Down != nil {
			// What they did may go with the volumes, and the containers that tell of it go.
			if err := tx.ForgetJobs(project); err != nil {
				return err
			}
		}
		var err error
		ids, err = commit(tx, d.next, files, d.rollouts)
		return err
	})
	if err != nil {
		return Accepted{}, err
	}
	l.tell(News{Kind: NewsAccepted, Project: project, Generation: d.next.N, Text: fmt.Sprintf("generation %d of %s, by %s: %s", d.next.N, project, d.next.Who, d.next.Reason)})
	for i, r := range d.rollouts {
		from := r.From
		if from == "" {
			from = "nothing"
		}
		l.tell(News{
			Kind: NewsRollout, Project: project, Service: r.Service, Revision: r.To, Rollout: ids[i], Generation: d.next.N,
			Text: fmt.Sprintf("%s moves from %s to %s, %s", r.Service, from, r.To, r.Strategy),
		})
	}
	l.log.Info("accepted", "project", project, "generation", d.next.N, "who", d.next.Who, "reason", d.next.Reason)
	l.poke(project)
	return Accepted{Generation: d.next.N, Rollouts: ids}, nil
}

func serviceOf(g store.Generation, name string) (store.WantedService, bool) {
	return records{head: g}.service(name)
}

// base reads what is known of a project; one that is not known is no error.
func (l *Loop) base(ctx context.Context, project string) (r records, good map[string]store.Rollout, known bool, err error) {
	err = l.o.Store.View(ctx, func(tx *store.Tx) error {
		var err error
		if r, err = read(tx, project); err != nil {
			return err
		}
		list, err := tx.GoodRollouts(project)
		good = byService(list)
		return err
	})
	if tender.KindOf(err) == tender.NotFound {
		return records{}, nil, false, nil
	}
	return r, good, err == nil, err
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
	for k := range d.rollouts {
		r := &d.rollouts[k]
		svc, _ := p.Service(r.Service)
		for _, name := range []string{svc.Name, svc.Rollout.Before} {
			for _, i := range there[name] {
				r.Stale = append(r.Stale, i.ID)
			}
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
	d.nothing = known && len(d.rollouts) == 0 && base.head.Down == nil && bytes.Equal(base.head.YAML, p.Spec) &&
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
	if n, ok := s.Scale[svc.Name]; ok {
		svc.Replicas = n
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
	old, had := d.base.service(svc.Name)
	had = had && old.Service.Revision != ""
	w := store.WantedService{Service: svc, Image: image, RenewAnon: s.RenewAnon, Strategy: s.Strategy, RestartAfter: old.RestartAfter, StartAfter: old.StartAfter}
	if old.Stopped {
		w.StartAfter = d.next.At
	}
	if had && !s.Recreate && !s.RenewAnon && l.same(old, svc, image) {
		w.Service.Revision, w.Service.Spec, w.Image = old.Service.Revision, old.Service.Spec, old.Image
		w.RenewAnon, w.Strategy = old.RenewAnon, old.Strategy
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
	if !had && !foreign && adopted > 0 && adopted >= w.Service.Replicas {
		moves = false // all of it is there and stays
	}
	switch {
	case len(there) == 0 && !had:
		v.Verdict, v.Why = "create", "new service"
	case reborn && len(there) == 0:
		v.Verdict, v.Why = "create", "was removed"
	case adopted > 0 && !foreign && !moves:
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
	if !moves {
		d.say(v)
		return
	}
	if failed {
		d.next.Services[len(d.next.Services)-1].StartAfter = d.next.At
	}
	if isOpen {
		d.supersedes = append(d.supersedes, open)
	}
	r := store.Rollout{
		Project: d.next.Project, Service: name, Generation: d.next.N, To: to, ToImage: w.Image, Who: d.next.Who, Asked: w.Strategy,
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
	r.Strategy = strategy(w, r, there, to)
	if failed || isOpen {
		d.retry = append(d.retry, name)
	}
	v.Gap = gap(w, r, there, to)
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
func gap(w store.WantedService, r store.Rollout, there []tender.Instance, to string) string {
	serves := slices.ContainsFunc(there, func(i tender.Instance) bool { return i.State == tender.Running })
	if w.Service.Job || !serves {
		return ""
	}
	order, why := order(w, r, there, to)
	if order == "start-first" || order == "stop-first" && w.Service.Replicas > 1 && len(there) > 1 {
		return ""
	}
	return "from the stop of the old until the new is ready: " + why
}

// strategy says for people how a rollout goes.
func strategy(w store.WantedService, r store.Rollout, there []tender.Instance, to string) string {
	if w.Service.Job {
		return "job"
	}
	if r.First {
		return "first deploy"
	}
	order, _ := order(w, r, there, to)
	if order == "recreate" {
		return order
	}
	return "rolling " + order
}

func order(w store.WantedService, r store.Rollout, there []tender.Instance, to string) (order, why string) {
	var old []*tender.Instance
	for k := range there {
		if i := &there[k]; i.Revision != to && w.Adopted[i.ID] != to {
			old = append(old, i)
		}
	}
	return plan.Order(&plan.Service{
		Service: w.Service, RenewAnon: w.RenewAnon,
		Open: &plan.Rollout{Strategy: r.Asked, Reverse: r.Reverse},
	}, old)
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
