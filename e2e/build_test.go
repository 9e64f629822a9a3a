package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A secret of a build must reach its step, and be nowhere afterwards.
func TestBuildSecrets(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const value, kept = "e2e-Build-s3cret-1", "e2e-Vault-s3cret-2"
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(h.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	image := h.project + "/web:1"
	put("compose.yaml", `services:
  web:
    image: `+image+`
    build:
      context: app
      secrets: [token, shared]
      additional_contexts: {lib: ./lib}
    command: [sleep, "1000"]
    stop_signal: SIGKILL
secrets:
  token: {environment: TOKEN}
  shared: {external: true, name: company}
`)
	put("app/Dockerfile", `# syntax=docker/dockerfile:1
FROM busybox
COPY --from=lib hello.txt /
RUN --mount=type=secret,id=token --mount=type=secret,id=shared <<END
cd /run/secrets
wc -c < token > /sizes
wc -c < shared >> /sizes
END
`)
	put("app/ignored.log", "x")
	put("app/.dockerignore", "*.log")
	put("lib/hello.txt", "hello from lib")
	t.Cleanup(func() { docker("rmi", image) })

	set := h.command("secret", "set", "company")
	set.Stdin = strings.NewReader(kept)
	if err := run(set).err(); err != nil {
		t.Fatal(err)
	}
	up := h.command("up", "--build", "--progress", "plain")
	up.Env = append(up.Env, "TOKEN="+value)
	r := run(up)
	if err := r.err(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.all(), value) || strings.Contains(r.all(), kept) {
		t.Errorf("a value is in the output: %s", r.all())
	}
	got := h.must("exec", "-T", "web", "cat", "/sizes", "/hello.txt")
	if got != "18\n18\nhello from lib" {
		t.Errorf("the steps saw %q", got)
	}
	for _, args := range [][]string{{"history", "--no-trunc", image}, {"inspect", image}, {"save", image}} {
		if out := docker(args...); out.code != 0 || strings.Contains(out.out, value) || strings.Contains(out.out, kept) {
			t.Errorf("docker %s: exit %d, or a value is in it", args[0], out.code)
		}
	}
	for path, text := range filesUnder(t, h.dir) {
		if strings.Contains(text, value) || strings.Contains(text, kept) {
			t.Errorf("a value is in %s", path)
		}
	}
	if left, err := filepath.Glob(filepath.Join(h.dir, "data", "build", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}
