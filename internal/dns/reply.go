package dns

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/miekg/dns"
)

// reply writes an answer into a buffer, without allocating.
type reply struct {
	buf   []byte // from the header on
	limit int
	q     *query
	count [4]uint16
	flags uint16
}

// start writes the question back and leaves room for EDNS.
func (r *reply) start(buf []byte, q *query, limit int) {
	*r = reply{buf: buf[:headerLen], limit: limit, q: q, flags: bitQR | q.flags&(bitRD|bitCD)}
	if q.question != nil {
		r.buf = append(r.buf, q.question...)
		r.count[0] = 1
	}
	if q.edns {
		r.limit -= 11
	}
}

// finish writes EDNS and the header, and returns the message.
func (r *reply) finish(rcode int) []byte {
	if r.q.edns {
		do := byte(0)
		if r.q.do {
			do = 0x80
		}
		r.buf = append(r.buf, 0, 0, byte(dns.TypeOPT), ownSize>>8, ownSize&0xff, byte(rcode>>4), 0, do, 0, 0, 0)
		r.count[3]++
	}
	binary.BigEndian.PutUint16(r.buf, r.q.id)
	binary.BigEndian.PutUint16(r.buf[2:], r.flags|r.q.flags&0x7800|uint16(rcode&0xf))
	for i, n := range r.count {
		binary.BigEndian.PutUint16(r.buf[4+2*i:], n)
	}
	return r.buf
}

// add appends a record to a section, unless it is too long.
func (r *reply) add(section int, parts ...[]byte) bool {
	n := len(r.buf)
	for _, p := range parts {
		n += len(p)
	}
	if n > r.limit {
		return false
	}
	for _, p := range parts {
		r.buf = append(r.buf, p...)
	}
	r.count[section]++
	return true
}

// shuffled is the most records that are given out in a wholly random order; of more, only
// the first one is random.
const shuffled = 128

// records answers with a set in random order: as many as there is room for, and says
// so if it is not all.
func (r *reply) records(set []record) {
	n := len(set)
	start := 0
	var order [shuffled]uint8
	mixed := n > 1 && n <= shuffled
	if mixed {
		for i := range n {
			j := rand.IntN(i + 1)
			order[i] = order[j]
			order[j] = uint8(i)
		}
	} else if n > 1 {
		start = rand.IntN(n)
	}
	at := func(i int) *record {
		if mixed {
			return &set[order[i]]
		}
		return &set[(start+i)%n]
	}
	for i := range n {
		if !r.add(1, at(i).wire) {
			r.flags |= bitTC
			return
		}
	}
	for i := range n {
		if x := at(i).extra; len(x) > 0 && !r.add(3, x) {
			return // what is additional may be missing
		}
	}
}

// soa puts the SOA record of the name's zone into the authority section: for how long
// nobody needs to ask again.
func (r *reply) soa(z *zone) {
	off := headerLen + r.q.nameN - len(z.wire)
	owner := [2]byte{0xc0 | byte(off>>8), byte(off)}
	r.add(2, owner[:], z.soa)
}
