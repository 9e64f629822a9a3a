package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	tender "github.com/tenderhq/tender"
)

func TestMatching(t *testing.T) {
	var m routing
	for _, r := range []struct{ id, hosts, path string }{
		{"exact", "shop.example.com", "/"},
		{"exact orders", "shop.example.com", "/orders"},
		{"slash", "shop.example.com", "/files/"},
		{"wild", "*.example.com", "/"},
		{"deep wild", "*.eu.example.com", "/"},
		{"api anywhere", "", "/api"},
		{"two", "a.test,b.test", "/"},
	} {
		one := Route{ID: r.id, Path: r.path}
		if r.hosts != "" {
			one.Hosts = strings.Split(r.hosts, ",")
		}
		m.add(newRoute(one, newPool(newLedger(r.id, ""), nil, nil, ""), false))
	}
	m.sort()
	for _, c := range []struct{ host, uri, want string }{
		{"shop.example.com", "/", "exact"},
		{"SHOP.Example.com:8080", "/x", "exact"},
		{"shop.example.com.", "/x", "exact"},
		{"shop.example.com", "/orders", "exact orders"},
		{"shop.example.com", "/orders/7?x=/", "exact orders"},
		{"shop.example.com", "/ordersX", "exact"},
		{"shop.example.com", "/files/a", "slash"},
		{"shop.example.com", "/files", "exact"},
		{"shop.example.com", "/%6frders", "exact orders"},
		{"shop.example.com", "/a/../orders", "exact orders"},
		{"shop.example.com", "/a/%2e%2e/orders", "exact orders"},
		{"shop.example.com", "//orders", "exact orders"},
		{"shop.example.com", "/a/..%2forders", "exact orders"},
		{"www.example.com", "/", "wild"},
		{"example.com", "/", ""},
		{"a.eu.example.com", "/", "deep wild"},
		{"a.b.eu.example.com", "/", "deep wild"},
		{"elsewhere.com", "/api/x", "api anywhere"},
		{"elsewhere.com", "/", ""},
		{"b.test", "/", "two"},
		{"[::1]:80", "/api", "api anywhere"},
	} {
		r := httptest.NewRequest("GET", c.uri, nil)
		got := ""
		if one := m.match(hostOf(c.host), pathOf(r)); one != nil {
			got = one.ID
		}
		if got != c.want {
			t.Errorf("%s%s leads to %q, want %q", c.host, c.uri, got, c.want)
		}
	}
}

func TestTablesThatCannotBeServed(t *testing.T) {
	port := Port{ID: "p", Address: ":80", Protocol: "tcp"}
	for want, change := range map[string]func(*Table){
		`table has format 9, this edge knows 1`:                                 func(t *Table) { t.Format = 9 },
		`route "shop/web": path "x" does not begin with /`:                      func(t *Table) { t.Routes[0].Path = "x" },
		`route "shop/web": host "A.b" is not a lower case name`:                 func(t *Table) { t.Routes[0].Hosts = []string{"A.b"} },
		`route "shop/web": its id is empty or taken`:                            func(t *Table) { t.Routes = append(t.Routes, t.Routes[0]) },
		`route "other": / belongs to "shop/web"`:                                func(t *Table) { r := t.Routes[0]; r.ID = "other"; t.Routes = append(t.Routes, r) },
		`route "shop/web": balance "best" is not known`:                         func(t *Table) { t.Routes[0].Balance = "best" },
		`route "shop/web": tls "maybe" is not auto, internal or off`:            func(t *Table) { t.Routes[0].TLS = "maybe" },
		`route "shop/web": health: status "ok" is not like 200, 2xx or 200-399`: func(t *Table) { t.Routes[0].Health = &tender.RouteHealth{Status: "ok"} },
		`route "shop/web": header "X\nY" cannot be sent`:                        func(t *Table) { t.Routes[0].Headers = &tender.RouteHeaders{Request: map[string]string{"X\nY": "1"}} },
		`route "shop/web": header "content-length" is the proxy's own`: func(t *Table) {
			t.Routes[0].Headers = &tender.RouteHeaders{Response: map[string]string{"content-length": "1"}}
		},
		`route "shop/web": basic_auth: "ann" has no bcrypt hash`:            func(t *Table) { t.Routes[0].BasicAuth = map[string]string{"ann": "secret"} },
		`route "shop/web": rate_limit needs requests and a time`:            func(t *Table) { t.Routes[0].RateLimit = &tender.RateLimit{Requests: 5} },
		`route "shop/web": target "a1-nowhere" has no address: "nowhere"`:   func(t *Table) { t.Routes[0].Groups = []Group{share("a1", 1, "nowhere")} },
		`port "p": protocol "sctp" is neither tcp nor udp`:                  func(t *Table) { p := port; p.Protocol = "sctp"; t.Ports = []Port{p} },
		`port "q": :80/tcp belongs to "p"`:                                  func(t *Table) { p := port; p.ID = "q"; t.Ports = []Port{port, p} },
		`port "p": balance "hash:cookie:a" is not known for ports`:          func(t *Table) { p := port; p.Balance = "hash:cookie:a"; t.Ports = []Port{p} },
		`port "p": address "eighty" is not HOST:PORT`:                       func(t *Table) { p := port; p.Address = "eighty"; t.Ports = []Port{p} },
		`route "shop/web": a certificate needs both cert_file and key_file`: func(t *Table) { t.Routes[0].CertFile = "x" },
		`route "shop/web": a timeout cannot be negative`:                    func(t *Table) { t.Routes[0].Timeout.Total = -1 },
		`route "shop/web": protocol "spdy" is not http, h2c or https`:       func(t *Table) { t.Routes[0].Protocol = "spdy" },
		`route "shop/web": redirect: code 200 is not one of a redirect`:     func(t *Table) { t.Routes[0].Redirect = &tender.RouteRedirect{To: "/", Code: 200} },
	} {
		table := tableOf(to("127.0.0.1:1"))
		change(&table)
		if err := table.Validate(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	// The table that is served stays.
	e := serve(t, Options{}, tableOf(to(named(t, "a"))))
	if err := e.Set(tableOf(Route{ID: "x", Path: "x"})); tender.KindOf(err) != tender.Invalid {
		t.Errorf("got %v", err)
	}
	if status, body := e.get(t, "/"); status != 200 || body != "a" {
		t.Errorf("after a refused table: %d %q", status, body)
	}
}

// count asks n times and counts the answers.
func (r *running) count(t *testing.T, n int, headers ...string) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		_, body, _ := r.do(t, "GET", "/", nil, headers...)
		got[body]++
	}
	return got
}

