package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
)

// count notes since when the edge counts: another one that did not take the
// counts over began anew, which shows as counters that fell.
func (v *view) count() {
	if v.away != "" || !v.wanted {
		return
	}
	if v.counting.IsZero() || v.counted.pid != v.status.PID && total(v.report) < total(v.counted.report) {
		v.counting, v.left = v.status.Started, nil
	} else {
		v.left = leftOf(v.left, v.counted.report, v.report)
	}
	v.counted.pid, v.counted.report = v.status.PID, v.report
}

// counter is what a service's revision has served by targets that the edge does
// not report any more.
type counter struct{ project, service, revision string }

// leftOf adds to what has left the report before what has left it since: the
// sum of a revision never falls while it counts on.
func leftOf(before map[counter]tender.Served, last, now proxy.Report) map[counter]tender.Served {
	type place struct{ route, target string }
	there := map[place]bool{}
	for _, list := range [][]proxy.RouteReport{now.Routes, now.Ports} {
		for _, r := range list {
			for _, x := range r.Targets {
				there[place{r.ID, x.ID}] = true
			}
		}
	}
	left := maps.Clone(before)
	for _, list := range [][]proxy.RouteReport{last.Routes, last.Ports} {
		for _, r := range list {
			for _, x := range r.Targets {
				if x.Revision == "" || there[place{r.ID, x.ID}] {
					continue
				}
				if left == nil {
					left = map[counter]tender.Served{}
				}
				c := counter{r.Project, x.Aim, x.Revision}
				left[c] = left[c].Plus(x.Served)
			}
		}
	}
	return left
}

// pruned keeps what somebody may still ask for: of revisions that are wanted, that
// a rollout is about, or that an instance has.
func pruned(left map[counter]tender.Served, all []served, picture tender.Picture) map[counter]tender.Served {
	if len(left) == 0 {
		return left
	}
	asked := map[counter]bool{}
	for _, s := range all {
		for _, w := range s.head.Services {
			asked[counter{s.head.Project, w.Service.Name, w.Service.Revision}] = true
		}
		for _, r := range s.rolling {
			service, revision, _ := strings.Cut(r, "@")
			asked[counter{s.head.Project, service, revision}] = true
		}
	}
	for _, i := range picture.Instances {
		asked[counter{i.Project, i.Service, i.Revision}] = true
	}
	left = maps.Clone(left) // others read what was published
	maps.DeleteFunc(left, func(c counter, _ tender.Served) bool { return !asked[c] })
	return left
}

func total(r proxy.Report) (n uint64) {
	for _, list := range [][]proxy.RouteReport{r.Routes, r.Ports} {
		for _, x := range list {
			n += x.Served.Requests
		}
	}
	return n
}

// trafficOf says it in plan's words, by project and service.
func (v *view) trafficOf() map[string]map[string]*plan.Traffic {
	out := map[string]map[string]*plan.Traffic{}
	of := func(project, service string) *plan.Traffic {
		if out[project] == nil {
			out[project] = map[string]*plan.Traffic{}
		}
		t := out[project][service]
		if t == nil {
			t = &plan.Traffic{Away: v.away, Since: v.awayAt, Instances: map[string]plan.Flow{}, Revisions: map[string]tender.Served{}, Counting: v.counting}
			out[project][service] = t
		}
		return t
	}
	for project, head := range v.heads {
		for _, r := range head.Routes {
			for _, a := range r.Aims {
				if a.Service != "" && r.Redirect == nil {
					of(project, a.Service)
				}
			}
		}
		for _, s := range head.Services {
			if s.Service.Publish == tender.PublishProxy {
				of(project, s.Service.Name)
			}
		}
	}
	each := func(gone bool) {
		for _, r := range slices.Concat(v.report.Routes, v.report.Ports) {
			for _, x := range r.Targets {
				if x.Revision == "" || strings.Contains(x.Aim, "://") || gone != (x.State == "gone") {
					continue
				}
				t := out[r.Project][x.Aim]
				if t == nil {
					continue // served once, and not any more
				}
				if r.Problem != "" && x.State == "up" {
					x.State, x.Reason = "down", r.Problem
				}
				t.Instances[x.ID] = flowOf(t.Instances, x)
				t.Revisions[x.Revision] = t.Revisions[x.Revision].Plus(x.Served)
			}
		}
	}
	// What is gone from one route says nothing of an instance that another leads to.
	each(false)
	each(true)
	for project, services := range v.withheld {
		for service, lanes := range services {
			t := of(project, service)
			for _, l := range lanes {
				if _, said := t.Instances[l.ID]; !said {
					t.Instances[l.ID] = plan.Flow{State: l.State}
				}
			}
		}
	}
	for c, n := range v.left {
		if t := out[c.project][c.service]; t != nil {
			t.Revisions[c.revision] = t.Revisions[c.revision].Plus(n)
		}
	}
	return out
}

