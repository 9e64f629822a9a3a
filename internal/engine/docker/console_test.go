package docker_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/tenderhq/tender/internal/engine"
)

func TestATerminalHasTheSizeItWasGiven(t *testing.T) {
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
	h := newHost(t)
	w := h.want("web", "r1", h.doc("web", sleeps, ""))
	id, err := h.Oneoff(t.Context(), w, engine.OneoffOptions{Cmd: []string{"cat"}, Stdin: true, Env: []string{"A=b"}, Labels: map[string]string{"x": "y"}, Remove: true})
	h.must(err)
	s, err := h.Attach(t.Context(), id, true)
	h.must(err)
	defer s.Close()
	exit := make(chan int, 1)
	go func() {
		code, err := s.Exit(context.WithoutCancel(t.Context()))
		h.ok(err)
		exit <- code
	}()
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
	if code := <-exit; code != 0 {
		t.Errorf("exit code %d", code)
	}
}
