package docker

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// recipe is all that the engine must be told to make one container.
type recipe struct {
	config    *container.Config
	host      *container.HostConfig
	endpoints []endpoint // in the order of their priority; the first is the one it is created with
	platform  *ocispec.Platform
}

// translate turns a service into a recipe for slot. inherited are anonymous
// volumes to take over, by where they are mounted.
func (e *Engine) translate(ctx context.Context, w engine.Want, img image.InspectResponse, slot int, inherited map[string]string) (recipe, error) {
	p, s, err := e.service(w.Service)
	if err != nil {
		return recipe{}, err
	}
	exposed, bindings, err := ports(s)
	if err != nil {
		return recipe{}, err
	}
	binds, mounts, err := e.mounts(p, s, w, img, inherited)
	if err != nil {
		return recipe{}, err
	}
	health, err := e.healthcheck(ctx, s)
	if err != nil {
		return recipe{}, err
	}
	c := &container.Config{
		Hostname:     s.Hostname,
		Domainname:   s.DomainName,
		User:         s.User,
		ExposedPorts: exposed,
		Tty:          s.Tty,
		OpenStdin:    s.StdinOpen,
		Env:          environment(s.Environment),
		Healthcheck:  health,
		WorkingDir:   s.WorkingDir,
		Labels:       labels(w, s, slot),
		StopSignal:   s.StopSignal,
	}
	if s.StopGracePeriod != nil {
		if c.StopTimeout = seconds(time.Duration(*s.StopGracePeriod)); c.StopTimeout == nil {
			c.StopTimeout = new(int) // no grace, as opposed to nothing said
		}
	}
	if e.o.Home != "" {
		c.Labels[labelHome] = e.o.Home
	}
	// Not nil but empty clears what the image says.
	if s.Command != nil {
		c.Cmd = s.Command
	}
	if s.Entrypoint != nil {
		c.Entrypoint = s.Entrypoint
	}
	h := &container.HostConfig{
		Binds:          binds,
		Mounts:         mounts,
		LogConfig:      e.logging(s),
		PortBindings:   bindings,
		RestartPolicy:  restartPolicy(s),
		VolumeDriver:   s.VolumeDriver,
		CapAdd:         s.CapAdd,
		CapDrop:        s.CapDrop,
		CgroupnsMode:   container.CgroupnsMode(s.Cgroup),
		DNSOptions:     s.DNSOpts,
		DNSSearch:      s.DNSSearch,
		ExtraHosts:     slices.Sorted(slices.Values(s.ExtraHosts.AsList(":"))),
		GroupAdd:       s.GroupAdd,
		OomScoreAdj:    int(s.OomScoreAdj),
		Privileged:     s.Privileged,
		ReadonlyRootfs: s.ReadOnly,
		StorageOpt:     s.StorageOpt,
		Tmpfs:          tmpfs(s.Tmpfs),
		UTSMode:        container.UTSMode(s.Uts),
		UsernsMode:     container.UsernsMode(s.UserNSMode),
		ShmSize:        int64(s.ShmSize),
		Sysctls:        s.Sysctls,
		Runtime:        s.Runtime,
		Isolation:      container.Isolation(s.Isolation),
		Umask:          s.Umask,
		Init:           s.Init,
		Resources:      resources(s),
	}
	security(s, h)
	if len(s.Annotations) > 0 {
		h.Annotations = s.Annotations
	}
	if err := e.shared(ctx, w, s, h); err != nil {
		return recipe{}, err
	}
	r := recipe{config: c, host: h, platform: platform(s.Platform)}
	if r.endpoints, err = e.endpoints(ctx, p, s, w, slot); err != nil {
		return recipe{}, err
	}
	if h.DNS, err = e.resolvers(ctx, s, r.endpoints); err != nil {
		return recipe{}, err
	}
	switch {
	case s.NetworkMode != "":
	case len(r.endpoints) > 0:
		h.NetworkMode = container.NetworkMode(r.endpoints[0].network)
	}
	return r, nil
}

// resolvers are whom a container asks for what the engine itself does not know.
func (e *Engine) resolvers(ctx context.Context, s types.ServiceConfig, endpoints []endpoint) (out []netip.Addr, err error) {
	for _, a := range s.DNS {
		if a == tender.DNS {
			if a, err = e.host53(ctx, s.Name, endpoints); err != nil {
				return nil, err
			}
		}
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return nil, tender.Errorf(tender.Invalid, "service %s: dns %q is no address", s.Name, a)
		}
		out = append(out, addr)
	}
	return out, nil
}

// host53 is where Tender's DNS answers the containers of these networks: the
// host's address in the first one that is a project's bridge.
func (e *Engine) host53(ctx context.Context, service string, endpoints []endpoint) (string, error) {
	for _, ep := range endpoints {
		n, err := e.c().NetworkInspect(ctx, ep.network, client.NetworkInspectOptions{})
		if err != nil {
			return "", wrap(err, "inspect network %s", ep.network)
		}
		if address, _ := gatewayOf(n.Network.Network); address != "" && n.Network.Labels[composeProject] != "" {
			return address, nil
		}
	}
	return "", tender.Errorf(tender.Invalid, "service %s: dns: tender: none of its networks is a bridge that a project has made", service).
		Hint("write addresses under dns:, or add such a network under networks:")
}

// environment is sorted, so that two recipes can be compared.
func environment(m types.MappingWithEquals) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if v := m[k]; v != nil {
			out = append(out, k+"="+*v)
		} else {
			out = append(out, k)
		}
	}
	return out
}

