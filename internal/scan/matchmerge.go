package scan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tenderhq/tender"
)

// notices are advisories that announce an update: they may be about many flaws, and
// their flaws are not their aliases.
var notices = []string{
	"DSA-", "DLA-", "DTSA-", "USN-", "LSN-", "RHSA-", "RHBA-", "RHEA-", "ALSA-", "ALBA-", "ALEA-", "RLSA-", "RXSA-",
	"SUSE-", "openSUSE-", "MGASA-", "OESA-", "ELSA-", "BELL-",
}

func isNotice(id string) bool {
	return slices.ContainsFunc(notices, func(prefix string) bool { return strings.HasPrefix(id, prefix) })
}

// flaw is all that is known of one flaw of one package.
type flaw struct {
	ids     []string // in any database
	records []hit    // those about this flaw alone
	notices []hit    // those that are about others too
}

// merge makes one finding of all that is about the same flaw.
func merge(base string, p Package, hits []hit) []tender.Finding {
	flaws := flawsOf(hits)
	var found []tender.Finding
	for _, f := range flaws {
		// What speaks of the one flaw is more exact than the notice of an update: when
		// it says that the version is not affected, so it is.
		deciding := f.records
		if len(deciding) == 0 {
			deciding = f.notices
		}
		if slices.ContainsFunc(deciding, func(h hit) bool { return h.holds }) {
			found = append(found, f.finding(base, p))
		}
	}
	return found
}

// flawsOf brings advisories together that share an identifier, however long the chain.
func flawsOf(hits []hit) []*flaw {
	var flaws []*flaw
	join := func(ids []string) *flaw {
		into := &flaw{ids: ids}
		kept := flaws[:0]
		for _, f := range flaws {
			if !slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(f.ids, id) }) {
				kept = append(kept, f)
				continue
			}
			for _, id := range f.ids {
				into.ids = appendNew(into.ids, id)
			}
			into.records = append(into.records, f.records...)
			into.notices = append(into.notices, f.notices...)
		}
		flaws = append(kept, into)
		return into
	}
	for _, h := range hits {
		if !isNotice(h.ID) {
			f := join(identifiers(h.advisory))
			f.records = append(f.records, h)
		}
	}
	for _, h := range hits {
		if !isNotice(h.ID) {
			continue
		}
		about := cves(h.advisory)
		if len(about) == 0 {
			about = []string{h.ID}
		}
		for _, id := range about {
			f := join([]string{id})
			f.notices = append(f.notices, h)
		}
	}
	return flaws
}

// identifiers are all names of the one flaw that an advisory is about.
func identifiers(a advisory) []string {
	ids := []string{a.ID}
	for _, prefix := range []string{"DEBIAN-", "UBUNTU-", "ALPINE-"} {
		if cve, ok := strings.CutPrefix(a.ID, prefix); ok && strings.HasPrefix(cve, "CVE-") {
			ids = append(ids, cve)
		}
	}
	for _, id := range slices.Concat(a.Aliases, a.Upstream) {
		if !isNotice(id) {
			ids = appendNew(ids, id)
		}
	}
	return ids
}

// cves are the flaws that a notice is about.
func cves(a advisory) []string {
	var ids []string
	for _, id := range slices.Concat(a.Upstream, a.Aliases) {
		if i := strings.Index(id, "CVE-"); i >= 0 {
			ids = appendNew(ids, id[i:]) // UBUNTU-CVE-2024-1 is CVE-2024-1
		}
	}
	return ids
}

// rank orders identifiers: the lower, the better known.
func rank(id string) int {
	switch {
	case strings.HasPrefix(id, "CVE-"):
		return 0
	case strings.HasPrefix(id, "GHSA-"):
		return 1
	case isNotice(id):
		return 3
	}
	return 2
}

func (f *flaw) finding(base string, p Package) tender.Finding {
	out := tender.Finding{
		Kind: tender.Vulnerability, Package: p.Name, Version: p.Version, Ecosystem: p.Ecosystem, PURL: p.PURL, Path: p.Path, Layer: p.Layer,
	}
	if p.Source != p.Name {
		out.Source = p.Source
	}
	ids := slices.Clone(f.ids)
	for _, h := range f.notices {
		ids = appendNew(ids, h.ID)
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b)) })
	out.ID, out.Aliases = ids[0], slices.DeleteFunc(ids[1:], func(id string) bool {
		// The distribution's own name for the same number says nothing more.
		return strings.HasSuffix(id, "-"+ids[0])
	})

	var vectors []string
	rating := tender.UnknownSeverity
	malware := false
	about := ""
	for i, h := range slices.Concat(f.records, f.notices) {
		if h.holds && h.fixed != "" && (out.Fixed == "" || before(base, h.fixed, out.Fixed)) {
			out.Fixed = h.fixed
		}
		// A notice's score and word are those of the worst that it is about.
		if single := i < len(f.records) || len(cves(h.advisory)) < 2; single || len(f.records) == 0 {
			vectors = append(vectors, h.Vectors...)
			rating = max(rating, rated(h.rating))
		}
		malware = malware || strings.HasPrefix(h.ID, "MAL-")
		if about == "" || h.holds && rank(h.ID) < rank(about) {
			about = h.ID
		}
		if out.Title == "" {
			out.Title = h.Title
		}
		if !h.Published.IsZero() && (out.Published.IsZero() || h.Published.Before(out.Published)) {
			out.Published = h.Published
		}
		if h.Modified.After(out.Modified) {
			out.Modified = h.Modified
		}
	}
	out.URL = "https://osv.dev/vulnerability/" + about
	out.Vector, out.Score = worst(vectors)
	switch {
	case malware:
		out.Severity = tender.Critical
	case rating != tender.UnknownSeverity && (ofDistribution(base) || out.Vector == ""):
		out.Severity = rating
	case out.Vector != "":
		out.Severity = SeverityOf(out.Score)
	}
	return out
}

// ofDistribution says whether the publisher also builds the package, and so knows how
// bad a flaw is there.
func ofDistribution(base string) bool {
	switch base {
	case "Debian", "Ubuntu", "Alpine", "Red Hat", "Rocky Linux", "AlmaLinux", "SUSE", "openSUSE", "Mageia", "openEuler",
		"Wolfi", "Chainguard", "Alpaquita", "MinimOS", "BellSoft Hardened Containers":
		return true
	}
	return false
}
