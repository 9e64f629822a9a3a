package metrics

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// The log of writes is pages, in which records lie whole or in fragments that do not leave their
// file: see tsdb/docs/format/wal.md of Prometheus.
const (
	pageSize   = 32 << 10
	headerSize = 7 // of a fragment: one byte of kind, two of length, four of CRC-32C

	snappyBit = 1 << 3
	zstdBit   = 1 << 4
	kindMask  = snappyBit - 1
)

const (
	kindEnd = iota // of the page
	kindFull
	kindFirst
	kindMiddle
	kindLast
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// flaws are what is not as it was written.
type flaws struct {
	// torn records were begun and not ended: who wrote them was told so, or did not live to be.
	torn int
	// unread places may have held what was kept.
	unread int
}

func (f flaws) any() bool { return f.torn > 0 || f.unread > 0 }

// fragments puts records together again.
type fragments struct {
	flaws
	each func(rec []byte) error // nil: they are only looked at

	rec     []byte
	started bool // rec is the beginning of one
	gap     bool // what comes may be the end of one whose beginning cannot be read
	plain   compression.DecodeBuffer
}

// whole hands every whole record of a log of writes to each, if that is not nil, and says what it
// passed over. What each gets is good until it returns.
func whole(r io.Reader, each func(rec []byte) error) (flaws, error) {
	f := &fragments{each: each, plain: compression.NewSyncDecodeBuffer()}
	page := make([]byte, pageSize)
	for {
		n, err := io.ReadFull(r, page)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return f.flaws, err
		}
		if err := f.page(page[:n]); err != nil {
			return f.flaws, err
		}
	}
	if f.started {
		f.torn++
	}
	return f.flaws, nil
}

// page reads one; a short one is the end of its file.
func (f *fragments) page(p []byte) error {
	short := len(p) < pageSize
	for first := true; len(p) > 0; first = false {
		if p[0]&kindMask == kindEnd {
			if len(bytes.Trim(p, "\x00")) > 0 || first && f.started && !short {
				f.unreadable()
			}
			return nil
		}
		length := 0
		if len(p) >= headerSize {
			length = int(binary.BigEndian.Uint16(p[1:]))
		}
		if end := headerSize + length; len(p) < end {
			if short { // written by half
				f.torn++
				f.started = false
			} else {
				f.unreadable()
			}
			return nil
		}
		kind, sum, body := p[0], binary.BigEndian.Uint32(p[3:]), p[headerSize:headerSize+length]
		p = p[headerSize+length:]
		if crc32.Checksum(body, castagnoli) != sum {
			f.unreadable() // the next one is found if the length is right
			continue
		}
		if err := f.fragment(kind, body); err != nil {
			return err
		}
	}
	return nil
}

func (f *fragments) unreadable() {
	f.unread++
	f.started, f.gap = false, true
}

func (f *fragments) fragment(kind byte, body []byte) error {
	switch kind & kindMask {
	case kindFull, kindFirst:
		if f.started {
			f.torn++
		}
		f.rec, f.started, f.gap = append(f.rec[:0], body...), true, false
	case kindMiddle, kindLast:
		if !f.started {
			if !f.gap { // counted already
				f.unreadable()
			}
			return nil
		}
		f.rec = append(f.rec, body...)
	default:
		f.unreadable()
		return nil
	}
	if k := kind & kindMask; k == kindFirst || k == kindMiddle {
		return nil
	}
	f.started = false
	if f.each == nil {
		return nil
	}
	how := compression.None
	switch {
	case kind&snappyBit != 0:
		how = compression.Snappy
	case kind&zstdBit != 0:
		how = compression.Zstd
	}
	rec, err := compression.Decode(how, f.rec, f.plain)
	if err != nil {
		f.unreadable()
		return nil
	}
	return f.each(rec)
}

