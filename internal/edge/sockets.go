package edge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	tender "github.com/tenderhq/tender"
)

// sockets are what the edge listens on. Those that came from the edge before
// are given out as if they had just been opened, and all can be handed on.
type sockets struct {
	// released closes when the edge before has let go of its sockets; an address that it held under
	// another name is free only then. Nil: there was none before.
	released <-chan struct{}
	ports    map[string]bool // network and port of what it has
	late     chan struct{}   // closes when something waits for released
	isLate   func()

	mu        sync.Mutex
	inherited map[string]*os.File
	held      map[string]holder
	changed   chan struct{} // closes and is replaced when something is given out
}

// holder is an open socket: a *net.TCPListener or a *net.UDPConn.
type holder = syscall.Conn

// lateBind is how long a new edge waits for an address that the one before
// held, after that has let go.
const lateBind = 5 * time.Second

func newSockets(inherited map[string]*os.File, released <-chan struct{}) *sockets {
	s := &sockets{released: released, ports: map[string]bool{}, late: make(chan struct{}), inherited: inherited, held: map[string]holder{}, changed: make(chan struct{})}
	s.isLate = sync.OnceFunc(func() { close(s.late) })
	for k := range inherited {
		s.ports[portKey(k)] = true
	}
	return s
}

// key names a socket: two edges agree on it, however the address was written.
func key(network, address string) string {
	if host, port, err := net.SplitHostPort(address); err == nil {
		if host == "" {
			host = "*"
		}
		address = net.JoinHostPort(host, port)
	}
	return strings.TrimRight(network, "46") + " " + address
}

// portKey is a key without the host.
func portKey(k string) string {
	network, address, _ := strings.Cut(k, " ")
	return network + address[strings.LastIndexByte(address, ':')+1:]
}

func (s *sockets) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	k := key(network, address)
	if f := s.take(k); f != nil {
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("take it over: %w", err)
		}
		return s.keepListener(k, l)
	}
	var l net.Listener
	err := s.bind(ctx, k, func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, listenError(err)
	}
	return s.keepListener(k, l)
}

func (s *sockets) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	k := key(network, address)
	if f := s.take(k); f != nil {
		c, err := net.FilePacketConn(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("take it over: %w", err)
		}
		return s.keepPacket(k, c)
	}
	var c net.PacketConn
	err := s.bind(ctx, k, func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, listenError(err)
	}
	return s.keepPacket(k, c)
}

// bind tries open, and again while the edge before may still hold the address.
// What another program has is no reason to wait: the old edge serves on then.
func (s *sockets) bind(ctx context.Context, k string, open func() error) error {
	err := open()
	if !errors.Is(err, syscall.EADDRINUSE) || !s.ports[portKey(k)] {
		return err
	}
	s.isLate()
	select {
	case <-s.released:
	case <-ctx.Done():
		return err
	}
	limit, cancel := context.WithTimeout(ctx, lateBind)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = open(); !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			return err
		}
	}
}

// listenError leaves it to the caller to say which address that is.
func listenError(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return tender.Errorf(tender.Conflict, "another program has that port").
			Hint("ss -ltnup shows which; stop it, or choose another address")
	}
	return err
}

func (s *sockets) take(k string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.inherited[k]
	delete(s.inherited, k)
	return f
}

// keep remembers what was opened, and forgets what has been closed since.
func (s *sockets) keep(k string, h holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	s.held[k] = h
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *sockets) sweep() {
	for k, h := range s.held {
		raw, err := h.SyscallConn()
		if err == nil {
			err = raw.Control(func(uintptr) {})
		}
		if err != nil {
			delete(s.held, k)
		}
	}
}

func (s *sockets) keepListener(k string, l net.Listener) (net.Listener, error) {
	t, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("%s is no TCP socket", k)
	}
	s.keep(k, t)
	return t, nil
}

func (s *sockets) keepPacket(k string, c net.PacketConn) (net.PacketConn, error) {
	u, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("%s is no UDP socket", k)
	}
	s.keep(k, u)
	return u, nil
}

// names lists what is held, in order.
func (s *sockets) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	return slices.Sorted(maps.Keys(s.held))
}

func (s *sockets) get(k string) holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[k]
}

// missing is how many of keys nobody has asked for yet, and a channel that
// closes when somebody has asked for something.
func (s *sockets) missing(keys []string) (int, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, k := range keys {
		if s.held[k] == nil {
			n++
		}
	}
	return n, s.changed
}

// drop closes what came from the edge before and nobody will ask for.
func (s *sockets) drop(wanted map[string]bool) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, f := range s.inherited {
		if wanted[k] {
			continue
		}
		f.Close()
		delete(s.inherited, k)
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}
