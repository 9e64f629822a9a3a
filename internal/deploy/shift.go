package deploy

import (
	"context"
	"fmt"
	"maps"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// checkPatience is how long one answer to a check may take.
const checkPatience = 30 * time.Second

// check asks the new revision through the edge, one request after the other,
// and records that all were answered well.
func (w *worker) check(ctx context.Context, a plan.Action) error {
	for _, c := range a.Checks {
		if err := w.ask(ctx, a, c); err != nil {
			return fmt.Errorf("check %s: %w", c.Path, err)
		}
	}
	return w.changeRollout(ctx, a.Rollout, func(r *store.Rollout) { r.Checked = true })
}

func (w *worker) ask(ctx context.Context, a plan.Action, c tender.Check) error {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	return w.l.o.Edge.Ask(ctx, w.project, a.Service, a.Revision, c)
}

// shift records the new share: the lanes follow from that.
func (w *worker) shift(ctx context.Context, a plan.Action) error {
	counts := w.l.counts(w.project, a.Service)
	return w.changeRollout(ctx, a.Rollout, func(r *store.Rollout) {
		if len(r.Shifts) != a.Step {
			return // it was written already
		}
		s := store.Shift{At: time.Now(), Share: a.Share}
		if counts != nil {
			s.Counts, s.Counting = counts.Revisions, counts.Counting
		}
		r.Shifts = append(r.Shifts, s)
	})
}

// changeRollout changes a rollout if it is open still.
func (w *worker) changeRollout(ctx context.Context, id int64, change func(*store.Rollout)) error {
	unlock, err := w.l.lock(ctx, w.project)
	if err != nil {
		return err
	}
	defer unlock()
	return w.l.o.Store.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.ChangeRollout(id, change)
		return err
	})
}

// counts is what the edge has counted of a service; nil: it does not serve it.
func (l *Loop) counts(project, service string) *store.Counts {
	if l.o.Edge == nil {
		return nil
	}
	t := l.o.Edge.Traffic(project)[service]
	if t == nil {
		return nil
	}
	return &store.Counts{Revisions: maps.Clone(t.Revisions), Counting: t.Counting}
}

// Hold, Resume and Abort are what a person may say of an open rollout.
const (
	Hold   = "hold"   // it waits before its next step
	Resume = "resume" // it goes on
	Abort  = "abort"  // it goes back, or fails where there is nothing to go back to
)

// Steer does one of these with an open rollout. NotFound: there is none with
// this number. Conflict: it has ended, or it is not held.
func (l *Loop) Steer(ctx context.Context, who string, id int64, verb string) (store.Rollout, error) {
	r, err := l.Rollout(ctx, id)
	if err != nil {
		return r, err
	}
	unlock, err := l.lock(ctx, r.Project)
	if err != nil {
		return r, err
	}
	defer unlock()
	var wrong error
	err = l.o.Store.Update(ctx, func(tx *store.Tx) error {
		wrong = nil
		open, err := tx.ChangeRollout(id, func(r *store.Rollout) { wrong = steer(r, who, verb) })
		switch {
		case err != nil:
			return err
		case !open:
			return ended(tx, id)
		case wrong != nil:
			return wrong
		}
		return tx.AddStep(id, time.Now(), fmt.Sprintf("%s said %s", who, verb))
	})
	if err != nil {
		return r, err
	}
	l.tell(News{
		Kind: NewsRollout, Project: r.Project, Service: r.Service, Revision: r.To, Rollout: id, Generation: r.Generation,
		Text: fmt.Sprintf("%s@%s: %s said %s", r.Service, r.To, who, verb),
	})
	l.poke(r.Project)
	return l.Rollout(ctx, id)
}

func ended(tx *store.Tx, id int64) error {
	r, err := tx.Rollout(id)
	if err != nil {
		return err
	}
	return tender.Errorf(tender.Conflict, "rollout %d of %s has ended: %s", id, r.Service, r.State).
		Hint("tender rollback %s -p %s goes back to the revision before", r.Service, r.Project)
}

func steer(r *store.Rollout, who, verb string) error {
	switch verb {
	case Hold:
		r.HoldBy, r.HoldEach = who, false
	case Resume:
		if r.Held() == "" {
			return tender.Errorf(tender.Conflict, "rollout %d of %s is not held", r.ID, r.Service).Hint("tender rollout show %d says what it waits for", r.ID)
		}
		if r.Resumed = len(r.Shifts) + 1; !r.HoldEach {
			r.HoldBy = ""
		}
	case Abort:
		r.Aborted = who
	default:
		return tender.Errorf(tender.Invalid, "unknown word %q for a rollout", verb).Hint("hold, resume or abort")
	}
	return nil
}
