package daemon

import (
	"context"
	"fmt"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

// undo makes a step stand where it stood before. What was attached stays, for it happened.
func (b *backend) undo(ctx context.Context, p *promotion, report func(api.Event)) (out api.Promotion, err error) {
	if g := p.begun; g != nil && g.Undoes == 0 {
		switch {
		case p.bare || meant(p.ref, *g):
			return b.undoBegun(ctx, p, report)
		case p.stand != nil && meant(p.ref, p.stand.Now):
			name := promoted(*g)
			return out, tender.Errorf(tender.Conflict, "a promotion of %s (%s) to %s was begun and never ended, and its tag may be there already", name, shortDigest(g.Digest), p.step.Name).
				Hint("tender image promote %[1]s --to %[2]s ends it, and with --undo takes it back", name, p.step.Name)
		}
	}
	// A label can be that of several promotions: only a digest, or no label at all, says that
	// one more is to be undone.
	if p.stand == nil || !p.bare && (p.ref.Digest == "" || !meant(p.ref, p.stand.Now)) {
		if last, undone := p.lastUndone(); undone != nil && (p.bare && p.stand == nil || !p.bare && meant(p.ref, *undone)) {
			out = wirePromotion(*last)
			out.Already = true
			return out, nil
		}
	}
	switch {
	case p.stand == nil:
		return out, tender.Errorf(tender.NotFound, "nothing of %s stands at %s", p.base, p.step.Name).Hint("tender image ls shows what stands where")
	case !p.bare && !meant(p.ref, p.stand.Now):
		name := promoted(p.stand.Now)
		return out, tender.Errorf(tender.Conflict, "at %s stands %s (%s), not %s", p.step.Name, name, shortDigest(p.stand.Now.Digest), p.ref).
			Hint("tender image promote %s --to %s --undo", name, p.step.Name)
	}
	now := p.stand.Now
	p.digest = now.Digest
	row := store.Promotion{
		Step: p.step.Name, Repository: p.base, Version: now.Version, Source: now.Source, Target: now.Target, From: now.From, Before: now.Digest, Undoes: now.ID,
		Who: p.who.Name, Reason: p.Reason, At: time.Now().UTC(),
	}
	if before := p.stand.Before; before != nil {
		row.Digest, row.Version, row.Source = before.Digest, before.Version, before.Source
	}
	if p.DryRun {
		out = wirePromotion(row)
		out.DryRun, out.Unfinished = true, false
		return out, nil
	}
	if err := b.store.Update(ctx, func(tx *store.Tx) (err error) { row.ID, err = tx.BeginPromotion(row); return err }); err != nil {
		return out, err
	}
	if err := b.promoting.at("undo begun"); err != nil {
		return out, err
	}
	warning := ""
	if now.Target != "" {
		if warning, err = b.tagBack(ctx, now, had(now, p.stand.Before)); err != nil {
			return out, err
		}
	}
	if warning != "" {
		report(api.Event{Kind: api.KindWarning, Text: warning})
	}
	if err := b.promoting.at("undo tagged"); err != nil {
		return out, err
	}
	if err := b.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.EndPromotion(row.ID, "") }); err != nil {
		return out, err
	}
	row.Done = true
	b.tellPromotion(ctx, row)
	out = wirePromotion(row)
	if warning != "" {
		out.Warnings = []string{warning}
	}
	return out, nil
}

// undoBegun takes back what a promotion that was cut off has done. What stands stays, and
// nothing becomes of it in the history, for it never stood.
func (b *backend) undoBegun(ctx context.Context, p *promotion, report func(api.Event)) (out api.Promotion, err error) {
	g := *p.begun
	p.digest = g.Digest
	row := store.Promotion{
		Step: p.step.Name, Repository: p.base, Version: g.Version, Source: g.Source, Target: g.Target, From: g.From, Before: g.Digest, Undoes: g.ID,
		Who: p.who.Name, Reason: p.Reason, At: time.Now().UTC(), Done: true,
	}
	if p.stand != nil {
		row.Digest, row.Version, row.Source = p.stand.Now.Digest, p.stand.Now.Version, p.stand.Now.Source
	}
	out = wirePromotion(row)
	if out.DryRun = p.DryRun; p.DryRun {
		return out, nil
	}
	if g.Target != "" {
		var stands *store.Promotion
		if p.stand != nil {
			stands = &p.stand.Now
		}
		warning, err := b.tagBack(ctx, g, had(g, stands))
		if err != nil {
			return out, err
		}
		if warning != "" {
			report(api.Event{Kind: api.KindWarning, Text: warning})
			out.Warnings = []string{warning}
		}
	}
	return out, b.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.DropPromotion(g.ID) })
}

// promoted is what people type for what was promoted.
func promoted(p store.Promotion) string {
	if p.Version != "" {
		return p.Repository + ":" + p.Version
	}
	return p.Repository + "@" + p.Digest
}

// meant says whether a reference names what was promoted.
func meant(ref registry.Reference, p store.Promotion) bool {
	if ref.Digest != "" {
		return ref.Digest == p.Digest
	}
	r := ref.String()
	return r == p.Source || r == p.Target || ref.Tag == p.Version
}

// lastUndone is the undo that came last at the step, with what it undid; nil: the last was none.
func (p *promotion) lastUndone() (last, undone *store.Promotion) {
	for _, one := range p.past {
		if one.Step != p.step.Name || !one.Done {
			continue
		}
		if last == nil {
			if one.Undoes == 0 {
				return nil, nil
			}
			last = &one
		}
		if one.ID == last.Undoes {
			return last, &one
		}
	}
	return nil, nil
}

// had is the digest that the tag of an undone promotion goes back to: that of the promotion
// which stands then, if it wrote the same tag, for no gate was asked about what somebody else
// left there in between. "": none.
func had(p store.Promotion, stands *store.Promotion) string {
	if stands != nil && stands.Target == p.Target {
		return stands.Digest
	}
	return p.TagBefore
}

// tagBack gives the tag of an undone promotion back to a digest, or removes it.
// A tag that somebody has moved since is left alone. The warning says what is left to do.
func (b *backend) tagBack(ctx context.Context, p store.Promotion, to string) (warning string, err error) {
	target, err := b.remote.Parse(ctx, p.Target)
	if err != nil || target.Tag == "" {
		return "", err
	}
	d, err := b.remote.Head(ctx, target)
	switch {
	case tender.KindOf(err) == tender.NotFound && to == "":
		return "", nil
	case err != nil && tender.KindOf(err) != tender.NotFound:
		return "", err
	case err == nil && d.Digest == to:
		return "", nil // a promotion that was cut off has done it
	case err == nil && d.Digest != p.Digest:
		return fmt.Sprintf("%s was moved to %s since, and stays there", target, shortDigest(d.Digest)), nil
	case to != "":
		_, err := b.remote.Copy(registry.Expect(ctx, d.Digest), target.At(to), target)
		if err != nil {
			return "", fmt.Errorf("give %s back: %w", target, err)
		}
		return "", nil
	}
	if err := b.remote.Untag(ctx, target); err != nil && tender.KindOf(err) != tender.NotFound {
		if ctx.Err() != nil {
			return "", err
		}
		return fmt.Sprintf("the tag %s stays, remove it by hand: %v", target, err), nil
	}
	return "", nil
}
