package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// withSystemd stands in for systemd: systemctl restarts the host's serve from a
// binary on the path, and notes what it was asked.
func (h *host) withSystemd(serve string) (asked string) {
	h.t.Helper()
	asked = filepath.Join(h.dir, "asked")
	pid := h.file("serve.pid", fmt.Sprint(h.serve.Process.Pid))
	args := strings.Join(h.serve.Args[1:], " ")
	script := h.file("systemd/systemctl", fmt.Sprintf(`#!/bin/sh
echo "$*" >>%[1]s
[ "$1" = restart ] || exit 0
kill "$(cat %[2]s)"
while kill -0 "$(cat %[2]s)" 2>/dev/null; do sleep 0.05; done
setsid %[3]s %[4]s >>%[5]s 2>&1 </dev/null &
echo $! >%[2]s
`, asked, pid, serve, args, h.log.Name()))
	if err := os.Chmod(script, 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.setenv("PATH", filepath.Dir(script)+":"+os.Getenv("PATH"))
	h.t.Cleanup(func() {
		var n int
		b, _ := os.ReadFile(pid)
		if _, err := fmt.Sscan(string(b), &n); err == nil && n > 1 {
			syscall.Kill(n, syscall.SIGTERM)
			h.until("serve has ended", func() error {
				if err := syscall.Kill(n, 0); err == nil {
					return fmt.Errorf("process %d is there", n)
				}
				return nil
			})
		}
	})
	return asked
}

// build makes another version of the program.
func (h *host) build(version string) string {
	h.t.Helper()
	out := filepath.Join(h.dir, "release", "tender_"+version+"_linux")
	cmd := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", out, "./cmd/tender")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("go build: %v\n%s", err, b)
	}
	return out
}

