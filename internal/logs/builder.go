package logs

import (
	"hash/maphash"
	"slices"
	"strings"
)

// maxColumns of a block: a program that invents names of fields ends its blocks early.
const maxColumns = 4096

// kind is a way in which rows are made: their shape, and the column of each of their
// fields. Most programs have a handful.
type kind struct {
	shape string
	cols  []int32
	holes int // how many of the fields stand in the shape
}

// makeKind counts the holes.
func makeKind(shape string, cols []int32) kind {
	return kind{shape, cols, min(strings.Count(shape, string(rune(Hole))), len(cols))}
}

// builder gathers the rows of a block.
type builder struct {
	times  []int64
	rows   []uint32 // number of the kind * 2, + 1 if the row is of stderr
	kinds  []kind
	byHash map[uint64][]uint32 // kinds with one hash of the shape
	last   uint32              // kind
	cols   []*gatherer
	byName map[string][]int32 // columns in the order of their nth
	raw    int                // bytes of values
	errs   int                // rows of stderr
	shared bool
	held   bool       // it counts as one of the store's spares
	names  [][]string // of the fields of each kind
}

func newBuilder() *builder {
	return &builder{byHash: map[uint64][]uint32{}, byName: map[string][]int32{}}
}

// size is about what b holds in memory.
func (b *builder) size() int { return b.raw + len(b.times)*(12+4*len(b.cols)) }

// add copies a row.
func (b *builder) add(r *Row) {
	k := b.last
	if len(b.kinds) == 0 || !b.fits(k, r) {
		k = b.find(r)
		b.last = k
	}
	row := k << 1
	if r.Stderr {
		row |= 1
		b.errs++
	}
	b.times = append(b.times, r.Time)
	b.rows = append(b.rows, row)
	for i, c := range b.kinds[k].cols {
		v := r.Fields[i].Value
		b.raw += len(v)
		b.cols[c].add(v)
	}
}

func (b *builder) fits(k uint32, r *Row) bool {
	kind := &b.kinds[k]
	if len(kind.cols) != len(r.Fields) || kind.shape != r.Shape {
		return false
	}
	for i, name := range b.names[k] {
		if name != r.Fields[i].Name {
			return false
		}
	}
	return true
}

// find returns the kind of r, a new one if there was none like it.
func (b *builder) find(r *Row) uint32 {
	h := maphash.String(seed, r.Shape) + uint64(len(r.Fields))
	if len(r.Fields) > 0 {
		h += maphash.String(seed, r.Fields[len(r.Fields)-1].Name)
	}
	for _, k := range b.byHash[h] {
		if b.fits(k, r) {
			return k
		}
	}
	cols, names := make([]int32, len(r.Fields)), make([]string, len(r.Fields))
	for i := range r.Fields {
		cols[i] = b.place(r.Fields[i].Name, cols[:i])
		names[i] = b.cols[cols[i]].name
	}
	k := uint32(len(b.kinds))
	b.raw += len(r.Shape) + 8*len(cols)
	b.kinds = append(b.kinds, makeKind(strings.Clone(r.Shape), cols))
	b.names = append(b.names, names)
	b.byHash[h] = append(b.byHash[h], k)
	return k
}

// place returns the first column of a name that is not yet taken in the row.
func (b *builder) place(name string, taken []int32) int32 {
	same := b.byName[name]
	for _, c := range same {
		if !slices.Contains(taken, c) {
			return c
		}
	}
	name = strings.Clone(name)
	if len(same) > 0 {
		name = b.cols[same[0]].name
	}
	c := int32(len(b.cols))
	b.raw += len(name) + 64
	b.cols = append(b.cols, &gatherer{name: name, nth: len(same)})
	b.byName[name] = append(same, c)
	return c
}

// full says that the block is to end here.
func (b *builder) full(o *Options) bool {
	return len(b.times) >= o.MaxRows || b.size() >= o.MaxBytes || len(b.cols) >= maxColumns
}

// reset makes b ready for the next block of the same stream, or of another. What
// that one may not need is let go.
func (b *builder) reset() *builder {
	if b.shared || len(b.cols) > 256 || len(b.kinds) > 256 || cap(b.times) > 1<<16 {
		return newBuilder()
	}
	b.times, b.rows, b.raw, b.errs = b.times[:0], b.rows[:0], 0, 0
	unused := false
	for _, c := range b.cols {
		unused = unused || c.n == 0
		c.reset()
	}
	if unused || len(b.kinds) > 64 {
		b.kinds, b.cols, b.names, b.last = nil, nil, nil, 0
		clear(b.byHash)
		clear(b.byName)
	}
	return b
}

// view shows what b holds now. It stays right while b grows.
func (b *builder) view(st *stream) *view {
	b.shared = true
	v := &view{stream: st, rows: len(b.times), size: int64(b.raw), errs: b.errs, kinds: b.kinds[:len(b.kinds):len(b.kinds)]}
	v.times = b.times[:len(b.times):len(b.times)]
	v.codes = b.rows[:len(b.rows):len(b.rows)]
	v.sorted = slices.IsSorted(v.times)
	if v.rows > 0 {
		v.min, v.max = slices.Min(v.times), slices.Max(v.times)
	}
	for _, g := range b.cols {
		g.shared = true
		c := g.column
		v.cols = append(v.cols, viewColumn{name: g.name, nth: g.nth, n: c.n, col: &c})
	}
	return v
}
