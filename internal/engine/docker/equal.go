package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/tenderhq/tender/internal/engine"
)

// Equal implements engine.Reader. It compares what is there with what w would
// make, in all that makes a container behave differently; what only Tender
// adds (its labels, the aliases SERVICE-N and SERVICE.PROJECT.tender, bounds on the log) is no difference.
func (e *Engine) Equal(ctx context.Context, w engine.Want, id string) (bool, string, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return false, "", err
	}
	got, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return false, "", wrap(err, "compare %s", short(id))
	}
	c := got.Container
	img, _, err := e.image(ctx, w.Image)
	if err != nil {
		return false, "", fmt.Errorf("compare %s: %w", short(id), err)
	}
	slot := 1
	fmt.Sscan(c.Config.Labels[composeNumber], &slot)
	r, err := e.translate(ctx, w, img, slot, anonymous(c))
	if err != nil {
		return false, "", fmt.Errorf("compare %s: %w", short(id), err)
	}
	_, s, err := e.service(w.Service)
	if err != nil {
		return false, "", err
	}
	var why []string
	differs := func(what string, has, wants any) {
		if a, b := text(has), text(wants); a != b {
			why = append(why, what)
		}
	}
	differs("image", c.Image, img.ID)
	e.equalConfig(c.Config, r.config, img, differs)
	differs("mounts", mountsOf(c, img), mountsWanted(r, img, anonymous(c)))
	e.equalHost(c.HostConfig, r.host, differs)
	if s.Logging != nil || s.LogDriver != "" {
		differs("logging", logText(c.HostConfig.LogConfig), logText(r.host.LogConfig))
	}
	if s.NetworkMode != "" {
		differs("network_mode", c.HostConfig.NetworkMode, r.host.NetworkMode)
	} else if what := endpointsDiffer(c, r.endpoints, slotAlias(s.Name, slot), projectAlias(w.Project, s.Name)); what != "" {
		why = append(why, what)
	}
	return len(why) == 0, strings.Join(why, ", "), nil
}

// text is how two values are compared: nothing, empty and zero are the same.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	switch t := string(b); t {
	case "null", "[]", "{}", `""`, "0", "false":
		return ""
	default:
		return t
	}
}

func (e *Engine) equalConfig(has, wants *container.Config, img image.InspectResponse, differs func(string, any, any)) {
	// The engine fills in from the image what a container does not say; an
	// entrypoint of its own makes it forget the image's command.
	cmd, entrypoint := wants.Cmd, wants.Entrypoint
	env, user, dir, signal, health := []string(nil), wants.User, wants.WorkingDir, wants.StopSignal, wants.Healthcheck
	imageLabels := map[string]string(nil)
	if i := img.Config; i != nil {
		if len(entrypoint) == 0 {
			if len(cmd) == 0 {
				cmd = i.Cmd
			}
			if entrypoint == nil {
				entrypoint = i.Entrypoint
			}
		}
		env, imageLabels = i.Env, i.Labels
		user, dir, signal = or(user, i.User), or(dir, i.WorkingDir), or(signal, i.StopSignal)
		if health == nil {
			health = i.Healthcheck
		} else if len(health.Test) == 0 && i.Healthcheck != nil {
			merged := *health
			merged.Test = i.Healthcheck.Test
			health = &merged
		}
	}
	differs("command", has.Cmd, cmd)
	differs("entrypoint", has.Entrypoint, entrypoint)
	differs("environment", envMap(has.Env), envMap(overlay(env, wants.Env)))
	differs("user", has.User, user)
	differs("working_dir", strings.TrimSuffix(has.WorkingDir, "/"), strings.TrimSuffix(dir, "/"))
	differs("stop_signal", or(has.StopSignal, "SIGTERM"), or(signal, "SIGTERM"))
	differs("stop_grace_period", grace(has.StopTimeout), grace(wants.StopTimeout))
	differs("healthcheck", has.Healthcheck, health)
	differs("tty", has.Tty, wants.Tty)
	differs("stdin_open", has.OpenStdin, wants.OpenStdin)
	if wants.Hostname != "" {
		differs("hostname", has.Hostname, wants.Hostname)
	}
	differs("domainname", has.Domainname, wants.Domainname)
	expected := map[string]string{}
	maps.Copy(expected, imageLabels)
	maps.Copy(expected, wants.Labels)
	differs("labels", userLabels(has.Labels), userLabels(expected))
}

