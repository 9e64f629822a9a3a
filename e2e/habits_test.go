package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What fingers have learned from docker compose must come to the same with
// tender, on one and the same project.
func TestHabitsMustWork(t *testing.T) {
	h := newHost(t)
	h.file("compose.yaml", `
services:
  web:
    image: busybox
    command: [httpd, -f, -p, "8080", -h, /www]
    stop_signal: SIGKILL
    ports: ["127.0.0.1::8080"]
    volumes: ["data:/data", "./www:/www"]
    environment: {COLOUR: blue}
  job:
    image: busybox
    command: [sh, -c, "echo worked; exit 3"]
    restart: "no"
    profiles: [tools]
volumes: {data: {}}
`)
	h.file("www/index.html", "hello")
	h.must("up")

	sorted := func(r result) string {
		lines := strings.Split(strings.TrimSpace(r.out), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	for _, args := range [][]string{
		{"config", "--services"},
		{"--profile", "tools", "config", "--services"},
		{"config", "--images"},
		{"config", "--volumes"},
		{"config", "--profiles"},
		{"config", "-q"},
		{"port", "web", "8080"},
		{"ps", "-q"},
		{"ps", "-a", "-q"},
		{"ps", "--services"},
		{"ps", "--format", "{{.Name}}"},
		{"ps", "--format", "{{.Service}} {{.State}} {{.Health}}"},
		{"ps", "--status", "running", "-q"},
		{"ps", "--status", "exited", "-q"},
		{"ps", "--filter", "status=running", "--format", "{{.Name}}"},
		{"exec", "-T", "web", "sh", "-c", "echo $COLOUR"},
		{"exec", "-T", "-e", "COLOUR=red", "-w", "/data", "web", "sh", "-c", "echo $COLOUR; pwd"},
		{"exec", "-T", "--index", "1", "web", "cat", "/www/index.html"},
		{"exec", "-T", "web", "sh", "-c", "exit 7"},
		{"run", "--rm", "-T", "--no-deps", "web", "echo", "once"},
		{"run", "--rm", "-T", "-e", "X=1", "--entrypoint", "sh", "web", "-c", "echo $X; exit 5"},
		{"logs", "--no-log-prefix", "web"},
		{"images", "-q"},
	} {
		ours, theirs := h.tender(args...), compose(h, args...)
		if ours.code != theirs.code || sorted(ours) != sorted(theirs) {
			t.Errorf("not the same:\n%s\n%s", ours.all(), theirs.all())
		}
	}

	// Files in and out, as tar would: a file, and a folder's content.
	h.file("in/a", "alpha")
	for tool, run := range map[string]func(...string) result{"tender": h.tender, "compose": func(a ...string) result { return compose(h, a...) }} {
		for _, args := range [][]string{
			{"cp", "in", "web:/data/" + tool},
			{"cp", "in/a", "web:/data/" + tool + "/b"},
			{"cp", "web:/data/" + tool + "/b", "out-" + tool},
			{"cp", "web:/data/" + tool, "dir-" + tool},
		} {
			if r := run(args...); r.err() != nil {
				t.Fatal(r.all())
			}
		}
		for _, f := range []string{"out-" + tool, "dir-" + tool + "/a", "dir-" + tool + "/b"} {
			if b, err := os.ReadFile(filepath.Join(h.dir, f)); string(b) != "alpha" {
				t.Errorf("%s: %q %v", f, b, err)
			}
		}
	}

	// A service that ends: wait passes its code on.
	h.must("up", "-d")
	id := h.one("web")
	waiting := h.command("wait", "web")
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	h.must("stop", "web")
	err := waiting.Wait()
	if code := waiting.ProcessState.ExitCode(); code != 137 {
		t.Errorf("wait ended with %d (%v), and docker says %s", code, err, docker("inspect", "-f", "{{.State.ExitCode}}", id).out)
	}
}
