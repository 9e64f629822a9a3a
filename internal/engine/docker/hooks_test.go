package docker_test

import (
	"strings"
	"testing"

	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
)

// copied is the archive that holds a file of a container, or what went wrong.
func (h *host) copied(id, path string) string {
	h.Helper()
	r, err := h.raw.CopyFromContainer(h.Context(), id, client.CopyFromContainerOptions{SourcePath: path})
	if err != nil {
		return err.Error()
	}
	defer r.Content.Close()
	b := make([]byte, 4096)
	n := 0
	for n < len(b) {
		k, err := r.Content.Read(b[n:])
		n += k
		if err != nil {
			break
		}
	}
	return string(b[:n])
}

func TestHooksRunAfterTheStartAndBeforeTheStop(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	spec := h.doc("web", sleeps+`post_start:
- {command: [sh, -c, "echo up $WORD $(id -u) $(pwd) >> /tmp/hooks"], user: "1000", working_dir: /tmp, environment: {WORD: one}}
- {command: [sh, -c, "echo up two >> /tmp/hooks"], user: "1000"}
pre_stop:
- {command: [sh, -c, "echo down >> /tmp/hooks"], user: "1000"}
- {command: [sh, -c, "exit 9"]}
- {command: [sh, -c, "echo never >> /tmp/hooks"]}
`, "")
	h.must(h.Scale(t.Context(), h.want("web", "r1", spec, 1)))
	id := h.one().ID
	for _, step := range []struct {
		what string
		do   func() error
		want string
	}{
		{"scaled", func() error { return nil }, "up one 1000 /tmp\nup two\n"},
		{"restarted", func() error { return h.Restart(t.Context(), id, 0) }, "up two\ndown\nup one 1000 /tmp\nup two\n"},
		{"stopped", func() error { return h.Stop(t.Context(), id, 0) }, "up two\ndown\n"},
		{"started", func() error { return h.Start(t.Context(), id) }, "down\nup one 1000 /tmp\nup two\n"},
	} {
		h.must(step.do())
		if got := h.copied(id, "/tmp/hooks"); !strings.Contains(got, step.want) || strings.Contains(got, "never") {
			t.Errorf("%s: hooks wrote %q, want %q", step.what, got, step.want)
		}
	}
}

// What could not be prepared must not serve.
func TestAHookThatFailsIsNoStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	spec := h.doc("web", sleeps+`post_start: [{command: [sh, -c, "echo said; echo complained >&2; exit 7"]}]`, "")
	h.is(h.Scale(t.Context(), h.want("web", "r1", spec, 1)), tender.Internal, "post_start of web", "ended with 7: complained")
	if left := h.instances(); len(left) != 0 {
		t.Errorf("left behind: %+v", left)
	}
}

// An instance that holds data of the one before it stays, but does not run.
func TestAHookThatFailsKeepsTheVolumes(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	first := h.doc("web", sleeps+"volumes: [{type: volume, target: /data}]\n", "")
	h.must(h.Scale(t.Context(), h.want("web", "r1", first, 1)))
	old := h.one()
	second := h.doc("web", sleeps+"volumes: [{type: volume, target: /data}]\npost_start: [{command: [\"false\"]}]\n", "")
	w := h.want("web", "r2", second, 1)
	w.Drop, w.Inherit = []string{old.ID}, map[int]string{1: old.ID}
	h.is(h.Scale(t.Context(), w), tender.Internal, "false ended with 1")
	i := h.one()
	if i.State != tender.Exited || len(i.Anonymous) != 1 || i.Anonymous[0] != old.Anonymous[0] {
		t.Errorf("%s, volumes %v, want %v", i.State, i.Anonymous, old.Anonymous)
	}
}
