package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"github.com/miekg/dns"
)

// exchange is one query on its way through the server, with the buffers for it. Sockets
// keep one and use it again and again.
type exchange struct {
	q      query
	out    [ownSize]byte // what a packet can hold; longer answers over TCP get their own
	reply  reply
	client netip.AddrPort
	stream bool // over TCP
	inside *inside
}

func (x *exchange) limit() int {
	if x.stream {
		return dns.MaxMsgSize
	}
	return x.q.size
}

// ours answers what needs no one else. A nil message with more true: someone upstream has
// to be asked. A nil message with more false: nothing is to be sent.
func (s *Server) ours(x *exchange, packet []byte) (msg []byte, more bool) {
	s.count.queries.Add(1)
	q := &x.q
	rcode, ok := q.parse(packet)
	if !ok {
		s.count.dropped.Add(1)
		return nil, false
	}
	r := &x.reply
	r.start(x.out[:], q, x.limit())
	if !s.allowed(x.inside, x.client.Addr()) {
		s.count.refused.Add(1)
		return r.finish(dns.RcodeRefused), false
	}
	if s.forward != nil {
		r.flags |= bitRA
	}
	if rcode != dns.RcodeSuccess {
		s.count.malformed.Add(1)
		return r.finish(rcode), false
	}
	t := s.state.Load().table
	name := q.wire()
	e, z := t.names[string(name)], t.zone(name)
	if e == nil && z == nil {
		if s.forward == nil || q.flags&bitRD == 0 || q.class != dns.ClassINET || q.kind == dns.TypeAXFR || q.kind == dns.TypeIXFR {
			s.count.refused.Add(1)
			return r.finish(dns.RcodeRefused), false
		}
		return nil, true
	}
	r.flags |= bitAA
	if set := x.inside.consul(t, q); set != nil {
		s.count.answered.Add(1)
		r.records(set)
		return r.finish(dns.RcodeSuccess), false
	}
	if q.class != dns.ClassINET && q.class != dns.ClassANY || q.kind == dns.TypeAXFR || q.kind == dns.TypeIXFR {
		s.count.refused.Add(1)
		return r.finish(dns.RcodeRefused), false
	}
	if e != nil {
		if set := e.of(q.kind); len(set) > 0 {
			s.count.answered.Add(1)
			r.records(set)
			return r.finish(dns.RcodeSuccess), false
		}
		if msg, more, done := s.hosts(x, e); done {
			return msg, more
		}
	}
	s.count.empty.Add(1)
	if z != nil {
		r.soa(z)
	}
	if e == nil {
		return r.finish(dns.RcodeNameError), false
	}
	return r.finish(dns.RcodeSuccess), false
}

// hosts answers for foreign services that were registered under the name of a host: one of
// them as CNAME, with the host's addresses if someone upstream can be asked.
func (s *Server) hosts(x *exchange, e *entry) (msg []byte, more, done bool) {
	if len(e.host) == 0 || len(e.a)+len(e.aaaa) > 0 {
		return nil, false, false
	}
	switch x.q.kind {
	case dns.TypeA, dns.TypeAAAA:
		if s.forward != nil {
			return nil, true, true
		}
	case dns.TypeCNAME, dns.TypeANY:
	default:
		return nil, false, false
	}
	s.count.answered.Add(1)
	i := rand.IntN(len(e.host))
	x.reply.records(e.host[i : i+1])
	return x.reply.finish(dns.RcodeSuccess), false, true
}

// fresh answers from the cache of what upstreams have said; nil: it has no answer.
func (s *Server) fresh(x *exchange) []byte {
	k := s.forward.fresh(&x.q)
	if k == nil {
		return nil
	}
	s.count.cached.Add(1)
	x.reply.start(x.out[:], &x.q, x.limit())
	x.reply.flags |= bitRA
	return k.write(&x.reply)
}

// theirs asks upstream for what ours could not answer. It may take as long as a
// client has patience.
func (s *Server) theirs(ctx context.Context, x *exchange) []byte {
	q, r := &x.q, &x.reply
	r.start(x.out[:], q, x.limit())
	r.flags |= bitRA
	fail := func(counter *atomic.Uint64) []byte {
		counter.Add(1)
		return r.finish(dns.RcodeServerFailure)
	}
	if e := s.state.Load().table.names[string(q.wire())]; e != nil && len(e.host) > 0 {
		r.flags |= bitAA
		alias := e.host[rand.IntN(len(e.host))]
		s.count.answered.Add(1)
		r.records([]record{alias})
		for _, addr := range s.forward.addresses(ctx, alias.host, q.kind) {
			r.add(1, addr)
		}
		return r.finish(dns.RcodeSuccess)
	}
	if s.forward.loops(q, x.client.Port()) {
		return fail(&s.count.failed)
	}
	got, cached, err := s.forward.ask(ctx, q)
	if err != nil {
		return fail(&s.count.failed)
	}
	if cached {
		s.count.cached.Add(1)
	} else {
		s.count.forwarded.Add(1)
	}
	return got.write(r)
}
