package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/registry"
)

const (
	// tagTries is how often a moving tag is looked at again when others move it meanwhile.
	tagTries = 4
	// tagHeads is how many versions are compared with what a moving tag stands on.
	tagHeads = 64
)

// TagImage is api.Backend's.
func (b *backend) TagImage(ctx context.Context, who api.Person, r api.TagRequest) (out []api.Tagged, err error) {
	defer func() {
		b.auditEnd(ctx, who, "image tag", "", strings.Join(append([]string{r.Source}, r.Targets...), " "), err)
	}()
	if !r.Moving && !r.Registry {
		id, err := b.engine.Resolve(ctx, r.Source)
		if err == nil {
			return b.tagHere(ctx, id, r.Targets)
		}
		if tender.KindOf(err) != tender.NotFound {
			return nil, err
		}
	}
	remote := b.registries(r.Auths)
	t := tagger{remote: remote, locks: &b.tagLocks}
	from, err := remote.Parse(ctx, r.Source)
	if err != nil {
		return nil, err
	}
	if err := mayTag(who, from, registry.Pull); err != nil {
		return nil, err
	}
	found, err := remote.Head(ctx, from)
	if err != nil {
		return nil, err
	}
	version, isVersion := tender.VersionOf(from.Tag)
	if r.Moving && !isVersion {
		return nil, tender.Errorf(tender.Invalid, "%s has no version as its tag, and moving tags go by versions", r.Source).
			Hint("name it by its version: tender image tag %s --moving", from.At("1.4.2"))
	}
	var targets []registry.Reference
	for _, text := range r.Targets {
		to, err := remote.Parse(ctx, text)
		if err != nil {
			return nil, err
		}
		if to.Digest != "" {
			return nil, tender.Errorf(tender.Invalid, "%s: a name is given by its tag, not by a digest", text).Hint("leave out @%s", to.Digest)
		}
		if from.Host == "" && !hasHost(text) {
			to.Host, to.Repository = "", repositoryIn(text) // as the source is
		}
		targets = append(targets, to)
	}
	if r.Moving && len(targets) == 0 {
		for _, tag := range movingTags(version) {
			targets = append(targets, from.At(tag))
		}
	}
	for _, to := range targets {
		if err := mayTag(who, to, registry.Push); err != nil {
			return out, err
		}
		var one api.Tagged
		if r.Moving {
			one, err = t.move(ctx, from.At(found.Digest), to, version, from.Tag)
		} else {
			one, err = t.put(ctx, from.At(found.Digest), to)
		}
		if err != nil {
			return out, err
		}
		out = append(out, one)
	}
	return out, nil
}

// mayTag compares what is asked of our own registry with what the person may there.
func mayTag(who api.Person, ref registry.Reference, action string) error {
	if ref.Host != "" || accountOf(who).May(ref.Repository, action) {
		return nil
	}
	return tender.Errorf(tender.Denied, "%s may not %s %s", who.Name, action, ref.Repository).Hint("use a token for that repository's project: tender token create NAME --scope deploy")
}

// hasHost reports whether a reference names its registry.
func hasHost(text string) bool {
	first, _, slash := strings.Cut(text, "/")
	return slash && (strings.ContainsAny(first, ".:") || first == "localhost")
}

// repositoryIn is a reference without its tag.
func repositoryIn(text string) string {
	if i := strings.LastIndexByte(text, ':'); i > strings.LastIndexByte(text, '/') {
		return text[:i]
	}
	return text
}

// tagHere gives an image of the engine more names there.
func (b *backend) tagHere(ctx context.Context, id tender.ImageID, targets []string) (out []api.Tagged, err error) {
	for _, to := range targets {
		one := api.Tagged{Reference: to, Outcome: api.TagNew, Where: "engine", Digest: id.ID}
		was, err := b.engine.Resolve(ctx, to)
		switch {
		case err == nil && was.ID == id.ID:
			one.Outcome = api.TagSame
		case err == nil:
			one.Outcome, one.Was = api.TagMoved, was.ID
		case tender.KindOf(err) != tender.NotFound:
			return out, err
		}
		if err := b.engine.Tag(ctx, id.ID, to); err != nil {
			return out, err
		}
		out = append(out, one)
	}
	return out, nil
}

