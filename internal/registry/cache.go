package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

const (
	maxFills   = 6               // blobs that are fetched at a time
	maxFresh   = 16_384          // tags of which is remembered when their upstream was asked
	askWithin  = 2 * time.Minute // until a manifest is here
	pullsEvery = time.Hour       // the pull of a kept manifest is written this often at most
	fullFor    = time.Minute     // nothing is kept after the disk was full
	fillFolder = "fills"
	cacheWho   = "cache" // who pushed what came from an upstream

	// CacheSize is how much of other registries is kept where nothing else is said.
	CacheSize = 20 << 30
)

// cache keeps images of other registries. What it fetched lies as if it had been pushed, in
// repositories whose names begin with that of their upstream.
type cache struct {
	r         *Registry
	upstreams []*upstream // long names first
	slots     chan struct{}
	asks      singleflight.Group
	ctx       context.Context // ends with the registry
	stop      context.CancelFunc
	work      sync.WaitGroup
	idle      time.Duration // a fill to which nothing comes for so long is begun again

	mu      sync.Mutex
	over    bool
	fills   map[string]*fill
	fresh   map[[2]string]time.Time // repository and tag: when its upstream was asked
	pulled  map[[2]string]time.Time // repository and digest: when its row was written
	full    time.Time               // until when nothing is kept
	evicted time.Time               // when room was made last

	bytes    atomic.Int64 // kept, as of the last count and what came since; -1: not counted yet
	evicting sync.Mutex
}

func (r *Registry) openCache() error {
	if err := os.RemoveAll(filepath.Join(r.o.Dir, fillFolder)); err != nil { // of a process that was killed
		return err
	}
	if len(r.o.Upstreams) == 0 {
		return nil
	}
	list := slices.Clone(r.o.Upstreams)
	if err := CheckUpstreams(list); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(r.o.Dir, fillFolder), 0o700); err != nil {
		return err
	}
	c := &cache{
		r: r, slots: make(chan struct{}, maxFills), fills: map[string]*fill{}, fresh: map[[2]string]time.Time{}, pulled: map[[2]string]time.Time{},
		idle: time.Minute,
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.bytes.Store(-1)
	logins := NewRemote(RemoteOptions{Login: r.o.Login})
	for _, u := range list {
		up, err := newUpstream(u, logins.login, r.o.Now, r.o.Transport)
		if err != nil {
			return err
		}
		c.upstreams = append(c.upstreams, up)
	}
	slices.SortFunc(c.upstreams, func(a, b *upstream) int { return cmp.Compare(len(b.Name), len(a.Name)) })
	r.cache = c
	return nil
}

// close ends fills that go on without anybody who waits for them.
func (c *cache) close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.stop()
	c.work.Wait()
}

// of is the upstream of a repository; nil: it is our own.
func (c *cache) of(repository string) *upstream {
	if c == nil {
		return nil
	}
	for _, u := range c.upstreams {
		if strings.HasPrefix(repository, u.Name+"/") || repository == u.Name {
			return u
		}
	}
	return nil
}

// enter finds out which upstream a request is about, and gives its repository the one name
// that it has here. A client that treats this registry as a mirror says with ns whose image
// it means; where that is nobody's whom we ask, it must not get one of ours of the same name.
func (c *cache) enter(req *http.Request, rt *route) (*http.Request, *upstream, error) {
	if c == nil {
		return req, nil, nil
	}
	read := req.Method == http.MethodGet || req.Method == http.MethodHead
	renamed := rt.repository
	if ns := req.URL.Query().Get("ns"); ns != "" && read {
		i := slices.IndexFunc(c.upstreams, func(u *upstream) bool { return u.Name == ns })
		switch {
		case i >= 0:
			renamed = ns + "/" + rt.repository
		case ns != req.Host:
			return req, nil, tender.Errorf(tender.NotFound, "images of %s are not kept here", ns).Hint("add it to registry.cache in tender.yaml")
		}
	}
	u := c.of(renamed)
	if u == nil {
		return req, nil, nil
	}
	if rest := strings.TrimPrefix(renamed, u.Name+"/"); u.hub && u.sub == "" && !strings.Contains(rest, "/") && rest != u.Name {
		renamed = u.Name + "/" + hubLibrary + "/" + rest
	}
	if renamed != rt.repository {
		q := req.URL.Query()
		q.Del("ns")
		req = withQuery(req, q)
		req.URL.Path = "/v2/" + renamed + strings.TrimPrefix(req.URL.Path, "/v2/"+rt.repository)
		req.URL.RawPath = ""
		rt.repository = renamed
	}
	return req, u, nil
}

