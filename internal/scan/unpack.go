package scan

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/tenderhq/tender"
)

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// errCut ends a layer before its end. It is no error of the image.
var errCut = errors.New("cut")

// errTooMuch leaves a file out.
var errTooMuch = errors.New("more than can be looked into in one image")

const (
	maxPath     = 4096    // of a file that is kept; longer names are looked at no further
	maxCut      = 200     // sentences
	inMemory    = 8 << 20 // a file that is looked into and is larger goes to the temporary file
	maxWindow   = 128 << 20
	freeOfRatio = 1 << 30
)

// reading is one call of Read: what it has left to spend, and its one temporary file.
type reading struct {
	ctx    context.Context //nolint:containedctx // it lives as long as the call
	limits Limits

	bytes    int64 // unpacked
	held     int64 // looked into; holes of sparse files cost here, and nowhere else
	entries  int
	packages int
	marks    int
	secrets  int
	cut      []string

	buf  bytes.Buffer
	temp *os.File
}

func (r *reading) close() {
	if r.temp != nil {
		r.temp.Close()
		os.Remove(r.temp.Name())
	}
}

func (r *reading) cutf(format string, args ...any) {
	switch {
	case len(r.cut) < maxCut:
		r.cut = append(r.cut, fmt.Sprintf(format, args...))
	case len(r.cut) == maxCut:
		r.cut = append(r.cut, "and more")
	}
}

// layer is what one layer holds. Of most files only a hash of the path is kept: enough
// to know whether it hides a file of a layer below.
type layer struct {
	diffID string
	bytes  int64
	cut    string // why it was not read to its end
	files  map[string]*file

	covers []uint64 // sorted hashes: files by path, directories by path and "/"
	white  []uint64 // paths that are gone
	opaque []uint64 // directories of which all that lies below is gone
	owned  []uint64 // paths that a package of the distribution brought
}

// file is one that tells something.
type file struct {
	packages []Package
	lists    bool // a list of packages of the distribution, whole in each layer that has it
	release  map[string]string
	secrets  []secret
	mode     int64 // setuid, setgid or writable by all; else 0
	uid      int
	dir      bool
}

var seed = maphash.MakeSeed()

func hashOf(path string) uint64 { return maphash.String(seed, path) }

// hides says whether the layer hides a file of a layer below.
func (l *layer) hides(p string) bool {
	if has(l.covers, hashOf(p)) || has(l.covers, hashOf(p+"/")) {
		return true
	}
	return l.removes(p)
}

// removes says whether the file is gone with this layer, and not replaced.
func (l *layer) removes(p string) bool {
	if has(l.white, hashOf(p)) {
		return true
	}
	for i := len(p) - 1; i > 0; i-- {
		if p[i] != '/' {
			continue
		}
		if h := hashOf(p[:i]); has(l.white, h) || has(l.opaque, h) || has(l.covers, h) {
			return true
		}
	}
	return has(l.opaque, hashOf(""))
}

func has(sorted []uint64, h uint64) bool {
	if len(sorted) == 0 {
		return false
	}
	_, ok := slices.BinarySearch(sorted, h)
	return ok
}

// layer reads one, packed or not, to its end.
func (r *reading) layer(from io.Reader) (*layer, error) {
	packed := &counter{from: &ctxReader{r.ctx, from}}
	in, err := unpack(bufio.NewReaderSize(packed, 64<<10))
	if err != nil {
		return nil, err
	}
	defer in.Close()
	l := &layer{files: map[string]*file{}}
	open := &meter{from: in, packed: packed, r: r, sum: sha256.New()}
	err = r.entriesOf(l, bufio.NewReaderSize(open, 256<<10))
	if err == nil {
		_, err = io.Copy(io.Discard, open) // what follows the archive's end counts for the hash
	}
	if open.cut != "" && (err == nil || errors.Is(err, errCut) || errors.Is(err, io.ErrUnexpectedEOF)) {
		l.cut, err = open.cut, nil
	}
	if errors.Is(err, errCut) {
		l.cut, err = "too many entries", nil
	}
	if err != nil {
		if r.ctx.Err() != nil {
			return nil, context.Cause(r.ctx)
		}
		return nil, tender.Errorf(tender.Invalid, "it is broken: %w", err)
	}
	l.diffID, l.bytes = "sha256:"+hex.EncodeToString(open.sum.Sum(nil)), open.n
	for _, set := range []*[]uint64{&l.covers, &l.white, &l.opaque, &l.owned} {
		slices.Sort(*set)
		*set = slices.Clip(*set)
	}
	return l, nil
}

func (r *reading) entriesOf(l *layer, in io.Reader) error {
	t := tar.NewReader(in)
	body := bufio.NewReaderSize(nil, 64<<10)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r.entries++; r.entries > r.limits.Entries {
			return errCut
		}
		name := inside(h.Name)
		if name == "" {
			continue
		}
		if dir, base := path.Split(name); strings.HasPrefix(base, ".wh.") {
			r.whiteout(l, strings.TrimSuffix(dir, "/"), base)
			continue
		}
		if h.Typeflag == tar.TypeDir {
			l.covers = append(l.covers, hashOf(name+"/"))
		} else {
			l.covers = append(l.covers, hashOf(name))
		}
		delete(l.files, name) // the last of one name counts
		if len(name) > maxPath {
			if h.Typeflag == tar.TypeReg {
				r.cutf("%s…: its name is longer than %d", name[:80], maxPath)
			}
			continue
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if h.Mode&0o1002 == 0o002 {
				r.mark(l, name, h)
			}
		case tar.TypeReg, tar.TypeGNUSparse:
			if h.Mode&0o6000 != 0 || h.Mode&0o002 != 0 && h.Mode&0o111 != 0 {
				r.mark(l, name, h)
			}
			body.Reset(t)
			if err := r.look(l, name, h.Size, body); err != nil {
				return err
			}
		case tar.TypeLink:
			r.link(l, name, inside(h.Linkname))
		}
	}
}

