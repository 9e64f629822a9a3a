package sample

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchies says where control groups are mounted. A host has the first version,
// one mount for a controller, or the second, one for all, or both side by side.
type hierarchies struct {
	v1 map[string]hierarchy // by controller
	v2 hierarchy
}

// hierarchy is one mount of it. root is what of the hierarchy can be seen there.
type hierarchy struct{ point, root string }

// dir is the folder of a group.
func (h hierarchy) dir(group string) string {
	if h.root != "/" {
		if below, ok := strings.CutPrefix(group, h.root); ok {
			group = below
		}
	}
	return path.Join(h.point, group)
}

// readHierarchies reads a file mountinfo.
func readHierarchies(mountinfo string) hierarchies {
	h := hierarchies{v1: map[string]hierarchy{}}
	for l := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(l, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(kind) < 3 {
			continue
		}
		at := hierarchy{point: unescape(f[4]), root: unescape(f[3])}
		switch kind[0] {
		case "cgroup2":
			if h.v2.point == "" {
				h.v2 = at
			}
		case "cgroup":
			for option := range strings.SplitSeq(kind[2], ",") {
				if _, twice := h.v1[option]; !twice {
					h.v1[option] = at
				}
			}
		}
	}
	return h
}

// groups are the paths of a process' control groups, that of the second version
// under "".
type groups map[string]string

// readGroups reads a file /proc/PID/cgroup.
func readGroups(text string) groups {
	g := groups{}
	for l := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(l, "\n"), ":")
		controllers, at, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		// As seen from inside of another group, paths begin with /..
		at = path.Clean("/" + at)
		for c := range strings.SplitSeq(controllers, ",") {
			g[c] = at
		}
	}
	return g
}

// of cuts a path after the part that carries the instance's id: a process may have
// made groups of its own below that. "": it is not the instance's.
func of(group, id string) string {
	at := strings.Index(group, id)
	if at < 0 || id == "" {
		return ""
	}
	if end := strings.IndexByte(group[at:], '/'); end >= 0 {
		return group[:at+end]
	}
	return group
}

// source is a file of a control group.
type source struct {
	controller, name string
	limits           bool // changes seldom: looked at now and then
	read             func(*reading, []byte)
}

const procs = "cgroup.procs"

var sourcesV1 = []source{
	{"cpuacct", "cpuacct.usage", false, func(r *reading, b []byte) { r.whole(cpuUsage, b, 1e9) }},
	{"cpuacct", "cpuacct.stat", false, (*reading).cpuacctStat},
	{"cpu", "cpu.stat", false, (*reading).cpuStat},
	{"memory", "memory.usage_in_bytes", false, func(r *reading, b []byte) { r.whole(memoryUsage, b, 1) }},
	{"memory", "memory.max_usage_in_bytes", false, func(r *reading, b []byte) { r.whole(memoryMaxUsage, b, 1) }},
	{"memory", "memory.failcnt", false, func(r *reading, b []byte) { r.whole(memoryFailcnt, b, 1) }},
	{"memory", "memory.stat", false, (*reading).memoryStatV1},
	{"memory", "memory.oom_control", false, (*reading).oomKills},
	{"blkio", "blkio.throttle.io_service_bytes_recursive", false, func(r *reading, b []byte) { r.blkio(b, 0) }},
	{"blkio", "blkio.throttle.io_serviced_recursive", false, func(r *reading, b []byte) { r.blkio(b, 2) }},
	{"pids", "pids.current", false, func(r *reading, b []byte) { r.whole(threads, b, 1) }},
	{"pids", procs, false, (*reading).listed},
	{"pids", "pids.max", true, (*reading).pidsMax},
	{"cpu", "cpu.cfs_period_us", true, func(r *reading, b []byte) { r.whole(specCPUPeriod, b, 1) }},
	{"cpu", "cpu.cfs_quota_us", true, func(r *reading, b []byte) { r.whole(specCPUQuota, b, 1) }},
	{"cpu", "cpu.shares", true, func(r *reading, b []byte) { r.whole(specCPUShares, b, 1) }},
	{"memory", "memory.limit_in_bytes", true, func(r *reading, b []byte) { r.limit(specMemoryLimit, b) }},
	{"memory", "memory.memsw.limit_in_bytes", true, func(r *reading, b []byte) { r.limit(specMemorySwapLimit, b) }},
	{"memory", "memory.soft_limit_in_bytes", true, func(r *reading, b []byte) { r.limit(specMemoryReservation, b) }},
}

