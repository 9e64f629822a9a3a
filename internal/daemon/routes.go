package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
)

const (
	defaultPause = 30 * time.Second
	longestPause = time.Hour
	defaultEvery = time.Minute
)

// Edge says how the data plane is.
func (b *backend) Edge(ctx context.Context) (api.Edge, error) {
	k := b.keeper
	k.mu.Lock()
	seen := k.seen
	k.mu.Unlock()
	out := api.Edge{State: "idle"}
	switch {
	case seen.wanted && seen.away != "":
		out.State, out.Detail = "away", seen.away
	case seen.wanted:
		out.State = "serving"
	}
	if seen.away == "" && seen.status.PID != 0 {
		out.Version, out.PID, out.Started = seen.status.Version, seen.status.PID, seen.status.Started
		out.Table, out.Listeners = seen.status.Table, seen.status.Listeners
		out.Table = max(out.Table, seen.table.Proxy.Version)
	}
	for _, project := range slices.Sorted(maps.Keys(seen.problems)) {
		for _, text := range seen.problems[project] {
			out.Problems = append(out.Problems, api.EdgeProblem{Project: project, Text: text})
		}
	}
	if seen.wanted && seen.away == "" {
		for _, p := range uncertain(seen.report, nil) {
			out.Problems = append(out.Problems, api.EdgeProblem{Project: p.project, Text: p.text})
		}
	}
	var err error
	out.Routes, err = b.Routes(ctx, "", "")
	return out, err
}

