package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol, versions 1 and 2, as HAProxy's doc/proxy-protocol.txt
// describes it: who the client is, in front of what it sends.

// header2 begins a header of version 2.
var header2 = []byte("\r\n\r\n\x00\r\nQUIT\n")

const (
	// header1Max is the longest line of version 1, with its end.
	header1Max = 107
	// header2Max bounds what follows the first 16 bytes of version 2; addresses take 36, extensions the rest.
	header2Max = 4096
)

// errHeader is a client that does not begin with a header, or with a broken one.
var errHeader = errors.New("no PROXY header")

// readHeader reads one header and no byte more. local: the proxy in front speaks
// for itself, as in a health check, or does not know the client.
func readHeader(r io.Reader) (source, destination netip.AddrPort, local bool, err error) {
	// The shortest header of version 1 is longer than this: PROXY UNKNOWN and the end of its line.
	var head [15]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return source, destination, false, fmt.Errorf("%w: %w", errHeader, err)
	}
	if bytes.HasPrefix(head[:], header2) {
		return readHeader2(r, head)
	}
	if !bytes.HasPrefix(head[:], []byte("PROXY ")) {
		return source, destination, false, errHeader
	}
	line := append(make([]byte, 0, header1Max), head[:]...)
	var one [1]byte
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) == header1Max || bytes.IndexByte(line, '\n') >= 0 {
			return source, destination, false, fmt.Errorf("%w: its line does not end", errHeader)
		}
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return source, destination, false, fmt.Errorf("%w: %w", errHeader, err)
		}
		line = append(line, one[0])
	}
	return parseHeader1(string(line[:len(line)-2]))
}

// parseHeader1 reads a line of version 1, without its end.
func parseHeader1(line string) (source, destination netip.AddrPort, local bool, err error) {
	f := strings.Split(line, " ")
	if len(f) >= 2 && f[0] == "PROXY" && f[1] == "UNKNOWN" {
		return source, destination, true, nil
	}
	if len(f) != 6 || f[0] != "PROXY" || f[1] != "TCP4" && f[1] != "TCP6" {
		return source, destination, false, fmt.Errorf("%w: %q", errHeader, line)
	}
	var at [2]netip.AddrPort
	for i := range at {
		ip, err := netip.ParseAddr(f[2+i])
		if err != nil || ip.Is4() != (f[1] == "TCP4") || ip.Zone() != "" {
			return source, destination, false, fmt.Errorf("%w: address %q", errHeader, f[2+i])
		}
		port, err := strconv.ParseUint(f[4+i], 10, 16)
		if err != nil || f[4+i] != strconv.FormatUint(port, 10) {
			return source, destination, false, fmt.Errorf("%w: port %q", errHeader, f[4+i])
		}
		at[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return at[0], at[1], false, nil
}

func readHeader2(r io.Reader, head [15]byte) (source, destination netip.AddrPort, local bool, err error) {
	var last [1]byte
	if _, err := io.ReadFull(r, last[:]); err != nil {
		return source, destination, false, fmt.Errorf("%w: %w", errHeader, err)
	}
	n := int(binary.BigEndian.Uint16([]byte{head[14], last[0]}))
	if n > header2Max {
		return source, destination, false, fmt.Errorf("%w: %d bytes of it", errHeader, n)
	}
	rest := make([]byte, n)
	if _, err := io.ReadFull(r, rest); err != nil {
		return source, destination, false, fmt.Errorf("%w: %w", errHeader, err)
	}
	version, command, family := head[12]>>4, head[12]&0xf, head[13]
	if version != 2 || command > 1 {
		return source, destination, false, fmt.Errorf("%w: version %d, command %d", errHeader, version, command)
	}
	if command == 0 {
		return source, destination, true, nil
	}
	size := 0
	switch family >> 4 {
	case 0, 3: // not said, or a unix socket: who it is cannot be passed on
		return source, destination, true, nil
	case 1:
		size = 4
	case 2:
		size = 16
	default:
		return source, destination, false, fmt.Errorf("%w: family %#x", errHeader, family)
	}
	if len(rest) < 2*size+4 {
		return source, destination, false, fmt.Errorf("%w: addresses of %d bytes", errHeader, len(rest))
	}
	at := func(i int) netip.AddrPort {
		ip, _ := netip.AddrFromSlice(rest[i*size : (i+1)*size]) // its size is one of two
		return netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(rest[2*size+2*i:]))
	}
	return at(0), at(1), false, nil
}

// appendHeader appends a header of version 1 or 2 that says who the client is
// and what it asked for.
func appendHeader(b []byte, version int, source, destination netip.AddrPort) []byte {
	from, to := source.Addr().Unmap().WithZone(""), destination.Addr().Unmap().WithZone("")
	if from.Is4() != to.Is4() { // one family for both
		from, to = netip.AddrFrom16(from.As16()), netip.AddrFrom16(to.As16())
	}
	if version == 1 {
		family := "TCP6"
		if from.Is4() {
			family = "TCP4"
		}
		return fmt.Appendf(b, "PROXY %s %s %s %d %d\r\n", family, from, to, source.Port(), destination.Port())
	}
	b = append(b, header2...)
	b = append(b, 0x21) // version 2, PROXY
	if from.Is4() {
		b = append(b, 0x11, 0, 12) // TCP over IPv4
	} else {
		b = append(b, 0x21, 0, 36) // TCP over IPv6
	}
	b = append(b, from.AsSlice()...)
	b = append(b, to.AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, source.Port())
	return binary.BigEndian.AppendUint16(b, destination.Port())
}