func (e *Engine) equalHost(has, wants *container.HostConfig, differs func(string, any, any)) {
	differs("ports", portText(has.PortBindings), portText(wants.PortBindings))
	differs("restart", policy(has.RestartPolicy), policy(wants.RestartPolicy))
	differs("privileged", has.Privileged, wants.Privileged)
	differs("read_only", has.ReadonlyRootfs, wants.ReadonlyRootfs)
	differs("cap_add", capText(has.CapAdd), capText(wants.CapAdd))
	differs("cap_drop", capText(has.CapDrop), capText(wants.CapDrop))
	// The engine adds label=disable by itself to those that share a namespace of the host.
	labelled := func(o string) bool { return o == "label=disable" }
	differs("security_opt", sorted(slices.DeleteFunc(securityText(has.SecurityOpt), labelled)),
		sorted(slices.DeleteFunc(securityText(wants.SecurityOpt), labelled)))
	differs("sysctls", has.Sysctls, wants.Sysctls)
	differs("tmpfs", has.Tmpfs, wants.Tmpfs)
	differs("init", has.Init != nil && *has.Init, wants.Init != nil && *wants.Init)
	differs("dns", has.DNS, wants.DNS)
	differs("dns_opt", has.DNSOptions, wants.DNSOptions)
	differs("dns_search", has.DNSSearch, wants.DNSSearch)
	differs("extra_hosts", sorted(has.ExtraHosts), sorted(wants.ExtraHosts))
	differs("group_add", sorted(has.GroupAdd), sorted(wants.GroupAdd))
	differs("shm_size", orSize(has.ShmSize), orSize(wants.ShmSize))
	differs("oom_score_adj", has.OomScoreAdj, wants.OomScoreAdj)
	differs("volumes_from", has.VolumesFrom, wants.VolumesFrom)
	differs("storage_opt", has.StorageOpt, wants.StorageOpt)
	differs("userns_mode", has.UsernsMode, wants.UsernsMode)
	differs("uts", has.UTSMode, wants.UTSMode)
	differs("pid", has.PidMode, wants.PidMode)
	// Where nothing is said, the engine writes its default into these.
	if wants.IpcMode != "" {
		differs("ipc", has.IpcMode, wants.IpcMode)
	}
	if wants.CgroupnsMode != "" {
		differs("cgroup", has.CgroupnsMode, wants.CgroupnsMode)
	}
	if wants.Runtime != "" {
		differs("runtime", has.Runtime, wants.Runtime)
	}
	a, b := has.Resources, wants.Resources
	differs("memory limit", a.Memory, b.Memory)
	differs("memory reservation", a.MemoryReservation, b.MemoryReservation)
	if b.MemorySwap != 0 {
		differs("memswap_limit", a.MemorySwap, b.MemorySwap)
	}
	differs("cpu limit", []int64{a.NanoCPUs, a.CPUQuota, a.CPUPeriod, a.CPUShares}, []int64{b.NanoCPUs, b.CPUQuota, b.CPUPeriod, b.CPUShares})
	differs("cpuset", a.CpusetCpus, b.CpusetCpus)
	differs("pids limit", pids(a.PidsLimit), pids(b.PidsLimit))
	differs("ulimits", a.Ulimits, b.Ulimits)
	differs("devices", a.Devices, b.Devices)
	differs("device requests", a.DeviceRequests, b.DeviceRequests)
	differs("device_cgroup_rules", a.DeviceCgroupRules, b.DeviceCgroupRules)
	differs("cgroup_parent", a.CgroupParent, b.CgroupParent)
	differs("blkio_config", a.BlkioWeight, b.BlkioWeight)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// grace of nothing said is the engine's ten seconds.
func grace(n *int) int {
	if n == nil {
		return 10
	}
	return *n
}

// orSize of nothing said is the engine's 64 MiB.
func orSize(n int64) int64 {
	if n == 0 {
		return 64 << 20
	}
	return n
}

func sorted(in []string) []string { return slices.Sorted(slices.Values(in)) }

func envMap(env []string) map[string]string {
	out := map[string]string{}
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			out[k] = v
		}
	}
	return out
}

