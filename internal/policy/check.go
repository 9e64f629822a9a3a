package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"

	"github.com/tenderhq/tender"
)

// check is one service on its way through the gates.
type check struct {
	Input
	service  Service
	mounted  bool // service.Image is one that it mounts
	verdicts []tender.Verdict
}

// all asks of cheap things first; the order of what is printed is Check's.
func (c *check) all() {
	for _, g := range c.Gates {
		c.registries(g)
	}
	i := c.service.Image
	if i.Absent {
		if slices.ContainsFunc(c.Gates, func(g Gate) bool { return g.looksInside() }) {
			c.warn("gate/scan", "it is not here yet: up asks again when it is", "tender pull "+c.service.Name)
		}
		c.rules()
		return
	}
	var oldest, scanAge time.Duration
	for _, g := range c.Gates {
		oldest, scanAge = least(oldest, g.BaseAge), least(scanAge, g.ScanAge)
	}
	c.age(oldest)
	c.scan(scanAge)
	c.signatures()
	c.promotion()
	c.rules()
}

// looksInside: the gate needs more than a name.
func (g Gate) looksInside() bool {
	g.Registries, g.Rules = nil, nil
	return !g.Empty()
}

func least(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func (c *check) deny(rule, why, fix string) {
	c.say(tender.Verdict{Rule: rule, Why: why, Fix: fix, Deny: true})
}

func (c *check) warn(rule, why, fix string) { c.say(tender.Verdict{Rule: rule, Why: why, Fix: fix}) }

// say adds a verdict, unless a waiver stands against it; ids are what it may be called by
// beside its rule.
func (c *check) say(v tender.Verdict, ids ...string) {
	v.Image = c.service.Image.Reference
	if c.service.Name != "" {
		v.Services = []string{c.service.Name}
	}
	if v.Deny {
		ids = append(ids, v.Rule)
		holds, ended := c.waiver(ids)
		switch {
		case holds != nil:
			v.Deny, v.Waiver = false, holds
		case ended != nil:
			v.Why += fmt.Sprintf("; waiver %d by %s expired %s ago", ended.ID, ended.By, span(c.Now.Sub(ended.Until)))
		}
	}
	at := slices.IndexFunc(c.verdicts, func(o tender.Verdict) bool { return o.Rule == v.Rule && o.Why == v.Why })
	switch {
	case at < 0:
		c.verdicts = append(c.verdicts, v)
	case v.Deny || v.Waiver != nil: // two gates say the same, and one of them may only have warned
		c.verdicts[at] = v
	}
}

// waiver finds the one that lasts longest, and the one that ended last.
func (c *check) waiver(ids []string) (holds, ended *tender.Waiver) {
	for i := range c.Waivers {
		w := &c.Waivers[i]
		if !slices.ContainsFunc(ids, func(id string) bool { return strings.EqualFold(id, w.Finding) }) || !c.within(w.Scope) {
			continue
		}
		to := &ended
		if w.Until.After(c.Now) {
			to = &holds
		}
		if *to == nil || w.Until.After((*to).Until) {
			*to = w
		}
	}
	return holds, ended
}

// within says whether a waiver's scope holds for what is asked about.
func (c *check) within(scope string) bool {
	switch scope {
	case "":
		return true
	case c.Project, c.Project + "/" + c.service.Name:
		return c.Project != ""
	}
	name, err := reference.ParseNormalizedNamed(c.service.Image.place())
	return err == nil && name.Name() == scope
}

func (c *check) registries(g Gate) {
	if len(g.Registries) == 0 {
		return
	}
	allowed := strings.Join(g.Registries, ", ")
	if c.service.Image.byID() {
		c.deny("gate/registry", fmt.Sprintf("%q is an image's ID, which does not say where it comes from; allowed: %s", c.service.Image.Reference, allowed),
			"name it with its repository")
		return
	}
	name, err := reference.ParseNormalizedNamed(c.service.Image.place())
	if err != nil {
		c.deny("gate/registry", fmt.Sprintf("%q is no reference of an image: %v", c.service.Image.Reference, err), "name one from "+allowed)
		return
	}
	for _, r := range g.Registries {
		if reference.Domain(name) == r || name.Name() == r || strings.HasPrefix(name.Name(), r+"/") {
			return
		}
	}
	c.deny("gate/registry", fmt.Sprintf("it comes from %s, which is not among the allowed: %s", name.Name(), allowed),
		"push it to one of these, or allow it under registries: in tender.yaml")
}

func (i Image) place() string { return cmp.Or(i.Place, i.Reference) }

// byID says whether the engine takes the reference for an ID, or the beginning of one. To
// who reads references it is a repository of Docker Hub.
func (i Image) byID() bool {
	hex, said := strings.CutPrefix(i.Reference, "sha256:")
	return said || hex != "" && strings.HasPrefix(strings.TrimPrefix(i.ID, "sha256:"), hex)
}

// CheckRegistry says what is wrong with an entry of Gate.Registries.
func CheckRegistry(entry string) error {
	host, _, _ := strings.Cut(entry, "/")
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		return tender.Errorf(tender.Invalid, "%q does not begin with a registry's host: docker.io/library, registry.company.com", entry)
	}
	if entry == "docker.io" { // names right below it are filled up with library
		return nil
	}
	if name, err := reference.ParseNormalizedNamed(entry + "/x"); err != nil || name.Name() != entry+"/x" {
		return tender.Errorf(tender.Invalid, "%q is not a host with a path as Docker reads it: docker.io/library, registry.company.com", entry)
	}
	return nil
}

