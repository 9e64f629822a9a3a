package logql

import (
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/tenderhq/tender/internal/logs"
)

// Bounds of a query's text.
const (
	maxQuery = 64 << 10 // bytes
	maxDepth = 64       // brackets and operators inside each other
	maxRegex = 8 << 10  // bytes
)

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