func TestShares(t *testing.T) {
	a, b, c := named(t, "a"), named(t, "b"), named(t, "c")
	r := to(a)
	r.Groups = []Group{share("old", 950, a), share("new", 50, b), share("none", 0, c)}
	e := serve(t, Options{}, tableOf(r))
	if got := e.count(t, 200); got["a"] != 190 || got["b"] != 10 || got["c"] != 0 {
		t.Errorf("95 to 5: %v", got)
	}
	// Shares are exact over tables that do not change them.
	for range 10 {
		if err := e.Set(tableOf(r)); err != nil {
			t.Fatal(err)
		}
		if got := e.count(t, 2); got["c"] != 0 {
			t.Errorf("weight 0 got requests: %v", got)
		}
	}
	if n := e.target(b).Served.Requests; n != 11 {
		t.Errorf("5 %% of 220 were %d", n)
	}
	// A group that does not serve leaves its share to the others.
	r.Groups[0].Targets[0].Down = true
	if err := e.Set(tableOf(r)); err != nil {
		t.Fatal(err)
	}
	if got := e.count(t, 5); got["b"] != 5 {
		t.Errorf("with the other down: %v", got)
	}
}

func TestBalance(t *testing.T) {
	addr := []string{named(t, "a"), named(t, "b"), named(t, "c"), named(t, "d")}
	for _, c := range []struct {
		balance string
		headers []string
		check   func(map[string]int) bool
	}{
		{"", nil, func(m map[string]int) bool { return m["a"] == 10 && m["b"] == 10 && m["c"] == 10 && m["d"] == 10 }},
		{"least-conn", nil, func(m map[string]int) bool { return len(m) == 4 }},
		{"random-two", nil, func(m map[string]int) bool { return len(m) >= 3 }},
		{"hash:ip", nil, func(m map[string]int) bool { return len(m) == 1 }},
		{"hash:header:X-User", []string{"X-User", "ann"}, func(m map[string]int) bool { return len(m) == 1 }},
		{"hash:header:X-User", nil, func(m map[string]int) bool { return len(m) == 4 }},
		{"hash:cookie:user", []string{"Cookie", "user=ann"}, func(m map[string]int) bool { return len(m) == 1 }},
	} {
		r := to(addr...)
		r.Balance = c.balance
		e := serve(t, Options{}, tableOf(r))
		if got := e.count(t, 40, c.headers...); !c.check(got) {
			t.Errorf("%s %v: %v", c.balance, c.headers, got)
		}
	}
}

// Least-conn gives to who has least under way.
func TestLeastConn(t *testing.T) {
	p := newPool(newLedger("x", ""), nil, []Group{share("a", 1, "h:1", "h:2", "h:3")}, "least-conn")
	for _, x := range p.groups[0].targets {
		x.closed.Store(false)
	}
	var held []*target
	for range 9 {
		held = append(held, p.pick(pickKey{}))
	}
	for _, x := range p.groups[0].targets {
		if x.open.Load() != 3 {
			t.Errorf("%s has %d of 9", x.address, x.open.Load())
		}
	}
	held[4].end(&outcome{status: 200})
	if next := p.pick(pickKey{}); next != held[4] {
		t.Errorf("%s got the next, and %s had least", next.address, held[4].address)
	}
}

// With hash balance few clients move when a target goes, and as many as must when weights do.
func TestHashMovesFew(t *testing.T) {
	l := newLedger("x", "")
	addr := []string{"h:1", "h:2", "h:3", "h:4"}
	pool := func(groups ...Group) *pool {
		p := newPool(l, nil, groups, "hash:ip")
		for _, g := range p.groups {
			for _, x := range g.targets {
				x.closed.Store(false)
			}
		}
		return p
	}
	four, three := pool(share("a", 1, addr...)), pool(share("a", 1, addr[:3]...))
	light, heavy := pool(share("a", 95, "h:1"), share("b", 5, "h:2")), pool(share("a", 80, "h:1"), share("b", 20, "h:2"))
	moved, shifted, back, b := 0, 0, 0, 0
	const n = 20_000
	for i := range n {
		k := pickKey{hash: keyOfIP(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))}
		x, y := four.pick(k), three.pick(k)
		if x.address != "h:4" && x != y {
			moved++
		}
		p, q := light.pick(k), heavy.pick(k)
		if p.address == "h:2" && q.address == "h:1" {
			back++
		}
		if p != q {
			shifted++
		}
		if q.address == "h:2" {
			b++
		}
	}
	if moved > 0 {
		t.Errorf("%d moved that need not", moved)
	}
	if back > 0 || shifted < n*13/100 || shifted > n*17/100 || b < n*18/100 || b > n*22/100 {
		t.Errorf("from 5 to 20 %%: %d moved, %d of them back; %d of %d are there", shifted, back, b, n)
	}
}

