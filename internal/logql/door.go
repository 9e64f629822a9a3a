// Package logql asks the log store in LogQL, and serves Loki's HTTP API over it.
//
// The daemon knocks: with queries of tender logs, with requests of Grafana's Loki
// data source and of logcli, and (Instant) with the rules of alerts. The room hides
// the language (its own lexer and parser, written from Loki's documentation), what
// of a query the store can hold by itself, and the forms of Loki's answers. It never
// reads a file, keeps nothing between two requests, and writes only what push brings.
//
// docs/logql.md lists what of LogQL there is. What is outside is refused by name
// and position.
package logql

import (
	"context"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// Store is what logql asks; *logs.Store is one.
type Store interface {
	Scan(ctx context.Context, q logs.Query, fn func(logs.Chunk) error) error
	Streams(ctx context.Context, q logs.Query) ([]logs.Labels, error)
	Fields(ctx context.Context, q logs.Query) (map[string]logs.FieldStat, error)
}

// Limits bound what one query may cost; a zero takes the default.
type Limits struct {
	Timeout time.Duration // of one query; 1 min
	Entries int           // lines that one answer may have; 50,000
	Bytes   int           // text that one answer may hold; 128 MiB
	Series  int           // that one query may make; 5,000
	Steps   int           // points in time of one query; 11,000
	Points  int           // series times points in time; 2,000,000
	Samples int           // values that quantiles may hold; 4,000,000
}

func (l Limits) orDefault() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	if l.Timeout <= 0 {
		l.Timeout = time.Minute
	}
	def(&l.Entries, 50_000)
	def(&l.Bytes, 128<<20)
	def(&l.Series, 5_000)
	def(&l.Steps, 11_000)
	def(&l.Points, 2_000_000)
	def(&l.Samples, 4_000_000)
	return l
}

// Engine answers queries out of a store.
type Engine struct {
	store  Store
	limits Limits
}

// New returns an engine over a store.
func New(s Store, l Limits) *Engine { return &Engine{s, l.orDefault()} }

// Sample is one value of a vector.
type Sample struct {
	Labels logs.Labels
	Value  float64
}

// Instant evaluates a metric query at one point in time: the door for rules of
// alerts. It is Invalid to ask for lines. A query that finds nothing returns none,
// as a Prometheus rule expects. An error of the pipeline in any line fails it.
func (e *Engine) Instant(ctx context.Context, query string, at time.Time) ([]Sample, error) {
	x, err := Parse(query)
	if err != nil {
		return nil, err
	}
	if !x.metric() {
		return nil, wrong(query, 0, "a rule needs a number: wrap it as in sum(count_over_time(%s [5m])) > 0", x)
	}
	series, err := e.Series(ctx, x, Steps{Start: at, End: at})
	if err != nil {
		return nil, err
	}
	out := make([]Sample, 0, len(series))
	for _, s := range series {
		if v := s.Values[0]; !absent(v) {
			out = append(out, Sample{s.Labels, v})
		}
	}
	return out, nil
}

// bounded puts the time limit on a query.
func (e *Engine) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, e.limits.Timeout, tender.Errorf(tender.Unavailable, "the query took longer than %s", short(e.limits.Timeout)).
		Hint("ask for less time, or name labels such as service in the selector"))
}

// because turns the end of ctx into why it ended.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
