package logql

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// Each hands fn every line of a log query, in the order of time, while the store is
// read: there may be any number of them, and the time limit does not hold. Limit and
// Every of o do not count; fn may return logs.ErrStop.
func (e *Engine) Each(ctx context.Context, x Expr, o Lines, fn func(Line) error) error {
	s, ok := x.(*selector)
	if !ok {
		return tender.Errorf(tender.Invalid, "%s yields numbers, not lines", x)
	}
	p, err := e.plan(ctx, s, nanos(o.From), nanos(o.To), nil, false)
	if err != nil {
		return err
	}
	p.query.Backward = o.Backward
	if o.Plain {
		p.query.Columns = p.columns()
	}
	m := merge{backward: o.Backward, fn: fn}
	err = e.walk(ctx, p, func(v *view) (bool, error) {
		return len(v.times) > 0, m.until(logs.Bound(v.Chunk))
	}, func(r *row) error {
		m.waiting = append(m.waiting, r.entry(o.Plain))
		return nil
	})
	if err != nil || m.stopped {
		return err
	}
	if err := m.rest(); !errors.Is(err, logs.ErrStop) {
		return err
	}
	return nil
}

// merge brings lines of many chunks into one order. What nothing to come can stand
// before goes out.
type merge struct {
	backward bool
	fn       func(Line) error
	waiting  []Line
	stopped  bool
}

func (m *merge) compare(a, b Line) int {
	if m.backward {
		return cmp.Compare(b.Time.UnixNano(), a.Time.UnixNano())
	}
	return cmp.Compare(a.Time.UnixNano(), b.Time.UnixNano())
}

// until passes on what comes before bound, of which the rest to come is not.
func (m *merge) until(bound int64) error {
	if len(m.waiting) == 0 {
		return nil
	}
	slices.SortStableFunc(m.waiting, m.compare)
	n := 0
	for n < len(m.waiting) {
		if at := m.waiting[n].Time.UnixNano(); m.backward && at <= bound || !m.backward && at >= bound {
			break
		}
		if err := m.fn(m.waiting[n]); err != nil {
			m.stopped = true
			return err
		}
		n++
	}
	m.waiting = slices.Delete(m.waiting, 0, n)
	return nil
}

func (m *merge) rest() error {
	slices.SortStableFunc(m.waiting, m.compare)
	for _, l := range m.waiting {
		if err := m.fn(l); err != nil {
			return err
		}
	}
	return nil
}
