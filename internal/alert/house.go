package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amalert "github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/api"
	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/config/receiver"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/eventrecorder"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/inhibit"
	"github.com/prometheus/alertmanager/marker"
	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/provider/mem"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/alertmanager/timeinterval"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
)

// inner is an alert as Alertmanager has it.
type inner = amalert.Alert

const (
	retention  = 120 * time.Hour  // of silences that have ended and of who was told what: Alertmanager's default
	sweep      = 30 * time.Minute // how often alerts that have ended leave the memory
	tidy       = 15 * time.Minute // how often journals are written anew
	saveAfter  = time.Second      // changes of alerts within it are written at once
	silenceMax = 64 << 10         // bytes of one silence
	silences   = 10_000           // of them
)

// house is an Alertmanager of our own.
type house struct {
	o        Options
	log      *slog.Logger
	carried  *carried
	registry *prometheus.Registry
	rec      eventrecorder.Recorder // its zero value records nothing
	flags    featurecontrol.Flagger

	silences  *silence.Silences
	told      *nflog.Log
	journals  []*journal // of the two before
	silencer  *silence.Silencer
	alerts    *mem.Alerts
	incoming  *incoming
	groups    marker.GroupMarker
	pipelines *notify.PipelineBuilder
	figures   *dispatch.DispatcherMetrics
	face      *face

	loading    sync.Mutex // one load at a time
	inhibitor  atomic.Pointer[inhibit.Inhibitor]
	dispatcher atomic.Pointer[dispatch.Dispatcher]

	mu      sync.Mutex
	conf    *config.Config
	state   Status
	trouble map[string]string // what is not kept on disk, by its kind, and who is not told
}

func openHouse(o Options, c *carried) (_ *house, err error) {
	h := &house{
		o: o, log: o.Log, carried: c, registry: prometheus.NewRegistry(), flags: featurecontrol.NoopFlags{},
		groups: marker.NewGroupMarker(), trouble: map[string]string{},
	}
	told := h.journal("nflog", false)
	r, err := told.open(func(b []byte) error {
		_, err := nflog.New(nflog.Options{SnapshotReader: newReader(b), Retention: retention, Metrics: prometheus.NewRegistry()})
		return err
	})
	if err != nil {
		return nil, err
	}
	if h.told, err = nflog.New(nflog.Options{SnapshotReader: r, Retention: retention, Logger: h.log, Metrics: h.registry}); err != nil {
		return nil, fmt.Errorf("read who was told what: %w", err)
	}
	limits := silence.Limits{MaxSilences: func() int { return silences }, MaxSilenceSizeBytes: func() int { return silenceMax }}
	kept := h.journal("silences", true)
	if r, err = kept.open(func(b []byte) error {
		_, err := silence.New(silence.Options{SnapshotReader: newReader(b), Retention: retention, Metrics: prometheus.NewRegistry()})
		return err
	}); err != nil {
		return nil, errors.Join(err, told.close())
	}
	if h.silences, err = silence.New(silence.Options{SnapshotReader: r, Retention: retention, Limits: limits, Logger: h.log, Metrics: h.registry}); err != nil {
		return nil, fmt.Errorf("read silences: %w", err)
	}
	h.journals = []*journal{told, kept}
	told.gather = func() ([]byte, error) {
		_, err := h.told.GC()
		b, merr := h.told.MarshalBinary()
		return b, errors.Join(err, merr)
	}
	kept.gather = func() ([]byte, error) {
		_, err := h.silences.GC()
		b, merr := h.silences.MarshalBinary()
		return b, errors.Join(err, merr)
	}
	h.told.SetBroadcast(told.append)
	h.silences.SetBroadcast(kept.append)

	h.silencer = silence.NewSilencer(h.silences, h.log, h.rec)
	if h.alerts, err = mem.NewAlerts(context.Background(), sweep, 0, h.silencer, h.log, h.rec, h.registry, h.flags); err != nil {
		return nil, fmt.Errorf("make the memory of alerts: %w", err)
	}
	h.incoming = &incoming{Alerts: h.alerts, carried: c, changed: make(chan struct{}, 1)}
	if err := h.restore(time.Now()); err != nil {
		h.say("alerts", err)
	}
	h.pipelines = notify.NewPipelineBuilder(h.registry, h.flags, h.rec)
	h.figures = dispatch.NewDispatcherMetrics(false, h.registry, h.flags)
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "alertmanager_http_request_duration_seconds", Help: "Histogram of latencies for HTTP requests."}, []string{"handler", "method", "code"})
	h.registry.MustRegister(took)
	h.face = newFace(func() (*api.API, error) {
		a, err := api.New(api.Options{
			Alerts: h.incoming, Silences: h.silences, GroupMutedFunc: h.groups.Muted, Logger: h.log, Registry: h.registry, RequestDuration: took, Timeout: 30 * time.Second,
			GroupFunc: func(ctx context.Context, routes func(*dispatch.Route) bool, alerts func(*inner, time.Time) bool) (dispatch.AlertGroups, map[model.Fingerprint][]string, error) {
				return h.dispatcher.Load().Groups(ctx, routes, alerts)
			},
		})
		if err != nil {
			return nil, fmt.Errorf("make Alertmanager's API: %w", err)
		}
		return a, nil
	})
	return h, nil
}

