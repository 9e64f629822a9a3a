package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// lines are the connections of HTTP/1. What turns out to speak HTTP/2 is passed
// on to net/http's server.
type lines struct {
	shut atomic.Bool // no line carries another request
	work sync.WaitGroup
	date atomic.Pointer[stamp]
	// fresh counts lines that may turn out to speak HTTP/2; a drain waits for them for up to first.
	fresh atomic.Int64
	first time.Duration

	once sync.Once
	next chan net.Conn
	done chan struct{} // closes when nothing is passed on any more
}

// pass hands c, which speaks HTTP/2, to net/http.
func (n *lines) pass(c net.Conn) {
	select {
	case n.next <- c:
	case <-n.done:
		c.Close()
	}
}

// Accept, Close and Addr make it what net/http's server listens on.
func (n *lines) Accept() (net.Conn, error) {
	select {
	case c := <-n.next:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (n *lines) Close() error {
	n.once.Do(func() { close(n.done) })
	return nil
}

// Addr is nobody's.
func (n *lines) Addr() net.Addr { return new(net.TCPAddr) }

// serveLines serves what l accepts until l is closed.
func (s *Server) serveLines(l net.Listener, config *tls.Config) error {
	wait := time.Duration(0)
	for {
		c, err := l.Accept()
		if err != nil {
			var busy interface{ Temporary() bool }
			if errors.As(err, &busy) && busy.Temporary() && !errors.Is(err, net.ErrClosed) {
				// No descriptors are left, or the client has gone already.
				wait = min(max(2*wait, 5*time.Millisecond), time.Second)
				s.log.Warn("connection not accepted; trying again", "err", err)
				time.Sleep(wait)
				continue
			}
			return err
		}
		wait = 0
		g := c.(*guarded)
		one := s.newLine(g)
		s.active.mu.Lock()
		g.line = one
		s.active.mu.Unlock()
		s.lines.fresh.Add(1)
		s.lines.work.Go(func() { one.serve(config) })
	}
}

// list is the lines that are open.
func (a *active) list() (list []*line) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for g := range a.clients {
		if g.line != nil {
			list = append(list, g.line)
		}
	}
	return list
}

// shutLines closes what is idle, and the others as they have answered. It returns
// when none is left but those that became tunnels or HTTP/2.
func (s *Server) shutLines(ctx context.Context) error {
	s.lines.shut.Store(true)
	pause := time.Millisecond
	for {
		busy := false
		for _, l := range s.active.list() {
			at := l.stage.Load()
			switch {
			case at&atMask == atEnd:
			case at&atMask == atIdle, at == atHead && time.Since(l.born) > s.lines.first:
				if l.end(at) {
					_ = l.guard.cut()
				} else {
					busy = true
				}
			default:
				busy = true
			}
		}
		if !busy {
			return nil
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		case <-wait.C:
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// settleLines waits until it is known of each line what it speaks: after the end
// of the front, one that speaks HTTP/2 could be passed to nobody.
func (s *Server) settleLines(ctx context.Context) {
	limit := time.NewTimer(s.lines.first)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.lines.fresh.Load() > 0 {
		select {
		case <-tick.C:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// cutLines ends all of them, whatever they are at.
func (s *Server) cutLines() {
	for _, l := range s.active.list() {
		l.mu.Lock()
		l.goes()
		l.mu.Unlock()
		if l.stage.Load()&atMask != atEnd { // else it is not ours
			_ = l.guard.cut()
		}
	}
}

// stamp is a second, written as Date wants it.
type stamp struct {
	at   int64
	text string
}

// now is for answers whose target does not say when they were made.
func (n *lines) now() string {
	now := time.Now()
	if d := n.date.Load(); d != nil && d.at == now.Unix() {
		return d.text
	}
	d := &stamp{now.Unix(), now.UTC().Format(http.TimeFormat)}
	n.date.Store(d)
	return d.text
}

// shutdown ends both fronts once they have answered.
func (s *Server) shutdown(ctx context.Context, front *http.Server) error {
	var err error
	var left sync.WaitGroup
	left.Go(func() { err = s.shutLines(ctx) })
	s.settleLines(ctx)
	other := front.Shutdown(ctx)
	left.Wait()
	return errors.Join(err, other)
}
