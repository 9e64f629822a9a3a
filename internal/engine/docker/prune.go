package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// sharedSince is the API from which a list of images says what they share. Older ones say it
// where they measure the whole disk.
const sharedSince = "1.42"

// maxBetween is how many steps of a build are followed.
const maxBetween = 256

// Shelf implements engine.Images. Containers are listed after images: who has got one meanwhile counts.
func (e *Engine) Shelf(ctx context.Context) ([]engine.Shelved, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return nil, err
	}
	all, err := e.c().ImageList(ctx, client.ImageListOptions{SharedSize: true})
	if err != nil {
		return nil, wrap(err, "list images")
	}
	shared := map[string]int64{}
	for _, i := range all.Items {
		shared[i.ID] = i.SharedSize
	}
	if versions.LessThan(e.c().ClientVersion(), sharedSince) {
		df, err := e.c().DiskUsage(ctx, client.DiskUsageOptions{Images: true})
		if err != nil {
			return nil, wrap(err, "measure images")
		}
		for _, i := range df.Images.Items {
			shared[i.ID] = i.SharedSize
		}
	}
	// Those that builds left between two steps have no place in the list above, yet they are children.
	between, err := e.c().ImageList(ctx, client.ImageListOptions{All: true})
	if err != nil {
		return nil, wrap(err, "list images")
	}
	parent, untagged, children := map[string]string{}, map[string]bool{}, map[string]bool{}
	for _, i := range between.Items {
		parent[i.ID], untagged[i.ID], children[i.ParentID] = i.ParentID, len(named(i.RepoTags)) == 0, true
	}
	containers, err := e.c().ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, wrap(err, "list who has images")
	}
	users, keeps := map[string][]string{}, map[string]string{}
	for _, c := range containers.Items {
		if project := c.Labels[labelKeep]; project != "" && c.Labels[labelImage] == c.ImageID {
			keeps[c.ImageID] = project
			continue
		}
		name := short(c.ID)
		if len(c.Names) > 0 {
			name = strings.TrimPrefix(c.Names[0], "/")
		}
		users[c.ImageID] = append(users[c.ImageID], name)
	}
	out := make([]engine.Shelved, 0, len(all.Items))
	for _, i := range all.Items {
		s := engine.Shelved{
			ID: i.ID, Names: named(i.RepoTags), Digests: named(i.RepoDigests), Size: i.Size, Own: -1, Created: time.Unix(i.Created, 0).UTC(),
			Labels: i.Labels, Users: users[i.ID], Keeps: keeps[i.ID], Children: children[i.ID],
		}
		for up := parent[i.ID]; up != "" && untagged[up] && len(s.Between) < maxBetween; up = parent[up] {
			s.Between = append(s.Between, up)
		}
		if n, ok := shared[i.ID]; ok && n >= 0 {
			s.Own = max(0, i.Size-n)
		}
		out = append(out, s)
	}
	return out, each(len(out), func(n int) error {
		got, err := e.c().ImageInspect(ctx, out[n].ID)
		if err != nil {
			if kind(err) == tender.NotFound {
				return nil // gone meanwhile
			}
			return wrap(err, "inspect image %s", short(strings.TrimPrefix(out[n].ID, "sha256:")))
		}
		if t := got.Metadata.LastTagTime; t.Year() > 1 {
			out[n].Tagged = t.UTC()
		}
		return nil
	})
}

