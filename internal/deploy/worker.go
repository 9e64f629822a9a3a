package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// pause is between two looks when the engine or the store does not answer.
const pause = time.Second

var errForgotten = errors.New("the project is not known any more")

// worker tends one project: look, plan, act, repeat.
type worker struct {
	l       *Loop
	project string
	wake    chan struct{}
	done    chan struct{} // closed when run has ended
	kept    *string       // which images the engine was last told to keep; run's own, as keptFor is
	keptFor string        // for what of the store
	share   chan struct{} // holds a token per action of this project that runs or waits for the pool

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

	// Only run touches these.
	seen    map[string]tender.Instance
	witness witness
}

// step is a line for the proof of a rollout.
type step struct {
	rollout int64
	store.Step
	drained []plan.Drained
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
		l: l, project: project, wake: make(chan struct{}, 1), done: make(chan struct{}), share: make(chan struct{}, share), stale: true,
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
		// Before the look, so that nothing falls between the two.
		var traffic <-chan struct{}
		if w.l.o.Edge != nil {
			traffic = w.l.o.Edge.Changed()
		}
		next, changed, err := w.turn(ctx, &running, first)
		first = false
		if ctx.Err() != nil || errors.Is(err, errForgotten) {
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
		case <-traffic:
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
		if tender.KindOf(err) == tender.NotFound {
			w.letGo(ctx)
			return again(errForgotten)
		}
		if err != nil {
			return again(err)
		}
		// What a rebuilt generation could not deliver came along with the next one.
		first = first || w.known().head.Rebuilt && !r.head.Rebuilt
		w.l.serve(&r)
		w.renew(r)
		w.keep(ctx, r)
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
	known := w.known()
	traffic := w.traffic(known.served, now)
	w.mu.Lock()
	wanted := known.wanted(cloneTries(w.tries), w.ensure, traffic)
	w.mu.Unlock()
	p := plan.Make(wanted, picture, now)
	if lanes := plan.Lanes(wanted, picture, now); !picture.Taken.IsZero() {
		next = w.leave(lanes, now)
		w.l.guide(w.project, slices.Concat([]plan.Lane{}, lanes))
	}
	w.announce(p)
	rest := w.launch(ctx, running, p, busy, now)
	w.l.publish(w.project, round{generation: wanted.Generation, plan: p, busy: len(busy) > 0})
	next = earliest(earliest(next, known.kept(now)), earliest(settle, rest))
	for _, a := range p {
		if a.Waits() {
			next = earliest(next, a.Until)
		}
		if a.Verb == plan.Wait && a.Rollout != 0 && !a.Until.IsZero() {
			next = earliest(next, now.Add(pause)) // what is watched, counts; that alone wakes nobody
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
				if r.head.Origin == 0 {
					delete(w.errors, s.Service.Name) // of a revision that a person has left behind
				}
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
		// How long it ran is the engine's to say, when it was seen to end is ours: their clocks may differ.
		lasted := i.State == tender.Exited && i.Finished.Sub(i.Started) >= plan.Steady && i.Since.Sub(slots[i.Slot].Last) >= plan.Steady
		switch {
		case i.Ready() && now.Sub(i.Since) >= plan.Steady, lasted:
			delete(slots, i.Slot)
			delete(slots, 0)
		case i.Ready():
			next = earliest(next, i.Since.Add(plan.Steady))
		}
	}
	return next
}
