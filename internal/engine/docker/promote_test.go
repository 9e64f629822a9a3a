package docker_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// says runs a command in an instance and returns what it writes.
func (h *host) says(id string, cmd ...string) string {
	h.Helper()
	s, err := h.Exec(h.Context(), id, engine.ExecOptions{Cmd: cmd, TTY: true})
	h.must(err)
	defer s.Close()
	b, err := io.ReadAll(s.Output)
	h.must(err)
	return strings.TrimSpace(string(b))
}

func TestPromotionKeepsConnectionsAndTheWayOut(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	// The way out is over the first network by name; that one is left first.
	spec := h.doc("web", `command: [sh, -c, "mkfifo /p; nc -lk 7 </p | cat >/p"]
healthcheck: {test: [CMD, "true"], interval: 1s, timeout: 30s}
networks: {a: {aliases: [www]}, b: {priority: 5}}
`, "networks:\n  a: {name: "+h.project+"_a}\n  b: {name: "+h.project+"_b}\n")
	h.must(h.Scale(t.Context(), h.want("web", "r1", spec, 1)))
	old := h.one()
	w := h.want("web", "r2", spec, 1)
	w.Service.Healthcheck, w.Unnamed = 1, true
	h.must(h.Scale(t.Context(), w))
	id := h.instances()[1].ID
	names := func() string {
		t.Helper()
		var out []string
		for _, name := range []string{"web", "www", "web-1"} {
			answer := h.says(old.ID, "nslookup", name, "127.0.0.11")
			for n, a := range h.instances()[1].Addresses {
				// The engine answers with the address in one of them.
				if strings.Contains(answer, "Address: "+a+"\r") || strings.HasSuffix(answer, "Address: "+a) {
					t.Logf("%s is %s in network %s", name, a, n)
					out = append(out, name)
				}
			}
		}
		return strings.Join(out, " ")
	}
	if got, want := names(), "web-1"; got != want {
		t.Errorf("before: %s, want %s", got, want)
	}
	// What an interface is called is not kept.
	routes := func() string { return regexp.MustCompile(`dev \S+`).ReplaceAllString(h.says(id, "ip", "route"), "") }
	before, way := h.inspect(id), routes()
	conn, err := net.Dial("tcp", net.JoinHostPort(h.instances()[1].Addresses[h.project+"_a"], "7"))
	h.must(err)
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	echo := func(text string) {
		t.Helper()
		fmt.Fprintln(conn, text)
		if !lines.Scan() || lines.Text() != text {
			t.Fatalf("the connection that was open: %q, %v", lines.Text(), lines.Err())
		}
	}
	echo("before")
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"promoted", func() error { return h.Promote(t.Context(), id) }, "web www web-1"},
		{"demoted", func() error { return h.Demote(t.Context(), id) }, "web-1"},
	} {
		began := time.Now()
		h.must(step.do())
		took := time.Since(began)
		echo(step.name)
		t.Logf("%s in two networks in %v, the next answer on an open connection after %v", step.name, took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		if got := names(); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
		if got := routes(); got != way {
			t.Errorf("%s: the routes are\n%s\nand were\n%s", step.name, got, way)
		}
		after := h.inspect(id)
		for name, was := range before.NetworkSettings.Networks {
			is := after.NetworkSettings.Networks[name]
			if is == nil || is.IPAddress != was.IPAddress || is.MacAddress.String() != was.MacAddress.String() || is.Gateway != was.Gateway {
				t.Errorf("%s: in network %s: %+v, was %+v", step.name, name, is, was)
			}
		}
		if after.State.StartedAt != before.State.StartedAt {
			t.Errorf("%s: it was restarted", step.name)
		}
	}
	// Killed in the middle: it is outside of one network.
	_, err = h.raw.NetworkDisconnect(t.Context(), h.project+"_b", client.NetworkDisconnectOptions{Container: id})
	h.must(err)
	if i := h.instances()[1]; i.Found != tender.Nowhere {
		t.Errorf("torn: found %q", i.Found)
	}
	h.must(h.Promote(t.Context(), id))
	if i := h.instances()[1]; i.Found != tender.ByService || !i.Pinned || i.Drift != "" {
		t.Errorf("mended: %+v", i)
	}
	echo("mended")
	// Names and addresses are the container's, not this life's.
	is := h.instances()[1]
	h.must(h.Restart(t.Context(), id, 0))
	if i := h.instances()[1]; i.Found != tender.ByService || !i.Pinned || !maps.Equal(i.Addresses, is.Addresses) {
		t.Errorf("restarted: %+v, was %+v", i, is)
	}
}
