package metrics

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/sample"
)

func configured(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// One sends to another with either protocol.
func TestRemoteWrite(t *testing.T) {
	for _, protocol := range []string{"prometheus.WriteRequest", "io.prometheus.write.v2.Request"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			to := open(t, Options{Limit: 10})
			receiver := httptest.NewServer(to.API())
			defer receiver.Close()
			from := open(t, Options{Config: configured(t, fmt.Sprintf("global: {external_labels: {cluster: a}}\nremote_write: [{url: %q, protobuf_message: %s, queue_config: {batch_send_deadline: 100ms}}]\n", receiver.URL+"/api/v1/write", protocol))})
			run(t, from)
			now, s := time.Now(), series("jobs", "queue", "mail")
			n := 0
			until(t, "what was sent", func() bool {
				// The sender starts with what is written after it has found its place.
				n++
				if err := from.Keep(t.Context(), sample.Round{Source: "q", At: now.Add(time.Duration(n) * time.Millisecond), Points: []sample.Point{{Series: s, Value: 7}}}); err != nil {
					t.Fatal(err)
				}
				return ask(t, to, "jobs", time.Now()) == "map[__name__:jobs cluster:a queue:mail] 7"
			})
			// More than a project may have is refused, and what fits is kept.
			many := sample.Round{Source: "many", At: time.Now()}
			for i := range 30 {
				many.Points = append(many.Points, sample.Point{Series: series("many", "i", fmt.Sprint(i), "project", "p"), Value: 1})
			}
			if err := from.Keep(t.Context(), many); err != nil {
				t.Fatal(err)
			}
			until(t, "what fits", func() bool { return ask(t, to, "count(many)", time.Now()) == "map[] 10" })
		})
	}
}

func TestOTLPComesIn(t *testing.T) {
	d := open(t, Options{})
	s := httptest.NewServer(d.API())
	defer s.Close()
	now := time.Now()
	body := fmt.Sprintf(`{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}},{"key":"service.instance.id","value":{"stringValue":"c1"}}]},
		"scopeMetrics":[{"metrics":[{"name":"orders.placed","unit":"1","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"asDouble":5,"timeUnixNano":"%d","attributes":[{"key":"kind","value":{"stringValue":"web"}}]}]}}]}]}]}`, now.UnixNano())
	r, err := http.Post(s.URL+"/api/v1/otlp/v1/metrics", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if text, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", r.Status, text)
	}
	if got, want := ask(t, d, "orders_placed_total", now.Add(time.Second)), "map[__name__:orders_placed_total instance:c1 job:cart kind:web] 5"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// One takes what it wants from another; prometheus.yml says so.
func TestFederation(t *testing.T) {
	from := open(t, Options{})
	now := time.Now()
	if err := from.Keep(t.Context(), sample.Round{Source: "x", At: now, Points: []sample.Point{
		{Series: series("cpu", "instance", "a", "project", "shop"), Value: 1}, {Series: series("cpu", "instance", "b", "project", "blog"), Value: 2}, {Series: series("total"), Value: 3},
	}}); err != nil {
		t.Fatal(err)
	}
	giver := httptest.NewServer(from.API())
	defer giver.Close()
	for path, want := range map[string]string{
		"/federate?match[]=cpu{project=\"shop\"}&match[]=total": "# TYPE cpu untyped\ncpu{instance=\"a\",project=\"shop\"} 1 T\n# TYPE total untyped\ntotal{instance=\"\"} 3 T\n",
		"/federate?match[]={__name__=\"none\"}":                 "",
	} {
		r, err := http.Get(giver.URL + strings.NewReplacer("{", "%7B", "}", "%7D", "\"", "%22").Replace(path))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if got := strings.ReplaceAll(string(text), fmt.Sprint(now.UnixMilli()), "T"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", path, got, want)
		}
	}
	to := open(t, Options{Config: configured(t, fmt.Sprintf("scrape_configs:\n- job_name: federate\n  honor_labels: true\n  scrape_interval: 1s\n  metrics_path: /federate\n  params: {'match[]': ['{project=\"shop\"}']}\n  static_configs: [{targets: [%q]}]\n", strings.TrimPrefix(giver.URL, "http://")))})
	run(t, to)
	until(t, "what was given", func() bool {
		return ask(t, to, "cpu", now.Add(time.Second)) == "map[__name__:cpu instance:a job:federate project:shop] 1"
	})
}
