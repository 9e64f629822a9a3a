package logs

// Chunk is a run of found rows of one stream, in columns. Everything in it is
// good until the function that got it returns.
type Chunk interface {
	// Labels are those of the stream, with "stream".
	Labels() Labels
	// Times of the rows, ascending (descending if the query is Backward).
	Times() []int64
	// Column returns the values of a field, one for each row, "" where it is not
	// there; nil if no row has it.
	Column(name string) []string
	// Columns are the names of the fields that at least one row may have.
	Columns() []string
	// Text appends the exact text of row i to dst.
	Text(dst []byte, i int) []byte
	// Fields appends those of row i to dst, in the order in which they were written.
	Fields(dst []Field, i int) []Field
}

// Bound says what is still to come in a Scan: no row of c or of a later chunk is
// older than it (Backward: newer). So who has all rows that he wants before it may
// return ErrStop. Chunks come in the order of their bounds.
func Bound(c Chunk) int64 {
	if b, ok := c.(interface{ bound() int64 }); ok {
		return b.bound()
	}
	if t := c.Times(); len(t) > 0 {
		return t[0]
	}
	return 0
}

// Missed returns how many rows a Follow left out before c, because its follower
// was too slow. Not all of them need have been asked for.
func Missed(c Chunk) int64 {
	if m, ok := c.(interface{ missed() int64 }); ok {
		return m.missed()
	}
	return 0
}
