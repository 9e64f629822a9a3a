package logql

import (
	"math"
	"slices"
	"strings"
	"time"
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
