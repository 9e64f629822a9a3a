package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// pause is between two looks when the engine or the store does not answer.
const pause = time.Second

// worker tends one project: look, plan, act, repeat.
type worker struct {
	l       *Loop
	project string
	wake    chan struct{}
	done    chan struct{} // closed when run has ended

	mu     sync.Mutex
	stale  bool                 // the store has changed since records were read
	acted  bool                 // something was done on the engine since the last look
	flight map[string]bool      // services with actions that run; "" is the project itself
	rest   map[string]time.Time // services that are left alone until then
	tries  map[string]map[int]plan.Try
	ensure plan.Try
	errors map[string][]Problem // the newest last
	// records is replaced as a whole, never changed.
	records records
	steps   []step // of rollouts, not yet in the store

	seen map[string]tender.Instance // only run touches it
}

// step is a line for the proof of a rollout.
type step struct {
	rollout int64
	store.Step
}

// round is how a project stood at one look.
type round struct {
	generation int
	plan       plan.Plan
	busy       bool // actions ran
}

// Problem is something that went wrong with a service.
type Problem struct {
	Time time.Time
	Text string
}

// keepProblems is how many problems of a service are kept.
const keepProblems = 10

func newWorker(l *Loop, project string) *worker {
	return &worker{
		l: l, project: project, wake: make(chan struct{}, 1), done: make(chan struct{}), stale: true,
		flight: map[string]bool{}, rest: map[string]time.Time{}, tries: map[string]map[int]plan.Try{}, errors: map[string][]Problem{},
	}
}

// poke says that the store has changed.
func (w *worker) poke() {
	w.mu.Lock()
	w.stale = true
	w.mu.Unlock()
	w.ring()
}

