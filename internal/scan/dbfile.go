package scan

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/klauspost/compress/zstd"
)

// The file of one ecosystem: docs/formats/advisories.md.
const (
	fileMagic  = "TNDRADV1"
	fileEnd    = "TNDRADVE"
	fileSuffix = ".adv"
	footerSize = 8 + 8 + 4 + 4 + 8 // where the directory is, its size, its checksum, the footer's, fileEnd

	blockTarget = 32 << 10 // unpacked; a block ends with the row that passes it
	blockMost   = 16 << 20
	dirMost     = 64 << 20
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// fileMeta is what a file says of itself.
type fileMeta struct {
	Ecosystem  string    `json:"ecosystem"`
	Made       time.Time `json:"made"`
	Newest     time.Time `json:"newest"` // modification of the newest advisory
	Advisories int       `json:"advisories"`
	Rows       int       `json:"rows"`
	Skipped    int       `json:"skipped,omitempty"` // entries that could not be read
}

// fileBlock is one line of the directory.
type fileBlock struct {
	first  string // name of its first row
	offset uint64
	size   uint32
	sum    uint32
}

// row is one advisory for one name.
type row struct {
	name string
	id   string
	data []byte // the encoded advisory
}

func (r row) before(o row) bool {
	if r.name != o.name {
		return r.name < o.name
	}
	return r.id < o.id
}

// fileWriter writes rows, which come in order, into a new file that gets its name
// when all is on the disk.
type fileWriter struct {
	f      *os.File
	out    *bufio.Writer
	enc    *zstd.Encoder
	at     uint64
	first  string
	plain  []byte
	packed []byte
	blocks []fileBlock
	meta   fileMeta
}

func newFileWriter(dir string) (*fileWriter, error) {
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return nil, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(1<<17))
	if err != nil {
		return nil, err
	}
	w := &fileWriter{f: f, out: bufio.NewWriterSize(f, 1<<18), enc: enc, at: uint64(len(fileMagic))}
	_, err = w.out.WriteString(fileMagic)
	return w, err
}

func (w *fileWriter) add(r row) error {
	if len(w.plain) == 0 {
		w.first = r.name
	}
	w.plain = appendText(w.plain, r.name)
	w.plain = binary.AppendUvarint(w.plain, uint64(len(r.data)))
	w.plain = append(w.plain, r.data...)
	w.meta.Rows++
	if len(w.plain) >= blockTarget {
		return w.flush()
	}
	return nil
}

func (w *fileWriter) flush() error {
	if len(w.plain) == 0 {
		return nil
	}
	w.packed = w.enc.EncodeAll(w.plain, w.packed[:0])
	w.blocks = append(w.blocks, fileBlock{w.first, w.at, uint32(len(w.packed)), crc32.Checksum(w.packed, crcTable)})
	w.at += uint64(len(w.packed))
	w.plain = w.plain[:0]
	_, err := w.out.Write(w.packed)
	return err
}

// finish writes the directory and puts the file in the place of path.
func (w *fileWriter) finish(path string) error {
	if err := w.flush(); err != nil {
		return err
	}
	meta, err := json.Marshal(w.meta)
	if err != nil {
		return err
	}
	dir := appendText(nil, string(meta))
	dir = binary.AppendUvarint(dir, uint64(len(w.blocks)))
	for _, b := range w.blocks {
		dir = appendText(dir, b.first)
		dir = binary.AppendUvarint(dir, b.offset)
		dir = binary.AppendUvarint(dir, uint64(b.size))
		dir = binary.LittleEndian.AppendUint32(dir, b.sum)
	}
	foot := binary.LittleEndian.AppendUint64(nil, w.at)
	foot = binary.LittleEndian.AppendUint64(foot, uint64(len(dir)))
	foot = binary.LittleEndian.AppendUint32(foot, crc32.Checksum(dir, crcTable))
	foot = binary.LittleEndian.AppendUint32(foot, crc32.Checksum(foot, crcTable))
	foot = append(foot, fileEnd...)
	if _, err := w.out.Write(append(dir, foot...)); err != nil {
		return err
	}
	if err := w.out.Flush(); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	if err := w.f.Close(); err != nil {
		return err
	}
	return replace(w.f.Name(), path)
}

// drop removes what was not finished; after finish it does nothing.
func (w *fileWriter) drop() {
	_ = w.f.Close()
	_ = os.Remove(w.f.Name())
}

