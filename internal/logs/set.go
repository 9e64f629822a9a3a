package logs

import "math/bits"

// set is a set of rows, or of the values of a column.
type set []uint64

func newSet(n int) set { return make(set, (n+63)/64) }

func fullSet(n int) set {
	s := newSet(n)
	for i := range s {
		s[i] = ^uint64(0)
	}
	s.trim(n)
	return s
}

func (s set) trim(n int) {
	if n%64 != 0 {
		s[len(s)-1] &= 1<<(n%64) - 1
	}
}

func (s set) add(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s set) drop(i int)     { s[i>>6] &^= 1 << (i & 63) }
func (s set) has(i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }

func (s set) and(t set) {
	for i := range s {
		s[i] &= t[i]
	}
}

func (s set) or(t set) {
	for i := range s {
		s[i] |= t[i]
	}
}

func (s set) without(t set) {
	for i := range s {
		s[i] &^= t[i]
	}
}

func (s set) not(n int) {
	for i := range s {
		s[i] = ^s[i]
	}
	if len(s) > 0 {
		s.trim(n)
	}
}

func (s set) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

func (s set) empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

// each calls fn with the members, in order, until it returns an error.
func (s set) each(fn func(int) error) error {
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			if err := fn(i<<6 + bits.TrailingZeros64(w)); err != nil {
				return err
			}
		}
	}
	return nil
}
