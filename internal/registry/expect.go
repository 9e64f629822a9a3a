package registry

import (
	"cmp"
	"context"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

type expectKey struct{}

// Expect lets a tag of our own registry be written with this context only while it stands at
// digest, "" being that it is not there; else the write ends with Conflict. The comparison and
// the write are one step.
func Expect(ctx context.Context, digest string) context.Context {
	return context.WithValue(ctx, expectKey{}, digest)
}

// keepExpected is asked under the lock of the repository.
func (r *Registry) keepExpected(ctx context.Context, p Pushed) error {
	want, asked := ctx.Value(expectKey{}).(string)
	if !asked || p.Tag == "" {
		return nil
	}
	have, err := r.tagsOf(ctx, p.Repository, func(t store.Tag) bool { return t.Tag == p.Tag })
	if err != nil {
		return err
	}
	is := ""
	if len(have) > 0 {
		is = have[0].Digest
	}
	if is != want {
		return tender.Errorf(tender.Conflict, "%s:%s is %s now and was %s: somebody pushed there meanwhile", p.Repository, p.Tag, cmp.Or(is, "not there"), cmp.Or(want, "not there")).Hint("again")
	}
	return nil
}
