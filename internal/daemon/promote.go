package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

// promoting lets one promotion at a time change a repository at a step.
type promoting struct {
	mu    sync.Mutex
	turns map[string]*promotionTurn
	// crash ends a promotion where it says so, as a kill would; nil but in tests.
	crash func(at string) error
}

type promotionTurn struct {
	turn  chan struct{}
	users int
}

// take waits for the turn of a repository at a step.
func (p *promoting) take(ctx context.Context, step, base string) (release func(), err error) {
	key := step + " " + base
	p.mu.Lock()
	if p.turns == nil {
		p.turns = map[string]*promotionTurn{}
	}
	t := p.turns[key]
	if t == nil {
		t = &promotionTurn{turn: make(chan struct{}, 1)}
		p.turns[key] = t
	}
	t.users++
	p.mu.Unlock()
	leave := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(p.turns, key)
		}
	}
	select {
	case t.turn <- struct{}{}:
		return func() { <-t.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

func (p *promoting) at(where string) error {
	if p.crash == nil {
		return nil
	}
	return p.crash(where)
}

// promotion is one under way.
type promotion struct {
	api.PromoteRequest
	who     api.Person
	step    Step
	ref     registry.Reference // what was named; read by digest from here on
	bare    bool               // with neither tag nor digest
	base    string
	version string
	from    string // the step before; "": none
	digest  string
	target  registry.Reference // the zero one: it stays where it is
	past    []store.Promotion  // of the repository, to all steps, the newest first
	stand   *store.Stand       // of the step; nil: nothing stands there
	begun   *store.Promotion   // that was not ended; nil: none
}

// Promote is api.Backend's.
func (b *backend) Promote(ctx context.Context, who api.Person, q api.PromoteRequest, report func(api.Event)) (out api.Promotion, err error) {
	p := &promotion{PromoteRequest: q, who: who, bare: bareName(q.Reference)}
	report = stamped(report, "")
	if !q.DryRun {
		what := "image promote"
		if q.Undo {
			what += " --undo"
		}
		defer func() {
			if out.Already {
				return
			}
			b.auditEnd(ctx, who, what, "", strings.TrimSpace(fmt.Sprintf("%s to %s %s %s", q.Reference, q.To, p.digest, q.Reason)), err)
		}()
	}
	place := 0
	if p.step, place, err = b.config.step(q.To); err != nil {
		return out, err
	}
	if q.From != "" {
		_, before, err := b.config.step(q.From)
		if err == nil && before >= place {
			err = tender.Errorf(tender.Invalid, "%s is no step before %s", q.From, q.To).Hint("the order is that of pipeline: in tender.yaml")
		}
		if err != nil {
			return out, err
		}
	}
	if p.ref, err = b.remote.Parse(ctx, q.Reference); err != nil {
		return out, err
	}
	p.base = b.config.base(p.ref)
	if !accountOf(who).May(p.base, registry.Push) {
		return out, tender.Errorf(tender.Denied, "%s may not promote %s", who.Name, p.base).Hint("it needs a token of scope deploy that is not for other projects alone")
	}
	release, err := b.promoting.take(ctx, p.step.Name, p.base)
	if err != nil {
		return out, err
	}
	defer release()
	if err := b.readPast(ctx, p); err != nil {
		return out, err
	}
	if q.Undo {
		return b.undo(ctx, p, report)
	}
	if err := b.pin(ctx, p, place); err != nil {
		return out, err
	}
	if p.target, err = b.config.target(p.step, p.ref, p.version); err != nil {
		return out, err
	}
	there, err := b.stands(ctx, p)
	if err != nil {
		return out, err
	}
	if there {
		out = wirePromotion(p.stand.Now)
		out.Already = true
		return out, nil
	}
	verdicts, facts, err := b.judgePromotion(ctx, p, report)
	if err != nil {
		return out, err
	}
	row, err := b.rowOf(ctx, p, facts, verdicts)
	if err != nil {
		return out, err
	}
	if !q.DryRun {
		if row, err = b.carry(ctx, p, row, report); err != nil {
			return out, err
		}
		b.tellPromotion(ctx, row)
	}
	out = wirePromotion(row)
	out.DryRun, out.Unfinished, out.Verdicts = q.DryRun, false, wireVerdicts(verdicts)
	return out, nil
}

// bareName says whether a reference has neither a tag nor a digest.
func bareName(text string) bool {
	return !strings.Contains(text, "@") && strings.LastIndexByte(text, ':') <= strings.LastIndexByte(text, '/')
}

// readPast reads what was promoted before.
func (b *backend) readPast(ctx context.Context, p *promotion) error {
	if err := b.store.View(ctx, func(tx *store.Tx) (err error) { p.past, err = tx.Promotions(p.base, ""); return err }); err != nil {
		return err
	}
	for _, s := range store.Stands(p.past) {
		if s.Step == p.step.Name {
			p.stand = &s
		}
	}
	for _, one := range p.past {
		if one.Step == p.step.Name && !one.Done {
			p.begun = &one
		}
	}
	return nil
}

// pin finds the digest that is meant, where it lies, its version, and the step before.
func (b *backend) pin(ctx context.Context, p *promotion, place int) error {
	if p.From != "" && p.bare {
		found := false
		for _, s := range store.Stands(p.past) {
			if s.Step != p.From {
				continue
			}
			found, p.digest, p.version = true, s.Now.Digest, s.Now.Version
			at, err := b.remote.Parse(ctx, placeOf(s.Now))
			if err != nil {
				return err
			}
			p.ref = at
		}
		if !found {
			return tender.Errorf(tender.NotFound, "nothing of %s stands at %s", p.base, p.From).Hint("tender image promote %s:VERSION --to %s, or see what stands where: tender image ls", p.Reference, p.From)
		}
	}
	if p.digest == "" {
		if err := b.onlyHere(ctx, p); err != nil {
			return err
		}
		d, err := b.remote.Head(ctx, p.ref)
		if err != nil {
			return err
		}
		if p.digest = d.Digest; p.ref.Digest != "" && p.ref.Digest != p.digest {
			return tender.Errorf(tender.Conflict, "%s answers with %s", p.ref, p.digest).Hint("its registry is not to be trusted")
		}
	}
	if p.version == "" {
		p.version = b.config.version(p.ref.Tag)
	}
	for _, one := range p.past {
		if p.version == "" && one.Digest == p.digest {
			p.version = one.Version
		}
	}
	p.from = p.From
	if p.from == "" {
		p.from = p.step.Gate.From
	}
	if p.from == "" {
		promoted, err := b.promotedTo(ctx, p.digest)
		if err != nil {
			return err
		}
		for _, s := range b.config.Pipeline[:place] {
			if slices.Contains(promoted, s.Name) {
				p.from = s.Name
			}
		}
	}
	return nil
}

// placeOf is where a promoted image lies.
func placeOf(p store.Promotion) string {
	if p.Target != "" {
		return p.Target
	}
	return p.Source
}

// onlyHere says what to type where an image was never pushed. Only a name without a registry
// can be of one: all others are asked for where they say.
func (b *backend) onlyHere(ctx context.Context, p *promotion) error {
	if p.ref.Host != "docker.io" || strings.HasPrefix(p.Reference, "docker.io/") || b.engine == nil {
		return nil
	}
	id, err := b.engine.Resolve(ctx, p.Reference)
	if err != nil || id.Digest != "" {
		return nil //nolint:nilerr // what the engine does not know, a registry may
	}
	own := "REGISTRY"
	if hosts := b.config.ownRegistryHosts(); len(hosts) > 0 && !b.config.NoRegistry {
		own = hosts[0]
	}
	return tender.Errorf(tender.NotFound, "%s is in the engine alone: it was never pushed, so it has no digest that could be promoted", p.Reference).
		Hint("tender image build -t %[1]s/%[2]s --push ., or docker tag %[2]s %[1]s/%[2]s && docker push %[1]s/%[2]s", own, p.Reference)
}

// stands says whether there is nothing to do.
func (b *backend) stands(ctx context.Context, p *promotion) (bool, error) {
	if p.stand == nil || p.begun != nil || p.stand.Now.Digest != p.digest || p.stand.Now.Target != referenceText(p.target) {
		return false, nil
	}
	if referenceText(p.target) == "" {
		return true, nil
	}
	d, err := b.remote.Head(ctx, p.target)
	if tender.KindOf(err) == tender.NotFound {
		return false, nil
	}
	return err == nil && d.Digest == p.digest, err
}

// referenceText is a reference, "" the zero one.
func referenceText(r registry.Reference) string {
	if r.Repository == "" {
		return ""
	}
	return r.String()
}

// carry does it. What is written first is that it was begun, and last that it is done: what a
// kill leaves in between counts for nothing, and the same promotion again ends it. The
// evidence is there before the tag, so that whoever sees the tag finds it.
func (b *backend) carry(ctx context.Context, p *promotion, row store.Promotion, report func(api.Event)) (store.Promotion, error) {
	err := b.store.Update(ctx, func(tx *store.Tx) (err error) { row.ID, err = tx.BeginPromotion(row); return err })
	if err != nil {
		return row, err
	}
	again := func(err error) error {
		if ctx.Err() != nil || tender.AdviceOf(err) != "" {
			return err
		}
		return tender.Errorf(tender.KindOf(err), "%w", err).Hint("the same promotion again goes on where it ended")
	}
	if err := b.promoting.at("begun"); err != nil {
		return row, err
	}
	from := p.ref.At(p.digest)
	to := from
	if p.target.Repository != "" {
		to = p.target.At(p.digest)
		if from != to {
			report(api.Event{Kind: api.KindPull, Text: fmt.Sprintf("copying %s to %s", p.ref, p.target)})
			if err := b.copyAll(ctx, from, to); err != nil {
				return row, again(err)
			}
		}
	}
	if err := b.promoting.at("copied"); err != nil {
		return row, err
	}
	row.Referrer, err = b.remote.Attach(ctx, to, registry.Artifact{
		Type: artifactPromotion, Annotations: map[string]string{"org.opencontainers.image.created": row.At.Format(time.RFC3339)},
		Blobs: []registry.Blob{{MediaType: artifactPromotion, Data: []byte(row.Evidence)}},
	})
	if err != nil {
		return row, again(fmt.Errorf("attach the evidence: %w", err))
	}
	if err := b.promoting.at("attached"); err != nil {
		return row, err
	}
	if p.ref.Tag != "" && p.ref.Digest == "" && !(p.From != "" && p.bare) {
		now, err := b.remote.Head(ctx, p.ref)
		if err != nil {
			return row, again(err)
		}
		if now.Digest != p.digest {
			return row, tender.Errorf(tender.Conflict, "%s was %s when the gate was asked, and is %s now: somebody pushed meanwhile", p.ref, p.digest, now.Digest).
				Hint("the same promotion again asks about the new one; %s@%s names the old one", registry.Reference{Host: p.ref.Host, Repository: p.ref.Repository}, p.digest)
		}
	}
	if p.target.Tag != "" {
		if arrived, err := b.remote.Copy(ctx, to, p.target); err != nil {
			return row, again(err)
		} else if arrived != p.digest {
			return row, tender.Errorf(tender.Conflict, "%s is %s after %s was promoted to it", p.target, arrived, p.digest).Hint("somebody pushed there meanwhile: again")
		}
	}
	if err := b.promoting.at("tagged"); err != nil {
		return row, err
	}
	row.Done = true
	// It is: whoever goes away now does not make it undone.
	return row, b.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.EndPromotion(row.ID, row.Referrer) })
}

