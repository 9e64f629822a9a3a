package scan

import (
	"slices"
	"time"

	"github.com/tenderhq/tender"
)

// Report asks the index about what is in an image. Packages whose advisories are not
// there, or cannot be read, are told in Gaps.
func (db *DB) Report(c Contents, now time.Time) Report {
	r := Report{Contents: c, Scanned: now.UTC()}
	var err error
	r.DB, err = db.Age()
	r.Gaps = gaps(r.Gaps, err)
	r.Findings, err = db.Match(c.Packages, now)
	r.Gaps = gaps(r.Gaps, err)
	r.Findings = append(r.Findings, c.Problems...)
	slices.SortStableFunc(r.Findings, worstFirst)
	return r
}

// gaps takes errors that were joined apart.
func gaps(all []string, err error) []string {
	if err == nil {
		return all
	}
	if list, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // of the joined error itself
		for _, e := range list.Unwrap() {
			all = appendNew(all, e.Error())
		}
		return all
	}
	return appendNew(all, err.Error())
}

// Opinion is how the findings of another scanner compare with ours.
type Opinion struct {
	Both   int              // it has found, and we have
	Others []tender.Finding // it alone has found, the worst first
	Ours   int              // vulnerabilities that it does not have
}

// Second holds what another scanner has found against ours: one flaw of one package
// may have several names.
func Second(ours, theirs []tender.Finding) Opinion {
	type flaw struct{ pkg, id string }
	names := func(f tender.Finding) []flaw {
		var out []flaw
		for _, id := range append([]string{f.ID}, f.Aliases...) {
			for _, pkg := range []string{f.Package, f.Source} {
				if pkg != "" || f.Kind != tender.Vulnerability {
					out = append(out, flaw{pkg, id})
				}
			}
		}
		return out
	}
	index := func(list []tender.Finding) map[flaw]bool {
		m := map[flaw]bool{}
		for _, f := range list {
			for _, n := range names(f) {
				m[n] = true
			}
		}
		return m
	}
	had, has := index(ours), index(theirs)
	among := func(m map[flaw]bool, f tender.Finding) bool {
		return slices.ContainsFunc(names(f), func(n flaw) bool { return m[n] })
	}
	var o Opinion
	for _, f := range theirs {
		if among(had, f) {
			o.Both++
		} else {
			o.Others = append(o.Others, f)
		}
	}
	for _, f := range ours {
		if f.Kind == tender.Vulnerability && !among(has, f) {
			o.Ours++
		}
	}
	slices.SortStableFunc(o.Others, worstFirst)
	return o
}

// Add puts findings among those of a report.
func (r *Report) Add(more []tender.Finding) {
	r.Findings = append(slices.Clone(r.Findings), more...)
	slices.SortStableFunc(r.Findings, worstFirst)
}
