package dns_test

import (
	"encoding/binary"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/tenderhq/tender/internal/dns"
)

// BenchmarkQueries asks over real sockets, from as many clients as there are processors, 16
// queries under way each. It reports queries per second and per CPU second (of
// clients and server together), and how long the slowest one in a hundred took.
func BenchmarkQueries(b *testing.B) {
	for _, c := range []struct {
		name string
		ask  *wire.Msg
	}{
		{"A", question("web.shop.tender", wire.TypeA)},
		{"SRV", question("_http._tcp.web.shop.tender", wire.TypeSRV)},
		{"none", question("nope.shop.tender", wire.TypeA)},
		{"cached", question("example.com", wire.TypeA)},
	} {
		b.Run(c.name, func(b *testing.B) {
			var o dns.Options
			if c.name == "cached" {
				up := resolver(b, func(w wire.ResponseWriter, q *wire.Msg) {
					m := new(wire.Msg).SetReply(q)
					rr, _ := wire.NewRR("example.com. 3600 IN A 192.0.2.1")
					m.Answer = []wire.RR{rr}
					_ = w.WriteMsg(m)
				})
				o.Upstreams = []string{up}
			}
			_, addr := serve(b, o, shop())
			exchange(b, "udp", addr, c.ask)
			packet, err := c.ask.Pack()
			if err != nil {
				b.Fatal(err)
			}
			before := cpu(b)
			b.ResetTimer()
			took := load(b, addr, packet)
			b.StopTimer()
			used := cpu(b) - before
			slices.Sort(took)
			b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "q/s")
			b.ReportMetric(float64(len(took))/used.Seconds(), "q/cpu-s")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkPaced asks 20,000 queries a second, 20 at each millisecond, and reports how long the
// slowest in a hundred took, and the part of one processor that clients and server used.
func BenchmarkPaced(b *testing.B) {
	_, addr := serve(b, dns.Options{}, shop())
	conn, err := net.Dial("udp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	packet, err := question("web.shop.tender", wire.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	var sent [1 << 16]atomic.Int64
	begin, used := time.Now(), cpu(b)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := range b.N {
			if i%20 == 0 {
				<-tick.C
			}
			binary.BigEndian.PutUint16(packet, uint16(i))
			sent[uint16(i)].Store(int64(time.Since(begin)))
			if _, err := conn.Write(packet); err != nil {
				return // the reader sees that nothing comes
			}
		}
	}()
	took := make([]time.Duration, 0, b.N)
	in := make([]byte, 4096)
	for range b.N {
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(in); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin)-time.Duration(sent[binary.BigEndian.Uint16(in)].Load()))
	}
	used = cpu(b) - used
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(100*used.Seconds()/time.Since(begin).Seconds(), "%cpu")
}

// load sends b.N queries and returns how long each took.
func load(b *testing.B, addr string, packet []byte) []time.Duration {
	const window = 16
	clients := min(runtime.GOMAXPROCS(0), b.N)
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	for i := range clients {
		n := b.N / clients
		if i == 0 {
			n += b.N % clients
		}
		wg.Go(func() {
			conn, err := net.Dial("udp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			took := make([]time.Duration, 0, n)
			sent := make([]time.Time, 1<<16)
			out, in := slices.Clone(packet), make([]byte, 4096)
			for asked := 0; len(took) < n; {
				for ; asked < n && asked-len(took) < window; asked++ {
					binary.BigEndian.PutUint16(out, uint16(asked))
					sent[uint16(asked)] = time.Now()
					if _, err := conn.Write(out); err != nil {
						b.Error(err)
						return
					}
				}
				_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := conn.Read(in); err != nil {
					b.Error(err)
					return
				}
				took = append(took, time.Since(sent[binary.BigEndian.Uint16(in)]))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	wg.Wait()
	return all
}

// cpu returns what this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSet makes a picture of 500 instances the one to answer from.
func BenchmarkSet(b *testing.B) {
	s, err := dns.New(dns.Options{NoForward: true})
	if err != nil {
		b.Fatal(err)
	}
	p := [2]dns.Picture{many(500), many(499)}
	for i := range b.N {
		s.Set(p[i%2])
	}
}
