package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// RetainOptions is a round of retention.
type RetainOptions struct {
	Rules []Rule
	// Repository is a pattern of those that are looked at; "": all.
	Repository string
	// Needed must stay, with the reason, as Decide takes it: what runs, what a rollback or a promotion needs.
	Needed map[string]string
	Who    string // stands in the audit
	DryRun bool
}

// Retained is what a round decided, and did unless it was a dry run.
type Retained struct {
	Steps     []Step // of all tags and manifests that were looked at
	Tags      int    // that went
	Manifests int    // that went
	// Bytes are those of blobs that nothing names any more: a sweep frees them.
	Bytes int64
}

// Retain decides by the rules and removes tags, then manifests by their digests. Each
// repository is read, decided about and cleaned in one go, while nobody changes its manifests.
// What somebody pulled or pushed within the hour stays.
func (r *Registry) Retain(ctx context.Context, o RetainOptions) (done Retained, err error) {
	ms, err := r.manifests(ctx, "")
	if err != nil {
		return done, err
	}
	known := make(map[string]bool, len(ms))
	var repositories []string
	for _, m := range ms {
		known[m.Digest] = true
		if (len(repositories) == 0 || repositories[len(repositories)-1] != m.Repository) && fits(o.Repository, m.Repository) {
			repositories = append(repositories, m.Repository)
		}
	}
	for _, name := range repositories {
		err := r.clean(ctx, name, o.Who, o.DryRun, &done, func(tags []store.Tag, ms []store.Manifest) ([]Step, error) {
			return decideAmong(o.Rules, tags, ms, r.withLeases(o.Needed, ms), known, r.o.Now()), nil
		})
		if err != nil {
			return done, fmt.Errorf("clean up %s: %w", name, err)
		}
	}
	done.Bytes = freed(ms, done.Steps)
	return done, nil
}

func (r *Registry) manifests(ctx context.Context, repository string) (ms []store.Manifest, err error) {
	err = r.o.Store.View(ctx, func(tx *store.Tx) error {
		ms, err = tx.Manifests(repository)
		return err
	})
	return ms, err
}

func (r *Registry) withLeases(needed map[string]string, ms []store.Manifest) map[string]string {
	all := maps.Clone(needed)
	if all == nil {
		all = map[string]string{}
	}
	for _, m := range ms {
		if all[m.Digest] == "" && r.leases.leased(m.Digest) {
			all[m.Digest] = "pulled or pushed within the hour"
		}
	}
	return all
}

// freed counts the bytes of blobs that only manifests name which go.
func freed(all []store.Manifest, steps []Step) (bytes int64) {
	gone := map[[2]string]bool{}
	for _, s := range steps {
		if s.Goes && s.Tag == "" {
			gone[[2]string{s.Repository, s.Digest}] = true
		}
	}
	sizes := map[string]int64{}
	each := func(goes bool, do func(digest string, size int64)) {
		for _, m := range all {
			if gone[[2]string{m.Repository, m.Digest}] != goes {
				continue
			}
			do(m.Digest, m.Size)
			for _, ref := range m.Refs {
				if ref.Kind != "child" { // those have rows of their own
					do(ref.Digest, ref.Size)
				}
			}
		}
	}
	each(true, func(d string, size int64) { sizes[d] = size })
	each(false, func(d string, _ int64) { delete(sizes, d) })
	for _, size := range sizes {
		bytes += size
	}
	return bytes
}

// clean decides about a repository and does it, while nobody changes its manifests.
func (r *Registry) clean(ctx context.Context, name, who string, dry bool, done *Retained, decide func([]store.Tag, []store.Manifest) ([]Step, error)) error {
	unlock := r.lock(name)
	defer unlock()
	var tags []store.Tag
	var ms []store.Manifest
	err := r.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		if ms, err = tx.Manifests(name); err != nil {
			return err
		}
		tags, err = tx.Tags(name)
		return err
	})
	if err != nil {
		return err
	}
	steps, err := decide(tags, ms)
	if err != nil {
		return err
	}
	var going []Step
	for _, s := range steps {
		if s.Goes {
			going = append(going, s)
		}
	}
	// Tags first, then what holds others before what it holds: whoever comes in between finds
	// no index with a hole.
	depth := depths(ms)
	slices.SortStableFunc(going, func(a, b Step) int {
		if (a.Tag == "") != (b.Tag == "") {
			return strings.Compare(b.Tag, a.Tag)
		}
		return cmp.Compare(depth[a.Digest], depth[b.Digest])
	})
	for batch := range slices.Chunk(going, 100) {
		if dry {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.remove(context.WithoutCancel(ctx), batch, who); err != nil {
			return err
		}
	}
	done.Steps = append(done.Steps, steps...)
	for _, s := range going {
		if s.Tag != "" {
			done.Tags++
		} else {
			done.Manifests++
		}
	}
	return nil
}

