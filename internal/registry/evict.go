package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// evictEvery is how often room is made at most, where all that is left is needed.
const evictEvery = 5 * time.Minute

// Evicted is what was done to keep the cache of other registries within its size.
type Evicted struct {
	Kept   int64 // bytes after it
	Bytes  int64 // of what nothing names any more
	Images int   // that went, with all that belongs to them
	Needed int   // that would have gone, and are deployed, could be rolled back to, or were pulled within the hour
}

// Evict counts what is kept of other registries and, if that is more than it may be, removes
// what was pulled longest ago, then its blobs. What is needed stays.
func (r *Registry) Evict(ctx context.Context, who string) (Evicted, error) {
	if r.cache == nil {
		return Evicted{}, nil
	}
	r.cache.evicting.Lock()
	defer r.cache.evicting.Unlock()
	return r.evict(ctx, who, r.cacheSize())
}

func (r *Registry) cacheSize() int64 { return cmp.Or(r.o.CacheSize, CacheSize) }

// grown counts a blob that came.
func (c *cache) grown(n int64) {
	if c.bytes.Load() < 0 {
		c.evictLater() // which counts
		return
	}
	if c.bytes.Add(n) > c.r.cacheSize() {
		c.evictLater()
	}
}

// evictLater makes room while nobody waits for it.
func (c *cache) evictLater() {
	if !c.begin() {
		return
	}
	go func() {
		defer c.work.Done()
		if !c.evicting.TryLock() {
			return // somebody does
		}
		defer c.evicting.Unlock()
		now := c.r.o.Now()
		c.mu.Lock()
		limit, due := c.r.cacheSize(), c.bytes.Load() < 0 || now.Sub(c.evicted) >= evictEvery
		if full := now.Before(c.full); full && c.bytes.Load() >= 0 {
			limit = min(limit, c.bytes.Load()/5*4) // the disk has less room than was thought
		}
		if due {
			c.evicted = now
		}
		c.mu.Unlock()
		if !due {
			return
		}
		done, err := c.r.evict(c.ctx, "tender", limit)
		if err != nil && c.ctx.Err() == nil {
			c.r.o.Log.Error("no room was made in the cache of other registries", "error", err)
		} else if done.Images > 0 {
			c.r.o.Log.Info("images of other registries were evicted", "images", done.Images, "bytes", done.Bytes, "kept", done.Kept)
		}
	}()
}

// image is a manifest with those that belong to it, as it is evicted.
type image struct {
	store.Manifest
	pulled time.Time
}

// holdings are the blobs of manifests that came from other registries, and of nobody else's.
type holdings struct {
	users map[string]int   // manifests that name it
	size  map[string]int64 // of those that are here
	total int64
}

func parts(m store.Manifest) map[string]bool {
	all := map[string]bool{m.Digest: true}
	for _, ref := range m.Refs {
		if ref.Kind != "child" {
			all[ref.Digest] = true
		}
	}
	return all
}

func (r *Registry) evict(ctx context.Context, who string, limit int64) (done Evicted, err error) {
	all, err := r.manifests(ctx, "")
	if err != nil {
		return done, err
	}
	pulled := map[[2]string]time.Time{}
	err = r.o.Store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.Cached()
		for _, c := range list {
			pulled[[2]string{c.Repository, c.Digest}] = c.Pulled
		}
		return err
	})
	if err != nil {
		return done, err
	}
	h, err := r.hold(ctx, all, pulled)
	if err != nil {
		return done, err
	}
	r.cache.bytes.Store(h.total)
	if done.Kept = h.total; h.total <= limit {
		return done, nil
	}
	known := make(map[string]bool, len(all))
	for _, m := range all {
		known[m.Digest] = true
	}
	needed := map[string]string{}
	if r.o.Needed != nil {
		if needed, err = r.o.Needed(ctx); err != nil {
			return done, err
		}
	}
	gone := map[string]bool{}
	by := map[[2]string]store.Manifest{}
	for _, m := range all {
		by[[2]string{m.Repository, m.Digest}] = m
	}
	for _, i := range r.oldest(all, pulled) {
		if h.total <= limit/10*9 {
			break
		}
		var steps Retained
		err := r.clean(ctx, i.Repository, who, false, &steps, func(tags []store.Tag, ms []store.Manifest) ([]Step, error) {
			d := &decision{repository: i.Repository, needed: r.withLeases(needed, ms), known: known, now: r.o.Now(), manifests: map[string]*fate{}, why: map[string]string{}}
			for _, m := range ms {
				d.manifests[m.Digest] = &fate{Manifest: m}
			}
			for _, t := range tags {
				d.tags = append(d.tags, &named{Tag: t, subject: subjectOf(t.Tag)})
			}
			steps, err := d.removal(RemoveOptions{Repository: i.Repository, Digest: i.Digest}, i.Repository+"@"+i.Digest)
			for n := range steps {
				if steps[n].Digest == i.Digest {
					steps[n].Why = "evicted: pulled last " + i.pulled.UTC().Format(time.DateTime) + " UTC"
				}
			}
			return steps, err
		})
		switch tender.KindOf(err) {
		case tender.Conflict:
			done.Needed++
			continue
		case tender.NotFound:
			continue // it went with another one
		}
		if err != nil {
			return done, fmt.Errorf("evict %s@%s: %w", i.Repository, i.Digest, err)
		}
		done.Images++
		for _, s := range steps.Steps {
			if s.Tag != "" {
				continue
			}
			for d := range parts(by[[2]string{s.Repository, s.Digest}]) {
				if h.users[d]--; h.users[d] == 0 {
					h.total -= h.size[d]
					done.Bytes += h.size[d]
					gone[d] = true
				}
			}
		}
	}
	done.Kept = h.total
	r.cache.bytes.Store(h.total)
	if len(gone) == 0 {
		return done, nil
	}
	if err := r.o.Store.Update(ctx, (*store.Tx).ForgetCached); err != nil {
		return done, err
	}
	_, err = r.Sweep(ctx, SweepOptions{evicted: gone})
	return done, err
}

