package logs

import (
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"strconv"
	"strings"
)

// The forms in which the values of a column are kept. Rows wait in memory as
// formDict or formText; the others are found when a block is written.
const (
	formDict    = iota // few different values: a list of them and a code for each row
	formText           // one behind the other
	formNumber         // decimal integers without sign and leading zeros, below 10^18
	formHex            // small hexadecimal digits, all of one even length
	formUUID           // 8-4-4-4-12 small hexadecimal digits
	formTime           // a time of day in one layout, as the distance to the row's own time
	formDecimal        // numbers with a point or without, at most 18 digits, no sign
	forms
)

// column holds the values of one field, of those rows alone that have it.
type column struct {
	form   byte
	n      int // values
	dict   []string
	codes  []uint16
	data   []byte   // formText: the values; formHex, formUUID: their bytes
	ends   []uint32 // formText: of the values in data
	width  int      // formHex, formUUID: bytes of a value
	nums   []uint64 // formNumber; formTime: nanoseconds since 1970; formDecimal: all digits
	behind []byte   // formDecimal: how many digits are behind the point
	clock  clock    // formTime
}

// append appends value i to dst.
func (c *column) append(dst []byte, i int) []byte {
	switch c.form {
	case formDict:
		return append(dst, c.dict[c.codes[i]]...)
	case formText:
		return append(dst, c.text(i)...)
	case formNumber:
		return strconv.AppendUint(dst, c.nums[i], 10)
	case formHex:
		return hex.AppendEncode(dst, c.data[i*c.width:(i+1)*c.width])
	case formUUID:
		return appendUUID(dst, c.data[i*16:(i+1)*16])
	case formDecimal:
		return appendDecimal(dst, c.nums[i], int(c.behind[i]))
	default:
		return c.clock.append(dst, int64(c.nums[i]))
	}
}

// appendDecimal writes n with a point before the last digits.
func appendDecimal(dst []byte, n uint64, behind int) []byte {
	if behind == 0 {
		return strconv.AppendUint(dst, n, 10)
	}
	var buf [40]byte
	at := len(buf)
	for i := 0; n > 0 || i <= behind; i++ {
		if i == behind {
			at--
			buf[at] = '.'
		}
		at--
		buf[at] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, buf[at:]...)
}

// decimalOf reads s if appendDecimal writes it the same way.
func decimalOf(s []byte) (n uint64, behind int, ok bool) {
	point := -1
	for i, c := range s {
		if c == '.' && point < 0 {
			point = i
			continue
		}
		if c -= '0'; c > 9 {
			return 0, 0, false
		}
		n = n*10 + uint64(c)
	}
	whole := len(s)
	if point >= 0 {
		whole = point
		behind = len(s) - point - 1
	}
	return n, behind, len(s) <= 18 && whole > 0 && (s[0] != '0' || whole == 1) && (point < 0 || behind > 0)
}

var tens = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18}

// float is value i of a formDecimal column, as ParseFloat reads it.
func (c *column) float(i int) float64 {
	n, behind := c.nums[i], c.behind[i]
	if n < 1<<53 {
		return float64(n) / tens[behind] // both are exact, so this is rounded once
	}
	f, _ := strconv.ParseFloat(string(appendDecimal(nil, n, int(behind))), 64)
	return f
}

// text is value i of a formText column.
func (c *column) text(i int) []byte {
	from := uint32(0)
	if i > 0 {
		from = c.ends[i-1]
	}
	return c.data[from:c.ends[i]]
}

// spell turns the column into one of the form formText, for searches in its text.
func (c *column) spell() *column {
	if c.form == formText {
		return c
	}
	t := &column{form: formText, n: c.n, ends: make([]uint32, 0, c.n), data: make([]byte, 0, c.n*36)}
	for i := range c.n {
		t.data = c.append(t.data, i)
		t.ends = append(t.ends, uint32(len(t.data)))
	}
	return t
}

// strings returns the values with the numbers in at; a negative one stands for a row without it.
func (c *column) strings(at []int32) []string {
	out := make([]string, len(at))
	if c.form == formDict {
		for i, v := range at {
			if v >= 0 {
				out[i] = c.dict[c.codes[v]]
			}
		}
		return out
	}
	// One allocation for all of them.
	var all strings.Builder
	ends := make([]int, len(at))
	if c.form == formText {
		n := 0
		for _, v := range at {
			if v >= 0 {
				n += len(c.text(int(v)))
			}
		}
		all.Grow(n)
	}
	var buf []byte
	for i, v := range at {
		switch {
		case v < 0:
		case c.form == formText:
			all.Write(c.text(int(v)))
		default:
			buf = c.append(buf[:0], int(v))
			all.Write(buf)
		}
		ends[i] = all.Len()
	}
	s, from := all.String(), 0
	for i, end := range ends {
		out[i] = s[from:end]
		from = end
	}
	return out
}

