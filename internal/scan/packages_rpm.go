package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// RPM keeps its headers as blobs in one of three kinds of database. They are read here,
// and not by a library: those at hand trust what they read, and a broken page ends the
// process or never ends.

const (
	maxHeader  = 32 << 20 // of one package: the kernel's and texlive's are about 5 MiB
	maxHeaders = 100_000
)

func parseRPM(r *reading, l *layer, name string, f *file, body io.ReaderAt, size int64) error {
	f.lists = true
	n := 0
	each := func(blob []byte) error {
		if n++; n > maxHeaders {
			return fmt.Errorf("it has more than %d packages", maxHeaders)
		}
		if r.ctx != nil && r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		h, err := parseHeader(blob)
		if err != nil {
			return err
		}
		h.paths(func(p string) { r.own(l, inside(p)) })
		r.found(f, name, h.pkg())
		return nil
	}
	db := pages{body, size}
	start := make([]byte, 16)
	if _, err := body.ReadAt(start, 0); err != nil {
		return errors.New("it is too short")
	}
	switch {
	case string(start) == "SQLite format 3\x00":
		return db.sqlite(each)
	case string(start[:4]) == "RpmP":
		return db.ndb(each)
	}
	return db.berkeley(each)
}

// header is what is used of a package's header:
// https://rpm-software-management.github.io/rpm/manual/format_header.html
type header struct {
	name, version, release, arch, source, license string
	epoch                                         uint32

	dirs, bases []string
	dirOf       []uint32
}

var errHeader = errors.New("the header of a package is broken")

func parseHeader(blob []byte) (h header, err error) {
	if len(blob) < 8 {
		return h, errHeader
	}
	il, dl := int64(binary.BigEndian.Uint32(blob)), int64(binary.BigEndian.Uint32(blob[4:]))
	if il > 1<<16 || 8+16*il+dl > int64(len(blob)) {
		return h, errHeader
	}
	index, data := blob[8:8+16*il], blob[8+16*il:8+16*il+dl]
	for ; len(index) > 0; index = index[16:] {
		tag, kind := binary.BigEndian.Uint32(index), binary.BigEndian.Uint32(index[4:])
		at, count := int64(binary.BigEndian.Uint32(index[8:])), int64(binary.BigEndian.Uint32(index[12:]))
		if at >= int64(len(data)) {
			continue
		}
		text := func() string {
			if kind != 6 && kind != 8 && kind != 9 { // a string, an array, one with translations
				return ""
			}
			s, _, _ := bytes.Cut(data[at:], []byte{0})
			return string(s[:min(len(s), 4096)])
		}
		texts := func() (all []string) {
			rest := data[at:]
			for range count {
				s, after, ok := bytes.Cut(rest, []byte{0})
				if !ok {
					break
				}
				all, rest = append(all, string(s[:min(len(s), maxPath)])), after
			}
			return all
		}
		switch tag {
		case 1000:
			h.name = text()
		case 1001:
			h.version = text()
		case 1002:
			h.release = text()
		case 1003:
			if at+4 <= int64(len(data)) {
				h.epoch = binary.BigEndian.Uint32(data[at:])
			}
		case 1014:
			h.license = text()
		case 1022:
			h.arch = text()
		case 1044:
			h.source = text()
		case 1116:
			for rest := data[at:]; count > 0 && len(rest) >= 4; count, rest = count-1, rest[4:] {
				h.dirOf = append(h.dirOf, binary.BigEndian.Uint32(rest))
			}
		case 1117:
			h.bases = texts()
		case 1118:
			h.dirs = texts()
		}
	}
	if h.name == "" || h.version == "" {
		return h, errHeader
	}
	return h, nil
}

func (h header) paths(each func(string)) {
	for i, base := range h.bases {
		if i < len(h.dirOf) && int64(h.dirOf[i]) < int64(len(h.dirs)) {
			each(h.dirs[h.dirOf[i]] + base)
		}
	}
}

func (h header) pkg() Package {
	if h.name == "gpg-pubkey" { // a key that is trusted, not a package
		return Package{}
	}
	p := Package{Name: h.name, Version: evr(h.epoch, h.version+"-"+h.release), Arch: h.arch, Type: "rpm"}
	if h.license != "" {
		p.Licenses = []string{h.license}
	}
	if name, vr := sourceRPM(h.source); name != "" && (name != h.name || vr != h.version+"-"+h.release) {
		p.Source, p.SourceVer = name, evr(h.epoch, vr)
	}
	return p
}

func evr(epoch uint32, vr string) string {
	if epoch == 0 {
		return vr
	}
	return strconv.FormatUint(uint64(epoch), 10) + ":" + vr
}

