package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// apartQuestions are what somebody may ask who sees some projects alone: what is answered from their
// series, rules and alerts, and what tells of nobody. Targets and the state of the store are of all.
var apartQuestions = regexp.MustCompile(`^/api/v1/(?:query|query_range|query_exemplars|series|labels|label/[^/]+/values|` +
	`metadata|rules|alerts|status/buildinfo|format_query|parse_query)$`)

// Apart serves Prometheus' HTTP API to who sees some projects alone, as if there were no others;
// projects says which. What cannot be answered so is refused.
func (d *DB) Apart(projects func(context.Context) []string) http.Handler {
	answers := d.serve(confined{d.all}, confinedExemplars{d.tsdb}, func(ctx context.Context) v1.RulesRetriever {
		only, _ := onlyOf(ctx)
		return theirs{only, named{d}}
	}, nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		whose := slices.DeleteFunc(slices.Clone(projects(r.Context())), func(p string) bool { return p == "" })
		only, err := ofProjects(whose)
		asks := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodPost
		if err != nil || !asks || !apartQuestions.MatchString(r.URL.Path) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(map[string]string{ // who asked may have gone
				"status": "error", "errorType": "forbidden",
				"error": "this token is for " + strings.Join(whose, ", ") + " only and may ask its series, rules and alerts; use one that is for all projects",
			})
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), onlyKey{}, only))
		switch {
		case r.Method == http.MethodPost: // only what is asked of series is answered
		case r.URL.Path == "/api/v1/metadata":
			d.theirMetadata(w, r, only)
			return
		case r.URL.Path == "/api/v1/alerts":
			d.theirAlerts(w, only)
			return
		case r.URL.Path == "/api/v1/rules":
			r = d.theirRules(r, only)
		}
		answers.ServeHTTP(w, r)
	})
}

type onlyKey struct{}

func ofProjects(projects []string) (*labels.Matcher, error) {
	switch len(projects) {
	case 0: // a matcher for nothing would match what has no project
		return nil, errors.New("no project")
	case 1:
		return labels.NewMatcher(labels.MatchEqual, projectLabel, projects[0])
	}
	quoted := make([]string, len(projects))
	for i, p := range projects {
		quoted[i] = regexp.QuoteMeta(p)
	}
	return labels.NewMatcher(labels.MatchRegexp, projectLabel, strings.Join(quoted, "|"))
}

// confined is a store of which each question sees the series that its context says. Whatever it
// says itself, it passes here on its way to them; one whose context says nothing sees none.
type confined struct{ store storage.Queryable }

var _ storage.SampleAndChunkQueryable = confined{}

// Querier is storage.Queryable's.
func (c confined) Querier(from, to int64) (storage.Querier, error) {
	q, err := c.store.Querier(from, to)
	if err != nil {
		return nil, err
	}
	return confinedQuerier{q}, nil
}

// ChunkQuerier is storage.ChunkQueryable's: only who reads from afar wants chunks.
func (confined) ChunkQuerier(int64, int64) (storage.ChunkQuerier, error) { return nil, errNotOffered }

// confinedQuerier has each method of its own, so that a new one cannot pass unseen.
type confinedQuerier struct{ q storage.Querier }

func onlyOf(ctx context.Context) (only *labels.Matcher, ok bool) {
	only, ok = ctx.Value(onlyKey{}).(*labels.Matcher)
	return only, ok
}

func confine(ctx context.Context, matchers []*labels.Matcher) ([]*labels.Matcher, error) {
	only, ok := onlyOf(ctx)
	if !ok {
		return nil, errNotOffered
	}
	return append(slices.Clone(matchers), only), nil
}

// Select is storage.Querier's.
func (c confinedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	all, err := confine(ctx, matchers)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	return c.q.Select(ctx, sorted, hints, all...)
}

// LabelValues is storage.LabelQuerier's.
func (c confinedQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	all, err := confine(ctx, matchers)
	if err != nil {
		return nil, nil, err
	}
	return c.q.LabelValues(ctx, name, hints, all...)
}

// LabelNames is storage.LabelQuerier's.
func (c confinedQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	all, err := confine(ctx, matchers)
	if err != nil {
		return nil, nil, err
	}
	return c.q.LabelNames(ctx, hints, all...)
}

// Close is storage.LabelQuerier's.
func (c confinedQuerier) Close() error { return c.q.Close() }

