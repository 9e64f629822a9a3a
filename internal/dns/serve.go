package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// idle is how long a connection may be silent.
	idle = 10 * time.Second
	// farewell is how long a connection may still take for a last query when the server ends.
	farewell = 300 * time.Millisecond
	// streams bounds the connections of one listener, streamsEach those of one client: one that
	// opens more does not keep others out.
	streams, streamsEach = 512, 64
	// queryMax is the longest query, in bytes: a name, its type, and EDNS.
	queryMax = 4096
)

// Serve answers on the given sockets until ctx ends or one of them breaks. It closes them,
// finishes what it has read, and returns nil if ctx has ended. A socket that is to live
// on in another process must have been duplicated before.
func (s *Server) Serve(ctx context.Context, packets []net.PacketConn, listeners []net.Listener) error {
	return s.serve(ctx, nil, packets, listeners)
}

func (s *Server) serve(ctx context.Context, in *inside, packets []net.PacketConn, listeners []net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if s.forward != nil {
		s.forward.own(packets, listeners)
	}
	var wg sync.WaitGroup
	run := func(end func() error, work func(context.Context) error) {
		stop := context.AfterFunc(ctx, func() { _ = end() })
		wg.Go(func() {
			defer stop()
			if err := work(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	for _, p := range packets {
		// Only reading ends with ctx, so that what was read can be answered.
		end := func() error { return p.SetReadDeadline(time.Unix(1, 0)) }
		if u, ok := p.(*net.UDPConn); ok {
			wild := askDestination(u)
			_ = u.SetReadBuffer(1 << 20) // for bursts; as much of it as the kernel gives
			for range min(runtime.GOMAXPROCS(0), 4) {
				run(end, func(ctx context.Context) error { return s.packets(ctx, in, &udp{conn: u, wild: wild}) })
			}
			continue
		}
		run(end, func(ctx context.Context) error { return s.packets(ctx, in, &anyPacket{conn: p}) })
	}
	for _, l := range listeners {
		run(l.Close, func(ctx context.Context) error { return s.accept(ctx, in, l) })
	}
	<-ctx.Done()
	wg.Wait()
	for _, p := range packets {
		_ = p.Close()
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// socket reads and writes packets. Only one goroutine uses it, but answer may be called from others.
type socket interface {
	read(p []byte) (n int, from netip.AddrPort, err error)
	// answerer returns a function that answers the packet read last, also later.
	answerer() func(msg []byte) error
	// answer answers the packet read last.
	answer(msg []byte) error
}

// packets answers what comes in on one socket until it is closed.
func (s *Server) packets(ctx context.Context, inside *inside, conn socket) error {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	x := exchange{inside: inside}
	in := make([]byte, queryMax)
	for {
		n, from, err := conn.read(in)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			// Linux hands us what ICMP said of an answer sent before: not this socket's end.
			if refused(err) {
				continue
			}
			return fmt.Errorf("read DNS queries: %w", err)
		}
		x.client, x.stream = from, false
		msg, more := s.ours(&x, in[:n])
		if more {
			// What is in the cache needs no wait, so no goroutine either.
			if msg = s.fresh(&x); msg == nil {
				msg = s.later(ctx, &waiting, &x, conn)
			}
		}
		if msg != nil && conn.answer(msg) != nil {
			s.count.dropped.Add(1)
		}
	}
}

// later asks upstream beside the loop. A message is returned if there are too many such already.
func (s *Server) later(ctx context.Context, waiting *sync.WaitGroup, x *exchange, conn socket) []byte {
	select {
	case s.busy <- struct{}{}:
	default:
		s.count.failed.Add(1)
		x.reply.start(x.out[:], &x.q, x.limit())
		return x.reply.finish(dns.RcodeServerFailure)
	}
	own := &exchange{q: x.q, client: x.client, inside: x.inside}
	own.q.question = append([]byte(nil), x.q.question...)
	answer := conn.answerer()
	waiting.Go(func() {
		defer func() { <-s.busy }()
		if msg := s.theirs(ctx, own); answer(msg) != nil {
			s.count.dropped.Add(1)
		}
	})
	return nil
}

// accept serves the connections of one listener.
func (s *Server) accept(ctx context.Context, in *inside, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex
	open, all := map[netip.Addr]int{}, 0
	// count adds to a client's connections, unless they are too many.
	count := func(a netip.Addr, by int) bool {
		mu.Lock()
		defer mu.Unlock()
		if by > 0 && (all >= streams || open[a] >= streamsEach) {
			return false
		}
		all += by
		if open[a] += by; open[a] == 0 {
			delete(open, a)
		}
		return true
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() || exhausted(err) {
				select { // for file descriptors, or for the end
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			}
			return fmt.Errorf("accept DNS connections: %w", err)
		}
		from := netip.AddrPort{}
		if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			from = a.AddrPort()
		}
		switch {
		case !s.allowed(in, from.Addr()):
			_ = conn.Close()
			s.count.refused.Add(1)
			continue
		case !count(from.Addr(), 1):
			_ = conn.Close()
			s.count.dropped.Add(1)
			continue
		}
		wg.Go(func() {
			defer count(from.Addr(), -1)
			stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now().Add(farewell)) })
			defer stop()
			defer conn.Close()
			s.stream(ctx, in, conn, from)
		})
	}
}

// stream answers the queries of one connection, one after the other.
func (s *Server) stream(ctx context.Context, inside *inside, conn net.Conn, from netip.AddrPort) {
	x := &exchange{client: from, stream: true, inside: inside}
	var length [2]byte
	in := make([]byte, queryMax)
	for {
		// At the end, a connection just accepted has a query on its way: that one is answered.
		if err := conn.SetReadDeadline(time.Now().Add(idle)); err != nil {
			return
		}
		last := ctx.Err() != nil
		if last {
			_ = conn.SetReadDeadline(time.Now().Add(farewell))
		}
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n > queryMax {
			s.count.malformed.Add(1)
			return
		}
		if _, err := io.ReadFull(conn, in[:n]); err != nil {
			return
		}
		msg, more := s.ours(x, in[:n])
		if more {
			msg = s.theirs(ctx, x)
		}
		if msg == nil {
			return
		}
		_ = conn.SetWriteDeadline(time.Now().Add(idle))
		out := net.Buffers{binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg}
		if _, err := out.WriteTo(conn); err != nil {
			s.count.dropped.Add(1)
			return
		}
		if last {
			return
		}
	}
}
