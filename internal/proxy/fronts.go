package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// fronts are the addresses of HTTP and HTTPS. They are listened on while there
// is a route: an edge that only holds ports takes no others.
type fronts struct {
	mu     sync.Mutex
	ctx    context.Context // of Run; nil: it does not run
	server *http.Server
	wanted bool
	open   []*front
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// front is one address.
type front struct {
	address string
	tls     bool
	problem atomic.Pointer[string] // why it is not listened on
	tried   chan struct{}          // closes after the first try
}

// setFronts opens and closes them as they are wanted.
func (s *Server) setFronts(wanted bool) {
	f := &s.fronts
	f.mu.Lock()
	f.wanted = wanted
	fresh := s.moveFronts()
	f.mu.Unlock()
	limit := time.NewTimer(firstListen)
	defer limit.Stop()
	for _, one := range fresh {
		select {
		case <-one.tried:
		case <-limit.C:
			return
		}
	}
}

func (s *Server) startFronts(ctx context.Context, server *http.Server) {
	f := &s.fronts
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ctx, f.server = ctx, server
	s.moveFronts()
}

// stopFronts closes them for good and waits until all that they accepted is
// known to the server.
func (s *Server) stopFronts() {
	f := &s.fronts
	f.mu.Lock()
	f.ctx = nil
	s.closeFronts()
	f.mu.Unlock()
	f.work.Wait()
}

// closeFronts is called with f.mu held.
func (s *Server) closeFronts() {
	if s.fronts.cancel != nil {
		s.fronts.cancel()
	}
	s.fronts.open, s.fronts.cancel = nil, nil
}

// moveFronts makes what is open what is wanted; f.mu is held.
func (s *Server) moveFronts() []*front {
	f := &s.fronts
	if f.ctx == nil || f.wanted == (f.cancel != nil) {
		return nil
	}
	if !f.wanted {
		s.closeFronts()
		return nil
	}
	ctx, cancel := context.WithCancel(f.ctx)
	f.cancel = cancel
	add := func(addresses []string, tls bool) {
		for _, a := range addresses {
			one := &front{address: a, tls: tls, tried: make(chan struct{})}
			f.open = append(f.open, one)
			f.work.Go(func() { s.serveFront(ctx, f.server, one) })
		}
	}
	add(s.o.HTTP, false)
	add(s.o.HTTPS, true)
	return f.open
}

// serveFront listens until ctx ends.
func (s *Server) serveFront(ctx context.Context, server *http.Server, f *front) {
	tried := sync.OnceFunc(func() { close(f.tried) })
	defer tried()
	for ctx.Err() == nil {
		l, err := s.o.Listen(ctx, "tcp", f.address)
		if err == nil {
			f.problem.Store(nil)
			tried()
			err = s.acceptFront(ctx, server, f, l)
		}
		if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
			return
		}
		text := fmt.Sprintf("listen on %s: %s", f.address, err)
		before := f.problem.Swap(&text)
		tried()
		if before == nil || *before != text {
			s.log.Error("address is not served; trying again", "address", f.address, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
}

func (s *Server) acceptFront(ctx context.Context, server *http.Server, f *front, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	switch {
	case !s.o.StdFront && f.tls:
		return s.serveLines(s.guard(l), s.certs.config())
	case !s.o.StdFront:
		return s.serveLines(s.guard(l), nil)
	case f.tls:
		return server.ServeTLS(s.guard(l), "", "")
	}
	return server.Serve(s.guard(l))
}

// problems says which are wanted and not listened on; deaf says it where none is.
func (f *fronts) problems() (out []string, deaf string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.open {
		if text := one.problem.Load(); text != nil {
			out = append(out, *text)
		}
	}
	if len(out) > 0 && len(out) == len(f.open) {
		deaf = strings.Join(out, "; ")
	}
	return out, deaf
}