var sourcesV2 = []source{
	{"cpu", "cpu.stat", false, (*reading).cpuStat},
	{"cpu", "cpu.pressure", false, func(r *reading, b []byte) { r.pressure(cpuWaiting, b) }},
	{"memory", "memory.current", false, func(r *reading, b []byte) { r.whole(memoryUsage, b, 1) }},
	{"memory", "memory.peak", false, func(r *reading, b []byte) { r.whole(memoryMaxUsage, b, 1) }},
	{"memory", "memory.swap.current", false, func(r *reading, b []byte) { r.whole(memorySwap, b, 1) }},
	{"memory", "memory.stat", false, (*reading).memoryStatV2},
	{"memory", "memory.events", false, (*reading).memoryEvents},
	{"memory", "memory.pressure", false, func(r *reading, b []byte) { r.pressure(memoryWaiting, b) }},
	{"io", "io.stat", false, (*reading).ioStat},
	{"io", "io.pressure", false, func(r *reading, b []byte) { r.pressure(ioWaiting, b) }},
	{"pids", "pids.current", false, func(r *reading, b []byte) { r.whole(threads, b, 1) }},
	{"pids", procs, false, (*reading).listed},
	{"pids", "pids.max", true, (*reading).pidsMax},
	{"cpu", "cpu.max", true, (*reading).cpuMax},
	{"cpu", "cpu.weight", true, (*reading).cpuWeight},
	{"memory", "memory.max", true, func(r *reading, b []byte) { r.limit(specMemoryLimit, b) }},
	{"memory", "memory.swap.max", true, func(r *reading, b []byte) { r.limit(specMemorySwapLimit, b) }},
	// What the engine writes as a reservation; cAdvisor reads memory.min, which nobody sets.
	{"memory", "memory.low", true, func(r *reading, b []byte) { r.limit(specMemoryReservation, b) }},
}

// older is what a controller of the second version is called in the first.
var older = map[string]string{"cpu": "cpuacct", "memory": "memory", "io": "blkio", "pids": "pids"}

// sourced is a file of an instance's control group with who reads it.
type sourced struct {
	*source
	file
}

// find names the files of an instance's control groups, and the path by which
// cAdvisor calls them. none: there are no such groups.
func (h *hierarchies) find(g groups, id string) (name string, files []sourced) {
	add := func(s *source, at hierarchy, group string) {
		if group = of(group, id); group == "" || at.point == "" {
			return
		}
		name = group
		files = append(files, sourced{s, file{dir: at.dir(group), name: s.name, fd: -1}})
	}
	for i := range sourcesV1 {
		s := &sourcesV1[i]
		if at, ok := h.v1[s.controller]; ok {
			add(s, at, g[s.controller])
		}
	}
	for i := range sourcesV2 {
		s := &sourcesV2[i]
		if _, ok := h.v1[older[s.controller]]; !ok {
			add(s, h.v2, g[""])
		}
	}
	if len(files) > 0 {
		if _, err := os.Stat(files[0].dir); err != nil {
			return "", nil
		}
	}
	return name, files
}

// usual are the groups of an instance by the engine's habits, for where /proc does
// not show them: with hidepid, or out of another pid namespace.
func (h *hierarchies) usual(id string) groups {
	look := h.v2
	for _, at := range h.v1 {
		look = at
		break
	}
	if at, ok := h.v1["memory"]; ok {
		look = at
	}
	if look.point == "" {
		return nil
	}
	for _, group := range []string{"/docker/" + id, "/system.slice/docker-" + id + ".scope"} {
		if _, err := os.Stat(look.dir(group)); err == nil {
			g := groups{"": group}
			for c := range h.v1 {
				g[c] = group
			}
			return g
		}
	}
	return nil
}

// likely is what the group of an instance is called that has none now.
func (h *hierarchies) likely(id string) string {
	look := h.v2
	if at, ok := h.v1["memory"]; ok {
		look = at
	}
	if _, err := os.Stat(look.dir("/docker")); err == nil {
		return "/docker/" + id
	}
	return "/system.slice/docker-" + id + ".scope"
}

// gone reports whether an error says that what was read has ended meanwhile.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH)
}
