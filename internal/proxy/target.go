package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	ejectFirst  = time.Second      // how long the first ejection lasts; each one after it twice as long
	ejectLast   = 30 * time.Second // at most
	ejectBroken = 3                // failures in a row on open connections; one that is refused is enough
	checksKept  = 10
)

// target is one instance behind one route or port. It outlives the tables that
// name it: its counters, its health and its connections go on.
type target struct {
	id, name, aim, revision, address string
	tls                              bool
	hash                             uint64 // for hash balance
	cookie                           string // its part of a sticky cookie
	counters

	open   atomic.Int64
	closed atomic.Bool  // leaving or gone: nothing new
	down   atomic.Bool  // serve says so
	sick   atomic.Bool  // the proxy's own checks say so
	until  atomic.Int64 // ejected until, in unix nanoseconds; 0: not ejected
	broken atomic.Int32 // failures in a row

	weight  atomic.Int64 // of its group
	conns   idle
	std     transport
	stop    func()  // ends its health checks; guarded by the Server's mu, as are these
	watched *health // what is checked
	proven  bool    // it has been in a table before

	mu     sync.Mutex
	gone   bool
	left   time.Time // when it left the table
	state  string    // as last reported
	since  time.Time // when it became that
	why    string    // of sick or ejected
	times  int       // ejections in a row
	checks []Check
}

// begin counts a request or connection in before anything is sent, and says
// whether t takes it. The order is what a drain rests on: whoever sees closed
// set and then open at zero knows that nothing will come any more, because who
// counts itself in after that sees closed and counts itself out again.
func (t *target) begin() bool {
	t.open.Add(1)
	if t.closed.Load() {
		t.open.Add(-1)
		return false
	}
	return true
}

// end counts out what begin counted in.
func (t *target) end(o *outcome) {
	if o.refused || o.broken {
		t.fail(o, time.Now())
	} else if t.broken.Load() != 0 || t.until.Load() != 0 {
		t.recover()
	}
	if !o.again {
		t.count(o)
	}
	t.open.Add(-1)
}

// serves says whether t takes something new. With eager an ejected one does, too.
func (t *target) serves(eager bool) bool {
	if t.closed.Load() || t.down.Load() || t.sick.Load() {
		return false
	}
	until := t.until.Load()
	return eager || until == 0 || time.Now().UnixNano() >= until
}

func (t *target) fail(o *outcome, now time.Time) {
	n := t.broken.Add(1)
	if !o.refused && n < ejectBroken || t.closed.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := t.until.Load(); until != 0 && now.UnixNano() < until {
		return // many fail at once; that is one ejection
	}
	d := min(ejectFirst<<min(t.times, 10), ejectLast)
	t.times++
	t.why = o.reason
	t.until.Store(now.Add(d).UnixNano())
	t.settle(now)
}

func (t *target) recover() {
	t.broken.Store(0)
	until := t.until.Load()
	if until == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.UnixNano() < until {
		return // it was under way before the failure; that proves nothing
	}
	t.settle(now)
	t.until.Store(0)
	t.times = 0
}

// isGone says whether the table does not name it any more.
func (t *target) isGone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gone
}

// settle notes a change of state; t.mu is held.
func (t *target) settle(now time.Time) {
	state, since := "up", now
	switch until := t.until.Load(); {
	case t.gone:
		state = "gone"
	case t.closed.Load():
		state = "leaving"
	case t.down.Load() || t.sick.Load():
		state = "down"
	case until != 0 && now.UnixNano() < until:
		state = "ejected"
	case until != 0:
		since = time.Unix(0, until)
	}
	if state != t.state {
		t.state, t.since = state, since
	}
}

func (t *target) report(now time.Time) TargetReport {
	t.mu.Lock()
	t.settle(now)
	r := TargetReport{
		ID: t.id, Name: t.name, Aim: t.aim, Revision: t.revision, Address: t.address,
		Weight: int(t.weight.Load()), State: t.state, Since: t.since.UnixMilli(),
		Checks: append([]Check(nil), t.checks...),
	}
	switch {
	case t.state == "ejected", t.state == "down" && t.sick.Load():
		r.Reason = t.why
	case t.state == "down":
		r.Reason = "not ready"
	}
	t.mu.Unlock()
	r.Open = int(t.open.Load())
	r.Served = t.served()
	return r
}
