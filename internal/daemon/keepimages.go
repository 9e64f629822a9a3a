package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

// treeRetain reads what goes of the registry.
func treeRetain(c *Config, n *yaml.Node) (err error) {
	c.RegistryRetain, err = retainRules(n, "registry.retain")
	return err
}

// retainRules reads a list of rules.
func retainRules(n *yaml.Node, key string) (out []registry.Rule, err error) {
	n = plainNode(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, wrongNode(n, "%s is not a list of rules", key)
	}
	pattern := func(v string) error {
		_, err := filepath.Match(v, "")
		if err != nil {
			return fmt.Errorf("%q is not a pattern", v)
		}
		return nil
	}
	for i, one := range n.Content {
		var r registry.Rule
		err := mapping(one, fmt.Sprintf("%s[%d]", key, i), map[string]func(*yaml.Node) error{
			"repositories": words(&r.Repositories, pattern), "tags": words(&r.Tags, pattern), "keep_tags": words(&r.KeepTags, pattern),
			"older_than": promDuration(&r.OlderThan, time.Hour), "untagged": promDuration(&r.Untagged, 24*time.Hour),
			"keep": func(n *yaml.Node) (err error) {
				if r.Keep, err = strconv.Atoi(n.Value); err != nil || r.Keep < 1 {
					return wrongNode(n, "%q is not how many stay, 1 or more", n.Value)
				}
				return nil
			},
			"keep_signed": func(n *yaml.Node) (err error) {
				if r.KeepSigned, err = strconv.ParseBool(n.Value); err != nil {
					return wrongNode(n, "%q is neither true nor false", n.Value)
				}
				return nil
			},
		})
		if err != nil {
			return nil, err
		}
		if key != "registry.retain" && r.KeepSigned {
			return nil, wrongNode(one, "%s[%d].keep_signed: signatures lie in registries, an engine has none", key, i)
		}
		out = append(out, r)
	}
	return out, nil
}

// setClean reads when the registry is cleaned up.
func setClean(c *Config, v string) (err error) {
	c.RegistryGC, c.NoRegistryGC, err = timeOfDay(v)
	return err
}

// timeOfDay reads a time after midnight, or off.
func timeOfDay(v string) (after time.Duration, off bool, err error) {
	if v == "off" {
		return 0, true, nil
	}
	at, err := time.Parse("15:04", v)
	if err != nil {
		return 0, false, fmt.Errorf("%q is neither a time of day such as 03:00 nor off", v)
	}
	return time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute, false, nil
}

// nextAt is the next moment at which the clock on the wall shows this time of day.
func nextAt(now time.Time, of time.Duration) time.Time {
	y, m, d := now.Date()
	at := func(day int) time.Time {
		return time.Date(y, m, day, int(of/time.Hour), int(of/time.Minute)%60, 0, 0, now.Location())
	}
	if t := at(d); t.After(now) {
		return t
	}
	return at(d + 1)
}

// cleanDaily applies the rules and sweeps, each day.
func (b *backend) cleanDaily(ctx context.Context) error {
	for {
		next := time.NewTimer(time.Until(nextAt(time.Now(), b.config.RegistryGC)))
		select {
		case <-ctx.Done():
			next.Stop()
			return nil
		case <-next.C:
		}
		if !b.config.hasImages() {
			continue // nobody has pushed anything
		}
		who := api.Person{Name: "tender"}
		var err error
		if len(b.config.RegistryRetain) > 0 {
			_, err = b.RetainImages(ctx, who, api.RetainRequest{})
		}
		if err == nil {
			err = b.evict(ctx)
		}
		if err == nil {
			_, err = b.SweepRegistry(ctx, who, false)
		}
		if err != nil && ctx.Err() == nil {
			b.log.Error("the registry was not cleaned up", "err", err)
		}
		b.board.set("registry clean-up", func(p *api.Part) {
			p.Error = ""
			if err != nil {
				p.Error = err.Error()
			}
		})
	}
}

// keptImages opens the registry; Unavailable if it is off.
func (b *backend) keptImages(ctx context.Context) (*registry.Registry, error) {
	if b.images == nil {
		return nil, tender.Errorf(tender.Unavailable, "the registry is off").Hint("leave registry: off out of tender.yaml")
	}
	return b.images.get(ctx)
}

// neededImages are those of revisions that are kept: what runs, and what may be rolled back to;
// and what stands at a step of the pipeline, or would after an undo.
func (b *backend) neededImages(ctx context.Context) (map[string]string, error) {
	needed := map[string]string{}
	err := b.store.View(ctx, func(tx *store.Tx) error {
		put := func(i tender.ImageID, why string) {
			for _, name := range imageNames(i) {
				if needed[name] == "" {
					needed[name] = why
				}
			}
		}
		if err := eachHead(tx, func(p string, g store.Generation) error {
			for _, s := range g.Services {
				put(s.Image, "deployed by "+p+"/"+s.Service.Name)
			}
			return nil
		}); err != nil {
			return err
		}
		all, err := tx.Revisions("")
		if err != nil {
			return err
		}
		for _, r := range all {
			put(r.Image, "rollback of "+r.Project+"/"+r.Service.Name)
		}
		promotions, err := tx.Promotions("", "")
		if err != nil {
			return err
		}
		for _, s := range store.Stands(promotions) {
			put(tender.ImageID{Digest: s.Now.Digest}, "stands at "+s.Step)
			put(tender.ImageID{Digest: s.Now.TagBefore}, "undo of the promotion to "+s.Step)
			if s.Before != nil {
				put(tender.ImageID{Digest: s.Before.Digest}, "undo of the promotion to "+s.Step)
			}
		}
		for _, p := range promotions {
			if !p.Done {
				put(tender.ImageID{Digest: p.Digest}, "promotion to "+p.Step+" that was begun")
			}
		}
		return nil
	})
	return needed, err
}

