package registry

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// Immutable are tags that stay with the digest that they were pushed with.
type Immutable struct {
	Repositories string   // a pattern; "": all
	Tags         []string // patterns, as of path.Match
}

// Quota bounds what lies in all repositories that match, together.
type Quota struct {
	Repositories string // a pattern; "": all
	Bytes        int64  // of blobs and manifests, each once; 0: any number
	Tags         int    // 0: any number
}

func (i Immutable) holds(repository, tag string) bool {
	return within(i.Repositories, repository) && slices.ContainsFunc(i.Tags, func(p string) bool { return matchLevel(p, tag) })
}

func within(pattern, repository string) bool { return pattern == "" || matches(pattern, repository) }

// CheckLimits says what is not right about rules as they were written.
func CheckLimits(immutable []Immutable, quotas []Quota) error {
	for _, i := range immutable {
		if i.Repositories != "" {
			if err := CheckPattern(i.Repositories); err != nil {
				return err
			}
		}
		for _, t := range i.Tags {
			if _, err := path.Match(t, ""); err != nil || t == "" {
				return tender.Errorf(tender.Invalid, "%q is no pattern of tags", t).Hint("such as v*, or *.*.*")
			}
		}
	}
	for _, q := range quotas {
		if q.Repositories != "" {
			if err := CheckPattern(q.Repositories); err != nil {
				return err
			}
		}
		if q.Bytes < 0 || q.Tags < 0 || q.Bytes == 0 && q.Tags == 0 {
			return tender.Errorf(tender.Invalid, "a quota needs bytes or tags, and both more than 0")
		}
	}
	return nil
}

// keepTags refuses to move an immutable tag; the same digest again is welcome.
func (r *Registry) keepTags(ctx context.Context, p Pushed) error {
	if p.Tag == "" || !r.immutable(p.Repository, p.Tag) {
		return nil
	}
	have, err := r.tagsOf(ctx, p.Repository, func(t store.Tag) bool { return t.Tag == p.Tag })
	if err != nil || len(have) == 0 || have[0].Digest == p.Digest {
		return err
	}
	return tender.Errorf(tender.Conflict, "%s:%s is immutable, and is %s since %s", p.Repository, p.Tag, have[0].Digest, pushedBy(have[0])).
		Hint("push under a new tag")
}

// keepDeleted refuses to delete immutable tags, and what they name.
func (r *Registry) keepDeleted(req *http.Request, rt route, a Account) error {
	if a.Admin && req.URL.Query().Get("force") == "true" {
		return nil
	}
	have, err := r.tagsOf(req.Context(), rt.repository, func(t store.Tag) bool {
		return (t.Tag == rt.reference || t.Digest == rt.reference) && r.immutable(t.Repository, t.Tag)
	})
	if err != nil || len(have) == 0 {
		return err
	}
	return tender.Errorf(tender.Conflict, "%s:%s is immutable, pushed %s, and is not deleted", rt.repository, have[0].Tag, pushedBy(have[0])).
		Hint("retention may delete it; an admin may with ?force=true")
}

func pushedBy(t store.Tag) string {
	at := t.Pushed.UTC().Format("2006-01-02 15:04 UTC")
	if t.Who == "" {
		return at
	}
	return at + " by " + t.Who
}

// immutable: tags that tie signatures to what they sign grow with each of them.
func (r *Registry) immutable(repository, tag string) bool {
	return subjectOf(tag) == "" && slices.ContainsFunc(r.o.Immutable, func(i Immutable) bool { return i.holds(repository, tag) })
}

func (r *Registry) tagsOf(ctx context.Context, repository string, want func(store.Tag) bool) (list []store.Tag, err error) {
	err = r.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.Tags(repository)
		return err
	})
	return slices.DeleteFunc(list, func(t store.Tag) bool { return !want(t) }), err
}

// tallyFor is how long what was counted holds for uploads, of which an image has many. A
// manifest is counted against what is there.
const tallyFor = 10 * time.Second

// tally is what the repositories of a quota hold.
type tally struct {
	at    time.Time
	bytes int64
	blobs map[string]struct{} // counted in bytes
	tags  map[[2]string]struct{}
}

type tallies struct {
	mu   sync.Mutex
	kept map[int]*tally // by the place of the quota
}

