package logs

import (
	"container/heap"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
)

// search is a query made ready.
type search struct {
	q       Query
	to      int64
	labels  []*test // of the stream, and "stream" among them
	tests   []*test // of the text and of fields
	streams map[*stream]byte
}

// Which rows of a stream are asked for.
const (
	wantOut = 1 << iota
	wantErr
)

func newSearch(q Query) *search {
	x := &search{q: q, to: q.To, streams: map[*stream]byte{}}
	if x.to == 0 {
		x.to = math.MaxInt64
	}
	for _, c := range q.Labels {
		x.labels = append(x.labels, newTest(c))
	}
	for _, c := range slices.Concat(q.Where, q.Text) {
		x.tests = append(x.tests, newTest(c))
	}
	return x
}

// wants says which rows of a stream the labels ask for.
func (x *search) wants(st *stream) byte {
	if w, ok := x.streams[st]; ok {
		return w
	}
	w := byte(wantOut | wantErr)
	for _, t := range x.labels {
		if !t.label(st.out.Get(t.name)) {
			w &^= wantOut
		}
		if !t.label(st.err.Get(t.name)) {
			w &^= wantErr
		}
	}
	x.streams[st] = w
	return w
}

// overlaps says whether a block may have rows that are asked for.
func (x *search) overlaps(st *stream, rows, errs int, least, most int64) bool {
	if rows == 0 || most < x.q.From || least >= x.to {
		return false
	}
	w := x.wants(st)
	return w&wantOut != 0 && errs < rows || w&wantErr != 0 && errs > 0
}

// part is something to search: a block on disk, or rows in memory.
type part struct {
	e        *entry
	mem      *view
	min, max int64
}

// parts lists what x has to look at, as of now. The segments are held until letGo
// is called.
func (s *Store) parts(x *search) (parts []part, letGo func(), err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, nil, errClosed
	}
	parts, letGo = s.onDisk(x, 0, math.MaxUint64)
	return append(parts, s.inMemory(x)...), letGo, nil
}

// onDisk lists the blocks with numbers above after, up to upTo.
func (s *Store) onDisk(x *search, after, upTo uint64) (parts []part, letGo func()) {
	var held []*segment
	for _, seg := range s.segs {
		hold := false
		for _, e := range seg.blocks {
			if !e.bad && e.last > after && e.last <= upTo && x.overlaps(e.stream, e.rows, e.errs, e.min, e.max) {
				parts = append(parts, part{e: e, min: e.min, max: e.max})
				hold = true
			}
		}
		if hold {
			seg.hold()
			held = append(held, seg)
		}
	}
	return parts, func() {
		for _, seg := range held {
			seg.letGo()
		}
	}
}

// inMemory lists the rows that are not yet on disk.
func (s *Store) inMemory(x *search) (parts []part) {
	for _, buf := range s.buffers {
		for _, p := range buf.queue {
			v := p.look()
			if x.overlaps(v.stream, v.rows, v.errs, v.min, v.max) {
				parts = append(parts, part{mem: v, min: v.min, max: v.max})
			}
		}
		buf.mu.Lock()
		if buf.b != nil && len(buf.b.times) > 0 && x.wants(buf.stream) != 0 {
			v := buf.b.view(buf.stream)
			if x.overlaps(v.stream, v.rows, v.errs, v.min, v.max) {
				parts = append(parts, part{mem: v, min: v.min, max: v.max})
			}
		}
		buf.mu.Unlock()
	}
	return parts
}

// with calls fn with the view of a part.
func (s *Store) with(p part, u *unpacker, fn func(*view) error) error {
	if p.mem != nil {
		v := *p.mem // what it works out as it goes is its own
		v.spots, v.byName, v.ready = nil, nil, nil
		return fn(&v)
	}
	f, err := p.e.seg.use()
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			s.spoil(p.e, err)
			return nil
		}
		return fmt.Errorf("find logs: %w", err)
	}
	defer p.e.seg.done()
	defer u.takeBack()
	err = fn(openView(f, p.e.off, &p.e.head, p.e.stream, u))
	var d *damage
	if errors.As(err, &d) {
		s.spoil(p.e, err)
		return nil
	}
	return err
}

// spoil takes a damaged block out of the index; all others stay.
func (s *Store) spoil(e *entry, err error) {
	s.mu.Lock()
	fresh := !e.bad
	if fresh {
		e.bad = true
		s.stats.Damaged++
	}
	s.mu.Unlock()
	if fresh {
		s.log.Error("logs are damaged", "file", e.seg.path, "offset", e.off, "bytes", e.size, "rows", e.rows, "reason", err)
	}
}

