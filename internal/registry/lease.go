package registry

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// leaseTime is how long what a client was told of is kept from the sweep.
const leaseTime = time.Hour

// leases keep digests that clients rely on from being swept. A digest is in use while a
// request about it is answered, and leased for leaseTime from its end; the time of the blob's
// file says so after a restart. The sweep claims a digest before it removes it: requests about
// it wait until it is gone, and are then told so.
type leases struct {
	files files
	now   func() time.Time

	mu       sync.Mutex
	held     map[string]*lease
	going    map[string]chan struct{}
	sweeping time.Time // since when a sweep runs; zero: none does
	pruneAt  int       // how many may be held before those that have ended are dropped
}

type lease struct {
	users   int
	touched time.Time // the end of the last request
}

func newLeases(f files, now func() time.Time) *leases {
	return &leases{files: f, now: now, held: map[string]*lease{}, going: map[string]chan struct{}{}, pruneAt: 4096}
}

// touch begins a use of a digest; done ends it.
func (l *leases) touch(d string) (done func()) {
	if _, err := digest.Parse(d); err != nil {
		return func() {}
	}
	l.mu.Lock()
	for {
		gone, is := l.going[d]
		if !is {
			break
		}
		l.mu.Unlock()
		<-gone
		l.mu.Lock()
	}
	h := l.held[d]
	if h == nil {
		h = &lease{}
		l.held[d] = h
	}
	h.users++
	l.mu.Unlock()
	l.renew(d)
	return func() {
		there := l.renew(d)
		l.mu.Lock()
		defer l.mu.Unlock()
		h.users--
		if there {
			h.touched = l.now()
		}
		// What is not there needs no lease: asking for it must cost no memory.
		if h.users == 0 && h.touched.IsZero() {
			delete(l.held, d)
		}
		if len(l.held) > l.pruneAt {
			l.prune()
		}
	}
}

// renew makes a blob young if it is there.
func (l *leases) renew(d string) (there bool) {
	return l.files.touch(context.Background(), blobPath(d), l.now())
}

func (l *leases) prune() {
	for d, h := range l.held {
		if h.users == 0 && !l.live(h) {
			delete(l.held, d)
		}
	}
	l.pruneAt = max(4096, 2*len(l.held))
}

// live says whether a lease holds. One that was given since the sweep began holds until it
// ends: what the sweep read before may be older.
func (l *leases) live(h *lease) bool {
	return h.users > 0 || l.now().Sub(h.touched) < leaseTime || !l.sweeping.IsZero() && !h.touched.Before(l.sweeping)
}

// begin tells of a sweep; end of its end.
func (l *leases) begin() (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweeping = l.now()
	l.prune()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sweeping = time.Time{}
	}
}

// leased says whether a lease of the digest holds.
func (l *leases) leased(d string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[d]
	return h != nil && l.live(h)
}

// claim keeps requests from a digest that nobody holds until release; ok is false if it is leased.
func (l *leases) claim(d string) (release func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[d]; h != nil && l.live(h) {
		return nil, false
	}
	gone := make(chan struct{})
	l.going[d] = gone
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.going, d)
		close(gone)
	}, true
}