// Routes lists what the edge serves.
func (b *backend) Routes(ctx context.Context, project, route string) ([]api.Route, error) {
	var heads []store.Generation
	states := map[string]store.RouteState{}
	err := b.store.View(ctx, func(tx *store.Tx) error {
		names, err := tx.Projects()
		if err != nil {
			return err
		}
		for _, name := range names {
			if project != "" && name != project {
				continue
			}
			head, err := tx.Head(name)
			if err != nil {
				return err
			}
			heads = append(heads, head)
		}
		list, err := tx.RouteStates(project)
		for _, s := range list {
			states[s.Route] = s
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if project != "" && len(heads) == 0 {
		return nil, tender.Errorf(tender.NotFound, "no project %s", project).Hint("tender ls shows the projects that are known")
	}
	lately := b.keeper.lately()
	var out []api.Route
	for _, h := range heads {
		if h.Down != nil {
			continue
		}
		for _, r := range h.Routes {
			out = append(out, lately.route(h, r, states[r.ID(h.Project)]))
		}
		for _, s := range h.Services {
			if s.Service.Publish != tender.PublishProxy || s.Gone {
				continue
			}
			for _, p := range s.Service.Ports {
				out = append(out, lately.port(h.Project, s.Service, p))
			}
		}
	}
	if route == "" {
		return out, nil
	}
	return find(out, project, route)
}

// find is the one route that a person means: by its id, by what follows the
// project in it, or by the beginning of that, where only one begins so.
func find(all []api.Route, project, route string) ([]api.Route, error) {
	plain := func(r api.Route) string { return strings.TrimPrefix(r.ID, r.Project+"/") }
	trim := func(s string) string { return strings.TrimSuffix(s, "/") }
	for _, same := range []func(api.Route) bool{
		func(r api.Route) bool { return r.ID == route },
		func(r api.Route) bool { return trim(r.ID) == trim(route) || trim(plain(r)) == trim(route) },
		func(r api.Route) bool { return slices.Contains(r.Hosts, route) },
	} {
		var found []api.Route
		for _, r := range all {
			if same(r) {
				found = append(found, r)
			}
		}
		if len(found) == 1 {
			return found, nil
		}
		if len(found) > 1 {
			var ids []string
			for _, r := range found {
				ids = append(ids, r.ID)
			}
			return nil, tender.Errorf(tender.Invalid, "%s is not one route: %s", route, strings.Join(ids, ", ")).Hint("name one of them")
		}
	}
	where := ""
	if project != "" {
		where = " of " + project
	}
	return nil, tender.Errorf(tender.NotFound, "no route %s%s", route, where).Hint("tender route ls shows the routes there are")
}

// routeOf finds a route of a project that people may steer.
func (b *backend) routeOf(ctx context.Context, project, route string) (api.Route, error) {
	list, err := b.Routes(ctx, project, route)
	if err != nil {
		return api.Route{}, err
	}
	if list[0].Kind != "http" {
		return api.Route{}, tender.Errorf(tender.Invalid, "%s is a port: only routes of x-tender can be paused and shifted", list[0].ID)
	}
	return list[0], nil
}

// change writes what is asked of a route, and waits until the edge does so.
func (b *backend) changeRoute(ctx context.Context, who api.Person, verb, project, route string, change func(*store.RouteState, tender.Route) error) (out api.Route, err error) {
	r, err := b.routeOf(ctx, project, route)
	defer func() { b.auditEnd(ctx, who, "route "+verb, project, cmp.Or(r.ID, route), err) }()
	if err != nil {
		return out, err
	}
	err = b.store.Update(ctx, func(tx *store.Tx) error {
		head, err := tx.Head(project)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(head.Routes, func(x tender.Route) bool { return x.ID(project) == r.ID })
		if i < 0 {
			return tender.Errorf(tender.NotFound, "route %s is gone", r.ID)
		}
		state, err := tx.RouteState(project, r.ID)
		if err != nil {
			return err
		}
		if err := change(&state, head.Routes[i]); err != nil {
			return err
		}
		return tx.SetRouteState(state)
	})
	if err != nil {
		return out, err
	}
	limit, cancel := context.WithTimeout(ctx, edgeSpawn)
	defer cancel()
	if err := b.keeper.settle(limit); err != nil {
		return out, tender.Errorf(tender.Unavailable, "it is written down; the edge does not do it yet: %w", err).Hint("tender status shows how the edge is")
	}
	list, err := b.Routes(ctx, project, r.ID)
	if err != nil {
		return out, err
	}
	return list[0], nil
}

// PauseRoute lets requests wait.
func (b *backend) PauseRoute(ctx context.Context, who api.Person, project, route string, limit time.Duration) (api.Route, error) {
	if limit == 0 {
		limit = defaultPause
	}
	if limit < 0 || limit > longestPause {
		return api.Route{}, tender.Errorf(tender.Invalid, "pause for %s: want a time of up to %s", limit, longestPause).Hint("maintenance: in the file answers for longer")
	}
	return b.changeRoute(ctx, who, "pause", project, route, func(s *store.RouteState, _ tender.Route) error {
		now := time.Now().UTC()
		s.Paused = &store.Pause{Since: now, Until: now.Add(limit), Who: who.Name}
		return nil
	})
}

// ResumeRoute lets them go on.
func (b *backend) ResumeRoute(ctx context.Context, who api.Person, project, route string) (api.Route, error) {
	return b.changeRoute(ctx, who, "resume", project, route, func(s *store.RouteState, _ tender.Route) error {
		s.Paused = nil
		return nil
	})
}

// ShiftRoute moves traffic.
func (b *backend) ShiftRoute(ctx context.Context, who api.Person, project string, s api.RouteShift) (api.Route, error) {
	return b.changeRoute(ctx, who, "shift", project, s.Route, func(state *store.RouteState, r tender.Route) error {
		return b.shift(state, r, s, who.Name, time.Now().UTC())
	})
}

// shift works out what a shift makes of a route's state.
func (b *backend) shift(state *store.RouteState, r tender.Route, s api.RouteShift, who string, now time.Time) error {
	var names []string
	for _, a := range r.Aims {
		names = append(names, a.Name())
	}
	sum := 0
	for name, p := range s.To {
		if !slices.Contains(names, name) {
			return tender.Errorf(tender.NotFound, "%s does not lead to %s", state.Route, name).Hint("it leads to %s", strings.Join(names, ", "))
		}
		if p < 0 || p > 100 {
			return tender.Errorf(tender.Invalid, "%s=%d: want percent, from 0 to 100", name, p)
		}
		sum += p
	}
	switch {
	case len(r.Aims) < 2:
		return tender.Errorf(tender.Conflict, "%s leads to one target alone", state.Route).Hint("give the route a second one under to:, then tender up")
	case sum > 100 || len(s.To) == len(names) && sum != 100:
		return tender.Errorf(tender.Invalid, "%d %% are not 100", sum)
	case !s.Auto && (len(s.Steps) > 0 || s.Every != 0 || s.Errors != 0):
		return tender.Errorf(tender.Invalid, "steps, every and errors go with auto").Hint("add --auto")
	}
	if state.Walk != nil && state.Walk.State == store.WalkOn {
		w := *state.Walk
		w.State, w.Reason, w.Ended = store.WalkStopped, "by "+who, now
		state.Walk = &w
	}
	if len(s.To) == 0 {
		state.Weights = nil
		return nil
	}
	if !s.Auto {
		state.Weights = weigh(r.Aims, state.Weights, s.To)
		return nil
	}
	if len(s.To) != 1 {
		return tender.Errorf(tender.Invalid, "a walk goes to one target").Hint("tender route shift ROUTE --to %s=100 --auto", names[0])
	}
	for aim, goal := range s.To {
		w, err := walkTo(aim, goal, s)
		if err != nil {
			return err
		}
		b.keeper.mu.Lock()
		w.Served = servedOf(b.keeper.seen.report, state.Route, aim)
		b.keeper.mu.Unlock()
		w.Who, w.Started, w.Since, w.State = who, now, now, store.WalkOn
		w.Before = weightsOf(r.Aims, *state)
		state.Walk = &w
		state.Weights = weigh(r.Aims, state.Weights, map[string]int{aim: w.Steps[0]})
	}
	return nil
}

// walkTo fills in the steps.
func walkTo(aim string, goal int, s api.RouteShift) (store.Walk, error) {
	w := store.Walk{Aim: aim, Steps: s.Steps, Every: s.Every, Errors: s.Errors}
	if len(w.Steps) == 0 {
		for _, p := range []int{5, 25, 50, 100} {
			if p < goal {
				w.Steps = append(w.Steps, p)
			}
		}
		w.Steps = append(w.Steps, goal)
	}
	for i, p := range w.Steps {
		if p < 0 || p > 100 || i > 0 && p <= w.Steps[i-1] {
			return w, tender.Errorf(tender.Invalid, "steps %v: want percent that grow", w.Steps)
		}
	}
	if w.Every == 0 {
		w.Every = defaultEvery
	}
	if w.Errors == 0 {
		w.Errors = 0.01
	}
	if w.Every < time.Second || w.Errors < 0 || w.Errors > 1 {
		return w, tender.Errorf(tender.Invalid, "want steps of a second or longer, and errors as a share such as 1%%")
	}
	return w, nil
}

// edgePorts are the ports that the edge holds, as the instances behind them would show them.
func (b *backend) edgePorts() map[string][]tender.Port {
	b.keeper.mu.Lock()
	defer b.keeper.mu.Unlock()
	out := map[string][]tender.Port{}
	ids := map[string]bool{}
	for _, p := range b.keeper.seen.table.Proxy.Ports {
		ids[p.ID] = true
	}
	for project, head := range b.keeper.seen.heads {
		for _, s := range head.Services {
			for _, p := range s.Service.Ports {
				if ids[portID(project, s.Service.Name, p)] {
					p.HostIP = cmp.Or(p.HostIP, "0.0.0.0")
					out[project+"/"+s.Service.Name] = append(out[project+"/"+s.Service.Name], p)
				}
			}
		}
	}
	return out
}

// refuseFar refuses routes where the engine is on another host: the edge does
// not reach its networks.
func (b *backend) refuseFar(p tender.Project) error {
	if strings.HasPrefix(b.config.Engine, "unix://") {
		return nil
	}
	what := ""
	if len(p.Routes) > 0 {
		what = "route " + p.Routes[0].ID(p.Name)
	}
	for _, s := range p.Services {
		if s.Publish == tender.PublishProxy {
			what = "publish: proxy of service " + s.Name
		}
	}
	if what == "" {
		return nil
	}
	return tender.Errorf(tender.Invalid, "%s: the edge does not reach the networks of an engine at %s", what, b.config.Engine).
		Hint("run tender serve on the engine's host")
}

// lately is what the edge has served, and what of it of late.
type lately struct {
	now    view
	before proxy.Report
	time   time.Duration // between the two; 0: there is nothing to compare with
}

func (l lately) route(h store.Generation, r tender.Route, state store.RouteState) api.Route {
	id := r.ID(h.Project)
	out := api.Route{
		ID: id, Project: h.Project, Kind: "http", State: "serving", Service: r.Service, Hosts: r.Hosts, Path: r.Path,
		TLS: r.TLS, Balance: cmp.Or(r.Balance, "round-robin"), Sticky: r.Sticky,
	}
	if r.CertFile != "" {
		out.TLS = "file"
	}
	weights := weightsOf(r.Aims, state)
	total := 0
	for _, w := range weights {
		total += w
	}
	for _, a := range r.Aims {
		aim := api.RouteAim{Name: a.Name(), Port: a.Port, Weight: weights[a.Name()], Written: a.Weight}
		if total > 0 {
			aim.Percent = 100 * float64(aim.Weight) / float64(total)
		}
		out.Aims = append(out.Aims, aim)
	}
	if w := state.Walk; w != nil {
		out.Walk = &api.RouteWalk{
			Aim: w.Aim, Steps: w.Steps, Step: w.Step, Every: w.Every, Errors: w.Errors, State: w.State, Reason: w.Reason,
			Who: w.Who, Started: w.Started, Since: w.Since, Ended: w.Ended,
		}
	}
	served := slices.ContainsFunc(l.now.table.Proxy.Routes, func(x proxy.Route) bool { return x.ID == id })
	l.fill(&out, served)
	switch {
	case r.Redirect != nil:
		out.Redirect = r.Redirect.To
		if out.State == "no target" {
			out.State = "redirect"
		}
	case r.Maintenance != "":
		out.State, out.Detail = "maintenance", r.Maintenance
	case state.Paused != nil && time.Now().Before(state.Paused.Until):
		out.State, out.Until, out.Who = "paused", state.Paused.Until, state.Paused.Who
	}
	return out
}

func (l lately) port(project string, s tender.Service, p tender.Port) api.Route {
	out := api.Route{
		ID: portID(project, s.Name, p), Project: project, Kind: p.Protocol, State: "serving", Service: s.Name,
		Address: cmp.Or(p.HostIP, "0.0.0.0") + fmt.Sprintf(":%d", p.HostPort), Port: p.Container, Balance: "round-robin",
	}
	served := slices.ContainsFunc(l.now.table.Proxy.Ports, func(x proxy.Port) bool { return x.ID == out.ID })
	l.fill(&out, served)
	return out
}

// fill adds what the edge reports of a route or port.
func (l lately) fill(out *api.Route, served bool) {
	if l.now.away != "" && l.now.wanted {
		out.State, out.Detail = "away", l.now.away
		return
	}
	if !served {
		out.State, out.Detail = "away", "the edge has not got it"
		if p := l.now.problems[out.Project]; len(p) > 0 {
			out.Detail = p[0]
		}
		return
	}
	is, ok := reportOf(l.now.report, out.ID)
	if !ok {
		return
	}
	was, _ := reportOf(l.before, out.ID)
	out.Waiting, out.Served = is.Waiting, is.Served
	for _, c := range is.Certificates {
		one := api.RouteCertificate{Host: c.Host, From: c.From, Problem: c.Problem, OCSP: c.OCSP}
		if c.Ends != 0 {
			one.Ends = time.UnixMilli(c.Ends).UTC()
		}
		out.Certificates = append(out.Certificates, one)
	}
	out.Rate, out.P50, out.P99 = l.pace(was.Served, is.Served)
	weights := map[string]int{}
	total := 0
	for _, t := range is.Targets {
		if key := t.Aim + " " + t.Revision; weights[key] == 0 && t.State != "gone" {
			weights[key] = t.Weight
			total += t.Weight
		}
	}
	up := map[string]int{}
	for _, t := range is.Targets {
		if t.State == "up" {
			up[t.Aim+" "+t.Revision]++
		}
	}
	serving := false
	for _, t := range is.Targets {
		target := api.RouteTarget{
			ID: t.ID, Name: t.Name, Aim: t.Aim, Revision: t.Revision, Address: t.Address, State: t.State, Reason: t.Reason,
			Since: time.UnixMilli(t.Since).UTC(), Open: t.Open, Served: t.Served,
		}
		if n := up[t.Aim+" "+t.Revision]; t.State == "up" && total > 0 {
			target.Weight = 100 * float64(t.Weight) / float64(total) / float64(n)
		}
		serving = serving || t.State == "up"
		var before tender.Served // of one that was not there yet: nothing
		for _, old := range was.Targets {
			if old.ID == t.ID {
				before = old.Served
			}
		}
		target.Rate, target.P50, target.P99 = l.pace(before, t.Served)
		for _, c := range t.Checks {
			target.Checks = append(target.Checks, api.RouteCheck{At: time.UnixMilli(c.At).UTC(), OK: c.OK, Text: c.Text, Millis: c.Millis})
		}
		out.Open += t.Open
		out.Targets = append(out.Targets, target)
	}
	if !serving {
		out.State = "no target"
	}
}

func reportOf(r proxy.Report, id string) (proxy.RouteReport, bool) {
	for _, list := range [][]proxy.RouteReport{r.Routes, r.Ports} {
		for _, x := range list {
			if x.ID == id {
				return x, true
			}
		}
	}
	return proxy.RouteReport{}, false
}

// pace is how many requests a second there were, and what latencies half and 99 %
// of them stayed under, in milliseconds.
func (l lately) pace(was, is tender.Served) (rate, p50, p99 float64) {
	if l.time <= 0 || is.Requests < was.Requests {
		return 0, 0, 0
	}
	rate = float64(is.Requests-was.Requests) / l.time.Seconds()
	diff := is.Latency
	for i := range diff {
		diff[i] -= min(was.Latency[i], diff[i])
	}
	if rate == 0 {
		diff = is.Latency // nothing of late: since it began to count
	}
	return rate, quantile(diff, 0.5), quantile(diff, 0.99)
}

// quantile is the bound of the bucket that q of the requests stay under, in milliseconds.
func quantile(buckets [len(tender.LatencyBounds) + 1]uint64, q float64) float64 {
	var all, n uint64
	for _, c := range buckets {
		all += c
	}
	if all == 0 {
		return 0
	}
	for i, c := range buckets {
		if n += c; float64(n) >= q*float64(all) {
			return 1000 * tender.LatencyBounds[min(i, len(tender.LatencyBounds)-1)]
		}
	}
	return 0
}
