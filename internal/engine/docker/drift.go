package docker

import (
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"

	tender "github.com/tenderhq/tender"
)

// drift compares a container with the service that its own label tells of, in
// what others may change while it lives: limits, restart policy, networks.
func (e *Engine) drift(c container.InspectResponse) string {
	l := c.Config.Labels
	p, s, err := e.service(tender.Service{Name: l[labelService], Spec: []byte(l[labelSpec])})
	if err != nil {
		return "" // made by a release that wrote it otherwise: that is no drift
	}
	var out []string
	differs := func(what string, has, wants any) {
		if has != wants {
			out = append(out, fmt.Sprintf("%s %v instead of %v", what, has, wants))
		}
	}
	want, info := resources(s), e.info.Load()
	// What the kernel cannot limit, the engine drops at creation.
	if info == nil || info.MemoryLimit {
		differs("memory", c.HostConfig.Memory, want.Memory)
	}
	if info == nil || info.CPUCfsQuota {
		differs("cpus", float64(c.HostConfig.NanoCPUs)/1e9, float64(want.NanoCPUs)/1e9)
	}
	if info == nil || info.PidsLimit {
		differs("pids", pids(c.HostConfig.PidsLimit), pids(want.PidsLimit))
	}
	differs("restart", policy(c.HostConfig.RestartPolicy), policy(restartPolicy(s)))
	if s.NetworkMode == "" && c.NetworkSettings != nil {
		keys := s.NetworksByPriority()
		if len(keys) == 0 {
			keys = []string{"default"}
		}
		for _, key := range keys {
			name := networkName(p, l[labelProject], key)
			if _, ok := c.NetworkSettings.Networks[name]; !ok {
				out = append(out, "not in network "+name)
			}
		}
	}
	return strings.Join(out, ", ")
}

// pids is 0 for no limit, which the API writes in three ways.
func pids(n *int64) int64 {
	if n == nil || *n < 0 {
		return 0
	}
	return *n
}

func policy(p container.RestartPolicy) string {
	if p.Name == "" {
		p.Name = container.RestartPolicyDisabled
	}
	if p.MaximumRetryCount > 0 {
		return fmt.Sprintf("%s:%d", p.Name, p.MaximumRetryCount)
	}
	return string(p.Name)
}