// fromUpstream says whether a manifest was fetched, not pushed. Of one whose row was lost, or that lay
// here before, nobody knows who pushed it: it was if it has been pulled through since.
func (r *Registry) fromUpstream(m store.Manifest, pulled map[[2]string]time.Time) bool {
	_, through := pulled[[2]string{m.Repository, m.Digest}]
	return r.cache.of(m.Repository) != nil && (m.Who == cacheWho || m.Who == "" && through)
}

// hold counts what is here.
func (r *Registry) hold(ctx context.Context, all []store.Manifest, pulled map[[2]string]time.Time) (*holdings, error) {
	h := &holdings{users: map[string]int{}, size: map[string]int64{}}
	own := map[string]bool{}
	for _, m := range all {
		if !r.fromUpstream(m, pulled) {
			maps.Copy(own, parts(m))
			continue
		}
		for d := range parts(m) {
			h.users[d]++
		}
	}
	for d := range h.users {
		if own[d] {
			delete(h.users, d)
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if info, err := r.driver.Stat(ctx, blobPath(d)); err == nil {
			h.size[d] = info.Size()
			h.total += info.Size()
		} else if !notThere(err) {
			return nil, err
		}
	}
	return h, nil
}

// oldest are the images that may be evicted, those first that were pulled longest ago: a
// pull of a part is one of the whole.
func (r *Registry) oldest(all []store.Manifest, pulled map[[2]string]time.Time) []image {
	parents := map[[2]string][][2]string{}
	last := map[[2]string]time.Time{}
	for _, m := range all {
		key := [2]string{m.Repository, m.Digest}
		at := m.Pushed
		if p := pulled[key]; p.After(at) {
			at = p
		}
		last[key] = at
		for _, ref := range m.Refs {
			if ref.Kind == "child" {
				child := [2]string{m.Repository, ref.Digest}
				parents[child] = append(parents[child], key)
			}
		}
		if m.Subject != "" { // it goes with its subject
			parents[key] = append(parents[key], [2]string{m.Repository, m.Subject})
		}
	}
	// Sums cannot go in a circle; the limit is for rows that say so.
	var raise func(key [2]string, at time.Time, n int)
	raise = func(key [2]string, at time.Time, n int) {
		if n > 16 {
			return
		}
		for _, p := range parents[key] {
			if at.After(last[p]) {
				last[p] = at
			}
			raise(p, at, n+1)
		}
	}
	for key := range parents {
		raise(key, last[key], 0)
	}
	var out []image
	for _, m := range all {
		key := [2]string{m.Repository, m.Digest}
		there := slices.ContainsFunc(parents[key], func(p [2]string) bool { _, is := last[p]; return is })
		if r.fromUpstream(m, pulled) && !there {
			out = append(out, image{m, last[key]})
		}
	}
	slices.SortFunc(out, func(a, b image) int {
		return cmp.Or(a.pulled.Compare(b.pulled), strings.Compare(a.Repository, b.Repository), strings.Compare(a.Digest, b.Digest))
	})
	return out
}
