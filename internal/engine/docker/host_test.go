package docker_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/docker"
)

// host is a real engine with a project of its own, and a client beside it that
// does what people do behind Tender's back.
type host struct {
	*testing.T
	*docker.Engine
	raw     *client.Client
	project string
}

// hosts counts them: the names of two tests that run side by side may begin alike.
var hosts atomic.Int64

func newHost(t *testing.T) *host {
	t.Helper()
	e := real(t)
	raw, err := client.New(client.WithHost(orDefault(os.Getenv("DOCKER_HOST"))))
	if err != nil {
		t.Fatal(err)
	}
	name := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	h := &host{T: t, Engine: e, raw: raw, project: fmt.Sprintf("engine-%.24s-%d-%d", name, os.Getpid(), hosts.Add(1))}
	t.Cleanup(h.clean)
	return h
}

func orDefault(s string) string {
	if s == "" {
		return docker.DefaultHost
	}
	return s
}

func (h *host) clean() {
	ctx := context.Background()
	p, err := h.List(ctx)
	if err != nil {
		h.Errorf("clean up: %v", err)
	}
	for _, i := range p.Of(h.project) {
		h.ok(h.Remove(ctx, i.ID, 0, true))
	}
	for _, n := range p.Networks {
		if n.Project == h.project {
			h.ok(h.RemoveNetwork(ctx, n.ID))
		}
	}
	for _, v := range p.Volumes {
		if v.Project == h.project {
			h.ok(h.RemoveVolume(ctx, v.Name))
		}
	}
	h.raw.Close()
}

func (h *host) ok(err error) {
	h.Helper()
	if err != nil {
		h.Error(err)
	}
}

func (h *host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// doc is a canonical document of one service; rest follows services:.
func (h *host) doc(service, body, rest string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nservices:\n  %s:\n    image: busybox\n    stop_signal: SIGKILL\n", h.project, service)
	for line := range strings.Lines(strings.TrimSpace(body) + "\n") {
		b.WriteString("    " + line)
	}
	b.WriteString(rest)
	return []byte(b.String())
}

func (h *host) want(service, revision string, spec []byte, slots ...int) engine.Want {
	h.Helper()
	id, err := h.Resolve(h.Context(), "busybox")
	h.must(err)
	h.must(h.Ensure(h.Context(), tender.Project{Name: h.project, Spec: spec}))
	return engine.Want{
		Project: h.project, Image: id, Slots: slots, WorkingDir: "/srv/shop", ComposeFiles: []string{"/srv/shop/compose.yaml"},
		Generation: 4, Service: tender.Service{Name: service, Revision: revision, Spec: spec},
	}
}

func (h *host) instances() []tender.Instance {
	h.Helper()
	p, err := h.List(h.Context())
	h.must(err)
	out := p.Of(h.project)
	slices.SortFunc(out, func(a, b tender.Instance) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (h *host) one() tender.Instance {
	h.Helper()
	list := h.instances()
	if len(list) != 1 {
		h.Fatalf("%d instances: %+v", len(list), list)
	}
	return list[0]
}

func (h *host) inspect(id string) container.InspectResponse {
	h.Helper()
	c, err := h.raw.ContainerInspect(h.Context(), id, client.ContainerInspectOptions{})
	h.must(err)
	return c.Container
}

func (h *host) is(err error, kind tender.Kind, words ...string) {
	h.Helper()
	if err == nil || tender.KindOf(err) != kind {
		h.Errorf("error %v, want one of kind %q", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+"\n"+tender.AdviceOf(err), w) {
			h.Errorf("error %q, advice %q: no %q in it", err, tender.AdviceOf(err), w)
		}
	}
}

const sleeps = `command: [sleep, "3600"]` + "\n"
