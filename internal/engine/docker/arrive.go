package docker

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// arrivals are the names of the images that arrive now.
type arrivals struct {
	mu  sync.Mutex
	now map[string]bool
}

func (a *arrivals) begin(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now[name] {
		return false
	}
	if a.now == nil {
		a.now = map[string]bool{}
	}
	a.now[name] = true
	return true
}

func (a *arrivals) end(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.now, name)
}

func (a *arrivals) has(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now[name]
}

// Layouts implements engine.Images: those that keep images in containerd, and
// say of what they have whether all of it is there, which came with 1.48.
func (e *Engine) Layouts(ctx context.Context) (bool, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return false, err
	}
	says, err := e.atLeast(ctx, "1.48")
	return says && slices.Contains(e.info.Load().DriverStatus, [2]string{"driver-type", "io.containerd.snapshotter.v1"}), err
}

// letGo is how long the name of an image that arrived is tried to be removed.
const letGo = 30 * time.Second

// Arrive implements engine.Images.
func (e *Engine) Arrive(ctx context.Context, tarball io.Reader, as string, names []string, report func(engine.Progress)) error {
	if word, ok := strings.CutPrefix(as, engine.Arriving); !ok || word == "" || len(names) == 0 {
		return tender.Errorf(tender.Invalid, "load images: %q is no name to arrive under", as)
	}
	if !e.arrivals.begin(as) {
		return tender.Errorf(tender.Invalid, "load images: another one arrives as %s", as)
	}
	defer e.arrivals.end(as)
	if err := e.sweep(ctx); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), letGo)
		defer cancel()
		_ = e.RemoveImage(ctx, as) // the next one that arrives removes what stays
	}()
	if err := e.Load(ctx, tarball, func(p engine.Progress) {
		if p.Text = strings.ReplaceAll(p.Text, as, names[0]); report != nil {
			report(p)
		}
	}); err != nil {
		return err
	}
	got, err := e.c().ImageInspect(ctx, as, client.ImageInspectWithManifests(true))
	if err != nil && kind(err) != tender.NotFound {
		return wrap(err, "load images")
	}
	if err != nil || !whole(got.InspectResponse) {
		return tender.Errorf(tender.Invalid, "load images: %s is not whole: layers are missing that were not sent", names[0])
	}
	for _, name := range names {
		err := e.Tag(ctx, as, name)
		if tender.KindOf(err) == tender.NotFound {
			return tender.Errorf(tender.Invalid, "load images: %s went while it arrived", names[0])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sweep removes the names of images whose arrival was cut off.
func (e *Engine) sweep(ctx context.Context) error {
	list, err := e.c().ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("reference", strings.TrimSuffix(engine.Arriving, ":"))})
	if err != nil {
		return wrap(err, "list images")
	}
	for _, i := range list.Items {
		for _, name := range i.RepoTags {
			if !strings.HasPrefix(name, engine.Arriving) || e.arrivals.has(name) {
				continue
			}
			if err := e.RemoveImage(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// whole reports whether all that an instance is made from is there. That it
// could be unpacked does not say so: lower layers may be unpacked already and
// their content gone.
func whole(i image.InspectResponse) bool {
	some := false
	for _, m := range i.Manifests {
		if m.Kind != image.ManifestKindImage || m.ImageData == nil {
			continue
		}
		if p := m.ImageData.Platform; p.OS != i.Os || p.Architecture != i.Architecture {
			continue
		}
		if !m.Available {
			return false
		}
		some = true
	}
	return some
}