func userLabels(in map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range in {
		if !ours(k) {
			out[k] = v
		}
	}
	return out
}

func capText(in []string) []string {
	var out []string
	for _, c := range in {
		out = append(out, strings.TrimPrefix(strings.ToUpper(c), "CAP_"))
	}
	return sorted(out)
}

// securityText compacts an inline profile, whose spaces mean nothing.
func securityText(in []string) []string {
	var out []string
	for _, o := range in {
		key, value := securityOption(o)
		var profile any
		if json.Unmarshal([]byte(value), &profile) == nil {
			value = text(profile)
		}
		out = append(out, key+"="+value)
	}
	return out
}

func logText(l container.LogConfig) string {
	return or(l.Type, "json-file") + text(l.Config)
}

func portText(m network.PortMap) []string {
	var out []string
	for p, bindings := range m {
		for _, b := range bindings {
			ip := ""
			if b.HostIP.IsValid() && !b.HostIP.IsUnspecified() {
				ip = b.HostIP.String()
			}
			out = append(out, fmt.Sprintf("%s:%s:%s", ip, or(b.HostPort, "0"), p))
		}
	}
	return sorted(out)
}

// mountsOf is what a container has mounted, one line each; tmpfs is compared elsewhere.
func mountsOf(c container.InspectResponse, _ image.InspectResponse) []string {
	var out []string
	for _, m := range c.Mounts {
		switch m.Type {
		case mount.TypeVolume:
			out = append(out, fmt.Sprintf("volume %s %s rw=%t", m.Name, path.Clean(m.Destination), m.RW))
		case mount.TypeTmpfs:
		default:
			out = append(out, fmt.Sprintf("%s %s %s rw=%t", m.Type, m.Source, path.Clean(m.Destination), m.RW))
		}
	}
	return sorted(out)
}

// mountsWanted is what a recipe would have mounted.
func mountsWanted(r recipe, img image.InspectResponse, anonymous map[string]string) []string {
	var out []string
	covered := map[string]bool{}
	for _, b := range r.host.Binds {
		f := strings.SplitN(b, ":", 3)
		target := path.Clean(f[1])
		covered[target] = true
		ro := len(f) == 3 && slices.Contains(strings.Split(f[2], ","), "ro")
		out = append(out, fmt.Sprintf("bind %s %s rw=%t", f[0], target, !ro))
	}
	for _, m := range r.host.Mounts {
		target := path.Clean(m.Target)
		covered[target] = true
		if m.Type == mount.TypeTmpfs {
			continue
		}
		out = append(out, fmt.Sprintf("%s %s %s rw=%t", m.Type, m.Source, target, !m.ReadOnly))
	}
	if img.Config != nil {
		for target := range img.Config.Volumes {
			if target = path.Clean(target); !covered[target] {
				out = append(out, fmt.Sprintf("volume %s %s rw=true", anonymous[target], target))
			}
		}
	}
	return sorted(out)
}

// endpointsDiffer says what of the wanted networks a container lacks.
// Names that only Tender gives are no difference.
func endpointsDiffer(c container.InspectResponse, wants []endpoint, tenders ...string) string {
	if c.NetworkSettings == nil {
		return "networks"
	}
	for _, ep := range wants {
		has, ok := c.NetworkSettings.Networks[ep.network]
		if !ok {
			return "not in network " + ep.network
		}
		for _, a := range ep.settings.Aliases {
			if !slices.Contains(tenders, a) && !slices.Contains(has.Aliases, a) {
				return fmt.Sprintf("alias %s in network %s", a, ep.network)
			}
		}
		if i := ep.settings.IPAMConfig; i != nil && i.IPv4Address.IsValid() {
			if has.IPAMConfig == nil || has.IPAMConfig.IPv4Address != i.IPv4Address {
				return "address in network " + ep.network
			}
		}
	}
	if len(c.NetworkSettings.Networks) > len(wants) {
		return "in more networks than the file says"
	}
	return ""
}