// copyAll copies an image and, to another repository, what refers to it: signatures, SBOMs,
// what was attached before.
func (b *backend) copyAll(ctx context.Context, from, to registry.Reference) error {
	arrived, err := b.remote.Copy(ctx, from, to)
	if err != nil {
		return err
	}
	if arrived != from.Digest {
		return tender.Errorf(tender.Conflict, "%s arrived as %s", from, arrived).Hint("the registry is not to be trusted")
	}
	if from.Host == to.Host && from.Repository == to.Repository {
		return nil
	}
	if err := b.remote.CopySignatures(ctx, from, to); err != nil {
		return err
	}
	found, err := b.remote.Referrers(ctx, from, "")
	if err != nil {
		return err
	}
	for _, d := range found {
		if _, err := b.remote.Copy(ctx, from.At(d.Digest), to.At(d.Digest)); err != nil {
			return fmt.Errorf("copy what refers to it: %w", err)
		}
	}
	// As cosign ties attestations and SBOMs to an image. What is there already stays.
	for _, kind := range []string{".att", ".sbom"} {
		tag := strings.Replace(from.Digest, ":", "-", 1) + kind
		_, err := b.remote.Head(ctx, from.At(tag))
		if tender.KindOf(err) == tender.NotFound {
			continue
		}
		if err == nil {
			if _, err = b.remote.Head(ctx, to.At(tag)); tender.KindOf(err) == tender.NotFound {
				_, err = b.remote.Copy(ctx, from.At(tag), to.At(tag))
			}
		}
		if err != nil {
			return fmt.Errorf("copy what refers to it: %w", err)
		}
	}
	return nil
}

