package deploy

import (
	"context"
	"fmt"
	"time"

	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// step keeps a line for the proof of the service's open rollout. It goes to the
// store with others, so that a rollout does not wait for the disk at each step.
func (w *worker) step(a plan.Action, text string, drained ...plan.Drained) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if open, ok := w.records.open[a.Service]; ok {
		w.steps = append(w.steps, step{open.ID, store.Step{Time: time.Now(), Text: text}, drained})
	}
}

// prove writes the steps that are kept.
func (w *worker) prove(ctx context.Context) {
	steps := w.takeSteps()
	if len(steps) == 0 {
		return
	}
	err := w.l.o.Store.Update(ctx, func(tx *store.Tx) error { return addSteps(tx, steps) })
	if err != nil && ctx.Err() == nil {
		w.l.log.Warn("proof of a rollout has a gap", "project", w.project, "err", err)
	}
}

func (w *worker) takeSteps() []step {
	w.mu.Lock()
	defer w.mu.Unlock()
	steps := w.steps
	w.steps = nil
	return steps
}

func addSteps(tx *store.Tx, steps []step) error {
	for _, s := range steps {
		if err := tx.AddStep(s.rollout, s.Time, s.Text); err != nil {
			return err
		}
		if err := addDrains(tx, s); err != nil {
			return err
		}
	}
	return nil
}

