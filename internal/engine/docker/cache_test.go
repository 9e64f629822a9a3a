package docker_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine/docker"
)

// counted stands between an Engine and the real one and counts the inspects of each container.
func counted(t *testing.T) (e *docker.Engine, inspects func(id string) int) {
	t.Helper()
	socket, ok := strings.CutPrefix(orDefault(os.Getenv("DOCKER_HOST")), "unix://")
	if !ok {
		t.Skip("counts requests on a unix socket only")
	}
	var mu sync.Mutex // guards seen
	seen := map[string]int{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
	proxy.FlushInterval = -1
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, rest, ok := strings.Cut(r.URL.Path, "/containers/"); ok {
			mu.Lock()
			seen[strings.TrimSuffix(rest, "/json")]++
			mu.Unlock()
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	e, err := docker.New("tcp://"+server.Listener.Addr().String(), docker.Options{Parse: parse})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, func(id string) int {
		mu.Lock()
		defer mu.Unlock()
		return seen[id]
	}
}

func TestListInspectsOnlyWhatChanged(t *testing.T) {
	h := newHost(t)
	spec := h.doc("web", sleeps, "")
	h.must(h.Scale(t.Context(), h.want("web", "r1", spec, 1, 2, 3)))
	e, inspects := counted(t)
	ctx, cancel := context.WithCancel(t.Context())
	started, changed := make(chan struct{}), make(chan struct{}, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		h.ok(e.Watch(ctx, func() { close(started) }, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		}))
	})
	defer watching.Wait()
	defer cancel()
	<-started
	list := func() []tender.Instance {
		t.Helper()
		p, err := e.List(t.Context())
		h.must(err)
		return p.Of(h.project)
	}
	first := list()
	if len(first) != 3 {
		t.Fatalf("%d instances", len(first))
	}
	// A restart behind its back looks the same in a list: only the event tells.
	_, err := h.raw.ContainerRestart(t.Context(), first[0].ID, client.ContainerRestartOptions{Timeout: new(int)})
	h.must(err)
	for {
		<-changed
		for _, i := range list() {
			if i.ID == first[0].ID && i.State == tender.Running && i.Started.After(first[0].Started) {
				for _, quiet := range first[1:] {
					if n := inspects(quiet.ID); n != 1 {
						t.Errorf("%s, which nothing happened to, was inspected %d times", quiet.Name, n)
					}
				}
				return
			}
		}
	}
}
