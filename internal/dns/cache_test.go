package dns

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	tender "github.com/tenderhq/tender"
)

func answerOf(t *testing.T, name, record string) *kept {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.Response = true
	rr, err := dns.NewRR(record)
	if err != nil {
		t.Fatal(err)
	}
	m.Answer = []dns.RR{rr}
	k, err := keep(m, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(2)
	for _, key := range []string{"a", "b", "c"} {
		c.put(key, answerOf(t, "x.", "x. 60 IN A 192.0.2.1"))
		c.get([]byte("a")) // used last, so b is the one to go
	}
	if c.len() != 2 || c.get([]byte("a")) == nil || c.get([]byte("b")) != nil || c.get([]byte("c")) == nil {
		t.Errorf("%d kept, b: %v", c.len(), c.get([]byte("b")))
	}
	c.put("d", answerOf(t, "x.", "x. 0 IN A 192.0.2.1"))
	if c.get([]byte("d")) != nil {
		t.Error("an answer that lives no second is kept")
	}
}

func TestAnswersGrowOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := answerOf(t, "x.", "x. 60 IN A 192.0.2.1")
		time.Sleep(20*time.Second + time.Millisecond)
		ttl := func() uint32 {
			m := new(dns.Msg)
			b, err := m.SetQuestion("x.", dns.TypeA).Pack()
			if err != nil {
				t.Fatal(err)
			}
			var q query
			if rcode, ok := q.parse(b); !ok || rcode != 0 {
				t.Fatal("not a query")
			}
			var r reply
			r.start(make([]byte, 512), &q, 512)
			var got dns.Msg
			if err := got.Unpack(k.write(&r)); err != nil {
				t.Fatal(err)
			}
			return got.Answer[0].Header().Ttl
		}
		if n := ttl(); n != 40 {
			t.Errorf("after 20 s of 60: %d", n)
		}
		time.Sleep(time.Hour)
		if n := ttl(); n != 0 {
			t.Errorf("after its end: %d", n)
		}
		k.stale = true
		if n := ttl(); n != staleTTL {
			t.Errorf("stale: %d", n)
		}
	})
}

func TestUpstreamsFromFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	synctest.Test(t, func(t *testing.T) {
		f := newForwarder(&Options{ResolvConf: path, Cache: 1})
		now := time.Now()
		addrs := func() []string {
			var out []string
			for _, u := range f.upstreams(now) {
				out = append(out, u.addr.String())
			}
			return out
		}
		write := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			now = now.Add(rereading)
			if err := os.Chtimes(path, now, now); err != nil {
				t.Fatal(err)
			}
		}
		if got := addrs(); got != nil {
			t.Errorf("without a file: %v", got)
		}
		write("search example\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n")
		if got, want := addrs(), []string{"192.0.2.1:53", "[2001:db8::1]:53"}; !slices.Equal(got, want) {
			t.Errorf("%v, not %v", got, want)
		}
		f.rest(f.servers[0], now)
		if got, want := addrs(), []string{"[2001:db8::1]:53", "192.0.2.1:53"}; !slices.Equal(got, want) {
			t.Errorf("after a failure of the first: %v, not %v", got, want)
		}
		write("nameserver 127.0.0.1\nnameserver 192.0.2.9\n")
		f.mine = append(f.mine, netip.MustParseAddrPort("0.0.0.0:53"))
		if got, want := addrs(), []string{"192.0.2.9:53"}; !slices.Equal(got, want) {
			t.Errorf("with ourselves in it: %v, not %v", got, want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		now = now.Add(rereading)
		if got, want := addrs(), []string{"192.0.2.9:53"}; !slices.Equal(got, want) {
			t.Errorf("after the file has gone: %v, not %v", got, want)
		}
	})
}

// With no upstream in reach, an answer whose time is over is better than none.
func TestStaleAnswerWhenNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newForwarder(&Options{ResolvConf: filepath.Join(t.TempDir(), "none"), Cache: 10, Log: slog.New(slog.DiscardHandler)})
		q := &query{kind: dns.TypeA, class: dns.ClassINET}
		name, _ := wireName("x")
		q.nameN = copy(q.name[:], name)
		if _, _, err := f.ask(t.Context(), q); tender.KindOf(err) != tender.Unavailable {
			t.Errorf("without upstreams: %v", err)
		}
		f.cache.put(string(appendKey(nil, q)), answerOf(t, "x.", "x. 60 IN A 192.0.2.1"))
		if k, cached, err := f.ask(t.Context(), q); err != nil || !cached || k.stale {
			t.Errorf("fresh: %+v, %v", k, err)
		}
		time.Sleep(time.Hour)
		if k, _, err := f.ask(t.Context(), q); err != nil || !k.stale {
			t.Errorf("old: %+v, %v", k, err)
		}
		time.Sleep(staleFor)
		if _, _, err := f.ask(t.Context(), q); err == nil {
			t.Error("too old, but given out")
		}
	})
}