// imageNames are the words by which the registry may know an image: the manifest's digest, that
// of its configuration, and repository:tag.
func imageNames(i tender.ImageID) (names []string) {
	if i.Digest != "" {
		names = append(names, i.Digest)
	}
	if i.ID != "" {
		names = append(names, i.ID)
	}
	ref, digest, _ := strings.Cut(i.Reference, "@")
	if digest != "" {
		names = append(names, digest)
	}
	if _, path, is := strings.Cut(ref, "/"); is && (digest == "" || strings.Contains(path, ":")) {
		if !strings.Contains(path, ":") {
			path += ":latest"
		}
		names = append(names, path)
	}
	return names
}

// RegistryImages is api.Backend's.
func (b *backend) RegistryImages(ctx context.Context, repository string) ([]api.RegistryImage, error) {
	r, err := b.keptImages(ctx)
	if err != nil {
		return nil, err
	}
	needed, err := b.neededImages(ctx)
	if err != nil {
		return nil, err
	}
	all, err := r.List(ctx, repository, needed)
	if err != nil {
		return nil, err
	}
	if repository != "" && len(all) == 0 {
		return nil, tender.Errorf(tender.NotFound, "the registry has no %s", repository).Hint("tender registry ls lists what there is")
	}
	verdicts, err := b.verdicts(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.RegistryImage, 0, len(all))
	for _, l := range all {
		i := api.RegistryImage{
			Repository: l.Repository, Tag: l.Tag, Digest: l.Digest, Size: l.Size, Pushed: l.Pushed, Who: l.Who, Signed: l.Signed, Needed: l.Needed,
		}
		if c, is := verdicts[l.Digest]; is {
			i.Scan = &c
		}
		out = append(out, i)
	}
	return out, nil
}

// SweepRegistry is api.Backend's.
func (b *backend) SweepRegistry(ctx context.Context, who api.Person, dry bool) (api.RegistrySweep, error) {
	r, err := b.keptImages(ctx)
	if err != nil {
		return api.RegistrySweep{}, err
	}
	s, err := r.Sweep(ctx, registry.SweepOptions{DryRun: dry})
	if !dry {
		b.auditEnd(ctx, who, "registry gc", "", fmt.Sprintf("%d blobs, %d bytes", s.Blobs, s.Bytes), err)
	}
	return api.RegistrySweep{
		DryRun: dry, Manifests: s.Manifests, Referenced: s.Referenced, Blobs: s.Blobs, Bytes: s.Bytes,
		Links: s.Links, Leased: s.Leased, Young: s.Young, Took: s.Took.Seconds(),
	}, err
}

// RetainImages is api.Backend's.
func (b *backend) RetainImages(ctx context.Context, who api.Person, q api.RetainRequest) (api.RegistryClean, error) {
	r, err := b.keptImages(ctx)
	if err != nil {
		return api.RegistryClean{}, err
	}
	o := registry.RetainOptions{Rules: b.config.RegistryRetain, Repository: q.Repository, Who: who.Name, DryRun: q.DryRun}
	if len(q.Rules) > 0 {
		o.Rules = nil
	}
	for _, rule := range q.Rules {
		o.Rules = append(o.Rules, ruleOf(rule))
	}
	if len(o.Rules) == 0 {
		return api.RegistryClean{}, tender.Errorf(tender.Invalid, "there are no rules, and nothing goes without one").
			Hint("tender registry retain --keep 10 --older-than 30d --dry-run, or registry.retain in tender.yaml")
	}
	if o.Needed, err = b.neededImages(ctx); err != nil {
		return api.RegistryClean{}, err
	}
	done, err := r.Retain(ctx, o)
	if !q.DryRun {
		b.auditEnd(ctx, who, "registry retain", "", fmt.Sprintf("%d tags, %d manifests", done.Tags, done.Manifests), err)
	}
	return cleaned(done, q.DryRun), err
}

// RemoveImage is api.Backend's.
func (b *backend) RemoveImage(ctx context.Context, who api.Person, q api.RemoveImageRequest) (api.RegistryClean, error) {
	r, err := b.keptImages(ctx)
	if err != nil {
		return api.RegistryClean{}, err
	}
	needed, err := b.neededImages(ctx)
	if err != nil {
		return api.RegistryClean{}, err
	}
	done, err := r.Remove(ctx, registry.RemoveOptions{
		Repository: q.Repository, Tag: q.Tag, Digest: q.Digest, Needed: needed, Force: q.Force, Who: who.Name, DryRun: q.DryRun,
	})
	return cleaned(done, q.DryRun), err
}

func cleaned(r registry.Retained, dry bool) api.RegistryClean {
	c := api.RegistryClean{DryRun: dry, Steps: []api.RegistryStep{}, Tags: r.Tags, Manifests: r.Manifests, Bytes: r.Bytes}
	for _, s := range r.Steps {
		c.Steps = append(c.Steps, api.RegistryStep(s))
	}
	return c
}
