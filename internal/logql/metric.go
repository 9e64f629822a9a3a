package logql

import (
	"context"
	"math"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// Steps are the points in time of a metric query: Start, Start+Step ... up to End.
type Steps struct {
	Start, End time.Time
	Step       time.Duration
}

// Series is a row of values, one for each step; see absent.
type Series struct {
	Labels logs.Labels // sorted by name
	Values []float64
}

// nothing stands where a series has no value. It is a NaN of its own, since NaN
// may also be a result.
var nothing = math.Float64frombits(0x7ff0000000000002)

func absent(v float64) bool { return math.Float64bits(v) == 0x7ff0000000000002 }

// grid is Steps in numbers.
type grid struct {
	start, step int64 // nanoseconds
	n           int
}

func (g grid) at(i int) int64 { return g.start + int64(i)*g.step }

// Series evaluates a metric query at each step. Series without any value are left out.
func (e *Engine) Series(ctx context.Context, x Expr, s Steps) ([]Series, error) {
	if !x.metric() {
		return nil, tender.Errorf(tender.Invalid, "%s yields lines, not numbers", x)
	}
	g := grid{start: s.Start.UnixNano(), step: max(1, int64(s.Step)), n: 1}
	if s.End.After(s.Start) {
		if s.Step <= 0 {
			return nil, tender.Errorf(tender.Invalid, "a range of time needs a step")
		}
		n := (s.End.UnixNano() - g.start) / g.step
		if n >= int64(e.limits.Steps) {
			return nil, tender.Errorf(tender.Invalid, "%d points in time are more than %d", n+1, e.limits.Steps).Hint("take a longer step or less time")
		}
		g.n = int(n) + 1
	}
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	out, err := e.eval(ctx, x, g, nil)
	if err != nil {
		return nil, because(ctx, err)
	}
	kept := out[:0]
	for _, s := range out {
		for _, v := range s.Values {
			if !absent(v) {
				kept = append(kept, s)
				break
			}
		}
	}
	return kept, nil
}

// eval returns the series of x. group is that of a sum around it, which
// the functions that add up apply by themselves; others get nil.
func (e *Engine) eval(ctx context.Context, x Expr, g grid, group *grouping) ([]Series, error) {
	switch x := x.(type) {
	case *literal:
		return []Series{constant(x.v, g.n)}, nil
	case *vectorOf:
		return []Series{constant(x.v, g.n)}, nil
	case *overTime:
		return e.overTime(ctx, x, g, group)
	case *fold:
		var down *grouping
		inner, ok := x.of.(*overTime)
		if ok && together(x.op, inner) {
			if down = x.group; down == nil {
				down = &grouping{}
			}
		}
		in, err := e.eval(ctx, x.of, g, down)
		if err != nil || down != nil {
			return in, err
		}
		return folded(x, in, g.n)
	case *relabel:
		in, err := e.eval(ctx, x.of, g, nil)
		if err != nil {
			return nil, err
		}
		return relabelled(x, in)
	case *binary:
		left, err := e.eval(ctx, x.left, g, nil)
		if err != nil {
			return nil, err
		}
		right, err := e.eval(ctx, x.right, g, nil)
		if err != nil {
			return nil, err
		}
		return combined(x, left, right, g.n)
	}
	return nil, tender.Errorf(tender.Invalid, "%s yields lines, not numbers", x)
}

// together: the fold of what the function yields for each series is what it yields
// for all their lines together.
func together(op string, o *overTime) bool {
	if o.group != nil {
		return false
	}
	switch op {
	case "sum":
		switch o.op {
		case "count_over_time", "rate", "bytes_over_time", "bytes_rate", "sum_over_time":
			return true
		}
	case "min", "max":
		return o.op == op+"_over_time"
	}
	return false
}

func constant(v float64, n int) Series {
	s := Series{Values: make([]float64, n)}
	for i := range s.Values {
		s.Values[i] = v
	}
	return s
}

func empty(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = nothing
	}
	return v
}

// overTime evaluates a function over a range of lines.
func (e *Engine) overTime(ctx context.Context, o *overTime, g grid, group *grouping) ([]Series, error) {
	if group == nil {
		group = o.group
	}
	w := window{grid: g, width: int64(o.window), offset: int64(o.offset)}
	from := g.start - w.offset - w.width + 1
	to := g.at(g.n-1) - w.offset + 1
	var more []string
	for _, st := range o.after {
		more = append(more, st.reads()...)
	}
	if o.unwrap != nil {
		more = append(more, o.unwrap.name)
	}
	if group != nil && !group.without {
		more = append(more, group.names...)
	}
	p, err := e.plan(ctx, o.of, from, to, more, false)
	if err != nil {
		return nil, err
	}
	bytes := o.op == "bytes_over_time" || o.op == "bytes_rate"
	p.query.NoText = !p.texts && !bytes
	p.query.Columns = p.columns()

	t := &tally{engine: e, window: w, group: group, over: o, byKey: map[string]*tallied{}}
	if o.op == "absent_over_time" {
		t.group = &grouping{} // only whether there is anything
	}
	plain := len(p.stages) == 0 && o.unwrap == nil && !bytes
	err = e.walk(ctx, p, func(v *view) (bool, error) {
		if len(v.times) == 0 {
			return false, nil
		}
		t.enter(v)
		if plain && t.steady {
			s, err := t.series(nil)
			if err != nil {
				return false, err
			}
			t.count(s, v.times)
			return false, nil
		}
		return true, nil
	}, func(r *row) error { return t.row(r) })
	if err != nil {
		return nil, err
	}
	return t.result()
}

// window is the span of time behind each step: (step-offset-width, step-offset].
type window struct {
	grid
	width, offset int64
}

// covers returns the first and the last step whose window holds the time (first >
// last: none does), and the time from which on that differs.
func (w window) covers(at int64) (first, last int, until int64) {
	y := at + w.offset
	if y > w.start {
		first = int((y - w.start + w.step - 1) / w.step)
	}
	last = -1
	if d := y + w.width - 1 - w.start; d >= 0 {
		last = int(min(d/w.step, int64(w.n-1)))
	}
	until = math.MaxInt64
	if first < w.n {
		until = w.at(first) - w.offset + 1
	}
	if last+1 < w.n {
		until = min(until, w.at(last+1)-w.width+1-w.offset)
	}
	return first, min(last, w.n-1), until
}
