package logql

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// backLabels is how far back labels are looked for if nothing else is said.
const backLabels = 6 * time.Hour

// scope is what a request about labels asks about. Of a whole query only the
// selector counts.
func (l *loki) scope(r *http.Request, query string, back time.Duration) (logs.Query, []matcher, error) {
	start, end, err := spanOf(r, back)
	if err != nil {
		return logs.Query{}, nil, err
	}
	var m []matcher
	if strings.TrimSpace(query) != "" {
		x, err := Parse(query)
		if err != nil {
			return logs.Query{}, nil, err
		}
		if s := selectors(x); len(s) > 0 {
			m = s[0].matchers
		}
	}
	q := logs.Query{From: start.UnixNano(), To: end.UnixNano() + 1, NoText: true, Columns: []string{}}
	for _, m := range m {
		q.Labels = append(q.Labels, m.condition())
	}
	return q, m, nil
}

func (l *loki) found(r *http.Request, query string) ([]logs.Labels, error) {
	q, _, err := l.scope(r, query, backLabels)
	if err != nil {
		return nil, err
	}
	return l.store.Streams(r.Context(), q)
}

func (l *loki) labels(r *http.Request) (any, error) {
	found, err := l.found(r, r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, s := range found {
		for _, f := range s {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	return success{"success", slices.Compact(names)}, nil
}

func (l *loki) labelValues(r *http.Request) (any, error) {
	found, err := l.found(r, r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	values := []string{}
	for _, s := range found {
		if v := s.Get(r.PathValue("name")); v != "" {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return success{"success", slices.Compact(values)}, nil
}

func (l *loki) series(r *http.Request) (any, error) {
	match := slices.Concat(r.Form["match[]"], r.Form["match"])
	if len(match) == 0 {
		match = []string{""}
	}
	out := []map[string]string{}
	seen := map[string]bool{}
	for _, m := range match {
		found, err := l.found(r, m)
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			if key := s.String(); !seen[key] {
				seen[key] = true
				out = append(out, fieldsOf(s))
			}
		}
	}
	return success{"success", out}, nil
}

func (l *loki) stats(r *http.Request) (any, error) {
	q, _, err := l.scope(r, r.Form.Get("query"), backLabels)
	if err != nil {
		return nil, err
	}
	rows, bytes, chunks, streams, err := l.store.Volume(r.Context(), q)
	return map[string]int64{"streams": streams, "chunks": chunks, "entries": rows, "bytes": bytes}, err
}

// bulk is how much a group of streams wrote.
type bulk struct {
	labels      logs.Labels
	rows, bytes int64
}

// bulks counts the streams of a request by the labels that it aims at, the largest first.
func (l *loki) bulks(r *http.Request) ([]bulk, error) {
	q, matchers, err := l.scope(r, r.Form.Get("query"), backLabels)
	if err != nil {
		return nil, err
	}
	limit, err := count(r, "limit", 100, l.engine.limits.Series)
	if err != nil {
		return nil, err
	}
	var names []string
	if t := r.Form.Get("targetLabels"); t != "" {
		names = strings.Split(t, ",")
	} else {
		for _, m := range matchers {
			names = append(names, m.name)
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "" })
	by := r.Form.Get("aggregateBy")
	if by != "" && by != "series" && by != "labels" {
		return nil, tender.Errorf(tender.Invalid, "aggregateBy=%q is neither series nor labels", by)
	}
	found, err := l.store.Streams(r.Context(), q)
	if err != nil {
		return nil, err
	}
	groups := map[string]*bulk{}
	for _, s := range found {
		one := q
		for _, f := range s {
			one.Labels = append(slices.Clip(one.Labels), logs.Condition{Name: f.Name, Op: logs.Equal, Value: f.Value})
		}
		rows, bytes, _, _, err := l.store.Volume(r.Context(), one)
		if err != nil {
			return nil, err
		}
		var of []logs.Labels
		if by == "labels" {
			for _, f := range s {
				if len(names) == 0 || slices.Contains(names, f.Name) {
					of = append(of, logs.Labels{{Name: f.Name}})
				}
			}
		} else {
			group := logs.Labels{}
			for _, f := range s {
				if len(names) == 0 || slices.Contains(names, f.Name) {
					group = append(group, f)
				}
			}
			of = append(of, group)
		}
		for _, labels := range of {
			key := labels.String()
			if groups[key] == nil {
				groups[key] = &bulk{labels: labels}
			}
			groups[key].rows += rows
			groups[key].bytes += bytes
		}
	}
	out := []bulk{}
	for _, b := range groups {
		out = append(out, *b)
	}
	slices.SortFunc(out, func(a, b bulk) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), compareLabels(a.labels, b.labels))
	})
	return out[:min(limit, len(out))], nil
}

func (l *loki) volume(r *http.Request) (any, error) {
	began := time.Now()
	bulks, err := l.bulks(r)
	if err != nil {
		return nil, err
	}
	_, end, err := spanOf(r, backLabels)
	if err != nil {
		return nil, err
	}
	out := []sampled{}
	for _, b := range bulks {
		out = append(out, sampled{Metric: fieldsOf(b.labels), Value: []any{stamp(end), decimal(float64(b.bytes))}})
	}
	return success{"success", result{Type: "vector", Result: out, Stats: spent(began, 0, 0)}}, nil
}

// volumeRange counts the rows of each step, which costs no text, and takes every
// row of a group to be as long as the others: Loki's own answer is an estimate, too.
func (l *loki) volumeRange(r *http.Request) (any, error) {
	began := time.Now()
	bulks, err := l.bulks(r)
	if err != nil {
		return nil, err
	}
	start, end, err := spanOf(r, backLabels)
	if err != nil {
		return nil, err
	}
	step, err := stepOf(r, start, end)
	if err != nil {
		return nil, err
	}
	matchers, err := parseSelector(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	series := []Series{}
	for _, b := range bulks {
		s := &selector{matchers: slices.Clone(matchers)}
		for _, f := range b.labels {
			m := matcher{name: f.Name, op: logs.Equal, value: f.Value}
			if f.Value == "" { // aggregateBy=labels: whatever it says
				m.op = logs.NotEqual
			}
			s.matchers = append(s.matchers, m)
		}
		found, err := l.engine.Series(r.Context(), &overTime{op: "count_over_time", of: s, window: step}, Steps{start.Add(step), max2(end, start.Add(step)), step})
		if err != nil {
			return nil, err
		}
		whole, err := folded(&fold{op: "sum"}, found, len(pointsOf(found)))
		if err != nil {
			return nil, err
		}
		for _, w := range whole {
			for i, v := range w.Values {
				if !absent(v) {
					w.Values[i] = float64(int64(v * float64(b.bytes) / float64(max(1, b.rows))))
				}
			}
			series = append(series, Series{b.labels, w.Values})
		}
	}
	return success{"success", result{Type: "matrix", Result: matrix(series, start.Add(step), step), Stats: spent(began, 0, 0)}}, nil
}

func max2(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func pointsOf(s []Series) []float64 {
	if len(s) == 0 {
		return nil
	}
	return s[0].Values
}

// detected is a stored field, in the words of Grafana's explorer.
type detected struct {
	Label       string   `json:"label"`
	Type        string   `json:"type"`
	Cardinality int64    `json:"cardinality"`
	Parsers     []string `json:"parsers"` // null: it can be asked for without one
	Path        []string `json:"jsonPath,omitempty"`
}

func (l *loki) detectedFields(r *http.Request) (any, error) {
	limit, err := count(r, "limit", 1000, 10_000)
	if err != nil {
		return nil, err
	}
	q, _, err := l.scope(r, r.Form.Get("query"), time.Hour)
	if err != nil {
		return nil, err
	}
	q.Columns = nil
	found, err := l.store.Fields(r.Context(), q)
	if err != nil {
		return nil, err
	}
	out := []detected{}
	for name, f := range found {
		if name == rawField {
			continue
		}
		out = append(out, detected{Label: sanitize(name), Type: f.Type, Cardinality: f.Distinct})
	}
	slices.SortFunc(out, func(a, b detected) int { return strings.Compare(a.Label, b.Label) })
	return map[string]any{"fields": out[:min(limit, len(out))], "limit": limit}, nil
}

// detectedValues looks at the newest lines alone, as Loki does.
func (l *loki) detectedValues(r *http.Request) (any, error) {
	limit, err := count(r, "limit", 1000, 10_000)
	if err != nil {
		return nil, err
	}
	most, err := count(r, "line_limit", 1000, l.engine.limits.Entries)
	if err != nil {
		return nil, err
	}
	start, end, err := spanOf(r, time.Hour)
	if err != nil {
		return nil, err
	}
	query := r.Form.Get("query")
	if strings.TrimSpace(query) == "" {
		query = "{}"
	}
	x, err := Parse(query)
	if err != nil {
		return nil, err
	}
	lines, err := l.engine.Lines(r.Context(), x, Lines{From: start, To: end, Limit: most, Backward: true})
	if err != nil {
		return nil, err
	}
	values := []string{}
	for _, x := range lines {
		for _, list := range [][]logs.Field{x.Fields, x.Parsed} {
			for _, f := range list {
				if f.Name == r.PathValue("name") {
					values = append(values, f.Value)
				}
			}
		}
	}
	slices.Sort(values)
	values = slices.Compact(values)
	return map[string]any{"values": values[:min(limit, len(values))], "limit": limit}, nil
}

func (l *loki) detectedLabels(r *http.Request) (any, error) {
	found, err := l.found(r, r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	values := map[string]map[string]bool{}
	for _, s := range found {
		for _, f := range s {
			if values[f.Name] == nil {
				values[f.Name] = map[string]bool{}
			}
			values[f.Name][f.Value] = true
		}
	}
	type label struct {
		Label       string `json:"label"`
		Cardinality int    `json:"cardinality"`
	}
	out := []label{}
	for name, v := range values {
		out = append(out, label{name, len(v)})
	}
	slices.SortFunc(out, func(a, b label) int { return strings.Compare(a.Label, b.Label) })
	return map[string]any{"detectedLabels": out}, nil
}
