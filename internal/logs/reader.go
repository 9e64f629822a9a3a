package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// unpacker holds what reading needs over and over. It serves one goroutine.
type unpacker struct {
	zstd  *zstd.Decoder
	buf   []byte // of stored sections
	nums  []uint64
	lent  pool[byte] // unpacked sections
	times pool[int64]
	wide  pool[uint64]
	ends  pool[uint32]
	codes pool[uint16]

	trusting bool // checksums are not asked; for tests of what is behind them
}

// pool lends buffers until all of them are taken back at once: what is read of a
// block is of no use when the block is done with.
type pool[T any] struct {
	bufs [][]T
	next int // those before are in use
}

// lend returns an empty buffer for n values.
func (p *pool[T]) lend(n int) []T {
	if p.next == len(p.bufs) {
		p.bufs = append(p.bufs, nil)
	}
	b := p.bufs[p.next]
	if cap(b) < n {
		b = make([]T, 0, n+n/8)
		p.bufs[p.next] = b
	}
	p.next++
	return b[:0]
}

func (p *pool[T]) size() (n int) {
	for _, b := range p.bufs {
		n += cap(b)
	}
	return n
}

func (u *unpacker) takeBack() {
	u.lent.next, u.times.next, u.wide.next, u.ends.next, u.codes.next = 0, 0, 0, 0, 0
}

// shrink lets go of what an unusual block took.
func (u *unpacker) shrink() {
	if cap(u.buf)+u.lent.size()+8*(u.times.size()+u.wide.size())+4*u.ends.size()+2*u.codes.size() > 16<<20 {
		*u = unpacker{zstd: u.zstd}
	}
}

func newUnpacker() (*unpacker, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxSection))
	if err != nil {
		return nil, fmt.Errorf("decompression: %w", err)
	}
	return &unpacker{zstd: d}, nil
}

// reader reads parts of one block.
type reader struct {
	src  io.ReaderAt
	off  int64 // of the block
	u    *unpacker
	head *head // labels, source and places may be missing
	near []byte
	open bool // the directory was read
}

// openView shows the block at off; nothing of it is read yet.
func openView(src io.ReaderAt, off int64, h *head, st *stream, u *unpacker) *view {
	return &view{
		stream: st, rows: h.rows, min: h.min, max: h.max, size: h.raw, errs: h.errs, sorted: h.sorted,
		disk: &reader{src: src, off: off, u: u, head: h},
	}
}

func (v *view) broken(format string, args ...any) error { return damaged(format, args...) }

// readAt fills buf; what is not there is damage, all else an error of the disk.
func (r *reader) readAt(buf []byte, off int64) error {
	if _, err := r.src.ReadAt(buf, off); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return damaged("the file ends in a block")
		}
		return fmt.Errorf("read a block: %w", err)
	}
	return nil
}

// need reads directory and near region.
func (v *view) need() error {
	r := v.disk
	if r == nil || r.open {
		return nil
	}
	h := r.head
	front := r.u.lent.lend(int(h.dir + h.near))[:h.dir+h.near]
	if h.rows > 0 {
		if err := r.readAt(front, r.off+h.own); err != nil {
			return err
		}
	}
	dir := front[:h.dir]
	if h.rows > 0 && !r.u.trusting && checksum(dir) != h.sum {
		return damaged("the checksum of the directory is wrong")
	}
	r.near = front[h.dir:]
	if h.rows > 0 {
		if err := v.parseDir(dir); err != nil {
			return err
		}
	}
	r.open = true
	return nil
}

