package dns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const (
	headerLen = 12
	// maxName is the longest name on the wire, with its last, empty label.
	maxName = 255
	// plainSize is what a client without EDNS takes over UDP; ownSize is what we send and take
	// at most: it passes any path without fragments (DNS Flag Day 2020).
	plainSize = 512
	ownSize   = 1232
)

// The bits of a header's second word.
const (
	bitQR = 1 << 15
	bitAA = 1 << 10
	bitTC = 1 << 9
	bitRD = 1 << 8
	bitRA = 1 << 7
	bitAD = 1 << 5
	bitCD = 1 << 4
)

// query is a parsed question. Its slices point into the packet; it is made anew in place.
type query struct {
	id       uint16
	flags    uint16
	question []byte // name, type and class as they came: the name's case is sent back
	kind     uint16 // the type asked for
	class    uint16
	edns, do bool
	size     int // what the client takes over UDP

	name  [maxName]byte // lower case, wire format
	nameN int
}

// wire returns the name asked for, in lower case.
func (q *query) wire() []byte { return q.name[:q.nameN] }

// parse reads a packet. ok false: it is not a query, and nothing may be sent back.
// Otherwise rcode says what is wrong with it, or RcodeSuccess.
func (q *query) parse(p []byte) (rcode int, ok bool) {
	if len(p) < headerLen {
		return 0, false
	}
	q.id = binary.BigEndian.Uint16(p)
	q.flags = binary.BigEndian.Uint16(p[2:])
	q.question, q.nameN = nil, 0
	q.kind, q.class = 0, 0
	q.edns, q.do, q.size = false, false, plainSize
	if q.flags&bitQR != 0 {
		return 0, false // two servers that answer each other's answers never end
	}
	if opcode := int(q.flags >> 11 & 0xf); opcode != dns.OpcodeQuery {
		return dns.RcodeNotImplemented, true
	}
	count := func(i int) uint16 { return binary.BigEndian.Uint16(p[4+2*i:]) }
	if count(0) != 1 || count(1) != 0 || count(2) != 0 {
		return dns.RcodeFormatError, true
	}
	off := q.parseName(p)
	if off == 0 || off+4 > len(p) {
		q.nameN = 0
		return dns.RcodeFormatError, true
	}
	q.kind = binary.BigEndian.Uint16(p[off:])
	q.class = binary.BigEndian.Uint16(p[off+2:])
	off += 4
	q.question = p[headerLen:off]
	return q.parseExtra(p, off, int(count(3))), true
}

// parseName copies the question's name in lower case and returns where it ends; 0: it is malformed.
// The first name of a packet has nothing to point back to, so a pointer is malformed too.
func (q *query) parseName(p []byte) int {
	off, n := headerLen, 0
	for off < len(p) {
		length := int(p[off])
		if length > 63 || off+1+length > len(p) || n+1+length > maxName {
			return 0
		}
		q.name[n] = p[off]
		for i := 1; i <= length; i++ {
			q.name[n+i] = lower(p[off+i])
		}
		off += 1 + length
		n += 1 + length
		if length == 0 {
			q.nameN = n
			return off
		}
	}
	return 0
}

// parseExtra looks for EDNS among the additional records.
func (q *query) parseExtra(p []byte, off, count int) int {
	for range count {
		root := off < len(p) && p[off] == 0
		off = skipName(p, off)
		if off == 0 || off+10 > len(p) {
			return dns.RcodeFormatError
		}
		kind := binary.BigEndian.Uint16(p[off:])
		end := off + 10 + int(binary.BigEndian.Uint16(p[off+8:]))
		if end > len(p) {
			return dns.RcodeFormatError
		}
		if kind == dns.TypeOPT {
			if q.edns || !root {
				return dns.RcodeFormatError
			}
			q.edns = true
			q.size = min(max(int(binary.BigEndian.Uint16(p[off+2:])), plainSize), ownSize)
			q.do = p[off+6]&0x80 != 0
			if version := p[off+5]; version != 0 {
				return dns.RcodeBadVers
			}
		}
		off = end
	}
	return dns.RcodeSuccess
}

// skipName returns where the name at off ends; 0: it does not.
func skipName(p []byte, off int) int {
	for off < len(p) {
		switch length := int(p[off]); {
		case length == 0:
			return off + 1
		case length >= 0xc0:
			if off+2 > len(p) {
				return 0
			}
			return off + 2
		case length > 63:
			return 0
		default:
			off += 1 + length
		}
	}
	return 0
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// wireName turns labels with dots between them into wire format, in lower case. ok is
// false where DNS has no such name.
func wireName(name string) (wire []byte, ok bool) {
	wire = make([]byte, 0, len(name)+2)
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			continue
		}
		if n := i - start; n == 0 || n > 63 {
			return nil, false
		}
		wire = append(wire, byte(i-start))
		for _, c := range []byte(name[start:i]) {
			wire = append(wire, lower(c))
		}
		start = i + 1
	}
	if wire = append(wire, 0); len(wire) > maxName {
		return nil, false
	}
	return wire, true
}
