package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// own is an engine of the test's own, which can be killed and upgraded.
type own struct {
	t      *testing.T
	name   string
	shared string // DOCKER_HOST of the shared one
}

// newEngine starts one with images of the shared engine, and makes it the one
// that docker, compose and the hosts made later in this test talk to. Such a test
// runs alone: DOCKER_HOST is this process's.
func newEngine(t *testing.T, kind string, images ...string) *own {
	t.Helper()
	needsEngine(t)
	e := &own{t: t, name: fmt.Sprintf("te-%d", os.Getpid()), shared: os.Getenv("DOCKER_HOST")}
	e.do("sweep") // a test that ran into its timeout cleans nothing up
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join("/var/lib/tender-engines", e.name, "log"))
			show(t, "end of the engine's log", string(log[max(0, len(log)-5000):]))
		}
		e.do("remove")
	})
	e.do("start", kind)
	e.images(images...)
	env := strings.TrimSpace(e.do("env"))
	t.Setenv("DOCKER_HOST", strings.TrimPrefix(env, "export DOCKER_HOST="))
	return e
}

// images copies some of the shared engine's.
func (e *own) images(names ...string) {
	e.t.Helper()
	if len(names) == 0 {
		return
	}
	cmd := exec.Command(filepath.Join(root, "e2e", "own.sh"), append([]string{e.name, "images"}, names...)...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.shared)
	if r := run(cmd); r.err() != nil {
		e.t.Fatal(r.all())
	}
}

// do is e2e/own.sh NAME COMMAND.
func (e *own) do(command string, args ...string) string {
	e.t.Helper()
	r := run(exec.Command(filepath.Join(root, "e2e", "own.sh"), append([]string{e.name, command}, args...)...))
	if r.err() != nil {
		e.t.Fatal(r.all())
	}
	return r.out
}
