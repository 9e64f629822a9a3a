package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A digest must go through the steps in their order, run in production only once it was promoted
// there, and not after that was undone, whenever the daemon is killed.
func TestOnlyWhatWasPromotedMustRun(t *testing.T) {
	t.Parallel()
	needsEngine(t)
	h := makeHost(t)
	own := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config := h.file("tender.yaml", `gate: {promoted: true}
pipeline:
  - {name: dev}
  - {name: staging, prefix: staging/, gate: {from: dev}}
  - {name: production, tag: "{version}-prod", gate: {from: staging}}
`)
	h.flags = append(h.flags, "--config", config, "--listen-registry="+own)
	h.start()
	docked, secret := h.dockerConfig("pusher", "{}"), h.token("ci", "deploy")
	if r := dockerLogin(docked, own, secret); r.code != 0 {
		t.Fatal(r.all())
	}
	h.login(own, secret)
	repository := h.project + "/web"
	image, live := own+"/"+repository+":1.4.2", own+"/"+repository+":1.4.2-prod"
	t.Cleanup(func() { docker("rmi", "-f", image, live) })
	if r := h.tender("image", "promote", image, "--to", "dev"); r.code != 1 || !strings.Contains(r.stderr, "does not have it") {
		t.Errorf("what is not there: %s", r.all())
	}
	if r := docker("tag", "busybox", image); r.code != 0 {
		t.Fatal(r.all())
	}
	if r := docker("--config", docked, "push", image); r.code != 0 {
		t.Fatal(r.all())
	}
	compose := func(ref string) {
		t.Helper()
		h.file("compose.yaml", "x-tender: {environment: production}\nservices:\n  web:\n    image: "+ref+"\n    command: [sleep, \"100000\"]\n    stop_signal: SIGKILL\n")
	}
	compose(image)
	if r := h.exits(4, "up"); !strings.Contains(r.stderr, "it was not promoted to production: to no step") {
		t.Errorf("up does not say why:\n%s", r.all())
	}
	name := repository + ":1.4.2"
	if r := h.exits(4, "image", "promote", name, "--to", "staging"); !strings.Contains(r.stderr, "it was not promoted to dev") || !strings.Contains(r.stderr, "--to dev") {
		t.Errorf("past dev:\n%s", r.all())
	}

	// Who follows events hears of it. Nobody knows since when it listens, so it is told again.
	var heard lockedBuffer
	events := h.command("events", "--all")
	events.Stdout = &heard
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Process.Kill(); events.Wait() })
	h.until("events tell of a promotion", func() error {
		h.must("image", "promote", name, "--to", "dev", "--reason", "tests pass")
		if strings.Contains(heard.String(), "promoted to dev by ") && strings.Contains(heard.String(), ": tests pass") {
			return nil
		}
		h.must("image", "promote", name, "--to", "dev", "--undo")
		return errors.New(heard.String())
	})

	h.kill()
	h.start()
	if out := h.must("image", "promote", name, "--to", "dev"); !strings.Contains(out, "stands at dev already") {
		t.Errorf("after a kill dev has forgotten: %s", out)
	}
	// Killed in the middle, wherever that is: the same again ends it.
	cut := h.command("image", "promote", name, "--to", "staging")
	if err := cut.Start(); err != nil {
		t.Fatal(err)
	}
	h.kill()
	cut.Wait()
	h.start()
	h.must("image", "promote", name, "--to", "staging")
	out := h.must("image", "promote", repository, "--from", "staging", "--to", "production", "--json")
	var p struct{ Digest, Target, Referrer string }
	if err := json.Unmarshal([]byte(out), &p); err != nil || p.Target != repository+":1.4.2-prod" || p.Referrer == "" {
		t.Errorf("to production: %s", out)
	}
	if out := h.must("image", "promote", name, "--to", "production"); !strings.Contains(out, "nothing was done") {
		t.Errorf("again: %s", out)
	}
	compose(live)
	h.must("up")
	h.one("web")
	var listed []struct {
		Digest  string
		Tags    []string
		Stands  []struct{ Step string }
		Running []string
	}
	if err := json.Unmarshal([]byte(h.must("image", "ls", repository, "--json")), &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed) != 1 || listed[0].Digest != p.Digest || strings.Join(listed[0].Tags, " ") != "1.4.2 1.4.2-prod" || len(listed[0].Stands) != 3 || strings.Join(listed[0].Running, " ") != h.project+"/web" {
		t.Errorf("image ls: %+v", listed)
	}
	if r := docker("inspect", "--format", "{{.Image}}", h.one("web")); r.code != 0 {
		t.Error(r.all())
	} else if same := docker("image", "inspect", "--format", "{{.Id}}", "busybox"); strings.TrimSpace(r.out) != strings.TrimSpace(same.out) {
		t.Errorf("another image runs: %s, not %s", r.out, same.out)
	}

	h.must("image", "promote", name, "--to", "production", "--undo", "--reason", "slow")
	if r := h.exits(4, "policy", "check"); !strings.Contains(r.out, "it was not promoted to production: to dev, staging only") {
		t.Errorf("after the undo:\n%s", r.all())
	}
	if out := h.must("audit"); !strings.Contains(out, "image promote --undo") || !strings.Contains(out, "slow") {
		t.Errorf("audit: %s", out)
	}
	if out := h.must("registry", "retain", "--older-than", "1h", "--dry-run", "-a"); !strings.Contains(out, filepath.Base(repository)) {
		t.Errorf("retain: %s", out)
	}
}

// What examples/pipeline says must run as it stands there, line by line.
func TestTheWalkToProductionMustRunAsWritten(t *testing.T) {
	t.Parallel()
	needsEngine(t)
	cmd := exec.Command(filepath.Join(root, "examples", "pipeline", "demo.sh"))
	cmd.Env = append(os.Environ(), fmt.Sprintf("REGISTRY_PORT=%d", freePort(t)))
	if r := run(cmd); r.code != 0 || !strings.Contains(r.out, "From build to production, and back.") {
		t.Fatal(r.all())
	}
}

// lockedBuffer is what another goroutine writes to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
