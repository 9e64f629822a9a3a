package dns

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func fuzzServer(f *testing.F) *Server {
	s, err := New(Options{NoForward: true})
	if err != nil {
		f.Fatal(err)
	}
	s.Set(Picture{Services: []Service{{
		Project: "p", Name: "web", Ports: []Port{{Name: "http", Number: 80}},
		Endpoints: []Endpoint{
			{ID: "1", Slot: 1, Address: "10.0.0.1", Healthy: true},
			{ID: "2", Slot: 2, Address: "fd00::2", Healthy: true},
			{ID: "3", Address: "host.example", Healthy: true},
		},
	}}})
	return s
}

// Whatever comes in: no panic, nothing longer than was asked for, and what is sent is an
// answer that the library can read, to the question as the library reads it.
func FuzzQuery(f *testing.F) {
	s := fuzzServer(f)
	for _, name := range []string{"web.p.tender.", "_http._tcp.web.p.tender.", "p-web.service.consul.", ".", "1.0.0.10.in-addr.arpa.", "nope.tender."} {
		m := new(dns.Msg).SetQuestion(name, dns.TypeSRV)
		for range 2 {
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, false)
			f.Add(b, true)
			m.SetEdns0(1232, true)
		}
	}
	f.Fuzz(func(t *testing.T, p []byte, stream bool) {
		x := &exchange{client: netip.MustParseAddrPort("127.0.0.1:1"), stream: stream}
		in := bytes.Clone(p)
		msg, more := s.ours(x, p)
		if !bytes.Equal(in, p) {
			t.Error("the query was written to")
		}
		if more {
			t.Fatal("wants to ask upstream, but there is none")
		}
		if msg == nil {
			return
		}
		if !stream && len(msg) > ownSize {
			t.Errorf("%d bytes", len(msg))
		}
		var got dns.Msg
		if err := got.Unpack(msg); err != nil {
			t.Fatalf("answer %x: %v", msg, err)
		}
		if !got.Response || got.Id != uint16(p[0])<<8|uint16(p[1]) {
			t.Errorf("no answer to it: %v", got)
		}
		var asked dns.Msg
		if err := asked.Unpack(p); err == nil && len(asked.Question) == 1 && len(got.Question) == 1 && got.Question[0] != asked.Question[0] {
			t.Errorf("question %v, answered %v", asked.Question[0], got.Question[0])
		}
	})
}

// What an upstream says is kept and given out without a panic.
func FuzzKeep(f *testing.F) {
	m := new(dns.Msg).SetQuestion("example.com.", dns.TypeA)
	m.Response = true
	for _, text := range []string{"example.com. 60 IN A 192.0.2.1", "example.com. 60 IN TXT \"x\"", "example.com. 60 IN SOA a. b. 1 2 3 4 5"} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	plain, err := new(dns.Msg).SetQuestion("example.com.", dns.TypeA).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var m dns.Msg
		if m.Unpack(p) != nil {
			return
		}
		// exchange has let through only what answers the question.
		m.Question = []dns.Question{{Name: "example.com.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		k, err := keep(&m, time.Now())
		if err != nil {
			return
		}
		var q query
		if _, ok := q.parse(plain); !ok {
			t.Fatal("no query")
		}
		var r reply
		r.start(make([]byte, ownSize), &q, dns.MaxMsgSize)
		var got dns.Msg
		if err := got.Unpack(k.write(&r)); err != nil {
			t.Errorf("given out: %v", err)
		}
	})
}

// A client's registration is refused, or can be answered with over DNS and read back from the file.
func FuzzRegister(f *testing.F) {
	f.Add(`{"ID":"a1","Name":"a","Address":"192.0.2.1","Port":80,"Tags":["t"],"Meta":{"k":"v"},"Check":{"TTL":"10s","DeregisterCriticalServiceAfter":"1m"}}`)
	f.Add(`{"Name":"a","Checks":[{"TTL":10000000000},{"ttl":"10s","status":"passing"}],"Weights":{"Passing":3}}`)
	f.Add(`{"Name":"a","Address":"host.example","Connect":{},"Proxy":null}`)
	f.Fuzz(func(t *testing.T, body string) {
		s, err := New(Options{NoForward: true, Dir: ""})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.Consul().ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), "PUT", "/v1/agent/service/register", strings.NewReader(body)))
		if w.Code/100 == 5 {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
		if w.Code != 200 {
			return
		}
		var list []*registration
		for _, r := range s.registered {
			list = append(list, r)
		}
		b, err := json.Marshal(file{Format: 1, Services: list})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(b); err != nil {
			t.Errorf("%s: %v", b, err)
		}
	})
}

// A query's parameters never end in a wait without end or a server's error.
func FuzzAsked(f *testing.F) {
	s := fuzzServer(f)
	f.Add("index=1&wait=10s&passing&tag=a")
	f.Add("index=18446744073709551615&wait=-1s")
	f.Add("dc=dc1&pretty&passing=true")
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequestWithContext(context.Background(), "GET", "/v1/health/service/p-web", nil)
		r.URL.RawQuery = query
		_, wait, err := s.asked(r)
		if err == nil && (wait <= 0 || wait > longestWait) {
			t.Errorf("waits for %v", wait)
		}
	})
}

func FuzzPicture(f *testing.F) {
	f.Add([]byte(`{"index":1,"services":[{"project":"p","name":"a","endpoints":[{"id":"1","address":"10.0.0.1","healthy":true,"port":80}]}],"nodes":[{"name":"n","address":"10.0.0.1"}]}`))
	s := fuzzServer(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Picture
		if json.Unmarshal(b, &p) != nil {
			return
		}
		before, _ := s.Changed()
		s.Set(p)
		if after, _ := s.Changed(); after < before {
			t.Errorf("index %d after %d", after, before)
		}
	})
}
