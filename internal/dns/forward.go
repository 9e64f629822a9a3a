package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	tender "github.com/tenderhq/tender"
)

const (
	// patience is for how long one query is asked upstream: as long as resolvers of clients
	// wait for us. Each upstream gets a part of it.
	patience = 4500 * time.Millisecond
	perTry   = 1500 * time.Millisecond
	// resting is how long an upstream that did not answer is asked after all others.
	resting = 10 * time.Second
	// rereading is how often the file with the upstreams is looked at.
	rereading = 5 * time.Second
	// flights bounds how many different names are asked for at a time.
	flights = 1024
)

var errNoUpstream = tender.Errorf(tender.Unavailable, "no upstream resolver").Hint("name one in the upstreams of the DNS settings or in /etc/resolv.conf")

// forwarder asks upstream resolvers, each question once at a time, and keeps the answers.
type forwarder struct {
	log   *slog.Logger
	path  string
	cache *cache

	patience, perTry time.Duration

	mu      sync.Mutex // guards what follows
	fixed   bool       // the upstreams were given, and no file is read
	servers []*upstream
	read    time.Time // when the file was looked at
	changed time.Time // what it then said of its last change
	flying  map[string]*flight
	sent    map[sent]int
	mine    []netip.AddrPort // the sockets that we answer on
}

// flight is a question that is being asked.
type flight struct {
	done chan struct{}
	kept *kept
	err  error
}

// sent marks a question as ours, should it come back to us.
type sent struct {
	id, port uint16
	key      string
}

func newForwarder(o *Options) *forwarder {
	f := &forwarder{
		log: o.Log, path: o.ResolvConf, cache: newCache(o.Cache), patience: patience, perTry: perTry,
		flying: map[string]*flight{}, sent: map[sent]int{},
	}
	if len(o.Upstreams) > 0 {
		f.fixed = true
		f.servers = parseUpstreams(o.Upstreams, "53")
	}
	return f
}

// appendKey appends what tells questions apart: name, type, and whether signatures are wanted.
func appendKey(b []byte, q *query) []byte {
	b = append(b, q.wire()...)
	b = binary.BigEndian.AppendUint16(b, q.kind)
	flags := byte(0)
	if q.do {
		flags |= 1
	}
	if q.flags&bitCD != 0 {
		flags |= 2
	}
	return append(b, flags)
}

// fresh returns the answer to q if the cache has one whose time is not over, else nil.
func (f *forwarder) fresh(q *query) *kept {
	var buf [maxName + 3]byte
	if k := f.cache.get(appendKey(buf[:0], q)); k != nil && time.Now().Before(k.expire) {
		return k
	}
	return nil
}

// ask returns the answer to q, from the cache if it has one.
func (f *forwarder) ask(ctx context.Context, q *query) (got *kept, fromCache bool, err error) {
	var buf [maxName + 3]byte
	id := appendKey(buf[:0], q)
	old := f.cache.get(id)
	if old != nil && time.Now().Before(old.expire) {
		return old, true, nil
	}
	key := string(id)
	fl, err := f.join(ctx, key, q)
	if err == nil {
		// The flight has its own end, so this wait has one too.
		<-fl.done
		got, err = fl.kept, fl.err
	}
	if err != nil && old != nil && old.rcode != dns.RcodeServerFailure && time.Since(old.expire) < staleFor {
		stale := *old
		stale.stale = true
		return &stale, true, nil
	}
	return got, false, err
}

// join returns the flight that asks for key, which it starts if there is none.
func (f *forwarder) join(ctx context.Context, key string, q *query) (*flight, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.flying[key]; fl != nil {
		return fl, nil
	}
	if len(f.flying) >= flights {
		return nil, errors.New("too many questions at a time")
	}
	fl := &flight{done: make(chan struct{})}
	f.flying[key] = fl
	m := question(q)
	// It must not end with the one who asked first: others may wait for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.patience)
	go func() {
		defer cancel()
		fl.kept, fl.err = f.fly(ctx, key, m)
		f.mu.Lock()
		delete(f.flying, key)
		f.mu.Unlock()
		close(fl.done)
	}()
	return fl, nil
}

// question returns what is asked upstream for q.
func question(q *query) *dns.Msg {
	name, _, err := dns.UnpackDomainName(q.wire(), 0)
	if err != nil {
		name = "." // parse has let only well-formed names through
	}
	m := new(dns.Msg)
	m.Id = dns.Id()
	m.RecursionDesired = true
	m.CheckingDisabled = q.flags&bitCD != 0
	m.Question = []dns.Question{{Name: name, Qtype: q.kind, Qclass: dns.ClassINET}}
	m.SetEdns0(ownSize, q.do)
	return m
}

