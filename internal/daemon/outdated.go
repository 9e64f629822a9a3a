package daemon

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

const (
	// lookoutFor is how long an answer of a registry holds, lookoutWrong how long a failure does.
	lookoutFor, lookoutWrong = 10 * time.Minute, time.Minute
	// lookoutTags and lookoutDigests are how many repositories' tags and how many digests are kept.
	lookoutTags, lookoutDigests = 64, 1024
	// lookoutPatience is for how long a registry is waited for.
	lookoutPatience = 30 * time.Second
	// lookoutAtOnce is how many images are asked about at once, over all registries.
	lookoutAtOnce = 8
)

// lookout asks registries which tags and digests there are, politely, and keeps the answers
// for a while.
type lookout struct {
	remote lookoutRemote
	now    func() time.Time

	mu      sync.Mutex
	tags    map[string]answered[[]string]
	digests map[string]answered[string]
}

type lookoutRemote interface {
	Parse(ctx context.Context, text string) (registry.Reference, error)
	Head(ctx context.Context, ref registry.Reference) (registry.Descriptor, error)
	Tags(ctx context.Context, ref registry.Reference) ([]string, error)
}

type answered[T any] struct {
	is    T
	err   error
	until time.Time
}

func (b *backend) newLookout() *lookout {
	return &lookout{
		remote: b.registriesBy(nil, registry.NewPolite(http.DefaultTransport)), now: time.Now,
		tags: map[string]answered[[]string]{}, digests: map[string]answered[string]{},
	}
}

// kept answers from what is known, else asks; at most most answers are kept.
func kept[T any](l *lookout, known map[string]answered[T], key string, most int, ask func() (T, error)) (T, error) {
	l.mu.Lock()
	a, ok := known[key]
	l.mu.Unlock()
	if ok && l.now().Before(a.until) {
		return a.is, a.err
	}
	is, err := ask()
	a = answered[T]{is, err, l.now().Add(lookoutFor)}
	if err != nil {
		a.until = l.now().Add(lookoutWrong)
		if kind := tender.KindOf(err); kind == tender.Internal { // who asked has gone
			return is, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(known) >= most {
		oldest := ""
		for k, v := range known {
			if oldest == "" || v.until.Before(known[oldest].until) {
				oldest = k
			}
		}
		delete(known, oldest)
	}
	known[key] = a
	return is, err
}

// versions are the tags of a repository that are versions.
func (l *lookout) versions(ctx context.Context, ref registry.Reference) ([]string, error) {
	return kept(l, l.tags, ref.Host+"/"+ref.Repository, lookoutTags, func() ([]string, error) {
		ctx, cancel := context.WithTimeout(ctx, lookoutPatience)
		defer cancel()
		tags, err := l.remote.Tags(ctx, ref)
		return slices.DeleteFunc(tags, func(tag string) bool { _, is := tender.VersionOf(tag); return !is }), err
	})
}

// digest is the one that a tag has.
func (l *lookout) digest(ctx context.Context, ref registry.Reference) (string, error) {
	return kept(l, l.digests, ref.String(), lookoutDigests, func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, lookoutPatience)
		defer cancel()
		d, err := l.remote.Head(ctx, ref)
		return d.Digest, err
	})
}

// running is an image that is asked about.
type running struct {
	project, service string
	image            tender.ImageID
	built            bool
	rule             tender.Update
}

// look asks what newer images there are of one.
func (l *lookout) look(ctx context.Context, r running) (out api.Outdated) {
	out = api.Outdated{Project: r.project, Service: r.service, Image: r.image.Reference, Digest: r.image.Digest, Auto: r.rule.Auto, Window: r.rule.Window}
	fail := func(err error) api.Outdated {
		out.Problem = err.Error()
		return out
	}
	if r.built {
		out.Problem = "it is built here"
		return out
	}
	ref, err := l.remote.Parse(ctx, r.image.Reference)
	if err != nil {
		return fail(err)
	}
	if ref.Tag == "" {
		out.Problem = "it is named by its digest alone"
		return out
	}
	digest, err := l.digest(ctx, ref.At(ref.Tag))
	if err != nil && tender.KindOf(err) != tender.NotFound {
		return fail(err)
	}
	if err != nil && r.image.Digest == "" {
		out.Problem = "no registry has it"
		return out
	}
	out.NewDigest = digest
	out.Rebuilt = digest != "" && r.image.Digest != "" && digest != r.image.Digest
	out.Outdated = out.Rebuilt
	have, is := tender.VersionOf(ref.Tag)
	if !is {
		return out
	}
	within := tender.SameMajor(have)
	if r.rule.Range != "" {
		if within, err = tender.ParseRange(r.rule.Range); err != nil {
			return fail(err)
		}
	}
	out.Range = within.String()
	tags, err := l.versions(ctx, ref)
	if err != nil {
		return fail(err)
	}
	out.InRange, out.Newest = newest(ref.Tag, have, tags, within)
	out.Outdated = out.Rebuilt || out.InRange != ref.Tag || out.Newest != ref.Tag
	return out
}

