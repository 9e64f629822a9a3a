package proxy

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what a Server is made with. The zero value serves nothing but ports.
type Options struct {
	Log *slog.Logger // nil: silence
	// Dir keeps certificates and the own authority; "": none are kept.
	Dir string
	// HTTP and HTTPS are addresses to listen on.
	HTTP, HTTPS []string
	// Listen opens what is served; the edge puts its own in, which knows sockets that were handed over. nil: net.ListenConfig.
	Listen       func(ctx context.Context, network, address string) (net.Listener, error)
	ListenPacket func(ctx context.Context, network, address string) (net.PacketConn, error)
	// Std sends requests by the standard library's transport instead of our own client path.
	Std bool
	// StdFront serves HTTP/1 by net/http's server instead of our own.
	StdFront bool
	// Drain is how long Run waits for what is under way once ctx has ended; default 1 h.
	Drain time.Duration
	ACME  ACME
	// Rules numbers this server among those of the host, up to MaxRules: each has kernel rules of its own.
	Rules int
	// Access is told of each request at its end, and must not wait; nil: nobody is.
	Access func(*Access)
}

// ACME says who vouches for routes with tls: auto.
type ACME struct {
	Email     string
	Directory string // URL; "": Let's Encrypt
	Roots     []byte // PEM, of a directory with an authority of its own
}

// Server serves a Table. New makes one, Set gives it a table, Run serves.
type Server struct {
	o     Options
	log   *slog.Logger
	table atomic.Pointer[snapshot]
	certs *certs

	auth  authCache
	bytes sync.Pool // of *[]byte, to copy bodies with

	active      active  // exchanges that time out
	tunnels     tunnels // upgraded connections
	ports       ports
	fronts      fronts
	lines       lines // of HTTP/1
	transparent transparency
	leaving     atomic.Int64 // how long clients may go on asking at the end, in nanoseconds; 0: they may not
	succeeded   atomic.Bool  // another one serves the same addresses

	mu      sync.Mutex
	ledgers map[string]*ledger // by kind and id
	changed chan struct{}      // closed when something may serve that did not
	ctx     context.Context    // of Run, while it runs: health checks live in it
	wg      sync.WaitGroup     // health checks
}

// snapshot is a Table as it is served. It never changes.
type snapshot struct {
	version uint64
	trusted trust
	routes  routing
	ports   map[string]*pool
}

// New makes a Server that serves nothing yet.
func New(o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Drain == 0 {
		o.Drain = time.Hour
	}
	var l net.ListenConfig
	if o.Listen == nil {
		o.Listen = l.Listen
	}
	if o.ListenPacket == nil {
		o.ListenPacket = l.ListenPacket
	}
	s := &Server{o: o, log: o.Log, ledgers: map[string]*ledger{}, changed: make(chan struct{})}
	s.lines.next, s.lines.done, s.lines.first = make(chan net.Conn), make(chan struct{}), newTime
	s.bytes.New = func() any { b := make([]byte, copySize); return &b }
	s.table.Store(&snapshot{})
	s.certs = newCerts(o)
	s.transparent.own = rulesOf(o.Rules)
	return s, nil
}

// Set serves a table from now on: whole, or, with an error, not at all.
// Requests that are under way end as they began.
func (s *Server) Set(t Table) error {
	if err := t.Validate(); err != nil {
		return err
	}
	s.certs.set(t)
	s.set(t)
	s.setFronts(len(t.Routes) > 0)
	s.setPorts(t.Ports)
	return nil
}

func (s *Server) set(t Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	old := s.table.Load()
	next := &snapshot{version: t.Version, trusted: newTrust(t.Trusted), ports: map[string]*pool{}}
	first := old.version == 0 && len(old.routes.all) == 0 && len(old.ports) == 0
	for _, r := range t.Routes {
		l := s.ledger("route "+r.ID, r.ID, r.Project)
		var before *pool
		if o := old.routes.all[r.ID]; o != nil {
			before = o.pool
		}
		next.routes.add(newRoute(r, newPool(l, before, r.Groups, r.Balance), len(s.o.HTTPS) > 0))
	}
	next.routes.sort()
	for _, p := range t.Ports {
		next.ports[p.ID] = newPool(s.ledger("port "+p.ID, p.ID, p.Project), old.ports[p.ID], p.Groups, p.Balance)
	}

	// Targets change before the table that says so is served, and a report reads
	// under the same lock: a version in a report means that its targets are as it says.
	named := map[*target]bool{}
	serve := func(l *ledger, groups []Group) {
		for _, g := range groups {
			for _, n := range g.Targets {
				x := l.target(g, n)
				named[x] = true
				x.serve(g, n, now)
			}
		}
	}
	for _, r := range t.Routes {
		serve(s.ledgers["route "+r.ID], r.Groups)
	}
	for _, p := range t.Ports {
		serve(s.ledgers["port "+p.ID], p.Groups)
	}
	for key, l := range s.ledgers {
		for _, x := range l.targets {
			if !named[x] {
				s.unwatch(x)
				x.leave(now)
			}
		}
		inUse := next.routes.all[l.id] != nil && strings.HasPrefix(key, "route ") || next.ports[l.id] != nil && strings.HasPrefix(key, "port ")
		if l.forget(now) && !inUse {
			delete(s.ledgers, key)
		}
	}
	for _, r := range next.routes.all {
		s.watch(r, first)
	}
	s.table.Store(next)
	s.wake()
}

