package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/metrics"
	"github.com/tenderhq/tender/internal/sample"
	"github.com/tenderhq/tender/internal/store"
)

// What runs in the network of its host is scraped at the host of the engine, not at that of Tender.
func TestTargetsOfAnEngineElsewhere(t *testing.T) {
	head := store.Generation{N: 1, Services: []store.WantedService{
		{Service: tender.Service{Name: "agent", Reach: "host"}}, {Service: tender.Service{Name: "web", Networks: []string{"shop_default"}}},
	}}
	picture := tender.Picture{Taken: time.Now(), Instances: []tender.Instance{
		{ID: "a", Project: "shop", Service: "agent", Slot: 1, Name: "shop-agent-1", State: tender.Running},
		{ID: "b", Project: "shop", Service: "web", Slot: 1, Name: "shop-web-1", State: tender.Running, Addresses: map[string]string{"shop_default": "172.20.0.3"}},
		{ID: "c", Project: "shop", Service: "web", Slot: 2, Name: "shop-web-2", State: tender.Exited},
	}}
	for elsewhere, want := range map[string]string{"": "127.0.0.1:9100 172.20.0.3:8080", "10.0.0.7": "10.0.0.7:9100 172.20.0.3:8080"} {
		m := metricRoom{elsewhere: elsewhere, projects: map[string]ofHead[projectMetrics]{"shop": {is: projectMetrics{head: head, services: map[string][]tender.Metrics{
			"agent": {{Port: 9100}}, "web": {{Port: 8080}},
		}}}}}
		var got []string
		for _, target := range m.targets(picture) {
			got = append(got, target.Address)
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("engine at %q: %s, want %s", elsewhere, text, want)
		}
	}
}

// A token of one project asks Prometheus' API about it alone, under both of its addresses; one of all projects asks of all.
func TestPrometheusKeepsProjectsApart(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	db, err := metrics.Open(metrics.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	var points []sample.Point
	for _, project := range []string{"shop", "blog"} {
		points = append(points, sample.Point{Series: &sample.Series{Name: "orders", Labels: []sample.Label{{Name: "project", Value: project}}}})
	}
	if err := db.Keep(t.Context(), sample.Round{Source: "here", At: time.Now(), Points: points}); err != nil {
		t.Fatal(err)
	}
	b := &backend{store: st, board: new(board), log: slog.New(slog.DiscardHandler), metered: &metricRoom{db: db}}
	mounts, own := b.prometheus()
	s := httptest.NewServer(api.Handler(b, api.Options{Mounts: mounts, Apart: own}))
	t.Cleanup(s.Close)
	for _, projects := range [][]string{nil, {"shop"}} {
		made, err := b.CreateToken(t.Context(), api.Person{Name: "root"}, fmt.Sprint("of", len(projects)), api.Read, projects, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for path, refused := range map[string]bool{
			"/api/v1/query?query=orders": false, "/prometheus/api/v1/label/project/values": false, "/api/v1/targets": true, "/federate?match[]=orders": true, "/prometheus/federate?match[]=orders": true,
		} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+made.Secret)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			want := 200
			if refused && projects != nil {
				want = 403
			}
			if resp.StatusCode != want || projects != nil && strings.Contains(string(body), "blog") || projects == nil && !refused && !strings.Contains(string(body), "blog") {
				t.Errorf("%v %s: %d %s", projects, path, resp.StatusCode, body)
			}
		}
	}
}
