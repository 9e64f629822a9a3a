package logql

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// key is what l is called among the groups of g; labels are those that stay.
func (g *grouping) of(l logs.Labels) (key string, labels logs.Labels) {
	if g == nil {
		return "", logs.Labels{}
	}
	labels = logs.Labels{}
	for _, f := range l {
		if slices.Contains(g.names, f.Name) != g.without {
			labels = append(labels, f)
		}
	}
	return labels.String(), labels
}

// folded makes fewer series of in.
func folded(f *fold, in []Series, n int) ([]Series, error) {
	switch f.op {
	case "sort", "sort_desc":
		if n > 1 { // as in Prometheus, only vectors have an order
			return in, nil
		}
		slices.SortStableFunc(in, func(a, b Series) int {
			if f.op == "sort" {
				return cmp.Compare(a.Values[0], b.Values[0])
			}
			return cmp.Compare(b.Values[0], a.Values[0])
		})
		return in, nil
	}
	type bunch struct {
		labels logs.Labels
		of     []Series
	}
	var order []*bunch
	byKey := map[string]*bunch{}
	for _, s := range in {
		key, labels := f.group.of(s.Labels)
		b := byKey[key]
		if b == nil {
			b = &bunch{labels: labels}
			byKey[key] = b
			order = append(order, b)
		}
		b.of = append(b.of, s)
	}
	var out []Series
	for _, b := range order {
		if f.op == "topk" || f.op == "bottomk" {
			out = append(out, best(f, b.of, n)...)
			continue
		}
		values := empty(n)
		var at []float64
		for i := range values {
			at = at[:0]
			for _, s := range b.of {
				if !absent(s.Values[i]) {
					at = append(at, s.Values[i])
				}
			}
			if len(at) > 0 {
				values[i] = summary(f.op, at)
			}
		}
		out = append(out, Series{b.labels, values})
	}
	if f.op == "topk" || f.op == "bottomk" {
		if n == 1 { // the best first
			slices.SortStableFunc(out, func(a, b Series) int {
				if f.op == "topk" {
					return cmp.Compare(b.Values[0], a.Values[0])
				}
				return cmp.Compare(a.Values[0], b.Values[0])
			})
		}
		return out, nil
	}
	slices.SortFunc(out, func(a, b Series) int { return compareLabels(a.Labels, b.Labels) })
	return out, nil
}

func summary(op string, v []float64) float64 {
	sum, low, high := 0.0, v[0], v[0]
	for _, x := range v {
		sum += x
		low, high = math.Min(low, x), math.Max(high, x)
	}
	n := float64(len(v))
	switch op {
	case "sum":
		return sum
	case "avg":
		return sum / n
	case "min":
		return low
	case "max":
		return high
	case "count":
		return n
	}
	mean, squares := sum/n, 0.0
	for _, x := range v {
		squares += (x - mean) * (x - mean)
	}
	if op == "stdvar" {
		return squares / n
	}
	return math.Sqrt(squares / n)
}

// best keeps the k largest or smallest at each step.
func best(f *fold, in []Series, n int) []Series {
	out := make([]Series, len(in))
	for i, s := range in {
		out[i] = Series{s.Labels, empty(n)}
	}
	var at []int
	for i := range n {
		at = at[:0]
		for k, s := range in {
			if !absent(s.Values[i]) {
				at = append(at, k)
			}
		}
		slices.SortStableFunc(at, func(a, b int) int {
			x, y := in[a].Values[i], in[b].Values[i]
			if math.IsNaN(x) != math.IsNaN(y) { // NaN is never among the best
				if math.IsNaN(x) {
					return 1
				}
				return -1
			}
			if f.op == "topk" {
				return cmp.Compare(y, x)
			}
			return cmp.Compare(x, y)
		})
		for _, k := range at[:min(len(at), int(f.param))] {
			out[k].Values[i] = in[k].Values[i]
		}
	}
	return slices.DeleteFunc(out, func(s Series) bool { return !slices.ContainsFunc(s.Values, func(v float64) bool { return !absent(v) }) })
}

// relabelled is label_replace.
func relabelled(r *relabel, in []Series) ([]Series, error) {
	seen := map[string]bool{}
	for i, s := range in {
		src := s.Labels.Get(r.src)
		if m := r.re.FindStringSubmatchIndex(src); m != nil {
			value := string(r.re.ExpandString(nil, r.with, src, m))
			labels := slices.DeleteFunc(slices.Clone(s.Labels), func(f logs.Field) bool { return f.Name == r.dst })
			if value != "" {
				labels = append(labels, logs.Field{Name: r.dst, Value: value})
				slices.SortFunc(labels, func(a, b logs.Field) int { return strings.Compare(a.Name, b.Name) })
			}
			in[i].Labels = labels
		}
		key := in[i].Labels.String()
		if seen[key] {
			return nil, tender.Errorf(tender.Invalid, "label_replace makes two series %s", key)
		}
		seen[key] = true
	}
	return in, nil
}

// arithmetic computes one value; false: the comparison does not hold.
func arithmetic(op string, a, b float64) (float64, bool) {
	switch op {
	case "+":
		return a + b, true
	case "-":
		return a - b, true
	case "*":
		return a * b, true
	case "/":
		return a / b, true
	case "%":
		return math.Mod(a, b), true
	case "^":
		return math.Pow(a, b), true
	}
	return a, ordered(op, a, b)
}