func appendUUID(dst, b []byte) []byte {
	dst = hex.AppendEncode(dst, b[:4])
	for _, part := range [][]byte{b[4:6], b[6:8], b[8:10], b[10:16]} {
		dst = append(dst, '-')
		dst = hex.AppendEncode(dst, part)
	}
	return dst
}

// maxDict is how many different values a dictionary takes.
const maxDict = 2048

var seed = maphash.MakeSeed()

// gatherer takes the values of one column in, as rows come.
type gatherer struct {
	column
	name   string
	nth    int      // of the fields with this name in a row, from 0
	table  []uint16 // code+1 by hash
	last   uint16   // code
	shared bool     // somebody reads what is there: append only, never overwrite
}

func (g *gatherer) add(v string) {
	g.n++
	if g.form == formDict {
		if len(g.codes) > 0 && g.dict[g.last] == v {
			g.codes = append(g.codes, g.last)
			return
		}
		if code, ok := g.code(v); ok {
			g.codes = append(g.codes, code)
			g.last = code
			return
		}
		g.give()
	}
	g.data = append(g.data, v...)
	g.ends = append(g.ends, uint32(len(g.data)))
}

// code finds v in the dictionary or puts it there, unless it is full or useless.
func (g *gatherer) code(v string) (uint16, bool) {
	if len(g.dict)*2 >= len(g.table) {
		g.table = make([]uint16, max(16, len(g.table)*4))
		for i, d := range g.dict {
			g.put(d, uint16(i))
		}
	}
	mask := uint64(len(g.table) - 1)
	at := maphash.String(seed, v) & mask
	for ; g.table[at] != 0; at = (at + 1) & mask {
		if code := g.table[at] - 1; g.dict[code] == v {
			return code, true
		}
	}
	if d := len(g.dict); d >= maxDict || d >= 48 && d*4 > g.n || len(v) > 1024 && d >= 16 {
		return 0, false
	}
	g.dict = append(g.dict, strings.Clone(v))
	code := uint16(len(g.dict) - 1)
	g.table[at] = code + 1
	return code, true
}

func (g *gatherer) put(v string, code uint16) {
	mask := uint64(len(g.table) - 1)
	at := maphash.String(seed, v) & mask
	for g.table[at] != 0 {
		at = (at + 1) & mask
	}
	g.table[at] = code + 1
}

// give gives the dictionary up.
func (g *gatherer) give() {
	g.form = formText
	for _, c := range g.codes {
		g.data = append(g.data, g.dict[c]...)
		g.ends = append(g.ends, uint32(len(g.data)))
	}
	if g.shared {
		g.codes, g.dict = nil, nil
	}
	g.codes, g.dict = g.codes[:0], g.dict[:0]
	clear(g.table)
}

// reset empties g; as text remembers that the last block had too many values for
// a dictionary, which spares the attempt.
func (g *gatherer) reset() {
	text := g.form == formText && g.n >= 1024
	clear(g.dict)
	g.codes, g.dict, g.data, g.ends, g.n, g.last = g.codes[:0], g.dict[:0], g.data[:0], g.ends[:0], 0, 0
	clear(g.table)
	g.form = formDict
	if text {
		g.form = formText
	}
}

// numberOf reads s if it is a decimal that AppendUint writes the same way.
func numberOf(s []byte) (uint64, bool) {
	if len(s) == 0 || len(s) > 18 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n := uint64(0)
	for _, c := range s {
		if c -= '0'; c > 9 {
			return 0, false
		}
		n = n*10 + uint64(c)
	}
	return n, true
}

var nibbles = nibbled()

func nibbled() (t [256]byte) {
	for i := range t {
		switch c := byte(i); {
		case c >= '0' && c <= '9':
			t[i] = c - '0'
		case c >= 'a' && c <= 'f':
			t[i] = c - 'a' + 10
		default:
			t[i] = 0xff
		}
	}
	return t
}

// unhex appends the bytes of small hexadecimal digits.
func unhex(dst, s []byte) ([]byte, bool) {
	bad := byte(0)
	for i := 0; i+1 < len(s); i += 2 {
		a, b := nibbles[s[i]], nibbles[s[i+1]]
		bad |= a | b
		dst = append(dst, a<<4|b&15)
	}
	return dst, bad < 16
}

// packed forms of a formText column: each value must fit, and be written back the same.

func asNumbers(dst []uint64, c *column) ([]uint64, bool) {
	from := uint32(0)
	for _, end := range c.ends {
		n, ok := numberOf(c.data[from:end])
		if !ok {
			return dst, false
		}
		dst = append(dst, n)
		from = end
	}
	return dst, true
}

