package proxy

import (
	"hash/maphash"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
)

// pool is the groups of one route or port in one table. A new table makes new
// pools around the same targets.
type pool struct {
	*ledger
	mode   balance
	by     string // the header or cookie of hash:header and hash:cookie
	groups []*group

	mu sync.Mutex // guards the groups' current
}

type group struct {
	aim, revision string
	weight        int
	cookie        string // its part of a sticky cookie
	hash          uint64
	targets       []*target
	next          atomic.Uint64
	current       int // of the smooth round robin between groups
}

type balance uint8

const (
	roundRobin balance = iota
	leastConn
	randomTwo
	hashIP
	hashHeader
	hashCookie
)

// parseBalance reads RouteOptions.Balance.
func parseBalance(s string) (mode balance, by string, ok bool) {
	switch s {
	case "", "round-robin":
		return roundRobin, "", true
	case "least-conn":
		return leastConn, "", true
	case "random-two":
		return randomTwo, "", true
	case "hash:ip":
		return hashIP, "", true
	}
	if by, found := strings.CutPrefix(s, "hash:header:"); found && by != "" {
		return hashHeader, by, true
	}
	if by, found := strings.CutPrefix(s, "hash:cookie:"); found && by != "" {
		return hashCookie, by, true
	}
	return 0, "", false
}

// pickKey is what a choice depends on. Its zero value asks for any target.
type pickKey struct {
	hash     uint64    // of what hash balance goes by; 0: there is none, so round robin decides
	sticky   string    // value of the sticky cookie
	revision string    // only this one, whatever its weight
	not      []*target // tried already
}

// keyOf hashes what hash balance goes by.
func keyOf(s string) uint64 { return stable(s) | 1 }

// keyOfIP is keyOf for hash:ip.
func keyOfIP(a netip.Addr) uint64 {
	b := a.Unmap().As16()
	return stable(string(b[:])) | 1
}

