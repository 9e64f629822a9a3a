package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/metrics"
	"github.com/tenderhq/tender/internal/plan"
)

// scaling asks what is measured of the services with x-tender.scale, lets plan
// decide about their counts, and makes what it decides what is wanted.
type scaling struct {
	log    *slog.Logger
	every  time.Duration
	span   time.Duration // how far back what is measured counts
	loop   scaler
	edge   trafficSource
	query  func(ctx context.Context, expr string, at time.Time) ([]metrics.Value, error) // nil: nothing is measured
	memory func() (nodeMemory, bool)                                                     // of the node; false: not known

	mu   sync.Mutex
	seen map[scaledService]*watched
}

// scaler is deploy's loop as scaling knocks at it.
type scaler interface {
	Scaling(ctx context.Context) ([]deploy.Scaled, error)
	Rescale(ctx context.Context, s deploy.Scaled, to plan.Count) (bool, error)
}

// trafficSource is the keeper of the edge.
type trafficSource interface {
	settle(ctx context.Context) error
	served(project, service string) (servedSince, error)
}

type scaledService struct{ project, service string }

// watched is what is remembered of a service between two looks. It may be lost:
// then nothing goes until it was watched for a whole window again.
type watched struct {
	began, looked time.Time
	past          []plan.Asked
	requests      []servedSince // the oldest first
	last          plan.Count
}

// servedSince is how many requests the edge has brought to a service.
type servedSince struct {
	at, counting time.Time
	requests     uint64
}

func newScaling(b *backend, log *slog.Logger) *scaling {
	s := &scaling{log: log, every: b.config.Autoscale, span: max(plan.LoadFor, 4*b.config.Sampling), loop: b.loop, edge: b.keeper, seen: map[scaledService]*watched{}}
	s.memory = func() (nodeMemory, bool) {
		if !strings.HasPrefix(b.config.Engine, "unix://") {
			return nodeMemory{}, false
		}
		n, err := readMemory("/proc/meminfo")
		return n, err == nil
	}
	if b.metered != nil {
		s.query = b.metered.db.Fresh
	}
	return s
}

