package daemon

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/proxy"
)

// routesServed says which routes a project has whose store was lost: those of the
// table that the edge served last, which is newer than what instances carry, and
// has those that stand at the top of a file. Call it before the edge gets another.
func routesServed(last edge.Table, missing error) func(tender.Project) ([]tender.Route, []string) {
	return func(p tender.Project) (out []tender.Route, lost []string) {
		if missing != nil {
			return p.Routes, []string{"routes that stand at the top of its file, or have changed since its instances were made: the edge's last table is not there"}
		}
		for _, r := range last.Proxy.Routes {
			if r.Project != p.Name {
				continue
			}
			carried := tender.Route{}
			if i := slices.IndexFunc(p.Routes, func(x tender.Route) bool { return x.ID(p.Name) == r.ID }); i >= 0 {
				carried = p.Routes[i]
			}
			route, unknown := routeServed(r, carried, p)
			if unknown != "" {
				lost = append(lost, unknown)
				continue
			}
			out = append(out, route)
		}
		if len(out)+len(lost) == 0 {
			return p.Routes, nil // the edge has never had it
		}
		return out, lost
	}
}

// routeServed turns a route of the table into the one that it was made of.
func routeServed(r proxy.Route, carried tender.Route, p tender.Project) (out tender.Route, unknown string) {
	out = tender.Route{Service: carried.Service, Hosts: r.Hosts, Path: r.Path, RouteOptions: r.RouteOptions}
	if r.Redirect != nil {
		out.Aims = carried.Aims
		return out, ""
	}
	scale := 0
	for _, g := range r.Groups {
		i := slices.IndexFunc(out.Aims, func(a tender.Aim) bool { return a.Name() == g.Aim })
		if i < 0 {
			i = len(out.Aims)
			out.Aims = append(out.Aims, aimServed(g, carried, p))
		}
		out.Aims[i].Weight += g.Weight
		if out.Aims[i].Port == 0 && len(g.Targets) > 0 && out.Aims[i].URL == "" {
			_, port, _ := net.SplitHostPort(g.Targets[0].Address) // the table was valid
			out.Aims[i].Port, _ = strconv.Atoi(port)
		}
	}
	for _, a := range out.Aims {
		scale = divisor(scale, a.Weight)
		if a.URL == "" && a.Port == 0 {
			return out, fmt.Sprintf("route %s: which port of %s it leads to", r.ID, a.Service)
		}
		if a.Service != "" && !slices.ContainsFunc(p.Services, func(s tender.Service) bool { return s.Name == a.Service }) {
			return out, fmt.Sprintf("route %s: it leads to %s, of which no instance is there", r.ID, a.Service)
		}
	}
	if scale > share && scale%share == 0 {
		scale = share // the weights as they were written, not the smallest that say the same
	}
	for i := range out.Aims {
		out.Aims[i].Weight /= max(scale, 1)
	}
	return out, ""
}

// aimServed is a target of a route; its port is known where instances carry the route.
func aimServed(g proxy.Group, carried tender.Route, p tender.Project) tender.Aim {
	if strings.Contains(g.Aim, "://") {
		return tender.Aim{URL: g.Aim}
	}
	out := tender.Aim{Service: g.Aim}
	for _, a := range carried.Aims {
		if a.Service == g.Aim {
			out.Port = a.Port
		}
	}
	for _, s := range p.Services {
		if s.Name == g.Aim && out.Port == 0 && len(g.Targets) == 0 && len(s.Exposed) == 1 {
			out.Port = s.Exposed[0].Container
		}
	}
	return out
}

// divisor is the greatest common one.
func divisor(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
