package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	portRoom      = 16384                  // connections of one TCP port at a time; more wait in the kernel
	headerTimeout = 5 * time.Second        // for a client's PROXY header
	dialTimeout   = 5 * time.Second        // timeout.connect
	queueTimeout  = 30 * time.Second       // timeout.queue
	tunnelTimeout = time.Hour              // timeout.tunnel
	dialAgain     = 100 * time.Millisecond // after all targets refused
)

// acceptStreams takes connections until ctx ends, and hands each to a goroutine
// of work. What the kernel has handed out by then is served.
func (s *Server) acceptStreams(ctx context.Context, p *port, l net.Listener, work *sync.WaitGroup) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	wait := time.Duration(0)
	for {
		// Before there is a connection: whoever closes the port waits for this loop.
		select {
		case p.room <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := l.Accept()
		if err != nil {
			<-p.room
			if ctx.Err() != nil {
				return nil
			}
			if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) && !errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.ENOBUFS) {
				return err
			}
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			continue
		}
		wait = 0
		conn, ok := c.(*net.TCPConn)
		if !ok {
			<-p.room
			c.Close()
			return fmt.Errorf("%T is no TCP connection", c)
		}
		work.Go(func() {
			defer func() { <-p.room }()
			s.stream(p.spec.Load(), conn)
		})
	}
}

// stream carries one connection from its first byte to its last.
func (s *Server) stream(spec *Port, client *net.TCPConn) {
	defer client.Close()
	began := time.Now()
	from, to := addrPort(client.RemoteAddr()), addrPort(client.LocalAddr())
	if spec.ProxyIn {
		if client.SetReadDeadline(began.Add(headerTimeout)) != nil {
			return
		}
		source, destination, local, err := readHeader(client)
		if err != nil {
			s.log.Debug("connection without a PROXY header refused", "port", spec.ID, "client", from, "err", err)
			return
		}
		if !local && s.table.Load().trusted.has(from.Addr()) {
			from, to = source, destination
		}
		if client.SetReadDeadline(time.Time{}) != nil {
			return
		}
	}
	t, server := s.reach(spec, client, from, began)
	if server == nil {
		return
	}
	defer server.Close()
	o := s.join(spec, client, server, from, to)
	o.took = time.Since(began)
	t.end(o)
}

// reach connects to a target, and to another one where that refuses. It waits
// where nothing serves, up to timeout.queue. The caller ends the target.
func (s *Server) reach(spec *Port, client *net.TCPConn, from netip.AddrPort, began time.Time) (*target, *net.TCPConn) {
	ctx, cancel := context.WithTimeout(context.Background(), orElse(spec.Timeout.Queue, queueTimeout))
	defer cancel()
	var l *ledger
	waiting := false
	wait := func(c <-chan struct{}, d time.Duration) bool {
		if l != nil && !waiting {
			waiting = true
			l.waiting.Add(1)
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-c:
		case <-timer.C:
		case <-s.ports.stop:
			return false
		case <-ctx.Done():
			return false
		}
		// Who has gone meanwhile is not connected for nothing.
		return !hungUp(client)
	}
	defer func() {
		if waiting {
			l.waiting.Add(-1)
		}
	}()
	var k pickKey
	for {
		changed := s.change()
		pool := s.port(spec.ID)
		if pool == nil {
			return nil, nil // the port has left the table
		}
		l = pool.ledger
		if pool.mode == hashIP {
			k.hash = keyOfIP(from.Addr())
		}
		t := pool.pick(k)
		if t == nil && len(k.not) > 0 {
			// All were tried: from the start, a little later.
			k.not = nil
			if wait(nil, dialAgain) {
				continue
			}
		} else if t == nil {
			if wait(changed, dialTimeout) {
				continue
			}
		} else {
			limit, done := context.WithTimeout(ctx, orElse(spec.Timeout.Connect, dialTimeout))
			server, err := s.dialPort(limit, spec, t.address, from)
			done()
			if err == nil {
				return t, server
			}
			t.end(&outcome{refused: true, again: true, reason: reasonOf(err)})
			k.not = append(k.not, t)
			continue
		}
		l.own.count(&outcome{failed: true, took: time.Since(began), reason: "nothing serves"})
		return nil, nil
	}
}

