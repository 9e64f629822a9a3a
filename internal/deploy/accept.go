package deploy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	tender "github.com/tenderhq/tender"
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
	StopIn       *time.Duration // grace of the instances that are replaced; nil: that of each
	Hold         bool           // blue-green and canary wait for a person at each step
	Supersede    bool
	Recreate     bool   // new revisions although nothing changed
	RenewAnon    bool   // new anonymous volumes
	Orphans      bool   // services that are not in the project any more go
	Token        string // of a Preview; refused if the world has changed since
	ComposeFiles []string
	WorkingDir   string
}

// Chosen are the services that it is about: those that are named and what they need.
func (s Submission) Chosen() (map[string]bool, error) { return choose(s.Project, s) }

// Accepted says what stands now.
type Accepted struct {
	Generation int
	Rollouts   []int64
	Nothing    bool // all was so already
}

// Accept makes a submission the newest generation of its project, in one
// transaction. Conflict: a rollout is open, or the token is not that of the
// world as it is now.
func (l *Loop) Accept(ctx context.Context, s Submission) (Accepted, error) {
	if err := l.told(ctx); err != nil {
		return Accepted{}, err
	}
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
			if err := l.close(tx, r, "superseded by "+d.next.Who); err != nil {
				return err
			}
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
		if err := forgetShifts(tx, d.base.head, d.next); err != nil {
			return err
		}
		if d.next.Down != nil {
			// What they did may go with the volumes, and the containers that tell of it go.
			if err := tx.ForgetJobs(project); err != nil {
				return err
			}
		}
		for _, n := range d.scalings {
			if err := tx.AddScaling(n); err != nil {
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
