package metrics

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// binaries are a real Prometheus and its promtool, out of the image that the tests of
// behaviour run: Debian's 2.42.
func binaries(t *testing.T) (dir string) {
	t.Helper()
	if os.Getenv("TENDER_E2E") == "" {
		t.Skip("a real Prometheus comes out of its image: set TENDER_E2E=1 (make test does)")
	}
	dir = t.TempDir()
	docker := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("docker", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	id := docker("create", "prom/prometheus:latest")
	defer docker("rm", id)
	for _, name := range []string{"prometheus", "promtool"} {
		docker("cp", id+":/usr/bin/"+name, filepath.Join(dir, name))
	}
	return dir
}

// demo writes what the queries of Prometheus' compliance tests ask about.
func demo(t *testing.T, path string, from, to time.Time) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	family := func(name, kind string, each func(emit func(sample string, labels string, value float64), at float64, n float64)) {
		fmt.Fprintf(w, "# TYPE %s %s\n", strings.TrimSuffix(name, "_total"), kind)
		// The format wants the samples of a series together.
		lines, order := map[string][]string{}, []string(nil)
		n := 0.0
		for at := from; at.Before(to); at = at.Add(10 * time.Second) {
			each(func(sample, labels string, value float64) {
				if lines[sample+labels] == nil {
					order = append(order, sample+labels)
				}
				lines[sample+labels] = append(lines[sample+labels], fmt.Sprintf("%s{%s} %g %d", sample, labels, value, at.Unix()))
			}, float64(at.Unix()), n)
			n++
		}
		for _, key := range order {
			fmt.Fprintln(w, strings.Join(lines[key], "\n"))
		}
	}
	hosts := func(each func(i float64, labels string)) {
		for i := range 3 {
			each(float64(i), fmt.Sprintf(`instance="demo.promlabs.com:1000%d",job="demo"`, i))
		}
	}
	family("demo_memory_usage_bytes", "gauge", func(emit func(string, string, float64), _, n float64) {
		hosts(func(i float64, l string) {
			for k, kind := range []string{"used", "free", "buffers", "cached"} {
				emit("demo_memory_usage_bytes", l+`,type="`+kind+`"`, 1e9+1e8*i+5e7*float64(k)+1e7*math.Sin(n/20+i+float64(k)))
			}
		})
	})
	family("demo_num_cpus", "gauge", func(emit func(string, string, float64), _, _ float64) {
		hosts(func(_ float64, l string) { emit("demo_num_cpus", l, 4) })
	})
	family("demo_cpu_usage_seconds_total", "counter", func(emit func(string, string, float64), _, n float64) {
		hosts(func(i float64, l string) {
			for k, mode := range []string{"user", "system", "idle"} {
				emit("demo_cpu_usage_seconds_total", l+`,mode="`+mode+`"`, math.Mod(n*(3+i+float64(k)), 2000+100*i))
			}
		})
	})
	family("demo_disk_usage_bytes", "gauge", func(emit func(string, string, float64), _, n float64) {
		hosts(func(i float64, l string) { emit("demo_disk_usage_bytes", l, 1e10+n*1e6*(i+1)) })
	})
	family("demo_batch_last_success_timestamp_seconds", "gauge", func(emit func(string, string, float64), at, _ float64) {
		hosts(func(i float64, l string) {
			emit("demo_batch_last_success_timestamp_seconds", l, at-math.Mod(at, 300+i))
		})
	})
	family("demo_intermittent_metric", "gauge", func(emit func(string, string, float64), _, n float64) {
		hosts(func(_ float64, l string) {
			if int(n/60)%2 == 0 {
				emit("demo_intermittent_metric", l, n)
			}
		})
	})
	family("demo_api_request_duration_seconds", "histogram", func(emit func(string, string, float64), _, n float64) {
		hosts(func(i float64, l string) {
			for k, le := range []string{"0.01", "0.1", "0.5", "1.0", "+Inf"} {
				emit("demo_api_request_duration_seconds_bucket", l+`,le="`+le+`"`, math.Floor(n*(i+1)*float64(k+1)))
			}
			emit("demo_api_request_duration_seconds_count", l, math.Floor(n*(i+1)*5))
			emit("demo_api_request_duration_seconds_sum", l, n*(i+1)*1.5)
		})
	})
	fmt.Fprintln(w, "# EOF")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// prometheus starts a real one on data in dir, and returns its address.
func prometheus42(t *testing.T, binary, dir, config string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(binary, "--config.file="+file, "--storage.tsdb.path="+dir, "--web.listen-address="+address, "--enable-feature=promql-at-modifier,promql-negative-offset")
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
		if t.Failed() && testing.Verbose() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("Prometheus:\n%s", text)
		}
	})
	until(t, "Prometheus", func() bool {
		r, err := http.Get("http://" + address + "/-/ready")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return "http://" + address
}

// variants are what the templates of the queries stand for, as in the compliance tests.
var variants = map[string][]string{
	"range": {"1s", "15s", "1m", "5m", "15m", "1h"}, "offset": {"1m", "5m", "10m"},
	"simpleAggrOp":     {"sum", "avg", "max", "min", "count", "stddev", "stdvar"},
	"simpleTimeAggrOp": {"sum", "avg", "max", "min", "count", "stddev", "stdvar", "absent", "last"},
	"topBottomOp":      {"topk", "bottomk"}, "quantile": {"-0.5", "0.1", "0.5", "0.75", "0.95", "0.90", "0.99", "1", "1.5"},
	"arithBinOp": {"+", "-", "*", "/", "%", "^"}, "compBinOp": {"==", "!=", "<", ">", "<=", ">="},
	"binOp":                {"+", "-", "*", "/", "%", "^", "==", "!=", "<", ">", "<=", ">="},
	"simpleMathFunc":       {"abs", "ceil", "floor", "exp", "sqrt", "ln", "log2", "log10", "round"},
	"extrapolatedRateFunc": {"delta", "rate", "increase"}, "clampFunc": {"clamp_min", "clamp_max"}, "instantRateFunc": {"idelta", "irate"},
	"dateFunc": {"day_of_month", "day_of_week", "days_in_month", "hour", "minute", "month", "year"},
}

// queries of the compliance tests, and whether they must fail.
func queries(t *testing.T) (all []string, fail map[string]bool) {
	t.Helper()
	var file struct {
		Cases []struct {
			Query    string   `yaml:"query"`
			Variants []string `yaml:"variant_args"`
			Fail     bool     `yaml:"should_fail"`
		} `yaml:"test_cases"`
	}
	raw, err := os.ReadFile("testdata/promql-test-queries.yml")
	if err == nil {
		err = yaml.Unmarshal(raw, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	fail = map[string]bool{}
	for _, c := range file.Cases {
		expanded := []string{c.Query}
		for _, name := range c.Variants {
			var next []string
			for _, q := range expanded {
				for _, v := range variants[name] {
					next = append(next, strings.ReplaceAll(q, "{{."+name+"}}", v))
				}
			}
			expanded = next
		}
		all = append(all, expanded...)
		for _, q := range expanded {
			fail[q] = c.Fail
		}
	}
	return all, fail
}

// matrix is the answer of query_range: values by series and time; err is what was said
// instead.
func matrix(t *testing.T, base, expr string, from, to time.Time) (out map[string]map[float64]float64, err string) {
	t.Helper()
	r, gerr := http.PostForm(base+"/api/v1/query_range", url.Values{
		"query": {expr}, "start": {fmt.Sprint(from.Unix())}, "end": {fmt.Sprint(to.Unix())}, "step": {"60"},
	})
	if gerr != nil {
		t.Fatal(gerr)
	}
	defer r.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	out = map[string]map[float64]float64{}
	for _, s := range answer.Data.Result {
		values := map[float64]float64{}
		for _, v := range s.Values {
			f, err := strconv.ParseFloat(v[1].(string), 64)
			if err != nil {
				t.Fatal(err)
			}
			values[v[0].(float64)] = f
		}
		out[fmt.Sprint(s.Metric)] = values
	}
	return out, answer.Error
}

// differs says in what two answers differ, "" in nothing that counts.
func differs(ours, theirs map[string]map[float64]float64) string {
	for name := range theirs {
		if ours[name] == nil {
			return "no series " + name
		}
	}
	for name, values := range ours {
		if theirs[name] == nil {
			return "a series too many: " + name
		}
		if len(values) != len(theirs[name]) {
			return fmt.Sprintf("%s has %d values, theirs %d", name, len(values), len(theirs[name]))
		}
		for at, v := range values {
			w, here := theirs[name][at]
			near := v == w || math.IsNaN(v) && math.IsNaN(w) || math.Abs(v-w) <= 1e-5*math.Min(math.Abs(v), math.Abs(w)) || math.Abs(v-w) < 1e-9
			if !here || !near {
				return fmt.Sprintf("%s at %.0f is %v, theirs %v", name, at, v, w)
			}
		}
	}
	return ""
}

// since3 are queries that Prometheus 3, whose language ours is, answers otherwise than
// the 2.42 that is asked beside it.
var since3 = map[string]string{
	`label_replace(demo_num_cpus, "~invalid", "", "src", "(.*)")`:   "names of labels may have any letters",
	`label_join(demo_num_cpus, "~invalid", "-", "instance")`:        "names of labels may have any letters",
	`avg_over_time(rate(demo_cpu_usage_seconds_total[1m])[2m:10s])`: "a subquery leaves out what is at the very beginning of its range",
}

// A real Prometheus and Tender with the same blocks give the same answers to the
// queries of Prometheus' compliance tests.
func TestPromQLComplies(t *testing.T) {
	bin := binaries(t)
	to := time.Now().Add(-3 * time.Hour).Truncate(time.Minute)
	from := to.Add(-3 * time.Hour)
	file, theirs, ours := filepath.Join(t.TempDir(), "demo.om"), filepath.Join(t.TempDir(), "theirs"), filepath.Join(t.TempDir(), "ours")
	demo(t, file, from, to)
	for _, dir := range []string{theirs, ours} {
		if out, err := exec.Command(filepath.Join(bin, "promtool"), "tsdb", "create-blocks-from", "openmetrics", file, dir).CombinedOutput(); err != nil {
			t.Fatalf("promtool: %v: %s", err, out)
		}
	}
	d := open(t, Options{Dir: ours}) // blocks of Prometheus are ours as they are
	s := httptest.NewServer(d.API())
	defer s.Close()
	other := prometheus42(t, filepath.Join(bin, "prometheus"), theirs, "")
	// Between samples: Prometheus 3 leaves out the one at the very beginning of a range.
	begin, end := from.Add(90*time.Minute+3*time.Second), to.Add(-time.Minute)
	all, fail := queries(t)
	wrong := 0
	for _, q := range all {
		if since3[q] != "" {
			continue
		}
		want, werr := matrix(t, other, q, begin, end)
		got, gerr := matrix(t, s.URL, q, begin, end)
		switch {
		case fail[q] && gerr == "":
			t.Errorf("%s: no error", q)
			wrong++
		case fail[q]:
		case gerr != "" || werr != "":
			t.Errorf("%s: error %q, theirs %q", q, gerr, werr)
			wrong++
		default:
			if text := differs(got, want); text != "" {
				t.Errorf("%s: %s", q, text)
				wrong++
			}
		}
		if wrong > 20 {
			t.Fatal("and more")
		}
	}
	t.Logf("%d queries, %d differ", len(all), wrong)
	if len(all) < 500 {
		t.Errorf("only %d queries", len(all))
	}
}

// A real Prometheus federates from us and sends to us; promtool asks us.
func TestARealPrometheusAndItsTools(t *testing.T) {
	bin := binaries(t)
	self := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprint(w, "# HELP tender_edge_up 1 while it serves.\n# TYPE tender_edge_up gauge\ntender_edge_up 1\n")
	})
	d := open(t, Options{Node: "n1", Self: self, Config: configured(t, "global: {scrape_interval: 1s}\n")})
	run(t, d)
	s := httptest.NewServer(http.StripPrefix("/prometheus", d.API()))
	defer s.Close()
	other := prometheus42(t, filepath.Join(bin, "prometheus"), t.TempDir(), fmt.Sprintf(`
global: {scrape_interval: 1s, external_labels: {from: real}}
scrape_configs:
- {job_name: self, static_configs: [{targets: [%q]}]}
- {job_name: federate, honor_labels: true, metrics_path: /prometheus/federate, params: {'match[]': ['{job="tender"}']}, static_configs: [{targets: [%q]}]}
remote_write: [{url: %q, queue_config: {batch_send_deadline: 100ms}}]
`, "127.0.0.1:1", strings.TrimPrefix(s.URL, "http://"), s.URL+"/prometheus/api/v1/write"))
	text := func(base, expr string) string {
		r, err := http.Get(base + "/api/v1/query?query=" + url.QueryEscape(expr))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return string(b)
	}
	until(t, "federation", func() bool {
		return strings.Contains(text(other, "tender_edge_up"), `{"__name__":"tender_edge_up","instance":"n1","job":"tender","node":"n1"}`)
	})
	until(t, "remote write", func() bool {
		return strings.Contains(text(s.URL+"/prometheus", `up{from="real",job="self"}`), `"instance":"127.0.0.1:1"`)
	})
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"query", "instant", s.URL + "/prometheus", `tender_edge_up{from=""}`}, `tender_edge_up{instance="n1", job="tender", node="n1"} => 1 @[`},
		{[]string{"query", "range", "--step=1s", s.URL + "/prometheus", `up{job="tender",from=""}`}, `up{instance="n1", job="tender", node="n1"} =>`},
		{[]string{"query", "series", "--match=tender_edge_up", s.URL + "/prometheus"}, `{__name__="tender_edge_up", instance="n1", job="tender", node="n1"}`},
		{[]string{"query", "labels", s.URL + "/prometheus", "job"}, "tender\n"},
	} {
		// One scrape of a busy machine may come to nothing.
		until(t, fmt.Sprintf("promtool %s: %s", strings.Join(tt.args, " "), tt.want), func() bool {
			out, err := exec.Command(filepath.Join(bin, "promtool"), tt.args...).CombinedOutput()
			return err == nil && strings.Contains(string(out), tt.want)
		})
	}
}
