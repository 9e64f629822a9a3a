package daemon

import (
	"cmp"
	"context"
	"slices"
	"strings"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

// ListImages is api.Backend's.
func (b *backend) ListImages(ctx context.Context, who api.Person, repository string) ([]api.ListedImage, error) {
	var past []store.Promotion
	if err := b.store.View(ctx, func(tx *store.Tx) (err error) { past, err = tx.Promotions("", ""); return err }); err != nil {
		return nil, err
	}
	heads, err := b.scans.heads(ctx)
	if err != nil {
		return nil, err
	}
	l := &listing{b: b, who: who, past: past, heads: heads, used: make([]bool, len(heads))}
	if repository != "" {
		ref, err := b.remote.Parse(ctx, repository)
		if err != nil {
			return nil, err
		}
		l.only, l.elsewhere = ref.Repository, ref.Host
	}
	if err := l.own(ctx); err != nil {
		return nil, err
	}
	if err := l.others(ctx); err != nil {
		return nil, err
	}
	if repository != "" && len(l.out) == 0 {
		return nil, tender.Errorf(tender.NotFound, "nothing is known of %s: it is not in our registry, and nothing runs it", repository).Hint("tender image ls lists what there is")
	}
	slices.SortStableFunc(l.out, func(x, y api.ListedImage) int {
		if x.Elsewhere != y.Elsewhere {
			if x.Elsewhere {
				return 1
			}
			return -1
		}
		return cmp.Or(strings.Compare(x.Repository, y.Repository), y.Pushed.Compare(x.Pushed), strings.Compare(x.Digest, y.Digest))
	})
	return l.out, nil
}

// listing is one under way.
type listing struct {
	b               *backend
	who             api.Person
	only, elsewhere string // the repository that was asked for, and its host; "": all
	past            []store.Promotion
	heads           []deployed
	used            []bool // of heads: told of
	out             []api.ListedImage
}

// own lists what lies in our own registry.
func (l *listing) own(ctx context.Context) error {
	if l.b.images == nil || l.elsewhere != "" {
		return nil
	}
	r, err := l.b.keptImages(ctx)
	if err != nil {
		return err
	}
	all, err := r.List(ctx, l.only, nil)
	if err != nil {
		return err
	}
	configs := map[string]string{} // of manifests
	err = l.b.store.View(ctx, func(tx *store.Tx) error {
		ms, err := tx.Manifests(l.only)
		for _, m := range ms {
			for _, ref := range m.Refs {
				if ref.Kind == "config" {
					configs[m.Digest] = ref.Digest
				}
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	account := accountOf(l.who)
	at := map[string]int{}
	for _, one := range all {
		if !account.May(one.Repository, registry.Pull) {
			continue
		}
		key := one.Repository + "@" + one.Digest
		i, seen := at[key]
		if !seen {
			i = len(l.out)
			at[key] = i
			l.out = append(l.out, api.ListedImage{Repository: one.Repository, Digest: one.Digest, Tags: []string{}, Pushed: one.Pushed, Size: one.Size, Signed: one.Signed})
		}
		if one.Tag != "" {
			l.out[i].Tags = append(l.out[i].Tags, one.Tag)
		}
	}
	for i := range l.out {
		one := &l.out[i]
		ref := registry.Reference{Repository: one.Repository, Digest: one.Digest}
		if err := l.fill(ctx, one, ref, one.Digest, configs[one.Digest]); err != nil {
			return err
		}
		if k := l.b.knowledge; one.Signed && k.signers != nil {
			// What is damaged in one image leaves the rest of the list as it is.
			if by, err := k.signers(ctx, tender.ImageID{Reference: ref.String(), Digest: one.Digest}); err == nil {
				one.Signers = append(one.Signers, by...)
			}
		}
	}
	return nil
}

// others lists what runs and does not lie in our own registry, as the engine knows it.
func (l *listing) others(ctx context.Context) error {
	for i, h := range l.heads {
		if l.used[i] {
			continue
		}
		ref, err := l.b.remote.Parse(ctx, h.image.Reference)
		if err != nil || l.only != "" && (ref.Repository != l.only || ref.Host != l.elsewhere) {
			continue // of an ID, there is no repository
		}
		if !sees(l.who, h.project) {
			continue
		}
		name := registry.Reference{Host: ref.Host, Repository: ref.Repository}.String()
		if ref.Host == "docker.io" {
			name = strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "library/")
		}
		one := api.ListedImage{Repository: name, Digest: h.image.Digest, Tags: []string{}, Elsewhere: true}
		for _, o := range l.heads {
			if o.image.ID != h.image.ID {
				continue
			}
			if other, err := l.b.remote.Parse(ctx, o.image.Reference); err == nil && other.Tag != "" && other.At("") == ref.At("") && !slices.Contains(one.Tags, other.Tag) {
				one.Tags = append(one.Tags, other.Tag)
			}
		}
		d, err := l.b.engine.Describe(ctx, h.image.ID)
		if err == nil {
			one.Size, one.Pushed = d.Size, d.Created
		} else if tender.KindOf(err) != tender.NotFound {
			return err
		}
		if err := l.fill(ctx, &one, ref, keyOf(h.image), h.image.ID); err != nil {
			return err
		}
		if k := l.b.knowledge; k.signers != nil && h.image.Digest != "" {
			// Another registry that does not answer leaves the rest of the list as it is.
			if by, err := k.signers(ctx, h.image); err == nil {
				one.Signers, one.Signed = append(one.Signers, by...), len(by) > 0
			}
		}
		l.out = append(l.out, one)
	}
	return nil
}

// fill adds where the image stands, where it runs, and what is wrong with it.
func (l *listing) fill(ctx context.Context, one *api.ListedImage, ref registry.Reference, key, id string) error {
	one.Signers, one.Stands, one.Running, one.Promotions = []string{}, []api.ImageStand{}, []string{}, []api.Promotion{}
	slices.Sort(one.Tags)
	if r, err := l.b.scans.kept(ctx, key); err == nil {
		one.Scan = scanVerdict(&r)
	} else if tender.KindOf(err) != tender.NotFound {
		return err
	}
	for i, h := range l.heads {
		if h.image.ID != id && (one.Digest == "" || h.image.Digest != one.Digest) {
			continue
		}
		l.used[i] = true
		if name := h.project + "/" + h.service; sees(l.who, h.project) && !slices.Contains(one.Running, name) {
			one.Running = append(one.Running, name)
		}
	}
	slices.Sort(one.Running)
	if one.Digest == "" {
		return nil
	}
	base := l.b.config.base(ref)
	undone := map[int64]bool{}
	for _, p := range l.past {
		if p.Undoes != 0 && p.Done {
			undone[p.Undoes] = true
		}
		if p.Repository != base || p.Digest != one.Digest {
			continue
		}
		w := wirePromotion(p)
		w.Undone = undone[p.ID]
		one.Promotions = append(one.Promotions, w)
		if !p.Done && p.Undoes == 0 {
			one.Stands = append(one.Stands, api.ImageStand{Step: p.Step, Since: p.At, Unfinished: true})
		}
	}
	for _, s := range store.Stands(l.past) {
		if s.Repository == base && s.Now.Digest == one.Digest {
			one.Stands = append(one.Stands, api.ImageStand{Step: s.Step, Since: s.Since})
		}
	}
	order := func(step string) int { _, i, _ := l.b.config.step(step); return i }
	slices.SortStableFunc(one.Stands, func(a, b api.ImageStand) int { return order(b.Step) - order(a.Step) })
	return nil
}

func sees(who api.Person, project string) bool {
	return len(who.Projects) == 0 || slices.Contains(who.Projects, project)
}
