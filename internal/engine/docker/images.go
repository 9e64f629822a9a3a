package docker

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// Resolve implements engine.Images.
func (e *Engine) Resolve(ctx context.Context, ref string) (tender.ImageID, error) {
	got, err := e.c().ImageInspect(ctx, ref)
	if err != nil {
		return tender.ImageID{}, noImage(err, ref)
	}
	return imageID(ref, got.InspectResponse), nil
}

// Describe implements engine.Images.
func (e *Engine) Describe(ctx context.Context, ref string) (engine.Description, error) {
	got, err := e.c().ImageInspect(ctx, ref)
	if err != nil {
		return engine.Description{}, noImage(err, ref)
	}
	platform := got.Os + "/" + got.Architecture
	if got.Variant != "" {
		platform += "/" + got.Variant
	}
	out := engine.Description{ImageID: imageID(ref, got.InspectResponse), Platform: platform, Size: got.Size, Created: when(got.Created)}
	if c := got.Config; c != nil {
		out.User, out.Labels = c.User, c.Labels
	}
	return out, nil
}

// noImage says why an image was not found.
func noImage(err error, ref string) error {
	err = wrap(err, "image %s", ref)
	if tender.KindOf(err) == tender.NotFound {
		return tender.Errorf(tender.NotFound, "image %s is not among the engine's images", ref).
			Hint("docker pull %s, or load it: docker load -i FILE", ref)
	}
	return err
}

func imageID(ref string, i image.InspectResponse) tender.ImageID {
	out := tender.ImageID{Reference: ref, ID: i.ID}
	repository := repositoryOf(ref)
	for _, d := range i.RepoDigests {
		name, digest, ok := strings.Cut(d, "@")
		if ok && repository != "" && repositoryOf(name) == repository {
			out.Digest = digest
			break
		}
	}
	if c := i.Config; c != nil {
		if h := c.Healthcheck; h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" {
			out.Healthcheck = true
		}
		out.Volumes = slices.Sorted(maps.Keys(c.Volumes))
	}
	return out
}

// repositoryOf is the full name of a reference's repository, "" if it has none.
func repositoryOf(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	return named.Name()
}

// Pull implements engine.Images.
func (e *Engine) Pull(ctx context.Context, ref, platformName, auth string, report func(engine.Progress)) error {
	o := client.ImagePullOptions{RegistryAuth: auth}
	if p := platform(platformName); p != nil {
		o.Platforms = []ocispec.Platform{*p}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hung := time.AfterFunc(e.o.PullPatience, func() { cancel(e.hung(ref)) })
	defer hung.Stop()
	stream, err := e.c().ImagePull(ctx, ref, o)
	if err == nil {
		defer stream.Close()
		err = tell(stream.JSONMessages(ctx), func(p engine.Progress) {
			hung.Reset(e.o.PullPatience)
			if report != nil {
				report(p)
			}
		})
	}
	if own, ok := errors.AsType[*tender.Error](context.Cause(ctx)); err != nil && ok {
		return own
	}
	return registryError(err, registryOf(ref), "pull "+ref)
}

// hung is what a pull ends with that nothing is heard of any more.
func (e *Engine) hung(ref string) error {
	return tender.Errorf(tender.Unavailable, "pull %s: %s has sent nothing for %s", ref, registryOf(ref), e.o.PullPatience).
		Hint("the registry hangs, or something between it and the engine's host: try again, or load the image: docker load -i FILE")
}

// Push implements engine.Images.
func (e *Engine) Push(ctx context.Context, ref, auth string, report func(engine.Progress)) error {
	stream, err := e.c().ImagePush(ctx, ref, client.ImagePushOptions{RegistryAuth: auth})
	if err != nil {
		return registryError(err, registryOf(ref), "push "+ref)
	}
	defer stream.Close()
	return registryError(tell(stream.JSONMessages(ctx), report), registryOf(ref), "push "+ref)
}

// tell passes progress on and returns the error that the stream ends with.
func tell(messages iter.Seq2[jsonstream.Message, error], report func(engine.Progress)) error {
	for m, err := range messages {
		if err != nil {
			return err
		}
		if m.Error != nil {
			return m.Error
		}
		if report == nil {
			continue
		}
		p := engine.Progress{ID: m.ID, Text: m.Status}
		if p.Text == "" {
			p.Text = strings.TrimRight(m.Stream, "\n")
		}
		if m.Progress != nil {
			p.Current, p.Total = m.Progress.Current, m.Progress.Total
		}
		if p.Text != "" || p.ID != "" {
			report(p)
		}
	}
	return nil
}

// Tag implements engine.Images.
func (e *Engine) Tag(ctx context.Context, id, ref string) error {
	_, err := e.c().ImageTag(ctx, client.ImageTagOptions{Source: id, Target: ref})
	return wrap(err, "tag %s", ref)
}

// RemoveImage implements engine.Images: gone already is no error.
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	_, err := e.c().ImageRemove(ctx, ref, client.ImageRemoveOptions{PruneChildren: true})
	if err != nil && kind(err) == tender.NotFound {
		return nil
	}
	if err != nil {
		return wrap(err, "remove image %s", ref)
	}
	return nil
}
