package logs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

const (
	maxMerged = 256 << 20 // bytes of a segment that merging makes
	minMerge  = 512       // small blocks that make a merge worth while
	maxRun    = 16        // segments in one merge
)

// small says that a block is worth merging with others of its source. It needs s.mu.
func (s *Store) small(e *entry) bool {
	return !e.bad && e.rows < s.o.MaxRows/4 && e.raw < int64(s.o.MaxBytes)/8
}

// group is what may be merged into one block.
type group struct {
	stream *stream
	source string
}

// merge makes few big blocks of the many small ones that quiet services leave, as
// long as there is something to gain.
func (s *Store) merge(ctx context.Context) error {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	for ctx.Err() == nil {
		run := s.pick()
		if run == nil {
			return nil
		}
		if err := s.mergeRun(ctx, run); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// pick finds neighbours of one day to merge: many small blocks, few groups, and none
// of the segments more than two thirds of the whole, so that no row is merged more
// often than its segment grows by half.
func (s *Store) pick() []*segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil
	}
	for i := range s.segs {
		groups, small, size, most := map[group]bool{}, 0, int64(0), int64(0)
		var best []*segment
		for j := i; j < len(s.segs) && j < i+maxRun; j++ {
			seg := s.segs[j]
			if seg.day != s.segs[i].day || s.unsettled(seg) || size+seg.size > maxMerged {
				break
			}
			size += seg.size
			most = max(most, seg.size)
			for _, e := range seg.blocks {
				if s.small(e) {
					small++
					groups[group{e.stream, e.source}] = true
				}
			}
			if small >= minMerge && small >= 2*len(groups) && (j == i || most*3 <= size*2) {
				best = s.segs[i : j+1]
			}
		}
		if best != nil {
			return slices.Clone(best)
		}
	}
	return nil
}

// unsettled says that a segment is still written to, or not yet durable.
func (s *Store) unsettled(seg *segment) bool {
	if seg.live {
		return true
	}
	n := len(seg.blocks)
	return n > 0 && seg.blocks[n-1].last > s.durable
}

// mergeRun writes a new segment in place of a run of them.
func (s *Store) mergeRun(ctx context.Context, run []*segment) error {
	var all []*entry
	for _, seg := range run {
		all = append(all, seg.blocks...)
	}
	return s.rewrite(ctx, run, all, true)
}

// rewrite replaces a run of segments by one with the given blocks of them. The new
// file gets its name, which covers those of the old, when all of it is on disk; only
// then the old ones go. A kill in between leaves one or the other.
func (s *Store) rewrite(ctx context.Context, run []*segment, keep []*entry, merge bool) (err error) {
	first, last := run[0], run[len(run)-1]
	out := &segment{day: first.day, from: first.from, to: last.to, base: first.base, files: &s.files, size: segmentHeader}
	for _, seg := range run {
		out.take = max(out.take, seg.take+1)
	}
	folder := filepath.Join(s.dir, out.day)
	out.path = filepath.Join(folder, segmentName(out.from, out.to, out.take))
	f, err := os.OpenFile(out.path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(out.path+".tmp"))
		}
	}()
	if _, err := f.Write(putSegmentHeader(out.from, out.to, out.base)); err != nil {
		return err
	}
	w := &merger{s: s, out: out, f: f}
	if w.u, err = s.unpacker(); err != nil {
		return err
	}
	defer s.giveBack(w.u)
	if err := w.copy(ctx, keep, merge); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	s.mu.RLock()
	closed := s.closed
	s.mu.RUnlock()
	if closed {
		return errClosed
	}
	if err := os.Rename(out.path+".tmp", out.path); err != nil {
		return err
	}
	// From here on the new file stands for the old ones, whatever happens.
	s.mu.Lock()
	at := slices.Index(s.segs, first)
	s.segs = slices.Concat(s.segs[:at], []*segment{out}, s.segs[at+len(run):])
	if merge {
		s.stats.Merges++
	}
	s.mu.Unlock()
	if serr := syncDir(folder); serr != nil {
		s.log.Error("merge logs", "error", serr)
		return nil // the old files stay until the next Open finds them covered
	}
	for _, seg := range run {
		seg.retire()
	}
	return nil
}

// merger writes blocks into a new segment.
type merger struct {
	s   *Store
	u   *unpacker
	out *segment
	f   *os.File
	buf []byte
}

