package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

const (
	fillTries = 5        // times that a blob is gone on with after it broke off
	fillRead  = 64 << 10 // bytes at a time
)

// fill is a blob on its way from an upstream: into a file beside the blobs, from which all
// who want it are answered while it grows, and which becomes the blob once its digest is
// right. It goes on when those who asked have gone.
type fill struct {
	repository, digest string

	users int // under the cache's lock; the last one closes the file
	file  *os.File

	state atomic.Pointer[filled]
}

// filled is how far a fill has come. Each has a channel that ends with it.
type filled struct {
	begun bool
	size  int64 // -1: it is not known
	n     int64 // bytes that are in the file
	over  bool  // all are, and they are right
	err   error
	next  chan struct{}
}

func (f *fill) set(change func(*filled)) {
	old := f.state.Load() // only the one who fills changes it
	now := *old
	now.next = make(chan struct{})
	change(&now)
	f.state.Store(&now)
	close(old.next)
}

// join finds the fill of a blob, or begins one once fewer than maxFills go on.
func (c *cache) join(ctx context.Context, u *upstream, repository, d string) (*fill, error) {
	key := repository + "@" + d
	running := func() *fill {
		c.mu.Lock()
		defer c.mu.Unlock()
		f := c.fills[key]
		if f != nil {
			f.users++
		}
		return f
	}
	if f := running(); f != nil {
		return f, nil
	}
	if err := u.resting(); err != nil {
		return nil, err
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if f := running(); f != nil { // somebody began it meanwhile
		<-c.slots
		return f, nil
	}
	file, err := os.CreateTemp(filepath.Join(c.r.o.Dir, fillFolder), "*.part")
	if err != nil {
		<-c.slots
		return nil, err
	}
	f := &fill{repository: repository, digest: d, users: 2, file: file}
	f.state.Store(&filled{size: -1, next: make(chan struct{})})
	c.mu.Lock()
	other := c.fills[key]
	if other != nil {
		other.users++
	} else if !c.over {
		c.fills[key] = f
		c.work.Add(1)
	}
	over := c.over
	c.mu.Unlock()
	if other != nil || over {
		<-c.slots
		_ = file.Close()
		_ = os.Remove(file.Name())
		if other != nil {
			return other, nil
		}
		return nil, tender.Errorf(tender.Unavailable, "the daemon is stopping").Hint("again in a moment")
	}
	go func() {
		defer c.work.Done()
		defer func() { <-c.slots }()
		defer c.leave(f)
		c.run(u, f)
		c.mu.Lock()
		delete(c.fills, key)
		c.mu.Unlock()
	}()
	return f, nil
}

// leave is the end of a use.
func (c *cache) leave(f *fill) {
	c.mu.Lock()
	f.users--
	last := f.users == 0
	c.mu.Unlock()
	if last {
		_ = f.file.Close()
	}
}

func (c *cache) run(u *upstream, f *fill) {
	defer os.Remove(f.file.Name()) //nolint:errcheck // it is gone where it has become the blob
	defer c.r.o.Touched(f.digest)()
	err := c.fetch(u, f)
	if noRoom(err) {
		c.crowded()
	}
	if err != nil {
		if c.ctx.Err() == nil && tender.KindOf(err) != tender.NotFound {
			c.r.o.Log.Warn("a blob of another registry was not fetched", "repository", f.repository, "digest", f.digest, "error", err)
		}
		f.set(func(s *filled) { s.err = err })
		return
	}
	// Who waits has all of it, whatever becomes of the rest.
	f.set(func(s *filled) { s.over = true })
	size := f.state.Load().n
	if err := c.store(f); err != nil {
		c.r.o.Log.Warn("a blob of another registry is not kept", "repository", f.repository, "digest", f.digest, "error", err)
		if noRoom(err) {
			c.crowded()
		}
		return
	}
	c.grown(size)
}

// crowded makes room, and keeps nothing meanwhile.
func (c *cache) crowded() {
	c.mu.Lock()
	c.full = c.r.o.Now().Add(fullFor)
	c.mu.Unlock()
	c.evictLater()
}

// fetch reads the whole blob. What broke off is gone on with where it was.
func (c *cache) fetch(u *upstream, f *fill) error {
	sum := sha256.New()
	var err error
	for range fillTries {
		var again bool
		if again, err = c.part(u, f, sum); err == nil || !again || c.ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return err
	}
	if is := "sha256:" + hex.EncodeToString(sum.Sum(nil)); is != f.digest {
		u.failed.Add(1)
		return elsewise(u, f.digest, is)
	}
	return nil
}

func elsewise(u *upstream, want, is string) error {
	return tender.Errorf(tender.Unavailable, "%s sent something else as the blob %s: its digest is %s", u.Name, want, is).Hint("again in a moment; nothing of it was kept")
}

// part reads on until the end, or until it breaks off: then it may be tried again.
func (c *cache) part(u *upstream, f *fill, sum hash.Hash) (again bool, err error) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	silent := time.AfterFunc(c.idle, func() {
		cancel(tender.Errorf(tender.Unavailable, "%s sent nothing for %s", u.Name, c.idle).Hint("again in a moment"))
	})
	defer silent.Stop()
	have := f.state.Load()
	resp, err := c.open(ctx, u, f, have)
	if err != nil {
		// The first answer says what is wrong, later ones may not.
		return have.begun && tender.KindOf(err) == tender.Unavailable && u.resting() == nil, err
	}
	defer resp.Body.Close()
	if !have.begun {
		limit, err := c.sizeOf(ctx, f.repository, f.digest)
		if err != nil {
			return false, err
		}
		size := resp.ContentLength
		if limit >= 0 && size >= 0 && size != limit {
			u.failed.Add(1)
			return false, tender.Errorf(tender.Unavailable, "%s sent %d bytes as the blob %s, which has %d", u.Name, size, f.digest, limit).Hint("again in a moment; nothing of it was kept")
		}
		if size < 0 {
			size = limit
		}
		if size < 0 {
			return false, tender.Errorf(tender.Unavailable, "%s does not say how large the blob %s is", u.Name, f.digest).Hint("pull its manifest first, through this registry")
		}
		f.set(func(s *filled) { s.begun, s.size = true, size })
	}
	buf := make([]byte, fillRead)
	for {
		n, rerr := resp.Body.Read(buf)
		if n > 0 {
			silent.Reset(c.idle)
			now := f.state.Load()
			if now.n+int64(n) > now.size {
				u.failed.Add(1)
				return false, tender.Errorf(tender.Unavailable, "%s sent more than the %d bytes of the blob %s", u.Name, now.size, f.digest).Hint("again in a moment; nothing of it was kept")
			}
			if _, err := f.file.WriteAt(buf[:n], now.n); err != nil {
				return false, err
			}
			sum.Write(buf[:n]) //nolint:errcheck // it never fails
			u.fetched.Add(uint64(n))
			f.set(func(s *filled) { s.n += int64(n) })
			c.r.at("filled", f.digest)
		}
		if rerr == nil {
			continue
		}
		if now := f.state.Load(); now.n == now.size {
			return false, nil
		}
		u.failed.Add(1)
		if ctx.Err() != nil {
			return c.ctx.Err() == nil, context.Cause(ctx)
		}
		return true, tender.Errorf(tender.Unavailable, "the blob %s of %s broke off: %v", f.digest, u.Name, rerr).Hint("again in a moment")
	}
}

