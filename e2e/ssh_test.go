package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sshd is a real one, on a port and with keys of its own, through which a
// client far away reaches the host's daemon.
type sshd struct {
	h       *host
	address string // ssh://user@host:port
	path    string // directory whose ssh knows the keys
	home    string
}

func newSSH(h *host) *sshd {
	h.t.Helper()
	server, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		h.t.Fatal("no sshd here: apt-get install openssh-server")
	}
	s := &sshd{h: h, path: filepath.Join(h.dir, "away", "bin"), home: filepath.Join(h.dir, "away")}
	for _, dir := range []string{s.path, filepath.Join(h.dir, "sshd"), "/run/sshd"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	hostKey, userKey := filepath.Join(h.dir, "sshd", "host"), filepath.Join(h.dir, "away", "key")
	for _, key := range []string{hostKey, userKey} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
			h.t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	key, err := os.ReadFile(userKey + ".pub")
	if err != nil {
		h.t.Fatal(err)
	}
	// As docs/ci.md says: this key may do one thing.
	h.file("sshd/keys", `restrict,command="tender dial-stdio" `+string(key))
	port := freePort(h.t)
	public, err := os.ReadFile(hostKey + ".pub")
	if err != nil {
		h.t.Fatal(err)
	}
	h.file("away/known_hosts", fmt.Sprintf("[127.0.0.1]:%d %s", port, public))
	// The other side finds its own tender and its own daemon, as after an installation.
	h.file("sshd/config", fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %s
PidFile none
AuthorizedKeysFile %s
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 100
SetEnv PATH=%s:/usr/bin:/bin TENDER_HOST=unix://%s
`, port, hostKey, filepath.Join(h.dir, "sshd", "keys"), filepath.Dir(binary), h.socket()))
	log, err := os.Create(filepath.Join(h.dir, "sshd", "log"))
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command(server, "-D", "-e", "-f", filepath.Join(h.dir, "sshd", "config"))
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if h.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			show(h.t, "sshd's log", string(b))
		}
	})
	// ssh takes its configuration from the user's home as the password file knows it.
	ssh := h.file("away/bin/ssh", fmt.Sprintf("#!/bin/sh\nexec /usr/bin/ssh -F none -i %s -o IdentitiesOnly=yes -o UserKnownHostsFile=%s \"$@\"\n", userKey, filepath.Join(h.dir, "away", "known_hosts")))
	if err := os.Chmod(ssh, 0o755); err != nil {
		h.t.Fatal(err)
	}
	s.address = fmt.Sprintf("ssh://root@127.0.0.1:%d", port)
	h.until("sshd answers", func() error { return s.tender("status").err() })
	return s
}

// command is tender on a machine far away, which has nothing but ssh.
func (s *sshd) command(args ...string) *exec.Cmd {
	cmd := s.h.command(args...)
	cmd.Dir = s.home
	cmd.Env = append(os.Environ(), "PATH="+s.path+":/usr/bin:/bin", "HOME="+s.home, "TENDER_HOST="+s.address,
		"COMPOSE_PROJECT_NAME="+s.h.project, "DOCKER_HOST=unix:///nowhere.sock")
	return cmd
}

func (s *sshd) tender(args ...string) result { return run(s.command(args...)) }

func (s *sshd) must(args ...string) string {
	s.h.t.Helper()
	r := s.tender(args...)
	if r.code != 0 {
		s.h.t.Fatal(r.all())
	}
	return r.out
}

func TestAnotherHostMustBeReachedOverSSH(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	s := newSSH(h)
	h.file("away/compose.yaml", web(2, ""))
	s.must("up")
	if n := len(h.running("web")); n != 2 {
		t.Fatalf("%d run after up", n)
	}
	if out := s.must("ps"); strings.Count(out, h.project+"-web-") != 2 {
		t.Errorf("ps:\n%s", out)
	}
	exec := s.command("exec", "-T", "web", "cat")
	exec.Stdin = strings.NewReader("through\nand back\n")
	if r := run(exec); r.out != "through\nand back\n" || r.code != 0 {
		t.Errorf("exec: %s", r.all())
	}
	if r := s.tender("exec", "-T", "web", "sh", "-c", "exit 7"); r.code != 7 {
		t.Errorf("exec passes exit code %d on: %s", r.code, r.all())
	}
	id := h.one("web")
	docker("exec", id, "sh", "-c", "echo a line from inside > /proc/1/fd/1")
	h.until("logs show it", func() error {
		if r := s.tender("logs", "web"); !strings.Contains(r.out, "a line from inside") {
			return fmt.Errorf("%s", r.all())
		}
		return nil
	})

	// A context is a name for the same.
	s.must("context", "add", "prod", s.address)
	ps := s.command("--context", "prod", "ps", "-q")
	ps.Env = append(ps.Env, "TENDER_HOST=unix:///nowhere")
	if r := run(ps); len(strings.Fields(r.out)) != 2 {
		t.Errorf("ps in a context: %s", r.all())
	}

	// The other host has none of this one's files.
	h.file("away/compose.yaml", "services:\n  web:\n    image: busybox\n    volumes:\n      - ./site:/www\n")
	r := s.tender("up")
	if r.code == 0 || !strings.Contains(r.stderr, "compose.yaml:5:") {
		t.Errorf("a bind from here must be refused with its line: %s", r.all())
	}

	// Who may not in is told how to find out why.
	if err := os.Remove(filepath.Join(h.dir, "away", "known_hosts")); err != nil {
		t.Fatal(err)
	}
	if r := s.tender("ps"); r.code != 1 || !strings.Contains(r.stderr, "Host key verification failed") || !strings.Contains(r.stderr, "→ try: ssh ") {
		t.Errorf("a stranger: %s", r.all())
	}
}

// aside starts a second engine, which has its images alone: it stands for the
// one on a developer's machine. It has a network namespace of its own, because an
// engine without a bridge removes docker0, which belongs to the other one.
func (h *host) aside() string {
	h.t.Helper()
	dir := filepath.Join(h.dir, "engine")
	h.file("engine/daemon.json", "{}")
	socket := filepath.Join(dir, "docker.sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--net", "dockerd", "--config-file", filepath.Join(dir, "daemon.json"), "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "-H", "unix://"+socket, "--iptables=false", "--ip6tables=false", "--bridge=none")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		h.t.Fatalf("a second engine: %v", err)
	}
	h.t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		log.Close()
		if h.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			show(h.t, "the second engine's log", string(b))
		}
	})
	h.until("the second engine answers", func() error { return docker("-H", "unix://"+socket, "version").err() })
	return "unix://" + socket
}

func TestAnImageBuiltHereMustTravelWithoutARegistry(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	s := newSSH(h)
	here := h.aside()
	// Both have the base image, only one will build.
	saved := filepath.Join(h.dir, "base.tar")
	for _, r := range []result{docker("save", "-o", saved, "busybox"), docker("-H", here, "load", "-i", saved)} {
		if r.code != 0 {
			t.Fatal(r.all())
		}
	}
	image := h.project + "/web:1"
	t.Cleanup(func() { docker("rmi", "-f", image, h.project+"/own:1") })
	h.file("away/site/index.html", "built here")
	h.file("away/site/Dockerfile", "FROM busybox\nCOPY index.html /www/\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n")
	h.file("away/compose.yaml", fmt.Sprintf(`
services:
  web:
    image: %s
    build: ./site
    stop_signal: SIGKILL
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 1s, timeout: 5s, retries: 30}
`, image))
	up := func(args ...string) result {
		cmd := s.command(append([]string{"up"}, args...)...)
		cmd.Env = append(cmd.Env, "DOCKER_HOST="+here)
		r := run(cmd)
		if r.code != 0 {
			t.Fatal(r.all())
		}
		return r
	}
	// The commands of the job in docs/ci.md, in its order.
	plan := s.command("plan")
	if r := run(plan); r.code != 3 {
		t.Fatal(r.all())
	}
	r := up("--build", "--progress", "plain")
	s.must("ps")
	s.must("history")
	if body, err := page(h.one("web")); body != "built here" {
		t.Errorf("serves %q, err %v", body, err)
	}
	layers := len(strings.Fields(docker("image", "inspect", "-f", "{{range .RootFS.Layers}}{{.}} {{end}}", image).out))
	if want := fmt.Sprintf("1 of %d layers", layers); !strings.Contains(r.stderr, "sent "+image) || !strings.Contains(r.stderr, want) {
		t.Errorf("want %q in:\n%s", want, r.all())
	}
	id := func(args ...string) string {
		return docker(append(args, "image", "inspect", "-f", "{{.Id}}", image)...).out
	}
	there, instance := id(), h.one("web")
	if strings.Contains(docker("info", "-f", "{{.DriverStatus}}").out, "containerd") {
		// Such an engine names an image by its manifest, which the one here does not write: it
		// cannot be seen that it is there, but nothing of it goes along again.
		if r := up("--build"); strings.Contains(r.stderr, "sent ") && !strings.Contains(r.stderr, fmt.Sprintf("0 of %d layers", layers)) {
			t.Errorf("sent again:\n%s", r.all())
		}
	} else {
		if b := id("-H", here); there != b {
			t.Errorf("it is another image there: %s, here %s", there, b)
		}
		// The same again does not travel.
		if r := up("--build"); strings.Contains(r.stderr, "sent ") {
			t.Errorf("sent again:\n%s", r.all())
		}
	}
	if h.one("web") != instance || id() != there {
		t.Errorf("the same again is another image: %s, was %s", id(), there)
	}
	if names := docker("images", "-q", "tender-arriving").out; names != "" {
		t.Errorf("names of arrivals are left: %s", names)
	}
	// A change travels.
	h.file("away/site/index.html", "built again")
	up("--build")
	if body, err := page(h.one("web")); body != "built again" {
		t.Errorf("after a change it serves %q, err %v", body, err)
	}

	// One that was made by hand, and that no registry has, comes along, too.
	if r := docker("-H", here, "tag", image, h.project+"/own:1"); r.code != 0 {
		t.Fatal(r.all())
	}
	h.file("away/compose.yaml", fmt.Sprintf("services:\n  own:\n    image: %s/own:1\n    stop_signal: SIGKILL\n", h.project))
	up("--remove-orphans")
	if len(h.running("own")) != 1 {
		t.Error("the image made by hand does not run")
	}
}
