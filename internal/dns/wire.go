package dns

import (
	"cmp"
	"iter"
	"maps"
	"slices"
)

// The values of Consul's API, with its names for their fields.

type wireNode struct {
	ID, Node, Address, Datacenter string
	TaggedAddresses, Meta         map[string]string
	CreateIndex, ModifyIndex      uint64
}

type weights struct{ Passing, Warning int }

type agentEntry struct {
	Kind              string
	ID, Service       string
	Tags              []string
	Meta              map[string]string
	Port              int
	Address           string
	TaggedAddresses   map[string]taggedAddress
	Weights           weights
	EnableTagOverride bool
	Datacenter        string `json:",omitempty"`
	CreateIndex       uint64
	ModifyIndex       uint64
}

type taggedAddress struct {
	Address string
	Port    int
}

type catalogEntry struct {
	ID, Node, Address, Datacenter string
	TaggedAddresses, NodeMeta     map[string]string
	ServiceKind                   string
	ServiceID, ServiceName        string
	ServiceTags                   []string
	ServiceAddress                string
	ServiceTaggedAddresses        map[string]taggedAddress
	ServiceWeights                weights
	ServiceMeta                   map[string]string
	ServicePort                   int
	ServiceEnableTagOverride      bool
	CreateIndex, ModifyIndex      uint64
}

type wireCheck struct {
	Node, CheckID, Name, Status, Notes, Output string
	ServiceID, ServiceName                     string
	ServiceTags                                []string
	Type                                       string
	Definition                                 struct{}
	CreateIndex, ModifyIndex                   uint64
}

type healthEntry struct {
	Node    wireNode
	Service agentEntry
	Checks  []wireCheck
}

func (s *Server) wireNode(n Node, index uint64) wireNode {
	return wireNode{
		ID: nodeID(n.Name), Node: n.Name, Address: n.Address, Datacenter: s.o.Datacenter,
		TaggedAddresses: map[string]string{"lan": n.Address, "wan": n.Address}, Meta: map[string]string{},
		CreateIndex: index, ModifyIndex: index,
	}
}

// meta is what the user wrote, and what Tender knows.
func (l *listing) meta() map[string]string {
	out := map[string]string{}
	maps.Copy(out, l.service.Meta)
	for key, value := range map[string]string{"tender-project": l.service.Project, "tender-service": l.service.Name, "tender-instance": l.endpoint.Name} {
		if value != "" && l.service.Project != "" {
			out[key] = value
		}
	}
	return out
}

func (s *Server) agentEntry(l *listing) agentEntry {
	return agentEntry{
		ID: l.id(), Service: l.service.catalogued(), Tags: append([]string{}, l.service.Tags...), Meta: l.meta(),
		Port: l.service.port(&l.endpoint), Address: l.endpoint.Address, TaggedAddresses: map[string]taggedAddress{},
		Weights: weights{max(l.endpoint.Weight, 1), 1}, CreateIndex: l.created, ModifyIndex: l.changed,
	}
}

func (s *Server) catalogEntry(l *listing) catalogEntry {
	n, e := s.wireNode(l.node, l.created), s.agentEntry(l)
	return catalogEntry{
		ID: n.ID, Node: n.Node, Address: n.Address, Datacenter: n.Datacenter, TaggedAddresses: n.TaggedAddresses, NodeMeta: n.Meta,
		ServiceID: e.ID, ServiceName: e.Service, ServiceTags: e.Tags, ServiceAddress: e.Address,
		ServiceTaggedAddresses: e.TaggedAddresses, ServiceWeights: e.Weights, ServiceMeta: e.Meta, ServicePort: e.Port,
		CreateIndex: l.created, ModifyIndex: l.changed,
	}
}

func (s *Server) wireChecks(l *listing) []wireCheck {
	out := []wireCheck{}
	for _, c := range l.checks() {
		out = append(out, wireCheck{
			Node: l.node.Name, CheckID: c.ID, Name: cmp.Or(c.Name, c.ID), Status: c.Status, Notes: c.Notes, Output: c.Output,
			ServiceID: l.id(), ServiceName: l.service.catalogued(), ServiceTags: append([]string{}, l.service.Tags...),
			Type: c.Type, CreateIndex: l.created, ModifyIndex: l.changed,
		})
	}
	return out
}

// on yields what is listed on a node, by service.
func (c *catalog) on(node string) iter.Seq[*listing] {
	return func(yield func(*listing) bool) {
		for _, name := range slices.Sorted(maps.Keys(c.services)) {
			for i := range c.services[name].entries {
				if l := &c.services[name].entries[i]; l.node.Name == node && !yield(l) {
					return
				}
			}
		}
	}
}
