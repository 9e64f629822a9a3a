package daemon

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/store"
)

// hostImages knows what becomes of the engine's images: which ones Tender brought, and which ones
// somebody is about to use. The zero value works.
type hostImages struct {
	turn sync.Mutex // of the one clean-up
	// free is how much of the engine's disk is, and how large it is, in bytes. Tests set it.
	free func(context.Context) (free, size int64, err error)

	mu     sync.Mutex // held while one image is removed: who then takes a lease sees what is there
	leases map[*shelfLease]bool

	pruned atomic.Int64 // images since the start
	bytes  atomic.Int64 // of those, and of the build cache
}

// shelfLease keeps images while something is under way that will need them.
type shelfLease struct {
	why  string
	refs []string // none: all images
}

// lease keeps what these references name, or without any all images, until done is called.
func (h *hostImages) lease(why string, refs ...string) (done func()) {
	l := &shelfLease{why: why}
	for _, r := range refs {
		l.refs = append(l.refs, familiar(r))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leases == nil {
		h.leases = map[*shelfLease]bool{}
	}
	h.leases[l] = true
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.leases, l)
	}
}

// leased says why an image must not go now; "": it may. h.mu is held.
func (h *hostImages) leased(s *engine.Shelved) string {
	for l := range h.leases {
		if len(l.refs) == 0 {
			return l.why
		}
		for _, ref := range l.refs {
			if isNamed(s, ref) {
				return l.why
			}
		}
	}
	return ""
}

// isNamed says whether a familiar reference names this image.
func isNamed(s *engine.Shelved, ref string) bool {
	same := func(n string) bool { return familiar(n) == ref }
	if slices.ContainsFunc(s.Names, same) || slices.ContainsFunc(s.Digests, same) || s.ID == ref {
		return true
	}
	// By its digest, whatever tag stands beside it.
	if _, digest, is := strings.Cut(ref, "@"); is {
		return s.ID == digest || slices.ContainsFunc(s.Digests, func(d string) bool { return strings.HasSuffix(d, "@"+digest) })
	}
	hex, _, _ := strings.Cut(strings.TrimPrefix(ref, "sha256:"), ":")
	return len(hex) >= 12 && strings.HasPrefix(s.ID, "sha256:"+hex)
}

// familiar is a reference as docker images shows it.
func familiar(ref string) string {
	for _, prefix := range []string{"docker.io/", "index.docker.io/"} {
		ref = strings.TrimPrefix(ref, prefix)
	}
	if rest := strings.TrimPrefix(ref, "library/"); !strings.Contains(rest, "/") {
		ref = rest
	}
	if !strings.Contains(ref, "@") && !strings.HasPrefix(ref, "sha256:") && !strings.Contains(ref[strings.LastIndexByte(ref, '/')+1:], ":") {
		ref += ":latest"
	}
	return ref
}

// cameHere notes that Tender has brought images. What cannot be noted is as if somebody else had brought it.
func (b *backend) cameHere(ctx context.Context, how string, refs ...string) {
	ctx = context.WithoutCancel(ctx) // they are there, also when the asker is gone
	for _, ref := range refs {
		id, err := b.engine.Resolve(ctx, ref)
		if err == nil {
			err = b.store.Update(ctx, func(tx *store.Tx) error {
				return tx.PutHostImage(store.HostImage{ID: id.ID, Reference: ref, How: how, Came: time.Now()})
			})
		}
		if err != nil && b.log != nil {
			b.log.Warn("an image came, and will count as somebody else's", "image", ref, "err", err)
		}
	}
}

// engineDisk measures the disk of an engine on this host. size is 0 where it is elsewhere.
func (b *backend) engineDisk(ctx context.Context) (free, size int64, err error) {
	if b.host.free != nil {
		return b.host.free(ctx)
	}
	if !strings.HasPrefix(b.config.Engine, "unix://") {
		return 0, 0, nil
	}
	info, err := b.engine.Info(ctx)
	if err != nil || info.Root == "" {
		return 0, 0, err
	}
	var s unix.Statfs_t
	if err := unix.Statfs(info.Root, &s); err != nil {
		return 0, 0, nil // its files are not to be seen from here
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, nil //nolint:gosec,unconvert // of one disk
}

// tidied counts what a clean-up removed.
func (h *hostImages) tidied(images int, bytes int64) {
	h.pruned.Add(int64(images))
	h.bytes.Add(bytes)
}

// hostImages writes what clean-ups removed.
func (f *figures) hostImages(h *hostImages) {
	f.metric("images_pruned_total", "counter", "Images of the engine that clean-ups removed since the start.", "", h.pruned.Load())
	f.metric("images_pruned_bytes_total", "counter", "Bytes that they and the build cache held alone.", "", h.bytes.Load())
}

// refsOf names the images that a project runs and mounts.
func (b *backend) refsOf(p tender.Project) (refs []string) {
	for _, s := range p.Services {
		refs = append(refs, s.Image)
		fields, err := fieldsOf(s, tender.ImageID{Reference: s.Image})
		if err != nil {
			continue // up refuses it
		}
		for _, v := range fields.Volumes {
			if v.Type == "image" {
				refs = append(refs, v.Source)
			}
		}
	}
	if len(refs) == 0 {
		return []string{"-"} // without any it would be of all
	}
	return refs
}