// whiteout notes what an entry .wh.NAME takes away. Other names that begin with .wh..wh.
// are those of a driver of old, and mean nothing.
func (r *reading) whiteout(l *layer, dir, base string) {
	switch gone := strings.TrimPrefix(base, ".wh."); {
	case base == ".wh..wh..opq":
		l.opaque = append(l.opaque, hashOf(dir))
	case gone != "" && !strings.HasPrefix(gone, ".wh."):
		l.white = append(l.white, hashOf(path.Join(dir, gone)))
	}
}

const maxMarks = 20_000

// mark notes a mode that matters.
func (r *reading) mark(l *layer, name string, h *tar.Header) {
	if r.marks++; r.marks > maxMarks {
		if r.marks == maxMarks+1 {
			r.cutf("more than %d files are setuid, setgid or writable by all: the rest is not listed", maxMarks)
		}
		return
	}
	f := l.at(name)
	f.mode, f.uid, f.dir = h.Mode, h.Uid, h.Typeflag == tar.TypeDir
}

// link gives a second name what its first one in the same layer told. One to elsewhere
// leads to nothing: it is never followed.
func (r *reading) link(l *layer, name, to string) {
	from := l.files[to]
	switch kind := kindOf(name); {
	case from == nil && kind != nil:
		r.cutf("%s: it is a second name of %s, which was not looked into", name, short(to))
	case from == nil:
	case kind == nil && kindOf(to) != nil: // what told of packages by its name tells of none by another
	default:
		c := *from
		c.secrets, c.packages = nil, slices.Clone(from.packages)
		for i := range c.packages {
			c.packages[i].Path = name
		}
		if r.packages += len(c.packages); r.packages > r.limits.Packages {
			return
		}
		l.files[name] = &c
	}
}

func short(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

func (l *layer) at(name string) *file {
	f := l.files[name]
	if f == nil {
		f = &file{}
		l.files[name] = f
	}
	return f
}

// inside is a name as it lies in the image: no leading slash, no dots; what leads out
// of the root stays in it.
func inside(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// hold makes a file's content readable in any order: in memory, or if it is large in
// the one temporary file, which the next large file overwrites.
func (r *reading) hold(body io.Reader, size int64) (io.ReaderAt, int64, error) {
	if r.held += size; r.held > r.limits.Bytes/4 {
		return nil, 0, errTooMuch
	}
	if size <= inMemory {
		r.buf.Reset()
		n, err := io.Copy(&r.buf, io.LimitReader(body, size))
		return bytes.NewReader(r.buf.Bytes()), n, err
	}
	if r.temp == nil {
		f, err := os.CreateTemp(r.limits.TempDir, "tender-scan-*")
		if err != nil {
			return nil, 0, err
		}
		r.temp = f
	}
	if err := r.temp.Truncate(0); err != nil {
		return nil, 0, err
	}
	if _, err := r.temp.Seek(0, io.SeekStart); err != nil {
		return nil, 0, err
	}
	n, err := io.Copy(r.temp, io.LimitReader(body, size))
	return r.temp, n, err
}

// gunzip unpacks an archive that was packed as a whole.
func gunzip(in *bufio.Reader) (io.Reader, error) {
	if start, _ := in.Peek(2); !bytes.Equal(start, gzipMagic) {
		return in, nil
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "gzip: %w", err)
	}
	return z, nil
}

func unpack(in *bufio.Reader) (io.ReadCloser, error) {
	start, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(start, gzipMagic):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, tender.Errorf(tender.Invalid, "gzip: %w", err)
		}
		return z, nil
	case bytes.HasPrefix(start, zstdMagic):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, tender.Errorf(tender.Invalid, "zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(in), nil
}

type ctxReader struct {
	ctx  context.Context //nolint:containedctx // it is what the reader is for
	from io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.from.Read(p)
}

type counter struct {
	from io.Reader
	n    int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	return n, err
}

// meter reads what is unpacked, hashes it, and stops at the limits.
type meter struct {
	from   io.Reader
	packed *counter
	r      *reading
	n      int64
	sum    hash.Hash
	cut    string
}

func (m *meter) Read(p []byte) (int, error) {
	if m.cut != "" {
		return 0, errCut
	}
	if m.r.ctx.Err() != nil {
		return 0, context.Cause(m.r.ctx)
	}
	n, err := m.from.Read(p)
	m.n += int64(n)
	m.r.bytes += int64(n)
	m.sum.Write(p[:n])
	switch {
	case m.r.bytes > m.r.limits.Bytes:
		m.cut = fmt.Sprintf("the layers are larger than %d MiB", m.r.limits.Bytes>>20)
	case m.n > freeOfRatio && m.n/m.r.limits.Ratio > m.packed.n:
		m.cut = fmt.Sprintf("it unpacks to more than %d times of what it is", m.r.limits.Ratio)
	}
	return n, err
}
