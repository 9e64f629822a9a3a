// Package edge is the data plane as a process: it runs the proxy and the DNS
// server, takes their table over a unix socket, keeps the last good one on disk
// and starts from that alone.
//
// It hides the hand-over: an edge that starts while another one serves takes
// that one's sockets, and the old one drains and ends, so that an upgrade loses
// no connection. serve knocks, through Client. It never asks anybody what to
// serve, never decides where traffic goes, and needs neither serve nor an engine.
package edge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/dns"
	"github.com/tenderhq/tender/internal/proxy"
)

// Where an edge is when nobody says otherwise.
const (
	DefaultDir    = "/var/lib/tender/edge"
	DefaultSocket = "/run/tender/edge.sock"
	DefaultDrain  = time.Hour
)

// Config is what an edge is told when it starts. The zero value works: no
// addresses, so that only the ports of its table are listened on.
type Config struct {
	Dir    string // the table, certificates; default DefaultDir
	Socket string // default DefaultSocket
	HTTP   []string
	HTTPS  []string
	DNS    []string // over UDP and TCP
	// Drain is how long what is under way may go on in an edge that has handed over; default DefaultDrain.
	Drain time.Duration
	// Grace is the same for an edge that ends with nobody in its place; default 30 s.
	Grace   time.Duration
	ACME    proxy.ACME
	Trusted []netip.Prefix // beside the table's own
	// NoAccess: no access log is written.
	NoAccess bool
	Log      *slog.Logger // default: none
	Version  string
	Binary   string // what Spawn starts; default: this program
}

