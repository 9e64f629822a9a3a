package deploy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// Edge is what the loop asks of the edge. It is given its table by somebody
// else, who reads Lanes.
type Edge interface {
	// Traffic is what the edge says of the services of a project that it serves, by service.
	Traffic(project string) map[string]*plan.Traffic
	// Ask puts a request to a revision through the edge, whatever its share, and says how the answer
	// differs from what is wanted. Unavailable: the edge does not answer.
	Ask(ctx context.Context, project, service, revision string, c tender.Check) error
	// Changed closes when Traffic says something else, of any project.
	Changed() <-chan struct{}
}

// Lanes says what each instance of a project gets of its service's traffic,
// and a channel that closes when that changes for any project. known is false
// where it has not been looked at yet, or is no project of ours any more: what
// was said of it before may hold or not.
func (l *Loop) Lanes(project string) (lanes []plan.Lane, known bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lanes, known = l.lanes[project]
	return lanes, known, l.moved
}

// guide publishes the lanes of a project; nil: nobody tends it any more.
func (l *Loop) guide(project string, lanes []plan.Lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, known := l.lanes[project]
	switch {
	case lanes == nil && !known, lanes != nil && known && slices.Equal(old, lanes):
		return
	case lanes == nil:
		delete(l.lanes, project)
	default:
		l.lanes[project] = lanes
	}
	close(l.moved)
	l.moved = make(chan struct{})
}

// witness remembers since when the edge says what it says. It may be lost: the
// waits that hang on it begin anew then.
type witness struct {
	away  map[string]mark            // by service
	flows map[string]map[string]mark // by service and instance
	told  map[string]bool            // waits that were told of
	idle  map[string]time.Time       // instances with nothing under way, since when
	asked map[string]time.Time       // instances that are to leave and do not, since when
}

type mark struct {
	text  string
	since time.Time
}

// deaf is how long the edge may send to an instance that is to leave.
const deaf = 10 * time.Second

// traffic is what the edge says of the project's services. served names those
// that it should know.
func (w *worker) traffic(served map[string]bool, now time.Time) map[string]*plan.Traffic {
	if w.l.o.Edge == nil {
		return nil
	}
	said := w.l.o.Edge.Traffic(w.project)
	out := make(map[string]*plan.Traffic, len(said))
	see := &w.witness
	away, flows, idle := map[string]mark{}, map[string]map[string]mark{}, map[string]time.Time{}
	for name := range keysOf(said, served) {
		t := &plan.Traffic{Away: "it has not said anything yet"}
		if s := said[name]; s != nil {
			copied := *s
			t = &copied
		}
		since(&t.Since, see.away[name], t.Away, now)
		away[name] = mark{t.Away, t.Since}
		t.Instances = maps.Clone(t.Instances)
		flows[name] = map[string]mark{}
		for id, f := range t.Instances {
			since(&f.Since, see.flows[name][id], string(f.State), now)
			flows[name][id] = mark{string(f.State), f.Since}
			if f.Open == 0 {
				if f.Idle = see.idle[id]; f.Idle.IsZero() {
					f.Idle = now
				}
				idle[id] = f.Idle
			}
			t.Instances[id] = f
			if asked, ok := see.asked[id]; ok && t.Away == "" && f.State != plan.Leaving && !now.Before(asked.Add(deaf)) {
				t.Away, t.Since = "it does not take over what it is given", asked
			}
		}
		out[name] = t
	}
	see.away, see.flows, see.idle = away, flows, idle
	return out
}

// since fills in a time that was not said: when this was first seen.
func since(at *time.Time, before mark, text string, now time.Time) {
	switch {
	case !at.IsZero():
	case before.text == text && !before.since.IsZero():
		*at = before.since
	default:
		*at = now
	}
}

// keysOf are the keys of both.
func keysOf(said map[string]*plan.Traffic, served map[string]bool) map[string]bool {
	keys := maps.Clone(served)
	if keys == nil {
		keys = map[string]bool{}
	}
	for name := range said {
		keys[name] = true
	}
	return keys
}

// leave remembers since when each instance is to leave.
func (w *worker) leave(lanes []plan.Lane, now time.Time) (next time.Time) {
	asked := map[string]time.Time{}
	for _, l := range lanes {
		if l.State != plan.Leaving {
			continue
		}
		at, ok := w.witness.asked[l.ID]
		if !ok {
			at = now
		}
		asked[l.ID] = at
		if t := at.Add(deaf); t.After(now) {
			next = earliest(next, t)
		}
	}
	w.witness.asked = asked
	return next
}

// announce tells of the waits that are steps of a rollout, each once: drains,
// shares that are watched, holds.
func (w *worker) announce(p plan.Plan) {
	told := map[string]bool{}
	for _, a := range p {
		if a.Verb != plan.Drain && (a.Verb != plan.Wait || a.Rollout == 0) {
			continue
		}
		key := fmt.Sprint(a.Service, a.ID, a.Rollout, a.Step, a.Until.IsZero() && a.Verb == plan.Wait)
		told[key] = true
		if w.witness.told[key] {
			continue
		}
		text := a.Cause
		if a.Verb == plan.Drain {
			text = fmt.Sprintf("%s: %s", describe(plan.Action{Verb: a.Verb, Instance: a.Instance}), a.Cause)
		}
		w.step(a, text)
		w.l.tell(News{
			Kind: NewsBegun, Project: w.project, Service: a.Service, Instance: a.Instance, Revision: a.Revision, Rollout: a.Rollout, Text: text,
		})
	}
	w.witness.told = told
}

// servedBy names the services that the edge is to serve: routes lead there, or
// it holds their ports.
func servedBy(routes []tender.Route, services []store.WantedService) map[string]bool {
	served := map[string]bool{}
	for _, r := range routes {
		for _, a := range r.Aims {
			if a.Service != "" {
				served[a.Service] = true
			}
		}
	}
	for _, s := range services {
		if s.Service.Publish == tender.PublishProxy && len(s.Service.Ports) > 0 {
			served[s.Service.Name] = true
		}
	}
	return served
}