func (h *house) journal(name string, sync bool) *journal {
	return newJournal(filepath.Join(h.o.Dir, name), sync, h.log, func(err error) { h.say(name, err) })
}

// say notes what is not kept, nil that it is again.
func (h *house) say(what string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.trouble, what)
		return
	}
	if h.trouble[what] != err.Error() {
		h.log.Error("alerts", "what", what, "err", err)
	}
	h.trouble[what] = err.Error()
}

// built is what a configuration makes of itself before anything live is touched.
type built struct {
	conf      *config.Config
	file      string
	templates *template.Template
	routes    *dispatch.Route
	receivers map[string][]notify.Integration
	intervals map[string][]timeinterval.TimeInterval
}

// silent is the configuration where none is given.
const silent = "route: {receiver: " + NoReceiver + ", group_by: [alertname, project, service]}\nreceivers: [{name: " + NoReceiver + "}]\n"

func (h *house) build(file string) (*built, error) {
	b := &built{file: file, receivers: map[string][]notify.Integration{}, intervals: map[string][]timeinterval.TimeInterval{}}
	var err error
	if file == "" {
		b.conf, err = config.Load(silent)
	} else {
		b.conf, err = config.LoadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration %s: %w", file, err)
	}
	if b.templates, err = template.FromGlobs(b.conf.Templates); err != nil {
		return nil, fmt.Errorf("read the templates of %s: %w", file, err)
	}
	b.templates.ExternalURL = h.o.ExternalURL
	b.routes = dispatch.NewRoute(b.conf.Route, nil)
	for _, rc := range b.conf.Receivers {
		// Also those that no route leads to: a wrong one is said, and all can be tried.
		if b.receivers[rc.Name], err = receiver.BuildReceiverIntegrations(rc, b.templates, h.log); err != nil {
			return nil, fmt.Errorf("make the receiver %q of %s: %w", rc.Name, file, err)
		}
	}
	for _, i := range b.conf.MuteTimeIntervals {
		b.intervals[i.Name] = i.TimeIntervals
	}
	for _, i := range b.conf.TimeIntervals {
		b.intervals[i.Name] = i.TimeIntervals
	}
	return b, nil
}

// nowhere reports whether no route leads to anybody.
func (b *built) nowhere() bool {
	told := false
	b.routes.Walk(func(r *dispatch.Route) { told = told || len(b.receivers[r.RouteOpts.Receiver]) > 0 })
	return !told
}

// load builds all that may fail first, then swaps in Alertmanager's own order: the
// old ones stop, the inhibitor knows the alerts before the dispatcher sends any.
func (h *house) load(file string) error {
	h.loading.Lock()
	defer h.loading.Unlock()
	b, err := h.build(file)
	if err != nil {
		h.mu.Lock()
		h.state.Problem, h.state.Refused = err.Error(), true
		h.mu.Unlock()
		return err
	}
	h.halt()
	h.mu.Lock()
	maps.DeleteFunc(h.trouble, func(what, _ string) bool { return strings.HasPrefix(what, toReceiver) })
	h.mu.Unlock()
	inhibitor := inhibit.NewInhibitor(h.alerts, b.conf.InhibitRules, h.log, h.rec)
	alone := func() time.Duration { return 0 }
	// No peers: a nil interface, not a nil pointer in one.
	pipeline := h.pipelines.New(h.watched(b.receivers), alone, inhibitor, h.silencer, timeinterval.NewIntervener(b.intervals), h.groups, h.told, nil)
	h.face.update(b.conf, func(ctx context.Context, labels model.LabelSet) {
		h.inhibitor.Load().Mutes(ctx, labels)
		h.silencer.Mutes(ctx, labels)
	})
	timeout := func(d time.Duration) time.Duration { return max(d, notify.MinTimeout) }
	d := dispatch.NewDispatcher(h.alerts, b.routes, pipeline, h.groups, timeout, 30*time.Second, nil, h.log, h.rec, h.figures, b.templates)
	go inhibitor.Run()
	inhibitor.WaitForLoading()
	h.inhibitor.Store(inhibitor)
	go d.Run(time.Now())
	d.WaitForLoading()
	h.dispatcher.Store(d)

	s := Status{File: file, Loaded: time.Now(), Nowhere: b.nowhere()}
	for _, rc := range b.conf.Receivers {
		s.Receivers = append(s.Receivers, rc.Name)
	}
	h.mu.Lock()
	h.conf, h.state = b.conf, s
	h.mu.Unlock()
	h.log.Info("alerts are routed", "configuration", file, "receivers", len(s.Receivers))
	return nil
}