// sourceRPM takes apart openssl-3.0.7-24.el9.src.rpm.
func sourceRPM(file string) (name, version string) {
	s, ok := strings.CutSuffix(file, ".rpm")
	if !ok {
		return "", ""
	}
	if i := strings.LastIndexByte(s, '.'); i > 0 {
		s = s[:i]
	}
	r := strings.LastIndexByte(s, '-')
	if r <= 0 {
		return "", ""
	}
	v := strings.LastIndexByte(s[:r], '-')
	if v <= 0 {
		return "", ""
	}
	return s[:v], s[v+1:]
}

// parseRPMManifest reads the list that small images of Azure Linux keep in place of a
// database: name, version-release, times, sizes, vendor, epoch, arch, source; by tabs.
func parseRPMManifest(r *reading, _ *layer, name string, f *file, body io.ReaderAt, size int64) error {
	f.lists = true
	return lines(body, size, func(line []byte) {
		c := strings.Split(string(line), "\t")
		if len(c) < 10 {
			return
		}
		epoch, _ := strconv.ParseUint(c[6], 10, 32)
		p := Package{Name: c[0], Version: evr(uint32(epoch), c[1]), Arch: c[7], Type: "rpm"}
		if n, v := sourceRPM(c[9]); n != "" && n != p.Name {
			p.Source, p.SourceVer = n, v
		}
		r.found(f, name, p)
	})
}

// pages is a database of RPM's.
type pages struct {
	io.ReaderAt
	size int64
}

func (d pages) read(at, n int64) ([]byte, error) {
	if at < 0 || n < 0 || n > maxHeader || at+n > d.size {
		return nil, errors.New("it points beyond its end")
	}
	b := make([]byte, n)
	_, err := d.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}

// ndb is the database of SUSE:
// https://github.com/rpm-software-management/rpm/blob/rpm-4.17.0-release/lib/backend/ndb/rpmpkg.c
func (d pages) ndb(each func([]byte) error) error {
	head, err := d.read(0, 32)
	if err != nil {
		return err
	}
	n := int64(binary.LittleEndian.Uint32(head[12:])) * 4096
	if n > 8<<20 {
		return errors.New("it has too many slots")
	}
	slots, err := d.read(0, n)
	if err != nil {
		return err
	}
	for at := 32; at+16 <= len(slots); at += 16 {
		s := slots[at:]
		if string(s[:4]) != "Slot" {
			return errors.New("a slot is broken")
		}
		id, block := binary.LittleEndian.Uint32(s[4:]), int64(binary.LittleEndian.Uint32(s[8:]))*16
		if id == 0 {
			continue
		}
		b, err := d.read(block, 16)
		if err != nil {
			return err
		}
		if string(b[:4]) != "BlbS" || binary.LittleEndian.Uint32(b[4:]) != id {
			return errors.New("a block is broken")
		}
		blob, err := d.read(block+16, int64(binary.LittleEndian.Uint32(b[12:])))
		if err != nil {
			return err
		}
		if err := each(blob); err != nil {
			return err
		}
	}
	return nil
}

// berkeley is a hash of Berkeley DB, of RHEL 8 and before. Headers lie on overflow
// pages: https://github.com/berkeleydb/libdb/blob/v5.3.28/src/dbinc/db_page.h
func (d pages) berkeley(each func([]byte) error) error {
	meta, err := d.read(0, 512)
	if err != nil {
		return err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(meta[12:]) == 0x61150600 {
		order = binary.BigEndian
	}
	page := int64(order.Uint32(meta[20:]))
	if order.Uint32(meta[12:]) != 0x00061561 || meta[24] != 0 || page < 512 || page > 65536 || page&(page-1) != 0 {
		return errors.New("it is no database of RPM that is known")
	}
	// All values together are no larger than the file, if no page belongs to two.
	left := d.size/page + 1
	for at := int64(0); at+page <= d.size; at += page {
		p, err := d.read(at, page)
		if err != nil {
			return err
		}
		if p[25] != 2 && p[25] != 13 { // a page of the hash, before and since 4.6
			continue
		}
		n := int(order.Uint16(p[20:]))
		if 26+2*n > len(p) {
			return errors.New("a page is broken")
		}
		for i := 1; i < n; i += 2 { // keys and values take turns
			v := int(order.Uint16(p[26+2*i:]))
			if v+12 > len(p) || p[v] != 3 { // on pages of its own
				continue
			}
			blob, err := d.overflow(order, page, int64(order.Uint32(p[v+4:])), &left)
			if err != nil {
				return err
			}
			if err := each(blob); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d pages) overflow(order binary.ByteOrder, page, no int64, left *int64) (blob []byte, err error) {
	for no != 0 {
		if *left--; *left < 0 || len(blob) > maxHeader {
			return nil, errors.New("its pages form a circle")
		}
		p, err := d.read(no*page, page)
		if err != nil {
			return nil, err
		}
		if p[25] != 7 {
			return nil, errors.New("a page is broken")
		}
		next, end := int64(order.Uint32(p[16:])), page
		if next == 0 {
			end = min(26+int64(order.Uint16(p[22:])), page)
		}
		blob = append(blob, p[26:end]...)
		no = next
	}
	return blob, nil
}
