package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// heap is how many bytes live objects take now, and those not yet collected.
func heap() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// Clients that never end their heads, heads that never end, connections by the
// thousand, and targets that hang, lie and reset, all at once: each gets what it is
// due, memory stays within bounds, and who asks another route notices nothing.
// TENDER_SIEGE=long sends 100,000 connections, as fast as they are taken.
func TestASiegeHarmsNobodyElse(t *testing.T) {
	const (
		slow, floods, hangs, breaks = 200, 30, 80, 40
		most                        = 128 << 20 // bytes more than before, of this whole process
		perFlood                    = 32 << 20  // sent by one that floods, most of it into buffers of the kernel
	)
	comers := 1500
	if os.Getenv("TENDER_SIEGE") == "long" {
		comers = 100_000
	}
	let := make(chan struct{})
	t.Cleanup(func() { close(let) })
	hang := to(backend(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-let:
		case <-r.Context().Done():
		}
	}))
	hang.ID, hang.Path, hang.Timeout.Server, hang.Retries = "shop/hang", "/hang", 2*time.Second, -1
	reset := to(speaker(t, func(c net.Conn, in *bufio.Reader) {
		_, _ = http.ReadRequest(in)
		c.(*net.TCPConn).SetLinger(0)
	}))
	reset.ID, reset.Path, reset.Retries = "shop/reset", "/reset", -1
	lie := to(speaker(t, func(c net.Conn, in *bufio.Reader) {
		_, _ = http.ReadRequest(in)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!")
	}))
	lie.ID, lie.Path, lie.Retries = "shop/lie", "/lie", -1
	e := serve(t, Options{Drain: 5 * time.Second}, tableOf(to(named(t, "well")), hang, reset, lie))
	e.get(t, "/")
	runtime.GC()
	before, running := heap(), runtime.NumGoroutine()

	var peak atomic.Uint64
	done := make(chan struct{})
	var watch, work sync.WaitGroup
	watch.Go(func() {
		for {
			peak.Store(max(peak.Load(), heap()))
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	// One that has done nothing, on a connection of its own that stays.
	watch.Go(func() {
		c, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for n := 0; ; n++ {
			select {
			case <-done:
				t.Logf("%d requests beside it", n)
				return
			default:
			}
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			a, err := http.ReadResponse(in, nil)
			if err != nil || a.StatusCode != 200 {
				t.Errorf("request %d beside it: %v %v", n, a, err)
				return
			}
			if _, err := io.Copy(io.Discard, a.Body); err != nil {
				t.Error(err)
				return
			}
		}
	})
	dial := func() net.Conn {
		c, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Error(err)
			return nil
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
		return c
	}
	for range slow {
		work.Go(func() {
			c := dial()
			if c == nil {
				return
			}
			defer c.Close()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				io.Copy(io.Discard, c) // until the edge has had enough
			}()
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
			for {
				select {
				case <-ended:
					return
				case <-time.After(200 * time.Millisecond):
					if _, err := io.WriteString(c, "a"); err != nil {
						return
					}
				}
			}
		})
	}
	line := "X-Flood: " + strings.Repeat("a", 1000) + "\r\n"
	for range floods {
		work.Go(func() {
			c := dial()
			if c == nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n")
			for sent := 0; ; sent += len(line) {
				if sent > perFlood {
					t.Errorf("a head of %d bytes is read on", sent)
					return
				}
				if _, err := io.WriteString(c, line); err != nil {
					return
				}
			}
		})
	}
	ask := func(path string, n, want int) {
		for range n {
			work.Go(func() {
				c := dial()
				if c == nil {
					return
				}
				defer c.Close()
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", path)
				a, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil || a.StatusCode != want {
					t.Errorf("%s: %v %v, want %d", path, a, err, want)
				}
			})
		}
	}
	ask("/hang", hangs, 504)
	ask("/reset", breaks, 502)
	ask("/lie", breaks, 502)
	turns, began := make(chan struct{}, 64), time.Now() // that many at once
	for range comers {
		turns <- struct{}{}
		work.Go(func() {
			defer func() { <-turns }()
			c := dial()
			if c == nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			a, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || a.StatusCode != 200 {
				t.Errorf("a newcomer: %v %v", a, err)
			}
		})
	}
	t.Logf("%d newcomers in %s", comers, time.Since(began).Round(time.Millisecond))
	work.Wait()
	close(done)
	watch.Wait()
	if p := peak.Load(); p > before+most {
		t.Errorf("%d MB more than the %d before", (p-before)>>20, before>>20)
	}
	t.Logf("at most %d MB more", (max(peak.Load(), before)-before)>>20)
	// And it leaves nothing behind.
	e.client.CloseIdleConnections()
	// But for connections to targets, which are kept: the target of this test has a goroutine for each.
	until(t, "goroutines are as few as before", func() bool { return runtime.NumGoroutine() <= running+200 })
	until(t, "nothing is under way", func() bool {
		for _, r := range e.Report().Routes {
			for _, x := range r.Targets {
				if x.Open > 0 {
					return false
				}
			}
		}
		return true
	})
	runtime.GC()
	if now := heap(); now > before+(16<<20) {
		t.Errorf("%d MB are kept", (now-before)>>20)
	}
}
