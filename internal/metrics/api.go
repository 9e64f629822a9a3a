package metrics

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// spoken is the version of Prometheus whose API this is; clients choose by it what
// they ask.
const spoken = "3.16.0"

// API serves Prometheus' HTTP API at /api/v1/… and /federate. What removes data is
// not offered. Who may ask is decided before.
func (d *DB) API() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", d.serve(d.all, d.tsdb, func(context.Context) v1.RulesRetriever { return named{d} }, d.registry))
	mux.HandleFunc("GET /api/v1/metadata", d.metadata)
	mux.HandleFunc("/api/v1/admin/", http.NotFound)
	mux.HandleFunc("GET /federate", d.federate)
	ready := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("Tender is ready.\n")) }
	mux.HandleFunc("GET /-/ready", ready)
	mux.HandleFunc("GET /-/healthy", ready)
	mux.HandleFunc("POST /-/reload", func(w http.ResponseWriter, _ *http.Request) {
		if err := d.Reload(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return mux
}

// serve is what lies below /api/v1/ over a store, which may be a part of ours. counts: nil nowhere.
// It is made when somebody first asks: what it keeps to describe itself is more than a megabyte.
func (d *DB) serve(of storage.SampleAndChunkQueryable, exemplars storage.ExemplarQueryable, ruled func(context.Context) v1.RulesRetriever, counts prometheus.Registerer) http.Handler {
	made := sync.OnceValue(func() http.Handler { return d.routes(of, exemplars, ruled, counts) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { made().ServeHTTP(w, r) })
}

func (d *DB) routes(of storage.SampleAndChunkQueryable, exemplars storage.ExemplarQueryable, ruled func(context.Context) v1.RulesRetriever, counts prometheus.Registerer) http.Handler {
	a := v1.NewAPI(
		asked{d}, of, appendable{d}, exemplars,
		func(context.Context) v1.ScrapePoolsRetriever { return d.active() },
		func(context.Context) v1.TargetRetriever { return d.active() },
		func(context.Context) v1.AlertmanagerRetriever { return named{d} },
		func() config.Config { return *d.Config() },
		map[string]string{"storage.tsdb.path": d.o.Dir, "storage.tsdb.retention.time": model.Duration(d.o.Age).String(), "config.file": d.o.Config},
		v1.GlobalURLOptions{Scheme: "http"},
		func(h http.HandlerFunc) http.HandlerFunc { return h },
		admin{d}, d.o.Dir, false, false, 0, d.quiet,
		ruled,
		50_000_000, 10, 1<<20, // of remote read: samples, at once, bytes in a frame
		false, regexp.MustCompile("^$"), // no page of another origin may read answers
		d.runtime,
		&v1.PrometheusVersion{Version: spoken, Revision: d.o.Version, Branch: "tender", GoVersion: runtime.Version()},
		func() []notifications.Notification { return nil },
		func() (<-chan notifications.Notification, func(), bool) { return nil, nil, false },
		d, counts, nil,
		true, remote.MessageTypes{remote.WriteV1MessageType, remote.WriteV2MessageType},
		true, false, false, // OTLP; deltas are refused, as Prometheus does
		lookback, false, false, nil, nil, v1.OpenAPIOptions{}, d.parser, false, queryTimeout,
	)
	r := route.New()
	a.Register(r.WithPrefix("/api/v1"))
	return r
}

func (d *DB) runtime() (v1.RuntimeInfo, error) {
	host, _ := os.Hostname() //nolint:errcheck // then it has none
	c := d.config.Load()
	return v1.RuntimeInfo{
		StartTime: d.started, CWD: d.o.Dir, Hostname: host, ServerTime: time.Now(), ReloadConfigSuccess: c.problem == "", LastConfigTime: c.read,
		CorruptionCount: int64(len(d.damage.list())), GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0),
		StorageRetention: model.Duration(d.o.Age).String(),
	}, nil
}

// asked is the engine; what it finds damaged is set aside.
type asked struct{ d *DB }

// NewInstantQuery is promql.QueryEngine's.
func (a asked) NewInstantQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, expr string, at time.Time) (promql.Query, error) {
	query, err := a.d.engine.NewInstantQuery(ctx, q, o, expr, at)
	return watched{query, a.d}, err
}

// NewRangeQuery is promql.QueryEngine's.
func (a asked) NewRangeQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, expr string, from, to time.Time, step time.Duration) (promql.Query, error) {
	query, err := a.d.engine.NewRangeQuery(ctx, q, o, expr, from, to, step)
	return watched{query, a.d}, err
}

type watched struct {
	promql.Query
	d *DB
}

// Exec is promql.Query's.
func (w watched) Exec(ctx context.Context) *promql.Result {
	r := w.Query.Exec(ctx)
	if r.Err != nil {
		w.d.asked(r.Err)
	}
	return r
}

// active is the scraper, or one that scrapes nothing.
func (d *DB) active() interface {
	v1.ScrapePoolsRetriever
	v1.TargetRetriever
} {
	if s := d.scraping.Load(); s != nil {
		return s.manager
	}
	return idle{}
}

type idle struct{}

func (idle) ScrapePools() []string                                 { return nil }
func (idle) TargetsActive() map[string][]*scrape.Target            { return nil }
func (idle) TargetsDropped() map[string][]*scrape.Target           { return nil }
func (idle) TargetsDroppedCounts() map[string]int                  { return nil }
func (idle) ScrapePoolConfig(string) (*config.ScrapeConfig, error) { return nil, errNotOffered }

// named asks who was named for it, if anybody was.
type named struct{ d *DB }

func (k named) RuleGroups() []*rules.Group {
	if r := k.d.rules.Load(); r != nil {
		return (*r).RuleGroups()
	}
	return nil
}

func (k named) AlertingRules() []*rules.AlertingRule {
	if r := k.d.rules.Load(); r != nil {
		return (*r).AlertingRules()
	}
	return nil
}

func (k named) Alertmanagers() []*url.URL {
	if s := k.d.senders.Load(); s != nil {
		return (*s).Alertmanagers()
	}
	return nil
}

func (k named) DroppedAlertmanagers() []*url.URL {
	if s := k.d.senders.Load(); s != nil {
		return (*s).DroppedAlertmanagers()
	}
	return nil
}

// admin is the store as the API's statistics see it.
type admin struct{ d *DB }

var _ v1.TSDBAdminStats = admin{}

func (admin) CleanTombstones() error { return errNotOffered }
func (admin) Delete(context.Context, int64, int64, ...*labels.Matcher) error {
	return errNotOffered
}
func (admin) Snapshot(string, bool) error { return errNotOffered }

// Stats is v1.TSDBAdminStats'.
func (a admin) Stats(label string, limit int) (*tsdb.Stats, error) {
	return a.d.tsdb.Head().Stats(label, limit), nil
}

// WALReplayStatus is v1.TSDBAdminStats': nobody is answered before it is done.
func (admin) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }

// BlockMetas is v1.TSDBAdminStats'.
func (a admin) BlockMetas() ([]tsdb.BlockMeta, error) { return a.d.tsdb.BlockMetas(), nil }

var errNotOffered = errors.New("not offered")
