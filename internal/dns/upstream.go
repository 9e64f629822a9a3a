package dns

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// upstream is a resolver that is asked for names that are not ours.
type upstream struct {
	addr   netip.AddrPort
	failed time.Time
}

// parseUpstreams leaves out what is no address: New has checked what the user gave.
func parseUpstreams(list []string, port string) []*upstream {
	var out []*upstream
	for _, s := range list {
		if a, err := parseUpstream(s, port); err == nil {
			out = append(out, &upstream{addr: a})
		}
	}
	return out
}

func parseUpstream(s, port string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.ParseAddrPort(net.JoinHostPort(a.String(), port))
	}
	return netip.ParseAddrPort(s)
}

// own says which sockets we answer on, so that none of them is asked.
func (f *forwarder) own(packets []net.PacketConn, listeners []net.Listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	add := func(a net.Addr) {
		at, err := netip.ParseAddrPort(a.String())
		if at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port()); err == nil && !slices.Contains(f.mine, at) {
			f.mine = append(f.mine, at)
		}
	}
	for _, p := range packets {
		add(p.LocalAddr())
	}
	for _, l := range listeners {
		add(l.Addr())
	}
}

// upstreams returns who to ask: those first that answered last time.
func (f *forwarder) upstreams(now time.Time) []*upstream {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.fixed && now.Sub(f.read) >= rereading {
		f.read = now
		f.reread()
	}
	var good, bad []*upstream
	for _, u := range f.servers {
		switch {
		case f.isMine(u.addr):
		case now.Sub(u.failed) < resting:
			bad = append(bad, u)
		default:
			good = append(good, u)
		}
	}
	return append(good, bad...)
}

// reread takes the upstreams from the file if it has changed. What cannot be read changes nothing.
func (f *forwarder) reread() {
	info, err := os.Stat(f.path)
	if err != nil || info.ModTime().Equal(f.changed) {
		return
	}
	conf, err := dns.ClientConfigFromFile(f.path)
	if err != nil {
		f.log.Warn("read upstream resolvers", "path", f.path, "err", err)
		return
	}
	f.changed = info.ModTime()
	f.servers = parseUpstreams(conf.Servers, conf.Port)
}

// isMine reports whether an upstream is one of our own sockets. f.mu is held.
func (f *forwarder) isMine(a netip.AddrPort) bool {
	return slices.ContainsFunc(f.mine, func(m netip.AddrPort) bool {
		return m.Port() == a.Port() && (m.Addr() == a.Addr().Unmap() || m.Addr().IsUnspecified() && isHere(a.Addr()))
	})
}

// isHere reports whether an address is one of this host's.
func isHere(a netip.Addr) bool {
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addrs, func(x net.Addr) bool {
		p, err := netip.ParsePrefix(x.String())
		return err == nil && p.Addr() == a
	})
}

// rest notes when an upstream failed; the zero time: it has answered.
func (f *forwarder) rest(u *upstream, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u.failed = at
}
