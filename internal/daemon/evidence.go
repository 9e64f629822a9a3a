package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/policy"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/scan"
	"github.com/tenderhq/tender/internal/store"
)

// artifactPromotion is the type of what is attached to a promoted digest.
const artifactPromotion = "application/vnd.tender.promotion.v1+json"

// mostConfig is how large an image's configuration may be, in bytes.
const mostConfig = 4 << 20

// facts are what is known of an image that is promoted.
type facts struct {
	setup   imageSetup
	scan    *scan.Report // nil: it was not scanned
	signers []string
}

// imageSetup is what an image says of itself.
type imageSetup struct {
	Created time.Time
	Config  struct {
		User   string
		Labels map[string]string
	}
}

// judgePromotion asks the gate of the step, with the general one. Denied: with every reason.
func (b *backend) judgePromotion(ctx context.Context, p *promotion, report func(api.Event)) ([]tender.Verdict, facts, error) {
	gates, err := b.config.gates(p.step.Name)
	if err != nil {
		return nil, facts{}, err
	}
	if p.PromoteRequest.From != "" {
		gates = append(gates, policy.Gate{From: p.PromoteRequest.From})
	}
	f, image, err := b.factsOf(ctx, p, gates, report)
	if err != nil {
		return nil, f, err
	}
	in := policy.Input{Now: time.Now().UTC(), Environment: p.step.Name, Promote: true, Services: []policy.Service{{Image: image}}}
	if err := b.store.View(ctx, func(tx *store.Tx) (err error) { in.Waivers, err = tx.Waivers(); return err }); err != nil {
		return nil, f, err
	}
	// Where it may come from is asked of where it will be. Our own registry has no name that
	// all hosts call it by, so of that up asks.
	place := in
	for _, g := range gates {
		place.Gates = append(place.Gates, policy.Gate{Registries: g.Registries})
		g.Registries = nil
		in.Gates = append(in.Gates, g)
	}
	verdicts := policy.Check(in)
	at := p.target
	if at.Repository == "" {
		at = p.ref
	}
	if at.Host != "" {
		place.Services = []policy.Service{{Image: policy.Image{Reference: at.String(), Digest: p.digest, Absent: true}}}
		verdicts = append(verdicts, policy.Check(place)...)
	}
	var reasons []string
	for _, v := range verdicts {
		if v.Deny {
			reasons = append(reasons, told(v))
		} else {
			report(api.Event{Kind: api.KindWarning, Text: told(v)})
		}
	}
	if len(reasons) == 0 {
		return verdicts, f, nil
	}
	if n := len(reasons); n > mostReasons {
		reasons = append(reasons[:mostReasons], fmt.Sprintf("and %d more: tender image scan %s", n-mostReasons, p.Reference))
	}
	return nil, f, tender.Errorf(tender.Denied, "%s:\n%s", "the gate of "+p.step.Name+" denies it, nothing has changed", strings.Join(reasons, "\n")).
		Hint("an exception: tender policy waive WHAT --until 30d --reason '…'")
}

// factsOf gathers what the gates ask and the evidence tells.
func (b *backend) factsOf(ctx context.Context, p *promotion, gates []policy.Gate, report func(api.Event)) (f facts, image policy.Image, err error) {
	at := p.ref.At(p.digest)
	platform, setup, err := b.setupOf(ctx, at)
	if err != nil {
		return f, image, err
	}
	f.setup = setup
	image = policy.Image{
		Reference: p.named(), Digest: p.digest, Created: setup.Created, User: setup.Config.User, Labels: setup.Config.Labels,
	}
	if p.ref.Host == "" {
		// Without a host Docker, and what reads as it does, would take it for docker.io's.
		ours := p.ref
		ours.Host = slices.Concat(b.config.ownRegistryHosts(), []string{"own.invalid"})[0]
		image.Place = ours.String()
	}
	if image.Promoted, err = b.promotedTo(ctx, p.digest); err != nil {
		return f, image, err
	}
	needed := slices.ContainsFunc(gates, func(g policy.Gate) bool { need, _, _ := g.Needs(); return need })
	if f.scan, err = b.scanAt(ctx, at, platform, p, needed, report); err != nil {
		return f, image, err
	}
	if f.scan != nil {
		image.Scan = policyScan(*f.scan)
	}
	if k := b.knowledge; k.signers != nil {
		if image.Signers, err = k.signers(ctx, tender.ImageID{Reference: at.String(), Digest: p.digest}); err != nil {
			return f, image, fmt.Errorf("find who signed %s: %w", p.ref, err)
		}
		f.signers = image.Signers
	}
	return f, image, nil
}

