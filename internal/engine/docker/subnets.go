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

// subnets are the /23s of a pool, in order; of a pool of 24 bits, itself.
func subnets(pool netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		base := pool.Masked().Addr().As4()
		first := binary.BigEndian.Uint32(base[:])
		bits := max(pool.Bits(), 23)
		for n := range uint32(1) << (bits - pool.Bits()) {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], first+n<<(32-bits))
			if !yield(netip.PrefixFrom(netip.AddrFrom4(a), bits)) {
				return
			}
		}
	}
}

// halves divides a /23: the engine gives out the lower half by itself, Tender
// the upper one. An address that is somebody's own must not be one that the engine
// gives to another while he is stopped: he could not start again.
func halves(subnet netip.Prefix) (engines, ours netip.Prefix, ok bool) {
	if subnet.Bits() != 23 {
		return engines, ours, false
	}
	a := subnet.Addr().As4()
	a[2]++
	return netip.PrefixFrom(subnet.Addr(), 24), netip.PrefixFrom(netip.AddrFrom4(a), 24), true
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