func asDecimals(nums []uint64, behind []byte, c *column) ([]uint64, []byte, bool) {
	from := uint32(0)
	for _, end := range c.ends {
		n, b, ok := decimalOf(c.data[from:end])
		if !ok {
			return nums, behind, false
		}
		nums, behind = append(nums, n), append(behind, byte(b))
		from = end
	}
	return nums, behind, true
}

func asHex(dst []byte, c *column) ([]byte, int, bool) {
	size := c.ends[0]
	if size == 0 || size%2 == 1 || size < 8 || size > 128 {
		return dst, 0, false
	}
	for i, end := range c.ends {
		if end != uint32(i+1)*size {
			return dst, 0, false
		}
	}
	dst, ok := unhex(dst, c.data)
	return dst, int(size / 2), ok
}

func asUUIDs(dst []byte, c *column) ([]byte, bool) {
	ok := true
	for i, end := range c.ends {
		if end != uint32(i+1)*36 {
			return dst, false
		}
		v := c.data[i*36 : end]
		if v[8] != '-' || v[13] != '-' || v[18] != '-' || v[23] != '-' {
			return dst, false
		}
		for _, part := range [][]byte{v[:8], v[9:13], v[14:18], v[19:23], v[24:]} {
			if dst, ok = unhex(dst, part); !ok {
				return dst, false
			}
		}
	}
	return dst, true
}

// Widths of packed numbers: so many bytes, or, with inBits, so many bits of a byte.
const inBits = 16

// putInts packs numbers as their distance to the least, in as few bits or bytes as
// the greatest distance takes; nothing at all if all are the same.
func putInts(dst []byte, nums []uint64) (out []byte, least uint64, width int) {
	least, most := ^uint64(0), uint64(0)
	for _, n := range nums {
		least, most = min(least, n), max(most, n)
	}
	if len(nums) == 0 {
		return dst, 0, 0
	}
	switch d := most - least; {
	case d == 0:
		return dst, least, 0
	case d < 2:
		return putBits(dst, nums, least, 1), least, inBits + 1
	case d < 4:
		return putBits(dst, nums, least, 2), least, inBits + 2
	case d < 16:
		return putBits(dst, nums, least, 4), least, inBits + 4
	case d < 1<<8:
		for _, n := range nums {
			dst = append(dst, byte(n-least))
		}
		return dst, least, 1
	case d < 1<<16:
		for _, n := range nums {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(n-least))
		}
		return dst, least, 2
	case d < 1<<24:
		for _, n := range nums {
			d := n - least
			dst = append(dst, byte(d), byte(d>>8), byte(d>>16))
		}
		return dst, least, 3
	case d < 1<<32:
		for _, n := range nums {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(n-least))
		}
		return dst, least, 4
	default:
		for _, n := range nums {
			dst = binary.LittleEndian.AppendUint64(dst, n-least)
		}
		return dst, least, 8
	}
}

// putBits packs the first number into the lowest bits of the first byte.
func putBits(dst []byte, nums []uint64, least uint64, bits int) []byte {
	for len(nums) > 0 {
		b, shift := byte(0), 0
		k := min(8/bits, len(nums))
		for _, n := range nums[:k] {
			b |= byte(n-least) << shift
			shift += bits
		}
		dst = append(dst, b)
		nums = nums[k:]
	}
	return dst
}

func getBits(dst []uint64, src []byte, n int, least uint64, bits int) (out []uint64, ok bool) {
	if len(src) != (n*bits+7)/8 {
		return dst, false
	}
	mask := byte(1<<bits - 1)
	for _, b := range src {
		for range min(8/bits, n) {
			dst = append(dst, least+uint64(b&mask))
			b >>= bits
		}
		n -= 8 / bits
	}
	return dst, true
}

// getInts unpacks n numbers; ok says that src has the size for them.
func getInts(dst []uint64, src []byte, n int, least uint64, width int) (out []uint64, ok bool) {
	switch width {
	case inBits + 1, inBits + 2, inBits + 4:
		return getBits(dst, src, n, least, width-inBits)
	}
	if len(src) != n*width {
		return dst, false
	}
	switch width {
	case 0:
		for range n {
			dst = append(dst, least)
		}
	case 1:
		for _, b := range src {
			dst = append(dst, least+uint64(b))
		}
	case 2:
		for ; len(src) > 0; src = src[2:] {
			dst = append(dst, least+uint64(binary.LittleEndian.Uint16(src)))
		}
	case 3:
		for ; len(src) > 0; src = src[3:] {
			dst = append(dst, least+(uint64(src[0])|uint64(src[1])<<8|uint64(src[2])<<16))
		}
	case 4:
		for ; len(src) > 0; src = src[4:] {
			dst = append(dst, least+uint64(binary.LittleEndian.Uint32(src)))
		}
	case 8:
		for ; len(src) > 0; src = src[8:] {
			dst = append(dst, least+binary.LittleEndian.Uint64(src))
		}
	default:
		return dst, false
	}
	return dst, true
}