// Repository is a scope of waivers: a repository, whole as Docker reads it. A tag is refused:
// the waiver would hold for all the others too.
func Repository(ref string) (string, error) {
	name, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", tender.Errorf(tender.Invalid, "%q is no repository: %w", ref, err)
	}
	if !reference.IsNameOnly(name) {
		return "", tender.Errorf(tender.Invalid, "%q names one image, and a waiver holds for a repository", ref).Hint("without tag and digest: %s", name.Name())
	}
	return name.Name(), nil
}

// toCome says whether a day lies in the future, by more than clocks differ.
func (c *check) toCome(t time.Time) bool { return t.After(c.Now.Add(24 * time.Hour)) }

func (c *check) age(oldest time.Duration) {
	i := c.service.Image
	switch {
	case oldest == 0:
	case i.Created.IsZero() || i.Created.Year() < 2000:
		c.deny("gate/age", "it does not say when it was built, as images do that are made to be the same each time",
			"build it with SOURCE_DATE_EPOCH of its commit")
	case c.toCome(i.Created):
		c.deny("gate/age", fmt.Sprintf("it says that it was built on %s, which is to come", i.Created.Format(time.DateOnly)), "build it with SOURCE_DATE_EPOCH of its commit")
	case c.Now.Sub(i.Created) > oldest:
		c.deny("gate/age", fmt.Sprintf("it was built %s ago, more than %s", span(c.Now.Sub(i.Created)), span(oldest)),
			"build it anew on a fresh base: tender build --pull")
	}
}

func (c *check) scan(oldest time.Duration) {
	i := c.service.Image
	asked := oldest != 0 || slices.ContainsFunc(c.Gates, func(g Gate) bool {
		need, _, _ := g.Needs()
		return need
	})
	switch {
	case !asked:
	case i.Scan == nil:
		c.deny("gate/scan", "it is not scanned yet", "tender image scan "+i.Reference)
	default:
		if old := c.Now.Sub(i.Scan.Taken); oldest != 0 && old > oldest {
			c.deny("gate/scan", fmt.Sprintf("its scan is %s old, more than %s", span(old), span(oldest)), "tender image scan "+i.Reference)
		}
		for _, gap := range i.Scan.Gaps {
			c.deny("gate/scan", "nobody can say what is wrong with it: "+gap, "tender image db update")
		}
		for _, f := range i.Scan.Findings {
			c.finding(f)
		}
	}
}

// finding holds one against all thresholds; what one of them denies is denied.
func (c *check) finding(f tender.Finding) {
	var met, bites bool
	var until time.Time
	for _, g := range c.Gates {
		// What is no advisory has no fixed version: who builds the image mends it.
		if g.Deny == 0 || f.Severity < g.Deny || g.Fixable && f.Kind == tender.Vulnerability && !f.Fixable() {
			continue
		}
		met = true
		end := f.Published.Add(g.Grace)
		if g.Grace == 0 || f.Published.IsZero() || !end.After(c.Now) {
			bites = true
		} else if until.IsZero() || end.Before(until) {
			until = end
		}
	}
	if !met {
		return
	}
	v := tender.Verdict{Rule: "gate/severity", Severity: f.Severity, Deny: bites, Why: described(f), Fix: c.mend(f)}
	if !bites {
		v.Why += fmt.Sprintf("; published %s ago, denies from %s on", span(c.Now.Sub(f.Published)), until.Format(time.DateOnly))
	}
	c.say(v, append([]string{f.ID}, f.Aliases...)...)
}

// described is a finding in one line.
func described(f tender.Finding) string {
	how := f.Severity.String()
	if f.Score > 0 {
		how += fmt.Sprintf(" %.1f", f.Score)
	}
	if f.Kind != tender.Vulnerability {
		out := fmt.Sprintf("%s (%s)", f.ID, how)
		if f.Title != "" {
			out += ": " + f.Title
		}
		if f.Path != "" {
			out += ", /" + f.Path
		}
		return out
	}
	out := fmt.Sprintf("%s (%s) in %s %s", f.ID, how, f.Package, f.Version)
	if !f.Fixable() {
		out += ", not fixed yet"
	}
	return out
}

