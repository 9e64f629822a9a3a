package proxy

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	tender "github.com/tenderhq/tender"
)

const (
	keepGone  = 10 * time.Minute // how long a target that has left the table is reported
	goneAtMax = 256              // per route; older ones are forgotten earlier
)

// ledger is what is known of one route or port over all tables that name it.
type ledger struct {
	id, project string
	own         counters // of what found no target, and of targets that are forgotten
	waiting     atomic.Int64
	refused     atomic.Uint64 // found the queue full
	retried     atomic.Uint64

	targets map[targetKey]*target // guarded by the Server's mu, as are these
	rates   *rates
	said    tender.RateLimit
}

// An instance that comes back with another address is another target.
type targetKey struct{ aim, revision, id, address string }

func newLedger(id, project string) *ledger {
	return &ledger{id: id, project: project, targets: map[targetKey]*target{}}
}

// target returns the target that a table names, the same one for every table.
func (l *ledger) target(g Group, n Target) *target {
	k := targetKey{g.Aim, g.Revision, n.ID, n.Address}
	t := l.targets[k]
	if t == nil {
		t = &target{
			id: n.ID, name: n.Name, aim: g.Aim, revision: g.Revision, address: n.Address, tls: n.TLS,
			hash: stable(n.ID + "\x00" + n.Address), cookie: short(n.ID),
		}
		t.closed.Store(true) // until the table that names it is served
		l.targets[k] = t
	}
	return t
}

// serve makes a target what a table says of it. Order matters: see begin.
func (t *target) serve(g Group, n Target, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone = false
	t.weight.Store(int64(g.Weight))
	t.down.Store(n.Down)
	t.closed.Store(n.Leaving)
	if n.Leaving {
		t.conns.close()
		t.std.close()
	} else {
		t.conns.reopen()
	}
	t.settle(now)
}

// leave takes a target out that the table does not name any more.
func (t *target) leave(now time.Time) {
	t.closed.Store(true)
	t.conns.close()
	t.std.close()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.gone {
		t.gone, t.left = true, now
	}
	t.settle(now)
}

// forget drops targets that left long ago, and the oldest if there are too many.
// What they counted stays in the sum. It says whether nothing is left.
func (l *ledger) forget(now time.Time) bool {
	var gone []*target
	for k, t := range l.targets {
		t.mu.Lock()
		old := t.gone && t.open.Load() == 0 && now.Sub(t.left) >= keepGone
		left := t.gone && t.open.Load() == 0
		t.mu.Unlock()
		switch {
		case old:
			l.drop(k, t)
		case left:
			gone = append(gone, t)
		}
	}
	if more := len(gone) - goneAtMax; more > 0 {
		slices.SortFunc(gone, func(a, b *target) int { return a.left.Compare(b.left) })
		for _, t := range gone[:more] {
			l.drop(targetKey{t.aim, t.revision, t.id, t.address}, t)
		}
	}
	return len(l.targets) == 0
}

func (l *ledger) drop(k targetKey, t *target) {
	l.own.absorb(&t.counters)
	delete(l.targets, k)
}

func (l *ledger) report(now time.Time) RouteReport {
	r := RouteReport{ID: l.id, Project: l.project, Served: l.own.served(), Waiting: int(l.waiting.Load()), Targets: []TargetReport{}}
	for _, t := range l.targets {
		r.Targets = append(r.Targets, t.report(now))
	}
	slices.SortFunc(r.Targets, func(a, b TargetReport) int {
		return strings.Compare(a.Aim+"\x00"+a.Revision+"\x00"+a.Name+"\x00"+a.ID+a.Address, b.Aim+"\x00"+b.Revision+"\x00"+b.Name+"\x00"+b.ID+b.Address)
	})
	for _, t := range r.Targets {
		r.Served = r.Served.Plus(t.Served)
	}
	return r
}
