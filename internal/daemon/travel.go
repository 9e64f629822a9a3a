package daemon

import (
	"context"
	"io"
	"strings"

	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
)

// Shared counts the layers that need not come.
func (b *backend) Shared(ctx context.Context, layers []string) (out api.Shared, err error) {
	if out.Layers, err = b.engine.Shared(ctx, layers); err == nil {
		out.Layout, err = b.engine.Layouts(ctx)
	}
	return out, err
}

// Load takes images from the asker's own engine.
func (b *backend) Load(ctx context.Context, who api.Person, tarball io.Reader, a api.Arrival, report func(api.Event)) error {
	report = stamped(report, "")
	names := a.Names
	tell := func(p engine.Progress) {
		if name, is := strings.CutPrefix(p.Text, "Loaded image: "); is && a.As == "" {
			names = append(names, strings.TrimSpace(name))
		}
		report(api.Event{Kind: api.KindPull, Text: p.Text, Current: p.Current, Total: p.Total})
	}
	var err error
	if a.As == "" {
		err = b.engine.Load(ctx, tarball, tell)
	} else {
		err = b.engine.Arrive(ctx, tarball, a.As, a.Names, tell)
	}
	if err == nil {
		b.cameHere(ctx, "loaded", names...)
	}
	b.auditEnd(ctx, who, "load", "", "", err)
	return err
}