func TestSticky(t *testing.T) {
	a, b, c := named(t, "a"), named(t, "b"), named(t, "c")
	r := to(a)
	r.Sticky = true
	r.Groups = []Group{share("old", 50, a, b), share("new", 50, c)}
	e := serve(t, Options{}, tableOf(r))
	_, first, h := e.do(t, "GET", "/", nil)
	cookie, _, _ := strings.Cut(h.Get("Set-Cookie"), ";")
	if cookie == "" {
		t.Fatal("no cookie")
	}
	for range 10 {
		_, body, h := e.do(t, "GET", "/", nil, "Cookie", "x=1; "+cookie)
		if body != first || h.Get("Set-Cookie") != "" {
			t.Fatalf("%q after %q, cookie %q", body, first, h.Get("Set-Cookie"))
		}
	}
	// With weight 0 what sticks stays, and nobody else comes.
	r.Groups[0].Weight = 0
	if first == "c" {
		r.Groups[0].Weight, r.Groups[1].Weight = 50, 0
	}
	if err := e.Set(tableOf(r)); err != nil {
		t.Fatal(err)
	}
	if _, body, _ := e.do(t, "GET", "/", nil, "Cookie", cookie); body != first {
		t.Errorf("%q lost it to %q", first, body)
	}
	if got := e.count(t, 6); got[first] != 0 {
		t.Errorf("weight 0 got strangers: %v", got)
	}
	// Leaving: another takes over, of the same revision if there is one.
	for i := range r.Groups {
		for j := range r.Groups[i].Targets {
			if addr := r.Groups[i].Targets[j].Address; addr == map[string]string{"a": a, "b": b, "c": c}[first] {
				r.Groups[i].Targets[j].Leaving = true
			}
		}
	}
	if err := e.Set(tableOf(r)); err != nil {
		t.Fatal(err)
	}
	_, body, h := e.do(t, "GET", "/", nil, "Cookie", cookie)
	want := map[string]string{"a": "b", "b": "a"}[first]
	if body == first || want != "" && body != want || h.Get("Set-Cookie") == "" {
		t.Errorf("%q left and %q took over, cookie %q", first, body, h.Get("Set-Cookie"))
	}
}

func TestRetries(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		// One refuses, one breaks each connection without a word, one is well.
		var served atomic.Int64
		r := to(nowhere(t), scripted(t, "", true), backend(t, func(w http.ResponseWriter, r *http.Request) {
			served.Add(1)
			io.WriteString(w, "well")
		}))
		r.Retries = 2
		e := serve(t, o, tableOf(r))
		for i := range 20 {
			if status, body := e.get(t, "/"); status != 200 || body != "well" {
				t.Fatalf("%d: %d %q", i, status, body)
			}
		}
		if s := e.Report().Routes[0].Served; s.Requests != 20 || s.Failed != 0 || served.Load() != 20 {
			t.Errorf("counted %+v, served %d", s, served.Load())
		}
	})
}

// What is not safe to repeat is not repeated, unless nothing was sent.
func TestDoesNotRepeat(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		var tried atomic.Int64
		broken := backend(t, func(w http.ResponseWriter, r *http.Request) {
			tried.Add(1)
			panic(http.ErrAbortHandler)
		})
		e := serve(t, o, tableOf(to(broken, broken)))
		if status, _, _ := e.do(t, "POST", "/", strings.NewReader("order")); status != 502 || tried.Load() != 1 {
			t.Errorf("broken: %d after %d tries", status, tried.Load())
		}
		if err := e.Set(tableOf(to(nowhere(t), named(t, "well")))); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			if status, body, _ := e.do(t, "POST", "/", strings.NewReader("order")); status != 200 || body != "well" {
				t.Errorf("refused: %d %q", status, body)
			}
		}
		r := to(nowhere(t), named(t, "well"))
		r.Retries = -1
		if err := e.Set(tableOf(r)); err != nil {
			t.Fatal(err)
		}
		failed := 0
		for range 2 {
			if status, _ := e.get(t, "/"); status == 502 {
				failed++
			}
		}
		if failed != 1 {
			t.Errorf("without retries %d of 2 failed", failed)
		}
	})
}

// A failing target is left out for a while, but never the last one.
func TestEjection(t *testing.T) {
	bad := nowhere(t)
	e := serve(t, Options{}, tableOf(to(bad, named(t, "well"))))
	var got TargetReport
	until(t, "it is left out", func() bool { // for a second, which a slow machine may miss
		e.count(t, 2)
		got = e.target(bad)
		return got.State == "ejected"
	})
	if got.Reason != "connection refused" || got.Served.Requests != 0 {
		t.Errorf("reported %+v", got)
	}
	only := to(bad)
	if err := e.Set(tableOf(only)); err != nil {
		t.Fatal(err)
	}
	if status, _ := e.get(t, "/"); status != 502 {
		t.Errorf("the last one: %d", status)
	}
	if s := e.Report().Routes[0]; s.Served.Failed != 1 {
		t.Errorf("counted %+v", s.Served)
	}
}

