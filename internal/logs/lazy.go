package logs

import (
	"encoding/binary"
	"strconv"
)

// lazy is a column of which only a few values are wanted: packed numbers stay packed.
type lazy struct {
	form         byte
	nums, behind packedInts
	dict         []string
}

// packedInts are what press.ints wrote.
type packedInts struct {
	src   []byte
	least uint64
	width int
}

// packedOf checks that b holds n numbers.
func packedOf(b []byte, n int) (p packedInts, err error) {
	if len(b) < 9 {
		return p, damaged("numbers make no sense")
	}
	p = packedInts{src: b[9:], least: binary.LittleEndian.Uint64(b), width: int(b[8])}
	size := -1
	switch p.width {
	case inBits + 1, inBits + 2, inBits + 4:
		size = (n*(p.width-inBits) + 7) / 8
	case 0, 1, 2, 3, 4, 8:
		size = n * p.width
	}
	if size != len(p.src) {
		return p, damaged("%d numbers make no sense", n)
	}
	return p, nil
}

func (p *packedInts) at(i int) uint64 {
	switch p.width {
	case 0:
		return p.least
	case 1:
		return p.least + uint64(p.src[i])
	case 2:
		return p.least + uint64(binary.LittleEndian.Uint16(p.src[2*i:]))
	case 3:
		b := p.src[3*i : 3*i+3]
		return p.least + (uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16)
	case 4:
		return p.least + uint64(binary.LittleEndian.Uint32(p.src[4*i:]))
	case 8:
		return p.least + binary.LittleEndian.Uint64(p.src[8*i:])
	}
	bits := p.width - inBits
	at := i * bits
	return p.least + uint64(p.src[at>>3]>>(at&7)&(1<<bits-1))
}

// lazy returns column c unpacked as far as that is cheap; nil if its form has to be
// unpacked whole.
func (v *view) lazy(c int) (*lazy, error) {
	if v.ready == nil {
		v.ready = make([]ready, len(v.cols))
	}
	r := &v.ready[c]
	if r.lazy != nil {
		return r.lazy, nil
	}
	vc := &v.cols[c]
	if f := vc.about.form; f != formDict && f != formNumber && f != formDecimal {
		return nil, nil
	}
	l := &lazy{form: vc.about.form}
	var err error
	ints := func(s section) (p packedInts) {
		var b []byte
		if err == nil {
			b, err = v.disk.bulk(s)
		}
		if err == nil {
			p, err = packedOf(b, vc.n)
		}
		return p
	}
	l.nums = ints(vc.about.values)
	switch l.form {
	case formDecimal:
		l.behind = ints(vc.about.ends)
	case formDict:
		if err == nil {
			l.dict, err = v.dictOf(vc.about)
		}
	}
	if err != nil {
		return nil, err
	}
	if r.spot, err = v.spot(c); err != nil {
		return nil, err
	}
	r.lazy = l
	return l, nil
}

// append appends value i.
func (l *lazy) append(dst []byte, i int) ([]byte, error) {
	n := l.nums.at(i)
	switch l.form {
	case formDict:
		if n >= uint64(len(l.dict)) {
			return dst, damaged("a value is not in its dictionary")
		}
		return append(dst, l.dict[n]...), nil
	case formDecimal:
		behind := l.behind.at(i)
		if behind >= uint64(len(tens)) {
			return dst, damaged("a point in the wrong place")
		}
		return appendDecimal(dst, n, int(behind)), nil
	}
	return strconv.AppendUint(dst, n, 10), nil
}
