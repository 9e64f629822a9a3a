package logs

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// test is a condition made ready. It asks the positive question; no turns the answer.
type test struct {
	name   string // "": the text
	op     Op     // Equal, Matches, Contains, or one of the four that order
	value  string
	pieces []piece     // of value, for Equal
	needle *needle     // for Contains
	re     *expression // for Matches
	number float64
	no     bool
}

func newTest(c Condition) *test {
	t := &test{name: c.Name, op: c.Op, value: c.Value, number: c.Number}
	switch c.Op {
	case NotEqual:
		t.op, t.no = Equal, true
	case NotMatches:
		t.op, t.no = Matches, true
	case Lacks:
		t.op, t.no = Contains, true
	}
	switch t.op {
	case Equal:
		t.pieces = pieces(c.Value, true, true)
	case Contains:
		t.needle = newNeedle(c.Value, false)
	case Matches:
		t.re = newExpression(c.Regexp)
	}
	return t
}

// holds asks for one value, without turning the answer.
func (t *test) holds(v []byte) bool {
	switch t.op {
	case Equal:
		return string(v) == t.value
	case Contains:
		return bytes.Contains(v, []byte(t.needle.s))
	case Matches:
		return t.re.Match(v)
	}
	n, ok := quantity(string(v))
	return ok && t.compares(n)
}

func (t *test) compares(n float64) bool {
	switch t.op {
	case Above:
		return n > t.number
	case AtLeast:
		return n >= t.number
	case Below:
		return n < t.number
	default:
		return n <= t.number
	}
}

// label asks for the value of a label.
func (t *test) label(v string) bool { return t.holds([]byte(v)) != t.no }

// quantity reads a number, a duration (in seconds) or a size (in bytes).
func quantity(s string) (float64, bool) {
	if s == "" {
		return 0, false
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return n, true
	}
	if d, err := time.ParseDuration(s); err == nil {
		return d.Seconds(), true
	}
	at := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if at <= 0 {
		return 0, false
	}
	n, err := strconv.ParseFloat(s[:at], 64)
	unit, ok := sizes[strings.ToLower(strings.TrimSpace(s[at:]))]
	return n * unit, err == nil && ok
}

var sizes = map[string]float64{
	"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15,
	"k": 1e3, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50,
}

// rows returns the rows of v for which t holds.
func (t *test) rows(v *view) (set, error) {
	if err := v.need(); err != nil {
		return nil, err
	}
	var s set
	var err error
	if t.name == "" {
		s, err = t.inText(v)
	} else {
		s, err = t.inField(v)
	}
	if err != nil {
		return nil, err
	}
	if t.no {
		s.not(v.rows)
	}
	return s, nil
}

func (t *test) inField(v *view) (set, error) {
	empty := t.holds(nil)
	c := v.find(t.name)
	if c < 0 {
		if empty {
			return fullSet(v.rows), nil
		}
		return newSet(v.rows), nil
	}
	values, err := t.values(v, c)
	if err != nil {
		return nil, err
	}
	spot, err := v.spot(c)
	if err != nil {
		return nil, err
	}
	if spot == nil {
		if values == nil {
			values = newSet(v.rows)
		}
		return values, nil
	}
	s := newSet(v.rows)
	if values == nil && !empty {
		return s, nil
	}
	for row, at := range spot {
		if at < 0 && empty || at >= 0 && values != nil && values.has(int(at)) {
			s.add(row)
		}
	}
	return s, nil
}

// values returns the values of column c for which t holds; nil: none.
func (t *test) values(v *view, c int) (set, error) {
	switch t.op {
	case Contains:
		return v.contains(c, t.needle, nil)
	case Matches:
		return t.matching(v, c)
	case Equal:
		ok, err := v.may(c, t.value, false, t.pieces)
		if !ok || err != nil {
			return nil, err
		}
	default:
		if a := v.cols[c].about; a != nil && a.form == formNumber && !t.reaches(float64(a.least), float64(a.most)) {
			return nil, nil
		}
	}
	return v.each(c, t.holds, t)
}

// reaches says whether numbers from least to most can fulfil t.
func (t *test) reaches(least, most float64) bool { return t.compares(least) || t.compares(most) }

// may says whether a value with s in it can be in column c, as far as one can tell
// without its values.
func (v *view) may(c int, s string, fold bool, pieces []piece) (bool, error) {
	a := v.cols[c].about
	if a == nil {
		return true, nil
	}
	if !a.has(s, fold) {
		return false, nil
	}
	if v.cols[c].col != nil || len(pieces) == 0 {
		return true, nil
	}
	f, err := v.filter(c)
	if err != nil {
		return false, err
	}
	return f.may(pieces), nil
}

