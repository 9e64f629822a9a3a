package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is a client that knows nothing of Tender: it sends requests at a steady
// rate, whether answers come or not, and holds every answer against what was
// asked. It retries nothing but what HTTP says: a request on a connection that
// was used before and on which no byte of an answer came.
type load struct {
	t      *testing.T
	addr   string
	cancel context.CancelFunc
	done   sync.WaitGroup

	sent, answered, failed atomic.Int64
	again                  atomic.Int64 // sent once more on a fresh connection
	echoes, cut            atomic.Int64 // of the upgraded connections: bytes that came back, ends

	mu       sync.Mutex
	versions map[string]int64 // answers by the header Version
	why      []string         // the first failures
}

// at starts load against an address: workers in a row, so that one slow answer
// delays no other, and streams that are held open.
func (h *host) load(addr string, perSecond, streams int) *load {
	const each = 20 // requests per second of one worker
	return h.loadBy(addr, max(1, perSecond/each), time.Second/each, streams)
}

// loadBy is load by so many workers, each of which sends one request every so often.
func (h *host) loadBy(addr string, workers int, every time.Duration, streams int) *load {
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	l := &load{t: h.t, addr: addr, cancel: cancel, versions: map[string]int64{}}
	h.t.Cleanup(func() { cancel(); l.done.Wait() })
	for w := range workers {
		l.done.Go(func() { l.work(ctx, w, every) })
	}
	for range streams {
		l.done.Go(func() { l.hold(ctx) })
	}
	return l
}

// stop ends the load and waits for what is under way.
func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

// none fails the test if anything was lost.
func (l *load) none(what string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed.Load() > 0 || l.sent.Load() == 0 || l.sent.Load() != l.answered.Load() {
		l.t.Errorf("%s: %d sent, %d answered, %d failed: %s", what, l.sent.Load(), l.answered.Load(), l.failed.Load(), strings.Join(l.why, "; "))
	}
	l.t.Logf("%s: %d requests, %d failed, %d sent again, %d streams cut; by version: %v",
		what, l.sent.Load(), l.failed.Load(), l.again.Load(), l.cut.Load(), l.versions)
}

func (l *load) fail(err error) {
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.why) < 5 {
		l.why = append(l.why, time.Now().UTC().Format("15:04:05.000")+" "+err.Error())
	}
}

// work sends one request after the other.
func (l *load) work(ctx context.Context, w int, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var c *wire
	defer func() { c.close() }()
	for n := w; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.sent.Add(1)
		a := asks[n%len(asks)]
		if a.fresh {
			c.close()
			c = nil
		}
		version, err := l.ask(&c, a)
		if err != nil {
			l.fail(fmt.Errorf("%s: %w", a.head, err))
			c.close()
			c = nil
			continue
		}
		l.answered.Add(1)
		l.mu.Lock()
		l.versions[version]++
		l.mu.Unlock()
	}
}

// ask sends a on c, or on a new connection if that had been closed meanwhile.
func (l *load) ask(c **wire, a ask) (version string, err error) {
	if *c != nil && (*c).over {
		(*c).close()
		*c = nil
	}
	if *c != nil {
		version, err = (*c).ask(a)
		if silent, ok := errors.AsType[errSilent](err); !ok {
			return version, err
		} else if silent.used == 0 {
			return "", err
		}
		l.again.Add(1)
		(*c).close()
		*c = nil
	}
	if *c, err = dialWire(l.addr); err != nil {
		return "", err
	}
	return (*c).ask(a)
}

// ask is one request and what has to come of it.
type ask struct {
	head, body string
	want       func(body string) bool
	fresh      bool // on a connection of its own
}

var asks = func() []ask {
	big := strings.Repeat("0123456789abcdef", 1280) // 20 KB
	greeting := func(b string) bool { return strings.HasPrefix(b, "hello from ") }
	small := ask{head: "GET / HTTP/1.1\r\n", want: greeting}
	return []ask{
		small, small, small,
		{head: "GET / HTTP/1.1\r\nConnection: close\r\n", want: greeting, fresh: true},
		small, small,
		{head: "POST /echo HTTP/1.1\r\nContent-Length: 20480\r\n", body: big, want: func(b string) bool { return b == big }},
		small, small,
		{head: "GET /stream?n=5&d=20ms HTTP/1.1\r\n", want: func(b string) bool { return b == "line 0\nline 1\nline 2\nline 3\nline 4\n" }},
		small, small, small,
		{head: "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", body: "5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n", want: func(b string) bool { return b == "hello there" }},
	}
}()

// wire is one connection of the client.
type wire struct {
	net.Conn
	r    *bufio.Reader
	used int
	over bool // announced to end
}

// errSilent says that a connection ended before a byte of the answer.
type errSilent struct {
	used int // answers that had come on it before
	err  error
}

func (e errSilent) Error() string { return fmt.Sprintf("no answer: %v", e.err) }
func (e errSilent) Unwrap() error { return e.err }

func dialWire(addr string) (*wire, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: c, r: bufio.NewReader(c)}, nil
}

func (w *wire) close() {
	if w != nil {
		w.Close()
	}
}

func (w *wire) ask(a ask) (version string, err error) {
	w.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(w, a.head+"Host: load.test\r\n\r\n"+a.body); err != nil {
		return "", errSilent{w.used, err}
	}
	if _, err := w.r.Peek(1); err != nil {
		return "", errSilent{w.used, err}
	}
	resp, err := http.ReadResponse(w.r, nil)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("after %d bytes: %w", len(b), err)
	}
	if resp.StatusCode != http.StatusOK || !a.want(string(b)) {
		return "", fmt.Errorf("%s, %d bytes: %.80q", resp.Status, len(b), b)
	}
	w.used++
	if resp.Close {
		w.over = true
	}
	return resp.Header.Get("Version"), nil
}

// hold keeps an upgraded connection open and sends a line now and then, which
// has to come back. One that ends is counted and opened anew.
func (l *load) hold(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.talk(ctx); err != nil {
			l.fail(fmt.Errorf("upgrade: %w", err))
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

// talk opens one; its end after the answer 101 is a cut, not an error.
func (l *load) talk(ctx context.Context) error {
	w, err := dialWire(l.addr)
	if err != nil {
		return err
	}
	defer w.Close()
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer stop()
	w.SetDeadline(time.Now().Add(patience))
	io.WriteString(w, "GET /ws HTTP/1.1\r\nHost: load.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	resp, err := http.ReadResponse(w.r, nil)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("%s", resp.Status)
	}
	for n := 0; ctx.Err() == nil; n++ {
		w.SetDeadline(time.Now().Add(patience))
		line := fmt.Sprintf("line %d\n", n)
		io.WriteString(w, line)
		back, err := w.r.ReadString('\n')
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			l.cut.Add(1)
			return nil
		}
		if back != line {
			return fmt.Errorf("%q came back as %q", line, back)
		}
		l.echoes.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}
