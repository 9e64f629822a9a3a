package logs

// After says that c is a later place than o. A cursor that is later than Newest of
// Stats is one of a store that is not there any more.
func (c Cursor) After(o Cursor) bool { return c.after > o.after }

// Newest is the cursor behind all that is durable.
func (s *Store) Newest() Cursor {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Cursor{s.durable}
}

// Gone are rows that retention has taken, or the want of room on the disk.
type Gone struct {
	Project, Service string
	Rows             int64
	Behind           Cursor // who is there has read them
}

// Watch has fn called, under no lock, with what goes from now on.
func (s *Store) Watch(fn func([]Gone)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers, fn)
}

func (s *Store) tellGone(gone map[*entry]int64) {
	s.mu.RLock()
	watchers := s.watchers
	s.mu.RUnlock()
	if len(watchers) == 0 {
		return
	}
	var list []Gone
	for e := range gone {
		if e.rows > 0 && !e.bad {
			list = append(list, Gone{e.stream.project, e.stream.service, int64(e.rows), Cursor{e.last}})
		}
	}
	for _, fn := range watchers {
		fn(list)
	}
}

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
