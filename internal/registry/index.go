package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"

	"github.com/tenderhq/tender/internal/store"
)

// Media types of manifests.
const (
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// descriptor is a part of a manifest, as the specification has it.
type descriptor struct {
	MediaType    string            `json:"mediaType,omitempty"`
	Size         int64             `json:"size"`
	Digest       string            `json:"digest"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// describe reads what the index holds of a manifest. media is what it was sent as, "" if
// that is not known.
func describe(body []byte, media string) (m store.Manifest, err error) {
	var in struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        *descriptor       `json:"config"`
		Layers        []descriptor      `json:"layers"`
		Manifests     []descriptor      `json:"manifests"`
		Subject       *descriptor       `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return m, fmt.Errorf("the manifest is no JSON of one: %w", err)
	}
	switch {
	case in.MediaType != "":
		m.MediaType = in.MediaType
	case media != "":
		m.MediaType = media
	case in.Manifests != nil:
		m.MediaType = ociIndex
	default:
		m.MediaType = ociManifest
	}
	if in.MediaType != "" && media != "" && in.MediaType != media {
		return m, fmt.Errorf("the manifest says that it is %s, and was sent as %s", in.MediaType, media)
	}
	m.Digest, m.Size, m.Artifact, m.Notes = digest.FromBytes(body).String(), int64(len(body)), in.ArtifactType, in.Annotations
	add := func(kind string, d descriptor) error {
		if _, err := digest.Parse(d.Digest); err != nil {
			return fmt.Errorf("%s %q: %w", kind, d.Digest, err)
		}
		if d.Size < 0 {
			return fmt.Errorf("%s %s has a size of %d", kind, d.Digest, d.Size)
		}
		m.Refs = append(m.Refs, store.ManifestRef{Kind: kind, Digest: d.Digest, Size: d.Size})
		return nil
	}
	if c := in.Config; c != nil {
		if m.Artifact == "" {
			m.Artifact = c.MediaType
		}
		err = add("config", *c)
	}
	for _, l := range in.Layers {
		err = errors.Join(err, add("layer", l))
	}
	for _, c := range in.Manifests {
		err = errors.Join(err, add("child", c))
	}
	if s := in.Subject; s != nil {
		if _, perr := digest.Parse(s.Digest); perr != nil {
			err = errors.Join(err, fmt.Errorf("subject %q: %w", s.Digest, perr))
		}
		m.Subject = s.Digest
	}
	return m, err
}

const tree = "/docker/registry/v2/repositories"

