package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

// traffic finds what the edge could not do: routes without a port or to nobody,
// two routes for one place, ports that it cannot hold.
func (r *references) traffic() {
	taken := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(r.project.Services)) {
		s := r.project.Services[name]
		x, err := extensionOf(s)
		if err != nil {
			continue // told where the service is looked at
		}
		for i, route := range x.Routes {
			at := func(below ...string) []string {
				return append([]string{"services", name, extensionKey, "routes", fmt.Sprintf("[%d]", i)}, below...)
			}
			if len(route.Aims) == 0 && route.Redirect == nil {
				r.port(s, at())
			}
			r.reached(s, at())
			r.near(at())
			r.options(route, at)
			r.twice(taken, route, at())
		}
		if x.Publish == tender.PublishProxy {
			r.edgePorts(s)
		}
	}
	x := asMap(r.project.Extensions[extensionKey])
	read := reader{path: extensionKey}
	for i, m := range read.list(x, "routes") {
		at := func(below ...string) []string {
			return append([]string{extensionKey, "routes", fmt.Sprintf("[%d]", i)}, below...)
		}
		route := read.at(fmt.Sprintf("routes[%d]", i)).route(m)
		r.aims(route, at)
		r.near(at())
		r.options(route, at)
		r.twice(taken, route, at())
	}
	if err := read.err(); err != nil {
		r.add("", err.Error(), extensionKey, "routes")
	}
}

// aims checks where a route at the top of the file leads.
func (r *references) aims(route tender.Route, at func(...string) []string) {
	if len(route.Aims) == 0 && route.Redirect == nil && route.Maintenance == "" {
		r.add("add to: [{service: NAME}], or write the route under the service", "leads nowhere", at()...)
	}
	sum := 0
	var names []string
	for k, a := range route.Aims {
		where := at("to", fmt.Sprintf("[%d]", k))
		sum += a.Weight
		switch {
		case (a.Service == "") == (a.URL == ""):
			r.add("", "want service or url, one of them", where...)
			continue
		case a.URL != "" && a.Port != 0:
			r.add("", "the port of a url goes into the url", append(where, "port")...)
		case slices.Contains(names, a.Name()):
			r.add("", a.Name()+" is there already", where...)
		}
		names = append(names, a.Name())
		if a.URL != "" {
			continue
		}
		s, ok := r.project.Services[a.Service]
		if !ok {
			r.leads(a.Service, append(where, "service"))
			continue
		}
		if a.Port == 0 {
			r.port(s, where)
		}
		r.reached(s, where)
	}
	if len(route.Aims) > 0 && sum == 0 {
		r.add("", "no target has a weight", at("to")...)
	}
}

// leads tells of a route to a service that is not there.
func (r *references) leads(name string, where []string) {
	if off, ok := r.project.DisabledServices[name]; ok {
		r.add("add --profile "+off.Profiles[0], "leads to service \""+name+"\", which is off: its profile is "+list(off.Profiles), where...)
		return
	}
	known := slices.Collect(maps.Keys(r.project.AllServices()))
	r.add("", "leads to undefined service \""+name+"\""+meant(name, known), where...)
}

// port tells where a route's port is not known.
func (r *references) port(s types.ServiceConfig, where []string) {
	only, all := onlyPort(s)
	switch {
	case only != 0:
	case len(all) == 0:
		r.add("say which: port: 8080", "the port of service "+s.Name+" is not known: it neither exposes nor publishes one in this file", where...)
	default:
		var texts []string
		for _, n := range all {
			texts = append(texts, fmt.Sprint(n))
		}
		r.add("say which: port: "+texts[0], "service "+s.Name+" has several ports: "+strings.Join(texts, ", "), where...)
	}
}

func (r *references) reached(s types.ServiceConfig, where []string) {
	if why := unreached(r.project, s); why != "" {
		r.add("", "the edge cannot reach service "+s.Name+": "+why, where...)
	}
}

// near refuses what needs an edge on the engine's host.
func (r *references) near(where []string) {
	if r.far != "" {
		r.add("run tender serve on the engine's host, and reach it with --host ssh://…", "the edge does not reach the networks of an engine at "+r.far, where...)
	}
}

