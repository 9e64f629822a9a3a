package registry

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

// sweepAge is how young what nobody refers to may not be to go: a push may last.
const sweepAge = 24 * time.Hour

// SweepOptions is a sweep; its zero value removes what is older than a day.
type SweepOptions struct {
	DryRun bool // says what would go, and changes nothing
	// Age is how old what goes must be at least; 0: a day, negative: it does not matter.
	Age time.Duration

	// evicted are blobs that came from other registries and were evicted: an hour is enough for them.
	evicted map[string]bool
}

// Swept is what a sweep did or, in a dry run, would do.
type Swept struct {
	Manifests  int   // that were read
	Referenced int   // blobs that they name, themselves among them
	Blobs      int   // that went
	Bytes      int64 // of those
	Links      int   // of repositories to blobs that none of their manifests names
	Leased     int   // that would have gone, and are held by somebody's push or pull
	Young      int   // that nobody refers to and are not old enough
	Took       time.Duration
}

// key is a SHA-256 sum: a hundred thousand of them take 5 MB.
type key [32]byte

func keyOf(sum string) (k key, ok bool) {
	if len(sum) != 64 {
		return k, false
	}
	_, err := hex.Decode(k[:], []byte(sum))
	return k, err == nil
}

// anyDigest finds whatever a manifest of any format names: rather one too many than one too few.
var anyDigest = form(`sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}`)

// Sweep removes blobs that no manifest of any repository names, that are older than a day, and
// that nobody holds a lease of. Pushes and pulls go on meanwhile. First the manifests are
// read and links of their repositories to blobs that they do not name go, then, when all were
// read, blobs: a manifest that cannot be read ends the sweep before the first blob went, and
// whoever ends it in between leaves what the next one removes. Another sweep is waited for.
func (r *Registry) Sweep(ctx context.Context, o SweepOptions) (done Swept, err error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return done, ctx.Err()
	}
	if o.Age == 0 {
		o.Age = sweepAge
	}
	start := r.o.Now()
	defer r.leases.begin()()
	s := &sweep{r: r, o: o, done: &done, root: "/docker/registry/v2", named: map[key]struct{}{}, start: start}
	err = s.run(ctx)
	done.Referenced, done.Took = len(s.named), r.o.Now().Sub(start)
	if err != nil {
		return done, fmt.Errorf("sweep the registry: %w", err)
	}
	return done, nil
}

type sweep struct {
	r     *Registry
	o     SweepOptions
	done  *Swept
	root  string
	start time.Time
	// named are the blobs that stay: manifests, what they name, and what a link that stays leads to.
	named map[key]struct{}
}

func (s *sweep) run(ctx context.Context) error {
	var repositories []string
	if err := s.walk(ctx, path.Join(s.root, "repositories"), &repositories); err != nil {
		return err
	}
	for _, folder := range repositories {
		own := map[key]struct{}{}
		n, err := s.mark(ctx, folder, own)
		if err != nil {
			return err
		}
		s.done.Manifests += n
		maps.Copy(s.named, own)
		if err := s.links(ctx, folder, own); err != nil {
			return err
		}
	}
	if err := s.blobs(ctx); err != nil || s.r.bucket == nil || s.o.DryRun {
		return err
	}
	_, err := s.r.bucket.sweep(ctx, s.start.Add(-sweepAge))
	return err
}

// walk finds the folders of repositories.
func (s *sweep) walk(ctx context.Context, folder string, found *[]string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	is := false
	for e := range s.r.files.entries(ctx, folder) {
		switch {
		case e.name == "_layers" || e.name == "_manifests":
			is = true
		case e.dir && !strings.HasPrefix(e.name, "_"):
			if err := s.walk(ctx, path.Join(folder, e.name), found); err != nil {
				return err
			}
		}
		if e.err != nil {
			return e.err
		}
	}
	if is {
		*found = append(*found, folder)
	}
	return nil
}

// mark puts what the manifests of a repository name into the set, read from the files
// themselves: rows may be behind them.
func (s *sweep) mark(ctx context.Context, folder string, set map[key]struct{}) (n int, err error) {
	put := func(digest string) {
		if k, ok := keyOf(strings.TrimPrefix(digest, "sha256:")); ok {
			set[k] = struct{}{}
			return
		}
		// A sum of another kind is a link to the blob's own.
		algorithm, sum, _ := strings.Cut(digest, ":")
		if text, err := s.r.files.read(ctx, path.Join(folder, "_layers", algorithm, sum, "link")); err == nil {
			if k, ok := keyOf(strings.TrimPrefix(strings.TrimSpace(string(text)), "sha256:")); ok {
				set[k] = struct{}{}
			}
		}
	}
	revisions := path.Join(folder, "_manifests/revisions")
	for algorithm := range s.r.files.entries(ctx, revisions) {
		if algorithm.err != nil {
			return n, algorithm.err
		}
		for e := range s.r.files.entries(ctx, path.Join(revisions, algorithm.name)) {
			if err := errors.Join(ctx.Err(), e.err); err != nil {
				return n, err
			}
			link, err := s.r.files.read(ctx, path.Join(revisions, algorithm.name, e.name, "link"))
			if errors.Is(err, fs.ErrNotExist) {
				continue // it was deleted
			}
			if err != nil {
				return n, err
			}
			digest := strings.TrimSpace(string(link))
			if anyDigest().FindString(digest) != digest {
				return n, unreadable(folder, algorithm.name+":"+e.name, errors.New("its link names no digest"))
			}
			put(digest)
			put(algorithm.name + ":" + e.name)
			body, err := s.r.files.read(ctx, blobPath(digest))
			if errors.Is(err, fs.ErrNotExist) {
				continue // it cannot be pulled, by nobody
			}
			if err != nil {
				return n, unreadable(folder, digest, err)
			}
			n++
			for _, d := range anyDigest().FindAll(body, -1) {
				put(string(d))
			}
		}
	}
	return n, nil
}

