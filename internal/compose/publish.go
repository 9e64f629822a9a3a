package compose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

// Hold decides who holds the ports that a service publishes: the edge where
// x-tender.publish says so, where it did before (held), or where the engine
// cannot, since it publishes a host port for one instance alone. It returns the
// service with Publish and what follows from it: an instance behind the edge
// publishes nothing. s is as Parse made it, but for its Replicas.
func Hold(s tender.Service, held bool) (tender.Service, error) {
	p, err := whole(s.Spec)
	if err != nil {
		return s, err
	}
	c := p.Services[s.Name]
	x, err := extensionOf(c)
	if err != nil {
		return s, tender.Errorf(tender.Invalid, "services.%s: %w", s.Name, err)
	}
	n := s.Replicas
	if s.Scale != nil {
		n = max(n, s.Scale.Max) // some day it will have as many
	}
	short := tooFew(c, n)
	switch able := edgeable(c); {
	case x.Publish == tender.PublishProxy:
	case x.Publish == tender.PublishEngine || !able:
		if short != "" {
			e := tender.Errorf(tender.Conflict, "services.%s.ports: %d instances cannot share host port %s", s.Name, n, short)
			return s, e.Hint("let the edge hold it with x-tender: {publish: proxy}, or publish a range of %d ports", n)
		}
		s.Publish = ""
		return s, nil
	case !held && short == "":
		s.Publish = ""
		return s, nil
	}
	s.Publish = tender.PublishProxy
	m := maps.Clone(asMap(c.Extensions[extensionKey]))
	m["publish"] = tender.PublishProxy
	c.Extensions = with(c.Extensions, extensionKey, m)
	p.Services = types.Services{s.Name: c}
	if s.Spec, err = marshal(p); err != nil {
		return s, err
	}
	s.OneAtATime = oneAtATime(inside(c))
	return s, nil
}

func asMap(v any) map[string]any {
	if m, ok := v.(map[string]any); ok {
		return m
	}
	return map[string]any{}
}

// inside is the service as the engine makes it: what the edge holds is exposed
// and not published.
func inside(s types.ServiceConfig) types.ServiceConfig {
	if asMap(s.Extensions[extensionKey])["publish"] != tender.PublishProxy {
		return s
	}
	s.Expose = slices.Clone(s.Expose)
	for _, p := range s.Ports {
		port := fmt.Sprint(p.Target)
		if p.Protocol != "" && p.Protocol != "tcp" {
			port += "/" + p.Protocol
		}
		if !slices.Contains(s.Expose, port) {
			s.Expose = append(s.Expose, port)
		}
	}
	s.Ports = nil
	return s
}

// edgeable reports whether the edge may take the ports of a service unasked: TCP
// with one number each, of instances on a bridge.
func edgeable(s types.ServiceConfig) bool {
	return len(s.Ports) > 0 && !slices.ContainsFunc(s.Ports, func(p types.ServicePortConfig) bool {
		return hostPorts(p.Published) != 1 || p.Protocol != "" && p.Protocol != "tcp"
	}) && (s.NetworkMode == "" || s.NetworkMode == "bridge")
}

// tooFew is the host port that n instances would have to share.
func tooFew(s types.ServiceConfig, n int) string {
	for _, p := range s.Ports {
		if ports := hostPorts(p.Published); ports > 0 && ports < n {
			return p.Published
		}
	}
	return ""
}

// portsOf are those that ports: publishes at one number.
func portsOf(s types.ServiceConfig) []tender.Port {
	var out []tender.Port
	for _, p := range s.Ports {
		if n := hostPorts(p.Published); n > 1 {
			continue
		}
		port := tender.Port{HostIP: strings.Trim(p.HostIP, "[]"), Container: int(p.Target), Protocol: orElse(strings.ToLower(p.Protocol), "tcp")}
		fmt.Sscan(p.Published, &port.HostPort) //nolint:errcheck // without a number the engine chooses
		out = append(out, port)
	}
	return out
}

// exposed are the ports that instances have, without those of the host.
func exposed(s types.ServiceConfig) []tender.Port {
	var out []tender.Port
	add := func(number, protocol string) {
		n, err := strconv.Atoi(number)
		p := tender.Port{Container: n, Protocol: orElse(strings.ToLower(protocol), "tcp")}
		if err == nil && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, e := range s.Expose {
		number, protocol, _ := strings.Cut(e, "/")
		add(number, protocol)
	}
	for _, p := range s.Ports {
		add(strconv.Itoa(int(p.Target)), p.Protocol)
	}
	return out
}

// reach says how the edge comes to the instances of a service: by the address
// that they have on one of these networks, over loopback ("host"), or at the
// addresses of another service ("service:NAME").
func reach(p *types.Project, s types.ServiceConfig) (mode string, networks []string) {
	if s.NetworkMode == "host" || strings.HasPrefix(s.NetworkMode, types.ServicePrefix) {
		return s.NetworkMode, nil
	}
	for _, key := range s.NetworksByPriority() {
		if n, ok := p.Networks[key]; ok && !slices.Contains(farDrivers, n.Driver) {
			networks = append(networks, n.Name)
		}
	}
	return "", networks
}

// unreached says why the edge cannot come to the instances of a service; "" it can.
func unreached(p *types.Project, s types.ServiceConfig) string {
	switch mode := s.NetworkMode; {
	case mode == "none":
		return "network_mode none gives its instances no address"
	case strings.HasPrefix(mode, "container:"):
		return "network_mode " + mode + " is not of this project"
	case strings.HasPrefix(mode, types.ServicePrefix):
		name := strings.TrimPrefix(mode, types.ServicePrefix)
		other, ok := p.Services[name]
		if !ok || strings.HasPrefix(other.NetworkMode, types.ServicePrefix) {
			return ""
		}
		return unreached(p, other)
	case mode == "" && len(s.Networks) > 0:
		_, networks := reach(p, s)
		if len(networks) == 0 {
			name := slices.Sorted(maps.Keys(s.Networks))[0]
			return "the host does not reach network " + name + ", whose driver is " + p.Networks[name].Driver
		}
	}
	return ""
}

// farDrivers are drivers whose addresses the host itself does not reach.
var farDrivers = []string{"macvlan", "ipvlan", "overlay", "none"}