// served is how many requests the edge had brought to a service when it was last
// asked.
func (k *keeper) served(project, service string) (servedSince, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.seen.traffic[project][service]
	if t == nil {
		return servedSince{}, errors.New("the edge does not serve it: it has no routes, and no ports that the edge holds")
	}
	if t.Away != "" {
		return servedSince{}, fmt.Errorf("the edge: %s", t.Away)
	}
	out := servedSince{at: k.seen.at, counting: t.Counting}
	for _, n := range t.Revisions {
		out.requests += n.Requests
	}
	return out, nil
}

// flowOf adds what one route says of an instance to what others have said: it
// serves where all of them serve it.
func flowOf(flows map[string]plan.Flow, x proxy.TargetReport) plan.Flow {
	now := plan.Flow{State: plan.Out, Since: time.UnixMilli(x.Since), Open: x.Open, Reason: cmp.Or(x.Reason, x.State)}
	switch x.State {
	case "up":
		now.State, now.Reason = plan.In, ""
	case "leaving", "gone":
		now.State = plan.Leaving
	}
	before, ok := flows[x.ID]
	if !ok {
		return now
	}
	if x.State == "gone" {
		before.Open += now.Open
		return before
	}
	rank := map[plan.LaneState]int{plan.In: 0, plan.Out: 1, plan.Leaving: 2}
	out := before
	if rank[now.State] > rank[before.State] {
		out = now
	}
	out.Open = before.Open + now.Open
	return out
}

// sameTraffic compares what deploy decides on: states and what is open. Counts
// alone wake nobody.
func sameTraffic(a, b map[string]map[string]*plan.Traffic) bool {
	flat := func(m map[string]map[string]*plan.Traffic) map[string]string {
		out := map[string]string{}
		for project, services := range m {
			for service, t := range services {
				out[project+"/"+service] = t.Away
				for id, f := range t.Instances {
					out[project+"/"+service+"/"+id] = fmt.Sprint(f.State, f.Open == 0, f.Reason)
				}
			}
		}
		return out
	}
	return reflect.DeepEqual(flat(a), flat(b))
}

// asker is the edge as deploy asks it.
type asker struct {
	*keeper
	edge *edge.Client
}

// Ask puts a check to a revision through a route that leads to its service.
func (a *asker) Ask(ctx context.Context, project, service, revision string, c tender.Check) error {
	a.mu.Lock()
	head := a.seen.heads[project]
	a.mu.Unlock()
	id, host, path := "", "localhost", c.Path
	if route, ok := routeTo(head.Routes, service); ok {
		id = route.ID(project)
		if len(route.Hosts) > 0 {
			host = strings.Replace(route.Hosts[0], "*", "check", 1)
		}
		if prefix := strings.TrimSuffix(route.Path, "/"); prefix != "" && !strings.HasPrefix(path, prefix) {
			path = prefix + path
		}
	} else if port, ok := portTo(head, service); ok {
		id = portID(project, service, port)
	} else {
		return tender.Errorf(tender.Unavailable, "no route or port of the edge leads to %s yet", service)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return tender.Errorf(tender.Invalid, "check %s: %w", c.Path, err)
	}
	r.Header.Set("User-Agent", "tender-check")
	resp, err := a.edge.Ask(ctx, id, revision, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	status := cmp.Or(c.Status, http.StatusOK)
	if resp.StatusCode != status {
		return tender.Errorf(tender.Invalid, "GET %s answers %d, want %d", c.Path, resp.StatusCode, status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return tender.Errorf(tender.Unavailable, "GET %s: %w", c.Path, err)
	}
	if !strings.Contains(string(body), c.Body) {
		return tender.Errorf(tender.Invalid, "GET %s answers without %q", c.Path, c.Body)
	}
	return nil
}

// portTo is a port of the edge by which a service is asked that no route leads to.
func portTo(g store.Generation, service string) (tender.Port, bool) {
	for _, s := range g.Services {
		for _, p := range s.Service.Ports {
			if s.Service.Name == service && p.HostPort > 0 && p.Protocol == "tcp" {
				return p, true
			}
		}
	}
	return tender.Port{}, false
}

// routeTo is the route by which a service is asked: the one that leads there
// most plainly.
func routeTo(routes []tender.Route, service string) (best tender.Route, ok bool) {
	for _, r := range routes {
		if r.Redirect != nil {
			continue
		}
		for _, a := range r.Aims {
			if a.Service == service && (!ok || r.Service == service && best.Service != service || r.Service == best.Service && len(r.Path) < len(best.Path)) {
				best, ok = r, true
			}
		}
	}
	return best, ok
}
