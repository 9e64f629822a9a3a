package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every question of the dashboards must have an answer while a project runs, asked as
// Grafana does it: by POST, with the token and the address of the data sources.
func TestDashboardsMustBeAnswered(t *testing.T) {
	t.Parallel()
	listen, public := fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(config, []byte("global: {scrape_interval: 1s, scrape_timeout: 1s}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, "--listen="+listen, "--http="+public, "--metrics-interval=1s", "--metrics-config="+config)
	h.file("compose.yaml", `services:
  web:
    image: demo/app
    cpus: 0.5
    mem_limit: 64m
    x-tender: {routes: [{host: [web.test], port: 8080, tls: off}]}
`)
	h.must("up")
	token := h.token("grafana", "read")
	dir := t.TempDir()
	h.must("metrics", "grafana", "--url", "http://"+listen, dir)

	client := &http.Client{Timeout: time.Minute}
	ask := func(path string, form url.Values) (json.RawMessage, error) {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+listen+path, strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			return nil, fmt.Errorf("%s: %s: %s (%w)", path, resp.Status, body, err)
		}
		var a struct {
			Data struct{ Result json.RawMessage }
		}
		err = json.Unmarshal(body, &a)
		return a.Data.Result, err
	}
	get := func(host string) error {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+public+"/", nil)
		if err != nil {
			return err
		}
		req.Host = host
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}

	type question struct{ path, expr, at string }
	var open []question
	files, err := filepath.Glob(filepath.Join(dir, "dashboards", "tender", "*.json"))
	if err != nil || len(files) != 4 {
		t.Fatalf("%v, %v", files, err)
	}
	node := nodeOf(t)
	fill := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$project", h.project, "$service", "web", "$node", node)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Panels []struct {
				Title, Type string
				Targets     []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				path := "/api/v1/query_range"
				if p.Type == "logs" {
					path = "/loki/api/v1/query_range"
				}
				// Nothing is wrong where there are no failures, no certificates and no disk was read.
				if slices.Contains([]string{"Errors in the logs", "Requests that failed", "Logs", "Certificates", "Disk", "Disks: read and written", "Disks: time busy"}, p.Title) {
					if _, err := ask(path, url.Values{"query": {fill.Replace(q.Expr)}, "start": {at(-time.Minute)}, "end": {at(0)}, "step": {"10"}}); err != nil {
						t.Errorf("%s, %s: %v", filepath.Base(file), p.Title, err)
					}
					continue
				}
				open = append(open, question{path, fill.Replace(q.Expr), filepath.Base(file) + ", " + p.Title})
			}
		}
	}
	if len(open) < 50 {
		t.Fatalf("%d questions", len(open))
	}
	h.until("all questions are answered", func() error {
		if err := get("web.test"); err != nil {
			return err
		}
		var rest []question
		for _, q := range open {
			result, err := ask(q.path, url.Values{"query": {q.expr}, "start": {at(-time.Minute)}, "end": {at(0)}, "step": {"10"}})
			if err != nil {
				t.Fatalf("%s: %v", q.at, err)
			}
			if s := string(result); s == "[]" || s == "null" || s == "" {
				rest = append(rest, q)
			}
		}
		if open = rest; len(open) > 0 {
			return fmt.Errorf("%d have none, such as %s: %s", len(open), open[0].at, open[0].expr)
		}
		return nil
	})

	// The live figures are of the same store.
	h.until("stats has the edge's figures", func() error {
		var rows []struct {
			Service  string
			Memory   int64
			Rate     *float64 `json:"net_read_rate"`
			Requests *float64 `json:"requests_per_second"`
		}
		if err := json.Unmarshal([]byte(h.must("stats", "--no-stream", "--json")), &rows); err != nil {
			return err
		}
		if len(rows) != 1 || rows[0].Memory == 0 || rows[0].Rate == nil || rows[0].Requests == nil {
			return fmt.Errorf("%+v", rows)
		}
		return nil
	})
	if got := h.must("metrics", "query", "-p", h.project, "sum by (project) (tender_instance_running)"); !strings.Contains(got, h.project) {
		t.Errorf("running:\n%s", got)
	}
	if got := h.must("metrics", "targets"); !strings.Contains(got, "tender") {
		t.Errorf("targets:\n%s", got)
	}
}

// at is a moment as the APIs take it.
func at(d time.Duration) string { return fmt.Sprintf("%d", time.Now().Add(d).Unix()) }

func nodeOf(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}
