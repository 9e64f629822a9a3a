package forward

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/logs"
)

// drain is a syslog server that counts octets.
type drain struct {
	t        *testing.T
	l        net.Listener
	mu       sync.Mutex
	messages []string
	conns    int
	// cut closes a connection after so many messages; 0: never.
	cut int
}

func newDrain(t *testing.T, l net.Listener) *drain {
	d := &drain{t: t, l: l}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { d.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return d
}

func (d *drain) serve(c net.Conn) {
	defer c.Close()
	d.mu.Lock()
	d.conns++
	cut := d.cut
	d.mu.Unlock()
	r := bufio.NewReader(c)
	for n := 1; ; n++ {
		count, err := r.ReadString(' ')
		if err != nil {
			return
		}
		size, err := strconv.Atoi(strings.TrimSuffix(count, " "))
		if err != nil || count[0] == '0' {
			d.t.Errorf("MSG-LEN %q", count)
			return
		}
		m := make([]byte, size)
		if _, err := io.ReadFull(r, m); err != nil {
			return
		}
		d.mu.Lock()
		d.messages = append(d.messages, string(m))
		d.mu.Unlock()
		if n == cut {
			return
		}
	}
}

func (d *drain) got() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.messages)
}

// rfc5424 is its grammar, as far as it can be said here.
var rfc5424 = regexp.MustCompile(`(?s)^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) (-|(?:\[[!-~]+(?: [!-~]{1,32}="(?:[^"\\\]]|\\.)*")*\])+) (.*)$`)

func TestASyslogServerGetsMessagesOverTLS(t *testing.T) {
	// Its certificate is that of a test's server.
	h := httptest.NewUnstartedServer(nil)
	h.StartTLS()
	t.Cleanup(h.Close)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: h.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	d := newDrain(t, l)
	src, k := newShelf(), &memory{}
	src.put(labelsOf("instance", "shop-web-1", "project", "shop", "service", "web front", "stream", "stderr", "note", `a"]\b`),
		entry{begin.UnixNano(), "Traceback\n  in line 2", []logs.Field{{Name: "level", Value: "Error"}}}, plain(1, "ü"))
	start(t, fmt.Sprintf(`{s: {syslog: {url: "tls://%s", tls: {ca: %q}}}}`, l.Addr(), caOf(t, h.Certificate())), src, k)
	soon(t, "it is taken", func() bool { return k.state("s").Cursor == "1" && len(d.got()) == 2 })
	var got [][]string
	for _, m := range d.got() {
		parts := rfc5424.FindStringSubmatch(m)
		if parts == nil {
			t.Fatalf("this is not RFC 5424: %q", m)
		}
		got = append(got, parts[1:])
	}
	data := `[labels@32473 instance="shop-web-1" note="a\"\]\\b" project="shop" service="web front" stream="stderr"]`
	want := [][]string{
		{"131", "2026-11-29T12:59:59.000000Z", "host1", "web_front", "shop-web-1", "-", data, "Traceback\n  in line 2"},
		{"132", "2026-11-29T12:59:59.001000Z", "host1", "web_front", "shop-web-1", "-", data, "ü"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// The protocol confirms nothing: what was under way when a connection broke comes again.
func TestASyslogServerThatCutsConnectionsMissesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDrain(t, l)
	d.cut = 30
	src, k := newShelf(), &memory{}
	for i := range 20 {
		rows := lines(50*i, 50)
		for j := range rows {
			rows[j].text += strings.Repeat(" ", 1000)
		}
		src.put(web, rows...)
	}
	start(t, fmt.Sprintf(`{s: {syslog: {url: "tcp://%s"}, batch: {size: 64kB, wait: 10ms}}}`, l.Addr()), src, k)
	soon(t, "a connection was cut", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.conns > 2 })
	d.mu.Lock()
	d.cut = 0
	d.mu.Unlock()
	soon(t, "all is taken", func() bool { return k.state("s").Cursor == "20" })
	soon(t, "all is there", func() bool {
		seen := map[string]bool{}
		for _, m := range d.got() {
			seen[strings.TrimSpace(m[strings.LastIndex(m, "line "):])] = true
		}
		return len(seen) == 1000
	})
}

func TestASyslogServerThatComesLaterGetsAll(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	src, k := newShelf(), &memory{}
	src.put(web, lines(0, 5)...)
	s, _ := start(t, fmt.Sprintf(`{s: {syslog: {url: "tcp://%s"}}}`, address), src, k)
	soon(t, "the trouble is shown", func() bool { return strings.Contains(only(s).Error, "refused") })
	if l, err = net.Listen("tcp", address); err != nil {
		t.Skipf("somebody else has taken the port meanwhile: %v", err)
	}
	d := newDrain(t, l)
	soon(t, "all is there", func() bool { return k.state("s").Cursor == "1" && len(d.got()) == 5 })
}

// The end of a batch whose context was over already was taken back by the deadline
// that was set after it: the sink then held up its own stop for half a minute.
func TestABatchOfSyslogEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts: what the kernel's buffers do not hold waits
	w := &syslog{address: l.Addr().String()}
	if err := w.dial(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() {
		_, err := w.send(ctx, "", []item{{body: make([]byte, 64<<20)}})
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("64 MiB that nobody reads were sent")
		}
	case <-time.After(confirmTime / 2):
		t.Fatal("send goes on although its context is over")
	}
}