// A target that is away for a moment is waited for, since nothing was sent.
func TestWaitsForTheOnlyTarget(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		addr := nowhere(t)
		e := serve(t, o, tableOf(to(addr)))
		for tried := false; !tried; {
			got := make(chan int, 1)
			go func() {
				a, err := e.client.Get(e.url)
				if err != nil {
					got <- 0
					return
				}
				a.Body.Close()
				got <- a.StatusCode
			}()
			until(t, "it was tried", func() bool { return e.target(addr).State == "ejected" || len(got) > 0 })
			// A machine may be too slow for the second of patience; then it is tried again.
			table := to(named(t, "back"))
			if err := e.Set(tableOf(table)); err != nil {
				t.Fatal(err)
			}
			switch status := <-got; status {
			case 200:
				tried = true
			case 502:
				if err := e.Set(tableOf(to(addr))); err != nil {
					t.Fatal(err)
				}
			default:
				t.Fatalf("got %d", status)
			}
		}
	})
}

func TestHealth(t *testing.T) {
	var sick atomic.Bool
	var checks atomic.Int64
	app := func(name string) string {
		return backend(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/health" {
				io.WriteString(w, name)
				return
			}
			checks.Add(1)
			if r.Host != "shop.test" || r.Method != "HEAD" {
				w.WriteHeader(400)
			} else if name == "a" && sick.Load() {
				w.WriteHeader(503)
			}
		})
	}
	a, b := app("a"), app("b")
	r := to(a, b)
	r.Health = &tender.RouteHealth{Path: "/health", Method: "HEAD", Host: "shop.test", Interval: 20 * time.Millisecond, Timeout: 10 * time.Second, Up: 2, Down: 2}
	e := serve(t, Options{}, tableOf(r))
	until(t, "both are checked", func() bool { return len(e.target(a).Checks) >= 2 && len(e.target(b).Checks) >= 2 })
	if got := e.count(t, 10); got["a"] != 5 {
		t.Errorf("both well: %v", got)
	}
	sick.Store(true)
	until(t, "a is out", func() bool { return e.target(a).State == "down" })
	if got := e.target(a); got.Reason != "503 Service Unavailable" {
		t.Errorf("reported %+v", got)
	}
	if got := e.count(t, 10); got["b"] != 10 {
		t.Errorf("a sick: %v", got)
	}
	sick.Store(false)
	until(t, "a is back", func() bool { return e.target(a).State == "up" })
	if got := e.target(a); len(got.Checks) > 10 || !got.Checks[len(got.Checks)-1].OK {
		t.Errorf("checks %+v", got.Checks)
	}

	// Who joins proves itself first; requests wait meanwhile.
	sick.Store(true)
	late := app("a")
	r.Groups = []Group{share("a2", 1, late)}
	if err := e.Set(tableOf(r)); err != nil {
		t.Fatal(err)
	}
	until(t, "the newcomer is checked", func() bool { return len(e.target(late).Checks) > 0 })
	if got := e.target(late); got.State != "down" {
		t.Errorf("newcomer %+v", got)
	}
	got := make(chan string, 1)
	go func() {
		a, err := e.client.Get(e.url)
		if err != nil {
			got <- err.Error()
			return
		}
		defer a.Body.Close()
		body, _ := io.ReadAll(a.Body)
		got <- string(body)
	}()
	until(t, "one waits", func() bool { return e.Report().Routes[0].Waiting == 1 })
	sick.Store(false)
	if body := <-got; body != "a" {
		t.Errorf("got %q", body)
	}
	// Checks end with the target.
	if err := e.Set(tableOf(to(named(t, "other")))); err != nil {
		t.Fatal(err)
	}
}

func TestPause(t *testing.T) {
	r := to(named(t, "a"))
	r.Paused = true
	e := serve(t, Options{}, tableOf(r))
	got := make(chan string, 3)
	for range 3 {
		go func() {
			a, err := e.client.Get(e.url)
			if err != nil {
				got <- err.Error()
				return
			}
			defer a.Body.Close()
			body, _ := io.ReadAll(a.Body)
			got <- string(body)
		}()
	}
	until(t, "three wait", func() bool { return e.Report().Routes[0].Waiting == 3 })
	r.Paused = false
	if err := e.Set(tableOf(r)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if body := <-got; body != "a" {
			t.Errorf("got %q", body)
		}
	}
	// A limit to how many wait.
	e.table.Load().routes.all["shop/web"].waiting.Add(waitingMax)
	r.Paused = true
	if err := e.Set(tableOf(r)); err != nil {
		t.Fatal(err)
	}
	if status, _ := e.get(t, "/"); status != 503 {
		t.Errorf("one more than may wait: %d", status)
	}
	e.table.Load().routes.all["shop/web"].waiting.Add(-waitingMax)
	// A limit to patience.
	r.Paused, r.Timeout.Queue = true, 10*time.Millisecond
	if err := e.Set(tableOf(r)); err != nil {
		t.Fatal(err)
	}
	if status, _, h := e.do(t, "GET", "/", nil); status != 503 || h.Get("Retry-After") == "" {
		t.Errorf("paused for long: %d %v", status, h)
	}
	if s := e.Report().Routes[0].Served; s.Failed != 2 || s.Requests != 5 {
		t.Errorf("counted %+v", s)
	}
}

