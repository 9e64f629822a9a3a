package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Three versions out of a git repository into the daemon's own registry: each is named by what it
// is, moving tags go forward alone, and whoever runs the first is told of the last.
func TestAnImageMustBeNamedByWhatItIs(t *testing.T) {
	t.Parallel()
	own := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	h := newHost(t, "--listen-registry="+own, `--registry-immutable=["*.*.*"]`)
	h.login(own, h.token("ci", "deploy"))
	h.setenv("DOCKER_CONFIG", h.dockerConfig("empty", "{}"))

	src := filepath.Join(h.dir, "src")
	git := func(words ...string) string {
		t.Helper()
		c := exec.Command("git", append([]string{"-C", src, "-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false"}, words...)...)
		c.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-11-30T12:00:00Z", "GIT_AUTHOR_DATE=2026-11-30T12:00:00Z", "GIT_CONFIG_GLOBAL=/dev/null")
		r := run(c)
		if r.code != 0 {
			t.Fatal(r.all())
		}
		return strings.TrimSpace(r.out)
	}
	h.file("src/Dockerfile", "FROM busybox\nCOPY version /\nCMD [\"sleep\", \"600\"]\nSTOPSIGNAL SIGKILL\n")
	h.file("src/version", "1.4.2\n")
	git("init", "-q")
	git("remote", "add", "origin", "https://ann:secret@git.example.com/shop/web.git")
	repository := own + "/" + h.project + "/web"
	t.Cleanup(func() {
		for _, ref := range strings.Fields(docker("images", "--format", "{{.Repository}}:{{.Tag}}", repository).out) {
			docker("rmi", "-f", ref)
		}
	})
	build := func(version string) map[string]string {
		t.Helper()
		h.file("src/version", version+"\n")
		git("add", ".")
		git("commit", "-qm", version)
		git("tag", "v"+version)
		var built struct {
			Names []struct{ Name, State, Note string }
		}
		out := h.must("image", "build", "--push", "--json", "-t", repository, "src")
		if err := json.Unmarshal([]byte(out), &built); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		state := map[string]string{}
		for _, n := range built.Names {
			tag := n.Name[strings.LastIndexByte(n.Name, ':')+1:]
			if strings.HasPrefix(tag, "id-") {
				tag = "id"
			}
			state[tag] = strings.TrimSpace(n.State + " " + n.Note)
		}
		return state
	}
	expect := func(version string, want map[string]string) {
		t.Helper()
		got := build(version)
		want[version], want["id"], want["git-"+git("rev-parse", "HEAD")[:12]] = "pushed", "pushed", "pushed"
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s:\n got %v\nwant %v", version, got, want)
		}
	}
	expect("1.4.2", map[string]string{"1.4": "tagged", "1": "tagged", "latest": "tagged"})
	labels := docker("inspect", "--format", "{{json .Config.Labels}}", repository+":1.4.2").out
	for _, want := range []string{
		`"org.opencontainers.image.created":"2026-11-30T12:00:00Z"`, `"org.opencontainers.image.revision":"` + git("rev-parse", "HEAD") + `"`,
		`"org.opencontainers.image.source":"https://git.example.com/shop/web"`, `"org.opencontainers.image.version":"1.4.2"`,
	} {
		if !strings.Contains(labels, want) {
			t.Errorf("the labels lack %s: %s", want, labels)
		}
	}
	h.file("compose.yaml", "services:\n  web:\n    image: "+repository+":1.4.2\n")
	h.must("up")
	expect("1.4.3", map[string]string{"1.4": "moved from 1.4.2", "1": "moved from 1.4.2", "latest": "moved from 1.4.2"})
	back := "stays it stands on 1.4.3, which is newer"
	expect("1.4.1", map[string]string{"1.4": back, "1": back, "latest": back})
	if r := h.exits(1, "image", "tag", "--registry", repository+":1.4.3", repository+":1.4.2"); !strings.Contains(r.stderr, "is immutable") {
		t.Errorf("an immutable tag: %s", r.all())
	}

	r := h.exits(3, "image", "outdated", "--check", "-p", h.project)
	if !strings.Contains(r.out, h.project+"/web") || !strings.Contains(r.out, "1.4.3 (1.x)") {
		t.Errorf("outdated: %s", r.all())
	}
	t.Log(r.out)
}
