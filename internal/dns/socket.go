package dns

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// udp is a UDP socket that answers from the address that was asked, which the kernel does not
// do by itself where a socket is bound to all of them.
type udp struct {
	conn *net.UDPConn
	wild bool
	from netip.AddrPort
	oob  [64]byte
	oobN int
}

func (u *udp) read(p []byte) (int, netip.AddrPort, error) {
	if !u.wild {
		n, from, err := u.conn.ReadFromUDPAddrPort(p)
		u.from = from
		return n, from, err
	}
	n, oobN, _, from, err := u.conn.ReadMsgUDPAddrPort(p, u.oob[:])
	u.from, u.oobN = from, sourceOf(u.oob[:oobN])
	return n, from, err
}

func (u *udp) answer(msg []byte) error {
	if u.oobN == 0 {
		_, err := u.conn.WriteToUDPAddrPort(msg, u.from)
		return err
	}
	_, _, err := u.conn.WriteMsgUDPAddrPort(msg, u.oob[:u.oobN], u.from)
	return err
}

func (u *udp) answerer() func([]byte) error {
	own := *u
	return func(msg []byte) error { return own.answer(msg) }
}

// anyPacket is any other packet socket.
type anyPacket struct {
	conn net.PacketConn
	from net.Addr
}

func (a *anyPacket) read(p []byte) (int, netip.AddrPort, error) {
	n, from, err := a.conn.ReadFrom(p)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	a.from = from
	at, _ := netip.ParseAddrPort(from.String()) // where it is none, nobody is allowed
	return n, at, nil
}

func (a *anyPacket) answer(msg []byte) error {
	_, err := a.conn.WriteTo(msg, a.from)
	return err
}

func (a *anyPacket) answerer() func([]byte) error {
	own := *a
	return func(msg []byte) error { return own.answer(msg) }
}

func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}
