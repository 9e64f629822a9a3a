package dns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/dns"
)

// resolver is an upstream that answers as told, on 127.0.0.1.
func resolver(tb testing.TB, answer wire.HandlerFunc) (addr string) {
	tb.Helper()
	packet, stream := sockets(tb)
	for _, s := range []*wire.Server{{PacketConn: packet, Handler: answer}, {Listener: stream, Handler: answer}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- s.ActivateAndServe() }()
		<-started
		tb.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	return packet.LocalAddr().String()
}

// says answers every question with the given records, and counts.
func says(count *atomic.Int64, rcode int, answer, authority []string) wire.HandlerFunc {
	return func(w wire.ResponseWriter, q *wire.Msg) {
		count.Add(1)
		m := new(wire.Msg)
		m.SetRcode(q, rcode)
		for _, r := range answer {
			rr, err := wire.NewRR(r)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		for _, r := range authority {
			rr, err := wire.NewRR(r)
			if err != nil {
				panic(err)
			}
			m.Ns = append(m.Ns, rr)
		}
		_ = w.WriteMsg(m)
	}
}

// behind starts a server that asks the given upstreams, each for so long.
func behind(t *testing.T, perTry time.Duration, upstreams ...string) (*dns.Server, string) {
	t.Helper()
	s, err := dns.New(dns.Options{Upstreams: upstreams})
	if err != nil {
		t.Fatal(err)
	}
	s.Patience(perTry)
	s.Set(shop())
	return s, listen(t, s)
}

func TestUpstreamIsAskedOnce(t *testing.T) {
	var asked atomic.Int64
	up := resolver(t, says(&asked, 0, []string{"example.com. 300 IN CNAME www.example.com.", "www.example.com. 60 IN A 192.0.2.1"}, nil))
	s, addr := behind(t, time.Minute, up)
	for i, name := range []string{"example.com", "EXAMPLE.com", "example.COM"} {
		got := exchange(t, "udp", addr, question(name, wire.TypeA))
		want := fmt.Sprintf("%s.", name)
		if len(got.Answer) != 2 || got.Question[0].Name != want || !got.RecursionAvailable || got.Authoritative {
			t.Errorf("answer %d: %v", i, got)
		}
		if a := got.Answer[1].(*wire.A); a.A.String() != "192.0.2.1" || a.Hdr.Ttl > 60 {
			t.Errorf("answer %d: %v", i, a)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
	exchange(t, "udp", addr, question("example.com", wire.TypeAAAA))
	if n := asked.Load(); n != 2 {
		t.Errorf("another type: upstream was asked %d times", n)
	}
	if st := s.Stats(); st.Cached != 2 || st.Forwarded != 2 {
		t.Errorf("%+v", st)
	}
}

func TestManyAskersOneQuestion(t *testing.T) {
	var asked atomic.Int64
	release := make(chan struct{})
	answer := says(&asked, 0, []string{"slow.example. 60 IN A 192.0.2.1"}, nil)
	up := resolver(t, func(w wire.ResponseWriter, q *wire.Msg) {
		<-release
		answer(w, q)
	})
	s, addr := behind(t, time.Minute, up)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c := wire.Client{Timeout: 30 * time.Second}
			got, _, err := c.Exchange(question("slow.example", wire.TypeA), addr)
			if err != nil || len(got.Answer) != 1 {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	for s.Stats().Queries < 20 { // all are in: those who come later would find the cache
		time.Sleep(time.Millisecond)
	}
	// What is ours is answered meanwhile.
	if got := exchange(t, "udp", addr, question("web.shop.tender", wire.TypeA)); len(got.Answer) != 2 {
		t.Error(got)
	}
	close(release)
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
}

func TestNoSuchNameIsKept(t *testing.T) {
	var asked atomic.Int64
	up := resolver(t, says(&asked, wire.RcodeNameError, nil, []string{"example. 900 IN SOA a. b. 1 2 3 4 60"}))
	_, addr := behind(t, time.Minute, up)
	for range 3 {
		got := exchange(t, "udp", addr, question("no.example", wire.TypeA))
		if got.Rcode != wire.RcodeNameError || len(got.Ns) != 1 {
			t.Error(got)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestWithoutSOAItIsNotKept(t *testing.T) {
	var asked atomic.Int64
	up := resolver(t, says(&asked, wire.RcodeNameError, nil, nil))
	_, addr := behind(t, time.Minute, up)
	for range 3 {
		exchange(t, "udp", addr, question("no.example", wire.TypeA))
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
}

func TestNextUpstreamAnswers(t *testing.T) {
	var failed, asked atomic.Int64
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	broken := resolver(t, says(&failed, wire.RcodeServerFailure, nil, nil))
	works := resolver(t, says(&asked, 0, []string{"example.com. 60 IN A 192.0.2.1"}, nil))
	_, addr := behind(t, 3*time.Second, silent.LocalAddr().String(), broken, works)
	if got := exchange(t, "udp", addr, question("example.com", wire.TypeA)); len(got.Answer) != 1 {
		t.Errorf("%v", got)
	}
	if failed.Load() == 0 || asked.Load() == 0 {
		t.Errorf("asked: %d of the broken, %d of the working", failed.Load(), asked.Load())
	}
}

func TestNobodyAnswers(t *testing.T) {
	gone, stream := sockets(t)
	_, _ = gone.Close(), stream.Close()
	_, addr := serve(t, dns.Options{Upstreams: []string{gone.LocalAddr().String()}}, shop())
	if got := exchange(t, "udp", addr, question("example.com", wire.TypeA)); got.Rcode != wire.RcodeServerFailure {
		t.Errorf("%v", got)
	}
}

func TestUpstreamWithoutEDNS(t *testing.T) {
	var asked atomic.Int64
	answer := says(&asked, 0, []string{"example.com. 60 IN A 192.0.2.1"}, nil)
	up := resolver(t, func(w wire.ResponseWriter, q *wire.Msg) {
		if q.IsEdns0() != nil {
			_ = w.WriteMsg(new(wire.Msg).SetRcode(q, wire.RcodeFormatError))
			return
		}
		answer(w, q)
	})
	_, addr := behind(t, time.Minute, up)
	if got := exchange(t, "udp", addr, question("example.com", wire.TypeA)); len(got.Answer) != 1 {
		t.Errorf("%v", got)
	}
}

func TestLongAnswerComesOverTCP(t *testing.T) {
	var long []string
	for i := range 100 {
		long = append(long, fmt.Sprintf("long.example. 60 IN TXT %q", fmt.Sprint(i, strings.Repeat("x", 100))))
	}
	var asked atomic.Int64
	whole := says(&asked, 0, long, nil)
	up := resolver(t, func(w wire.ResponseWriter, q *wire.Msg) {
		if w.RemoteAddr().Network() == "udp" {
			m := new(wire.Msg)
			m.SetReply(q)
			m.Truncated = true
			_ = w.WriteMsg(m)
			return
		}
		whole(w, q)
	})
	_, addr := behind(t, time.Minute, up)
	if got := exchange(t, "udp", addr, question("long.example", wire.TypeTXT)); !got.Truncated || len(got.Answer) != 0 {
		t.Errorf("over UDP: %v", got)
	}
	if got := exchange(t, "tcp", addr, question("long.example", wire.TypeTXT)); got.Truncated || len(got.Answer) != 100 {
		t.Errorf("over TCP: %d records", len(got.Answer))
	}
}

// An upstream that leads back to us must not make us ask ourselves without end.
func TestUpstreamThatLeadsBack(t *testing.T) {
	packet, stream := sockets(t)
	s, err := dns.New(dns.Options{Upstreams: []string{packet.LocalAddr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), []net.PacketConn{packet}, []net.Listener{stream}) }()
	if got := exchange(t, "udp", packet.LocalAddr().String(), question("example.com", wire.TypeA)); got.Rcode != wire.RcodeServerFailure {
		t.Errorf("%v", got)
	}

	// The same by way of another one, which sends on each packet as it comes from a socket of its own.
	var asked atomic.Int64
	var back atomic.Pointer[string]
	up := resolver(t, func(w wire.ResponseWriter, q *wire.Msg) {
		asked.Add(1)
		c := wire.Client{Timeout: 20 * time.Second}
		m := new(wire.Msg)
		m.SetRcode(q, wire.RcodeServerFailure)
		if got, _, err := c.Exchange(q.Copy().SetQuestion(q.Question[0].Name, q.Question[0].Qtype), *back.Load()); err == nil {
			m.Rcode = got.Rcode
		}
		_ = w.WriteMsg(m)
	})
	_, addr := serve(t, dns.Options{Upstreams: []string{up}}, shop())
	back.Store(&addr)
	if got := exchange(t, "udp", addr, question("example.org", wire.TypeA)); got.Rcode != wire.RcodeServerFailure {
		t.Errorf("%v", got)
	}
	if n := asked.Load(); n > 8 {
		t.Errorf("%d rounds", n)
	}
}

func TestUpstreamMustBeAnAddress(t *testing.T) {
	_, err := dns.New(dns.Options{Upstreams: []string{"resolver.example"}})
	if tender.KindOf(err) != tender.Invalid || tender.AdviceOf(err) == "" {
		t.Errorf("%v", err)
	}
}

// A foreign service may be a host's name: the answer leads all the way to its address.
func TestServiceThatIsAHostName(t *testing.T) {
	var asked atomic.Int64
	up := resolver(t, says(&asked, 0, []string{"host.example. 60 IN CNAME real.example.", "real.example. 60 IN A 192.0.2.44"}, nil))
	s, addr := behind(t, time.Minute, up)
	alone, other := serve(t, dns.Options{}, shop())
	for _, s := range []*dns.Server{s, alone} {
		put(t, s, "/v1/agent/service/register", `{"ID":"mf","Name":"mainframe","Address":"host.example","Port":9000}`, 200)
	}
	want := "NOERROR aa\nhost.example. 60 IN CNAME real.example.\nmainframe.service.consul. 5 IN CNAME host.example.\nreal.example. 60 IN A 192.0.2.44"
	for _, network := range []string{"udp", "tcp"} {
		got := exchange(t, network, addr, question("mainframe.service.consul", wire.TypeA))
		for _, rr := range got.Answer {
			if rr.Header().Ttl > 5 {
				rr.Header().Ttl = 60 // a slow machine may have let it grow older
			}
		}
		if text := show(got); text != want {
			t.Errorf("%s:\n%s", network, text)
		}
	}
	if got := show(exchange(t, "udp", other, question("mainframe.service.consul", wire.TypeA))); got != "NOERROR aa\nmainframe.service.consul. 5 IN CNAME host.example." {
		t.Errorf("without upstream:\n%s", got)
	}
	if got := show(exchange(t, "udp", other, question("mainframe.service.consul", wire.TypeSRV))); got != "NOERROR aa\nmainframe.service.consul. 5 IN SRV 1 1 9000 host.example." {
		t.Errorf("SRV:\n%s", got)
	}
}

// A server that ends answers what it has read, and closes its sockets.
func TestEndAnswersWhatWasRead(t *testing.T) {
	var asked atomic.Int64
	came, release := make(chan struct{}, 9), make(chan struct{})
	answer := says(&asked, 0, []string{"slow.example. 60 IN A 192.0.2.1"}, nil)
	up := resolver(t, func(w wire.ResponseWriter, q *wire.Msg) {
		came <- struct{}{}
		<-release
		answer(w, q)
	})
	s, err := dns.New(dns.Options{Upstreams: []string{up}})
	if err != nil {
		t.Fatal(err)
	}
	s.Patience(time.Minute)
	packet, stream := sockets(t)
	addr := packet.LocalAddr().String()
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, []net.PacketConn{packet}, []net.Listener{stream}) }()
	var wg sync.WaitGroup
	for _, ask := range []struct {
		network string
		kind    uint16
	}{{"udp", wire.TypeA}, {"tcp", wire.TypeAAAA}} {
		wg.Go(func() {
			c := wire.Client{Net: ask.network, Timeout: 30 * time.Second}
			if got, _, err := c.Exchange(question("slow.example", ask.kind), addr); err != nil || len(got.Answer) != 1 {
				t.Errorf("%s: %v, %v", ask.network, got, err)
			}
		})
		<-came
	}
	end()
	close(release)
	wg.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := packet.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket is still open: %v", err)
	}
}
