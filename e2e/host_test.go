// Package e2e holds behaviour tests on a real engine: "X must Y", looked at in
// containers, traffic and files, not in our own output alone. They run with
// TENDER_E2E=1 and fail without an engine.
//
// A test mostly waits for healthchecks, so that those with a host of their own run
// side by side: they begin with t.Parallel, take ports from freePort, name whatever
// they make after h.project, and set variables with h.setenv. One that changes what
// all share runs alone, without t.Parallel, and says why in its comment: the
// engine's own state or another engine, ports and images with fixed names, rules of
// the host's network, variables of this process.
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/daemon"
	"github.com/tenderhq/tender/internal/edge"
)

// patience bounds every wait: reached only by what never comes.
const patience = 3 * time.Minute

var (
	binary string // the tender under test
	root   string // of the repository
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Getenv("TENDER_E2E") == "" {
			fmt.Println("e2e: these tests need a real engine: run make e2e, or set TENDER_E2E=1")
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "tender-e2e-")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer os.RemoveAll(dir)
		if root, err = filepath.Abs(".."); err != nil {
			fmt.Println(err)
			return 1
		}
		binary = filepath.Join(dir, "tender")
		build := exec.Command("go", "build", "-o", binary, "./cmd/tender")
		build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Printf("go build ./cmd/tender: %v\n%s", err, out)
			return 1
		}
		if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
			fmt.Printf("no engine answers (e2e/engine.sh start begins one): %s\n", out)
			return 1
		}
		return m.Run()
	}())
}

// host is one machine with a daemon of its own on the shared engine.
type host struct {
	t       *testing.T
	dir     string
	project string // a name that nobody else has
	serve   *exec.Cmd
	ended   chan struct{} // closed when serve has ended
	log     *os.File
	flags   []string
	env     []string // of commands, beside this process's: it is not to be changed for one test alone
	binary  string   // what serve runs; empty: the one under test
}

func newHost(t *testing.T, flags ...string) *host {
	t.Helper()
	h := makeHost(t, flags...)
	h.start()
	return h
}

func needsEngine(t *testing.T) {
	t.Helper()
	if os.Getenv("TENDER_E2E") == "" {
		t.Skip("needs a real engine: make e2e, or TENDER_E2E=1")
	}
}

// makeHost makes one whose serve has not begun.
func makeHost(t *testing.T, flags ...string) *host {
	t.Helper()
	needsEngine(t)
	// Unix socket paths are short: not t.TempDir, whose name holds the test's.
	dir, err := os.MkdirTemp("", "te-")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "serve.log"))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, project: filepath.Base(dir), log: log, flags: flags}
	h.project = strings.ToLower(h.project)
	t.Cleanup(func() {
		if t.Failed() {
			h.artifacts()
		}
		h.stop()
		if e := h.edge(); e != nil { // it outlives serve, as it should
			// As systemd would, so that it takes its rules away; what hangs is killed.
			if err := syscall.Kill(e.PID, syscall.SIGTERM); err != nil {
				t.Errorf("end the edge: %v", err)
			}
			for end := time.Now().Add(10 * time.Second); syscall.Kill(e.PID, 0) == nil; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					syscall.Kill(e.PID, syscall.SIGKILL)
				}
			}
		}
		h.wipe()
		for _, spool := range daemon.LogSpools(filepath.Join(dir, "data")) { // in the engine's data root
			os.RemoveAll(spool)
		}
		log.Close()
		os.RemoveAll(dir)
	})
	return h
}

func (h *host) socket() string { return filepath.Join(h.dir, "run", "tender.sock") }

// start begins serve and waits until it answers.
func (h *host) start() {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Join(h.dir, "run"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	args := append([]string{
		"serve", "--data-dir", filepath.Join(h.dir, "data"), "--run-dir", filepath.Join(h.dir, "run"),
		"--vault-key", filepath.Join(h.dir, "vault.key"), "--listen=",
		"--http=", "--https=", "--dns=",
	}, h.flags...)
	cmd := exec.Command(cmp.Or(h.binary, binary), args...)
	cmd.Stdout, cmd.Stderr = h.log, h.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	h.serve, h.ended = cmd, ended
	h.until("serve answers", func() error {
		select {
		case <-ended:
			h.t.Fatalf("serve ended: %s", h.serveLog())
		default:
		}
		return h.tender("status").err()
	})
}

// stop ends serve as systemd would.
func (h *host) stop() { h.end(syscall.SIGTERM) }

// kill is kill -9.
func (h *host) kill() { h.end(syscall.SIGKILL) }

func (h *host) end(sig syscall.Signal) {
	if h.serve == nil {
		return
	}
	h.serve.Process.Signal(sig)
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.serve.Process.Kill()
		h.t.Errorf("serve did not end after %s", sig)
	}
	h.serve = nil
}

// edge is the edge that this host's daemon started; nil: there is none.
func (h *host) edge() *edge.Status {
	s, err := edge.NewClient(filepath.Join(h.dir, "run", "edge.sock")).Status(context.WithoutCancel(h.t.Context()))
	if err != nil {
		return nil
	}
	return &s
}

// wipe removes what the test left on the engine, by its project's label.
func (h *host) wipe() { wipe(h.t, h.project) }

func (h *host) serveLog() string {
	b, _ := os.ReadFile(h.log.Name())
	if len(b) > 20_000 {
		b = b[len(b)-20_000:]
	}
	return string(b)
}

// artifacts prints what one would ask for first.
func (h *host) artifacts() {
	show(h.t, "serve's log", h.serveLog())
	show(h.t, "containers", docker("ps", "-a", "--no-trunc", "--filter", "label=com.docker.compose.project="+h.project).all())
	if h.serve != nil {
		show(h.t, "status", h.tender("status").all())
		show(h.t, "history", h.tender("history", "-p", h.project).all())
	}
}

