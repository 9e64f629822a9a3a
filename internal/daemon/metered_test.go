package daemon

import (
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
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
