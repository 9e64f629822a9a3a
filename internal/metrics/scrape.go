package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/scrape"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace/noop"
)

// Target is one place that figures are fetched from.
type Target struct {
	// Pool is whose it is, such as PROJECT/SERVICE: the name of the job that scrapes it, with
	// Scheme, Limit and Honor after it where they are not the default.
	Pool string
	// Labels of all its series: project, service, revision, instance, node, job.
	Labels  map[string]string
	Address string // host:port
	Scheme  string // http, which is the default, or https, whose certificate is not looked at
	Path    string // with query; default /metrics
	// Interval and Timeout: default those of prometheus.yml, or 15 s.
	Interval, Timeout time.Duration
	// Limit is how many samples one answer may have, else none is kept; 0: any number.
	Limit int
	// Honor: labels that the target itself sends win over Labels.
	Honor bool
}

const (
	selfJob     = "tender"
	selfAddress = "self.tender.internal:80"
)

// SetTargets says what is scraped beside what prometheus.yml says: all of it.
func (d *DB) SetTargets(all []Target) {
	d.targetsMu.Lock()
	same := reflect.DeepEqual(d.targets, all)
	d.targets = all
	d.targetsMu.Unlock()
	if same {
		return
	}
	select {
	case d.moved <- struct{}{}:
	default:
	}
}

// scraping is what runs while Run does.
type scraping struct {
	registry *prometheus.Registry // of its own: Run may be called again
	manager  *scrape.Manager
	find     *discovery.Manager
	self     *listener
}

// untraced says, for the whole process, that nobody traces: until it is said, the scraper makes
// ready for one who may come, at each request.
var untraced = sync.OnceFunc(func() { otel.SetTracerProvider(noop.NewTracerProvider()) })

// Run scrapes, and looks after the store, until ctx ends.
func (d *DB) Run(ctx context.Context) error {
	untraced()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &scraping{registry: prometheus.NewRegistry(), self: newListener()}
	counted, err := discovery.CreateAndRegisterSDMetrics(s.registry)
	if err != nil {
		return fmt.Errorf("scrape: %w", err)
	}
	if s.find = discovery.NewManager(ctx, d.quiet, s.registry, counted, discovery.Name("scrape")); s.find == nil {
		return errors.New("scrape: nothing can be found")
	}
	s.manager, err = scrape.NewManager(&scrape.Options{
		DiscoveryReloadInterval: model.Duration(time.Second),
		HTTPClientOptions: []commonconfig.HTTPClientOption{
			commonconfig.WithUserAgent("Tender/" + d.o.Version), commonconfig.WithDialContextFunc(d.dial(s.self)),
		},
	}, d.quiet, nil, nil, appendable{d}, s.registry)
	if err != nil {
		return fmt.Errorf("scrape: %w", err)
	}
	var work sync.WaitGroup
	if d.o.Self != nil {
		server := &http.Server{Handler: d.o.Self, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn)}
		work.Go(func() { _ = server.Serve(s.self) })
		defer server.Close()
	}
	sets := make(chan map[string][]*targetgroup.Group)
	work.Go(func() { _ = s.find.Run() })
	work.Go(func() { _ = s.manager.Run(sets) })
	work.Go(func() { d.tend(ctx) })
	d.scraping.Store(s)
	err = d.feed(ctx, s, sets)
	cancel()
	s.manager.Stop()
	s.self.Close()
	d.scraping.Store(nil)
	work.Wait()
	return err
}

