package daemon

import (
	"fmt"
	"slices"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
)

// uncertainty is a certificate with which something is wrong.
type uncertainty struct {
	project, route string
	text           string
	from           string
}

// uncertain lists them, each host of a project once; of these routes alone, where
// of says which.
func uncertain(r proxy.Report, of func(project, route string) bool) (out []uncertainty) {
	for _, route := range r.Routes {
		if of != nil && !of(route.Project, route.ID) {
			continue
		}
		for _, c := range route.Certificates {
			if c.Problem == "" {
				continue
			}
			host := c.Host
			if host == "" {
				host = "any host"
			}
			one := uncertainty{route.Project, route.ID, fmt.Sprintf("the certificate of %s: %s", host, c.Problem), c.From}
			if !slices.ContainsFunc(out, func(o uncertainty) bool { return o.project == one.project && o.text == one.text }) {
				out = append(out, one)
			}
		}
	}
	return out
}

// certificates says of a service which of the routes that lead to it clients cannot trust.
func certificates(r proxy.Report, head store.Generation, service string) (out []api.Finding) {
	leads := func(project, id string) bool {
		return project == head.Project && slices.ContainsFunc(head.Routes, func(x tender.Route) bool {
			return x.ID(head.Project) == id && slices.ContainsFunc(x.Aims, func(a tender.Aim) bool { return a.Service == service })
		})
	}
	next := map[string]string{
		"auto":     "see that the name leads to this host and that its ports 80 and 443 are reached from outside; it is tried again by itself",
		"internal": "tender status, and the edge's log",
		"file":     "put what is missing in its place: the edge sees it within seconds",
	}
	for _, u := range uncertain(r, leads) {
		out = append(out, api.Finding{What: u.text, Next: next[u.from], Evidence: []string{"route " + u.route}})
	}
	return out
}