// firsts knows the times of the first rows found so far.
type firsts struct {
	limit    int
	backward bool
	times    []int64 // a heap: on top the last of the first
}

func (f *firsts) Len() int           { return len(f.times) }
func (f *firsts) Swap(i, j int)      { f.times[i], f.times[j] = f.times[j], f.times[i] }
func (f *firsts) Push(x any)         { f.times = append(f.times, x.(int64)) }
func (f *firsts) Less(i, j int) bool { return f.before(f.times[j], f.times[i]) }

func (f *firsts) Pop() any {
	t := f.times[len(f.times)-1]
	f.times = f.times[:len(f.times)-1]
	return t
}

func (f *firsts) before(a, b int64) bool {
	if f.backward {
		return a > b
	}
	return a < b
}

// beyond says that nothing from t on is among the first.
func (f *firsts) beyond(t int64) bool {
	return f.limit > 0 && len(f.times) >= f.limit && !f.before(t, f.times[0])
}

// add takes a time in, and says whether it is among the first.
func (f *firsts) add(t int64) bool {
	if f.limit == 0 {
		return true
	}
	if len(f.times) < f.limit {
		heap.Push(f, t)
		return true
	}
	if !f.before(t, f.times[0]) {
		return false
	}
	f.times[0] = t
	heap.Fix(f, 0)
	return true
}

// find finds the rows of v that are asked for; all: every one.
func (x *search) find(v *view) (rows set, all bool, err error) {
	if !x.overlaps(v.stream, v.rows, v.errs, v.min, v.max) {
		return nil, false, nil
	}
	all = true
	narrow := func(t set) bool {
		if all {
			rows, all = t, false
		} else {
			rows.and(t)
		}
		return !rows.empty()
	}
	for _, t := range x.tests {
		got, err := t.rows(v)
		if err != nil || !narrow(got) {
			return nil, false, err
		}
	}
	if err := v.needTimes(); err != nil {
		return nil, false, err
	}
	if v.min < x.q.From || v.max >= x.to {
		in := newSet(v.rows)
		if v.sorted {
			from, _ := slices.BinarySearch(v.times, x.q.From)
			to, _ := slices.BinarySearch(v.times, x.to)
			for i := from; i < to; i++ {
				in.add(i)
			}
		} else {
			for i, t := range v.times {
				if t >= x.q.From && t < x.to {
					in.add(i)
				}
			}
		}
		if !narrow(in) {
			return nil, false, nil
		}
	}
	return rows, all, nil
}

// hand calls fn with the rows of v that are asked for: a chunk for stdout, one for stderr.
func (x *search) hand(v *view, bound int64, first *firsts, fn func(Chunk) error) error {
	rows, all, err := x.find(v)
	if err != nil || rows == nil && !all {
		return err
	}
	mixed := v.errs > 0 && v.errs < v.rows
	if mixed {
		if err := v.needCodes(); err != nil {
			return err
		}
	}
	wants := x.wants(v.stream)
	for _, side := range []byte{wantOut, wantErr} {
		if wants&side == 0 || !mixed && (side == wantErr) != (v.errs > 0) {
			continue
		}
		c := &found{view: v, edge: bound}
		c.labels = v.stream.out
		if side == wantErr {
			c.labels = v.stream.err
		}
		c.pick(rows, mixed, side == wantErr, x.q.Backward)
		if first != nil && first.limit > 0 {
			c.first(first)
		}
		if len(c.times) == 0 {
			continue
		}
		if err := x.load(v); err != nil {
			return err
		}
		if err := c.give(fn); err != nil {
			return err
		}
	}
	return nil
}

// load reads what the caller will ask for, so that a block that turns out to be
// damaged does so before any of its rows is handed out.
func (x *search) load(v *view) error {
	if x.q.NoText && x.q.Columns != nil && len(x.q.Columns) == 0 {
		return nil
	}
	if err := v.need(); err != nil {
		return err
	}
	if x.q.Columns == nil || !x.q.NoText {
		if err := v.needCodes(); err != nil {
			return err
		}
	}
	for i := range v.cols {
		want := x.q.Columns == nil || slices.Contains(x.q.Columns, v.cols[i].name)
		if !want && !x.q.NoText {
			want, _ = v.hole(i)
		}
		if !want {
			continue
		}
		if _, err := v.column(i); err != nil {
			return err
		}
		if _, err := v.spot(i); err != nil {
			return err
		}
	}
	return nil
}
