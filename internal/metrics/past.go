package metrics

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// moment is one sample of a series.
type moment struct {
	at    time.Time
	value float64 // of a histogram its sum
}

// each hands the samples of every series that matches to f, without the marks of ends, and
// whether it has ended; what f gets is good until it returns.
func (d *DB) each(ctx context.Context, matchers []*labels.Matcher, from, to time.Time, f func(l labels.Labels, all []moment, ended bool)) error {
	hints := &storage.SelectHints{Start: from.UnixMilli(), End: to.UnixMilli()}
	q, err := d.tsdb.Querier(hints.Start, hints.End)
	if err != nil {
		return fmt.Errorf("read samples: %w", err)
	}
	defer q.Close()
	var it chunkenc.Iterator
	var all []moment
	set := q.Select(ctx, false, hints, matchers...)
	for set.Next() {
		it = set.At().Iterator(it)
		all = all[:0]
		ended := false
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			var at int64
			var v float64
			if kind == chunkenc.ValFloat {
				at, v = it.At()
			} else {
				t, h := it.AtFloatHistogram(nil)
				at, v = t, h.Sum
			}
			if ended = value.IsStaleNaN(v); !ended {
				all = append(all, moment{time.UnixMilli(at), v})
			}
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("read %s: %w", set.At().Labels(), err)
		}
		f(set.At().Labels(), all, ended)
	}
	if err := set.Err(); err != nil {
		d.asked(err)
		return fmt.Errorf("read samples: %w", err)
	}
	return nil
}
