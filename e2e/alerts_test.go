package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// told is a receiver of webhooks: each alert as it was told last.
type told struct {
	mu     sync.Mutex
	alerts map[string]toldAlert // by their name
}

type toldAlert struct {
	Status              string
	Labels, Annotations map[string]string
}

func (r *told) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var m struct{ Alerts []toldAlert }
	if err := json.NewDecoder(req.Body).Decode(&m); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range m.Alerts {
		r.alerts[a.Labels["alertname"]] = a
	}
}

func (r *told) of(name string) toldAlert {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.alerts[name]
}

// Whoever is to be told of an alert must get it, with what is needed to act, and hear of its
// end, also of one that ends while serve is dead; and nothing of what is silenced, after kill -9 too.
func TestAnAlertMustReachItsReceiver(t *testing.T) {
	t.Parallel()
	hook := &told{alerts: map[string]toldAlert{}}
	receiver := httptest.NewServer(hook)
	defer receiver.Close()
	var jam atomic.Int64
	jam.Store(1)
	road := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = fmt.Fprintf(w, "jam %d\n", jam.Load())
	}))
	defer road.Close()
	h := makeHost(t, "--metrics-interval=1s", "--rules={every: 1s}")
	h.flags = append(h.flags, "--alertmanager="+h.file("alertmanager.yml", fmt.Sprintf(`
route: {receiver: team, group_by: [alertname], group_wait: 1s, group_interval: 1s}
receivers: [{name: team, webhook_configs: [{url: %q}]}]
`, receiver.URL)), "--metrics-config="+h.file("prometheus.yml", fmt.Sprintf(
		"scrape_configs: [{job_name: road, scrape_interval: 1s, static_configs: [{targets: [%q]}]}]\n", strings.TrimPrefix(road.URL, "http://"))))
	h.start()
	h.file("compose.yaml", `services:
  web:
    image: busybox
    command: [sh, -c, "echo queue is full; exec sleep 1000"]
    init: true
    x-tender:
      alerts:
        - {alert: Running, expr: tender_instance_running == 1, labels: {severity: critical}, annotations: {summary: it runs}}
        - {alert: Jam, expr: 'jam{project="", service=""} > 0'}
        - {alert: Full, logql: 'sum(count_over_time({} |= "queue is full" [1h])) > 0'}
`)
	h.must("alert", "silence", "add", "Full", "--for", "1h", "--comment", "known")
	h.must("up")
	h.until("the alert is told of", func() error {
		a := hook.of("Running")
		for _, is := range []struct{ what, got, want string }{
			{"status", a.Status, "firing"},
			{"project", a.Labels["project"], h.project},
			{"service", a.Labels["service"], "web"},
			{"severity", a.Labels["severity"], "critical"},
			{"summary", a.Annotations["summary"], "it runs"},
			{"value", a.Annotations["value"], "1"},
			{"look", a.Annotations["look"], "tender why web -p " + h.project},
		} {
			if is.got != is.want {
				return fmt.Errorf("%s is %q, not %q: %v", is.what, is.got, is.want, a)
			}
		}
		return nil
	})
	silenced := func() error {
		out := h.must("alert", "ls", "-p", h.project)
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "Full ") && strings.Contains(line, " silenced ") {
				return nil
			}
		}
		return fmt.Errorf("%s", out)
	}
	h.until("the other one is silenced", silenced)
	h.until("who was told of the jam is written down", func() error {
		if a := hook.of("Jam"); a.Status != "firing" {
			return fmt.Errorf("it is %q", a.Status)
		}
		told, err := os.ReadFile(filepath.Join(h.dir, "data", "alerts", "nflog"))
		if err == nil && !strings.Contains(string(told), `alertname="Jam"`) {
			err = fmt.Errorf("%d bytes without it", len(told))
		}
		return err
	})
	h.kill()
	jam.Store(0)
	h.start()
	h.until("it is after kill -9", silenced)
	h.until("the end of the jam, which came while serve was dead, is told of", func() error {
		if a := hook.of("Jam"); a.Status != "resolved" {
			return fmt.Errorf("it is %s", a.Status)
		}
		return nil
	})
	// An alert that nobody says again ends by itself in five minutes: too long for here.
	h.until("the rule has found it again", func() error {
		out := h.must("alert", "rules")
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Running" && f[1] == "firing" {
				return nil
			}
		}
		return fmt.Errorf("%s", out)
	})
	h.must("stop")
	h.until("the end is told of", func() error {
		if a := hook.of("Running"); a.Status != "resolved" {
			return fmt.Errorf("it is %s", a.Status)
		}
		return nil
	})
	if a := hook.of("Full"); a.Status != "" {
		t.Errorf("what is silenced was told of: %v", a)
	}
}
