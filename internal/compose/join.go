package compose

import (
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

// Join makes one project of specs of single services, as its instances carry
// them. absent names the services that those depend on and that have no spec;
// the dependencies on them are dropped, their specs stay as they are. Networks
// and volumes that no service uses are not in the project.
func Join(specs [][]byte) (p tender.Project, absent []string, err error) {
	all := &types.Project{
		Services: types.Services{}, Networks: types.Networks{}, Volumes: types.Volumes{}, Secrets: types.Secrets{}, Configs: types.Configs{},
	}
	given := map[string][]byte{}
	for _, spec := range specs {
		one, err := whole(spec)
		if err != nil {
			return p, nil, err
		}
		if all.Name != "" && all.Name != one.Name {
			return p, nil, tender.Errorf(tender.Invalid, "join specs: they are of two projects, %s and %s", all.Name, one.Name)
		}
		all.Name = one.Name
		for name, s := range one.Services {
			all.Services[name], given[name] = s, spec
		}
		maps.Copy(all.Networks, one.Networks)
		maps.Copy(all.Volumes, one.Volumes)
		maps.Copy(all.Secrets, one.Secrets)
		maps.Copy(all.Configs, one.Configs)
	}
	for name, s := range all.Services {
		s.DependsOn = maps.Clone(s.DependsOn)
		for on := range s.DependsOn {
			if _, ok := all.Services[on]; !ok {
				absent = append(absent, on)
				delete(s.DependsOn, on)
			}
		}
		all.Services[name] = s
	}
	slices.Sort(absent)
	yml, err := marshal(all)
	if err != nil {
		return p, nil, fmt.Errorf("join specs: %w", err)
	}
	if p, err = Parse(yml); err != nil {
		return p, nil, err
	}
	for i := range p.Services {
		p.Services[i].Spec = given[p.Services[i].Name]
	}
	return p, slices.Compact(absent), nil
}
