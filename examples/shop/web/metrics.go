package main

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// buckets are the upper bounds of the request durations, in seconds.
var buckets = [...]float64{0.005, 0.025, 0.1, 0.5, 2.5}

// metrics counts what /metrics shows. Its zero value is ready.
type metrics struct {
	orders      atomic.Int64
	connections atomic.Int64 // open now
	failed      atomic.Int64 // answered with 5xx
	within      [len(buckets) + 1]atomic.Int64
	nanos       atomic.Int64

	mu       sync.Mutex
	requests map[endpoint]int64
}

// endpoint is a route of the shop, not a path that somebody made up.
type endpoint struct{ method, path string }

// request counts one; pattern is that of the route that answered it, "" for none.
func (m *metrics) request(method, pattern string, code int, took time.Duration) {
	_, path, found := strings.Cut(pattern, " ")
	e := endpoint{method, strings.TrimSuffix(path, "{$}")}
	if !found {
		e = endpoint{"other", "other"}
	}
	m.mu.Lock()
	if m.requests == nil {
		m.requests = map[endpoint]int64{}
	}
	m.requests[e]++
	m.mu.Unlock()
	if code >= 500 {
		m.failed.Add(1)
	}
	i := 0
	for i < len(buckets) && took.Seconds() > buckets[i] {
		i++
	}
	m.within[i].Add(1)
	m.nanos.Add(int64(took))
}

// connection is told by the server what its connections do.
func (m *metrics) connection(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		m.connections.Add(1)
	case http.StateClosed, http.StateHijacked:
		m.connections.Add(-1)
	}
}

// handle writes the Prometheus text format.
func (m *metrics) handle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	about := func(name, kind, help string) { fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	about("shop_build_info", "gauge", "The version that runs.")
	fmt.Fprintf(w, "shop_build_info{version=%q} 1\n", version)
	about("shop_orders_total", "counter", "Orders taken by this instance.")
	fmt.Fprintf(w, "shop_orders_total %d\n", m.orders.Load())

	about("app_requests_total", "counter", "Requests answered.")
	m.mu.Lock()
	requests := maps.Clone(m.requests)
	m.mu.Unlock()
	for _, e := range slices.SortedFunc(maps.Keys(requests), func(a, b endpoint) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.method, b.method))
	}) {
		fmt.Fprintf(w, "app_requests_total{method=%q,endpoint=%q} %d\n", e.method, e.path, requests[e])
	}
	about("app_failed_requests_total", "counter", "Requests answered with 5xx.")
	fmt.Fprintf(w, "app_failed_requests_total %d\n", m.failed.Load())

	about("app_request_duration_seconds", "histogram", "How long answers took.")
	var sum int64
	for i, le := range buckets {
		sum += m.within[i].Load()
		fmt.Fprintf(w, "app_request_duration_seconds_bucket{le=\"%g\"} %d\n", le, sum)
	}
	sum += m.within[len(buckets)].Load()
	fmt.Fprintf(w, "app_request_duration_seconds_bucket{le=\"+Inf\"} %d\n", sum)
	fmt.Fprintf(w, "app_request_duration_seconds_sum %g\napp_request_duration_seconds_count %d\n",
		time.Duration(m.nanos.Load()).Seconds(), sum)

	about("app_active_connections", "gauge", "Connections that are open.")
	fmt.Fprintf(w, "app_active_connections %d\n", m.connections.Load())
}
