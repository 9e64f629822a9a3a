package daemon

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/metrics"
	"github.com/tenderhq/tender/internal/sample"
)

// What the store has of an instance must come as docker stats counts it, whatever the
// control group is called, and of one that it does not have yet nothing.
func TestUsageFromTheStoreOfSamples(t *testing.T) {
	db, err := metrics.Open(metrics.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	web, db1, young := strings.Repeat("a1", 32), strings.Repeat("b2", 32), strings.Repeat("c3", 32)
	series := map[string]*sample.Series{}
	one := func(name string, pairs ...string) *sample.Series {
		key := name + strings.Join(pairs, " ")
		if series[key] == nil {
			s := &sample.Series{Name: name}
			for i := 0; i < len(pairs); i += 2 {
				s.Labels = append(s.Labels, sample.Label{Name: pairs[i], Value: pairs[i+1]})
			}
			series[key] = s
		}
		return series[key]
	}
	now := time.Now().Truncate(time.Second)
	const last = 6
	for n := 0; n <= last; n++ {
		x := float64(n)
		var points []sample.Point
		add := func(value float64, name string, pairs ...string) {
			points = append(points, sample.Point{Series: one(name, pairs...), Value: value})
		}
		add(8<<30, "node_memory_MemTotal_bytes")
		for _, c := range []struct {
			id         string
			busy, held float64
			limit      float64
		}{{"/docker/" + web, 5, 64 << 20, 128 << 20}, {"/system.slice/docker-" + db1 + ".scope", 0.5, 1 << 30, 0}} {
			add(c.busy*x, "container_cpu_usage_seconds_total", "cpu", "total", "id", c.id, "project", "shop")
			add(c.held, "container_memory_working_set_bytes", "id", c.id, "project", "shop")
			add(c.limit, "container_spec_memory_limit_bytes", "id", c.id, "project", "shop")
			add(7, "container_threads", "id", c.id, "project", "shop")
			for _, i := range []string{"eth0", "eth1"} {
				add(1000*x, "container_network_receive_bytes_total", "id", c.id, "interface", i, "project", "shop")
				add(500*x, "container_network_transmit_bytes_total", "id", c.id, "interface", i, "project", "shop")
			}
			add(4096*x, "container_fs_reads_bytes_total", "device", "/dev/sda", "id", c.id, "project", "shop")
		}
		add(100*x, "tender_edge_requests_total", "aim", "web", "code_class", "2xx", "instance", "shop-web-1", "project", "shop")
		add(50*x, "tender_edge_requests_total", "aim", "web", "code_class", "5xx", "instance", "shop-web-1", "project", "shop")
		for _, b := range []struct {
			le string
			n  float64
		}{{"0.1", 0}, {"0.2", 100 * x}, {"+Inf", 100 * x}} {
			add(b.n, "tender_edge_duration_seconds_bucket", "instance", "shop-web-1", "le", b.le, "project", "shop")
			add(0, "tender_edge_duration_seconds_bucket", "instance", "shop-web-2", "le", b.le, "project", "shop")
		}
		if n == last {
			add(1<<20, "container_memory_working_set_bytes", "id", "/docker/"+young, "project", "shop")
			add(1, "container_cpu_usage_seconds_total", "cpu", "total", "id", "/docker/"+young, "project", "shop")
		}
		at := now.Add(time.Duration(n-last) * 10 * time.Second)
		if err := db.Keep(t.Context(), sample.Round{Source: "test", At: at, Points: points}); err != nil {
			t.Fatal(err)
		}
	}
	for _, project := range []string{"shop", ""} {
		u, err := asks(db.Query).usage(t.Context(), project, now, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]api.Sample{}
		for _, i := range []tender.Instance{{ID: web, Name: "shop-web-1"}, {ID: db1, Name: "shop-db-1"}, {ID: young, Name: "shop-web-2"}} {
			var s api.Sample
			u.fill(&s, i)
			got[i.Name] = s
			if u.has(i) != (i.ID != young) {
				t.Errorf("has %s: %v", i.Name, u.has(i))
			}
		}
		f := func(v float64) *float64 { return &v }
		want := map[string]api.Sample{
			"shop-web-1": {
				CPU: 50, Memory: 64 << 20, MemoryLimit: 128 << 20, PIDs: 7, NetRead: 2000 * last, NetSent: 1000 * last, BlkRead: 4096 * last,
				NetReadRate: f(200), NetSentRate: f(100), Requests: f(15), P99: f(0.199),
			},
			"shop-db-1": {
				CPU: 5, Memory: 1 << 30, MemoryLimit: 8 << 30, PIDs: 7, NetRead: 2000 * last, NetSent: 1000 * last, BlkRead: 4096 * last,
				NetReadRate: f(200), NetSentRate: f(100),
			},
			"shop-web-2": {},
		}
		near := cmp.Comparer(func(x, y float64) bool { return x == y || x-y < 0.001*y && y-x < 0.001*y })
		if d := cmp.Diff(want, got, near); d != "" {
			t.Errorf("project %q: (-want +got)\n%s", project, d)
		}
	}
	// Of another project there is nothing, and nothing of what ended a minute ago.
	for project, at := range map[string]time.Time{"blog": now, "shop": now.Add(time.Minute)} {
		u, err := asks(db.Query).usage(t.Context(), project, at, 10*time.Second)
		if err != nil || u.has(tender.Instance{ID: web, Name: "shop-web-1"}) {
			t.Errorf("%s: %+v, %v", project, u, err)
		}
	}
}

// Without metrics all that Prometheus' API and its page of operation are asked says so, and what to do.
func TestPrometheusWithoutMetrics(t *testing.T) {
	mounts, own := (&backend{config: Config{NoMetrics: true}}).prometheus()
	maps.Copy(mounts, own)
	for path, mount := range map[string]string{"/api/v1/query": "/api/v1/", "/federate": "/federate", "/-/reload": "/-/", "/prometheus/-/reload": "/prometheus/"} {
		w := httptest.NewRecorder()
		mounts[mount].ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		if w.Code != http.StatusServiceUnavailable || w.Body.String() != "no metrics are kept: metrics are off\ntender serve --metrics on\n" {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
	}
}
