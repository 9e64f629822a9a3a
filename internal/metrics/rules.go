package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// Group is a list of rules that are evaluated one after the other. Its words are
// those of Prometheus' rule files.
type Group struct {
	Source   string // where it comes from: a file, shop/web, …; no two groups of a source have the same name
	Name     string
	Logs     bool           // its expressions are LogQL
	Interval time.Duration  // 0: as RulesOptions say
	Offset   *time.Duration // how long before the time of evaluation is asked for
	Limit    int            // of series or alerts of one rule; 0: none
	Labels   map[string]string
	Rules    []Rule
}

// Rule is one that alerts (Alert) or one that records (Record).
type Rule struct {
	Alert, Record      string
	Expr               string
	For, KeepFiringFor time.Duration
	Labels             map[string]string
	Annotations        map[string]string
}

// Firing is an alert that fires, or that has ended.
type Firing struct {
	Labels, Annotations map[string]string // nil annotations: what it said is not known any more
	Expr                string
	Logs                bool // Expr is LogQL
	Value               float64
	Since               time.Time // what it says is true since
	StartsAt            time.Time // when it had been true for long enough
	EndsAt              time.Time // when it ended, or when it counts as ended if it is not said again
}

// RulesOptions of NewRules; the zero value works.
type RulesOptions struct {
	Every time.Duration // between two evaluations of a group that says nothing; default 15 s
	// Notify gets what fires, again each minute, and what has ended. It may be called by several groups at once.
	Notify func(context.Context, []Firing)
	// Logs answers a metric query of LogQL; nil: such rules fail.
	Logs func(ctx context.Context, query string, at time.Time) ([]Value, error)
	// CheckLogs refuses a query that Logs would never answer.
	CheckLogs func(query string) error
	// URL is where $externalURL in templates leads, Labels are $externalLabels.
	URL    string
	Labels map[string]string
}

const (
	resend    = time.Minute // of an alert that goes on firing
	tolerance = time.Hour   // an alert that was pending before a longer outage begins anew
)

// Rules evaluates groups of rules over the store and writes what they yield there.
type Rules struct {
	db      *DB
	o       RulesOptions
	url     *url.URL
	log     *slog.Logger
	metrics *rules.Metrics

	set sync.Mutex // one Set or start at a time

	mu      sync.Mutex
	groups  []Group
	running []*evaluator         // by language: PromQL, LogQL; nil: none runs
	unseen  map[string]time.Time // since when Behind waits for the first evaluation of a group
}

var _ v1.RulesRetriever = (*Rules)(nil)

// NewRules makes one that asks d and writes there.
func NewRules(d *DB, o RulesOptions) (*Rules, error) {
	if o.Every == 0 {
		o.Every = 15 * time.Second
	}
	if o.Notify == nil {
		o.Notify = func(context.Context, []Firing) {}
	}
	if o.CheckLogs == nil {
		o.CheckLogs = func(string) error { return nil }
	}
	if o.Logs == nil {
		o.Logs = func(context.Context, string, time.Time) ([]Value, error) {
			return nil, errors.New("there is no store of logs")
		}
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("read the address for links in alerts: %w", err)
	}
	r := &Rules{db: d, o: o, url: u, log: d.log.With("part", "rules"), metrics: rules.NewGroupMetrics(d.registry)}
	return r, nil
}

// Set replaces all groups: at once where Run runs. Groups that stay as they are keep
// their state. If one of them is not right, nothing changes.
func (r *Rules) Set(groups []Group) error {
	r.set.Lock()
	defer r.set.Unlock()
	if err := r.check(groups); err != nil {
		return err
	}
	r.mu.Lock()
	r.groups = slices.Clone(groups)
	running := r.running
	r.mu.Unlock()
	var all []error
	for _, e := range running {
		all = append(all, e.update(groups))
	}
	return errors.Join(all...)
}

