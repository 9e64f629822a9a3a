package scan

import (
	"encoding/binary"
	"errors"
)

// sqlite reads the table Packages of a database of SQLite, page by page, without asking
// its own words: a schema can make any query endless.
// https://www.sqlite.org/fileformat2.html
func (d pages) sqlite(each func([]byte) error) error {
	head, err := d.read(0, 100)
	if err != nil {
		return err
	}
	t := table{pages: d, page: int64(binary.BigEndian.Uint16(head[16:]))}
	if t.page == 1 {
		t.page = 65536
	}
	t.usable = t.page - int64(head[20])
	if t.page < 512 || t.page&(t.page-1) != 0 || t.usable < 480 {
		return errors.New("it is no database of SQLite")
	}
	t.left = 2*(d.size/t.page) + 2 // a page may be read once as one of the tree, and once as overflow
	root := int64(0)
	err = t.rows(1, 0, func(row []byte) error {
		c, err := columns(row, 5)
		if err == nil && len(c) == 5 && string(c[0]) == "table" && string(c[1]) == "Packages" {
			root = integer(c[3])
		}
		return err
	})
	if err != nil {
		return err
	}
	if root == 0 {
		return errors.New("it has no table of packages")
	}
	return t.rows(root, 0, func(row []byte) error {
		c, err := columns(row, 2)
		if err != nil {
			return err
		}
		if len(c) < 2 {
			return errRow
		}
		return each(c[1])
	})
}

var (
	errPage = errors.New("a page is broken")
	errRow  = errors.New("a row is broken")
)

type table struct {
	pages
	page, usable int64
	left         int64 // pages that may still be read, so that circles end
}

func (t *table) get(no int64) ([]byte, error) {
	if t.left--; t.left < 0 || no < 1 {
		return nil, errors.New("its pages form a circle")
	}
	return t.read((no-1)*t.page, t.page)
}

// rows visits the rows of a table's tree.
func (t *table) rows(no int64, depth int, each func([]byte) error) error {
	if depth > 20 {
		return errPage
	}
	p, err := t.get(no)
	if err != nil {
		return err
	}
	start := 0
	if no == 1 {
		start = 100 // the file's header
	}
	h := p[start:]
	n := int(binary.BigEndian.Uint16(h[3:]))
	switch h[0] {
	case 5: // inner
		if 12+2*n > len(h) {
			return errPage
		}
		for i := range n {
			at := int(binary.BigEndian.Uint16(h[12+2*i:]))
			if at+4 > len(p) {
				return errPage
			}
			if err := t.rows(int64(binary.BigEndian.Uint32(p[at:])), depth+1, each); err != nil {
				return err
			}
		}
		return t.rows(int64(binary.BigEndian.Uint32(h[8:])), depth+1, each)
	case 13: // leaf
		if 8+2*n > len(h) {
			return errPage
		}
		for i := range n {
			at := int(binary.BigEndian.Uint16(h[8+2*i:]))
			if at > len(p) {
				return errPage
			}
			row, err := t.cell(p[at:])
			if err != nil {
				return err
			}
			if err := each(row); err != nil {
				return err
			}
		}
		return nil
	}
	return errPage
}

// cell puts a row together, which may go on over pages of its own.
func (t *table) cell(c []byte) ([]byte, error) {
	size, n := varint(c)
	if n == 0 || size < 0 || size > maxHeader {
		return nil, errRow
	}
	c = c[n:]
	if _, n = varint(c); n == 0 {
		return nil, errRow
	}
	c = c[n:]
	here := size
	if most := t.usable - 35; size > most {
		least := (t.usable-12)*32/255 - 23
		if here = least + (size-least)%(t.usable-4); here > most {
			here = least
		}
	}
	if here > int64(len(c)) {
		return nil, errRow
	}
	if here == size {
		return c[:size], nil
	}
	if here+4 > int64(len(c)) {
		return nil, errRow
	}
	row := make([]byte, 0, min(size, t.size))
	row = append(row, c[:here]...)
	for next := int64(binary.BigEndian.Uint32(c[here:])); next != 0 && int64(len(row)) < size; {
		p, err := t.get(next)
		if err != nil {
			return nil, err
		}
		row = append(row, p[4:min(t.usable, 4+size-int64(len(row)))]...)
		next = int64(binary.BigEndian.Uint32(p))
	}
	if int64(len(row)) != size {
		return nil, errRow
	}
	return row, nil
}

// columns takes a row apart, up to so many.
func columns(row []byte, most int) (out [][]byte, err error) {
	head, n := varint(row)
	if n == 0 || head > int64(len(row)) || head < int64(n) {
		return nil, errRow
	}
	kinds, body := row[n:head], row[head:]
	for len(kinds) > 0 && len(out) < most {
		kind, n := varint(kinds)
		if n == 0 || kind < 0 {
			return nil, errRow
		}
		kinds = kinds[n:]
		size := int64(0)
		switch {
		case kind >= 12:
			size = (kind - 12) / 2
		case kind <= 4:
			size = kind
		case kind == 5:
			size = 6
		case kind == 6, kind == 7:
			size = 8
		}
		if size > int64(len(body)) {
			return nil, errRow
		}
		out, body = append(out, body[:size]), body[size:]
	}
	return out, nil
}

func integer(b []byte) (n int64) {
	for _, c := range b {
		n = n<<8 | int64(c)
	}
	return n
}

// varint reads SQLite's: seven bits a byte, the highest first, and all eight of a ninth.
func varint(b []byte) (v int64, n int) {
	for i, c := range b {
		if i == 8 {
			return v<<8 | int64(c), 9
		}
		v = v<<7 | int64(c&0x7f)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
