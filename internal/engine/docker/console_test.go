package docker_test

import (
	"io"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

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
	gone := h.raw.ContainerWait(t.Context(), id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	select {
	case <-gone.Result:
	case err := <-gone.Error:
		if !cerrdefs.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	if code, err := s.Exit(t.Context()); code != 7 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
}
