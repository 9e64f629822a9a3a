package convert

import (
	"encoding/csv"
	"errors"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// runFlag is one flag of docker run and where it goes in a Compose file.
type runFlag struct {
	name, short string
	alone       bool // takes no value
	terminal    bool // concerns the command's own terminal alone: there is nothing to write
	refuse      string
	put         func(c *conversion, value string) error
}

func flagCalled(name string) *runFlag {
	for i := range runFlags {
		if f := &runFlags[i]; f.name == name || f.short != "" && f.short == name {
			return f
		}
	}
	return nil
}

// runFlags are all flags of docker run 28, and those that older ones had.
var runFlags = []runFlag{
	{name: "add-host", put: each("extra_hosts")},
	{name: "annotation", put: pair("annotations")},
	{name: "attach", short: "a", terminal: true},
	{name: "blkio-weight", put: number("blkio_config", "weight")},
	{name: "blkio-weight-device", put: ofDevice("weight_device", "weight")},
	{name: "cap-add", put: each("cap_add")},
	{name: "cap-drop", put: each("cap_drop")},
	{name: "cgroup-parent", put: text("cgroup_parent")},
	{name: "cgroupns", put: text("cgroup")},
	{name: "cidfile", refuse: "a Compose file has no word for it; tender ps -q prints ids"},
	{name: "cpu-count", refuse: "it is for Windows alone"},
	{name: "cpu-percent", refuse: "it is for Windows alone"},
	{name: "cpu-period", put: number("cpu_period")},
	{name: "cpu-quota", put: number("cpu_quota")},
	{name: "cpu-rt-period", put: number("cpu_rt_period")},
	{name: "cpu-rt-runtime", put: number("cpu_rt_runtime")},
	{name: "cpu-shares", short: "c", put: number("cpu_shares")},
	{name: "cpus", put: text("cpus")},
	{name: "cpuset-cpus", put: text("cpuset")},
	{name: "cpuset-mems", refuse: "a Compose file has no word for it"},
	{name: "detach", short: "d", alone: true, terminal: true},
	{name: "detach-keys", terminal: true},
	{name: "device", put: each("devices")},
	{name: "device-cgroup-rule", put: each("device_cgroup_rules")},
	{name: "device-read-bps", put: ofDevice("device_read_bps", "rate")},
	{name: "device-read-iops", put: ofDevice("device_read_iops", "rate")},
	{name: "device-write-bps", put: ofDevice("device_write_bps", "rate")},
	{name: "device-write-iops", put: ofDevice("device_write_iops", "rate")},
	{name: "disable-content-trust", alone: true, terminal: true},
	{name: "dns", put: each("dns")},
	{name: "dns-opt", put: each("dns_opt")},
	{name: "dns-option", put: each("dns_opt")},
	{name: "dns-search", put: each("dns_search")},
	{name: "domainname", put: text("domainname")},
	{name: "entrypoint", put: putEntrypoint},
	{name: "env", short: "e", put: pair("environment")},
	{name: "env-file", put: each("env_file")},
	{name: "expose", put: each("expose")},
	{name: "gpus", put: putGPUs},
	{name: "group-add", put: each("group_add")},
	{name: "health-cmd", put: func(c *conversion, v string) error {
		set(under(c.service, "healthcheck"), "test", []string{"CMD-SHELL", v})
		return nil
	}},
	{name: "health-interval", put: text("healthcheck", "interval")},
	{name: "health-retries", put: number("healthcheck", "retries")},
	{name: "health-start-interval", put: text("healthcheck", "start_interval")},
	{name: "health-start-period", put: text("healthcheck", "start_period")},
	{name: "health-timeout", put: text("healthcheck", "timeout")},
	{name: "help", alone: true, refuse: "see docker run --help"},
	{name: "hostname", short: "h", put: text("hostname")},
	{name: "init", alone: true, put: yes("init")},
	{name: "interactive", short: "i", alone: true, put: yes("stdin_open")},
	{name: "io-maxbandwidth", refuse: "it is for Windows alone"},
	{name: "io-maxiops", refuse: "it is for Windows alone"},
	{name: "ip", put: own("ip", "ipv4_address", false)},
	{name: "ip6", put: own("ip6", "ipv6_address", false)},
	{name: "ipc", put: text("ipc")},
	{name: "isolation", put: text("isolation")},
	{name: "kernel-memory", refuse: "engines no longer have it"},
	{name: "label", short: "l", put: pair("labels")},
	{name: "label-file", put: each("label_file")},
	{name: "link", put: each("external_links")},
	{name: "link-local-ip", put: own("link-local-ip", "link_local_ips", true)},
	{name: "log-driver", put: text("logging", "driver")},
	{name: "log-opt", put: pair("logging", "options")},
	{name: "mac-address", put: text("mac_address")},
	{name: "memory", short: "m", put: text("mem_limit")},
	{name: "memory-reservation", put: text("mem_reservation")},
	{name: "memory-swap", put: text("memswap_limit")},
	{name: "memory-swappiness", put: number("mem_swappiness")},
	{name: "mount", put: putMount},
	{name: "name", put: func(c *conversion, v string) error { c.name = v; return nil }},
	{name: "net", put: putNetwork},
	{name: "net-alias", put: own("network-alias", "aliases", true)},
	{name: "network", put: putNetwork},
	{name: "network-alias", put: own("network-alias", "aliases", true)},
	{name: "no-healthcheck", alone: true, put: yes("healthcheck", "disable")},
	{name: "oom-kill-disable", alone: true, put: yes("oom_kill_disable")},
	{name: "oom-score-adj", put: number("oom_score_adj")},
	{name: "pid", put: text("pid")},
	{name: "pids-limit", put: number("pids_limit")},
	{name: "platform", put: text("platform")},
	{name: "privileged", alone: true, put: yes("privileged")},
	{name: "publish", short: "p", put: each("ports")},
	{name: "publish-all", short: "P", alone: true, refuse: "a Compose file names its ports: give one -p for each"},
	{name: "pull", put: text("pull_policy")},
	{name: "quiet", short: "q", alone: true, terminal: true},
	{name: "read-only", alone: true, put: yes("read_only")},
	{name: "restart", put: text("restart")},
	{name: "rm", alone: true, put: func(c *conversion, _ string) error { c.remove = true; return nil }},
	{name: "runtime", put: text("runtime")},
	{name: "security-opt", put: each("security_opt")},
	{name: "shm-size", put: text("shm_size")},
	{name: "sig-proxy", alone: true, terminal: true},
	{name: "stop-signal", put: text("stop_signal")},
	{name: "stop-timeout", put: func(c *conversion, v string) error {
		if _, err := strconv.Atoi(v); err != nil {
			return errors.New("a number of seconds is needed")
		}
		set(c.service, "stop_grace_period", v+"s")
		return nil
	}},
	{name: "storage-opt", put: pair("storage_opt")},
	{name: "sysctl", put: pair("sysctls")},
	{name: "tmpfs", put: each("tmpfs")},
	{name: "tty", short: "t", alone: true, put: yes("tty")},
	{name: "ulimit", put: putUlimit},
	{name: "use-api-socket", alone: true, put: yes("use_api_socket")},
	{name: "user", short: "u", put: text("user")},
	{name: "userns", put: text("userns_mode")},
	{name: "uts", put: text("uts")},
	{name: "volume", short: "v", put: putVolume},
	{name: "volume-driver", put: func(c *conversion, v string) error { c.volumeDriver = v; return nil }},
	{name: "volumes-from", put: func(c *conversion, v string) error { add(c.service, "volumes_from", "container:"+v); return nil }},
	{name: "workdir", short: "w", put: text("working_dir")},
}

// text, number, yes, each and pair put a value where path leads: as it is, as a
// number, as true, as one of a list, as one of a mapping.
func text(path ...string) func(*conversion, string) error {
	return func(c *conversion, v string) error {
		last := len(path) - 1
		set(under(c.service, path[:last]...), path[last], v)
		return nil
	}
}

func number(path ...string) func(*conversion, string) error {
	return func(c *conversion, v string) error {
		last := len(path) - 1
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil && !variable.MatchString(v) {
			return errors.New("a number is needed")
		}
		if err != nil {
			return text(path...)(c, v)
		}
		set(under(c.service, path[:last]...), path[last], n)
		return nil
	}
}

func yes(path ...string) func(*conversion, string) error {
	return func(c *conversion, _ string) error {
		last := len(path) - 1
		set(under(c.service, path[:last]...), path[last], true)
		return nil
	}
}

func each(key string) func(*conversion, string) error {
	return func(c *conversion, v string) error { add(c.service, key, v); return nil }
}

func pair(path ...string) func(*conversion, string) error {
	return func(c *conversion, v string) error {
		m := under(c.service, path...)
		k, value, ok := strings.Cut(v, "=")
		switch {
		case ok:
			set(m, k, value)
		case path[0] == "environment": // its value comes from where tender up is typed
			set(m, k, nil)
		default:
			set(m, k, "")
		}
		return nil
	}
}

func own(flag, key string, many bool) func(*conversion, string) error {
	return func(c *conversion, v string) error {
		c.own = append(c.own, setting{flag, key, v, many})
		return nil
	}
}

// ofDevice reads PATH:VALUE.
func ofDevice(key, field string) func(*conversion, string) error {
	return func(c *conversion, v string) error {
		i := strings.LastIndexByte(v, ':')
		if i <= 0 {
			return errors.New("PATH:" + strings.ToUpper(field) + " is needed")
		}
		m := mapping()
		set(m, "path", v[:i])
		if n, err := strconv.ParseInt(v[i+1:], 10, 64); err == nil {
			set(m, field, n)
		} else {
			set(m, field, v[i+1:])
		}
		add(under(c.service, "blkio_config"), key, m)
		return nil
	}
}

func putEntrypoint(c *conversion, v string) error {
	words := []string{v}
	if v == "" {
		words = []string{} // the image's own is cleared
	}
	set(c.service, "entrypoint", words)
	return nil
}

func putUlimit(c *conversion, v string) error {
	name, limits, ok := strings.Cut(v, "=")
	soft, hard, both := strings.Cut(limits, ":")
	s, err := strconv.ParseInt(soft, 10, 64)
	if !ok || err != nil {
		return errors.New("NAME=SOFT[:HARD] is needed")
	}
	if !both {
		set(under(c.service, "ulimits"), name, s)
		return nil
	}
	h, err := strconv.ParseInt(hard, 10, 64)
	if err != nil {
		return errors.New("NAME=SOFT[:HARD] is needed")
	}
	m := under(c.service, "ulimits", name)
	set(m, "soft", s)
	set(m, "hard", h)
	return nil
}

// fields reads a=b,c,d=e with the quotes of CSV, as docker does.
func fields(v string) ([][2]string, error) {
	parts, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return nil, err
	}
	var out [][2]string
	for _, p := range parts {
		k, value, _ := strings.Cut(p, "=")
		out = append(out, [2]string{strings.ToLower(strings.TrimSpace(k)), value})
	}
	return out, nil
}