// mend writes files of the logs of writes anew that are not as they were written, with all records
// of them that are whole: the library drops what is behind the first that is not. Each is exchanged
// as a whole, so that it may end anywhere. lost says where something may have been lost; nil: nothing
// that was kept.
func (d *damage) mend() (lost error, err error) {
	files, err := d.logs()
	if err != nil {
		return nil, err
	}
	missing, err := d.missing(files)
	if err != nil {
		return nil, err
	}
	for i, path := range files {
		found, err := read(path, nil)
		if err != nil {
			return lost, err
		}
		var before []record.RefSeries
		if i == 0 { // all that speaks of them comes later
			before = missing
		}
		if !found.any() && len(before) == 0 {
			continue
		}
		if err := d.rewrite(path, before); err != nil {
			return lost, fmt.Errorf("mend %s: %w", path, err)
		}
		name := strings.TrimPrefix(path, d.dir+string(filepath.Separator))
		if found.unread > 0 {
			lost = errors.Join(lost, fmt.Errorf("%d places of %s could not be read; the file is here, and the rest of it where it was", found.unread, name))
		}
		d.log.Warn("a log of writes was mended", "file", name, "unread", found.unread, "torn", found.torn, "series", len(before))
	}
	return lost, d.forget()
}

// logs are the files of the logs of writes, in the order in which they are read.
func (d *damage) logs() (all []string, err error) {
	wal := filepath.Join(d.dir, "wal")
	dirs := []string{wal, filepath.Join(d.dir, wlog.WblDirName)}
	if checkpoint, _, err := wlog.LastCheckpoint(wal); err == nil {
		dirs = append([]string{checkpoint}, dirs...)
	}
	for _, dir := range dirs {
		first, last, err := wlog.Segments(dir)
		if errors.Is(err, os.ErrNotExist) || err == nil && last < 0 {
			continue
		}
		if err != nil {
			return nil, nil //nolint:nilerr // not what can be mended here: the library says what it is
		}
		for i := first; i <= last; i++ {
			all = append(all, wlog.SegmentName(dir, i))
		}
	}
	return all, nil
}

func read(path string, each func(rec []byte) error) (flaws, error) {
	f, err := os.Open(path)
	if err != nil {
		return flaws{}, err
	}
	defer f.Close()
	return whole(f, each)
}

// rewrite exchanges a file for one with its whole records, and before them some series.
func (d *damage) rewrite(path string, before []record.RefSeries) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	dir := filepath.Join(d.dir, "mending")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var enc record.Encoder
	series := enc.Series(before, nil)
	// A record must not come to lie in a second file: there is room for twice as much.
	w, err := wlog.NewSize(d.log, nil, dir, int((2*(info.Size()+int64(len(series)))/pageSize+2)*pageSize), compression.Snappy)
	if err != nil {
		return err
	}
	if len(before) > 0 {
		err = w.Log(series)
	}
	if err == nil {
		_, err = read(path, func(rec []byte) error { return w.Log(rec) })
	}
	if err := errors.Join(err, w.Close()); err != nil { // it reaches the disk there
		return err
	}
	if _, last, err := wlog.Segments(dir); err != nil || last != 0 {
		return errors.Join(err, fmt.Errorf("it has become %d files", last+1))
	}
	if err := os.Rename(wlog.SegmentName(dir, 0), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// unwrittenFile names series that are not in the log of writes, though samples of them may be: a
// CRC-32C, then a record of them.
const unwrittenFile = "unwritten"

// remember writes such series down.
func (d *damage) remember(series []record.RefSeries) error {
	var enc record.Encoder
	b := enc.Series(series, make([]byte, 4))
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	path := filepath.Join(d.dir, unwrittenFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// missing are those that were written down and that no log names.
func (d *damage) missing(files []string) ([]record.RefSeries, error) {
	b, err := os.ReadFile(filepath.Join(d.dir, unwrittenFile))
	if err != nil || len(b) < 4 || crc32.Checksum(b[4:], castagnoli) != binary.BigEndian.Uint32(b) {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	dec := record.NewDecoder(labels.NewSymbolTable(), d.log)
	all, err := dec.Series(b[4:], nil)
	if err != nil {
		return nil, nil //nolint:nilerr // of another release
	}
	unnamed := make(map[chunks.HeadSeriesRef]bool, len(all))
	for _, s := range all {
		unnamed[s.Ref] = true
	}
	var named []record.RefSeries
	for _, path := range files {
		_, err := read(path, func(rec []byte) error {
			if dec.Type(rec) != record.Series {
				return nil
			}
			var err error
			if named, err = dec.Series(rec, named[:0]); err != nil {
				return nil //nolint:nilerr // the library says so when it reads it
			}
			for _, n := range named {
				delete(unnamed, n.Ref)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(all, func(s record.RefSeries) bool { return !unnamed[s.Ref] }), nil
}

// forget removes what remember wrote.
func (d *damage) forget() error {
	err := os.Remove(filepath.Join(d.dir, unwrittenFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
