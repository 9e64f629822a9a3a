package compose

import (
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

// references finds names that lead nowhere, and services that wait for one
// another in a circle.
func (c *check) references(p *types.Project) []problem {
	r := references{check: c, project: p}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		r.service(p.Services[name])
	}
	r.traffic()
	if len(r.found) == 0 {
		r.circles()
	}
	return r.found
}

type references struct {
	*check
	project *types.Project
	found   []problem
}

func (r *references) add(advice, text string, where ...string) {
	r.found = append(r.found, r.locate(problem{text: strings.Join(where[:2], ".") + ": " + text, advice: advice}, where))
}

func (r *references) service(s types.ServiceConfig) {
	at := func(below ...string) []string { return append([]string{"services", s.Name}, below...) }
	if s.Image == "" && s.Build == nil {
		r.add("add image: or build: under services."+s.Name, "has neither image nor build", at()...)
	}
	for _, ns := range []struct{ field, ref string }{{"network_mode", s.NetworkMode}, {"ipc", s.Ipc}, {"pid", s.Pid}, {"uts", s.Uts}, {"cgroup", s.Cgroup}} {
		if name, ok := strings.CutPrefix(ns.ref, types.ServicePrefix); ok {
			r.target(s, name, ns.field+" names", true, at(ns.field))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.DependsOn)) {
		if slices.Contains([]string{s.NetworkMode, s.Ipc, s.Pid, s.Uts, s.Cgroup}, types.ServicePrefix+name) {
			continue // implied by what has just been looked at
		}
		r.target(s, name, "depends on", s.DependsOn[name].Required, at("depends_on", name), at("links", name), at("volumes_from", name))
	}
	if x, err := extensionOf(s); err != nil {
		r.add("", err.Error(), at(extensionKey)...)
	} else if x.Rollout.Before != "" {
		r.target(s, x.Rollout.Before, "x-tender.rollout.before names", true, at(extensionKey, "rollout", "before"))
	}
	if s.NetworkMode != "" && len(s.Networks) > 0 {
		r.add("", "network_mode and networks exclude one another", at("network_mode")...)
	}
	for _, a := range s.DNS {
		switch _, err := netip.ParseAddr(a); {
		case a == tender.DNS && s.NetworkMode != "":
			r.add("", "dns: tender needs networks of its own, and network_mode "+s.NetworkMode+" has none", at("dns")...)
		case a != tender.DNS && err != nil:
			r.add("write an address, or tender for Tender's own DNS", "dns: \""+a+"\" is no address", at("dns")...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Networks)) {
		if _, ok := r.project.Networks[name]; !ok {
			r.undefined("network", "networks", name, slices.Collect(maps.Keys(r.project.Networks)), at("networks", name))
		}
	}
	for _, v := range s.Volumes {
		if _, ok := r.project.Volumes[v.Source]; !ok && v.Type == types.VolumeTypeVolume && v.Source != "" {
			r.undefined("volume", "volumes", v.Source, slices.Collect(maps.Keys(r.project.Volumes)), at("volumes", v.Source))
		}
	}
	for _, ref := range s.Configs {
		if _, ok := r.project.Configs[ref.Source]; !ok {
			r.undefined("config", "configs", ref.Source, slices.Collect(maps.Keys(r.project.Configs)), at("configs", ref.Source))
		}
	}
	for _, ref := range s.Secrets {
		if _, ok := r.project.Secrets[ref.Source]; !ok {
			r.undefined("secret", "secrets", ref.Source, slices.Collect(maps.Keys(r.project.Secrets)), at("secrets", ref.Source))
		}
	}
	if s.Build != nil {
		r.build(s, at)
	}
	for _, v := range s.Volumes {
		if !path.IsAbs(v.Target) {
			advice := ""
			if len(v.Target) > 2 && v.Target[1] == ':' {
				advice = "a name of one letter reads as a Windows drive: use the long syntax"
			}
			r.add(advice, "a volume goes to an absolute path in the container, not to "+strconv.Quote(v.Target), at("volumes", v.Target)...)
		}
	}
	if h := s.HealthCheck; h != nil && len(h.Test) > 0 && !slices.Contains([]string{"CMD", "CMD-SHELL", "NONE"}, h.Test[0]) {
		r.add("", "healthcheck.test as a list begins with CMD, CMD-SHELL or NONE", at("healthcheck", "test")...)
	}
	r.limits(s, at)
}

// build checks what a build names elsewhere in the project.
func (r *references) build(s types.ServiceConfig, at func(...string) []string) {
	for _, ref := range s.Build.Secrets {
		if _, ok := r.project.Secrets[ref.Source]; !ok {
			r.undefined("secret", "secrets", ref.Source, slices.Collect(maps.Keys(r.project.Secrets)), at("build", "secrets", ref.Source))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Build.AdditionalContexts)) {
		service, ok := strings.CutPrefix(s.Build.AdditionalContexts[name], types.ServicePrefix)
		if !ok {
			continue
		}
		where := at("build", "additional_contexts", name)
		all := r.project.AllServices()
		if other, ok := all[service]; !ok {
			r.add("", "build.additional_contexts: no service "+strconv.Quote(service)+meant(service, slices.Collect(maps.Keys(all))), where...)
		} else if other.Build == nil {
			r.add("write docker-image://"+other.Image, "build.additional_contexts: service "+strconv.Quote(service)+" is not built", where...)
		}
	}
	for _, to := range s.Build.CacheTo {
		if strings.Contains(to, "type=local") {
			r.add("use type=inline or type=registry", "build.cache_to: a cache in a folder is not carried between you and the engine", at("build", "cache_to", to)...)
		}
	}
	for _, from := range s.Build.CacheFrom {
		if strings.Contains(from, "type=local") {
			r.add("use an image or type=registry", "build.cache_from: a cache in a folder is not carried between you and the engine", at("build", "cache_from", from)...)
		}
	}
}

// limits finds what the engine would refuse when it is too late.
func (r *references) limits(s types.ServiceConfig, at func(...string) []string) {
	if s.ContainerName != "" && s.GetScale() > 1 {
		r.add("", "container_name is for one instance", at("container_name")...)
	}
	r.scale(s, at)
	r.updates(s, at)
}

func (r *references) undefined(what, section, name string, known []string, where []string) {
	r.add("add "+name+": under "+section+": at the top level", "refers to undefined "+what+" "+strconv.Quote(name)+meant(name, known), where...)
}

// target checks the name of another service; paths are the places where it may
// be written.
func (r *references) target(s types.ServiceConfig, name, how string, required bool, paths ...[]string) {
	if _, ok := r.project.Services[name]; ok {
		return
	}
	where, best := paths[0], 0
	for _, p := range paths {
		for _, t := range r.trees {
			if _, steps := t.find(p); steps > best {
				where, best = p, steps
			}
		}
	}
	if off, ok := r.project.DisabledServices[name]; ok {
		if required {
			r.add("add --profile "+off.Profiles[0], how+" service \""+name+"\", which is off: its profile is "+list(off.Profiles), where...)
		}
		return
	}
	known := slices.Collect(maps.Keys(r.project.AllServices()))
	r.add("add the file that defines "+name+" with one more -f, or define it under services:", how+" undefined service \""+name+"\""+meant(name, known), where...)
}

// circles finds services that wait for each other: neither would ever start.
func (r *references) circles() {
	const open, done = 1, 2
	state := map[string]int{}
	var trail []string
	var visit func(name string) bool
	visit = func(name string) bool {
		if state[name] == done {
			return false
		}
		if state[name] == open {
			round := append(trail[slices.Index(trail, name):], name)
			r.add("", "waits for itself: "+strings.Join(round, " -> "), "services", name, "depends_on", round[1])
			return true
		}
		state[name] = open
		trail = append(trail, name)
		s := r.project.Services[name]
		next := slices.Sorted(maps.Keys(s.DependsOn))
		if x, err := extensionOf(s); err == nil && x.Rollout.Before != "" {
			next = append(next, x.Rollout.Before)
		}
		for _, n := range next {
			if _, ok := r.project.Services[n]; ok && visit(n) {
				return true
			}
		}
		trail = trail[:len(trail)-1]
		state[name] = done
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(r.project.Services)) {
		if visit(name) {
			return
		}
	}
}
