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
		err := wrap(err, "image %s", ref)
		if tender.KindOf(err) == tender.NotFound {
			return tender.ImageID{}, tender.Errorf(tender.NotFound, "image %s is not among the engine's images", ref).
				Hint("docker pull %s, or load it: docker load -i FILE", ref)
		}
		return tender.ImageID{}, err
	}
	return imageID(ref, got.InspectResponse), nil
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
	return pullError(err, ref)
}

// hung is what a pull ends with that nothing is heard of any more.
func (e *Engine) hung(ref string) error {
	return tender.Errorf(tender.Unavailable, "pull %s: %s has sent nothing for %s", ref, registryOf(ref), e.o.PullPatience).
		Hint("the registry hangs, or something between it and the engine's host: try again, or load the image: docker load -i FILE")
}

// registryOf names the registry that a reference is pulled from.
func registryOf(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "the registry"
	}
	return reference.Domain(named)
}

func pullError(err error, ref string) error {
	if err == nil {
		return nil
	}
	out := wrap(err, "pull %s", ref)
	text := err.Error()
	own, ok := errors.AsType[*tender.Error](out)
	if !ok {
		return out
	}
	switch {
	case strings.Contains(text, "no such host"), strings.Contains(text, "connection refused"),
		strings.Contains(text, "i/o timeout"), strings.Contains(text, "Client.Timeout"), strings.Contains(text, "network is unreachable"):
		own.Kind = tender.Unavailable
		return own.Hint("the registry cannot be reached from the engine's host: check its network, or load the image: docker load -i FILE")
	case strings.Contains(text, "toomanyrequests"), strings.Contains(text, "429 Too Many"):
		own.Kind = tender.Unavailable
		return own.Hint("%s throttles: try again later, or log in there, which allows more", registryOf(ref))
	case strings.Contains(text, "unauthorized"), strings.Contains(text, "denied"), strings.Contains(text, "authentication required"):
		own.Kind = tender.Denied
		return own.Hint("check the name, or log in: docker login %s", registryOf(ref))
	case strings.Contains(text, "manifest unknown"), strings.Contains(text, "not found"):
		own.Kind = tender.NotFound
		return own.Hint("check the image's name and tag")
	}
	return out
}

// Push implements engine.Images.
func (e *Engine) Push(ctx context.Context, ref, auth string, report func(engine.Progress)) error {
	stream, err := e.c().ImagePush(ctx, ref, client.ImagePushOptions{RegistryAuth: auth})
	if err != nil {
		return wrap(err, "push %s", ref)
	}
	defer stream.Close()
	return wrap(tell(stream.JSONMessages(ctx), report), "push %s", ref)
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
