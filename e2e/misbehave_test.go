package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// misbehaviour is one instance that does not do as it should, and what Tender is
// to say of it: patterns that the screens must match.
type misbehaviour struct {
	name    string
	service string // of the Compose file, under services: x:
	code    int    // of up
	stop    bool   // tender stop before ps and why
	up      []string
	ps      []string
	why     []string
}

var misbehaviours = []misbehaviour{{
	name: "never healthy",
	service: `
    command: [httpd, -f, -p, "8080"]
    stop_signal: SIGKILL
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8080/nowhere"], interval: 1s, timeout: 30s, retries: 2}`,
	code: 5,
	up:   []string{`x-1 is unhealthy: .*404`, `tender why x`},
	ps:   []string{`Up .* \(unhealthy\)`},
	why:  []string{`x-1 runs, but its healthcheck fails`, `the check says: .*404`},
}, {
	name: "exits at once with 1",
	service: `
    command: [sh, -c, "echo no licence; exit 1"]`,
	code: 5,
	up:   []string{`x-1 exited with 1`, `tender why x`},
	ps:   []string{`Exited \(1\)`},
	why:  []string{`x-1 exited with 1`, `x-1: no licence`},
}, {
	name: "exits at once with 0 and is to run always",
	service: `
    command: [sh, -c, "echo nothing to do"]
    restart: always`,
	code: 5,
	up:   []string{`x-1 .*was restarted \d+ times`, `tender why x`},
	ps:   []string{`Restarting \(0\)|Up `},
	why:  []string{`ended by itself, with 0|was restarted \d+ times by the engine`, `nothing to do`},
}, {
	name: "ignores SIGTERM",
	service: `
    command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]
    stop_grace_period: 2s`,
	stop: true,
	ps:   []string{`Exited \(137\)`},
	why:  []string{`x is stopped`, `x-1 did not end within its grace of 2s and was killed`, `stop_grace_period`},
}, {
	name: "forks without end",
	service: `
    command: [sh, -c, "while :; do sleep 86399 & done"]
    pids_limit: 20`,
	code: 5,
	up:   []string{`x-1 exited with 2`},
	ps:   []string{`Exited \(2\)`},
	why:  []string{`can't fork`, `it may have no more processes`, `pids`},
}, {
	name: "fills its disk",
	service: `
    command: [sh, -c, "dd if=/dev/zero of=/scratch/x bs=4k"]
    tmpfs: ["/scratch:size=1m"]`,
	code: 5,
	up:   []string{`x-1 exited with 1`},
	ps:   []string{`Exited \(1\)`},
	why:  []string{`No space left on device`, `it had no room left where it writes`},
}, {
	// The one that grows is a child, so that the kernel's word is there before the end is.
	name: "runs out of memory",
	service: `
    command: [sh, -c, "sh -c 'x=aaaaaaaa; while :; do x=$$x$$x; done'; sleep 2; exit 137"]
    mem_limit: 16m`,
	code: 5,
	up:   []string{`x-1 was ended for memory \(exit 137\)`},
	ps:   []string{`Exited \(137, out of memory\)`},
	why:  []string{`x-1 was ended by the kernel: it used more memory than its limit`, `limits.memory`},
}}

func TestWhatMisbehavesMustBeToldWell(t *testing.T) {
	t.Parallel()
	all := newHost(t)
	t.Run("all", func(t *testing.T) {
		for n, m := range misbehaviours {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				h := *all
				h.t, h.project = t, fmt.Sprintf("%s-%d", all.project, n)
				t.Cleanup(h.wipe)
				service := "services:\n  x:\n    image: busybox" + m.service + "\n"
				if m.code != 0 {
					service += "    x-tender: {rollout: {hold: 1m}}\n" // seen running for a moment is not enough
				}
				file := h.file(filepath.Join(h.project, "compose.yaml"), service)
				misbehave(&h, m, file)
			})
		}
	})
	// Whatever they forked is gone with them.
	args, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range args {
		if b, _ := os.ReadFile(a); string(b) == "sleep\x0086399\x00" {
			t.Errorf("%s runs still", a)
		}
	}
}

func misbehave(h *host, m misbehaviour, file string) {
	screen := func(code int, args ...string) string {
		h.t.Helper()
		r := h.exits(code, append(args, "-p", h.project)...)
		return r.out + r.stderr
	}
	up := screen(m.code, "up", "-f", file)
	h.t.Logf("up:\n%s", up)
	if err := says(up, m.up); err != nil {
		h.t.Errorf("up: %v", err)
	}
	if m.stop {
		screen(0, "stop")
	}
	// It is tried again now and then, and may run for a moment.
	for _, s := range []struct {
		args []string
		want []string
	}{{[]string{"ps", "-a"}, m.ps}, {[]string{"why", "x"}, m.why}} {
		var text string
		h.until(strings.Join(s.args, " ")+" tells it", func() error {
			text = screen(0, s.args...)
			return says(text, s.want)
		})
		h.t.Logf("%s:\n%s", strings.Join(s.args, " "), text)
	}
	if left := screen(0, "down"); strings.Contains(left, "failed") || len(h.containers("")) != 0 {
		h.t.Errorf("after down: %v\n%s", h.containers(""), left)
	}
}

func says(text string, want []string) error {
	for _, w := range want {
		if !regexp.MustCompile(w).MatchString(text) {
			return fmt.Errorf("nothing of %q in\n%s", w, text)
		}
	}
	return nil
}
