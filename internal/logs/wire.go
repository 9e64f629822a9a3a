package logs

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// What a reader believes at most of a block; whatever says more is damaged.
const (
	maxHead     = 1 << 20
	maxLabels   = maxHead / 2 // bytes that Append takes of the labels of a stream
	maxBlock    = 1 << 30
	maxSection  = 128 << 20 // after decompression
	maxUnpacked = 512 << 20 // all sections of a block
	maxRowsRead = 1 << 20
	maxRow      = 64 << 20 // bytes that Append takes of one row
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// damage is the error of what cannot be read.
type damage struct{ reason string }

func (d *damage) Error() string { return d.reason }

func damaged(format string, args ...any) error { return &damage{fmt.Sprintf(format, args...)} }

// section is a run of bytes in a block, from the start of its region.
type section struct {
	off   int64
	size  int64 // stored
	raw   int64 // when unpacked
	codec byte
	sum   uint32 // of the stored bytes
}

const (
	plain  = iota
	packed // zstd
)

func putSection(dst []byte, s section) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.off))
	dst = binary.AppendUvarint(dst, uint64(s.size))
	dst = binary.AppendUvarint(dst, uint64(s.raw))
	dst = append(dst, s.codec)
	return binary.LittleEndian.AppendUint32(dst, s.sum)
}

func putString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func putPlace(dst []byte, p Place) []byte {
	dst = binary.AppendUvarint(dst, p.Seq)
	dst = binary.AppendVarint(dst, p.Offset)
	dst = binary.LittleEndian.AppendUint64(dst, p.Head)
	return binary.AppendVarint(dst, int64(p.HeadSize))
}

// getter reads what the putters wrote. After the first thing that is not there it
// is bad, and all else that it gets is zero.
type getter struct {
	b   []byte
	bad bool
}

func (g *getter) bytes(n uint64) []byte {
	if g.bad || n > uint64(len(g.b)) {
		g.bad = true
		return nil
	}
	b := g.b[:n]
	g.b = g.b[n:]
	return b
}

func (g *getter) byte() byte {
	if b := g.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (g *getter) u32() uint32 {
	if b := g.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (g *getter) u64() uint64 {
	if b := g.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (g *getter) uint() uint64 {
	n, size := binary.Uvarint(g.b)
	if g.bad || size <= 0 {
		g.bad = true
		return 0
	}
	g.b = g.b[size:]
	return n
}

func (g *getter) int() int64 {
	n, size := binary.Varint(g.b)
	if g.bad || size <= 0 {
		g.bad = true
		return 0
	}
	g.b = g.b[size:]
	return n
}

// upTo reads a number that must not be above most.
func (g *getter) upTo(most int64) int64 {
	n := g.uint()
	if n > uint64(most) {
		g.bad = true
		return 0
	}
	return int64(n)
}

func (g *getter) string() string { return string(g.bytes(g.uint())) }

func (g *getter) section() section {
	s := section{off: g.upTo(maxBlock), size: g.upTo(maxBlock), raw: g.upTo(maxSection), codec: g.byte(), sum: g.u32()}
	if s.codec > packed || s.codec == plain && s.size != s.raw {
		g.bad = true
	}
	return s
}

func (g *getter) place() Place {
	return Place{Seq: g.uint(), Offset: g.int(), Head: g.u64(), HeadSize: int(g.int())}
}

const magic = "TLB1"

// head is the beginning of a block: all that is held in memory of it, and more.
//
//	"TLB1" | u32 size of the head | u32 checksum of what follows in it | fields
type head struct {
	size          int64 // of the whole block
	own           int64 // of the head
	first, last   uint64
	synced        uint64
	rows, errs    int
	sorted        bool
	min, max, raw int64
	labels        Labels
	source        string
	from, to      Place
	dir, near     int64  // sizes of the two regions behind the head; bulk is the rest
	sum           uint32 // of the directory
	times, codes  section
}

const (
	flagErr    = 1 << iota // all rows are of stderr
	flagMixed              // some are
	flagSorted             // times ascend
)

// put writes h; its sizes are set to what comes out. bulk is the size of that region.
func (h *head) put(dst []byte, bulk int64) []byte {
	at := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, make([]byte, 16)...) // own size, checksum, size of the block
	flags := byte(0)
	switch {
	case h.errs == h.rows && h.rows > 0:
		flags = flagErr
	case h.errs > 0:
		flags = flagMixed
	}
	if h.sorted {
		flags |= flagSorted
	}
	dst = append(dst, flags)
	for _, n := range []uint64{h.first, h.last, h.synced, uint64(h.rows)} {
		dst = binary.AppendUvarint(dst, n)
	}
	for _, n := range []int64{h.min, h.max, h.raw} {
		dst = binary.AppendVarint(dst, n)
	}
	dst = binary.AppendUvarint(dst, uint64(len(h.labels)))
	for _, l := range h.labels {
		dst = putString(putString(dst, l.Name), l.Value)
	}
	dst = putPlace(putPlace(putString(dst, h.source), h.from), h.to)
	dst = binary.AppendUvarint(dst, uint64(h.dir))
	dst = binary.AppendUvarint(dst, uint64(h.near))
	dst = binary.LittleEndian.AppendUint32(dst, h.sum)
	dst = putSection(putSection(dst, h.times), h.codes)
	h.own = int64(len(dst) - at)
	h.size = h.own + h.dir + h.near + bulk
	binary.LittleEndian.PutUint32(dst[at+4:], uint32(h.own))
	binary.LittleEndian.PutUint64(dst[at+12:], uint64(h.size))
	binary.LittleEndian.PutUint32(dst[at+8:], checksum(dst[at+12:]))
	return dst
}

// headSize returns the size of the head that b begins with, 0 if it is none.
func headSize(b []byte) int64 {
	if len(b) < 12 || string(b[:4]) != magic {
		return 0
	}
	n := int64(binary.LittleEndian.Uint32(b[4:]))
	if n < 20 || n > maxHead {
		return 0
	}
	return n
}

// parseHead reads a whole head.
func parseHead(b []byte) (h head, err error) {
	n := headSize(b)
	if n == 0 || n > int64(len(b)) {
		return h, damaged("no head of a block")
	}
	b = b[:n]
	if checksum(b[12:]) != binary.LittleEndian.Uint32(b[8:]) {
		return h, damaged("the checksum of the head is wrong")
	}
	h.own = n
	g := getter{b: b[12:]}
	h.size = int64(g.u64())
	flags := g.byte()
	h.first, h.last, h.synced, h.rows = g.uint(), g.uint(), g.uint(), int(g.upTo(maxRowsRead))
	h.sorted = flags&flagSorted != 0
	switch {
	case flags&flagErr != 0:
		h.errs = h.rows
	case flags&flagMixed != 0:
		h.errs = 1
		if h.rows < 2 {
			g.bad = true
		}
	}
	h.min, h.max, h.raw = g.int(), g.int(), g.int()
	for range g.upTo(maxHead) {
		if g.bad {
			break
		}
		h.labels = append(h.labels, Field{g.string(), g.string()})
	}
	h.source, h.from, h.to = g.string(), g.place(), g.place()
	h.dir, h.near, h.sum = g.upTo(maxSection), g.upTo(maxSection), g.u32()
	h.times, h.codes = g.section(), g.section()
	if g.bad || len(g.b) > 0 || h.size < h.own+h.dir+h.near || h.size > maxBlock || h.first > h.last || h.min > h.max {
		return h, damaged("the head makes no sense")
	}
	return h, nil
}
