package logql

import (
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// tally sorts rows into series and windows.
type tally struct {
	engine *Engine
	window
	group *grouping
	over  *overTime

	byKey   map[string]*tallied
	all     []*tallied
	samples int

	// Of the chunk at hand:
	steady bool // its rows are all of one series
	last   *tallied
	key    []byte
	prior  []byte // the key of last
}

// tallied is one series in the making.
type tallied struct {
	labels logs.Labels
	delta  []float64 // sums: what changes at each step, and one behind the last
	lines  []float64 // of bytes: the same for their number, since a sum of nothing is a value
	cells  []cell    // what unwrap needs
	points [][]point // quantiles and counters
}

type cell struct {
	n               int64
	sum, min, max   float64
	first, last     float64
	firstAt, lastAt int64
	mean, squares   float64
}

type point struct {
	at int64
	v  float64
}

// enter begins with a chunk.
func (t *tally) enter(v *view) {
	t.last, t.steady = nil, false
	if slices.ContainsFunc(t.over.of.stages, makesLabels) {
		return
	}
	t.begin()
	if t.group == nil || t.group.without {
		for _, f := range v.labels {
			if t.group == nil || !slices.Contains(t.group.names, f.Name) {
				t.part(f.Name, f.Value)
			}
		}
		t.steady = true
		return
	}
	for _, n := range t.group.names {
		val, ok := v.label(n)
		if !ok && v.hasField(n) {
			return // a field: it differs from row to row
		}
		t.part(n, val)
	}
	t.steady = true
}

// makesLabels: the stage may change labels, of the stream too.
func makesLabels(s stage) bool {
	switch s := s.(type) {
	case *lineFilter, *labelFilter, *lineFormat, *decolorize:
		return false
	case *choice:
		return s.keep || slices.ContainsFunc(s.items, func(m matcher) bool { return m.name != errorLabel && m.name != detailsLabel })
	}
	return true
}

func (t *tally) begin() { t.key = t.key[:0] }

func (t *tally) part(name, value string) {
	if value == "" {
		return
	}
	t.key = append(t.key, name...)
	t.key = append(t.key, 0xff)
	t.key = append(t.key, value...)
	t.key = append(t.key, 0xff)
}

// series returns the one that the key names, or that r belongs to.
func (t *tally) series(r *row) (*tallied, error) {
	if r != nil && !t.steady {
		t.keyOf(r)
	} else if t.last != nil {
		return t.last, nil
	}
	if t.last != nil && string(t.key) == string(t.prior) {
		return t.last, nil
	}
	s := t.byKey[string(t.key)]
	if s == nil {
		if len(t.all) >= t.engine.limits.Series {
			return nil, tender.Errorf(tender.Invalid, "the query makes more than %d series", t.engine.limits.Series).
				Hint("group by fewer labels, as in sum by (service) (...)")
		}
		if (len(t.all)+1)*t.n > t.engine.limits.Points {
			return nil, tender.Errorf(tender.Invalid, "%d series at %d points in time are more than %d values", len(t.all)+1, t.n, t.engine.limits.Points).
				Hint("take a longer step or group by fewer labels")
		}
		s = &tallied{labels: parseKey(t.key)}
		switch {
		case t.over.op == "quantile_over_time" || t.over.op == "rate_counter":
			s.points = make([][]point, t.n)
		case t.over.unwrap != nil && t.over.op != "absent_over_time":
			s.cells = make([]cell, t.n)
		default:
			s.delta = make([]float64, t.n+1)
			if t.bytes() {
				s.lines = make([]float64, t.n+1)
			}
		}
		t.byKey[string(t.key)] = s
		t.all = append(t.all, s)
	}
	t.last, t.prior = s, append(t.prior[:0], t.key...)
	return s, nil
}

func parseKey(key []byte) logs.Labels {
	parts := strings.Split(string(key), "\xff")
	out := logs.Labels{}
	for i := 0; i+1 < len(parts); i += 2 {
		out = append(out, logs.Field{Name: parts[i], Value: parts[i+1]})
	}
	slices.SortFunc(out, func(a, b logs.Field) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (t *tally) keyOf(r *row) {
	t.begin()
	if t.group != nil && !t.group.without {
		for _, n := range t.group.names {
			v, _ := r.get(n)
			t.part(n, strings.ReplaceAll(v, "\xff", "\ufffd"))
		}
		return
	}
	r.parse()
	skip := func(n string) bool {
		return t.group != nil && slices.Contains(t.group.names, n) || t.over.unwrap != nil && t.over.unwrap.name == n
	}
	list := make(logs.Labels, 0, len(r.labels)+len(r.set))
	if !r.only {
		for _, f := range r.labels {
			if _, over := r.made(f.Name); !over && !skip(f.Name) && !slices.Contains(r.gone, f.Name) {
				list = append(list, f)
			}
		}
	}
	for _, f := range r.set {
		if !skip(f.Name) {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b logs.Field) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range list {
		t.part(f.Name, strings.ReplaceAll(f.Value, "\xff", "\ufffd"))
	}
}

// count adds rows of one series by their times alone, a run at a time.
func (t *tally) count(s *tallied, times []int64) {
	for i := 0; i < len(times); {
		first, last, until := t.covers(times[i])
		end := len(times)
		if times[end-1] >= until {
			end = i + sort.Search(end-i, func(k int) bool { return times[i+k] >= until })
		}
		s.add(first, last, float64(end-i))
		i = end
	}
}

func (t *tally) bytes() bool { return t.over.op == "bytes_over_time" || t.over.op == "bytes_rate" }

func (s *tallied) add(first, last int, v float64) {
	if first <= last {
		s.delta[first] += v
		s.delta[last+1] -= v
		if s.lines != nil {
			s.lines[first]++
			s.lines[last+1]--
		}
	}
}

// row takes one row in.
func (t *tally) row(r *row) error {
	v, ok := 1.0, true
	if t.group == nil || t.group.without {
		r.parse() // all that it finds is asked for
	}
	if t.over.unwrap != nil {
		if v, ok = t.sample(r); !ok {
			return nil
		}
		for _, st := range t.over.after {
			if !st.run(r) {
				return nil
			}
		}
	}
	if r.err != "" {
		return tender.Errorf(tender.Invalid, "pipeline error: %s: %s", r.err, r.details).
			Hint(`a metric query may not have errors; leave such lines out with | __error__=""`)
	}
	if t.bytes() {
		v = float64(len(r.now()))
	}
	s, err := t.series(r)
	if err != nil {
		return err
	}
	at := r.times[r.i]
	first, last, _ := t.covers(at)
	switch {
	case s.delta != nil:
		s.add(first, last, v)
	case s.cells != nil:
		for i := first; i <= last; i++ {
			s.cells[i].add(at, v)
		}
	default:
		for i := first; i <= last; i++ {
			s.points[i] = append(s.points[i], point{at, v})
		}
		if t.samples += max(0, last-first+1); t.samples > t.engine.limits.Samples {
			return tender.Errorf(tender.Invalid, "%s holds more than %d values", t.over.op, t.engine.limits.Samples).Hint("ask for less time, a shorter range or a longer step")
		}
	}
	return nil
}

// sample unwraps the value of a row; false: it has none.
func (t *tally) sample(r *row) (float64, bool) {
	raw, src := r.get(t.over.unwrap.name)
	if src == nowhere || raw == "" {
		return 0, false
	}
	var v float64
	var err error
	switch t.over.unwrap.convert {
	case "duration", "duration_seconds":
		var d time.Duration
		d, err = time.ParseDuration(raw)
		v = d.Seconds()
	case "bytes":
		var ok bool
		if v, ok = bytesOf(raw); !ok {
			err = strconv.ErrSyntax
		}
	default:
		v, err = strconv.ParseFloat(raw, 64)
	}
	if err != nil {
		r.fail(errSample, strconv.Quote(raw)+" of "+t.over.unwrap.name+" is no "+map[string]string{"": "number", "bytes": "size"}[t.over.unwrap.convert])
	}
	return v, true
}

func (c *cell) add(at int64, v float64) {
	if c.n == 0 {
		*c = cell{min: v, max: v, first: v, last: v, firstAt: at, lastAt: at}
	}
	c.n++
	c.sum += v
	c.min, c.max = math.Min(c.min, v), math.Max(c.max, v)
	if at < c.firstAt {
		c.first, c.firstAt = v, at
	}
	if at >= c.lastAt {
		c.last, c.lastAt = v, at
	}
	d := v - c.mean
	c.mean += d / float64(c.n)
	c.squares += d * (v - c.mean)
}

// result turns what was tallied into series.
func (t *tally) result() ([]Series, error) {
	if t.over.op == "absent_over_time" {
		return []Series{t.absence()}, nil
	}
	seconds := float64(t.width) / float64(time.Second)
	out := make([]Series, 0, len(t.all))
	for _, s := range t.all {
		values := empty(t.n)
		sum, lines := 0.0, 0.0
		for i := range values {
			switch {
			case s.delta != nil:
				if sum += s.delta[i]; s.lines != nil {
					lines += s.lines[i]
				} else {
					lines = sum
				}
				if lines > 0 {
					values[i] = sum
					if t.over.op == "rate" || t.over.op == "bytes_rate" {
						values[i] = sum / seconds
					}
				}
			case s.cells != nil:
				if s.cells[i].n > 0 {
					values[i] = s.cells[i].value(t.over.op, seconds)
				}
			case len(s.points[i]) > 0:
				values[i] = pointed(t.over, s.points[i], seconds)
			}
		}
		out = append(out, Series{s.labels, values})
	}
	slices.SortFunc(out, func(a, b Series) int { return compareLabels(a.Labels, b.Labels) })
	return out, nil
}

func (c *cell) value(op string, seconds float64) float64 {
	switch op {
	case "sum_over_time":
		return c.sum
	case "rate":
		return c.sum / seconds
	case "avg_over_time":
		return c.sum / float64(c.n)
	case "min_over_time":
		return c.min
	case "max_over_time":
		return c.max
	case "first_over_time":
		return c.first
	case "last_over_time":
		return c.last
	case "stdvar_over_time":
		return c.squares / float64(c.n)
	}
	return math.Sqrt(c.squares / float64(c.n)) // stddev_over_time
}

func pointed(o *overTime, p []point, seconds float64) float64 {
	slices.SortStableFunc(p, func(a, b point) int { return int(min(1, max(-1, a.at-b.at))) })
	if o.op == "rate_counter" {
		if len(p) < 2 {
			return nothing
		}
		grown := 0.0
		for i := 1; i < len(p); i++ {
			if d := p[i].v - p[i-1].v; d >= 0 {
				grown += d
			} else {
				grown += p[i].v // it began again at 0
			}
		}
		return grown / seconds
	}
	v := make([]float64, len(p))
	for i := range p {
		v[i] = p[i].v
	}
	return quantile(o.param, v)
}

// quantile interpolates as Prometheus does.
func quantile(q float64, v []float64) float64 {
	switch {
	case math.IsNaN(q):
		return math.NaN()
	case q < 0:
		return math.Inf(-1)
	case q > 1:
		return math.Inf(1)
	}
	slices.Sort(v)
	rank := q * float64(len(v)-1)
	low := int(math.Floor(rank))
	high := min(low+1, len(v)-1)
	f := rank - float64(low)
	return v[low]*(1-f) + v[high]*f
}

// absence is 1 wherever nothing was tallied, under the labels that the selector
// wants to be equal to something.
func (t *tally) absence() Series {
	s := constant(1, t.n)
	sum := 0.0
	for _, have := range t.all {
		sum = 0
		for i := range s.Values {
			if sum += have.delta[i]; sum > 0 {
				s.Values[i] = nothing
			}
		}
	}
	seen := map[string]int{}
	for _, m := range t.over.of.matchers {
		seen[m.name]++
	}
	for _, m := range t.over.of.matchers {
		if m.op == logs.Equal && seen[m.name] == 1 && m.value != "" {
			s.Labels = append(s.Labels, logs.Field{Name: m.name, Value: m.value})
		}
	}
	slices.SortFunc(s.Labels, func(a, b logs.Field) int { return strings.Compare(a.Name, b.Name) })
	return s
}

func compareLabels(a, b logs.Labels) int {
	for i := range min(len(a), len(b)) {
		if c := strings.Compare(a[i].Name, b[i].Name); c != 0 {
			return c
		}
		if c := strings.Compare(a[i].Value, b[i].Value); c != 0 {
			return c
		}
	}
	return len(a) - len(b)
}
