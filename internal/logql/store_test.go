package logql_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// shelf is a store in memory, which keeps what the contract of the log room says
// in the simplest way: one chunk for each stream and run of rows of that stream.
type shelf struct {
	mu    sync.Mutex
	rows  []shelved
	asked []logs.Query // what Scan was asked
	texts int          // how often a row's text was read
	grown chan struct{}
}

type shelved struct {
	labels logs.Labels // with stream
	row    logs.Row
}

func (s *shelf) add(labels logs.Labels, rows ...logs.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rows {
		l := slices.Clone(labels)
		name := "stdout"
		if r.Stderr {
			name = "stderr"
		}
		l = append(l, logs.Field{Name: "stream", Value: name})
		slices.SortFunc(l, func(a, b logs.Field) int { return cmp.Compare(a.Name, b.Name) })
		s.rows = append(s.rows, shelved{l, r})
	}
	slices.SortStableFunc(s.rows, func(a, b shelved) int { return cmp.Compare(a.row.Time, b.row.Time) })
	if s.grown != nil {
		close(s.grown)
	}
	s.grown = make(chan struct{})
}

func (s *shelf) Append(_ context.Context, b logs.Batch) error {
	rows := make([]logs.Row, len(b.Rows))
	for i, r := range b.Rows { // its strings are the caller's
		r.Shape = strings.Clone(r.Shape)
		r.Fields = slices.Clone(r.Fields)
		for k := range r.Fields {
			r.Fields[k] = logs.Field{Name: strings.Clone(r.Fields[k].Name), Value: strings.Clone(r.Fields[k].Value)}
		}
		rows[i] = r
	}
	s.add(slices.Clone(b.Labels), rows...)
	return nil
}

func holds(c logs.Condition, v string) bool {
	switch c.Op {
	case logs.Equal:
		return v == c.Value
	case logs.NotEqual:
		return v != c.Value
	case logs.Matches:
		return c.Regexp.MatchString(v)
	case logs.NotMatches:
		return !c.Regexp.MatchString(v)
	case logs.Contains:
		return strings.Contains(v, c.Value)
	case logs.Lacks:
		return !strings.Contains(v, c.Value)
	}
	f, ok := quantity(v)
	if !ok {
		return false
	}
	switch c.Op {
	case logs.Above:
		return f > c.Number
	case logs.AtLeast:
		return f >= c.Number
	case logs.Below:
		return f < c.Number
	}
	return f <= c.Number
}

// quantity reads numbers, durations as seconds and sizes as bytes.
func quantity(v string) (float64, bool) {
	if f, err := strconv.ParseFloat(v, 64); err == nil {
		return f, true
	}
	if d, err := time.ParseDuration(v); err == nil {
		return d.Seconds(), true
	}
	for unit, f := range map[string]float64{"KB": 1e3, "MiB": 1 << 20} {
		if n, err := strconv.ParseFloat(strings.TrimSuffix(v, unit), 64); err == nil {
			return n * f, true
		}
	}
	return 0, false
}

func field(r logs.Row, name string) string {
	for _, f := range r.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func (s *shelf) match(q logs.Query, r shelved) bool {
	if r.row.Time < q.From || q.To != 0 && r.row.Time >= q.To {
		return false
	}
	text := string(r.row.Text(nil))
	return !slices.ContainsFunc(q.Labels, func(c logs.Condition) bool { return !holds(c, r.labels.Get(c.Name)) }) &&
		!slices.ContainsFunc(q.Where, func(c logs.Condition) bool { return !holds(c, field(r.row, c.Name)) }) &&
		!slices.ContainsFunc(q.Text, func(c logs.Condition) bool { return !holds(c, text) })
}

func (s *shelf) found(q logs.Query) (out []shelved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, q)
	for _, r := range s.rows {
		if s.match(q, r) {
			out = append(out, r)
		}
	}
	if q.Backward {
		slices.Reverse(out)
	}
	if q.Limit > 0 && len(out) > q.Limit {
		out = out[:q.Limit]
	}
	return out
}

func (s *shelf) Scan(ctx context.Context, q logs.Query, fn func(logs.Chunk) error) error {
	rows := s.found(q)
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && slices.Equal(rows[n].labels, rows[0].labels) {
			n++
		}
		if err := fn(&run{s, q, rows[:n]}); err != nil {
			if errors.Is(err, logs.ErrStop) {
				return nil
			}
			return err
		}
		rows = rows[n:]
	}
	return ctx.Err()
}

func (s *shelf) Follow(ctx context.Context, q logs.Query, fn func(logs.Chunk) error) error {
	s.mu.Lock()
	if s.grown == nil {
		s.grown = make(chan struct{})
	}
	seen, grown := len(s.rows), s.grown
	s.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-grown:
		}
		s.mu.Lock()
		fresh := slices.Clone(s.rows[seen:]) // tests append in the order of time
		seen, grown = len(s.rows), s.grown
		s.mu.Unlock()
		for _, r := range fresh {
			if s.match(q, r) {
				if err := fn(&run{s, q, []shelved{r}}); err != nil {
					if errors.Is(err, logs.ErrStop) {
						return nil
					}
					return err
				}
			}
		}
	}
}

func (s *shelf) Streams(_ context.Context, q logs.Query) (out []logs.Labels, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.Text, q.Where = nil, nil
	for _, r := range s.rows {
		if s.match(q, r) && !slices.ContainsFunc(out, func(l logs.Labels) bool { return slices.Equal(l, r.labels) }) {
			out = append(out, r.labels)
		}
	}
	return out, nil
}

func (s *shelf) Fields(_ context.Context, q logs.Query) (map[string]logs.FieldStat, error) {
	out := map[string]logs.FieldStat{}
	for _, r := range s.found(q) {
		for _, f := range r.row.Fields {
			st := out[f.Name]
			st.Rows++
			st.Distinct++
			st.Type = "string"
			out[f.Name] = st
		}
	}
	return out, nil
}

func (s *shelf) Volume(_ context.Context, q logs.Query) (rows, bytes, chunks, streams int64, err error) {
	for _, r := range s.found(q) {
		rows++
		bytes += int64(len(r.row.Text(nil)))
	}
	l, err := s.Streams(context.Background(), q)
	return rows, bytes, 1, int64(len(l)), err
}

// run is a chunk of shelf.
type run struct {
	s    *shelf
	q    logs.Query
	rows []shelved
}

func (r *run) Labels() logs.Labels { return r.rows[0].labels }

func (r *run) Times() (t []int64) {
	for _, x := range r.rows {
		t = append(t, x.row.Time)
	}
	return t
}

func (r *run) Columns() (names []string) {
	for _, x := range r.rows {
		for _, f := range x.row.Fields {
			if !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
		}
	}
	return names
}

func (r *run) Column(name string) []string {
	if r.q.Columns != nil && !slices.Contains(r.q.Columns, name) {
		panic("column " + name + " was not asked for")
	}
	if !slices.Contains(r.Columns(), name) {
		return nil
	}
	var out []string
	for _, x := range r.rows {
		out = append(out, field(x.row, name))
	}
	return out
}

func (r *run) Text(dst []byte, i int) []byte {
	if r.q.NoText {
		panic("text was not asked for")
	}
	r.s.mu.Lock()
	r.s.texts++
	r.s.mu.Unlock()
	return r.rows[i].row.Text(dst)
}

func (r *run) Fields(dst []logs.Field, i int) []logs.Field {
	return append(dst, r.rows[i].row.Fields...)
}
