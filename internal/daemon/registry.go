package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/registry"
)

// registryRoom opens the registry when there is something in it, else at the first request:
// where nobody uses it, it costs nothing.
type registryRoom struct {
	o    registry.Options
	log  *slog.Logger
	tell func(problem string)

	open atomic.Pointer[registry.Registry]

	mu     sync.Mutex // held while it is opened
	over   bool       // it was closed
	failed error      // why it did not open last
	again  time.Time  // until when nobody tries that again
}

// openAgain is how long a registry that did not open is left alone: each try may take its time.
const openAgain = 10 * time.Second

func openRegistryRoom(b *backend, log *slog.Logger) *registryRoom {
	c := b.config
	if c.NoRegistry {
		b.board.set("registry", func(p *api.Part) { p.State, p.Since = "off", time.Now().UTC() })
		return nil
	}
	accounts := registry.NewAccounts(registry.AccountsOptions{Store: b.store, Anonymous: c.RegistryAnonymous, Tokens: b.enter, Log: log})
	return &registryRoom{
		o: registry.Options{
			Dir: c.RegistryDir, Store: b.store, Enter: accounts.Enter, Log: log,
			Immutable: c.RegistryImmutable, Quotas: c.RegistryQuotas, After: []func(registry.Pushed){func(registry.Pushed) { b.scans.pushedHere() }},
			Bucket: c.RegistryStorage, Secret: b.secretForAll,
			Upstreams: c.upstreams(), CacheSize: c.RegistryCacheSize, Needed: b.neededImages,
			Login: b.login,
		},
		log:  log,
		tell: func(problem string) { b.board.set("registry", func(p *api.Part) { p.Error = problem }) },
	}
}

// get opens the registry if nobody has yet. Unavailable: it cannot be opened, or was closed.
func (r *registryRoom) get(ctx context.Context) (*registry.Registry, error) {
	if open := r.open.Load(); open != nil {
		return open, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return nil, tender.Errorf(tender.Unavailable, "the daemon is stopping").Hint("again in a moment")
	}
	if open := r.open.Load(); open != nil {
		return open, nil
	}
	if r.failed != nil && time.Now().Before(r.again) {
		return nil, r.failed
	}
	// Whoever asked first may go meanwhile: the next one needs it as well.
	open, err := registry.Open(context.WithoutCancel(ctx), r.o)
	if err != nil {
		r.tell(err.Error())
		r.failed, r.again = err, time.Now().Add(openAgain)
		return nil, err
	}
	r.tell("")
	r.failed = nil
	r.open.Store(open)
	return open, nil
}

// opened is the registry if it is open, else nil.
func (r *registryRoom) opened() *registry.Registry { return r.open.Load() }

// Close comes after the last request has ended.
func (r *registryRoom) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	if open := r.open.Swap(nil); open != nil {
		return open.Close()
	}
	return nil
}

func (r *registryRoom) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	open, err := r.get(req.Context())
	if err != nil {
		r.log.Error("the registry does not open", "err", err)
		registry.Refuse(w, err)
		return
	}
	open.Handler().ServeHTTP(w, req)
}

// run opens what is there, so that its index is whole before somebody asks, and serves
// listeners of its own.
func (r *registryRoom) run(ctx context.Context, own []net.Listener) error {
	if (Config{RegistryDir: r.o.Dir, RegistryStorage: r.o.Bucket}).hasImages() {
		if _, err := r.get(ctx); err != nil {
			if len(own) == 0 {
				return err
			}
			r.log.Error("the registry does not open", "err", err) // requests try again
		}
	}
	if len(own) == 0 {
		<-ctx.Done()
		return nil
	}
	return api.Serve(ctx, r.alone(), own, api.Serving{Log: r.log})
}

// alone is what the registry's own listener answers.
func (r *registryRoom) alone() http.Handler { return r.aloneWith(r) }

func (r *registryRoom) aloneWith(answer http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v2/", api.Patient(answer))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n")
	})
	return mux
}

// listenRegistry opens the registry's own port; nil if it has none.
func listenRegistry(c Config) (net.Listener, error) {
	if c.NoRegistry || c.ListenRegistry == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", c.ListenRegistry)
	if err != nil {
		return nil, tender.Errorf(tender.Conflict, "listen for the registry: %w", err).Hint("choose another address: tender serve --listen-registry 127.0.0.1:5000")
	}
	return secured(c, l)
}

// ownProject is whose route leads to the registry. No project can have this name.
const ownProject = "@tender"

// behindEdge opens the port that the edge, which vouches for registry.host, sends its requests to;
// nil if there is no such host.
func behindEdge(c Config) (net.Listener, error) {
	if c.RegistryHost == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the edge's requests to the registry: %w", err)
	}
	return l, nil
}

