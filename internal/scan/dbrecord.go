package scan

import (
	"encoding/binary"
	"errors"
	"time"
)

// advisory is what the index keeps of one advisory for one name: only what matching
// and a finding need.
type advisory struct {
	ID                  string
	Modified, Published time.Time
	Aliases             []string // the same flaw in other databases
	Upstream            []string // the flaws that a distribution's advisory is about
	Title               string
	Vectors             []string // CVSS, of any version
	Rating              string   // the word of who published it: moderate, unimportant
	Affected            []affected
}

// affected is one entry about a package in one release.
type affected struct {
	Release  string // what follows the ecosystem's first colon: 12, v3.20, Pro:22.04:LTS
	Rating   string // for this release, if another
	Versions []string
	Spans    []span
}

// span is one range of versions.
type span struct {
	Semver bool
	Events []event
}

// event is one bound of a range.
type event struct {
	Kind    byte
	Version string
}

const (
	introduced   byte = 'i'
	fixed        byte = 'f'
	lastAffected byte = 'l'
	limit        byte = 'm'
)

var errRecord = errors.New("damaged record")

// appendAdvisory encodes: numbers as varints, strings and lists behind their length.
func appendAdvisory(b []byte, a *advisory) []byte {
	b = appendText(b, a.ID)
	b = binary.AppendVarint(b, unix(a.Modified))
	b = binary.AppendVarint(b, unix(a.Published))
	b = appendTexts(b, a.Aliases)
	b = appendTexts(b, a.Upstream)
	b = appendText(b, a.Title)
	b = appendTexts(b, a.Vectors)
	b = appendText(b, a.Rating)
	b = binary.AppendUvarint(b, uint64(len(a.Affected)))
	for _, f := range a.Affected {
		b = appendText(b, f.Release)
		b = appendText(b, f.Rating)
		b = appendTexts(b, f.Versions)
		b = binary.AppendUvarint(b, uint64(len(f.Spans)))
		for _, s := range f.Spans {
			kind := byte('e')
			if s.Semver {
				kind = 's'
			}
			b = append(b, kind)
			b = binary.AppendUvarint(b, uint64(len(s.Events)))
			for _, e := range s.Events {
				b = appendText(append(b, e.Kind), e.Version)
			}
		}
	}
	return b
}

// readAdvisory decodes. It never reserves more than the bytes at hand could fill.
func readAdvisory(b []byte) (advisory, error) {
	r := recordReader{rest: b}
	a := advisory{ID: r.text()}
	a.Modified, a.Published = r.time(), r.time()
	a.Aliases, a.Upstream, a.Title = r.texts(), r.texts(), r.text()
	a.Vectors, a.Rating = r.texts(), r.text()
	a.Affected = make([]affected, r.count(4))
	for i := range a.Affected {
		f := &a.Affected[i]
		f.Release, f.Rating, f.Versions = r.text(), r.text(), r.texts()
		f.Spans = make([]span, r.count(2))
		for j := range f.Spans {
			s := &f.Spans[j]
			s.Semver = r.byte() == 's'
			s.Events = make([]event, r.count(2))
			for k := range s.Events {
				s.Events[k] = event{Kind: r.byte(), Version: r.text()}
			}
		}
	}
	if r.bad || len(r.rest) != 0 {
		return advisory{}, errRecord
	}
	return a, nil
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendTexts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

// recordReader takes a record apart. After the first mistake it gives zeros.
type recordReader struct {
	rest []byte
	bad  bool
}

func (r *recordReader) fail() { r.rest, r.bad = nil, true }

func (r *recordReader) byte() byte {
	if len(r.rest) == 0 {
		r.fail()
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return c
}

func (r *recordReader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// count reads the length of a list whose elements take at least so many bytes.
func (r *recordReader) count(each int) int {
	n := r.number()
	if n > uint64(len(r.rest)/each) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *recordReader) bytes() []byte {
	n := r.count(1)
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *recordReader) text() string { return string(r.bytes()) }

func (r *recordReader) texts() []string {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.text()
	}
	return list
}

func (r *recordReader) time() time.Time {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.fail()
		return time.Time{}
	}
	r.rest = r.rest[size:]
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}
