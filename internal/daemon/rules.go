package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/alert"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/logql"
	"github.com/tenderhq/tender/internal/logs"
	"github.com/tenderhq/tender/internal/metrics"
	"github.com/tenderhq/tender/internal/store"
)

// apiSource is the source of rules that were set over the API.
const apiSource = "api"

// ruleRoom gathers rules from where they stand and has them evaluated.
type ruleRoom struct {
	log    *slog.Logger
	config Config
	state  *store.Store
	rules  *metrics.Rules
	// moreFiles are the rule files that prometheus.yml names.
	moreFiles func() []string
	builtin   func() ([]metrics.Group, error) // they do not change while this runs
	tell      func(problem string)
	wake      chan struct{}

	mu       sync.Mutex
	problems []string

	// Of the one goroutine that gathers:
	good     map[string][]metrics.Group // what was right of a source when it was last
	texts    map[ruleText]readRules     // of the round before and of this one, which are seldom different
	fresh    map[ruleText]readRules
	projects map[string]ofHead[projectRules]
	set      []metrics.Group
}

// ruleText is a text of rules and what is needed to read it.
type ruleText struct {
	source, text string
	logs         bool
}

// readRules is what came of one. It is not changed.
type readRules struct {
	groups []metrics.Group
	wrong  []error
}

// projectRules are those of one generation.
type projectRules struct {
	groups   []metrics.Group
	problems []string
}

// openRules makes the room; nil: there is no store of samples.
func openRules(b *backend, log *slog.Logger) *ruleRoom {
	if b.metered == nil {
		return nil
	}
	db := b.metered.db
	r, err := newRuleRoom(b, db, log, b.fired)
	if err != nil {
		log.Error("no rules are evaluated", "err", err)
		b.board.set("rules", func(p *api.Part) { p.State, p.Since, p.Error = "failed", time.Now().UTC(), err.Error() })
		return nil
	}
	r.moreFiles = func() []string { return db.Config().RuleFiles }
	r.tell = func(problem string) { b.board.set("rules", func(p *api.Part) { p.Error = problem }) }
	db.SetRules(r.rules)
	return r
}

// fired hands alerts on to who tells people.
func (b *backend) fired(ctx context.Context, all []metrics.Firing) {
	if b.alerts == nil { // status says so
		return
	}
	outer := outerURL(b.config)
	base := (&url.URL{Scheme: outer.Scheme, Host: outer.Host}).String()
	outside := b.metered.db.Config().GlobalConfig.ExternalLabels.Map()
	out := make([]alert.Alert, 0, len(all))
	for _, f := range all {
		a := alert.Alert{Labels: maps.Clone(outside), Annotations: maps.Clone(f.Annotations), StartsAt: f.StartsAt, EndsAt: f.EndsAt, GeneratorURL: link(base, f)}
		maps.Copy(a.Labels, f.Labels)
		if _, said := a.Annotations["value"]; !said && f.Annotations != nil {
			a.Annotations["value"] = strconv.FormatFloat(f.Value, 'g', 6, 64)
		}
		out = append(out, a)
	}
	if err := b.alerts.room.Put(ctx, out...); err != nil && ctx.Err() == nil {
		b.log.Error("alerts were not taken in", "err", err)
	}
}

// newRuleRoom makes the evaluator of db's rules; notify gets what fires.
func newRuleRoom(b *backend, db *metrics.DB, log *slog.Logger, notify func(context.Context, []metrics.Firing)) (*ruleRoom, error) {
	o := metrics.RulesOptions{Every: b.config.RulesEvery, Notify: notify, CheckLogs: checkLogQL, Labels: db.Config().GlobalConfig.ExternalLabels.Map()}
	if o.Every == 0 && b.config.Metrics != "" {
		o.Every = time.Duration(db.Config().GlobalConfig.EvaluationInterval)
	}
	if b.logs != nil {
		o.Logs = b.logs.numbers
	}
	rules, err := metrics.NewRules(db, o)
	if err != nil {
		return nil, err
	}
	r := &ruleRoom{
		log: log, config: b.config, state: b.store, rules: rules, wake: make(chan struct{}, 1), moreFiles: func() []string { return nil }, tell: func(string) {},
		good: map[string][]metrics.Group{}, builtin: sync.OnceValues(func() ([]metrics.Group, error) { return metrics.BuiltinGroups(b.config.Builtin) }),
	}
	return r, nil
}

