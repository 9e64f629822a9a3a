package logql

import (
	"bytes"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// stage is one step of the pipeline behind a selector.
type stage interface {
	String() string
	// run works on a row; false ends its way.
	run(r *row) bool
	// reads names the labels that it looks at.
	reads() []string
}

// lineFilter is |= != |~ !~ |> !>.
type lineFilter struct {
	op    string
	terms []lineTerm // any of them; none of them for the three that negate
}

type lineTerm struct {
	text string
	ip   *addresses
	re   *regexp.Regexp
}

func (f *lineFilter) String() string {
	var b strings.Builder
	b.WriteString(f.op + " ")
	for i, t := range f.terms {
		if i > 0 {
			b.WriteString(" or ")
		}
		if t.ip != nil {
			b.WriteString("ip(" + strconv.Quote(t.text) + ")")
		} else {
			b.WriteString(strconv.Quote(t.text))
		}
	}
	return b.String()
}

func (f *lineFilter) reads() []string { return nil }

func (f *lineFilter) run(r *row) bool {
	line := r.now()
	return f.any(line) != (f.op[0] == '!')
}

func (f *lineFilter) any(line []byte) bool {
	for _, t := range f.terms {
		switch {
		case t.ip != nil:
			if t.ip.within(string(line)) {
				return true
			}
		case t.re != nil:
			if t.re.Match(line) {
				return true
			}
		case bytes.Contains(line, []byte(t.text)):
			return true
		}
	}
	return false
}

// conditions are those that the store can hold for it; nil: none can.
func (f *lineFilter) conditions() []logs.Condition {
	negated := f.op[0] == '!'
	for _, t := range f.terms {
		if t.ip != nil {
			return nil
		}
	}
	if len(f.terms) == 1 || negated {
		var out []logs.Condition
		for _, t := range f.terms {
			c := logs.Condition{Op: logs.Contains, Value: t.text, Regexp: t.re}
			switch {
			case t.re != nil && negated:
				c.Op, c.Value = logs.NotMatches, t.re.String()
			case t.re != nil:
				c.Op, c.Value = logs.Matches, t.re.String()
			case negated:
				c.Op = logs.Lacks
			}
			out = append(out, c)
		}
		return out
	}
	var b strings.Builder
	for i, t := range f.terms {
		if i > 0 {
			b.WriteByte('|')
		}
		if t.re != nil {
			b.WriteString("(?:" + t.re.String() + ")")
		} else {
			b.WriteString(regexp.QuoteMeta(t.text))
		}
	}
	re, err := regexp.Compile(b.String())
	if err != nil { // too big together
		return nil
	}
	return []logs.Condition{{Op: logs.Matches, Value: b.String(), Regexp: re}}
}

// labelFilter is | status >= 500 and method="GET".
type labelFilter struct{ of predicate }

func (f *labelFilter) String() string  { return "| " + f.of.String() }
func (f *labelFilter) run(r *row) bool { return f.of.holds(r) }
func (f *labelFilter) reads() []string { return f.of.reads() }

type predicate interface {
	String() string
	holds(r *row) bool
	reads() []string
}

// both is and, or.
type both struct {
	or          bool
	left, right predicate
}

func (b *both) String() string {
	word := " and "
	if b.or {
		word = " or "
	}
	return "(" + b.left.String() + word + b.right.String() + ")"
}

func (b *both) holds(r *row) bool {
	if b.or {
		return b.left.holds(r) || b.right.holds(r)
	}
	return b.left.holds(r) && b.right.holds(r)
}

func (b *both) reads() []string { return append(b.left.reads(), b.right.reads()...) }

// is compares a label with a string.
type is struct{ matcher }

func (i *is) holds(r *row) bool {
	v, _ := r.get(i.name)
	return i.matches(v)
}

func (i *is) reads() []string { return []string{i.name} }

// inNet is name=ip("10.0.0.0/8").
type inNet struct {
	name, text string
	not        bool
	ip         *addresses
}

func (n *inNet) String() string {
	op := "="
	if n.not {
		op = "!="
	}
	return n.name + op + "ip(" + strconv.Quote(n.text) + ")"
}

func (n *inNet) holds(r *row) bool {
	v, _ := r.get(n.name)
	return v != "" && n.ip.within(v) != n.not
}

func (n *inNet) reads() []string { return []string{n.name} }

// compare orders a label by its number, duration or size.
type compare struct {
	name string
	op   string // == != > >= < <=
	unit kind   // digit, span (want in nanoseconds), size
	want float64
	raw  string
}

func (c *compare) String() string  { return c.name + c.op + c.raw }
func (c *compare) reads() []string { return []string{c.name} }

func (c *compare) holds(r *row) bool {
	v, src := r.get(c.name)
	if r.err != "" {
		return true // let through, for who asks for __error__
	}
	if v == "" {
		return false
	}
	got, ok := read(v, c.unit)
	if !ok {
		if src == stored { // as the store itself sees it
			return false
		}
		r.fail(errFilter, strconv.Quote(v)+" is no "+map[kind]string{digit: "number", span: "duration", size: "size"}[c.unit])
		return true
	}
	return ordered(c.op, got, c.want)
}

func read(v string, unit kind) (float64, bool) {
	switch unit {
	case span:
		d, err := time.ParseDuration(v)
		return float64(d), err == nil
	case size:
		return bytesOf(v)
	}
	f, err := strconv.ParseFloat(v, 64)
	return f, err == nil
}

func ordered(op string, a, b float64) bool {
	switch op {
	case "==", "=":
		return a == b
	case "!=":
		return a != b
	case ">":
		return a > b
	case ">=":
		return a >= b
	case "<":
		return a < b
	}
	return a <= b
}

// addresses are one address, a range of them or a network.
type addresses struct {
	first, last netip.Addr
	net         netip.Prefix
}

func parseAddresses(s string) (*addresses, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return &addresses{net: p.Masked()}, true
	}
	a, b, two := strings.Cut(s, "-")
	if !two {
		b = a
	}
	first, err1 := netip.ParseAddr(a)
	last, err2 := netip.ParseAddr(b)
	return &addresses{first: first, last: last}, err1 == nil && err2 == nil && first.Is4() == last.Is4() && !last.Less(first)
}

func (a *addresses) has(ip netip.Addr) bool {
	if a.net.IsValid() {
		return a.net.Contains(ip)
	}
	return ip.Is4() == a.first.Is4() && !ip.Less(a.first) && !a.last.Less(ip)
}

// within looks for one of the addresses in a text.
func (a *addresses) within(s string) bool {
	for i := 0; i < len(s); {
		if !addressByte(s[i]) {
			i++
			continue
		}
		end := i
		for end < len(s) && addressByte(s[end]) {
			end++
		}
		word := strings.Trim(s[i:end], ".")
		if ip, err := netip.ParseAddr(word); err == nil && a.has(ip.Unmap()) {
			return true
		}
		if host, _, ok := strings.Cut(word, ":"); ok { // with a port
			if ip, err := netip.ParseAddr(host); err == nil && a.has(ip) {
				return true
			}
		}
		i = end
	}
	return false
}

func addressByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == ':' || c == '.'
}
