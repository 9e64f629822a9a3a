package logs

// After says that c is a later place than o. A cursor that is later than Newest of
// Stats is one of a store that is not there any more.
func (c Cursor) After(o Cursor) bool { return c.after > o.after }

// Behind counts what is durable after a cursor: how far a sink has fallen behind.
// bytes are those before compression.
func (s *Store) Behind(after Cursor) (rows, bytes int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, seg := range s.segs {
		for _, e := range seg.blocks {
			if e.rows > 0 && !e.bad && e.last > after.after && e.last <= s.durable {
				rows += int64(e.rows)
				bytes += e.raw
			}
		}
	}
	return rows, bytes
}
