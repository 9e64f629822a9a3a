package logql

import (
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// Bounds of a query's text.
const (
	maxQuery = 64 << 10 // bytes
	maxDepth = 64       // brackets and operators inside each other
	maxRegex = 8 << 10  // bytes
)

// Functions over a range of lines; the value says whether they need unwrap.
var rangeOps = map[string]need{
	"rate": either, "count_over_time": never, "bytes_rate": never, "bytes_over_time": never, "absent_over_time": either,
	"sum_over_time": always, "avg_over_time": always, "min_over_time": always, "max_over_time": always, "first_over_time": always,
	"last_over_time": always, "stddev_over_time": always, "stdvar_over_time": always, "quantile_over_time": always, "rate_counter": always,
}

type need uint8

const (
	never need = iota
	either
	always
)

var foldOps = []string{"sum", "avg", "min", "max", "count", "stddev", "stdvar", "topk", "bottomk", "sort", "sort_desc"}

// known but outside of the subset; the error says so instead of calling it a typo.
var outside = []string{"approx_topk", "variants", "label_join", "count_values", "group", "quantile", "absent"}

type parser struct {
	q     string
	toks  []token
	at    int
	depth int
}

// Parse reads a query of LogQL. Errors are Invalid and say where in the query.
func Parse(q string) (Expr, error) {
	if len(q) > maxQuery {
		return nil, wrong(q, 0, "the query has %d bytes; the limit is %d", len(q), maxQuery)
	}
	toks, err := lex(q)
	if err != nil {
		return nil, err
	}
	p := &parser{q: q, toks: toks}
	e, err := p.expr(0)
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != eof {
		return nil, p.unexpected(t, "an operator or the end")
	}
	return e, nil
}

// parseSelector reads {a="b"} alone.
func parseSelector(q string) ([]matcher, error) {
	if strings.TrimSpace(q) == "" {
		return nil, nil
	}
	e, err := Parse(q)
	if err != nil {
		return nil, err
	}
	if s, ok := e.(*selector); ok {
		return s.matchers, nil
	}
	return nil, wrong(q, 0, "only a selector such as {service=\"web\"} may stand here")
}

func (p *parser) peek() token { return p.toks[p.at] }

func (p *parser) next() token {
	t := p.toks[p.at]
	if t.kind != eof {
		p.at++
	}
	return t
}

// is reports whether the next token is the sign or word s, and takes it.
func (p *parser) is(s string) bool {
	if t := p.peek(); (t.kind == sign || t.kind == ident) && t.val == s {
		p.at++
		return true
	}
	return false
}

func (p *parser) want(s string) error {
	if !p.is(s) {
		return p.unexpected(p.peek(), `"`+s+`"`)
	}
	return nil
}

func (p *parser) unexpected(t token, want string) error {
	return wrong(p.q, t.pos, "unexpected %s, expected %s", t, want)
}

func (p *parser) deeper(pos int) error {
	if p.depth++; p.depth > maxDepth {
		return wrong(p.q, pos, "more than %d levels inside each other", maxDepth)
	}
	return nil
}

// power is how tightly a binary operator binds; 0: it is none.
func power(t token) int {
	switch {
	case t.kind == ident && t.val == "or":
		return 1
	case t.kind == ident && (t.val == "and" || t.val == "unless"):
		return 2
	case t.kind != sign:
		return 0
	}
	switch t.val {
	case "==", "!=", ">", ">=", "<", "<=":
		return 3
	case "+", "-":
		return 4
	case "*", "/", "%":
		return 5
	case "^":
		return 6
	}
	return 0
}

func (p *parser) expr(least int) (Expr, error) {
	if err := p.deeper(p.peek().pos); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		t := p.peek()
		w := power(t)
		if w == 0 || w < least {
			return left, nil
		}
		if n > maxDepth {
			return nil, wrong(p.q, t.pos, "more than %d operators in a row", maxDepth)
		}
		p.next()
		b := &binary{op: t.val, text: p.q, pos: t.pos}
		if err := p.matching(b, w); err != nil {
			return nil, err
		}
		floor := w + 1
		if t.val == "^" { // binds to the right
			floor = w
		}
		right, err := p.expr(floor)
		if err != nil {
			return nil, err
		}
		b.left, b.right = left, right
		for _, side := range []Expr{left, right} {
			if !side.metric() {
				return nil, wrong(p.q, t.pos, "%q works on numbers, and %s yields lines", t.val, side)
			}
			if _, number := side.(*literal); number && (w <= 2 || b.matching) {
				return nil, wrong(p.q, t.pos, "%q works on vectors, not on the number %s", t.val, side)
			}
		}
		if l, ok := left.(*literal); ok && w > 3 {
			if r, ok := right.(*literal); ok {
				if v, _ := arithmetic(b.op, l.v, r.v); !math.IsNaN(v) && !math.IsInf(v, 0) {
					left = &literal{v}
					continue
				}
			}
		}
		left = b
	}
}

