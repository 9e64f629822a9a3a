package metrics

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// observer has a histogram of each kind, with a hundred values from 0.01 to 1, and one of 0.5
// more each time it is asked.
func observer(t *testing.T) (address string) {
	t.Helper()
	r, fixed := prometheus.NewRegistry(), []float64{0.25, 0.5, 0.75, 1}
	var all []prometheus.Histogram
	for _, o := range []prometheus.HistogramOpts{
		{Name: "took_native_seconds", Help: "As a native one.", NativeHistogramBucketFactor: 1.1},
		{Name: "took_both_seconds", Help: "As both.", NativeHistogramBucketFactor: 1.1, Buckets: fixed},
		{Name: "took_classic_seconds", Help: "As a classic one.", Buckets: fixed},
	} {
		h := prometheus.NewHistogram(o)
		r.MustRegister(h)
		for i := range 100 {
			h.Observe(float64(i+1) / 100)
		}
		all = append(all, h)
	}
	answers := promhttp.HandlerFor(r, promhttp.HandlerOpts{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, h := range all {
			h.Observe(0.5)
		}
		answers.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// yes reports whether an expression holds, as the API says.
func yes(get func(string, ...string) string, expr string) bool {
	return strings.Contains(get("/api/v1/query", "query", expr), `"value":[`)
}

// Native histograms were promised and not asked for.
func TestHistogramsOfEveryKind(t *testing.T) {
	app, dir := observer(t), t.TempDir()
	d, err := Open(Options{Dir: dir, Config: configured(t, fmt.Sprintf(`scrape_configs:
- {job_name: custom, scrape_interval: 1s, convert_classic_histograms_to_nhcb: true, static_configs: [{targets: [%q]}]}
- {job_name: as-prometheus, scrape_interval: 1s, static_configs: [{targets: [%q]}]}
`, app, app))})
	if err != nil {
		t.Fatal(err)
	}
	d.SetTargets([]Target{{Pool: "shop/web", Address: app, Interval: time.Second, Labels: map[string]string{"job": "web", "project": "shop", "instance": "shop-web-1"}}})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	giver := httptest.NewServer(d.API())
	defer giver.Close()
	get := asking(t, giver.URL)
	for _, expr := range []string{
		// A median of 0.5 within the tenth that the buckets of a factor of 1.1 are exact to.
		`abs(histogram_quantile(0.5, took_native_seconds{job="web"}) - 0.5) < 0.05`,
		`abs(histogram_quantile(0.5, took_both_seconds{job="web"}) - 0.5) < 0.05`,
		`abs(histogram_quantile(0.9, took_native_seconds{job="web"}) - 0.9) < 0.09`,
		`histogram_count(took_native_seconds{job="web"}) > 100`,
		`histogram_sum(took_native_seconds{job="web"}) > 50`,
		`abs(histogram_avg(took_native_seconds{job="web"}) - 0.5) < 0.01`,
		`histogram_count(rate(took_native_seconds{job="web"}[1m])) > 0`,
		`abs(histogram_quantile(0.5, sum(rate(took_native_seconds{job="web"}[1m]))) - 0.5) < 0.05`,
		`histogram_fraction(0, 10, took_both_seconds{job="web"}) == 1`,
		// What is asked of classic buckets today is still answered.
		`took_both_seconds_bucket{job="web",le="+Inf"} > 100`,
		`took_classic_seconds_bucket{job="web",le="0.25"} == 25`,
		`took_classic_seconds_count{job="web"} > 100`,
		`abs(histogram_quantile(0.9, sum by (le) (rate(took_classic_seconds_bucket{job="web"}[1m]))) - 0.5) < 0.26`,
		`absent(took_classic_seconds{job="web"})`,
		// One job has them with buckets of its own, the other as Prometheus does by itself.
		`histogram_count(took_classic_seconds{job="custom"}) > 100`,
		`histogram_quantile(0.1, took_classic_seconds{job="custom"}) < 0.25`,
		`absent(took_classic_seconds_bucket{job="custom"})`,
		`absent(took_native_seconds{job="as-prometheus"}) and on () took_classic_seconds_bucket{job="as-prometheus",le="0.25"} == 25`,
	} {
		until(t, expr, func() bool { return yes(get, expr) })
	}
	if told := get("/api/v1/query_range", "query", "took_native_seconds", "start", fmt.Sprint(time.Now().Add(-time.Minute).Unix()), "end", fmt.Sprint(time.Now().Unix()), "step", "1"); !strings.Contains(told, `"histograms":[[`) || !strings.Contains(told, `"buckets":[[`) {
		t.Errorf("a range: %s", told)
	}
	if _, err := d.Query(t.Context(), "took_native_seconds", time.Now()); err == nil || !strings.Contains(err.Error(), "is a native histogram, not one value") {
		t.Errorf("asked for one value: %v", err)
	}
	until(t, "metadata", func() bool {
		return strings.Contains(get("/api/v1/metadata", "metric", "took_native_seconds"), `"type":"histogram","unit":"","help":"As a native one."`)
	})

	// Another one is given them, as they are.
	to := open(t, Options{Config: configured(t, fmt.Sprintf("scrape_configs:\n- {job_name: federate, honor_labels: true, scrape_native_histograms: true, scrape_interval: 1s, metrics_path: /federate, params: {'match[]': ['{job=~\"web|custom\"}']}, static_configs: [{targets: [%q]}]}\n", strings.TrimPrefix(giver.URL, "http://")))})
	run(t, to)
	taken := server(t, to)
	for _, expr := range []string{
		`abs(histogram_quantile(0.5, took_native_seconds{job="web"}) - 0.5) < 0.05`,
		`took_classic_seconds_bucket{job="custom",le="0.25"} == 25`,
	} {
		until(t, "federated "+expr, func() bool { return yes(taken, expr) })
	}

	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	// As kill -9 leaves it, and closed.
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for what, dir := range map[string]string{"opened again": dir, "opened after kill -9": copied} {
		again := open(t, Options{Dir: dir})
		get := server(t, again)
		for _, expr := range []string{
			`abs(histogram_quantile(0.5, last_over_time(took_native_seconds{job="web"}[30m])) - 0.5) < 0.05`,
			`histogram_count(last_over_time(took_classic_seconds{job="custom"}[30m])) > 100`,
			`last_over_time(took_classic_seconds_bucket{job="web",le="0.25"}[30m]) == 25`,
			`count_over_time(took_native_seconds{job="web"}[30m]) > 1`,
		} {
			if !yes(get, expr) {
				t.Errorf("%s: %s: %s", what, expr, get("/api/v1/query", "query", expr))
			}
		}
		if list := again.Status().Damaged; len(list) > 0 {
			t.Errorf("%s: damaged: %v", what, list)
		}
	}
}

// prometheus.yml may say that it wants none.
func TestNativeHistogramsMayBeLeftOut(t *testing.T) {
	d := open(t, Options{Config: configured(t, "global: {scrape_native_histograms: false}\n")})
	run(t, d)
	d.SetTargets([]Target{{Pool: "shop/web", Address: observer(t), Interval: time.Second, Labels: map[string]string{"job": "web"}}})
	get := server(t, d)
	until(t, "classic ones alone", func() bool {
		return yes(get, `absent(took_both_seconds) and on () took_both_seconds_bucket{le="0.25"} == 25`)
	})
}

func TestHistogramsAreSentOn(t *testing.T) {
	for _, k := range []struct {
		protocol string
		custom   bool
	}{{"prometheus.WriteRequest", false}, {"io.prometheus.write.v2.Request", true}} {
		t.Run(k.protocol, func(t *testing.T) {
			t.Parallel()
			to := open(t, Options{})
			receiver := httptest.NewServer(to.API())
			defer receiver.Close()
			from := open(t, Options{Config: configured(t, fmt.Sprintf("remote_write: [{url: %q, protobuf_message: %s, send_native_histograms: true, queue_config: {batch_send_deadline: 100ms}}]\n", receiver.URL+"/api/v1/write", k.protocol))})
			run(t, from)
			add := func(name string, at time.Time, h *histogram.Histogram) {
				t.Helper()
				app := from.Appendable().AppenderV2(t.Context())
				if _, err := app.Append(0, labels.FromStrings("__name__", name), 0, at.UnixMilli(), 0, h, nil, storage.AOptions{}); err != nil {
					t.Fatal(err)
				}
				if err := app.Commit(); err != nil {
					t.Fatal(err)
				}
			}
			begun, n := time.Now(), 0
			for _, name := range []string{"took", "bounded"} {
				make := tsdbutil.GenerateTestHistogram
				if name == "bounded" {
					if make = tsdbutil.GenerateTestCustomBucketsHistogram; !k.custom { // version 1 has no words for it
						continue
					}
				}
				until(t, name, func() bool {
					// The sender starts with what is written after it has found its place.
					n++
					add(name, begun.Add(time.Duration(n)*time.Millisecond), make(int64(n)))
					return ask(t, to, "histogram_count("+name+")", time.Now()) != ""
				})
				for _, expr := range []string{"histogram_count(%s)", "histogram_sum(%s)", "histogram_quantile(0.9, %s)", "histogram_fraction(0, 2, %s)"} {
					expr, now := fmt.Sprintf(expr, name), time.Now()
					until(t, expr+" here as there", func() bool { return ask(t, to, expr, now) == ask(t, from, expr, now) })
				}
			}
		})
	}
}

func TestOTLPHistogramsComeIn(t *testing.T) {
	d := open(t, Options{})
	s := httptest.NewServer(d.API())
	defer s.Close()
	now := time.Now()
	body := fmt.Sprintf(`{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}}]},"scopeMetrics":[{"metrics":[
		{"name":"wait","unit":"s","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"%[1]d","count":"7","sum":20,"scale":0,"zeroCount":"1","positive":{"offset":0,"bucketCounts":["2","4"]}}]}},
		{"name":"size","unit":"By","histogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"%[1]d","count":"3","sum":30,"explicitBounds":[5,20],"bucketCounts":["1","1","1"]}]}}]}]}]}`, now.UnixNano())
	r, err := http.Post(s.URL+"/api/v1/otlp/v1/metrics", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if text, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", r.Status, text)
	}
	for expr, want := range map[string]string{
		`histogram_count(wait_seconds)`:              "map[job:cart] 7",
		`histogram_sum(wait_seconds)`:                "map[job:cart] 20",
		`histogram_fraction(1, 4, wait_seconds)`:     "map[job:cart] 0.8571428571428571",
		`size_bytes_bucket{le="20"}`:                 "map[__name__:size_bytes_bucket job:cart le:20] 2",
		`histogram_quantile(0.5, size_bytes_bucket)`: "map[job:cart] 12.5",
	} {
		if got := ask(t, d, expr, now.Add(time.Second)); got != want {
			t.Errorf("%s: %s, want %s", expr, got, want)
		}
	}
}
