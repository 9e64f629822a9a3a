package dns_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	wire "github.com/miekg/dns"

	"github.com/tenderhq/tender/internal/dns"
)

// shop is a picture with most of what there can be.
func shop() dns.Picture {
	return dns.Picture{
		Nodes: []dns.Node{{Name: "one", Address: "10.9.0.1"}},
		Services: []dns.Service{
			{
				Project: "shop", Name: "web", Tags: []string{"v2", "public"}, Meta: map[string]string{"team": "a"},
				Ports: []dns.Port{{Name: "http", Number: 8080}, {Name: "metrics", Number: 9100}, {Name: "quic", Number: 8443, Protocol: "udp"}},
				Endpoints: []dns.Endpoint{
					{ID: "aaaaaaaaaaaaaaaaaaaa", Name: "shop-web-1", Slot: 1, Address: "10.0.0.1", Healthy: true, Node: "one"},
					{ID: "bbbbbbbbbbbbbbbbbbbb", Name: "shop-web-2", Slot: 2, Address: "10.0.0.2", Healthy: true, Node: "one"},
					{ID: "cccccccccccccccccccc", Name: "shop-web-3", Slot: 3, Address: "10.0.0.3", Node: "one"},
				},
			},
			{
				Project: "shop", Name: "db", Catalog: "postgres",
				Ports:     []dns.Port{{Number: 5432}},
				Endpoints: []dns.Endpoint{{ID: "dddddddddddddddddddd", Name: "shop-db-1", Slot: 1, Address: "fd00::5", Healthy: true, Node: "one"}},
			},
			{
				Project: "shop", Name: "sick",
				Ports:     []dns.Port{{Name: "http", Number: 80}},
				Endpoints: []dns.Endpoint{{ID: "eeeeeeeeeeeeeeeeeeee", Name: "shop-sick-1", Slot: 1, Address: "10.0.0.9", Node: "one"}},
			},
			// Its name is that of the first instance of web: the service has it.
			{Project: "shop", Name: "web-1", Catalog: "-", Endpoints: []dns.Endpoint{{ID: "ffffffffffffffffffff", Address: "10.0.0.77", Healthy: true}}},
		},
	}
}

// serve starts a server on sockets of its own, and stops it at the test's end.
func serve(tb testing.TB, o dns.Options, p dns.Picture) (s *dns.Server, addr string) {
	tb.Helper()
	if o.Upstreams == nil {
		o.NoForward = true
	}
	s, err := dns.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	s.Set(p)
	return s, listen(tb, s)
}

func listen(tb testing.TB, s *dns.Server) string {
	tb.Helper()
	packet, stream := sockets(tb)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, []net.PacketConn{packet}, []net.Listener{stream}) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("serve: %v", err)
		}
	})
	return packet.LocalAddr().String()
}

