package dns

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// catalog is the picture as Consul's clients see it: services by one name, each entry with
// the index of its last change. It is made once for each picture and never changes.
type catalog struct {
	index    uint64 // of the whole
	services map[string]*listed
	// names is the index of the last change of the list of services with their tags, nodes that of
	// the nodes, gone that of the last time a service left: a service that is not there has this index.
	names, nodes, gone uint64
	hosts              []Node
}

// listed is one service of the catalogue.
type listed struct {
	name    string
	index   uint64
	tags    []string
	entries []listing
}

// listing is one instance of it.
type listing struct {
	service          Service // without endpoints
	endpoint         Endpoint
	node             Node
	created, changed uint64
}

// nodesOf returns all nodes by name: those of the picture, those that endpoints name, and our own.
func nodesOf(o *Options, p *Picture) []Node {
	nodes := map[string]Node{o.Node: {Name: o.Node, Address: o.Address}}
	for _, n := range p.Nodes {
		nodes[n.Name] = n
	}
	for _, s := range p.Services {
		for _, e := range s.Endpoints {
			if _, known := nodes[e.Node]; !known && e.Node != "" {
				nodes[e.Node] = Node{Name: e.Node, Address: e.Address}
			}
		}
	}
	return slices.SortedFunc(maps.Values(nodes), func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
}

// makeCatalog compares with the catalogue before (nil: there was none) to tell what has changed.
func makeCatalog(o *Options, p *Picture, before *catalog) *catalog {
	c := &catalog{index: p.Index, services: map[string]*listed{}, hosts: nodesOf(o, p)}
	nodes := map[string]Node{}
	for _, n := range c.hosts {
		nodes[n.Name] = n
	}
	for i := range p.Services {
		s := p.Services[i]
		name := s.catalogued()
		if name == "" {
			continue
		}
		l := c.services[name]
		if l == nil {
			l = &listed{name: name}
			c.services[name] = l
		}
		for _, t := range s.Tags {
			if !slices.Contains(l.tags, t) {
				l.tags = append(l.tags, t)
			}
		}
		endpoints := s.Endpoints
		s.Endpoints = nil
		for _, e := range endpoints {
			l.entries = append(l.entries, listing{service: s, endpoint: e, node: nodes[cmp.Or(e.Node, o.Node)]})
		}
	}
	for name, l := range c.services {
		slices.Sort(l.tags)
		if len(l.entries) == 0 {
			delete(c.services, name) // as with Consul, there is no service without instances
		}
	}
	if before == nil {
		before = &catalog{services: map[string]*listed{}}
		c.names, c.nodes, c.gone = c.index, c.index, c.index
	}
	c.compare(before)
	return c
}

// compare gives each part the index of its last change.
func (c *catalog) compare(before *catalog) {
	for name, l := range c.services {
		old := before.services[name]
		if old == nil {
			old = &listed{}
		}
		same := len(old.entries) == len(l.entries)
		for i := range l.entries {
			same = l.entries[i].since(old.entries, c.index) && same
		}
		l.index = c.index
		if same {
			l.index = old.index
		}
	}
	c.names, c.nodes, c.gone = max(c.names, before.names), max(c.nodes, before.nodes), max(c.gone, before.gone)
	for name := range before.services {
		if c.services[name] == nil {
			c.gone, c.names = c.index, c.index
		}
	}
	for name, l := range c.services {
		if old := before.services[name]; old == nil || !slices.Equal(old.tags, l.tags) {
			c.names = c.index
		}
	}
	if !slices.Equal(c.hosts, before.hosts) {
		c.nodes = c.index
	}
}

// since finds the entry among those before and reports whether it is still the same.
func (l *listing) since(before []listing, index uint64) bool {
	l.created, l.changed = index, index
	for _, old := range before {
		if old.endpoint.ID != l.endpoint.ID || old.service.Project != l.service.Project || old.service.Name != l.service.Name {
			continue
		}
		l.created = old.created
		if reflect.DeepEqual(old.endpoint, l.endpoint) && reflect.DeepEqual(old.service, l.service) && old.node == l.node {
			l.changed = old.changed
			return true
		}
		return false
	}
	return false
}

// of returns the index of one service and what is listed under its name.
func (c *catalog) of(name string) (uint64, []listing) {
	if l := c.services[name]; l != nil {
		return l.index, l.entries
	}
	return c.gone, nil
}

// tagged reports whether a listing has all tags, whatever their case, as Consul compares them.
func (l *listing) tagged(tags []string) bool {
	for _, t := range tags {
		if !slices.ContainsFunc(l.service.Tags, func(have string) bool { return strings.EqualFold(have, t) }) {
			return false
		}
	}
	return true
}

// id is unique among all instances.
func (l *listing) id() string { return l.endpoint.ID }

// checks returns the endpoint's checks, or one that says what is known.
func (l *listing) checks() []Check {
	if len(l.endpoint.Checks) > 0 || l.service.Foreign {
		return l.endpoint.Checks
	}
	c := Check{ID: "service:" + l.id(), Name: "Service '" + l.service.catalogued() + "' check", Status: critical, Notes: l.service.Check, Type: "tender"}
	if l.endpoint.Healthy {
		c.Status = passing
	} else {
		c.Output = "the instance is not healthy"
	}
	return []Check{c}
}

// status is the worst of the checks.
func (l *listing) status() string {
	worst := passing
	for _, c := range l.checks() {
		switch {
		case c.Status == critical:
			return critical
		case c.Status == warning:
			worst = warning
		}
	}
	return worst
}

// Consul's words for the state of a check.
const (
	passing  = "passing"
	warning  = "warning"
	critical = "critical"
)

// nodeID is the same for the same name always: clients take nodes with another ID for others.
func nodeID(name string) string {
	h := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}