// registryRoute is how the edge serves the registry under a name.
func registryRoute(host, address string) proxy.Route {
	vouches := "auto"
	if !proxy.Public(host) {
		vouches = "internal"
	}
	return proxy.Route{
		ID: ownProject + "/" + host + "/", Project: ownProject, Hosts: []string{host}, Path: "/",
		RouteOptions: tender.RouteOptions{
			TLS: vouches, Retries: -1,
			// A large layer is read once more before its push is answered.
			Timeout: tender.RouteTimeout{Client: 5 * time.Minute, Server: 10 * time.Minute, Queue: 5 * time.Second},
		},
		Groups: []proxy.Group{{Aim: "registry", Weight: 1, Targets: []proxy.Target{{ID: "registry", Name: "registry", Address: address}}}},
	}
}

// secured speaks TLS on what it listens to, where there is a certificate.
func secured(c Config, l net.Listener) (net.Listener, error) {
	if c.TLSCert == "" {
		return l, nil
	}
	cert := &certificate{cert: c.TLSCert, key: c.TLSKey}
	if _, err := cert.get(nil); err != nil {
		return nil, errors.Join(tender.Errorf(tender.Invalid, "read the certificate: %w", err).Hint("check --tls-cert and --tls-key"), l.Close())
	}
	return tls.NewListener(l, &tls.Config{GetCertificate: cert.get, MinVersion: tls.VersionTLS12}), nil
}

// certificate is a pair of files that is read again when it was renewed.
type certificate struct {
	cert, key string

	mu   sync.Mutex
	read time.Time // the newer time of the two files, as of held
	held *tls.Certificate
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var newest time.Time
	for _, file := range []string{c.cert, c.key} {
		info, err := os.Stat(file)
		if err != nil {
			if c.held != nil {
				return c.held, nil
			}
			return nil, err
		}
		if info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	if c.held != nil && newest.Equal(c.read) {
		return c.held, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	switch {
	case err == nil:
		c.held, c.read = &pair, newest
	case c.held == nil:
		return nil, err
	} // else one of the two is new and the other is not there yet
	return c.held, nil
}

// registries is the client of all registries, our own among them. given are logins by host,
// that win over the daemon's.
func (b *backend) registries(given map[string]string) *registry.Remote {
	return b.registriesBy(given, nil)
}

// registriesBy is the same by another transport; nil: the ordinary one.
func (b *backend) registriesBy(given map[string]string, transport http.RoundTripper) *registry.Remote {
	o := registry.RemoteOptions{
		Transport: transport,
		Login:     func(ctx context.Context, host string) (string, error) { return b.auth(ctx, given, host+"/") },
		UserAgent: "tender/" + b.version,
	}
	if !b.config.NoRegistry {
		o.Store, o.Hosts = b.store, b.config.ownRegistryHosts()
		o.Own = func(ctx context.Context) (*registry.Registry, error) { return b.images.get(ctx) }
	}
	return registry.NewRemote(o)
}

// ownRegistryHosts are all names of our own registry, the one that most hosts know first.
func (c Config) ownRegistryHosts() []string {
	out := ownHosts(c.ListenRegistry, c.Listen)
	if c.RegistryHost != "" {
		out = slices.Insert(out, 0, c.RegistryHost)
	}
	return out
}

// ownHosts are the names under which references on this host name our own registry.
func ownHosts(listens ...string) (out []string) {
	here, _ := os.Hostname()
	for _, l := range listens {
		host, port, err := net.SplitHostPort(l)
		if err != nil {
			continue
		}
		for _, h := range []string{host, "127.0.0.1", "localhost", here} {
			if h != "" {
				out = append(out, net.JoinHostPort(h, port))
			}
		}
	}
	return out
}

// enter finds out who asks the registry: a token is the password, whatever the name.
func (b *backend) enter(r *http.Request) (registry.Account, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		if p, ok := api.PersonFrom(r.Context()); ok { // by the socket
			return accountOf(p), nil
		}
		return registry.Account{}, nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	if _, password, ok := r.BasicAuth(); ok {
		scheme, token = "Bearer", password
	}
	if !strings.EqualFold(scheme, "Bearer") {
		return registry.Account{}, tender.Errorf(tender.Denied, "the Authorization header holds no token").
			Hint("docker login HOST -u any, with a token as password: tender token create NAME")
	}
	p, err := b.Authenticate(r.Context(), strings.TrimSpace(token))
	return accountOf(p), err
}

// accountOf says what a token may do in the registry: read pulls, deploy pushes, admin deletes,
// in the repositories of its projects.
func accountOf(p api.Person) registry.Account {
	a := registry.Account{Name: p.Name}
	actions := []string{registry.Pull}
	switch p.Scope {
	case api.Read:
	case api.Deploy:
		actions = append(actions, registry.Push)
	case api.Admin:
		if len(p.Projects) == 0 {
			a.Admin = true
			return a
		}
		actions = append(actions, registry.Push, registry.Delete)
	default:
		return a
	}
	if len(p.Projects) == 0 {
		a.Grants = append(a.Grants, registry.Grant{Repository: "**", Actions: actions})
	}
	for _, project := range p.Projects {
		a.Grants = append(a.Grants, registry.Grant{Repository: project + "/**", Actions: actions})
	}
	return a
}