// promotedTo is what the gate asks.
func (b *backend) promotedTo(ctx context.Context, digest string) ([]string, error) {
	steps := []string{}
	if digest == "" {
		return steps, nil
	}
	err := b.store.View(ctx, func(tx *store.Tx) error {
		found, err := tx.PromotedTo(digest)
		steps = append(steps, found...)
		return err
	})
	return steps, err
}

// tellPromotion tells those who follow events: of the projects that run the repository, else of all.
func (b *backend) tellPromotion(ctx context.Context, p store.Promotion) {
	if b.loop == nil {
		return
	}
	n := deploy.News{Kind: deploy.NewsPromoted, Text: said(p)}
	told := false
	heads, err := b.scans.heads(ctx)
	if err != nil {
		b.log.Warn("nobody knows whom a promotion concerns", "err", err)
	}
	for _, h := range heads {
		ref, err := b.remote.Parse(ctx, h.image.Reference)
		if err != nil || b.config.base(ref) != p.Repository || told && n.Project == h.project {
			continue
		}
		told, n.Project = true, h.project
		b.loop.Tell(n)
	}
	if !told {
		b.loop.Tell(n)
	}
}

// said is a promotion in one line.
func said(p store.Promotion) string {
	name := p.Repository
	if p.Version != "" {
		name += ":" + p.Version
	}
	var out string
	switch {
	case p.Undoes == 0:
		out = fmt.Sprintf("%s (%s) promoted to %s by %s", name, shortDigest(p.Digest), p.Step, p.Who)
	case p.Digest == "":
		out = fmt.Sprintf("%s: nothing stands at %s any more, by %s", p.Repository, p.Step, p.Who)
	default:
		out = fmt.Sprintf("%s (%s) stands again at %s, by %s", name, shortDigest(p.Digest), p.Step, p.Who)
	}
	if p.Reason != "" {
		out += ": " + p.Reason
	}
	return out
}

// shortDigest is the beginning of one, as people compare them.
func shortDigest(d string) string {
	_, hex, _ := strings.Cut(d, ":")
	return hex[:min(12, len(hex))]
}