// open asks for what is missing. An upstream that sends all of it again is read over.
func (c *cache) open(ctx context.Context, u *upstream, f *fill, have *filled) (*http.Response, error) {
	header := http.Header{}
	if have.n > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", have.n))
	}
	resp, err := u.ask(ctx, http.MethodGet, f.repository, "blobs/"+f.digest, header, http.StatusOK, http.StatusPartialContent)
	if err != nil || have.n == 0 {
		return resp, err
	}
	if resp.StatusCode == http.StatusPartialContent {
		if strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", have.n)) {
			return resp, nil
		}
		err = tender.Errorf(tender.Unavailable, "%s goes on with the blob %s elsewhere than asked", u.Name, f.digest).Hint("again in a moment")
	} else if _, err = io.CopyN(io.Discard, resp.Body, have.n); err == nil {
		return resp, nil
	} else {
		err = tender.Errorf(tender.Unavailable, "the blob %s of %s broke off: %v", f.digest, u.Name, err).Hint("again in a moment")
	}
	u.failed.Add(1)
	return nil, errors.Join(err, resp.Body.Close())
}

// sizeOf is how large a manifest that is kept says that the blob is; -1: none names it.
func (c *cache) sizeOf(ctx context.Context, repository, d string) (int64, error) {
	size := int64(-1)
	err := c.r.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		size, err = tx.BlobSize(repository, d)
		return err
	})
	return size, err
}

