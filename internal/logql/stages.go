package logql

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tenderhq/tender/internal/logs"
)

// stage reads one step of a pipeline, from its | or line filter on.
func (p *parser) stage() (stage, error) {
	t := p.next()
	if t.val != "|" {
		return p.lineFilter(t)
	}
	n := p.peek()
	if n.kind == ident && !p.comparison(p.toks[p.at+1]) {
		p.next()
		switch n.val {
		case "json":
			parts, err := p.extractions(jsonPath)
			return &jsonParser{parts: parts}, err
		case "logfmt":
			return p.logfmt()
		case "regexp":
			return p.regexpParser()
		case "pattern":
			return p.patternParser()
		case "unpack":
			return &unpack{}, nil
		case "decolorize":
			return &decolorize{}, nil
		case "line_format":
			return p.lineFormat()
		case "label_format":
			return p.labelFormat()
		case "drop", "keep":
			return p.choose(n.val == "keep")
		case "distinct":
			return nil, wrong(p.q, n.pos, "distinct is not part of this subset of LogQL")
		}
		if len(n.val) > 0 && p.peek().kind == sign && p.comparison(p.peek()) {
			p.at--
		} else {
			return nil, wrong(p.q, n.pos, "there is no stage %q; a filter is written %s = \"value\"", n.val, n.val)
		}
	}
	f, err := p.predicate()
	return &labelFilter{f}, err
}

func (p *parser) comparison(t token) bool {
	return t.kind == sign && slices.Contains([]string{"=", "==", "!=", "=~", "!~", ">", ">=", "<", "<="}, t.val)
}

// lineFilter reads what follows |= and its kin.
func (p *parser) lineFilter(op token) (stage, error) {
	f := &lineFilter{op: op.val}
	for {
		t := p.next()
		if t.kind == ident && t.val == "ip" {
			if op.val != "|=" && op.val != "!=" {
				return nil, wrong(p.q, t.pos, "ip(...) goes with |= and != alone")
			}
			s, ip, err := p.ip()
			if err != nil {
				return nil, err
			}
			f.terms = append(f.terms, lineTerm{text: s, ip: ip})
		} else {
			if t.kind != text {
				return nil, p.unexpected(t, "a string")
			}
			term := lineTerm{text: t.val}
			var err error
			switch op.val {
			case "|~", "!~":
				term.re, err = p.regexp(t, "(?s:", ")")
			case "|>", "!>":
				term.re, err = p.likeness(t)
			}
			if err != nil {
				return nil, err
			}
			f.terms = append(f.terms, term)
		}
		if len(f.terms) > maxDepth {
			return nil, wrong(p.q, t.pos, "more than %d alternatives", maxDepth)
		}
		if !p.is("or") {
			return f, nil
		}
	}
}

// likeness turns the pattern of |> into a regular expression: <_> is anything.
func (p *parser) likeness(t token) (*regexp.Regexp, error) {
	if len(t.val) > maxRegex {
		return nil, wrong(p.q, t.pos, "the pattern has %d bytes; the limit is %d", len(t.val), maxRegex)
	}
	parts := strings.Split(t.val, "<_>")
	for i, s := range parts {
		if i > 0 && i < len(parts)-1 && s == "" {
			return nil, wrong(p.q, t.pos, "two <_> with nothing between them")
		}
		parts[i] = regexp.QuoteMeta(s)
	}
	re, err := regexp.Compile("^(?s:" + strings.Join(parts, ".*") + ")$")
	if err != nil {
		return nil, wrong(p.q, t.pos, "%v", err)
	}
	return re, nil
}

// ip reads what follows the word: ("10.0.0.0/8").
func (p *parser) ip() (string, *addresses, error) {
	if err := p.want("("); err != nil {
		return "", nil, err
	}
	t := p.next()
	if t.kind != text {
		return "", nil, p.unexpected(t, "a string")
	}
	a, ok := parseAddresses(t.val)
	if !ok {
		return "", nil, wrong(p.q, t.pos, "%q is no address, range such as 10.0.0.1-10.0.0.9, or network such as 10.0.0.0/8", t.val)
	}
	return t.val, a, p.want(")")
}

// predicate reads a label filter. and and or bind alike, from left to right.
func (p *parser) predicate() (predicate, error) {
	left, err := p.unit()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		or := false
		switch t := p.peek(); {
		case t.kind == ident && t.val == "or":
			or = true
			p.next()
		case t.kind == ident && t.val == "and" || t.kind == sign && t.val == ",":
			p.next()
		case t.kind == ident && p.comparison(p.toks[p.at+1]) || t.kind == sign && t.val == "(": // a space is an and
		default:
			return left, nil
		}
		if n > maxDepth {
			return nil, wrong(p.q, p.peek().pos, "more than %d conditions in a row", maxDepth)
		}
		right, err := p.unit()
		if err != nil {
			return nil, err
		}
		left = &both{or, left, right}
	}
}

