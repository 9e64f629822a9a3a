package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

// pin is the label of images that no clean-up takes.
const pin = "tender.pin"

// discardWithin is how long the engine may take for one image: who begins an up or a build waits for it.
const discardWithin = time.Minute

// fresh is how long an image stays that has just come: somebody is about to use it.
const freshImage = time.Hour

// PruneImages is api.Backend's. One clean-up goes at a time; the next waits, and looks anew.
func (b *backend) PruneImages(ctx context.Context, who api.Person, q api.PruneRequest) (out api.Pruned, err error) {
	p, err := b.pruneOf(q)
	if err != nil {
		return out, err
	}
	if q.DryRun {
		return b.prune(ctx, who, p)
	}
	b.host.turn.Lock()
	defer b.host.turn.Unlock()
	if err := ctx.Err(); err != nil {
		return out, err
	}
	out, err = b.prune(ctx, who, p)
	b.host.tidied(out.Images, out.Bytes+out.Cache)
	b.auditEnd(ctx, who, "image prune", "", fmt.Sprintf("%d images, %s, %s of the build cache", out.Images,
		units.HumanSizeWithPrecision(float64(out.Bytes), 3), units.HumanSizeWithPrecision(float64(out.Cache), 3)), err)
	return out, err
}

// pruning is one clean-up.
type pruning struct {
	rules   []registry.Rule
	until   float64 // share of the disk
	foreign bool
	cache   *engine.CachePrune // nil: it stays
	dry     bool
}

// pruneOf reads a request; what it leaves out the configuration says.
func (b *backend) pruneOf(q api.PruneRequest) (pruning, error) {
	c := b.config.Images
	p := pruning{until: q.UntilFree, foreign: q.Foreign || c.Foreign, dry: q.DryRun}
	for _, r := range q.Rules {
		p.rules = append(p.rules, ruleOf(r))
	}
	if q.BuildCache {
		p.cache = &engine.CachePrune{Keep: q.CacheKeep, OlderThan: time.Duration(q.CacheOlderThan * float64(time.Second))}
	}
	if len(p.rules) == 0 && p.cache == nil {
		p.rules, p.cache = c.Retain, c.BuildCache
	}
	if len(p.rules) == 0 && p.until > 0 {
		p.rules = []registry.Rule{{OlderThan: freshImage}} // all that nobody needs, as far as it must
	}
	if len(p.rules) == 0 && p.cache == nil {
		return p, tender.Errorf(tender.Invalid, "there are no rules, and nothing goes without one").
			Hint("tender image prune --keep 10 --older-than 30d --dry-run, or images.retain in tender.yaml")
	}
	return p, nil
}

func ruleOf(r api.RegistryRule) registry.Rule {
	return registry.Rule{
		Repositories: r.Repositories, Tags: r.Tags, Keep: r.Keep, KeepTags: r.KeepTags, KeepSigned: r.KeepSigned,
		OlderThan: time.Duration(r.OlderThan * float64(time.Second)), Untagged: time.Duration(r.Untagged * float64(time.Second)),
	}
}

// shelved is an image on the shelf, and what is decided about it.
type shelved struct {
	engine.Shelved
	brought store.HostImage // zero: somebody else did
	came    time.Time
	goes    bool
	why     string
	first   bool // a build has left it
}