// seconds rounds up: half a second of grace is not none.
func seconds(d time.Duration) *int {
	if d <= 0 {
		return nil
	}
	n := int(math.Ceil(d.Seconds()))
	return &n
}

func (e *Engine) healthcheck(ctx context.Context, s types.ServiceConfig) (*container.HealthConfig, error) {
	h := s.HealthCheck
	if h == nil {
		return nil, nil
	}
	if h.Disable {
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	}
	out := &container.HealthConfig{Test: h.Test}
	for from, to := range map[*types.Duration]*time.Duration{
		h.Interval: &out.Interval, h.Timeout: &out.Timeout, h.StartPeriod: &out.StartPeriod,
	} {
		if from != nil {
			*to = time.Duration(*from)
		}
	}
	if h.Retries != nil {
		out.Retries = int(*h.Retries)
	}
	if h.StartInterval != nil {
		ok, err := e.atLeast(ctx, "1.44")
		if err != nil {
			return nil, err
		}
		if ok {
			out.StartInterval = time.Duration(*h.StartInterval)
		}
	}
	return out, nil
}

// logging bounds the log where the user does not: the engine's default grows for ever.
func (e *Engine) logging(s types.ServiceConfig) container.LogConfig {
	if s.Logging != nil && (s.Logging.Driver != "" || len(s.Logging.Options) > 0) {
		return container.LogConfig{Type: s.Logging.Driver, Config: s.Logging.Options}
	}
	if s.LogDriver != "" || len(s.LogOpt) > 0 {
		return container.LogConfig{Type: s.LogDriver, Config: s.LogOpt}
	}
	if info := e.info.Load(); info != nil && info.LoggingDriver == "json-file" {
		return container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "3"}}
	}
	return container.LogConfig{}
}

// security splits off what has fields of its own. Profiles of seccomp are inline by now.
func security(s types.ServiceConfig, h *container.HostConfig) {
	for _, o := range s.SecurityOpt {
		switch key, value := securityOption(o); {
		case key == "systempaths" && value == "unconfined":
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
		case value != "":
			h.SecurityOpt = append(h.SecurityOpt, key+"="+value)
		default:
			h.SecurityOpt = append(h.SecurityOpt, o)
		}
	}
}

// securityOption splits KEY=VALUE or the older KEY:VALUE; an inline profile holds both signs.
func securityOption(o string) (key, value string) {
	i := strings.IndexAny(o, "=:")
	if i < 0 {
		return o, ""
	}
	return o[:i], o[i+1:]
}

func platform(s string) *ocispec.Platform {
	if s == "" {
		return nil
	}
	f := strings.SplitN(s+"//", "/", 4)
	return &ocispec.Platform{OS: f[0], Architecture: f[1], Variant: f[2]}
}

func tmpfs(list []string) map[string]string {
	var out map[string]string
	for _, t := range list {
		path, options, _ := strings.Cut(t, ":")
		if out == nil {
			out = map[string]string{}
		}
		out[path] = options
	}
	return out
}

// shared resolves namespaces and volumes that are another instance's.
func (e *Engine) shared(ctx context.Context, w engine.Want, s types.ServiceConfig, h *container.HostConfig) error {
	resolve := func(mode string) (string, error) {
		name, ok := strings.CutPrefix(mode, "service:")
		if !ok {
			return mode, nil
		}
		id, err := e.oneOf(ctx, w.Project, name)
		if err != nil {
			return "", fmt.Errorf("service %s: %w", s.Name, err)
		}
		return "container:" + id, nil
	}
	mode, err := resolve(s.NetworkMode)
	if err != nil {
		return err
	}
	h.NetworkMode = container.NetworkMode(mode)
	if h.NetworkMode.IsBridge() || mode == "default" {
		// The engine's own bridge knows no names but these.
		if h.Links, err = e.links(ctx, s, w, true); err != nil {
			return err
		}
	}
	if mode, err = resolve(s.Ipc); err != nil {
		return err
	}
	h.IpcMode = container.IpcMode(mode)
	if mode, err = resolve(s.Pid); err != nil {
		return err
	}
	h.PidMode = container.PidMode(mode)
	for _, v := range s.VolumesFrom {
		// NAME[:MODE] is a service, container:NAME[:MODE] a container.
		if from, ok := strings.CutPrefix(v, "container:"); ok {
			h.VolumesFrom = append(h.VolumesFrom, from)
			continue
		}
		name, access, _ := strings.Cut(v, ":")
		id, err := e.oneOf(ctx, w.Project, name)
		if err != nil {
			return fmt.Errorf("service %s: %w", s.Name, err)
		}
		if access != "" {
			id += ":" + access
		}
		h.VolumesFrom = append(h.VolumesFrom, id)
	}
	return nil
}

// oneOf is the id of a container of a service, of a running one where there is one.
func (e *Engine) oneOf(ctx context.Context, project, service string) (string, error) {
	c, err := e.memberOf(ctx, project, service)
	return c.ID, err
}

func (e *Engine) memberOf(ctx context.Context, project, service string) (container.Summary, error) {
	list, err := e.c().ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).
		Add("label", composeProject+"="+project, composeService+"="+service, composeOneoff+"=False")})
	if err != nil {
		return container.Summary{}, wrap(err, "look for service %s", service)
	}
	slices.SortFunc(list.Items, func(a, b container.Summary) int {
		if (a.State == container.StateRunning) != (b.State == container.StateRunning) {
			if a.State == container.StateRunning {
				return -1
			}
			return 1
		}
		return int(b.Created - a.Created)
	})
	if len(list.Items) == 0 {
		return container.Summary{}, tender.Errorf(tender.NotFound, "service %s, which it joins, has no instance", service)
	}
	return list.Items[0], nil
}
