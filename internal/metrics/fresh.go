package metrics

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// freshLeast is how old a sample may always be that something is decided by.
const freshLeast = time.Minute

// Fresh is Query for who decides by the answer: one that rests on old samples is an error. A
// sample is old after a minute, or after three times as long as its series pauses between two.
// What a selector asks of the past by offset or @ is meant to be old.
func (d *DB) Fresh(ctx context.Context, expr string, at time.Time) ([]Value, error) {
	e, err := d.parser.ParseExpr(expr)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", expr, err)
	}
	back := freshLeast
	var wrong error
	parser.Inspect(e, func(n parser.Node, path []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok || wrong != nil || ofThePast(s, path) {
			return nil
		}
		span, ranged := lookback, false
		if len(path) > 0 {
			if m, is := path[len(path)-1].(*parser.MatrixSelector); is {
				span, ranged = m.Range, true
			}
		}
		var limit time.Duration
		limit, wrong = d.fresh(ctx, s, span, ranged, at)
		back = max(back, limit)
		return nil
	})
	if wrong != nil {
		return nil, wrong
	}
	return d.query(ctx, promql.NewPrometheusQueryOpts(false, min(back, lookback), nil), expr, at)
}

// ofThePast reports whether a selector, or a subquery around it, asks for another time than now.
func ofThePast(s *parser.VectorSelector, path []parser.Node) bool {
	if s.OriginalOffset != 0 || s.Timestamp != nil || s.StartOrEnd != 0 {
		return true
	}
	for _, n := range path {
		if q, ok := n.(*parser.SubqueryExpr); ok && (q.OriginalOffset != 0 || q.Timestamp != nil || q.StartOrEnd != 0) {
			return true
		}
	}
	return false
}

// fresh is how old samples of a selector may be, by the pause of the series that came last; an
// error if all that it would find within its span are older.
func (d *DB) fresh(ctx context.Context, s *parser.VectorSelector, span time.Duration, ranged bool, at time.Time) (time.Duration, error) {
	var newest time.Time
	limit := freshLeast
	// Further back than it looks, to see how long the series pauses.
	err := d.each(ctx, s.LabelMatchers, at.Add(-max(span, 3*lookback)), at, func(_ labels.Labels, all []moment, ended bool) {
		n := len(all)
		if n == 0 || ended && !ranged || !all[n-1].at.After(newest) {
			return
		}
		newest, limit = all[n-1].at, freshLeast
		if n > 1 {
			limit = max(limit, 3*newest.Sub(all[n-2].at))
		}
	})
	if age := at.Sub(newest); err == nil && !newest.IsZero() && age <= span && age > limit {
		err = fmt.Errorf("the newest sample of %s is %s old", s, age.Round(time.Second))
	}
	return limit, err
}