func putGPUs(c *conversion, v string) error {
	if v == "all" {
		set(c.service, "gpus", "all")
		return nil
	}
	m := mapping()
	if n, err := strconv.Atoi(v); err == nil {
		set(m, "count", n)
		add(c.service, "gpus", m)
		return nil
	}
	parts, err := fields(v)
	if err != nil {
		return err
	}
	for _, p := range parts {
		switch p[0] {
		case "device":
			set(m, "device_ids", strings.Split(p[1], ","))
		case "count":
			if n, err := strconv.Atoi(p[1]); err == nil {
				set(m, "count", n)
			} else {
				set(m, "count", p[1])
			}
		case "driver":
			set(m, "driver", p[1])
		case "capabilities":
			set(m, "capabilities", strings.Split(p[1], ","))
		case "options":
			return errors.New("options: write them under gpus by hand")
		default:
			return errors.New("unknown field " + p[0])
		}
	}
	add(c.service, "gpus", m)
	return nil
}

func putNetwork(c *conversion, v string) error {
	name, settings := v, [][2]string(nil)
	if strings.Contains(v, "=") {
		parts, err := fields(v)
		if err != nil {
			return err
		}
		name = ""
		for _, p := range parts {
			if p[0] == "name" {
				name = p[1]
			} else {
				settings = append(settings, p)
			}
		}
	}
	if name == "default" {
		name = "bridge"
	}
	if name == "" {
		return errors.New("it has no name")
	}
	if slices.Contains([]string{"host", "none", "bridge"}, name) || strings.HasPrefix(name, "container:") {
		if len(c.joined) > 0 || c.has("network_mode") || len(settings) > 0 {
			return errors.New("a Compose file has it alone, or else named networks")
		}
		set(c.service, "network_mode", name)
		return nil
	}
	if c.has("network_mode") {
		return errors.New("a Compose file has network_mode or networks, not both")
	}
	key := strings.Trim(notInAName.ReplaceAllString(variable.ReplaceAllString(name, ""), "-"), "-._")
	if key == "" {
		key = "net"
	}
	in := under(c.service, "networks", key)
	at := under(c.networks, key)
	set(at, "name", name)
	set(at, "external", true) // docker run makes no networks
	c.joined = append(c.joined, key)
	for _, p := range settings {
		switch p[0] {
		case "alias":
			add(in, "aliases", p[1])
		case "ip":
			set(in, "ipv4_address", p[1])
		case "ip6":
			set(in, "ipv6_address", p[1])
		case "mac-address":
			set(in, "mac_address", p[1])
		case "link-local-ip":
			add(in, "link_local_ips", p[1])
		case "driver-opt":
			k, value, _ := strings.Cut(p[1], "=")
			set(under(in, "driver_opts"), k, value)
		case "gw-priority":
			n, err := strconv.Atoi(p[1])
			if err != nil {
				return errors.New("gw-priority: a number is needed")
			}
			set(in, "gw_priority", n)
		default:
			return errors.New("unknown field " + p[0])
		}
	}
	return nil
}

