package docker

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	bk "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	bksession "github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// buildKit builds with the engine's BuildKit. The Dockerfile is read by the
// frontend that is part of this binary, so that an engine of any age, with no
// registry in reach, understands today's Dockerfiles.
func (e *Engine) buildKit(ctx context.Context, b *bk.Client, tarball io.Reader, name string, o engine.BuildOptions, report func(engine.Progress)) (string, error) {
	uploads := uploadprovider.New()
	f := &frontend{options: o, report: report, inputs: map[string]llb.State{}}
	attrs, err := e.attributes(ctx, o)
	if err != nil {
		return "", wrap(err, "build %s", name)
	}
	sent := func(tarball io.Reader, label string) llb.State {
		from := llb.HTTP(uploads.Add(io.NopCloser(tarball)), llb.Filename("context.tar"), llb.WithCustomNamef("[%s] load", label))
		return llb.Scratch().File(llb.Copy(from, "context.tar", "/", &llb.CopyInfo{AttemptUnpack: true}), llb.WithCustomNamef("[%s] unpack", label))
	}
	if o.Remote != "" {
		attrs["context"] = o.Remote
	} else {
		f.inputs["context"] = sent(tarball, "context")
		f.inputs["dockerfile"] = f.inputs["context"]
	}
	for _, key := range slices.Sorted(maps.Keys(o.Contexts)) {
		attrs["context:"+key] = "input:beside-" + key
		f.inputs["beside-"+key] = sent(o.Contexts[key], "context "+key)
	}
	if len(o.Platforms) > 1 && !e.manyPlatforms() {
		return "", tender.Errorf(tender.Invalid, "build %s: the engine keeps one platform of an image, not %s", name, strings.Join(o.Platforms, ", ")).
			Hint("name one under build.platforms, or turn on the engine's containerd image store: \"features\": {\"containerd-snapshotter\": true}")
	}
	opt := bk.SolveOpt{
		FrontendAttrs: attrs,
		Exports:       []bk.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": strings.Join(o.Tags, ",")}}},
		Session:       []bksession.Attachable{uploads, secretsprovider.FromMap(o.Secrets)},
	}
	if o.Network == "host" {
		opt.AllowedEntitlements = append(opt.AllowedEntitlements, "network.host")
	}
	opt.AllowedEntitlements = append(opt.AllowedEntitlements, o.Entitlements...)
	if opt.CacheImports, err = caches(o.CacheFrom); err != nil {
		return "", tender.Errorf(tender.Invalid, "build %s: cache_from: %w", name, err)
	}
	if opt.CacheExports, err = caches(o.CacheTo); err != nil {
		return "", tender.Errorf(tender.Invalid, "build %s: cache_to: %w", name, err)
	}
	logins, err := newLogins(o.Auths)
	if err != nil {
		return "", tender.Errorf(tender.Invalid, "build %s: %w", name, err)
	}
	opt.Session = append(opt.Session, logins)
	if len(o.Agents) > 0 {
		var agents []sshprovider.AgentConfig
		for _, id := range slices.Sorted(maps.Keys(o.Agents)) {
			agents = append(agents, sshprovider.AgentConfig{ID: id, Paths: []string{o.Agents[id]}})
		}
		ssh, err := sshprovider.NewSSHAgentProvider(agents)
		if err != nil {
			return "", tender.Errorf(tender.Invalid, "build %s: ssh: %w", name, err).
				Hint("start an agent and give it a key: eval $(ssh-agent) && ssh-add")
		}
		opt.Session = append(opt.Session, ssh)
	}

	statuses := make(chan *bk.SolveStatus)
	told := make(chan *steps)
	go func() {
		s := newSteps(report)
		for status := range statuses {
			s.take(status)
		}
		told <- s
	}()
	got, err := b.Build(ctx, opt, "tender", f.build, statuses) // closes statuses
	steps := <-told
	if err != nil {
		return "", buildError(ctx, name, err, f.err, steps)
	}
	id := got.ExporterResponse["containerimage.digest"]
	if id == "" {
		return "", tender.Errorf(tender.Internal, "build %s: the engine named no image", name)
	}
	// What the exporter calls an image is not in every engine what the image is called by.
	for _, ref := range append([]string{id}, o.Tags...) {
		if i, err := e.c().ImageInspect(ctx, ref); err == nil {
			return i.ID, nil
		}
	}
	return id, nil
}

// manyPlatforms reports whether images are kept in containerd, which holds one
// for several platforms.
func (e *Engine) manyPlatforms() bool {
	return slices.ContainsFunc(e.info.Load().DriverStatus, func(s [2]string) bool {
		return s[0] == "driver-type" && strings.HasPrefix(s[1], "io.containerd.snapshotter.")
	})
}

