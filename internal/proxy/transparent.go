package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A transparent port connects to its targets from the client's own address. What
// a target answers goes to that address, by way of this host where the host is
// its router; there packets that belong to such a connection get a mark, and what
// has the mark is routed to the host itself. Rules touch marked packets alone.
const (
	ownMark = "0x2000000/0x2000000"
	// proofTimeout bounds the first try of a target whose answers may take another way; then it is
	// connected to from this host's address.
	proofTimeout = time.Second
	provenAgain  = 10 * time.Minute // until a target that could not is tried once more
)

// rules are the names of those that one server has in the kernel. Each has its own:
// what one takes back another of the same host needs still. The mark is shared, for
// it means the same.
type rules struct {
	chain string
	table string // number of the routing table, and of the rule that leads there
}

// firstTable is the number of server 0, the last is firstTable + MaxRules.
const (
	firstTable = 20537
	MaxRules   = 9999 // of Options.Rules
)

func rulesOf(n int) rules {
	r := rules{chain: "TENDER-EDGE", table: strconv.Itoa(firstTable + n)}
	if n != 0 {
		r.chain += "-" + strconv.Itoa(n)
	}
	return r
}

// transparency is whether and to whom connections keep the client's address.
type transparency struct {
	own     rules
	mu      sync.Mutex
	made    bool
	unable  string               // why the kernel's rules could not be made
	refused map[string]time.Time // targets whose answers did not come, by address
	proven  map[string]bool
	near    []*net.IPNet // the host's own addresses with their networks
	looked  time.Time
}

// lookAgain is how long the host's addresses are believed to be what they were.
const lookAgain = 5 * time.Second

var families = []struct {
	tables, flag, all string
}{
	{"iptables", "-4", "0.0.0.0/0"},
	{"ip6tables", "-6", "::/0"},
}

// ready makes the rules, once. The error says why addresses cannot be kept.
func (t *transparency) ready(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.made {
		t.made = true
		t.refused, t.proven = map[string]time.Time{}, map[string]bool{}
		if err := t.own.makeLasting(ctx); err != nil {
			t.unable = err.Error()
		}
	}
	if t.unable != "" {
		return errors.New(t.unable)
	}
	return nil
}

// again makes the rules again, because a target was proven that does not answer any
// more: somebody may have taken them away. It is to prove itself anew.
func (t *transparency) again(ctx context.Context, address string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.made || !t.proven[address] {
		return nil // dropped, or another connection was first
	}
	delete(t.proven, address)
	return t.own.makeLasting(ctx)
}

// makeLasting takes longer than one connection waits: the next ones need the rules too.
func (r rules) makeLasting(ctx context.Context) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	return r.make(limit)
}

// make makes those of IPv4, and those of IPv6 where the kernel can: a
// target over IPv6 without them is found out when it is tried.
func (r rules) make(ctx context.Context) error {
	err := r.makeFamily(ctx, families[0].tables, families[0].flag, families[0].all)
	if err == nil {
		_ = r.makeFamily(ctx, families[1].tables, families[1].flag, families[1].all)
	}
	return err
}

// makeFamily leaves what an edge before this one made.
func (r rules) makeFamily(ctx context.Context, tables, flag, all string) error {
	if run(ctx, tables, "-w", "5", "-t", "mangle", "-n", "-L", r.chain) != nil {
		if err := run(ctx, tables, "-w", "5", "-t", "mangle", "-N", r.chain); err != nil {
			return err
		}
	}
	for _, rule := range [][]string{
		{r.chain, "-p", "tcp", "-m", "socket", "--transparent", "-j", "MARK", "--set-mark", ownMark},
		{"PREROUTING", "-p", "tcp", "-j", r.chain},
	} {
		if run(ctx, tables, append([]string{"-w", "5", "-t", "mangle", "-C"}, rule...)...) == nil {
			continue
		}
		if err := run(ctx, tables, append([]string{"-w", "5", "-t", "mangle", "-A"}, rule...)...); err != nil {
			return err
		}
	}
	if err := run(ctx, "ip", flag, "route", "replace", "local", all, "dev", "lo", "table", r.table); err != nil {
		return err
	}
	have, err := exec.CommandContext(ctx, "ip", flag, "rule", "show", "priority", r.table).Output()
	if err != nil {
		return fmt.Errorf("ip rule show: %w", err)
	}
	if len(strings.TrimSpace(string(have))) > 0 {
		return nil
	}
	return run(ctx, "ip", flag, "rule", "add", "fwmark", ownMark, "lookup", r.table, "priority", r.table)
}

