package scan

import (
	"cmp"
	"strings"
)

// compareDeb orders as dpkg does: epoch, upstream version, revision; deb-version(7).
func compareDeb(a, b string) (int, bool) {
	ea, ua, ra, oka := splitDeb(a)
	eb, ub, rb, okb := splitDeb(b)
	if !oka || !okb {
		return 0, false
	}
	if c := compareDigits(ea, eb); c != 0 {
		return c, true
	}
	if c := compareDebPart(ua, ub); c != 0 {
		return c, true
	}
	return compareDebPart(ra, rb), true
}

func splitDeb(v string) (epoch, upstream, revision string, ok bool) {
	v = strings.TrimSpace(v)
	if e, rest, has := strings.Cut(v, ":"); has {
		if e == "" || digits(e) != len(e) {
			return "", "", "", false
		}
		epoch, v = e, rest
	}
	upstream = v
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		upstream, revision = v[:i], v[i+1:]
	}
	return epoch, upstream, revision, upstream != ""
}

// compareDebPart takes turns: what is no digit by weight, then digits by value.
func compareDebPart(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !isDigit(a[0]) || b != "" && !isDigit(b[0]) {
			if c := cmp.Compare(debWeight(a), debWeight(b)); c != 0 {
				return c
			}
			a, b = a[1:], b[1:] // equal weights: the same character
		}
		na, nb := digits(a), digits(b)
		if c := compareDigits(a[:na], b[:nb]); c != 0 {
			return c
		}
		a, b = a[na:], b[nb:]
	}
	return 0
}

// debWeight weighs the first character: a tilde before the end, letters before the rest.
func debWeight(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case isLetter(s[0]):
		return int(s[0])
	}
	return int(s[0]) + 256
}

// compareRPM orders as rpm does: epoch, version, release. A release that one of them
// lacks is not compared, and no epoch is 0.
func compareRPM(a, b string) int {
	ea, va, ra := splitRPM(a)
	eb, vb, rb := splitRPM(b)
	if c := compareDigits(ea, eb); c != 0 {
		return c
	}
	if c := compareRPMPart(va, vb); c != 0 || ra == "" || rb == "" {
		return c
	}
	return compareRPMPart(ra, rb)
}

func splitRPM(v string) (epoch, version, release string) {
	v = strings.TrimSpace(v)
	if e, rest, has := strings.Cut(v, ":"); has && digits(e) == len(e) {
		epoch, v = e, rest
	}
	version = v
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		version, release = v[:i], v[i+1:]
	}
	return epoch, version, release
}

// compareRPMPart is rpmvercmp: https://rpm.org/docs/latest/man/rpm-version.7
func compareRPMPart(a, b string) int {
	for a != "" || b != "" {
		a, b = strings.TrimLeftFunc(a, rpmSeparates), strings.TrimLeftFunc(b, rpmSeparates)
		switch ta, tb := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~"); {
		case ta && tb:
			a, b = a[1:], b[1:]
			continue
		case ta:
			return -1
		case tb:
			return 1
		}
		switch ca, cb := strings.HasPrefix(a, "^"), strings.HasPrefix(b, "^"); {
		case ca && cb:
			a, b = a[1:], b[1:]
			continue
		case ca && b == "":
			return 1
		case cb && a == "":
			return -1
		case ca:
			return -1
		case cb:
			return 1
		}
		if a == "" || b == "" {
			break
		}
		run := letters
		if isDigit(a[0]) {
			run = digits
		}
		na, nb := run(a), run(b)
		if nb == 0 { // of different kinds: a number is newer than a word
			if isDigit(a[0]) {
				return 1
			}
			return -1
		}
		var c int
		if isDigit(a[0]) {
			c = compareDigits(a[:na], b[:nb])
		} else {
			c = strings.Compare(a[:na], b[:nb])
		}
		if c != 0 {
			return c
		}
		a, b = a[na:], b[nb:]
	}
	return cmp.Compare(min(len(a), 1), min(len(b), 1))
}

func rpmSeparates(r rune) bool {
	return r != '~' && r != '^' && (r > 127 || !isDigit(byte(r)) && !isLetter(byte(r)))
}

