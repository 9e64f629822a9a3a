package main

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// buckets are the upper bounds of the request durations, in seconds.
var buckets = [...]float64{0.005, 0.025, 0.1, 0.5, 2.5}

// metrics counts what /metrics shows. Its zero value is ready.
type metrics struct {
	orders  atomic.Int64
	classes [6]atomic.Int64 // by the first digit of the status
	within  [len(buckets) + 1]atomic.Int64
	nanos   atomic.Int64
}

func (m *metrics) request(code int, took time.Duration) {
	if class := code / 100; class > 0 && class < len(m.classes) {
		m.classes[class].Add(1)
	}
	i := 0
	for i < len(buckets) && took.Seconds() > buckets[i] {
		i++
	}
	m.within[i].Add(1)
	m.nanos.Add(int64(took))
}

// handle writes the Prometheus text format.
func (m *metrics) handle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprintf(w, "# HELP shop_build_info The version that runs.\n# TYPE shop_build_info gauge\nshop_build_info{version=%q} 1\n", version)
	fmt.Fprintf(w, "# HELP shop_orders_total Orders taken by this instance.\n# TYPE shop_orders_total counter\nshop_orders_total %d\n", m.orders.Load())
	fmt.Fprint(w, "# HELP http_requests_total Requests answered.\n# TYPE http_requests_total counter\n")
	for class := 1; class < len(m.classes); class++ {
		fmt.Fprintf(w, "http_requests_total{code=\"%dxx\"} %d\n", class, m.classes[class].Load())
	}
	fmt.Fprint(w, "# HELP http_request_duration_seconds How long answers took.\n# TYPE http_request_duration_seconds histogram\n")
	var sum int64
	for i, le := range buckets {
		sum += m.within[i].Load()
		fmt.Fprintf(w, "http_request_duration_seconds_bucket{le=\"%g\"} %d\n", le, sum)
	}
	sum += m.within[len(buckets)].Load()
	fmt.Fprintf(w, "http_request_duration_seconds_bucket{le=\"+Inf\"} %d\n", sum)
	fmt.Fprintf(w, "http_request_duration_seconds_sum %g\nhttp_request_duration_seconds_count %d\n",
		time.Duration(m.nanos.Load()).Seconds(), sum)
}
