package docker_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

func TestATerminalHasTheSizeItWasGiven(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.must(h.Scale(t.Context(), h.want("web", "r1", h.doc("web", sleeps, ""), 1)))
	s, err := h.Exec(t.Context(), h.one().ID, engine.ExecOptions{
		Cmd: []string{"sh", "-c", "read go; stty size"}, TTY: true, Stdin: true, Width: 132, Height: 43,
	})
	h.must(err)
	defer s.Close()
	_, err = io.WriteString(s.Input, "go\n")
	h.must(err)
	out, err := io.ReadAll(s.Output)
	h.must(err)
	code, err := s.Exit(t.Context())
	h.must(err)
	if !strings.Contains(string(out), "43 132") || code != 0 {
		t.Errorf("%q, %d", out, code)
	}
}

func TestAttachToAOneOff(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := h.want("web", "r1", h.doc("web", sleeps, ""))
	id, err := h.Oneoff(t.Context(), w, engine.OneoffOptions{Cmd: []string{"sh", "-c", "cat; exit 7"}, Stdin: true, Env: []string{"A=b"}, Labels: map[string]string{"x": "y"}, Remove: true})
	h.must(err)
	s, err := h.Attach(t.Context(), id, true)
	h.must(err)
	defer s.Close()
	c := h.inspect(id)
	if c.Config.Labels["x"] != "y" || c.Config.Labels["com.docker.compose.oneoff"] != "True" || len(c.HostConfig.PortBindings) != 0 || !strings.Contains(strings.Join(c.Config.Env, " "), "A=b") {
		t.Errorf("%+v", c.Config)
	}
	h.must(h.Start(t.Context(), id))
	_, err = io.WriteString(s.Input, "typed\n")
	h.must(err)
	h.must(s.CloseWrite())
	out, err := io.ReadAll(s.Output)
	h.must(err)
	if !strings.Contains(string(out), "typed\n") {
		t.Errorf("%q", out)
	}
	// The code was once asked of a container that was gone already.
	for late := time.After(time.Minute); ; {
		_, err := h.raw.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
		if cerrdefs.IsNotFound(err) {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-late:
			t.Fatalf("it is not removed: %v", err)
		}
	}
	if code, err := s.Exit(t.Context()); code != 7 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// The engine answers one of those who remove a container at once; its own wait for the end of
// that removal, begun at the wrong moment, never ends.
func TestARemovalBySeveralEnds(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := h.want("web", "r1", h.doc("web", sleeps, ""))
	for range 5 {
		id, err := h.Oneoff(t.Context(), w, engine.OneoffOptions{Cmd: []string{"sleep", "600"}})
		h.must(err)
		h.must(h.Start(t.Context(), id))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		errs := make(chan error)
		for range 4 {
			go func() { errs <- h.Remove(ctx, id, 0, true) }()
		}
		// A wait that begins as it goes ends with its code, or says that it is gone.
		for range 4 {
			if code, err := h.Wait(ctx, id); err == nil && code != 137 || err != nil && tender.KindOf(err) != tender.NotFound {
				t.Errorf("a wait for what goes: %d, %v", code, err)
			}
		}
		for range 4 {
			h.ok(<-errs)
		}
		cancel()
	}
}
