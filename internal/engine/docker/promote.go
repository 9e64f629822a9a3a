package docker

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// Promote implements engine.Engine.
func (e *Engine) Promote(ctx context.Context, id string) error {
	if err := e.rejoin(ctx, id, true); err != nil {
		return fmt.Errorf("promote %s: %w", short(id), err)
	}
	return nil
}

// Demote implements engine.Engine.
func (e *Engine) Demote(ctx context.Context, id string) error {
	if err := e.rejoin(ctx, id, false); err != nil {
		return fmt.Errorf("demote %s: %w", short(id), err)
	}
	return nil
}

// rejoin lets a container leave each network where it has other names than it
// should, and join it again with the right ones: the engine changes none in place.
func (e *Engine) rejoin(ctx context.Context, id string, named bool) error {
	if err := e.negotiate(ctx, false); err != nil {
		return err
	}
	got, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return wrap(err, "inspect")
	}
	c, l := got.Container, got.Container.Config.Labels
	slot, _ := strconv.Atoi(l[labelSlot])
	if l[labelProject] == "" || slot == 0 || c.NetworkSettings == nil {
		return nil // its names are not ours to give
	}
	w := engine.Want{Project: l[labelProject], Service: tender.Service{Name: l[labelService], Spec: []byte(l[labelSpec])}}
	w.Image, _ = imageOf(l)
	p, s, err := e.service(w.Service)
	if err != nil {
		return err
	}
	wanted, err := e.endpoints(ctx, p, s, w, slot)
	if err != nil {
		return err
	}
	kept, err := e.atLeast(ctx, "1.44") // to keep a hardware address is one of its questions
	if err != nil {
		return err
	}
	defer e.seen.touch(id)
	for _, ep := range wanted {
		has := c.NetworkSettings.Networks[ep.network]
		if has != nil && (!named && !pinned(has) || hasNames(has, ep.settings.Aliases, s.Name, slot, named)) {
			continue
		}
		if !named {
			ep.settings.Aliases = []string{slotAlias(s.Name, slot)}
		}
		if has != nil && pinned(has) {
			ep.settings.IPAMConfig = has.IPAMConfig
			if kept && len(ep.settings.MacAddress) == 0 {
				ep.settings.MacAddress = has.MacAddress
			}
		} else if err := e.seat(ctx, w, slot, c.HostConfig, []endpoint{ep}); err != nil {
			return err
		}
		if err := e.swap(ctx, id, ep, has != nil); err != nil {
			return err
		}
	}
	return nil
}

// swap takes a container out of a network and back in. What it has begun it ends,
// also where the caller is gone: in between, the container reaches nobody.
func (e *Engine) swap(ctx context.Context, id string, ep endpoint, there bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if there {
		_, err := e.c().NetworkDisconnect(ctx, ep.network, client.NetworkDisconnectOptions{Container: id})
		if err != nil && !strings.Contains(err.Error(), "is not connected to") {
			return wrap(err, "leave network %s", ep.network)
		}
	}
	connect := func() error {
		_, err := e.c().NetworkConnect(ctx, ep.network, client.NetworkConnectOptions{Container: id, EndpointConfig: ep.settings})
		return err
	}
	err := connect()
	if err != nil && strings.Contains(err.Error(), "already in use") {
		// Somebody took its address meanwhile: any other is better than none.
		ep.settings.IPAMConfig = nil
		err = connect()
	}
	return wrap(err, "join network %s", ep.network)
}

func slotAlias(service string, slot int) string { return fmt.Sprintf("%s-%d", service, slot) }

func pinned(ep *network.EndpointSettings) bool {
	return ep.IPAMConfig != nil && ep.IPAMConfig.IPv4Address.IsValid()
}

// hasNames reports whether an endpoint has the names that it should: all of aliases, or none of them but SERVICE-N.
func hasNames(has *network.EndpointSettings, aliases []string, service string, slot int, named bool) bool {
	for _, a := range aliases {
		if a != slotAlias(service, slot) && slices.Contains(has.Aliases, a) != named {
			return false
		}
	}
	return true
}