// sockets returns a UDP and a TCP socket of the same port.
func sockets(tb testing.TB) (net.PacketConn, net.Listener) {
	tb.Helper()
	for range 50 {
		stream, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		packet, err := net.ListenPacket("udp", stream.Addr().String())
		if err == nil {
			return packet, stream
		}
		_ = stream.Close() // the port is taken for UDP: another one
	}
	tb.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

func question(name string, kind uint16) *wire.Msg {
	m := new(wire.Msg)
	return m.SetQuestion(wire.Fqdn(name), kind)
}

func exchange(tb testing.TB, network, addr string, m *wire.Msg) *wire.Msg {
	tb.Helper()
	c := wire.Client{Net: network, Timeout: 30 * time.Second}
	got, _, err := c.Exchange(m, addr)
	if err != nil {
		tb.Fatalf("ask %s over %s: %v", m.Question[0].Name, network, err)
	}
	return got
}

// show prints the parts of an answer that matter, sorted, since the order is random.
func show(m *wire.Msg) string {
	var out []string
	for _, section := range []struct {
		name string
		rrs  []wire.RR
	}{{"", m.Answer}, {"authority ", m.Ns}, {"extra ", m.Extra}} {
		var lines []string
		for _, rr := range section.rrs {
			if rr.Header().Rrtype == wire.TypeOPT {
				continue
			}
			if soa, ok := rr.(*wire.SOA); ok {
				soa.Serial = 0
			}
			lines = append(lines, section.name+strings.Join(strings.Fields(rr.String()), " "))
		}
		slices.Sort(lines)
		out = append(out, lines...)
	}
	head := wire.RcodeToString[m.Rcode]
	if m.Authoritative {
		head += " aa"
	}
	if m.Truncated {
		head += " tc"
	}
	return strings.Join(append([]string{head}, out...), "\n")
}

const (
	noTender = "authority tender. 5 IN SOA ns.tender. hostmaster.tender. 0 3600 600 86400 5"
	noConsul = "authority consul. 5 IN SOA ns.consul. hostmaster.consul. 0 3600 600 86400 5"
)

func TestAnswers(t *testing.T) {
	_, addr := serve(t, dns.Options{}, shop())
	for _, c := range []struct {
		what, name, kind, want string
	}{
		{"healthy instances of a service", "web.shop.tender", "A", "NOERROR aa\nweb.shop.tender. 5 IN A 10.0.0.1\nweb.shop.tender. 5 IN A 10.0.0.2"},
		{"the case of the question comes back", "wEb.Shop.TENDER", "A", "NOERROR aa\nwEb.Shop.TENDER. 5 IN A 10.0.0.1\nwEb.Shop.TENDER. 5 IN A 10.0.0.2"},
		{"no address of this kind", "web.shop.tender", "AAAA", "NOERROR aa\n" + noTender},
		{"IPv6", "db.shop.tender", "AAAA", "NOERROR aa\ndb.shop.tender. 5 IN AAAA fd00::5"},
		{"any", "db.shop.tender", "ANY", "NOERROR aa\ndb.shop.tender. 5 IN AAAA fd00::5"},
		{"another type", "web.shop.tender", "MX", "NOERROR aa\n" + noTender},
		{"a service without healthy instances exists", "sick.shop.tender", "A", "NOERROR aa\n" + noTender},
		{"its port exists", "_http._tcp.sick.shop.tender", "SRV", "NOERROR aa\n" + noTender},
		{"a project exists", "shop.tender", "A", "NOERROR aa\n" + noTender},
		{"no such service", "nope.shop.tender", "A", "NXDOMAIN aa\n" + noTender},
		{"no such project", "web.nope.tender", "A", "NXDOMAIN aa\n" + noTender},
		{"the zone", "tender", "SOA", "NOERROR aa\ntender. 5 IN SOA ns.tender. hostmaster.tender. 0 3600 600 86400 5"},
		{"an instance by slot", "web-2.shop.tender", "A", "NOERROR aa\nweb-2.shop.tender. 5 IN A 10.0.0.2"},
		{"an instance that is not healthy", "web-3.shop.tender", "A", "NOERROR aa\n" + noTender},
		{"a service with the name of a slot", "web-1.shop.tender", "A", "NOERROR aa\nweb-1.shop.tender. 5 IN A 10.0.0.77"},
		{"an instance by name", "shop-web-1.web.shop.tender", "A", "NOERROR aa\nshop-web-1.web.shop.tender. 5 IN A 10.0.0.1"},
		{"an instance by its short id", "bbbbbbbbbbbb.web.shop.tender", "A", "NOERROR aa\nbbbbbbbbbbbb.web.shop.tender. 5 IN A 10.0.0.2"},
		{
			"SRV of the name", "db.shop.tender", "SRV",
			"NOERROR aa\ndb.shop.tender. 5 IN SRV 1 1 5432 db-1.shop.tender.\nextra db-1.shop.tender. 5 IN AAAA fd00::5",
		},
		{
			"SRV of a port", "_metrics._tcp.web.shop.tender", "SRV",
			"NOERROR aa\n_metrics._tcp.web.shop.tender. 5 IN SRV 1 1 9100 shop-web-1.web.shop.tender.\n_metrics._tcp.web.shop.tender. 5 IN SRV 1 1 9100 web-2.shop.tender.\n" +
				"extra shop-web-1.web.shop.tender. 5 IN A 10.0.0.1\nextra web-2.shop.tender. 5 IN A 10.0.0.2",
		},
		{
			"SRV of a UDP port by number", "_8443._udp.web-2.shop.tender", "SRV",
			"NXDOMAIN aa\n" + noTender,
		},
		{"a port of another protocol", "_quic._tcp.web.shop.tender", "SRV", "NXDOMAIN aa\n" + noTender},
		{"between", "_tcp.web.shop.tender", "SRV", "NOERROR aa\n" + noTender},
		{"the way back", "2.0.0.10.in-addr.arpa", "PTR", "NOERROR aa\n2.0.0.10.in-addr.arpa. 5 IN PTR web-2.shop.tender."},
		{"Consul's name", "shop-web.service.consul", "A", "NOERROR aa\nshop-web.service.consul. 5 IN A 10.0.0.1\nshop-web.service.consul. 5 IN A 10.0.0.2"},
		{"with a tag", "v2.shop-web.service.consul", "A", "NOERROR aa\nv2.shop-web.service.consul. 5 IN A 10.0.0.1\nv2.shop-web.service.consul. 5 IN A 10.0.0.2"},
		{"with a datacenter", "postgres.service.dc1.consul", "AAAA", "NOERROR aa\npostgres.service.dc1.consul. 5 IN AAAA fd00::5"},
		{"with another tag", "v1.shop-web.service.consul", "A", "NXDOMAIN aa\n" + noConsul},
		{"as Consul, nothing healthy is no name", "shop-sick.service.consul", "A", "NXDOMAIN aa\n" + noConsul},
		{"not listed", "shop-web-1.service.consul", "A", "NXDOMAIN aa\n" + noConsul},
		{
			"Consul's SRV", "postgres.service.consul", "SRV",
			"NOERROR aa\npostgres.service.consul. 5 IN SRV 1 1 5432 fd000000000000000000000000000005.addr.dc1.consul.\n" +
				"extra fd000000000000000000000000000005.addr.dc1.consul. 5 IN AAAA fd00::5",
		},
		{
			"Consul's SRV by RFC 2782", "_shop-web._v2.service.consul", "SRV",
			"NOERROR aa\n_shop-web._v2.service.consul. 5 IN SRV 1 1 8080 0a000001.addr.dc1.consul.\n_shop-web._v2.service.consul. 5 IN SRV 1 1 8080 0a000002.addr.dc1.consul.\n" +
				"extra 0a000001.addr.dc1.consul. 5 IN A 10.0.0.1\nextra 0a000002.addr.dc1.consul. 5 IN A 10.0.0.2",
		},
		{"a target of it", "0a000002.addr.dc1.consul", "A", "NOERROR aa\n0a000002.addr.dc1.consul. 5 IN A 10.0.0.2"},
		{"a node", "one.node.consul", "A", "NOERROR aa\none.node.consul. 5 IN A 10.9.0.1"},
		{"somebody else's name", "example.com", "A", "REFUSED"},
		{"almost ours", "xtender", "A", "REFUSED"},
		{"no transfer", "tender", "AXFR", "REFUSED aa"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(c.what+" over "+network, func(t *testing.T) {
				got := show(exchange(t, network, addr, question(c.name, wire.StringToType[c.kind])))
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestOrderIsRandom(t *testing.T) {
	_, addr := serve(t, dns.Options{}, shop())
	first := map[string]bool{}
	for range 200 { // all the same by chance: once in 2^199
		first[exchange(t, "udp", addr, question("web.shop.tender", wire.TypeA)).Answer[0].String()] = true
	}
	if len(first) != 2 {
		t.Errorf("the first of two was always %v", first)
	}
}

func many(n int) dns.Picture {
	s := dns.Service{Project: "p", Name: "s", Ports: []dns.Port{{Number: 80}}}
	for i := range n {
		s.Endpoints = append(s.Endpoints, dns.Endpoint{
			ID: fmt.Sprintf("%020d", i), Slot: i + 1, Healthy: true, Address: netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(i%250 + 1)}).String(),
		})
	}
	return dns.Picture{Services: []dns.Service{s}}
}

func TestTooLongForAPacket(t *testing.T) {
	_, addr := serve(t, dns.Options{}, many(300))
	plain := question("s.p.tender", wire.TypeA)
	got := exchange(t, "udp", addr, plain)
	got.Compress = true // as it came
	if n := got.Len(); !got.Truncated || n > 512 || len(got.Answer) < 20 {
		t.Errorf("without EDNS: truncated %v, %d records in %d bytes", got.Truncated, len(got.Answer), n)
	}
	if got.IsEdns0() != nil {
		t.Error("EDNS in an answer to a query without")
	}
	large := question("s.p.tender", wire.TypeA)
	large.SetEdns0(4096, true)
	got = exchange(t, "udp", addr, large)
	if len(got.Answer) < 60 || !got.Truncated {
		t.Errorf("with EDNS: truncated %v, %d records", got.Truncated, len(got.Answer))
	}
	if opt := got.IsEdns0(); opt == nil || opt.UDPSize() != 1232 || !opt.Do() {
		t.Errorf("EDNS in the answer: %v", opt)
	}
	got = exchange(t, "tcp", addr, plain)
	if got.Truncated || len(got.Answer) != 300 {
		t.Errorf("over TCP: truncated %v, %d records", got.Truncated, len(got.Answer))
	}
	srv := question("s.p.tender", wire.TypeSRV)
	srv.SetEdns0(1232, false)
	if got = exchange(t, "udp", addr, srv); !got.Truncated || len(got.Answer) < 10 {
		t.Errorf("SRV: truncated %v, %d records", got.Truncated, len(got.Answer))
	}
	few := exchange(t, "tcp", addr, question("s.p.tender", wire.TypeSRV))
	if len(few.Answer) != 300 || len(few.Extra) != 300 {
		t.Errorf("SRV over TCP: %d records, %d additional", len(few.Answer), len(few.Extra))
	}
}

func TestAdditionalMayBeMissing(t *testing.T) {
	_, addr := serve(t, dns.Options{}, many(9))
	got := exchange(t, "udp", addr, question("s.p.tender", wire.TypeSRV))
	if got.Truncated || len(got.Answer) != 9 || len(got.Extra) >= 9 {
		t.Errorf("truncated %v, %d answers, %d additional", got.Truncated, len(got.Answer), len(got.Extra))
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	s, addr := serve(t, dns.Options{}, shop())
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func(p []byte) *wire.Msg {
		t.Helper()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		m := new(wire.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			t.Fatal(err)
		}
		return m
	}
	pack := func(change func(*wire.Msg)) []byte {
		m := question("web.shop.tender", wire.TypeA)
		m.Id = 7
		change(m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		what string
		p    []byte
		want string
	}{
		{"another opcode", pack(func(m *wire.Msg) { m.Opcode = wire.OpcodeUpdate }), "NOTIMP"},
		{"two questions", pack(func(m *wire.Msg) { m.Question = append(m.Question, m.Question[0]) }), "FORMERR"},
		{"no question", pack(func(m *wire.Msg) { m.Question = nil }), "FORMERR"},
		{"cut off", pack(func(*wire.Msg) {})[:20], "FORMERR"},
		{"another class", pack(func(m *wire.Msg) { m.Question[0].Qclass = wire.ClassCHAOS }), "REFUSED"},
		{"another version of EDNS", pack(func(m *wire.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }), "BADVERS"},
		{"EDNS twice", pack(func(m *wire.Msg) { m.SetEdns0(1232, false); m.SetEdns0(1232, false) }), "FORMERR"},
	} {
		got := ask(c.p)
		rcode := got.Rcode
		if opt := got.IsEdns0(); opt != nil {
			rcode |= opt.ExtendedRcode()
		}
		if name := wire.RcodeToString[rcode]; name != c.want && !(c.want == "BADVERS" && rcode == wire.RcodeBadVers) || got.Id != 7 && c.what != "cut off" {
			t.Errorf("%s: %s, id %d", c.what, name, got.Id)
		}
	}
	// An answer must not be answered, nor what is no message: the next thing to come back is the
	// answer to a query that follows.
	for _, p := range [][]byte{pack(func(m *wire.Msg) { m.Response = true }), {1, 2, 3}, {}} {
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(pack(func(m *wire.Msg) { m.Id = 99 })); got.Id != 99 || len(got.Answer) != 2 {
		t.Errorf("after what is no query: %v", got)
	}
	if n := s.Stats().Dropped; n < 2 {
		t.Errorf("%d dropped", n)
	}
}

func TestOnlyAllowedClients(t *testing.T) {
	_, addr := serve(t, dns.Options{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, shop())
	if got := show(exchange(t, "udp", addr, question("web.shop.tender", wire.TypeA))); got != "REFUSED" {
		t.Error(got)
	}
	c := wire.Client{Net: "tcp", Timeout: 30 * time.Second}
	if got, _, err := c.Exchange(question("web.shop.tender", wire.TypeA), addr); err == nil {
		t.Errorf("over TCP: %v", got)
	}
}

// The address that was asked answers, also where the socket is bound to all of them: most
// clients take an answer from nowhere else.
func TestAnswersFromTheAddressAsked(t *testing.T) {
	for _, network := range []string{"udp4", "udp"} {
		s, err := dns.New(dns.Options{NoForward: true})
		if err != nil {
			t.Fatal(err)
		}
		s.Set(shop())
		packet, err := net.ListenPacket(network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, []net.PacketConn{packet}, nil) }()
		to := fmt.Sprintf("127.0.0.9:%d", packet.LocalAddr().(*net.UDPAddr).Port)
		c := wire.Client{Timeout: time.Second}
		for deadline := time.Now().Add(time.Minute); ; {
			got, _, err := c.Exchange(question("web-2.shop.tender", wire.TypeA), to)
			if err == nil && len(got.Answer) == 1 {
				break
			}
			// What comes in before Serve has begun is answered from anywhere; clients ask again.
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v, %v", network, got, err)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestServeEndsWithBrokenSocket(t *testing.T) {
	s, err := dns.New(dns.Options{NoForward: true})
	if err != nil {
		t.Fatal(err)
	}
	packet, stream := sockets(t)
	broken := &brokenPacket{PacketConn: packet}
	if err := s.Serve(t.Context(), []net.PacketConn{broken}, []net.Listener{stream}); err == nil || !strings.Contains(err.Error(), "read DNS queries: torn") {
		t.Errorf("serve: %v", err)
	}
}

type brokenPacket struct{ net.PacketConn }

func (*brokenPacket) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, fmt.Errorf("torn") }

func TestSetIsSeenAtOnce(t *testing.T) {
	s, addr := serve(t, dns.Options{}, dns.Picture{})
	before, next := s.Changed()
	s.Set(dns.Picture{})
	if now, _ := s.Changed(); now != before {
		t.Error("the index grew with a picture that says the same")
	}
	s.Set(shop())
	select {
	case <-next:
	case <-t.Context().Done():
	}
	now, _ := s.Changed()
	if now <= before {
		t.Errorf("index %d after %d", now, before)
	}
	if got := exchange(t, "udp", addr, question("web.shop.tender", wire.TypeA)); len(got.Answer) != 2 {
		t.Errorf("after Set: %v", got)
	}
	s.Set(dns.Picture{Index: now + 100})
	s.Set(shop())
	if later, _ := s.Changed(); later <= now+100 {
		t.Errorf("index %d, below that of the picture", later)
	}
}

// The picture of one server makes another one answer the same: so the edge answers for serve.
func TestPictureTravels(t *testing.T) {
	first, _ := serve(t, dns.Options{}, shop())
	_, addr := serve(t, dns.Options{}, first.Picture())
	if got := exchange(t, "udp", addr, question("web.shop.tender", wire.TypeA)); len(got.Answer) != 2 {
		t.Errorf("from a picture that travelled: %v", got)
	}
}

func TestNamesThatDNSCannotHave(t *testing.T) {
	_, addr := serve(t, dns.Options{}, dns.Picture{Services: []dns.Service{
		{Project: "p", Name: strings.Repeat("x", 64), Endpoints: []dns.Endpoint{{ID: "1", Address: "10.0.0.1", Healthy: true}}},
		{Project: "p", Name: "a..b", Endpoints: []dns.Endpoint{{ID: "2", Address: "10.0.0.2", Healthy: true}}},
		{Project: "p", Name: "under_score", Endpoints: []dns.Endpoint{{ID: "3", Address: "10.0.0.3", Healthy: true}}},
		{Project: "p", Name: "no-address", Endpoints: []dns.Endpoint{{ID: "4", Healthy: true}}},
	}})
	if got := exchange(t, "udp", addr, question("under_score.p.tender", wire.TypeA)); len(got.Answer) != 1 {
		t.Error(got)
	}
	if got := exchange(t, "udp", addr, question("no-address.p.tender", wire.TypeA)); len(got.Answer) != 0 || got.Rcode != 0 {
		t.Error(got)
	}
}

func TestManyQueriesOnOneConnection(t *testing.T) {
	_, addr := serve(t, dns.Options{}, shop())
	conn, err := wire.DialTimeout("tcp", addr, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 100 { // sent before any answer is read
		if err := conn.WriteMsg(question("web.shop.tender", wire.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	for range 100 {
		if m, err := conn.ReadMsg(); err != nil || len(m.Answer) != 2 {
			t.Fatalf("%v, %v", m, err)
		}
	}
}

// One client that holds many connections open must not keep another one out.
func TestConnectionsOfOneClient(t *testing.T) {
	s, addr := serve(t, dns.Options{}, shop())
	for range 400 { // fewer than all clients together may have
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	// The kernel accepts them before the server does.
	for s.Stats().Dropped == 0 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("400 connections of one client, and none was turned away")
		}
	}
	c := wire.Client{Net: "tcp", Timeout: 30 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}}
	if got, _, err := c.Exchange(question("web.shop.tender", wire.TypeA), addr); err != nil || len(got.Answer) != 2 {
		t.Errorf("another client: %v, %v", got, err)
	}
}
