package dns

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
)

// Picture is everything that can be asked for. It travels as JSON.
type Picture struct {
	// Index grows with every change of what the rest says. Set takes it as the least index to answer with.
	Index    uint64    `json:"index"`
	Services []Service `json:"services,omitempty"`
	Nodes    []Node    `json:"nodes,omitempty"`
}

// Service is one service of a project, or a foreign one that was registered.
type Service struct {
	Project string `json:"project,omitempty"` // empty for foreign ones: they have no name under .tender
	Name    string `json:"name"`
	// Catalog is the name in Consul's catalogue and under .service.consul. Empty: PROJECT-NAME, or
	// NAME without a project; "-": it is not there. Services of one Catalog are listed as one.
	Catalog string            `json:"catalog,omitempty"`
	Tags    []string          `json:"tags,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	// Ports are those of every instance; the first is the one meant where none is named.
	Ports []Port `json:"ports,omitempty"`
	// Check is the URL of the health check, for those who read it; empty: none is known.
	Check     string     `json:"check,omitempty"`
	Foreign   bool       `json:"foreign,omitempty"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// Port is a port of a service. Name, such as "http", is what SRV queries ask for.
type Port struct {
	Name     string `json:"name,omitempty"`
	Number   int    `json:"number"`
	Protocol string `json:"protocol,omitempty"` // tcp (default), udp
}

// Endpoint is where one instance is reached.
type Endpoint struct {
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"`    // the container's
	Slot    int    `json:"slot,omitempty"`    // gives the name SERVICE-N; 0: none
	Address string `json:"address,omitempty"` // an IP address, or a host name for foreign ones
	Port    int    `json:"port,omitempty"`    // instead of the service's first one
	Weight  int    `json:"weight,omitempty"`  // in SRV; 0 is 1
	// Healthy: it may be given out. Only then is it in answers over DNS.
	Healthy bool   `json:"healthy"`
	Node    string `json:"node,omitempty"`
	// Checks say more for those who ask over Consul's API; empty: one that says what Healthy says.
	Checks []Check `json:"checks,omitempty"`
}

// Check is one check of an endpoint.
type Check struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"`
	Status string `json:"status"` // passing, warning, critical
	Output string `json:"output,omitempty"`
	Notes  string `json:"notes,omitempty"`
	Type   string `json:"type,omitempty"`
}

// Node is a host.
type Node struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// catalogued returns the service's name in Consul's catalogue; empty: it has none.
func (s *Service) catalogued() string {
	switch {
	case s.Catalog == "-":
		return ""
	case s.Catalog != "":
		return s.Catalog
	case s.Project != "":
		return s.Project + "-" + s.Name
	}
	return s.Name
}

// port returns where e is reached; 0: unknown.
func (s *Service) port(e *Endpoint) int {
	if e.Port > 0 || len(s.Ports) == 0 {
		return e.Port
	}
	return s.Ports[0].Number
}

func (e *Endpoint) ip() (netip.Addr, bool) {
	a, err := netip.ParseAddr(e.Address)
	return a.Unmap().WithZone(""), err == nil
}

// normal returns p in an order that depends on nothing but its content.
func (p Picture) normal() Picture {
	p.Services = slices.Clone(p.Services)
	for i := range p.Services {
		s := &p.Services[i]
		s.Endpoints = slices.Clone(s.Endpoints)
		slices.SortFunc(s.Endpoints, func(a, b Endpoint) int {
			return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
		})
		for j := range s.Endpoints {
			s.Endpoints[j].Checks = some(s.Endpoints[j].Checks)
		}
		s.Tags, s.Ports, s.Endpoints = some(s.Tags), some(s.Ports), some(s.Endpoints)
		if s.Meta = maps.Clone(s.Meta); len(s.Meta) == 0 {
			s.Meta = nil
		}
	}
	slices.SortStableFunc(p.Services, func(a, b Service) int {
		c := cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Catalog, b.Catalog))
		if c == 0 && len(a.Endpoints) > 0 && len(b.Endpoints) > 0 {
			c = cmp.Compare(a.Endpoints[0].ID, b.Endpoints[0].ID)
		}
		return c
	})
	p.Nodes = some(slices.Clone(p.Nodes))
	p.Services = some(p.Services)
	slices.SortStableFunc(p.Nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return p
}

// some makes an empty slice nil, as it is after a journey as JSON.
func some[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

// same compares all but the index of two normal pictures.
func (p Picture) same(q Picture) bool {
	return reflect.DeepEqual(p.Services, q.Services) && reflect.DeepEqual(p.Nodes, q.Nodes)
}

// slotName is SERVICE-N.
func (s *Service) slotName(e *Endpoint) string {
	if e.Slot <= 0 {
		return ""
	}
	return s.Name + "-" + strconv.Itoa(e.Slot)
}
