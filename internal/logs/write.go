package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	maxSegment = 64 << 20 // bytes, before the next one is begun
	maxBlocks  = 2048     // of the live segment
)

// store writes a block and puts it into the index; at the same moment, under
// mu, gone takes it from where it waited.
func (s *Store) store(p *sealed, gone func()) error {
	press := <-s.presses
	defer func() { s.presses <- press }()
	h := head{labels: p.stream.labels, source: p.source, from: p.from, to: p.to}
	press.make(p.b, &h)
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.prepare(time.Now().UTC()); err != nil {
		return err
	}
	s.mu.RLock()
	h.synced = s.durable
	s.mu.RUnlock()
	h.first, h.last = s.number+1, s.number+1
	block := press.block(&h)
	if _, err := s.liveF.WriteAt(block, s.live.size); err != nil {
		// Half a block is of no use to anybody, and takes room that is short.
		_ = s.liveF.Truncate(s.live.size)
		return fmt.Errorf("write logs: %w", err)
	}
	s.number++
	h.labels = nil
	e := &entry{head: h, seg: s.live, off: s.live.size, stream: p.stream}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live.size += h.size
	s.live.blocks = append(s.live.blocks, e)
	s.written = s.number
	s.unsynced = append(s.unsynced, mark{p.source, p.to, s.number})
	if s.failing != nil {
		s.log.Info("logs can be written again")
		s.failing = nil
	}
	gone()
	return nil
}

// prepare makes sure that there is a live segment to write to.
func (s *Store) prepare(now time.Time) error {
	if s.broken != nil {
		return s.broken
	}
	day := now.Format(dayLayout)
	if s.live != nil && s.live.day == day && s.live.size < maxSegment && len(s.live.blocks) < maxBlocks {
		return nil
	}
	return s.roll(day)
}

// roll begins a new live segment. All before it is synced first: a power cut leaves
// at most the end of the newest segment in doubt.
func (s *Store) roll(day string) error {
	if s.liveF != nil {
		if err := s.liveF.Sync(); err != nil {
			s.broken = fmt.Errorf("sync logs: %w", err)
			return s.broken
		}
	}
	n := s.nextSeg
	seg := &segment{day: day, from: n, to: n, base: s.number + 1, size: segmentHeader, files: &s.files}
	seg.path = filepath.Join(s.dir, day, segmentName(n, n, 0))
	f, err := createSegment(seg.path, putSegmentHeader(n, n, seg.base))
	if err != nil {
		if s.live != nil && s.live.day == day {
			return nil // the old one will do for a while
		}
		return fmt.Errorf("write logs: %w", err)
	}
	s.nextSeg++
	if s.liveF != nil {
		s.rolled = append(s.rolled, s.liveF)
	}
	s.mu.Lock()
	if s.live != nil {
		s.live.live = false
	}
	seg.live = true
	s.segs = append(s.segs, seg)
	s.mu.Unlock()
	s.live, s.liveF = seg, f
	return nil
}

// createSegment makes a segment, with its name durable.
func createSegment(path string, header []byte) (*os.File, error) {
	day := filepath.Dir(path)
	if err := os.MkdirAll(day, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(header)
	if err = errors.Join(err, f.Sync(), syncDir(day), syncDir(filepath.Dir(day))); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, nil
}

// sync makes durable what was written, and says so.
func (s *Store) sync() error {
	if err := s.syncFile(); err != nil {
		return err
	}
	s.tell()
	return nil
}

func (s *Store) syncFile() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.write.Lock()
	f, upTo, rolled, err := s.liveF, s.number, s.rolled, s.broken
	s.rolled = nil
	s.write.Unlock()
	if err != nil {
		return err
	}
	s.mu.RLock()
	nothing := s.durable == upTo
	s.mu.RUnlock()
	if !nothing && f != nil {
		if err := f.Sync(); err != nil {
			// The kernel may have dropped the pages: only reading them back tells.
			err = fmt.Errorf("sync logs: %w", err)
			s.write.Lock()
			s.broken = err
			s.write.Unlock()
			return err
		}
	}
	for _, f := range rolled {
		_ = f.Close() // it is synced
	}
	if nothing {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable = upTo
	n := 0
	for ; n < len(s.unsynced) && s.unsynced[n].number <= upTo; n++ {
		m := s.unsynced[n]
		if m.source == "" {
			continue
		}
		s.last[m.source] = m
		if s.o.Durable != nil {
			s.told = append(s.told, m)
		}
	}
	s.unsynced = append([]mark(nil), s.unsynced[n:]...)
	close(s.grown)
	s.grown = make(chan struct{})
	return nil
}

// tell calls Durable for what became so, in order and under no lock.
func (s *Store) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.telling {
		return
	}
	s.telling = true
	for len(s.told) > 0 {
		told := s.told
		s.told = nil
		s.mu.Unlock()
		for _, m := range told {
			s.o.Durable(m.source, m.to)
		}
		s.mu.Lock()
	}
	s.telling = false
}