// Mirror serves an upstream as a mirror of it: under the names that it has there. Docker's
// registry-mirrors ask so, and never with a name and a password of ours.
func (r *Registry) Mirror(upstream string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		// containerd says whose image it means to every mirror.
		q := req.URL.Query()
		if ns := q.Get("ns"); ns != "" && ns != upstream {
			problem(w, http.StatusNotFound, "NAME_UNKNOWN", fmt.Sprintf("here are images of %s alone, none of %s", upstream, ns))
			return
		}
		q.Del("ns")
		next := withQuery(req, q)
		if rest, ok := strings.CutPrefix(req.URL.Path, "/v2/"); ok && rest != "" && !strings.HasPrefix(rest, "_") {
			next.URL.Path, next.URL.RawPath = "/v2/"+upstream+"/"+rest, ""
		} else if a, err := r.o.Enter(req); err == nil && (ok || req.URL.Path == "/v2") && rest == "" && len(a.Grants) > 0 {
			// Who is asked to log in here would send the password of the upstream.
			w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "{}")
			return
		}
		r.serve(w, next)
	})
}

// CacheCount is what was asked for of an upstream since the start.
type CacheCount struct {
	Upstream            string
	Hits, Misses, Stale uint64 // requests: answered of what is kept, fetched, and kept though the upstream could not be asked
	Errors              uint64 // requests to the upstream in vain
	Fetched, Served     uint64 // bytes: that came from it, and that were answered of what is kept
	Resting             bool   // it is not asked for now
	Remaining           int    // pulls that it still allows; -1: it does not say
}

// CacheCounts returns what was counted of each upstream, and how many bytes are kept of all; -1: nobody has counted them yet.
func (r *Registry) CacheCounts() (list []CacheCount, kept int64) {
	if r.cache == nil {
		return nil, -1
	}
	for _, u := range r.cache.upstreams {
		n := CacheCount{Upstream: u.Name, Hits: u.hits.Load(), Misses: u.misses.Load(), Stale: u.stale.Load(), Errors: u.failed.Load(), Fetched: u.fetched.Load(), Served: u.served.Load()}
		n.Resting = u.resting() != nil
		u.mu.Lock()
		n.Remaining = u.remaining
		u.mu.Unlock()
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b CacheCount) int { return strings.Compare(a.Upstream, b.Upstream) })
	return list, r.cache.bytes.Load()
}

// together does what several ask for at a time once, for as long as one of them waits or it takes.
func (c *cache) together(ctx context.Context, what string, do func(context.Context) (found, error)) (found, error) {
	done := c.asks.DoChan(what, func() (any, error) {
		if !c.begin() {
			return found{}, tender.Errorf(tender.Unavailable, "the daemon is stopping").Hint("again in a moment")
		}
		defer c.work.Done()
		within, cancel := context.WithTimeoutCause(c.ctx, askWithin, tender.Errorf(tender.Unavailable, "the registry asked does not answer within %s", askWithin).Hint("again in a moment"))
		defer cancel()
		return do(within)
	})
	select {
	case r := <-done:
		f, _ := r.Val.(found)
		return f, r.Err
	case <-ctx.Done():
		return found{}, context.Cause(ctx)
	}
}

// begin counts work that close waits for.
func (c *cache) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.work.Add(1)
	}
	return !c.over
}