func (v *view) parseDir(dir []byte) error {
	g := getter{b: dir}
	kinds, total := g.section(), int64(0)
	n := g.upTo(maxColumns * 4)
	v.cols = make([]viewColumn, 0, min(n, int64(len(dir)/16)))
	for range n {
		c := viewColumn{name: g.string(), nth: int(g.upTo(1 << 20)), n: int(g.upTo(int64(v.rows))), about: &about{}}
		c.about.get(&g)
		if g.bad {
			return damaged("the directory makes no sense")
		}
		a := c.about
		if total += a.dict.raw + a.values.raw + a.ends.raw + a.filter.raw; total > maxUnpacked {
			return damaged("the directory makes no sense")
		}
		v.cols = append(v.cols, c)
	}
	if g.bad || len(g.b) > 0 {
		return damaged("the directory makes no sense")
	}
	b, err := v.disk.nearby(kinds)
	if err != nil {
		return err
	}
	g = getter{b: b}
	n = g.upTo(int64(v.rows) + 256)
	v.kinds = make([]kind, 0, n)
	taken := make([]int64, len(v.cols)) // by which kind, so that none has a column twice
	for i := range n {
		shape := g.string()
		fields := g.upTo(int64(len(v.cols)))
		cols := make([]int32, 0, fields)
		for range fields {
			c := g.upTo(int64(len(v.cols)) - 1)
			if g.bad || taken[c] == i+1 {
				return damaged("the kinds of rows make no sense")
			}
			taken[c] = i + 1
			cols = append(cols, int32(c))
		}
		v.kinds = append(v.kinds, makeKind(shape, cols))
	}
	if g.bad || len(g.b) > 0 || len(v.kinds) == 0 {
		return damaged("the kinds of rows make no sense")
	}
	return nil
}

// get reads what put wrote.
func (a *about) get(g *getter) {
	a.form, a.kind = g.byte(), g.byte()
	a.distinct = int(g.upTo(maxRowsRead))
	if a.form >= forms || a.kind > typeInt {
		g.bad = true
		return
	}
	switch a.form {
	case formDict:
		copy(a.present[:], g.bytes(32))
		a.longest = int(g.upTo(maxSection))
		a.dict = g.section()
	case formText:
		copy(a.present[:], g.bytes(32))
		a.longest = int(g.upTo(maxSection))
		a.ends, a.filter = g.section(), g.section()
		a.longestWord, a.longestID = int(g.upTo(maxSection)), int(g.upTo(maxSection))
		a.noGrams = g.byte() != 0
	case formNumber:
		a.least, a.most = g.uint(), g.uint()
		a.setPresent("0123456789")
		a.longest = 18
	case formDecimal:
		a.ends = g.section()
		a.setPresent("0123456789.")
		a.longest = 18
	case formHex:
		a.width = int(g.upTo(1 << 10))
		a.setPresent("0123456789abcdef")
		a.longest = 2 * a.width
	case formUUID:
		a.width = 16
		a.setPresent("0123456789abcdef-")
		a.longest = 36
	case formTime:
		a.clock = clock{sep: g.byte(), point: g.byte(), decimals: int(g.byte()), zone: g.byte()}
		if !a.clock.valid() {
			g.bad = true
			return
		}
		a.setPresent("0123456789-:+Z")
		a.setPresent(string(rune(a.clock.sep)))
		if a.clock.point != 0 {
			a.setPresent(string(rune(a.clock.point)))
		}
		a.longest = a.clock.size()
	}
	a.values = g.section()
}

func (a *about) setPresent(s string) {
	for i := range len(s) {
		a.present[s[i]>>3] |= 1 << (s[i] & 7)
	}
}

// nearby returns a section of the near region.
func (r *reader) nearby(s section) ([]byte, error) {
	if s.off+s.size > int64(len(r.near)) {
		return nil, damaged("a section lies outside of its region")
	}
	return r.unpack(s, r.near[s.off:s.off+s.size])
}

// bulk reads a section of the bulk region.
func (r *reader) bulk(s section) ([]byte, error) {
	h := r.head
	from := h.own + h.dir + h.near
	if s.off+s.size > h.size-from {
		return nil, damaged("a section lies outside of its region")
	}
	if int64(cap(r.u.buf)) < s.size {
		r.u.buf = make([]byte, s.size+s.size/4)
	}
	buf := r.u.buf[:s.size]
	if err := r.readAt(buf, r.off+from+s.off); err != nil {
		return nil, err
	}
	return r.unpack(s, buf)
}

// unpack returns what was stored, good until the unpacker takes its buffers back.
func (r *reader) unpack(s section, stored []byte) ([]byte, error) {
	dst := r.u.lent.lend(int(s.raw))
	if !r.u.trusting && checksum(stored) != s.sum {
		return nil, damaged("the checksum of a section is wrong")
	}
	if s.codec == plain {
		return append(dst, stored...), nil
	}
	out, err := r.u.zstd.DecodeAll(stored, dst)
	if err != nil {
		return nil, damaged("unpack: %v", err)
	}
	// What the frame says of itself must be what the section says.
	if int64(len(out)) != s.raw {
		return nil, damaged("a section unpacks to %d bytes, not %d", len(out), s.raw)
	}
	return out, nil
}

