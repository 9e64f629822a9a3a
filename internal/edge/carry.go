package edge

import (
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tenderhq/tender/internal/proxy"
)

// Carried is what an edge counted whose place another one has taken. A rollout
// counts over both, and an instance is only done when neither has anything open.
type Carried struct {
	Report proxy.Report `json:"report"`
	PID    int          `json:"pid"`
	// Ended: nothing of it is under way any more.
	Ended bool `json:"ended,omitempty"`
}

// carryEvery is how often an edge that drains tells what is left.
const carryEvery = 250 * time.Millisecond

// past is where edges that have ended are summed up.
const past = "past"

// counts are those of the edges before this one.
type counts struct {
	mu     sync.Mutex
	before map[string]Carried // by run, and past
	told   chan struct{}      // closes when one of them says something
	late   map[string]bool    // of which nobody waits any more that it follows
}

// followWait is how long a table waits for edges that drain to serve by it.
const followWait = time.Second

// follow waits until every edge that drains serves by a table of this version.
// One that has not answered in time is not waited for again until it does.
func (c *counts) follow(version uint64) {
	limit := time.NewTimer(followWait)
	defer limit.Stop()
	for {
		behind, told := c.behind(version)
		if len(behind) == 0 {
			return
		}
		select {
		case <-told:
		case <-limit.C:
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, id := range behind {
				c.late[id] = true
			}
			return
		}
	}
}

func (c *counts) behind(version uint64) (ids []string, told <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told == nil {
		c.told, c.late = make(chan struct{}), map[string]bool{}
	}
	for id, b := range c.before {
		switch {
		case b.Ended, errors.Is(syscall.Kill(b.PID, 0), syscall.ESRCH):
		case b.Report.Version >= version:
			delete(c.late, id)
		case !c.late[id]:
			ids = append(ids, id)
		}
	}
	return ids, c.told
}

func (c *counts) inherit(m map[string]Carried) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.before == nil {
		c.before = map[string]Carried{}
	}
	maps.Copy(c.before, m)
}

// take notes what the edge id has counted so far. What one that has ended says
// late is not heard.
func (c *counts) take(id string, said Carried) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.before[id]; !known || id == past {
		return
	}
	if c.told != nil {
		close(c.told)
		c.told = make(chan struct{})
	}
	if said.Ended {
		c.end(id, said)
		return
	}
	c.before[id] = said
}

// end adds an edge to the past. c.mu is held.
func (c *counts) end(id string, last Carried) {
	now := time.Now().UnixMilli()
	for _, list := range [][]proxy.RouteReport{last.Report.Routes, last.Report.Ports} {
		for i := range list {
			list[i].Waiting = 0
			for k := range list[i].Targets {
				t := &list[i].Targets[k]
				t.Open = 0
				if t.State != "gone" {
					t.State, t.Since = "gone", now
				}
			}
		}
	}
	delete(c.late, id)
	sum := c.before[past]
	sum.Report, sum.Ended = join(sum.Report, last.Report), true
	c.before[past] = sum
	delete(c.before, id)
}

// report adds all that was counted before to own.
func (c *counts) report(own proxy.Report) proxy.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, b := range c.before {
		// One that was killed cannot say that it has ended.
		if !b.Ended && errors.Is(syscall.Kill(b.PID, 0), syscall.ESRCH) {
			c.end(id, b)
		}
	}
	if sum, ok := c.before[past]; ok {
		now := time.Now()
		sum.Report.Routes, sum.Report.Ports = remembered(sum.Report.Routes, own.Routes, now), remembered(sum.Report.Ports, own.Ports, now)
		c.before[past] = sum
	}
	for _, id := range slices.Sorted(maps.Keys(c.before)) {
		own = join(own, c.before[id].Report)
	}
	return own
}

// pastFor is how long the past tells of a target that is gone, as a proxy does: its
// counts are in the sum of its route from then on.
const pastFor = 10 * time.Minute

// remembered is what the past keeps: of targets those that were here of late or
// are, of routes those that have such or are served.
func remembered(past, served []proxy.RouteReport, now time.Time) (out []proxy.RouteReport) {
	for _, r := range past {
		var is proxy.RouteReport
		i := slices.IndexFunc(served, func(s proxy.RouteReport) bool { return s.ID == r.ID })
		if i >= 0 {
			is = served[i]
		}
		r.Targets = slices.DeleteFunc(slices.Clone(r.Targets), func(t proxy.TargetReport) bool {
			here := slices.ContainsFunc(is.Targets, func(s proxy.TargetReport) bool { return same(s, t) })
			return !here && now.Sub(time.UnixMilli(t.Since)) > pastFor
		})
		if i >= 0 || len(r.Targets) > 0 {
			out = append(out, r)
		}
	}
	return out
}

func same(a, b proxy.TargetReport) bool {
	return a.ID == b.ID && a.Revision == b.Revision && a.Aim == b.Aim
}

// carry is what the next edge has to know.
func (e *edge) carry() map[string]Carried {
	e.counts.mu.Lock()
	defer e.counts.mu.Unlock()
	out := maps.Clone(e.counts.before)
	if out == nil {
		out = map[string]Carried{}
	}
	out[e.id] = Carried{Report: e.proxy.Report(), PID: os.Getpid()}
	return out
}

// join adds b's counts to a copy of a. What only b has is gone from the table,
// or has nothing to say but its counts.
func join(a, b proxy.Report) proxy.Report {
	a.Routes = joinRoutes(a.Routes, b.Routes)
	a.Ports = joinRoutes(a.Ports, b.Ports)
	return a
}

func joinRoutes(a, b []proxy.RouteReport) []proxy.RouteReport {
	out := slices.Clone(a)
	for _, r := range b {
		i := slices.IndexFunc(out, func(o proxy.RouteReport) bool { return o.ID == r.ID })
		if i < 0 {
			r.Targets, r.Certificates = slices.Clone(r.Targets), nil
			for k := range r.Targets {
				r.Targets[k].State = "gone"
			}
			out = append(out, r)
			continue
		}
		o := &out[i]
		o.Served = o.Served.Plus(r.Served)
		o.Waiting += r.Waiting
		o.Targets = slices.Clone(o.Targets)
		for _, t := range r.Targets {
			k := slices.IndexFunc(o.Targets, func(x proxy.TargetReport) bool { return same(x, t) })
			if k < 0 {
				t.State = "gone"
				o.Targets = append(o.Targets, t)
				continue
			}
			o.Targets[k].Open += t.Open
			o.Targets[k].Served = o.Targets[k].Served.Plus(t.Served)
		}
	}
	return out
}