func (p *parser) unit() (predicate, error) {
	t := p.next()
	if t.kind == sign && t.val == "(" {
		if err := p.deeper(t.pos); err != nil {
			return nil, err
		}
		defer func() { p.depth-- }()
		f, err := p.predicate()
		if err != nil {
			return nil, err
		}
		return f, p.want(")")
	}
	if t.kind != ident {
		return nil, p.unexpected(t, "the name of a label or of a stage")
	}
	op := p.next()
	if !p.comparison(op) {
		return nil, p.unexpected(op, "a comparison")
	}
	minus := p.is("-")
	v := p.next()
	switch v.kind {
	case text:
		if minus || !slices.Contains([]string{"=", "!=", "=~", "!~"}, op.val) {
			return nil, wrong(p.q, op.pos, "%q compares numbers, durations and sizes; strings go with = != =~ !~", op.val)
		}
		m, err := p.match(t.val, op.val, v)
		return &is{m}, err
	case digit, span, size:
		if op.val == "=~" || op.val == "!~" {
			return nil, p.unexpected(v, "a string")
		}
		c := &compare{name: t.val, op: op.val, unit: v.kind, want: v.num, raw: v.val}
		if c.op == "=" {
			c.op = "=="
		}
		if minus {
			c.want, c.raw = -c.want, "-"+c.raw
		}
		return c, nil
	case ident:
		if v.val == "ip" && (op.val == "=" || op.val == "!=") {
			s, ip, err := p.ip()
			return &inNet{t.val, s, op.val == "!=", ip}, err
		}
	}
	return nil, p.unexpected(v, "a string, a number, a duration or a size")
}

// choice is drop or keep.
type choice struct {
	keep  bool
	items []matcher // op "": by name alone
}

func (p *parser) choose(keep bool) (stage, error) {
	c := &choice{keep: keep}
	for {
		n := p.next()
		if n.kind != ident {
			return nil, p.unexpected(n, "the name of a label")
		}
		m := matcher{name: n.val}
		if op := p.peek(); p.comparison(op) {
			p.at--
			var err error
			if m, err = p.matcher(); err != nil {
				return nil, err
			}
		}
		c.items = append(c.items, m)
		if !p.is(",") {
			return c, nil
		}
	}
}

func (c *choice) String() string {
	word := "| drop "
	if c.keep {
		word = "| keep "
	}
	var items []string
	for _, m := range c.items {
		if m.op == "" {
			items = append(items, m.name)
		} else {
			items = append(items, m.String())
		}
	}
	return word + strings.Join(items, ", ")
}

func (c *choice) reads() (names []string) {
	for _, m := range c.items {
		if m.op != "" || c.keep {
			names = append(names, m.name)
		}
	}
	return names
}

func (c *choice) run(r *row) bool {
	r.parse()
	if !c.keep {
		for _, m := range c.items {
			if m.op == "" {
				r.drop(m.name)
			} else if v, _ := r.get(m.name); m.matches(v) {
				r.drop(m.name)
			}
		}
		return true
	}
	var kept []logs.Field
	for _, m := range c.items {
		if m.name == errorLabel || m.name == detailsLabel {
			continue
		}
		if v, src := r.get(m.name); src != nowhere && (m.op == "" || m.matches(v)) && !has(kept, m.name) {
			kept = append(kept, logs.Field{Name: m.name, Value: v})
		}
	}
	r.set, r.only = append(r.set[:0], kept...), true
	return true
}

// extraction is one part of json a="b.c" or logfmt a="b".
type extraction struct {
	name string
	from string
	path []any // of JSON: string or int
}

// extractions reads a, b="c.d" behind a parser.
func (p *parser) extractions(path func(string) ([]any, bool)) ([]extraction, error) {
	var out []extraction
	for p.peek().kind == ident {
		n := p.next()
		e := extraction{name: n.val, from: n.val}
		at := n
		if p.is("=") {
			if at = p.next(); at.kind != text {
				return nil, p.unexpected(at, "a string")
			}
			e.from = at.val
		}
		if path != nil {
			var ok bool
			if e.path, ok = path(e.from); !ok {
				return nil, wrong(p.q, at.pos, "%q is no path such as request.headers[\"User-Agent\"] or servers[0]", e.from)
			}
		}
		out = append(out, e)
		if !p.is(",") {
			return out, nil
		}
		if p.peek().kind != ident {
			return nil, p.unexpected(p.peek(), "the name of a label")
		}
	}
	return out, nil
}

func extractionText(parts []extraction) string {
	var out []string
	for _, e := range parts {
		if e.from == e.name {
			out = append(out, e.name)
		} else {
			out = append(out, e.name+"="+strconv.Quote(e.from))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return " " + strings.Join(out, ", ")
}

// decolorize takes ANSI escapes out of the line.
type decolorize struct{}

var ansi = regexp.MustCompile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[@-Z\\\\-_])")

func (*decolorize) String() string  { return "| decolorize" }
func (*decolorize) reads() []string { return nil }
func (*decolorize) run(r *row) bool {
	if line := r.now(); slices.Contains(line, 0x1b) {
		r.rewrite(ansi.ReplaceAll(line, nil))
	}
	return true
}