// needTimes reads the times of the rows.
func (v *view) needTimes() error {
	if v.times != nil || v.rows == 0 {
		return nil
	}
	r := v.disk
	b, err := r.bulk(r.head.times)
	if err != nil {
		return err
	}
	times := r.u.times.lend(v.rows)
	if times, err = r.u.getSeries(times, b, v.rows); err != nil {
		return err
	}
	v.times = times
	return nil
}

func (u *unpacker) getSeries(dst []int64, b []byte, n int) ([]int64, error) {
	if len(b) == 0 || int(b[0]) >= len(scales) || n == 0 {
		return dst, damaged("times make no sense")
	}
	unit := scales[b[0]]
	first, size := binary.Varint(b[1:])
	if size <= 0 || len(b) < 1+size+9 {
		return dst, damaged("times make no sense")
	}
	b = b[1+size:]
	var ok bool
	u.nums, ok = getInts(u.nums[:0], b[9:], n-1, binary.LittleEndian.Uint64(b), int(b[8]))
	if !ok {
		return dst, damaged("times make no sense")
	}
	t := first
	dst = append(dst, t*unit)
	if unit == 1 {
		for _, d := range u.nums {
			t += int64(d ^ flip)
			dst = append(dst, t)
		}
		return dst, nil
	}
	for _, d := range u.nums {
		t += int64(d ^ flip)
		dst = append(dst, t*unit)
	}
	return dst, nil
}

// getInts reads what press.ints wrote.
func (u *unpacker) ints(b []byte, n int) ([]uint64, error) {
	if len(b) < 9 {
		return nil, damaged("numbers make no sense")
	}
	var ok bool
	u.nums, ok = getInts(u.nums[:0], b[9:], n, binary.LittleEndian.Uint64(b), int(b[8]))
	if !ok {
		return nil, damaged("%d numbers make no sense", n)
	}
	return u.nums, nil
}

// needCodes reads which kind each row is of.
func (v *view) needCodes() error {
	if v.codes != nil || v.rows == 0 {
		return nil
	}
	if err := v.need(); err != nil {
		return err
	}
	r := v.disk
	b, err := r.bulk(r.head.codes)
	if err != nil {
		return err
	}
	nums, err := r.u.ints(b, v.rows)
	if err != nil {
		return err
	}
	codes, errs := r.u.ends.lend(v.rows), 0
	for _, n := range nums {
		if n>>1 >= uint64(len(v.kinds)) {
			return damaged("a row is of no kind")
		}
		codes = append(codes, uint32(n))
		errs += int(n & 1)
	}
	if (v.errs == 0 || v.errs == v.rows) && errs != v.errs {
		return damaged("rows of the wrong stream")
	}
	v.codes = codes
	return nil
}

// column reads the values of column i.
func (v *view) column(i int) (*column, error) {
	vc := &v.cols[i]
	if vc.col != nil {
		return vc.col, nil
	}
	a, r := vc.about, v.disk
	c := &column{form: a.form, n: vc.n, width: a.width, clock: a.clock}
	var err error
	switch a.form {
	case formDict:
		err = v.readDict(c, a)
	case formText:
		err = v.readText(c, a)
	case formNumber:
		var b []byte
		if b, err = r.bulk(a.values); err == nil {
			var nums []uint64
			nums, err = r.u.ints(b, c.n)
			c.nums = append(r.u.wide.lend(len(nums)), nums...)
		}
	case formDecimal:
		err = v.readDecimals(c, a)
	case formHex, formUUID:
		c.data, err = r.bulk(a.values)
		if err == nil && len(c.data) != c.n*c.width {
			err = damaged("%d values do not fit in %d bytes", c.n, len(c.data))
		}
	case formTime:
		err = v.readTimes(i, c, a)
	}
	if err != nil {
		return nil, err
	}
	vc.col = c
	return c, nil
}

