package collect

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenderhq/tender/internal/logs"
)

// headSize is how much of a file's beginning tells it from others: it holds the
// time of the first record, to the nanosecond.
const headSize = 1024

// file is one of the files that a container's log is made of, held open: so it can
// be read whatever happens to its name.
type file struct {
	f        *os.File
	seq      uint64
	dev, ino uint64
	start    int64 // where to begin
	gap      int64 // bytes that were lost before it; -1: some
	linked   bool
	sealed   bool // closed: its head is known as far as there is one

	head     uint64
	headSize int
}

// place is the one at off.
func (f *file) place(off int64) logs.Place {
	if f.headSize < headSize && !f.sealed {
		f.head, f.headSize = headOf(f.f, headSize)
	}
	return logs.Place{Seq: f.seq, Offset: off, Head: f.head, HeadSize: f.headSize}
}

// seal closes a file that is read to its end; its places can still be told.
func (f *file) seal() {
	f.place(0)
	f.sealed = true
	f.f.Close()
}

// headOf hashes the first n bytes, or as many as there are.
func headOf(r io.ReaderAt, n int) (uint64, int) {
	b := make([]byte, n)
	k, _ := r.ReadAt(b, 0) //nolint:errcheck // what cannot be read is not there
	h := fnv.New64a()
	h.Write(b[:k])
	return h.Sum64(), k
}

// begins reports whether f begins as the file did that p is a place in.
func (f *file) begins(p logs.Place) bool {
	head, n := headOf(f.f, p.HeadSize)
	return n == p.HeadSize && head == p.Head
}

func openFile(path string) (*file, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return &file{f: f, dev: s.Dev, ino: s.Ino}, nil
}

func (f *file) size() int64 {
	st, err := f.f.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

func inodeOf(path string) uint64 {
	var s syscall.Stat_t
	if syscall.Stat(path, &s) != nil {
		return 0
	}
	return s.Ino
}

// spool is a folder of hard links inside the engine's data root, one for each file
// that is not yet stored whole: so neither rotation nor removal takes it away.
type spool struct{ dir string }

func (s spool) path(f *file) string {
	return filepath.Join(s.dir, fmt.Sprintf("%012d-%d", f.seq, f.ino))
}

// link keeps f. It links the inode that is open, not a path, which may have got
// another file meanwhile.
func (s spool) link(f *file) error {
	if f.linked {
		return nil
	}
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.f.Fd()), unix.AT_FDCWD, s.path(f), unix.AT_SYMLINK_FOLLOW)
	var st unix.Stat_t
	if errors.Is(err, fs.ErrNotExist) && unix.Fstat(int(f.f.Fd()), &st) == nil && st.Nlink == 0 {
		// Removed since it was opened: compressed, or with its container. Nobody writes it any more, and
		// without a copy nobody would know of it after a kill.
		return s.write(io.NewSectionReader(f.f, 0, 1<<62), f)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep a log file: %w", err)
	}
	f.linked = true
	return nil
}

// names are the links, the oldest first.
func (s spool) names() (out []string) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil
	}
	for _, e := range entries { // sorted, and with leading zeros
		if _, ok := seqOf(e.Name()); ok {
			out = append(out, e.Name())
		}
	}
	return out
}

