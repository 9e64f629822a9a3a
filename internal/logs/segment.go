package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A segment is a file of blocks: DAY/FROM-TO-TAKE.seg. FROM to TO are the numbers of
// the segments it was merged of (one that was written has one number), TAKE counts
// how often it was written anew. So a name says which files it replaces, and a
// process that is killed before it removes them leaves nothing in doubt.
//
//	"TNDRLOGS" | u32 version | u64 from | u64 to | u64 base | u32 checksum | blocks
//
// base is the number that the next block had when the segment was made.
const (
	segmentMagic   = "TNDRLOGS"
	segmentVersion = 1
	segmentHeader  = 40
	dayLayout      = "2006-01-02"
)

type segment struct {
	day            string
	from, to, take uint64
	base           uint64
	path           string
	size           int64    // what of the file is good
	blocks         []*entry // in the order of the file
	live           bool     // more is written to it

	files *files
	// guarded by files.mu
	f     *os.File
	users int  // who read f
	holds int  // who may want to read it
	dead  bool // to be removed when nobody has it
}

// entry is a block in a segment.
type entry struct {
	head
	seg    *segment
	off    int64
	stream *stream
	bad    bool // it was read and found damaged; guarded by Store.mu
}

func segmentName(from, to, take uint64) string {
	return fmt.Sprintf("%012d-%012d-%d.seg", from, to, take)
}

func parseSegmentName(name string) (from, to, take uint64, ok bool) {
	n, err := fmt.Sscanf(name, "%d-%d-%d.seg", &from, &to, &take)
	return from, to, take, err == nil && n == 3 && name == segmentName(from, to, take) && from <= to
}

func putSegmentHeader(from, to, base uint64) []byte {
	b := append([]byte(nil), segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, segmentVersion)
	b = binary.LittleEndian.AppendUint64(b, from)
	b = binary.LittleEndian.AppendUint64(b, to)
	b = binary.LittleEndian.AppendUint64(b, base)
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

// errNewer: the segment was written by a later release.
var errNewer = errors.New("written by a newer version of Tender")

func parseSegmentHeader(b []byte) (base uint64, err error) {
	if len(b) < segmentHeader || string(b[:8]) != segmentMagic {
		return 0, damaged("no header of a segment")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > segmentVersion {
		return 0, errNewer
	}
	if checksum(b[:36]) != binary.LittleEndian.Uint32(b[36:]) {
		return 0, damaged("the checksum of the segment's header is wrong")
	}
	return binary.LittleEndian.Uint64(b[28:]), nil
}

// files bounds how many segments are open at once.
type files struct {
	mu     sync.Mutex
	closed bool
	open   []*segment // those with a file, the least lately used first
}

const maxOpen = 32

// use opens the segment if need be, until the caller calls done.
func (s *segment) use() (io.ReaderAt, error) {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	if s.files.closed {
		return nil, errClosed
	}
	if s.f == nil {
		f, err := os.Open(s.path)
		if err != nil {
			return nil, err
		}
		s.f = f
		s.files.open = append(s.files.open, s)
	} else if i := slices.Index(s.files.open, s); i >= 0 {
		s.files.open = append(slices.Delete(s.files.open, i, i+1), s)
	}
	s.users++
	return s.f, nil
}

// hold keeps the file of the segment in place until letGo, without opening it.
func (s *segment) hold() {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	s.holds++
}

func (s *segment) letGo() {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	s.holds--
	s.tidy()
}

func (s *segment) done() {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	s.users--
	s.tidy()
}

func (s *segment) tidy() {
	if s.users == 0 && s.holds == 0 && s.dead {
		s.remove()
	}
	for i := 0; len(s.files.open) > maxOpen && i < len(s.files.open); {
		if o := s.files.open[i]; o.users == 0 {
			o.close()
		} else {
			i++
		}
	}
}

func (s *segment) close() {
	if s.f == nil {
		return
	}
	_ = s.f.Close() // it was only read
	s.f = nil
	if i := slices.Index(s.files.open, s); i >= 0 {
		s.files.open = slices.Delete(s.files.open, i, i+1)
	}
}

// retire removes the file as soon as nobody uses it.
func (s *segment) retire() {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	s.dead = true
	s.tidy()
}

func (s *segment) remove() {
	s.close()
	// What stays because of an error is found again at the next Open.
	_ = os.Remove(s.path)
	_ = os.Remove(filepath.Dir(s.path)) // of the day, if it was the last
}

// closeAll closes what is open.
func (fs *files) closeAll() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.closed = true
	for len(fs.open) > 0 {
		fs.open[0].close()
	}
}

// findSegments lists the segments in dir and what a killed process left behind.
func findSegments(dir string) (segs []*segment, leftover []string, err error) {
	days, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range days {
		if _, err := time.Parse(dayLayout, d.Name()); err != nil || !d.IsDir() {
			continue
		}
		names, err := os.ReadDir(filepath.Join(dir, d.Name()))
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue // dropped meanwhile
			}
			return nil, nil, err
		}
		for _, n := range names {
			path := filepath.Join(dir, d.Name(), n.Name())
			if strings.HasSuffix(n.Name(), ".tmp") {
				leftover = append(leftover, path)
			} else if from, to, take, ok := parseSegmentName(n.Name()); ok {
				segs = append(segs, &segment{day: d.Name(), from: from, to: to, take: take, path: path})
			}
		}
	}
	// Of two that overlap the wider one, or the later take, was made of the other.
	slices.SortFunc(segs, func(a, b *segment) int {
		return cmpOr(a.from, b.from, b.to, a.to, b.take, a.take)
	})
	kept := segs[:0]
	for _, s := range segs {
		if len(kept) > 0 && s.to <= kept[len(kept)-1].to {
			leftover = append(leftover, s.path)
			continue
		}
		kept = append(kept, s)
	}
	return kept, leftover, nil
}