func TestOptions(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("open"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	app := backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "secret/1.0")
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Etag", `"1"`)
		io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s prefix=%s set=%s gone=%s host=%s ", r.RequestURI, r.Header.Get("X-Forwarded-Prefix"), r.Header.Get("X-Set"), r.Header.Get("X-Gone"), r.Host)
		io.WriteString(w, strings.Repeat("text ", 200))
	})
	var routes []Route
	add := func(path string, change func(*Route)) {
		r := to(app)
		r.ID, r.Path, r.Hosts = path, path, []string{"shop.test"}
		change(&r)
		routes = append(routes, r)
	}
	add("/strip", func(r *Route) { r.StripPrefix = true })
	add("/headers", func(r *Route) {
		r.Headers = &tender.RouteHeaders{
			Request:  map[string]string{"x-set": "yes", "x-gone": "", "host": "inside"},
			Response: map[string]string{"server": "", "x-new": "1"},
		}
	})
	add("/redirect", func(r *Route) { r.Redirect = &tender.RouteRedirect{To: "https://{host}/new{path}?{query}"} })
	add("/auth", func(r *Route) { r.BasicAuth = map[string]string{"ann": string(hash)} })
	add("/allow", func(r *Route) { r.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	add("/rate", func(r *Route) { r.RateLimit = &tender.RateLimit{Requests: 2, Per: time.Hour} })
	add("/body", func(r *Route) { r.MaxBody = 20_000 })
	add("/zip", func(r *Route) { r.Compress = true })
	add("/down", func(r *Route) { r.Maintenance = "Back at nine." })
	add("/page", func(r *Route) {
		r.Groups = []Group{share("x", 1, nowhere(t))}
		r.Retries, r.ErrorPage = -1, "<h1>{{.Status}} {{.Text}}</h1>"
	})
	both(t, func(t *testing.T, o Options) {
		e := serve(t, o, tableOf(routes...))
		type answer struct {
			status int
			body   string
			header http.Header
		}
		do := func(method, path string, body io.Reader, headers ...string) answer {
			t.Helper()
			status, text, h := e.do(t, method, path, body, append(headers, "Host", "shop.test")...)
			return answer{status, text, h}
		}
		for path, want := range map[string]string{
			"/strip":              "/ prefix=/strip",
			"/strip/a/b?c=/strip": "/a/b?c=/strip prefix=/strip",
			"/strip/a%2Fb":        "/a%2Fb prefix=/strip",
			"/%73trip/a":          "/a prefix=/strip",
			"/x/../strip/a":       "/a prefix=/strip",
			"/strip//a":           "/a prefix=/strip",
		} {
			if a := do("GET", path, nil); a.status != 200 || !strings.HasPrefix(a.body, want+" ") {
				t.Errorf("%s: %d %.40q", path, a.status, a.body)
			}
		}
		if a := do("GET", "/headers", nil, "X-Gone", "1", "X-Set", "no"); !strings.Contains(a.body, "set=yes gone= host=inside ") || a.header.Get("Server") != "" || a.header.Get("X-New") != "1" {
			t.Errorf("headers: %.80q %v", a.body, a.header)
		}
		if a := do("GET", "/redirect/a?b=c", nil); a.status != 308 || a.header.Get("Location") != "https://shop.test/new/redirect/a?b=c" {
			t.Errorf("redirect: %d %v", a.status, a.header)
		}
		if a := do("GET", "/auth", nil); a.status != 401 || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("no password: %d", a.status)
		}
		for user, want := range map[string]int{"ann:open": 200, "ann:shut": 401, "bob:open": 401} {
			r, _ := http.NewRequestWithContext(t.Context(), "GET", e.url+"/auth", nil)
			r.Host = "shop.test"
			name, password, _ := strings.Cut(user, ":")
			r.SetBasicAuth(name, password)
			for range 2 {
				a, err := e.client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, a.Body)
				a.Body.Close()
				if a.StatusCode != want {
					t.Errorf("%s: %d", user, a.StatusCode)
				}
			}
		}
		if a := do("GET", "/allow", nil, "X-Forwarded-For", "10.1.1.1"); a.status != 403 {
			t.Errorf("allow: %d", a.status)
		}
		for i, want := range []int{200, 200, 429} {
			if a := do("GET", "/rate", nil); a.status != want {
				t.Errorf("request %d: %d", i+1, a.status)
			}
		}
		for _, c := range []struct {
			n       int
			chunked bool
			want    int
		}{{20_000, false, 200}, {20_001, false, 413}, {20_000, true, 200}, {200_000, true, 413}} {
			var body io.Reader = bytes.NewReader(make([]byte, c.n))
			if c.chunked {
				body = io.MultiReader(body)
			}
			if a := do("POST", "/body", body); a.status != c.want {
				t.Errorf("body of %d, chunked %v: %d", c.n, c.chunked, a.status)
			}
		}
		a := do("GET", "/zip", nil, "Accept-Encoding", "br, gzip;q=0.5")
		z, err := gzip.NewReader(strings.NewReader(a.body))
		if err != nil || a.header.Get("Content-Encoding") != "gzip" || a.header.Get("Etag") != `W/"1"` || a.header.Get("Vary") != "Accept-Encoding" {
			t.Fatalf("zip: %v %v", err, a.header)
		}
		if text, err := io.ReadAll(z); err != nil || !strings.HasPrefix(string(text), "/zip ") || len(text) < 1000 || len(a.body) > 500 {
			t.Errorf("zip: %v %.30q", err, text)
		}
		for _, takes := range []string{"", "br", "gzip;q=0"} {
			if a := do("GET", "/zip", nil, "Accept-Encoding", takes); a.header.Get("Content-Encoding") != "" {
				t.Errorf("%q got %v", takes, a.header)
			}
		}
		if a := do("GET", "/down", nil); a.status != 503 || a.body != "503 Back at nine.\n" {
			t.Errorf("maintenance: %d %q", a.status, a.body)
		}
		if a := do("GET", "/page", nil); a.status != 502 || a.body != "<h1>502 Bad Gateway</h1>" {
			t.Errorf("page: %d %q", a.status, a.body)
		}
		if a := do("GET", "/elsewhere", nil); a.status != 404 {
			t.Errorf("no route: %d", a.status)
		}
	})
}

