package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
)

// pulls is how many images are fetched at once.
const pulls = 3

// need is one image that a project is made from.
type need struct {
	ref, platform, policy string
	build                 bool
	services              []string
}

// needs gathers the images of a project, each once per platform and policy.
func needs(p tender.Project, policy string) []need {
	var out []need
	for _, s := range p.Services {
		n := need{ref: s.Image, platform: s.Platform, policy: s.PullPolicy, build: s.Build}
		if policy != "" {
			n.policy = policy
		}
		at := slices.IndexFunc(out, func(o need) bool { return o.ref == n.ref && o.platform == n.platform && o.policy == n.policy })
		if at < 0 {
			out = append(out, n)
			at = len(out) - 1
		}
		out[at].services = append(out[at].services, s.Name)
	}
	return out
}

// lookUp finds the images that are here. For a plan: it pulls nothing, and what
// is not here counts as an image of its own.
func (b *backend) lookUp(ctx context.Context, p tender.Project, policy string) (map[string]tender.ImageID, []string, error) {
	found := map[string]tender.ImageID{}
	var warnings []string
	for _, n := range needs(p, policy) {
		id, err := b.engine.Resolve(ctx, n.ref)
		switch {
		case tender.KindOf(err) == tender.NotFound && n.build:
			warnings = append(warnings, fmt.Sprintf("image %s is not built yet: up builds it", n.ref))
			id = tender.ImageID{Reference: n.ref}
		case tender.KindOf(err) == tender.NotFound:
			warnings = append(warnings, fmt.Sprintf("image %s is not here yet: up pulls it", n.ref))
			id = tender.ImageID{Reference: n.ref}
		case err != nil:
			return nil, nil, err
		case n.policy == "always" && !n.build:
			warnings = append(warnings, fmt.Sprintf("image %s may change: up looks for a newer one", n.ref))
		}
		for _, s := range n.services {
			found[s] = id
		}
	}
	return found, warnings, nil
}

// fetch resolves the images of a project, and pulls those that are missing or
// that its pull policy wants anew.
func (b *backend) fetch(ctx context.Context, p tender.Project, s api.Submission, report func(api.Event)) (map[string]tender.ImageID, error) {
	var mu sync.Mutex
	safe := func(e api.Event) {
		mu.Lock()
		defer mu.Unlock()
		report(e)
	}
	found := map[string]tender.ImageID{}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(pulls)
	for _, n := range needs(p, s.Pull) {
		if len(s.Services) > 0 && s.NoDeps && !slices.ContainsFunc(n.services, func(v string) bool { return slices.Contains(s.Services, v) }) {
			continue
		}
		work.Go(func() error {
			id, err := b.engine.Resolve(ctx, n.ref)
			missing := tender.KindOf(err) == tender.NotFound
			if err != nil && !missing {
				return err
			}
			switch {
			case missing && n.build:
				return tender.Errorf(tender.NotFound, "image %s of service %s is not built", n.ref, n.services[0]).Hint("tender up --build")
			case missing && n.policy == "never":
				return tender.Errorf(tender.NotFound, "image %s of service %s is not here, and pull_policy is never", n.ref, n.services[0]).
					Hint("tender pull %s, or docker load", n.services[0])
			case missing, n.policy == "always" && !n.build:
				auth, err := b.auth(ctx, s.Auths, n.ref)
				if err != nil {
					return err
				}
				err = b.pull(ctx, n.ref, n.platform, auth, safe)
				if err != nil && missing {
					return err
				}
				if err != nil { // the one that is here serves as well as yesterday
					safe(api.Event{Kind: api.KindWarning, Text: fmt.Sprintf("%v; the image that is here is used", err)})
				} else if id, err = b.engine.Resolve(ctx, n.ref); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, v := range n.services {
				found[v] = id
			}
			return nil
		})
	}
	return found, work.Wait()
}

func (b *backend) pull(ctx context.Context, ref, platform, auth string, report func(api.Event)) error {
	err := b.engine.Pull(ctx, ref, platform, auth, func(p engine.Progress) {
		report(api.Event{Kind: api.KindPull, Text: strings.TrimSpace(ref + " " + p.ID + " " + p.Text), Current: p.Current, Total: p.Total})
	})
	if err == nil {
		b.cameHere(ctx, "pulled", ref)
	}
	return err
}

// imagesOf names what down --rmi removes: all, or those that were built here.
func (b *backend) imagesOf(ctx context.Context, project, which string) ([]string, error) {
	if which != "local" && which != "all" {
		return nil, tender.Errorf(tender.Invalid, "down --rmi %s", which).Hint("use --rmi local or --rmi all")
	}
	p, err := b.loop.Generation(ctx, project, 0)
	if err != nil {
		return nil, err
	}
	var refs []string
	for _, s := range p.Services {
		if which == "all" || s.Service.Build {
			refs = append(refs, s.Service.Image)
		}
	}
	slices.Sort(refs)
	return slices.Compact(refs), nil
}

// Images looks references up among the engine's images.
func (b *backend) Images(ctx context.Context, refs []string) ([]api.Image, error) {
	var out []api.Image
	for _, ref := range refs {
		i, err := b.engine.Describe(ctx, ref)
		if tender.KindOf(err) == tender.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, api.Image{Reference: ref, ID: i.ID, Digest: i.Digest, Platform: i.Platform, Size: i.Size, Created: i.Created})
	}
	return out, nil
}

// Pull fetches an image.
func (b *backend) Pull(ctx context.Context, who api.Person, ref, auth string, report func(api.Event)) error {
	auth, err := b.auth(ctx, map[string]string{registryOf(ref): auth}, ref)
	if err == nil {
		err = b.pull(ctx, ref, "", auth, stamped(report, ""))
	}
	b.auditEnd(ctx, who, "pull", "", ref, err)
	return err
}

// Push sends an image to its registry.
func (b *backend) Push(ctx context.Context, who api.Person, ref, auth string, report func(api.Event)) error {
	report = stamped(report, "")
	auth, err := b.auth(ctx, map[string]string{registryOf(ref): auth}, ref)
	if err == nil {
		err = b.engine.Push(ctx, ref, auth, func(p engine.Progress) {
			report(api.Event{Kind: api.KindPull, Text: strings.TrimSpace(ref + " " + p.ID + " " + p.Text), Current: p.Current, Total: p.Total})
		})
	}
	b.auditEnd(ctx, who, "push", "", ref, err)
	return err
}
