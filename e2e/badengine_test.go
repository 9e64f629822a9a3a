package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// twoWebs are two services of several: the engine starts one of them again by itself.
const twoWebs = `
services:
  web: &web
    image: busybox
    command: [httpd, -f, -p, "8080", -h, /www]
    stop_signal: SIGKILL
    configs: [{source: page, target: /www/index.html}]
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 1s, timeout: 5s, retries: 30}
    deploy: {replicas: 3}
    x-tender: {rollout: {hold: 2s}}
  api:
    <<: *web
    restart: always
    deploy: {replicas: 2}
configs:
  page: {content: "${PAGE:-one}"}
`

// serves counts the running instances of a service by the page that they serve.
func (h *host) serves(service string) map[string]int {
	h.t.Helper()
	n := map[string]int{}
	for _, id := range h.running(service) {
		if body, err := page(id); err == nil {
			n[body]++
		}
	}
	return n
}

func TestTheBadDayOfAnEngineMustStopNothing(t *testing.T) {
	engine := newEngine(t, "debian")
	h := makeHost(t)
	data := engine.smallDisk(h, "debian", 128)
	engine.images("busybox:latest")
	h.start()
	killed(h, engine)
	full(h, data)
}

// killed kills the engine with everything on it in the middle of two rollouts.
// While it is away nothing is planned; once it is back both come to their end.
func killed(h *host, engine *own) {
	t := h.t
	h.file("compose.yaml", twoWebs)
	h.must("up")
	t.Setenv("PAGE", "two")
	h.must("up", "-d")
	h.until("a rollout is half done", func() error {
		revisions := map[string]bool{}
		for _, c := range h.containers("web") {
			if c.State.Running {
				revisions[c.Config.Labels["tender.revision"]] = true
			}
		}
		if len(revisions) != 2 {
			return fmt.Errorf("running: %v", revisions)
		}
		return nil
	})
	engine.do("kill")
	h.until("serve notices", func() error {
		if out := h.must("ls"); !strings.Contains(out, "the engine does not answer since") {
			return fmt.Errorf("ls:\n%s", out)
		}
		return nil
	})
	if r := h.exits(5, "status"); !strings.Contains(r.out, "stale since") {
		t.Errorf("status: %s", r.all())
	}
	if r := h.tender("plan"); r.code != 1 || !strings.Contains(r.stderr, "does not answer") && !strings.Contains(r.stderr, "is the engine running") {
		t.Errorf("plan without an engine: %s", r.all())
	}
	t.Logf("without an engine:\n%s%s%s%s", h.tender("ls").all(), h.tender("status").all(), h.tender("plan").all(), h.tender("why", "web").all())

	engine.do("start", "debian")
	for _, service := range []string{"web", "api"} {
		h.until(service+" is as wanted", func() error {
			var names []string
			for _, c := range h.containers(service) {
				if c.State.Health == nil || c.State.Health.Status != "healthy" {
					return fmt.Errorf("%s is %s", c.Name, c.State.Status)
				}
				names = append(names, strings.TrimPrefix(c.Name, "/"+h.project))
			}
			slices.Sort(names)
			want := []string{"-" + service + "-1", "-" + service + "-2", "-" + service + "-3"}[:map[string]int{"web": 3, "api": 2}[service]]
			if !slices.Equal(names, want) {
				return fmt.Errorf("instances %v", names)
			}
			if n := h.serves(service); n["two"] != len(want) {
				return fmt.Errorf("%s serves %v", service, n)
			}
			return nil
		})
	}
	h.until("nothing is left to do", func() error { return h.tender("plan").err() })
	// Not the revision's fault: both rollouts have ended well.
	out := h.must("history")
	if strings.Count(out, "done") != 4 {
		t.Errorf("history:\n%s", out)
	}
}

// smallDisk gives the engine, which must be new, a disk of so many megabytes.
func (e *own) smallDisk(h *host, kind string, megabytes int) (data string) {
	h.t.Helper()
	data = filepath.Join("/var/lib/tender-engines", e.name, "data")
	e.do("kill")
	if err := os.RemoveAll(data); err != nil {
		h.t.Fatal(err)
	}
	h.disk(data, megabytes)
	h.t.Cleanup(func() { e.do("kill") }) // it holds the disk
	e.do("start", kind)
	return data
}

// full leaves the engine no room on its disk in a rollout.
func full(h *host, data string) {
	t := h.t
	was := h.running("web")
	// All at once, which is quicker.
	h.file("compose.yaml", strings.ReplaceAll(twoWebs, "deploy: {", "deploy: {update_config: {parallelism: 0}, "))
	free := h.fill(data)
	t.Setenv("PAGE", "three")
	r := h.exits(5, "up")
	t.Logf("up on a full disk of the engine:\n%s%s%s", r.all(), h.tender("why", "web").all(), h.tender("doctor").all())
	for _, word := range []string{"no space left on device", "rolled back", "the engine's disk is full: make room there"} {
		if !strings.Contains(r.all(), word) {
			t.Errorf("up does not say %q:\n%s", word, r.all())
		}
	}
	if why := h.must("why", "web"); !strings.Contains(why, "the disk is full") || !strings.Contains(why, "docker system df") {
		t.Errorf("why:\n%s", why)
	}
	if out := h.tender("doctor").out; !strings.Contains(out, "engine disk") || !strings.Contains(out, "(0 %)") {
		t.Errorf("doctor:\n%s", out)
	}
	if now := h.running("web"); !slices.Equal(now, was) || len(h.containers("web")) != 3 {
		t.Errorf("running %v of %v, were %v", now, h.containers("web"), was)
	}

	free()
	h.must("up")
	if n := h.serves("web"); n["three"] != 3 {
		t.Errorf("serves %v", n)
	}
}
