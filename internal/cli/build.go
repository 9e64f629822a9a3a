package cli

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
)

type buildFlags struct {
	noCache, pull, quiet, push, deps bool
	args, ssh                        []string
}

func (a *app) buildCommand() *cobra.Command {
	var f buildFlags
	c := &cobra.Command{
		Use:               "build [flags] [SERVICE...]",
		Short:             "Build the images of services",
		Example:           "  tender build\n  tender build --build-arg VERSION=1.4.3 web\n  tender build --ssh default --progress plain api",
		ValidArgsFunction: a.fileServices,
		RunE:              func(c *cobra.Command, services []string) error { return a.build(c.Context(), f, services) },
	}
	c.Flags().BoolVar(&f.noCache, "no-cache", false, "run every step anew")
	c.Flags().BoolVar(&f.pull, "pull", false, "pull base images although they are there")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print the ids of the images alone")
	c.Flags().BoolVar(&f.push, "push", false, "push the images afterwards")
	c.Flags().BoolVar(&f.deps, "with-dependencies", false, "build those that the services depend on, too")
	c.Flags().StringArrayVar(&f.ssh, "ssh", nil, "SSH agent for RUN --mount=type=ssh: `default` or ID=SOCKET")
	c.Flags().StringArrayVar(&f.args, "build-arg", nil, "argument of the build: `NAME=VALUE`")
	a.inFile(c)
	return c
}

func (a *app) build(ctx context.Context, f buildFlags, services []string) error {
	doc, err := a.load(ctx, services)
	if err != nil {
		return err
	}
	p, err := compose.Parse([]byte(doc.YAML))
	if err != nil {
		return err
	}
	in, err := need(p, services, !f.deps)
	if err != nil {
		return err
	}
	extra := map[string]*string{}
	for _, s := range f.args {
		if k, v, ok := strings.Cut(s, "="); ok {
			extra[k] = &v
		} else if v := a.getenv(k); v != "" {
			extra[k] = &v
		}
	}
	ssh, err := a.sshSockets(f.ssh)
	if err != nil {
		return err
	}
	d, err := a.client()
	if err != nil {
		return err
	}
	if f.quiet {
		a.progress = "quiet"
	}
	at, err := a.bench(ctx, d, doc.Builds)
	if err != nil {
		return err
	}
	built := 0
	for _, b := range inOrder(doc.Builds, func(b compose.Build) bool { return in[b.Service] }) {
		b.NoCache, b.Pull = b.NoCache || f.noCache, b.Pull || f.pull
		if len(extra) > 0 {
			b.Args = maps.Clone(b.Args)
			if b.Args == nil {
				b.Args = map[string]*string{}
			}
			maps.Copy(b.Args, extra)
		}
		if len(ssh) > 0 {
			b.SSH = ssh
		}
		id, err := a.buildOne(ctx, at, doc, b)
		if err == nil {
			err = a.send(ctx, at, b.Tags)
		}
		if err != nil {
			return err
		}
		if f.quiet {
			fmt.Fprintln(a.Out, id)
		}
		built++
	}
	if built == 0 {
		a.note("nothing to build: no service here has build:")
		return nil
	}
	if f.push {
		return a.push(ctx, services)
	}
	return nil
}

// sshSockets reads --ssh: default, or ID=SOCKET.
func (a *app) sshSockets(words []string) (map[string]string, error) {
	ssh := map[string]string{}
	for _, s := range words {
		id, socket, _ := strings.Cut(s, "=")
		if socket == "" && id != "default" {
			return nil, misuse("write it as default or ID=SOCKET", "--ssh %q", s)
		}
		if socket != "" && !filepath.IsAbs(socket) {
			socket = filepath.Join(a.Dir, socket)
		}
		ssh[id] = socket
	}
	return ssh, nil
}

// buildMissing builds, before an up, what has no image yet, or all that can be built.
func (a *app) buildMissing(ctx context.Context, d *api.Client, doc compose.Document, p tender.Project, f upFlags, services []string) error {
	in, err := need(p, services, f.noDeps)
	if err != nil {
		return err
	}
	other, err := pairs("--image", f.images)
	if err != nil {
		return err
	}
	shape, err := readForm(doc.YAML)
	if err != nil {
		return err
	}
	var candidates []compose.Build
	var refs []string
	for _, b := range inOrder(doc.Builds, func(b compose.Build) bool { return in[b.Service] && other[b.Service] == "" }) {
		candidates = append(candidates, b)
		refs = append(refs, b.Tags[0])
	}
	at, err := a.bench(ctx, d, doc.Builds)
	if err != nil {
		return err
	}
	if err := a.sendOwn(ctx, at, p, in); err != nil {
		return err
	}
	if len(candidates) == 0 {
		return nil
	}
	there, here := map[string]bool{}, map[string]bool{}
	if !f.build {
		images, err := d.Images(ctx, refs)
		if err != nil {
			return err
		}
		for _, i := range images {
			there[i.Reference] = true
		}
		if at.here != nil {
			if images, err = at.here.Images(ctx, refs); err != nil {
				return err
			}
			for _, i := range images {
				here[i.Reference] = true
			}
		}
	}
	for _, b := range candidates {
		anew := shape.Services[b.Service].PullPolicy == "build"
		if there[b.Tags[0]] && !anew {
			continue
		}
		if !here[b.Tags[0]] || anew {
			if _, err := a.buildOne(ctx, at, doc, b); err != nil {
				return err
			}
		}
		if err := a.send(ctx, at, b.Tags); err != nil {
			return err
		}
	}
	return nil
}

