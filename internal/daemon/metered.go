package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/metrics"
	"github.com/tenderhq/tender/internal/store"
)

// metricRoom is the store of samples with those who bring them.
type metricRoom struct {
	log       *slog.Logger
	db        *metrics.DB
	state     *store.Store
	inventory *engine.Inventory
	node      string
	elsewhere string // the engine's host, if it is not this one
	tell      func(problem string)

	mu       sync.Mutex
	projects map[string]ofHead[projectMetrics]
}

// projectMetrics are the places of a project's services at which they tell figures,
// as of one generation.
type projectMetrics struct {
	head     store.Generation
	services map[string][]tender.Metrics
}

// metricsFree is what stays free on the disk: the oldest samples go before that.
const metricsFree = 1 << 30

// openMetricRoom opens samples; a store that cannot be opened keeps nothing else from running.
func openMetricRoom(b *backend, log *slog.Logger) *metricRoom {
	c := b.config
	// It asks for something to be read again, and ends nothing while nobody listens: before the
	// parts run, between two of their runs, and with metrics off.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	if c.NoMetrics {
		b.board.set("metrics", func(p *api.Part) { p.State, p.Since = "off", time.Now().UTC() })
		return nil
	}
	m := &metricRoom{log: log, state: b.store, inventory: b.inventory, node: nodeName()}
	if u, err := url.Parse(c.Engine); err == nil {
		m.elsewhere = u.Hostname()
	}
	m.tell = func(problem string) { b.board.set("metrics", func(p *api.Part) { p.Error = problem }) }
	db, err := metrics.Open(metrics.Options{
		Dir: filepath.Join(c.DataDir, "metrics"), Age: c.MetricsAge, Size: c.MetricsSize, Limit: c.MetricsSeries, Free: metricsFree, Config: c.Metrics,
		Node: m.node, Self: b.metrics(edge.NewClient(edgeSocket(c))), Resolve: m.resolve, Version: b.version, Log: log,
	})
	if err != nil {
		log.Error("samples are not kept", "err", err)
		b.board.set("metrics", func(p *api.Part) { p.State, p.Since, p.Error = "failed", time.Now().UTC(), err.Error() })
		return nil
	}
	m.db, b.keepSamples = db, db.Keep
	return m
}

// prometheus mounts Prometheus' API, also under a prefix for clients of several such
// things, or says why it is not there. own sees to it by itself who may see what.
func (b *backend) prometheus() (mounts, own map[string]http.Handler) {
	h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		err := noMetrics(b)
		http.Error(w, err.Error()+"\n"+tender.AdviceOf(err), http.StatusServiceUnavailable)
	}))
	if b.metered != nil {
		h = b.metered.db.Narrowed(apart(b.metered.db))
	}
	return map[string]http.Handler{"/federate": h, "/-/": h}, map[string]http.Handler{"/api/v1/": h, "/prometheus/": http.StripPrefix("/prometheus", h)}
}

// apart answers who may see some projects alone as if there were no others.
func apart(db *metrics.DB) http.Handler {
	all, some := db.API(), db.Apart(func(ctx context.Context) []string {
		who, _ := api.PersonFrom(ctx) // nobody sees nothing
		return who.Projects
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who, ok := api.PersonFrom(r.Context()); ok && len(who.Projects) == 0 {
			all.ServeHTTP(w, r)
			return
		}
		some.ServeHTTP(w, r)
	})
}

func noMetrics(b *backend) error {
	if b.config.NoMetrics {
		return tender.Errorf(tender.Unavailable, "no metrics are kept: metrics are off").Hint("tender serve --metrics on")
	}
	return tender.Errorf(tender.Unavailable, "no metrics are kept: their store could not be opened").Hint("tender status says why")
}

// run is the part.
func (m *metricRoom) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // systemctl reload
	defer signal.Stop(hup)
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { m.look(ctx, hup) })
	return m.db.Run(ctx)
}

