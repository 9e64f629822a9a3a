package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// eachFront runs a test with each front, in clear text and with TLS.
func eachFront(t *testing.T, f func(t *testing.T, e func(...Route) *running, dial func(*testing.T, *running) *raw)) {
	for _, std := range []bool{false, true} {
		for _, secret := range []bool{false, true} {
			t.Run(fmt.Sprintf("std=%v,tls=%v", std, secret), func(t *testing.T) {
				f(t, func(routes ...Route) *running {
					o := Options{StdFront: std, Drain: time.Minute}
					if secret {
						o.Dir, o.HTTPS = t.TempDir(), []string{"127.0.0.2:0"}
						for i := range routes {
							routes[i].Hosts, routes[i].TLS = []string{"shop.test"}, "internal"
						}
					}
					return serve(t, o, tableOf(routes...))
				}, func(t *testing.T, e *running) *raw {
					if !secret {
						return e.dial(t)
					}
					return e.dialTLS(t)
				})
			})
		}
	}
}

func (r *running) dialTLS(t testing.TB, protocols ...string) *raw {
	t.Helper()
	c, err := tls.Dial("tcp", r.secure, &tls.Config{ServerName: "shop.test", InsecureSkipVerify: true, NextProtos: protocols}) //nolint:gosec // whom it trusts is not what is tested
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return &raw{c, bufio.NewReader(c)}
}

// Nobody works on for a client that has gone, in the middle of a request or of its answer.
func TestAClientThatGoes(t *testing.T) {
	eachFront(t, func(t *testing.T, serve func(...Route) *running, dial func(*testing.T, *running) *raw) {
		for _, ask := range []string{
			"GET /silent HTTP/1.1\r\nHost: shop.test\r\n\r\n",
			"POST /silent HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi",
			"GET /half HTTP/1.1\r\nHost: shop.test\r\n\r\n",
		} {
			come, gone := make(chan struct{}), make(chan struct{})
			e := serve(to(backend(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if r.URL.Path == "/half" {
					io.WriteString(w, "half")
					w.(http.Flusher).Flush()
				}
				close(come)
				<-r.Context().Done()
				close(gone)
			})))
			client := dial(t, e)
			client.say(t, ask)
			<-come
			client.Close()
			<-gone
			until(t, "nothing is under way", func() bool { return e.Report().Routes[0].Targets[0].Open == 0 })
			if s := e.Report().Routes[0].Served; s.Failed != 0 || s.Requests != 1 {
				t.Errorf("counted %+v", s)
			}
		}
	})
}

// Requests that come before the answer to the one before are answered in their order,
// also one that comes while the front listens for the client's end.
func TestRequestsInARow(t *testing.T) {
	eachFront(t, func(t *testing.T, serve func(...Route) *running, dial func(*testing.T, *running) *raw) {
		next := make(chan struct{})
		e := serve(to(backend(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				<-next
			}
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s", r.URL.Path, body)
		})))
		client := dial(t, e)
		const tail = " HTTP/1.1\r\nHost: shop.test\r\n"
		client.say(t, "GET /a"+tail+"\r\nPOST /b"+tail+"Content-Length: 2\r\n\r\nhiPOST /c"+tail+"Transfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\nGET /d"+tail+"\r\n")
		for _, want := range []string{"/a ", "/b hi", "/c ho", "/d "} {
			if a, body := client.answer(t, "GET"); a.StatusCode != 200 || body != want {
				t.Errorf("got %d %q, want %q", a.StatusCode, body, want)
			}
		}
		client.say(t, "GET /wait"+tail+"\r\n")
		until(t, "it is under way", func() bool { return e.Report().Routes[0].Targets[0].Open == 1 })
		client.say(t, "GET /late"+tail+"\r\n")
		until(t, "the front has seen it", func() bool {
			list := e.active.list()
			if len(list) == 0 || list[0].tls == nil {
				return true // it has no need to look
			}
			list[0].mu.Lock()
			defer list[0].mu.Unlock()
			return list[0].early
		})
		close(next)
		for _, want := range []string{"/wait ", "/late "} {
			if a, body := client.answer(t, "GET"); a.StatusCode != 200 || body != want {
				t.Errorf("got %d %q, want %q", a.StatusCode, body, want)
			}
		}
	})
}

