package docker

import (
	"net/netip"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	tender "github.com/tenderhq/tender"
)

// An instance that has no name of its service was demoted again and again, and never removed.
func TestWithoutANameThereIsNoneToTake(t *testing.T) {
	no := false
	for name, c := range map[string]struct {
		said  *types.ServiceNetworkConfig
		has   []string
		found tender.Found
		own   bool
	}{
		"named":               {nil, []string{"web", "web-1"}, tender.ByService, true},
		"not named yet":       {nil, []string{"web-1"}, tender.BySlot, true},
		"no name":             {&types.ServiceNetworkConfig{UseServiceNameAlias: &no}, []string{"web-1"}, tender.ByService, false},
		"that of its slot":    {&types.ServiceNetworkConfig{UseServiceNameAlias: &no, Aliases: []string{"web-1"}}, []string{"web-1"}, tender.ByService, false},
		"an alias, and is it": {&types.ServiceNetworkConfig{UseServiceNameAlias: &no, Aliases: []string{"www"}}, []string{"www", "web-1"}, tender.ByService, true},
	} {
		project := &types.Project{Services: types.Services{"web": {ContainerSpec: types.ContainerSpec{Networks: map[string]*types.ServiceNetworkConfig{"default": c.said}}}}}
		e, err := New("unix:///nowhere", Options{Parse: func([]byte) (*types.Project, error) { return project, nil }})
		if err != nil {
			t.Fatal(err)
		}
		var i container.InspectResponse
		i.State = &container.State{Status: container.StateRunning}
		i.HostConfig = &container.HostConfig{}
		i.Config = &container.Config{Labels: map[string]string{labelProject: "shop", labelService: "web", labelSlot: "1"}}
		i.NetworkSettings = &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{"shop_default": {
			Aliases: c.has, IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.201.1.1")},
		}}}
		if found, own := e.found(i); found != c.found || own != c.own {
			t.Errorf("%s: found %q, own %t", name, found, own)
		}
	}
}
