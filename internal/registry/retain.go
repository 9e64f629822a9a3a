package registry

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// Rule says what goes of some repositories. The first one that fits a tag decides about it,
// and what no rule fits stays. A tag goes when it is beyond Keep and older than OlderThan;
// one of the two may be left out. A rule without both keeps what it fits.
type Rule struct {
	Repositories []string // patterns as those of a Grant; none: all
	Tags         []string // patterns as of path.Match; none: all
	Keep         int      // so many of the newest stay, in each repository; 0: their number does not matter
	OlderThan    time.Duration
	// KeepTags are patterns of tags that stay whatever their age. KeepSigned keeps what has a signature.
	KeepTags   []string
	KeepSigned bool
	// Untagged is how old a manifest without a tag must be to go; 0: OlderThan of a rule
	// without Tags. Where neither is given, such manifests stay.
	Untagged time.Duration
}

// orphanAge is how long a referrer may wait for its subject: it may be pushed before it.
const orphanAge = 24 * time.Hour

// Step says what happens to a tag or, without one, to a manifest.
type Step struct {
	Repository string
	Tag        string // "": the manifest itself
	Digest     string
	Goes       bool
	Why        string
	Pushed     time.Time
}

// String is the step in one line.
func (s Step) String() string {
	does, what := "stays", "@"+s.Digest
	if s.Goes {
		does = "goes"
	}
	if s.Tag != "" {
		what = ":" + s.Tag
	}
	return fmt.Sprintf("%s%s %s: %s", s.Repository, what, does, s.Why)
}

// fits says whether the pattern is of this repository; "" is of all.
func fits(pattern, repository string) bool {
	return pattern == "" || matches(pattern, repository)
}

// Fits says whether the rule is about a repository.
func (r Rule) Fits(repository string) bool { return r.fits(repository) }

func (r Rule) fits(repository string) bool {
	return len(r.Repositories) == 0 || slices.ContainsFunc(r.Repositories, func(p string) bool { return fits(p, repository) })
}

func (r Rule) fitsTag(tag string) bool { return len(r.Tags) == 0 || anyTag(r.Tags, tag) }

func anyTag(patterns []string, tag string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, tag)
		return ok && err == nil
	})
}

// attached are the tags by which cosign, and clients of registries without referrers, tie a
// manifest to its subject.
var attached = form(`^(sha256|sha512)-([0-9a-f]{64}(?:[0-9a-f]{64})?)(?:\.[a-z0-9]+)?$`)

// subjectOf is the digest that such a tag belongs to, "" if it is an ordinary one.
func subjectOf(tag string) string {
	if m := attached().FindStringSubmatch(tag); m != nil {
		return m[1] + ":" + m[2]
	}
	return ""
}

// signature says whether a manifest of this artifact type signs its subject.
func signature(artifact string) bool {
	return strings.HasPrefix(artifact, "application/vnd.dev.cosign.artifact.sig.") ||
		strings.HasPrefix(artifact, "application/vnd.dev.sigstore.bundle.") ||
		strings.HasPrefix(artifact, "application/vnd.cncf.notary.signature")
}

// Decide says of every tag and manifest whether it stays and why: by repository, tags before
// manifests. needed are what must stay, with the reason: digests of
// manifests or of their configurations, or repository:tag; what is a part of the same
// index stays with them, and what refers to them. It is pure.
func Decide(rules []Rule, tags []store.Tag, manifests []store.Manifest, needed map[string]string, now time.Time) []Step {
	known := make(map[string]bool, len(manifests))
	for _, m := range manifests {
		known[m.Digest] = true
	}
	return decideAmong(rules, tags, manifests, needed, known, now)
}