// What HTTPS speaks is agreed on in the handshake; who does not shake hands is told so.
func TestWhatHTTPSSpeaks(t *testing.T) {
	eachFront(t, func(t *testing.T, serve func(...Route) *running, _ func(*testing.T, *running) *raw) {
		e := serve(to(backend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("X-Forwarded-Proto")) })))
		if e.secure == "" {
			return
		}
		for _, want := range []string{"HTTP/2.0", "HTTP/1.1"} {
			transport := &http.Transport{
				TLSClientConfig:   &tls.Config{ServerName: "shop.test", InsecureSkipVerify: true}, //nolint:gosec // as above
				ForceAttemptHTTP2: want == "HTTP/2.0",
			}
			defer transport.CloseIdleConnections()
			r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+e.secure+"/", nil)
			r.Host = "shop.test"
			a, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(a.Body)
			a.Body.Close()
			if a.Proto != want || string(body) != "https" {
				t.Errorf("got %s %q", a.Proto, body)
			}
		}
		c, err := net.Dial("tcp", e.secure)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got, _ := io.ReadAll(c); !strings.HasPrefix(string(got), "HTTP/1.0 400") {
			t.Errorf("in clear text: %q", got)
		}
	})
}

// Clients that take too long to ask are let go, at each stage.
func TestClientsThatTakeTooLong(t *testing.T) {
	e := serve(t, Options{}, tableOf(to(named(t, "a"))))
	for _, c := range []struct {
		name, say string
		at        uint32
		after     time.Duration
	}{
		{"new", "", atHead, headTime},
		{"half a head", "GET / HTTP/1.1\r\nHo", atHead, headTime},
		{"idle", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", atIdle, idleKept},
		{"idle, then half a head", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /", atHead, headTime},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := e.dial(t)
			client.say(t, c.say)
			if strings.Contains(c.say, "\r\n\r\n") {
				client.answer(t, "GET")
			}
			var l *line
			until(t, "it is at that", func() bool {
				list := e.active.list()
				if len(list) != 1 {
					return false
				}
				l = list[0]
				at := l.stage.Load()
				return at&atMask == c.at && (at > oneMore) == (c.say != "")
			})
			now := time.Now()
			l.mu.Lock() // whatever the sweep has seen of it
			l.since, l.seen = now, l.stage.Load()
			l.mu.Unlock()
			l.look(now.Add(c.after - time.Second))
			if l.stage.Load()&atMask == atEnd {
				t.Error("let go too soon")
			}
			l.look(now.Add(c.after + time.Second))
			if got, err := io.ReadAll(client.in); len(got) > 0 || isDeadline(err) {
				t.Errorf("got %q %v", got, err)
			}
			until(t, "it is forgotten", func() bool { return e.active.connections() == 0 })
		})
	}
}

