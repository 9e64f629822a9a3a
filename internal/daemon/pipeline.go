package daemon

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/policy"
	"github.com/tenderhq/tender/internal/registry"
)

// versionHole is where a pattern of tags has the version.
const versionHole = "{version}"

// place reads a part of where a step's images lie.
func place(to *string, check func(string) error) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode {
			return wrongNode(n, "want a text")
		}
		if err := check(n.Value); err != nil {
			return wrongNode(n, "%s", err)
		}
		*to = n.Value
		return nil
	}
}

func checkStepRegistry(v string) error {
	if strings.Contains(v, "/") {
		return fmt.Errorf("%q is more than a registry's host: the rest is a prefix", v)
	}
	return policy.CheckRegistry(v)
}

var (
	stepPrefix = regexp.MustCompile(`^[a-z0-9]+([._/-][a-z0-9]+)*[._/-]?$`)
	stepTag    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

func checkStepPrefix(v string) error {
	if !stepPrefix.MatchString(v) || len(v) > 128 {
		return fmt.Errorf("%q cannot stand before the name of a repository: staging/", v)
	}
	if first, _, _ := strings.Cut(v, "/"); strings.ContainsAny(first, ".:") || first == "localhost" {
		return fmt.Errorf("%q reads as the host of a registry, which is written under registry", v)
	}
	return nil
}

func checkStepTag(v string) error {
	if strings.Count(v, versionHole) > 1 || !stepTag.MatchString(strings.ReplaceAll(v, versionHole, "1.0.0")) {
		return fmt.Errorf("%q is no pattern of a tag: {version}-staging", v)
	}
	return nil
}

// step finds one by its name, and how many stand before it. Invalid: there is none.
func (c Config) step(name string) (Step, int, error) {
	var names []string
	for i, s := range c.Pipeline {
		if s.Name == name {
			return s, i, nil
		}
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return Step{}, 0, tender.Errorf(tender.Invalid, "there is no pipeline that %s could be a step of", name).
			Hint("pipeline: [{name: dev}, {name: staging}, {name: production, gate: {from: staging}}] in tender.yaml")
	}
	e := tender.Errorf(tender.Invalid, "the pipeline has no step %q, only %s", name, strings.Join(names, ", "))
	if near := tender.Nearest(name, names); near != "" {
		return Step{}, 0, e.Hint("did you mean: %s", near)
	}
	return Step{}, 0, e.Hint("name one of them, or add it to pipeline: in tender.yaml")
}

// apart says whether the step's images lie at a place of their own.
func (s Step) apart() bool { return s.Registry != "" || s.Prefix != "" || s.Tag != "" }

// stepHost is where the step's registry is: "" is our own, and where it names none, the one before.
func (c Config) stepHost(s Step, before string) string {
	switch {
	case s.Registry == "":
		return before
	case slices.Contains(c.ownRegistryHosts(), s.Registry):
		return ""
	}
	return s.Registry
}

// base is what a repository is called at all steps: without what steps put before it, and
// without the host, where that is ours or a step's.
func (c Config) base(ref registry.Reference) string {
	path, ours := ref.Repository, ref.Host == ""
	best := ""
	for _, s := range c.Pipeline {
		ours = ours || s.Registry != "" && c.stepHost(s, "") == ref.Host
		if s.Prefix != "" && c.stepHost(s, ref.Host) == ref.Host && strings.HasPrefix(path, s.Prefix) && len(s.Prefix) > len(best) && len(s.Prefix) < len(path) {
			best = s.Prefix
		}
	}
	path = strings.TrimPrefix(path, best)
	if !ours {
		return ref.Host + "/" + path
	}
	return path
}

// version is a tag without what a step has put around it.
func (c Config) version(tag string) string {
	for _, s := range c.Pipeline {
		before, after, holds := strings.Cut(s.Tag, versionHole)
		if holds && before+after != "" && len(tag) > len(before)+len(after) && strings.HasPrefix(tag, before) && strings.HasSuffix(tag, after) {
			return strings.TrimSuffix(strings.TrimPrefix(tag, before), after)
		}
	}
	if slices.ContainsFunc(c.Pipeline, func(s Step) bool { return s.Tag == tag }) {
		return "" // it moves from version to version
	}
	return tag
}

// target is where the step has an image that lies at ref, without a digest; it is the zero
// Reference where the step has no place of its own. Invalid: it needs a version.
func (c Config) target(s Step, ref registry.Reference, version string) (registry.Reference, error) {
	if !s.apart() {
		return registry.Reference{}, nil
	}
	path := strings.TrimPrefix(c.base(ref), ref.Host+"/")
	to := registry.Reference{Host: c.stepHost(s, ref.Host), Repository: s.Prefix + path, Tag: version}
	if s.Tag != "" {
		if version == "" && strings.Contains(s.Tag, versionHole) {
			return to, tender.Errorf(tender.Invalid, "what stands at %s is tagged %s there, and nobody knows the version of %s", s.Name, s.Tag, ref).
				Hint("name it by its version: %s:1.4.2", registry.Reference{Host: ref.Host, Repository: ref.Repository})
		}
		to.Tag = strings.ReplaceAll(s.Tag, versionHole, version)
	}
	if to.Tag != "" && !stepTag.MatchString(to.Tag) {
		return to, tender.Errorf(tender.Invalid, "%q is too long for a tag", to.Tag).Hint("a tag has at most 128 characters")
	}
	return to, nil
}