func (c *check) mend(f tender.Finding) string {
	where := ""
	if f.Layer >= 0 && f.Layer < len(c.service.Image.Scan.Steps) {
		where = fmt.Sprintf(" (layer %d: %s)", f.Layer, strings.Join(strings.Fields(c.service.Image.Scan.Steps[f.Layer]), " "))
	}
	switch {
	case f.Kind == tender.SecretLeft:
		return "change it, for it is known; build with RUN --mount=type=secret" + where
	case f.Kind == tender.Setup:
		return "mend the Dockerfile" + where
	case f.Fixable():
		return fmt.Sprintf("upgrade %s to %s%s", cmp.Or(f.Source, f.Package), f.Fixed, where)
	}
	return fmt.Sprintf("do without it%s, or %s", where, c.waive(f.ID))
}

// waive is the command for a waiver of a month.
func (c *check) waive(finding string) string {
	scope := ""
	if c.Project != "" {
		scope = " --project " + c.Project
	}
	return fmt.Sprintf("tender policy waive %s%s --until %s --reason '…'", finding, scope, c.Now.AddDate(0, 0, 30).Format(time.DateOnly))
}

func (c *check) signatures() {
	i := c.service.Image
	for _, key := range merged(c.Gates, func(g Gate) []string { return g.Sign }) {
		switch fix := fmt.Sprintf("tender image sign %s --key %s", i.Reference, key); {
		case c.Keys != nil && !slices.Contains(c.Keys, key):
			c.deny("gate/signature", fmt.Sprintf("the key %s, which must have signed it, is not in the vault", key),
				fmt.Sprintf("tender image key create %s, or tender image key import %s cosign.pub", key, key))
		case i.Signers == nil && i.Unsure != "":
			c.deny("gate/signature", fmt.Sprintf("nobody can say whether the key %s signed it: %s", key, i.Unsure), cmp.Or(i.Ask, fix))
		case i.Signers == nil:
			c.deny("gate/signature", fmt.Sprintf("nobody can say whether the key %s signed it", key), fix)
		case i.Digest == "" && !slices.Contains(i.Signers, key):
			c.deny("gate/signature", fmt.Sprintf("the key %s did not sign it: it was never pushed, and a signature lies beside an image in its registry", key),
				fmt.Sprintf("docker push %s, then %s", i.Reference, fix))
		case !slices.Contains(i.Signers, key):
			by := ""
			if len(i.Signers) > 0 {
				by = ", only " + strings.Join(i.Signers, ", ")
			}
			c.deny("gate/signature", fmt.Sprintf("the key %s did not sign it%s", key, by), fix)
		}
	}
}

func (c *check) promotion() {
	i := c.service.Image
	for _, step := range merged(c.Gates, func(g Gate) []string { return c.steps(g) }) {
		switch fix := fmt.Sprintf("tender image promote %s --to %s", i.Reference, step); {
		case step == "":
			c.deny("gate/promotion", "its project names no step of the pipeline that it could have been promoted to", "x-tender: {environment: NAME} in its Compose file")
		case i.Digest == "":
			c.deny("gate/promotion", "it has no digest, for it was never pushed, and so it was not promoted to "+step, "tender image build --push, or docker push; then "+fix)
		case i.Promoted == nil:
			c.deny("gate/promotion", "nobody can say whether it was promoted to "+step, fix)
		case !slices.Contains(i.Promoted, step):
			to := "to no step"
			if len(i.Promoted) > 0 {
				to = "to " + strings.Join(i.Promoted, ", ") + " only"
			}
			c.deny("gate/promotion", fmt.Sprintf("it was not promoted to %s: %s", step, to), fix)
		}
	}
}

// steps are those that a gate wants the digest to have been promoted to.
func (c *check) steps(g Gate) (out []string) {
	switch {
	case c.Promote && g.From != "":
		out = append(out, g.From)
	case !c.Promote && (g.From != "" || g.Promoted):
		out = append(out, c.Environment)
	}
	return out
}

// merged is what all gates ask for, each once.
func merged(gates []Gate, of func(Gate) []string) (out []string) {
	for _, g := range gates {
		for _, x := range of(g) {
			if !slices.Contains(out, x) {
				out = append(out, x)
			}
		}
	}
	return out
}

// span is a time as people say it.
func span(d time.Duration) string {
	say := func(n int, unit string) string {
		if n != 1 {
			unit += "s"
		}
		return fmt.Sprintf("%d %s", n, unit)
	}
	switch {
	case d >= 24*time.Hour:
		return say(int(d/(24*time.Hour)), "day")
	case d >= time.Hour:
		return say(int(d/time.Hour), "hour")
	}
	return say(int(d/time.Minute), "minute")
}
