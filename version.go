package tender

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Version is what a tag such as v1.4.2, 1.4 or 1.4.2-alpine says of an image.
type Version struct {
	Parts [3]int // those that are not there are 0
	Given int    // how many are: 1 to 3
	V     bool   // it begins with v
	// Pre is what comes after a dash: a pre-release as in 1.4.2-rc.1, or a variant as in
	// 1.4.2-alpine. Semver knows the first alone and orders by it.
	Pre string
}

// versionTags are tags that are versions. A number of up to four digits alone is one, too;
// longer ones are dates and builds.
const versionTags = `^(v?)(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:-([0-9A-Za-z.-]+))?$`

// preWords begin the names of pre-releases; whatever else comes after a dash is a variant.
const preWords = `^(?i:\d|(?:rc|alpha|beta|pre|preview|dev|snapshot|nightly|canary|test|unstable|ea|cr|m|a|b)(?:[.\d-]|$))`

// Compiled when they are needed, which in most processes is never.
var (
	versionTag = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(versionTags) })
	preRelease = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(preWords) })
)

// longNumber is how many digits alone are no version.
const longNumber = 5

// VersionOf reads a tag; false: it is no version.
func VersionOf(tag string) (Version, bool) {
	m := versionTag().FindStringSubmatch(tag)
	if m == nil || len(tag) >= longNumber && strings.Trim(tag, "0123456789") == "" {
		return Version{}, false
	}
	v := Version{V: m[1] != "", Pre: m[5]}
	for i := range v.Parts {
		if m[i+2] != "" {
			v.Given++
		}
		v.Parts[i], _ = strconv.Atoi(m[i+2]) // nine digits fit; one that is not there is 0
	}
	return v, true
}

// Released reports whether all three numbers are there and nothing comes after them.
func (v Version) Released() bool { return v.Given == 3 && v.Pre == "" }

// Variant is what comes after the dash where that is no pre-release: "alpine".
func (v Version) Variant() string {
	if preRelease().MatchString(v.Pre) {
		return ""
	}
	return v.Pre
}

// Prerelease reports whether what comes after the dash says that it is not the version yet.
func (v Version) Prerelease() bool { return v.Pre != "" && v.Variant() == "" }

// Like reports whether w is written as v is: as many numbers, the same variant, v or none. Only
// such tags are successors of each other.
func (v Version) Like(w Version) bool {
	return v.Given == w.Given && v.V == w.V && v.Variant() == w.Variant()
}

// Compare orders as semver does: 1.0.0-rc.1 comes before 1.0.0.
func (v Version) Compare(w Version) int {
	for i := range v.Parts {
		if c := cmp.Compare(v.Parts[i], w.Parts[i]); c != 0 {
			return c
		}
	}
	switch {
	case v.Pre == w.Pre:
		return 0
	case v.Pre == "":
		return 1
	case w.Pre == "":
		return -1
	}
	a, b := strings.Split(v.Pre, "."), strings.Split(w.Pre, ".")
	for i := range min(len(a), len(b)) {
		x, xerr := strconv.ParseUint(a[i], 10, 63)
		y, yerr := strconv.ParseUint(b[i], 10, 63)
		c := 0
		switch {
		case xerr == nil && yerr == nil:
			c = cmp.Compare(x, y)
		case xerr == nil: // numbers come before words
			c = -1
		case yerr == nil:
			c = 1
		default:
			c = strings.Compare(a[i], b[i])
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// Range is a set of versions: "~1.4", "^1.4.2", "1.x", ">=1.4 <2", and several with || between.
type Range struct {
	text string
	any  [][]bound
}

// bound is one side of a range.
type bound struct {
	at [3]int
	op string // >= or <
}

// ParseRange reads one as npm writes it. Invalid: it is none.
func ParseRange(text string) (Range, error) {
	r := Range{text: strings.TrimSpace(text)}
	wrong := func(what string) (Range, error) {
		return Range{}, Errorf(Invalid, "%q is no range of versions: %s", text, what).Hint(`such as "~1.4" (1.4.x), "^1.4" or "1.x" (below 2), ">=1.4 <3"`)
	}
	if r.text == "" || len(r.text) > 200 {
		return wrong("it is empty or too long")
	}
	for alternative := range strings.SplitSeq(r.text, "||") {
		var all []bound
		words := strings.Fields(alternative)
		if len(words) == 0 {
			return wrong("nothing stands beside ||")
		}
		for i := 0; i < len(words); i++ {
			w := words[i]
			if strings.Trim(w, "<>=~^") == "" && i+1 < len(words) { // ">= 1.4"
				i++
				w += words[i]
			}
			rest := strings.TrimLeft(w, "<>=~^")
			b, ok := boundsOf(w[:len(w)-len(rest)], strings.TrimPrefix(rest, "v"))
			if !ok {
				return wrong(w)
			}
			all = append(all, b...)
		}
		r.any = append(r.any, all)
	}
	return r, nil
}

// boundsOf are the two sides, or the one, that a word stands for.
func boundsOf(op, number string) ([]bound, bool) {
	if number == "*" || number == "x" || number == "X" {
		return nil, op == "" || op == ">="
	}
	var at [3]int
	given := 0
	for i, part := range strings.Split(number, ".") {
		if i > 2 {
			return nil, false
		}
		if part == "x" || part == "X" || part == "*" {
			break
		}
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || len(part) > 9 || given != i {
			return nil, false
		}
		at[i], given = n, i+1
	}
	if given == 0 {
		return nil, false
	}
	// next is the first version beyond those that agree in the first n numbers.
	next := func(n int) [3]int {
		out := [3]int{}
		copy(out[:n], at[:n])
		out[n-1]++
		return out
	}
	between := func(n int) ([]bound, bool) {
		return []bound{{at: at, op: ">="}, {at: next(n), op: "<"}}, true
	}
	switch op {
	case "", "=", "==":
		return between(given)
	case "~", "~>":
		return between(min(given, 2))
	case "^":
		for i := range given {
			if at[i] > 0 || i == given-1 {
				return between(i + 1)
			}
		}
	case ">=", "<":
		return []bound{{at: at, op: op}}, true
	case ">": // >1.4 is beyond all of 1.4
		return []bound{{at: next(given), op: ">="}}, true
	case "<=":
		return []bound{{at: next(given), op: "<"}}, true
	}
	return nil, false
}

// SameMajor is the range of the versions that v's first number promises to get along with.
func SameMajor(v Version) Range {
	r := Range{text: strconv.Itoa(v.Parts[0]) + ".x"}
	next := [3]int{v.Parts[0] + 1}
	r.any = [][]bound{{{at: [3]int{v.Parts[0]}, op: ">="}, {at: next, op: "<"}}}
	return r
}

// String is the range as it was written.
func (r Range) String() string { return r.text }

// Holds reports whether v's numbers are in the range. A pre-release is in none.
func (r Range) Holds(v Version) bool {
	if v.Prerelease() {
		return false
	}
	for _, all := range r.any {
		in := true
		for _, b := range all {
			c := compareParts(v.Parts, b.at)
			in = in && (b.op == ">=" && c >= 0 || b.op == "<" && c < 0)
		}
		if in {
			return true
		}
	}
	return false
}

func compareParts(a, b [3]int) int { return Version{Parts: a}.Compare(Version{Parts: b}) }
