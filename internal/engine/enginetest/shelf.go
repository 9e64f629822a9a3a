package enginetest

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// Shelve puts an image on the shelf, or in the place of the one with its ID.
func (f *Fake) Shelve(s engine.Shelved) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shelf == nil {
		f.shelf = map[string]engine.Shelved{}
	}
	f.shelf[s.ID] = s
	for _, n := range s.Names {
		if f.images == nil {
			f.images = map[string]tender.ImageID{}
		}
		f.images[n] = tender.ImageID{Reference: n, ID: s.ID}
		delete(f.missing, n)
	}
}

// Meanwhile is called, once, before the next Discard begins: what others do between a look and a deed.
func (f *Fake) Meanwhile(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meanwhile = do
}

// SetCache sets what the engine remembers of builds.
func (f *Fake) SetCache(all ...engine.Cached) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cache = all
}

// Shelf implements engine.Images: what Shelve, SetImage, Tag and Build put there.
func (f *Fake) Shelf(context.Context) ([]engine.Shelved, error) {
	if err := f.called("Shelf", ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shelved(), nil
}

func (f *Fake) shelved() (out []engine.Shelved) {
	byID := map[string]*engine.Shelved{}
	for id, s := range f.shelf {
		s.Names, s.Users = nil, slices.Clone(s.Users)
		byID[id] = &s
	}
	for name, i := range f.images {
		if byID[i.ID] == nil {
			byID[i.ID] = &engine.Shelved{ID: i.ID, Size: 1 << 20, Own: 1 << 20}
		}
		if strings.Contains(name, ":") && !f.missing[name] {
			byID[i.ID].Names = append(byID[i.ID].Names, name)
		}
	}
	for _, i := range f.instances {
		if byID[i.ImageID] == nil {
			byID[i.ImageID] = &engine.Shelved{ID: i.ImageID, Size: 1 << 20, Own: 1 << 20}
		}
		byID[i.ImageID].Users = append(byID[i.ImageID].Users, i.Name)
	}
	for project, images := range f.kept {
		for _, i := range images {
			if s := byID[i.ID]; s != nil {
				s.Keeps = project
			}
		}
	}
	for _, s := range byID {
		slices.Sort(s.Names)
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b engine.Shelved) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Discard implements engine.Images.
func (f *Fake) Discard(_ context.Context, id string, names []string, _ bool) error {
	f.mu.Lock()
	do := f.meanwhile
	f.meanwhile = nil
	f.mu.Unlock()
	if do != nil {
		do()
	}
	if err := f.called("Discard", "discard "+id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.shelved()
	at := slices.IndexFunc(all, func(s engine.Shelved) bool { return s.ID == id })
	if at < 0 {
		return nil
	}
	for _, n := range all[at].Names {
		if !slices.Contains(names, n) {
			return tender.Errorf(tender.Conflict, "image %s is called %s by now", id, n)
		}
	}
	switch s := all[at]; {
	case len(s.Users) > 0:
		return tender.Errorf(tender.Conflict, "container %s has it", s.Users[0])
	case s.Keeps != "":
		return tender.Errorf(tender.Conflict, "it is kept for %s", s.Keeps)
	case s.Children:
		return tender.Errorf(tender.Conflict, "another image is made from it")
	}
	delete(f.shelf, id)
	for n, i := range f.images {
		if i.ID == id {
			delete(f.images, n)
			if f.missing == nil {
				f.missing = map[string]bool{}
			}
			f.missing[n] = true
		}
	}
	return nil
}

// BuildCache implements engine.Images.
func (f *Fake) BuildCache(context.Context) ([]engine.Cached, error) {
	if err := f.called("BuildCache", ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.cache), nil
}

// PruneCache implements engine.Images.
func (f *Fake) PruneCache(_ context.Context, o engine.CachePrune) (freed int64, err error) {
	if err := f.called("PruneCache", "prune cache"); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortFunc(f.cache, func(a, b engine.Cached) int { return a.Used.Compare(b.Used) })
	var total int64
	for _, c := range f.cache {
		total += c.Size
	}
	f.cache = slices.DeleteFunc(f.cache, func(c engine.Cached) bool {
		if c.InUse || total-freed <= o.Keep || o.OlderThan > 0 && time.Since(c.Used) < o.OlderThan {
			return false
		}
		freed += c.Size
		return true
	})
	return freed, nil
}