// feed tells the scraper what to scrape, as it changes.
func (d *DB) feed(ctx context.Context, s *scraping, sets chan<- map[string][]*targetgroup.Group) error {
	var found map[string][]*targetgroup.Group
	apply, search := true, true // what to scrape may have changed
	last := map[string]job{}
	for {
		ours, groups := d.jobs(last)
		if apply {
			c, err := d.scrapes(ours)
			if err == nil {
				err = s.manager.ApplyConfig(c)
			}
			if err == nil && search {
				err = s.find.ApplyConfig(d.discoveries())
			}
			if err != nil {
				return fmt.Errorf("scrape: %w", err)
			}
			apply, search = false, false
		}
		maps.Copy(groups, found)
		select {
		case <-ctx.Done():
			return nil
		case sets <- groups:
		}
		select {
		case <-ctx.Done():
			return nil
		case found = <-s.find.SyncCh():
		case <-d.reload:
			apply, search = true, true
		case <-d.moved:
			apply = true
		}
	}
}

// discoveries are those of prometheus.yml by job.
func (d *DB) discoveries() map[string]discovery.Configs {
	out := map[string]discovery.Configs{}
	all, err := d.Config().GetScrapeConfigs()
	if err != nil { // it was read before without
		d.log.Error("scrape_config_files are not in force", "err", err)
		all = d.Config().ScrapeConfigs
	}
	for _, s := range all {
		out[s.JobName] = s.ServiceDiscoveryConfigs
	}
	return out
}

// job is one of ours.
type job struct {
	name            string
	limit           int
	honor, insecure bool
	seen            time.Time // with targets
}

// linger is how long a job stays without targets: the scraper marks the end of series
// after two intervals, of which the longest is an hour.
const linger = 3 * time.Hour

// jobs are our own, and their targets; last are those of the last time, and become these.
func (d *DB) jobs(last map[string]job) ([]job, map[string][]*targetgroup.Group) {
	d.targetsMu.Lock()
	targets := slices.Clone(d.targets)
	d.targetsMu.Unlock()
	often := time.Duration(d.Config().GlobalConfig.ScrapeInterval)
	jobs, groups := map[string]job{}, map[string][]*targetgroup.Group{}
	if d.o.Self != nil {
		jobs[selfJob] = job{name: selfJob, honor: true}
		groups[selfJob] = []*targetgroup.Group{{Source: selfJob, Targets: []model.LabelSet{{
			model.AddressLabel: selfAddress, model.InstanceLabel: model.LabelValue(d.o.Node), "node": model.LabelValue(d.o.Node),
		}}}}
	}
	now := time.Now()
	for _, t := range targets {
		pool := t.pool()
		jobs[pool] = job{pool, t.Limit, t.Honor, t.Scheme == "https", now}
		g := groups[pool]
		if g == nil {
			g = []*targetgroup.Group{{Source: pool}}
			groups[pool] = g
		}
		g[0].Targets = append(g[0].Targets, t.labels(often))
	}
	// A job that ends at once does not mark the end of its series.
	for name, j := range last {
		if _, here := jobs[name]; !here && now.Sub(j.seen) < linger {
			jobs[name], groups[name] = j, []*targetgroup.Group{{Source: name}}
		}
	}
	clear(last)
	maps.Copy(last, jobs)
	return slices.SortedFunc(maps.Values(jobs), func(a, b job) int { return strings.Compare(a.name, b.name) }), groups
}

// pool is Pool, with what differs from others of it: the scraper has these settings for all
// targets of a job.
func (t Target) pool() string {
	name := t.Pool
	if t.Scheme == "https" {
		name += " https"
	}
	if t.Limit > 0 {
		name += fmt.Sprintf(" limit=%d", t.Limit)
	}
	if t.Honor {
		name += " honor_labels"
	}
	return name
}

