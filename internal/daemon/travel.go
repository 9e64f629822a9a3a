package daemon

import (
	"context"
	"io"

	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
)

// Shared counts the layers that need not come.
func (b *backend) Shared(ctx context.Context, layers []string) (int, error) {
	return b.engine.Shared(ctx, layers)
}

// Load takes images from the asker's own engine.
func (b *backend) Load(ctx context.Context, who api.Person, tarball io.Reader, report func(api.Event)) error {
	report = stamped(report, "")
	err := b.engine.Load(ctx, tarball, func(p engine.Progress) {
		report(api.Event{Kind: api.KindPull, Text: p.Text, Current: p.Current, Total: p.Total})
	})
	b.auditEnd(ctx, who, "load", "", "", err)
	return err
}
