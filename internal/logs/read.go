package logs

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
)

// Read hands out whole blocks in the order in which they became durable, beginning
// after a cursor, each with the cursor behind it, until fn got at least max rows
// (0: no end) or nothing more is there. ErrStop ends it without an error.
func (s *Store) Read(ctx context.Context, after Cursor, max int, fn func(Chunk, Cursor) error) error {
	x := newSearch(Query{})
	x.q.From = math.MinInt64
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return errClosed
	}
	parts, letGo := s.onDisk(x, after.after, s.durable)
	s.mu.RUnlock()
	defer letGo()
	slices.SortFunc(parts, func(a, b part) int { return cmp.Or(cmp.Compare(a.e.last, b.e.last), cmp.Compare(a.e.first, b.e.first)) })
	u, err := s.unpacker()
	if err != nil {
		return err
	}
	defer s.giveBack(u)
	rows := 0
	for _, p := range parts {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		behind := Cursor{p.e.last}
		err := s.with(p, u, func(v *view) error {
			// A block is behind the reader only when he has both its chunks.
			var chunks []Chunk
			mixed := v.errs > 0 && v.errs < v.rows
			return x.hand(v, v.min, nil, func(c Chunk) error {
				rows += len(c.Times())
				if mixed && len(chunks) == 0 {
					chunks = append(chunks, c)
					return fn(c, after)
				}
				return fn(c, behind)
			})
		})
		if errors.Is(err, ErrStop) {
			return nil
		}
		if err != nil {
			return err
		}
		after = behind
		if max > 0 && rows >= max {
			return nil
		}
	}
	return nil
}