// dictOf reads the dictionary alone.
func (v *view) dictOf(a *about) ([]string, error) {
	b, err := v.disk.nearby(a.dict)
	if err != nil {
		return nil, err
	}
	g := getter{b: b}
	n := g.upTo(1 << 16)
	dict := make([]string, 0, n)
	for range n {
		dict = append(dict, g.string())
	}
	if g.bad || len(g.b) > 0 || n != int64(a.distinct) {
		return nil, damaged("a dictionary makes no sense")
	}
	return dict, nil
}

func (v *view) readDict(c *column, a *about) (err error) {
	if c.dict, err = v.dictOf(a); err != nil {
		return err
	}
	b, err := v.disk.bulk(a.values)
	if err != nil {
		return err
	}
	nums, err := v.disk.u.ints(b, c.n)
	if err != nil {
		return err
	}
	c.codes = v.disk.u.codes.lend(len(nums))
	for _, n := range nums {
		if n >= uint64(len(c.dict)) {
			return damaged("a value is not in its dictionary")
		}
		c.codes = append(c.codes, uint16(n))
	}
	return nil
}

func (v *view) readText(c *column, a *about) error {
	r := v.disk
	b, err := r.bulk(a.ends)
	if err != nil {
		return err
	}
	nums, err := r.u.ints(b, c.n)
	if err != nil {
		return err
	}
	c.ends = r.u.ends.lend(len(nums))
	end := uint64(0)
	for _, n := range nums {
		if n > maxSection {
			return damaged("a value is too long")
		}
		end += n
		c.ends = append(c.ends, uint32(end))
	}
	if end != uint64(a.values.raw) {
		return damaged("values of %d bytes in a section of %d", end, a.values.raw)
	}
	c.data, err = r.bulk(a.values)
	return err
}

func (v *view) readDecimals(c *column, a *about) error {
	r := v.disk
	b, err := r.bulk(a.ends)
	if err != nil {
		return err
	}
	nums, err := r.u.ints(b, c.n)
	if err != nil {
		return err
	}
	c.behind = make([]byte, 0, len(nums))
	for _, n := range nums {
		if n >= uint64(len(tens)) {
			return damaged("a point in the wrong place")
		}
		c.behind = append(c.behind, byte(n))
	}
	if b, err = r.bulk(a.values); err != nil {
		return err
	}
	if nums, err = r.u.ints(b, c.n); err != nil {
		return err
	}
	c.nums = append(r.u.wide.lend(len(nums)), nums...)
	return nil
}

func (v *view) readTimes(i int, c *column, a *about) error {
	r := v.disk
	b, err := r.bulk(a.values)
	if err != nil {
		return err
	}
	c.nums = r.u.wide.lend(c.n)
	switch {
	case len(b) > 0 && b[0] == 1:
		var times []int64
		if times, err = r.u.getSeries(r.u.times.lend(c.n), b[1:], c.n); err != nil {
			return err
		}
		for _, t := range times {
			c.nums = append(c.nums, uint64(t))
		}
	case len(b) > 0 && b[0] == 0:
		// spot and needTimes use the same scratch: they go first.
		spot, err := v.spot(i)
		if err != nil {
			return err
		}
		if err := v.needTimes(); err != nil {
			return err
		}
		nums, err := r.u.ints(b[1:], c.n)
		if err != nil {
			return err
		}
		n := 0
		for row, t := range v.times {
			if spot != nil && spot[row] < 0 {
				continue
			}
			c.nums = append(c.nums, uint64(t)+(nums[n]^flip))
			n++
		}
	default:
		return damaged("times make no sense")
	}
	for _, t := range c.nums {
		if ns := int64(t); ns < 0 || ns > 1<<62+1<<61 {
			return damaged("a time out of range")
		}
	}
	return nil
}

// filter reads that of column i; one without words says nothing.
func (v *view) filter(i int) (f filter, err error) {
	a := v.cols[i].about
	if a == nil || a.form != formText || a.filter.size == 0 {
		return f, nil
	}
	r := v.disk
	b, err := r.bulk(a.filter)
	if err != nil {
		return f, err
	}
	n := len(b) / 8
	if len(b)%8 != 0 || bits.OnesCount(uint(n)) != 1 {
		return f, damaged("a filter makes no sense")
	}
	f = filter{words: r.u.wide.lend(n)[:n], longest: a.longestWord, longestID: a.longestID, noGrams: a.noGrams}
	for j := range f.words {
		f.words[j] = binary.LittleEndian.Uint64(b[j*8:])
	}
	return f, nil
}