// tag finds out what a tag names: of its upstream, unless that was asked a moment ago, or cannot be.
func (c *cache) tag(ctx context.Context, u *upstream, repository, tag string) (found, error) {
	key := [2]string{repository, tag}
	have := ""
	known, err := c.r.tagsOf(ctx, repository, func(t store.Tag) bool { return t.Tag == tag })
	if err != nil {
		return found{}, err
	}
	if len(known) > 0 {
		if have = known[0].Digest; !c.has(ctx, repository, have) {
			have = ""
		}
	}
	c.mu.Lock()
	asked, is := c.fresh[key]
	c.mu.Unlock()
	if have != "" && is && c.r.o.Now().Sub(asked) < u.Fresh {
		return found{digest: have, asked: asked}, nil
	}
	f, err := c.together(ctx, repository+":"+tag, func(ctx context.Context) (f found, err error) {
		d, err := u.head(ctx, repository, tag)
		if err == nil && d == "" {
			// It does not say: it has to be read.
			var body []byte
			var media string
			if body, media, err = u.manifest(ctx, repository, tag); err == nil {
				f, err = c.take(ctx, u, repository, tag, body, media)
			}
		} else if err == nil {
			f, err = c.keep(ctx, u, repository, d, tag)
		}
		if err != nil {
			return found{}, err
		}
		if f.body == nil {
			c.mu.Lock()
			if len(c.fresh) >= maxFresh {
				clear(c.fresh)
			}
			c.fresh[key] = c.r.o.Now()
			c.mu.Unlock()
		}
		return f, nil
	})
	// Who is refused over there does not go on pulling here.
	if err != nil && have != "" && tender.KindOf(err) == tender.Unavailable && ctx.Err() == nil {
		c.r.o.Log.Warn("a tag of another registry is answered as it was: its upstream cannot be asked", "repository", repository, "tag", tag, "error", err)
		return found{digest: have, stale: err, asked: asked}, nil
	}
	return f, err
}

func link(repository string, parts ...string) string {
	return path.Join(append(append([]string{tree, repository}, parts...), "link")...)
}

func revision(repository, d string) string {
	algorithm, sum, _ := strings.Cut(d, ":")
	return link(repository, "_manifests/revisions", algorithm, sum)
}

func layer(repository, d string) string {
	algorithm, sum, _ := strings.Cut(d, ":")
	return link(repository, "_layers", algorithm, sum)
}

func (c *cache) there(ctx context.Context, files ...string) bool {
	for _, f := range files {
		if _, err := c.r.driver.Stat(ctx, f); err != nil {
			return false
		}
	}
	return true
}

// has says whether a manifest is kept.
func (c *cache) has(ctx context.Context, repository, d string) bool {
	return c.there(ctx, revision(repository, d), blobPath(d))
}

// keep sees to it that a manifest is here, under a tag if one is given.
func (c *cache) keep(ctx context.Context, u *upstream, repository, d, tag string) (found, error) {
	if _, err := digest.Parse(d); err != nil || !strings.HasPrefix(d, "sha256:") {
		return found{}, tender.Errorf(tender.Unavailable, "%s names the digest %q, which is none in SHA-256", u.Name, d[:min(len(d), 80)]).Hint("pull it from there, not through this registry")
	}
	if c.has(ctx, repository, d) {
		if tag == "" {
			return found{digest: d}, nil
		}
		return found{digest: d}, c.point(ctx, repository, tag, d)
	}
	return c.together(ctx, repository+"@"+d+" "+tag, func(ctx context.Context) (found, error) {
		body, media, err := u.manifest(ctx, repository, d)
		if err != nil {
			return found{}, err
		}
		if is := digest.FromBytes(body).String(); is != d {
			u.failed.Add(1)
			return found{}, tender.Errorf(tender.Unavailable, "%s sent something else as %s@%s: its digest is %s", u.Name, repository, d, is).Hint("again in a moment; nothing of it was kept")
		}
		return c.take(ctx, u, repository, tag, body, media)
	})
}

