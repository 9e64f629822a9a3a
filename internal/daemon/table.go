package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/dns"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
)

// share is what a lane's shares add up to, per mille.
const share = 1000

// served is what is known of one project when its part of the table is made.
type served struct {
	head   store.Generation
	lanes  []plan.Lane
	known  bool // lanes were made; else they are made up of what is ready
	states map[string]store.RouteState
	// rolling are the revisions that open rollouts are about, as SERVICE@REVISION.
	rolling []string
}

// tablePart is what the edge serves of one project.
type tablePart struct {
	routes []proxy.Route
	ports  []proxy.Port
	names  []dns.Service
	inside []dns.Inside
	// withheld are services whose ports the engine holds still: what serves there is none of the edge's yet.
	withheld map[string][]plan.Lane
	// problems are what cannot be served of it now, and why.
	problems []string
	// until is when it changes by itself: a pause ends. Zero: it does not.
	until time.Time
}

func (t tablePart) empty() bool { return len(t.routes)+len(t.ports) == 0 }

// partMaker makes the parts of one table from one picture.
type partMaker struct {
	picture tender.Picture
	now     time.Time
	node    string
	own     []proxy.Route // of the daemon itself; no project takes their hosts away
}

// part makes what the edge serves of a project.
func (m partMaker) part(s served) tablePart {
	var out tablePart
	instances := map[string]*tender.Instance{}
	there := m.picture.Of(s.head.Project)
	for i := range there {
		instances[there[i].ID] = &there[i]
	}
	if !s.known {
		s.lanes = ready(there)
	}
	if s.head.Down != nil && len(s.lanes) == 0 {
		return out
	}
	p := making{partMaker: m, served: s, instances: instances, there: there}
	for _, r := range s.head.Routes {
		route, until := p.route(r)
		out.routes = append(out.routes, route)
		out.until = sooner(out.until, until)
	}
	for _, w := range s.head.Services {
		if w.Service.Publish == tender.PublishProxy && (!w.Gone || p.leaving(w.Service.Name)) {
			ports, problems := p.ports(w.Service)
			out.ports, out.problems = append(out.ports, ports...), append(out.problems, problems...)
			if len(ports) == 0 && len(problems) > 0 {
				out.withhold(w.Service.Name, s.lanes)
			}
		}
		if !w.Gone && !w.Service.Job && s.head.Down == nil {
			out.names = append(out.names, p.name(w.Service))
		}
		if w.Service.Resolver && !w.Gone && s.head.Down == nil {
			out.inside = addInside(out.inside, p.inside(w.Service)...)
		}
	}
	return out
}

// inside is where the containers of a service ask Tender's DNS; none: its network is not there yet.
func (p *making) inside(s tender.Service) []dns.Inside {
	for _, name := range s.Networks {
		i := slices.IndexFunc(p.picture.Networks, func(n tender.Network) bool { return n.Name == name && n.Gateway != "" })
		if i < 0 {
			continue
		}
		n := p.picture.Networks[i]
		own := slices.ContainsFunc(p.head.Services, func(w store.WantedService) bool { return w.Service.Name == "consul" && !w.Gone })
		return []dns.Inside{{Address: n.Gateway, Networks: n.Subnets, Projects: []string{p.head.Project}, Consul: !own}}
	}
	return nil
}

// addInside adds places to others, each address once: what is asked there is answered for the projects of both.
func addInside(all []dns.Inside, more ...dns.Inside) []dns.Inside {
	all = slices.Clone(all)
	for _, in := range more {
		i := slices.IndexFunc(all, func(a dns.Inside) bool { return a.Address == in.Address })
		if i < 0 {
			all = append(all, in)
			continue
		}
		all[i].Projects = slices.Compact(slices.Sorted(slices.Values(slices.Concat(all[i].Projects, in.Projects))))
		all[i].Consul = all[i].Consul && in.Consul
	}
	return all
}

