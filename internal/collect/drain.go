package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tenderhq/tender/internal/logs"
)

// drain hands in what can be read now. got: there was something; full: there may
// be more, and it is the others' turn.
func (t *tail) drain(ctx context.Context) (got, full bool, err error) {
	t.mu.Lock()
	nothing := len(t.chain) == 0 || len(t.chain) == 1 && t.chain[0].size() == t.off && t.chain[0].gap == 0
	t.mu.Unlock()
	if nothing {
		return false, false, nil
	}
	w, err := t.c.desk(ctx)
	if err != nil {
		return false, false, err
	}
	defer t.c.leave(w)
	buf := w.block
	if len(t.saved) > len(buf) {
		buf = make([]byte, 2*len(t.saved))
	}
	have := copy(buf, t.saved)
	// On any error what is saved stays as it was, and so does the place.
	segs, off := slices.Clone(t.segs), t.off
	for range turn {
		t.mu.Lock()
		if len(t.chain) == 0 {
			t.mu.Unlock()
			return got, false, nil
		}
		f := t.chain[0]
		more := len(t.chain) > 1 // looked up before the read that finds the end
		t.mu.Unlock()
		if f.gap != 0 {
			if have, err = t.emit(ctx, w, buf, have, &segs, true); err != nil {
				return got, false, err
			}
			if err := t.gap(ctx, f, off); err != nil {
				return got, false, err
			}
			t.commit(buf[:have], segs, off)
		}
		// Not more at once than usual, however large the block had to become for one entry.
		n, rerr := f.f.ReadAt(buf[have:min(len(buf), have+firstBlock)], off)
		if n > 0 {
			got = true
			if len(segs) == 0 || segs[len(segs)-1].file != f {
				segs = append(segs, seg{have, f, off})
			}
			have, off = have+n, off+int64(n)
			if have, err = t.emit(ctx, w, buf, have, &segs, false); err != nil {
				return got, false, err
			}
			t.commit(buf[:have], segs, off)
			if have == len(buf) {
				if have >= maxBlock {
					if have, err = t.emit(ctx, w, buf, have, &segs, true); err != nil {
						return got, false, err
					}
					t.commit(buf[:have], segs, off)
				} else {
					bigger := make([]byte, 2*len(buf))
					copy(bigger, buf)
					buf = bigger
				}
			}
			continue
		}
		if rerr != nil && !errors.Is(rerr, io.EOF) {
			return got, false, fmt.Errorf("read: %w", rerr)
		}
		if more { // the end, seen after the next file was there: this one is whole
			t.mu.Lock()
			t.chain = t.chain[1:]
			next := t.chain[0]
			t.mu.Unlock()
			off = next.start
			t.commit(buf[:have], segs, off)
			f.seal()
			continue
		}
		if f.size() < off { // max-file 1: the engine begins the same file anew
			if have, err = t.emit(ctx, w, buf, have, &segs, true); err != nil {
				return got, false, err
			}
			t.mu.Lock()
			t.again(f, 0, -1)
			if err := t.spool.link(f); err != nil {
				t.c.spoolTrouble(err)
			}
			t.mu.Unlock()
			off = 0
			t.commit(buf[:have], segs, off)
			continue
		}
		return got, false, nil
	}
	return got, true, nil
}

// commit is what a later drain goes on from.
func (t *tail) commit(rest []byte, segs []seg, off int64) {
	t.saved = append(t.saved[:0], rest...)
	t.segs = append(t.segs[:0], segs...)
	t.off = off
	t.publish()
}

// publish says for Sync how far all is handed in.
func (t *tail) publish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.saved) > 0 && len(t.segs) > 0:
		t.handed = logs.Place{Seq: t.segs[0].file.seq, Offset: t.segs[0].off}
	case len(t.chain) > 0:
		t.handed = logs.Place{Seq: t.chain[0].seq, Offset: t.off}
	}
}

// finish hands in what waits for more that does not come.
func (t *tail) finish(ctx context.Context) error {
	w, err := t.c.desk(ctx)
	if err != nil {
		return err
	}
	defer t.c.leave(w)
	segs := slices.Clone(t.segs)
	have, err := t.emit(ctx, w, t.saved, len(t.saved), &segs, true)
	if err != nil {
		return err
	}
	t.saved, t.segs = t.saved[:have], segs
	t.publish()
	if cap(t.saved) > firstBlock {
		t.saved = nil
	}
	return nil
}

// emit parses what was read and hands the whole entries in. It returns how much
// is left, moved to the beginning of buf.
func (t *tail) emit(ctx context.Context, w *desk, buf []byte, have int, segs *[]seg, last bool) (int, error) {
	if have == 0 {
		return 0, nil
	}
	t.mu.Lock()
	p := t.parser
	t.mu.Unlock()
	p.rows, p.goes = w.rows, t.goes
	used, parts := p.block(buf[:have], last)
	t.parts = parts
	if used == 0 {
		return have, nil
	}
	s := *segs
	i := 0
	for i+1 < len(s) && s[i+1].at <= used {
		i++
	}
	to := s[i].file.place(s[i].off + int64(used-s[i].at))
	b := logs.Batch{Source: t.id, From: t.place, To: to, Labels: t.labelsWith(p.attrs), Rows: p.rows.list}
	// A batch without rows only says how far we are: that is worth a word when a file is done.
	if len(b.Rows) > 0 || to.Seq != t.place.Seq {
		if err := t.c.o.Store.Append(ctx, b); err != nil {
			return have, fmt.Errorf("store: %w", err)
		}
		t.place = to
	}
	t.goes = p.after
	t.c.count(len(b.Rows), used)
	copy(buf, buf[used:have])
	rest := make([]seg, 0, len(s)-i)
	for _, x := range s[i:] {
		if x.at < used {
			x.off += int64(used - x.at)
			x.at = used
		}
		x.at -= used
		rest = append(rest, x)
	}
	if used == have {
		rest = rest[:0]
	}
	*segs = rest
	return have - used, nil
}

// gap records that bytes before a file were lost.
func (t *tail) gap(ctx context.Context, f *file, off int64) error {
	to := f.place(off)
	b := logs.Batch{Source: t.id, From: t.place, To: to, Labels: t.labelsWith(nil), Gap: f.gap}
	if err := t.c.o.Store.Append(ctx, b); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	t.c.log.Warn("lines of a log are lost: it was rotated away, or emptied, before it was read", "instance", t.is.Load().Instance, "bytes", f.gap)
	t.place, f.gap = to, 0
	t.goes = [2]verdict{} // what follows is of another line
	t.c.gaps.Add(1)
	return nil
}
