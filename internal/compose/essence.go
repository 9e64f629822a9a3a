package compose

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

// Essence returns canonical bytes of what makes an instance of the service in
// spec different from another one: the revision's hash is made from them, the
// image's identity and the versions of secrets. How many instances there are, when
// they start and how they are replaced is no part of it; of a config its content
// is, of networks and volumes their names are.
func Essence(spec []byte) ([]byte, error) {
	b, err := essences.of(spec, func() ([]byte, error) { return essence(spec) })
	return slices.Clone(b), err
}

func essence(spec []byte) ([]byte, error) {
	p, err := Spec(spec)
	if err != nil {
		return nil, err
	}
	if len(p.Services) != 1 {
		return nil, tender.Errorf(tender.Invalid, "read spec: it holds %d services, want one", len(p.Services))
	}
	name := p.ServiceNames()[0]
	s := p.Services[name]
	s.Build, s.Develop, s.DependsOn, s.Profiles = nil, nil, nil, nil
	s.Scale, s.Attach, s.PullPolicy, s.PullRefreshAfter = nil, nil, "", ""
	ordered, err := boot(s)
	if err != nil {
		return nil, err
	}
	s.Extensions = nil
	if s.Deploy != nil {
		// What is left of deploy are the limits and the restart policy.
		d := types.DeployConfig{Resources: s.Deploy.Resources, RestartPolicy: s.Deploy.RestartPolicy}
		s.Deploy = &d
		if d.RestartPolicy == nil && d.Resources.Limits == nil && d.Resources.Reservations == nil {
			s.Deploy = nil
		}
	}
	e := struct {
		Project  string                    `yaml:"project"`
		Name     string                    `yaml:"name"`
		Service  types.ServiceConfig       `yaml:"service"`
		Networks map[string]string         `yaml:"networks,omitempty"`
		Volumes  map[string]string         `yaml:"volumes,omitempty"`
		Configs  map[string]string         `yaml:"configs,omitempty"`
		Secrets  map[string]map[string]any `yaml:"secrets,omitempty"`
		Boot     string                    `yaml:"boot,omitempty"` // it takes the engine's restart policy away
	}{Project: p.Name, Name: name, Service: s, Boot: ordered, Networks: map[string]string{}, Volumes: map[string]string{}, Configs: map[string]string{}, Secrets: map[string]map[string]any{}}
	for key, n := range p.Networks {
		e.Networks[key] = n.Name
	}
	for key, v := range p.Volumes {
		e.Volumes[key] = v.Name
	}
	for key, c := range p.Configs {
		e.Configs[key], _ = c.Extensions[contentKey].(string)
	}
	for key, c := range p.Secrets {
		e.Secrets[key] = map[string]any{"external": bool(c.External)}
		if c.External {
			e.Secrets[key]["name"] = c.Name
		}
	}
	b, err := write(e)
	if err != nil {
		return nil, fmt.Errorf("write essence: %w", err)
	}
	return b, nil
}

// Same reports whether two specs of a service, each read anew with this binary,
// differ in nothing that makes an instance different. A spec that cannot be read
// is the same as none.
func Same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, err := Essence(a)
	if err != nil {
		return false
	}
	y, err := Essence(b)
	return err == nil && bytes.Equal(x, y)
}
