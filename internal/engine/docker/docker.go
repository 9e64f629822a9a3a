// Package docker runs instances as containers of one Docker Engine.
//
// It hides the Engine API, its versions, labels and names, and how a service
// of a Compose file becomes a container. The daemon gives it to the rest of the
// house as engine.Engine. It decides nothing, keeps nothing on disk, and never
// touches a container that carries no project label.
package docker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

var _ engine.Engine = (*Engine)(nil)

// DefaultHost is where an engine listens unless it is told otherwise.
const DefaultHost = "unix:///var/run/docker.sock"

// DefaultPool is cut into /23 networks for those that name no subnet.
var DefaultPool = netip.MustParsePrefix("10.201.0.0/16")

// atOnce bounds what is created, started or removed side by side: the engine
// gains nothing from more.
const atOnce = 8

// Options of an Engine. Parse is needed by all that creates; the rest may be zero.
type Options struct {
	Log *slog.Logger
	// Parse reads the canonical YAML of a Spec.
	Parse func(spec []byte) (*types.Project, error)
	// Pool is what networks without a subnet are cut from, /23 each.
	Pool netip.Prefix
	// PullPatience is how long a pull may tell of no progress; default 2 min.
	PullPatience time.Duration
	// Home is written on what is created, so that two daemons on one engine know their own.
	Home string
}

// Engine is one Docker Engine.
type Engine struct {
	host string
	o    Options

	line       atomic.Pointer[client.Client] // another one when the engine speaks another version
	negotiated atomic.Pointer[string]        // the version that the engine offered
	info       atomic.Pointer[system.Info]
	networking sync.Mutex // makes networks one after the other: old engines allow two of one name
	seen       cache
	seats      seats
	arrivals   arrivals

	mu     sync.Mutex
	parsed map[[32]byte]*types.Project
}

// New makes the line to the engine at host; "" is DefaultHost. It does not
// connect: an engine that is away makes each call answer Unavailable.
func New(host string, o Options) (*Engine, error) {
	host = cmp.Or(host, DefaultHost)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.PullPatience = cmp.Or(o.PullPatience, 2*time.Minute)
	if !o.Pool.IsValid() {
		o.Pool = DefaultPool
	}
	if !o.Pool.Addr().Is4() || o.Pool.Bits() > 24 {
		return nil, tender.Errorf(tender.Invalid, "subnet pool %s: an IPv4 prefix of at most 24 bits is needed", o.Pool)
	}
	switch scheme, _, _ := strings.Cut(host, "://"); scheme {
	case "unix", "tcp", "http", "https", "npipe":
	default:
		return nil, tender.Errorf(tender.Invalid, "engine %s: not an address of an engine", host).
			Hint("unix:///var/run/docker.sock or tcp://HOST:PORT")
	}
	e := &Engine{host: host, o: o, parsed: map[[32]byte]*types.Project{}}
	c, err := e.dial()
	if err != nil {
		return nil, err
	}
	e.line.Store(c)
	return e, nil
}

// dial makes a client that has not negotiated yet.
func (e *Engine) dial() (*client.Client, error) {
	opts := []client.Opt{client.WithHost(e.host), client.WithUserAgent("tender")}
	if strings.HasPrefix(e.host, "tcp://") {
		opts = append(opts, client.WithTLSClientConfigFromEnv()) // DOCKER_CERT_PATH, DOCKER_TLS_VERIFY
	}
	c, err := client.New(opts...)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "engine %s: %w", e.host, err)
	}
	return c, nil
}

func (e *Engine) c() *client.Client { return e.line.Load() }

// Close gives the idle connections back.
func (e *Engine) Close() error { return e.c().Close() }

// Traits implements engine.Engine.
func (e *Engine) Traits() engine.Traits { return engine.Traits{Drop: true} }

// atLeast reports whether the API spoken is version or later.
func (e *Engine) atLeast(ctx context.Context, version string) (bool, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return false, err
	}
	return versions.GreaterThanOrEqualTo(e.c().ClientVersion(), version), nil
}

// negotiate agrees on an API version; again asks anew, since an engine may have been upgraded.
func (e *Engine) negotiate(ctx context.Context, again bool) error {
	known := e.negotiated.Load()
	if known != nil && !again {
		return nil
	}
	c := e.c()
	ping, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err == nil && known != nil && *known != ping.APIVersion {
		// A client does not change its version once it has one.
		if c, err = e.dial(); err != nil {
			return err
		}
		if ping, err = c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err == nil {
			e.line.Store(c)
		}
	}
	if err != nil {
		return wrap(err, "reach engine %s", e.host)
	}
	info, err := c.Info(ctx, client.InfoOptions{})
	if err != nil {
		return wrap(err, "reach engine %s", e.host)
	}
	e.info.Store(&info.Info)
	e.negotiated.Store(&ping.APIVersion)
	return nil
}

// Info implements engine.Reader.
func (e *Engine) Info(ctx context.Context) (engine.Info, error) {
	if err := e.negotiate(ctx, true); err != nil {
		return engine.Info{}, err
	}
	i := e.info.Load()
	return engine.Info{
		Name: "docker", Host: e.host, Version: i.ServerVersion, API: e.c().ClientVersion(),
		OS: i.OSType, Arch: i.Architecture, Kernel: i.KernelVersion, Root: i.DockerRootDir,
		StorageDriver: i.Driver, LoggingDriver: i.LoggingDriver, CgroupVersion: i.CgroupVersion,
		Warnings: i.Warnings, CPUs: i.NCPU, Memory: i.MemTotal, Containers: i.Containers,
	}, nil
}

// parse reads a spec once.
func (e *Engine) parse(spec []byte) (*types.Project, error) {
	key := sha256.Sum256(spec)
	e.mu.Lock()
	p := e.parsed[key]
	e.mu.Unlock()
	if p != nil {
		return p, nil
	}
	if e.o.Parse == nil {
		return nil, tender.Errorf(tender.Internal, "engine %s: no reader of Compose YAML was given", e.host)
	}
	p, err := e.o.Parse(spec)
	if err != nil {
		return nil, fmt.Errorf("read the stored service: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	// Revisions come and go over months: start anew now and then.
	if len(e.parsed) > 2000 {
		clear(e.parsed)
	}
	e.parsed[key] = p
	return p, nil
}

// service reads the one service of its spec.
func (e *Engine) service(s tender.Service) (*types.Project, types.ServiceConfig, error) {
	p, err := e.parse(s.Spec)
	if err != nil {
		return nil, types.ServiceConfig{}, err
	}
	c, ok := p.Services[s.Name]
	if !ok {
		return nil, types.ServiceConfig{}, tender.Errorf(tender.Internal, "the spec of service %s does not hold it", s.Name)
	}
	c.Name = s.Name
	return p, c, nil
}
