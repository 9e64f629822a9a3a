package logs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"
)

// retire removes what is older than its age, what is more than its size, and what
// the disk has no room for. Days go as whole files; where a service keeps its logs
// for a shorter time than its neighbours, a segment is written anew once less than
// half of it is still wanted, and until then hides the rest.
func (s *Store) retire(now time.Time) error {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	gone := s.expired(now)
	s.mu.Lock()
	for e := range gone {
		if e.isMark() && s.last[e.source].number == e.head.last {
			delete(s.last, e.source)
		}
	}
	s.mu.Unlock()
	if err := s.discard(gone); err != nil {
		return err
	}
	var freed int64
	for _, size := range gone {
		freed += size
	}
	if freed > 0 {
		s.log.Info("logs retired", "blocks", len(gone), "bytes", freed)
	}
	s.mu.Lock()
	s.stats.Expired += freed
	s.mu.Unlock()
	s.sweep(now)
	s.forget()
	if err := s.relieve(); err != nil {
		return err
	}
	return s.carryLate()
}

// sweep removes files of a day that is over in which nothing is left to find: they are
// damaged from end to end, or what they had was hidden piece by piece.
func (s *Store) sweep(now time.Time) {
	s.mu.RLock()
	var empty []*segment
	for i, seg := range s.segs {
		_, to := span(seg.day)
		// The last one keeps the numbers going.
		if len(seg.blocks) == 0 && !seg.live && i < len(s.segs)-1 && time.Duration(now.UnixNano()-to) > s.o.Retention.Age {
			empty = append(empty, seg)
		}
	}
	s.mu.RUnlock()
	for _, seg := range empty {
		s.remove(seg)
	}
}

// expired finds the blocks whose time has come.
func (s *Store) expired(now time.Time) map[*entry]int64 {
	asked := map[[2]string]Retention{}
	s.mu.RLock()
	var all []*entry
	for _, seg := range s.segs {
		for _, e := range seg.blocks {
			if e.last <= s.durable {
				all = append(all, e)
				asked[[2]string{e.stream.project, e.stream.service}] = s.o.Retention
			}
		}
	}
	s.mu.RUnlock()
	// Asked under no lock: who answers may want to look at the store.
	for who := range asked {
		r := Retention{}
		if s.o.Retain != nil {
			r = s.o.Retain(who[0], who[1])
		}
		if r.Age <= 0 {
			r.Age = s.o.Retention.Age
		}
		asked[who] = r
	}
	// The newest first, so that what is too much is what is oldest.
	slices.SortFunc(all, func(a, b *entry) int { return cmpOr(b.last, a.last) })
	gone := map[*entry]int64{}
	total, sizes := int64(0), map[[2]string]int64{}
	for _, e := range all {
		if e.isMark() {
			if _, to := span(e.seg.day); time.Duration(now.UnixNano()-to) > markAge {
				gone[e] = e.size
			}
			continue
		}
		who := [2]string{e.stream.project, e.stream.service}
		r := asked[who]
		total += e.size
		sizes[who] += e.size
		// As old as its newest row, if that is of the day on which it came: clocks are
		// wrong at times, and what was read late is kept as well.
		from, to := span(e.seg.day)
		late := min(max(e.max, from), to)
		if time.Duration(now.UnixNano()-late) > r.Age || total > s.o.Retention.Size || r.Size > 0 && sizes[who] > r.Size {
			gone[e] = e.size
		}
	}
	return gone
}

// markAge is how long the place of a source is kept that says nothing. Who reads such
// a one later begins anew with what the engine still has of it.
const markAge = 45 * 24 * time.Hour

// isMark says that a block is nothing but the place of a source, carried over.
func (e *entry) isMark() bool { return e.rows == 0 && e.from == e.to }

// span returns the first and the last nanosecond of a day.
func span(day string) (from, to int64) {
	t, err := time.Parse(dayLayout, day)
	if err != nil {
		return 0, 0
	}
	return t.UnixNano(), t.Add(24*time.Hour).UnixNano() - 1
}

// discard takes blocks out of the index, and their files when it is worth while.
func (s *Store) discard(gone map[*entry]int64) error {
	if len(gone) == 0 {
		return nil
	}
	if err := s.rollIfGone(gone); err != nil {
		return err
	}
	if err := s.sync(); err != nil {
		return err
	}
	if err := s.carry(gone); err != nil {
		return err
	}
	s.mu.RLock()
	segs := slices.Clone(s.segs)
	s.mu.RUnlock()
	for _, seg := range segs {
		if s.isLive(seg) {
			s.hide(seg, gone)
			continue
		}
		var keep []*entry
		rest := int64(segmentHeader)
		for _, e := range seg.blocks {
			if _, ok := gone[e]; !ok {
				keep = append(keep, e)
				rest += e.size
			}
		}
		if len(keep) == len(seg.blocks) {
			continue
		}
		switch {
		case len(keep) == 0:
			s.remove(seg)
		case rest*2 < seg.size:
			if err := s.rewrite(context.Background(), []*segment{seg}, keep, false); err != nil {
				return err
			}
		default:
			s.hide(seg, gone)
		}
	}
	s.tellGone(gone)
	return nil
}

// hide takes blocks out of the index alone.
func (s *Store) hide(seg *segment, gone map[*entry]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.blocks = slices.DeleteFunc(slices.Clone(seg.blocks), func(e *entry) bool {
		_, ok := gone[e]
		return ok
	})
}

