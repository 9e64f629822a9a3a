package dns

import (
	"container/list"
	"encoding/binary"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// longest and longestNegative bound for how long an answer is believed, whatever it says of itself.
	longest         = time.Hour
	longestNegative = 5 * time.Minute
	// afterFailure is for how long a failure of upstreams is not asked about again (RFC 9520).
	afterFailure = time.Second
	// staleFor is how long after its end an answer is still given if no upstream can be
	// reached, and staleTTL what it then says of itself, in seconds (RFC 8767).
	staleFor = 24 * time.Hour
	staleTTL = 30
	// largest is the largest answer that is kept.
	largest = 16 << 10
)

// kept is an answer from upstream. It never changes.
type kept struct {
	wire   []byte // with a question of the same length as every asker's, and without EDNS
	ttls   []int  // where the records' times to live are
	count  [4]uint16
	flags  uint16
	rcode  int
	taken  time.Time
	expire time.Time
	stale  bool
}

// keep makes what can be given out of what came in. m loses its EDNS record.
func keep(m *dns.Msg, now time.Time) (*kept, error) {
	var extra []dns.RR
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT && rr.Header().Rrtype != dns.TypeTSIG {
			extra = append(extra, rr)
		}
	}
	m.Extra = extra
	m.Compress = true
	m.Id = 0
	rcode := m.Rcode
	m.Rcode &= 0xf // the rest of it is in EDNS, which each asker gets anew
	wire, err := m.Pack()
	if err != nil {
		return nil, err
	}
	// A record without data comes in, but does not go out as it came.
	if err := new(dns.Msg).Unpack(wire); err != nil {
		return nil, err
	}
	k := &kept{wire: wire, rcode: rcode, taken: now, flags: binary.BigEndian.Uint16(wire[2:]) & bitAD}
	for i := range k.count {
		k.count[i] = binary.BigEndian.Uint16(wire[4+2*i:])
	}
	off := skipName(wire, headerLen) + 4
	for range int(k.count[1]) + int(k.count[2]) + int(k.count[3]) {
		off = skipName(wire, off)
		if off == 0 || off+10 > len(wire) {
			return nil, dns.ErrBuf
		}
		k.ttls = append(k.ttls, off+4)
		off += 10 + int(binary.BigEndian.Uint16(wire[off+8:]))
	}
	k.expire = now.Add(k.lifetime(m))
	return k, nil
}

// lifetime returns for how long an answer is to be believed.
func (k *kept) lifetime(m *dns.Msg) time.Duration {
	negative := k.rcode == dns.RcodeNameError || k.rcode == dns.RcodeSuccess && len(m.Answer) == 0
	switch {
	case k.rcode != dns.RcodeSuccess && k.rcode != dns.RcodeNameError:
		return afterFailure
	case negative:
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				return min(time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second, longestNegative)
			}
		}
		return 0 // without an SOA record it must not be kept (RFC 2308)
	}
	ttl := longest
	for _, off := range k.ttls {
		ttl = min(ttl, time.Duration(binary.BigEndian.Uint32(k.wire[off:]))*time.Second)
	}
	return ttl
}

// write answers with what is kept, as old as it has become.
func (k *kept) write(r *reply) []byte {
	r.flags |= k.flags
	if len(k.wire)-len(r.q.question)-headerLen > r.limit-len(r.buf) {
		r.flags |= bitTC
		return r.finish(k.rcode)
	}
	base := len(r.buf) - (headerLen + len(r.q.question))
	r.buf = append(r.buf, k.wire[headerLen+len(r.q.question):]...)
	age := uint32(max(time.Since(k.taken), 0) / time.Second)
	for _, off := range k.ttls {
		at := r.buf[base+off:]
		switch ttl := binary.BigEndian.Uint32(at); {
		case k.stale:
			binary.BigEndian.PutUint32(at, staleTTL)
		default:
			binary.BigEndian.PutUint32(at, ttl-min(age, ttl))
		}
	}
	r.count = k.count
	return r.finish(k.rcode)
}

// cache keeps answers up to a number; those longest unused go first.
type cache struct {
	mu   sync.Mutex // guards what follows
	max  int
	byID map[string]*list.Element
	used *list.List // of *cached, the last used first
}

type cached struct {
	key string
	*kept
}

func newCache(n int) *cache {
	return &cache{max: n, byID: map[string]*list.Element{}, used: list.New()}
}

// get returns what is kept under a key, also if it has expired.
func (c *cache) get(key []byte) *kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byID[string(key)]
	if e == nil {
		return nil
	}
	c.used.MoveToFront(e)
	return e.Value.(*cached).kept
}

func (c *cache) put(key string, k *kept) {
	if len(k.wire) > largest || !k.expire.After(k.taken) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[key]; e != nil {
		e.Value.(*cached).kept = k
		c.used.MoveToFront(e)
		return
	}
	c.byID[key] = c.used.PushFront(&cached{key: key, kept: k})
	for len(c.byID) > c.max {
		last := c.used.Back()
		delete(c.byID, c.used.Remove(last).(*cached).key)
	}
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byID)
}