// options checks what stands together in one route.
func (r *references) options(route tender.Route, at func(...string) []string) {
	switch {
	case (route.CertFile == "") != (route.KeyFile == ""):
		r.add("", "cert_file and key_file go together", at()...)
	case route.CertFile != "" && (route.TLS == "off" || route.TLS == "internal"):
		r.add("", "cert_file and tls: "+route.TLS+" exclude one another", at("tls")...)
	case (route.TLS == "auto" || route.TLS == "internal") && len(route.Hosts) == 0:
		r.add("add host:", "a certificate needs a name", at("tls")...)
	case route.TLS == "auto" && slices.ContainsFunc(route.Hosts, func(h string) bool { return strings.HasPrefix(h, "*.") }):
		r.add("use tls: internal, or cert_file and key_file", "tls auto gets no certificate for names with a wildcard", at("tls")...)
	}
	if route.Redirect != nil && len(route.Aims) > 0 && route.Service == "" {
		r.add("", "redirect and to exclude one another", at("redirect")...)
	}
}

// twice tells of two routes for the same host and path.
func (r *references) twice(taken map[string]string, route tender.Route, where []string) {
	hosts := route.Hosts
	if len(hosts) == 0 {
		hosts = []string{"any host"}
	}
	for _, h := range hosts {
		key := h + " " + strings.TrimSuffix(route.Path, "/")
		if other, ok := taken[key]; ok {
			r.add("", "the route of "+h+" at "+route.Path+" is there already, "+other, where...)
			return
		}
		taken[key] = "at the top of the file"
		if where[0] == "services" {
			taken[key] = "in service " + where[1]
		}
	}
}

// edgePorts checks the ports that the edge is told to hold.
func (r *references) edgePorts(s types.ServiceConfig) {
	where := []string{"services", s.Name, extensionKey, "publish"}
	if len(s.Ports) == 0 {
		r.add("add ports:, or leave publish: out where routes lead to the service", "publish: proxy, but there are no ports", where...)
	}
	r.reached(s, where)
	r.near(where)
	if s.NetworkMode == "host" {
		r.add("", "publish: proxy and network_mode host exclude one another", where...)
	}
	for _, p := range s.Ports {
		at := []string{"services", s.Name, "ports", orElse(p.Published, fmt.Sprint(p.Target))}
		switch n := hostPorts(p.Published); {
		case n == 0:
			r.add("", fmt.Sprintf("the edge holds a port by its number: give container port %d one on the host", p.Target), at...)
		case n > 1:
			r.add(fmt.Sprintf("publish one: \"%s:%d\"", strings.Split(p.Published, "-")[0], p.Target), "the edge leads one port to all instances and holds no range: "+p.Published, at...)
		case p.Protocol != "" && p.Protocol != "tcp" && p.Protocol != "udp":
			r.add("", "the edge holds TCP and UDP, not "+p.Protocol, at...)
		}
	}
}

// gentle finds strategies that nothing carries out: they move traffic, and only
// the edge does.
func (c *check) gentle(p *types.Project) []problem {
	routes, err := routesOf(p)
	if err != nil {
		return nil // told already
	}
	var out []problem
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		x, err := extensionOf(s)
		if err != nil || x.Rollout.Strategy != tender.BlueGreen && x.Rollout.Strategy != tender.Canary && len(x.Rollout.Check) == 0 {
			continue
		}
		routed := slices.ContainsFunc(routes, func(r tender.Route) bool {
			return slices.ContainsFunc(r.Aims, func(a tender.Aim) bool { return a.Service == name })
		})
		what, key := "strategy "+x.Rollout.Strategy, "strategy"
		if x.Rollout.Strategy != tender.BlueGreen && x.Rollout.Strategy != tender.Canary {
			what, key = "check", "check"
		}
		if routed || key == "strategy" && len(s.Ports) > 0 && (x.Publish == tender.PublishProxy || x.Publish == "" && edgeable(s) && tooFew(s, s.GetScale()) != "") {
			continue
		}
		advice := "add x-tender.routes, or publish: proxy with ports:"
		if key == "check" {
			advice = "add x-tender.routes"
		}
		out = append(out, c.locate(problem{
			text:   fmt.Sprintf("services.%s.%s.rollout: %s needs the edge, which serves nothing of this service", name, extensionKey, what),
			advice: advice,
		}, []string{"services", name, extensionKey, "rollout", key}))
	}
	return out
}
