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