// run is the part.
func (s *scaling) run(ctx context.Context) error {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		if err := s.look(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("counts are left as they are", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look decides once about each service.
func (s *scaling) look(ctx context.Context) error {
	all, err := s.loop.Scaling(ctx)
	if err != nil {
		return err
	}
	s.forget(all)
	if len(all) == 0 {
		return nil
	}
	var away error
	if slices.ContainsFunc(all, func(v deploy.Scaled) bool { return v.Rule.Requests > 0 }) {
		wait, cancel := context.WithTimeout(ctx, edgeCall)
		away = s.edge.settle(wait)
		cancel()
	}
	now := time.Now()
	used := s.measure(ctx, all, now)
	node, known := s.memory()
	for _, v := range all {
		w := s.watch(v, now)
		in, err := s.input(ctx, v, w, used, away, now)
		if err != nil { // written by another version; the others go on
			s.log.Warn("a count is left as it is", "project", v.Project, "service", v.Service, "err", err)
			continue
		}
		if known {
			in.Room.Known, in.Room.Available = true, node.spare()
		}
		count := plan.Decide(in, now)
		done := false
		if count.N != v.Wanted {
			// Whoever changes the project at length holds up no other.
			limit, cancel := context.WithTimeout(ctx, s.every)
			done, err = s.loop.Rescale(limit, v, count)
			cancel()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				s.log.Warn("a count is left as it is", "project", v.Project, "service", v.Service, "want", count.N, "err", err)
			}
		}
		if done {
			node.Available -= int64(max(count.N-v.Wanted, 0)) * in.Room.Each // what the next one may not have
		}
		s.mu.Lock()
		w.past = append(w.past, plan.Asked{At: now, N: count.Asked})
		w.last = count
		s.mu.Unlock()
	}
	return nil
}

// forget drops what is known of services that do not scale by themselves any more.
func (s *scaling) forget(all []deploy.Scaled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := map[scaledService]bool{}
	for _, v := range all {
		there[scaledService{v.Project, v.Service}] = true
	}
	maps.DeleteFunc(s.seen, func(k scaledService, _ *watched) bool { return !there[k] })
}

// watch returns what is remembered of a service. After a gap as long as its window
// nothing of it counts.
func (s *scaling) watch(v deploy.Scaled, now time.Time) *watched {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := scaledService{v.Project, v.Service}
	w := s.seen[key]
	if w == nil || now.Sub(w.looked) > max(v.Rule.Window, 3*s.every) {
		w = &watched{began: now}
		s.seen[key] = w
	}
	w.looked = now
	w.past = slices.DeleteFunc(w.past, func(a plan.Asked) bool { return now.Sub(a.At) > v.Rule.Window })
	return w
}

// input is what plan decides by.
func (s *scaling) input(ctx context.Context, v deploy.Scaled, w *watched, used usage, away error, now time.Time) (plan.Scaling, error) {
	budget, err := compose.BudgetOf(v.Spec)
	if err != nil {
		return plan.Scaling{}, err
	}
	in := plan.Scaling{Rule: v.Rule, Wanted: v.Wanted, Ready: len(v.Instances), Past: w.past, Began: w.began, Busy: v.Busy}
	if v.Counted != nil {
		in.Changed, in.Added = v.Counted.At, v.Counted.Added
	}
	if v.Rule.CPU > 0 {
		in.Loads = append(in.Loads, used.load("cpu", v, v.Rule.CPU, cmp.Or(budget.Cores, 1), now))
	}
	if v.Rule.Memory > 0 {
		limit := float64(budget.Memory)
		if limit == 0 {
			if node, ok := s.memory(); ok {
				limit = float64(node.Total)
			}
		}
		in.Loads = append(in.Loads, used.load("memory", v, v.Rule.Memory, limit, now))
	}
	if v.Rule.Requests > 0 {
		in.Loads = append(in.Loads, s.rate(v, w, away))
	}
	if v.Rule.Query != "" {
		in.Loads = append(in.Loads, s.asked(ctx, v.Rule, now))
	}
	in.Room.Each = cmp.Or(int64(used.most("memory", v)), budget.Memory)
	return in, nil
}

// rate is how many requests a second the edge brings to a service.
func (s *scaling) rate(v deploy.Scaled, w *watched, away error) plan.Load {
	l := plan.Load{Word: "requests", Target: v.Rule.Requests}
	now, err := s.edge.served(v.Project, v.Service)
	switch {
	case away != nil:
		l.Missing = away.Error()
		return l
	case err != nil:
		l.Missing = err.Error()
		return l
	}
	if n := len(w.requests); n > 0 && (!w.requests[n-1].counting.Equal(now.counting) || w.requests[n-1].requests > now.requests) {
		w.requests = nil // it counts anew
	}
	if n := len(w.requests); n == 0 || now.at.After(w.requests[n-1].at) {
		w.requests = append(w.requests, now)
	}
	for len(w.requests) > 2 && now.at.Sub(w.requests[1].at) >= 2*s.every {
		w.requests = w.requests[1:]
	}
	first := w.requests[0]
	if took := now.at.Sub(first.at); took > 0 {
		l.Value, l.At = float64(now.requests-first.requests)/took.Seconds(), now.at
	} else {
		l.Missing = "the edge was asked once"
	}
	return l
}

// asked is the answer to the rule's own question.
func (s *scaling) asked(ctx context.Context, rule tender.Scale, now time.Time) plan.Load {
	l := plan.Load{Word: "query", Target: rule.Target}
	if s.query == nil {
		l.Missing = "metrics are off"
		return l
	}
	ctx, cancel := context.WithTimeout(ctx, s.every)
	defer cancel()
	values, err := s.query(ctx, rule.Query, now)
	switch {
	case err != nil:
		l.Missing = err.Error()
	case len(values) == 0:
		l.Missing = "its answer is empty"
	case len(values) > 1:
		l.Missing = fmt.Sprintf("its answer is %d values, want one", len(values))
	default:
		l.Value, l.At = values[0].Value, now
	}
	return l
}

// scaleOf is what status says of a service that scales by itself; nil: it does not.
func (s *scaling) scaleOf(p deploy.ProjectState, v deploy.ServiceState) *api.Scale {
	if v.Scale == nil || s == nil {
		return nil
	}
	out := &api.Scale{Min: v.Scale.Min, Max: v.Scale.Max, Rule: v.Scale.String()}
	if c := v.Counted; c != nil {
		out.Changed, out.From, out.Who, out.Why = c.At, c.From, c.Who, c.Cause
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.seen[scaledService{p.Name, v.Name}]; w != nil {
		out.Cause = w.last.Cause
	}
	return out
}
