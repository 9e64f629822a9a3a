package deploy

import (
	"context"
	"fmt"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// Scaled is a service whose count follows what is measured, as it stands now.
type Scaled struct {
	Project, Service, Revision string
	Rule                       tender.Scale
	Spec                       []byte
	Wanted                     int
	Counted                    *store.Counted
	Instances                  []tender.Instance // ready ones of its revision
	Busy                       string            // why its count may not change now
}

// Scaling returns the services of all projects whose count follows what is
// measured.
func (l *Loop) Scaling(ctx context.Context) (all []Scaled, err error) {
	seen, _ := l.o.Inventory.Picture()
	err = l.o.Store.View(ctx, func(tx *store.Tx) error {
		all = nil
		names, err := tx.Projects()
		for _, name := range names {
			if err != nil {
				return err
			}
			var r records
			if r, err = read(tx, name); err == nil {
				all = append(all, r.scaling(seen)...)
			}
		}
		return err
	})
	return all, err
}

func (r records) scaling(seen tender.Picture) (all []Scaled) {
	if r.head.Down != nil {
		return nil
	}
	there := seen.Of(r.head.Project)
	for _, s := range r.head.Services {
		if s.Service.Scale == nil || s.Gone || s.Stopped || s.Service.Job {
			continue
		}
		v := Scaled{
			Project: r.head.Project, Service: s.Service.Name, Revision: s.Service.Revision, Rule: *s.Service.Scale, Spec: s.Service.Spec,
			Wanted: s.Service.Replicas, Counted: s.Counted,
		}
		open, rolling := r.open[v.Service]
		switch {
		case seen.Taken.IsZero():
			v.Busy = "there is no picture of the engine yet"
		case !seen.Stale.IsZero():
			v.Busy = "the engine does not answer since " + seen.Stale.UTC().Format(time.DateTime)
		case rolling:
			v.Busy = fmt.Sprintf("rollout %d to %s runs", open.ID, open.To)
		case s.Halted != "":
			v.Busy = "its rollout is paused"
		}
		for _, i := range there {
			if i.Service == v.Service && !i.Oneoff && i.Ready() && (i.Revision == v.Revision || s.Adopted[i.ID] == v.Revision) {
				v.Instances = append(v.Instances, i)
			}
		}
		all = append(all, v)
	}
	return all
}

// Rescale makes what plan decided for a service what is wanted, unless something
// else is wanted meanwhile; done says that it is.
func (l *Loop) Rescale(ctx context.Context, s Scaled, to plan.Count) (done bool, err error) {
	unlock, err := l.lock(ctx, s.Project)
	if err != nil {
		return false, err
	}
	defer unlock()
	n := store.Scaling{Project: s.Project, Service: s.Service, At: time.Now(), Who: store.Autoscale, From: s.Wanted, To: to.N, Cause: to.Cause}
	err = l.o.Store.Update(ctx, func(tx *store.Tx) error {
		done = false
		r, err := read(tx, s.Project)
		if tender.KindOf(err) == tender.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		w, ok := r.service(s.Service)
		_, rolling := r.open[s.Service]
		if !ok || rolling || r.head.Down != nil || w.Gone || w.Stopped || w.Service.Scale == nil || *w.Service.Scale != s.Rule ||
			w.Service.Revision != s.Revision || w.Service.Replicas != s.Wanted {
			return nil
		}
		done = true
		return tx.Rescale(n)
	})
	if err != nil || !done {
		return false, err
	}
	l.tell(News{
		Kind: NewsScaled, Project: s.Project, Service: s.Service, Revision: s.Revision,
		Text: fmt.Sprintf("%s goes from %d to %d: %s", s.Service, s.Wanted, to.N, to.Cause),
	})
	l.log.Info("scaled", "project", s.Project, "service", s.Service, "from", s.Wanted, "to", to.N, "cause", to.Cause)
	l.poke(s.Project)
	return true, nil
}

// Scalings returns the changes of counts in a project, or of one service, the
// newest first.
func (l *Loop) Scalings(ctx context.Context, project, service string) (list []store.Scaling, err error) {
	err = l.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.Scalings(project, service)
		return err
	})
	return list, err
}

// count says how many instances svc has from now on. One that scales by itself
// keeps what it has: replicas of the file is only where it begins.
func (d *draft) count(svc *tender.Service, old store.WantedService, had bool, s Submission) (*store.Counted, error) {
	was := old.Counted
	if !had || old.Gone || d.base.head.Down != nil {
		was, had = nil, false
	}
	n := store.Scaling{Project: d.next.Project, Service: svc.Name, At: d.next.At, Who: s.Who, From: old.Service.Replicas}
	switch asked, ok := s.Scale[svc.Name]; {
	case ok:
		if err := within(*svc, asked); err != nil {
			return nil, err
		}
		n.To, n.Cause = asked, "asked for by "+s.Who
	case svc.Scale == nil:
		return nil, nil // as the file says
	case had:
		n.To, n.Cause = svc.Scale.Clamp(old.Service.Replicas), fmt.Sprintf("between %d and %d", svc.Scale.Min, svc.Scale.Max)
	default:
		svc.Replicas = svc.Scale.Clamp(svc.Replicas)
		return nil, nil
	}
	svc.Replicas = n.To
	if !had || n.To == n.From {
		return was, nil
	}
	d.scalings = append(d.scalings, n)
	return was.After(n), nil
}

// within refuses a count that the service's own rule would undo.
func within(s tender.Service, n int) error {
	rule := s.Scale
	switch {
	case rule == nil || rule.Clamp(n) == n:
		return nil
	case n == 0:
		return tender.Errorf(tender.Conflict, "scale %s to 0: it scales by itself, from %d to %d", s.Name, rule.Min, rule.Max).
			Hint("tender stop %s", s.Name)
	}
	return tender.Errorf(tender.Conflict, "scale %s to %d: it scales by itself, from %d to %d", s.Name, n, rule.Min, rule.Max).
		Hint("change min or max of x-tender.scale in the file, then: tender up")
}
