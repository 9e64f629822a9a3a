package deploy

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
)

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
		if a.Waits() || busy[key] {
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
			for _, tokens := range []chan struct{}{w.share, w.l.pool} {
				select {
				case tokens <- struct{}{}:
					defer func() { <-tokens }()
				case <-ctx.Done():
					return
				}
			}
			w.take(ctx, key, a)
		})
	}
	all.Wait()
	w.mu.Lock()
	delete(w.flight, key)
	for _, a := range actions {
		// Ensure has looked already; Check and Shift change nothing on the engine.
		quiet := a.Verb == plan.Ensure || a.Verb == plan.Check || a.Verb == plan.Shift
		w.stale = w.stale || quiet
		w.acted = w.acted || !quiet
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
	w.step(a, "done: "+n.Text, a.Drained...)
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
	case !a.Repair && (a.Verb == plan.Promote || a.Verb == plan.Demote):
		w.tried(a.Service, []int{a.Slot}, text)
	case a.Verb == plan.Check:
		w.tried(a.Service, []int{plan.CheckSlot}, text)
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