func (t *tablePart) withhold(service string, lanes []plan.Lane) {
	if t.withheld == nil {
		t.withheld = map[string][]plan.Lane{}
	}
	for _, l := range lanes {
		if l.Service == service {
			t.withheld[service] = append(t.withheld[service], l)
		}
	}
}

// ready stands for lanes that nobody has made yet: all that is ready serves.
func ready(there []tender.Instance) []plan.Lane {
	var out []plan.Lane
	for _, i := range there {
		if i.Oneoff {
			continue
		}
		l := plan.Lane{Service: i.Service, Revision: i.Revision, ID: i.ID, State: plan.Out}
		if i.Ready() {
			l.State = plan.In
		}
		l.Share = share
		out = append(out, l)
	}
	return out
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// making is one project at it.
type making struct {
	partMaker
	served
	instances map[string]*tender.Instance
	there     []tender.Instance
}

func (p *making) route(r tender.Route) (proxy.Route, time.Time) {
	id := r.ID(p.head.Project)
	state := p.states[id]
	out := proxy.Route{ID: id, Project: p.head.Project, Hosts: r.Hosts, Path: r.Path, RouteOptions: r.RouteOptions}
	var until time.Time
	if state.Paused != nil && p.now.Before(state.Paused.Until) {
		out.Paused, until = true, state.Paused.Until
	}
	if r.Redirect != nil {
		return out, until
	}
	weights := weightsOf(r.Aims, state)
	for _, a := range r.Aims {
		weight := weights[a.Name()]
		if a.URL != "" {
			out.Groups = append(out.Groups, outside(a, weight*share))
			continue
		}
		out.Groups = append(out.Groups, p.groups(a.Service, a.Port, weight)...)
	}
	return out, until
}

// weightsOf are the weights of a route's aims: the file's, or those that people
// have given it since.
func weightsOf(aims []tender.Aim, state store.RouteState) map[string]int {
	out := map[string]int{}
	for _, a := range aims {
		out[a.Name()] = a.Weight
		if w, ok := state.Weights[a.Name()]; ok {
			out[a.Name()] = w
		}
	}
	return out
}

// outside is the group of an address that nobody here runs.
func outside(a tender.Aim, weight int) proxy.Group {
	t := proxy.Target{ID: a.URL, Name: a.URL}
	if u, err := url.Parse(a.URL); err == nil {
		t.TLS = u.Scheme == "https"
		port := u.Port()
		if port == "" {
			port = map[bool]string{true: "443", false: "80"}[t.TLS]
		}
		t.Address = net.JoinHostPort(u.Hostname(), port)
	}
	return proxy.Group{Aim: a.URL, Weight: weight, Targets: []proxy.Target{t}}
}

// groups are the revisions of a service with their shares of weight, by name.
func (p *making) groups(service string, port, weight int) []proxy.Group {
	by := map[string]*proxy.Group{}
	for _, l := range p.lanes {
		if l.Service != service {
			continue
		}
		i := p.instances[l.ID]
		if i == nil {
			continue // gone from the picture since
		}
		g := by[l.Revision]
		if g == nil {
			g = &proxy.Group{Aim: service, Revision: l.Revision, Weight: weight * l.Share}
			by[l.Revision] = g
		}
		address := p.address(service, i)
		if address == "" {
			continue // it has none yet, or no more
		}
		g.Targets = append(g.Targets, proxy.Target{
			ID: i.ID, Name: i.Name, Address: net.JoinHostPort(address, strconv.Itoa(port)),
			Leaving: l.State == plan.Leaving, Down: l.State == plan.Out,
		})
	}
	if len(by) == 0 {
		// A service without instances keeps its share: requests wait for it.
		return []proxy.Group{{Aim: service, Weight: weight * share}}
	}
	var out []proxy.Group
	for _, revision := range slices.Sorted(maps.Keys(by)) {
		g := by[revision]
		slices.SortFunc(g.Targets, func(a, b proxy.Target) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
		out = append(out, *g)
	}
	return out
}

// address is where an instance of a service answers.
func (p *making) address(service string, i *tender.Instance) string {
	reach, networks := "", []string(nil)
	for _, w := range p.head.Services {
		if w.Service.Name == service {
			reach, networks = w.Service.Reach, w.Service.Networks
		}
	}
	switch {
	case reach == "host":
		return "127.0.0.1"
	case strings.HasPrefix(reach, "service:"):
		other := strings.TrimPrefix(reach, "service:")
		if other == service {
			return ""
		}
		var best *tender.Instance
		for k := range p.there {
			// It shares the network of the one in its own slot, else of the first.
			if o := &p.there[k]; o.Service == other && !o.Oneoff && o.State == tender.Running && (best == nil || o.Slot == i.Slot && best.Slot != i.Slot) {
				best = o
			}
		}
		if best == nil {
			return ""
		}
		return p.address(other, best)
	}
	for _, n := range networks {
		if a := i.Addresses[n]; a != "" {
			return a
		}
	}
	for _, n := range slices.Sorted(maps.Keys(i.Addresses)) {
		if a := i.Addresses[n]; a != "" {
			return a
		}
	}
	return ""
}

// ports are those that the edge holds for a service.
func (p *making) ports(s tender.Service) (out []proxy.Port, problems []string) {
	for _, port := range s.Ports {
		if port.HostPort == 0 {
			continue
		}
		if who := p.publisher(port); who != "" {
			problems = append(problems, fmt.Sprintf("port %d of %s waits: %s publishes it still", port.HostPort, s.Name, who))
			continue
		}
		out = append(out, proxy.Port{
			ID: portID(p.head.Project, s.Name, port), Project: p.head.Project, Service: s.Name,
			Address: net.JoinHostPort(port.HostIP, strconv.Itoa(port.HostPort)), Protocol: port.Protocol,
			Transparent: true, Groups: p.groups(s.Name, port.Container, 1),
		})
	}
	return out, problems
}

func portID(project, service string, p tender.Port) string {
	return fmt.Sprintf("%s/%s:%d/%s", project, service, p.HostPort, p.Protocol)
}

// publisher names the instance for which the engine publishes a port now.
func (m partMaker) publisher(port tender.Port) string {
	for _, i := range m.picture.Instances {
		if i.State != tender.Running && i.State != tender.Paused && i.State != tender.Restarting {
			continue
		}
		for _, p := range i.Ports {
			if p.HostPort == port.HostPort && p.Protocol == port.Protocol {
				return i.Name
			}
		}
	}
	return ""
}

func (p *making) leaving(service string) bool {
	return slices.ContainsFunc(p.lanes, func(l plan.Lane) bool { return l.Service == service && l.State == plan.Leaving })
}

// name is what discovery knows of a service.
func (p *making) name(s tender.Service) dns.Service {
	out := dns.Service{Project: p.head.Project, Name: s.Name, Catalog: s.Catalog}
	add := func(name string, number int, protocol string) {
		if number > 0 && !slices.ContainsFunc(out.Ports, func(x dns.Port) bool { return x.Number == number && x.Protocol == protocol }) {
			out.Ports = append(out.Ports, dns.Port{Name: name, Number: number, Protocol: protocol})
		}
	}
	add("", s.CatalogPort, "tcp")
	for _, r := range p.head.Routes {
		for _, a := range r.Aims {
			if a.Service == s.Name {
				add("http", a.Port, "tcp")
			}
		}
	}
	for _, port := range s.Exposed {
		add("", port.Container, port.Protocol)
	}
	for _, l := range p.lanes {
		i := p.instances[l.ID]
		if l.Service != s.Name || i == nil {
			continue
		}
		address := p.address(s.Name, i)
		if _, err := netip.ParseAddr(address); err != nil {
			continue
		}
		out.Endpoints = append(out.Endpoints, dns.Endpoint{
			ID: i.ID, Name: i.Name, Slot: i.Slot, Address: address, Healthy: l.State == plan.In && l.Share > 0 && i.Found == tender.ByService, Node: p.node,
		})
	}
	return out
}
