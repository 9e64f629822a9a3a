package logs

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// press turns what a builder holds into the bytes of a block.
//
//	head | directory | near: dictionaries and kinds | bulk: filters, times, values
type press struct {
	zstd            *zstd.Encoder
	filters         filterer
	dir, near, bulk []byte
	out             []byte
	raw, tmp        []byte
	nums, nums2     []uint64
	behind          []byte
}

func newPress() (*press, error) {
	// One goroutine, and a window that fits the largest common section.
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true), zstd.WithSingleSegment(false))
	if err != nil {
		return nil, fmt.Errorf("compression: %w", err)
	}
	return &press{zstd: e}, nil
}

// pack appends src to a region, compressed if that spares an eighth.
func (p *press) pack(region *[]byte, src []byte) section {
	s := section{off: int64(len(*region)), raw: int64(len(src))}
	stored := src
	if len(src) >= 64 {
		p.tmp = p.zstd.EncodeAll(src, p.tmp[:0])
		if len(p.tmp) < len(src)-len(src)/8 {
			stored, s.codec = p.tmp, packed
		}
	}
	return p.place(region, s, stored)
}

// lay appends src as it is.
func (p *press) lay(region *[]byte, src []byte) section {
	return p.place(region, section{off: int64(len(*region)), raw: int64(len(src))}, src)
}

func (p *press) place(region *[]byte, s section, stored []byte) section {
	s.size, s.sum = int64(len(stored)), checksum(stored)
	*region = append(*region, stored...)
	return s
}

// make packs what b holds and fills in h.
func (p *press) make(b *builder, h *head) {
	p.dir, p.near, p.bulk = p.dir[:0], p.near[:0], p.bulk[:0]
	h.rows, h.errs, h.raw = len(b.times), b.errs, int64(b.raw)
	h.dir, h.near, h.sum, h.times, h.codes = 0, 0, 0, section{}, section{}
	if h.rows == 0 {
		return
	}
	h.min, h.max, h.sorted = slices.Min(b.times), slices.Max(b.times), slices.IsSorted(b.times)
	h.times = p.times(b.times)
	h.codes = p.codes(b.rows)
	used := b.used()
	p.kinds(b.kinds, used)
	n := 0
	for i := range used {
		if used[i] {
			n++
		}
	}
	p.dir = binary.AppendUvarint(p.dir, uint64(n))
	for i, g := range b.cols {
		if used[i] {
			p.column(b, int32(i), g)
		}
	}
	h.dir, h.near, h.sum = int64(len(p.dir)), int64(len(p.near)), checksum(p.dir)
}

// block returns the bytes of what was made, with its head as it is now. They are
// good until the next call.
func (p *press) block(h *head) []byte {
	p.out = h.put(p.out[:0], int64(len(p.bulk)))
	p.out = append(p.out, p.dir...)
	p.out = append(p.out, p.near...)
	p.out = append(p.out, p.bulk...)
	return p.out
}

// used says which columns have values: others are left from an earlier block.
func (b *builder) used() []bool {
	u := make([]bool, len(b.cols))
	for i, g := range b.cols {
		u[i] = g.n > 0
	}
	return u
}

// kinds writes the table of kinds. Those without rows, which have columns that are
// not written, keep their number and lose their fields.
func (p *press) kinds(kinds []kind, used []bool) {
	number, n := make([]uint64, len(used)), uint64(0)
	for i, u := range used {
		number[i] = n
		if u {
			n++
		}
	}
	p.raw = binary.AppendUvarint(p.raw[:0], uint64(len(kinds)))
	for _, k := range kinds {
		if slices.ContainsFunc(k.cols, func(c int32) bool { return !used[c] }) {
			k = kind{}
		}
		p.raw = putString(p.raw, k.shape)
		p.raw = binary.AppendUvarint(p.raw, uint64(len(k.cols)))
		for _, c := range k.cols {
			p.raw = binary.AppendUvarint(p.raw, number[c])
		}
	}
	p.dir = putSection(p.dir, p.pack(&p.near, p.raw))
}

// flip maps signed numbers to unsigned ones of the same order.
const flip = 1 << 63

// scales of times: most programs count in milliseconds, containers in nanoseconds.
var scales = [...]int64{1, 1e3, 1e6, 1e9}

// times writes the distances between the times of neighbours:
//
//	byte number of the scale | varint the first | uvarint the least distance | byte width | distances
func (p *press) times(times []int64) section {
	p.raw, p.nums = putSeries(p.raw[:0], p.nums, len(times), func(i int) int64 { return times[i] })
	return p.pack(&p.bulk, p.raw)
}

