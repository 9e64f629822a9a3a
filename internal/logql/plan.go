package logql

import (
	"context"
	"slices"
	"strings"

	"github.com/tenderhq/tender/internal/logs"
)

// fixed are the labels that every stream has; what else is one, the store says.
var fixed = []string{"project", "service", "revision", "instance", "node", "stream"}

// plan is a query of the store, and what is left to do with what it finds.
type plan struct {
	query  logs.Query
	stages []stage
	// texts: a stage that is left may read the line.
	texts bool
	// reads are the stored fields that the stages look at.
	reads []string
	// alias says which stored fields LogQL can only call by another name: a_b for a.b.
	alias map[string][]string
	// raw: the query asks for the field of that name.
	raw bool
}

// plan pushes down what the store can hold: matchers, filters on lines as they
// were written, filters on stored fields before a parser.
//
// more are names that the caller reads beside the stages. ahead: it is about rows
// that are still to come, of whose streams the store knows nothing yet.
func (e *Engine) plan(ctx context.Context, s *selector, from, to int64, more []string, ahead bool) (plan, error) {
	p := plan{query: logs.Query{From: from, To: to}, reads: more}
	for _, m := range s.matchers {
		p.query.Labels = append(p.query.Labels, m.condition())
	}
	for _, st := range s.stages {
		p.reads = append(p.reads, st.reads()...)
	}
	p.raw = slices.Contains(p.reads, rawField)
	if err := e.aliases(ctx, &p); err != nil {
		return p, err
	}
	var known []string
	isLabel := func(name string) (bool, error) {
		if slices.Contains(fixed, name) {
			return true, nil
		}
		if ahead {
			return true, nil // perhaps
		}
		if known == nil {
			streams, err := e.store.Streams(ctx, p.query)
			if err != nil {
				return false, err
			}
			known = []string{""}
			for _, l := range streams {
				for _, f := range l {
					if !slices.Contains(known, f.Name) {
						known = append(known, f.Name)
					}
				}
			}
		}
		return slices.Contains(known, name), nil
	}
	asWritten, asStored := true, true // the line, and the labels
	for _, st := range s.stages {
		switch st := st.(type) {
		case *lineFilter:
			if len(st.terms) == 1 && st.terms[0].text == "" && st.op == "|=" {
				continue // what a Grafana without a search word asks
			}
			if cs := st.conditions(); asWritten && cs != nil {
				p.query.Text = append(p.query.Text, cs...)
				continue
			}
			p.texts = true
		case *labelFilter:
			if asStored {
				rest, err := p.push(st.of, isLabel)
				if err != nil {
					return p, err
				}
				if rest == nil {
					continue
				}
				p.stages = append(p.stages, &labelFilter{rest})
				continue
			}
		case *choice:
			if asStored && !st.keep && !slices.ContainsFunc(st.items, func(m matcher) bool { return m.name != errorLabel && m.name != detailsLabel }) {
				continue // nothing went wrong yet
			}
			asStored = false
		case *lineFormat:
			asWritten, p.texts = false, true
		case *decolorize:
			asWritten, p.texts = false, true
		case *unpack:
			asWritten, asStored, p.texts = false, false, true
		default:
			asStored, p.texts = false, true
		}
		p.stages = append(p.stages, st)
	}
	p.reads = slices.Clone(more)
	for _, st := range p.stages {
		p.reads = append(p.reads, st.reads()...)
	}
	return p, nil
}

// aliases finds the stored fields behind names in which a sign may have become a _.
func (e *Engine) aliases(ctx context.Context, p *plan) error {
	names := slices.DeleteFunc(slices.Clone(p.reads), func(n string) bool {
		return !strings.Contains(n, "_") || n == errorLabel || n == detailsLabel || n == detectedLevel
	})
	if len(names) == 0 {
		return nil
	}
	found, err := e.store.Fields(ctx, logs.Query{From: p.query.From, To: p.query.To, Labels: p.query.Labels})
	if err != nil {
		return err
	}
	for stored := range found {
		if n := sanitize(stored); n != stored && slices.Contains(names, n) {
			if p.alias == nil {
				p.alias = map[string][]string{}
			}
			p.alias[n] = append(p.alias[n], stored)
		}
	}
	for _, l := range p.alias {
		slices.Sort(l)
	}
	return nil
}