// An answer that the proxy gives before it has read a body keeps the connection if the
// rest is small, and ends it else; nobody is asked for a body that nobody wants.
func TestBodiesThatNobodyReads(t *testing.T) {
	eachFront(t, func(t *testing.T, serve func(...Route) *running, dial func(*testing.T, *running) *raw) {
		r := to(named(t, "a"))
		r.Path = "/here"
		e := serve(r)
		client := dial(t, e)
		client.say(t, "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 50000\r\n\r\n"+strings.Repeat("x", 50_000))
		if a, _ := client.answer(t, "POST"); a.StatusCode != 404 || a.Close {
			t.Errorf("small: %d, close %v", a.StatusCode, a.Close)
		}
		client.say(t, "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
		if a, _ := client.answer(t, "POST"); a.StatusCode != 404 || a.Close {
			t.Errorf("chunks: %d, close %v", a.StatusCode, a.Close)
		}
		for _, say := range []string{"Content-Length: 1000000000\r\n\r\nxxx", "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"} {
			client := dial(t, e)
			client.say(t, "POST / HTTP/1.1\r\nHost: shop.test\r\n"+say)
			if a, _ := client.answer(t, "POST"); a.StatusCode != 404 || !a.Close {
				t.Errorf("%q: %d, close %v", say, a.StatusCode, a.Close)
			}
		}
	})
}

// Bounds: of a head in bytes and lines, of trailers, of what frames chunks.
func TestRequestsOfTooMuch(t *testing.T) {
	e := serve(t, Options{}, tableOf(to(backend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))))
	chunked := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, c := range map[string]struct{ say, want string }{
		"lines":       {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: a\r\n", fieldsMax) + "\r\n", "HTTP/1.1 431"},
		"head":        {"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", maxHead) + "\r\n\r\n", "HTTP/1.1 431"},
		"long, taken": {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: " + strings.Repeat("a", maxHead-200) + "\r\n\r\n", "HTTP/1.1 200"},
		"trailers":    {chunked + "0\r\n" + strings.Repeat("X: aaaaaaaaaa\r\n", 1000) + "\r\n", ""},
		"extensions":  {chunked + strings.Repeat("1;"+strings.Repeat("a", 4000)+"\r\na\r\n", 10) + "0\r\n\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			client := e.dial(t)
			go io.WriteString(client, c.say)
			got, err := io.ReadAll(client.in)
			if isDeadline(err) || !strings.HasPrefix(string(got), c.want) || c.want == "" && len(got) > 0 {
				t.Errorf("got %q %v", got, err)
			}
		})
	}
}

// A connection without a request on it holds a drain up for nobody.
func TestADrainClosesWhatIsIdle(t *testing.T) {
	eachFront(t, func(t *testing.T, serve func(...Route) *running, dial func(*testing.T, *running) *raw) {
		e := serve(to(named(t, "a")))
		client := dial(t, e)
		client.say(t, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		client.answer(t, "GET")
		if err := e.stop(); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(client.in); len(got) > 0 || isDeadline(err) {
			t.Errorf("got %q %v", got, err)
		}
	})
}

// Who leaves lets each connection carry one more request, and says that it was the last.
func TestWhoLeavesSaysSo(t *testing.T) {
	eachFront(t, func(t *testing.T, serve func(...Route) *running, dial func(*testing.T, *running) *raw) {
		e := serve(to(named(t, "a")))
		client := dial(t, e)
		client.say(t, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		client.answer(t, "GET")
		e.Leave(30 * time.Second)
		ended := make(chan error, 1)
		go func() { ended <- e.stop() }()
		client.say(t, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		if a, body := client.answer(t, "GET"); a.StatusCode != 200 || body != "a" || !a.Close {
			t.Errorf("got %d %q, close %v", a.StatusCode, body, a.Close)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A drain closed a connection without an answer that had just been accepted, where it turned out to speak HTTP/2.
func TestADrainAnswersWhoIsNewOverHTTP2(t *testing.T) {
	e := serve(t, Options{Drain: 2 * time.Minute}, tableOf(to(named(t, "a"))))
	e.lines.first = time.Minute
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	until(t, "it is accepted", func() bool { return e.active.connections() == 1 })
	ended := make(chan error, 1)
	go func() { ended <- e.stop() }()
	until(t, "it drains", e.lines.shut.Load)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: p, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://shop.test/", nil)
	a, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(a.Body); string(body) != "a" || err != nil || a.Proto != "HTTP/2.0" {
		t.Errorf("got %s %q %v", a.Proto, body, err)
	}
	a.Body.Close()
	transport.CloseIdleConnections()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