// ledger is called with s.mu held.
func (s *Server) ledger(key, id, project string) *ledger {
	l := s.ledgers[key]
	if l == nil {
		l = newLedger(id, project)
		s.ledgers[key] = l
	}
	return l
}

// wake lets everybody look again who waits for something that serves; s.mu is held.
func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// change returns a channel that closes when something may serve that did not.
// Take it before looking.
func (s *Server) change() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// port returns the pool of a port in the table that is served; nil: it is not in it.
func (s *Server) port(id string) *pool { return s.table.Load().ports[id] }

// Report says what is served and what has been.
func (s *Server) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	problems, deaf := s.fronts.problems()
	r := Report{Version: s.table.Load().version, Routes: []RouteReport{}, Ports: []RouteReport{}, Problems: problems}
	for key, l := range s.ledgers {
		l.forget(now)
		if strings.HasPrefix(key, "port ") {
			one := l.report(now)
			one.Problem = s.ports.problem(l.id)
			r.Ports = append(r.Ports, one)
		} else {
			one := l.report(now)
			one.Problem = deaf
			if route := s.table.Load().routes.all[l.id]; route != nil {
				one.Certificates = s.certs.report(route.Route, now)
			}
			r.Routes = append(r.Routes, one)
		}
	}
	byID := func(a, b RouteReport) int { return strings.Compare(a.ID, b.ID) }
	slices.SortFunc(r.Routes, byID)
	slices.SortFunc(r.Ports, byID)
	return r
}

// Run listens and serves until ctx ends; then it takes nothing new, waits for
// what is under way for at most Options.Drain, and returns nil. An address that
// cannot be had is tried again and again; Report says why.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.ctx = work
	for _, r := range s.table.Load().routes.all {
		s.watch(r, true)
	}
	s.mu.Unlock()

	drainPorts := s.startPorts(ctx)
	s.certs.start(work)
	front := s.front()
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		_ = front.Serve(&s.lines) // until Shutdown
	}()
	s.startFronts(ctx, front)
	s.wg.Go(func() { s.active.sweep(work) })

	<-ctx.Done()
	drain, done := context.WithTimeout(context.WithoutCancel(ctx), s.o.Drain)
	defer done()
	// Listeners first, and not by Shutdown: it could miss a connection that was just
	// accepted. Once Serve has returned, all of them are known to the server.
	s.stopFronts()
	var left sync.WaitGroup
	left.Go(func() { drainPorts(drain) })
	s.linger(drain)
	if s.shutdown(drain, front) != nil {
		s.tunnels.close()
		s.active.hurry()
		s.cutLines()
		front.Close()
	}
	<-passed
	s.tunnels.wait(drain)
	s.lines.work.Wait()
	left.Wait()
	s.mu.Lock()
	s.ctx = nil
	for _, l := range s.ledgers {
		for _, t := range l.targets {
			s.unwatch(t)
			t.conns.close()
			t.std.close()
		}
	}
	s.mu.Unlock()
	stop()
	s.certs.stop()
	if !s.succeeded.Load() { // else the one that serves now needs them
		s.transparent.drop(context.WithoutCancel(ctx))
	}
	s.wg.Wait()
	return nil
}

// Leave is for who ends while another one serves the same addresses, and comes
// before the end of Run's ctx. A connection that is kept open may carry one more
// request, for up to d: its answer says that the connection ends. To close it at
// once would meet requests that are on their way. Zero ends the wait.
func (s *Server) Leave(d time.Duration) {
	s.succeeded.Store(true)
	s.leaving.Store(int64(d))
}

// linger waits until clients have closed their connections, or were told to.
func (s *Server) linger(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); s.active.connections() > 0 && time.Since(began) < time.Duration(s.leaving.Load()); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
