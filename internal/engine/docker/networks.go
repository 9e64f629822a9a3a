package docker

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// endpoint is a container's place in one network.
type endpoint struct {
	network  string // the engine's name
	settings *network.EndpointSettings
}

// endpoints are a service's networks by priority, each with the names by which the instance in slot is found there.
func (e *Engine) endpoints(ctx context.Context, p *types.Project, s types.ServiceConfig, w engine.Want, slot int) ([]endpoint, error) {
	if s.NetworkMode != "" {
		return nil, nil
	}
	keys := s.NetworksByPriority()
	if len(keys) == 0 {
		keys = []string{"default"}
	}
	links, err := e.links(ctx, s, w, false)
	if err != nil {
		return nil, err
	}
	var out []endpoint
	for n, key := range keys {
		c := s.Networks[key]
		set := &network.EndpointSettings{Links: links}
		if c.ServiceNameAliasEnabled() && slot > 0 {
			set.Aliases = append(set.Aliases, s.Name)
		}
		if slot > 0 {
			set.Aliases = append(set.Aliases, slotAlias(s.Name, slot))
		}
		// Where other projects are, too, it is found by the name that tells them apart.
		if n := p.Networks[key]; slot > 0 && (bool(n.External) || n.Name != "" && n.Name != w.Project+"_"+key) {
			set.Aliases = append(set.Aliases, projectAlias(w.Project, s.Name))
		}
		if c != nil {
			if slot > 0 {
				set.Aliases = append(set.Aliases, c.Aliases...)
			}
			set.DriverOpts = c.DriverOpts
			set.GwPriority = c.GatewayPriority
			if c.InterfaceName != "" {
				set.DriverOpts = maps.Clone(set.DriverOpts)
				if set.DriverOpts == nil {
					set.DriverOpts = map[string]string{}
				}
				set.DriverOpts["com.docker.network.endpoint.ifname"] = c.InterfaceName
			}
			if err := addresses(s.Name, c, set); err != nil {
				return nil, err
			}
		}
		mac := ""
		if c != nil {
			mac = c.MacAddress
		}
		if mac == "" && n == 0 {
			mac = s.MacAddress
		}
		if mac != "" {
			hw, err := net.ParseMAC(mac)
			if err != nil {
				return nil, tender.Errorf(tender.Invalid, "service %s: mac_address %q", s.Name, mac)
			}
			set.MacAddress = network.HardwareAddr(hw)
		}
		out = append(out, endpoint{network: networkName(p, w.Project, key), settings: set})
	}
	return out, nil
}

// projectAlias is a service's name among several projects.
func projectAlias(project, service string) string { return service + "." + project + ".tender" }

// addresses fills in the static ones.
func addresses(service string, c *types.ServiceNetworkConfig, set *network.EndpointSettings) error {
	if c.Ipv4Address == "" && c.Ipv6Address == "" && len(c.LinkLocalIPs) == 0 {
		return nil
	}
	set.IPAMConfig = &network.EndpointIPAMConfig{}
	for _, a := range []struct {
		text string
		to   *netip.Addr
	}{{c.Ipv4Address, &set.IPAMConfig.IPv4Address}, {c.Ipv6Address, &set.IPAMConfig.IPv6Address}} {
		if a.text == "" {
			continue
		}
		addr, err := netip.ParseAddr(a.text)
		if err != nil {
			return tender.Errorf(tender.Invalid, "service %s: %q is no address", service, a.text)
		}
		*a.to = addr
	}
	for _, text := range c.LinkLocalIPs {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return tender.Errorf(tender.Invalid, "service %s: %q is no address", service, text)
		}
		set.IPAMConfig.LinkLocalIPs = append(set.IPAMConfig.LinkLocalIPs, addr)
	}
	return nil
}

// links are CONTAINER:ALIAS for links and external_links. Where no network answers
// for names, full adds those that it would know: SERVICE-N and PROJECT-SERVICE-N.
func (e *Engine) links(ctx context.Context, s types.ServiceConfig, w engine.Want, full bool) ([]string, error) {
	var out []string
	for _, l := range s.Links {
		name, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = name
		}
		c, err := e.memberOf(ctx, w.Project, name)
		if err != nil {
			return nil, fmt.Errorf("service %s: link to %s: %w", s.Name, name, err)
		}
		out = append(out, c.ID+":"+alias)
		if full {
			numbered := name + "-" + c.Labels[composeNumber]
			out = append(out, c.ID+":"+numbered, c.ID+":"+w.Project+"-"+numbered)
		}
	}
	for _, l := range s.ExternalLinks {
		if !strings.Contains(l, ":") {
			l += ":" + l
		}
		out = append(out, l)
	}
	return out, nil
}

// networkName is the engine's name of the network that the file calls key.
func networkName(p *types.Project, project, key string) string {
	n, ok := p.Networks[key]
	if ok && n.Name != "" {
		return n.Name
	}
	if ok && bool(n.External) {
		return key
	}
	return project + "_" + key
}