// replace gives a synced file its name, and syncs the folder, so that the name holds too.
func replace(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// fileReader reads one file. It holds the directory in memory, about 100 bytes for
// each 32 KB of advisories, and reads blocks as they are asked for. What it has opened
// stays readable when another file takes its name.
type fileReader struct {
	src    io.ReaderAt
	blocks []fileBlock
	meta   fileMeta
	dec    *zstd.Decoder
	cached int // the block that plain holds; -1: none
	plain  []byte
}

func newFileReader(src io.ReaderAt, size int64) (*fileReader, error) {
	least := int64(len(fileMagic) + footerSize)
	if size < least {
		return nil, errors.New("too short")
	}
	head := make([]byte, len(fileMagic))
	foot := make([]byte, footerSize)
	if _, err := src.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if _, err := src.ReadAt(foot, size-footerSize); err != nil {
		return nil, err
	}
	if string(head) != fileMagic || string(foot[24:]) != fileEnd || binary.LittleEndian.Uint32(foot[20:]) != crc32.Checksum(foot[:20], crcTable) {
		return nil, errors.New("not an index of advisories, or cut short")
	}
	at, n := binary.LittleEndian.Uint64(foot), binary.LittleEndian.Uint64(foot[8:])
	if n > dirMost || at > uint64(size) || at+n != uint64(size-footerSize) {
		return nil, errors.New("its directory is not where it should be")
	}
	dir := make([]byte, n)
	if _, err := src.ReadAt(dir, int64(at)); err != nil {
		return nil, err
	}
	if crc32.Checksum(dir, crcTable) != binary.LittleEndian.Uint32(foot[16:]) {
		return nil, errors.New("checksum of its directory")
	}
	f := &fileReader{src: src, cached: -1}
	r := recordReader{rest: dir}
	if err := json.Unmarshal(r.bytes(), &f.meta); err != nil {
		return nil, fmt.Errorf("its description: %w", err)
	}
	f.blocks = make([]fileBlock, r.count(7))
	for i := range f.blocks {
		b := &f.blocks[i]
		b.first, b.offset, b.size = r.text(), r.number(), uint32(min(r.number(), blockMost))
		if len(r.rest) < 4 {
			return nil, errRecord
		}
		b.sum = binary.LittleEndian.Uint32(r.rest)
		r.rest = r.rest[4:]
		if b.offset > at || uint64(b.size) > at-b.offset {
			return nil, errRecord
		}
	}
	if r.bad || len(r.rest) != 0 {
		return nil, errRecord
	}
	var err error
	f.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(blockMost+blockTarget), zstd.WithDecoderMaxWindow(blockMost))
	return f, err
}

func (f *fileReader) load(i int) error {
	if f.cached == i {
		return nil
	}
	f.cached = -1
	b := f.blocks[i]
	packed := make([]byte, b.size)
	if _, err := f.src.ReadAt(packed, int64(b.offset)); err != nil {
		return fmt.Errorf("block %d: %w", i, err)
	}
	if crc32.Checksum(packed, crcTable) != b.sum {
		return fmt.Errorf("block %d: checksum", i)
	}
	plain, err := f.dec.DecodeAll(packed, f.plain[:0])
	if err != nil {
		return fmt.Errorf("block %d: %w", i, err)
	}
	f.plain, f.cached = plain, i
	return nil
}

// find gives the advisories that name a package.
func (f *fileReader) find(name string) ([]advisory, error) {
	var found []advisory
	// A name can begin in the block before the first that begins with it.
	i := max(sort.Search(len(f.blocks), func(i int) bool { return f.blocks[i].first >= name })-1, 0)
	for ; i < len(f.blocks) && f.blocks[i].first <= name; i++ {
		if err := f.load(i); err != nil {
			return nil, err
		}
		r := recordReader{rest: f.plain}
		for len(r.rest) > 0 {
			is, data := r.bytes(), r.bytes()
			if r.bad {
				return nil, errRecord
			}
			c := bytes.Compare(is, []byte(name))
			if c > 0 {
				return found, nil
			}
			if c < 0 {
				continue
			}
			a, err := readAdvisory(data)
			if err != nil {
				return nil, err
			}
			found = append(found, a)
		}
	}
	return found, nil
}

// all calls f with each row in order. Their data is only good until it returns.
func (f *fileReader) all(each func(row) error) error {
	for i := range f.blocks {
		if err := f.load(i); err != nil {
			return err
		}
		r := recordReader{rest: f.plain}
		for len(r.rest) > 0 {
			name, data := r.text(), r.bytes()
			id := recordReader{rest: data}
			one := row{name: name, id: id.text(), data: data}
			if r.bad || id.bad {
				return errRecord
			}
			if err := each(one); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fileReader) close() {
	f.dec.Close()
	if c, ok := f.src.(io.Closer); ok {
		_ = c.Close()
	}
}
