package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// running is a Server that serves on 127.0.0.1.
type running struct {
	*Server
	url, addr string
	secure    string // address of https
	client    *http.Client
	stop      func() error // ends Run and waits for it
}

func serve(t testing.TB, o Options, table Table) *running {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	o.HTTP = []string{"127.0.0.1:0"}
	listening, secure := make(chan string, 8), make(chan string, 8)
	o.Listen = func(ctx context.Context, network, address string) (net.Listener, error) {
		var c net.ListenConfig
		l, err := c.Listen(ctx, network, address)
		if err == nil && address == o.HTTP[0] {
			listening <- l.Addr().String()
		} else if err == nil {
			secure <- l.Addr().String()
		}
		return l, err
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set(table); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r := &running{Server: s, addr: <-listening}
	if len(o.HTTPS) > 0 {
		r.secure = <-secure
	}
	r.url = "http://" + r.addr
	transport := &http.Transport{DisableCompression: true}
	r.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var once sync.Once
	var ended error
	r.stop = func() error {
		once.Do(func() {
			transport.CloseIdleConnections()
			cancel()
			ended = <-done
		})
		return ended
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// both runs a test with each of the two client paths, and with the standard library's front.
func both(t *testing.T, f func(t *testing.T, o Options)) {
	t.Run("own", func(t *testing.T) { f(t, Options{Drain: 5 * time.Second}) })
	t.Run("std", func(t *testing.T) { f(t, Options{Std: true, Drain: 5 * time.Second}) })
	t.Run("front", func(t *testing.T) { f(t, Options{StdFront: true, Drain: 5 * time.Second}) })
}

// version makes the tables of a test grow.
var version struct {
	sync.Mutex
	n uint64
}

func tableOf(routes ...Route) Table {
	version.Lock()
	defer version.Unlock()
	version.n++
	return Table{Format: Format, Version: version.n, Routes: routes}
}

// to is a route for any host to these targets, with equal shares of one revision.
func to(addresses ...string) Route {
	return Route{ID: "shop/web", Project: "shop", Path: "/", Groups: []Group{share("a1", 1, addresses...)}}
}

func share(revision string, weight int, addresses ...string) Group {
	g := Group{Aim: "web", Revision: revision, Weight: weight}
	for i, a := range addresses {
		g.Targets = append(g.Targets, Target{ID: revision + "-" + a, Name: fmt.Sprintf("web-%d", i+1), Address: a})
	}
	return g
}

// backend serves h and returns its address.
func backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// named is a backend that says its name.
func named(t *testing.T, name string) string {
	return backend(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) })
}

// nowhere is an address where nothing listens.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (r *running) get(t *testing.T, path string) (int, string) {
	t.Helper()
	status, body, _ := r.do(t, "GET", path, nil)
	return status, body
}

// do asks with headers in turns of name and value; Host is one of them.
func (r *running) do(t *testing.T, method, path string, body io.Reader, headers ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Add(headers[i], headers[i+1])
		}
	}
	a, err := r.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return a.StatusCode, string(text) + " [" + err.Error() + "]", a.Header
	}
	return a.StatusCode, string(text), a.Header
}

// until waits for a state, however long a busy machine takes.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// target is what a report says of a target, by its address.
func (r *running) target(address string) (found TargetReport) {
	for _, route := range r.Report().Routes {
		for _, one := range route.Targets {
			if one.Address == address {
				found = one
			}
		}
	}
	return found
}

// raw is a client that sends what it is told and reads answers.
type raw struct {
	net.Conn
	in *bufio.Reader
}

func (r *running) dial(t testing.TB) *raw {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return &raw{c, bufio.NewReader(c)}
}

func (c *raw) say(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func (c *raw) answer(t *testing.T, method string) (*http.Response, string) {
	t.Helper()
	a, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(a.Body)
	if err != nil {
		return a, string(body) + " [" + err.Error() + "]"
	}
	return a, string(body)
}

func TestCarriesRequestsAndAnswers(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		echo := backend(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Was", r.Method+" "+r.RequestURI+" "+r.Host)
			w.Header().Add("X-Many", "one")
			w.Header().Add("X-Many", "two")
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprintf(w, "%d %s", r.ContentLength, body)
		})
		e := serve(t, o, tableOf(to(echo)))
		for _, c := range []struct{ method, path, body, want string }{
			{"GET", "/", "", "0 "},
			{"GET", "/a%2Fb/%e4?x=1&y=%20", "", "0 "},
			{"GET", "/q?", "", "0 "},
			{"POST", "/", "hello", "5 hello"},
			{"PUT", "/", strings.Repeat("x", 100_000), "100000 " + strings.Repeat("x", 100_000)},
			{"DELETE", "/thing", "", "0 "},
		} {
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			status, got, h := e.do(t, c.method, c.path, body, "Host", "Shop.example.com")
			if status != 202 || got != c.want {
				t.Errorf("%s %s: %d %.60q", c.method, c.path, status, got)
			}
			if was := h.Get("X-Was"); was != c.method+" "+c.path+" Shop.example.com" {
				t.Errorf("%s %s arrived as %s", c.method, c.path, was)
			}
			if many := h["X-Many"]; len(many) != 2 {
				t.Errorf("headers of one name: %q", many)
			}
		}
		status, body, h := e.do(t, "POST", "/", io.MultiReader(strings.NewReader("in "), strings.NewReader("chunks")))
		if status != 202 || body != "-1 in chunks" {
			t.Errorf("chunked: %d %q %v", status, body, h)
		}
		status, body, h = e.do(t, "HEAD", "/", nil)
		if status != 202 || body != "" || h.Get("Content-Length") != "2" {
			t.Errorf("HEAD: %d %q %v", status, body, h)
		}
		r := e.Report().Routes[0]
		if r.Served.Requests != 8 || r.Served.Class[2] != 8 || r.Served.Failed != 0 || r.Served.BytesIn != 100_014 {
			t.Errorf("counted %+v", r.Served)
		}
	})
}