// matching reads bool, on, ignoring, group_left and group_right.
func (p *parser) matching(b *binary, w int) (err error) {
	if t := p.peek(); t.kind == ident && t.val == "bool" {
		if w != 3 {
			return wrong(p.q, t.pos, "bool goes with comparisons")
		}
		p.next()
		b.boolean = true
	}
	if t := p.peek(); t.kind == ident && (t.val == "on" || t.val == "ignoring") {
		p.next()
		b.matching, b.on = true, t.val == "on"
		if b.names, err = p.names(); err != nil {
			return err
		}
		if t := p.peek(); t.kind == ident && (t.val == "group_left" || t.val == "group_right") {
			if w <= 2 {
				return wrong(p.q, t.pos, "%s does not go with %q", t.val, b.op)
			}
			p.next()
			b.group = strings.TrimPrefix(t.val, "group_")
			if n := p.peek(); n.kind == sign && n.val == "(" {
				if b.include, err = p.names(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (p *parser) operand() (Expr, error) {
	t := p.peek()
	switch {
	case t.kind == digit:
		p.next()
		return &literal{t.num}, nil
	case t.kind == sign && (t.val == "-" || t.val == "+"):
		p.next()
		n := p.next()
		if n.kind != digit {
			return nil, p.unexpected(n, "a number")
		}
		if t.val == "-" {
			n.num = -n.num
		}
		return &literal{n.num}, nil
	case t.kind == sign && t.val == "(":
		p.next()
		e, err := p.expr(0)
		if err != nil {
			return nil, err
		}
		return e, p.want(")")
	case t.kind == sign && t.val == "{":
		r, err := p.rangeOf(false)
		if err != nil {
			return nil, err
		}
		return r.of, nil
	case t.kind == ident:
		return p.call()
	}
	return nil, p.unexpected(t, "a selector such as {service=\"web\"}, a function or a number")
}

func (p *parser) call() (Expr, error) {
	t := p.next()
	if _, ok := rangeOps[t.val]; ok {
		return p.overTime(t)
	}
	switch {
	case slices.Contains(foldOps, t.val):
		return p.fold(t)
	case t.val == "vector":
		if err := p.want("("); err != nil {
			return nil, err
		}
		v, err := p.signed()
		if err != nil {
			return nil, err
		}
		return &vectorOf{v}, p.want(")")
	case t.val == "label_replace":
		return p.relabel(t)
	case slices.Contains(outside, t.val):
		return nil, wrong(p.q, t.pos, "%s is not part of this subset of LogQL", t.val)
	}
	return nil, wrong(p.q, t.pos, "there is no function %q", t.val)
}

func (p *parser) signed() (float64, error) {
	minus := p.is("-")
	t := p.next()
	if t.kind != digit {
		return 0, p.unexpected(t, "a number")
	}
	if minus {
		return -t.num, nil
	}
	return t.num, nil
}

func (p *parser) names() ([]string, error) {
	if err := p.want("("); err != nil {
		return nil, err
	}
	names := []string{}
	for !p.is(")") {
		t := p.next()
		if t.kind != ident {
			return nil, p.unexpected(t, "the name of a label")
		}
		names = append(names, t.val)
		if !p.is(",") && p.peek().val != ")" {
			return nil, p.unexpected(p.peek(), `"," or ")"`)
		}
	}
	return names, nil
}

// group reads by (...) or without (...) if it comes next.
func (p *parser) group() (*grouping, error) {
	t := p.peek()
	if t.kind != ident || t.val != "by" && t.val != "without" {
		return nil, nil
	}
	p.next()
	names, err := p.names()
	return &grouping{t.val == "without", names}, err
}

func (p *parser) fold(t token) (Expr, error) {
	f := &fold{op: t.val}
	var err error
	if f.group, err = p.group(); err != nil {
		return nil, err
	}
	if err := p.want("("); err != nil {
		return nil, err
	}
	if f.op == "topk" || f.op == "bottomk" {
		n := p.peek()
		if f.param, err = p.signed(); err != nil {
			return nil, err
		}
		if f.param < 1 || f.param != math.Trunc(f.param) || f.param > 1e6 {
			return nil, wrong(p.q, n.pos, "%s wants a whole number above 0", f.op)
		}
		if err := p.want(","); err != nil {
			return nil, err
		}
	}
	at := p.peek()
	if f.of, err = p.expr(0); err != nil {
		return nil, err
	}
	if _, number := f.of.(*literal); number || !f.of.metric() {
		return nil, wrong(p.q, at.pos, "%s works on series, such as those of count_over_time({...}[5m])", f.op)
	}
	if err := p.want(")"); err != nil {
		return nil, err
	}
	if g, err := p.group(); err != nil || g != nil {
		if f.group != nil {
			return nil, wrong(p.q, t.pos, "%s has two groupings", f.op)
		}
		f.group = g
		if err != nil {
			return nil, err
		}
	}
	if f.group != nil && strings.HasPrefix(f.op, "sort") {
		return nil, wrong(p.q, t.pos, "%s has no grouping", f.op)
	}
	return f, nil
}

func (p *parser) relabel(t token) (Expr, error) {
	r := &relabel{}
	if err := p.want("("); err != nil {
		return nil, err
	}
	var err error
	if r.of, err = p.expr(0); err != nil {
		return nil, err
	}
	if _, number := r.of.(*literal); number || !r.of.metric() {
		return nil, wrong(p.q, t.pos, "label_replace works on series")
	}
	for _, s := range []*string{&r.dst, &r.with, &r.src, &r.raw} {
		if err := p.want(","); err != nil {
			return nil, err
		}
		a := p.next()
		if a.kind != text {
			return nil, p.unexpected(a, "a string")
		}
		*s = a.val
		if s == &r.dst && !isName(r.dst) {
			return nil, wrong(p.q, a.pos, "%q is no name of a label", r.dst)
		}
		if s == &r.raw {
			if r.re, err = p.regexp(a, "^(?s:", ")$"); err != nil {
				return nil, err
			}
		}
	}
	return r, p.want(")")
}

func (p *parser) overTime(t token) (Expr, error) {
	if err := p.want("("); err != nil {
		return nil, err
	}
	param := 0.0
	if t.val == "quantile_over_time" {
		var err error
		if param, err = p.signed(); err != nil {
			return nil, err
		}
		if err := p.want(","); err != nil {
			return nil, err
		}
	}
	if at := p.peek(); at.kind != sign || at.val != "{" && at.val != "(" {
		return nil, p.unexpected(at, "a selector such as {service=\"web\"}")
	}
	brackets := 0
	for p.is("(") {
		brackets++
	}
	r, err := p.rangeOf(true)
	if err != nil {
		return nil, err
	}
	for ; brackets > 0; brackets-- {
		if err := p.want(")"); err != nil {
			return nil, err
		}
		if err := p.window(r); err != nil {
			return nil, err
		}
	}
	if err := p.want(")"); err != nil {
		return nil, err
	}
	if r.window <= 0 {
		return nil, wrong(p.q, t.pos, "%s needs a range such as [5m] behind the selector or the pipeline", t.val)
	}
	r.op, r.param, r.text, r.pos = t.val, param, p.q, t.pos
	switch n := rangeOps[t.val]; {
	case n == always && r.unwrap == nil:
		return nil, wrong(p.q, t.pos, "%s needs a number of each line: add | unwrap NAME", t.val)
	case n == never && r.unwrap != nil:
		return nil, wrong(p.q, t.pos, "%s counts lines; it does not go with unwrap", t.val)
	}
	at := p.peek()
	if r.group, err = p.group(); err != nil {
		return nil, err
	}
	if r.group != nil && (r.unwrap == nil || t.val == "absent_over_time") {
		return nil, wrong(p.q, at.pos, "%s has no grouping of its own: write sum%s(%s(...))", t.val, r.group, t.val)
	}
	return r, nil
}

// rangeOf reads a log query, and with ranged the window and unwrap that may stand in it.
func (p *parser) rangeOf(ranged bool) (*overTime, error) {
	r := &overTime{of: &selector{}}
	var err error
	if r.of.matchers, err = p.matchers(); err != nil {
		return nil, err
	}
	if ranged {
		if err := p.window(r); err != nil {
			return nil, err
		}
	}
	for {
		t := p.peek()
		if t.kind != sign || !slices.Contains([]string{"|", "|=", "|~", "|>", "!=", "!~", "!>"}, t.val) {
			break
		}
		if n := p.toks[p.at+1]; t.val == "|" && n.kind == ident && n.val == "unwrap" {
			if !ranged {
				return nil, wrong(p.q, n.pos, "unwrap belongs into a function such as sum_over_time")
			}
			if r.unwrap != nil {
				return nil, wrong(p.q, n.pos, "there is a second unwrap")
			}
			if r.unwrap, err = p.unwrap(); err != nil {
				return nil, err
			}
			continue
		}
		if len(r.of.stages)+len(r.after) > maxDepth {
			return nil, wrong(p.q, t.pos, "more than %d stages", maxDepth)
		}
		s, err := p.stage()
		if err != nil {
			return nil, err
		}
		if r.unwrap == nil {
			r.of.stages = append(r.of.stages, s)
			continue
		}
		if _, filter := s.(*labelFilter); !filter {
			return nil, wrong(p.q, t.pos, "only label filters may follow unwrap")
		}
		r.after = append(r.after, s)
	}
	if ranged {
		return r, p.window(r)
	}
	if t := p.peek(); t.kind == sign && t.val == "[" {
		return nil, wrong(p.q, t.pos, "a range belongs into a function such as count_over_time")
	}
	return r, nil
}

// window reads [5m] and offset 1h if they come next.
func (p *parser) window(r *overTime) error {
	t := p.peek()
	if t.kind != sign || t.val != "[" {
		return nil
	}
	p.next()
	d := p.next()
	if d.kind != span || d.num <= 0 {
		return p.unexpected(d, "a duration such as 5m")
	}
	if r.window > 0 {
		return wrong(p.q, d.pos, "there is a second range")
	}
	r.window = time.Duration(d.num)
	if n := p.peek(); n.kind == sign && n.val == "]" {
		p.next()
	} else {
		return p.unexpected(n, `"]"; subqueries are not part of this subset of LogQL`)
	}
	if p.is("offset") {
		minus := p.is("-")
		d := p.next()
		if d.kind != span {
			return p.unexpected(d, "a duration such as 1h")
		}
		r.offset = time.Duration(d.num)
		if minus {
			r.offset = -r.offset
		}
	}
	return nil
}

func (p *parser) matchers() ([]matcher, error) {
	if err := p.want("{"); err != nil {
		return nil, err
	}
	var out []matcher
	for !p.is("}") {
		m, err := p.matcher()
		if err != nil {
			return nil, err
		}
		out = append(out, m)
		if !p.is(",") && p.peek().val != "}" {
			return nil, p.unexpected(p.peek(), `"," or "}"`)
		}
	}
	return out, nil
}

func (p *parser) matcher() (m matcher, err error) {
	n := p.next()
	if n.kind != ident {
		return m, p.unexpected(n, "the name of a label")
	}
	op := p.next()
	if op.kind != sign || !slices.Contains([]string{"=", "!=", "=~", "!~"}, op.val) {
		return m, p.unexpected(op, "one of = != =~ !~")
	}
	v := p.next()
	if v.kind != text {
		return m, p.unexpected(v, "a string")
	}
	return p.match(n.val, op.val, v)
}

func (p *parser) match(name, op string, v token) (m matcher, err error) {
	m = matcher{name: name, op: logs.Op(op), value: v.val}
	if m.op == logs.Matches || m.op == logs.NotMatches {
		m.re, err = p.regexp(v, "^(?:", ")$")
	}
	return m, err
}

// regexp compiles a token's text with something around it.
func (p *parser) regexp(t token, before, behind string) (*regexp.Regexp, error) {
	if len(t.val) > maxRegex {
		return nil, wrong(p.q, t.pos, "the regular expression has %d bytes; the limit is %d", len(t.val), maxRegex)
	}
	if _, err := syntax.Parse(t.val, syntax.Perl); err != nil {
		return nil, wrong(p.q, t.pos, "%v", err)
	}
	re, err := regexp.Compile(before + t.val + behind)
	if err != nil {
		return nil, wrong(p.q, t.pos, "%v", err)
	}
	return re, nil
}

func isName(s string) bool {
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for i := range len(s) {
		if !nameByte(s[i]) {
			return false
		}
	}
	return true
}

// unwrap reads | unwrap NAME and | unwrap duration(NAME).
func (p *parser) unwrap() (*unwrap, error) {
	p.next() // |
	p.next() // unwrap
	t := p.next()
	if t.kind != ident {
		return nil, p.unexpected(t, "the name of a label")
	}
	u := &unwrap{name: t.val, pos: t.pos}
	if n := p.peek(); n.kind != sign || n.val != "(" {
		return u, nil
	}
	p.next()
	if !slices.Contains([]string{"duration", "duration_seconds", "bytes"}, t.val) {
		return nil, wrong(p.q, t.pos, "unwrap knows duration, duration_seconds and bytes, not %q", t.val)
	}
	u.convert = t.val
	if t = p.next(); t.kind != ident {
		return nil, p.unexpected(t, "the name of a label")
	}
	u.name = t.val
	return u, p.want(")")
}