// cmpOr compares pairs of numbers until one differs.
func cmpOr(pairs ...uint64) int {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] < pairs[i+1] {
			return -1
		}
		if pairs[i] > pairs[i+1] {
			return 1
		}
	}
	return 0
}

// load reads the heads of all blocks. What is damaged is passed over, up to the next
// head that is whole, and told to report.
func (s *segment) load(f *os.File, report func(off, size int64, reason string)) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end := info.Size()
	buf := make([]byte, 4096)
	n, err := f.ReadAt(buf[:segmentHeader], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if s.base, err = parseSegmentHeader(buf[:n]); err != nil {
		if errors.Is(err, errNewer) {
			return err
		}
		report(0, int64(n), err.Error())
	}
	off := int64(segmentHeader)
	s.size = min(off, end)
	for off < end {
		h, reason, err := readHead(f, off, end, &buf)
		if err != nil {
			return err
		}
		if reason != "" {
			next, err := findHead(f, off+1, end, &buf)
			if err != nil {
				return err
			}
			report(off, next-off, reason)
			off = next
			continue
		}
		s.blocks = append(s.blocks, &entry{head: h, seg: s, off: off})
		off += h.size
		s.size = off
	}
	return nil
}

// readHead reads the head at off; reason says why there is none.
func readHead(f io.ReaderAt, off, end int64, buf *[]byte) (h head, reason string, err error) {
	n := min(int64(len(*buf)), end-off)
	if _, err = f.ReadAt((*buf)[:n], off); err != nil {
		return h, "", err
	}
	if size := headSize((*buf)[:n]); size > n {
		if size > end-off {
			return h, "the file ends in a head", nil
		}
		if size > int64(len(*buf)) {
			*buf = make([]byte, size)
		}
		n = size
		if _, err = f.ReadAt((*buf)[:n], off); err != nil {
			return h, "", err
		}
	}
	h, err = parseHead((*buf)[:n])
	switch {
	case err != nil:
		return h, err.Error(), nil
	case h.size > end-off:
		return h, "the file ends in a block", nil
	}
	return h, "", nil
}

// findHead returns where the next whole head begins, or end.
func findHead(f io.ReaderAt, off, end int64, buf *[]byte) (int64, error) {
	chunk := make([]byte, 256<<10)
	for off < end {
		n := min(int64(len(chunk)), end-off)
		if _, err := f.ReadAt(chunk[:n], off); err != nil {
			return 0, err
		}
		for at := 0; ; at++ {
			i := bytes.Index(chunk[at:n], []byte(magic))
			if i < 0 {
				break
			}
			at += i
			_, reason, err := readHead(f, off+int64(at), end, buf)
			if err != nil {
				return 0, err
			}
			if reason == "" {
				return off + int64(at), nil
			}
		}
		if n == end-off {
			break
		}
		off += n - int64(len(magic)) + 1
	}
	return end, nil
}

// verify reads all of a block.
func verify(f io.ReaderAt, off int64, h *head, u *unpacker) error {
	defer u.takeBack()
	v := openView(f, off, h, nil, u)
	if err := v.need(); err != nil || h.rows == 0 {
		return err
	}
	if err := v.needTimes(); err != nil {
		return err
	}
	if slices.Min(v.times) != h.min || slices.Max(v.times) != h.max {
		return damaged("times outside of what the head says")
	}
	if err := v.needCodes(); err != nil {
		return err
	}
	for i := range v.cols {
		if _, err := v.column(i); err != nil {
			return err
		}
		if _, err := v.filter(i); err != nil {
			return err
		}
		if _, err := v.spot(i); err != nil {
			return err
		}
		v.cols[i].col = nil // a block with many columns need not be in memory whole
	}
	return nil
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
