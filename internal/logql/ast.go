package logql

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// Expr is a parsed query. String writes it in its canonical form.
type Expr interface {
	String() string
	// metric: it yields numbers, not lines.
	metric() bool
}

// IsMetric reports whether e yields numbers, not lines.
func IsMetric(e Expr) bool { return e.metric() }

// matcher is one condition of a selector or of drop and keep.
type matcher struct {
	name  string
	op    logs.Op
	value string
	re    *regexp.Regexp // anchored at both ends
}

func (m matcher) String() string { return m.name + string(m.op) + strconv.Quote(m.value) }

func (m matcher) matches(v string) bool {
	switch m.op {
	case logs.Equal:
		return v == m.value
	case logs.NotEqual:
		return v != m.value
	case logs.Matches:
		return m.re.MatchString(v)
	}
	return !m.re.MatchString(v)
}

func (m matcher) condition() logs.Condition {
	return logs.Condition{Name: m.name, Op: m.op, Value: m.value, Regexp: m.re}
}

// selector is a log query: which streams, and what is done with each line.
type selector struct {
	matchers []matcher
	stages   []stage
}

func (s *selector) metric() bool { return false }

func (s *selector) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range s.matchers {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(m.String())
	}
	b.WriteByte('}')
	for _, st := range s.stages {
		b.WriteString(" " + st.String())
	}
	return b.String()
}

// grouping is by (...) or without (...).
type grouping struct {
	without bool
	names   []string
}

func (g *grouping) String() string {
	if g == nil {
		return ""
	}
	word := " by ("
	if g.without {
		word = " without ("
	}
	return word + strings.Join(g.names, ", ") + ")"
}

// literal is a number.
type literal struct{ v float64 }

func (l *literal) metric() bool   { return true }
func (l *literal) String() string { return number64(l.v) }

// vectorOf is vector(number).
type vectorOf struct{ v float64 }

func (v *vectorOf) metric() bool   { return true }
func (v *vectorOf) String() string { return "vector(" + number64(v.v) + ")" }

// unwrap takes the sample from a label.
type unwrap struct {
	name    string
	convert string // "", duration, bytes
	pos     int
}

func (u *unwrap) String() string {
	if u.convert != "" {
		return "| unwrap " + u.convert + "(" + u.name + ")"
	}
	return "| unwrap " + u.name
}

// overTime is a function over a range of lines.
type overTime struct {
	op     string
	param  float64 // of quantile_over_time
	of     *selector
	unwrap *unwrap
	after  []stage // label filters behind unwrap
	window time.Duration
	offset time.Duration
	group  *grouping
	text   string // of the query it stands in, for errors
	pos    int
}

func (o *overTime) metric() bool { return true }

func (o *overTime) String() string {
	var b strings.Builder
	b.WriteString(o.op + "(")
	if o.op == "quantile_over_time" {
		b.WriteString(number64(o.param) + ", ")
	}
	b.WriteString(o.of.String())
	if o.unwrap != nil {
		b.WriteString(" " + o.unwrap.String())
	}
	for _, st := range o.after {
		b.WriteString(" " + st.String())
	}
	b.WriteString(" [" + short(o.window) + "]")
	if o.offset != 0 {
		b.WriteString(" offset " + short(o.offset))
	}
	b.WriteString(")" + o.group.String())
	return b.String()
}

// fold makes fewer series of many: sum by (...) (...).
type fold struct {
	op    string
	param float64 // of topk and bottomk
	of    Expr
	group *grouping
}

func (f *fold) metric() bool { return true }

func (f *fold) String() string {
	inner := f.of.String()
	if f.op == "topk" || f.op == "bottomk" {
		inner = number64(f.param) + ", " + inner
	}
	return f.op + f.group.String() + "(" + inner + ")"
}

// binary is left op right.
type binary struct {
	op          string
	left, right Expr
	boolean     bool
	on          bool // match on names; else ignoring names
	names       []string
	group       string // "", left, right
	include     []string
	matching    bool // on or ignoring was written
	text        string
	pos         int
}

func (b *binary) metric() bool { return true }

func (b *binary) String() string {
	op := b.op
	if b.boolean {
		op += " bool"
	}
	if b.matching {
		word := " ignoring ("
		if b.on {
			word = " on ("
		}
		op += word + strings.Join(b.names, ", ") + ")"
	}
	if b.group != "" {
		op += " group_" + b.group + " (" + strings.Join(b.include, ", ") + ")"
	}
	return "(" + b.left.String() + " " + op + " " + b.right.String() + ")"
}

// relabel is label_replace.
type relabel struct {
	of                  Expr
	dst, with, src, raw string
	re                  *regexp.Regexp
}

func (r *relabel) metric() bool { return true }

func (r *relabel) String() string {
	return fmt.Sprintf("label_replace(%s, %q, %q, %q, %q)", r.of, r.dst, r.with, r.src, r.raw)
}

func number64(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// short writes a duration without zero units: 5m, 1h30m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// selectors are all log queries in e.
func selectors(e Expr) []*selector {
	switch e := e.(type) {
	case *selector:
		return []*selector{e}
	case *overTime:
		return []*selector{e.of}
	case *fold:
		return selectors(e.of)
	case *relabel:
		return selectors(e.of)
	case *binary:
		return slices.Concat(selectors(e.left), selectors(e.right))
	}
	return nil
}