// store makes a file the blob, and the blob one of the repository.
func (c *cache) store(f *fill) error {
	ctx := context.WithoutCancel(c.ctx)
	if err := errors.Join(f.file.Sync(), f.file.Chmod(0o644)); err != nil {
		return err
	}
	c.r.at("filled whole", f.digest)
	if err := c.r.driver.Move(ctx, path.Join("/", fillFolder, filepath.Base(f.file.Name())), blobPath(f.digest)); err != nil {
		return err
	}
	c.r.at("blob kept", f.digest)
	return c.r.driver.PutContent(ctx, layer(f.repository, f.digest), []byte(f.digest))
}

// blob answers with one: of what is kept, else while it comes.
func (c *cache) blob(w http.ResponseWriter, req *http.Request, rt route, u *upstream) {
	parsed, err := digest.Parse(rt.reference)
	if err != nil {
		problem(w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q: %v", rt.reference, err))
		return
	}
	if parsed.Algorithm() != digest.SHA256 {
		problem(w, http.StatusNotFound, "BLOB_UNKNOWN", "only digests in SHA-256 are kept of other registries")
		return
	}
	d, ctx := parsed.String(), req.Context()
	defer c.r.o.Touched(d)()
	if c.there(ctx, layer(rt.repository, d), blobPath(d)) {
		u.hits.Add(1)
		w.Header().Set("Cache-Status", found{}.status(0, time.Time{}))
		c.hand(w, req, u, found{})
		return
	}
	if req.Method == http.MethodHead {
		c.blobHead(w, req, rt, u, d)
		return
	}
	if ok, err := c.mount(ctx, u, rt.repository, d); err != nil {
		c.refuse(w, err, "BLOB_UNKNOWN")
		return
	} else if ok {
		u.hits.Add(1)
		w.Header().Set("Cache-Status", found{}.status(0, time.Time{}))
		c.hand(w, req, u, found{})
		return
	}
	u.misses.Add(1)
	c.mu.Lock()
	full := c.r.o.Now().Before(c.full)
	c.mu.Unlock()
	if c.bytes.Load() > 2*c.r.cacheSize() { // of what is needed, or faster than room is made
		full = true
		c.evictLater()
	}
	if size, err := c.sizeOf(ctx, rt.repository, d); err == nil && size < 0 {
		full = true // no image would take it along when it is evicted
	}
	if full {
		c.past(w, req, rt, u, d)
		return
	}
	f, err := c.join(ctx, u, rt.repository, d)
	if noRoom(err) {
		c.crowded()
		c.past(w, req, rt, u, d)
		return
	}
	if err != nil {
		c.refuse(w, err, "BLOB_UNKNOWN")
		return
	}
	defer c.leave(f)
	c.follow(w, req, rt, u, f)
}

func (c *cache) blobHead(w http.ResponseWriter, req *http.Request, rt route, u *upstream, d string) {
	resp, err := u.ask(req.Context(), http.MethodHead, rt.repository, "blobs/"+d, nil, http.StatusOK)
	if err != nil {
		c.refuse(w, err, "BLOB_UNKNOWN")
		return
	}
	defer resp.Body.Close()
	u.misses.Add(1)
	w.Header().Set("Cache-Status", "tender; fwd=uri-miss")
	blobHeader(w.Header(), d, resp.ContentLength)
	w.WriteHeader(http.StatusOK)
}

func blobHeader(h http.Header, d string, size int64) {
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d)
	h.Set("ETag", strconv.Quote(d))
	if size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
}