// show prints what surrounds a failure. It is not t.Log, whose lines go test
// prints after the failure itself: of a long output one reads the end.
func show(t *testing.T, what, text string) {
	fmt.Printf("# %s: %s:\n%s\n", t.Name(), what, strings.TrimRight(text, "\n"))
}

// as is the host for a subtest, which then fails by itself.
func (h *host) as(t *testing.T) *host {
	of := *h
	of.t = t
	return &of
}

// result is what a command came to.
type result struct {
	what        string
	code        int
	out, stderr string
}

func (r result) err() error {
	if r.code == 0 {
		return nil
	}
	return errors.New(r.all())
}

func (r result) all() string {
	return fmt.Sprintf("%s: exit %d\n%s%s", r.what, r.code, r.out, r.stderr)
}

func run(cmd *exec.Cmd) result {
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	r := result{what: strings.Join(cmd.Args, " "), out: out.String(), stderr: stderr.String()}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.code = exit.ExitCode()
	} else if err != nil {
		r.code, r.stderr = -1, r.stderr+err.Error()
	}
	return r
}

func docker(args ...string) result { return run(exec.Command("docker", args...)) }

// command is tender with this host's daemon, in the host's directory.
func (h *host) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.t.Context()), patience) // artifacts, too
	h.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), "TENDER_HOST=unix://"+h.socket(), "COMPOSE_PROJECT_NAME="+h.project)
	cmd.Env = append(cmd.Env, h.env...)
	return cmd
}

// setenv sets a variable for the commands that come after it.
func (h *host) setenv(name, value string) {
	h.env = append(slices.Clone(h.env), name+"="+value)
}

// tender runs it; must fails the test if it does not exit with 0.
func (h *host) tender(args ...string) result { return run(h.command(args...)) }

func (h *host) must(args ...string) string {
	h.t.Helper()
	return h.exits(0, args...).out
}

func (h *host) exits(code int, args ...string) result {
	h.t.Helper()
	r := h.tender(args...)
	if r.code != code {
		h.t.Fatalf("want exit %d: %s", code, r.all())
	}
	return r
}

// file writes a file into the host's directory.
func (h *host) file(name, content string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// until repeats f until it says nil.
func (h *host) until(what string, f func() error) {
	h.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			h.t.Fatalf("never came: %s: %v", what, err)
		case <-tick.C:
		}
	}
}

// container is what the engine says of one, as docker inspect prints it.
type container struct {
	ID    string
	Name  string
	Image string
	State struct {
		Status    string
		Running   bool
		StartedAt string
		ExitCode  int
		Pid       int
		Health    *struct{ Status string }
	}
	Config struct {
		Image  string
		Labels map[string]string
		Env    []string
	}
	Mounts          []struct{ Type, Name, Source, Destination string }
	NetworkSettings struct {
		Networks map[string]struct {
			IPAddress string
			Aliases   []string
		}
	}
}

// containers returns those of the host's project, of one service or of all.
func (h *host) containers(service string) []container {
	h.t.Helper()
	return h.containersOf(h.project, service)
}

func (h *host) containersOf(project, service string) []container {
	h.t.Helper()
	args := []string{"-a", "--filter", "label=com.docker.compose.project=" + project}
	if service != "" {
		args = append(args, "--filter", "label=com.docker.compose.service="+service)
	}
	ids := h.list(args...)
	if len(ids) == 0 {
		return nil
	}
	// One that goes between the two commands is left out of the answer, with an error that says so.
	found := docker(append([]string{"inspect", "--type", "container"}, ids...)...)
	var out []container
	if err := json.Unmarshal([]byte(found.out), &out); err != nil {
		h.t.Fatalf("%v: %s", err, found.all())
	}
	return out
}

// running returns the ids of the running ones.
func (h *host) running(service string) []string {
	h.t.Helper()
	var ids []string
	for _, c := range h.containers(service) {
		if c.State.Running {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// one returns the id of the first running instance of a service, which must have one.
func (h *host) one(service string) string {
	h.t.Helper()
	ids := h.running(service)
	if len(ids) == 0 {
		h.t.Fatalf("no instance of %s runs", service)
	}
	return ids[0]
}

// first returns the first container of a service, which must have one.
func (h *host) first(project, service string) container {
	h.t.Helper()
	list := h.containersOf(project, service)
	if len(list) == 0 {
		h.t.Fatalf("%s has no container of %s", project, service)
	}
	return list[0]
}

// healthy returns the ids of the healthy ones.
func (h *host) healthy() []string {
	h.t.Helper()
	return h.list("--filter", "label=com.docker.compose.project="+h.project, "--filter", "health=healthy")
}

// list returns the ids that docker ps prints. An engine that has no answer is not one that has no containers.
func (h *host) list(args ...string) (ids []string) {
	h.t.Helper()
	h.until("docker ps answers", func() error {
		r := docker(append([]string{"ps", "-q", "--no-trunc"}, args...)...)
		ids = strings.Fields(r.out)
		return r.err()
	})
	return ids
}

// givenPorts were found by a test of this process, which may not listen there yet.
var givenPorts sync.Map

// freePort finds a TCP port that nobody holds at this moment. It is below those
// that the kernel gives to connections, one of which could take it before the test does.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 20_000 + rand.IntN(10_000)
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port from 20000 to 30000 is free")
	return 0
}

// filesUnder returns the content of every regular file under dir, by path. One
// that goes meanwhile, as a running serve's may, is left out.
func filesUnder(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			files[path] = string(b)
		}
		if path != dir && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// get returns the body of an answer with status 200.
func get(url string) (string, error) {
	c := http.Client{Timeout: 10 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, r.Status, b)
	}
	return string(b), err
}
