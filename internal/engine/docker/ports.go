package docker

import (
	"math"
	"net/netip"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/network"

	tender "github.com/tenderhq/tender"
)

// ports are the exposed ones and where they are published. A range of host
// ports goes to the engine as it is, which picks a free one of it at each start.
func ports(s types.ServiceConfig) (network.PortSet, network.PortMap, error) {
	exposed, bindings := network.PortSet{}, network.PortMap{}
	for _, x := range s.Expose {
		r, err := network.ParsePortRange(x)
		if err != nil {
			return nil, nil, tender.Errorf(tender.Invalid, "service %s: expose %q: %w", s.Name, x, err)
		}
		for p := range r.All() {
			exposed[p] = struct{}{}
		}
	}
	for _, x := range s.Ports {
		proto := network.IPProtocol(strings.ToLower(x.Protocol))
		if proto == "" {
			proto = network.TCP
		}
		port, ok := network.PortFrom(uint16(x.Target), proto)
		if !ok || x.Target == 0 || x.Target > math.MaxUint16 {
			return nil, nil, tender.Errorf(tender.Invalid, "service %s: port %d/%s", s.Name, x.Target, x.Protocol)
		}
		b := network.PortBinding{HostPort: x.Published}
		if x.HostIP != "" {
			addr, err := netip.ParseAddr(strings.Trim(x.HostIP, "[]"))
			if err != nil {
				return nil, nil, tender.Errorf(tender.Invalid, "service %s: host_ip %q is no address", s.Name, x.HostIP)
			}
			b.HostIP = addr
		}
		exposed[port] = struct{}{}
		bindings[port] = append(bindings[port], b)
	}
	return exposed, bindings, nil
}
