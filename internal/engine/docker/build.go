package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	bk "github.com/moby/buildkit/client"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// Build implements engine.Images with BuildKit, or, where the engine has none,
// with the classic builder.
func (e *Engine) Build(ctx context.Context, tarball io.Reader, o engine.BuildOptions, report func(engine.Progress)) (id string, err error) {
	name := "image"
	if len(o.Tags) > 0 {
		name = o.Tags[0]
	}
	if report == nil {
		report = func(engine.Progress) {}
	}
	if err := e.negotiate(ctx, false); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	b, err := e.builder(ctx)
	if err != nil {
		return "", wrap(err, "build %s: reach the engine's builder", name)
	}
	if b == nil {
		report(engine.Progress{Text: "the engine has no BuildKit: its classic builder is used"})
		return e.buildClassic(ctx, tarball, name, o, report)
	}
	defer b.Close()
	return e.buildKit(ctx, b, tarball, name, o, report)
}

// builder connects to the engine's BuildKit; nil: it has none.
func (e *Engine) builder(ctx context.Context) (*bk.Client, error) {
	// Engines that only look like Docker's, and Docker's on Windows, have none.
	if e.info.Load().OSType == "windows" || versions.LessThan(e.c().ClientVersion(), "1.39") {
		return nil, nil
	}
	c := e.c()
	b, err := bk.New(ctx, "",
		bk.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return c.DialHijack(ctx, "/grpc", "h2c", nil)
		}),
		bk.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return c.DialHijack(ctx, "/session", proto, meta)
		}))
	if err != nil {
		return nil, err
	}
	// gRPC tries a connection again and again; a plain dial says at once that nobody is there.
	conn, err := c.DialHijack(ctx, "/grpc", "h2c", nil)
	if err == nil {
		return b, conn.Close()
	}
	b.Close()
	if _, ping := c.Ping(ctx, client.PingOptions{}); ping != nil {
		return nil, ping
	}
	return nil, nil
}

// unclassic names what of a build the classic builder cannot do.
func unclassic(o engine.BuildOptions) string {
	switch {
	case len(o.Secrets) > 0:
		return "secrets"
	case len(o.Agents) > 0:
		return "ssh"
	case len(o.Contexts)+len(o.ContextURLs) > 0:
		return "additional_contexts"
	case len(o.CacheTo) > 0:
		return "cache_to"
	case len(o.Entitlements) > 0:
		return "entitlements"
	case len(o.NoCacheFilter) > 0:
		return "no_cache_filter"
	case len(o.Platforms) > 1:
		return "more than one of platforms"
	}
	for _, from := range o.CacheFrom {
		if strings.Contains(from, "=") {
			return "cache_from with a type"
		}
	}
	return ""
}

func (e *Engine) buildClassic(ctx context.Context, tarball io.Reader, name string, o engine.BuildOptions, report func(engine.Progress)) (id string, err error) {
	if what := unclassic(o); what != "" {
		return "", tender.Errorf(tender.Invalid, "build %s: the engine has no BuildKit, which build.%s needs", name, what).
			Hint("use Docker Engine 18.09 or later, or leave %s out", what)
	}
	opts := client.ImageBuildOptions{
		Version: build.BuilderV1, Tags: o.Tags, Dockerfile: o.Dockerfile, BuildArgs: o.Args, Target: o.Target, Labels: o.Labels,
		NoCache: o.NoCache, PullParent: o.Pull, CacheFrom: o.CacheFrom, NetworkMode: o.Network, ShmSize: o.ShmSize,
		ExtraHosts: o.ExtraHosts, RemoteContext: o.Remote, Remove: true, ForceRemove: true, AuthConfigs: map[string]registry.AuthConfig{},
	}
	for host, auth := range o.Auths {
		login, err := readAuth(auth)
		if err != nil {
			return "", tender.Errorf(tender.Invalid, "build %s: the login for %s: %w", name, host, err)
		}
		if host == hub {
			host = "https://index.docker.io/v1/" // under this name the classic builder looks for it
		}
		opts.AuthConfigs[host] = registry.AuthConfig{Username: login.Username, Password: login.Password, IdentityToken: login.IdentityToken}
	}
	for _, u := range o.Ulimits {
		limit, err := parseUlimit(u)
		if err != nil {
			return "", tender.Errorf(tender.Invalid, "build %s: %w", name, err)
		}
		opts.Ulimits = append(opts.Ulimits, limit)
	}
	if len(o.Platforms) == 1 {
		if p := platform(o.Platforms[0]); p != nil {
			opts.Platforms = []ocispec.Platform{*p}
		}
	}
	got, err := e.c().ImageBuild(ctx, tarball, opts)
	if err != nil {
		return "", wrap(err, "build %s", name)
	}
	defer got.Body.Close()
	messages := func(yield func(jsonstream.Message, error) bool) {
		d := json.NewDecoder(got.Body)
		for {
			var m jsonstream.Message
			if err := d.Decode(&m); err != nil {
				if !errors.Is(err, io.EOF) {
					yield(m, err)
				}
				return
			}
			if m.Aux != nil {
				var aux struct{ ID string }
				if json.Unmarshal(*m.Aux, &aux) == nil && aux.ID != "" {
					id = aux.ID
				}
			}
			if !yield(m, nil) {
				return
			}
		}
	}
	if err := tell(messages, report); err != nil {
		if said, ok := errors.AsType[*jsonstream.Error](err); ok {
			// The Dockerfile failed, not the engine.
			return "", tender.Errorf(tender.Invalid, "build %s: %w", name, error(said))
		}
		return "", wrap(err, "build %s", name)
	}
	if id == "" {
		return "", tender.Errorf(tender.Internal, "build %s: the engine named no image", name)
	}
	return id, nil
}
