package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
)

// portRig is a Server with ports, and backends that say who they are.
type portRig struct {
	*Server
	t    *testing.T
	end  func()
	done chan error
}

func servePorts(t *testing.T, o Options, list ...Port) *portRig {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r := &portRig{Server: s, t: t, done: make(chan error, 1)}
	r.table(1, list...)
	ctx, cancel := context.WithCancel(context.Background())
	r.end = cancel
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	})
	for _, p := range list {
		until(t, p.ID+" is listened on", func() bool {
			if p.Protocol == "udp" {
				return s.ports.listens(p.ID)
			}
			c, err := net.Dial("tcp", p.Address)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	return r
}

// listens reports whether a port has been opened.
func (p *ports) listens(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.open[id]; one != nil {
		select {
		case <-one.tried:
			return one.problem.Load() == nil
		default:
		}
	}
	return false
}

func (r *portRig) table(version uint64, list ...Port) {
	r.t.Helper()
	if err := r.Set(Table{Format: Format, Version: version, Ports: list, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}); err != nil {
		r.t.Fatal(err)
	}
}

// free is an address that nobody listens on.
func free(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func tcpPort(address string, targets ...Target) Port {
	return Port{
		ID: "shop/db:5432/tcp", Project: "shop", Service: "db", Address: address, Protocol: "tcp",
		Groups: []Group{{Aim: "db", Revision: "aaa", Weight: 1, Targets: targets}},
	}
}

// tcpBackend serves each connection with serve until the test ends.
func tcpBackend(t *testing.T, serve func(c *net.TCPConn)) Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	a := l.Addr().String()
	return Target{ID: a, Name: a, Address: a}
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) } // the client's end of it is what the tests look at

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestAPortCarriesBytesBothWaysAndTheirEnd(t *testing.T) {
	a := free(t, "tcp")
	s := servePorts(t, Options{}, tcpPort(a, tcpBackend(t, echo)))
	want := make([]byte, 8<<20)
	rand.Read(want)
	c := dial(t, a)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Write(want); err != nil {
			t.Error(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	got, err := io.ReadAll(c)
	wg.Wait()
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes of %d came back: %v", len(got), len(want), err)
	}
	until(t, "the connection is counted", func() bool {
		r := s.Report().Ports[0].Targets[0]
		return r.Open == 0 && r.Served.BytesIn == uint64(len(want)) && r.Served.BytesOut == uint64(len(want)) && r.Served.Failed == 0
	})
}

// A reset that came out as an end made half a dump look like a whole one.
func TestAResetIsNoEnd(t *testing.T) {
	a := free(t, "tcp")
	servePorts(t, Options{}, tcpPort(a, tcpBackend(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "half")
		one := make([]byte, 1)
		_, _ = c.Read(one)
		_ = c.SetLinger(0)
	})))
	c := dial(t, a)
	buf := make([]byte, 4)
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client reads %v", err)
	}
}

func TestARefusedConnectionGoesToAnotherTarget(t *testing.T) {
	a := free(t, "tcp")
	dead := Target{ID: "dead", Name: "db-1", Address: free(t, "tcp")}
	s := servePorts(t, Options{}, tcpPort(a, dead, tcpBackend(t, echo)))
	for range 20 {
		c := dial(t, a)
		fmt.Fprintln(c, "hi")
		if line, err := bufio.NewReader(c).ReadString('\n'); line != "hi\n" {
			t.Fatalf("%q %v", line, err)
		}
		c.Close()
	}
	if f := s.Report().Ports[0].Served.Failed; f != 0 {
		t.Errorf("%d failed", f)
	}
}

func TestAConnectionWaitsForATarget(t *testing.T) {
	a := free(t, "tcp")
	good := tcpBackend(t, echo)
	down := good
	down.Down = true
	s := servePorts(t, Options{}, tcpPort(a, down))
	c := dial(t, a)
	fmt.Fprintln(c, "hi")
	until(t, "it waits", func() bool { return s.Report().Ports[0].Waiting > 0 })
	s.table(2, tcpPort(a, good))
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "hi\n" {
		t.Fatalf("%q %v", line, err)
	}
	until(t, "nobody waits", func() bool { return s.Report().Ports[0].Waiting == 0 })
}

func TestWhereNothingServesAConnectionEnds(t *testing.T) {
	a := free(t, "tcp")
	p := tcpPort(a)
	p.Timeout.Queue = time.Millisecond
	s := servePorts(t, Options{}, p)
	c := dial(t, a)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it is answered")
	}
	until(t, "it is counted", func() bool { return s.Report().Ports[0].Served.Failed > 0 })
}