// take writes a manifest as a push would, but for its blobs, which come when they are asked for.
func (c *cache) take(ctx context.Context, u *upstream, repository, tag string, body []byte, media string) (found, error) {
	kind, _, err := mime.ParseMediaType(media)
	if err != nil || !slices.Contains(acceptManifests, kind) {
		kind = ""
	}
	m, err := describe(body, kind)
	if err == nil && len(m.Refs) == 0 {
		err = errors.New("it names nothing")
	}
	if err != nil {
		u.failed.Add(1)
		return found{}, tender.Errorf(tender.Unavailable, "%s sent something that is no manifest for %s: %v", u.Name, repository, err).Hint("pull it from there, not through this registry")
	}
	m.Repository, m.Pushed, m.Who = repository, c.r.o.Now().UTC(), cacheWho
	f := found{digest: m.Digest, came: true}
	if err := c.write(ctx, m, tag, body); err != nil {
		if ctx.Err() != nil {
			return found{}, context.Cause(ctx)
		}
		// A disk that is full keeps nobody from pulling.
		c.r.o.Log.Warn("a manifest of another registry is not kept", "repository", repository, "digest", m.Digest, "error", err)
		f.body, f.media = body, m.MediaType
	}
	return f, nil
}

func (c *cache) write(ctx context.Context, m store.Manifest, tag string, body []byte) error {
	ctx = context.WithoutCancel(ctx)
	unlock := c.r.lock(m.Repository)
	defer unlock()
	defer c.r.o.Touched(m.Digest)()
	if err := c.r.driver.PutContent(ctx, blobPath(m.Digest), body); err != nil {
		return err
	}
	c.r.at("cached blob", m.Digest)
	if err := c.r.driver.PutContent(ctx, revision(m.Repository, m.Digest), []byte(m.Digest)); err != nil {
		return err
	}
	c.r.at("cached revision", m.Digest)
	if c.bytes.Load() >= 0 {
		c.bytes.Add(m.Size)
	}
	return c.rows(ctx, m.Repository, tag, m.Digest, &m)
}

// point lets a tag name a manifest that is here.
func (c *cache) point(ctx context.Context, repository, tag, d string) error {
	known, err := c.r.tagsOf(ctx, repository, func(t store.Tag) bool { return t.Tag == tag && t.Digest == d })
	if err != nil || len(known) > 0 {
		return err
	}
	unlock := c.r.lock(repository)
	defer unlock()
	return c.rows(context.WithoutCancel(ctx), repository, tag, d, nil)
}

func (c *cache) rows(ctx context.Context, repository, tag, d string, m *store.Manifest) error {
	if tag != "" {
		algorithm, sum, _ := strings.Cut(d, ":")
		for _, file := range []string{link(repository, "_manifests/tags", tag, "index", algorithm, sum), link(repository, "_manifests/tags", tag, "current")} {
			if err := c.r.driver.PutContent(ctx, file, []byte(d)); err != nil {
				return err
			}
		}
	}
	now := c.r.o.Now().UTC()
	return c.r.o.Store.Update(ctx, func(tx *store.Tx) error {
		if m != nil {
			if err := tx.PutManifest(*m); err != nil {
				return err
			}
			if err := tx.PullCached(repository, d, now); err != nil {
				return err
			}
		}
		if tag == "" {
			return nil
		}
		return tx.PutTag(store.Tag{Repository: repository, Tag: tag, Digest: d, Pushed: now, Who: cacheWho})
	})
}

// note remembers that a manifest was pulled.
func (c *cache) note(ctx context.Context, repository, d string) {
	key, now := [2]string{repository, d}, c.r.o.Now()
	c.mu.Lock()
	last, is := c.pulled[key]
	due := !is || now.Sub(last) >= pullsEvery
	if due {
		if len(c.pulled) >= maxFresh {
			clear(c.pulled)
		}
		c.pulled[key] = now
	}
	c.mu.Unlock()
	if !due {
		return
	}
	if err := c.r.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.PullCached(repository, d, now.UTC()) }); err != nil {
		c.r.o.Log.Warn("the pull of an image is not noted", "repository", repository, "digest", d, "error", err)
	}
}

// noRoom says whether a disk is full.
func noRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