// DecideHere is Decide about what an engine holds: its images came, and nobody pushed them. A
// manifest stands for an image in each repository that it has a name in, its digest for the image's ID.
func DecideHere(rules []Rule, tags []store.Tag, manifests []store.Manifest, needed map[string]string, now time.Time) []Step {
	steps := Decide(rules, tags, manifests, needed, now)
	for i := range steps {
		steps[i].Why = came.Replace(steps[i].Why)
	}
	return steps
}

var came = strings.NewReplacer("was pushed", "came", "pushed", "came", "a manifest", "an image", "manifests", "images")

// decideAmong is Decide where manifests are not all: known are the digests of those of every
// repository. Signatures may be kept in another one than what they sign.
func decideAmong(rules []Rule, tags []store.Tag, manifests []store.Manifest, needed map[string]string, known map[string]bool, now time.Time) []Step {
	by := map[string]*decision{}
	of := func(repository string) *decision {
		d := by[repository]
		if d == nil {
			d = &decision{repository: repository, needed: needed, known: known, now: now, manifests: map[string]*fate{}, why: map[string]string{}}
			by[repository] = d
		}
		return d
	}
	for _, m := range manifests {
		of(m.Repository).manifests[m.Digest] = &fate{Manifest: m}
	}
	for _, t := range tags {
		d := of(t.Repository)
		d.tags = append(d.tags, &named{Tag: t, subject: subjectOf(t.Tag)})
	}
	var steps []Step
	for _, name := range slices.Sorted(maps.Keys(by)) {
		steps = append(steps, by[name].decide(rules)...)
	}
	return steps
}

// decision is that about one repository. Everything stays until there is a reason to go.
type decision struct {
	repository string
	needed     map[string]string
	known      map[string]bool
	now        time.Time
	tags       []*named
	manifests  map[string]*fate
	why        map[string]string // of what is needed, or part of it
}

// fate is what becomes of a manifest.
type fate struct {
	store.Manifest
	parents, children, referrers []*fate
	tags                         []*named // that name it
	attached                     []*named // that belong to it
	subject                      *fate
	signed, goes                 bool
	why                          string
}

// named is what becomes of a tag.
type named struct {
	store.Tag
	subject string // "": an ordinary one
	goes    bool
	why     string
}

func (d *decision) decide(rules []Rule) []Step {
	d.link()
	d.need()
	d.ordinary(rules)
	untagged, ruled := d.untagged(rules)
	var queue []*fate
	for _, m := range d.manifests {
		queue = append(queue, m)
	}
	for _, t := range d.tags {
		// A signature whose subject has gone is nobody's.
		if t.subject == "" || d.known[t.subject] || !ruled {
			continue
		}
		if d.why[t.Digest] == "" && d.old(t.Pushed, orphanAge) {
			t.goes, t.why = true, "its subject is not there"
		}
	}
	for len(queue) > 0 {
		m := queue[0]
		queue = queue[1:]
		if m.goes {
			continue
		}
		if m.goes, m.why = d.manifestGoes(m, untagged, ruled); !m.goes {
			continue
		}
		queue = append(append(queue, m.children...), m.referrers...)
		for _, t := range m.attached {
			if d.why[t.Digest] == "" {
				t.goes, t.why = true, "its subject goes"
			}
			if tagged := d.manifests[t.Digest]; tagged != nil {
				queue = append(queue, tagged)
			}
		}
	}
	return d.steps()
}

// link ties manifests to each other and to tags.
func (d *decision) link() {
	slices.SortFunc(d.tags, func(a, b *named) int { return strings.Compare(a.Tag.Tag, b.Tag.Tag) })
	for _, m := range d.manifests {
		for _, ref := range m.Refs {
			if c := d.manifests[ref.Digest]; c != nil && c != m && ref.Kind == "child" {
				m.children, c.parents = append(m.children, c), append(c.parents, m)
			}
		}
		if s := d.manifests[m.Subject]; s != nil && s != m {
			m.subject = s
			s.referrers = append(s.referrers, m)
			s.signed = s.signed || signature(m.Artifact) && (m.Notes[predicateNote] == "" || m.Notes[predicateNote] == signPredicate)
		}
	}
	for _, t := range d.tags {
		if m := d.manifests[t.Digest]; m != nil {
			m.tags = append(m.tags, t)
		}
		if s := d.manifests[t.subject]; s != nil {
			s.attached = append(s.attached, t)
			s.signed = s.signed || strings.HasSuffix(t.Tag.Tag, ".sig")
		}
	}
}

