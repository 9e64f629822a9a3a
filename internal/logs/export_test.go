package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
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

// MergeSettled does what Run does now and then.
func (s *Store) MergeSettled(t testing.TB) {
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

// Mend makes the checksums of heads, directories and sections right.
func Mend(data []byte) {
	for at := segmentHeader; ; at += 4 {
		i := bytes.Index(data[min(at, len(data)):], []byte(magic))
		if i < 0 {
			return
		}
		at += i
		n := headSize(data[at:])
		if n == 0 || n > int64(len(data)-at) {
			continue
		}
		head := data[at : at+int(n)]
		binary.LittleEndian.PutUint32(head[8:], checksum(head[12:]))
	}
}

// ReadAll reads data as a segment: all that Scan may read, checksums of the parts
// left out.
func ReadAll(t *testing.T, data []byte) {
	u, err := newUnpacker()
	if err != nil {
		t.Fatal(err)
	}
	defer u.zstd.Close()
	u.trusting = true
	buf := make([]byte, 4096)
	src := bytes.NewReader(data)
	end := int64(len(data))
	for off := int64(segmentHeader); off < end; {
		h, reason, err := readHead(src, off, end, &buf)
		if err != nil {
			t.Fatal(err)
		}
		if reason != "" {
			if off, err = findHead(src, off+1, end, &buf); err != nil {
				t.Fatal(err)
			}
			continue
		}
		v := openView(src, off, &h, newStream(h.labels), u)
		x := newSearch(Query{Text: []Condition{{Op: Contains, Value: "error 4711"}}})
		var d *damage
		if err := x.hand(v, 0, nil, func(Chunk) error { return nil }); err != nil && !errors.As(err, &d) {
			t.Fatal(err)
		}
		v = openView(src, off, &h, newStream(h.labels), u)
		err = newSearch(Query{From: math.MinInt64}).hand(v, 0, nil, func(c Chunk) error {
			for _, name := range c.Columns() {
				c.Column(name)
			}
			for i := range c.Times() {
				c.Text(nil, i)
				c.Fields(nil, i)
			}
			return nil
		})
		if err != nil && !errors.As(err, &d) {
			t.Fatal(err)
		}
		u.takeBack()
		off += h.size
	}
}
