package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Docker pulls an image of another registry through ours, with the login that the vault keeps,
// and again when the other one is dead, also from a mirror of it.
func TestImagesOfOthersMustBePulledThrough(t *testing.T) {
	t.Parallel()
	away := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	own, mirror := fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	far := newHost(t, "--listen-registry="+away)
	near := newHost(t, "--listen-registry="+own, "--registry-anonymous=[far.example/**]",
		fmt.Sprintf("--registry-cache=[{name: far.example, upstream: 'http://%s', listen: '%s'}]", away, mirror))
	config := near.dockerConfig("ci", "{}")
	for address, password := range map[string]string{away: far.token("ci", "deploy"), own: near.token("ci", "deploy")} {
		if r := dockerLogin(config, address, password); r.code != 0 {
			t.Fatal(r.all())
		}
	}
	name := "/" + near.project + "/base:1"
	images := []string{away + name, own + "/far.example" + name, mirror + name}
	t.Cleanup(func() { docker(append([]string{"rmi", "-f"}, images...)...) })
	if r := docker("tag", "busybox", images[0]); r.code != 0 {
		t.Fatal(r.all())
	}
	if r := docker("--config", config, "push", images[0]); r.code != 0 {
		t.Fatal(r.all())
	}
	if r := docker("--config", config, "pull", images[1]); r.code == 0 || !strings.Contains(r.all(), "tender registry login "+away) {
		t.Errorf("without a login: %s", r.all())
	}
	near.login(away, far.token("near", "read"))
	if r := docker("--config", config, "pull", images[1]); r.code != 0 {
		t.Fatal(r.all())
	}
	if r := docker("--config", config, "push", images[1]); r.code == 0 || !strings.Contains(r.all(), "nothing is pushed to it") {
		t.Errorf("a push into the cache: %s", r.all())
	}

	far.kill()
	// Without an image the engine asks for every layer. Layers may stay with other names of the
	// image; the manifest comes through in any case.
	docker("rmi", images[1])
	if r := docker("--config", config, "pull", images[1]); r.code != 0 {
		t.Errorf("its upstream is dead: %s", r.all())
	}
	if r := docker("pull", images[2]); r.code != 0 {
		t.Errorf("from the mirror: %s", r.all())
	}
	resp, err := http.Get("http://" + mirror + "/v2/" + near.project + "/base/manifests/1")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Cache-Status"); resp.StatusCode != 200 || !strings.HasPrefix(got, "tender; hit") {
		t.Errorf("the mirror says %d, %q", resp.StatusCode, got)
	}
}