func TestALeavingTargetKeepsWhatItHas(t *testing.T) {
	a := free(t, "tcp")
	name := func(n string) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			for sc := bufio.NewScanner(c); sc.Scan(); {
				fmt.Fprintln(c, n)
			}
		}
	}
	old, fresh := tcpBackend(t, name("old")), tcpBackend(t, name("new"))
	s := servePorts(t, Options{}, tcpPort(a, old))
	ask := func(c net.Conn) string {
		fmt.Fprintln(c, "who")
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	first := dial(t, a)
	if got := ask(first); got != "old" {
		t.Fatal(got)
	}
	old.Leaving = true
	s.table(2, tcpPort(a, old, fresh))
	for range 10 {
		c := dial(t, a)
		if got := ask(c); got != "new" {
			t.Fatalf("a new connection is served by %s", got)
		}
		c.Close()
	}
	if got := ask(first); got != "old" {
		t.Errorf("the connection that was there is served by %s", got)
	}
	open := func() (n int) {
		for _, x := range s.Report().Ports[0].Targets {
			if x.ID == old.ID {
				n = x.Open
			}
		}
		return n
	}
	until(t, "the connection alone is open", func() bool { return open() == 1 })
	first.Close()
	until(t, "the old one is empty", func() bool { return open() == 0 })
}

func TestTheClientsAddressIsPassedOn(t *testing.T) {
	heads := make(chan string, 4)
	target := tcpBackend(t, func(c *net.TCPConn) {
		source, destination, _, err := readHeader(c)
		heads <- fmt.Sprint(source, " ", destination, " ", err)
		echo(c)
	})
	a := free(t, "tcp")
	for version := 1; version <= 2; version++ {
		p := tcpPort(a, target)
		p.ProxyOut, p.ProxyIn = version, true
		s := servePorts(t, Options{}, p)
		c := dial(t, a)
		fmt.Fprint(c, "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nhi\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); line != "hi\n" {
			t.Fatalf("%q %v", line, err)
		}
		if got, want := <-heads, "192.0.2.7:4711 198.51.100.1:443 <nil>"; got != want {
			t.Errorf("the target reads %s, want %s", got, want)
		}
		c.Close()
		s.end()
		s.done <- <-s.done // the address is free for the next one, which was taken for served while the first one ended
	}
}

func TestASilentConnectionEnds(t *testing.T) {
	a := free(t, "tcp")
	p := tcpPort(a, tcpBackend(t, echo))
	p.Timeout = tender.RouteTimeout{Client: 50 * time.Millisecond, Server: 50 * time.Millisecond}
	servePorts(t, Options{}, p)
	c := dial(t, a)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it reads something")
	}
}

func TestADrainWaitsAndThenCuts(t *testing.T) {
	a := free(t, "tcp")
	s := servePorts(t, Options{Drain: 200 * time.Millisecond}, tcpPort(a, tcpBackend(t, echo)))
	c := dial(t, a)
	r := bufio.NewReader(c)
	fmt.Fprintln(c, "before")
	if line, err := r.ReadString('\n'); line != "before\n" {
		t.Fatalf("%q %v", line, err)
	}
	s.end()
	until(t, "it is listened on no more", func() bool {
		c, err := net.Dial("tcp", a)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if _, err := r.ReadString('\n'); err == nil {
		t.Error("it goes on")
	}
	until(t, "the cut is counted", func() bool { return s.Report().Ports[0].Served.Cut == 1 })
	if f := s.Report().Ports[0].Served.Failed; f != 0 {
		t.Errorf("%d failed", f)
	}
}

func TestPortsComeAndGoWithTheTable(t *testing.T) {
	a, b := free(t, "tcp"), free(t, "tcp")
	target := tcpBackend(t, echo)
	s := servePorts(t, Options{}, tcpPort(a, target))
	moved := tcpPort(b, target)
	s.table(2, moved)
	if c, err := net.Dial("tcp", a); err == nil {
		c.Close()
		t.Error("the old address is still listened on")
	}
	dial(t, b)
	// Another program's port is a problem of that port alone.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second := tcpPort(taken.Addr().String(), target)
	second.ID = "shop/db:1/tcp"
	s.table(3, moved, second)
	problem := func() string {
		for _, p := range s.Report().Ports {
			if p.ID == second.ID {
				return p.Problem
			}
		}
		return "not in the report"
	}
	if p := problem(); !strings.Contains(p, "address already in use") {
		t.Errorf("the report says %q", p)
	}
	dial(t, b)
	taken.Close()
	until(t, "it is listened on once it is free", func() bool { return problem() == "" })
	s.table(4)
	if c, err := net.Dial("tcp", b); err == nil {
		c.Close()
		t.Error("a port that left the table is still listened on")
	}
}

// A port with as many connections as it may have held up every change of the table, and every report.
func TestAFullPortHoldsNothingUp(t *testing.T) {
	p := tcpPort(free(t, "tcp"), tcpBackend(t, echo))
	s := servePorts(t, Options{Drain: time.Millisecond}, p)
	s.ports.mu.Lock()
	room := s.ports.open[p.ID].room
	s.ports.mu.Unlock()
	for full := false; !full; {
		select {
		case room <- struct{}{}:
		default:
			full = true
		}
	}
	// One connection more may be accepted still; the next one waits in the kernel.
	dial(t, p.Address)
	dial(t, p.Address)
	until(t, "it is full", func() bool { return len(room) == cap(room) })
	other := tcpPort(free(t, "tcp"), tcpBackend(t, echo))
	other.ID = "shop/other:1/tcp"
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.table(2, other)
		s.Report()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the table does not change while a port is full")
	}
}
