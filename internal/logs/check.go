package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Report is what Check found.
type Report struct {
	Segments, Blocks int
	Rows, Bytes      int64
	Damage           []Damage
}

// Damage is a part of a segment that cannot be read.
type Damage struct {
	File   string // relative to the folder of the store
	Offset int64
	Bytes  int64
	Reason string
}

// Check reads and verifies all that is on disk.
func (s *Store) Check(ctx context.Context) (Report, error) {
	s.write.Lock()
	live, size := s.live, int64(0)
	if live != nil {
		s.mu.RLock()
		size = live.size
		s.mu.RUnlock()
	}
	s.write.Unlock()
	return check(ctx, s.dir, live, size)
}

// Check reads and verifies all of the store in dir, whether it is open or not. Of
// one that is open the last block may be still in writing and count as damage.
func Check(ctx context.Context, dir string) (Report, error) { return check(ctx, dir, nil, 0) }

func check(ctx context.Context, dir string, live *segment, size int64) (Report, error) {
	var r Report
	segs, _, err := findSegments(dir)
	if err != nil {
		return r, fmt.Errorf("check logs: %w", err)
	}
	u, err := newUnpacker()
	if err != nil {
		return r, err
	}
	defer u.zstd.Close()
	for _, seg := range segs {
		if err := r.add(ctx, dir, seg, u, live, size); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue // merged or retired meanwhile
			}
			return r, fmt.Errorf("check logs: %s: %w", filepath.Base(seg.path), err)
		}
	}
	return r, nil
}

func (r *Report) add(ctx context.Context, dir string, seg *segment, u *unpacker, live *segment, size int64) (err error) {
	f, err := os.Open(seg.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	name, err := filepath.Rel(dir, seg.path)
	if err != nil {
		return err
	}
	beyond := func(off int64) bool { return live != nil && live.path == seg.path && off >= size }
	r.Segments++
	err = seg.load(f, func(off, n int64, reason string) {
		if !beyond(off) {
			r.Damage = append(r.Damage, Damage{name, off, n, reason})
		}
	})
	if err != nil {
		return err
	}
	r.Bytes += seg.size
	for _, e := range seg.blocks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := verify(f, e.off, &e.head, u)
		var d *damage
		if errors.As(err, &d) {
			if !beyond(e.off) {
				r.Damage = append(r.Damage, Damage{name, e.off, e.head.size, d.reason})
			}
			continue
		}
		if err != nil {
			return err
		}
		if e.rows > 0 {
			r.Blocks++
			r.Rows += int64(e.rows)
		}
	}
	return nil
}
