package dns_test

import (
	"context"
	"net"
	"os"
	"syscall"
	"testing"

	wire "github.com/miekg/dns"

	"github.com/tenderhq/tender/internal/dns"
)

// Two servers share a socket while one hands it to the other: each query is answered once,
// and the end of the first does not disturb the second.
func TestSocketsOutliveTheServer(t *testing.T) {
	packet, stream := sockets(t)
	addr := packet.LocalAddr().String()
	again := duplicate(t, packet.(syscall.Conn))
	defer again.Close()
	packet2, err := net.FilePacketConn(again)
	if err != nil {
		t.Fatal(err)
	}
	again = duplicate(t, stream.(syscall.Conn))
	defer again.Close()
	stream2, err := net.FileListener(again)
	if err != nil {
		t.Fatal(err)
	}
	start := func(packet net.PacketConn, stream net.Listener) (end func()) {
		s, err := dns.New(dns.Options{NoForward: true})
		if err != nil {
			t.Fatal(err)
		}
		s.Set(shop())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, []net.PacketConn{packet}, []net.Listener{stream}) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	ask := func(when string) {
		t.Helper()
		for _, network := range []string{"udp", "tcp"} {
			for range 50 {
				if got := exchange(t, network, addr, question("web.shop.tender", wire.TypeA)); len(got.Answer) != 2 {
					t.Errorf("%s, %s: %v", when, network, got)
				}
			}
		}
	}
	first := start(packet, stream)
	ask("before")
	second := start(packet2, stream2)
	ask("while both serve")
	first()
	ask("after the first has ended")
	second()
}

func duplicate(t *testing.T, c syscall.Conn) *os.File {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var f *os.File
	err = raw.Control(func(fd uintptr) {
		n, err := syscall.Dup(int(fd))
		if err != nil {
			t.Error(err)
			return
		}
		f = os.NewFile(uintptr(n), "socket")
	})
	if err != nil || f == nil {
		t.Fatalf("duplicate a socket: %v", err)
	}
	return f
}
