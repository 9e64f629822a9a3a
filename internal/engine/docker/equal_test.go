package docker_test

import (
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
)

func TestDriftIsSeen(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	spec := h.doc("web", sleeps+"mem_limit: 20000000\nrestart: always\n", "")
	h.must(h.Scale(t.Context(), h.want("web", "r1", spec, 1)))
	i := h.one()
	if i.Drift != "" {
		t.Fatalf("drift %q", i.Drift)
	}
	_, err := h.raw.ContainerUpdate(t.Context(), i.ID, client.ContainerUpdateOptions{
		Resources:     &container.Resources{Memory: 30000000, MemorySwap: 60000000},
		RestartPolicy: &container.RestartPolicy{Name: "no"},
	})
	h.must(err)
	_, err = h.raw.NetworkDisconnect(t.Context(), h.project+"_default", client.NetworkDisconnectOptions{Container: i.ID})
	h.must(err)
	want := "memory 30000000 instead of 20000000, restart no instead of always, not in network " + h.project + "_default"
	if got := h.one().Drift; got != want {
		t.Errorf("drift %q, want %q", got, want)
	}
}

func TestForeignContainersAreShownAndCompared(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	spec := h.doc("web", sleeps+"environment: {A: b}\nvolumes: [{type: volume, source: data, target: /data}]\n", "volumes: {data: {name: "+h.project+"_data}}\n")
	w := h.want("web", "r1", spec, 1)
	create := func(env string) string {
		t.Helper()
		made, err := h.raw.ContainerCreate(t.Context(), client.ContainerCreateOptions{
			Name: h.project + "-web-1",
			Config: &container.Config{Image: "busybox", Cmd: []string{"sleep", "3600"}, Env: []string{env}, StopSignal: "SIGKILL", Labels: map[string]string{
				"com.docker.compose.project": h.project, "com.docker.compose.service": "web", "com.docker.compose.container-number": "1",
				"com.docker.compose.oneoff": "False", "com.docker.compose.config-hash": "abc",
			}},
			HostConfig: &container.HostConfig{Binds: []string{h.project + "_data:/data:rw"}, NetworkMode: container.NetworkMode(h.project + "_default")},
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				h.project + "_default": {Aliases: []string{h.project + "-web-1", "web"}},
			}},
		})
		h.must(err)
		_, err = h.raw.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
		h.must(err)
		return made.ID
	}
	id := create("A=b")
	i := h.one()
	if !i.Foreign || i.Service != "web" || i.Slot != 1 || i.Revision != "" || i.ConfigHash != "abc" || i.State != tender.Running {
		t.Errorf("%+v", i)
	}
	if same, why, err := h.Equal(t.Context(), w, id); err != nil || !same {
		t.Errorf("an equal one differs: %s, %v", why, err)
	}
	h.must(h.Remove(t.Context(), id, 0, false))
	id = create("A=c")
	if same, why, err := h.Equal(t.Context(), w, id); err != nil || same || why != "environment" {
		t.Errorf("same %t, why %q, %v", same, why, err)
	}
	w.Drop = []string{id}
	h.must(h.Scale(t.Context(), w))
	if i := h.one(); i.Foreign || i.Name != h.project+"-web-1" {
		t.Errorf("%+v", i)
	}
}