// numbers answers rules over logs.
func (l *logRoom) numbers(ctx context.Context, query string, at time.Time) ([]metrics.Value, error) {
	found, err := l.query().Instant(ctx, query, at)
	if err != nil {
		return nil, err
	}
	out := make([]metrics.Value, 0, len(found))
	for _, s := range found {
		v := metrics.Value{At: at, Value: s.Value, Labels: map[string]string{}}
		for _, f := range s.Labels {
			v.Labels[f.Name] = f.Value
		}
		out = append(out, v)
	}
	return out, nil
}

func checkLogQL(query string) error {
	x, err := logql.Parse(query)
	if err == nil && !logql.IsMetric(x) {
		err = tender.Errorf(tender.Invalid, "a rule needs a number: wrap it as in sum(count_over_time(%s [5m])) > 0", x)
	}
	return err
}

// CheckExpr refuses what is no expression of a language of compose's; the error says where.
func CheckExpr(language, text string) error {
	if language == compose.LogQL {
		return checkLogQL(text)
	}
	return metrics.CheckExpr(text)
}

// run is the part.
func (r *ruleRoom) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.set = nil
	r.gather(ctx) // before the first evaluation, which restores how long alerts were pending
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() {
		const again = 10 * time.Second // a file may have changed
		for {
			select {
			case <-ctx.Done():
				return
			case <-r.wake:
			case <-time.After(again):
			}
			r.gather(ctx)
		}
	})
	return r.rules.Run(ctx)
}

// poke has rules gathered again soon.
func (r *ruleRoom) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// gather reads all sources. What is not right of one is told, and what was right of it
// before stays.
func (r *ruleRoom) gather(ctx context.Context) {
	r.fresh = map[ruleText]readRules{}
	defer func() { r.texts = r.fresh }()
	groups, err := r.builtin()
	groups = slices.Clip(groups) // more is appended, not to them
	var problems []string
	if err != nil { // the configuration was checked
		problems = append(problems, err.Error())
	}
	for _, logs := range []bool{false, true} {
		more, said := r.files(logs)
		groups, problems = append(groups, more...), append(problems, said...)
	}
	more, said, err := r.stored(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Error("rules of projects cannot be read", "err", err)
		}
		return // and those that are evaluated stay
	}
	groups, problems = append(groups, more...), append(problems, said...)
	if !reflect.DeepEqual(groups, r.set) {
		if err := r.rules.Set(groups); err != nil {
			problems = append(problems, err.Error())
		} else {
			r.set = groups
		}
	}
	r.mu.Lock()
	before := r.problems
	r.problems = problems
	r.mu.Unlock()
	if !slices.Equal(before, problems) {
		for _, p := range problems {
			r.log.Warn("rules are not right", "problem", p)
		}
		r.tell(strings.Join(problems, "; "))
	}
}

// read is metrics.ReadRules for gather, which reads the same every few seconds.
func (r *ruleRoom) read(source, text string, logs bool) ([]metrics.Group, []error) {
	key := ruleText{source, text, logs}
	is, ok := r.texts[key]
	if !ok {
		is.groups, is.wrong = metrics.ReadRules(source, []byte(text), logs, checkLogQL)
	}
	r.fresh[key] = is
	return is.groups, is.wrong
}

// files reads rule files of one language.
func (r *ruleRoom) files(logs bool) (out []metrics.Group, problems []string) {
	patterns := slices.Concat(r.config.RuleFiles, r.moreFiles())
	if logs {
		patterns = r.config.LogRuleFiles
	}
	var all []string
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil {
			problems = append(problems, fmt.Sprintf("rule files %s: %v", p, err))
		}
		if err == nil && len(found) == 0 && !strings.ContainsAny(p, `*?[`) {
			problems = append(problems, fmt.Sprintf("rule file %s is not there", p))
		}
		all = append(all, found...)
	}
	slices.Sort(all)
	for _, file := range slices.Compact(all) {
		content, err := os.ReadFile(file)
		var groups []metrics.Group
		if err != nil {
			problems = append(problems, err.Error())
		} else {
			var wrong []error
			if groups, wrong = r.read(file, string(content), logs); len(wrong) > 0 {
				err = wrong[0]
				for _, w := range wrong {
					problems = append(problems, fmt.Sprintf("%s: %v", file, w))
				}
			}
		}
		key := fmt.Sprint(logs, file)
		if err != nil {
			groups = r.good[key]
		}
		r.good[key] = groups
		out = append(out, groups...)
	}
	return out, problems
}

