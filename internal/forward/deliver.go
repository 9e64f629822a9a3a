package forward

import (
	"context"
	"errors"
	"slices"
)

// deliver sends a batch until each of its rows was taken or refused for good. It
// returns an error only if ctx ends.
func (s *sink) deliver(ctx context.Context, b *batch) error {
	if len(b.items) == 0 {
		return nil
	}
	parts := s.config.cut(b.items)
	var doubtful []item // refused one by one, by a place that has never taken anything
	for tries := 0; len(parts) > 0 || len(doubtful) > 0; {
		if len(parts) == 0 {
			err := errors.New("all is refused, and nothing was ever taken: is this the right place? Nothing is skipped until it takes something; the last: " + s.lastError())
			if err := s.fail(ctx, err, tries, 0); err != nil {
				return err
			}
			tries++
			parts, doubtful = singles(doubtful), nil
		}
		part := parts[0]
		s.phase(Sending, part[0].time)
		v, err := s.wire.send(ctx, b.id, part)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if no, ok := errors.AsType[*refusedError](err); ok {
			switch {
			case len(part) > 1:
				// One of them is to blame: halves find it, and let the others through.
				parts = append([][]item{part[:len(part)/2], part[len(part)/2:]}, parts[1:]...)
			case s.everTaken():
				s.bury(ctx, part[0], no.reason)
				parts = parts[1:]
			default:
				s.note(no)
				doubtful = append(doubtful, part[0])
				parts = parts[1:]
			}
			continue
		}
		if err != nil {
			if err := s.fail(ctx, err, tries, pause(err)); err != nil {
				return err
			}
			tries++
			continue
		}
		s.judge(ctx, part, v)
		if len(v.again) > 0 {
			if len(v.again) < len(part) {
				tries = 0 // it moves
			}
			left := make([]item, 0, len(v.again))
			for _, i := range v.again {
				left = append(left, part[i])
			}
			parts[0] = left
			if err := s.fail(ctx, errors.New(v.reason), tries, v.after); err != nil {
				return err
			}
			tries++
			continue
		}
		tries = 0
		parts = parts[1:]
		if len(doubtful) > 0 && s.everTaken() {
			parts = append(singles(doubtful), parts...)
			doubtful = nil
		}
		s.well()
	}
	return nil
}

// judge counts what was taken and buries what was refused.
func (s *sink) judge(ctx context.Context, part []item, v verdict) {
	except := append([]int(nil), v.again...)
	for _, r := range v.refused {
		except = append(except, r.index)
	}
	slices.Sort(except)
	s.taken(part, except)
	for _, r := range v.refused {
		s.bury(ctx, part[r.index], r.reason)
	}
	if v.unnamed > 0 {
		s.mu.Lock()
		s.state.Refused += v.unnamed
		s.state.Sent -= v.unnamed
		s.mu.Unlock()
		s.dirty = true
		s.note(errors.New(v.reason))
	}
}

// everTaken says whether the other side has ever taken a row: one that has not is
// more likely the wrong place than one that dislikes each single row.
func (s *sink) everTaken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Sent > 0
}

func (s *sink) lastError() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.Error
}

// well notes that a request went through.
func (s *sink) well() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Tries = 0
}

func singles(items []item) [][]item {
	out := make([][]item, 0, len(items))
	for i := range items {
		out = append(out, items[i:i+1])
	}
	return out
}

// cut splits items into requests of at most Request bytes and Rows rows, where a
// single one may be larger.
func (c *Config) cut(items []item) [][]item {
	if c.Request == 0 {
		return [][]item{items}
	}
	var out [][]item
	from, size := 0, 0
	for i := range items {
		n := len(items[i].body)
		if i > from && (size+n > c.Request || i-from >= c.Rows) {
			out = append(out, items[from:i:i])
			from, size = i, 0
		}
		size += n
	}
	return append(out, items[from:])
}
