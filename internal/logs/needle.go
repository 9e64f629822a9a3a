package logs

import (
	"bytes"
	"slices"
	"strings"
)

// needle is a text to find, with what is worked out of it once for a query.
type needle struct {
	s      string
	fold   bool // ASCII letters of either case; s has small ones
	pieces []piece
	plans  map[planKey]*plan
	gated  map[gate][]piece
	low    []byte // scratch: the haystack in small letters
}

type planKey struct {
	shape string
	holes int
}

func newNeedle(s string, fold bool) *needle {
	if fold {
		s = string(lowered(nil, []byte(s)))
	}
	return &needle{s: s, fold: fold, pieces: pieces(s, false, false), plans: map[planKey]*plan{}, gated: map[gate][]piece{}}
}

func lowered(dst, s []byte) []byte {
	from := len(dst)
	dst = append(dst, s...)
	for i, c := range dst[from:] {
		dst[from+i] = lower[c]
	}
	return dst
}

var lower = lowers() // ASCII letters made small

func lowers() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if i >= 'A' && i <= 'Z' {
			t[i] += 'a' - 'A'
		}
	}
	return t
}

// hay is what to look for n in.
func (n *needle) hay(b []byte) []byte {
	if !n.fold {
		return b
	}
	n.low = lowered(n.low[:0], b)
	return n.low
}

func (n *needle) in(b []byte) bool { return bytes.Contains(n.hay(b), []byte(n.s)) }

// plan says how a needle can stand in texts of one shape: in what is the same in
// all of them, in a value (that is asked of columns and is no part of the plan), or
// across an edge between the two: then one of the gates is open.
type plan struct {
	always bool
	gates  []gate
	every  bool // there are too many gates: look at every row
}

// gate is what the value in a hole must be like for the needle to cross its edge.
type gate struct {
	hole int
	op   byte // gatePrefix...
	s    string
	sure bool // whoever comes through has the needle; else the rest is to be looked at
}

const (
	gatePrefix = iota
	gateSuffix
	gateEqual
)

const maxGates = 48

// plan works out how n stands in texts of the kind k.
func (n *needle) plan(k *kind) *plan {
	key := planKey{k.shape, k.holes}
	if p, ok := n.plans[key]; ok {
		return p
	}
	p := n.makePlan(k)
	if len(n.plans) < 4096 {
		n.plans[key] = p
	}
	return p
}

func (n *needle) makePlan(k *kind) *plan {
	p := &plan{}
	same := func(a, b string) bool { return a == b }
	if n.fold {
		same = func(a, b string) bool { return string(lowered(nil, []byte(a))) == b }
	}
	fixed := strings.SplitN(k.shape, string(rune(Hole)), k.holes+1)
	for _, f := range fixed {
		if n.in([]byte(f)) {
			p.always = true
			return p
		}
	}
	// follows: rest can stand behind the value of hole i.
	follows := func(rest string, i int) (ok, sure bool) {
		f := fixed[i+1]
		if len(rest) <= len(f) {
			return same(f[:len(rest)], rest), true
		}
		return i+1 < k.holes && same(f, rest[:len(f)]), false
	}
	add := func(g gate) {
		if !slices.Contains(p.gates, g) {
			p.gates = append(p.gates, g)
		}
	}
	for i := range k.holes {
		// It begins in what is fixed before the hole ...
		for j := 1; j < len(n.s) && j <= len(fixed[i]); j++ {
			if !same(fixed[i][len(fixed[i])-j:], n.s[:j]) {
				continue
			}
			rest := n.s[j:]
			add(gate{i, gatePrefix, rest, true})
			for m := range len(rest) {
				if ok, sure := follows(rest[m:], i); ok {
					add(gate{i, gateEqual, rest[:m], sure})
				}
			}
		}
		// ... or in the value.
		for j := 1; j < len(n.s); j++ {
			if ok, sure := follows(n.s[j:], i); ok {
				add(gate{i, gateSuffix, n.s[:j], sure})
			}
		}
		if len(p.gates) > maxGates {
			p.gates, p.every = nil, true
			return p
		}
	}
	return p
}

// open says whether the gate lets a value through.
func (g *gate) open(n *needle, value []byte) bool {
	if len(value) < len(g.s) {
		return false
	}
	switch g.op {
	case gatePrefix:
		value = value[:len(g.s)]
	case gateSuffix:
		value = value[len(value)-len(g.s):]
	default:
		if len(value) != len(g.s) {
			return false
		}
	}
	return string(n.hay(value)) == g.s
}
