package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// No docker image prune must take the image that a rollback needs, whatever
// happens to its tag: it was gone with the last of its instances.
func TestAWayBackMustOutliveAPruneOfImages(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", fmt.Sprintf(`
services:
  web:
    image: %[1]s:latest
    pull_policy: never
    command: [sleep, "86400"]
    stop_signal: SIGKILL
`, h.project))
	mark := h.project + "=1" // so that no other image of this machine is pruned
	build := func(version string) (id string) {
		t.Helper()
		h.file("Dockerfile", "FROM busybox\nLABEL "+mark+"\nENV VERSION="+version+"\nVOLUME /kept\n")
		r := docker("build", "-q", "-t", h.project+":latest", "-f", filepath.Join(h.dir, "Dockerfile"), h.dir)
		if r.err() != nil {
			t.Fatal(r.all())
		}
		return strings.TrimSpace(r.out)
	}
	t.Cleanup(func() {
		h.tender("down")
		docker("image", "rm", "-f", h.project+":latest")
		docker("image", "prune", "-a", "-f", "--filter", "label="+mark)
	})
	first := build("one")
	h.must("up")
	second := build("two")
	h.must("up")
	if now := docker("inspect", "-f", "{{.Image}}", h.one("web")); strings.TrimSpace(now.out) != second {
		t.Fatalf("web runs %s, want %s", now.out, second)
	}
	for _, how := range [][]string{{"image", "prune", "-f"}, {"image", "prune", "-a", "-f"}} {
		if r := docker(append(how, "--filter", "label="+mark)...); r.err() != nil {
			t.Fatal(r.all())
		}
	}
	h.must("rollback", "web")
	if now := docker("inspect", "-f", "{{.Image}}", h.one("web")); strings.TrimSpace(now.out) != first {
		t.Errorf("web runs %s, want %s", now.out, first)
	}
	// What keeps an image is nothing of the project's, and has no volume.
	keeper := docker("ps", "-aq", "--no-trunc", "--filter", "label=tender.keep="+h.project)
	if n := len(strings.Fields(keeper.out)); n != 1 {
		t.Errorf("%d containers keep the other image", n)
	}
	if r := docker("inspect", "-f", "{{.State.Status}} {{range .Mounts}}{{.Type}}{{end}}", strings.TrimSpace(keeper.out)); strings.TrimSpace(r.out) != "created" {
		t.Errorf("it is %q", r.out)
	}
	if out := h.must("ps", "-a"); strings.Contains(out, "tender-keep") {
		t.Errorf("ps shows it:\n%s", out)
	}
	h.must("down")
	if r := docker("ps", "-aq", "--filter", "label=tender.keep="+h.project); strings.TrimSpace(r.out) != "" {
		t.Errorf("after down it is still there: %s", r.out)
	}
}
