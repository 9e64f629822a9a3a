// Package dns turns the names of services into addresses: over DNS, over the
// read side of Consul's HTTP API, and as Prometheus' HTTP service discovery.
//
// It hides the wire format, times to live, the upstream resolvers with their
// cache, Consul's rules for blocking queries, and the services that were
// registered over Consul's API. The edge gives it sockets and pictures, serve
// mounts its handlers. All three answer from one picture in memory: with
// everything else away, they go on answering from the last one.
//
// It never asks an engine, never decides what is healthy, and never answers a
// client from outside of the networks that it was told to serve.
package dns

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	tender "github.com/tenderhq/tender"
)

// Options is what a Server can be told. The zero value works.
type Options struct {
	// TTL of every answer about our own names, also of negative ones; default 5 s.
	TTL time.Duration
	// Allow lists the networks whose clients are answered; others are refused. Default:
	// loopback, link-local and private addresses, so that it is no open resolver.
	Allow []netip.Prefix
	// Upstreams are asked for all other names, in order: ADDRESS or ADDRESS:PORT. Empty: those
	// of ResolvConf, read again when the file changes.
	Upstreams []string
	// ResolvConf is the path of that file; default /etc/resolv.conf.
	ResolvConf string
	// NoForward refuses all other names instead.
	NoForward bool
	// Cache bounds the number of answers from upstreams that are kept; default 10,000.
	Cache int

	// Dir keeps what was registered over Consul's API, in a file; empty: it is gone with the process.
	Dir string
	// Node and Address are what services registered here belong to; default "tender", 127.0.0.1.
	Node    string
	Address string
	// Datacenter is Consul's word for where all this is; default "dc1", as Consul's own.
	Datacenter string
	// Registrations bounds how many services can be registered; default 4,096.
	Registrations int
	// Waiters bounds the number of blocking queries at a time; default 8,192.
	Waiters int

	Log *slog.Logger // default: discards
}

// Server answers. New makes one; it answers with an empty picture until Set.
type Server struct {
	o       Options
	log     *slog.Logger
	forward *forwarder
	waiters chan struct{} // one token for each blocking query
	kick    chan struct{} // tells Run that a deadline has changed
	busy    chan struct{} // one token for each query that waits for an upstream
	count   counters

	state atomic.Pointer[state]

	mu         sync.Mutex // guards what follows, and who may store a new state
	base       Picture    // as given to Set
	registered map[string]*registration
}

// state is everything that answers are made of. It never changes once stored.
type state struct {
	picture Picture // base and registered services together
	table   *table
	catalog *catalog
	next    chan struct{} // closed when another state has taken its place
}

// New returns a server. It reads what was registered before, if there is a directory.
func New(o Options) (*Server, error) {
	if o.TTL <= 0 {
		o.TTL = 5 * time.Second
	}
	if o.Allow == nil {
		o.Allow = private
	}
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	if o.Cache <= 0 {
		o.Cache = 10_000
	}
	if o.Node == "" {
		o.Node = "tender"
	}
	if o.Address == "" {
		o.Address = "127.0.0.1"
	}
	if o.Datacenter == "" {
		o.Datacenter = "dc1"
	}
	if o.Registrations <= 0 {
		o.Registrations = 4096
	}
	if o.Waiters <= 0 {
		o.Waiters = 8192
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		o: o, log: o.Log,
		waiters: make(chan struct{}, o.Waiters),
		kick:    make(chan struct{}, 1),
		busy:    make(chan struct{}, 2048),
	}
	for _, u := range o.Upstreams {
		if _, err := parseUpstream(u, "53"); err != nil {
			return nil, tender.Errorf(tender.Invalid, "upstream resolver %q is no address", u).Hint("write ADDRESS or ADDRESS:PORT, like 192.0.2.53 or 192.0.2.53:53")
		}
	}
	if !o.NoForward {
		s.forward = newForwarder(&s.o)
	}
	kept, err := s.load(time.Now())
	if err != nil {
		return nil, err
	}
	s.registered = kept
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish()
	return s, nil
}

// Set makes p the picture to answer from. The caller must not change it afterwards.
// A picture that says what the last one said changes nothing, not even the index.
func (s *Server) Set(p Picture) {
	p = p.normal()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base = p
	s.publish()
}

// Picture returns what is answered from: the picture of the last Set with the services
// that were registered here. It is for another Server's Set; do not change it.
func (s *Server) Picture() Picture { return s.state.Load().picture }

// Changed returns the present picture's index and a channel that is closed when there is another picture.
func (s *Server) Changed() (index uint64, next <-chan struct{}) {
	st := s.state.Load()
	return st.picture.Index, st.next
}

// publish puts both sources together and, if that says anything new, answers from it
// and wakes those who wait. s.mu is held.
func (s *Server) publish() {
	old := s.state.Load()
	p := s.base
	p.Services = append(slices.Clip(slices.Clone(s.base.Services)), s.foreign()...)
	p = p.normal()
	switch {
	case old == nil:
		// The clock and not 1, so that the index does not fall when the process starts again:
		// clients that wait for a higher one would wait in vain.
		p.Index = max(p.Index, uint64(time.Now().UnixMilli()), 1)
	case p.same(old.picture):
		return
	default:
		p.Index = max(p.Index, old.picture.Index+1)
	}
	st := &state{picture: p, next: make(chan struct{})}
	st.table = makeTable(&s.o, &p)
	var before *catalog
	if old != nil {
		before = old.catalog
	}
	st.catalog = makeCatalog(&s.o, &p, before)
	s.state.Store(st)
	if old != nil {
		close(old.next)
	}
}

// Run lets checks expire and removes services that were critical for as long as they
// asked for, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	for {
		wait := s.expire(time.Now())
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.kick:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Stats counts queries since the start.
type Stats struct {
	Queries   uint64 `json:"queries"`   // all that were read, over UDP and TCP
	Answered  uint64 `json:"answered"`  // from the picture, with an answer
	Empty     uint64 `json:"empty"`     // from the picture: no such name, or nothing of that type
	Cached    uint64 `json:"cached"`    // from the cache
	Forwarded uint64 `json:"forwarded"` // asked upstream, or joined one who was asking
	Failed    uint64 `json:"failed"`    // no upstream answered, or too many were waiting
	Refused   uint64 `json:"refused"`   // client not allowed, or a name that is not served
	Malformed uint64 `json:"malformed"`
	Dropped   uint64 `json:"dropped"` // not a query at all, or an answer that could not be sent
	Waiters   int    `json:"waiters"` // blocking queries now
}

type counters struct {
	queries, answered, empty, cached, forwarded, failed, refused, malformed, dropped atomic.Uint64
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	c := &s.count
	return Stats{
		Queries: c.queries.Load(), Answered: c.answered.Load(), Empty: c.empty.Load(), Cached: c.cached.Load(),
		Forwarded: c.forwarded.Load(), Failed: c.failed.Load(), Refused: c.refused.Load(),
		Malformed: c.malformed.Load(), Dropped: c.dropped.Load(), Waiters: len(s.waiters),
	}
}

// private is who is served by default.
var private = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("fc00::/7"),
}

// allowed reports whether a client at a is served.
func (s *Server) allowed(in *inside, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	allow := s.o.Allow
	if in != nil {
		if allow = in.networks; a == in.address {
			return false // whoever is on the host itself comes from there, and its users have no token
		}
	}
	for _, p := range allow {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

var (
	_ http.Handler = (*consul)(nil)
	_ http.Handler = (*scrape)(nil)
)