// found says under which names a container is found, and whether its addresses are its own.
func (e *Engine) found(c container.InspectResponse) (f tender.Found, own bool) {
	if c.State.Status != container.StateRunning && c.State.Status != container.StatePaused || c.NetworkSettings == nil {
		return tender.ByService, false
	}
	l := c.Config.Labels
	p, s, err := e.service(tender.Service{Name: l[labelService], Spec: []byte(l[labelSpec])})
	if err != nil || s.NetworkMode != "" {
		return tender.ByService, false
	}
	keys := s.NetworksByPriority()
	if len(keys) == 0 {
		keys = []string{"default"}
	}
	own = len(c.HostConfig.PortBindings) == 0
	slot, _ := strconv.Atoi(l[labelSlot])
	given := false
	for _, key := range keys {
		has, said := c.NetworkSettings.Networks[networkName(p, l[labelProject], key)], s.Networks[key]
		if has == nil {
			return tender.Nowhere, false
		}
		var names []string // not those that only this release gives
		if said.ServiceNameAliasEnabled() {
			names = append(names, s.Name)
		}
		if said != nil {
			names = append(names, said.Aliases...)
		}
		given = given || slices.ContainsFunc(names, func(a string) bool { return a != slotAlias(s.Name, slot) })
		if !hasNames(has, names, s.Name, slot, true) {
			f = tender.BySlot
		}
		own = own && pinned(has)
	}
	return f, own && given // without a name there is nothing to give or to take
}

// seats are the addresses that were given out lately: a container shows its own only once it is made.
type seats struct {
	mu    sync.Mutex
	given map[netip.Addr]time.Time
	last  map[string]netip.Addr // by network
}

// seatHeld is how long an address counts as given though nobody is seen with it.
const seatHeld = 2 * time.Minute

// seat gives the newcomer of a service with a healthcheck an address of its own in
// each network that has such, and with w.Unnamed takes all names but SERVICE-N from
// it there. Where a network has none left, the engine chooses, and the names are given at once.
func (e *Engine) seat(ctx context.Context, w engine.Want, slot int, h *container.HostConfig, endpoints []endpoint) error {
	_, s, err := e.service(w.Service)
	if err != nil {
		return err
	}
	if !healthchecked(w, s.HealthCheck != nil && !s.HealthCheck.Disable) || len(endpoints) == 0 || len(h.PortBindings) > 0 {
		return nil
	}
	if h.Privileged || slices.ContainsFunc(h.CapAdd, func(c string) bool { return strings.TrimPrefix(c, "CAP_") == "NET_ADMIN" || c == "ALL" }) {
		return nil // what it has changed in its network itself would be gone
	}
	list, err := e.c().NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("label", labelRange)})
	if err != nil {
		return wrap(err, "list networks")
	}
	for _, ep := range endpoints {
		at := slices.IndexFunc(list.Items, func(n network.Summary) bool { return n.Name == ep.network })
		if at < 0 || ep.settings.IPAMConfig != nil {
			continue
		}
		ours, err := netip.ParsePrefix(list.Items[at].Labels[labelRange])
		if err != nil {
			continue // somebody else's idea of a range
		}
		there, err := e.c().ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("network", list.Items[at].ID)})
		if err != nil {
			return wrap(err, "list containers")
		}
		taken := map[netip.Addr]bool{}
		for _, c := range there.Items {
			if c.NetworkSettings == nil {
				continue
			}
			if has := c.NetworkSettings.Networks[ep.network]; has != nil {
				taken[has.IPAddress] = true
				if pinned(has) {
					taken[has.IPAMConfig.IPv4Address] = true
				}
			}
		}
		a, ok := e.seats.take(ep.network, ours, taken, time.Now())
		if !ok {
			e.o.Log.Warn("no address is left to give: the engine chooses one", "network", ep.network, "range", ours)
			continue
		}
		ep.settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: a}
		if w.Unnamed {
			ep.settings.Aliases = []string{slotAlias(s.Name, slot)}
		}
	}
	return nil
}

// healthchecked reports whether the engine will say healthy or not of what w makes. spec: the service says how.
func healthchecked(w engine.Want, spec bool) bool {
	return spec || w.Service.Healthcheck > 0 || w.Service.Healthcheck == 0 && w.Image.Healthcheck
}

// take gives out the next address of a range after the last one: one that came free just now may still be known.
func (s *seats) take(name string, ours netip.Prefix, taken map[netip.Addr]bool, now time.Time) (netip.Addr, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.given == nil {
		s.given, s.last = map[netip.Addr]time.Time{}, map[string]netip.Addr{}
	}
	a := s.last[name]
	// All of it but the first, which some take for a network's, and the last, the broadcast address.
	for range 1<<(32-ours.Bits()) - 2 {
		if a = a.Next(); !ours.Contains(a) || !ours.Contains(a.Next()) {
			a = ours.Masked().Addr().Next()
		}
		if at, ok := s.given[a]; taken[a] || ok && now.Before(at.Add(seatHeld)) {
			continue
		}
		s.given[a], s.last[name] = now, a
		return a, true
	}
	return netip.Addr{}, false
}