func unreadable(folder, digest string, err error) error {
	return tender.Errorf(tender.Unavailable, "a manifest of %s, %s, cannot be read, so nobody knows what it needs: %w", folder, digest, err).
		Hint("no blob was removed; mend the disk, or delete that manifest")
}

// links removes those of a repository that none of its manifests needs.
func (s *sweep) links(ctx context.Context, folder string, own map[key]struct{}) error {
	layers := path.Join(folder, "_layers/sha256")
	for e := range s.r.files.entries(ctx, layers) {
		if err := errors.Join(ctx.Err(), e.err); err != nil {
			return err
		}
		k, ok := keyOf(e.name)
		if !ok {
			continue
		}
		if _, is := own[k]; is {
			continue
		}
		age := s.o.Age
		if s.o.evicted["sha256:"+e.name] && s.cached(folder) {
			age = min(age, leaseTime)
		}
		gone, err := s.link(ctx, path.Join(layers, e.name), "sha256:"+e.name, age)
		if err != nil {
			return err
		}
		if gone {
			s.done.Links++
		} else {
			s.named[k] = struct{}{}
		}
	}
	// What links of other kinds lead to stays: nothing tells how long somebody needs it.
	for kind := range s.r.files.entries(ctx, path.Join(folder, "_layers")) {
		if kind.err != nil {
			return kind.err
		}
		if kind.name == "sha256" {
			continue
		}
		for e := range s.r.files.entries(ctx, path.Join(folder, "_layers", kind.name)) {
			text, err := s.r.files.read(ctx, path.Join(folder, "_layers", kind.name, e.name, "link"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) || e.err != nil {
				return errors.Join(err, e.err)
			}
			if k, ok := keyOf(strings.TrimPrefix(strings.TrimSpace(string(text)), "sha256:")); ok {
				s.named[k] = struct{}{}
			}
		}
	}
	return nil
}

// cached says whether a repository's folder is one of an upstream's.
func (s *sweep) cached(folder string) bool {
	return s.r.cache.of(strings.TrimPrefix(folder, path.Join(s.root, "repositories")+"/")) != nil
}

// link removes one unless it or its blob is young, or leased.
func (s *sweep) link(ctx context.Context, folder, digest string, age time.Duration) (gone bool, err error) {
	release, ok, err := s.mayGo(ctx, digest, path.Join(folder, "link"), age)
	if !ok || err != nil {
		return false, err
	}
	defer release()
	if s.o.DryRun {
		return true, nil
	}
	s.r.at("link", digest)
	if err := s.r.files.remove(ctx, path.Join(folder, "link")); err != nil {
		return false, err
	}
	s.r.at("link gone", digest)
	return true, s.r.files.removeAll(ctx, folder)
}

// mayGo claims a digest whose blob and file are old enough, and which nobody holds.
func (s *sweep) mayGo(ctx context.Context, digest, file string, age time.Duration) (release func(), ok bool, err error) {
	data := blobPath(digest)
	young := func() (bool, error) {
		for _, f := range []string{data, file} {
			_, at, err := s.r.files.stat(ctx, f)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, err
			}
			if err == nil && age > 0 && at.After(s.start.Add(-age)) {
				return true, nil
			}
		}
		return false, nil
	}
	release = func() {}
	if s.o.DryRun {
		if s.r.leases.leased(digest) {
			s.done.Leased++
			return nil, false, nil
		}
	} else if release, ok = s.r.leases.claim(digest); !ok {
		s.done.Leased++
		return nil, false, nil
	}
	// Asked while nobody can begin to use it.
	is, err := young()
	if is || err != nil {
		release()
		if is {
			s.done.Young++
		}
		return nil, false, err
	}
	return release, true, nil
}

// blobs removes the data of those that are not named.
func (s *sweep) blobs(ctx context.Context) error {
	all := path.Join(s.root, "blobs/sha256")
	for prefix := range s.r.files.entries(ctx, all) {
		if prefix.err != nil {
			return prefix.err
		}
		for e := range s.r.files.entries(ctx, path.Join(all, prefix.name)) {
			if err := errors.Join(ctx.Err(), e.err); err != nil {
				return err
			}
			k, ok := keyOf(e.name)
			if !ok {
				continue
			}
			if _, is := s.named[k]; is {
				continue
			}
			if err := s.blob(ctx, path.Join(all, prefix.name, e.name), "sha256:"+e.name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sweep) blob(ctx context.Context, folder, digest string) error {
	data := path.Join(folder, "data")
	age := s.o.Age
	if s.o.evicted[digest] {
		age = min(age, leaseTime)
	}
	release, ok, err := s.mayGo(ctx, digest, data, age)
	if !ok || err != nil {
		return err
	}
	defer release()
	size, _, err := s.r.files.stat(ctx, data)
	if err == nil {
		s.done.Blobs++
		s.done.Bytes += size
	}
	if s.o.DryRun {
		return nil
	}
	s.r.at("blob", digest)
	if err := s.r.files.remove(ctx, data); err != nil {
		return err
	}
	s.r.at("blob gone", digest)
	return s.r.files.removeAll(ctx, folder)
}

// at is where a test may end the process.
func (r *Registry) at(step, what string) {
	if r.crash != nil {
		r.crash(step, what)
	}
}
