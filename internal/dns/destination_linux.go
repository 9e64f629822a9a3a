package dns

import (
	"encoding/binary"
	"net"
	"syscall"
)

// askDestination makes the kernel say with each packet which of our addresses it was sent
// to, if the socket is bound to all of them.
func askDestination(conn *net.UDPConn) bool {
	at, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok || !at.IP.IsUnspecified() {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	said := false
	err = raw.Control(func(fd uintptr) {
		// A socket of both kinds says it the way of IPv6 for IPv4, too.
		said = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1) == nil ||
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1) == nil
	})
	return err == nil && said
}

// sourceOf turns what the kernel said of a packet, in place, into what makes it send the
// answer from there, and returns its length; 0: it said nothing.
func sourceOf(oob []byte) int {
	const header = syscall.SizeofCmsghdr
	if len(oob) < header {
		return 0
	}
	// Native order: the header is the kernel's own struct.
	length := int(binary.NativeEndian.Uint64(oob))
	level, kind := int32(binary.NativeEndian.Uint32(oob[8:])), int32(binary.NativeEndian.Uint32(oob[12:]))
	switch {
	case level == syscall.IPPROTO_IP && kind == syscall.IP_PKTINFO && length == header+syscall.SizeofInet4Pktinfo:
		clear(oob[header : header+4]) // the interface: routes decide
	case level == syscall.IPPROTO_IPV6 && kind == syscall.IPV6_PKTINFO && length == header+syscall.SizeofInet6Pktinfo:
		if linkLocal := oob[header] == 0xfe && oob[header+1]&0xc0 == 0x80; !linkLocal {
			clear(oob[header+16 : header+20])
		}
	default:
		return 0
	}
	return min(syscall.CmsgSpace(length-header), len(oob))
}