func (b *backend) prune(ctx context.Context, who api.Person, p pruning) (out api.Pruned, err error) {
	out.DryRun = p.dry
	begun := time.Now()
	all, needed, err := b.shelf(ctx, p)
	if err != nil {
		return out, err
	}
	decide(all, p.rules, begun)
	free, size, err := b.engineDisk(ctx)
	if err != nil {
		return out, err
	}
	if size == 0 && p.until > 0 {
		return out, tender.Errorf(tender.Unavailable, "nobody can say how much of the disk of the engine at %s is free: it is not this host's", b.config.Engine).
			Hint("give an age or a number instead: tender image prune --older-than 30d --keep 10")
	}
	enough := func() bool { return p.until > 0 && float64(free) >= p.until*float64(size) }
	measure := func(estimate int64) error {
		if p.dry || size == 0 {
			free += max(0, estimate)
			return nil
		}
		free, size, err = b.engineDisk(ctx)
		return err
	}
	cache := func() (err error) {
		if p.cache == nil || enough() {
			return nil
		}
		cache := *p.cache
		p.cache = nil
		if p.dry {
			out.Cache, err = b.cacheGoes(ctx, cache, begun)
		} else {
			out.Cache, err = b.engine.PruneCache(ctx, cache)
		}
		if err != nil {
			return err
		}
		return measure(out.Cache)
	}
	defer func() {
		for i := range all {
			out.Steps = append(out.Steps, stepOf(&all[i]))
		}
		if size > 0 {
			out.Free = min(1, float64(free)/float64(size))
		}
	}()
	for i := range all {
		s := &all[i]
		if s.goes && !s.first {
			if err := cache(); err != nil {
				return out, err
			}
		}
		if !s.goes {
			continue
		}
		if enough() {
			s.goes, s.why = false, fmt.Sprintf("%.0f %% of the disk are free", 100*float64(free)/float64(size))
			continue
		}
		if !p.dry {
			if err := ctx.Err(); err != nil {
				return unfinished(all[i:], out), err
			}
			if err := b.letGo(ctx, who, s, needed); err != nil {
				return unfinished(all[i:], out), fmt.Errorf("remove image %s: %w", nameOf(s), err)
			}
			if !s.goes {
				continue
			}
		}
		out.Images++
		out.Bytes += max(0, s.Own)
		if err := measure(s.Own); err != nil {
			return unfinished(all[i+1:], out), err
		}
	}
	if err := cache(); err != nil {
		return out, err
	}
	if p.dry {
		return out, nil
	}
	return out, b.forgetImages(ctx, all, begun)
}

// unfinished says of those that a clean-up did not come to that they stay.
func unfinished(rest []shelved, out api.Pruned) api.Pruned {
	for i := range rest {
		if rest[i].goes {
			rest[i].goes, rest[i].why = false, "the clean-up was cut off"
		}
	}
	return out
}

func stepOf(s *shelved) api.PruneStep {
	out := api.PruneStep{ID: s.ID, Names: s.Names, Goes: s.goes, Why: s.why, Bytes: s.Own, Came: s.came}
	if len(s.Names) == 0 {
		out.Was = s.brought.Reference
	}
	return out
}

func nameOf(s *shelved) string {
	if len(s.Names) > 0 {
		return s.Names[0]
	}
	return strings.TrimPrefix(s.ID, "sha256:")[:min(12, len(strings.TrimPrefix(s.ID, "sha256:")))]
}