func (r *Rules) check(groups []Group) error {
	seen := map[string]bool{}
	var all []error
	for _, g := range groups {
		key := fmt.Sprintf("%v;%s;%s", g.Logs, g.Source, g.Name)
		if seen[key] {
			all = append(all, fmt.Errorf("%s: there are two groups %q", g.Source, g.Name))
		}
		seen[key] = true
		for _, p := range CheckGroup(g, r.o.CheckLogs) {
			all = append(all, fmt.Errorf("%s: group %q: %w", g.Source, g.Name, p))
		}
	}
	return errors.Join(all...)
}

// Run evaluates until ctx ends. For how long alerts have been pending is read from
// the store, so that a restart does not begin anew.
func (r *Rules) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.set.Lock()
	r.mu.Lock()
	groups := r.groups
	r.mu.Unlock()
	running := []*evaluator{r.evaluator(ctx, false), r.evaluator(ctx, true)}
	orphans, err := r.orphans(ctx, time.Now())
	if err != nil { // then they time out
		r.log.Warn("which alerts fired before is not known", "err", err)
	}
	var all []error
	var work sync.WaitGroup
	for _, e := range running {
		all = append(all, e.update(groups))
		work.Go(e.Run)
	}
	r.mu.Lock()
	r.running = running
	r.mu.Unlock()
	r.set.Unlock()
	if err = errors.Join(all...); err == nil {
		work.Go(func() { r.tellEnds(ctx, orphans) })
		<-ctx.Done()
	}
	r.set.Lock()
	r.mu.Lock()
	r.running = nil
	r.mu.Unlock()
	r.set.Unlock()
	cancel()
	for _, e := range running {
		e.Stop()
	}
	work.Wait()
	return err
}

// evaluator evaluates the groups of one language.
type evaluator struct {
	*rules.Manager
	loader *loader
	every  time.Duration
	labels labels.Labels
	url    string
}

func (r *Rules) evaluator(ctx context.Context, logs bool) *evaluator {
	l := &loader{parser: r.db.parser, logs: logs}
	query := rules.EngineQueryFunc(r.db.engine, r.db.Storage())
	if logs {
		l.parser, query = logParser{r.db.parser, r.o.CheckLogs}, r.logVector
	}
	return &evaluator{loader: l, every: r.o.Every, labels: labels.FromMap(r.o.Labels), url: r.o.URL, Manager: rules.NewManager(&rules.ManagerOptions{
		Context: ctx, Logger: r.log, Metrics: r.metrics, ExternalURL: r.url, Parser: r.db.parser,
		AppendableV2: r.db.Appendable(), Queryable: r.db.Storage(), QueryFunc: query, GroupLoader: l, RuleDependencyController: alone{},
		ResendDelay: resend, OutageTolerance: tolerance,
		NotifyFunc: func(ctx context.Context, expr string, alerts ...*rules.Alert) {
			if len(alerts) == 0 {
				return
			}
			all := make([]Firing, 0, len(alerts))
			for _, a := range alerts {
				all = append(all, firing(a, expr, logs))
			}
			r.o.Notify(ctx, all)
		},
	})}
}

// update hands the groups of its language on.
func (e *evaluator) update(groups []Group) error {
	sources := e.loader.take(groups)
	if err := e.Update(e.every, sources, e.labels, e.url, nil); err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	return nil
}

// alone says nothing of how rules depend on each other: they are evaluated in their
// order, and LogQL cannot be looked into.
type alone struct{}

func (alone) AnalyseRules([]rules.Rule) {}

func firing(a *rules.Alert, expr string, logs bool) Firing {
	f := Firing{
		Labels: a.Labels.Map(), Annotations: a.Annotations.Map(), Expr: expr, Logs: logs, Value: a.Value,
		Since: a.ActiveAt, StartsAt: a.FiredAt, EndsAt: a.ValidUntil,
	}
	if !a.ResolvedAt.IsZero() {
		f.EndsAt = a.ResolvedAt
	}
	return f
}

// logVector answers rules whose expression is LogQL.
func (r *Rules) logVector(ctx context.Context, query string, at time.Time) (promql.Vector, error) {
	values, err := r.o.Logs(ctx, query, at)
	if err != nil {
		return nil, err
	}
	out := make(promql.Vector, 0, len(values))
	for _, v := range values {
		out = append(out, promql.Sample{T: at.UnixMilli(), F: v.Value, Metric: labels.FromMap(v.Labels)})
	}
	return out, nil
}