// named is what people may type for the image of a promotion.
func (p *promotion) named() string {
	if p.bare {
		return p.ref.String()
	}
	return p.Reference
}

// setupOf reads an image's configuration; of an index, that of the platform it is scanned for.
func (b *backend) setupOf(ctx context.Context, at registry.Reference) (platform string, s imageSetup, err error) {
	type described struct {
		Config    struct{ Digest string }
		Manifests []struct {
			Digest   string
			Platform struct{ OS, Architecture, Variant string }
		}
	}
	var m described
	for depth := 0; ; depth++ {
		raw, _, err := b.remote.Manifest(ctx, at)
		if err != nil {
			return "", s, err
		}
		m = described{}
		if err := json.Unmarshal(raw, &m); err != nil {
			return "", s, tender.Errorf(tender.Invalid, "the manifest of %s cannot be read: %v", at, err)
		}
		if len(m.Manifests) == 0 || depth > 1 {
			break
		}
		best := m.Manifests[0]
		for i := len(m.Manifests) - 1; i >= 0; i-- {
			if one := m.Manifests[i]; one.Platform.OS == "linux" && (best.Platform.Architecture != runtime.GOARCH || one.Platform.Architecture == runtime.GOARCH) {
				best = one
			}
		}
		at = at.At(best.Digest)
		platform = strings.Trim(strings.Join([]string{best.Platform.OS, best.Platform.Architecture, best.Platform.Variant}, "/"), "/")
	}
	if m.Config.Digest == "" {
		return platform, s, nil
	}
	raw, err := b.remote.Blob(ctx, at, m.Config.Digest, mostConfig)
	if err != nil {
		return platform, s, err
	}
	// What is no image, such as a chart, says nothing of itself.
	if json.Unmarshal(raw, &s) != nil {
		s = imageSetup{}
	}
	return platform, s, nil
}