// stored are the rules of projects, and those that were set over the API.
func (r *ruleRoom) stored(ctx context.Context) (out []metrics.Group, problems []string, err error) {
	var next map[string]ofHead[projectRules]
	err = r.state.View(ctx, func(tx *store.Tx) (err error) {
		var names []string
		if names, next, err = readHeads(tx, r.projects, rulesOf); err != nil {
			return err
		}
		for _, name := range names {
			p := next[name].is
			out, problems = append(out, p.groups...), append(problems, p.problems...)
		}
		set, err := tx.RuleGroups()
		for _, g := range set {
			groups, wrong := r.read(apiSource, g.Text, g.Logs)
			for _, w := range wrong { // of another version
				problems = append(problems, fmt.Sprintf("rules %s: %v", g.Name, w))
			}
			out = append(out, groups...)
		}
		return err
	})
	if err == nil {
		r.projects = next
	}
	return out, problems, err
}

// rulesOf are those that x-tender.alerts of a generation's services say.
func rulesOf(g store.Generation) (p projectRules) {
	if g.Down != nil {
		return p
	}
	for _, s := range g.Services {
		if s.Gone {
			continue
		}
		groups, err := serviceRules(g.Project, s.Service)
		if err != nil {
			p.problems = append(p.problems, fmt.Sprintf("%s: %v", g.Project, err))
		}
		p.groups = append(p.groups, groups...)
	}
	return p
}

// serviceRules makes groups of what x-tender.alerts says: the service's labels are filled
// in, and selectors that do not say otherwise mean the service alone. Rules that are not
// right are left out and named in the error.
func serviceRules(project string, s tender.Service) (out []metrics.Group, err error) {
	rules, err := compose.Alerts(s.Spec)
	if err != nil {
		return nil, fmt.Errorf("services.%s: %w", s.Name, err)
	}
	own := map[string]string{"project": project, "service": s.Name}
	var conditions []logs.Condition
	for _, name := range slices.Sorted(maps.Keys(own)) {
		conditions = append(conditions, logs.Condition{Name: name, Op: logs.Equal, Value: own[name]})
	}
	samples := metrics.Group{Source: project + "/" + s.Name, Name: "alerts"}
	lines := metrics.Group{Source: samples.Source, Name: "alerts over logs", Logs: true}
	var wrong []error
	for i, said := range rules {
		r := metrics.Rule{
			Alert: said.Alert, Record: said.Record, For: said.For, KeepFiringFor: said.KeepFiringFor,
			Labels: maps.Clone(own), Annotations: said.Annotations,
		}
		maps.Copy(r.Labels, said.Labels)
		to := &samples
		if said.Language == compose.LogQL {
			to = &lines
			var x logql.Expr
			if x, err = logql.Meant(said.Expr, conditions); err == nil {
				r.Expr = x.String()
				err = checkLogQL(r.Expr)
			}
		} else {
			r.Expr, err = metrics.Within(said.Expr, own)
		}
		if err == nil {
			for _, p := range metrics.CheckGroup(metrics.Group{Name: "g", Logs: to.Logs, Rules: []metrics.Rule{r}}, checkLogQL) {
				err = errors.Join(err, p)
			}
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("services.%s.x-tender.alerts[%d] %s: %w", s.Name, i, said.Alert+said.Record, err))
			continue
		}
		to.Rules = append(to.Rules, r)
	}
	for _, g := range []metrics.Group{samples, lines} {
		if len(g.Rules) > 0 {
			out = append(out, g)
		}
	}
	return out, errors.Join(wrong...)
}

// checkAlerts refuses what x-tender.alerts says wrongly and only who evaluates it knows.
func checkAlerts(p tender.Project) error {
	var all []error
	for _, s := range p.Services {
		_, err := serviceRules(p.Name, s)
		all = append(all, err)
	}
	if err := errors.Join(all...); err != nil {
		return tender.Errorf(tender.Invalid, "%w", err)
	}
	return nil
}

