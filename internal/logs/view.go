package logs

import (
	"slices"
	"strings"
)

// view is a block that can be searched: of memory, or of a disk, of which it reads
// only what it is asked for.
type view struct {
	stream   *stream
	rows     int
	min, max int64
	size     int64 // bytes of the values
	errs     int   // rows of stderr: none, all, or some (their number is then not exact)
	sorted   bool  // times ascend

	times []int64
	codes []uint32
	kinds []kind
	cols  []viewColumn
	disk  *reader // nil: all is here

	byName map[string]int // first column of a name
	spots  map[int][]int32
	ready  []ready
	sparse bool // few rows are asked for: columns need not be unpacked whole
}

// viewColumn is a column with what is known without its values.
type viewColumn struct {
	name   string
	nth, n int
	about  *about // nil in memory
	col    *column
}

// about is what the directory of a block says of a column.
type about struct {
	form                       byte
	present                    [32]byte // bytes that are in its values
	longest                    int      // value, in bytes
	distinct                   int
	least, most                uint64 // formNumber
	kind                       byte   // typeInt ...
	width                      int    // of packed numbers; of formHex
	clock                      clock
	dict, values, ends, filter section
	longestWord, longestID     int
	noGrams                    bool
}

// has says whether all bytes of s can be in the column, and whether it is short enough.
func (a *about) has(s string, anyCase bool) bool {
	if len(s) > a.longest {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if a.present[c>>3]&(1<<(c&7)) != 0 {
			continue
		}
		if anyCase && small[c] >= 'a' && small[c] <= 'z' {
			if c ^= 0x20; a.present[c>>3]&(1<<(c&7)) != 0 {
				continue
			}
		}
		return false
	}
	return true
}

// find returns the number of the first column called name, -1 if there is none.
func (v *view) find(name string) int {
	if len(v.cols) < 16 {
		for i := range v.cols {
			if v.cols[i].name == name && v.cols[i].nth == 0 {
				return i
			}
		}
		return -1
	}
	if v.byName == nil {
		v.byName = make(map[string]int, len(v.cols))
		for i := range v.cols {
			if v.cols[i].nth == 0 {
				v.byName[v.cols[i].name] = i
			}
		}
	}
	if i, ok := v.byName[name]; ok {
		return i
	}
	return -1
}

// spot returns the number of the value that each row has in column c, -1 for a row
// without it; nil if all rows have it, so that the two numbers are the same.
func (v *view) spot(c int) ([]int32, error) {
	if v.cols[c].n == v.rows {
		return nil, nil
	}
	if s, ok := v.spots[c]; ok {
		return s, nil
	}
	if err := v.needCodes(); err != nil {
		return nil, err
	}
	has := make([]bool, len(v.kinds))
	for i := range v.kinds {
		has[i] = slices.Contains(v.kinds[i].cols, int32(c))
	}
	s, n := make([]int32, v.rows), int32(0)
	for i, code := range v.codes {
		if has[code>>1] {
			s[i] = n
			n++
		} else {
			s[i] = -1
		}
	}
	if int(n) != v.cols[c].n {
		return nil, v.broken("column %q has %d values, and %d rows have it", v.cols[c].name, v.cols[c].n, n)
	}
	if v.spots == nil {
		v.spots = map[int][]int32{}
	}
	v.spots[c] = s
	return s, nil
}

// hole says for which kinds column c stands in the text: all that have it, or some.
func (v *view) hole(c int) (some, all bool) {
	all = true
	for i := range v.kinds {
		at := slices.Index(v.kinds[i].cols, int32(c))
		if at < 0 {
			continue
		}
		if at < v.kinds[i].holes {
			some = true
		} else {
			all = false
		}
	}
	return some, all
}

// text appends the exact text of a row.
func (v *view) text(dst []byte, row int) ([]byte, error) {
	if err := v.needCodes(); err != nil {
		return dst, err
	}
	k := &v.kinds[v.codes[row]>>1]
	shape := k.shape
	for n := range k.holes {
		at := strings.IndexByte(shape, Hole)
		dst = append(dst, shape[:at]...)
		shape = shape[at+1:]
		var err error
		if dst, err = v.appendValue(dst, int(k.cols[n]), row); err != nil {
			return dst, err
		}
	}
	return append(dst, shape...), nil
}

// appendValue appends what a row that has it has in column c.
func (v *view) appendValue(dst []byte, c, row int) ([]byte, error) {
	if v.sparse && v.cols[c].col == nil {
		l, err := v.lazy(c)
		if err != nil {
			return dst, err
		}
		if l != nil {
			if spot := v.ready[c].spot; spot != nil {
				row = int(spot[row])
			}
			return l.append(dst, row)
		}
	}
	col, i, err := v.value(c, row)
	if err != nil {
		return dst, err
	}
	return col.append(dst, i), nil
}

// ready is a column of which single values are asked for.
type ready struct {
	col  *column
	spot []int32
	lazy *lazy
}

// value returns the column and the number of its value for a row that has it.
func (v *view) value(c, row int) (*column, int, error) {
	if v.ready == nil {
		v.ready = make([]ready, len(v.cols))
	}
	r := &v.ready[c]
	if r.col == nil {
		col, err := v.column(c)
		if err != nil {
			return nil, 0, err
		}
		if r.spot, err = v.spot(c); err != nil {
			return nil, 0, err
		}
		r.col = col
	}
	if r.spot != nil {
		row = int(r.spot[row])
	}
	return r.col, row, nil
}

// fields appends those of a row in the order in which they were written.
func (v *view) fields(dst []Field, row int) ([]Field, error) {
	if err := v.needCodes(); err != nil {
		return dst, err
	}
	for _, c := range v.kinds[v.codes[row]>>1].cols {
		col, at, err := v.value(int(c), row)
		if err != nil {
			return dst, err
		}
		var s string
		if col.form == formDict {
			s = col.dict[col.codes[at]]
		} else {
			s = string(col.append(nil, at))
		}
		dst = append(dst, Field{v.cols[c].name, s})
	}
	return dst, nil
}
