package registry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
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
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
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
	// Bucket keeps the blobs in an S3; Dir has what is on its way. nil: all is in Dir.
	Bucket *Bucket
	// Secret opens the keys of Bucket by their name.
	Secret func(context.Context, string) ([]byte, error)
	Enter  Enter
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: nothing is logged

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
	Transport http.RoundTripper // to upstreams and to Bucket; nil: ones with deadlines

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
	files  files
	bucket *bucket // nil: all is on the disk
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
	r := &Registry{o: o, locks: map[string]*repositoryLock{}, turn: make(chan struct{}, 1)}
	if err := r.lay(ctx); err != nil {
		return nil, err
	}
	r.leases = newLeases(r.files, o.Now)
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
			driverName: {"driver": r.driver},
			"delete":   {"enabled": true},
			"redirect": {"disable": true},
			"maintenance": {
				"uploadpurging": map[any]any{"enabled": o.Bucket == nil, "age": uploadAge.String(), "interval": "24h", "dryrun": false},
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
	r.app = handlers.NewApp(ctx, c)
	if err := errors.Join(r.Reindex(ctx), r.openCache()); err != nil {
		_ = r.app.Shutdown()
		return nil, err
	}
	if r.bucket != nil {
		go r.bucket.purge(ctx, r.o.Now, r.o.Log) // the library would look through the bucket for them
	}
	return r, nil
}

// driverName is what the library knows the driver by that it is given.
const driverName = "given"

// given hands the library a driver that is open.
type given struct{}

// Create is StorageDriverFactory's.
func (given) Create(_ context.Context, parameters map[string]any) (storagedriver.StorageDriver, error) {
	d, ok := parameters["driver"].(storagedriver.StorageDriver)
	if !ok {
		return nil, errors.New("no driver is given")
	}
	return d, nil
}

// The library has one table of drivers for the process.
var tellDriver = sync.OnceFunc(func() { factory.Register(driverName, given{}) })

// lay finds out where blobs lie.
func (r *Registry) lay(ctx context.Context) error {
	tellDriver()
	if r.o.Bucket == nil {
		r.driver = filesystem.New(filesystem.DriverParameters{RootDirectory: r.o.Dir, MaxThreads: 100})
		r.files = disk{r.o.Dir}
		return nil
	}
	within, cancel := context.WithTimeout(ctx, bucketWithin)
	defer cancel()
	b, err := openBucket(within, r.o.Bucket, r.o.Dir, r.o.Secret, r.o.Transport)
	if err != nil {
		return tender.Errorf(tender.Unavailable, "open the registry in %s: %w", r.o.Bucket, err).Hint("see registry.storage in tender.yaml, and that this host reaches it")
	}
	// What was staged belongs to a process that has ended.
	if err := os.RemoveAll(filepath.Join(r.o.Dir, stageFolder)); err != nil {
		return err
	}
	r.driver, r.files, r.bucket = b.driver(), b, b
	return nil
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