// confinedExemplars are those of the series that the context of a question says.
type confinedExemplars struct{ store storage.ExemplarQueryable }

// ExemplarQuerier is storage.ExemplarQueryable's.
func (c confinedExemplars) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	only, ok := onlyOf(ctx)
	if !ok {
		return nil, errNotOffered
	}
	q, err := c.store.ExemplarQuerier(ctx)
	if err != nil {
		return nil, err
	}
	return confinedExemplarQuerier{q, only}, nil
}

type confinedExemplarQuerier struct {
	q    storage.ExemplarQuerier
	only *labels.Matcher
}

// Select is storage.ExemplarQuerier's.
func (c confinedExemplarQuerier) Select(from, to int64, sets ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	all := make([][]*labels.Matcher, len(sets))
	for i, m := range sets {
		all[i] = append(slices.Clone(m), c.only)
	}
	return c.q.Select(from, to, all...)
}

// theirMetadata tells of the series that projects have, in the words of their own targets.
func (d *DB) theirMetadata(w http.ResponseWriter, r *http.Request, only *labels.Matcher) {
	now := time.Now()
	q, err := confined{d.tsdb}.Querier(now.Add(-time.Hour).UnixMilli(), now.UnixMilli())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer q.Close()
	names, _, err := q.LabelValues(r.Context(), model.MetricNameLabel, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	here := make(map[string]bool, len(names))
	for _, n := range names {
		here[n] = true
	}
	d.tell(w, r, func(name string) bool { return here[name] }, func(t *scrape.Target) bool { return only.Matches(t.GetValue(projectLabel)) })
}

// theirRules is a question for rules, which asks only for those whose own labels say the project.
func (d *DB) theirRules(r *http.Request, only *labels.Matcher) *http.Request {
	said := r.URL.Query()
	form := url.Values{}
	for _, name := range []string{"type", "rule_name[]", "rule_group[]", "file[]", "exclude_alerts"} {
		if all := said[name]; len(all) > 0 {
			form[name] = all
		}
	}
	sets, err := d.parser.ParseMetricSelectors(said["match[]"])
	switch {
	case err != nil:
		form["match[]"] = said["match[]"] // it is refused
	case len(sets) == 0:
		sets = [][]*labels.Matcher{nil}
	}
	for _, set := range sets {
		var words []string
		for _, m := range append(set, only) {
			words = append(words, m.String())
		}
		form.Add("match[]", "{"+strings.Join(words, ",")+"}")
	}
	r = r.Clone(r.Context())
	r.URL.RawQuery, r.Form, r.PostForm = form.Encode(), nil, nil
	r.Body = http.NoBody
	return r
}

// theirAlerts are those whose labels say the project, whoever made their rules.
func (d *DB) theirAlerts(w http.ResponseWriter, only *labels.Matcher) {
	all := []*v1.Alert{}
	for _, r := range (named{d}).AlertingRules() {
		for _, a := range r.ActiveAlerts() {
			if !only.Matches(a.Labels.Get(projectLabel)) {
				continue
			}
			one := &v1.Alert{Labels: a.Labels, Annotations: a.Annotations, State: a.State.String(), ActiveAt: &a.ActiveAt, Value: strconv.FormatFloat(a.Value, 'e', -1, 64)}
			if !a.KeepFiringSince.IsZero() {
				one.KeepFiringSince = &a.KeepFiringSince
			}
			all = append(all, one)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": v1.AlertDiscovery{Alerts: all}}) // who asked may have gone
}

// theirs are the rules that say a project of who asks.
type theirs struct {
	only *labels.Matcher // nil: there are none
	all  named
}

// RuleGroups is v1.RulesRetriever's: theirRules chooses the rules in them.
func (t theirs) RuleGroups() []*rules.Group {
	return slices.DeleteFunc(t.all.RuleGroups(), func(g *rules.Group) bool { return !slices.ContainsFunc(g.Rules(), t.has) })
}

// AlertingRules is v1.RulesRetriever's.
func (t theirs) AlertingRules() []*rules.AlertingRule {
	return slices.DeleteFunc(t.all.AlertingRules(), func(r *rules.AlertingRule) bool { return !t.has(r) })
}

func (t theirs) has(r rules.Rule) bool {
	return t.only != nil && t.only.Matches(r.Labels().Get(projectLabel))
}