// inOrder returns the builds that want chooses and those whose images they take
// as contexts, these first.
func inOrder(builds []compose.Build, want func(compose.Build) bool) []compose.Build {
	var out []compose.Build
	seen := map[string]bool{}
	var add func(b compose.Build)
	add = func(b compose.Build) {
		if seen[b.Service] {
			return
		}
		seen[b.Service] = true
		for _, name := range sortedKeys(b.Contexts) {
			if other, ok := builtBy(builds, b.Contexts[name]); ok {
				add(other)
			}
		}
		out = append(out, b)
	}
	for _, b := range builds {
		if want(b) {
			add(b)
		}
	}
	return out
}

// builtBy returns the build that a context service:NAME means.
func builtBy(builds []compose.Build, context string) (compose.Build, bool) {
	service, ok := strings.CutPrefix(context, "service:")
	at := slices.IndexFunc(builds, func(b compose.Build) bool { return b.Service == service })
	if !ok || at < 0 {
		return compose.Build{}, false
	}
	return builds[at], true
}

// buildOne streams the contexts of one service to the engine that builds it.
func (a *app) buildOne(ctx context.Context, at bench, doc compose.Document, b compose.Build) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("build %s: %w", b.Service, err) }
	r := api.BuildRequest{
		Project: doc.Name, Service: b.Service, Tags: b.Tags, Args: b.Args, Target: b.Target, Labels: b.Labels, NoCache: b.NoCache,
		NoCacheFilter: b.NoCacheFilter, Pull: b.Pull, CacheFrom: b.CacheFrom, CacheTo: b.CacheTo, Network: b.Network, ShmSize: b.ShmSize,
		Ulimits: b.Ulimits, ExtraHosts: b.ExtraHosts, Platforms: b.Platforms, Entitlements: b.Entitlements, External: b.External,
	}
	for id, key := range b.Secrets {
		if r.Secrets == nil {
			r.Secrets = map[string][]byte{}
		}
		r.Secrets[id] = doc.Secrets[key]
	}
	var err error
	if r.Agents, err = a.agents(b.SSH, at.here == nil && a.remote()); err != nil {
		return fail(err)
	}
	auths, err := a.allAuths()
	if err != nil { // the images may be public, or there already
		a.note("warning: %v", err)
	}
	r.Auths = auths
	contexts, err := buildContexts(&r, doc.Builds, b)
	defer func() {
		for _, c := range contexts {
			c.Tar.(io.Closer).Close()
		}
	}()
	if err != nil {
		return fail(err)
	}
	p, err := a.progressFor()
	if err != nil {
		return "", err
	}
	begun := time.Now()
	id, err := at.Build(ctx, r, contexts, func(e api.Event) {
		if e.Service == "" {
			e.Service = b.Service
		}
		p.report(e)
	})
	if l, ok := p.(*live); ok && err == nil {
		l.report(api.Event{Kind: api.KindEnded, Service: b.Service, Text: "built"}) // the others print a line of their own below
	}
	p.close()
	if err != nil {
		return fail(err)
	}
	if a.progress != "quiet" && a.progress != "json" {
		a.note("built %s: %s (%s)", b.Service, shortID(id), took(time.Since(begun)))
	}
	return id, nil
}

// agents finds the sockets of SSH agents. Who builds talks to them itself, so
// both must be on one host.
func (a *app) agents(ssh map[string]string, far bool) (map[string]string, error) {
	var out map[string]string
	for _, id := range sortedKeys(ssh) {
		if far {
			return nil, tender.Errorf(tender.Invalid, "ssh: the daemon is on another host and cannot reach your SSH agent").
				Hint("run tender on that host, or give the build a key as a secret")
		}
		socket := ssh[id]
		if socket == "" {
			socket = a.getenv("SSH_AUTH_SOCK")
		}
		if socket == "" {
			return nil, tender.Errorf(tender.Invalid, "ssh: no SSH agent runs: SSH_AUTH_SOCK is not set").
				Hint("start one and give it a key: eval $(ssh-agent) && ssh-add")
		}
		st, err := os.Stat(socket)
		if err != nil {
			return nil, tender.Errorf(tender.Invalid, "ssh: %s: %w", id, err).Hint("start an agent: eval $(ssh-agent) && ssh-add")
		}
		if st.Mode()&fs.ModeSocket == 0 {
			return nil, tender.Errorf(tender.Invalid, "ssh: %s: %s is not the socket of an agent; keys in files are not sent", id, socket).
				Hint("ssh-add %s, and write ssh: [default]", socket)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[id] = socket
	}
	return out, nil
}
