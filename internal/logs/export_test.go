package logs

import (
	"testing"
	"time"
)

// MergeNow does what Run does now and then. All that was written counts as settled.
func (s *Store) MergeNow(t *testing.T) {
	s.Roll(t)
	if err := s.merge(t.Context()); err != nil {
		t.Error(err)
	}
}

// Roll begins a new segment.
func (s *Store) Roll(t *testing.T) {
	if err := s.sync(); err != nil {
		t.Error(err)
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.roll(time.Now().UTC().Format(dayLayout)); err != nil {
		t.Error(err)
	}
}

// RetireNow retires as of now.
func (s *Store) RetireNow(t *testing.T, now time.Time) {
	if err := s.retire(now); err != nil {
		t.Error(err)
	}
}

// SetFree makes the disk look as if so much of it were free.
func (s *Store) SetFree(free func() int64, wanted int64) {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	s.freeNow, s.o.FreeBytes = free, wanted
}
