package collect

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
)

const (
	maxConns     = 256              // of one kind of sender
	maxMessage   = 1 << 20          // bytes of what one message is made of
	maxDatagram  = 64 << 10         // bytes
	connPatience = 10 * time.Minute // without a byte
)

// Listen takes in what others send with one protocol: "syslog", "gelf" or "fluent",
// on TCP, with TLS or without, and, but for fluent, on UDP. In the clear it is taken
// from this host and private networks alone. It returns when ctx ends. Conflict: the
// address is taken.
func (c *Collector) Listen(ctx context.Context, protocol, address string) error {
	taken := func(err error) error {
		return tender.Errorf(tender.Conflict, "listen for %s: %w", protocol, err).Hint("choose another address: tender serve --%s 127.0.0.1:PORT", protocol)
	}
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return taken(err)
	}
	var udp net.PacketConn
	if protocol != "fluent" {
		if udp, err = net.ListenPacket("udp", address); err != nil {
			tcp.Close()
			return taken(err)
		}
	}
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	work.Go(func() {
		<-ctx.Done()
		tcp.Close()
		if udp != nil {
			udp.Close()
		}
	})
	if udp != nil {
		work.Go(func() { c.datagrams(ctx, protocol, udp) })
	}
	conns := make(chan struct{}, maxConns)
	for {
		conn, aerr := tcp.Accept()
		if aerr != nil {
			if ctx.Err() == nil {
				err = fmt.Errorf("listen for %s: %w", protocol, aerr)
			}
			break
		}
		select {
		case conns <- struct{}{}:
		default: // enough of them
			conn.Close()
			continue
		}
		work.Go(func() {
			defer func() { <-conns }()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			if err := c.serve(ctx, protocol, conn); ctx.Err() == nil && !errors.Is(err, io.EOF) {
				c.log.Debug("a sender was cut off", "protocol", protocol, "from", conn.RemoteAddr(), "err", err)
			}
		})
	}
	cancel()
	work.Wait()
	return err
}

// patient closes what is silent for too long.
type patient struct{ net.Conn }

func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(connPatience)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

// serve takes in what one connection sends, and returns why that has ended.
func (c *Collector) serve(ctx context.Context, protocol string, conn net.Conn) error {
	in := bufio.NewReaderSize(patient{conn}, 64<<10)
	from := host(conn.RemoteAddr())
	first, err := in.Peek(1)
	switch {
	case err != nil:
		return err
	case first[0] == handshake && c.o.TLS == nil:
		return errors.New("it speaks TLS, and tls.cert and tls.key are not set")
	case first[0] == handshake:
		sealed := tls.Server(begun{conn, in}, c.o.TLS)
		limit, cancel := context.WithTimeout(ctx, handshakePatience)
		err := sealed.HandshakeContext(limit)
		cancel()
		if err != nil {
			return err
		}
		conn, in = sealed, bufio.NewReaderSize(patient{sealed}, 64<<10)
	case !near(conn.RemoteAddr()):
		c.farAway(protocol, from)
		return errors.New("in the clear, and not from a private network")
	}
	switch protocol {
	case "syslog":
		return eachSyslog(in, func(line []byte) error { return c.put(ctx, c.syslog(line, from, time.Now())) })
	case "gelf":
		return eachEnded(in, 0, func(m []byte) error { return c.gelf(ctx, m, from, time.Now()) })
	default:
		return c.fluent(ctx, in, conn, from)
	}
}

const (
	handshake         = 0x16 // begins TLS, and no message of any of the protocols
	handshakePatience = 10 * time.Second
)

// begun is a connection of which something was read ahead.
type begun struct {
	net.Conn
	in *bufio.Reader
}

func (b begun) Read(p []byte) (int, error) { return b.in.Read(p) }

// near says that a is this host, or in a private network: there, in the clear is what
// syslog and GELF are used as.
func near(a net.Addr) bool {
	ip, err := netip.ParseAddr(host(a))
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || shared.Contains(ip)
}

// shared are the addresses of carriers' and overlay networks (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// farAway says once that lines are not taken.
func (c *Collector) farAway(protocol, from string) {
	if _, said := c.told.LoadOrStore("far "+protocol, true); !said {
		c.log.Warn("lines in the clear are not taken from beyond private networks: send them over TLS", "protocol", protocol, "from", from)
	}
}

func (c *Collector) datagrams(ctx context.Context, protocol string, conn net.PacketConn) {
	buf := make([]byte, maxDatagram)
	var chunks chunked
	for {
		n, addr, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			continue
		}
		from, now := host(addr), time.Now()
		if !near(addr) {
			c.farAway(protocol, from)
			continue
		}
		if protocol == "syslog" {
			c.offer(c.syslog(bytes.TrimRight(buf[:n], "\r\n\x00"), from, now))
			continue
		}
		if m, ok := chunks.add(buf[:n], now); ok {
			// Nobody can be told to wait: what there is no room for is counted.
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			_ = c.gelf(short, m, from, now) // what is no GELF is not kept
			cancel()
		}
	}
}

func host(a net.Addr) string {
	h, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return h
}

// eachEnded reads messages that end with a byte.
func eachEnded(in *bufio.Reader, end byte, take func([]byte) error) error {
	var have []byte
	for {
		part, err := in.ReadSlice(end)
		have = append(have, part...)
		switch {
		case len(have) > maxMessage:
			return fmt.Errorf("a message is longer than %d bytes", maxMessage)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && len(have) == 0:
			return err
		}
		if m := bytes.TrimSuffix(have, []byte{end}); len(m) > 0 {
			if terr := take(m); terr != nil {
				return terr
			}
		}
		have = have[:0]
		if err != nil {
			return err
		}
	}
}

// oneLine is s without what would break a line.
func oneLine(s string) string { return strings.TrimRight(s, "\r\n\x00") }
