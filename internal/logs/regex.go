package logs

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// demand is what is in everything that an expression matches: one at least of some
// texts and, around it, what a part of the expression says.
type demand struct {
	any   []*needle
	part  *regexp.Regexp // nil: the texts say it all, or nothing short is known
	reach int            // part matches no more bytes than these
}

// expression is one with what is worked out of it.
type expression struct {
	*regexp.Regexp
	demands []demand // all of them hold for what it matches, the rarest first
	all     bool     // there is one demand, and what fulfils it is matched
	// It looks at nothing but what it matches, so that a match in a piece of a text is
	// one in the text.
	loose bool
}

func newExpression(re *regexp.Regexp) *expression {
	x := &expression{Regexp: re}
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return x
	}
	tree = tree.Simplify()
	if texts := whole(tree); shortest(texts) > 0 {
		x.all, x.demands = true, []demand{demandOf(texts)}
		return x
	}
	x.loose = !looks(tree)
	x.demands = demandsOf(tree)
	return x
}

func demandOf(texts []literal) (d demand) {
	for _, l := range texts {
		d.any = append(d.any, newNeedle(l.s, l.fold))
	}
	return d
}

func demandsOf(tree *syntax.Regexp) (all []demand) {
	for tree.Op == syntax.OpCapture {
		tree = tree.Sub[0]
	}
	type found struct {
		set   []literal
		part  *regexp.Regexp
		reach int
	}
	var sets []found
	if tree.Op == syntax.OpConcat {
		for _, run := range runs(tree.Sub) {
			best := -1
			for _, sub := range run {
				l := literals(sub)
				if shortest(l) < 2 {
					continue
				}
				sets = append(sets, found{set: l})
				if best < 0 || shortest(l) > shortest(sets[best].set) {
					best = len(sets) - 1
				}
			}
			if best >= 0 {
				sets[best].part, sets[best].reach = partOf(run)
			}
		}
	}
	if l := literals(tree); len(sets) == 0 && shortest(l) > 0 {
		f := found{set: l}
		f.part, f.reach = partOf([]*syntax.Regexp{tree})
		sets = append(sets, f)
	}
	// The longest first: it is likely the rarest.
	slices.SortStableFunc(sets, func(a, b found) int { return shortest(b.set) - shortest(a.set) })
	for _, f := range sets[:min(len(sets), 4)] {
		d := demandOf(f.set)
		d.part, d.reach = f.part, f.reach
		all = append(all, d)
	}
	return all
}

// whole returns the texts that re matches; nil if they are not few.
func whole(re *syntax.Regexp) []literal {
	switch re.Op {
	case syntax.OpCapture:
		return whole(re.Sub[0])
	case syntax.OpLiteral:
		l := literalOf(re)
		if len(l) == 1 && len(l[0].s) == len(string(re.Rune)) {
			return l
		}
	case syntax.OpCharClass:
		var all []literal
		for i := 0; i+1 < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				if len(all) == 8 || r >= utf8.RuneSelf {
					return nil
				}
				all = append(all, literal{string(r), false})
			}
		}
		return all
	case syntax.OpAlternate:
		var all []literal
		for _, sub := range re.Sub {
			l := whole(sub)
			if l == nil || len(all)+len(l) > 16 {
				return nil
			}
			all = append(all, l...)
		}
		return all
	case syntax.OpConcat:
		all := []literal{{}}
		for i, sub := range re.Sub {
			tails := whole(sub)
			if tails == nil || len(all)*len(tails) > 16 {
				return nil
			}
			var next []literal
			for _, head := range all {
				for _, tail := range tails {
					if i > 0 && head.fold != tail.fold {
						return nil
					}
					next = append(next, literal{head.s + tail.s, tail.fold})
				}
			}
			all = next
		}
		return all
	}
	return nil
}

// runs cuts what follows one upon the other where there is no saying how long it is.
func runs(subs []*syntax.Regexp) (all [][]*syntax.Regexp) {
	var run []*syntax.Regexp
	for _, sub := range subs {
		if _, ok := longest(sub); ok {
			run = append(run, sub)
			continue
		}
		all = append(all, run, []*syntax.Regexp{sub})
		run = nil
	}
	return append(all, run)
}

