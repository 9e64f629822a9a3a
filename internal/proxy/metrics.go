package proxy

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	tender "github.com/tenderhq/tender"
)

// Metrics writes what Report tells in Prometheus' text format.
func (s *Server) Metrics(w io.Writer) {
	r := s.Report()
	b := bufio.NewWriter(w)
	defer b.Flush()
	kinds := []struct {
		routes []RouteReport
		kind   string
	}{{r.Routes, "route"}, {r.Ports, "port"}}
	each := func(f func(labels string, t TargetReport)) {
		for _, k := range kinds {
			for _, route := range k.routes {
				for _, t := range merged(route.Targets) {
					f(labels("project", route.Project, k.kind, route.ID, "aim", t.Aim, "service", serviceOf(t.Aim), "revision", t.Revision, "instance", t.Name), t)
				}
			}
		}
	}
	head := func(name, kind, help string) {
		fmt.Fprintf(b, "# HELP tender_edge_%s %s\n# TYPE tender_edge_%s %s\n", name, help, name, kind)
	}

	head("requests_total", "counter", "Requests and connections by first digit of the status; 0xx: none was sent.")
	each(func(l string, t TargetReport) {
		for class, n := range t.Served.Class {
			if n > 0 || class == 2 {
				fmt.Fprintf(b, "tender_edge_requests_total{%s,code_class=\"%dxx\"} %d\n", l, class, n)
			}
		}
	})
	for _, k := range kinds {
		for _, route := range k.routes {
			own := route.Served
			for _, t := range route.Targets {
				for i := range own.Class {
					own.Class[i] -= t.Served.Class[i]
				}
			}
			for class, n := range own.Class {
				if n > 0 {
					fmt.Fprintf(b, "tender_edge_requests_total{%s,code_class=\"%dxx\"} %d\n", labels("project", route.Project, k.kind, route.ID, "aim", "", "service", "", "revision", "", "instance", ""), class, n)
				}
			}
		}
	}
	head("failed_total", "counter", "Requests that the edge answered with 502, 503 or 504, or that the target cut off.")
	each(func(l string, t TargetReport) {
		fmt.Fprintf(b, "tender_edge_failed_total{%s} %d\n", l, t.Served.Failed)
	})
	head("cut_total", "counter", "Streams and upgraded connections that a drain ended.")
	each(func(l string, t TargetReport) { fmt.Fprintf(b, "tender_edge_cut_total{%s} %d\n", l, t.Served.Cut) })
	head("received_bytes_total", "counter", "Bytes of bodies from clients.")
	each(func(l string, t TargetReport) {
		fmt.Fprintf(b, "tender_edge_received_bytes_total{%s} %d\n", l, t.Served.BytesIn)
	})
	head("sent_bytes_total", "counter", "Bytes of bodies to clients.")
	each(func(l string, t TargetReport) {
		fmt.Fprintf(b, "tender_edge_sent_bytes_total{%s} %d\n", l, t.Served.BytesOut)
	})
	head("open", "gauge", "Requests and connections under way.")
	each(func(l string, t TargetReport) { fmt.Fprintf(b, "tender_edge_open{%s} %d\n", l, t.Open) })
	head("up", "gauge", "Whether the target gets requests.")
	each(func(l string, t TargetReport) {
		up := 0
		if t.State == "up" {
			up = 1
		}
		fmt.Fprintf(b, "tender_edge_up{%s} %d\n", l, up)
	})
	head("duration_seconds", "histogram", "From the request to the head of the answer.")
	each(func(l string, t TargetReport) {
		var sum uint64
		for i, bound := range tender.LatencyBounds {
			sum += t.Served.Latency[i]
			fmt.Fprintf(b, "tender_edge_duration_seconds_bucket{%s,le=\"%g\"} %d\n", l, bound, sum)
		}
		sum += t.Served.Latency[len(tender.LatencyBounds)]
		fmt.Fprintf(b, "tender_edge_duration_seconds_bucket{%s,le=\"+Inf\"} %d\n", l, sum)
		fmt.Fprintf(b, "tender_edge_duration_seconds_sum{%s} %g\n", l, t.Served.Seconds)
		fmt.Fprintf(b, "tender_edge_duration_seconds_count{%s} %d\n", l, sum)
	})
	certificates(b, head, r.Routes)
	head("waiting", "gauge", "Requests that wait because nothing serves or the route is paused.")
	for _, route := range r.Routes {
		fmt.Fprintf(b, "tender_edge_waiting{%s} %d\n", labels("project", route.Project, "route", route.ID), route.Waiting)
	}
	head("table_version", "gauge", "Version of the table that is served.")
	fmt.Fprintf(b, "tender_edge_table_version %d\n", r.Version)
}

// certificates writes of each host of a project when its certificate ends and whether all is well with it.
func certificates(b *bufio.Writer, head func(name, kind, help string), routes []RouteReport) {
	type host struct{ project, name string }
	var order []host
	all := map[host]CertReport{}
	for _, r := range routes {
		for _, c := range r.Certificates {
			h := host{r.Project, c.Host}
			if before, known := all[h]; !known {
				order = append(order, h)
			} else if before.Problem != "" {
				continue // of two sources the one that fails is told of
			}
			all[h] = c
		}
	}
	head("certificate_end_seconds", "gauge", "When the certificate of a host expires, in seconds since the epoch; 0: there is none.")
	for _, h := range order {
		c := all[h]
		if c.Ends == 0 && c.From == "auto" && strings.HasPrefix(h.name, "*.") {
			continue // each name below it has its own
		}
		fmt.Fprintf(b, "tender_edge_certificate_end_seconds{%s} %d\n", labels("project", h.project, "host", h.name, "from", c.From), c.Ends/1000)
	}
	head("certificate_problem", "gauge", "Whether the certificate of a host is missing, expired, about to expire or not renewed.")
	for _, h := range order {
		c := all[h]
		problem := 0
		if c.Problem != "" {
			problem = 1
		}
		fmt.Fprintf(b, "tender_edge_certificate_problem{%s} %d\n", labels("project", h.project, "host", h.name, "from", c.From), problem)
	}
}

// merged adds up targets that differ in nothing that a label says: an instance that
// came back with another address is two for a while, and a series may be written once.
func merged(list []TargetReport) (out []TargetReport) {
	for _, t := range list { // in the order of its labels
		if n := len(out) - 1; n >= 0 && out[n].Aim == t.Aim && out[n].Revision == t.Revision && out[n].Name == t.Name {
			out[n].Served = out[n].Served.Plus(t.Served)
			out[n].Open += t.Open
			if t.State == "up" {
				out[n].State = t.State
			}
			continue
		}
		out = append(out, t)
	}
	return out
}

// serviceOf is the service that an aim is; "" where it lies outside.
func serviceOf(aim string) string {
	if strings.Contains(aim, "://") {
		return ""
	}
	return aim
}

var escapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// labels makes k="v" pairs.
func labels(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(pairs[i] + `="` + escapes.Replace(pairs[i+1]) + `"`)
	}
	return b.String()
}
