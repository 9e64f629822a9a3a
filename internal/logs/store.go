package logs

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"
)

// ErrStop ends a Scan, a Follow or a Read early and without an error.
var ErrStop = errors.New("enough")

// Options of a store; the zero value works.
type Options struct {
	Log *slog.Logger // nil: silent
	// FlushAfter is how long a row may wait for others of its stream before it is
	// written and synced. 0: 2 s.
	FlushAfter time.Duration
	// MaxRows and MaxBytes bound a block. 0: 32768 rows, 8 MiB before compression.
	MaxRows, MaxBytes int
	// Durable is called when all that source handed in up to the place is on disk, the
	// fsync done. It is never called under a lock, and for one source in order.
	Durable func(source string, to Place)
	// Retain says how long the logs of a service are kept. nil, and a zero in what it
	// returns: what Retention says.
	Retain func(project, service string) Retention
	// Retention of all others; its Size is that of the whole store. Zeros: 14 days, 20 GiB.
	Retention Retention
	// FreeBytes of the disk are to stay free: below it the oldest logs go first, and
	// the log and Stats say so. 0: 1 GiB.
	FreeBytes int64
}

// Retention bounds what is kept: what is older than Age goes, and of what takes
// more than Size bytes on disk the oldest.
type Retention struct {
	Age  time.Duration
	Size int64
}

// Cursor is a place in the order in which blocks became durable: all before it was
// read. The zero Cursor is the beginning. It outlives restarts, and merges too: then
// a few rows may come a second time, never none.
type Cursor struct{ after uint64 }

// String is what ParseCursor reads.
func (c Cursor) String() string { return strconv.FormatUint(c.after, 10) }

// ParseCursor reads what Cursor.String wrote; "" is the beginning.
func ParseCursor(s string) (Cursor, error) {
	if s == "" {
		return Cursor{}, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return Cursor{}, fmt.Errorf("cursor %q: %w", s, err)
	}
	return Cursor{n}, nil
}

// FieldStat is what block headers know about a field, without reading its values.
type FieldStat struct {
	Rows     int64  // that have it
	Distinct int64  // about so many different values; what blocks share counts once
	Type     string // "int", "float", "string": what all its values can be read as
}

// Stats of a store, all of them since Open but for what is there.
type Stats struct {
	Bytes, Rows int64 // on disk
	Blocks      int
	Segments    int
	Streams     int
	Unflushed   int64     // bytes that wait in memory
	Oldest      time.Time // of the rows that are there; zero: none
	Damaged     int64     // blocks that could not be read
	Torn        int64     // bytes cut from the end at Open: written, but not yet promised to anybody
	Merges      int64
	Expired     int64  // bytes that retention removed
	Pressed     int64  // bytes that went before their time, to keep the disk free
	Failing     string // why blocks cannot be written just now; "" if they can
	Newest      Cursor // of what is durable: how far a sink can read
}
