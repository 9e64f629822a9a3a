package logql

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// Lines says which lines to return.
type Lines struct {
	From, To time.Time // From <= time < To; zero: no end
	// Limit is how many, the newest with Backward, else the oldest; 0: all that
	// Limits allow, and an error if there are more.
	Limit    int
	Backward bool
	Every    time.Duration // leave out what comes sooner after the one before it in its stream
	// Plain leaves Labels and Fields out: only times, streams and texts are wanted.
	Plain bool
}

// Line is one entry that a query found.
type Line struct {
	Time   time.Time
	Text   string
	Stream []logs.Field // labels of the stream
	Meta   []logs.Field // stored fields that are not to be seen in the text
	Parsed []logs.Field // made by the query
	Fields []logs.Field // all stored fields, under the names that the query can use
}

// Lines runs a log query. The newest line comes first with Backward.
func (e *Engine) Lines(ctx context.Context, x Expr, l Lines) ([]Line, error) {
	s, ok := x.(*selector)
	if !ok {
		return nil, tender.Errorf(tender.Invalid, "%s yields numbers, not lines", x)
	}
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	from, to := nanos(l.From), nanos(l.To)
	p, err := e.plan(ctx, s, from, to, nil, false)
	if err != nil {
		return nil, because(ctx, err)
	}
	p.query.Backward = l.Backward
	if l.Plain {
		p.query.Columns = p.columns()
	}
	keep := &shelf{limit: l.Limit, backward: l.Backward, limits: e.limits}
	if keep.limit == 0 || l.Every > 0 || keep.limit > e.limits.Entries {
		keep.limit, keep.strict = e.limits.Entries, l.Limit == 0 || l.Every > 0
	}
	if len(p.stages) == 0 && !keep.strict {
		p.query.Limit = keep.limit
	}
	err = e.walk(ctx, p, func(v *view) (bool, error) {
		if keep.full && keep.beyond(logs.Bound(v.Chunk)) {
			return false, logs.ErrStop
		}
		return len(v.times) > 0, nil
	}, func(r *row) error {
		at := r.times[r.i]
		if keep.full && keep.beyond(at) {
			return nil
		}
		return keep.put(r.entry(l.Plain))
	})
	if err != nil {
		return nil, err
	}
	return thin(keep.sorted(), l), nil
}

// entry is what is returned of a row.
func (r *row) entry(plain bool) Line {
	l := Line{Time: time.Unix(0, r.times[r.i]).UTC(), Text: string(r.now())}
	if plain {
		l.Stream = slices.Clone(r.labels)
		return l
	}
	n := r.labelsOf(false)
	l.Stream, l.Meta, l.Parsed = n.stream, n.meta, n.parsed
	l.Fields = r.labelsOf(true).meta
	return l
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// thin applies Every, which looks at the whole before Limit does.
func thin(lines []Line, l Lines) []Line {
	if l.Every <= 0 {
		return lines
	}
	last := map[string]time.Time{}
	out := lines[:0]
	for _, x := range lines {
		key := logs.Labels(x.Stream).String()
		before, seen := last[key]
		if seen && x.Time.Sub(before).Abs() < l.Every {
			continue
		}
		last[key] = x.Time
		out = append(out, x)
	}
	if l.Limit > 0 && len(out) > l.Limit {
		out = out[:l.Limit]
	}
	return out
}

// shelf keeps the first lines in time, or the last.
type shelf struct {
	limit    int
	strict   bool // more than limit is an error
	backward bool
	limits   Limits
	lines    []Line
	bytes    int
	full     bool
	edge     int64 // with full: the worst time that is kept
}

// beyond reports whether nothing of that time can be among the kept. Rows of one
// time are all candidates: their order is that in which they came.
func (s *shelf) beyond(at int64) bool {
	if s.backward {
		return at < s.edge
	}
	return at > s.edge
}

func (s *shelf) put(l Line) error {
	s.lines = append(s.lines, l)
	s.bytes += len(l.Text) + 128
	if s.strict && len(s.lines) > s.limit {
		return tender.Errorf(tender.Invalid, "the answer has more than %d lines", s.limit).Hint("ask for less time, filter, or set a limit")
	}
	if !s.strict && (len(s.lines) >= 2*s.limit || len(s.lines) == s.limit && !s.full || s.bytes > s.limits.Bytes) {
		s.cut()
	}
	if s.bytes > s.limits.Bytes {
		return tender.Errorf(tender.Invalid, "the answer has more than %d MiB of text", s.limits.Bytes>>20).Hint("ask for fewer lines or less time")
	}
	return nil
}

func (s *shelf) cut() {
	s.order()
	if len(s.lines) < s.limit {
		return
	}
	for _, l := range s.lines[s.limit:] {
		s.bytes -= len(l.Text) + 128
	}
	clear(s.lines[s.limit:])
	s.lines = s.lines[:s.limit]
	s.full, s.edge = true, s.lines[s.limit-1].Time.UnixNano()
}

func (s *shelf) order() {
	slices.SortStableFunc(s.lines, func(a, b Line) int {
		if s.backward {
			return cmp.Compare(b.Time.UnixNano(), a.Time.UnixNano())
		}
		return cmp.Compare(a.Time.UnixNano(), b.Time.UnixNano())
	})
}

func (s *shelf) sorted() []Line {
	s.order()
	if len(s.lines) > s.limit {
		s.lines = s.lines[:s.limit]
	}
	return s.lines
}
