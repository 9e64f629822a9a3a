package collect

import (
	"unsafe"

	"github.com/tenderhq/tender/internal/logs"
)

// rawField holds text that must be kept as it was written while a field beside it
// has what it means: a value with escapes, a line with colours.
const rawField = "_raw"

// rows are the entries of one batch. Their strings point into the block that was
// read, or into the arena: they are good until the next reset.
type rows struct {
	list   []logs.Row
	fields []logs.Field
	arena  []byte
}

func (r *rows) reset() {
	r.list, r.fields = r.list[:0], r.fields[:0]
	if cap(r.arena) > 1<<20 {
		r.arena = nil // one giant entry must not stay for ever
	}
	r.arena = r.arena[:0]
}

// room returns an empty slice with place for n bytes that nobody will move.
func (r *rows) room(n int) []byte {
	if cap(r.arena)-len(r.arena) < n {
		r.arena = make([]byte, 0, max(64<<10, n))
	}
	return r.arena[len(r.arena):len(r.arena):cap(r.arena)]
}

// keep takes what was appended to a slice of room.
func (r *rows) keep(b []byte) []byte {
	n := len(r.arena)
	if n+len(b) <= cap(r.arena) && len(b) > 0 && unsafe.SliceData(r.arena[n:cap(r.arena)]) == unsafe.SliceData(b) {
		r.arena = r.arena[:n+len(b)]
	}
	return b
}

// plain is s without escapes.
func (r *rows) plain(s []byte) []byte { return r.keep(unescape(r.room(len(s)), s)) }

// add appends a field to those of the row that is being made.
func (r *rows) add(name, value string) {
	r.fields = append(r.fields, logs.Field{Name: name, Value: value})
}

// str is b as a string that shares its bytes.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
