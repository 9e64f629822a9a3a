package scan

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tenderhq/tender"
)

// Match finds which advisories hold for packages: one finding for each package and
// flaw, the worst first. What the packages of one ecosystem could not be asked for is
// in the error; the findings of the others are there nevertheless. An advisory that is
// published after now is not known yet; a zero now knows all.
func (db *DB) Match(pkgs []Package, now time.Time) ([]tender.Finding, error) {
	var found []tender.Finding
	var problems []error
	for base, group := range byEcosystem(pkgs) {
		err := db.with(base, func(f *fileReader) error {
			for _, p := range group {
				list, err := matchPackage(f, base, p, now)
				if err != nil {
					return err
				}
				found = append(found, list...)
			}
			return nil
		})
		if err != nil {
			problems = append(problems, err)
		}
	}
	slices.SortFunc(found, worstFirst)
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return found, errors.Join(problems...)
}

func byEcosystem(pkgs []Package) map[string][]Package {
	groups := map[string][]Package{}
	for _, p := range pkgs {
		if base, _, _ := strings.Cut(p.Ecosystem, ":"); base != "" && p.Version != "" {
			groups[base] = append(groups[base], p)
		}
	}
	for _, g := range groups {
		// Names in order read each block of the index once.
		slices.SortStableFunc(g, func(a, b Package) int { return strings.Compare(cmp.Or(a.Source, a.Name), cmp.Or(b.Source, b.Name)) })
	}
	return groups
}

func worstFirst(a, b tender.Finding) int {
	return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(b.Score, a.Score), strings.Compare(a.ID, b.ID),
		strings.Compare(a.Package, b.Package), strings.Compare(a.Version, b.Version), strings.Compare(a.Path, b.Path))
}

// called is a name that advisories may use for a package, and the version they mean.
type called struct{ name, version string }

// namesOf follows each database: most of distributions speak of source packages, Red
// Hat and AlmaLinux of what is installed, Wolfi and its kin of both.
func namesOf(base string, p Package) []called {
	installed := called{indexName(base, p.Name), p.Version}
	source := called{indexName(base, p.Source), cmp.Or(p.SourceVer, p.Version)}
	switch base {
	case "Debian", "Ubuntu", "Alpine", "Rocky Linux", "SUSE", "openSUSE", "Mageia", "openEuler":
		if p.Source != "" {
			return []called{source}
		}
	case "Wolfi", "Chainguard", "Alpaquita", "MinimOS", "BellSoft Hardened Containers":
		if p.Source != "" && p.Source != p.Name {
			return []called{installed, source}
		}
	}
	return []called{installed}
}

// indexName brings the spellings of one name together, as the ecosystem does.
func indexName(base, name string) string {
	switch base {
	case "PyPI": // PEP 503
		return strings.Join(strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' || r == '.' }), "-")
	case "NuGet", "Packagist":
		return strings.ToLower(name)
	}
	return name
}

// hit is one advisory that speaks of a package's release.
type hit struct {
	advisory
	holds  bool   // for the version that is installed
	fixed  string // the first later version without it
	rating string
}

func matchPackage(f *fileReader, base string, p Package, now time.Time) ([]tender.Finding, error) {
	_, release, _ := strings.Cut(p.Ecosystem, ":")
	var hits []hit
	seen := map[string]bool{}
	for _, n := range namesOf(base, p) {
		list, err := f.find(n.name)
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			if seen[a.ID] || !now.IsZero() && a.Published.After(now) {
				continue
			}
			if h, speaks := judge(base, release, n.version, a); speaks {
				hits = append(hits, h)
				seen[a.ID] = h.holds
			}
		}
	}
	return merge(base, p, hits), nil
}

// judge asks one advisory. speaks is false when it has nothing about this release.
func judge(base, release, version string, a advisory) (h hit, speaks bool) {
	h.advisory = a
	for _, e := range forRelease(base, release, version, a.Affected) {
		speaks = true
		holds, fix := e.holds(base, version)
		if !holds {
			continue
		}
		if fix != "" && (h.fixed == "" || before(base, fix, h.fixed)) {
			h.fixed = fix
		}
		if rated(e.Rating) > rated(h.rating) || h.rating == "" {
			h.rating = e.Rating
		}
		h.holds = true
	}
	h.rating = cmp.Or(h.rating, a.Rating)
	return h, speaks
}