// drop takes the rules back; what is not there is no error.
func (t *transparency) drop(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.made {
		return
	}
	t.made = false
	for _, f := range families {
		for _, args := range [][]string{
			{f.tables, "-w", "5", "-t", "mangle", "-D", "PREROUTING", "-p", "tcp", "-j", t.own.chain},
			{f.tables, "-w", "5", "-t", "mangle", "-F", t.own.chain},
			{f.tables, "-w", "5", "-t", "mangle", "-X", t.own.chain},
			{"ip", f.flag, "rule", "del", "priority", t.own.table},
			{"ip", f.flag, "route", "flush", "table", t.own.table},
		} {
			_ = run(ctx, args[0], args[1:]...)
		}
	}
}

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// keeps says whether a connection to address may be tried from the client's own
// address, and for how long.
func (t *transparency) keeps(address string, client netip.Addr, now time.Time) (limit time.Duration, ok bool) {
	target, err := netip.ParseAddrPort(address)
	if err != nil || !client.IsValid() || client.IsLoopback() || client.Is4() != target.Addr().Unmap().Is4() || target.Addr().IsLoopback() {
		return 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.foreign(client, target.Addr().Unmap(), now) {
		return 0, false
	}
	if t.proven[address] {
		return 0, true
	}
	if since, no := t.refused[address]; no && now.Sub(since) < provenAgain {
		return 0, false
	}
	return proofTimeout, true
}

// learn notes how a try ended.
func (t *transparency) learn(address string, ok bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.proven)+len(t.refused) > 4096 { // instances come and go
		clear(t.proven)
		clear(t.refused)
	}
	if ok {
		t.proven[address] = true
		return
	}
	delete(t.proven, address)
	t.refused[address] = now
}

// foreign reports whether the client is neither this host nor in the target's own
// network, where the answer would not pass this host. t.mu is held.
func (t *transparency) foreign(client, target netip.Addr, now time.Time) bool {
	if now.Sub(t.looked) > lookAgain {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return false
		}
		t.near, t.looked = nil, now
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				t.near = append(t.near, n)
			}
		}
	}
	for _, n := range t.near {
		own, _ := netip.AddrFromSlice(n.IP)
		if own.Unmap() == client || n.Contains(client.AsSlice()) && n.Contains(target.AsSlice()) {
			return false
		}
	}
	return true
}

// dialAs connects from another host's address.
func dialAs(ctx context.Context, client netip.Addr, address string) (net.Conn, error) {
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0)),
		Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) {
				level, option := unix.SOL_IP, unix.IP_TRANSPARENT
				if client.Is6() {
					level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
				}
				failed = unix.SetsockoptInt(int(fd), level, option, 1)
				if failed == nil {
					// The port is chosen as it connects, so that many clients do not use them up.
					failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
				}
			})
			return errors.Join(err, failed)
		},
	}
	return d.DialContext(ctx, "tcp", address)
}

// dialPort connects to a target, from the client's own address where the port
// asks for it and the way back leads here.
func (s *Server) dialPort(ctx context.Context, spec *Port, address string, from netip.AddrPort) (*net.TCPConn, error) {
	if spec.Transparent {
		if c := s.dialTransparent(ctx, spec, address, from.Addr()); c != nil {
			return c, nil
		}
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return asTCP(spec, c)
}

func asTCP(spec *Port, c net.Conn) (*net.TCPConn, error) {
	conn, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("%s: %T is no TCP connection", spec.ID, c)
	}
	return conn, nil
}

// dialTransparent returns nil where the client's address cannot be kept.
func (s *Server) dialTransparent(ctx context.Context, spec *Port, address string, client netip.Addr) *net.TCPConn {
	limit, ok := s.transparent.keeps(address, client, time.Now())
	if !ok {
		return nil
	}
	if err := s.transparent.ready(ctx); err != nil {
		s.sayOpaque(spec, address, err)
		return nil
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	c, err := dialAs(ctx, client, address)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil // the answer came: it is the target that does not serve
	}
	if err != nil && limit == 0 && isDeadline(err) {
		// The next try, which has proofTimeout, says whether that was it.
		if err := s.transparent.again(ctx, address); err != nil {
			s.log.Warn("the rules that keep clients' addresses cannot be made again", "err", err)
		}
		return nil
	}
	if err != nil {
		s.sayOpaque(spec, address, err)
		return nil
	}
	s.transparent.learn(address, true, time.Now())
	conn, err := asTCP(spec, c)
	if err != nil {
		return nil
	}
	return conn
}

// sayOpaque says once in a while that a target does not see its clients.
func (s *Server) sayOpaque(spec *Port, address string, err error) {
	s.transparent.learn(address, false, time.Now())
	s.log.Warn("the client's address is not kept; the service sees this host's", "port", spec.ID, "target", address, "err", err)
}