// named makes sure that a named volume is declared, under its own name: docker
// run knows no project that would stand before it.
func (c *conversion) named(source string) *yaml.Node {
	v := under(c.volumes, source)
	set(v, "name", source)
	return v
}

func isPath(source string) bool {
	return strings.HasPrefix(source, "/") || strings.HasPrefix(source, ".") || strings.HasPrefix(source, "~") || strings.HasPrefix(source, "${")
}

func putVolume(c *conversion, v string) error {
	// A colon inside of ${NAME:-default} separates nothing.
	plain := variable.ReplaceAllStringFunc(v, func(s string) string { return strings.Repeat("x", len(s)) })
	if i := strings.IndexByte(plain, ':'); i >= 0 && !isPath(v[:i]) {
		c.named(v[:i])
	}
	add(c.service, "volumes", v)
	return nil
}

func putMount(c *conversion, v string) error {
	parts, err := fields(v)
	if err != nil {
		return err
	}
	m := mapping()
	kind, source := "volume", ""
	var driver string
	var options [][2]string
	for _, p := range parts {
		switch p[0] {
		case "type":
			kind = p[1]
		case "source", "src":
			source = p[1]
		}
	}
	set(m, "type", kind)
	for _, p := range parts {
		on := p[1] == "" || p[1] == "true" || p[1] == "1"
		switch p[0] {
		case "type":
		case "source", "src":
			set(m, "source", source)
		case "target", "dst", "destination":
			set(m, "target", p[1])
		case "readonly", "ro":
			if on {
				set(m, "read_only", true)
			}
		case "consistency":
			set(m, "consistency", p[1])
		case "bind-propagation":
			set(under(m, "bind"), "propagation", p[1])
		case "bind-recursive":
			set(under(m, "bind"), "recursive", p[1])
		case "volume-nocopy":
			if on {
				set(under(m, "volume"), "nocopy", true)
			}
		case "volume-subpath":
			set(under(m, "volume"), "subpath", p[1])
		case "volume-label":
			k, value, _ := strings.Cut(p[1], "=")
			set(under(m, "volume", "labels"), k, value)
		case "volume-driver":
			driver = p[1]
		case "volume-opt":
			k, value, _ := strings.Cut(p[1], "=")
			options = append(options, [2]string{k, value})
		case "tmpfs-size":
			set(under(m, "tmpfs"), "size", p[1])
		case "tmpfs-mode":
			n, err := strconv.ParseInt(p[1], 8, 32)
			if err != nil {
				return errors.New("tmpfs-mode: an octal number is needed")
			}
			set(under(m, "tmpfs"), "mode", n)
		case "image-subpath":
			set(under(m, "image"), "subpath", p[1])
		default:
			return errors.New("unknown field " + p[0])
		}
	}
	if at(m, "target") == nil {
		return errors.New("target is missing")
	}
	switch {
	case kind == "volume" && source != "":
		v := c.named(source)
		if driver != "" {
			set(v, "driver", driver)
		}
		for _, o := range options {
			set(under(v, "driver_opts"), o[0], o[1])
		}
	case driver != "" || len(options) > 0:
		return errors.New("a driver and its options belong to a named volume: give a source")
	case kind == "bind":
		// --mount, other than -v, makes no directory.
		set(under(m, "bind"), "create_host_path", false)
	}
	add(c.service, "volumes", m)
	return nil
}