func seqOf(name string) (uint64, bool) {
	number, _, ok := strings.Cut(name, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	return n, ok && err == nil && !strings.HasSuffix(name, unfinishedEnd)
}

// unfinishedEnd is that of a file that is being unpacked. One that a killed process
// left is no link: it holds the beginning of a file alone.
const unfinishedEnd = ".new"

// release removes the links of files before seq.
func (s spool) release(seq uint64) {
	for _, name := range s.names() {
		if n, _ := seqOf(name); n < seq {
			_ = os.Remove(filepath.Join(s.dir, name)) // what stays is released the next time
		}
	}
}

func (s spool) open() (out []*file) {
	for _, name := range s.names() {
		f, err := openFile(filepath.Join(s.dir, name))
		if err != nil {
			continue
		}
		f.seq, _ = seqOf(name)
		f.linked = true
		if slices.ContainsFunc(out, func(o *file) bool { return o.dev == f.dev && o.ino == f.ino }) {
			// It was truncated in place: what the older number meant is gone.
			out = slices.DeleteFunc(out, func(o *file) bool {
				if o.ino != f.ino || o.dev != f.dev {
					return false
				}
				o.f.Close()
				_ = os.Remove(s.path(o))
				return true
			})
		}
		out = append(out, f)
	}
	return out
}

// unpack writes a compressed file out, as the link of seq. missing: bytes that could
// not be read behind what was; -1: some. Of a file that is damaged what is before the damage is kept, if
// that is a record at least.
func (s spool) unpack(r *rotated, seq uint64) (f *file, missing int64, err error) {
	z, err := gzip.NewReader(io.NewSectionReader(r.packed, 0, 1<<62))
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", filepath.Base(r.path), err)
	}
	name := filepath.Join(s.dir, fmt.Sprintf("%012d-gz", seq))
	out, err := os.OpenFile(name+unfinishedEnd, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, err
	}
	in := &noting{Reader: z}
	n, err := io.Copy(out, in) //nolint:gosec // the engine bounds its own files
	if in.err != nil {
		// What is behind the last whole record would be taken for the beginning of the next file's first one.
		kept := wholeRecords(out, n)
		if err = out.Truncate(kept); kept == 0 {
			err = in.err
		}
		missing = r.rest(kept, in.err)
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = os.Rename(name+unfinishedEnd, name)
	}
	if err != nil {
		_ = os.Remove(name + unfinishedEnd)
		return nil, 0, fmt.Errorf("unpack %s: %w", filepath.Base(r.path), err)
	}
	if f, err = openFile(name); err != nil {
		return nil, 0, err
	}
	f.seq, f.linked = seq, true
	return f, missing, nil
}

// noting remembers why no more can be read: who copies cannot tell it from what went
// wrong with writing.
type noting struct {
	io.Reader
	err error
}

func (n *noting) Read(b []byte) (int, error) {
	k, err := n.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return k, err
}

// wholeRecords is how many of the first n bytes are records: damage may show only after
// a while of nonsense.
func wholeRecords(f io.ReaderAt, n int64) (whole int64) {
	in := bufio.NewReaderSize(io.NewSectionReader(f, 0, n), maxEntry) // longer than a record can be
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return whole
		}
		record := line[:len(line)-1]
		if _, ok := readEnvelope(record); !ok {
			if _, ok = salvageEnvelope(record); !ok {
				return whole
			}
		}
		whole += int64(len(line))
	}
}

// rest is how many bytes a damaged file held behind the first n: its end says how many
// it had, if that is there.
func (r *rotated) rest(n int64, damage error) int64 {
	var end [4]byte
	st, err := r.packed.Stat()
	if err != nil || errors.Is(damage, io.ErrUnexpectedEOF) || st.Size() < int64(len(end)) {
		return -1
	}
	if _, err := r.packed.ReadAt(end[:], st.Size()-int64(len(end))); err != nil {
		return -1
	}
	if all := int64(binary.LittleEndian.Uint32(end[:])); all > n {
		return all - n
	}
	return -1
}

// head is the hash of the first n bytes of what a file holds, or of as many as there are.
func (r *rotated) head(n int) (uint64, int) {
	if !r.zip {
		return headOf(r.file.f, n)
	}
	z, err := gzip.NewReader(io.NewSectionReader(r.packed, 0, 1<<62))
	if err != nil {
		return 0, 0
	}
	b := make([]byte, n)
	k, _ := io.ReadFull(z, b) //nolint:errcheck // what cannot be read is not there
	h := fnv.New64a()
	h.Write(b[:k])
	return h.Sum64(), k
}

// twin reports whether r holds what f does, as far as their beginnings tell.
func (r *rotated) twin(f *file) bool {
	n := int(min(headSize, f.size()))
	own, _ := headOf(f.f, n)
	head, k := r.head(n)
	return n > 0 && k == n && head == own
}