// hungUp reports whether the client has closed or reset the connection. One
// that has closed its half alone counts as gone only if it has sent nothing.
func hungUp(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	var b [1]byte
	err = raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = n == 0 && err == nil || err != nil && err != unix.EAGAIN && err != unix.EINTR
	})
	return gone || err != nil
}

// splice is two connections whose bytes the kernel passes on.
type splice struct {
	client, server *net.TCPConn
	cut            atomic.Bool // a drain ended it
	late           atomic.Bool // nothing has moved for too long
}

// join copies both ways until both ends are done. Between two TCP sockets the
// bytes stay in the kernel (splice), so nobody sees them pass: what moves is
// asked of the sockets, when the time is up.
func (s *Server) join(spec *Port, client, server *net.TCPConn, from, to netip.AddrPort) *outcome {
	if spec.ProxyOut != 0 {
		if _, err := server.Write(appendHeader(nil, spec.ProxyOut, from, to)); err != nil {
			return &outcome{failed: true, reason: reasonOf(err)}
		}
	}
	p := &splice{client: client, server: server}
	if !s.ports.join(p) {
		return &outcome{cut: true}
	}
	defer s.ports.part(p)
	watch := p.watch(spec)
	defer watch.Stop()

	var o outcome
	var up sync.WaitGroup
	var upErr, downErr error
	up.Go(func() { o.in, upErr = p.pass(server, client) })
	o.out, downErr = p.pass(client, server)
	up.Wait()
	switch {
	case p.cut.Load():
		o.cut = true
	case p.late.Load():
	case (upErr != nil || downErr != nil) && closedByPeer(server):
		o.failed, o.reason = true, reasonOf(errors.Join(downErr, upErr))
	}
	return &o
}

// pass copies one way. An end is passed on as an end, and a reset as a reset:
// the other side must not take half of something for the whole.
func (p *splice) pass(to, from *net.TCPConn) (n uint64, err error) {
	copied, err := io.Copy(to, from)
	if err == nil {
		// It fails where the other side has gone, which the other direction learns too.
		_ = to.CloseWrite()
		return uint64(copied), nil
	}
	p.reset()
	return uint64(copied), err
}

// reset ends both connections at once.
func (p *splice) reset() {
	for _, c := range []*net.TCPConn{p.client, p.server} {
		// Deadlines wake who is in the middle of it; the close is the caller's, after a look at who was first.
		_ = c.SetLinger(0)
		_ = c.SetDeadline(time.Unix(1, 0))
	}
}

// watch resets it once nothing has moved for as long as the port allows.
func (p *splice) watch(spec *Port) *time.Timer {
	tunnel := orElse(spec.Timeout.Tunnel, tunnelTimeout)
	// As long as either side sends, the other one only listens: that is no inactivity.
	limit := min(orElse(spec.Timeout.Client, tunnel), orElse(spec.Timeout.Server, tunnel))
	var mu sync.Mutex // the timer may go off before it is there
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(limit, func() {
		mu.Lock()
		defer mu.Unlock()
		c, s := silent(p.client), silent(p.server)
		if min(c, s) >= limit {
			p.late.Store(true)
			p.reset()
			return
		}
		timer.Reset(max(limit-min(c, s), 10*time.Millisecond))
	})
	return timer
}

// silent is for how long nothing has been received.
func silent(c *net.TCPConn) time.Duration {
	i := tcpInfo(c)
	if i == nil {
		return 1<<63 - 1
	}
	return time.Duration(i.Last_data_recv) * time.Millisecond
}

// closedByPeer reports whether the kernel has given the connection up: it was
// reset, or nobody answered.
func closedByPeer(c *net.TCPConn) bool {
	const closed = 7 // TCP_CLOSE of linux/tcp_states.h
	i := tcpInfo(c)
	return i != nil && i.State == closed
}

func tcpInfo(c *net.TCPConn) (i *unix.TCPInfo) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	err = raw.Control(func(fd uintptr) { i, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil {
		return nil
	}
	return i
}

// reasonOf is an error in the few words that reports have.
func reasonOf(err error) string {
	var no syscall.Errno
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.As(err, &no):
		return no.Error()
	}
	return err.Error()
}
