package proxy

import (
	"sync/atomic"
	"time"

	tender "github.com/tenderhq/tender"
)

// bounds are tender.LatencyBounds in nanoseconds.
var bounds = func() (b [len(tender.LatencyBounds)]time.Duration) {
	for i, s := range tender.LatencyBounds {
		b[i] = time.Duration(s * float64(time.Second))
	}
	return b
}()

// outcome is how one request or connection ended at its target.
type outcome struct {
	status int           // that the client was sent; 0: none
	took   time.Duration // to the head of the answer, or the whole of a connection
	in     uint64        // bytes of bodies from the client
	out    uint64        // and to it
	failed bool          // answered by the proxy with 502, 503 or 504, or cut off by the target
	cut    bool          // a stream that a drain ended
	// again: it is tried once more and counted where that ends, or is a check of our own; here it counts for health alone.
	again bool
	// refused: no connection came about. broken: one did, and the target failed on it.
	refused, broken bool
	reason          string // why, for reports
}

// counters are what Served tells, safe for use by many at once.
type counters struct {
	requests, failed, in, out, cut atomic.Uint64
	nanos                          atomic.Int64
	class                          [6]atomic.Uint64
	latency                        [len(tender.LatencyBounds) + 1]atomic.Uint64
}

func (c *counters) count(o *outcome) {
	c.requests.Add(1)
	c.class[class(o.status)].Add(1)
	c.nanos.Add(int64(o.took))
	i := 0
	for i < len(bounds) && o.took > bounds[i] {
		i++
	}
	c.latency[i].Add(1)
	if o.in > 0 {
		c.in.Add(o.in)
	}
	if o.out > 0 {
		c.out.Add(o.out)
	}
	if o.cut {
		c.cut.Add(1)
	} else if o.failed {
		c.failed.Add(1)
	}
}

// class is the first digit of a status; what no class is named for counts as 5.
func class(status int) int { return min(max(status/100, 0), 5) }

func (c *counters) served() tender.Served {
	s := tender.Served{
		Requests: c.requests.Load(),
		Failed:   c.failed.Load(),
		BytesIn:  c.in.Load(),
		BytesOut: c.out.Load(),
		Cut:      c.cut.Load(),
		Seconds:  time.Duration(c.nanos.Load()).Seconds(),
	}
	for i := range s.Class {
		s.Class[i] = c.class[i].Load()
	}
	for i := range s.Latency {
		s.Latency[i] = c.latency[i].Load()
	}
	return s
}

// absorb adds what another counted, so that a sum never shrinks as its parts are forgotten.
func (c *counters) absorb(o *counters) {
	c.requests.Add(o.requests.Load())
	c.failed.Add(o.failed.Load())
	c.in.Add(o.in.Load())
	c.out.Add(o.out.Load())
	c.cut.Add(o.cut.Load())
	c.nanos.Add(o.nanos.Load())
	for i := range c.class {
		c.class[i].Add(o.class[i].Load())
	}
	for i := range c.latency {
		c.latency[i].Add(o.latency[i].Load())
	}
}