// each asks every different value of a column. Numbers are compared without being
// spelled, if t is given.
func (v *view) each(c int, holds func([]byte) bool, t *test) (set, error) {
	vc := &v.cols[c]
	if a := vc.about; a != nil && a.form == formDict && vc.col == nil {
		// The dictionary may say that there is nothing to read.
		dict, err := v.dictOf(a)
		if err != nil {
			return nil, err
		}
		some := false
		for _, d := range dict {
			some = some || holds([]byte(d))
		}
		if !some {
			return nil, nil
		}
	}
	col, err := v.column(c)
	if err != nil {
		return nil, err
	}
	s := newSet(col.n)
	switch col.form {
	case formDict:
		yes := make([]bool, len(col.dict))
		for i, d := range col.dict {
			yes[i] = holds([]byte(d))
		}
		for i, code := range col.codes {
			if yes[code] {
				s.add(i)
			}
		}
	case formNumber:
		if t == nil {
			break
		}
		if t.op == Equal {
			want, ok := numberOf([]byte(t.value))
			if !ok {
				return nil, nil
			}
			for i, n := range col.nums {
				if n == want {
					s.add(i)
				}
			}
			return s, nil
		}
		if t.op == Above || t.op == AtLeast || t.op == Below || t.op == AtMost {
			for i, n := range col.nums {
				if t.compares(float64(n)) {
					s.add(i)
				}
			}
			return s, nil
		}
	case formDecimal:
		if t != nil && (t.op == Above || t.op == AtLeast || t.op == Below || t.op == AtMost) {
			for i := range col.n {
				if t.compares(col.float(i)) {
					s.add(i)
				}
			}
			return s, nil
		}
	case formHex:
		if t == nil || t.op != Equal {
			break
		}
		return col.equalHex(t.value), nil
	}
	if col.form != formDict {
		var buf []byte
		for i := range col.n {
			if col.form == formText {
				buf = col.text(i)
			} else {
				buf = col.append(buf[:0], i)
			}
			if holds(buf) {
				s.add(i)
			}
		}
	}
	return s, nil
}

// equalHex returns the values of a formHex column that are s; nil: none.
func (c *column) equalHex(s string) set {
	want, ok := unhex(nil, []byte(s))
	if !ok || len(s) != 2*c.width {
		return nil
	}
	all := newSet(c.n)
	for at := 0; ; at += c.width {
		i := bytes.Index(c.data[at:], want)
		if i < 0 {
			return all
		}
		if at += i; at%c.width == 0 {
			all.add(at / c.width)
		} else {
			at -= at % c.width // what begins within a value is none; the next one may be one
		}
	}
}

// contains returns the values of a column with n in them; nil: none. Values of rows
// that are not in within (nil: all are) may be missing.
func (v *view) contains(c int, n *needle, within set) (set, error) {
	ok, err := v.may(c, n.s, n.fold, n.pieces)
	if !ok || err != nil {
		return nil, err
	}
	if n.s == "" {
		return fullSet(v.cols[c].n), nil
	}
	vc := &v.cols[c]
	if vc.about != nil && vc.about.form == formDict || vc.col != nil && vc.col.form == formDict {
		return v.each(c, n.in, nil)
	}
	col, err := v.column(c)
	if err != nil {
		return nil, err
	}
	if col.form == formHex && !n.fold && len(n.s) == 2*col.width {
		return col.equalHex(n.s), nil
	}
	if within != nil && col.n == v.rows && col.form == formText && !n.fold {
		s, sub := newSet(col.n), []byte(n.s)
		return s, within.each(func(row int) error {
			if bytes.Contains(col.text(row), sub) {
				s.add(row)
			}
			return nil
		})
	}
	col = col.spell()
	s, hay, at := newSet(col.n), n.hay(col.data), 0
	sub := []byte(n.s)
	for from := 0; ; {
		i := bytes.Index(hay[from:], sub)
		if i < 0 {
			return s, nil
		}
		i += from
		for int(col.ends[at]) <= i {
			at++
		}
		if end := int(col.ends[at]); i+len(sub) <= end {
			s.add(at)
			from = end
		} else {
			from = i + 1
		}
	}
}

// matching returns the values of a column that the expression matches.
func (t *test) matching(v *view, c int) (set, error) {
	if vc := &v.cols[c]; len(t.re.demands) == 0 || vc.about != nil && vc.about.form == formDict || vc.col != nil && vc.col.form == formDict {
		return v.each(c, t.re.Match, nil)
	}
	var s set
	for _, d := range t.re.demands {
		var one set
		for _, n := range d.any {
			has, err := v.contains(c, n, nil)
			if err != nil {
				return nil, err
			}
			if one == nil {
				one = has
			} else if has != nil {
				one.or(has)
			}
		}
		if one == nil {
			return nil, nil
		}
		if s == nil {
			s = one
		} else {
			s.and(one)
		}
		if s.empty() {
			return nil, nil
		}
	}
	if t.re.all {
		return s, nil
	}
	col, err := v.column(c)
	if err != nil {
		return nil, err
	}
	var buf []byte
	err = s.each(func(i int) error {
		if buf = col.append(buf[:0], i); !t.re.Match(buf) {
			s.drop(i)
		}
		return nil
	})
	return s, err
}