// emptyConfig is the {} that artifacts have as a configuration.
const emptyConfig = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

// need spreads what is needed to indexes that hold it.
func (d *decision) need() {
	var queue []*fate
	for _, digest := range slices.Sorted(maps.Keys(d.manifests)) {
		m := d.manifests[digest]
		why := d.needed[digest]
		for _, ref := range m.Refs {
			if why == "" && ref.Kind == "config" && ref.Digest != emptyConfig {
				why = d.needed[ref.Digest]
			}
		}
		for _, t := range m.tags {
			if why == "" {
				why = d.needed[t.Repository+":"+t.Tag.Tag]
			}
		}
		if why != "" {
			d.why[digest] = why
			queue = append(queue, m)
		}
	}
	for len(queue) > 0 {
		m := queue[0]
		queue = queue[1:]
		for _, p := range m.parents {
			if d.why[p.Digest] == "" {
				d.why[p.Digest] = d.why[m.Digest]
				queue = append(queue, p)
			}
		}
	}
}

// ordinary decides about tags that belong to no subject.
func (d *decision) ordinary(rules []Rule) {
	groups := make([][]*named, len(rules))
	for _, t := range d.tags {
		if t.subject != "" {
			t.why = "it belongs to " + short(t.subject)
			continue
		}
		i := slices.IndexFunc(rules, func(r Rule) bool { return r.fits(d.repository) && r.fitsTag(t.Tag.Tag) })
		if i < 0 {
			t.why = "no rule fits it"
			continue
		}
		groups[i] = append(groups[i], t)
	}
	for i, group := range groups {
		r := rules[i]
		place := rank(group)
		for _, t := range group {
			m := d.manifests[t.Digest]
			age := d.now.Sub(t.Pushed)
			switch {
			case d.why[t.Digest] != "":
				t.why = d.why[t.Digest]
			case r.Keep <= 0 && r.OlderThan <= 0:
				t.why = fmt.Sprintf("rule %d keeps it", i+1)
			case anyTag(r.KeepTags, t.Tag.Tag):
				t.why = fmt.Sprintf("rule %d keeps tags like it", i+1)
			case r.KeepSigned && m != nil && m.signed:
				t.why = "it is signed"
			case r.Keep > 0 && place[t] < r.Keep:
				t.why = fmt.Sprintf("one of the %d newest", r.Keep)
			case t.Pushed.IsZero():
				t.why = "nobody knows when it was pushed"
			case r.OlderThan > 0 && age <= r.OlderThan:
				t.why = fmt.Sprintf("pushed %s ago, %s is the limit", Days(age), Days(r.OlderThan))
			case r.Keep > 0 && r.OlderThan > 0:
				t.goes, t.why = true, fmt.Sprintf("pushed %s ago, and not one of the %d newest", Days(age), r.Keep)
			case r.Keep > 0:
				t.goes, t.why = true, fmt.Sprintf("not one of the %d newest", r.Keep)
			default:
				t.goes, t.why = true, fmt.Sprintf("pushed %s ago, %s is the limit", Days(age), Days(r.OlderThan))
			}
		}
	}
}

