package daemon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/dns"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// shop is a project with a route of a service, one that is shared with an
// address outside, and a port that the edge holds.
func shop() (served, tender.Picture) {
	s := served{head: store.Generation{
		Project: "shop",
		Routes: []tender.Route{
			{Service: "web", Hosts: []string{"shop.example.com"}, Path: "/", Aims: []tender.Aim{{Service: "web", Port: 8080, Weight: 1}}},
			{Hosts: []string{"shop.example.com"}, Path: "/orders", Aims: []tender.Aim{{Service: "orders", Port: 80, Weight: 10}, {URL: "https://old.example.com", Weight: 90}}},
			{Path: "/old", Aims: []tender.Aim{{Service: "web", Port: 8080, Weight: 1}}, RouteOptions: tender.RouteOptions{Redirect: &tender.RouteRedirect{To: "/"}}},
		},
		Services: []store.WantedService{
			{Service: tender.Service{Name: "db", Publish: tender.PublishProxy, Ports: []tender.Port{{HostPort: 5432, Container: 5432, Protocol: "tcp"}}, Exposed: []tender.Port{{Container: 5432, Protocol: "tcp"}}, Networks: []string{"shop_default"}}},
			{Service: tender.Service{Name: "orders", Reach: "host"}},
			{Service: tender.Service{Name: "web", Networks: []string{"shop_front", "shop_default"}, Catalog: "shopfront", CatalogPort: 8080}},
		},
	}, known: true, states: map[string]store.RouteState{}}
	at := func(id, service, revision string, slot int, addresses map[string]string) tender.Instance {
		return tender.Instance{ID: id, Name: fmt.Sprintf("shop-%s-%d", service, slot), Project: "shop", Service: service, Revision: revision, Slot: slot, State: tender.Running, Addresses: addresses}
	}
	picture := tender.Picture{Taken: noon, Instances: []tender.Instance{
		at("d1", "db", "dddd", 1, map[string]string{"shop_default": "10.0.0.5"}),
		at("o1", "orders", "oooo", 1, nil),
		at("w1", "web", "aaaa", 1, map[string]string{"shop_default": "10.0.0.1", "shop_front": "10.0.1.1"}),
		at("w2", "web", "bbbb", 2, map[string]string{"shop_default": "10.0.0.2"}),
		at("w3", "web", "bbbb", 3, nil),
	}}
	s.lanes = []plan.Lane{
		{Service: "db", Revision: "dddd", ID: "d1", Share: 1000, State: plan.In},
		{Service: "orders", Revision: "oooo", ID: "o1", Share: 1000, State: plan.In},
		{Service: "web", Revision: "aaaa", ID: "w1", Share: 950, State: plan.Leaving},
		{Service: "web", Revision: "bbbb", ID: "w2", Share: 50, State: plan.In},
		{Service: "web", Revision: "bbbb", ID: "w3", Share: 50, State: plan.Out},
	}
	return s, picture
}