// Rules are all that is evaluated, and how it fares.
func (b *backend) Rules(context.Context) (api.Rules, error) {
	if b.rules == nil {
		return api.Rules{}, b.noRules()
	}
	out := api.Rules{Rules: []api.Rule{}}
	for _, s := range b.rules.rules.States() {
		r := api.Rule{
			Name: s.Rule.Alert, Kind: "alert", Source: s.Source, Group: s.Group, Language: compose.PromQL, Expr: s.Rule.Expr,
			For: s.Rule.For.Seconds(), KeepFiringFor: s.Rule.KeepFiringFor.Seconds(), Every: s.Every.Seconds(), Labels: s.Rule.Labels, Annotations: s.Rule.Annotations,
			State: s.State, Health: s.Health, Error: s.Error, Evaluated: s.Evaluated.UTC(), Took: s.Took.Seconds(),
		}
		if s.Logs {
			r.Language = compose.LogQL
		}
		if s.Rule.Record != "" {
			r.Name, r.Kind = s.Rule.Record, "record"
		}
		for _, a := range s.Active {
			r.Active = append(r.Active, api.RuleAlert{
				Labels: a.Labels, Annotations: a.Annotations, Value: strconv.FormatFloat(a.Value, 'g', -1, 64), Since: a.Since.UTC(), Fires: a.StartsAt.UTC(),
			})
		}
		out.Rules = append(out.Rules, r)
	}
	b.rules.mu.Lock()
	defer b.rules.mu.Unlock()
	out.Problems = b.rules.problems
	return out, nil
}

func (b *backend) noRules() error {
	return tender.Errorf(tender.Unavailable, "no rules are evaluated: there is no store of samples").Hint("tender status says why")
}

// RuleGroups are those that were set over the API.
func (b *backend) RuleGroups(ctx context.Context) (out []api.RuleGroup, err error) {
	err = b.store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.RuleGroups()
		for _, g := range list {
			out = append(out, wireGroup(g))
		}
		return err
	})
	return out, err
}

func wireGroup(g store.RuleGroup) api.RuleGroup {
	out := api.RuleGroup{Name: g.Name, Language: compose.PromQL, Text: g.Text, Who: g.Who, Changed: g.Changed}
	if g.Logs {
		out.Language = compose.LogQL
	}
	return out
}

// SetRules takes in the groups of a rule file.
func (b *backend) SetRules(ctx context.Context, who api.Person, f api.RuleFile) (out []api.RuleGroup, err error) {
	logs := f.Language == compose.LogQL
	groups, wrong := metrics.ReadRules(apiSource, []byte(f.Text), logs, checkLogQL)
	if len(wrong) > 0 {
		return nil, tender.Errorf(tender.Invalid, "%w", errors.Join(wrong...))
	}
	if len(groups) == 0 {
		return nil, tender.Errorf(tender.Invalid, "there is no group of rules in it").Hint("a rule file begins with groups:, see docs/alerts.md")
	}
	var names []string
	err = b.store.Update(ctx, func(tx *store.Tx) error {
		there, err := tx.RuleGroups()
		if err != nil {
			return err
		}
		for _, g := range groups {
			if err := otherLanguage(there, g.Name, logs); err != nil {
				return err
			}
			text, err := metrics.WriteRules([]metrics.Group{g})
			if err != nil {
				return err
			}
			row := store.RuleGroup{Name: g.Name, Logs: logs, Text: string(text), Who: who.Name, Changed: time.Now().UTC()}
			if err := tx.PutRuleGroup(row); err != nil {
				return err
			}
			out, names = append(out, wireGroup(row)), append(names, g.Name)
		}
		return nil
	})
	b.auditEnd(ctx, who, "rules set", "", strings.Join(names, ", "), err)
	if err != nil {
		return nil, err
	}
	if b.rules != nil {
		b.rules.poke()
	}
	return out, nil
}

// otherLanguage refuses a group that would take the place of one in the other language: who wrote
// it meant another one.
func otherLanguage(there []store.RuleGroup, name string, logs bool) error {
	for _, g := range there {
		if g.Name == name && g.Logs != logs {
			was := "PromQL"
			if g.Logs {
				was = "LogQL"
			}
			return tender.Errorf(tender.Conflict, "there is a group of rules %q in %s, set by %s", name, was, g.Who).
				Hint("give this one another name, or remove that one first: tender alert rules rm %s", name)
		}
	}
	return nil
}

// RemoveRules removes a group that was set over the API.
func (b *backend) RemoveRules(ctx context.Context, who api.Person, group string) error {
	err := b.store.Update(ctx, func(tx *store.Tx) error { return tx.RemoveRuleGroup(group) })
	b.auditEnd(ctx, who, "rules rm", "", group, err)
	if err == nil && b.rules != nil {
		b.rules.poke()
	}
	return err
}

// link leads to the answer of an expression.
func link(base string, f metrics.Firing) string {
	path := "/api/v1/query?query="
	if f.Logs {
		path = "/loki/api/v1/query?query="
	}
	return strings.TrimSuffix(base, "/") + path + url.QueryEscape(f.Expr)
}
