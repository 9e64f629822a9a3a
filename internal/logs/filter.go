package logs

import "math/bits"

// A filter says whether a text can be in a column, without its values: the words of
// the column and, so that a piece of a word is found too, the runs of four bytes
// in them ("grams"). A word is a run of letters, digits, _ and bytes above 127;
// ASCII letters count as small. Words of hexadecimal digits with at least one decimal among
// them ("ids") have no grams: nearly all that can be would be there. Of them the length
// of the longest is known, which does as well: what is as long as the longest id
// can only be one as a whole.
type filter struct {
	words     []uint64 // a power of two of them, or none: nothing is known
	longest   int      // word
	longestID int      // id
	noGrams   bool     // there were too many: every word counts as an id
}

// class of a byte in a word.
const (
	digit = 1 << iota
	hexLetter
	otherLetter
)

var (
	small   = smalls()  // 0: not part of a word; else the byte, ASCII letters made small
	classes = classed() // of small bytes
)

func smalls() (t [256]byte) {
	for i := range t {
		c := byte(i)
		switch {
		case c >= 'A' && c <= 'Z':
			t[i] = c + 'a' - 'A'
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c == '_', c >= 128:
			t[i] = c
		}
	}
	return t
}

func classed() (t [256]byte) {
	for i := range t {
		switch c := small[i]; {
		case c == 0:
		case c >= '0' && c <= '9':
			t[i] = digit
		case c >= 'a' && c <= 'f':
			t[i] = hexLetter
		default:
			t[i] = otherLetter
		}
	}
	return t
}

var lex = lexed() // both: small and, above it, its class

func lexed() (t [256]uint16) {
	for i := range t {
		t[i] = uint16(small[i]) | uint16(classes[small[i]])<<8
	}
	return t
}

const (
	hashStart = 14695981039346656037 // FNV-1a
	hashPrime = 1099511628211
	maxGrams  = 1 << 17
	maxFilter = 1 << 15 // words of 64 bits
	gram      = 4       // bytes
)

func mix(h uint64) uint64 {
	h ^= h >> 32
	h *= 0x9E3779B97F4A7C15
	return h ^ h>>29
}

func gramHash(a, b, c, d byte) uint64 {
	return mix((uint64(a)|uint64(b)<<8|uint64(c)<<16|uint64(d)<<24|1<<40)*0xD6E8FEB86659FD93 + 1)
}

// four bits of the one word that a hash belongs to.
func pattern(h uint64) uint64 {
	return 1<<(h>>58) | 1<<(h>>52&63) | 1<<(h>>46&63) | 1<<(h>>40&63)
}

// filterer makes filters, one after the other.
type filterer struct {
	words   []uint64
	seen    [4096]uint64 // hashes of words that are in already
	present [256]bool    // bytes that are in the column, in words or not
}

// make reads the values in data, which end at ends. The filter is good until the
// next call.
func (m *filterer) make(data []byte, ends []uint32) filter {
	n := 64
	for n < maxFilter && n < len(data)/4 {
		n *= 2
	}
	if len(m.words) < n {
		m.words = make([]uint64, n)
	}
	words := m.words[:n]
	clear(words)
	clear(m.seen[:])
	clear(m.present[:])
	mask := uint64(n - 1)
	var f filter
	grams, start := 0, 0
	for _, end := range ends {
		value := data[start:end]
		start = int(end)
		h, from, class := uint64(hashStart), -1, byte(0)
		for i := 0; ; i++ {
			if i < len(value) {
				c := value[i]
				m.present[c] = true
				if x := lex[c]; x != 0 {
					if from < 0 {
						from = i
					}
					h = (h ^ uint64(x&0xff)) * hashPrime
					class |= byte(x >> 8)
					continue
				}
			}
			if from >= 0 {
				x := mix(h)
				if at := x >> 20 & 4095; m.seen[at] != x {
					m.seen[at] = x
					words[x&mask] |= pattern(x)
					size := i - from
					f.longest = max(f.longest, size)
					if class&otherLetter == 0 && class&digit != 0 {
						f.longestID = max(f.longestID, size)
					} else if !f.noGrams {
						for j := from; j+gram <= i; j++ {
							g := gramHash(small[value[j]], small[value[j+1]], small[value[j+2]], small[value[j+3]])
							words[g&mask] |= pattern(g)
							grams++
						}
						f.noGrams = grams > maxGrams
					}
				}
				h, from, class = hashStart, -1, 0
			}
			if i >= len(value) {
				break
			}
		}
	}
	f.words = fold(words)
	return f
}

// fold halves a filter as long as at most a quarter of its bits is set, so that it
// errs about once in 300. One that is more than half full is of no use.
func fold(w []uint64) []uint64 {
	set := 0
	for _, x := range w {
		set += bits.OnesCount64(x)
	}
	if set > len(w)*32 {
		return nil
	}
	for len(w) > 4 && set*2*4 <= len(w)*64 {
		half := len(w) / 2
		set = 0
		for i := range half {
			w[i] |= w[i+half]
			set += bits.OnesCount64(w[i])
		}
		w = w[:half]
	}
	return w
}

func (f *filter) has(h uint64) bool {
	p := pattern(h)
	return f.words[h&uint64(len(f.words)-1)]&p == p
}

// piece is a word of a needle, or a part of one at its ends.
type piece struct {
	hash  uint64
	grams []uint64
	size  int
	id    bool // can be a part of an id
	whole bool // the needle says that nothing of the word is missing
}

// pieces cuts a needle. left and right say that the needle begins or ends where a
// value does.
func pieces(s string, left, right bool) []piece {
	var all []piece
	for i := 0; i < len(s); {
		if small[s[i]] == 0 {
			i++
			continue
		}
		from, h, class := i, uint64(hashStart), byte(0)
		for i < len(s) && small[s[i]] != 0 {
			h = (h ^ uint64(small[s[i]])) * hashPrime
			class |= classes[small[s[i]]]
			i++
		}
		p := piece{hash: mix(h), size: i - from, id: class&otherLetter == 0, whole: (from > 0 || left) && (i < len(s) || right)}
		for j := from; j+gram <= i; j++ {
			p.grams = append(p.grams, gramHash(small[s[j]], small[s[j+1]], small[s[j+2]], small[s[j+3]]))
		}
		all = append(all, p)
	}
	return all
}

// may says whether all pieces can be in the column.
func (f *filter) may(pieces []piece) bool {
	if len(f.words) == 0 {
		return true
	}
	for i := range pieces {
		if !f.mayPiece(&pieces[i]) {
			return false
		}
	}
	return true
}

func (f *filter) mayPiece(p *piece) bool {
	if f.has(p.hash) {
		return true
	}
	switch {
	case p.whole || p.size >= f.longest:
		return false
	case f.noGrams || p.size < gram:
		return true
	case p.id && p.size < f.longestID:
		return true
	}
	for _, g := range p.grams {
		if !f.has(g) {
			return false
		}
	}
	return true
}
