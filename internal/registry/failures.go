package registry

import (
	"net/netip"
	"sync"
	"time"
)

const (
	failuresFree  = 10              // wrong passwords of a source before it has to wait
	failuresEach  = 6 * time.Second // after which one more is allowed
	failuresKnown = 4096            // sources remembered
)

// failures counts the wrong passwords of each source. Its zero value is ready.
type failures struct {
	mu   sync.Mutex
	full map[string]time.Time // when all of a source's are forgotten
}

// source is an address without its port; of IPv6 the network, which one client has whole.
func source(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := at.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip.String()
	}
	return p.String()
}

// wait says for how long a source may not try.
func (f *failures) wait(from string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, known := f.full[from]
	if !known {
		return 0
	}
	return max(0, at.Sub(now)-(failuresFree-1)*failuresEach)
}

func (f *failures) add(from string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full == nil {
		f.full = map[string]time.Time{}
	}
	if _, known := f.full[from]; !known && len(f.full) >= failuresKnown {
		f.shrink(now)
	}
	at := f.full[from]
	if at.Before(now) {
		at = now
	}
	f.full[from] = at.Add(failuresEach)
}

// shrink forgets who has nothing left to wait for, and if that is nobody, who has least.
func (f *failures) shrink(now time.Time) {
	var first string
	for from, at := range f.full {
		if !at.After(now) {
			delete(f.full, from)
		} else if first == "" || at.Before(f.full[first]) {
			first = from
		}
	}
	if len(f.full) >= failuresKnown {
		delete(f.full, first)
	}
}
