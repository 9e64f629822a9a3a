package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
)

// maxBeside is what the contexts of a build beside its main one may have
// together, in bytes: they lie on the disk until the engine asks for them.
const maxBeside = 4 << 30

// Build builds an image. The main context flows to the engine; those beside it,
// which the engine reads in an order of its own, wait in files without a name.
func (b *backend) Build(ctx context.Context, who api.Person, r api.BuildRequest, next api.BuildContexts, report func(api.Event)) (id string, err error) {
	report = stamped(report, "")
	defer func() { b.auditEnd(ctx, who, "build", "", strings.Join(r.Tags, " "), err) }()
	secrets, err := b.buildSecrets(ctx, who, r)
	if err != nil {
		return "", err
	}
	auths, err := b.auths(ctx, r.Auths)
	if err != nil {
		return "", err
	}
	o := buildOptions(r, secrets, auths)
	var main io.Reader
	left := int64(maxBeside)
	for main == nil {
		c, err := next()
		if errors.Is(err, io.EOF) {
			if r.Remote == "" {
				return "", tender.Errorf(tender.Invalid, "the part context is missing")
			}
			break
		}
		if err != nil {
			return "", err
		}
		if c.Name == "" {
			main = c.Tar
			continue
		}
		f, n, err := b.spool(c.Tar, left)
		if err != nil {
			return "", fmt.Errorf("context %s: %w", c.Name, err)
		}
		defer f.Close()
		left -= n
		o.Contexts[c.Name] = f
	}
	// What it begins with has no container that says so.
	defer b.host.lease("a build is under way")()
	id, err = b.engine.Build(ctx, main, o, func(p engine.Progress) {
		report(api.Event{Kind: api.KindBuild, Service: r.Service, Text: p.Text, Current: p.Current, Total: p.Total})
	})
	switch {
	case err != nil:
	case len(r.Tags) > 0:
		b.cameHere(ctx, "built", r.Tags[0])
	case id != "":
		b.cameHere(ctx, "built", id)
	}
	return id, err
}

// buildOptions are what a request says of a build, without contexts.
func buildOptions(r api.BuildRequest, secrets map[string][]byte, auths map[string]string) engine.BuildOptions {
	return engine.BuildOptions{
		Tags: r.Tags, Dockerfile: r.Dockerfile, Remote: r.Remote, Args: r.Args, Target: r.Target, Labels: r.Labels, NoCache: r.NoCache,
		NoCacheFilter: r.NoCacheFilter, Pull: r.Pull, CacheFrom: r.CacheFrom, CacheTo: r.CacheTo, Network: r.Network, ShmSize: r.ShmSize,
		Ulimits: r.Ulimits, ExtraHosts: r.ExtraHosts, Platforms: r.Platforms, Entitlements: r.Entitlements, ContextURLs: r.ContextURLs,
		Secrets: secrets, Agents: r.Agents, Auths: auths, Contexts: map[string]io.Reader{},
	}
}

// buildSecrets adds the secrets that the vault has to those that came along.
func (b *backend) buildSecrets(ctx context.Context, who api.Person, r api.BuildRequest) (map[string][]byte, error) {
	out := maps.Clone(r.Secrets)
	for id, name := range r.External {
		// What a build sees, the one who builds sees.
		if err := who.May(api.Deploy, r.Project); err != nil {
			return nil, err
		}
		f := tender.SecretFile{Name: name, External: true}
		var err error
		if f.Version, err = b.newestSecret(ctx, r.Project, f); err != nil {
			return nil, fmt.Errorf("build secret %s: %w", id, err)
		}
		value, err := b.value(ctx, r.Project, f)
		if err != nil {
			return nil, fmt.Errorf("build secret %s: %w", id, err)
		}
		if out == nil {
			out = map[string][]byte{}
		}
		out[id] = value
	}
	return out, nil
}

// spool copies r into a file that has no name, so that whatever ends the daemon
// also frees its space.
func (b *backend) spool(r io.Reader, most int64) (*os.File, int64, error) {
	dir := filepath.Join(b.config.DataDir, "build")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, err
	}
	f, err := nameless(dir)
	if err != nil {
		return nil, 0, err
	}
	n, err := io.Copy(f, io.LimitReader(r, most+1))
	if err == nil && n > most {
		err = tender.Errorf(tender.Invalid, "the contexts beside the main one have more than %d GiB", maxBeside>>30).
			Hint("leave files out with .dockerignore")
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, n, nil
}

func nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "context")), nil
	}
	// Some file systems cannot do that.
	f, err := os.CreateTemp(dir, "context-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
