package compose

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

// Parse reads the normal form, which Load made or somebody sent. It reads no
// file and no environment, and takes bounded time and memory. Errors are Invalid.
// Revisions and versions of secrets are left empty.
func Parse(yml []byte) (tender.Project, error) {
	p, err := projects.of(yml, func() (tender.Project, error) { return parse(yml) })
	if err != nil {
		return tender.Project{}, err
	}
	return ownProject(p), nil
}

func parse(yml []byte) (tender.Project, error) {
	p, err := decode(yml)
	if err != nil {
		return tender.Project{}, err
	}
	spec, err := marshal(p)
	if err != nil {
		return tender.Project{}, err
	}
	out := tender.Project{Name: p.Name, Spec: spec}
	out.Environment, _ = asMap(p.Extensions[extensionKey])["environment"].(string)
	jobs := jobsOf(p)
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s, err := service(p, p.Services[name])
		if err != nil {
			return tender.Project{}, err
		}
		s.Job = jobs[name]
		out.Services = append(out.Services, s)
	}
	out.Routes, err = routesOf(p)
	return out, err
}

// Spec reads a tender.Service.Spec or tender.Project.Spec into the parser's
// types, as the engine makes it: what the edge holds is not published.
func Spec(spec []byte) (*types.Project, error) {
	p, err := whole(spec)
	if err != nil {
		return nil, err
	}
	for name, s := range p.Services {
		p.Services[name] = inside(s)
	}
	return p, nil
}

// whole reads a spec as it was written.
func whole(spec []byte) (*types.Project, error) {
	p, err := specs.of(spec, func() (*types.Project, error) {
		return caught(func() (*types.Project, error) { return bind(spec) })
	})
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "read spec: %w", err)
	}
	return ownSpec(p), nil
}

// decode checks the normal form and reads it.
func decode(yml []byte) (*types.Project, error) {
	if len(yml) > maxYAML {
		return nil, tender.Errorf(tender.Invalid, "project is larger than %d MiB", maxYAML>>20)
	}
	c, err := newCheck("", true)
	if err != nil {
		return nil, err
	}
	c.add(source{path: "project", content: yml})
	if err := c.err(append(c.problems, c.doubts...)); err != nil {
		return nil, err
	}
	p, err := caught(func() (*types.Project, error) { return bind(yml) })
	if err != nil {
		return nil, c.explain(err)
	}
	name := nameIn(yml)
	switch {
	case p.Name == "":
		return nil, tender.Errorf(tender.Invalid, "project: it has no name")
	case name != p.Name:
		return nil, tender.Errorf(tender.Invalid, "project: %q is not a project's name", name)
	}
	return p, c.err(append(c.references(p), c.profiles(p)...))
}

// profiles finds seccomp profiles that lie in files.
func (c *check) profiles(p *types.Project) []problem {
	var out []problem
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		for _, opt := range p.Services[name].SecurityOpt {
			if profile, ok := seccompProfile(opt); ok && !inlineProfile(profile) {
				out = append(out, c.locate(problem{text: fmt.Sprintf("services.%s: seccomp profile %s is not in the normal form", name, profile)},
					[]string{"services", name, "security_opt", opt}))
			}
		}
	}
	return out
}

// bind has the parser read a normal form with everything off that looks outside
// of it.
func bind(yml []byte) (*types.Project, error) {
	none := func(string) (string, bool) { return "", false }
	p, err := loader.LoadWithContext(context.Background(),
		types.ConfigDetails{
			WorkingDir:  "/",
			ConfigFiles: []types.ConfigFile{{Filename: "project", Content: yml}},
			Environment: types.Mapping{},
		},
		func(o *loader.Options) {
			o.SkipInterpolation = true
			o.Interpolate = &interpolation.Options{LookupValue: none}
			o.ResolvePaths = false
			o.SkipValidation = true
			o.SkipConsistencyCheck = true
			o.SkipInclude = true
			o.SkipExtends = true
			o.SkipResolveEnvironment = true
			o.SkipResolveLabels = true
			o.Profiles = []string{"*"}
			o.MaxNodeVisits = maxNormal
		})
	if err != nil {
		return nil, err
	}
	switch v, ok := p.Extensions[formatKey]; {
	case !ok:
		return nil, fmt.Errorf("%s is missing, this version reads %d", formatKey, format)
	case v != format:
		return nil, fmt.Errorf("%s is %v, this version reads %d", formatKey, v, format)
	}
	delete(p.Extensions, formatKey)
	return p, nil
}
