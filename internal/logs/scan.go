package logs

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
)

// Scan hands all rows that q asks for to fn, those not yet on disk too, in the order
// of Bound. ErrStop from fn ends it without an error. Blocks are searched ahead on
// processors that no other Scan uses; fn is called by one goroutine at a time, not
// always by the same one.
func (s *Store) Scan(ctx context.Context, q Query, fn func(Chunk) error) error {
	x := newSearch(q)
	parts, letGo, err := s.parts(x)
	if err != nil {
		return err
	}
	defer letGo()
	slices.SortStableFunc(parts, func(a, b part) int {
		if q.Backward {
			return cmp.Compare(b.max, a.max)
		}
		return cmp.Compare(a.min, b.min)
	})
	c := &scan{store: s, ctx: ctx, parts: parts, fn: fn, first: &firsts{limit: q.Limit, backward: q.Backward}}
	c.moved.L = &c.mu
	// With a limit, what is found in a block says whether there is a need for the next.
	if q.Limit == 0 {
		defer func() { // should fn panic
			c.end()
			c.others.Wait()
		}()
		c.ahead(q)
	}
	c.work(x)
	c.others.Wait()
	if c.panicked != nil {
		panic(c.panicked)
	}
	if errors.Is(c.err, ErrStop) {
		return nil
	}
	return c.err
}

// partsEach is how many parts make one more goroutine worth its while.
const partsEach = 8

// scan is one Scan. Whoever works at it takes the next part, searches it, and hands
// out what is found when all parts before have been.
type scan struct {
	store *Store
	ctx   context.Context //nolint:containedctx // it lives as long as the call
	parts []part
	fn    func(Chunk) error
	first *firsts

	others sync.WaitGroup
	mu     sync.Mutex
	moved  sync.Cond
	next   int // part to be searched
	turn   int // part whose rows may go out
	ended  bool
	err    error

	panicked any // in another goroutine than the caller's
}

// ahead starts more goroutines, as long as processors are free.
func (c *scan) ahead(q Query) {
	for range len(c.parts)/partsEach - 1 {
		select {
		case c.store.ahead <- struct{}{}:
		default:
			return
		}
		c.others.Go(func() {
			defer func() {
				<-c.store.ahead
				if p := recover(); p != nil {
					c.mu.Lock()
					c.panicked, c.ended = p, true
					c.moved.Broadcast()
					c.mu.Unlock()
				}
			}()
			c.work(newSearch(q)) // a search keeps scratch
		})
	}
}

func (c *scan) end() {
	c.mu.Lock()
	c.ended = true
	c.moved.Broadcast()
	c.mu.Unlock()
}

// take returns the number of the next part, -1 if nothing is to be done.
func (c *scan) take() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.next == len(c.parts) {
		return -1
	}
	c.next++
	return c.next - 1
}

// wait returns when all parts before i are done with, or with false if none is asked
// for any more.
func (c *scan) wait(i int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.turn != i && !c.ended {
		c.moved.Wait()
	}
	return !c.ended
}

// done passes the turn on behind part i.
func (c *scan) done(i int, err error) {
	if !c.wait(i) {
		return
	}
	c.mu.Lock()
	c.turn++
	if err != nil {
		c.err, c.ended = err, true
	}
	c.moved.Broadcast()
	c.mu.Unlock()
}

func (c *scan) work(x *search) {
	u, err := c.store.unpacker()
	if err == nil {
		defer c.store.giveBack(u)
	}
	for i := c.take(); i >= 0; i = c.take() {
		if err == nil {
			err = c.part(i, x, u)
		}
		c.done(i, err)
	}
}

// part searches part i.
func (c *scan) part(i int, x *search, u *unpacker) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	p := c.parts[i]
	bound := p.min
	if x.q.Backward {
		bound = p.max
	}
	if c.first.beyond(bound) {
		return ErrStop
	}
	return c.store.with(p, u, func(v *view) error {
		return x.hand(v, bound, c.first, func(chunk Chunk) error {
			if !c.wait(i) {
				return ErrStop
			}
			return c.fn(chunk)
		})
	})
}
