package logs

import (
	"context"
	"errors"
	"sync"
)

// maxFollow is how many bytes of rows wait for a follower before some are dropped.
const maxFollow = 4 << 20

// follower is somebody who gets rows as they come.
type follower struct {
	mu     sync.Mutex
	search *search
	queue  []*view
	lost   []int64 // rows left out before each of the queue
	size   int
	missed int64 // rows left out since
	ended  bool
	wake   chan struct{} // holds one
}

func (f *follower) ring() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *follower) end() {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.ring()
}

// wants says whether the follower asks for the stream.
func (f *follower) wants(st *stream) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.search.wants(st) != 0
}

func (f *follower) push(v *view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	size := int(v.size) + 32*v.rows
	if len(f.queue) > 0 && f.size+size > maxFollow {
		f.missed += int64(v.rows)
		return
	}
	f.queue, f.lost = append(f.queue, v), append(f.lost, f.missed)
	f.missed = 0
	f.size += size
	f.ring()
}

// publish shows a batch to those who follow.
func (s *Store) publish(st *stream, b *Batch) {
	s.mu.RLock()
	if len(s.follows) == 0 {
		s.mu.RUnlock()
		return
	}
	all := make([]*follower, 0, len(s.follows))
	for f := range s.follows {
		all = append(all, f)
	}
	s.mu.RUnlock()
	var v *view
	for _, f := range all {
		if !f.wants(st) {
			continue
		}
		if v == nil {
			copied := newBuilder()
			if b.Gap != 0 {
				r := gapRow(b)
				copied.add(&r)
			}
			for i := range b.Rows {
				copied.add(&b.Rows[i])
			}
			v = copied.view(st)
		}
		if v.rows > 0 {
			f.push(v)
		}
	}
}

// Follow hands rows to fn that are appended from now on, until ctx ends (then it
// returns nil). It never holds up Append: what a slow follower leaves is dropped,
// and the next chunk says how much (Missed).
func (s *Store) Follow(ctx context.Context, q Query, fn func(Chunk) error) error {
	f := &follower{search: newSearch(q), wake: make(chan struct{}, 1)}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed
	}
	s.follows[f] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.follows, f)
		s.mu.Unlock()
	}()
	x := newSearch(q) // f.search is asked under its lock
	missed := int64(0)
	for {
		f.mu.Lock()
		queue, lost, ended := f.queue, f.lost, f.ended
		f.queue, f.lost, f.size = nil, nil, 0
		f.mu.Unlock()
		for i, v := range queue {
			missed += lost[i]
			if ctx.Err() != nil {
				return nil
			}
			one := *v // what it works out as it goes is its own
			bound := one.min
			if q.Backward {
				bound = one.max
			}
			err := x.hand(&one, bound, nil, func(c Chunk) error {
				if found, ok := c.(*found); ok {
					found.lost = missed
				}
				missed = 0
				return fn(c)
			})
			if errors.Is(err, ErrStop) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		if len(queue) > 0 {
			continue
		}
		if ended {
			return errClosed
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		}
	}
}