// stable is FNV-1a with a final mix: the same in every process, so that clients
// keep their targets when the edge is upgraded.
func stable(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// pick chooses a target and counts the caller in at it; the caller must end it.
// nil: nothing serves.
//
// Ejection bounds how much a failing target gets, never whether a request is
// tried at all: where every target is ejected, they are asked all the same.
func (p *pool) pick(k pickKey) *target {
	for {
		t := p.choose(k, false)
		if t == nil {
			if t = p.choose(k, true); t == nil {
				return nil
			}
		}
		if t.begin() {
			return t
		}
		// It left between the choice and the count: it is no choice any more.
	}
}

func (p *pool) choose(k pickKey, eager bool) *target {
	if k.revision != "" {
		for _, g := range p.groups {
			if g.revision == k.revision {
				if t := g.choose(p.mode, k, eager); t != nil {
					return t
				}
			}
		}
		return nil
	}
	if k.sticky != "" {
		if t := p.stuck(k, eager); t != nil {
			return t
		}
	}
	if len(p.groups) == 1 {
		if g := p.groups[0]; g.weight > 0 {
			return g.choose(p.mode, k, eager)
		}
		return nil
	}
	if g := p.share(k, eager); g != nil {
		return g.choose(p.mode, k, eager)
	}
	return nil
}

// share chooses a group by weight. The smooth weighted round robin of nginx
// gives exact shares, evenly spread; with hash balance the same key goes to the
// same group, and as few as possible move when weights do (weighted rendezvous).
func (p *pool) share(k pickKey, eager bool) *group {
	var best *group
	if k.hash != 0 && p.mode >= hashIP {
		score := 0.0
		for _, g := range p.groups {
			if g.weight <= 0 || !g.serves(k, eager) {
				continue
			}
			u := (float64(mix(k.hash^g.hash)>>11) + .5) / (1 << 53)
			if s := float64(g.weight) / -math.Log(u); best == nil || s > score {
				best, score = g, s
			}
		}
		return best
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	total := 0
	for _, g := range p.groups {
		if g.weight <= 0 || !g.serves(k, eager) {
			continue
		}
		total += g.weight
		g.current += g.weight
		if best == nil || g.current > best.current {
			best = g
		}
	}
	if best != nil {
		best.current -= total
	}
	return best
}

// stuck finds what a sticky cookie binds to: the instance, else its revision, else its aim.
func (p *pool) stuck(k pickKey, eager bool) *target {
	which, instance, ok := strings.Cut(k.sticky, "-")
	aim, _, both := strings.Cut(which, ".")
	if !ok || !both {
		return nil
	}
	var revision, same *group
	for _, g := range p.groups {
		if !g.serves(k, eager) {
			continue
		}
		if g.cookie == which {
			for _, t := range g.targets {
				if t.cookie == instance && !has(k.not, t) && t.serves(eager) {
					return t
				}
			}
			revision = g
		} else if a, _, _ := strings.Cut(g.cookie, "."); a == aim && g.weight > 0 && same == nil {
			same = g
		}
	}
	switch {
	case revision != nil:
		return revision.choose(p.mode, k, eager)
	case same != nil:
		return same.choose(p.mode, k, eager)
	}
	return nil
}

// stick is the value of the sticky cookie that binds to t.
func (p *pool) stick(t *target) string {
	for _, g := range p.groups {
		if g.aim == t.aim && g.revision == t.revision {
			return g.cookie + "-" + t.cookie
		}
	}
	return ""
}

func has(list []*target, t *target) bool {
	for _, o := range list {
		if o == t {
			return true
		}
	}
	return false
}

func (g *group) serves(k pickKey, eager bool) bool {
	for _, t := range g.targets {
		if t.serves(eager) && !has(k.not, t) {
			return true
		}
	}
	return false
}

func (g *group) choose(mode balance, k pickKey, eager bool) *target {
	var room [16]*target
	able := room[:0]
	for _, t := range g.targets {
		if t.serves(eager) && !has(k.not, t) {
			able = append(able, t)
		}
	}
	n := uint64(len(able))
	switch {
	case n == 0:
		return nil
	case n == 1:
		return able[0]
	case mode == leastConn:
		// Begins elsewhere each time, so that equals take turns.
		first := g.next.Add(1)
		best := able[first%n]
		for i := range n {
			if t := able[(first+i)%n]; t.open.Load() < best.open.Load() {
				best = t
			}
		}
		return best
	case mode == randomTwo:
		i := rand.Uint64N(n)
		j := (i + 1 + rand.Uint64N(n-1)) % n
		if able[j].open.Load() < able[i].open.Load() {
			return able[j]
		}
		return able[i]
	case mode >= hashIP && k.hash != 0:
		best := able[0]
		for _, t := range able[1:] {
			if mix(k.hash^t.hash) > mix(k.hash^best.hash) {
				best = t
			}
		}
		return best
	}
	return able[(g.next.Add(1)-1)%n]
}

// newPool makes the pool of one route or port; what the one before it knew of
// whose turn it is goes on where the weights are the same.
func newPool(l *ledger, before *pool, groups []Group, kind string) *pool {
	p := &pool{ledger: l}
	p.mode, p.by, _ = parseBalance(kind)
	for _, g := range groups {
		n := &group{aim: g.Aim, revision: g.Revision, weight: g.Weight}
		n.cookie = short(g.Aim) + "." + short(g.Aim+"\x00"+g.Revision)
		n.hash = stable(g.Aim + "\x00" + g.Revision)
		for _, t := range g.Targets {
			n.targets = append(n.targets, l.target(g, t))
		}
		p.groups = append(p.groups, n)
	}
	if before == nil {
		return p
	}
	before.mu.Lock()
	defer before.mu.Unlock()
	same := len(before.groups) == len(p.groups)
	for i := 0; same && i < len(p.groups); i++ {
		a, b := before.groups[i], p.groups[i]
		same = a.aim == b.aim && a.revision == b.revision && a.weight == b.weight
	}
	for i, g := range p.groups {
		if same {
			g.current = before.groups[i].current
		}
		for _, o := range before.groups {
			if o.aim == g.aim && o.revision == g.revision {
				g.next.Store(o.next.Load())
			}
		}
	}
	return p
}

const digits = "0123456789abcdefghijklmnopqrstuv"

// short is eight characters of a hash, for cookies.
func short(s string) string {
	h := stable(s)
	var b [8]byte
	for i := range b {
		b[i] = digits[h&31]
		h >>= 5
	}
	return string(b[:])
}

// seed is of this process alone, for tables that strangers fill.
var seed = maphash.MakeSeed()
