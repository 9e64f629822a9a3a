package edge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/dns"
	"github.com/tenderhq/tender/internal/proxy"
)

// TestMain lets this binary be an edge, as the real one is: Spawn starts it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "edge" {
		if err := child(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "edge:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(args []string) error {
	said := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		said[args[i]] = args[i+1]
	}
	c, err := Load(said["--dir"])
	if err != nil {
		return err
	}
	out, err := OpenLog(said["--log"])
	if err != nil {
		return err
	}
	c.Socket, c.Version, c.Log = said["--socket"], os.Getenv("EDGE_VERSION"), slog.New(slog.NewTextHandler(out, nil))
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	return Run(ctx, c)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// rig is a place for edges: a directory, a socket and addresses.
type rig struct {
	t      *testing.T
	config Config
	client *Client
	target string // of the backend
	url    string
	port   string // a TCP port that the edge holds
}

func newRig(t *testing.T) *rig {
	t.Helper()
	// The path of a unix socket has room for about a hundred bytes.
	dir, err := os.MkdirTemp("", "edge")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			_ = http.NewResponseController(w).EnableFullDuplex() // or nothing would be said before all is heard
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			for line := bufio.NewScanner(r.Body); line.Scan(); {
				fmt.Fprintln(w, line.Text())
				http.NewResponseController(w).Flush()
			}
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "served")
	}))
	t.Cleanup(backend.Close)
	r := &rig{t: t, target: backend.Listener.Addr().String(), port: free(t)}
	http := free(t)
	r.url = "http://" + http
	r.config = Config{Dir: filepath.Join(dir, "edge"), Socket: filepath.Join(dir, "s"), HTTP: []string{http}, DNS: []string{free(t)}, Grace: 10 * time.Second, Version: "1"}
	r.client = NewClient(r.config.Socket)
	return r
}

func (r *rig) table(version uint64) Table {
	groups := []proxy.Group{{Aim: "web", Revision: "aaa", Weight: 1, Targets: []proxy.Target{{ID: "one", Name: "web-1", Address: r.target}}}}
	return Table{Format: Format, Proxy: proxy.Table{
		Format: proxy.Format, Version: version,
		Routes: []proxy.Route{{ID: "shop/*/", Project: "shop", Path: "/", Groups: groups}},
		Ports:  []proxy.Port{{ID: "shop/web:80/tcp", Project: "shop", Service: "web", Address: r.port, Protocol: "tcp", Groups: groups}},
	}, DNS: dns.Picture{Index: version, Services: []dns.Service{{
		Project: "shop", Name: "web", Endpoints: []dns.Endpoint{{ID: "one", Slot: 1, Address: "192.0.2.80", Healthy: true}},
	}}}}
}

// start runs an edge in this process; stop ends it and waits.
func (r *rig) start(change func(*Config)) (stop func() error) {
	r.t.Helper()
	c := r.config
	c.Log = slog.New(slog.NewTextHandler(r.t.Output(), nil))
	if change != nil {
		change(&c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = Run(ctx, c)
	}()
	stop = sync.OnceValue(func() error {
		cancel()
		<-done
		return err
	})
	r.t.Cleanup(func() {
		if err := stop(); err != nil {
			r.t.Error(err)
		}
	})
	until(r.t, "version "+c.Version+" answers", func() bool {
		select {
		case <-done:
			r.t.Fatalf("the edge ended: %v", err)
		default:
		}
		s, err := r.client.Status(r.t.Context())
		return err == nil && s.Version == c.Version
	})
	return stop
}

func (r *rig) set(version uint64) {
	r.t.Helper()
	if err := r.client.Set(r.t.Context(), r.table(version)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) get() (string, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(r.url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.Status + " " + string(body), err
}

func (r *rig) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, r.config.DNS[0])
	}}
}

func (r *rig) mustGet() {
	r.t.Helper()
	if got, err := r.get(); err != nil || got != "200 OK served" {
		r.t.Fatalf("%s %v", got, err)
	}
}

func TestAnEdgeStartsFromItsTableAlone(t *testing.T) {
	r := newRig(t)
	stop := r.start(nil)
	if got, err := r.get(); err == nil {
		t.Fatalf("without a route nothing listens, yet: %s", got)
	}
	r.set(7)
	r.mustGet()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Status(t.Context()); !Away(err) {
		t.Errorf("an edge that has ended: %v", err)
	}
	r.start(nil)
	r.mustGet()
	s, err := r.client.Status(t.Context())
	if err != nil || s.Table != 7 || s.PID != os.Getpid() || s.Draining {
		t.Errorf("%+v %v", s, err)
	}
	info, err := os.Stat(r.config.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", info.Mode(), err)
	}
}

