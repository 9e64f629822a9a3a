package logql

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// confined is a shelf of which only some projects are seen. Whatever a query says, it
// passes here on its way to the store.
type confined struct {
	shelf    Shelf
	projects []string
}

var _ Shelf = confined{}

func (c confined) only(q logs.Query) logs.Query {
	one := logs.Condition{Name: "project", Op: logs.Equal, Value: c.projects[0]}
	if len(c.projects) > 1 {
		quoted := make([]string, len(c.projects))
		for i, p := range c.projects {
			quoted[i] = regexp.QuoteMeta(p)
		}
		any := "^(?:" + strings.Join(quoted, "|") + ")$"
		one = logs.Condition{Name: "project", Op: logs.Matches, Value: any, Regexp: regexp.MustCompile(any)}
	}
	q.Labels = append(slices.Clone(q.Labels), one)
	return q
}

func (c confined) Scan(ctx context.Context, q logs.Query, fn func(logs.Chunk) error) error {
	return c.shelf.Scan(ctx, c.only(q), fn)
}

func (c confined) Streams(ctx context.Context, q logs.Query) ([]logs.Labels, error) {
	return c.shelf.Streams(ctx, c.only(q))
}

func (c confined) Fields(ctx context.Context, q logs.Query) (map[string]logs.FieldStat, error) {
	return c.shelf.Fields(ctx, c.only(q))
}

func (c confined) Follow(ctx context.Context, q logs.Query, fn func(logs.Chunk) error) error {
	return c.shelf.Follow(ctx, c.only(q), fn)
}

func (c confined) Volume(ctx context.Context, q logs.Query) (rows, bytes, chunks, streams int64, err error) {
	return c.shelf.Volume(ctx, c.only(q))
}

// Append refuses: what is pushed says by itself whose it is.
func (c confined) Append(context.Context, logs.Batch) error {
	return tender.Errorf(tender.Denied, "lines are pushed to no project, and this token is for %s only", strings.Join(c.projects, ", ")).
		Hint("push with a token that is for all projects: tender token create NAME --scope deploy")
}