func (r *Registry) count(ctx context.Context, i int, fresh bool) (*tally, error) {
	r.tallies.mu.Lock()
	defer r.tallies.mu.Unlock()
	now := r.o.Now()
	if t := r.tallies.kept[i]; t != nil && !fresh && now.Sub(t.at) < tallyFor {
		return t, nil
	}
	t := &tally{at: now, blobs: map[string]struct{}{}, tags: map[[2]string]struct{}{}}
	err := r.o.Store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.Manifests("")
		if err != nil {
			return err
		}
		for _, m := range list {
			// What came from another registry has a bound of its own.
			if within(r.o.Quotas[i].Repositories, m.Repository) && r.cache.of(m.Repository) == nil {
				t.bytes += t.more(m, true)
			}
		}
		tags, err := tx.Tags("")
		for _, tag := range tags {
			if within(r.o.Quotas[i].Repositories, tag.Repository) && r.cache.of(tag.Repository) == nil {
				t.tags[[2]string{tag.Repository, tag.Tag}] = struct{}{}
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if r.tallies.kept == nil {
		r.tallies.kept = map[int]*tally{}
	}
	r.tallies.kept[i] = t
	return t, nil
}

// more is how many bytes a manifest adds. What it refers to as children counts as manifests
// of their own.
func (t *tally) more(m store.Manifest, keep bool) (bytes int64) {
	seen := map[string]struct{}{}
	for _, ref := range append([]store.ManifestRef{{Digest: m.Digest, Size: m.Size}}, m.Refs...) {
		_, counted := t.blobs[ref.Digest]
		_, twice := seen[ref.Digest]
		if counted || twice || ref.Kind == "child" {
			continue
		}
		seen[ref.Digest] = struct{}{}
		if keep {
			t.blobs[ref.Digest] = struct{}{}
		}
		bytes += max(0, ref.Size)
	}
	return bytes
}

// lockQuotas lets one manifest at a time into each quota, so that two do not pass it together.
// It comes before the repository's own lock.
func (r *Registry) lockQuotas(repository string) (unlock func()) {
	var all []func()
	for i, q := range r.o.Quotas {
		if within(q.Repositories, repository) {
			all = append(all, r.lock(fmt.Sprintf("quota %d", i))) // no repository has a space in its name
		}
	}
	return func() {
		for _, unlock := range slices.Backward(all) {
			unlock()
		}
	}
}

// holdQuotas refuses the manifest with which a quota would be passed.
func (r *Registry) holdQuotas(ctx context.Context, p Pushed) error {
	for i, q := range r.o.Quotas {
		if !within(q.Repositories, p.Repository) {
			continue
		}
		t, err := r.count(ctx, i, true)
		if err != nil {
			return err
		}
		if more := t.more(p.Manifest, false); q.Bytes > 0 && more > 0 && t.bytes+more > q.Bytes {
			return overBytes(q, t.bytes, more)
		}
		if _, known := t.tags[[2]string{p.Repository, p.Tag}]; q.Tags > 0 && p.Tag != "" && !known && len(t.tags) >= q.Tags {
			return tender.Errorf(tender.Conflict, "the quota of %s is used up: %d of %d tags", of(q), len(t.tags), q.Tags).Hint("%s", makeRoom)
		}
	}
	return nil
}

// roomFor refuses an upload for which a quota has no room; size 0: it is not known yet.
func (r *Registry) roomFor(req *http.Request, rt route) error {
	size := max(0, req.ContentLength)
	named := req.URL.Query().Get("digest")
	if _, err := digest.Parse(named); err != nil {
		named = ""
	}
	if mount := req.URL.Query().Get("mount"); named == "" {
		named = mount
	}
	for i, q := range r.o.Quotas {
		if q.Bytes == 0 || !within(q.Repositories, rt.repository) {
			continue
		}
		t, err := r.count(req.Context(), i, false)
		if err != nil {
			return err
		}
		if _, counted := t.blobs[named]; counted {
			continue
		}
		if t.bytes+size > q.Bytes || size == 0 && t.bytes >= q.Bytes && req.Method == http.MethodPost {
			return overBytes(q, t.bytes, size)
		}
	}
	return nil
}

const makeRoom = "delete what is not needed, or let retention do it; the quota stands in registry.quota"

func overBytes(q Quota, used, more int64) error {
	e := tender.Errorf(tender.Conflict, "the quota of %s is used up: %s of %s, and this needs %s more", of(q), size(used), size(q.Bytes), size(more))
	return e.Hint("%s", makeRoom)
}

func of(q Quota) string {
	if q.Repositories == "" {
		return "the registry"
	}
	return q.Repositories
}

// size is a number of bytes for people.
func size(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB"}
	f, unit := float64(n), "B"
	for _, u := range units {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	return strconv.FormatFloat(f, 'f', map[bool]int{true: 0, false: 1}[unit == "B"], 64) + " " + unit
}