// mount makes a blob that lies here already one of the repository, once the upstream has said
// that it is one of it there: others of this registry must not come out under its name.
func (c *cache) mount(ctx context.Context, u *upstream, repository, d string) (bool, error) {
	if !c.there(ctx, blobPath(d)) {
		return false, nil
	}
	resp, err := u.ask(ctx, http.MethodHead, repository, "blobs/"+d, nil, http.StatusOK)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	info, err := c.r.driver.Stat(ctx, blobPath(d))
	if err != nil || resp.ContentLength != info.Size() {
		return false, nil
	}
	if err := c.r.driver.PutContent(context.WithoutCancel(ctx), layer(repository, d), []byte(d)); err != nil {
		return false, err
	}
	return true, nil
}

// follow answers with a fill as it grows. The last byte waits until all were found to be
// right: nobody takes for whole what is not.
func (c *cache) follow(w http.ResponseWriter, req *http.Request, rt route, u *upstream, f *fill) {
	buf := make([]byte, fillRead)
	sent, begun := int64(0), false
	for {
		now := f.state.Load()
		switch {
		case now.err != nil && !begun && noRoom(now.err):
			c.past(w, req, rt, u, f.digest)
			return
		case now.err != nil && !begun:
			c.refuse(w, now.err, "BLOB_UNKNOWN")
			return
		case now.err != nil:
			panic(http.ErrAbortHandler)
		}
		ready := now.n
		if !now.over {
			ready = min(ready, now.size-1)
		}
		// What fits into one buffer is answered when it is known to be right, or to be wrong.
		if now.begun && !begun && (now.over || ready >= fillRead) {
			begun = true
			w.Header().Set("Cache-Status", "tender; fwd=uri-miss; stored")
			blobHeader(w.Header(), f.digest, now.size)
			w.WriteHeader(http.StatusOK)
		}
		for begun && sent < ready {
			n, err := f.file.ReadAt(buf[:min(int64(len(buf)), ready-sent)], sent)
			if n == 0 && err != nil {
				c.r.o.Log.Error("what was fetched cannot be read", "digest", f.digest, "error", err)
				panic(http.ErrAbortHandler)
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return // who asked has gone
			}
			sent += int64(n)
		}
		if now.over {
			return
		}
		select {
		case <-now.next:
		case <-req.Context().Done():
			return
		}
	}
}

// past lets a blob through without keeping it: there is no room.
func (c *cache) past(w http.ResponseWriter, req *http.Request, rt route, u *upstream, d string) {
	ctx := req.Context()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return
	}
	resp, err := u.ask(ctx, http.MethodGet, rt.repository, "blobs/"+d, nil, http.StatusOK)
	if err != nil {
		c.refuse(w, err, "BLOB_UNKNOWN")
		return
	}
	defer resp.Body.Close()
	if resp.ContentLength < 0 {
		c.refuse(w, tender.Errorf(tender.Unavailable, "%s does not say how large the blob %s is", u.Name, d).Hint("make room on the registry's disk"), "BLOB_UNKNOWN")
		return
	}
	w.Header().Set("Cache-Status", "tender; fwd=uri-miss")
	blobHeader(w.Header(), d, resp.ContentLength)
	sum := sha256.New()
	var last []byte // of what was read, until all is
	buf := make([]byte, fillRead)
	for {
		n, err := resp.Body.Read(buf)
		u.fetched.Add(uint64(n))
		sum.Write(buf[:n]) //nolint:errcheck // it never fails
		if n > 0 {
			if _, err := w.Write(last); err != nil {
				return
			}
			last = append(last[:0], buf[:n]...)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			u.failed.Add(1)
			panic(http.ErrAbortHandler)
		}
	}
	if is := "sha256:" + hex.EncodeToString(sum.Sum(nil)); is != d {
		u.failed.Add(1)
		c.r.o.Log.Warn("a blob of another registry is not what its digest says", "repository", rt.repository, "digest", d, "is", is)
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(last)
}
