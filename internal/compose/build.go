package compose

import (
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
)

// build is how the image of s is made. Values of secrets stay where the
// document has them.
func (n *normalizer) build(s types.ServiceConfig) Build {
	c := s.Build
	b := Build{
		Service:          s.Name,
		Context:          c.Context,
		Dockerfile:       c.Dockerfile,
		DockerfileInline: c.DockerfileInline,
		Args:             c.Args,
		Target:           c.Target,
		Labels:           c.Labels,
		Tags:             []string{s.Image},
		NoCache:          c.NoCache,
		NoCacheFilter:    c.NoCacheFilter,
		Pull:             c.Pull,
		CacheFrom:        c.CacheFrom,
		CacheTo:          c.CacheTo,
		Network:          c.Network,
		ShmSize:          int64(c.ShmSize),
		ExtraHosts:       c.ExtraHosts.AsList(":"),
		Platforms:        c.Platforms,
		Entitlements:     slices.Clone(c.Entitlements),
		Contexts:         c.AdditionalContexts,
	}
	slices.Sort(b.ExtraHosts)
	for _, t := range c.Tags {
		if !slices.Contains(b.Tags, t) {
			b.Tags = append(b.Tags, t)
		}
	}
	if len(b.Platforms) == 0 && s.Platform != "" {
		b.Platforms = []string{s.Platform}
	}
	if c.Privileged && !slices.Contains(b.Entitlements, "security.insecure") {
		b.Entitlements = append(b.Entitlements, "security.insecure")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Ulimits)) {
		soft, hard := c.Ulimits[name].Soft, c.Ulimits[name].Hard
		if one := c.Ulimits[name].Single; one != 0 {
			soft, hard = one, one
		}
		b.Ulimits = append(b.Ulimits, fmt.Sprintf("%s=%d:%d", name, soft, hard))
	}
	for _, ref := range c.Secrets {
		id := ref.Target
		if id == "" {
			id = ref.Source
		}
		into := &b.Secrets
		name := ref.Source
		if declared := n.project.Secrets[ref.Source]; bool(declared.External) {
			into = &b.External
			if declared.Name != "" {
				name = declared.Name
			}
		}
		if *into == nil {
			*into = map[string]string{}
		}
		(*into)[id] = name
	}
	for _, key := range c.SSH {
		if b.SSH == nil {
			b.SSH = map[string]string{}
		}
		b.SSH[key.ID] = key.Path
	}
	return b
}
