package sample

import "math"

// The kernel's files are read as bytes, in place: a round makes no garbage.

// line cuts b after its first line, whose end is dropped.
func line(b []byte) (first, rest []byte) {
	for i, c := range b {
		if c == '\n' {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

// word cuts b after its first word. Words are divided by spaces and tabs.
func word(b []byte) (first, rest []byte) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for i, c := range b {
		if c == ' ' || c == '\t' {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

// split cuts b at the first c.
func split(b []byte, c byte) (before, after []byte, found bool) {
	for i := range b {
		if b[i] == c {
			return b[:i], b[i+1:], true
		}
	}
	return b, nil, false
}

// number reads digits up to a space or the end of the line. What is too large for
// 64 bits is the largest that is not.
func number(b []byte) (n uint64, ok bool) {
	for i, c := range b {
		if c < '0' || c > '9' {
			if c == '\n' || c == ' ' || c == '\t' {
				return n, i > 0
			}
			return 0, false
		}
		d := uint64(c - '0')
		if n > (math.MaxUint64-d)/10 {
			n = math.MaxUint64
			continue
		}
		n = n*10 + d
	}
	return n, len(b) > 0
}

// decimal reads digits with a point between them, such as 0.42.
func decimal(b []byte) (float64, bool) {
	whole, part, _ := split(b, '.')
	n, ok := number(whole)
	if !ok {
		return 0, false
	}
	v, scale := float64(n), 1.0
	for _, c := range part {
		if c < '0' || c > '9' {
			return 0, false
		}
		scale /= 10
		v += float64(c-'0') * scale
	}
	return v, true
}

// pairs calls f with each line of two words of which the second is a number.
func pairs(b []byte, f func(key []byte, n uint64)) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		key, rest := word(l)
		value, _ := word(rest)
		if n, ok := number(value); ok {
			f(key, n)
		}
	}
}
