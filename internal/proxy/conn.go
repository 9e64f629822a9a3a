package proxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	idleMax   = 256 // connections kept per target
	idleTime  = 60 * time.Second
	lookEvery = 250 * time.Millisecond // how exactly timeouts are kept
)

var (
	errTimeout = errors.New("timed out")
	errGone    = errors.New("client is gone")
	past       = time.Unix(1, 0)
)

// conn is a connection to a target, used by one exchange at a time.
//
// Deadlines are not set on the socket, where each one costs a timer: the
// exchange notes until when it waits, and one sweep for all of them ends what is late.
type conn struct {
	net.Conn
	tcp    *net.TCPConn
	raw    syscall.RawConn
	t      *target
	home   *active
	in     input
	reused bool
	say    []byte                // of ask, and what is left of it
	said   bool                  // it was sent
	dead   bool                  // ask found that it had ended
	step   func(fd uintptr) bool // of ask; made once

	limit atomic.Int64 // unix nanoseconds; 0: it may take its time

	mu    sync.Mutex
	ctx   context.Context // of the exchange; nil: idle
	ended error           // why the sweep ended it
	idle  time.Time       // since when, as the sweep saw it
}

// Close ends c and forgets it.
func (c *conn) Close() error {
	c.home.mu.Lock()
	delete(c.home.conns, c)
	c.home.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite ends one direction of a tunnel.
func (c *conn) CloseWrite() error { return c.tcp.CloseWrite() }

func (c *conn) begin(ctx context.Context) {
	c.in.borrow()
	c.mu.Lock()
	c.ctx, c.idle = ctx, time.Time{}
	c.mu.Unlock()
}

// end returns why the sweep ended the exchange, if it did.
func (c *conn) end() error {
	c.in.release()
	c.limit.Store(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx = nil
	return c.ended
}

// cause is err, or why the sweep made it happen.
func (c *conn) cause(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	return err
}

func (c *conn) look(now time.Time) {
	c.mu.Lock()
	if c.ctx == nil {
		c.mu.Unlock()
		return
	}
	limit := c.limit.Load()
	switch {
	case c.ended != nil:
	case c.ctx.Err() != nil:
		c.ended = errGone
	case limit != 0 && now.UnixNano() > limit:
		c.ended = errTimeout
	}
	ended := c.ended != nil
	c.mu.Unlock()
	if ended {
		c.SetDeadline(past)
	}
}

// ask sends b and reads what comes first. Both are one wait of the poller, so that
// nobody looks for an answer before it can be there. An error is of no interest yet:
// the target may have answered before it closed, and who reads next meets it
// again. False: the connection had ended while it was idle, or something was said on it; nothing was sent.
func (c *conn) ask(b []byte) bool {
	c.say, c.said, c.dead = b, false, false
	_ = c.raw.Read(c.step)
	rest := c.say
	c.say = nil
	if !c.dead && len(rest) > 0 {
		_, _ = c.Write(rest)
	}
	return !c.dead
}

// takeStep is one of ask's: false waits until there is something to read.
func (c *conn) takeStep(fd uintptr) bool {
	if !c.said {
		c.said = true
		if c.reused && !untouched(fd) {
			c.dead = true
			return true
		}
		n, err := syscall.Write(int(fd), c.say)
		if n > 0 {
			c.say = c.say[n:]
		}
		// On one that is new something may have come before: only reading tells.
		return err != nil || len(c.say) > 0 || !c.reused
	}
	n, err := syscall.Read(int(fd), c.in.buf[c.in.end:])
	if err == syscall.EAGAIN || err == syscall.EINTR { //nolint:errorlint // system calls return numbers
		return err == syscall.EINTR //nolint:errorlint // likewise
	}
	if n > 0 {
		c.in.end += n
		c.in.read = true
	}
	return true
}

// alive looks, without waiting, whether the target has closed an idle
// connection, or said something that nobody asked for.
func (c *conn) alive() bool {
	ok := false
	err := c.raw.Read(func(fd uintptr) bool {
		ok = untouched(fd)
		return true
	})
	return err == nil && ok
}

// untouched: nothing is to be read from a socket, not even its end.
func untouched(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err == syscall.EAGAIN || err == syscall.EINTR //nolint:errorlint // system calls return numbers
}

// idle is the idle connections of a target. The last used is the next used.
type idle struct {
	mu   sync.Mutex
	list []*conn
	shut bool
}

func (i *idle) get() *conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n := len(i.list); n > 0 {
		c := i.list[n-1]
		i.list[n-1] = nil
		i.list = i.list[:n-1]
		return c
	}
	return nil
}

func (i *idle) put(c *conn) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.shut || len(i.list) >= idleMax {
		return false
	}
	i.list = append(i.list, c)
	return true
}

func (i *idle) remove(c *conn) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n, o := range i.list {
		if o == c {
			i.list = append(i.list[:n], i.list[n+1:]...)
			return true
		}
	}
	return false
}

// close ends all idle connections and keeps none from now on, so that a target
// that waits for its connections to end does not wait for ours.
func (i *idle) close() {
	i.mu.Lock()
	list := i.list
	i.list, i.shut = nil, true
	i.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
}

func (i *idle) reopen() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.shut = false
}

// active is every connection that the sweep looks after: to targets, and from clients.
type active struct {
	mu      sync.Mutex
	conns   map[*conn]struct{}
	clients map[*guarded]struct{}
}

func (a *active) add(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns == nil {
		a.conns = map[*conn]struct{}{}
	}
	a.conns[c] = struct{}{}
}

func (a *active) sweep(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var conns []*conn
	var clients []*guarded
	var lines []*line
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		conns, clients, lines = conns[:0], clients[:0], lines[:0]
		a.mu.Lock()
		for c := range a.conns {
			conns = append(conns, c)
		}
		for g := range a.clients {
			clients = append(clients, g)
			if g.line != nil {
				lines = append(lines, g.line)
			}
		}
		a.mu.Unlock()
		now := time.Now()
		for _, l := range lines { // before conns, which ask whether their client has gone
			l.look(now)
		}
		for _, c := range conns {
			c.look(now)
			if n%8 == 0 {
				c.rest(now)
			}
		}
		for _, g := range clients {
			g.look(now)
		}
		clear(conns)
		clear(clients)
		clear(lines)
	}
}

// rest ends an idle connection that is old, or that its target has closed. It is
// taken out before it is looked at: looking waits for whoever reads.
func (c *conn) rest(now time.Time) {
	c.mu.Lock()
	busy := c.ctx != nil
	if !busy && c.idle.IsZero() {
		c.idle = now
	}
	since := c.idle
	c.mu.Unlock()
	if busy || !c.t.conns.remove(c) {
		return
	}
	if now.Sub(since) > idleTime || !c.alive() || !c.t.conns.put(c) {
		c.Close()
	}
}

// dial opens a connection to t.
func (s *Server) dial(ctx context.Context, t *target, timeout time.Duration) (*conn, error) {
	d := net.Dialer{Timeout: timeout}
	n, err := d.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: n, t: t, home: &s.active}
	c.tcp = n.(*net.TCPConn)
	if c.raw, err = c.tcp.SyscallConn(); err != nil {
		n.Close()
		return nil, err
	}
	c.in.conn = n
	c.step = c.takeStep
	s.active.add(c)
	return c, nil
}

// keep gives c back for the next exchange.
func (c *conn) keep() {
	c.reused = true
	if !c.t.conns.put(c) {
		c.Close()
	}
}
