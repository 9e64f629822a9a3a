package logs

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
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
	for _, c := range s {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
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

// required returns sets of texts: of each set one at least is in everything that
// re matches. None if nothing is known.
func required(re *regexp.Regexp) [][]*needle {
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return nil
	}
	tree = tree.Simplify()
	for tree.Op == syntax.OpCapture {
		tree = tree.Sub[0]
	}
	var sets [][]literal
	if tree.Op == syntax.OpConcat {
		for _, sub := range tree.Sub {
			if l := literals(sub); shortest(l) > 1 {
				sets = append(sets, l)
			}
		}
	}
	if l := literals(tree); len(sets) == 0 && shortest(l) > 0 {
		sets = append(sets, l)
	}
	// The longest first: it is likely the rarest.
	slices.SortStableFunc(sets, func(a, b []literal) int { return shortest(b) - shortest(a) })
	var all [][]*needle
	for _, set := range sets[:min(len(sets), 4)] {
		var any []*needle
		for _, l := range set {
			any = append(any, newNeedle(l.s, l.fold))
		}
		all = append(all, any)
	}
	return all
}

type literal struct {
	s    string
	fold bool
}

// literals picks the best set: the one whose shortest member is longest.
func literals(re *syntax.Regexp) []literal {
	switch re.Op {
	case syntax.OpLiteral:
		return literalOf(re)
	case syntax.OpCapture, syntax.OpPlus:
		return literals(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return literals(re.Sub[0])
		}
	case syntax.OpConcat:
		var best []literal
		for _, sub := range re.Sub {
			if l := literals(sub); shortest(l) > shortest(best) {
				best = l
			}
		}
		return best
	case syntax.OpAlternate:
		var all []literal
		for _, sub := range re.Sub {
			l := literals(sub)
			if len(l) == 0 || len(all)+len(l) > 16 {
				return nil
			}
			all = append(all, l...)
		}
		return all
	}
	return nil
}

func shortest(all []literal) int {
	n := 0
	for i, l := range all {
		if i == 0 || len(l.s) < n {
			n = len(l.s)
		}
	}
	return n
}

func literalOf(re *syntax.Regexp) []literal {
	if slices.Contains(re.Rune, utf8.RuneError) {
		return nil // it stands for any byte that is no UTF-8
	}
	if re.Flags&syntax.FoldCase == 0 {
		return []literal{{string(re.Rune), false}}
	}
	// Of letters that have a twin outside of ASCII (k and s), or are outside, nothing is
	// known in either case; so it is the longest run between them.
	best, run := "", ""
	for _, r := range append(slices.Clone(re.Rune), -1) {
		if r > 0 && r < 128 && !strings.ContainsRune("kKsS", r) {
			run += string(r)
			continue
		}
		if len(run) > len(best) {
			best = run
		}
		run = ""
	}
	if best == "" {
		return nil
	}
	return []literal{{best, true}}
}