// depths says how many indexes hold a manifest one within the other.
func depths(ms []store.Manifest) map[string]int {
	children := map[string][]string{}
	depth := map[string]int{}
	for _, m := range ms {
		for _, ref := range m.Refs {
			if ref.Kind == "child" {
				children[m.Digest] = append(children[m.Digest], ref.Digest)
			}
		}
	}
	var down func(d string, n int)
	down = func(d string, n int) {
		// Sums cannot go in a circle; the limit is for rows that say so.
		if n > 16 || n <= depth[d] {
			return
		}
		depth[d] = n
		for _, c := range children[d] {
			down(c, n+1)
		}
	}
	for d, cs := range children {
		for _, c := range cs {
			down(c, depth[d]+1)
		}
	}
	return depth
}

// remove removes files, then rows: a start makes rows follow the files.
func (r *Registry) remove(ctx context.Context, steps []Step, who string) error {
	for _, s := range steps {
		folder := path.Join(tree, s.Repository, "_manifests")
		link := path.Join(folder, "tags", s.Tag, "current/link")
		if s.Tag == "" {
			algorithm, sum, _ := strings.Cut(s.Digest, ":")
			folder = path.Join(folder, "revisions", algorithm, sum)
			link = path.Join(folder, "link")
		} else {
			folder = path.Join(folder, "tags", s.Tag)
		}
		r.at("remove", s.String())
		if err := r.files.remove(ctx, link); err != nil {
			return err
		}
		r.at("link removed", s.String())
		if err := r.files.removeAll(ctx, folder); err != nil {
			return err
		}
	}
	r.at("rows", "")
	return r.o.Store.Update(ctx, func(tx *store.Tx) error {
		for _, s := range steps {
			what, err := "registry tag removed", error(nil)
			if s.Tag == "" {
				what, err = "registry manifest removed", tx.RemoveManifest(s.Repository, s.Digest)
			} else {
				err = tx.RemoveTag(s.Repository, s.Tag)
			}
			if err != nil {
				return err
			}
			name := s.Repository + "@" + s.Digest
			if s.Tag != "" {
				name = s.Repository + ":" + s.Tag + " " + s.Digest
			}
			if err := tx.AddAudit(store.Audit{Time: r.o.Now(), Who: who, What: what, Detail: name + ": " + s.Why}); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveOptions names what somebody wants to go: a repository, one of its tags, or one manifest.
type RemoveOptions struct {
	Repository string
	Tag        string            // a tag; its manifest goes too if no other names it
	Digest     string            // a manifest, with its tags
	Needed     map[string]string // as of RetainOptions
	Force      bool              // what is needed goes, too
	Who        string
	DryRun     bool
}

// Remove removes what is named, with what refers to it. NotFound: it is not there. Conflict: it
// is needed, or a part of an index.
func (r *Registry) Remove(ctx context.Context, o RemoveOptions) (done Retained, err error) {
	all, err := r.manifests(ctx, "")
	if err != nil {
		return done, err
	}
	known := make(map[string]bool, len(all))
	for _, m := range all {
		known[m.Digest] = true
	}
	text := o.Repository
	switch {
	case o.Digest != "":
		text += "@" + o.Digest
	case o.Tag != "":
		text += ":" + o.Tag
	}
	err = r.clean(ctx, o.Repository, o.Who, o.DryRun, &done, func(tags []store.Tag, ms []store.Manifest) ([]Step, error) {
		needed := o.Needed
		if o.Force {
			needed = nil
		}
		d := &decision{repository: o.Repository, needed: needed, known: known, now: r.o.Now(), manifests: map[string]*fate{}, why: map[string]string{}}
		for _, m := range ms {
			d.manifests[m.Digest] = &fate{Manifest: m}
		}
		for _, t := range tags {
			d.tags = append(d.tags, &named{Tag: t, subject: subjectOf(t.Tag)})
		}
		return d.removal(o, text)
	})
	if err != nil {
		return done, err
	}
	done.Bytes = freed(all, done.Steps)
	return done, nil
}

// removal decides about what somebody named. It returns what goes alone.
func (d *decision) removal(o RemoveOptions, text string) ([]Step, error) {
	d.link()
	d.need()
	whole := o.Tag == "" && o.Digest == ""
	found := false
	var queue []*fate
	for _, t := range d.tags {
		if whole || o.Tag == t.Tag.Tag || o.Digest == t.Digest {
			found = true
			if why := d.why[t.Digest]; why != "" {
				return nil, needed(text, d.repository+":"+t.Tag.Tag, why)
			}
			t.goes, t.why = true, "asked for"
			if m := d.manifests[t.Digest]; m != nil {
				queue = append(queue, m)
			}
		}
	}
	for digest, m := range d.manifests {
		if whole || o.Digest == digest {
			found = true
			if why := d.why[digest]; why != "" {
				return nil, needed(text, d.repository+"@"+digest, why)
			}
			queue = append(queue, m)
		}
	}
	if !found {
		return nil, tender.Errorf(tender.NotFound, "the registry has no %s", text).Hint("tender registry ls %s", o.Repository)
	}
	if m := d.manifests[o.Digest]; m != nil && len(m.parents) > 0 {
		return nil, tender.Errorf(tender.Conflict, "%s is a part of the index %s", text, m.parents[0].Digest).
			Hint("remove the index: tender registry rm %s@%s", o.Repository, m.parents[0].Digest)
	}
	for len(queue) > 0 {
		m := queue[0]
		queue = queue[1:]
		if m.goes {
			continue
		}
		if m.goes, m.why = d.manifestGoes(m, 0, false); whole || o.Digest == m.Digest {
			m.goes, m.why = true, "asked for"
		}
		if !m.goes {
			continue
		}
		queue = append(append(queue, m.children...), m.referrers...)
		for _, t := range m.attached {
			t.goes, t.why = true, "its subject goes"
			if tagged := d.manifests[t.Digest]; tagged != nil {
				queue = append(queue, tagged)
			}
		}
	}
	return slices.DeleteFunc(d.steps(), func(s Step) bool { return !s.Goes }), nil
}

func needed(text, what, why string) error {
	if text != what {
		text += " (" + what + ")"
	}
	return tender.Errorf(tender.Conflict, "%s is needed: %s", text, why).Hint("remove it all the same: --force")
}

// Listed is a tag, or a manifest without one, as lists show it.
type Listed struct {
	Repository string
	Tag        string // "": it has none
	Digest     string
	Size       int64 // with what it is made of
	Pushed     time.Time
	Who        string
	Signed     bool
	Needed     string // why it is; "": it is not
}

// List returns the tags of a repository, and its manifests that neither have one nor belong to
// another; "": those of all.
func (r *Registry) List(ctx context.Context, repository string, needed map[string]string) ([]Listed, error) {
	var tags []store.Tag
	var ms []store.Manifest
	err := r.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		if ms, err = tx.Manifests(repository); err != nil {
			return err
		}
		tags, err = tx.Tags(repository)
		return err
	})
	if err != nil {
		return nil, err
	}
	by := map[string]*decision{}
	for _, m := range ms {
		d := by[m.Repository]
		if d == nil {
			d = &decision{repository: m.Repository, needed: needed, manifests: map[string]*fate{}, why: map[string]string{}}
			by[m.Repository] = d
		}
		d.manifests[m.Digest] = &fate{Manifest: m}
	}
	for _, t := range tags {
		if d := by[t.Repository]; d != nil {
			d.tags = append(d.tags, &named{Tag: t, subject: subjectOf(t.Tag)})
		}
	}
	var out []Listed
	for _, d := range by {
		d.link()
		d.need()
		for _, t := range d.tags {
			m := d.manifests[t.Digest]
			if m == nil || t.subject != "" {
				continue
			}
			out = append(out, Listed{d.repository, t.Tag.Tag, t.Digest, m.total(nil), t.Pushed, t.Who, m.signed, d.why[t.Digest]})
		}
		for digest, m := range d.manifests {
			if len(m.tags) == 0 && len(m.parents) == 0 && m.Subject == "" {
				out = append(out, Listed{d.repository, "", digest, m.total(nil), m.Pushed, m.Who, m.signed, d.why[digest]})
			}
		}
	}
	slices.SortFunc(out, func(a, b Listed) int {
		return cmp.Or(strings.Compare(a.Repository, b.Repository), b.Pushed.Compare(a.Pushed), strings.Compare(a.Tag, b.Tag), strings.Compare(a.Digest, b.Digest))
	})
	return out, nil
}

// total is the size of a manifest with all that it is made of, each blob once.
func (f *fate) total(seen map[string]bool) (n int64) {
	if seen == nil {
		seen = map[string]bool{}
	}
	if seen[f.Digest] {
		return 0
	}
	seen[f.Digest] = true
	n = f.Size
	for _, ref := range f.Refs {
		if ref.Kind != "child" && !seen[ref.Digest] {
			seen[ref.Digest] = true
			n += ref.Size
		}
	}
	for _, c := range f.children {
		n += c.total(seen)
	}
	return n
}
