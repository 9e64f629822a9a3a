package scan

import (
	"archive/zip"
	"bufio"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Bounds of one ecosystem's dump: several times what the largest has.
const (
	zipMost      = 2 << 30  // packed
	zipDirectory = 64 << 20 // bytes of names and offsets: some 700,000 entries
	unpackedMost = 16 << 30 // of all entries
	sortInMemory = 24 << 20
	damagedShare = 20 // one entry in so many may be unreadable
)

// builder sorts rows that come in any order, with little memory: what does not fit is
// kept in sorted runs in a file without a name.
type builder struct {
	dir     string
	rows    []row
	size    int
	runs    []*os.File
	newest  time.Time
	ids     int // that hold for something
	seen    int // with those that were withdrawn
	skipped int
}

func (b *builder) add(p parsed) error {
	b.seen++
	if len(p.rows) > 0 {
		b.ids++
	}
	if p.modified.After(b.newest) {
		b.newest = p.modified
	}
	for _, r := range p.rows {
		b.rows = append(b.rows, r)
		b.size += len(r.name) + len(r.id) + len(r.data) + 80
	}
	if b.size > sortInMemory {
		return b.spill()
	}
	return nil
}

func compareRows(a, b row) int {
	switch {
	case a.before(b):
		return -1
	case b.before(a):
		return 1
	}
	return 0
}

func (b *builder) spill() error {
	slices.SortFunc(b.rows, compareRows)
	f, err := os.CreateTemp(b.dir, ".run-*")
	if err != nil {
		return err
	}
	b.runs = append(b.runs, f)
	if err := os.Remove(f.Name()); err != nil { // gone with us, whatever happens
		return err
	}
	out := bufio.NewWriterSize(f, 1<<18)
	var head []byte
	for _, r := range b.rows {
		head = appendText(appendText(head[:0], r.name), r.id)
		head = binary.AppendUvarint(head, uint64(len(r.data)))
		if _, err := out.Write(head); err != nil {
			return err
		}
		if _, err := out.Write(r.data); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	clear(b.rows)
	b.rows, b.size = b.rows[:0], 0
	return nil
}

func (b *builder) close() {
	for _, f := range b.runs {
		_ = f.Close()
	}
}

// sorted calls each with all rows in order.
func (b *builder) sorted(each func(row) error) error {
	slices.SortFunc(b.rows, compareRows)
	var m runMerge
	at := 0
	if err := m.push(func() (row, error) {
		if at == len(b.rows) {
			return row{}, io.EOF
		}
		at++
		return b.rows[at-1], nil
	}); err != nil {
		return err
	}
	for _, f := range b.runs {
		in := bufio.NewReaderSize(f, 1<<16)
		if err := m.push(func() (row, error) { return readRow(in) }); err != nil {
			return err
		}
	}
	for len(m) > 0 {
		if err := each(m[0].row); err != nil {
			return err
		}
		next, err := m[0].next()
		switch {
		case errors.Is(err, io.EOF):
			heap.Pop(&m)
		case err != nil:
			return err
		default:
			m[0].row = next
			heap.Fix(&m, 0)
		}
	}
	return nil
}

func readRow(in *bufio.Reader) (row, error) {
	var parts [3][]byte
	for i := range parts {
		n, err := binary.ReadUvarint(in)
		if err != nil {
			return row{}, err
		}
		parts[i] = make([]byte, n)
		if _, err := io.ReadFull(in, parts[i]); err != nil {
			return row{}, err
		}
	}
	return row{string(parts[0]), string(parts[1]), parts[2]}, nil
}

// runMerge is a heap of runs by the row that comes next in each.
type runMerge []mergeRun

type mergeRun struct {
	row
	next func() (row, error)
}

func (m *runMerge) push(next func() (row, error)) error {
	r, err := next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		heap.Push(m, mergeRun{r, next})
	}
	return err
}

func (m runMerge) Len() int           { return len(m) }
func (m runMerge) Less(i, j int) bool { return m[i].before(m[j].row) }
func (m runMerge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *runMerge) Push(x any)        { *m = append(*m, x.(mergeRun)) }
func (m *runMerge) Pop() any {
	last := len(*m) - 1
	x := (*m)[last]
	*m = (*m)[:last]
	return x
}

// write makes the file of an ecosystem: the rows of before, without those of the
// advisories in replaced and those that are no longer listed, and the new ones.
func (b *builder) write(ecosystem string, now time.Time, before *fileReader, keep func(id string) bool) (fileMeta, error) {
	w, err := newFileWriter(b.dir)
	if err != nil {
		return fileMeta{}, err
	}
	defer w.drop()
	w.meta = fileMeta{Ecosystem: ecosystem, Made: now.UTC(), Newest: b.newest, Advisories: b.ids, Skipped: b.skipped}
	if before != nil {
		ids := map[string]bool{}
		err = mergeOld(before, func(r row) bool {
			if !keep(r.id) {
				return false
			}
			ids[r.id] = true
			return true
		}, b, w)
		w.meta.Advisories += len(ids)
		if before.meta.Newest.After(w.meta.Newest) {
			w.meta.Newest = before.meta.Newest
		}
	} else {
		err = b.sorted(w.add)
	}
	if err == nil {
		err = w.finish(indexPath(b.dir, ecosystem))
	}
	return w.meta, err
}

// mergeOld is only for few new rows, which are in memory or in runs; the old ones are
// streamed block by block.
func mergeOld(before *fileReader, keep func(row) bool, b *builder, w *fileWriter) error {
	var fresh []row
	if err := b.sorted(func(r row) error { fresh = append(fresh, r); return nil }); err != nil {
		return err
	}
	if err := before.all(func(r row) error {
		if !keep(r) {
			return nil
		}
		for len(fresh) > 0 && fresh[0].before(r) {
			if err := w.add(fresh[0]); err != nil {
				return err
			}
			fresh = fresh[1:]
		}
		return w.add(r)
	}); err != nil {
		return err
	}
	for _, r := range fresh {
		if err := w.add(r); err != nil {
			return err
		}
	}
	return nil
}

// loadZip reads all advisories of a dump.
func (b *builder) loadZip(ctx context.Context, src io.ReaderAt, size int64, ecosystem string, report func(done, total int)) error {
	if size > zipMost {
		return fmt.Errorf("dump is larger than %d bytes", int64(zipMost))
	}
	budget := &budgetReader{src: src, left: zipDirectory}
	z, err := zip.NewReader(budget, size)
	if err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	budget.left = -1
	left := int64(unpackedMost)
	var buf []byte
	for i, f := range z.File {
		if i%1000 == 0 {
			report(i, len(z.File))
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if f.FileInfo().IsDir() || path.Ext(f.Name) != ".json" {
			continue
		}
		buf, err = readEntry(f, buf, &left)
		if left < 0 {
			return errors.New("dump unpacks to more than it may")
		}
		if err := b.advisory(buf, err, ecosystem, f.Name); err != nil {
			return err
		}
	}
	report(len(z.File), len(z.File))
	return b.plausible()
}

// advisory adds what was read of one file. What cannot be read is counted: one bad
// advisory must not keep the others out.
func (b *builder) advisory(data []byte, err error, ecosystem, name string) error {
	if err == nil {
		var p parsed
		if p, err = parseOSV(data, ecosystem); err == nil {
			return b.add(p)
		}
	}
	b.skipped++
	if b.skipped > 100 && b.skipped > b.seen/damagedShare {
		return fmt.Errorf("too much of the dump cannot be read, at last %s: %w", name, err)
	}
	return nil
}

func (b *builder) plausible() error {
	if b.seen == 0 || b.skipped > b.seen/damagedShare+10 {
		return fmt.Errorf("dump has %d advisories that can be read, and %d that cannot", b.seen, b.skipped)
	}
	return nil
}

func readEntry(f *zip.File, buf []byte, left *int64) ([]byte, error) {
	in, err := f.Open()
	if err != nil {
		return buf, err
	}
	defer func() { _ = in.Close() }()
	return readBounded(in, buf, left)
}

// readBounded reads one advisory, and takes its size off what is left.
func readBounded(in io.Reader, buf []byte, left *int64) ([]byte, error) {
	buf = buf[:0]
	for {
		if len(buf) > jsonMost {
			return buf, fmt.Errorf("larger than %d bytes", jsonMost)
		}
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, max(cap(buf), 16<<10))...)[:len(buf)]
		}
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if *left -= int64(n); *left < 0 {
			return buf, errors.New("too large")
		}
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// budgetReader ends a directory that says it is small and goes on for ever.
type budgetReader struct {
	src  io.ReaderAt
	left int64 // below 0: no bound
}

func (r *budgetReader) ReadAt(p []byte, at int64) (int, error) {
	if r.left >= 0 {
		if r.left -= int64(len(p)); r.left < 0 {
			return 0, errors.New("its directory is too large")
		}
	}
	return r.src.ReadAt(p, at)
}

// ecosystemName says whether a name can be one of OSV's ecosystems: it becomes a file's
// name and a part of an URL.
func ecosystemName(s string) bool {
	return s != "" && len(s) <= 60 && s[0] != '.' && s[0] != '-' && !strings.ContainsAny(s, ":/\\\x00\n\r%?#")
}