// gatewayOf is the host's address in a bridge network, and the subnets of that; empty: it has none.
func gatewayOf(n network.Network) (gateway string, subnets []string) {
	if n.Driver != "bridge" {
		return "", nil
	}
	for _, c := range n.IPAM.Config {
		if !c.Subnet.Addr().Is4() {
			continue
		}
		subnets = append(subnets, c.Subnet.Masked().String())
		switch {
		case gateway != "":
		case c.Gateway.Is4():
			gateway = c.Gateway.String()
		case c.IPRange.IsValid() && c.IPRange.Masked().Addr() != c.Subnet.Masked().Addr():
			gateway = c.IPRange.Masked().Addr().String()
		default: // old engines do not name the one that they have chosen: the first address
			gateway = c.Subnet.Masked().Addr().Next().String()
		}
	}
	return gateway, subnets
}

// Ensure implements engine.Engine.
func (e *Engine) Ensure(ctx context.Context, p tender.Project) error {
	if err := e.negotiate(ctx, false); err != nil {
		return err
	}
	c, err := e.parse(p.Spec)
	if err != nil {
		return err
	}
	if err := e.ensureNetworks(ctx, p.Name, c); err != nil {
		return err
	}
	return e.ensureVolumes(ctx, p.Name, c)
}

func (e *Engine) ensureNetworks(ctx context.Context, project string, p *types.Project) error {
	wanted := map[string]types.NetworkConfig{}
	maps.Copy(wanted, p.Networks)
	for _, s := range p.Services {
		if s.NetworkMode == "" && len(s.Networks) == 0 {
			if _, ok := wanted["default"]; !ok {
				wanted["default"] = types.NetworkConfig{}
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	e.networking.Lock()
	defer e.networking.Unlock()
	list, err := e.c().NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return wrap(err, "list networks")
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		n := wanted[key]
		name := networkName(p, project, key)
		at := slices.IndexFunc(list.Items, func(s network.Summary) bool { return s.Name == name || bool(n.External) && s.ID == name })
		switch {
		case at >= 0 && bool(n.External):
		case at >= 0:
			if err := sameNetwork(project, key, n, list.Items[at].Network); err != nil {
				return err
			}
		case bool(n.External):
			return tender.Errorf(tender.NotFound, "network %s is external and not there", name).
				Hint("docker network create %s", name)
		default:
			if err := e.createNetwork(ctx, project, key, name, n, list.Items); err != nil {
				return err
			}
			if list, err = e.c().NetworkList(ctx, client.NetworkListOptions{}); err != nil {
				return wrap(err, "list networks")
			}
		}
	}
	return nil
}

// sameNetwork is a Conflict if a network that is there was made otherwise than the file says.
func sameNetwork(project, key string, n types.NetworkConfig, there network.Network) error {
	differs := func(what, has, wants string) error {
		return tender.Errorf(tender.Conflict, "network %s is there with %s %s, the file says %s", there.Name, what, has, wants).
			Hint("remove it (docker network rm %s) or give the network another name:", there.Name)
	}
	if owner := there.Labels[composeProject]; owner != project {
		if owner == "" {
			owner = "nobody that Tender knows"
		} else {
			owner = "project " + owner
		}
		return tender.Errorf(tender.Conflict, "network %s is there and belongs to %s", there.Name, owner).
			Hint("say external: true under networks.%s, or give it another name:", key)
	}
	if n.Driver != "" && n.Driver != there.Driver {
		return differs("driver", there.Driver, n.Driver)
	}
	if n.Internal != there.Internal {
		return differs("internal:", fmt.Sprint(there.Internal), fmt.Sprint(n.Internal))
	}
	if n.EnableIPv6 != nil && *n.EnableIPv6 != there.EnableIPv6 {
		return differs("enable_ipv6:", fmt.Sprint(there.EnableIPv6), fmt.Sprint(*n.EnableIPv6))
	}
	for _, k := range slices.Sorted(maps.Keys(n.DriverOpts)) {
		if there.Options[k] != n.DriverOpts[k] {
			return differs("option "+k, fmt.Sprintf("%q", there.Options[k]), fmt.Sprintf("%q", n.DriverOpts[k]))
		}
	}
	for _, pool := range n.Ipam.Config {
		if pool.Subnet == "" {
			continue
		}
		var has []string
		found := false
		for _, c := range there.IPAM.Config {
			has = append(has, c.Subnet.String())
			w, err := netip.ParsePrefix(pool.Subnet)
			found = found || err == nil && w.Masked() == c.Subnet.Masked()
		}
		if !found {
			return differs("subnet", strings.Join(has, ", "), pool.Subnet)
		}
	}
	return nil
}

func (e *Engine) createNetwork(ctx context.Context, project, key, name string, n types.NetworkConfig, there []network.Summary) error {
	o := client.NetworkCreateOptions{
		Driver: n.Driver, Internal: n.Internal, Attachable: n.Attachable, EnableIPv6: n.EnableIPv6,
		Options: n.DriverOpts, Labels: map[string]string{},
	}
	if n.EnableIPv4 != nil {
		ok, err := e.atLeast(ctx, "1.48")
		if err != nil {
			return err
		}
		if ok {
			o.EnableIPv4 = n.EnableIPv4
		}
	}
	if o.Driver == "" {
		o.Driver = "bridge"
	}
	maps.Copy(o.Labels, n.Labels)
	maps.Copy(o.Labels, map[string]string{
		composeProject: project, composeNetwork: key, composeVersion: "tender", labelProject: project,
	})
	ipam, err := userIPAM(name, n)
	if err != nil {
		return err
	}
	o.IPAM = ipam
	own := o.Driver == "bridge" && (n.EnableIPv4 == nil || *n.EnableIPv4) && (ipam == nil || len(ipam.Config) == 0 && (ipam.Driver == "" || ipam.Driver == "default"))
	if !own {
		_, err := e.c().NetworkCreate(ctx, name, o)
		return overlapHint(err, name)
	}
	taken := e.taken(there)
	for subnet := range subnets(e.o.Pool) {
		if slices.ContainsFunc(taken, subnet.Overlaps) {
			continue
		}
		o.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}}
		if engines, ours, ok := halves(subnet); ok && (n.EnableIPv6 == nil || !*n.EnableIPv6) {
			o.IPAM.Config[0].IPRange = engines
			o.Labels[labelRange] = ours.String()
		}
		if ipam != nil {
			o.IPAM.Driver, o.IPAM.Options = ipam.Driver, ipam.Options
		}
		_, err := e.c().NetworkCreate(ctx, name, o)
		if overlaps(err) {
			continue // somebody was faster
		}
		return wrap(err, "create network %s", name)
	}
	// A route of the host may cover the whole pool: then the engine's own choice is better than none.
	e.o.Log.Warn("no subnet of the pool is free: the engine chooses one", "pool", e.o.Pool, "network", name)
	o.IPAM = ipam
	delete(o.Labels, labelRange)
	_, err = e.c().NetworkCreate(ctx, name, o)
	return overlapHint(err, name)
}

