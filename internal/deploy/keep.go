package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// keepTimeout bounds one try to keep images: what is to be done does not wait for it longer.
const keepTimeout = 10 * time.Second

// keep has the engine keep the images that a way back needs and nothing else has:
// of each service the revision before, and those that open rollouts come from. It
// comes before the instances go that have them now.
func (w *worker) keep(ctx context.Context, r records) {
	// A rollout begins with a generation, and ends.
	key := fmt.Sprint(r.head.N, " ", len(r.open))
	if w.keptFor == key {
		return
	}
	need, err := w.l.needed(ctx, w.project, r)
	if err != nil {
		w.l.log.Warn("which images a way back needs is not known", "project", w.project, "err", err)
		return
	}
	ids := make([]string, 0, len(need))
	for _, i := range need {
		ids = append(ids, i.ID)
	}
	sum := strings.Join(ids, " ")
	if w.kept != nil && *w.kept == sum {
		w.keptFor = key
		return
	}
	limit, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	if err := w.l.o.Engine.Keep(limit, w.project, need); err != nil {
		if ctx.Err() == nil {
			w.l.log.Warn("images that a way back needs are not kept from pruning", "project", w.project, "err", err)
		}
		return
	}
	w.kept, w.keptFor = &sum, key
}

// needed are the images of ways back, without those that are wanted anyway.
func (l *Loop) needed(ctx context.Context, project string, r records) (out []tender.ImageID, err error) {
	if r.head.Down != nil {
		return nil, nil
	}
	var rollouts []store.Rollout
	var known []store.Revision
	err = l.o.Store.View(ctx, func(tx *store.Tx) error {
		var err, err2 error
		rollouts, err = tx.Rollouts(project, "")
		known, err2 = tx.Revisions(project)
		return errors.Join(err, err2)
	})
	if err != nil {
		return nil, err
	}
	add := func(i tender.ImageID) {
		wanted := slices.ContainsFunc(r.head.Services, func(s store.WantedService) bool { return !s.Gone && s.Image.Same(i) })
		if i.ID != "" && !wanted && !slices.ContainsFunc(out, i.Same) {
			out = append(out, i)
		}
	}
	for _, s := range r.head.Services {
		if s.Gone {
			continue
		}
		before := previous(rollouts, s.Service.Name, s.Service.Revision)
		for _, k := range known {
			if before != "" && k.Service.Name == s.Service.Name && k.Service.Revision == before {
				add(k.Image)
			}
		}
		if open, ok := r.open[s.Service.Name]; ok {
			add(open.FromImage)
		}
	}
	slices.SortFunc(out, func(a, b tender.ImageID) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// letGo keeps nothing for a project that is not known any more.
func (w *worker) letGo(ctx context.Context) {
	limit, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	if err := w.l.o.Engine.Keep(limit, w.project, nil); err != nil && ctx.Err() == nil {
		w.l.log.Warn("images are kept for a project that is not known any more", "project", w.project, "err", err)
	}
}