// Who connects may say for whom only if it is trusted.
func TestForwarded(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		app := backend(t, func(w http.ResponseWriter, r *http.Request) {
			for _, k := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "Forwarded", "X-Real-Ip", "X_Forwarded_For", "Te", "Keep-Alive", "X-Private", "Proxy-Connection", "Upgrade"} {
				for _, v := range r.Header.Values(k) {
					fmt.Fprintf(w, "%s=%s;", k, v)
				}
			}
		})
		headers := []string{
			"Host", "a.test:8080", "X-Forwarded-For", "1.1.1.1, 2.2.2.2", "X-Forwarded-Proto", "https", "Forwarded", "for=3.3.3.3", "X-Real-IP", "4.4.4.4", "X_Forwarded_For", "5.5.5.5",
			"TE", "trailers, deflate", "Connection", "X-Private, TE", "X-Private", "1", "Keep-Alive", "5", "Proxy-Connection", "keep-alive", "Upgrade", "h2c",
		}
		e := serve(t, o, tableOf(to(app)))
		_, got, _ := e.do(t, "GET", "/", nil, headers...)
		if want := "X-Forwarded-For=127.0.0.1;X-Forwarded-Proto=http;X-Forwarded-Host=a.test:8080;X-Forwarded-Port=8080;Te=trailers;"; got != want {
			t.Errorf("from a stranger\n%s\n%s", got, want)
		}
		table := tableOf(to(app))
		table.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		if err := e.Set(table); err != nil {
			t.Fatal(err)
		}
		_, got, _ = e.do(t, "GET", "/", nil, headers...)
		if want := "X-Forwarded-For=1.1.1.1, 2.2.2.2, 127.0.0.1;X-Forwarded-Proto=https;X-Forwarded-Host=a.test:8080;X-Forwarded-Port=8080;Forwarded=for=3.3.3.3, for=127.0.0.1;X-Real-Ip=4.4.4.4;X_Forwarded_For=5.5.5.5;Te=trailers;"; got != want {
			t.Errorf("from a trusted proxy\n%s\n%s", got, want)
		}
	})
	trusted := trust{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct{ peer, header, value, want string }{
		{"9.9.9.9", "X-Forwarded-For", "1.1.1.1", "9.9.9.9"},
		{"10.0.0.1", "X-Forwarded-For", "1.1.1.1", "1.1.1.1"},
		{"10.0.0.1", "X-Forwarded-For", "6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"},
		{"10.0.0.1", "X-Forwarded-For", "1.1.1.1, nonsense, 10.0.0.2", "10.0.0.2"},
		{"10.0.0.1", "X-Forwarded-For", "[2001:db8::1]:443", "2001:db8::1"},
		{"10.0.0.1", "Forwarded", `for=1.1.1.1;proto=https, for="[2001:db8::2]:80"`, "2001:db8::2"},
		{"10.0.0.1", "Forwarded", `for=_hidden`, "10.0.0.1"},
		{"10.0.0.1", "X-Other", "x", "10.0.0.1"},
	} {
		if got := trusted.client(netip.MustParseAddr(c.peer), http.Header{c.header: {c.value}}).String(); got != c.want {
			t.Errorf("%s %s: %s is %s, want %s", c.peer, c.header, c.value, got, c.want)
		}
	}
}