// copy writes blocks, the small ones of a group together.
func (w *merger) copy(ctx context.Context, keep []*entry, merge bool) error {
	small := func(e *entry) bool {
		w.s.mu.RLock() // a search may find it damaged meanwhile
		defer w.s.mu.RUnlock()
		return w.s.small(e)
	}
	byGroup := map[group][]*entry{}
	var order []group
	for _, e := range keep {
		g := group{e.stream, e.source}
		if _, ok := byGroup[g]; !ok {
			order = append(order, g)
		}
		byGroup[g] = append(byGroup[g], e)
	}
	for _, g := range order {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		blocks := byGroup[g]
		slices.SortFunc(blocks, func(a, b *entry) int { return cmp.Compare(a.first, b.first) })
		for len(blocks) > 0 {
			n := 0
			for rows, raw := 0, int64(0); merge && n < len(blocks) && small(blocks[n]); n++ {
				rows, raw = rows+blocks[n].rows, raw+blocks[n].raw
				if n > 0 && (rows > w.s.o.MaxRows || raw > int64(w.s.o.MaxBytes)*3/4) {
					break
				}
			}
			if n > 1 {
				ok, err := w.join(blocks[:n])
				if err != nil {
					return err
				}
				if ok {
					blocks = blocks[n:]
					continue
				}
			}
			// As they are; so are those that turn out to be damaged, for whoever looks.
			for _, e := range blocks[:max(n, 1)] {
				if err := w.same(e); err != nil {
					return err
				}
			}
			blocks = blocks[max(n, 1):]
		}
	}
	return nil
}

// same copies a block.
func (w *merger) same(e *entry) error {
	f, err := e.seg.use()
	if err != nil {
		return err
	}
	defer e.seg.done()
	if int64(cap(w.buf)) < e.size {
		w.buf = make([]byte, e.size)
	}
	w.buf = w.buf[:e.size]
	if _, err := f.ReadAt(w.buf, e.off); err != nil {
		return fmt.Errorf("read a block: %w", err)
	}
	w.s.mu.RLock()
	bad := e.bad
	w.s.mu.RUnlock()
	return w.put(w.buf, &entry{head: e.head, stream: e.stream, bad: bad})
}

func (w *merger) put(block []byte, e *entry) error {
	if _, err := w.f.WriteAt(block, w.out.size); err != nil {
		return fmt.Errorf("write a block: %w", err)
	}
	e.seg, e.off = w.out, w.out.size
	w.out.size += int64(len(block))
	w.out.blocks = append(w.out.blocks, e)
	return nil
}

// join makes one block of several; not ok: one of them is damaged.
func (w *merger) join(blocks []*entry) (ok bool, err error) {
	b := newBuilder()
	for _, e := range blocks {
		if e.rows == 0 {
			continue
		}
		err := func() error {
			f, err := e.seg.use()
			if err != nil {
				return err
			}
			defer e.seg.done()
			defer w.u.takeBack()
			return b.addView(openView(f, e.off, &e.head, e.stream, w.u))
		}()
		var d *damage
		if errors.As(err, &d) {
			w.s.spoil(e, err)
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	from, to := blocks[0], blocks[len(blocks)-1]
	h := head{
		first: from.first, last: to.last, synced: to.synced, labels: from.stream.labels,
		source: from.source, from: from.head.from, to: to.head.to,
	}
	press := <-w.s.presses
	defer func() { w.s.presses <- press }()
	press.make(b, &h)
	block := press.block(&h)
	h.labels = nil
	return true, w.put(block, &entry{head: h, stream: from.stream})
}

// addView adds all rows of a view.
func (b *builder) addView(v *view) error {
	if err := v.needCodes(); err != nil {
		return err
	}
	if err := v.needTimes(); err != nil {
		return err
	}
	cols, spots := make([]*column, len(v.cols)), make([][]int32, len(v.cols))
	for i := range v.cols {
		var err error
		if cols[i], err = v.column(i); err != nil {
			return err
		}
		if spots[i], err = v.spot(i); err != nil {
			return err
		}
	}
	var r Row
	var buf []byte
	for row, code := range v.codes {
		k := &v.kinds[code>>1]
		r = Row{Time: v.times[row], Stderr: code&1 == 1, Shape: k.shape, Fields: r.Fields[:0]}
		for _, c := range k.cols {
			at := row
			if spots[c] != nil {
				at = int(spots[c][row])
			}
			f := Field{Name: v.cols[c].name}
			if col := cols[c]; col.form == formDict {
				f.Value = col.dict[col.codes[at]]
			} else {
				buf = col.append(buf[:0], at)
				f.Value = string(buf)
			}
			r.Fields = append(r.Fields, f)
		}
		b.add(&r)
	}
	return nil
}