// toReceiver is before the name of a receiver that could not be told.
const toReceiver = "receiver "

// watched is what notes whether an integration was told.
type watched struct {
	notify.Integration
	what string
	say  func(what string, err error)
}

// Notify is notify.Notifier's.
func (w *watched) Notify(ctx context.Context, all ...*inner) (again bool, err error) {
	again, err = w.Integration.Notify(ctx, all...)
	if !errors.Is(ctx.Err(), context.Canceled) { // a new configuration ends the old one's work
		w.say(w.what, err)
	}
	return again, err
}

// watched has status say which integrations of receivers fail.
func (h *house) watched(all map[string][]notify.Integration) map[string][]notify.Integration {
	out := make(map[string][]notify.Integration, len(all))
	for name, list := range all {
		out[name] = []notify.Integration{} // a receiver that nobody is behind is one, too
		for _, i := range list {
			w := &watched{i, toReceiver + name + ", " + i.String(), h.say}
			out[name] = append(out[name], notify.NewIntegration(w, w, i.Name(), i.Index(), name))
		}
	}
	return out
}

func (h *house) halt() {
	if old := h.inhibitor.Load(); old != nil {
		old.Stop()
	}
	if old := h.dispatcher.Load(); old != nil {
		old.Stop()
	}
}

func (h *house) status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.state
	all := make([]string, 0, len(h.trouble)+1)
	if s.Problem != "" {
		all = append(all, s.Problem)
	}
	for what, problem := range h.trouble {
		all = append(all, what+": "+problem)
	}
	slices.Sort(all)
	s.Problem = strings.Join(all, "; ")
	return s
}

// run writes what changes until ctx ends.
func (h *house) run(ctx context.Context) error {
	var work sync.WaitGroup
	for _, j := range h.journals {
		work.Go(func() { j.run(ctx, tidy) })
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-h.incoming.changed:
			h.say("alerts", h.save())
			select {
			case <-ctx.Done():
			case <-time.After(saveAfter):
			}
		}
	}
	work.Wait()
	return nil
}

func (h *house) close() error {
	h.halt()
	err := h.save()
	for _, j := range h.journals {
		err = errors.Join(err, j.close())
	}
	h.alerts.Close()
	return err
}

// saved is one alert on disk.
type saved struct {
	Labels      model.LabelSet    `json:"labels"`
	Annotations model.LabelSet    `json:"annotations,omitempty"`
	Added       map[string]string `json:"added,omitempty"` // annotations that are ours
	Starts      time.Time         `json:"starts"`
	Ends        time.Time         `json:"ends"`
	Updated     time.Time         `json:"updated"`
	Generator   string            `json:"generator,omitempty"`
	Timeout     bool              `json:"timeout,omitempty"`
}

func (h *house) alertsFile() string { return filepath.Join(h.o.Dir, "alerts.json") }

// save writes the alerts that fire. Alertmanager itself forgets them, and never
// says that one has ended which did so while it was away.
func (h *house) save() error {
	all := []saved{}
	it := h.alerts.GetPending()
	for a := range it.Next() {
		if d := a.Data; !d.Resolved() {
			all = append(all, saved{d.Labels, d.Annotations, h.carried.of(d.Fingerprint()), d.StartsAt.UTC(), d.EndsAt.UTC(), d.UpdatedAt.UTC(), d.GeneratorURL, d.Timeout})
		}
	}
	it.Close()
	b, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("keep alerts: %w", err)
	}
	return replace(h.alertsFile(), b)
}

// again is how long an alert that fired at the end of the last process counts as
// firing: until then whoever found it has said so again, or it is over.
const again = 5 * time.Minute

func (h *house) restore(now time.Time) error {
	b, err := os.ReadFile(h.alertsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the alerts that fired: %w", err)
	}
	var all []saved
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("read the alerts that fired: %w", err)
	}
	for _, s := range all {
		a := &inner{Alert: model.Alert{Labels: s.Labels, Annotations: s.Annotations, StartsAt: s.Starts, EndsAt: s.Ends, GeneratorURL: s.Generator}, UpdatedAt: s.Updated, Timeout: s.Timeout}
		if end := now.Add(again); a.EndsAt.Before(end) {
			a.EndsAt, a.Timeout = end, true
		}
		if err := a.Validate(); err != nil {
			continue // of another version
		}
		h.carried.restore(a.Fingerprint(), s.Added, a.EndsAt)
		if err := h.alerts.Put(context.Background(), a); err != nil {
			return fmt.Errorf("take in an alert that fired: %w", err)
		}
	}
	return nil
}
