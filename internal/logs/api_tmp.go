package logs

import "context"

// Store keeps logs in a folder of its own.
type Store struct{}

// Open opens the store in dir, and makes it if it is not there. It recovers from
// whatever end the last process had. A second Open of one folder is refused.
func Open(dir string, o Options) (*Store, error) { panic("soon") }

// Run flushes, merges and retires until ctx ends; then it writes what is in memory
// and closes the store.
func (s *Store) Run(ctx context.Context) error { panic("soon") }

// Close writes what is in memory and closes the store. Run does it by itself.
func (s *Store) Close() error { panic("soon") }

// Append takes a batch in. It copies what it keeps, and waits while too much is
// not yet on disk.
func (s *Store) Append(ctx context.Context, b Batch) error { panic("soon") }

// Flush writes and syncs all that was appended before it.
func (s *Store) Flush(ctx context.Context) error { panic("soon") }

// Last returns the place up to which all of a source is on disk.
func (s *Store) Last(source string) (Place, bool) { panic("soon") }

// Scan hands all rows that q asks for to fn, those not yet on disk too, in the order
// of Bound. ErrStop from fn ends it without an error.
func (s *Store) Scan(ctx context.Context, q Query, fn func(Chunk) error) error { panic("soon") }

// Follow hands rows to fn that are appended from now on, until ctx ends (then it
// returns nil). It never holds up Append: what a slow follower leaves is dropped,
// and the next chunk says how much (Missed).
func (s *Store) Follow(ctx context.Context, q Query, fn func(Chunk) error) error { panic("soon") }

// Streams returns the labels, with "stream", of all streams with rows in the time
// and with the labels that q asks for.
func (s *Store) Streams(ctx context.Context, q Query) ([]Labels, error) { panic("soon") }

// Fields returns what is known of the stored fields in the blocks that q asks for.
func (s *Store) Fields(ctx context.Context, q Query) (map[string]FieldStat, error) { panic("soon") }

// Volume counts what q asks for, from the headers of blocks as far as they tell.
func (s *Store) Volume(ctx context.Context, q Query) (rows, bytes, chunks, streams int64, err error) {
	panic("soon")
}

// Read hands out whole blocks in the order in which they became durable, beginning
// after a cursor, each with the cursor behind it, until fn got at least max rows
// (0: no end) or nothing more is there.
func (s *Store) Read(ctx context.Context, after Cursor, max int, fn func(Chunk, Cursor) error) error {
	panic("soon")
}

// Grown returns a channel that is closed when the next block becomes durable. Take
// it before Read, so that nothing falls between the two.
func (s *Store) Grown() <-chan struct{} { panic("soon") }

// Check reads and verifies all that is on disk.
func (s *Store) Check(ctx context.Context) (Report, error) { panic("soon") }

// Check reads and verifies all of the store in dir, whether it is open or not.
func Check(ctx context.Context, dir string) (Report, error) { panic("soon") }

// Stats returns the numbers of the store.
func (s *Store) Stats() Stats { panic("soon") }