// Reindex makes the rows say what lies in the directory: those that are missing are made,
// with the time at which the file was written and nobody's name, and those of what is gone
// go. Only manifests without a row are read.
func (r *Registry) Reindex(ctx context.Context) error {
	have := map[string]map[string]bool{}
	tagged := map[string]map[string]string{}
	err := r.o.Store.View(ctx, func(tx *store.Tx) error {
		ms, err := tx.Manifests("")
		if err != nil {
			return err
		}
		for _, m := range ms {
			if have[m.Repository] == nil {
				have[m.Repository] = map[string]bool{}
			}
			have[m.Repository][m.Digest] = false
		}
		ts, err := tx.Tags("")
		for _, t := range ts {
			if tagged[t.Repository] == nil {
				tagged[t.Repository] = map[string]string{}
			}
			tagged[t.Repository][t.Tag] = t.Digest
		}
		return err
	})
	if err != nil {
		return err
	}
	repositories, err := r.repositories(ctx, "")
	if err != nil {
		return fmt.Errorf("read the registry: %w", err)
	}
	made := 0
	for _, name := range repositories {
		n, err := r.reindex(ctx, name, have[name], tagged[name])
		if err != nil {
			return fmt.Errorf("read the repository %s: %w", name, err)
		}
		made += n
		delete(have, name)
		delete(tagged, name)
	}
	gone := 0
	err = r.o.Store.Update(ctx, func(tx *store.Tx) error {
		for name, digests := range have {
			for d := range digests {
				gone++
				if err := tx.RemoveManifest(name, d); err != nil {
					return err
				}
			}
		}
		for name, ts := range tagged {
			for t := range ts {
				if err := tx.RemoveTag(name, t); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if made+gone > 0 {
		r.o.Log.Info("the registry's index follows its directory", "found", made, "gone", gone)
	}
	return err
}

func (r *Registry) reindex(ctx context.Context, name string, have map[string]bool, tagged map[string]string) (made int, err error) {
	unlock := r.lock(name)
	defer unlock()
	var manifests []store.Manifest
	var tags []store.Tag
	for _, algorithm := range r.list(ctx, path.Join(tree, name, "_manifests/revisions")) {
		for _, hex := range r.list(ctx, path.Join(tree, name, "_manifests/revisions", algorithm)) {
			d := algorithm + ":" + hex
			link := path.Join(tree, name, "_manifests/revisions", algorithm, hex, "link")
			at, there, err := r.written(ctx, link)
			if err != nil {
				return made, err
			}
			if !there {
				continue // it was deleted
			}
			if _, known := have[d]; known {
				have[d] = true
				continue
			}
			body, err := r.driver.GetContent(ctx, blobPath(d))
			if err != nil {
				r.o.Log.Warn("a manifest is not in the registry's index: it cannot be read", "repository", name, "digest", d, "error", err)
				continue
			}
			m, err := describe(body, "")
			if err != nil {
				r.o.Log.Warn("a manifest is not in the registry's index", "repository", name, "digest", d, "error", err)
				continue
			}
			m.Repository, m.Digest, m.Pushed = name, d, at
			manifests = append(manifests, m)
		}
	}
	onDisk := map[string]bool{}
	for _, tag := range r.list(ctx, path.Join(tree, name, "_manifests/tags")) {
		link := path.Join(tree, name, "_manifests/tags", tag, "current/link")
		text, err := r.driver.GetContent(ctx, link)
		if err != nil {
			continue // a push that was cut before its end
		}
		at, _, err := r.written(ctx, link)
		if err != nil {
			return made, err
		}
		onDisk[tag] = true
		if d := strings.TrimSpace(string(text)); tagged[tag] != d {
			tags = append(tags, store.Tag{Repository: name, Tag: tag, Digest: d, Pushed: at})
		}
	}
	return len(manifests), r.o.Store.Update(ctx, func(tx *store.Tx) error {
		for _, m := range manifests {
			if err := tx.PutManifest(m); err != nil {
				return err
			}
		}
		for _, t := range tags {
			if err := tx.PutTag(t); err != nil {
				return err
			}
		}
		for d, there := range have {
			if !there {
				if err := tx.RemoveManifest(name, d); err != nil {
					return err
				}
			}
		}
		for t := range tagged {
			if !onDisk[t] {
				if err := tx.RemoveTag(name, t); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// repositories walks to those that hold manifests.
func (r *Registry) repositories(ctx context.Context, under string) ([]string, error) {
	children, err := r.driver.List(ctx, path.Join(tree, under))
	if notThere(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, child := range children {
		base := path.Base(child)
		if base == "_manifests" {
			out = append(out, under)
		}
		if strings.HasPrefix(base, "_") {
			continue
		}
		more, err := r.repositories(ctx, path.Join(under, base))
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	slices.Sort(out)
	return out, nil
}

// list returns the names in a folder; none if it is not there.
func (r *Registry) list(ctx context.Context, folder string) []string {
	children, err := r.driver.List(ctx, folder)
	if err != nil {
		return nil
	}
	for i, c := range children {
		children[i] = path.Base(c)
	}
	slices.Sort(children)
	return children
}

// written says when a file was, and whether it is there.
func (r *Registry) written(ctx context.Context, file string) (time.Time, bool, error) {
	info, err := r.driver.Stat(ctx, file)
	if notThere(err) {
		return time.Time{}, false, nil
	}
	if err != nil {
		return time.Time{}, false, err
	}
	return info.ModTime().UTC(), true, nil
}

func notThere(err error) bool {
	return errors.As(err, new(storagedriver.PathNotFoundError))
}

// blobPath is where a blob's bytes lie.
func blobPath(d string) string {
	algorithm, hex, _ := strings.Cut(d, ":")
	return path.Join("/docker/registry/v2/blobs", algorithm, hex[:min(2, len(hex))], hex, "data")
}