// RuleGroups are those that are evaluated, for the API of Prometheus.
func (r *Rules) RuleGroups() (out []*rules.Group) {
	r.mu.Lock()
	running := r.running
	r.mu.Unlock()
	for _, e := range running {
		out = append(out, e.Manager.RuleGroups()...)
	}
	return out
}

// AlertingRules are those among them that alert.
func (r *Rules) AlertingRules() (out []*rules.AlertingRule) {
	for _, g := range r.RuleGroups() {
		out = append(out, g.AlertingRules()...)
	}
	return out
}

// RuleState is a rule and how it fares.
type RuleState struct {
	Source, Group string
	Logs          bool
	Rule          Rule
	State         string        // inactive, pending or firing; "" of one that records, unknown before the first evaluation
	Health        string        // ok, err or unknown
	Error         string        // of the last evaluation
	Evaluated     time.Time     // the last time
	Took          time.Duration // that
	Every         time.Duration // of its group
	Active        []Firing      // pending ones, too: their StartsAt is zero

	restored bool // its alerts know how long they have been pending
}

// States are all rules, in the order of their groups.
func (r *Rules) States() (out []RuleState) {
	r.mu.Lock()
	running := r.running
	r.mu.Unlock()
	for _, e := range running {
		for _, g := range e.Manager.RuleGroups() {
			for _, rule := range g.Rules() {
				s := RuleState{
					Source: g.File(), Group: g.Name(), Logs: e.loader.logs, Health: string(rule.Health()), Every: g.Interval(),
					Evaluated: rule.GetEvaluationTimestamp(), Took: rule.GetEvaluationDuration(),
					Rule: Rule{Expr: rule.Query().String(), Labels: rule.Labels().Map()},
				}
				if err := rule.LastError(); err != nil {
					s.Error = err.Error()
				}
				a, alerts := rule.(*rules.AlertingRule)
				if !alerts {
					s.Rule.Record = rule.Name()
					out = append(out, s)
					continue
				}
				s.Rule.Alert, s.State = rule.Name(), a.State().String()
				s.restored = a.Restored()
				s.Rule.For, s.Rule.KeepFiringFor, s.Rule.Annotations = a.HoldDuration(), a.KeepFiringFor(), a.Annotations().Map()
				for _, one := range a.ActiveAlerts() {
					s.Active = append(s.Active, firing(one, s.Rule.Expr, s.Logs))
				}
				slices.SortFunc(s.Active, func(a, b Firing) int {
					return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(labels.FromMap(a.Labels).String(), labels.FromMap(b.Labels).String()))
				})
				out = append(out, s)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b RuleState) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Group, b.Group))
	})
	return out
}

// Behind says why rules are not evaluated as often as they should be; "" when they are.
func (r *Rules) Behind(now time.Time) string {
	r.mu.Lock()
	wanted, running := len(r.groups), r.running
	r.mu.Unlock()
	if wanted > 0 && running == nil {
		return "no rules are evaluated"
	}
	groups := r.RuleGroups()
	r.mu.Lock()
	defer r.mu.Unlock()
	unseen := map[string]time.Time{}
	late := ""
	for _, g := range groups {
		last, most := g.GetLastEvaluation(), max(time.Minute, 3*g.Interval())
		said := "have not been evaluated yet"
		if !last.IsZero() {
			said = fmt.Sprintf("were last evaluated %s ago", now.Sub(last).Round(time.Second))
		} else {
			// The first one comes up to an interval after it was loaded, and it may have been loaded just now.
			key := g.File() + ";" + g.Name()
			if last = r.unseen[key]; last.IsZero() {
				last = now
			}
			unseen[key] = last
		}
		if late == "" && now.Sub(last) > most {
			late = fmt.Sprintf("the rules of group %s %s", g.Name(), said)
		}
	}
	r.unseen = unseen
	return late
}