// attributes are what the frontend is told.
func (e *Engine) attributes(ctx context.Context, o engine.BuildOptions) (map[string]string, error) {
	attrs := map[string]string{"filename": o.Dockerfile}
	if o.Dockerfile == "" {
		attrs["filename"] = "Dockerfile"
	}
	set := func(key, value string) {
		if value != "" {
			attrs[key] = value
		}
	}
	set("target", o.Target)
	set("platform", strings.Join(o.Platforms, ","))
	set("ulimit", strings.Join(o.Ulimits, ","))
	if o.ShmSize > 0 {
		set("shm-size", strconv.FormatInt(o.ShmSize, 10))
	}
	if o.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	if o.NoCache {
		attrs["no-cache"] = ""
	} else {
		set("no-cache", strings.Join(o.NoCacheFilter, ","))
	}
	for k, v := range o.Args {
		if v != nil {
			attrs["build-arg:"+k] = *v
		}
	}
	for k, v := range o.Labels {
		attrs["label:"+k] = v
	}
	for k, v := range o.ContextURLs {
		attrs["context:"+k] = v
	}
	switch o.Network {
	case "", "default":
	case "host", "none":
		attrs["force-network-mode"] = o.Network
	default:
		return nil, tender.Errorf(tender.Invalid, "network %q: a build has the network default, none or host", o.Network)
	}
	var hosts []string
	for _, h := range o.ExtraHosts {
		host, address, ok := strings.Cut(h, ":")
		if !ok {
			return nil, tender.Errorf(tender.Invalid, "extra_hosts: %q: want NAME:ADDRESS", h)
		}
		if address == "host-gateway" {
			var err error
			if address, err = e.gateway(ctx); err != nil {
				return nil, err
			}
		}
		hosts = append(hosts, host+"="+strings.Trim(address, "[]"))
	}
	set("add-hosts", strings.Join(hosts, ","))
	return attrs, nil
}

// gateway is where a build reaches the engine's host.
func (e *Engine) gateway(ctx context.Context) (string, error) {
	n, err := e.c().NetworkInspect(ctx, "bridge", client.NetworkInspectOptions{})
	if err != nil {
		return "", err
	}
	for _, c := range n.Network.IPAM.Config {
		if c.Gateway.Is4() {
			return c.Gateway.String(), nil
		}
		// Until its first restart an old engine does not name the gateway of the bridge that it made: the first address.
		if c.Subnet.Addr().Is4() {
			return c.Subnet.Masked().Addr().Next().String(), nil
		}
	}
	return "", tender.Errorf(tender.NotFound, "host-gateway: the engine's default bridge has no gateway").
		Hint("write the host's address into extra_hosts")
}

// caches reads cache_from and cache_to: a reference, or type=TYPE,KEY=VALUE,…
func caches(entries []string) ([]bk.CacheOptionsEntry, error) {
	var out []bk.CacheOptionsEntry
	for _, entry := range entries {
		c := bk.CacheOptionsEntry{Attrs: map[string]string{}}
		fields, err := csv.NewReader(strings.NewReader(entry)).Read()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", entry, err)
		}
		if len(fields) == 1 && !strings.Contains(entry, "=") {
			fields = []string{"type=registry", "ref=" + entry}
		}
		for _, f := range fields {
			k, v, ok := strings.Cut(f, "=")
			if !ok {
				return nil, fmt.Errorf("%q: want type=TYPE,KEY=VALUE", entry)
			}
			if k = strings.ToLower(k); k == "type" {
				c.Type = v
			} else {
				c.Attrs[k] = v
			}
		}
		switch c.Type {
		case "":
			return nil, fmt.Errorf("%q says no type", entry)
		case "local":
			return nil, fmt.Errorf("%q: a cache in a folder is not carried between you and the engine; use type=inline or type=registry", entry)
		}
		out = append(out, c)
	}
	return out, nil
}

func parseUlimit(s string) (*container.Ulimit, error) {
	u, err := units.ParseUlimit(s)
	if err != nil {
		return nil, fmt.Errorf("ulimits: %q: %w", s, err)
	}
	return &container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}, nil
}

// frontend turns a Dockerfile into steps, here and not in the engine.
type frontend struct {
	options engine.BuildOptions
	report  func(engine.Progress)
	inputs  map[string]llb.State
	err     error // with more of it than what has been to the engine and back
}

func (f *frontend) build(ctx context.Context, c gateway.Client) (r *gateway.Result, err error) {
	defer func() { f.err = err }()
	v := view{Client: c, inputs: f.inputs, opts: c.BuildOpts()}
	for _, lost := range f.lost(v.opts.LLBCaps) {
		f.report(engine.Progress{Text: "warning: the engine is too old for build." + lost + ", which is left out"})
	}
	ui, err := dockerui.NewClient(v)
	if err != nil {
		return nil, err
	}
	file, err := ui.ReadEntrypoint(ctx, "Dockerfile")
	if err != nil {
		return nil, err
	}
	if ref, line, _, ok := parser.DetectSyntax(file.Data); ok && builtIn.MatchString(ref) {
		// With this the frontend does not fetch another one of its kind from a registry.
		v.opts.Opts = maps.Clone(v.opts.Opts)
		v.opts.Opts["cmdline"] = line
	}
	return builder.Build(ctx, v)
}

// lost names what is asked for and an old engine would drop without a word.
func (f *frontend) lost(caps apicaps.CapSet) []string {
	var out []string
	if len(f.options.Ulimits) > 0 && caps.Supports(pb.CapExecMetaUlimit) != nil {
		out = append(out, "ulimits")
	}
	if f.options.ShmSize > 0 && caps.Supports(pb.CapExecMountTmpfsSize) != nil {
		out = append(out, "shm_size")
	}
	return out
}

// builtIn matches what # syntax= lines ask for and this frontend is: the stable
// releases of docker/dockerfile, which only ever add to the language.
var builtIn = regexp.MustCompile(`^(docker\.io/)?docker/dockerfile(:(latest|1(\.\d+){0,2}))?$`)

// view is BuildKit as the frontend sees it.
type view struct {
	gateway.Client
	inputs map[string]llb.State
	opts   gateway.BuildOpts
}

func (v view) BuildOpts() gateway.BuildOpts                         { return v.opts }
func (v view) Inputs(context.Context) (map[string]llb.State, error) { return v.inputs, nil }