func putSeries(dst []byte, scratch []uint64, n int, at func(int) int64) ([]byte, []uint64) {
	scale := len(scales) - 1
	for i := 0; i < n && scale > 0; i++ {
		for t := at(i); scale > 0 && t%scales[scale] != 0; {
			scale--
		}
	}
	unit := scales[scale]
	first := at(0) / unit
	nums, prev := scratch[:0], first
	for i := 1; i < n; i++ {
		t := at(i)
		if unit > 1 {
			t /= unit
		}
		nums = append(nums, uint64(t-prev)^flip)
		prev = t
	}
	dst = append(dst, byte(scale))
	dst = binary.AppendVarint(dst, first)
	header := len(dst)
	dst = append(dst, make([]byte, 9)...)
	dst, least, width := putInts(dst, nums)
	binary.LittleEndian.PutUint64(dst[header:], least)
	dst[header+8] = byte(width)
	return dst, nums
}

// codes writes kind*2 + stderr of each row; nothing if all are 0.
func (p *press) codes(rows []uint32) section {
	p.nums = p.nums[:0]
	for _, r := range rows {
		p.nums = append(p.nums, uint64(r))
	}
	return p.ints(&p.bulk, p.nums)
}

// ints writes numbers as least | width | distances.
func (p *press) ints(region *[]byte, nums []uint64) section {
	p.raw = append(p.raw[:0], make([]byte, 9)...)
	var least uint64
	var width int
	p.raw, least, width = putInts(p.raw, nums)
	binary.LittleEndian.PutUint64(p.raw, least)
	p.raw[8] = byte(width)
	return p.pack(region, p.raw)
}

// Types that all values of a column can be read as.
const (
	typeString = iota
	typeFloat
	typeInt
)

var typeNames = [...]string{"string", "float", "int"}

// typeOf says what one value can be read as.
func typeOf(v []byte) byte {
	if _, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return typeInt
	}
	if _, err := strconv.ParseFloat(string(v), 64); err == nil {
		return typeFloat
	}
	return typeString
}

// column writes the entry of a column in the directory, and its values.
func (p *press) column(b *builder, i int32, g *gatherer) {
	a := about{form: g.form, distinct: g.n}
	if g.form == formText {
		a.form = p.recognise(g, &a)
	}
	switch a.form {
	case formDict:
		p.dict(g, &a)
	case formText:
		p.text(g, &a)
	case formNumber:
		a.least, a.most = slices.Min(p.nums), slices.Max(p.nums)
		if span := a.most - a.least; span < uint64(g.n) {
			a.distinct = int(span) + 1
		}
		a.longest, a.kind = len(strconv.FormatUint(a.most, 10)), typeInt
		a.values = p.ints(&p.bulk, p.nums)
	case formHex, formUUID:
		a.values = p.lay(&p.bulk, p.raw)
	case formDecimal:
		a.kind = typeFloat
		p.nums2 = p.nums2[:0]
		for _, b := range p.behind {
			p.nums2 = append(p.nums2, uint64(b))
		}
		a.ends, a.values = p.ints(&p.bulk, p.nums2), p.ints(&p.bulk, p.nums)
	case formTime:
		p.clocks(b, i, g)
		a.values = p.pack(&p.bulk, p.raw)
	}
	p.dir = putString(p.dir, g.name)
	p.dir = binary.AppendUvarint(p.dir, uint64(g.nth))
	p.dir = binary.AppendUvarint(p.dir, uint64(g.n))
	p.dir = a.put(p.dir)
}

// recognise finds the form of a text column; what it packs is in p.raw or p.nums.
func (p *press) recognise(g *gatherer, a *about) byte {
	c := &g.column
	first := c.text(0)
	if _, ok := numberOf(first); ok {
		if p.nums, ok = asNumbers(p.nums[:0], c); ok {
			return formNumber
		}
	}
	if _, _, ok := decimalOf(first); ok {
		if p.nums, p.behind, ok = asDecimals(p.nums[:0], p.behind[:0], c); ok {
			return formDecimal
		}
	}
	if len(first) == 36 && first[8] == '-' {
		var ok bool
		if p.raw, ok = asUUIDs(p.raw[:0], c); ok {
			a.width = 16
			return formUUID
		}
	}
	if len(first) >= 19 && first[4] == '-' {
		var ok bool
		if p.nums, a.clock, ok = asTimes(p.nums[:0], c); ok {
			return formTime
		}
	}
	if len(first) >= 8 && nibbles[first[0]] < 16 {
		var ok bool
		if p.raw, a.width, ok = asHex(p.raw[:0], c); ok {
			return formHex
		}
	}
	return formText
}