// scanAt is the report on a digest in a registry: it is read where a gate asks for it and
// nobody has read it yet. nil: there is none.
func (b *backend) scanAt(ctx context.Context, at registry.Reference, platform string, p *promotion, needed bool, report func(api.Event)) (*scan.Report, error) {
	r, err := b.scans.kept(ctx, p.digest)
	if tender.KindOf(err) == tender.NotFound {
		if !needed {
			return nil, nil
		}
		if err := b.scans.turn(ctx); err != nil {
			return nil, err
		}
		defer func() { <-b.scans.reading }()
		report(api.Event{Kind: api.KindPull, Text: p.named() + ": reading it from its registry"})
		img, err := b.remote.Image(ctx, at, platform)
		if err != nil {
			return nil, err
		}
		if r.Contents, err = scan.Read(ctx, scan.Source{Image: img, Reference: p.named(), Digest: p.digest, Platform: platform}, scan.Limits{}); err != nil {
			return nil, fmt.Errorf("scan %s: %w", p.named(), err)
		}
	} else if err != nil {
		return nil, err
	}
	r, err = b.scans.fresh(ctx, p.digest, r, time.Now())
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// rowOf is the promotion as the store keeps it, with its evidence.
func (b *backend) rowOf(ctx context.Context, p *promotion, f facts, verdicts []tender.Verdict) (store.Promotion, error) {
	row := store.Promotion{
		Step: p.step.Name, Repository: p.base, Digest: p.digest, Version: p.version, Source: sourceOf(p), Target: referenceText(p.target),
		From: p.from, Who: p.who.Name, Reason: p.Reason, At: time.Now().UTC(),
	}
	if p.stand != nil {
		row.Before = p.stand.Now.Digest
	}
	if p.begun != nil && p.begun.Undoes == 0 && p.begun.Target == row.Target {
		row.TagBefore = p.begun.TagBefore // what is there now may be of the one that was begun
		if p.begun.Digest == row.Digest {
			row.At = p.begun.At // so that the evidence is the same, where it was attached already
		}
	} else if p.target.Tag != "" {
		d, err := b.remote.Head(ctx, p.target)
		if err != nil && tender.KindOf(err) != tender.NotFound {
			return row, err
		}
		row.TagBefore = d.Digest
	}
	canary, err := b.canary(ctx, p)
	if err != nil {
		return row, err
	}
	labels := f.setup.Config.Labels
	e := api.PromotionEvidence{
		Format: 1, Digest: row.Digest, Repository: row.Repository, Version: row.Version, Step: row.Step, From: row.From, Source: row.Source, Target: row.Target,
		Who: row.Who, At: row.At, Reason: row.Reason, Revision: labels["org.opencontainers.image.revision"], URL: labels["org.opencontainers.image.source"],
		Built: f.setup.Created, Scan: scanVerdict(f.scan), Signers: append([]string{}, f.signers...), Canary: canary,
	}
	if e.Built.Year() < 1980 { // reproducible builds have no day
		e.Built = time.Time{}
	}
	for _, v := range verdicts {
		if len(e.Exceptions) < mostReasons {
			e.Exceptions = append(e.Exceptions, told(v))
		}
	}
	raw, err := json.Marshal(e)
	row.Evidence = string(raw)
	return row, err
}

func sourceOf(p *promotion) string {
	if p.ref.Tag == "" {
		return p.ref.At(p.digest).String()
	}
	r := p.ref
	r.Digest = ""
	return r.String()
}

func scanVerdict(r *scan.Report) *api.ScanVerdict {
	if r == nil {
		return nil
	}
	v := &api.ScanVerdict{Scanned: r.Scanned, Advisories: r.DB.Updated, Found: map[string]int{}}
	for _, f := range r.Findings {
		v.Found[f.Severity.String()]++
		if f.Kind == tender.Vulnerability && f.Fixable() {
			v.Fixable++
		}
	}
	return v
}

// canary is the last rollout of the digest in a project that is at the step before; nil: there was none.
func (b *backend) canary(ctx context.Context, p *promotion) (out *api.PromotionCanary, err error) {
	if p.from == "" {
		return nil, nil
	}
	var newest store.Rollout
	err = b.store.View(ctx, func(tx *store.Tx) error {
		projects, err := tx.Projects()
		if err != nil {
			return err
		}
		for _, name := range projects {
			g, err := tx.Head(name)
			if tender.KindOf(err) == tender.NotFound {
				continue
			}
			if err != nil {
				return err
			}
			if is, err := compose.Parse(g.YAML); err != nil || is.Environment != p.from {
				continue // of a project that cannot be read, nothing is known
			}
			all, err := tx.Rollouts(name, "")
			if err != nil {
				return err
			}
			for _, r := range all { // the newest first
				if r.ToImage.Digest == p.digest {
					if r.Started.After(newest.Started) {
						newest = r
					}
					break
				}
			}
		}
		return nil
	})
	if err != nil || newest.ID == 0 {
		return nil, err
	}
	out = &api.PromotionCanary{
		Project: newest.Project, Service: newest.Service, Rollout: newest.ID, Strategy: newest.Strategy, State: newest.State, Verdict: newest.Reason, Ended: newest.Ended,
	}
	if newest.Proof != nil {
		out.Verdict = cmp.Or(newest.Proof.Verdict, newest.Reason)
	}
	return out, nil
}

func wirePromotion(p store.Promotion) api.Promotion {
	out := api.Promotion{
		Step: p.Step, Repository: p.Repository, Digest: p.Digest, Version: p.Version, Source: p.Source, Target: p.Target, From: p.From, Before: p.Before,
		Undo: p.Undoes != 0, Unfinished: !p.Done, Who: p.Who, Reason: p.Reason, At: p.At, Referrer: p.Referrer,
	}
	if e := new(api.PromotionEvidence); p.Evidence != "" && json.Unmarshal([]byte(p.Evidence), e) == nil {
		out.Evidence = e
	}
	return out
}