// remove takes a segment out.
func (s *Store) remove(seg *segment) {
	s.mu.Lock()
	s.segs = slices.DeleteFunc(slices.Clone(s.segs), func(o *segment) bool { return o == seg })
	s.mu.Unlock()
	seg.retire()
}

func (s *Store) isLive(seg *segment) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.unsettled(seg)
}

// rollIfGone begins a new live segment if most of the present one has to go. Its
// header also keeps the numbers going when nothing else is left.
func (s *Store) rollIfGone(gone map[*entry]int64) error {
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.RLock()
	newest := s.live
	if newest == nil && len(s.segs) > 0 {
		newest = s.segs[len(s.segs)-1]
	}
	var going int64
	if newest != nil {
		for _, e := range newest.blocks {
			going += gone[e]
		}
	}
	roll := going > 0 && going*2 > newest.size-segmentHeader
	s.mu.RUnlock()
	if !roll {
		return nil
	}
	return s.roll(time.Now().UTC().Format(dayLayout))
}

// carry writes down how far sources are whose last block goes: their place must not
// go with it, or all that the engine still has of them would come again.
func (s *Store) carry(gone map[*entry]int64) error {
	s.mu.RLock()
	var marks []mark
	numbers := map[uint64]bool{}
	for e := range gone {
		numbers[e.head.last] = true
	}
	for _, m := range s.last {
		if numbers[m.number] {
			marks = append(marks, m)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(marks, func(a, b mark) int { return cmpOr(a.number, b.number) })
	streams := map[uint64]*stream{}
	for e := range gone {
		streams[e.head.last] = e.stream
	}
	for _, m := range marks {
		if err := s.carryOne(m, streams[m.number]); err != nil {
			return err
		}
	}
	if len(marks) > 0 {
		return s.sync()
	}
	return nil
}

// carryLate writes the marks of what went before there was room for them. What there
// is no room for even now is tried the next time.
func (s *Store) carryLate() error {
	if len(s.late) == 0 {
		return nil
	}
	if err := s.carry(s.late); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return nil
		}
		return err
	}
	s.late = nil
	return nil
}

func (s *Store) carryOne(m mark, st *stream) error {
	key := "s" + m.source
	s.mu.Lock()
	buf, ok := s.buffers[key]
	if !ok {
		buf = &buffer{source: m.source, stream: st}
		s.buffers[key] = buf
	}
	s.mu.Unlock()
	// Nobody writes for the source meanwhile: what comes behind the mark must not be
	// told before it.
	buf.order.Lock()
	defer buf.order.Unlock()
	// What waits in its queue says nothing yet: the disk may be full until the next kill.
	s.mu.RLock()
	newer := s.last[m.source].number != m.number ||
		slices.ContainsFunc(s.unsynced, func(u mark) bool { return u.source == m.source })
	s.mu.RUnlock()
	if newer {
		return nil
	}
	return s.store(&sealed{stream: st, b: newBuilder(), source: m.source, from: m.to, to: m.to}, func() {})
}

// relieve removes the oldest segments if the disk is too full: as many as take what
// is missing, for what a reader still has open is freed only later.
func (s *Store) relieve() error {
	free, err := s.free()
	if err != nil {
		return err
	}
	for missing := s.o.FreeBytes - free; missing > 0; {
		s.mu.RLock()
		var oldest *segment
		for _, seg := range s.segs {
			if !s.unsettled(seg) && len(seg.blocks) > 0 {
				oldest = seg
				break
			}
		}
		s.mu.RUnlock()
		if oldest == nil {
			if !s.short {
				s.log.Error("the disk is short, and there are no older logs to remove", "free", free, "wanted", s.o.FreeBytes)
			}
			s.short = true
			return nil
		}
		s.short = false
		s.log.Warn("the disk is short: the oldest logs go before their time",
			"free", free, "wanted", s.o.FreeBytes, "day", oldest.day, "bytes", oldest.size)
		gone := map[*entry]int64{}
		for _, e := range oldest.blocks {
			gone[e] = e.size
		}
		if err := s.discard(gone); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				return err
			}
			// There is not even room for the marks of its sources: they follow in the room that it leaves.
			s.remove(oldest)
			s.tellGone(gone)
			if s.late == nil {
				s.late = map[*entry]int64{}
			}
			maps.Copy(s.late, gone)
			if err := s.carryLate(); err != nil {
				return err
			}
		}
		s.mu.Lock()
		s.stats.Pressed += oldest.size
		s.mu.Unlock()
		missing -= oldest.size
	}
	return nil
}

// free returns how many bytes of the disk are free to us.
func (s *Store) free() (int64, error) {
	if s.freeNow != nil {
		return s.freeNow(), nil
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &fs); err != nil {
		return 0, fmt.Errorf("free space: %w", err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// forget lets go of streams that nothing names any more.
func (s *Store) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[*stream]bool{}
	for _, seg := range s.segs {
		for _, e := range seg.blocks {
			used[e.stream] = true
		}
	}
	for _, buf := range s.buffers {
		used[buf.stream] = true
		for _, p := range buf.queue {
			used[p.stream] = true
		}
	}
	for key, st := range s.streams {
		if !used[st] {
			delete(s.streams, key)
		}
	}
}
