package daemon

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
)

// Routes at the top of a file were gone with the store: no instance carries them.
func TestRoutesComeBackFromWhatTheEdgeServed(t *testing.T) {
	web := tender.Route{Service: "web", Hosts: []string{"shop.test"}, Path: "/", Aims: []tender.Aim{{Service: "web", Port: 8080, Weight: 1}}}
	stale := tender.Route{Service: "web", Hosts: []string{"old.test"}, Path: "/", Aims: []tender.Aim{{Service: "web", Port: 8080, Weight: 1}}}
	top := tender.Route{
		Hosts: []string{"shop.test"}, Path: "/orders", RouteOptions: tender.RouteOptions{Sticky: true, MaxBody: 7},
		Aims: []tender.Aim{{Service: "orders", Port: 80, Weight: 10}, {URL: "http://10.0.0.8:8081", Weight: 90}},
	}
	idle := tender.Route{Hosts: []string{"idle.test"}, Path: "/", Aims: []tender.Aim{{Service: "idle", Port: 9000, Weight: 1}}}
	away := tender.Route{Hosts: []string{"away.test"}, Path: "/", Aims: []tender.Aim{{Service: "away", Port: 9000, Weight: 1}}}
	moved := tender.Route{Hosts: []string{"moved.test"}, Path: "/", RouteOptions: tender.RouteOptions{Redirect: &tender.RouteRedirect{To: "https://shop.test", Code: 308}}}
	instance := func(service, revision, id string) tender.Instance {
		return tender.Instance{ID: id, Name: id, Project: "shop", Service: service, Revision: revision, State: tender.Running, Addresses: map[string]string{"net": "10.1.0." + id}}
	}
	exposed := []tender.Port{{Container: 9000, Protocol: "tcp"}}
	head := store.Generation{Project: "shop", Routes: []tender.Route{web, top, idle, away, moved}}
	for _, s := range []tender.Service{{Name: "web"}, {Name: "orders"}, {Name: "idle", Exposed: exposed}} {
		head.Services = append(head.Services, store.WantedService{Service: s})
	}
	// In the middle of a canary: two revisions share what is of orders.
	lanes := []plan.Lane{
		{Service: "web", Revision: "w", ID: "1", State: plan.In, Share: 1000},
		{Service: "orders", Revision: "a", ID: "2", State: plan.In, Share: 950},
		{Service: "orders", Revision: "b", ID: "3", State: plan.In, Share: 50},
	}
	made, _, problems := keptParts{}.table(partMaker{picture: tender.Picture{Instances: []tender.Instance{instance("web", "w", "1"), instance("orders", "a", "2"), instance("orders", "b", "3")}}},
		[]served{{head: head, lanes: lanes, known: true}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	// What the instances of shop carry, and some of it is out of date.
	carried := tender.Project{Name: "shop", Routes: []tender.Route{web, stale}, Services: []tender.Service{{Name: "web"}, {Name: "orders"}, {Name: "idle", Exposed: exposed}}}
	got, lost := routesServed(made, nil)(carried)
	if d := cmp.Diff([]tender.Route{web, top, idle, moved}, got); d != "" {
		t.Errorf("want -, got +\n%s", d)
	}
	if d := cmp.Diff([]string{"route shop/away.test/: which port of away it leads to"}, lost); d != "" {
		t.Error(d)
	}
	// Without its table: what they carry, and that this may not be all.
	got, lost = routesServed(edge.Table{}, errors.New("no such file"))(carried)
	if len(got) != 2 || len(lost) != 1 {
		t.Errorf("without the table: %v %v", got, lost)
	}
	if got, lost = routesServed(edge.Table{Proxy: proxy.Table{Format: proxy.Format}}, nil)(carried); len(got) != 2 || lost != nil {
		t.Errorf("of one that the edge has never had: %v %v", got, lost)
	}
}
