package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// routesOf are the routes of the next generation: of services that a submission
// is not about, those that stood.
func routesOf(p tender.Project, chosen map[string]bool, stood []tender.Route) []tender.Route {
	var out []tender.Route
	for _, r := range p.Routes {
		if r.Service == "" || chosen[r.Service] {
			out = append(out, r)
		}
	}
	for _, r := range stood {
		if _, there := p.Service(r.Service); there && !chosen[r.Service] {
			out = append(out, r)
		}
	}
	return out
}

// clash is a Conflict where another project has a route or a port of the edge
// that g wants too.
func (l *Loop) clash(ctx context.Context, g store.Generation) error {
	if len(g.Routes) == 0 && !slices.ContainsFunc(g.Services, held) {
		return nil
	}
	places, ports := placesOf(g), edgePorts(g)
	return l.o.Store.View(ctx, func(tx *store.Tx) error {
		names, err := tx.Projects()
		if err != nil {
			return err
		}
		for _, name := range names {
			if name == g.Project {
				continue
			}
			other, err := tx.Head(name)
			if tender.KindOf(err) == tender.NotFound {
				continue // gone meanwhile
			}
			if err != nil {
				return err
			}
			if other.Down != nil {
				continue
			}
			for _, p := range placesOf(other) {
				if slices.Contains(places, p) {
					return tender.Errorf(tender.Conflict, "project %s serves %s already", name, p).Hint("tender route ls shows what is served; change host: or path: of one of them")
				}
			}
			for _, p := range edgePorts(other) {
				for _, mine := range ports {
					if overlap(p, mine) {
						return tender.Errorf(tender.Conflict, "project %s holds port %d/%s already", name, mine.HostPort, mine.Protocol).Hint("publish another port, or leave it to one of them")
					}
				}
			}
		}
		return nil
	})
}

func held(s store.WantedService) bool { return s.Service.Publish == tender.PublishProxy && !s.Gone }

// placesOf are hosts with their paths; the same place can be served once.
func placesOf(g store.Generation) []string {
	var out []string
	for _, r := range g.Routes {
		hosts := r.Hosts
		if len(hosts) == 0 {
			hosts = []string{"any host"}
		}
		for _, h := range hosts {
			out = append(out, h+" at "+strings.TrimSuffix(r.Path, "/")+"/")
		}
	}
	return out
}

func edgePorts(g store.Generation) []tender.Port {
	var out []tender.Port
	for _, s := range g.Services {
		if held(s) {
			out = append(out, s.Service.Ports...)
		}
	}
	return out
}

func overlap(a, b tender.Port) bool {
	return a.HostPort != 0 && a.HostPort == b.HostPort && a.Protocol == b.Protocol && (anyAddress(a.HostIP) || anyAddress(b.HostIP) || a.HostIP == b.HostIP)
}

func anyAddress(v string) bool {
	a, err := netip.ParseAddr(v)
	return v == "" || err == nil && a.IsUnspecified()
}

// sameEdge refuses two services of one project that want one port of the edge.
func sameEdge(g store.Generation) error {
	type owned struct {
		service string
		tender.Port
	}
	var all []owned
	for _, s := range g.Services {
		if !held(s) {
			continue
		}
		for _, p := range s.Service.Ports {
			for _, other := range all {
				if overlap(other.Port, p) {
					return tender.Errorf(tender.Invalid, "services %s and %s both publish port %d/%s", other.service, s.Service.Name, p.HostPort, p.Protocol)
				}
			}
			all = append(all, owned{s.Service.Name, p})
		}
	}
	return nil
}

// holder moves a service's ports to the edge where its number of instances asks
// for that: it becomes another revision, since its instances publish them no more.
func (l *Loop) holder(d *draft, s *store.WantedService) error {
	next, err := l.o.Hold(s.Service, s.Service.Publish == tender.PublishProxy)
	if err != nil || next.Publish == s.Service.Publish {
		return err
	}
	old := *s
	if next.Revision, err = l.revision(next, s.Image, ""); err != nil {
		return fmt.Errorf("service %s: %w", next.Name, err)
	}
	s.Service = next
	d.supersede(next.Name)
	d.rollouts = append(d.rollouts, store.Rollout{
		Project: d.next.Project, Service: next.Name, Generation: d.next.N, From: old.Service.Revision, To: next.Revision,
		FromImage: old.Image, ToImage: s.Image, Who: d.next.Who, Strategy: "rolling", Started: d.next.At, Diff: changes(old, *s),
		Stale: l.ids(d.next.Project, next.Name), Back: d.base.last[next.Name].State == store.RolloutDone,
	})
	return nil
}

// RouteChange is what a submission makes of one route.
type RouteChange struct {
	Route string // tender.Route.ID
	Text  string // new, changed, goes
}

func routeChanges(before, after store.Generation) []RouteChange {
	was := map[string]tender.Route{}
	if before.Down == nil {
		for _, r := range before.Routes {
			was[r.ID(after.Project)] = r
		}
	}
	var out []RouteChange
	for _, r := range after.Routes {
		id := r.ID(after.Project)
		old, ok := was[id]
		delete(was, id)
		switch {
		case !ok:
			out = append(out, RouteChange{id, "new"})
		case !sameRoute(old, r):
			out = append(out, RouteChange{id, "changed"})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(was)) {
		out = append(out, RouteChange{id, "goes"})
	}
	return out
}

func sameRoute(a, b tender.Route) bool {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

// forgetShifts takes back what people have asked of routes that go or have other
// targets in the file now.
func forgetShifts(tx *store.Tx, before, after store.Generation) error {
	aims := func(g store.Generation) map[string][]tender.Aim {
		m := map[string][]tender.Aim{}
		for _, r := range g.Routes {
			m[r.ID(g.Project)] = r.Aims
		}
		return m
	}
	was, now := aims(before), aims(after)
	states, err := tx.RouteStates(after.Project)
	if err != nil {
		return err
	}
	for _, s := range states {
		if to, there := now[s.Route]; !there || after.Down != nil {
			s.Paused, s.Weights, s.Walk = nil, nil, nil
		} else if !slices.Equal(was[s.Route], to) {
			s.Weights, s.Walk = nil, nil
		}
		if err := tx.SetRouteState(s); err != nil {
			return err
		}
	}
	return nil
}