// draw prints a table, a line for each thing in it.
func draw(t edge.Table) string {
	var b strings.Builder
	groups := func(list []proxy.Group) {
		for _, g := range list {
			fmt.Fprintf(&b, "  %s %s x%d", g.Aim, g.Revision, g.Weight)
			for _, x := range g.Targets {
				how := ""
				for word, is := range map[string]bool{" leaving": x.Leaving, " down": x.Down, " tls": x.TLS} {
					if is {
						how += word
					}
				}
				fmt.Fprintf(&b, " [%s %s%s]", x.Name, x.Address, how)
			}
			b.WriteByte('\n')
		}
	}
	for _, r := range t.Proxy.Routes {
		fmt.Fprintf(&b, "route %s paused=%v\n", r.ID, r.Paused)
		groups(r.Groups)
	}
	for _, p := range t.Proxy.Ports {
		fmt.Fprintf(&b, "port %s at %s\n", p.ID, p.Address)
		groups(p.Groups)
	}
	for _, s := range t.DNS.Services {
		fmt.Fprintf(&b, "name %s.%s %q %v", s.Name, s.Project, s.Catalog, s.Ports)
		for _, e := range s.Endpoints {
			fmt.Fprintf(&b, " [%s %s %v]", e.Name, e.Address, e.Healthy)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestTheTableIsMadeOfLanesAndAddresses(t *testing.T) {
	s, picture := shop()
	got, until, problems := keptParts{}.table(partMaker{picture: picture, now: noon, node: "host"}, []served{s})
	want := `route shop/shop.example.com/ paused=false
  web aaaa x950 [shop-web-1 10.0.1.1:8080 leaving]
  web bbbb x50 [shop-web-2 10.0.0.2:8080]
route shop/shop.example.com/orders paused=false
  orders oooo x10000 [shop-orders-1 127.0.0.1:80]
  https://old.example.com  x90000 [https://old.example.com old.example.com:443 tls]
route shop/web:8080/old paused=false
port shop/db:5432/tcp at :5432
  db dddd x1000 [shop-db-1 10.0.0.5:5432]
name db.shop "" [{ 5432 tcp}] [shop-db-1 10.0.0.5 true]
name orders.shop "" [{http 80 tcp}] [shop-orders-1 127.0.0.1 true]
name web.shop "shopfront" [{ 8080 tcp}] [shop-web-1 10.0.1.1 false] [shop-web-2 10.0.0.2 true]
`
	if diff := cmp.Diff(want, draw(got)); diff != "" || !until.IsZero() || len(problems) > 0 {
		t.Errorf("want -, got +\n%s%v %v", diff, until, problems)
	}
}

func TestContainersAskWhereTheirNetworkIs(t *testing.T) {
	s, picture := shop()
	network := func(name, gateway, subnet string) tender.Network {
		n := tender.Network{ID: name, Name: name, Project: "shop", Gateway: gateway}
		if subnet != "" {
			n.Subnets = []string{subnet}
		}
		return n
	}
	picture.Networks = []tender.Network{network("shop_default", "10.0.0.254", "10.0.0.0/24"), network("shop_front", "", "")}
	inside := func(all ...served) []dns.Inside {
		got, _, _ := keptParts{}.table(partMaker{picture: picture, now: noon}, all)
		return got.Inside
	}
	if got := inside(s); len(got) != 0 {
		t.Errorf("nobody asks: %+v", got)
	}
	s.head.Services[2].Service.Resolver = true // web, whose first network has no host in it
	want := []dns.Inside{{Address: "10.0.0.254", Networks: []string{"10.0.0.0/24"}, Projects: []string{"shop"}, Consul: true}}
	if diff := cmp.Diff(want, inside(s)); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
	bank := served{known: true, head: store.Generation{Project: "bank", Services: []store.WantedService{
		{Service: tender.Service{Name: "consul"}}, {Service: tender.Service{Name: "teller", Resolver: true, Networks: []string{"shop_default"}}},
	}}}
	want[0].Projects, want[0].Consul = []string{"bank", "shop"}, false
	if diff := cmp.Diff(want, inside(s, bank)); diff != "" {
		t.Errorf("two projects in one network, one with its own consul: want -, got +\n%s", diff)
	}
}

func TestWhatPeopleSayOfARouteHolds(t *testing.T) {
	s, picture := shop()
	s.states["shop/shop.example.com/orders"] = store.RouteState{
		Weights: map[string]int{"orders": 1, "https://old.example.com": 0}, Paused: &store.Pause{Until: noon.Add(time.Minute)},
	}
	s.states["shop/shop.example.com/"] = store.RouteState{Paused: &store.Pause{Until: noon}}
	got, until, _ := keptParts{}.table(partMaker{picture: picture, now: noon}, []served{s})
	text := draw(got)
	for _, want := range []string{"route shop/shop.example.com/orders paused=true", "orders oooo x1000 ", "https://old.example.com  x0 ", "route shop/shop.example.com/ paused=false"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if want := noon.Add(time.Minute); !until.Equal(want) {
		t.Errorf("the pause ends at %s, want %s", until, want)
	}
}

func TestWhatIsGoneFromOnePlaceServesAtAnother(t *testing.T) {
	s, _ := shop()
	v := view{heads: map[string]store.Generation{"shop": s.head}, report: proxy.Report{Routes: []proxy.RouteReport{{ID: "1", Project: "shop", Targets: []proxy.TargetReport{
		{ID: "w1", Aim: "web", Revision: "aaaa", Address: "10.0.0.2:80", State: "gone", Open: 1},
		{ID: "w1", Aim: "web", Revision: "aaaa", Address: "10.0.0.3:80", State: "up", Open: 2},
		{ID: "w2", Aim: "web", Revision: "aaaa", Address: "10.0.0.4:80", State: "gone"},
	}}}}}
	got := v.trafficOf()["shop"]["web"].Instances
	// An instance with a new address counted as one that had left, and was stopped while it served.
	if w := got["w1"]; w.State != plan.In || w.Open != 3 {
		t.Errorf("w1 serves: %+v", w)
	}
	if w := got["w2"]; w.State != plan.Leaving {
		t.Errorf("w2 is gone: %+v", w)
	}
}

// The engine publishes a port until the instance that it did so for is gone.
func TestAPortWaitsForTheEngineToLetGo(t *testing.T) {
	s, picture := shop()
	picture.Instances[0].Ports = []tender.Port{{HostIP: "0.0.0.0", HostPort: 5432, Container: 5432, Protocol: "tcp"}}
	parts := keptParts{}
	got, _, problems := parts.table(partMaker{picture: picture, now: noon}, []served{s})
	if len(got.Proxy.Ports) > 0 {
		t.Errorf("the edge has it: %+v", got.Proxy.Ports)
	}
	want := map[string][]string{"shop": {"port 5432 of db waits: shop-db-1 publishes it still"}}
	if diff := cmp.Diff(want, problems); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
	v := view{heads: map[string]store.Generation{"shop": s.head}, withheld: map[string]map[string][]plan.Lane{"shop": parts["shop"].withheld}}
	if f := v.trafficOf()["shop"]["db"].Instances["d1"]; f.State != plan.In {
		t.Errorf("nobody waits for a port that cannot be had: %+v", f)
	}
}

func TestABadPartHoldsUpNobodyElse(t *testing.T) {
	s, picture := shop()
	parts := keptParts{}
	m := partMaker{picture: picture, now: noon}
	good, _, _ := parts.table(m, []served{s})
	other := served{head: store.Generation{Project: "zoo", Routes: []tender.Route{{Hosts: []string{"zoo.example.com"}, Path: "/", Aims: []tender.Aim{{URL: "http://10.9.9.9:80", Weight: 1}}}}}, known: true}
	// The same place twice: nobody can serve that.
	s.head.Routes = append(s.head.Routes, tender.Route{Hosts: []string{"shop.example.com"}, Path: "/", Aims: s.head.Routes[0].Aims})
	got, _, problems := parts.table(m, []served{s, other})
	if len(problems["shop"]) != 1 || len(problems["zoo"]) != 0 {
		t.Errorf("problems %v", problems)
	}
	if want := len(good.Proxy.Routes) + 1; len(got.Proxy.Routes) != want {
		t.Errorf("%d routes are served, want the %d good ones", len(got.Proxy.Routes), want)
	}
}

// The name of the daemon's own registry goes before projects that want it.
func TestTheRegistryKeepsItsName(t *testing.T) {
	own := registryRoute("shop.example.com", "127.0.0.1:1")
	if own.TLS != "auto" || registryRoute("registry.lan", "127.0.0.1:1").TLS != "internal" {
		t.Errorf("vouched for by %q", own.TLS)
	}
	s, picture := shop()
	got, _, problems := keptParts{}.table(partMaker{picture: picture, now: noon, own: []proxy.Route{own}}, []served{s})
	if err := got.Proxy.Validate(); err != nil {
		t.Fatal(err)
	}
	if len(problems["shop"]) != 1 || !strings.Contains(problems["shop"][0], own.ID) {
		t.Errorf("problems %v", problems)
	}
	if diff := cmp.Diff([]proxy.Route{own}, got.Proxy.Routes); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func TestADownProjectIsServedUntilItsLastInstanceIsGone(t *testing.T) {
	s, picture := shop()
	s.head.Down = &store.Down{}
	m := partMaker{picture: picture, now: noon}
	if m.part(s).empty() {
		t.Error("what drains is not in the table any more")
	}
	s.lanes = nil
	if p := m.part(s); !p.empty() {
		t.Errorf("nothing is there, and it is served: %+v", p)
	}
}

func TestServiceModesAreReachedAtTheOtherService(t *testing.T) {
	s, picture := shop()
	s.head.Services[1].Service.Reach = "service:web"
	got, _, _ := keptParts{}.table(partMaker{picture: picture, now: noon}, []served{s})
	if text := draw(got); !strings.Contains(text, "[shop-orders-1 10.0.1.1:80]") {
		t.Errorf("orders is not at the address of web-1\n%s", text)
	}
}

func TestTrafficIsWhatAllRoutesSay(t *testing.T) {
	s, _ := shop()
	target := func(id, revision, state string, open int, n uint64) proxy.TargetReport {
		return proxy.TargetReport{ID: id, Aim: "web", Revision: revision, State: state, Open: open, Served: tender.Served{Requests: n, Failed: 1}}
	}
	v := view{heads: map[string]store.Generation{"shop": s.head}, report: proxy.Report{Routes: []proxy.RouteReport{
		{ID: "1", Project: "shop", Targets: []proxy.TargetReport{target("w1", "aaaa", "leaving", 2, 10), target("w2", "bbbb", "up", 1, 5), target("w3", "bbbb", "ejected", 0, 1)}},
		{ID: "2", Project: "shop", Targets: []proxy.TargetReport{target("w1", "aaaa", "up", 3, 1), target("w2", "bbbb", "up", 0, 5), {ID: "x", Aim: "http://x", State: "up"}}},
		{ID: "3", Project: "gone", Targets: []proxy.TargetReport{target("g", "aaaa", "gone", 0, 1)}},
	}}}
	got := v.trafficOf()
	var lines []string
	for _, id := range []string{"w1", "w2", "w3"} {
		f := got["shop"]["web"].Instances[id]
		lines = append(lines, fmt.Sprintf("%s %s %d", id, f.State, f.Open))
	}
	if diff := cmp.Diff([]string{"w1 leaving 5", "w2 in 1", "w3 out 0"}, lines); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
	if r := got["shop"]["web"].Revisions; r["aaaa"].Requests != 11 || r["bbbb"].Requests != 11 || r["bbbb"].Failed != 3 {
		t.Errorf("counts %+v", r)
	}
	if got["gone"] != nil || got["shop"]["orders"] == nil || got["shop"]["db"] == nil {
		t.Errorf("services %v", got)
	}
}

func TestSharesInPercent(t *testing.T) {
	aims := []tender.Aim{{Service: "new", Weight: 10}, {Service: "old", Weight: 60}, {URL: "http://x", Weight: 30}}
	for _, tt := range []struct {
		now, percents map[string]int
		want          string
	}{
		{nil, map[string]int{"new": 10}, `{"http://x":3,"new":1,"old":6}`},
		{nil, map[string]int{"new": 100}, `{"http://x":0,"new":1,"old":0}`},
		{nil, map[string]int{"new": 0}, `{"http://x":1,"new":0,"old":2}`},
		{map[string]int{"new": 1, "old": 0, "http://x": 0}, map[string]int{"new": 50}, `{"http://x":1,"new":2,"old":1}`},
		{nil, map[string]int{"new": 20, "old": 30, "http://x": 50}, `{"http://x":5,"new":2,"old":3}`},
	} {
		got, err := json.Marshal(weigh(aims, tt.now, tt.percents))
		if err != nil || string(got) != tt.want {
			t.Errorf("%v of %v: want %s, got %s", tt.percents, tt.now, tt.want, got)
		}
	}
}

func TestAWalkGoesOnAndBack(t *testing.T) {
	aims := []tender.Aim{{Service: "new", Weight: 0}, {Service: "old", Weight: 1}}
	begin := store.RouteState{Walk: &store.Walk{
		Aim: "new", Steps: []int{5, 50, 100}, Every: time.Minute, Errors: 0.01, Since: noon, State: store.WalkOn, Before: map[string]int{"new": 0, "old": 1},
		Served: tender.Served{Requests: 100, Failed: 50},
	}}
	counts := func(requests, failed uint64) tender.Served {
		return tender.Served{Requests: 100 + requests, Failed: 50 + failed}
	}
	look := func(s store.RouteState, is tender.Served, after time.Duration) string {
		if !step(&s, aims, is, noon.Add(after)) {
			return "stands"
		}
		return fmt.Sprintf("%s %d%% %v %s", s.Walk.State, s.Walk.Steps[s.Walk.Step], s.Weights, s.Walk.Reason)
	}
	last := begin
	w := *begin.Walk
	w.Step = 2
	last.Walk = &w
	fallen := begin
	step(&fallen, aims, tender.Served{Requests: 30, Failed: 30}, noon.Add(time.Second))
	for _, tt := range []struct{ name, got, want string }{
		{"too early", look(begin, counts(1000, 0), 59*time.Second), "stands"},
		{"good", look(begin, counts(1000, 10), time.Minute), "walking 50% map[new:1 old:1] "},
		{"nothing came", look(begin, counts(0, 0), time.Minute), "walking 50% map[new:1 old:1] "},
		{"bad at once", look(begin, counts(100, 2), time.Second), "back 5% map[new:0 old:1] 2 of 100 requests failed at 5 %, more than 1 %"},
		{"too few to judge", look(begin, counts(19, 19), time.Second), "stands"},
		// It went back for what had been before the step, once the edge forgot a target.
		{"counts fell", look(begin, tender.Served{Requests: 30, Failed: 30}, time.Second), "walking 5% map[] "},
		{"bad since they fell", look(fallen, tender.Served{Requests: 50, Failed: 50}, time.Second), "back 5% map[new:0 old:1] 20 of 20 requests failed at 5 %, more than 1 %"},
		{"the end", look(last, counts(40, 0), time.Minute), "done 100% map[] 40 requests at the last step, 0 failed"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: want %q, got %q", tt.name, tt.want, tt.got)
		}
	}
}

func TestTrustedNetworksAreRead(t *testing.T) {
	var c Config
	if err := setTrusted(&c, "10.1.2.3/8, ::1"); err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	if fmt.Sprint(c.Trusted) != fmt.Sprint(want) {
		t.Errorf("want %v, got %v", want, c.Trusted)
	}
	if err := setTrusted(&c, "here"); err == nil {
		t.Error("here is no network")
	}
}