// named are names without those that older engines write where there is none.
func named(list []string) (out []string) {
	for _, n := range list {
		if !strings.Contains(n, "<none>") {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// Discard implements engine.Images. An image with several names is refused by its ID without
// force, so all but the last go by themselves; they come back where the image then stays.
func (e *Engine) Discard(ctx context.Context, id string, names []string, between bool) error {
	brief := short(strings.TrimPrefix(id, "sha256:"))
	got, err := e.c().ImageInspect(ctx, id)
	if err != nil {
		if kind(err) == tender.NotFound {
			return nil
		}
		return wrap(err, "inspect image %s", brief)
	}
	has := references(got.InspectResponse)
	for _, n := range has {
		if !strings.Contains(n, "@") && !slices.Contains(names, n) {
			return tender.Errorf(tender.Conflict, "image %s is called %s by now", brief, n)
		}
	}
	// A name says nothing of who else has the image: it would go although the image cannot.
	users, err := e.c().ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("ancestor", id)})
	if err != nil {
		return wrap(err, "list who has image %s", brief)
	}
	if len(users.Items) > 0 {
		return tender.Errorf(tender.Conflict, "container %s has it", short(users.Items[0].ID))
	}
	var gone []string
	for len(has) > 1 {
		n := has[0]
		has = has[1:]
		// It may have become another image's.
		if is, err := e.c().ImageInspect(ctx, n); err != nil || is.ID != got.ID {
			continue
		}
		if _, err = e.c().ImageRemove(ctx, n, client.ImageRemoveOptions{}); err != nil && kind(err) != tender.NotFound {
			return errors.Join(wrap(err, "take the name %s from an image", n), e.back(ctx, id, gone))
		}
		gone = append(gone, n)
	}
	_, err = e.c().ImageRemove(ctx, id, client.ImageRemoveOptions{PruneChildren: between})
	if err == nil || kind(err) == tender.NotFound {
		return nil
	}
	return errors.Join(wrap(err, "remove image %s", brief), e.back(ctx, id, gone))
}

// references are the names that stand one for themselves: a digest goes with the last tag of its repository.
func references(i image.InspectResponse) []string {
	has := named(i.RepoTags)
	for _, d := range named(i.RepoDigests) {
		repository := repositoryOf(d)
		if !slices.ContainsFunc(has, func(n string) bool { return repositoryOf(n) == repository }) {
			has = append(has, d)
		}
	}
	return has
}

// back gives an image that stays the names that it had, unless they are another's by now.
func (e *Engine) back(ctx context.Context, id string, names []string) (err error) {
	ctx = context.WithoutCancel(ctx)
	for _, n := range names {
		if strings.Contains(n, "@") {
			continue // a digest cannot be given
		}
		if _, is := e.c().ImageInspect(ctx, n); is == nil {
			continue
		}
		_, e := e.c().ImageTag(ctx, client.ImageTagOptions{Source: id, Target: n})
		err = errors.Join(err, wrap(e, "give image its name %s back", n))
	}
	return err
}

// BuildCache implements engine.Images.
func (e *Engine) BuildCache(ctx context.Context) ([]engine.Cached, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return nil, err
	}
	df, err := e.c().DiskUsage(ctx, client.DiskUsageOptions{BuildCache: true, Verbose: !versions.LessThan(e.c().ClientVersion(), "1.52")})
	if err != nil {
		return nil, wrap(err, "measure the build cache")
	}
	out := make([]engine.Cached, 0, len(df.BuildCache.Items))
	for _, r := range df.BuildCache.Items {
		c := engine.Cached{Size: r.Size, Used: r.CreatedAt, InUse: r.InUse, SharedWith: r.Shared}
		if r.LastUsedAt != nil {
			c.Used = *r.LastUsedAt
		}
		out = append(out, c)
	}
	return out, nil
}

// PruneCache implements engine.Images.
func (e *Engine) PruneCache(ctx context.Context, o engine.CachePrune) (int64, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return 0, err
	}
	p := client.BuildCachePruneOptions{All: true, ReservedSpace: o.Keep, Filters: client.Filters{}}
	if o.OlderThan > 0 {
		p.Filters = p.Filters.Add("until", fmt.Sprintf("%ds", int64(o.OlderThan/time.Second)))
	}
	got, err := e.c().BuildCachePrune(ctx, p)
	if err != nil {
		return 0, wrap(err, "prune the build cache")
	}
	return int64(got.Report.SpaceReclaimed), nil //nolint:gosec // of one disk
}