// forRelease picks the entries for a release. Entries without one are for all.
func forRelease(base, release, version string, all []affected) []affected {
	var exact []affected
	for _, e := range all {
		if e.Release == "" || release != "" && releaseOf(base, release, e.Release) {
			exact = append(exact, e)
		}
	}
	switch {
	case base == "Ubuntu":
		return ofChannel(release, version, exact)
	case release == "" && base == "Debian" && len(exact) == 0:
		// Testing and unstable have no number: what holds there holds for the newest.
		newest := ""
		for _, e := range all {
			if newest == "" || compareDigits(e.Release, newest) > 0 {
				newest = e.Release
			}
		}
		for _, e := range all {
			if e.Release == newest {
				exact = append(exact, e)
			}
		}
	}
	return exact
}

// ofChannel chooses between what Ubuntu gives to everybody and what only to
// subscribers: theirs counts for their versions, and where there is nothing else.
// Certified variants (FIPS) are builds of their own.
func ofChannel(release, version string, all []affected) []affected {
	_, mine := ubuntuRelease(release)
	subscribed := mine != "" || strings.Contains(version, "esm")
	certified := strings.Contains(strings.ToLower(version), "fips")
	var open, pro []affected
	for _, e := range all {
		_, channel := ubuntuRelease(e.Release)
		switch {
		case strings.Contains(channel, "FIPS") || strings.Contains(channel, "Realtime"):
			if certified && strings.Contains(channel, "FIPS") {
				return []affected{e}
			}
		case channel == "":
			open = append(open, e)
		default:
			pro = append(pro, e)
		}
	}
	if len(open) == 0 || subscribed && len(pro) > 0 {
		return pro
	}
	return open
}

// holds evaluates an entry: https://ossf.github.io/osv-schema/#evaluation
func (e *affected) holds(base, version string) (holds bool, fix string) {
	if slices.Contains(e.Versions, version) {
		holds = true
	} else {
		for _, v := range e.Versions {
			// Spelled otherwise: 1.0 and 1.0.0, or a v before it.
			if c, ok := compareVersions(base, v, version); ok && c == 0 {
				holds = true
				break
			}
		}
	}
	for i := range e.Spans {
		in, ends := e.Spans[i].contains(base, version)
		if in || holds {
			holds = holds || in
			if ends != "" && (fix == "" || before(base, ends, fix)) {
				fix = ends
			}
		}
	}
	return holds, fix
}

// contains walks through the bounds in order. ends is the first fix after version.
func (s *span) contains(base, version string) (in bool, ends string) {
	if s.Semver && !slices.Contains([]string{"Go", "npm", "crates.io", "Hex", "Pub", "SwiftURL", "NuGet"}, base) {
		base = "npm" // the range says by which rules
	}
	events := slices.Clone(s.Events)
	for _, e := range events {
		if e.Version != "0" {
			if _, ok := compareVersions(base, e.Version, version); !ok {
				return false, ""
			}
		}
	}
	slices.SortStableFunc(events, func(a, b event) int {
		switch {
		case a.Version == b.Version:
			return 0
		case a.Version == "0":
			return -1
		case b.Version == "0":
			return 1
		}
		c, _ := compareVersions(base, a.Version, b.Version)
		return c
	})
	limited, within := false, false
	for _, e := range events {
		order := -1 // of the bound, against the version
		if e.Version != "0" {
			order, _ = compareVersions(base, e.Version, version)
		}
		switch e.Kind {
		case introduced:
			if order <= 0 {
				in = true
			}
		case fixed:
			if order <= 0 {
				in = false
			} else if ends == "" {
				ends = e.Version
			}
		case lastAffected:
			if order < 0 {
				in = false
			}
		case limit:
			limited = true
			within = within || order > 0
		}
	}
	return in && (within || !limited), ends
}

func before(base, a, b string) bool {
	c, ok := compareVersions(base, a, b)
	return ok && c < 0
}