// labels say to Prometheus' scraper all about a target; often is how often it scrapes
// what does not say.
func (t Target) labels(often time.Duration) model.LabelSet {
	l := model.LabelSet{model.AddressLabel: model.LabelValue(t.Address)}
	for name, value := range t.Labels {
		l[model.LabelName(name)] = model.LabelValue(value)
	}
	if t.Scheme != "" {
		l[model.SchemeLabel] = model.LabelValue(t.Scheme)
	}
	path, query, _ := strings.Cut(t.Path, "?")
	if path != "" {
		l[model.MetricsPathLabel] = model.LabelValue(path)
	}
	said, _ := url.ParseQuery(query) //nolint:errcheck // what could be read is there
	for name, values := range said {
		l[model.LabelName(model.ParamLabelPrefix+name)] = model.LabelValue(values[0])
	}
	if t.Interval == 0 && t.Timeout == 0 {
		return l
	}
	if t.Interval > 0 {
		often = t.Interval
		l[model.ScrapeIntervalLabel] = model.LabelValue(model.Duration(often).String())
	}
	timeout := t.Timeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	l[model.ScrapeTimeoutLabel] = model.LabelValue(model.Duration(min(timeout, often)).String())
	return l
}

// scrapes is prometheus.yml with our own jobs.
func (d *DB) scrapes(ours []job) (*config.Config, error) {
	c := *d.Config()
	taken := map[string]bool{}
	for _, s := range c.ScrapeConfigs {
		taken[s.JobName] = true
	}
	c.ScrapeConfigs = slices.Clone(c.ScrapeConfigs)
	for i, s := range c.ScrapeConfigs { // what does not say what it sends is read as text, as Prometheus 2 did
		said := *s
		said.ScrapeFallbackProtocol = cmp.Or(said.ScrapeFallbackProtocol, config.PrometheusText0_0_4)
		c.ScrapeConfigs[i] = &said
	}
	for _, j := range ours {
		if taken[j.name] { // prometheus.yml wins
			continue
		}
		s := config.DefaultScrapeConfig
		s.JobName, s.HonorLabels, s.HonorTimestamps, s.SampleLimit = j.name, j.honor, true, uint(j.limit)
		s.ScrapeFallbackProtocol = config.PrometheusText0_0_4
		if j.name != selfJob {
			s.ScrapeNativeHistograms, s.AlwaysScrapeClassicHistograms = c.GlobalConfig.ScrapeNativeHistograms, new(true)
			if s.ScrapeNativeHistograms == config.DefaultGlobalConfig.ScrapeNativeHistograms { // prometheus.yml does not say
				s.ScrapeNativeHistograms = new(true)
			}
		}
		s.HTTPClientConfig.TLSConfig.InsecureSkipVerify = j.insecure
		if err := s.Validate(c.GlobalConfig); err != nil {
			return nil, fmt.Errorf("%s: %w", j.name, err)
		}
		c.ScrapeConfigs = append(c.ScrapeConfigs, &s)
	}
	return &c, nil
}

// dial connects to targets: Tender itself is no further than this process, and names
// of services are found as instances find them.
func (d *DB) dial(self *listener) func(context.Context, string, string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == selfAddress {
			return self.dial(ctx)
		}
		if host, port, err := net.SplitHostPort(address); err == nil && d.o.Resolve != nil && net.ParseIP(host) == nil {
			if at := d.o.Resolve(host); at != "" {
				address = net.JoinHostPort(at, port)
			}
		}
		return dialer.DialContext(ctx, network, address)
	}
}

// tend looks after the store.
func (d *DB) tend(ctx context.Context) {
	const every = time.Minute
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		err := d.compact(ctx)
		if ctx.Err() != nil {
			return
		}
		d.compacted(err)
		if err != nil {
			d.asked(err)
		}
		d.damage.look() // somebody may have removed what was set aside
		d.blame(ctx, time.Now())
	}
}

// health counts targets, and those of which the last scrape failed.
func (d *DB) health() (all, down int) {
	s := d.scraping.Load()
	if s == nil {
		return 0, 0
	}
	for _, pool := range s.manager.TargetsActive() {
		for _, t := range pool {
			all++
			if t.Health() == scrape.HealthBad {
				down++
			}
		}
	}
	return all, down
}

// listener is in memory.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newListener() *listener {
	return &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept is net.Listener's.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener's.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is net.Listener's.
func (l *listener) Addr() net.Addr { return memory{} }

type memory struct{}

func (memory) Network() string { return "memory" }
func (memory) String() string  { return "memory" }