// look tells the room what to scrape, as instances come and go.
func (m *metricRoom) look(ctx context.Context, hup <-chan os.Signal) {
	const again = 10 * time.Second
	said := ""
	for {
		picture, changed := m.inventory.Picture()
		if !picture.Taken.IsZero() && picture.Stale.IsZero() {
			if err := m.read(ctx); err == nil {
				m.db.SetTargets(m.targets(picture))
			} else if ctx.Err() == nil {
				m.log.Error("x-tender.metrics of the projects cannot be read", "err", err)
			}
		}
		if now := m.db.Status().Problem(); now != said {
			said = now
			m.tell(said)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-hup:
			if err := m.db.Reload(); err != nil {
				m.log.Error("prometheus.yml is not in force as it is", "err", err)
			}
		case <-time.After(again):
		}
	}
}

// read takes in what the newest generations say.
func (m *metricRoom) read(ctx context.Context) error {
	m.mu.Lock()
	before := m.projects
	m.mu.Unlock()
	var next map[string]ofHead[projectMetrics]
	err := m.state.View(ctx, func(tx *store.Tx) (err error) {
		_, next, err = readHeads(tx, before, func(g store.Generation) projectMetrics {
			p := projectMetrics{head: g, services: map[string][]tender.Metrics{}}
			for _, s := range g.Services {
				said, err := compose.Metrics(s.Service.Spec)
				if err != nil { // written by another version
					m.log.Warn("x-tender.metrics is not understood", "project", g.Project, "service", s.Service.Name, "err", err)
					continue
				}
				p.services[s.Service.Name] = said
			}
			return p
		})
		return err
	})
	if err == nil {
		m.mu.Lock()
		m.projects = next
		m.mu.Unlock()
	}
	return err
}

// targets are the places of all instances that run.
func (m *metricRoom) targets(picture tender.Picture) (out []metrics.Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, p := range m.projects {
		there := picture.Of(name)
		at := making{served: served{head: p.is.head}, there: there}
		for k := range there {
			i := &there[k]
			if i.Oneoff || i.State != tender.Running {
				continue
			}
			address := m.address(at, i)
			if address == "" {
				continue
			}
			for _, said := range p.is.services[i.Service] {
				out = append(out, m.target(i, address, said))
			}
		}
	}
	slices.SortFunc(out, func(a, b metrics.Target) int {
		return strings.Compare(a.Pool+" "+a.Address+" "+a.Path, b.Pool+" "+b.Address+" "+b.Path)
	})
	return out
}

// address is where an instance answers; one in the network of its host answers there.
func (m *metricRoom) address(at making, i *tender.Instance) string {
	address := at.address(i.Service, i)
	if address == "127.0.0.1" && m.elsewhere != "" {
		return m.elsewhere
	}
	return address
}

func (m *metricRoom) target(i *tender.Instance, address string, said tender.Metrics) metrics.Target {
	t := metrics.Target{
		Pool: i.Project + "/" + i.Service, Address: net.JoinHostPort(address, strconv.Itoa(said.Port)), Scheme: said.Scheme, Path: said.Path,
		Interval: said.Interval, Timeout: said.Timeout, Limit: said.Limit, Honor: said.Honor,
		Labels: map[string]string{"job": i.Service},
	}
	for name, value := range said.Labels {
		t.Labels[name] = value
	}
	if said.Job != "" {
		t.Labels["job"] = said.Job
	}
	for name, value := range map[string]string{
		"project": i.Project, "service": i.Service, "revision": i.Revision, "instance": plainInstance(*i), "node": m.node,
	} {
		t.Labels[name] = value
	}
	return t
}

// resolve finds a service, an instance or a container by the name that other
// instances know it by; SERVICE.PROJECT where two projects have one of that name.
func (m *metricRoom) resolve(host string) string {
	picture, _ := m.inventory.Picture()
	m.mu.Lock()
	defer m.mu.Unlock()
	found := map[string]string{} // by project
	for k := range picture.Instances {
		i := &picture.Instances[k]
		if i.State != tender.Running || i.Oneoff {
			continue
		}
		slot := i.Service + "-" + strconv.Itoa(i.Slot)
		if !slices.Contains([]string{i.Service, slot, i.Name, i.Service + "." + i.Project, slot + "." + i.Project}, host) {
			continue
		}
		p, known := m.projects[i.Project]
		if !known || found[i.Project] != "" {
			continue
		}
		at := making{served: served{head: p.is.head}, there: picture.Of(i.Project)}
		if address := m.address(at, i); address != "" {
			found[i.Project] = address
		}
	}
	if len(found) != 1 {
		return ""
	}
	for _, address := range found {
		return address
	}
	return ""
}
