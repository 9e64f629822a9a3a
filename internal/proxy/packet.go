package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sessionIdle  = 30 * time.Second // a client's, where the port says no timeout.client
	sessionsMax  = 4096             // of one port; a packet from one client more is dropped
	packetMax    = 64 << 10
	packetBuffer = 4 << 20 // of the kernel, asked for; it may give less
)

// session is one client of a UDP port, with a socket of its own to its target.
type session struct {
	client netip.AddrPort
	target *target
	back   []byte // control message: answers come from the address that was asked
	conn   *net.UDPConn
	in     atomic.Uint64
	out    uint64
	moved  atomic.Int64 // unix nanoseconds of the last packet, either way
}

// acceptPackets carries datagrams until ctx ends, and then the answers of the
// sessions that there are, until these are idle.
func (s *Server) acceptPackets(ctx context.Context, p *port, c net.PacketConn, work *sync.WaitGroup) error {
	conn, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return fmt.Errorf("%T is no UDP socket", c)
	}
	_ = conn.SetReadBuffer(packetBuffer) // as much as the kernel allows
	askDestination(conn)
	// Not closed at the end: sessions answer by it. Another process may read from it by then.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	var mu sync.Mutex
	sessions := map[netip.AddrPort]*session{}
	var left sync.WaitGroup
	work.Go(func() {
		<-ctx.Done()
		left.Wait()
		conn.Close()
	})
	left.Add(1) // of this loop
	defer left.Done()
	buf, oob := make([]byte, packetMax), make([]byte, 128)
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			continue // an ICMP error of an answer that nobody took
		}
		mu.Lock()
		one := sessions[from]
		full := len(sessions) >= sessionsMax
		mu.Unlock()
		if one == nil || one.target.closed.Load() {
			before := one
			one = nil
			if !full || before != nil {
				one = s.session(p.spec.Load(), from, oob[:oobn])
			}
			if one == nil && before != nil && !before.target.isGone() {
				one = before // it drains, and nobody else is there
			}
			if one == nil {
				if pool := s.port(p.spec.Load().ID); pool != nil {
					pool.own.count(&outcome{failed: true})
				}
				continue
			}
			if one != before {
				mu.Lock()
				sessions[from] = one // what was before it has its last answers to bring
				mu.Unlock()
				left.Go(func() {
					began := time.Now()
					o := one.answers(conn, orElse(p.spec.Load().Timeout.Client, sessionIdle), s.ports.stop)
					mu.Lock()
					if sessions[from] == one {
						delete(sessions, from)
					}
					mu.Unlock()
					one.conn.Close()
					o.took, o.in, o.out = time.Since(began), one.in.Load(), one.out
					one.target.end(o)
				})
			}
		}
		one.moved.Store(time.Now().UnixNano())
		if _, err := one.conn.Write(buf[:n]); err == nil {
			one.in.Add(uint64(n))
		}
	}
}

// session chooses a target for a new client; nil: nothing serves.
func (s *Server) session(spec *Port, from netip.AddrPort, oob []byte) *session {
	pool := s.port(spec.ID)
	if pool == nil {
		return nil
	}
	k := pickKey{}
	if pool.mode == hashIP {
		k.hash = keyOfIP(from.Addr().Unmap())
	}
	t := pool.pick(k)
	if t == nil {
		return nil
	}
	to, err := net.ResolveUDPAddr("udp", t.address)
	if err == nil {
		var conn *net.UDPConn
		if conn, err = net.DialUDP("udp", nil, to); err == nil {
			one := &session{client: from, target: t, conn: conn, back: sourceOf(oob)}
			one.moved.Store(time.Now().UnixNano())
			return one
		}
	}
	t.end(&outcome{refused: true, again: true, reason: reasonOf(err)})
	return nil
}

// answers carries what the target says back, until nothing has moved for as
// long as idle, or a drain is over.
func (one *session) answers(listener *net.UDPConn, idle time.Duration, cut <-chan struct{}) *outcome {
	ended := make(chan struct{})
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer close(ended)
	waiting.Go(func() {
		select {
		case <-cut:
			one.conn.Close()
		case <-ended:
		}
	})
	buf := make([]byte, packetMax)
	for {
		until := time.Unix(0, one.moved.Load()).Add(idle)
		if one.conn.SetReadDeadline(until) != nil {
			return &outcome{cut: true}
		}
		n, err := one.conn.Read(buf)
		switch {
		case err == nil:
			one.moved.Store(time.Now().UnixNano())
			if _, _, err := listener.WriteMsgUDPAddrPort(buf[:n], one.back, one.client); err == nil {
				one.out += uint64(n)
			}
		case errors.Is(err, net.ErrClosed):
			return &outcome{cut: true}
		case !isDeadline(err):
			// Nobody is there, or no way leads there: the client's next packet goes to another one.
			return &outcome{refused: true, failed: true, reason: reasonOf(err)}
		case time.Unix(0, one.moved.Load()).Add(idle).After(time.Now()):
			// A packet went up meanwhile.
		default:
			return &outcome{}
		}
	}
}

// askDestination asks the kernel to say which of the host's addresses a packet
// was sent to: with several, an answer from another one is no answer.
func askDestination(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	// One of the two is not known to the socket, and without both answers leave by the route's address.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
}

// sourceOf turns what the kernel said of a packet into what to ask for its answer.
func sourceOf(oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			var i unix.Inet4Pktinfo
			copy(i.Spec_dst[:], m.Data[4:8]) // the host's own address, of a broadcast too
			return unix.PktInfo4(&i)
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			var i unix.Inet6Pktinfo
			copy(i.Addr[:], m.Data[:16])
			// Link-local addresses are one interface's.
			if netip.AddrFrom16(i.Addr).IsLinkLocalUnicast() {
				i.Ifindex = uint32(m.Data[16]) | uint32(m.Data[17])<<8 | uint32(m.Data[18])<<16 | uint32(m.Data[19])<<24
			}
			return unix.PktInfo6(&i)
		}
	}
	return nil
}
