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
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/tenderhq/tender/internal/sample"
)

// Options say where and for how long. The zero value of all but Dir works.
type Options struct {
	Dir  string
	Age  time.Duration // default 30 days
	Size int64         // bytes on disk; default 10 GiB
	// Limit is how many series each project may have at a time; default 200,000.
	Limit int
	// Free is how many bytes of the disk stay free: the oldest blocks go before that; 0: not looked at.
	Free int64
	// Config is a prometheus.yml; "" none.
	Config string
	// Node is the name of this host, a label of what Tender says of itself.
	Node string
	// Self answers with Tender's own figures as text; nil: they are not kept.
	Self http.Handler
	// Resolve is asked for the host of a target that is no address: an address, or "" if
	// the name is none of a service. nil: names are the resolver's.
	Resolve func(host string) string
	Version string
	Log     *slog.Logger // default: none
}

// Defaults of Options.
const (
	DefaultAge   = 30 * 24 * time.Hour
	DefaultSize  = 10 << 30
	DefaultLimit = 200_000
)

// DB is the store and who asks it.
type DB struct {
	o        Options
	log      *slog.Logger
	quiet    *slog.Logger // for libraries
	registry *prometheus.Registry
	tsdb     *tsdb.DB
	remote   *remote.Storage
	all      storage.Storage // tsdb, and what others keep for us
	parser   parser.Parser
	engine   *promql.Engine
	started  time.Time
	bounds   *bounds
	damage   *damage
	counts   counts
	// unwritten are series whose making found no room on the disk.
	unwritten unwritten
	reserve   *reserve

	scraping atomic.Pointer[scraping] // while Run runs
	rules    atomic.Pointer[v1.RulesRetriever]
	senders  atomic.Pointer[v1.AlertmanagerRetriever]

	configMu sync.Mutex // over reading and taking in
	config   atomic.Pointer[settings]
	reload   chan struct{}

	targetsMu sync.Mutex
	targets   []Target
	moved     chan struct{}

	mu   sync.Mutex
	refs map[string]*source // by name
	// described are the series that rounds brought, by name.
	described map[string]metadata.Metadata
}

// settings are what prometheus.yml says.
type settings struct {
	*config.Config
	read    time.Time
	problem string // of the file as it is now, which is not in force
}

// Open opens the store in o.Dir, or makes one. What is damaged there is set aside.
func Open(o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Age == 0 {
		o.Age = DefaultAge
	}
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	d := &DB{
		o: o, log: o.Log, quiet: slog.New(quiet{o.Log.Handler()}), registry: prometheus.NewRegistry(), refs: map[string]*source{}, described: map[string]metadata.Metadata{}, started: time.Now(),
		reload: make(chan struct{}, 1), moved: make(chan struct{}, 1), damage: newDamage(o.Dir, o.Log),
	}
	d.bounds, d.reserve = newBounds(o.Limit), newReserve(o.Dir, o.Log, o.Free > 0)
	c, err := load(o.Config, o.Log)
	problem := ""
	if err != nil { // the store keeps what instances use all the same
		if c, _ = load("", o.Log); c == nil {
			return nil, err
		}
		problem = err.Error()
		o.Log.Error("prometheus.yml is not in force", "err", err)
	}
	d.config.Store(&settings{c, time.Now(), problem})
	if err := d.open(); err != nil {
		return nil, err
	}
	d.parser = parser.NewParser(parser.Options{})
	d.engine = promql.NewEngine(promql.EngineOpts{
		Logger: d.quiet, Reg: d.registry, MaxSamples: maxSamples, Timeout: queryTimeout, LookbackDelta: lookback,
		EnableAtModifier: true, EnableNegativeOffset: true, Parser: d.parser,
	})
	d.counts.register(d)
	if err := d.remote.ApplyConfig(d.config.Load().Config); err != nil {
		d.log.Error("samples are not sent on", "err", err)
		d.config.Store(&settings{c, time.Now(), err.Error()})
	}
	d.bounds.open.Store(true)
	return d, nil
}

// Close writes what is open. Run must have ended.
func (d *DB) Close() (err error) {
	defer func() {
		if p := recover(); p != nil { // the disk is full: what was kept is in the log of writes
			err = d.caught(p)
		}
	}()
	d.reserve.look() // chunks are moved now
	return errors.Join(d.engine.Close(), d.all.Close())
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
	return d.query(ctx, nil, expr, at)
}

func (d *DB) query(ctx context.Context, o promql.QueryOpts, expr string, at time.Time) ([]Value, error) {
	q, err := d.engine.NewInstantQuery(ctx, d.all, o, expr, at)
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
			if s.H != nil {
				return nil, fmt.Errorf("ask %s: %s is a native histogram, not one value: ask for its histogram_count, histogram_avg or histogram_quantile", expr, s.Metric)
			}
			all = append(all, Value{Labels: s.Metric.Map(), At: time.UnixMilli(s.T), Value: s.F})
		}
		return all, nil
	default:
		return nil, fmt.Errorf("ask %s: the answer is a %s, not one value for each series", expr, r.Value.Type())
	}
}

// Last is the newest value that was kept of a series within the last hour, also of one that has
// ended since; false: there is none.
func (d *DB) Last(s *sample.Series) (float64, bool) {
	now := time.Now()
	var matchers []*labels.Matcher
	labelsOf(s).Range(func(l labels.Label) {
		matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
	})
	value, found := 0.0, false
	err := d.each(context.Background(), matchers, now.Add(-time.Hour), now, func(l labels.Labels, all []moment, _ bool) {
		if len(all) > 0 && l.Len() == len(matchers) { // no series with more labels
			value, found = all[len(all)-1].value, true
		}
	})
	return value, found && err == nil
}

// Storage is what rules read from and write to; what they write is bounded as all is.
func (d *DB) Storage() storage.Queryable { return d.all }

// Appendable takes samples; those of series beyond the bounds are refused in silence
// and counted.
func (d *DB) Appendable() storage.AppendableV2 { return appendable{d} }

// SetRules names who knows the rules, for the API.
func (d *DB) SetRules(r v1.RulesRetriever) { d.rules.Store(&r) }

// SetAlertmanagers names who knows where alerts are sent, for the API.
func (d *DB) SetAlertmanagers(r v1.AlertmanagerRetriever) { d.senders.Store(&r) }

// Config is what prometheus.yml says, with defaults where it says nothing; it must
// not be changed.
func (d *DB) Config() *config.Config { return d.config.Load().Config }

// Keep adds one round of samples. Samples that are late or doubled are left out and
// counted; series that have ended are marked so.
func (d *DB) Keep(ctx context.Context, r sample.Round) error { return d.keep(ctx, r) }