// record writes how rollouts and jobs ended.
func (w *worker) record(ctx context.Context, actions []plan.Action) error {
	unlock, err := w.l.lock(ctx, w.project)
	if err != nil {
		return err
	}
	defer unlock()
	now := time.Now()
	steps := w.takeSteps()
	var news []News
	err = w.l.o.Store.Update(ctx, func(tx *store.Tx) error {
		news = nil // Update may run this twice
		if err := addSteps(tx, steps); err != nil {
			return err
		}
		r, err := read(tx, w.project)
		for _, a := range actions {
			if err != nil {
				return err
			}
			var n []News
			if n, err = w.recordOne(tx, r, a, now); err != nil {
				return err
			}
			news = append(news, n...)
			r, err = read(tx, w.project) // there may be a new generation
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, n := range news {
		w.l.tell(n)
		w.l.log.Info("rollout", "project", w.project, "service", n.Service, "revision", n.Revision, "text", n.Text)
	}
	return nil
}

// recordOne writes the end of one rollout or job, if it is still wanted.
func (w *worker) recordOne(tx *store.Tx, r records, a plan.Action, now time.Time) ([]News, error) {
	if a.Service == "" {
		if r.head.Down == nil {
			return nil, nil // something else is wanted meanwhile
		}
		return nil, tx.SetMade(w.project, r.head.N, store.Made{Ended: true})
	}
	s, ok := r.service(a.Service)
	if !ok || s.Service.Revision != a.Revision {
		return nil, nil
	}
	if a.Job {
		err := tx.AddJobEnd(store.JobEnd{Project: w.project, Service: a.Service, Revision: a.Revision, Rollout: a.For, Code: a.Code, Ended: now})
		if err != nil {
			return nil, err
		}
	}
	open, ok := r.open[a.Service]
	if !ok || open.ID != a.Rollout {
		return nil, nil
	}
	state, text, reason := store.RolloutDone, "done", ""
	switch {
	case a.Verb == plan.Rollback && kept(tx, open):
		state, text, reason = store.RolledBack, "rolled back: "+a.Cause, a.Cause
	case a.Verb != plan.Finish:
		state, text, reason = store.RolloutFailed, "failed: "+a.Cause, a.Cause
		if a.Pause {
			text = "failed and paused: " + a.Cause
		}
	}
	if err := tx.AddStep(open.ID, now, text); err != nil {
		return nil, err
	}
	if err := w.l.close(tx, open, text); err != nil {
		return nil, err
	}
	if a.Verb == plan.Finish && !a.Kept.Until.IsZero() {
		kept := store.Kept(a.Kept)
		if err := tx.SetKept(w.project, a.Service, &kept); err != nil {
			return nil, err
		}
	}
	if _, err := tx.EndRollout(open.ID, state, reason, now); err != nil {
		return nil, err
	}
	n := News{
		Kind: NewsRollout, Project: w.project, Service: a.Service, Revision: a.Revision, Rollout: open.ID,
		Generation: open.Generation, Text: fmt.Sprintf("%s@%s: %s", a.Service, a.Revision, text),
	}
	if state != store.RolloutDone {
		n.Hint = fmt.Sprintf("tender why %s -p %s", a.Service, w.project)
	}
	switch {
	case a.Pause:
		return []News{n}, tx.SetHalted(w.project, a.Service, a.Cause)
	case state == store.RolledBack:
		back, err := w.rollBack(tx, r, open, a.Cause, now)
		return []News{n, back}, err
	}
	return []News{n}, nil
}

// kept reports whether the revision that a rollout came from is still known.
func kept(tx *store.Tx, open store.Rollout) bool {
	_, err := tx.Revision(open.Project, open.Service, open.From)
	return err == nil
}

// rollBack writes the generation that goes back to what open came from, and
// marks its revision as rejected.
func (w *worker) rollBack(tx *store.Tx, r records, open store.Rollout, why string, now time.Time) (News, error) {
	if err := tx.Reject(w.project, open.Service, open.To, why); err != nil {
		return News{}, err
	}
	old, err := tx.Revision(w.project, open.Service, open.From)
	if err != nil {
		return News{}, err
	}
	g := r.head
	g.N, g.At, g.Who, g.Origin = r.head.N+1, now, "tender", open.Generation
	g.Reason = fmt.Sprintf("%s@%s failed: %s", open.Service, open.To, why)
	if g.Made == nil {
		// The networks and volumes of the failed one could not be made: those that were made before hold.
		for n := r.head.N - 1; n > 0; n-- {
			before, err := tx.Generation(w.project, n)
			if err != nil {
				break
			}
			if before.Made != nil {
				g.YAML, g.Files, g.Made = before.YAML, before.Files, before.Made
				break
			}
		}
	}
	g.Services = append([]store.WantedService(nil), g.Services...)
	for i := range g.Services {
		s := &g.Services[i]
		if s.Service.Name == open.Service {
			replicas, rule := s.Service.Replicas, s.Service.Scale
			s.Service, s.Image = old.Service, old.Image
			s.Service.Replicas, s.Service.Scale, s.Strategy, s.Kept = replicas, rule, "", nil
		}
	}
	back := store.Rollout{
		Project: w.project, Service: open.Service, Generation: g.N, From: open.To, To: open.From, FromImage: open.ToImage, ToImage: open.FromImage,
		Who: "tender", Strategy: "rollback", Reverse: true, Started: now, Stale: w.l.ids(w.project, open.Service), Begin: w.l.counts(w.project, open.Service),
	}
	back.Returns(open, now)
	id, err := commit(tx, g, nil, []store.Rollout{back})
	if err != nil {
		return News{}, err
	}
	return News{
		Kind: NewsRollout, Project: w.project, Service: open.Service, Revision: open.From, Rollout: id[0], Generation: g.N,
		Text: fmt.Sprintf("%s goes back to %s", open.Service, open.From),
	}, nil
}

// ids names the instances of a service at the last look.
func (l *Loop) ids(project, service string) (ids []string) {
	seen, _ := l.o.Inventory.Picture()
	for _, i := range seen.Of(project) {
		if i.Service == service {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

// commit writes a generation, the revisions that it wants and the rollouts
// that it opens.
func commit(tx *store.Tx, g store.Generation, files map[string][]byte, rollouts []store.Rollout) (ids []int64, err error) {
	for _, s := range g.Services {
		if err := tx.SaveRevision(store.Revision{Project: g.Project, Service: s.Service, Image: s.Image, Made: g.At, Last: g.N}); err != nil {
			return nil, err
		}
	}
	if err := tx.AddGeneration(g, files); err != nil {
		return nil, err
	}
	for _, r := range rollouts {
		id, err := tx.AddRollout(r)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}
