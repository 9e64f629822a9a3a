package dns

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// An answer from the picture must cost no garbage: that is what keeps the slowest ones short.
func TestAnswersAllocateNothing(t *testing.T) {
	s, x, packet := ready(t)
	if n := testing.AllocsPerRun(1000, func() { s.ours(x, packet) }); n != 0 {
		t.Errorf("%v allocations for an answer", n)
	}
}

func ready(tb testing.TB) (*Server, *exchange, []byte) {
	s, err := New(Options{NoForward: true})
	if err != nil {
		tb.Fatal(err)
	}
	s.Set(Picture{Services: []Service{{
		Project: "shop", Name: "web",
		Endpoints: []Endpoint{{ID: "1", Address: "10.0.0.1", Healthy: true}, {ID: "2", Address: "10.0.0.2", Healthy: true}, {ID: "3", Address: "10.0.0.3", Healthy: true}},
	}}})
	m := new(dns.Msg).SetQuestion("web.shop.tender.", dns.TypeA)
	m.SetEdns0(1232, false)
	packet, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return s, &exchange{client: netip.MustParseAddrPort("127.0.0.1:1")}, packet
}

// BenchmarkAnswer is an answer without the sockets.
func BenchmarkAnswer(b *testing.B) {
	s, x, packet := ready(b)
	b.ReportAllocs()
	for b.Loop() {
		s.ours(x, packet)
	}
}