// rank numbers tags from the newest: versions by their order, all others by push date, each
// kind by itself, so that latest takes no version's place.
func rank(tags []*named) map[*named]int {
	sorted := slices.Clone(tags)
	slices.SortStableFunc(sorted, func(a, b *named) int {
		v, isV := tender.VersionOf(a.Tag.Tag)
		w, isW := tender.VersionOf(b.Tag.Tag)
		if isV && isW {
			if c := w.Compare(v); c != 0 {
				return c
			}
		}
		return cmp.Or(b.Pushed.Compare(a.Pushed), strings.Compare(a.Tag.Tag, b.Tag.Tag))
	})
	place := make(map[*named]int, len(tags))
	var n [2]int
	for _, kind := range []bool{true, false} {
		for _, t := range sorted {
			if _, is := tender.VersionOf(t.Tag.Tag); is == kind {
				i := 0
				if kind {
					i = 1
				}
				place[t] = n[i]
				n[i]++
			}
		}
	}
	return place
}

// untagged is how old manifests without a tag must be to go, and whether any rule fits the repository.
func (d *decision) untagged(rules []Rule) (age time.Duration, ruled bool) {
	for _, r := range rules {
		if !r.fits(d.repository) {
			continue
		}
		ruled = true
		if r.Untagged > 0 {
			return r.Untagged, true
		}
		if len(r.Tags) == 0 && r.OlderThan > 0 {
			return r.OlderThan, true
		}
	}
	return 0, ruled
}

// manifestGoes decides about a manifest, as far as is known yet of those that it belongs to.
func (d *decision) manifestGoes(m *fate, untagged time.Duration, ruled bool) (goes bool, why string) {
	if why := d.why[m.Digest]; why != "" {
		return false, why
	}
	for _, t := range m.tags {
		if !t.goes {
			return false, "tagged " + t.Tag.Tag
		}
	}
	for _, p := range m.parents {
		if !p.goes {
			return false, "part of " + short(p.Digest)
		}
	}
	switch {
	case m.subject != nil && !m.subject.goes:
		return false, "it refers to " + short(m.subject.Digest)
	case m.subject != nil:
		return true, "its subject goes"
	case len(m.parents) > 0:
		return true, "the index that it is part of goes"
	case len(m.tags) == 1:
		return true, "its tag goes: " + m.tags[0].Tag.Tag
	case len(m.tags) > 1:
		return true, fmt.Sprintf("its %d tags go", len(m.tags))
	case d.known[m.Subject]:
		return false, "it refers to " + short(m.Subject) + " of another repository"
	case m.Subject != "":
		if ruled && d.old(m.Pushed, orphanAge) {
			return true, "its subject is not there"
		}
		return false, "its subject may yet be pushed"
	case untagged > 0 && d.old(m.Pushed, untagged):
		return true, fmt.Sprintf("it has no tag, and was pushed %s ago", Days(d.now.Sub(m.Pushed)))
	case untagged > 0:
		return false, fmt.Sprintf("it has no tag, %s is the limit", Days(untagged))
	}
	return false, "no rule is about manifests without a tag"
}

func (d *decision) old(pushed time.Time, age time.Duration) bool {
	return !pushed.IsZero() && d.now.Sub(pushed) > age
}

func (d *decision) steps() []Step {
	var steps []Step
	for _, t := range d.tags {
		steps = append(steps, Step{Repository: d.repository, Tag: t.Tag.Tag, Digest: t.Digest, Goes: t.goes, Why: t.why, Pushed: t.Pushed})
	}
	for _, digest := range slices.Sorted(maps.Keys(d.manifests)) {
		m := d.manifests[digest]
		steps = append(steps, Step{Repository: d.repository, Digest: digest, Goes: m.goes, Why: m.why, Pushed: m.Pushed})
	}
	return steps
}

// Days is a time as people count clean-up: 12d, 3h, 40m.
func Days(d time.Duration) string {
	switch {
	case d >= 48*time.Hour || d > 0 && d%(24*time.Hour) == 0:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	case d >= time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	}
	return strconv.Itoa(int(d/time.Minute)) + "m"
}

// short is the beginning of a digest, as people compare them.
func short(digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return algorithm + ":" + hex[:min(12, len(hex))]
}
