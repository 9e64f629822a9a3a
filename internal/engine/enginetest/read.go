package enginetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// List implements engine.Reader.
func (f *Fake) List(ctx context.Context) (tender.Picture, error) {
	if err := ctx.Err(); err != nil {
		return tender.Picture{}, err
	}
	if err := f.called("List", ""); err != nil {
		return tender.Picture{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := tender.Picture{Networks: slices.Clone(f.networks), Volumes: slices.Clone(f.volumes), Taken: time.Now()}
	for _, i := range f.instances {
		p.Instances = append(p.Instances, i.Instance)
	}
	return p, nil
}

// Watch implements engine.Reader.
func (f *Fake) Watch(ctx context.Context, started, changed func()) error {
	f.mu.Lock()
	if f.broken != nil {
		defer f.mu.Unlock()
		return tender.Errorf(tender.Unavailable, "engine: %w", f.broken)
	}
	if f.watchers == nil {
		f.watchers = map[int]watcher{}
	}
	f.next++
	id, w := f.next, watcher{changed: changed, lost: make(chan error, 1)}
	f.watchers[id] = w
	f.mu.Unlock()
	started()
	defer func() {
		f.mu.Lock()
		delete(f.watchers, id)
		f.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return nil
	case err := <-w.lost:
		return err
	}
}

// Info implements engine.Reader.
func (f *Fake) Info(context.Context) (engine.Info, error) {
	if err := f.called("Info", ""); err != nil {
		return engine.Info{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return engine.Info{
		Name: "fake", Host: "memory", Version: "1", API: "1.41", OS: "linux", Arch: "amd64",
		LoggingDriver: "json-file", CPUs: 2, Memory: 8 << 30, Containers: len(f.instances),
	}, nil
}

// Equal implements engine.Reader: it answers what Adopt was told.
func (f *Fake) Equal(_ context.Context, _ engine.Want, id string) (bool, string, error) {
	if err := f.called("Equal", ""); err != nil {
		return false, "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.byID(id)
	if i == nil {
		return false, "", notFound(id)
	}
	return i.same, i.why, nil
}

// Check implements engine.Reader: the fake can do everything.
func (f *Fake) Check(context.Context, tender.Service) ([]string, error) { return nil, nil }

// Traits implements engine.Engine.
func (f *Fake) Traits() engine.Traits { return engine.Traits{Drop: true} }

// Ensure implements engine.Engine. The fake reads no Compose YAML: it makes one
// network, default.
func (f *Fake) Ensure(_ context.Context, p tender.Project) error {
	if err := f.called("Ensure", "ensure "+p.Name); err != nil {
		return err
	}
	name := p.Name + "_default"
	f.change(func() {
		if !slices.ContainsFunc(f.networks, func(n tender.Network) bool { return n.Name == name }) {
			f.networks = append(f.networks, tender.Network{ID: "net-" + name, Name: name, Project: p.Name, Key: "default", Roomy: true})
		}
	})
	return nil
}

// AddVolume puts a named volume there.
func (f *Fake) AddVolume(v tender.Volume) {
	f.change(func() { f.volumes = append(f.volumes, v) })
}

// RemoveNetwork implements engine.Engine.
func (f *Fake) RemoveNetwork(_ context.Context, id string) error {
	if err := f.called("RemoveNetwork", "remove network "+id); err != nil {
		return err
	}
	var err error
	f.change(func() {
		n := slices.IndexFunc(f.networks, func(n tender.Network) bool { return n.ID == id || n.Name == id })
		if n < 0 {
			return
		}
		for _, i := range f.instances {
			if _, in := i.Addresses[f.networks[n].Name]; in {
				err = tender.Errorf(tender.Conflict, "remove network %s: %s is in it", f.networks[n].Name, i.Name)
				return
			}
		}
		f.networks = slices.Delete(f.networks, n, n+1)
	})
	return err
}

// RemoveVolume implements engine.Engine.
func (f *Fake) RemoveVolume(_ context.Context, name string) error {
	if err := f.called("RemoveVolume", "remove volume "+name); err != nil {
		return err
	}
	var err error
	f.change(func() {
		for _, i := range f.instances {
			if slices.Contains(i.Anonymous, name) {
				err = tender.Errorf(tender.Conflict, "remove volume %s: %s uses it", name, i.Name)
				return
			}
		}
		delete(f.anonymous, name)
		f.volumes = slices.DeleteFunc(f.volumes, func(v tender.Volume) bool { return v.Name == name })
	})
	return err
}

// Resolve implements engine.Images.
func (f *Fake) Resolve(_ context.Context, ref string) (tender.ImageID, error) {
	if err := f.called("Resolve", ""); err != nil {
		return tender.ImageID{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.missing[ref] {
		return tender.ImageID{}, tender.Errorf(tender.NotFound, "no image %s", ref).Hint("tender pull")
	}
	if id, ok := f.images[ref]; ok {
		return id, nil
	}
	return tender.ImageID{Reference: ref, ID: madeID(ref)}, nil
}

func madeID(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Pull implements engine.Images: Behave(ref, Behaviour{PullErr: err}) makes it fail.
func (f *Fake) Pull(_ context.Context, ref, _, _ string, report func(engine.Progress)) error {
	if err := f.called("Pull", "pull "+ref); err != nil {
		return err
	}
	f.mu.Lock()
	err := f.behaviour[ref].PullErr
	if err == nil {
		delete(f.missing, ref)
	}
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	if report != nil {
		report(engine.Progress{Text: "Image is up to date for " + ref})
	}
	return nil
}

// Push implements engine.Images.
func (f *Fake) Push(_ context.Context, ref, _ string, report func(engine.Progress)) error {
	if err := f.called("Push", "push "+ref); err != nil {
		return err
	}
	if report != nil {
		report(engine.Progress{Text: "pushed " + ref})
	}
	return nil
}

// Tag implements engine.Images.
func (f *Fake) Tag(_ context.Context, id, ref string) error {
	if err := f.called("Tag", "tag "+ref); err != nil {
		return err
	}
	f.SetImage(ref, tender.ImageID{Reference: ref, ID: id})
	return nil
}

// Keep implements engine.Images.
func (f *Fake) Keep(_ context.Context, project string, images []tender.ImageID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept == nil {
		f.kept = map[string][]tender.ImageID{}
	}
	f.kept[project] = slices.Clone(images)
	return nil
}

// Kept are the images that are kept for a project.
func (f *Fake) Kept(project string) []tender.ImageID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.kept[project])
}

// RemoveImage implements engine.Images.
func (f *Fake) RemoveImage(_ context.Context, ref string) error {
	if err := f.called("RemoveImage", "remove image "+ref); err != nil {
		return err
	}
	f.mu.Lock()
	delete(f.images, ref)
	f.mu.Unlock()
	f.LoseImage(ref)
	return nil
}

// Written implements engine.Reader: what CopyTo left.
func (f *Fake) Written(_ context.Context, id string) ([]string, error) {
	if err := f.called("Written", ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.byID(id)
	if i == nil {
		return nil, notFound(id)
	}
	return slices.Sorted(maps.Keys(i.files)), nil
}

// Disk implements engine.Reader: what CopyTo left, and nothing else.
func (f *Fake) Disk(ctx context.Context) (map[string]int64, error) {
	sizes, err := f.Sizes(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{"images": 0, "containers": 0, "volumes": 0, "build_cache": 0}
	for _, n := range sizes {
		out["containers"] += n
	}
	return out, nil
}

// Sizes implements engine.Reader: what CopyTo left.
func (f *Fake) Sizes(_ context.Context, ids ...string) (map[string]int64, error) {
	if err := f.called("Sizes", ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	sizes := map[string]int64{}
	for _, i := range f.instances {
		if len(ids) > 0 && !slices.Contains(ids, i.ID) {
			continue
		}
		sizes[i.ID] = 0
		for _, body := range i.files {
			sizes[i.ID] += int64(len(body))
		}
	}
	return sizes, nil
}

// Recall implements engine.Reader: the Want that Scale was last called with for
// the instance's revision.
func (f *Fake) Recall(_ context.Context, id string) (engine.Want, error) {
	if err := f.called("Recall", ""); err != nil {
		return engine.Want{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.byID(id)
	if i == nil {
		return engine.Want{}, notFound(id)
	}
	w, ok := f.wants[i.Service+"@"+i.Revision]
	if !ok || w.Project != i.Project {
		return engine.Want{}, tender.Errorf(tender.NotFound, "%s does not carry what it was made from", id)
	}
	return engine.Want{
		Project: w.Project, Generation: w.Generation, Image: w.Image, ComposeFiles: w.ComposeFiles, WorkingDir: w.WorkingDir,
		Service: tender.Service{Name: w.Service.Name, Revision: w.Service.Revision, Spec: w.Service.Spec},
	}, nil
}

// Describe implements engine.Images.
func (f *Fake) Describe(ctx context.Context, ref string) (engine.Description, error) {
	id, err := f.Resolve(ctx, ref)
	return engine.Description{ImageID: id, Platform: "linux/amd64", Size: 1 << 20}, err
}

// Layers implements engine.Images: an image has one layer of its own.
func (f *Fake) Layers(ctx context.Context, ref string) ([]string, error) {
	id, err := f.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	return []string{madeID("layer " + id.ID)}, nil
}

// Shared implements engine.Images: nothing is.
func (f *Fake) Shared(context.Context, []string) (int, error) { return 0, f.called("Shared", "") }

// Save implements engine.Images: the names, one a line.
func (f *Fake) Save(ctx context.Context, refs []string) (io.ReadCloser, error) {
	if err := f.called("Save", ""); err != nil {
		return nil, err
	}
	for _, ref := range refs {
		if _, err := f.Resolve(ctx, ref); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(strings.NewReader(strings.Join(refs, "\n"))), nil
}

// Layouts implements engine.Images: it takes what Save writes, and nothing else.
func (f *Fake) Layouts(context.Context) (bool, error) { return false, f.called("Layouts", "") }

// Arrive implements engine.Images.
func (f *Fake) Arrive(context.Context, io.Reader, string, []string, func(engine.Progress)) error {
	return tender.Errorf(tender.Invalid, "load images: no layouts are taken here")
}

// Load implements engine.Images: it takes what Save writes.
func (f *Fake) Load(_ context.Context, tarball io.Reader, report func(engine.Progress)) error {
	if err := f.called("Load", "load"); err != nil {
		return err
	}
	names, err := io.ReadAll(tarball)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	for _, ref := range strings.Fields(string(names)) {
		f.SetImage(ref, tender.ImageID{Reference: ref, ID: madeID(ref)})
		if report != nil {
			report(engine.Progress{Text: "Loaded image: " + ref})
		}
	}
	return nil
}

// Login implements engine.Images: every user is known.
func (f *Fake) Login(_ context.Context, host, user, _ string) (string, error) {
	return "auth of " + user, f.called("Login", "login "+host)
}