// newest are the tags written like the one that runs that are the newest in a range and in all;
// those that are older than it are none.
func newest(tag string, have tender.Version, tags []string, within tender.Range) (inRange, in string) {
	inRange, in = tag, tag
	best, top := have, have
	for _, t := range tags {
		v, ok := tender.VersionOf(t)
		if !ok || v.Prerelease() || !have.Like(v) {
			continue
		}
		if v.Compare(top) > 0 {
			in, top = t, v
		}
		if within.Holds(v) && v.Compare(best) > 0 {
			inRange, best = t, v
		}
	}
	return inRange, in
}

// Outdated is api.Backend's.
func (b *backend) Outdated(ctx context.Context, q api.OutdatedRequest) ([]api.Outdated, error) {
	all, err := b.loop.Images(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := b.asked(ctx, q, all)
	if err != nil {
		return nil, err
	}
	var last map[string]store.ImageUpdate
	if err := b.store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.ImageUpdates(q.Project)
		last = map[string]store.ImageUpdate{}
		for _, u := range list { // the newest first
			if _, known := last[u.Project+"/"+u.Service]; !known {
				last[u.Project+"/"+u.Service] = u
			}
		}
		return err
	}); err != nil {
		return nil, err
	}
	out := make([]api.Outdated, len(wanted))
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(lookoutAtOnce)
	for i, r := range wanted {
		work.Go(func() error {
			out[i] = b.lookout.look(ctx, r)
			if u, ok := last[r.project+"/"+r.service]; ok && r.service != "" {
				out[i].Last = &api.LastUpdate{At: u.At, Image: u.Reference, Digest: u.Digest, State: u.State, Why: u.Why}
			}
			return ctx.Err()
		})
	}
	return out, work.Wait()
}

// asked chooses: services by their names, else images by reference.
func (b *backend) asked(ctx context.Context, q api.OutdatedRequest, all []deploy.ServiceImage) (out []running, err error) {
	inProject := slices.DeleteFunc(slices.Clone(all), func(s deploy.ServiceImage) bool { return q.Project != "" && s.Project != q.Project })
	service := func(s deploy.ServiceImage) running {
		r := running{project: s.Project, service: s.Service.Name, image: s.Image, built: s.Service.Build}
		if s.Service.Update != nil {
			r.rule = *s.Service.Update
		}
		return r
	}
	if len(q.Names) == 0 {
		for _, s := range inProject {
			out = append(out, service(s))
		}
		return out, nil
	}
	for _, name := range q.Names {
		found := false
		for _, s := range inProject {
			if s.Service.Name == name || s.Project+"/"+s.Service.Name == name {
				out, found = append(out, service(s)), true
			}
		}
		if found {
			continue
		}
		if q.Project != "" && !strings.ContainsAny(name, "/:@.") {
			var names []string
			for _, s := range inProject {
				names = append(names, s.Service.Name)
			}
			e := tender.Errorf(tender.NotFound, "no service %q in project %s", name, q.Project)
			if near := tender.Nearest(name, names); near != "" {
				return nil, e.Hint("did you mean: %s", near)
			}
			return nil, e.Hint("tender ps -p %s lists them", q.Project)
		}
		ref, err := b.lookout.remote.Parse(ctx, name)
		if err != nil {
			return nil, err
		}
		image := tender.ImageID{Reference: name}
		if ref.Digest == "" && !strings.HasSuffix(name, ":"+ref.Tag) {
			image.Reference += ":" + ref.Tag
		}
		id, err := b.engine.Resolve(ctx, image.Reference)
		if err == nil {
			id.Reference, image = image.Reference, id
		} else if tender.KindOf(err) != tender.NotFound {
			return nil, err
		}
		out = append(out, running{image: image})
	}
	return out, nil
}
