// Command cadvisor is cAdvisor's library as its own command puts it together: the
// containers of Docker Engine, all that it measures by itself, and /metrics.
package main

import (
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/google/cadvisor/cache/memory"
	"github.com/google/cadvisor/container"
	_ "github.com/google/cadvisor/container/docker/install"
	v2 "github.com/google/cadvisor/info/v2"
	"github.com/google/cadvisor/manager"
	"github.com/google/cadvisor/metrics"
	"github.com/google/cadvisor/utils/sysfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address of /metrics")
	flag.Parse()
	interval, dynamic := 10*time.Second, false
	which := container.MetricSet{}
	for _, k := range []container.MetricKind{
		container.CpuUsageMetrics, container.MemoryUsageMetrics, container.DiskIOMetrics, container.NetworkUsageMetrics,
		container.ProcessMetrics, container.OOMMetrics,
	} {
		which[k] = struct{}{}
	}
	m, err := manager.New(memory.New(2*time.Minute, nil), sysfs.NewRealSysFs(),
		manager.HousekeepingConfig{Interval: &interval, AllowDynamic: &dynamic}, which, http.DefaultClient, nil, nil, "", 0)
	if err != nil {
		log.Fatal(err)
	}
	if err := m.Start(); err != nil {
		log.Fatal(err)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(metrics.NewPrometheusCollector(m, metrics.BaseContainerLabels(nil), which, clock.RealClock{}, v2.RequestOptions{IdType: v2.TypeName, Count: 1, Recursive: true}))
	http.Handle("/metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	log.Fatal(http.ListenAndServe(*listen, nil))
}