func checksum(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestAnUpgradeMustRestartServeAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", web(1, ""))
	h.must("up")
	before := h.running("web")
	started := docker("inspect", "-f", "{{.State.StartedAt}}", before[0]).out

	own := filepath.Join(h.dir, "bin", "tender")
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", binary, own).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	asked := h.withSystemd(own)
	upgrade := func(args ...string) result {
		cmd := h.command(append([]string{"upgrade"}, args...)...)
		cmd.Path, cmd.Args[0] = own, own
		return run(cmd)
	}
	next := h.build("9.0.1")
	sum := checksum(t, next)

	// Nothing without the right checksum.
	was := checksum(t, own)
	for _, args := range [][]string{{next}, {next, "--checksum", strings.Repeat("0", 64)}, {filepath.Join(h.dir, "compose.yaml"), "--checksum", checksum(t, filepath.Join(h.dir, "compose.yaml"))}} {
		if r := upgrade(args...); r.code != 1 || checksum(t, own) != was {
			t.Errorf("%v must be refused: %s", args, r.all())
		}
	}
	h.file("release/SHA256SUMS", sum+"  "+filepath.Base(next)+"\n")
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(h.dir, "release"))))
	defer server.Close()
	r := upgrade(server.URL + "/" + filepath.Base(next))
	if r.code != 0 || !strings.Contains(r.out, "serve runs 9.0.1") {
		t.Fatal(r.all())
	}
	if out := h.must("version", "--json"); !strings.Contains(out, `"daemon": "9.0.1"`) || checksum(t, own) != sum {
		t.Errorf("version after the upgrade:\n%s", out)
	}

	// One that is Tender and cannot serve: the old one comes back.
	broken := filepath.Join(h.dir, "release", "broken")
	h.file("broken/main.go", `package main

import ("fmt"; "os")

func main() {
	if len(os.Args) > 2 && os.Args[1] == "version" { fmt.Println("9.0.3"); return }
	os.Exit(1)
}
`)
	cmd := exec.Command("go", "build", "-o", broken, filepath.Join(h.dir, "broken", "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
	r = upgrade(broken, "--wait-timeout", "5s", "--checksum", "sha256:"+checksum(t, broken))
	if r.code != 1 || !strings.Contains(r.stderr, "the old version is back and serves") || checksum(t, own) != sum {
		t.Errorf("a version that does not serve: %s", r.all())
	}
	if out := h.must("version", "--json"); !strings.Contains(out, `"daemon": "9.0.1"`) {
		t.Errorf("version after the way back:\n%s", out)
	}

	if now := h.running("web"); !slices.Equal(before, now) || docker("inspect", "-f", "{{.State.StartedAt}}", before[0]).out != started {
		t.Errorf("instances were touched: %v, then %v", before, now)
	}
	if b, _ := os.ReadFile(asked); strings.Count(string(b), "restart tender.service") != 3 || strings.Contains(string(b), "docker") {
		t.Errorf("systemctl was asked:\n%s", b)
	}
	h.must("down")
}

func TestThePackageMustInstallAndGoAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", web(1, ""))
	h.must("up")
	before := h.running("web")
	must := func(cmd *exec.Cmd) string {
		t.Helper()
		cmd.Dir = root
		r := run(cmd)
		if r.code != 0 {
			t.Fatal(r.all())
		}
		return r.out
	}
	work := filepath.Join(h.dir, "pkg")
	must(exec.Command("go", "run", "./release", "man", filepath.Join(work, "man"), "1.2.3"))
	pages, err := filepath.Glob(filepath.Join(work, "man", "*.1"))
	if err != nil || len(pages) < 40 {
		t.Fatalf("%d man pages, err %v", len(pages), err)
	}
	must(exec.Command("gzip", append([]string{"-9n"}, pages...)...))
	for _, shell := range []string{"bash", "zsh", "fish"} {
		h.file("pkg/"+shell, must(exec.Command(binary, "completion", shell)))
	}
	must(exec.Command("release/tree.sh", filepath.Join(work, "tree"), binary, filepath.Join(work, "man"), work))
	pack := exec.Command("release/deb.sh", filepath.Join(work, "tree"), "1.2.3", "amd64", work)
	pack.Env = append(os.Environ(), "DEB_COMPRESS=none")
	must(pack)
	deb := filepath.Join(work, "tender_1.2.3_amd64.deb")
	if out := must(exec.Command("dpkg-deb", "--field", deb, "Version")); out != "1.2.3\n" {
		t.Errorf("version %q", out)
	}
	place := filepath.Join(h.dir, "root")
	must(exec.Command("dpkg-deb", "-x", deb, place))
	own := filepath.Join(place, "usr", "bin", "tender")
	if st, err := os.Stat(own); err != nil || st.Mode().Perm() != 0o755 {
		t.Fatalf("%v %v", st, err)
	}

	// The units must be what systemd understands, in this root and with this binary.
	verify := exec.Command("systemd-analyze", "verify", "--man=no", "--root="+place, "tender.service", "tender-edge.service", "tender-secrets.service")
	r := run(verify)
	if r.code == -1 {
		t.Logf("systemd-analyze is not here: the units are checked where it is: %s", r.stderr)
	}
	for line := range strings.Lines(r.stderr) {
		// What other packages would bring is not in this root.
		if strings.Contains(line, "tender") && !strings.Contains(line, "not found") && !strings.Contains(line, "Command /bin/kill is not executable") {
			t.Errorf("systemd: %s", line)
		}
	}

	uninstall := exec.Command(own, "uninstall", "--root", place)
	uninstall.Env = append(os.Environ(), "TENDER_HOST=unix://"+h.socket())
	if r := run(uninstall); r.code != 2 || !strings.Contains(r.stderr, "--yes") {
		t.Errorf("it must ask: %s", r.all())
	}
	uninstall = exec.Command(own, "uninstall", "--root", place, "--yes")
	uninstall.Env = append(os.Environ(), "TENDER_HOST=unix://"+h.socket())
	if r := run(uninstall); r.code != 0 || !strings.Contains(r.stderr, h.project) {
		t.Errorf("uninstall: %s", r.all())
	}
	err = filepath.WalkDir(place, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s is still there", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h.stop()
	if now := h.running("web"); !slices.Equal(before, now) {
		t.Errorf("instances were touched: %v, then %v", before, now)
	}
	out := docker("ps", "-q", "--no-trunc", "--filter", "label=com.docker.compose.project="+h.project, "--filter", "label=com.docker.compose.config-hash").out
	if !slices.Equal(strings.Fields(out), before) {
		t.Errorf("docker compose would not find them: %q", out)
	}
}
