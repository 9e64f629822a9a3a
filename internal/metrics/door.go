// Package metrics keeps samples and answers PromQL: Prometheus' own store,
// language, scraper and API, with rules over both samples and logs. daemon
// knocks; whoever asks for figures asks here. It sends nothing to people: that
// is alert's.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/tenderhq/tender/internal/sample"
)

// Options say where and for how long. The zero value of all but Dir works.
type Options struct {
	Dir  string
	Age  time.Duration // default 30 days
	Size int64         // bytes on disk; default 10 GiB
	Log  *slog.Logger
}

// DB is the store and who asks it.
type DB struct {
	o        Options
	log      *slog.Logger
	registry *prometheus.Registry
	tsdb     *tsdb.DB
	parser   parser.Parser
	engine   *promql.Engine

	mu   sync.Mutex
	refs map[string]map[*sample.Series]*held // by source
}

// held is a series that is being written.
type held struct {
	ref    storage.SeriesRef
	labels labels.Labels
}

// Open opens the store in o.Dir, or makes one.
func Open(o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Age == 0 {
		o.Age = 30 * 24 * time.Hour
	}
	if o.Size == 0 {
		o.Size = 10 << 30
	}
	d := &DB{o: o, log: o.Log, registry: prometheus.NewRegistry(), refs: map[string]map[*sample.Series]*held{}}
	t := tsdb.DefaultOptions()
	t.RetentionDuration, t.MaxBytes = o.Age.Milliseconds(), o.Size
	var err error
	if d.tsdb, err = tsdb.Open(o.Dir, d.log, d.registry, t, nil); err != nil {
		return nil, fmt.Errorf("open the store of samples: %w", err)
	}
	d.parser = parser.NewParser(parser.Options{})
	d.engine = promql.NewEngine(promql.EngineOpts{
		Logger: d.log, Reg: d.registry, MaxSamples: 5e6, Timeout: 30 * time.Second, LookbackDelta: 5 * time.Minute,
		EnableAtModifier: true, EnableNegativeOffset: true, Parser: d.parser,
	})
	return d, nil
}

// Close writes what is open.
func (d *DB) Close() error { return errors.Join(d.engine.Close(), d.tsdb.Close()) }

// Keep adds one round of samples.
func (d *DB) Keep(ctx context.Context, r sample.Round) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, now := d.refs[r.Source], make(map[*sample.Series]*held, len(r.Points))
	at, app := r.At.UnixMilli(), d.tsdb.Appender(ctx)
	for _, p := range r.Points {
		h := before[p.Series]
		if h == nil {
			b := labels.NewScratchBuilder(len(p.Series.Labels) + 1)
			b.Add(model.MetricNameLabel, p.Series.Name)
			for _, l := range p.Series.Labels {
				b.Add(l.Name, l.Value)
			}
			b.Sort()
			h = &held{labels: b.Labels()}
		}
		ref, err := app.Append(h.ref, h.labels, at, p.Value)
		if err != nil {
			return errors.Join(fmt.Errorf("keep a sample of %s: %w", p.Series.Name, err), app.Rollback())
		}
		h.ref, now[p.Series] = ref, h
	}
	if err := app.Commit(); err != nil {
		return fmt.Errorf("keep samples: %w", err)
	}
	d.refs[r.Source] = now
	return nil
}

// Value is one series of an answer, as it is at one time.
type Value struct {
	Labels map[string]string
	At     time.Time
	Value  float64
}

// Query answers an expression of PromQL for one time: a vector, or a scalar as one
// value without labels.
func (d *DB) Query(ctx context.Context, expr string, at time.Time) ([]Value, error) {
	q, err := d.engine.NewInstantQuery(ctx, d.tsdb, nil, expr, at)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", expr, err)
	}
	defer q.Close()
	r := q.Exec(ctx)
	if r.Err != nil {
		return nil, fmt.Errorf("ask %s: %w", expr, r.Err)
	}
	switch v := r.Value.(type) {
	case promql.Scalar:
		return []Value{{At: time.UnixMilli(v.T), Value: v.V}}, nil
	case promql.Vector:
		all := make([]Value, 0, len(v))
		for _, s := range v {
			all = append(all, Value{Labels: s.Metric.Map(), At: time.UnixMilli(s.T), Value: s.F})
		}
		return all, nil
	default:
		return nil, fmt.Errorf("ask %s: the answer is a %s, not one value for each series", expr, r.Value.Type())
	}
}
