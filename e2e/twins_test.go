package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// twin is one of two projects of the same file: tender keeps one, docker
// compose made the other.
type twin struct {
	*host
	tool    string
	project string
}

// twins starts both.
func twins(t *testing.T) []twin {
	h := newHost(t)
	h.file("compose.yaml", habits)
	h.file("www/index.html", "hello")
	theirs := twin{h, yardstick(t), h.project + "-theirs"}
	t.Cleanup(func() { wipe(t, theirs.project) })
	both := []twin{{h, binary, h.project}, theirs}
	for _, w := range both {
		w.ok("up", "-d", "--wait")
	}
	return both
}

func (w twin) command(args ...string) *exec.Cmd {
	cmd := w.host.command(args...)
	cmd.Path, cmd.Args[0] = w.tool, filepath.Base(w.tool)
	cmd.Env = append(os.Environ(), "TENDER_HOST=unix://"+w.socket(), "COMPOSE_PROJECT_NAME="+w.project)
	return cmd
}

func (w twin) ok(args ...string) string {
	w.t.Helper()
	r := run(w.command(args...))
	if r.err() != nil {
		w.t.Fatal(r.all())
	}
	return r.out
}

// state is what docker says of a service's instance.
func (w twin) state(service string) container { return w.first(w.project, service) }

// What is done to instances must come to the same as with docker compose, each
// on a project of its own.
func TestHabitsMustDoTheSame(t *testing.T) {
	t.Parallel()
	both := twins(t)
	for _, x := range []struct {
		name string
		test func(t *testing.T, both []twin)
	}{
		{"events", eventsReadTheSame},
		{"signals and stops", stopsDoTheSame},
		{"terminals", terminalsFollow},
		{"attach without a terminal", attachPassesOn},
	} {
		t.Run(x.name, func(t *testing.T) {
			var here []twin
			for _, w := range both {
				here = append(here, twin{w.as(t), w.tool, w.project})
			}
			x.test(t, here)
		})
	}
}

// What ends, waits, stops and signals.
func stopsDoTheSame(t *testing.T, both []twin) {
	for _, w := range both {
		name := filepath.Base(w.tool)

		// A signal arrives, and says nothing of the service being wanted.
		w.ok("kill", "-s", "USR1", "sig")
		w.until(name+": the signal arrives", func() error {
			if out := w.ok("logs", "--no-log-prefix", "sig"); !strings.Contains(out, "got usr1") {
				return fmt.Errorf("it wrote %q", out)
			}
			return nil
		})

		// Ten minutes of grace are cut short.
		before := w.state("deaf")
		w.ok("restart", "-t", "1", "deaf")
		again := w.state("deaf")
		if again.ID != before.ID || again.State.StartedAt == before.State.StartedAt || !again.State.Running {
			t.Errorf("%s: after restart -t: %+v, before %+v", name, again, before)
		}

		// wait passes the code on of what stop -t has killed.
		waiting := w.command("wait", "deaf")
		if err := waiting.Start(); err != nil {
			t.Fatal(err)
		}
		w.ok("stop", "-t", "1", "deaf")
		_ = waiting.Wait() // its code tells
		if c := w.state("deaf"); waiting.ProcessState.ExitCode() != 137 || c.State.Running || c.State.ExitCode != 137 {
			t.Errorf("%s: wait ended with %d; after stop -t: %+v", name, waiting.ProcessState.ExitCode(), c.State)
		}
		w.ok("start", "deaf")

		// up -t is the grace of what it replaces.
		w.ok("up", "-d", "--wait", "-t", "1", "--force-recreate", "--no-deps", "deaf")
		if c := w.state("deaf"); c.ID == again.ID || !c.State.Running {
			t.Errorf("%s: after up -t: %+v", name, c)
		}

		// run --rm leaves nothing, and run leaves what ps -a alone shows.
		w.ok("run", "--rm", "-T", "web", "true")
		w.ok("run", "-T", "--name", w.project+"-once", "web", "true")
		if out := w.ok("ps", "--format", "{{.Name}}"); strings.Contains(out, "once") || strings.Contains(out, "-run-") {
			t.Errorf("%s: ps shows one-off instances:\n%s", name, out)
		}
		w.until(name+": ps -a shows what ran and stays", func() error { // the picture follows the engine's events
			if out := w.ok("ps", "-a", "--format", "{{.Name}}"); !strings.Contains(out, w.project+"-once") || strings.Contains(out, "-run-") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
}

// Events come in the same words with the same keys, so that a script that reads
// docker compose events --json reads ours.
func eventsReadTheSame(t *testing.T, both []twin) {
	type event struct {
		Type, Service, Action string
		Attributes            map[string]string
	}
	var actions, keys, attributes []string
	for _, w := range both {
		log, err := os.Create(filepath.Join(w.dir, "events-"+filepath.Base(w.tool)))
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		follow := w.command("events", "--json")
		follow.Stdout = log
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		seen := func(what string, do func()) (lines []string) {
			w.until(what, func() error {
				do()
				b, err := os.ReadFile(log.Name())
				if lines = strings.Split(string(b), "\n"); err == nil && !strings.Contains(string(b), what) {
					err = fmt.Errorf("%s", b)
				}
				return err
			})
			return lines
		}
		seen("exec_create: true", func() { w.ok("exec", "-T", "web", "true") })
		w.ok("kill", "-s", "USR1", "sig")
		w.ok("stop", "-t", "1", "deaf")
		w.ok("start", "deaf")
		w.ok("exec", "-T", "web", "echo", "last")
		lines := seen("exec_create: echo last", func() {})
		if err := follow.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = follow.Wait() // it was killed

		var did, has, says []string
		for _, line := range lines {
			var e event
			var raw map[string]json.RawMessage
			if json.Unmarshal([]byte(line), &e) != nil || json.Unmarshal([]byte(line), &raw) != nil || e.Type != "container" || e.Service != "sig" && e.Service != "deaf" {
				continue
			}
			did = append(did, e.Service+" "+e.Action)
			for k := range raw {
				if !slices.Contains([]string{"kind", "project", "instance", "text"}, k) { // ours beside theirs
					has = append(has, k)
				}
			}
			for k := range e.Attributes {
				if !strings.HasPrefix(k, "tender.") { // theirs shows our labels; they hold the whole service
					says = append(says, e.Action+" "+k)
				}
			}
		}
		slices.Sort(has)
		slices.Sort(says)
		actions = append(actions, strings.Join(did, "\n"))
		keys = append(keys, strings.Join(slices.Compact(has), " "))
		attributes = append(attributes, strings.Join(slices.Compact(says), "\n"))
	}
	if !strings.Contains(actions[0], "sig kill") || !strings.Contains(actions[0], "deaf start") {
		t.Errorf("not all is told:\n%s", actions[0])
	}
	for what, x := range map[string][]string{"actions": actions, "keys": keys, "attributes": attributes} {
		if x[0] != x[1] {
			t.Errorf("not the same %s:\n%s\n\n%s", what, x[0], x[1])
		}
	}
}
