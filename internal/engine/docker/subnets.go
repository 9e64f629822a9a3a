package docker

import (
	"encoding/binary"
	"encoding/hex"
	"iter"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// subnets are the /24s of a pool, in order.
func subnets(pool netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		base := pool.Masked().Addr().As4()
		first := binary.BigEndian.Uint32(base[:])
		for n := range uint32(1) << (24 - pool.Bits()) {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], first+n<<8)
			if !yield(netip.PrefixFrom(netip.AddrFrom4(a), 24)) {
				return
			}
		}
	}
}

// taken are the subnets that a new one must not overlap: those of the engine's
// networks, and, where the engine is on this host, its addresses and routes.
func (e *Engine) taken(there []network.Summary) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range there {
		for _, c := range n.IPAM.Config {
			if c.Subnet.IsValid() {
				out = append(out, c.Subnet)
			}
		}
	}
	if !strings.HasPrefix(e.host, "unix://") {
		return out
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, p.Masked())
			}
		}
	}
	if b, err := os.ReadFile("/proc/net/route"); err == nil {
		out = append(out, routes(string(b))...)
	}
	return out
}

// routes reads the form of /proc/net/route: destination and mask are little-endian hexadecimal.
func routes(table string) []netip.Prefix {
	var out []netip.Prefix
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		dst, err1 := hex.DecodeString(f[1])
		mask, err2 := hex.DecodeString(f[7])
		if err1 != nil || err2 != nil || len(dst) != 4 || len(mask) != 4 {
			continue
		}
		ones := bits.OnesCount32(binary.LittleEndian.Uint32(mask))
		if ones == 0 {
			continue // the default route covers everything
		}
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{dst[3], dst[2], dst[1], dst[0]}), ones).Masked())
	}
	return out
}