// movingTags are those that stand for the newest of many versions: 1.4 and 1 of 1.4.2, and latest.
func movingTags(v tender.Version) []string {
	prefix := ""
	if v.V {
		prefix = "v"
	}
	return []string{fmt.Sprintf("%s%d.%d", prefix, v.Parts[0], v.Parts[1]), prefix + strconv.Itoa(v.Parts[0]), "latest"}
}

// covers reports whether a moving tag stands for v among others.
func covers(tag string, v tender.Version) bool {
	m, is := tender.VersionOf(tag)
	if !is {
		return true // latest, stable
	}
	return m.Parts[0] == v.Parts[0] && (m.Given < 2 || m.Parts[1] == v.Parts[1])
}

// tagger writes tags in registries.
type tagger struct {
	remote interface {
		Head(ctx context.Context, ref registry.Reference) (registry.Descriptor, error)
		Tags(ctx context.Context, ref registry.Reference) ([]string, error)
		Copy(ctx context.Context, from, to registry.Reference) (string, error)
	}
	locks *tagLocks
}

// put writes a tag wherever it stands now.
func (t tagger) put(ctx context.Context, from, to registry.Reference) (api.Tagged, error) {
	one := api.Tagged{Reference: to.String(), Outcome: api.TagNew, Where: "registry", Digest: from.Digest}
	was, err := t.remote.Head(ctx, to)
	switch {
	case err == nil && was.Digest == from.Digest:
		one.Outcome = api.TagSame
		return one, nil
	case err == nil:
		one.Outcome, one.Was = api.TagMoved, was.Digest
	case tender.KindOf(err) != tender.NotFound:
		return one, err
	}
	_, err = t.remote.Copy(ctx, from, to)
	return one, err
}

// move lets a tag go forward to v, which from is, and never back. In our own registry the
// comparison and the write are one step; in others it is read again afterwards.
func (t tagger) move(ctx context.Context, from, to registry.Reference, v tender.Version, tag string) (api.Tagged, error) {
	one := api.Tagged{Reference: to.String(), Outcome: api.TagStays, Where: "registry"}
	switch m, is := tender.VersionOf(to.Tag); {
	case !v.Released():
		one.Why = tag + " is no release: pre-releases and variants move nothing"
		return one, nil
	case is && (m.Given == 3 || m.Pre != ""):
		return one, tender.Errorf(tender.Invalid, "%s is a version of its own and does not move", to).Hint("leave out --moving")
	case !covers(to.Tag, v):
		return one, tender.Errorf(tender.Invalid, "%s does not stand for %s", to, tag).Hint("leave out the name: tender image tag %s --moving", from.At(tag))
	}
	unlock, err := t.locks.lock(ctx, to.Host+"/"+to.Repository)
	if err != nil {
		return one, err
	}
	defer unlock()
	for range tagTries {
		again := false
		if one, again, err = t.forward(ctx, from, to, v, tag); err != nil || !again {
			return one, err
		}
	}
	return one, tender.Errorf(tender.Conflict, "%s is moved by others all the time", to).Hint("again in a moment")
}

// forward looks once, and writes if that goes forward; again: others have written meanwhile.
func (t tagger) forward(ctx context.Context, from, to registry.Reference, v tender.Version, tag string) (one api.Tagged, again bool, err error) {
	one = api.Tagged{Reference: to.String(), Outcome: api.TagNew, Where: "registry", Digest: from.Digest}
	tags, err := t.remote.Tags(ctx, to)
	if err != nil && tender.KindOf(err) != tender.NotFound {
		return one, false, err
	}
	standing, err := t.remote.Head(ctx, to)
	switch {
	case tender.KindOf(err) == tender.NotFound:
		standing.Digest = ""
	case err != nil:
		return one, false, err
	case standing.Digest == from.Digest:
		one.Outcome = api.TagSame
		return one, false, nil
	default:
		one.Outcome, one.Was = api.TagMoved, standing.Digest
		name, is, err := t.versionAt(ctx, to, standing.Digest, tags, v)
		if err != nil {
			return one, false, err
		}
		switch {
		case name == "":
			one.Outcome, one.Digest, one.Was = api.TagStays, standing.Digest, ""
			one.Why = fmt.Sprintf("it stands on %s, of which no tag says the version; once and for all: tender image tag --registry %s %s", short(standing.Digest), from.At(tag), to)
			return one, false, nil
		case is.Compare(v) > 0:
			one.Outcome, one.Digest, one.Was = api.TagStays, standing.Digest, ""
			one.Why = "it stands on " + name + ", which is newer"
			return one, false, nil
		}
		one.Was = name
	}
	_, err = t.remote.Copy(registry.Expect(ctx, standing.Digest), from, to)
	if tender.KindOf(err) == tender.Conflict {
		// Others have written meanwhile, or a rule of the registry keeps the tag.
		now, head := t.remote.Head(ctx, to)
		switch {
		case head == nil && now.Digest != standing.Digest, standing.Digest != "" && tender.KindOf(head) == tender.NotFound:
			return one, true, nil
		case head != nil && tender.KindOf(head) != tender.NotFound:
			return one, false, head
		}
		one.Outcome, one.Digest, one.Was, one.Why = api.TagStays, standing.Digest, "", err.Error()
		return one, false, nil
	}
	if err != nil || to.Host == "" {
		return one, false, err
	}
	newer, d, err := t.came(ctx, to, tags, v)
	if err != nil || newer == "" {
		return one, false, err
	}
	// Whoever pushed it may have moved the tag before we wrote, so it is brought back to that.
	if _, err := t.remote.Copy(ctx, to.At(d), to); err != nil {
		return one, false, err
	}
	one.Outcome, one.Digest, one.Was = api.TagStays, d, ""
	one.Why = newer + " was pushed meanwhile and is newer: it stands on that"
	return one, false, nil
}