func withoutEDNS(m *dns.Msg) *dns.Msg {
	plain := m.Copy()
	plain.Id, plain.Extra = dns.Id(), nil
	return plain
}

// fly asks one upstream after the other until one knows, or time is over.
func (f *forwarder) fly(ctx context.Context, key string, m *dns.Msg) (*kept, error) {
	servers := f.upstreams(time.Now())
	if len(servers) == 0 {
		return nil, errNoUpstream
	}
	var last *dns.Msg
	var failure error
	for round := 0; round < 2 && ctx.Err() == nil; round++ {
		for _, u := range servers {
			got, err := f.exchange(ctx, u.addr, key, m)
			if err == nil && got.Rcode == dns.RcodeFormatError {
				got, err = f.exchange(ctx, u.addr, key, withoutEDNS(m)) // some boxes at home know none
			}
			if err != nil {
				failure = fmt.Errorf("ask %s: %w", u.addr, err)
				f.rest(u, time.Now())
				continue
			}
			f.rest(u, time.Time{})
			if got.Rcode == dns.RcodeSuccess || got.Rcode == dns.RcodeNameError {
				return f.store(key, got)
			}
			last = got
		}
		if last != nil {
			break // all that answer say so
		}
	}
	if last != nil {
		return f.store(key, last)
	}
	if failure == nil {
		failure = ctx.Err()
	}
	f.log.Debug("no upstream answered", "question", m.Question[0].Name, "err", failure)
	return nil, failure
}

func (f *forwarder) store(key string, m *dns.Msg) (*kept, error) {
	k, err := keep(m, time.Now())
	if err != nil {
		return nil, err
	}
	f.cache.put(key, k)
	return k, nil
}

// exchange asks one upstream, over TCP if the answer is too long for a packet.
func (f *forwarder) exchange(ctx context.Context, to netip.AddrPort, key string, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, f.perTry)
	defer cancel()
	for _, network := range []string{"udp", "tcp"} {
		got, err := f.over(ctx, network, to, key, m)
		if err != nil {
			return nil, err
		}
		if !got.Truncated {
			return got, nil
		}
	}
	return nil, errors.New("truncated over TCP")
}

func (f *forwarder) over(ctx context.Context, network string, to netip.AddrPort, key string, m *dns.Msg) (*dns.Msg, error) {
	// A new socket each time: its port is part of what a forger has to guess.
	c := &dns.Client{Net: network, Timeout: f.perTry, UDPSize: ownSize}
	conn, err := c.DialContext(ctx, to.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	mark := sent{id: m.Id, key: key}
	switch a := conn.LocalAddr().(type) {
	case *net.UDPAddr:
		mark.port = uint16(a.Port)
	case *net.TCPAddr:
		mark.port = uint16(a.Port)
	}
	f.mark(mark, 1)
	defer f.mark(mark, -1)
	got, _, err := c.ExchangeWithConnContext(ctx, m, conn)
	if err != nil {
		return nil, err
	}
	if !got.Response || len(got.Question) != 1 || got.Question[0].Qtype != m.Question[0].Qtype ||
		!strings.EqualFold(got.Question[0].Name, m.Question[0].Name) {
		return nil, errors.New("the answer is to another question")
	}
	return got, nil
}

func (f *forwarder) mark(m sent, by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sent[m] += by; f.sent[m] == 0 {
		delete(f.sent, m)
	}
}

// loops reports whether a query is one that we have just sent: an upstream leads back to us.
func (f *forwarder) loops(q *query, port uint16) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sent) == 0 {
		return false
	}
	var buf [maxName + 3]byte
	return f.sent[sent{id: q.id, port: port, key: string(appendKey(buf[:0], q))}] > 0
}

// addresses returns the records that lead from a host's name to its addresses, in wire
// format; none where nobody knows.
func (f *forwarder) addresses(ctx context.Context, host string, kind uint16) [][]byte {
	q := &query{kind: kind, class: dns.ClassINET}
	wire, ok := wireName(strings.TrimSuffix(host, "."))
	if !ok {
		return nil
	}
	q.nameN = copy(q.name[:], wire)
	got, _, err := f.ask(ctx, q)
	if err != nil || got.rcode != dns.RcodeSuccess {
		return nil
	}
	var m dns.Msg
	if m.Unpack(got.wire) != nil {
		return nil
	}
	var out [][]byte
	buf := make([]byte, dns.MaxMsgSize)
	for _, rr := range m.Answer {
		if n, err := dns.PackRR(rr, buf, 0, nil, false); err == nil {
			out = append(out, slices.Clone(buf[:n]))
		}
	}
	return out
}