func TestABadTableChangesNothing(t *testing.T) {
	r := newRig(t)
	r.start(nil)
	r.set(1)
	before, err := os.ReadFile(filepath.Join(r.config.Dir, tableFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, break_ := range map[string]func(*Table){
		"shop/*/":         func(t *Table) { t.Proxy.Routes[0].Balance = "by-mood" },
		"the table":       func(t *Table) { t.Format = 99 },
		"shop/web:80/tcp": func(t *Table) { t.Proxy.Ports[0].Protocol = "sctp" },
	} {
		bad := r.table(2)
		break_(&bad)
		err := r.client.Set(t.Context(), bad)
		if tender.KindOf(err) != tender.Invalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	after, err := os.ReadFile(filepath.Join(r.config.Dir, tableFile))
	if err != nil || string(after) != string(before) {
		t.Errorf("the file changed: %v", err)
	}
	if s, err := r.client.Status(t.Context()); err != nil || s.Table != 1 {
		t.Errorf("%+v %v", s, err)
	}
	r.mustGet()
}

func TestADamagedTableIsSetAside(t *testing.T) {
	r := newRig(t)
	if err := os.MkdirAll(r.config.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.config.Dir, tableFile), []byte(`{"format": 1, "pro`), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	away, err := filepath.Glob(filepath.Join(r.config.Dir, tableFile+".damaged-*"))
	if err != nil || len(away) != 1 {
		t.Errorf("set aside: %v %v", away, err)
	}
	r.set(1)
	r.mustGet()
}

func TestAnEdgeAnswersByNameAndOverItsSocket(t *testing.T) {
	r := newRig(t)
	r.start(nil)
	r.set(1)
	r.mustGet()
	resolver := r.resolver()
	until(t, "the name is answered", func() bool {
		got, err := resolver.LookupHost(t.Context(), "web.shop.tender")
		return err == nil && len(got) == 1 && got[0] == "192.0.2.80"
	})
	req, err := http.NewRequest("GET", "http://shop.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.client.Ask(t.Context(), "shop/*/", "aaa", req)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 200 || string(body) != "served" {
		t.Errorf("asked: %d %s", res.StatusCode, body)
	}
	if _, err := r.client.Ask(t.Context(), "shop/*/", "zzz", req); err == nil {
		t.Error("a revision that is not there answers")
	}
	var metrics strings.Builder
	if err := r.client.Metrics(t.Context(), &metrics); err != nil || !strings.Contains(metrics.String(), "tender_edge_requests_total") ||
		strings.Count(metrics.String(), "\ntender_edge_table_version 1\n") != 1 {
		t.Errorf("metrics: %v\n%s", err, metrics.String())
	}
	until(t, "the report counts", func() bool {
		rep, err := r.client.Report(t.Context())
		return err == nil && rep.Version == 1 && len(rep.Routes) == 1 && rep.Routes[0].Served.Requests >= 1
	})
}

func TestAnEdgeThatDoesNotFitIsRefused(t *testing.T) {
	r := newRig(t)
	r.start(nil)
	r.set(1)
	for _, h := range []Hello{{Protocol: Protocol + 2, Format: Format, Version: "9"}, {Protocol: Protocol, Format: Format + 2, Version: "9"}, {Version: "0"}} {
		b, err := takeOver(t.Context(), r.config.Socket, h)
		if b != nil || tender.KindOf(err) != tender.Conflict || !strings.Contains(err.Error(), "version "+h.Version) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	r.mustGet()
	// One that breaks off in the middle leaves the old one serving, and able to hand over.
	b, err := takeOver(t.Context(), r.config.Socket, Hello{Protocol: Protocol, Format: Format, Version: "2"})
	if err != nil || len(b.files) == 0 {
		t.Fatalf("%v %v", b, err)
	}
	if _, err := takeOver(t.Context(), r.config.Socket, Hello{Protocol: Protocol, Format: Format, Version: "3"}); tender.KindOf(err) != tender.Conflict {
		t.Errorf("two at once: %v", err)
	}
	b.close()
	until(t, "tables are taken again", func() bool { return r.client.Set(t.Context(), r.table(2)) == nil })
	r.mustGet()
}

// named waits until names are answered: DNS does not hold up the edge's start.
func (r *rig) named() {
	r.t.Helper()
	until(r.t, "names are answered", func() bool {
		_, err := r.resolver().LookupHost(r.t.Context(), "web.shop.tender")
		return err == nil
	})
}

// load is what clients do while edges change.
type load struct {
	t             *testing.T
	asked, failed atomic.Int64
	handed        atomic.Int64 // answers that told to go elsewhere
	stop          chan struct{}
	work          sync.WaitGroup
	firstErr      atomic.Pointer[error]
}

func (l *load) fail(err error) {
	l.failed.Add(1)
	l.firstErr.CompareAndSwap(nil, &err)
}

func (r *rig) load(clients int) *load {
	l := &load{t: r.t, stop: make(chan struct{})}
	each := func(ask func() error) {
		l.work.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				l.asked.Add(1)
				if err := ask(); err != nil {
					l.fail(err)
				}
			}
		})
	}
	for range clients {
		// Without the standard client's own retries, which would hide a connection that was closed.
		each(r.keeping(l))
		each(func() error {
			got, err := r.get()
			if err == nil && got != "200 OK served" {
				err = errors.New(got)
			}
			return err
		})
	}
	var two http.Protocols
	two.SetUnencryptedHTTP2(true)
	h2 := &http.Client{Transport: &http.Transport{Protocols: &two}}
	each(func() error {
		res, err := h2.Get(r.url)
		if err != nil {
			return fmt.Errorf("http/2: %w", err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
			return fmt.Errorf("http/2: %s: %w", res.Status, err)
		}
		return nil
	})
	resolver := r.resolver()
	l.work.Go(func() { // names, of which the report counts none
		for {
			select {
			case <-l.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if got, err := resolver.LookupHost(context.Background(), "web.shop.tender"); err != nil || len(got) != 1 {
				l.fail(fmt.Errorf("names: %v: %w", got, err))
			}
		}
	})
	each(func() error { // through the TCP port
		c, err := net.Dial("tcp", r.port)
		if err != nil {
			return err
		}
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.0\r\nHost: a\r\n\r\n")
		body, err := io.ReadAll(c)
		if err == nil && !strings.HasSuffix(string(body), "served") {
			err = fmt.Errorf("port: %q", body)
		}
		return err
	})
	return l
}

// keeping is a client that keeps its connection, and speaks HTTP by hand: an
// answer that does not come is a lost request.
func (r *rig) keeping(l *load) func() error {
	var c net.Conn
	var in *bufio.Reader
	return func() error {
		if c == nil {
			var err error
			if c, err = net.Dial("tcp", strings.TrimPrefix(r.url, "http://")); err != nil {
				return fmt.Errorf("dial: %w", err)
			}
			in = bufio.NewReader(c)
		}
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		res, err := http.ReadResponse(in, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
		}
		if err == nil && res.StatusCode != 200 {
			err = errors.New(res.Status)
		}
		if err != nil || res.Close {
			if err == nil {
				l.handed.Add(1)
			}
			c.Close()
			c = nil
		}
		if err != nil {
			return fmt.Errorf("on a kept connection: %w", err)
		}
		return nil
	}
}

func (l *load) end() {
	l.t.Helper()
	close(l.stop)
	l.work.Wait()
	l.t.Logf("%d requests, %d lost, %d times a connection was handed on", l.asked.Load(), l.failed.Load(), l.handed.Load())
	if err := l.firstErr.Load(); err != nil {
		l.t.Errorf("%d of %d requests lost, the first: %v", l.failed.Load(), l.asked.Load(), *err)
	}
}

func (l *load) more(n int64) {
	l.t.Helper()
	want := l.asked.Load() + n
	until(l.t, "more requests", func() bool { return l.asked.Load() >= want })
}

// An upgrade of the edge must lose no request: connections that are new, kept,
// and streams that outlive it.
func TestAHandOverLosesNothing(t *testing.T) {
	r := newRig(t)
	r.start(nil)
	r.set(1)
	// A stream that begins at the first edge and ends after it.
	up, feed := io.Pipe()
	req, err := http.NewRequest("POST", r.url+"/stream", up)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(res.Body)
	say := func(word string) {
		fmt.Fprintln(feed, word)
		if got, err := lines.ReadString('\n'); got != word+"\n" {
			t.Fatalf("the stream says %q %v", got, err)
		}
	}
	say("first")
	r.named()
	l := r.load(4)
	for i := 2; i <= 4; i++ {
		l.more(100)
		r.start(func(c *Config) { c.Version = fmt.Sprint(i) })
		r.set(uint64(i))
		say("with another edge in front")
	}
	l.more(100)
	l.end()
	// What the old edges counted is in the new one's report, and so is the stream that one still carries.
	rep, err := r.client.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	web := rep.Routes[0]
	if web.Targets[0].Open < 1 {
		t.Errorf("the stream of the first edge is not in the report: %+v", web.Targets[0])
	}
	feed.Close()
	if _, err := io.ReadAll(lines); err != nil {
		t.Errorf("the stream ends with %v", err)
	}
	until(t, "all is counted, and nothing is open", func() bool {
		rep, err := r.client.Report(t.Context())
		if err != nil {
			return false
		}
		all := rep.Routes[0].Served.Requests + rep.Ports[0].Served.Requests
		return int64(all) >= l.asked.Load()+1 && rep.Routes[0].Targets[0].Open == 0 && rep.Routes[0].Served.Failed == 0
	})
}

// spawn starts an edge as a process of its own.
func (r *rig) spawn(version string) Status {
	r.t.Helper()
	r.t.Setenv("EDGE_VERSION", version)
	c := r.config
	c.Version = version
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	s, err := Spawn(ctx, c)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = syscall.Kill(s.PID, syscall.SIGKILL) }) // it may have ended
	return s
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestAProcessTakesOverFromAnother(t *testing.T) {
	r := newRig(t)
	first := r.spawn("1")
	r.set(1)
	r.named()
	l := r.load(2)
	l.more(100)
	second := r.spawn("2")
	if second.PID == first.PID || second.Version != "2" || second.Table != 1 || len(second.Listeners) < 4 {
		t.Errorf("the second edge: %+v", second)
	}
	l.more(100)
	l.end()
	until(t, "the first process has ended", func() bool { return gone(first.PID) })
	// Killed, it loses what is in flight and no more: the next one binds at once.
	if err := syscall.Kill(second.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the second process has ended", func() bool { return gone(second.PID) })
	r.spawn("3")
	r.mustGet()
}

func TestEnsureStartsAnEdgeOnlyWhereItMust(t *testing.T) {
	r := newRig(t)
	t.Setenv("EDGE_VERSION", "1")
	c := r.config
	pid := func() int {
		t.Helper()
		if err := Ensure(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		s, err := r.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(s.PID, syscall.SIGKILL) }) // it may have ended
		return s.PID
	}
	first := pid()
	if again := pid(); again != first {
		t.Error("the same was started again")
	}
	c.Drain = time.Minute
	second := pid()
	if second == first {
		t.Error("other settings did not start another edge")
	}
	t.Setenv("EDGE_VERSION", "2")
	c.Version = "2"
	if pid() == second {
		t.Error("another version did not start another edge")
	}
}

func TestAnEdgeThatCannotListenLeavesTheOldOneServing(t *testing.T) {
	r := newRig(t)
	r.start(nil)
	r.set(1)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	next := r.config
	next.HTTP = append([]string{taken.Addr().String()}, next.HTTP...)
	if err := Run(t.Context(), next); err == nil || !strings.Contains(err.Error(), "another program has that port") {
		t.Errorf("got %v", err)
	}
	r.mustGet()
	r.set(2)
	// An address that the old one has under another name is free once that lets go.
	_, port, err := net.SplitHostPort(r.config.HTTP[0])
	if err != nil {
		t.Fatal(err)
	}
	r.start(func(c *Config) { c.HTTP, c.Version = []string{"0.0.0.0:" + port}, "2" })
	until(t, "the new address is served", func() bool {
		got, err := r.get()
		return err == nil && got == "200 OK served"
	})
}

// One address that another program has keeps nothing else from being served.
func TestAnAddressThatIsTakenIsTriedAgain(t *testing.T) {
	r := newRig(t)
	taken, err := net.Listen("tcp", r.config.HTTP[0])
	if err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	r.set(7)
	report, err := r.client.Report(t.Context())
	if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0], "another program has that port") {
		t.Errorf("%q %v", report.Problems, err)
	}
	taken.Close()
	for {
		if got, err := r.get(); err == nil && got == "200 OK served" {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("it is never listened on")
		}
	}
}