// push gives the store the conditions of f that it can hold, and returns the rest.
func (p *plan) push(f predicate, isLabel func(string) (bool, error)) (predicate, error) {
	if b, ok := f.(*both); ok && !b.or {
		left, err := p.push(b.left, isLabel)
		if err != nil {
			return nil, err
		}
		right, err := p.push(b.right, isLabel)
		switch {
		case err != nil:
			return nil, err
		case left == nil:
			return right, nil
		case right == nil:
			return left, nil
		}
		return &both{false, left, right}, nil
	}
	var name string
	var cs []logs.Condition
	switch f := f.(type) {
	case *is:
		name, cs = f.name, []logs.Condition{f.condition()}
	case *compare:
		name = f.name
		c := logs.Condition{Name: f.name, Number: f.want}
		if f.unit == span { // the store reads durations in seconds
			c.Number = f.want / 1e9
		}
		switch f.op {
		case "==":
			low, high := c, c
			low.Op, high.Op = logs.AtLeast, logs.AtMost
			cs = []logs.Condition{low, high}
		case "!=":
			return f, nil
		default:
			c.Op = logs.Op(f.op)
			cs = []logs.Condition{c}
		}
	default:
		return f, nil
	}
	if name == errorLabel || name == detailsLabel || name == detectedLevel || strings.HasSuffix(name, extracted) {
		return f, nil
	}
	if l := p.alias[name]; len(l) == 1 {
		for i := range cs {
			cs[i].Name = l[0]
		}
	} else if len(l) > 1 {
		return f, nil
	}
	label, err := isLabel(name)
	if err != nil {
		return nil, err
	}
	if !label {
		p.query.Where = append(p.query.Where, cs...)
		if c, ok := f.(*compare); ok && c.unit != digit {
			return f, nil // to the store 5 is also a duration and a size
		}
		return nil, nil
	}
	if _, text := f.(*is); text && slices.Contains(fixed, name) {
		p.query.Labels = append(p.query.Labels, cs...)
		return nil, nil
	}
	return f, nil // a label of some streams, perhaps a field of others
}

// everything stands among reads for all labels.
const everything = "*"

// columns are the stored fields that are read; nil: all.
func (p *plan) columns() []string {
	names := columns(p.reads)
	if names == nil {
		return nil
	}
	for _, n := range p.reads {
		names = append(names, p.alias[n]...)
	}
	return names
}

// columns are the stored fields behind names.
func columns(names []string) []string {
	if slices.Contains(names, everything) {
		return nil
	}
	out := []string{}
	add := func(n string) {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	for _, n := range names {
		add(n)
		if base, cut := strings.CutSuffix(n, extracted); cut {
			add(base)
		}
		if n == detectedLevel {
			add("level")
		}
	}
	return out
}

// walk runs the stages that are left over every row that the store finds. enter is
// called for each chunk; false leaves it out, and then no row of it is looked at.
func (e *Engine) walk(ctx context.Context, p plan, enter func(*view) (bool, error), each func(*row) error) error {
	err := e.store.Scan(ctx, p.query, p.rows(ctx, enter, each))
	return because(ctx, err)
}

// rows runs the stages over chunks.
func (p *plan) rows(ctx context.Context, enter func(*view) (bool, error), each func(*row) error) func(logs.Chunk) error {
	var r row
	return func(c logs.Chunk) error {
		v := newView(c, p)
		ok, err := enter(v)
		if err != nil || !ok {
			return err
		}
	rows:
		for i := range v.times {
			if i&1023 == 1023 && ctx.Err() != nil {
				return ctx.Err()
			}
			r.reset(v, i)
			for _, st := range p.stages {
				if !st.run(&r) {
					continue rows
				}
			}
			if err := each(&r); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
}