// HTTP/2 in front, with and without TLS to the targets, and trailers, as gRPC needs them.
func TestHTTP2(t *testing.T) {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("X-Proto", r.Proto+" "+r.Header.Get("Te"))
		w.(http.Flusher).Flush()
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			w.Write(b[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	}))
	app.Config.Protocols = p
	app.Start()
	t.Cleanup(app.Close)
	secret := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, r.TLS != nil) }))
	secret.EnableHTTP2 = true
	secret.StartTLS()
	t.Cleanup(secret.Close)

	grpc := to(app.Listener.Addr().String())
	grpc.Protocol = "h2c"
	inside := to(secret.Listener.Addr().String())
	inside.ID, inside.Path, inside.Protocol = "inside", "/inside", "https"
	plain := to(named(t, "plain"))
	plain.ID, plain.Path = "plain", "/plain"
	e := serve(t, Options{Drain: 5 * time.Second}, tableOf(grpc, inside, plain))

	transport := &http.Transport{Protocols: p}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	out, body := io.Pipe()
	r, _ := http.NewRequestWithContext(t.Context(), "POST", e.url+"/svc/Call", out)
	r.Header.Set("Te", "trailers")
	a, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if a.ProtoMajor != 2 || a.Header.Get("X-Proto") != "HTTP/2.0 trailers" {
		t.Errorf("%s in front, %s behind", a.Proto, a.Header.Get("X-Proto"))
	}
	for range 3 {
		io.WriteString(body, "ping")
		got := make([]byte, 4)
		if _, err := io.ReadFull(a.Body, got); err != nil || string(got) != "ping" {
			t.Fatalf("got %q %v", got, err)
		}
	}
	body.Close()
	if _, err := io.ReadAll(a.Body); err != nil || a.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("in the end %v %v", err, a.Trailer)
	}
	a.Body.Close()
	for path, want := range map[string]string{"/inside": "HTTP/2.0true", "/plain": "plain"} {
		a, err := client.Get(e.url + path)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(a.Body)
		a.Body.Close()
		if string(got) != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// Ask reaches a revision that gets nothing, through whatever keeps others out, and leaves no trace.
func TestAsk(t *testing.T) {
	r := to(named(t, "old"))
	r.Hosts, r.Paused = []string{"shop.test"}, true
	r.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	r.Groups = append(r.Groups, share("new", 0, backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(201)
		io.WriteString(w, r.Host+r.URL.Path)
	})))
	e := serve(t, Options{}, tableOf(r))
	ask := func(route, revision string) (*http.Response, error) {
		q, _ := http.NewRequestWithContext(t.Context(), "GET", "/ready", nil)
		return e.Ask(t.Context(), route, revision, q)
	}
	a, err := ask("shop/web", "new")
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(a.Body); a.StatusCode != 201 || string(body) != "shop.test/ready" {
		t.Errorf("got %d %q", a.StatusCode, body)
	}
	for _, c := range [][2]string{{"shop/web", "none"}, {"other", "new"}} {
		if _, err := ask(c[0], c[1]); tender.KindOf(err) != tender.NotFound {
			t.Errorf("%v: %v", c, err)
		}
	}
	if s := e.Report().Routes[0].Served; s.Requests != 0 {
		t.Errorf("counted %+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q, _ := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
	if _, err := e.Ask(ctx, "shop/web", "new", q); err == nil {
		t.Error("asked although its context has ended")
	}
}

func TestMetrics(t *testing.T) {
	e := serve(t, Options{}, tableOf(to(named(t, "a"))))
	e.count(t, 3)
	e.do(t, "GET", "/", nil)
	var b bytes.Buffer
	e.Metrics(&b)
	l := `project="shop",route="shop/web",aim="web",service="web",revision="a1",instance="web-1"`
	for _, want := range []string{
		"tender_edge_requests_total{" + l + `,code_class="2xx"} 4`,
		"tender_edge_open{" + l + "} 0",
		"tender_edge_up{" + l + "} 1",
		"tender_edge_duration_seconds_count{" + l + "} 4",
		`tender_edge_waiting{project="shop",route="shop/web"} 0`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

// Rules and boards ask by service; what lies outside is none.
func TestWhatIsAService(t *testing.T) {
	for aim, want := range map[string]string{"web": "web", "": "", "http://10.0.0.8:8081": ""} {
		if got := serviceOf(aim); got != want {
			t.Errorf("%q is %q, not %q", aim, got, want)
		}
	}
}

// An instance that came back with another address wrote each series twice, which Prometheus refuses whole.
func TestMetricsSayASeriesOnce(t *testing.T) {
	e := serve(t, Options{}, tableOf(to(named(t, "a"))))
	e.count(t, 3)
	if err := e.Set(tableOf(to(named(t, "b")))); err != nil {
		t.Fatal(err)
	}
	e.count(t, 2)
	var b bytes.Buffer
	e.Metrics(&b)
	said := map[string]bool{}
	for line := range strings.Lines(b.String()) {
		series := line[:strings.LastIndexByte(line, ' ')]
		if said[series] && !strings.HasPrefix(line, "#") {
			t.Errorf("twice: %s", series)
		}
		said[series] = true
	}
	l := `project="shop",route="shop/web",aim="web",service="web",revision="a1",instance="web-1"`
	for _, want := range []string{"tender_edge_requests_total{" + l + `,code_class="2xx"} 5`, "tender_edge_up{" + l + "} 1"} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

// Who is sent on to https came to its usual port, whichever one is listened on.
func TestRedirectsToThePortOfHTTPS(t *testing.T) {
	for _, c := range []struct{ listen, host, forwarded, want string }{
		{":8443", "shop.test:8080", "", "https://shop.test:8443/a?b=c"},
		{"[::]:8443", "[2001:db8::1]:8080", "", "https://[2001:db8::1]:8443/a?b=c"},
		{":443", "shop.test", "", "https://shop.test/a?b=c"},
		{":8443", "shop.test", "http", "https://shop.test/a?b=c"}, // a proxy in front has the port that clients know
	} {
		s, err := New(Options{Dir: t.TempDir(), HTTPS: []string{c.listen}})
		if err != nil {
			t.Fatal(err)
		}
		r := to("127.0.0.1:1")
		r.TLS = "internal"
		table := tableOf(r)
		q := httptest.NewRequest("GET", "/a?b=c", nil)
		q.Host = c.host
		if c.forwarded != "" {
			q.Header.Set("X-Forwarded-Proto", c.forwarded)
			table.Trusted = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
		}
		if err := s.Set(table); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, q)
		if got := w.Header().Get("Location"); w.Code != 308 || got != c.want {
			t.Errorf("%s by %s: %d %s, want %s", c.host, c.listen, w.Code, got, c.want)
		}
	}
}

// A target that is gone stays in the report for ten minutes and in the sum for ever.
func TestGoneTargets(t *testing.T) {
	now := time.Now()
	l := newLedger("x", "")
	g := share("a", 1, "h:1")
	x := l.target(g, g.Targets[0])
	x.serve(g, g.Targets[0], now)
	x.begin()
	x.end(&outcome{status: 200})
	x.leave(now)
	if l.forget(now.Add(keepGone - 1)) {
		t.Error("forgotten early")
	}
	if r := l.report(now); r.Targets[0].State != "gone" || r.Served.Requests != 1 {
		t.Errorf("reported %+v", r)
	}
	if !l.forget(now.Add(keepGone)) {
		t.Error("not forgotten")
	}
	if r := l.report(now); len(r.Targets) != 0 || r.Served.Requests != 1 {
		t.Errorf("reported %+v", r)
	}
	for i := range 2 * goneAtMax {
		g := share("a", 1, fmt.Sprintf("h:%d", i))
		l.target(g, g.Targets[0]).leave(now)
	}
	l.forget(now)
	if len(l.targets) != goneAtMax {
		t.Errorf("%d are kept", len(l.targets))
	}
}

// Once a report says the version in which a target leaves, and that nothing is
// under way on it, nothing will reach it any more: it can be stopped. Clients
// keep their connections and lose nothing.
func TestDrainLosesNothing(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		type app struct {
			addr    string
			stopped atomic.Bool
			late    atomic.Int64
		}
		apps := make([]*app, 2)
		for i := range apps {
			a := new(app)
			a.addr = backend(t, func(w http.ResponseWriter, r *http.Request) {
				if a.stopped.Load() {
					a.late.Add(1)
				}
				io.Copy(io.Discard, r.Body)
				io.WriteString(w, "ok")
			})
			apps[i] = a
		}
		table := func(leaving int) Table {
			r := to(apps[0].addr, apps[1].addr)
			if leaving >= 0 {
				r.Groups[0].Targets[leaving].Leaving = true
			}
			return tableOf(r)
		}
		e := serve(t, o, table(-1))
		ctx, stop := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		var lost, asked atomic.Int64
		for i := range 8 {
			clients.Go(func() {
				transport := &http.Transport{}
				defer transport.CloseIdleConnections()
				client := &http.Client{Transport: transport}
				for ctx.Err() == nil {
					var body io.Reader
					method := "GET"
					if i%2 == 1 {
						method, body = "POST", strings.NewReader("x")
					}
					r, _ := http.NewRequest(method, e.url, body)
					a, err := client.Do(r)
					if err != nil {
						lost.Add(1)
						t.Errorf("lost: %v", err)
						return
					}
					io.Copy(io.Discard, a.Body)
					a.Body.Close()
					asked.Add(1)
					if a.StatusCode != 200 {
						lost.Add(1)
					}
				}
			})
		}
		for round := range 12 {
			i := round % 2
			next := table(i)
			if err := e.Set(next); err != nil {
				t.Fatal(err)
			}
			until(t, "it is empty", func() bool {
				r := e.Report()
				if r.Version != next.Version {
					return false
				}
				for _, one := range r.Routes[0].Targets {
					if one.Address == apps[i].addr {
						return one.Open == 0 && one.State == "leaving"
					}
				}
				return false
			})
			apps[i].stopped.Store(true)
			before := asked.Load()
			until(t, "others are served", func() bool { return asked.Load() > before+10 || lost.Load() > 0 })
			apps[i].stopped.Store(false)
			if err := e.Set(table(-1)); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		clients.Wait()
		for i, a := range apps {
			if n := a.late.Load(); n > 0 {
				t.Errorf("%d requests came to target %d after it was empty", n, i)
			}
		}
		if n := lost.Load(); n > 0 {
			t.Errorf("%d of %d lost", n, asked.Load())
		}
		if s := e.Report().Routes[0].Served; s.Failed != 0 || int64(s.Requests) != asked.Load() {
			t.Errorf("counted %d, failed %d, clients had %d", s.Requests, s.Failed, asked.Load())
		}
	})
}

// When Run is told to end, what is under way ends well and nothing new comes.
func TestRunDrains(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		come, leave := make(chan struct{}), make(chan struct{})
		e := serve(t, o, tableOf(to(backend(t, func(w http.ResponseWriter, r *http.Request) {
			close(come)
			<-leave
			io.WriteString(w, "done")
		}))))
		client := e.dial(t)
		client.say(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		<-come
		ended := make(chan error, 1)
		go func() { ended <- e.stop() }()
		until(t, "nobody is let in", func() bool {
			c, err := http.Get(e.url + "/new")
			if err == nil {
				c.Body.Close()
			}
			return err != nil
		})
		select {
		case err := <-ended:
			t.Fatalf("ended with a request under way: %v", err)
		default:
		}
		close(leave)
		if a, body := client.answer(t, "GET"); a.StatusCode != 200 || body != "done" {
			t.Errorf("got %d %q", a.StatusCode, body)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
