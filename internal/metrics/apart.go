package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// apartQuestions are what somebody may ask who sees some projects alone: what is answered from
// series and nothing else. Targets, rules, the state of the store and what exemplars carry are of all.
var apartQuestions = regexp.MustCompile(`^/api/v1/(?:query|query_range|series|labels|label/[^/]+/values)$`)

// Apart serves Prometheus' HTTP API to who sees some projects alone, as if there were no others;
// projects says which. What cannot be answered so is refused.
func (d *DB) Apart(projects func(context.Context) []string) http.Handler {
	answers := d.serve(confined{d.all}, nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		theirs := slices.DeleteFunc(slices.Clone(projects(r.Context())), func(p string) bool { return p == "" })
		only, err := ofProjects(theirs)
		asks := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodPost
		if err != nil || !asks || !apartQuestions.MatchString(r.URL.Path) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(map[string]string{ // who asked may have gone
				"status": "error", "errorType": "forbidden",
				"error": "this token is for " + strings.Join(theirs, ", ") + " only and may ask query, query_range, series, labels and label/NAME/values; use one that is for all projects",
			})
			return
		}
		answers.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), onlyKey{}, only)))
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

func confine(ctx context.Context, matchers []*labels.Matcher) ([]*labels.Matcher, error) {
	only, ok := ctx.Value(onlyKey{}).(*labels.Matcher)
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