// shelf looks at all images, and says why some must stay.
func (b *backend) shelf(ctx context.Context, p pruning) ([]shelved, func(context.Context, *engine.Shelved) (string, error), error) {
	now := time.Now()
	list, err := b.engine.Shelf(ctx)
	if err != nil {
		return nil, nil, err
	}
	// After the list: who has taken a lease since, or was accepted, counts.
	needed := b.shelfNeeds
	look, err := needed(ctx)
	if err != nil {
		return nil, nil, err
	}
	brought := map[string]store.HostImage{}
	err = b.store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.HostImages()
		for _, i := range all {
			brought[i.ID] = i
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	b.host.mu.Lock()
	defer b.host.mu.Unlock()
	out := make([]shelved, 0, len(list))
	for i := range list {
		s := shelved{Shelved: list[i], brought: brought[list[i].ID]}
		s.came = s.Tagged
		if s.brought.Came.After(s.came) {
			s.came = s.brought.Came
		}
		bare := len(s.Names) == 0 && len(s.Digests) == 0
		if s.came.IsZero() && bare {
			s.came = s.Created // it was built here, and nothing has ever brought it from elsewhere
		}
		s.first = bare && s.brought.How == "built"
		why := look(&s.Shelved)
		if why == "" {
			why = b.host.leased(&s.Shelved)
		}
		pinned, pins := s.Labels[pin]
		switch {
		case why != "":
		case slices.ContainsFunc(s.Names, func(n string) bool { return strings.HasPrefix(n, engine.Arriving) }):
			why = "it is arriving"
		case pins && pinned != "false":
			why = "its label " + pin + " keeps it"
		case now.Sub(s.came) < freshImage && !s.came.IsZero(), now.Sub(s.Created) < freshImage && bare:
			why = "it came within the hour"
		case s.brought.ID == "" && !p.foreign:
			why = "Tender did not bring it: --foreign takes those, too"
		case s.Children:
			why = "another image is made from it"
		}
		s.why = why
		out = append(out, s)
	}
	again := func(ctx context.Context, s *engine.Shelved) (string, error) {
		look, err := needed(ctx)
		if err != nil {
			return "", err
		}
		return look(s), nil
	}
	return out, again, nil
}

// shelfNeeds says why an image is needed: what has it, and what may be rolled back to.
func (b *backend) shelfNeeds(ctx context.Context) (func(*engine.Shelved) string, error) {
	needed, err := b.neededImages(ctx)
	if err != nil {
		return nil, err
	}
	mounted, err := b.mountedImages(ctx)
	if err != nil {
		return nil, err
	}
	return func(s *engine.Shelved) string {
		switch n := len(s.Users); {
		case n == 1:
			return "container " + s.Users[0] + " has it"
		case n > 1:
			return fmt.Sprintf("container %s and %d more have it", s.Users[0], n-1)
		}
		if why := needed[s.ID]; why != "" {
			return why
		}
		for _, d := range s.Digests {
			if _, digest, _ := strings.Cut(d, "@"); needed[digest] != "" {
				return needed[digest]
			}
		}
		if s.Keeps != "" {
			return "rollback of " + s.Keeps
		}
		for ref, why := range mounted {
			if isNamed(s, ref) {
				return why
			}
		}
		return ""
	}, nil
}

// mountedImages are those that deployed services mount as volumes: no container says so.
func (b *backend) mountedImages(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	err := b.store.View(ctx, func(tx *store.Tx) error {
		return eachHead(tx, func(p string, g store.Generation) error {
			for _, s := range g.Services {
				fields, err := fieldsOf(s.Service, s.Image)
				if err != nil {
					return err
				}
				for _, v := range fields.Volumes {
					if v.Type == "image" {
						out[familiar(v.Source)] = "mounted by " + p + "/" + s.Service.Name
					}
				}
			}
			return nil
		})
	})
	return out, err
}

// decide asks the rules about those that nothing keeps, and puts those that go in their order:
// what builds have left, then the oldest.
func decide(all []shelved, rules []registry.Rule, now time.Time) {
	// What a build has left is nobody's by name any more.
	loose := slices.Clone(rules)
	for i := range loose {
		if loose[i].Untagged == 0 {
			loose[i].Untagged = freshImage
		}
	}
	ask := func(rules []registry.Rule, which func(*shelved) bool) {
		var tags []store.Tag
		var manifests []store.Manifest
		needed, at := map[string]string{}, map[string]*shelved{}
		for i := range all {
			s := &all[i]
			if !which(s) {
				continue
			}
			at[s.ID] = s
			if s.why != "" {
				needed[s.ID] = s.why
			}
			repositories := map[string]bool{}
			for _, n := range s.Names {
				repository, tag := split(n)
				repositories[repository] = true
				tags = append(tags, store.Tag{Repository: repository, Tag: tag, Digest: s.ID, Pushed: s.came})
			}
			if len(repositories) == 0 {
				repositories[repositoryHere(s)] = true
			}
			for r := range repositories {
				manifests = append(manifests, store.Manifest{Repository: r, Digest: s.ID, Pushed: s.came})
			}
		}
		stays := map[string]bool{}
		for _, step := range registry.DecideHere(rules, tags, manifests, needed, now) {
			s := at[step.Digest]
			// The reason of a name says more than that of the image, which is its name's.
			switch {
			case step.Goes && !stays[s.ID]:
				s.goes = true
				if step.Tag != "" || s.why == "" {
					s.why = step.Why
				}
			case !step.Goes && step.Tag != "" || !step.Goes && len(s.Names) == 0:
				if !stays[s.ID] || needed[s.ID] != "" {
					s.why = step.Why
				}
				s.goes, stays[s.ID] = false, true
			}
		}
	}
	ask(loose, func(s *shelved) bool { return s.first })
	ask(rules, func(s *shelved) bool { return !s.first })
	slices.SortStableFunc(all, func(x, y shelved) int {
		rank := func(s *shelved) int {
			switch {
			case !s.goes:
				return 2
			case s.first:
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(rank(&x), rank(&y)), x.came.Compare(y.came), cmp.Compare(x.ID, y.ID))
	})
}

// split takes a name apart as rules know it.
func split(name string) (repository, tag string) {
	name = familiar(name)
	at := strings.LastIndexByte(name, ':')
	return name[:at], name[at+1:]
}

// repositoryHere is where an image without a name belongs; "": nobody knows.
func repositoryHere(s *shelved) string {
	for _, d := range s.Digests {
		repository, _, _ := strings.Cut(familiar(d), "@")
		return repository
	}
	ref, _, _ := strings.Cut(s.brought.Reference, "@")
	if ref == "" || strings.HasPrefix(ref, "sha256:") {
		return ""
	}
	repository, _ := split(ref)
	return repository
}

// letGo removes one image, unless it has come to be needed since the look: nobody takes a lease meanwhile,
// which is why an engine that hangs is not waited for.
func (b *backend) letGo(ctx context.Context, who api.Person, s *shelved, needed func(context.Context, *engine.Shelved) (string, error)) (err error) {
	within, cancel := context.WithTimeoutCause(ctx, discardWithin, tender.Errorf(tender.Unavailable, "the engine does not remove image %s within %s", nameOf(s), discardWithin).
		Hint("see whether it answers: docker info"))
	defer cancel()
	b.host.mu.Lock()
	defer b.host.mu.Unlock()
	defer func() {
		if err != nil && within.Err() != nil && ctx.Err() == nil {
			err = context.Cause(within)
		}
	}()
	why := b.host.leased(&s.Shelved)
	if why == "" {
		if why, err = needed(within, &s.Shelved); err != nil {
			return err
		}
	}
	if why != "" {
		s.goes, s.why = false, why
		return nil
	}
	between := len(s.Between) > 0
	for _, id := range s.Between {
		if between {
			why, err := needed(within, &engine.Shelved{ID: id})
			if err != nil {
				return err
			}
			between = why == ""
		}
	}
	err = b.engine.Discard(within, s.ID, s.Names, between)
	if tender.KindOf(err) == tender.Conflict {
		s.goes, s.why = false, "meanwhile: "+err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	return b.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		if err := tx.RemoveHostImage(s.ID, time.Now()); err != nil {
			return err
		}
		return tx.AddAudit(store.Audit{Time: time.Now(), Who: who.Name, What: "image removed", Detail: strings.Join(append(slices.Clone(s.Names), s.ID), " ") + ": " + s.why})
	})
}

// forgetImages forgets what the engine did not have when the clean-up began.
func (b *backend) forgetImages(ctx context.Context, there []shelved, begun time.Time) error {
	return b.store.Update(ctx, func(tx *store.Tx) error {
		known, err := tx.HostImages()
		if err != nil {
			return err
		}
		for _, k := range known {
			if slices.ContainsFunc(there, func(s shelved) bool { return s.ID == k.ID }) {
				continue
			}
			if err := tx.RemoveHostImage(k.ID, begun); err != nil {
				return err
			}
		}
		return nil
	})
}

// cacheGoes is how much of the build cache would go.
func (b *backend) cacheGoes(ctx context.Context, o engine.CachePrune, now time.Time) (bytes int64, err error) {
	all, err := b.engine.BuildCache(ctx)
	if err != nil {
		return 0, err
	}
	slices.SortFunc(all, func(a, b engine.Cached) int { return a.Used.Compare(b.Used) })
	var total int64
	for _, c := range all {
		if !c.SharedWith {
			total += c.Size
		}
	}
	for _, c := range all {
		if c.InUse || c.SharedWith || o.OlderThan > 0 && now.Sub(c.Used) < o.OlderThan || total-bytes <= o.Keep {
			continue
		}
		bytes += c.Size
	}
	return bytes, nil
}