func (c Config) filled() Config {
	if c.Dir == "" {
		c.Dir = DefaultDir
	}
	if c.Socket == "" {
		c.Socket = DefaultSocket
	}
	if c.Drain <= 0 {
		c.Drain = DefaultDrain
	}
	if c.Grace <= 0 {
		c.Grace = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	return c
}

// The ways of an edge.
const (
	serving int32 = iota
	handingOver
	handedOver
)

// lastRequests is how long clients may use connections of an edge that has
// handed over for one more request.
const lastRequests = 15 * time.Second

type edge struct {
	config  Config
	id      string // of this run, among edges that count together
	started time.Time
	log     *slog.Logger
	proxy   *proxy.Server
	dns     *dns.Server
	sockets *sockets

	handing   atomic.Int32
	succeeded chan struct{} // closes when a new edge serves
	replaced  chan struct{} // closes when that one has the socket's path

	setting sync.Mutex // one table at a time
	table   Table      // the one served; guarded by setting

	counts counts
	access *accessLog // nil: none is written
}

// Run serves until ctx ends or a new edge takes over, and then until what is
// under way has ended. It returns an error when it cannot start, as when the
// edge that serves already refuses to hand over.
func Run(ctx context.Context, c Config) error {
	c = c.filled()
	for _, dir := range []string{c.Dir, filepath.Dir(c.Socket)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the edge's directory: %w", err)
		}
	}
	// Two that start at once do so one after the other: the second finds the first and takes over.
	unlock, err := lock(ctx, filepath.Join(c.Dir, "start.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	e := &edge{config: c, id: rand.Text(), started: time.Now(), log: c.Log, succeeded: make(chan struct{}), replaced: make(chan struct{})}
	b, err := takeOver(ctx, c.Socket, Hello{Protocol: Protocol, Format: Format, Version: c.Version, PID: os.Getpid()})
	if err != nil {
		return err
	}
	if b == nil {
		e.sockets = newSockets(nil, nil)
	} else {
		defer b.close()
		e.sockets = newSockets(b.files, b.released)
	}
	if err := e.open(); err != nil {
		return err
	}
	return e.run(ctx, b, unlock)
}

// open makes proxy and dns of the last table.
func (e *edge) open() error {
	t, aside, err := loadTable(e.config.Dir, e.started)
	if err != nil {
		return err
	}
	if aside != nil {
		e.log.Error("the last table cannot be used; nothing is served until serve sends one", "err", aside)
	}
	o := proxy.Options{
		Log: e.log.With("part", "proxy"), Dir: e.config.Dir, HTTP: e.config.HTTP, HTTPS: e.config.HTTPS,
		Listen: e.sockets.Listen, ListenPacket: e.sockets.ListenPacket, Drain: e.config.Drain, ACME: e.config.ACME,
	}
	if !e.config.NoAccess {
		if e.access, err = openAccess(e.config.Dir, e.log); err != nil {
			e.log.Error("no access log is written", "err", err) // and requests are served
		} else {
			o.Access = e.access.add
		}
	}
	e.proxy, err = proxy.New(o)
	if err != nil {
		return err
	}
	e.dns, err = dns.New(dns.Options{Log: e.log.With("part", "dns"), Dir: e.config.Dir})
	if err != nil {
		return err
	}
	return e.apply(t)
}

// apply serves t.
func (e *edge) apply(t Table) error {
	served := t.Proxy
	served.Trusted = append(append([]netip.Prefix{}, e.config.Trusted...), served.Trusted...)
	if err := e.proxy.Set(served); err != nil {
		return err
	}
	e.dns.Set(t.DNS)
	e.table = t
	return nil
}

// set is apply for what serve sends: it is kept first, and nothing changes when
// either goes wrong.
func (e *edge) set(t Table) error {
	if err := t.Validate(); err != nil {
		return err
	}
	e.setting.Lock()
	defer e.setting.Unlock()
	if e.handing.Load() != serving {
		return errHanding
	}
	before := e.table
	if err := saveTable(e.config.Dir, t); err != nil {
		return err
	}
	if err := e.apply(t); err != nil {
		return errors.Join(err, saveTable(e.config.Dir, before))
	}
	return nil
}

func (e *edge) run(ctx context.Context, b *before, unlock func()) error {
	serve, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	parts := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { parts <- e.proxy.Run(serve) })
	running.Go(func() { e.names(serve) })
	ended := make(chan struct{})
	go func() {
		running.Wait()
		close(ended)
	}()
	if e.access != nil {
		telling, told := context.WithCancel(context.WithoutCancel(ctx))
		var writing sync.WaitGroup
		writing.Go(func() { e.access.run(telling) })
		defer writing.Wait()
		defer told() // when all requests have ended
	}
	l, err := e.begin(ctx, b, parts)
	if err != nil {
		stop()
		e.drain(ended, e.config.Grace)
		if ctx.Err() != nil {
			return nil // told to end before it served
		}
		return err
	}
	unlock()
	admin := e.admin(l)
	if err := notify(fmt.Sprintf("READY=1\nMAINPID=%d", os.Getpid())); err != nil {
		e.log.Warn("systemd was not told", "err", err)
	}
	e.log.Info("serving", "version", e.config.Version, "table", e.version(), "listeners", e.sockets.names(), "dir", e.config.Dir, "socket", e.config.Socket)

	var broken error
	select {
	case <-e.succeeded:
		e.proxy.Leave(lastRequests)
		stop()
		e.retire(ctx, ended)
		return admin()
	case <-ctx.Done():
	case broken = <-parts:
		if broken == nil {
			broken = errors.New("the proxy ended by itself")
		}
	}
	// Not the path of one that is about to take over.
	if e.handing.CompareAndSwap(serving, handedOver) {
		os.Remove(e.config.Socket)
	}
	stop()
	e.drain(ended, e.config.Grace)
	return errors.Join(broken, admin())
}

// version is that of the table served.
func (e *edge) version() uint64 {
	e.setting.Lock()
	defer e.setting.Unlock()
	return e.table.Proxy.Version
}

// admin answers on l; what it returns ends that.
func (e *edge) admin(l net.Listener) (end func() error) {
	server := &http.Server{
		Handler: e.handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(e.log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	return func() error {
		limit, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if server.Shutdown(limit) != nil {
			server.Close()
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("answer at %s: %w", e.config.Socket, err)
		}
		return nil
	}
}

var errHanding = tender.Errorf(tender.Unavailable, "this edge hands over to another one").Hint("ask again: the other one answers in a moment")