func (w *worker) ring() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends or the project is forgotten.
func (w *worker) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	first := true
	for {
		next, changed, err := w.turn(ctx, &running, first)
		first = false
		if ctx.Err() != nil || tender.KindOf(err) == tender.NotFound {
			return
		}
		if err != nil {
			w.l.log.Warn("project waits", "project", w.project, "err", err)
			next = time.Now().Add(pause)
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(max(time.Until(next), 10*time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-w.wake:
		case <-timer:
		}
	}
}

// turn looks once and begins what the plan says. next is when to look again
// whatever happens; zero: when something changes.
func (w *worker) turn(ctx context.Context, running *sync.WaitGroup, first bool) (next time.Time, changed <-chan struct{}, err error) {
	// Whoever was in flight before this look was taken is planned at the next one.
	w.mu.Lock()
	stale, acted := w.stale, w.acted
	w.stale, w.acted = false, false
	busy := make(map[string]bool, len(w.flight))
	for s := range w.flight {
		busy[s] = true
	}
	w.mu.Unlock()
	again := func(err error) (time.Time, <-chan struct{}, error) {
		w.mu.Lock()
		w.stale, w.acted = w.stale || stale, w.acted || acted
		w.mu.Unlock()
		return time.Time{}, nil, err
	}
	w.prove(ctx)
	if stale {
		r, err := w.l.records(ctx, w.project)
		if err != nil {
			return again(err)
		}
		w.renew(r)
		stale = false
	}
	if first {
		w.deliver(ctx)
	}
	if acted {
		if _, err := w.l.o.Inventory.Fresh(ctx); err != nil {
			return again(err)
		}
	}
	picture, changed := w.l.o.Inventory.Picture()
	now := time.Now()
	w.report(picture, first)
	settle := w.forget(picture, now)
	w.mu.Lock()
	wanted := w.records.wanted(cloneTries(w.tries), w.ensure)
	w.mu.Unlock()
	p := plan.Make(wanted, picture, now)
	rest := w.launch(ctx, running, p, busy, now)
	w.l.publish(w.project, round{generation: wanted.Generation, plan: p, busy: len(busy) > 0})
	next = earliest(settle, rest)
	for _, a := range p {
		if a.Verb == plan.Wait {
			next = earliest(next, a.Until)
		}
	}
	return next, changed, nil
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func cloneTries(in map[string]map[int]plan.Try) map[string]map[int]plan.Try {
	out := make(map[string]map[int]plan.Try, len(in))
	for s, slots := range in {
		m := make(map[int]plan.Try, len(slots))
		for k, t := range slots {
			m[k] = t
		}
		out[s] = m
	}
	return out
}

// renew takes what the store says now. A service of which something else is
// wanted than before begins with a clean slate.
func (w *worker) renew(r records) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.head.N != w.records.head.N {
		w.ensure = plan.Try{}
		for _, s := range r.head.Services {
			old, known := w.records.service(s.Service.Name)
			_, open := r.open[s.Service.Name]
			if !known || open || old.Service.Revision != s.Service.Revision || old.Stopped != s.Stopped || !old.RestartAfter.Equal(s.RestartAfter) {
				delete(w.tries, s.Service.Name)
				delete(w.rest, s.Service.Name)
			}
		}
	}
	w.records = r
}

// known returns what the store said at the last look.
func (w *worker) known() records {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.records
}

// deliver puts the files of all that is wanted on the host: after a boot the
// engine may have tried to start instances whose files were not there yet.
func (w *worker) deliver(ctx context.Context) {
	g := w.known().head
	for _, s := range g.Services {
		if s.Stopped || s.Gone || g.Down != nil || len(s.Service.Secrets)+len(s.Service.Configs) == 0 {
			continue
		}
		if _, err := w.l.o.Deliver(ctx, w.project, s.Service); err != nil && ctx.Err() == nil {
			w.l.tell(News{
				Kind: NewsWarning, Project: w.project, Service: s.Service.Name, Revision: s.Service.Revision,
				Text: fmt.Sprintf("files of %s: %v", s.Service.Name, err), Hint: tender.AdviceOf(err),
			})
		}
	}
}

// report tells how the project's instances differ from the last look.
func (w *worker) report(p tender.Picture, first bool) {
	if !p.Stale.IsZero() {
		return
	}
	now := make(map[string]tender.Instance)
	for _, i := range p.Of(w.project) {
		now[i.ID] = i
		old, known := w.seen[i.ID]
		if first || known && old.State == i.State && old.Health == i.Health {
			continue
		}
		w.l.tell(News{Kind: NewsState, Project: w.project, Service: i.Service, Instance: i.Name, Revision: i.Revision, Text: Says(i)})
	}
	for id, i := range w.seen {
		if _, there := now[id]; !there {
			w.l.tell(News{Kind: NewsState, Project: w.project, Service: i.Service, Instance: i.Name, Revision: i.Revision, Text: i.Name + " is gone"})
		}
	}
	w.seen = now
}

// Says tells in a few words what an instance does.
func Says(i tender.Instance) string {
	switch {
	case i.State == tender.Running && i.Health == tender.Starting:
		return i.Name + " has started"
	case i.State == tender.Running && i.Health != "":
		text := i.Name + " is " + string(i.Health)
		if i.Health == tender.Unhealthy && i.HealthOutput != "" {
			text += ": " + i.HealthOutput
		}
		return text
	case i.State == tender.Exited && i.OOM:
		return fmt.Sprintf("%s was ended for memory (exit %d)", i.Name, i.ExitCode)
	case i.State == tender.Exited && i.Error != "":
		return fmt.Sprintf("%s exited with %d: %s", i.Name, i.ExitCode, i.Error)
	case i.State == tender.Exited:
		return fmt.Sprintf("%s exited with %d", i.Name, i.ExitCode)
	}
	return i.Name + " is " + string(i.State)
}

// forget drops the attempts of slots that have been good for long enough; next
// is when that will be so for the first of the others.
func (w *worker) forget(p tender.Picture, now time.Time) (next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range p.Instances {
		slots := w.tries[i.Service]
		if i.Project != w.project || len(slots) == 0 {
			continue
		}
		since := i.Started
		if i.Since.After(since) {
			since = i.Since
		}
		switch {
		case i.Ready() && now.Sub(since) >= plan.Steady, i.State == tender.Exited && i.Finished.Sub(i.Started) >= plan.Steady && i.Started.After(slots[i.Slot].Last):
			delete(slots, i.Slot)
			delete(slots, 0)
		case i.Ready():
			next = earliest(next, since.Add(plan.Steady))
		}
	}
	return next
}

// tried counts an attempt at slots of a service.
func (w *worker) tried(service string, slots []int, reason string) {
	if len(slots) == 0 {
		slots = []int{0}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tries[service] == nil {
		w.tries[service] = map[int]plan.Try{}
	}
	for _, slot := range slots {
		t := w.tries[service][slot]
		w.tries[service][slot] = plan.Try{Count: t.Count + 1, Last: time.Now(), Reason: reason}
	}
}

// problem remembers what went wrong.
func (w *worker) problem(service, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := append(w.errors[service], Problem{Time: time.Now(), Text: text})
	w.errors[service] = list[max(0, len(list)-keepProblems):]
}

// launch begins the actions of every service that has none in flight. rest is
// when the first of those that are left alone may go on.
func (w *worker) launch(ctx context.Context, running *sync.WaitGroup, p plan.Plan, busy map[string]bool, now time.Time) (rest time.Time) {
	batches := map[string][]plan.Action{}
	var order []string
	var records []plan.Action
	for _, a := range p {
		key := a.Service
		if a.Verb == plan.Ensure || a.Verb == plan.RemoveNetwork || a.Verb == plan.RemoveVolume {
			key = ""
		}
		if a.Verb == plan.Wait || busy[key] {
			continue
		}
		w.mu.Lock()
		until := w.rest[key]
		w.mu.Unlock()
		if now.Before(until) {
			rest = earliest(rest, until)
			continue
		}
		if isRecord(a.Verb) {
			records = append(records, a)
			continue
		}
		if batches[key] == nil {
			order = append(order, key)
		}
		batches[key] = append(batches[key], a)
	}
	if len(records) > 0 {
		w.mu.Lock()
		for _, a := range records {
			w.flight[a.Service], busy[a.Service] = true, true
		}
		w.mu.Unlock()
		running.Go(func() { w.end(ctx, records) })
	}
	for _, key := range order {
		if busy[key] {
			continue // how its rollout ended is written first
		}
		w.mu.Lock()
		w.flight[key] = true
		w.mu.Unlock()
		busy[key] = true
		running.Go(func() { w.batch(ctx, key, batches[key]) })
	}
	return rest
}

// batch takes the actions of one service at once.
func (w *worker) batch(ctx context.Context, key string, actions []plan.Action) {
	var all sync.WaitGroup
	for _, a := range actions {
		all.Go(func() {
			select {
			case w.l.pool <- struct{}{}:
				defer func() { <-w.l.pool }()
			case <-ctx.Done():
				return
			}
			w.take(ctx, key, a)
		})
	}
	all.Wait()
	w.mu.Lock()
	delete(w.flight, key)
	for _, a := range actions {
		// Ensure has looked already.
		w.stale = w.stale || a.Verb == plan.Ensure
		w.acted = w.acted || a.Verb != plan.Ensure
	}
	w.mu.Unlock()
	w.ring()
}

// end writes how rollouts and jobs ended, all in one transaction.
func (w *worker) end(ctx context.Context, actions []plan.Action) {
	err := w.record(ctx, actions)
	if err != nil && ctx.Err() == nil {
		for _, a := range actions {
			w.failed(a.Service, a, err)
		}
	}
	w.mu.Lock()
	for _, a := range actions {
		delete(w.flight, a.Service)
	}
	w.stale = true
	w.mu.Unlock()
	w.ring()
}

// take takes one action and remembers how it went.
func (w *worker) take(ctx context.Context, key string, a plan.Action) {
	n := News{Project: w.project, Service: a.Service, Instance: a.Instance, Revision: a.Revision, Rollout: a.Rollout}
	n.Kind, n.Text = NewsBegun, describe(a)+": "+a.Cause
	w.step(a, n.Text)
	w.l.tell(n)
	err := w.act(ctx, a)
	if ctx.Err() != nil && err != nil {
		return
	}
	if a.Repair {
		slots := a.Slots
		if a.Slot > 0 {
			slots = []int{a.Slot}
		}
		reason := a.Cause
		if err != nil {
			reason = err.Error()
		}
		if tender.KindOf(err) != tender.Unavailable || err == nil {
			w.tried(a.Service, slots, reason)
		}
		w.problem(a.Service, a.Cause)
	}
	if err != nil {
		w.failed(key, a, err)
		return
	}
	n.Kind, n.Text = NewsEnded, describe(a)
	w.step(a, "done: "+n.Text)
	w.l.tell(n)
}

func (w *worker) failed(key string, a plan.Action, err error) {
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		text = "the engine took too long: " + text
	}
	switch {
	case tender.KindOf(err) == tender.Unavailable:
		// Nobody's fault but the engine's or the disk's: it does not count against the service.
	case a.Verb == plan.Ensure:
		w.mu.Lock()
		w.ensure = plan.Try{Count: w.ensure.Count + 1, Last: time.Now(), Reason: text}
		w.mu.Unlock()
	case !a.Repair && a.Verb == plan.Scale:
		w.tried(a.Service, a.Slots, text)
	}
	w.mu.Lock()
	w.rest[key] = time.Now().Add(pause)
	w.mu.Unlock()
	if !strings.HasPrefix(text, string(a.Verb)) {
		text = describe(a) + ": " + text
	}
	w.problem(a.Service, text)
	w.step(a, "failed: "+text)
	w.l.tell(News{
		Kind: NewsFailed, Project: w.project, Service: a.Service, Instance: a.Instance, Revision: a.Revision,
		Rollout: a.Rollout, Text: text, Hint: tender.AdviceOf(err),
	})
	w.l.log.Warn("action failed", "project", w.project, "action", describe(a), "err", err)
}
