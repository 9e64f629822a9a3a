package registry

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// versions are tags such as v1.2.3, 1.2 and 1.2.3-rc.1. A number of up to four digits alone
// is one, too; longer ones are dates and builds.
var versions = regexp.MustCompile(`^v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:-([0-9A-Za-z.-]+))?$`)

var longNumber = regexp.MustCompile(`^\d{5,}$`)

type version struct {
	parts [3]int
	pre   string
}

func versionOf(tag string) (version, bool) {
	m := versions.FindStringSubmatch(tag)
	if m == nil || longNumber.MatchString(tag) {
		return version{}, false
	}
	v := version{pre: m[4]}
	for i := range v.parts {
		v.parts[i], _ = strconv.Atoi(m[i+1]) // nine digits fit; one that is not there is 0
	}
	return v, true
}

// compare orders as semver does: 1.0.0-rc.1 comes before 1.0.0.
func (v version) compare(w version) int {
	for i := range v.parts {
		if c := cmp.Compare(v.parts[i], w.parts[i]); c != 0 {
			return c
		}
	}
	switch {
	case v.pre == w.pre:
		return 0
	case v.pre == "":
		return 1
	case w.pre == "":
		return -1
	}
	a, b := strings.Split(v.pre, "."), strings.Split(w.pre, ".")
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