func comparison(op string) bool { return strings.Contains("== != > >= < <=", op) }

// combined is left op right.
func combined(b *binary, left, right []Series, n int) ([]Series, error) {
	_, leftNumber := b.left.(*literal)
	_, rightNumber := b.right.(*literal)
	if x, ok := b.left.(*binary); ok {
		leftNumber = scalar(x)
	}
	if x, ok := b.right.(*binary); ok {
		rightNumber = scalar(x)
	}
	switch {
	case leftNumber || rightNumber:
		many, one := left, right
		if leftNumber {
			many, one = right, left
		}
		for k, s := range many {
			values := empty(n)
			for i, v := range s.Values {
				if !absent(v) {
					x, y := v, one[0].Values[i]
					if leftNumber {
						x, y = y, x
					}
					values[i] = b.value(x, y, v, leftNumber && rightNumber)
				}
			}
			many[k].Values = values
		}
		return many, nil
	case b.op == "and" || b.op == "or" || b.op == "unless":
		return b.sets(left, right, n), nil
	}
	return b.joined(left, right, n)
}

// scalar: all leaves of x are numbers.
func scalar(x *binary) bool {
	for _, side := range []Expr{x.left, x.right} {
		switch side := side.(type) {
		case *literal:
		case *binary:
			if !scalar(side) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// value is x op y; keep is what a comparison that holds yields.
func (b *binary) value(x, y, keep float64, number bool) float64 {
	v, ok := arithmetic(b.op, x, y)
	if !comparison(b.op) {
		return v
	}
	switch {
	case b.boolean || number:
		if ok {
			return 1
		}
		return 0
	case ok:
		return keep
	}
	return nothing
}

// side is what a series is matched by.
func (b *binary) side(l logs.Labels) (string, logs.Labels) {
	g := &grouping{without: !b.on, names: b.names}
	return g.of(l)
}

// sets is and, or, unless, at each step.
func (b *binary) sets(left, right []Series, n int) []Series {
	there := func(in []Series) map[string][]bool {
		m := map[string][]bool{}
		for _, s := range in {
			key, _ := b.side(s.Labels)
			if m[key] == nil {
				m[key] = make([]bool, n)
			}
			for i, v := range s.Values {
				m[key][i] = m[key][i] || !absent(v)
			}
		}
		return m
	}
	keep := func(in []Series, other map[string][]bool, where bool) (out []Series) {
		for _, s := range in {
			key, _ := b.side(s.Labels)
			values := empty(n)
			for i, v := range s.Values {
				if (other[key] != nil && other[key][i]) == where {
					values[i] = v
				}
			}
			out = append(out, Series{s.Labels, values})
		}
		return out
	}
	switch b.op {
	case "and":
		return keep(left, there(right), true)
	case "unless":
		return keep(left, there(right), false)
	}
	out := slices.Clone(left)
	for _, s := range keep(right, there(left), false) {
		same := slices.IndexFunc(out, func(o Series) bool { return compareLabels(o.Labels, s.Labels) == 0 })
		if same < 0 {
			out = append(out, s)
			continue
		}
		values := slices.Clone(out[same].Values)
		for i, v := range s.Values {
			if absent(values[i]) {
				values[i] = v
			}
		}
		out[same].Values = values
	}
	return out
}

// joined matches the series of both sides by their labels.
func (b *binary) joined(left, right []Series, n int) ([]Series, error) {
	many, one := left, right
	if b.group == "right" {
		many, one = right, left
	}
	name := map[bool]string{true: "left", false: "right"}
	ones := map[string]Series{}
	for _, s := range one {
		key, _ := b.side(s.Labels)
		if _, twice := ones[key]; twice {
			return nil, tender.Errorf(tender.Invalid, "%q finds many series %s on its %s", b.op, key, name[b.group == "right"]).
				Hint("name more labels in on (...), or sum before")
		}
		ones[key] = s
	}
	used := map[string]bool{}
	var out []Series
	for _, s := range many {
		key, labels := b.side(s.Labels)
		o, ok := ones[key]
		if !ok {
			continue
		}
		if b.group == "" {
			if used[key] {
				return nil, tender.Errorf(tender.Invalid, "%q finds many series %s on its left", b.op, key).
					Hint("name more labels in on (...), sum before, or write group_left")
			}
			used[key] = true
		} else {
			labels = slices.Clone(s.Labels)
			for _, n := range b.include {
				labels = slices.DeleteFunc(labels, func(f logs.Field) bool { return f.Name == n })
				if v := o.Labels.Get(n); v != "" {
					labels = append(labels, logs.Field{Name: n, Value: v})
				}
			}
			slices.SortFunc(labels, func(x, y logs.Field) int { return strings.Compare(x.Name, y.Name) })
		}
		if comparison(b.op) && !b.boolean && b.group == "" {
			labels = s.Labels
		}
		values := empty(n)
		for i, v := range s.Values {
			w := o.Values[i]
			if absent(v) || absent(w) {
				continue
			}
			x, y := v, w
			if b.group == "right" {
				x, y = w, v
			}
			values[i] = b.value(x, y, x, false)
		}
		out = append(out, Series{labels, values})
	}
	return out, nil
}