// partOf makes an expression of a run; nil if it would say no more than its text, or
// has no end.
func partOf(run []*syntax.Regexp) (*regexp.Regexp, int) {
	reach := 0
	for _, sub := range run {
		n, ok := longest(sub)
		if reach += n; !ok || reach > 256 {
			return nil, 0
		}
	}
	if len(run) == 1 && run[0].Op == syntax.OpLiteral {
		return nil, 0
	}
	re, err := regexp.Compile((&syntax.Regexp{Op: syntax.OpConcat, Sub: run}).String())
	if err != nil {
		return nil, 0
	}
	return re, reach
}

// longest is how many bytes re can match; ok is false if there is no limit or if it
// looks beyond them.
func longest(re *syntax.Regexp) (n int, ok bool) {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpNoMatch:
		return 0, true
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return utf8.UTFMax * len(re.Rune), true
		}
		return len(string(re.Rune)), true
	case syntax.OpCharClass:
		if len(re.Rune) > 0 && re.Rune[len(re.Rune)-1] < utf8.RuneSelf {
			return 1, true
		}
		return utf8.UTFMax, true
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return utf8.UTFMax, true
	case syntax.OpCapture, syntax.OpQuest:
		return longest(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			m, ok := longest(sub)
			if n += m; !ok {
				return 0, false
			}
		}
		return n, true
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			m, ok := longest(sub)
			if n = max(n, m); !ok {
				return 0, false
			}
		}
		return n, true
	}
	return 0, false
}

// looks says whether re asks for what is before or behind what it matches.
func looks(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return true
	}
	return slices.ContainsFunc(re.Sub, looks)
}

// frame is what stands around the value of a column in the texts of a block.
type frame struct{ left, right string }

// frame returns up to reach bytes of what stands around the values of column c; ok
// is false if it differs from row to row, or if there are fewer that are known.
func (v *view) frame(c, reach int) (f frame, ok bool) {
	for i := range v.kinds {
		k := &v.kinds[i]
		at := slices.Index(k.cols, int32(c))
		if at < 0 || at >= k.holes {
			continue
		}
		fixed := strings.SplitN(k.shape, string(rune(Hole)), k.holes+1)
		left, right := fixed[at], fixed[at+1]
		if at > 0 && len(left) < reach || at+1 < k.holes && len(right) < reach {
			return f, false
		}
		one := frame{left[max(0, len(left)-reach):], right[:min(len(right), reach)]}
		if ok && one != f {
			return f, false
		}
		f, ok = one, true
	}
	return f, ok
}

// sift takes those values of column c out of s around which the part of d does not match.
func (d *demand) sift(v *view, c int, s set) error {
	if d.part == nil {
		return nil
	}
	f, ok := v.frame(c, d.reach)
	if !ok {
		return nil
	}
	col, err := v.column(c)
	if err != nil {
		return err
	}
	buf := []byte(f.left)
	asked := func(i int) bool {
		buf = append(col.append(buf[:len(f.left)], i), f.right...)
		return d.part.Match(buf)
	}
	known := make([]byte, len(col.dict)) // 1: it matches, 2: it does not
	return s.each(func(i int) error {
		if col.form != formDict {
			if !asked(i) {
				s.drop(i)
			}
			return nil
		}
		k := &known[col.codes[i]]
		if *k == 0 {
			if *k = 2; asked(i) {
				*k = 1
			}
		}
		if *k == 2 {
			s.drop(i)
		}
		return nil
	})
}

// glance finds those rows of s that t matches already in the value of column c and
// what is around it; the others are to be looked at whole.
func (t *test) glance(v *view, c int, s set) (set, error) {
	spot, err := v.spot(c)
	if err != nil {
		return nil, err
	}
	col, err := v.column(c)
	if err != nil {
		return nil, err
	}
	if err := v.needCodes(); err != nil {
		return nil, err
	}
	frames := make([]*frame, len(v.kinds))
	for i := range v.kinds {
		k := &v.kinds[i]
		if at := slices.Index(k.cols, int32(c)); at >= 0 && at < k.holes {
			fixed := strings.SplitN(k.shape, string(rune(Hole)), k.holes+1)
			frames[i] = &frame{fixed[at], fixed[at+1]}
		}
	}
	yes, hits, misses := newSet(v.rows), 0, 0
	var buf []byte
	return yes, s.each(func(row int) error {
		f := frames[v.codes[row]>>1]
		if f == nil || misses > hits+16 {
			return nil
		}
		at := row
		if spot != nil {
			at = int(spot[row])
		}
		buf = append(col.append(append(buf[:0], f.left...), at), f.right...)
		if t.re.Match(buf) {
			hits++
			yes.add(row)
		} else {
			misses++
		}
		return nil
	})
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