func overlaps(err error) bool {
	return err != nil && strings.Contains(strings.ToLower(err.Error()), "overlaps with other one")
}

func overlapHint(err error, name string) error {
	if overlaps(err) {
		return tender.Errorf(tender.Conflict, "create network %s: %w", name, error(answer{err})).
			Hint("another network has that subnet: docker network ls; choose another one under networks:")
	}
	return wrap(err, "create network %s", name)
}

func userIPAM(name string, n types.NetworkConfig) (*network.IPAM, error) {
	if n.Ipam.Driver == "" && len(n.Ipam.Config) == 0 && len(n.Ipam.Options) == 0 {
		return nil, nil
	}
	out := &network.IPAM{Driver: n.Ipam.Driver, Options: n.Ipam.Options}
	for _, pool := range n.Ipam.Config {
		var c network.IPAMConfig
		var err error
		parse := func(text string, to func(string) error) {
			if text != "" && err == nil {
				err = to(text)
			}
		}
		parse(pool.Subnet, func(s string) (err error) { c.Subnet, err = netip.ParsePrefix(s); return })
		parse(pool.IPRange, func(s string) (err error) { c.IPRange, err = netip.ParsePrefix(s); return })
		parse(pool.Gateway, func(s string) (err error) { c.Gateway, err = netip.ParseAddr(s); return })
		for _, host := range slices.Sorted(maps.Keys(pool.AuxiliaryAddresses)) {
			parse(pool.AuxiliaryAddresses[host], func(s string) error {
				a, err := netip.ParseAddr(s)
				if c.AuxAddress == nil {
					c.AuxAddress = map[string]netip.Addr{}
				}
				c.AuxAddress[host] = a
				return err
			})
		}
		if err != nil {
			return nil, tender.Errorf(tender.Invalid, "network %s: %w", name, err)
		}
		out.Config = append(out.Config, c)
	}
	return out, nil
}

// RemoveNetwork implements engine.Engine.
func (e *Engine) RemoveNetwork(ctx context.Context, id string) error {
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		_, err := e.c().NetworkRemove(ctx, id, client.NetworkRemoveOptions{})
		if err == nil || kind(err) == tender.NotFound {
			return nil
		}
		if !strings.Contains(err.Error(), "has active endpoints") {
			return wrap(err, "remove network %s", id)
		}
		failed := tender.Errorf(tender.Conflict, "remove network %s: %w", id, error(answer{err}))
		got, err := e.c().NetworkInspect(ctx, id, client.NetworkInspectOptions{})
		if err != nil && kind(err) != tender.NotFound {
			return wrap(err, "remove network %s", id)
		}
		if err == nil && len(got.Network.Containers) > 0 {
			return failed.Hint("docker network inspect %s shows who is in it", id)
		}
		// Nobody is: the engine may still be letting go of one that was removed a moment ago.
		if pause > 2*time.Second {
			return failed.Hint("nobody is in it, and the engine has lost count; it goes once the engine was restarted: systemctl restart docker")
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
