package registry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // where blobs lie
	"github.com/sirupsen/logrus"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// Options says where images are kept and who is asked. Dir, Store and Enter are needed.
type Options struct {
	// Dir holds the blobs, laid out as registry:2 and registry:3 lay theirs out: a directory
	// of one of those is served as it is.
	Dir   string
	Store *store.Store
	Enter Enter
	Now   func() time.Time // nil: time.Now
	Log   *slog.Logger     // nil: nothing is logged

	Immutable []Immutable
	Quotas    []Quota

	// Upstreams are other registries of whose images those are kept that somebody asks for.
	Upstreams []Upstream
	// CacheSize is how many bytes of theirs are kept; 0: the constant of this name.
	CacheSize int64
	// Login answers with X-Registry-Auth for an upstream's host, or ""; nil: it is asked as nobody.
	Login func(ctx context.Context, host string) (string, error)
	// Needed are images that stay in the cache, as of RetainOptions; nil: none.
	Needed    func(context.Context) (map[string]string, error)
	Transport http.RoundTripper // to upstreams; nil: one with deadlines

	// Before is asked before a manifest is taken; its error, a tender.Error, is the answer.
	Before []func(context.Context, Pushed) error
	// After hears of each manifest that was taken. It must not hold up the push.
	After []func(Pushed)
	// Touched hears of each blob or manifest that a client was told is there, before it is
	// told so; what it returns is called after the answer.
	Touched func(digest string) (done func())
}

// Pushed is a manifest that somebody pushes.
type Pushed struct {
	store.Manifest
	Tag     string // "": it was pushed by its digest
	Account Account
}

// Registry is an open one. It is safe for concurrent use.
type Registry struct {
	o      Options
	app    *handlers.App
	driver storagedriver.StorageDriver
	cancel context.CancelFunc

	leases *leases
	turn   chan struct{}         // of the one sweep
	crash  func(at, what string) // tests end the process here; nil: nothing

	mu    sync.Mutex
	locks map[string]*repositoryLock
	met   meter

	tallies tallies

	cache *cache // nil: there is no upstream
}

// Open opens the registry in o.Dir, and makes the rows that are missing of what lies there.
// Unavailable: the directory cannot be used.
func Open(ctx context.Context, o Options) (_ *Registry, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	secret, err := secretOf(o.Dir)
	if err != nil {
		return nil, tender.Errorf(tender.Unavailable, "open the registry in %s: %w", o.Dir, err).Hint("see that the daemon may write there, and that the disk is not full: df -h %s", o.Dir)
	}
	r := &Registry{o: o, locks: map[string]*repositoryLock{}, leases: newLeases(o.Dir, o.Now), turn: make(chan struct{}, 1)}
	if told := o.Touched; told != nil {
		r.o.Touched = func(digest string) func() {
			first, second := r.leases.touch(digest), told(digest)
			return func() { second(); first() }
		}
	} else {
		r.o.Touched = r.leases.touch
	}
	// The library logs every request to a logger that the process has one of. What failed is
	// in its answers, which are logged here.
	logrus.SetOutput(io.Discard)
	c := &configuration.Configuration{
		Version: configuration.CurrentVersion,
		Storage: configuration.Storage{
			"filesystem": {"rootdirectory": o.Dir},
			"delete":     {"enabled": true},
			"redirect":   {"disable": true},
			"maintenance": {
				"uploadpurging": map[any]any{"enabled": true, "age": "168h", "interval": "24h", "dryrun": false},
			},
		},
	}
	c.HTTP.Secret, c.HTTP.Prefix, c.HTTP.RelativeURLs = secret, "/", true
	c.Catalog.MaxEntries = 1000
	c.Log.AccessLog.Disabled = true
	// An index may be pushed before, or without, what it names for other platforms; layers that
	// may not be distributed lie elsewhere.
	c.Validation.Disabled = true
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if p := recover(); p != nil { // NewApp panics at what it cannot use
			err = tender.Errorf(tender.Unavailable, "open the registry in %s: %v", o.Dir, p)
		}
		if err != nil {
			r.cancel()
		}
	}()
	if r.driver, err = factory.Create(ctx, "filesystem", map[string]any{"rootdirectory": o.Dir}); err != nil {
		return nil, fmt.Errorf("open the registry in %s: %w", o.Dir, err)
	}
	r.app = handlers.NewApp(ctx, c)
	if err := errors.Join(r.Reindex(ctx), r.openCache()); err != nil {
		_ = r.app.Shutdown()
		return nil, err
	}
	return r, nil
}

// Close ends what runs beside requests. Requests must have ended.
func (r *Registry) Close() error {
	defer r.cancel()
	r.cache.close()
	return r.app.Shutdown()
}

// Handler serves /v2/ and what is below.
func (r *Registry) Handler() http.Handler { return http.HandlerFunc(r.serve) }

// secretOf signs the state of uploads, which go on after a restart: it is made once.
func secretOf(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "secret")
	b, err := os.ReadFile(path)
	if err == nil && len(b) >= 32 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	random := make([]byte, 32)
	rand.Read(random) //nolint:errcheck // it never fails
	text := hex.EncodeToString(random)
	f, err := os.CreateTemp(dir, "secret.*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is gone once it was renamed
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	return text, os.Rename(f.Name(), path)
}

// repositoryLock orders what changes manifests and tags of a repository, so that rows and
// files say the same.
type repositoryLock struct {
	sync.Mutex
	users int
}

func (r *Registry) lock(repository string) (unlock func()) {
	r.mu.Lock()
	l := r.locks[repository]
	if l == nil {
		l = &repositoryLock{}
		r.locks[repository] = l
	}
	l.users++
	r.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		r.mu.Lock()
		if l.users--; l.users == 0 {
			delete(r.locks, repository)
		}
		r.mu.Unlock()
	}
}