// clocks writes times (in p.nums) as what is smaller: the distance to the times of
// the rows, or that to the neighbour's.
func (p *press) clocks(b *builder, col int32, g *gatherer) {
	diffs := p.nums2[:0]
	if g.n == len(b.times) {
		for i, ns := range p.nums {
			diffs = append(diffs, (ns-uint64(b.times[i]))^flip)
		}
	} else {
		has := make([]bool, len(b.kinds))
		for i := range b.kinds {
			has[i] = slices.Contains(b.kinds[i].cols, col)
		}
		n := 0
		for i, r := range b.rows {
			if has[r>>1] {
				diffs = append(diffs, (p.nums[n]-uint64(b.times[i]))^flip)
				n++
			}
		}
	}
	p.nums2 = diffs
	p.raw = append(p.raw[:0], 0)
	p.raw = append(p.raw, make([]byte, 9)...)
	var least uint64
	var width int
	p.raw, least, width = putInts(p.raw, diffs)
	binary.LittleEndian.PutUint64(p.raw[1:], least)
	p.raw[9] = byte(width)
	if width == 0 {
		return
	}
	other := []byte{1}
	nums := p.nums
	other, p.nums2 = putSeries(other, p.nums2, len(nums), func(i int) int64 { return int64(nums[i]) })
	if len(other) < len(p.raw) {
		p.raw = other
	}
}

func (p *press) dict(g *gatherer, a *about) {
	a.distinct, a.kind = len(g.dict), typeInt
	p.raw = binary.AppendUvarint(p.raw[:0], uint64(len(g.dict)))
	for _, d := range g.dict {
		p.raw = putString(p.raw, d)
		a.longest = max(a.longest, len(d))
		for i := range len(d) {
			a.present[d[i]>>3] |= 1 << (d[i] & 7)
		}
		a.kind = min(a.kind, typeOf([]byte(d)))
	}
	a.dict = p.pack(&p.near, p.raw)
	p.nums = p.nums[:0]
	for _, c := range g.codes {
		p.nums = append(p.nums, uint64(c))
	}
	a.values = p.ints(&p.bulk, p.nums)
}

func (p *press) text(g *gatherer, a *about) {
	f := p.filters.make(g.data, g.ends)
	for c, is := range p.filters.present {
		if is {
			a.present[c>>3] |= 1 << (c & 7)
		}
	}
	if floats(a) {
		a.kind = typeFloat
		f.words = nil // the set of bytes does as well
	}
	p.nums = p.nums[:0]
	from := uint32(0)
	for _, end := range g.ends {
		p.nums = append(p.nums, uint64(end-from))
		a.longest = max(a.longest, int(end-from))
		from = end
	}
	a.ends = p.ints(&p.bulk, p.nums)
	a.values = p.pack(&p.bulk, g.data)
	// A filter that takes about as long to read as the values to unpack spares nothing.
	if n := len(f.words) * 8; n > 0 && len(g.data) > 2048 && n <= len(g.data)/8 {
		p.raw = p.raw[:0]
		for _, w := range f.words {
			p.raw = binary.LittleEndian.AppendUint64(p.raw, w)
		}
		a.filter = p.lay(&p.bulk, p.raw)
		a.longestWord, a.longestID, a.noGrams = f.longest, f.longestID, f.noGrams
	}
}

// floats says that the values are made of the signs of decimal numbers alone.
func floats(a *about) bool {
	for c := range 256 {
		if a.present[c>>3]&(1<<(c&7)) != 0 && (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' {
			return false
		}
	}
	return true
}

// put writes what the directory says of a column.
func (a *about) put(dst []byte) []byte {
	dst = append(dst, a.form, a.kind)
	dst = binary.AppendUvarint(dst, uint64(a.distinct))
	switch a.form {
	case formDict:
		dst = append(dst, a.present[:]...)
		dst = binary.AppendUvarint(dst, uint64(a.longest))
		dst = putSection(dst, a.dict)
	case formText:
		dst = append(dst, a.present[:]...)
		dst = binary.AppendUvarint(dst, uint64(a.longest))
		dst = putSection(dst, a.ends)
		dst = putSection(dst, a.filter)
		dst = binary.AppendUvarint(dst, uint64(a.longestWord))
		dst = binary.AppendUvarint(dst, uint64(a.longestID))
		no := byte(0)
		if a.noGrams {
			no = 1
		}
		dst = append(dst, no)
	case formDecimal:
		dst = putSection(dst, a.ends)
	case formNumber:
		dst = binary.AppendUvarint(dst, a.least)
		dst = binary.AppendUvarint(dst, a.most)
	case formHex:
		dst = binary.AppendUvarint(dst, uint64(a.width))
	case formTime:
		dst = append(dst, a.clock.sep, a.clock.point, byte(a.clock.decimals), a.clock.zone)
	}
	return putSection(dst, a.values)
}
