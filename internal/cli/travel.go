package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/go-units"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/daemon"
)

// builder is where images are built: the daemon's engine, or the one here.
type builder interface {
	Images(ctx context.Context, refs []string) ([]api.Image, error)
	Build(ctx context.Context, r api.BuildRequest, contexts []api.BuildContext, report func(api.Event)) (id string, err error)
}

// bench is where this command builds, and how what was built gets to the daemon.
type bench struct {
	builder
	there *api.Client
	here  *daemon.Workshop // nil where the daemon's own engine builds
}

// bench chooses where to build. With a daemon on another host that is the engine
// here, if one answers that builds for the same platform: then sources stay here
// and only the layers that are missing there travel.
func (a *app) bench(ctx context.Context, d *api.Client, builds []compose.Build) (bench, error) {
	there := bench{builder: d, there: d}
	if !a.remote() {
		return there, nil
	}
	for _, b := range builds {
		if len(b.External) > 0 {
			a.note("%s builds: the vault has secrets of the build of %s", d.Host(), b.Service)
			return there, nil
		}
	}
	w, err := daemon.OpenWorkshop(ctx, a.getenv("DOCKER_HOST"))
	if err != nil {
		if ctx.Err() != nil {
			return there, ctx.Err()
		}
		a.note("no engine answers here: %s builds", d.Host())
		return there, nil
	}
	s, err := d.Status(ctx)
	if err != nil {
		return there, err
	}
	if theirs := s.Engine.OS + "/" + s.Engine.Arch; theirs != w.Platform() {
		a.note("%s runs %s and the engine here %s: images are built there", d.Host(), theirs, w.Platform())
		return there, nil
	}
	return bench{builder: w, there: d, here: w}, nil
}

// send brings an image from here to the daemon's host, unless it is there.
func (a *app) send(ctx context.Context, b bench, refs []string) error {
	if b.here == nil {
		return nil
	}
	same, err := b.same(ctx, refs)
	if err != nil || same {
		return err
	}
	p, err := a.progressFor()
	if err != nil {
		return err
	}
	begun := time.Now()
	sent, err := b.here.Send(ctx, b.there, refs, func(e api.Event) {
		if e.Service == "" {
			e.Service = refs[0]
		}
		p.report(e)
	})
	p.close()
	if err != nil {
		return err
	}
	if a.progress != "quiet" && a.progress != "json" {
		a.note("sent %s: %s, %d of %s (%s)", refs[0], units.HumanSize(float64(sent.Bytes)), sent.Layers-sent.Shared, countOf(sent.Layers, "layer"), took(time.Since(begun)))
	}
	return nil
}

// same reports whether all names mean the same image on both sides.
func (b bench) same(ctx context.Context, refs []string) (bool, error) {
	here, err := b.here.Images(ctx, refs)
	if err != nil {
		return false, err
	}
	there, err := b.there.Images(ctx, refs)
	if err != nil || len(there) < len(refs) {
		return false, err
	}
	ids := map[string]string{}
	for _, i := range here {
		ids[i.Reference] = i.ID
	}
	for _, i := range there {
		if ids[i.Reference] != i.ID {
			return false, nil
		}
	}
	return true, nil
}

// sendOwn brings along the images of a project that no registry has: those
// without build:, not there, that were made here and never pulled or pushed.
func (a *app) sendOwn(ctx context.Context, b bench, p tender.Project, in map[string]bool) error {
	if b.here == nil {
		return nil
	}
	var refs []string
	for _, s := range p.Services {
		if in[s.Name] && !s.Build && s.Image != "" && s.PullPolicy != "always" {
			refs = append(refs, s.Image)
		}
	}
	if len(refs) == 0 {
		return nil
	}
	here, err := b.here.Images(ctx, refs)
	if err != nil {
		return err
	}
	there, err := b.there.Images(ctx, refs)
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, i := range there {
		has[i.Reference] = true
	}
	for _, i := range here {
		if has[i.Reference] || i.Digest != "" {
			continue
		}
		has[i.Reference] = true
		if err := a.send(ctx, b, []string{i.Reference}); err != nil {
			return fmt.Errorf("image %s: %w", i.Reference, err)
		}
	}
	return nil
}
