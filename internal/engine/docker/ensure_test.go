package docker_test

import (
	"testing"

	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine/docker"
)

func TestEnsureHonoursSubnetsAndFindsConflicts(t *testing.T) {
	h := newHost(t)
	ensure := func(rest string) error {
		return h.Ensure(t.Context(), tender.Project{Name: h.project, Spec: h.doc("web", sleeps+"networks: {a: null}\n", rest)})
	}
	a := func(more string) string { return "networks: {a: {name: " + h.project + "_a" + more + "}}\n" }
	h.must(ensure(a("")))
	n, err := h.raw.NetworkInspect(t.Context(), h.project+"_a", client.NetworkInspectOptions{})
	h.must(err)
	if s := n.Network.IPAM.Config[0].Subnet; !docker.DefaultPool.Contains(s.Addr()) || s.Bits() != 23 {
		t.Errorf("subnet %s is not of the pool %s", s, docker.DefaultPool)
	}
	h.must(ensure(a(`, driver: bridge, internal: false`)))
	h.is(ensure(a(`, internal: true`)), tender.Conflict, "internal:", "docker network rm")
	h.is(ensure(a(`, ipam: {config: [{subnet: 10.78.0.0/24}]}`)), tender.Conflict, "subnet", "10.78.0.0/24")
	h.is(ensure(`networks: {a: {name: engine-nobody-has-this, external: true}}`), tender.NotFound, "external", "docker network create engine-nobody-has-this")
	h.must(ensure(`networks: {a: {name: bridge, external: true}}`))
	h.is(ensure(a("")+`volumes: {v: {name: engine-nobody-has-this, external: true}}`), tender.NotFound, "docker volume create")
	v := func(more string) string { return a("") + "volumes: {v: {name: " + h.project + "_v" + more + "}}\n" }
	h.must(ensure(v(`, driver_opts: {type: tmpfs, device: tmpfs, o: size=1m}`)))
	h.must(ensure(v(`, driver_opts: {type: tmpfs, device: tmpfs, o: size=1m}`)))
	h.is(ensure(v(`, driver_opts: {type: tmpfs, device: tmpfs, o: size=2m}`)), tender.Conflict, "option o")
	other := tender.Project{Name: h.project + "x", Spec: h.doc("web", sleeps+"networks: {a: null}\n", a(""))}
	h.is(h.Ensure(t.Context(), other), tender.Conflict, "belongs to project "+h.project)
}