// compareAPK orders as apk-tools 2.12 and later do: numbers, a letter, suffixes, a
// commit, the build. What ends first is older, unless a pre-release follows.
func compareAPK(a, b string) (int, bool) {
	pa, oka := splitAPK(strings.TrimSpace(a))
	pb, okb := splitAPK(strings.TrimSpace(b))
	if !oka || !okb {
		return 0, false
	}
	for i := 0; ; i++ {
		switch {
		case i == len(pa) && i == len(pb):
			return 0, true
		case i == len(pa):
			return -pb[i].beyond(), true
		case i == len(pb):
			return pa[i].beyond(), true
		}
		x, y := pa[i], pb[i]
		if x.kind != y.kind {
			// One goes on where the other begins something of a later kind.
			if x.kind == apkSuffix && x.order < 0 {
				return -1, true
			}
			if y.kind == apkSuffix && y.order < 0 {
				return 1, true
			}
			return cmp.Compare(y.kind, x.kind), true
		}
		if c := x.compare(y); c != 0 {
			return c, true
		}
	}
}

const (
	apkNumber = iota
	apkLetter
	apkSuffix
	apkCommit
	apkBuild
)

type apkPart struct {
	kind  int
	first bool // of the numbers
	order int  // of a suffix: pre-releases are below 0
	text  string
}

// beyond is the order of a version that goes on with this part, against one that ends.
func (p apkPart) beyond() int {
	if p.kind == apkSuffix && p.order < 0 {
		return -1
	}
	return 1
}

func (p apkPart) compare(o apkPart) int {
	switch p.kind {
	case apkNumber:
		// After the first dot, a leading zero makes it a fraction: 1.02 is before 1.1.
		if !p.first && (p.text[0] == '0' || o.text[0] == '0') {
			return strings.Compare(p.text, o.text)
		}
	case apkLetter:
		return strings.Compare(p.text, o.text)
	case apkSuffix:
		if c := cmp.Compare(p.order, o.order); c != 0 {
			return c
		}
	case apkCommit:
		return strings.Compare(p.text, o.text)
	}
	return compareDigits(p.text, o.text)
}

var apkSuffixes = map[string]int{"alpha": -4, "beta": -3, "pre": -2, "rc": -1, "cvs": 1, "svn": 2, "git": 3, "hg": 4, "p": 5}

func splitAPK(v string) (parts []apkPart, ok bool) {
	n := digits(v)
	if n == 0 {
		return nil, false
	}
	parts = append(parts, apkPart{kind: apkNumber, first: true, text: v[:n]})
	for v = v[n:]; strings.HasPrefix(v, "."); v = v[1+n:] {
		if n = digits(v[1:]); n == 0 {
			return nil, false
		}
		parts = append(parts, apkPart{kind: apkNumber, text: v[1 : 1+n]})
	}
	if v != "" && v[0] >= 'a' && v[0] <= 'z' {
		parts = append(parts, apkPart{kind: apkLetter, text: v[:1]})
		v = v[1:]
	}
	for strings.HasPrefix(v, "_") {
		n := letters(v[1:])
		order, known := apkSuffixes[v[1:1+n]]
		if !known {
			return nil, false
		}
		v = v[1+n:]
		n = digits(v)
		parts = append(parts, apkPart{kind: apkSuffix, order: order, text: v[:n]})
		v = v[n:]
	}
	if strings.HasPrefix(v, "~") {
		n := len(v) - len(strings.TrimLeft(v[1:], "0123456789abcdef")) - 1
		if n == 0 {
			return nil, false
		}
		parts = append(parts, apkPart{kind: apkCommit, text: v[1 : 1+n]})
		v = v[1+n:]
	}
	if strings.HasPrefix(v, "-r") {
		n := digits(v[2:])
		if n == 0 {
			return nil, false
		}
		parts = append(parts, apkPart{kind: apkBuild, text: v[2 : 2+n]})
		v = v[2+n:]
	}
	return parts, v == ""
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// digits and letters give the length of what s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

func letters(s string) int {
	n := 0
	for n < len(s) && isLetter(s[n]) {
		n++
	}
	return n
}

// compareDigits compares numbers of any length; nothing is 0.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if c := cmp.Compare(len(a), len(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}
