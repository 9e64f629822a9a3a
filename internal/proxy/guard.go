package proxy

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// guarded is a client's connection that is closed when the client does not take
// what it is sent, or does not send the body that it announced.
type guarded struct {
	net.Conn
	home    *active
	addr    netip.Addr
	text    string       // addr
	timeout atomic.Int64 // of the client, in nanoseconds
	writing atomic.Int64 // since when, in unix nanoseconds; 0: it is not
	reading atomic.Int64 // a body, since when
	linger  atomic.Bool  // the client may be sending still as it closes
	early   []byte       // read by a line before it was passed on
	line    *line        // that it is; nil: it is net/http's
}

// lingerMax is for how long, and lingerBytes how much, is read of a client that is
// still sending: closed at once, it would lose the answer to a reset.
const (
	lingerMax   = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

func (g *guarded) Read(b []byte) (int, error) {
	if len(g.early) > 0 {
		n := copy(b, g.early)
		g.early = g.early[n:]
		return n, nil
	}
	return g.Conn.Read(b)
}

func (g *guarded) Write(b []byte) (int, error) {
	g.writing.Store(time.Now().UnixNano())
	n, err := g.Conn.Write(b)
	g.writing.Store(0)
	return n, err
}

// writeAll writes several pieces with one system call.
func (g *guarded) writeAll(b *net.Buffers) error {
	g.writing.Store(time.Now().UnixNano())
	_, err := b.WriteTo(g.Conn)
	g.writing.Store(0)
	return err
}

func (g *guarded) Close() error {
	if g.linger.Swap(false) && g.CloseWrite() == nil && g.Conn.SetReadDeadline(time.Now().Add(lingerMax)) == nil {
		_, _ = io.CopyN(io.Discard, g.Conn, lingerBytes) // until it has closed too, at best
	}
	return g.cut()
}

// cut closes at once.
func (g *guarded) cut() error {
	g.home.mu.Lock()
	delete(g.home.clients, g)
	g.home.mu.Unlock()
	return g.Conn.Close()
}

// CloseWrite ends one direction, as net/http wants it before it closes for good.
func (g *guarded) CloseWrite() error {
	if c, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// harshly makes the end of the connection a reset. In HTTP/1.0 the end of the
// connection may be that of the answer: one that is cut off would look whole.
func (g *guarded) harshly() {
	if c, ok := g.Conn.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
}

func (g *guarded) look(now time.Time) {
	late := now.UnixNano() - g.timeout.Load()
	if w := g.writing.Load(); w != 0 && w < late {
		_ = g.cut() // who is gone is closed
	} else if r := g.reading.Load(); r != 0 && r < late {
		_ = g.cut()
	}
}

// connections is how many clients have one open.
func (a *active) connections() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.clients)
}

// hurry lets clients be closed at once from here on.
func (a *active) hurry() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for g := range a.clients {
		g.linger.Store(false)
	}
}

type guard struct {
	net.Listener
	home *active
}

// guard wraps what l accepts.
func (s *Server) guard(l net.Listener) net.Listener { return &guard{l, &s.active} }

func (l *guard) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guarded{Conn: c, home: l.home}
	g.timeout.Store(int64(defaultClient))
	g.addr = addrOf(c.RemoteAddr())
	g.text = g.addr.String()
	l.home.mu.Lock()
	if l.home.clients == nil {
		l.home.clients = map[*guarded]struct{}{}
	}
	l.home.clients[g] = struct{}{}
	l.home.mu.Unlock()
	return g, nil
}

// addrOf is the address without port and zone; not valid where there is none.
func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		ip, _ := netip.AddrFromSlice(t.IP)
		return ip.Unmap()
	}
	if p, err := netip.ParseAddrPort(a.String()); err == nil {
		return p.Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

type guardKey struct{}

// withGuard is the front's ConnContext.
func withGuard(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	g, _ := c.(*guarded)
	return context.WithValue(ctx, guardKey{}, g)
}