// versionAt is the newest release among tags that has the digest; "": none has.
func (t tagger) versionAt(ctx context.Context, to registry.Reference, digest string, tags []string, near tender.Version) (string, tender.Version, error) {
	type release struct {
		tag string
		v   tender.Version
	}
	var all []release
	for _, tag := range tags {
		if v, ok := tender.VersionOf(tag); ok && v.Released() {
			all = append(all, release{tag, v})
		}
	}
	// What a moving tag stands on is most often the newest that it covers, or the one before this.
	slices.SortFunc(all, func(a, b release) int {
		inA, inB := covers(to.Tag, a.v), covers(to.Tag, b.v)
		if inA != inB {
			if inA {
				return -1
			}
			return 1
		}
		return cmp.Or(b.v.Compare(a.v), strings.Compare(a.tag, b.tag))
	})
	if i := slices.IndexFunc(all, func(r release) bool { return r.v.Compare(near) < 0 && covers(to.Tag, r.v) }); i > 0 {
		before := all[i]
		all = append([]release{before}, slices.Delete(all, i, i+1)...)
	}
	for _, r := range all[:min(len(all), tagHeads)] {
		d, err := t.remote.Head(ctx, to.At(r.tag))
		if tender.KindOf(err) == tender.NotFound {
			continue
		}
		if err != nil || d.Digest == digest {
			return r.tag, r.v, err
		}
	}
	return "", tender.Version{}, nil
}

// came is the newest release beyond v that was pushed since tags were listed.
func (t tagger) came(ctx context.Context, to registry.Reference, tags []string, v tender.Version) (tag, digest string, err error) {
	now, err := t.remote.Tags(ctx, to)
	if err != nil {
		return "", "", err
	}
	best := v
	for _, name := range now {
		w, ok := tender.VersionOf(name)
		if ok && w.Released() && covers(to.Tag, w) && w.Compare(best) > 0 && !slices.Contains(tags, name) {
			tag, best = name, w
		}
	}
	if tag == "" {
		return "", "", nil
	}
	d, err := t.remote.Head(ctx, to.At(tag))
	if tender.KindOf(err) == tender.NotFound {
		return "", "", nil
	}
	return tag, d.Digest, err
}

// short is a digest as tables have it.
func short(digest string) string {
	algorithm, hex, ok := strings.Cut(digest, ":")
	if !ok || len(hex) < 12 {
		return digest
	}
	return algorithm + ":" + hex[:12]
}

// tagLocks let one at a time move tags of a repository. Its zero value is ready.
type tagLocks struct {
	mu   sync.Mutex
	held map[string]*tagLock
}

type tagLock struct {
	free chan struct{}
	n    int // who holds it or waits
}

func (l *tagLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*tagLock{}
	}
	k := l.held[key]
	if k == nil {
		k = &tagLock{free: make(chan struct{}, 1)}
		l.held[key] = k
	}
	k.n++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.n--; k.n == 0 {
			delete(l.held, key)
		}
	}
	select {
	case k.free <- struct{}{}:
		return func() { <-k.free; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
