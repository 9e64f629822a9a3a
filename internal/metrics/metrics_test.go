package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/sample"
)

// open is a store of the test's own.
func open(t *testing.T, o Options) *DB {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func series(name string, pairs ...string) *sample.Series {
	s := &sample.Series{Name: name}
	for i := 0; i+1 < len(pairs); i += 2 {
		s.Labels = append(s.Labels, sample.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return s
}

// ask is the answer to an expression, as text.
func ask(t *testing.T, d *DB, expr string, at time.Time) string {
	t.Helper()
	all, err := d.Query(t.Context(), expr, at)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range all {
		out = append(out, fmt.Sprintf("%v %g", v.Labels, v.Value))
	}
	return strings.Join(out, "\n")
}

func TestASeriesThatLeavesItsRoundEnds(t *testing.T) {
	d := open(t, Options{})
	now := time.Now().Truncate(time.Second)
	a, b := series("mem", "instance", "a"), series("mem", "instance", "b")
	round := func(at time.Time, points ...sample.Point) {
		t.Helper()
		if err := d.Keep(t.Context(), sample.Round{Source: "host", At: at, Points: points}); err != nil {
			t.Fatal(err)
		}
	}
	round(now.Add(-20*time.Second), sample.Point{Series: a, Value: 1}, sample.Point{Series: b, Value: 2})
	round(now.Add(-10*time.Second), sample.Point{Series: b, Value: 3})
	if got, want := ask(t, d, "mem", now), "map[__name__:mem instance:b] 3"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// One that is late or comes twice is left out, and the others are kept.
	c := series("mem", "instance", "c")
	round(now.Add(-10*time.Second), sample.Point{Series: b, Value: 4}, sample.Point{Series: c, Value: 5})
	if got, want := ask(t, d, "mem", now), "map[__name__:mem instance:b] 3\nmap[__name__:mem instance:c] 5"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// server serves the API of d, and returns what asks it.
func server(t *testing.T, d *DB) func(path string, query ...string) string {
	s := httptest.NewServer(d.API())
	t.Cleanup(s.Close)
	return asking(t, s.URL)
}

// asking asks the API there.
func asking(t *testing.T, address string) func(path string, query ...string) string {
	return func(path string, query ...string) string {
		t.Helper()
		v := url.Values{}
		for i := 0; i+1 < len(query); i += 2 {
			v.Add(query[i], query[i+1])
		}
		r, err := http.Get(address + path + "?" + v.Encode())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// until asks again until the answer is good.
func until(t *testing.T, what string, good func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !good() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// run runs d until the test ends.
func run(t *testing.T, d *DB) {
	t.Helper()
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTargetsAreScraped(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stats" || r.URL.Query().Get("all") != "1" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
		fmt.Fprint(w, "# TYPE http_requests counter\n# HELP http_requests Answered.\nhttp_requests_total{code=\"200\"} 42 # {trace_id=\"abc\"} 1\n# EOF\n")
	}))
	defer app.Close()
	self := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprint(w, "tender_edge_up 1\n")
	})
	d := open(t, Options{Node: "n1", Self: self})
	run(t, d)
	get := server(t, d)
	d.SetTargets([]Target{
		{
			Pool: "shop/web", Address: strings.TrimPrefix(app.URL, "http://"), Path: "/stats?all=1", Interval: time.Second,
			Labels: map[string]string{"job": "web", "project": "shop", "service": "web", "revision": "r1", "instance": "shop-web-1", "node": "n1"},
		},
		{Pool: "shop/db", Address: "127.0.0.1:1", Interval: time.Second, Labels: map[string]string{"job": "db", "project": "shop", "instance": "shop-db-1"}},
	})
	until(t, "up", func() bool { return strings.Count(get("/api/v1/query", "query", "up"), `"metric"`) == 3 })
	for expr, want := range map[string]string{
		`http_requests_total`:                `{"metric":{"__name__":"http_requests_total","code":"200","instance":"shop-web-1","job":"web","node":"n1","project":"shop","revision":"r1","service":"web"}`,
		`up{job="db"} == 0`:                  `"instance":"shop-db-1"`,
		`tender_edge_up`:                     `{"metric":{"__name__":"tender_edge_up","instance":"n1","job":"tender","node":"n1"}`,
		`scrape_duration_seconds{job="web"}`: `"project":"shop"`,
	} {
		// One scrape of a busy machine may come to nothing.
		until(t, expr+" with "+want, func() bool { return strings.Contains(get("/api/v1/query", "query", expr), want) })
	}
	var targets struct {
		Data struct {
			Active []struct{ ScrapePool, ScrapeURL, LastError, Health string } `json:"activeTargets"`
		}
	}
	until(t, "what is said of targets", func() bool {
		if err := json.Unmarshal([]byte(get("/api/v1/targets")), &targets); err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, a := range targets.Data.Active {
			told = append(told, a.ScrapePool+" "+a.Health+" "+a.LastError)
		}
		got := strings.Join(told, "\n")
		return strings.Contains(got, "shop/web up ") && strings.Contains(got, "shop/db down ") && strings.Contains(got, "refused")
	})
	until(t, "status", func() bool { s := d.Status(); return s.Targets == 3 && s.Down == 1 && s.Problem() == "" })
	until(t, "metadata", func() bool {
		return strings.Contains(get("/api/v1/metadata", "metric", "http_requests"), `"help":"Answered."`)
	})
	// A target that goes takes its series along.
	d.SetTargets(nil)
	until(t, "the end of web", func() bool { return !strings.Contains(get("/api/v1/query", "query", "up"), `"web"`) })
}

// Several places of one service had the scheme, the limit and honor_labels of whichever came last; a
// query was encoded twice. What is scraped goes on after the part was started again.
func TestPlacesOfOneServiceKeepApart(t *testing.T) {
	tells := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "told{project=%q} 1\n", r.URL.Query().Get("as"))
	}
	plain, sealed := httptest.NewServer(http.HandlerFunc(tells)), httptest.NewTLSServer(http.HandlerFunc(tells))
	defer plain.Close()
	defer sealed.Close()
	address := func(s *httptest.Server) string { _, a, _ := strings.Cut(s.URL, "://"); return a }
	place := func(path string, s *httptest.Server) Target {
		return Target{Pool: "shop/web", Address: address(s), Path: path, Interval: 2 * time.Second, Labels: map[string]string{"job": path, "project": "shop"}}
	}
	plainly, honest, safe, small := place("/a?as=a%20b%26c", plain), place("/b?as=blog", plain), place("/c?as=c", sealed), place("/d?as=d", plain)
	honest.Honor, safe.Scheme, small.Limit = true, "https", 1
	d := open(t, Options{})
	d.SetTargets([]Target{safe, honest, small, plainly})
	for range 2 {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		begun := time.Now()
		for expr, want := range map[string]string{
			`told{job="/a?as=a%20b%26c"}`: "exported_project:a b&c",
			`told{job="/b?as=blog"}`:      "project:blog",
			`told{job="/c?as=c"}`:         "exported_project:c",
			`told{job="/d?as=d"}`:         "exported_project:d",
			`sum(timestamp(up) > ` + fmt.Sprint(float64(begun.UnixMilli())/1000) + `) > bool 0`: "map[] 1",
		} {
			until(t, expr+" "+want, func() bool { return strings.Contains(ask(t, d, expr, time.Now()), want) })
		}
		stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// Samples that are written do not hide that nothing goes into blocks.
func TestWhatDoesNotGoIntoBlocksIsSaid(t *testing.T) {
	d := open(t, Options{})
	d.compacted(errors.New("no space left on device"))
	if err := d.Keep(t.Context(), sample.Round{Source: "x", At: time.Now(), Points: []sample.Point{{Series: series("a"), Value: 1}}}); err != nil {
		t.Fatal(err)
	}
	if got := d.Status().Problem(); got != "compact: no space left on device" {
		t.Errorf("problem %q", got)
	}
	d.compacted(nil)
	if got := d.Status().Problem(); got != "" {
		t.Errorf("problem %q after it went well", got)
	}
}