// rotated is one name in a container's folder: the current file is number 0, the
// higher the older.
type rotated struct {
	path string
	n    int
	ino  uint64
	zip  bool
	file *file
	// packed is the compressed file, open like the others: a name may be another file's a moment later.
	packed *os.File
	seq    uint64 // 0: never seen before
}

// rotations lists a container's log files, the oldest first, all of them open. gone:
// its folder is not there.
func rotations(dir, base string) (list []*rotated, gone bool, err error) {
	for range 500 {
		out, whole, err := openRotated(dir, base)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, true, nil
		} else if err != nil {
			return nil, false, fmt.Errorf("read the log's folder: %w", err)
		}
		if whole {
			return out, false, nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil, false, errors.New("read the log's folder: its files change all the time")
}

// openRotated tries to open what there is; whole: it is what was there at one moment.
func openRotated(dir, base string) (out []*rotated, whole bool, err error) {
	if out, err = listRotated(dir, base); err != nil {
		return nil, false, err
	}
	whole = true
	for _, r := range out {
		// A name that another file got between the list and the opening, or nobody has any more.
		whole = whole && r.open()
	}
	// The engine renames one file after the other: what is open is what was listed if the list is still the
	// same, names and files.
	again, err := listRotated(dir, base)
	if err == nil && whole && slices.EqualFunc(out, again, func(a, b *rotated) bool { return a.path == b.path && a.ino == b.ino }) {
		return unpackable(out), true, nil
	}
	release(out)
	return nil, false, nil
}

// release closes all that is open of list.
func release(list []*rotated) {
	closeAll(list)
	closePacked(list)
}

// listRotated names a container's log files, the oldest first.
func listRotated(dir, base string) (out []*rotated, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		r := &rotated{path: filepath.Join(dir, name)}
		if name != base {
			rest, ok := strings.CutPrefix(name, base+".")
			if !ok {
				continue
			}
			rest, r.zip = strings.CutSuffix(rest, ".gz")
			if r.n, err = strconv.Atoi(rest); err != nil || r.n < 1 {
				continue
			}
		}
		r.ino = inodeOf(r.path)
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *rotated) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.path, b.path)) })
	return out, nil
}

// open opens a file that was listed, and reports whether it is still the same.
func (r *rotated) open() bool {
	f, err := openFile(r.path)
	if err != nil {
		return false
	}
	if r.zip {
		r.packed = f.f
	} else {
		r.file = f
	}
	return f.ino == r.ino
}

// write copies what in holds into the spool as the file f.
func (s spool) write(in io.Reader, f *file) error {
	name := filepath.Join(s.dir, fmt.Sprintf("%012d-copy", f.seq))
	out, err := os.OpenFile(name+unfinishedEnd, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep a log file: %w", err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(name+unfinishedEnd, name)
	}
	if err != nil {
		_ = os.Remove(name + unfinishedEnd)
		return fmt.Errorf("keep a log file: %w", err)
	}
	f.linked = true
	return nil
}

// unpackable leaves a compressed file out that is not whole yet: while the engine
// compresses a file both are there.
func unpackable(list []*rotated) []*rotated {
	plain := map[int]bool{}
	for _, r := range list {
		plain[r.n] = plain[r.n] || !r.zip
	}
	return slices.DeleteFunc(list, func(r *rotated) bool {
		if !r.zip || !plain[r.n] {
			return false
		}
		r.packed.Close()
		return true
	})
}

func closePacked(list []*rotated) {
	for _, r := range list {
		if r.packed != nil {
			r.packed.Close()
		}
	}
}

// hasCurrent reports whether the file is there that the engine writes.
func hasCurrent(list []*rotated) bool {
	return slices.ContainsFunc(list, func(r *rotated) bool { return r.n == 0 })
}

func closeAll(list []*rotated) {
	for _, r := range list {
		if r.file != nil {
			r.file.f.Close()
		}
	}
}
