package dns_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	wire "github.com/miekg/dns"

	"github.com/tenderhq/tender/internal/dns"
)

// client is Consul's own client, at a server's handler.
func client(tb testing.TB, s *dns.Server) *api.Client {
	tb.Helper()
	web := httptest.NewServer(s.Consul())
	tb.Cleanup(web.Close)
	c, err := api.NewClient(&api.Config{Address: web.URL})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestConsulClientReads(t *testing.T) {
	s, _ := serve(t, dns.Options{}, shop())
	c := client(t, s)

	services, meta, err := c.Catalog().Services(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"postgres": {}, "shop-sick": {}, "shop-web": {"public", "v2"}}
	if diff := cmp.Diff(want, services); diff != "" || meta.LastIndex == 0 || !meta.KnownLeader {
		t.Errorf("services (index %d): %s", meta.LastIndex, diff)
	}

	entries, _, err := c.Catalog().Service("shop-web", "v2", nil)
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if e := entries[0]; e.ServiceAddress != "10.0.0.1" || e.ServicePort != 8080 || e.Node != "one" || e.Address != "10.9.0.1" ||
		e.ServiceMeta["team"] != "a" || e.ServiceMeta["tender-project"] != "shop" || e.Datacenter != "dc1" {
		t.Errorf("%+v", e)
	}

	healthy, _, err := c.Health().Service("shop-web", "", true, nil)
	if err != nil || len(healthy) != 2 {
		t.Fatalf("%d passing, %v", len(healthy), err)
	}
	if e := healthy[1]; e.Service.Address != "10.0.0.2" || e.Service.ID != "bbbbbbbbbbbbbbbbbbbb" || e.Checks.AggregatedStatus() != api.HealthPassing {
		t.Errorf("%+v", e)
	}
	all, _, err := c.Health().Service("shop-web", "", false, nil)
	if err != nil || len(all) != 3 || all[2].Checks.AggregatedStatus() != api.HealthCritical {
		t.Errorf("%+v, %v", all, err)
	}
	if got, _, err := c.Health().ServiceMultipleTags("shop-web", []string{"v2", "PUBLIC"}, true, nil); err != nil || len(got) != 2 {
		t.Errorf("with both tags: %v, %v", got, err)
	}
	if got, _, err := c.Health().ServiceMultipleTags("shop-web", []string{"v2", "other"}, true, nil); err != nil || len(got) != 0 {
		t.Errorf("with a tag that none has: %v, %v", got, err)
	}
	if got, meta, err := c.Health().Service("nope", "", true, nil); err != nil || len(got) != 0 || meta.LastIndex == 0 {
		t.Errorf("no such service: %v, %v", got, err)
	}
	if got, _, err := c.Health().State(api.HealthCritical, nil); err != nil || len(got) != 2 {
		t.Errorf("critical: %v, %v", got, err)
	}
	if got, _, err := c.Health().Checks("postgres", nil); err != nil || len(got) != 1 {
		t.Errorf("checks: %v, %v", got, err)
	}
	if got, _, err := c.Health().Node("one", nil); err != nil || len(got) != 5 {
		t.Errorf("checks of a node: %d, %v", len(got), err)
	}

	nodes, _, err := c.Catalog().Nodes(nil)
	if err != nil || len(nodes) != 2 || nodes[0].Node != "one" || nodes[1].Node != "tender" {
		t.Errorf("%v, %v", nodes, err)
	}
	if node, _, err := c.Catalog().Node("one", nil); err != nil || len(node.Services) != 5 {
		t.Errorf("%v, %v", node, err)
	}
	if node, _, err := c.Catalog().Node("nope", nil); err != nil || node != nil {
		t.Errorf("%v, %v", node, err)
	}
	if got, err := c.Catalog().Datacenters(); err != nil || len(got) != 1 || got[0] != "dc1" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := c.Status().Leader(); err != nil || got == "" {
		t.Errorf("%v, %v", got, err)
	}
	self, err := c.Agent().Self()
	if err != nil || self["Config"]["Datacenter"] != "dc1" || self["Config"]["NodeName"] != "tender" {
		t.Errorf("%v, %v", self, err)
	}
	if name, err := c.Agent().NodeName(); err != nil || name != "tender" {
		t.Errorf("%v, %v", name, err)
	}
	if _, _, err := c.Catalog().Services(&api.QueryOptions{Datacenter: "elsewhere"}); err == nil || !strings.Contains(err.Error(), "No path to datacenter") {
		t.Errorf("another datacenter: %v", err)
	}
	if _, _, err := c.KV().Get("settings", nil); err == nil || !strings.Contains(err.Error(), "501") || !strings.Contains(err.Error(), "tender secret set") {
		t.Errorf("KV: %v", err)
	}
	if _, _, err := c.Session().List(nil); err == nil || !strings.Contains(err.Error(), "501") {
		t.Errorf("sessions: %v", err)
	}
}

func TestConsulClientRegisters(t *testing.T) {
	s, addr := serve(t, dns.Options{Dir: t.TempDir()}, shop())
	c := client(t, s)
	register := func(r *api.AgentServiceRegistration) {
		t.Helper()
		if err := c.Agent().ServiceRegister(r); err != nil {
			t.Fatal(err)
		}
	}
	passing := func() int {
		t.Helper()
		got, _, err := c.Health().Service("mainframe", "", true, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	answers := func() int {
		return len(exchange(t, "udp", addr, question("mainframe.service.consul", wire.TypeA)).Answer)
	}
	register(&api.AgentServiceRegistration{
		ID: "mf/1", Name: "mainframe", Address: "192.0.2.7", Port: 3270, Tags: []string{"old"}, Meta: map[string]string{"a": "b"},
		Check: &api.AgentServiceCheck{TTL: "10m", DeregisterCriticalServiceAfter: "1h"},
	})
	if passing() != 0 || answers() != 0 {
		t.Error("given out before its check has passed")
	}
	if err := c.Agent().PassTTL("service:mf/1", "well"); err != nil {
		t.Fatal(err)
	}
	if passing() != 1 || answers() != 1 {
		t.Error("not given out though its check has passed")
	}
	if got := show(exchange(t, "udp", addr, question("old.mainframe.service.consul", wire.TypeSRV))); !strings.Contains(got, "SRV 1 1 3270 c0000207.addr.dc1.consul.") {
		t.Error(got)
	}
	if err := c.Agent().WarnTTL("service:mf/1", "tired"); err != nil {
		t.Fatal(err)
	}
	if passing() != 0 || answers() != 1 {
		t.Error("with a warning it is not passing, but DNS gives it out")
	}
	if err := c.Agent().FailTTL("service:mf/1", "dead"); err != nil {
		t.Fatal(err)
	}
	if answers() != 0 {
		t.Error("given out though critical")
	}
	checks, err := c.Agent().Checks()
	if err != nil || checks["service:mf/1"] == nil || checks["service:mf/1"].Status != "critical" || checks["service:mf/1"].Output != "dead" {
		t.Errorf("%v, %v", checks, err)
	}
	if err := c.Agent().UpdateTTL("service:mf/1", "again", api.HealthPassing); err != nil {
		t.Fatal(err)
	}
	// Registered again, as at each start of a client: what the check said stands.
	register(&api.AgentServiceRegistration{ID: "mf/1", Name: "mainframe", Address: "192.0.2.8", Check: &api.AgentServiceCheck{TTL: "10m"}})
	if passing() != 1 {
		t.Error("critical by being registered again")
	}
	if err := c.Agent().CheckRegister(&api.AgentCheckRegistration{
		ID: "disk", Name: "disk", ServiceID: "mf/1", AgentServiceCheck: api.AgentServiceCheck{TTL: "10m", Status: api.HealthCritical},
	}); err != nil {
		t.Fatal(err)
	}
	if passing() != 0 {
		t.Error("passing with a second check that is critical")
	}
	if err := c.Agent().CheckDeregister("disk"); err != nil {
		t.Fatal(err)
	}
	if passing() != 1 {
		t.Error("not passing without the second check")
	}
	services, err := c.Agent().Services()
	if err != nil || len(services) != 1 || services["mf/1"].Address != "192.0.2.8" {
		t.Errorf("%v, %v", services, err)
	}
	if got, _, err := c.Agent().Service("mf/1", nil); err != nil || got.Service != "mainframe" {
		t.Errorf("%v, %v", got, err)
	}
	if err := c.Agent().ServiceDeregister("mf/1"); err != nil {
		t.Fatal(err)
	}
	if err := c.Agent().ServiceDeregister("mf/1"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("deregistered twice: %v", err)
	}
	if passing() != 0 || answers() != 0 {
		t.Error("there after it was deregistered")
	}
}

func TestRegistrationsOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	s, _ := serve(t, dns.Options{Dir: dir}, shop())
	put(t, s, "/v1/agent/service/register", `{"Name":"a","Address":"192.0.2.1","Check":{"ttl":"30s","deregister_critical_service_after":"2m","Status":"passing"}}`, 200)
	put(t, s, "/v1/agent/service/register", `{"ID":"b1","Name":"b","Address":"host.example","Port":1,"Weights":{"Passing":7,"Warning":1}}`, 200)
	again, _ := serve(t, dns.Options{Dir: dir}, dns.Picture{})
	c := client(t, again)
	if got, _, err := c.Health().Service("a", "", true, nil); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if got, _, err := c.Catalog().Service("b", "", nil); err != nil || len(got) != 1 || got[0].ServiceWeights.Passing != 7 {
		t.Errorf("%v, %v", got, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "registered.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken, _ := serve(t, dns.Options{Dir: dir}, dns.Picture{})
	if p := broken.Picture(); len(p.Services) != 0 {
		t.Errorf("from a broken file: %v", p)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "registered.json.broken")); err != nil || string(b) != "{" {
		t.Errorf("set aside: %q, %v", b, err)
	}
}

// A service that cannot be kept is not taken: its client must know.
func TestNotKeptIsNotRegistered(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sub")
	s, _ := serve(t, dns.Options{Dir: dir}, dns.Picture{})
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	put(t, s, "/v1/agent/service/register", `{"Name":"a","Address":"192.0.2.1"}`, 500)
	if p := s.Picture(); len(p.Services) != 0 {
		t.Errorf("%v", p)
	}
}

func put(tb testing.TB, s *dns.Server, path, body string, want int) string {
	tb.Helper()
	r := httptest.NewRequest(http.MethodPut, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	s.Consul().ServeHTTP(w, r)
	text := strings.TrimSpace(w.Body.String())
	if w.Code != want {
		tb.Errorf("PUT %s %.100s: %d %s, not %d", path, body, w.Code, text, want)
	}
	return text
}

func TestRefusedRegistrations(t *testing.T) {
	s, _ := serve(t, dns.Options{Registrations: 2}, dns.Picture{})
	for _, c := range []struct{ body, want string }{
		{`{`, "Request decode failed: unexpected end of JSON input"},
		{`{}`, "Missing service name"},
		{`{"Name":"a/b"}`, `Invalid service name "a/b"`},
		{`{"Name":"a","Port":70000}`, "Invalid service port 70000"},
		{`{"Name":"a","Address":"a..b"}`, `Invalid service address "a..b"`},
		{`{"Name":"a","Kind":"connect-proxy"}`, "Tender has no service mesh: Kind, Connect and Proxy are not supported"},
		{`{"Name":"a","Check":{"HTTP":"http://x/","Interval":"1s"}}`, "Only TTL checks are supported: set TTL, and report with /v1/agent/check/pass/service:a"},
		{`{"Name":"a","Check":{}}`, "Invalid TTL 0s: a second to a year"},
		{`{"Name":"a","Check":{"TTL":"x"}}`, `Request decode failed: time: invalid duration "x"`},
		{`{"Name":"a","Checks":[{"TTL":"1m","CheckID":"c"},{"TTL":"1m","CheckID":"c"}]}`, `Check ID "c" is given twice`},
		{`{"Name":"a","Check":{"TTL":"1m","Status":"fine"}}`, `Invalid check status "fine"`},
	} {
		if got := put(t, s, "/v1/agent/service/register", c.body, 400); got != c.want {
			t.Errorf("%s: %s", c.body, got)
		}
	}
	put(t, s, "/v1/agent/service/register", `{"Name":"`+strings.Repeat("x", 70<<10)+`"}`, 413)
	put(t, s, "/v1/agent/service/register", `{"Name":"a"}`, 200)
	put(t, s, "/v1/agent/service/register", `{"Name":"b","Check":{"CheckID":"c","TTL":"1m"}}`, 200)
	put(t, s, "/v1/agent/service/register", `{"Name":"c"}`, 429)
	put(t, s, "/v1/agent/service/register", `{"Name":"a","Check":{"CheckID":"c","TTL":"1m"}}`, 400)
	put(t, s, "/v1/agent/check/register", `{"Name":"x","TTL":"1m"}`, 400)
	put(t, s, "/v1/agent/check/register", `{"Name":"x","TTL":"1m","ServiceID":"nope"}`, 404)
	put(t, s, "/v1/agent/check/pass/nope", "", 404)
	put(t, s, "/v1/agent/check/update/c", `{"Status":"fine"}`, 400)
	put(t, s, "/v1/agent/check/update/c", `{"Status":"passing"}`, 200)
	put(t, s, "/v1/catalog/services", "", 405)
	put(t, s, "/v1/txn", "", 501)
	if got := s.Picture(); len(got.Services) != 2 {
		t.Errorf("%v", got)
	}
}

// get asks without a connection, so that time can be faked around it.
func get(s *dns.Server, path string) (index uint64, v []map[string]any, status int) {
	w := httptest.NewRecorder()
	s.Consul().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	index, _ = strconv.ParseUint(w.Header().Get("X-Consul-Index"), 10, 64)
	_ = json.Unmarshal(w.Body.Bytes(), &v)
	return index, v, w.Code
}

func fresh(t *testing.T, o dns.Options) *dns.Server {
	t.Helper()
	o.NoForward = true
	s, err := dns.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBlockingQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t, dns.Options{})
		s.Set(shop())
		index, entries, _ := get(s, "/v1/health/service/shop-web?passing")
		if index == 0 || len(entries) != 2 {
			t.Fatalf("index %d, %v", index, entries)
		}
		type result struct {
			index   uint64
			entries int
			after   time.Duration
		}
		wait := func(query string) <-chan result {
			out := make(chan result, 1)
			start := time.Now()
			go func() {
				index, v, _ := get(s, fmt.Sprintf("/v1/health/service/shop-web?passing&index=%d&%s", index, query))
				out <- result{index, len(v), time.Since(start)}
			}()
			synctest.Wait()
			return out
		}
		none := func(c <-chan result, why string) {
			t.Helper()
			synctest.Wait()
			select {
			case r := <-c:
				t.Errorf("%s: answered %+v", why, r)
			default:
			}
		}

		// Nothing happens: after wait and at most a sixteenth more, with the same index.
		r := <-wait("wait=16s")
		if r.index != index || r.after < 16*time.Second || r.after > 17*time.Second+time.Millisecond {
			t.Errorf("nothing happened: %+v", r)
		}
		if r := <-wait(""); r.after < 5*time.Minute || r.after > 5*time.Minute+20*time.Second {
			t.Errorf("default: %+v", r)
		}
		if r := <-wait("wait=24h"); r.after < 10*time.Minute || r.after > 11*time.Minute {
			t.Errorf("the longest: %+v", r)
		}

		// Something else happens: not a word. Then to this one: at once.
		waiting := wait("wait=5m")
		p := shop()
		p.Services[1].Endpoints[0].Healthy = false
		s.Set(p)
		none(waiting, "another service changed")
		p = shop()
		p.Services[0].Endpoints = p.Services[0].Endpoints[:1]
		s.Set(p)
		r = <-waiting
		if r.index <= index || r.entries != 1 || r.after != 0 {
			t.Errorf("the service changed: %+v", r)
		}
		last := r.index

		// It goes, and comes back: the index never falls.
		index = last
		waiting = wait("wait=5m")
		s.Set(dns.Picture{})
		r = <-waiting
		if r.index <= last || r.entries != 0 {
			t.Errorf("the service has gone: %+v", r)
		}
		last, index = r.index, r.index
		waiting = wait("wait=5m")
		s.Set(shop())
		if r = <-waiting; r.index <= last || r.entries != 2 {
			t.Errorf("the service is back: %+v", r)
		}

		// An index from the future waits, as Consul does, and learns the true one.
		index = r.index + 1000
		if r := <-wait("wait=1s"); r.index >= index || r.after < time.Second {
			t.Errorf("from the future: %+v", r)
		}
		for _, q := range []string{"index=x", "index=-1", "index=1&wait=x", "index=1&wait=-1s", "passing=maybe", "filter=x"} {
			if _, _, status := get(s, "/v1/health/service/shop-web?"+q); status != 400 {
				t.Errorf("%s: %d", q, status)
			}
		}
	})
}

func TestListsHaveTheirOwnIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t, dns.Options{})
		s.Set(shop())
		services, _, _ := get(s, "/v1/catalog/services")
		nodes, _, _ := get(s, "/v1/catalog/nodes")
		p := shop()
		p.Services[0].Endpoints[0].Healthy = false
		s.Set(p)
		if now, _, _ := get(s, "/v1/catalog/services"); now != services {
			t.Error("the list of services changed by somebody's health")
		}
		if now, _, _ := get(s, "/v1/catalog/nodes"); now != nodes {
			t.Error("the list of nodes changed by somebody's health")
		}
		p = shop()
		p.Services[0].Tags = []string{"v3"}
		s.Set(p)
		if now, _, _ := get(s, "/v1/catalog/services"); now <= services {
			t.Error("the list of services did not change with a tag")
		}
		_, entries, _ := get(s, "/v1/catalog/service/postgres")
		if i := entries[0]["ModifyIndex"].(float64); uint64(i) != services {
			t.Errorf("an untouched entry was modified at %v", i)
		}
	})
}

func TestWaitersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t, dns.Options{Waiters: 2})
		s.Set(shop())
		index, _, _ := get(s, "/v1/catalog/nodes")
		path := fmt.Sprintf("/v1/catalog/nodes?index=%d&wait=1m", index)
		done := make(chan int, 2)
		for range 2 {
			go func() {
				_, _, status := get(s, path)
				done <- status
			}()
		}
		synctest.Wait()
		if n := s.Stats().Waiters; n != 2 {
			t.Errorf("%d wait", n)
		}
		if _, _, status := get(s, path); status != http.StatusTooManyRequests {
			t.Errorf("one too many: %d", status)
		}
		if first, second := <-done, <-done; first != 200 || second != 200 || s.Stats().Waiters != 0 {
			t.Error("those who waited were not answered")
		}
	})
}

func TestClientThatLeavesWaitsNoMore(t *testing.T) {
	s, _ := serve(t, dns.Options{}, shop())
	web := httptest.NewServer(s.Consul())
	defer web.Close()
	index, _ := s.Changed()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/v1/catalog/nodes?index=%d", web.URL, index+1), nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	failed := make(chan error, 1)
	go func() {
		res, err := (&http.Client{Transport: transport}).Do(r)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		failed <- err
	}()
	for s.Stats().Waiters == 0 {
		time.Sleep(time.Millisecond)
	}
	web.CloseClientConnections()
	for s.Stats().Waiters != 0 {
		time.Sleep(time.Millisecond)
	}
	if err := <-failed; err == nil {
		t.Error("answered")
	}
}

func TestChecksExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t, dns.Options{})
		done := make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() { done <- s.Run(ctx) }()
		status := func() string {
			_, v, _ := get(s, "/v1/health/service/a")
			if len(v) == 0 {
				return "gone"
			}
			return v[0]["Checks"].([]any)[0].(map[string]any)["Status"].(string)
		}
		expect := func(want, when string) {
			t.Helper()
			synctest.Wait()
			if got := status(); got != want {
				t.Errorf("%s: %s, not %s", when, got, want)
			}
		}
		put(t, s, "/v1/agent/service/register", `{"Name":"a","Check":{"TTL":"10s","DeregisterCriticalServiceAfter":"5s"}}`, 200)
		expect("critical", "at first")
		put(t, s, "/v1/agent/check/pass/service:a", "", 200)
		for range 5 {
			time.Sleep(8 * time.Second)
			expect("passing", "while it reports")
			put(t, s, "/v1/agent/check/pass/service:a?note=well", "", 200)
		}
		time.Sleep(10*time.Second + 100*time.Millisecond)
		expect("critical", "after its TTL")
		time.Sleep(55 * time.Second)
		expect("critical", "within the least time to removal")
		put(t, s, "/v1/agent/check/warn/service:a", "", 200)
		time.Sleep(9 * time.Second)
		expect("warning", "after a warning")
		time.Sleep(2 * time.Second)
		expect("critical", "after its TTL again")
		time.Sleep(time.Minute)
		expect("gone", "critical for too long")
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
