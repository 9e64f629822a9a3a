package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// behind is a service on one port of the edge. rollout is x-tender.rollout.
func behind(port int, version, rollout, more string) string {
	return fmt.Sprintf(`services:
  web:
    image: demo/app:2
    environment:
      VERSION: %q
%s
    ports: ["127.0.0.1:%d:8080"]
    stop_grace_period: 3s
    healthcheck: {test: [CMD, /app, check], interval: 1s, timeout: 10s, retries: 5}
    deploy: {replicas: 3}
    x-tender:
      publish: proxy
      rollout: %s
`, version, more, port, rollout)
}

// No request may be lost, whatever happens behind the port: this is counted by
// a client that knows nothing of Tender. TENDER_LOST=long is the run of
// docs/benchmarks.md: 1,000 requests a second and each kind of rollout again
// and again.
func TestNoRequestMustBeLost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	rate, again, rolling := 100, 1, 1
	if os.Getenv("TENDER_LOST") == "long" {
		rate, again, rolling = 1000, 5, 2
	}
	port := freePort(t)
	version := 0
	up := func(rollout, more string, args ...string) result {
		version++
		h.file("compose.yaml", behind(port, strconv.Itoa(version), rollout, more))
		return h.tender(append([]string{"up", "--progress", "plain"}, args...)...)
	}
	good := func(what, rollout string) {
		t.Helper()
		if r := up(rollout, ""); r.err() != nil {
			t.Fatalf("%s: %s", what, r.all())
		}
	}
	good("first deploy", "{strategy: rolling}")
	l := h.load(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), rate, 10)
	step := func(name string, f func(t *testing.T)) {
		t.Helper()
		t.Logf("%s: begins with %d requests sent, %d failed", name, l.sent.Load(), l.failed.Load())
		f(t)
		if l.failed.Load() > 0 {
			l.none(name)
			t.FailNow()
		}
	}
	bad := func(rollout, more string) func(t *testing.T) {
		return func(t *testing.T) {
			if r := up(rollout, more); r.code != 5 {
				t.Errorf("want exit 5 of a rollout that goes back: %s", r.all())
			}
		}
	}
	for range again {
		for range rolling {
			step("rolling", func(*testing.T) { good("rolling", "{strategy: rolling}") })
		}
		step("blue-green", func(*testing.T) {
			good("blue-green", "{strategy: blue-green, check: [{path: /, status: 200, body: hello}]}")
		})
		step("canary", func(*testing.T) { good("canary", "{strategy: canary, steps: [30, 60], pause: 2s}") })
	}
	step("scale up and down", func(*testing.T) {
		h.must("scale", "web=5")
		h.must("scale", "web=3")
	})
	step("kill -9 of serve in mid-rollout", func(t *testing.T) {
		if r := up("{strategy: rolling}", "", "-d"); r.err() != nil {
			t.Fatal(r.all())
		}
		h.until("the rollout is under way", func() error {
			if n := len(h.running("web")); n < 4 {
				return fmt.Errorf("%d instances run", n)
			}
			return nil
		})
		h.kill()
		alone := l.answered.Load()
		h.until("the edge serves alone", func() error {
			if n := l.answered.Load() - alone; n < int64(rate) {
				return fmt.Errorf("%d answered", n)
			}
			return nil
		})
		h.start()
		h.until("the rollout has ended", func() error {
			if r := h.tender("plan"); r.code != 0 {
				return fmt.Errorf("%s", r.all())
			}
			return nil
		})
	})
	step("upgrade of serve and of the edge", func(*testing.T) {
		was := h.edge()
		h.stop()
		h.binary = h.build("2.0.0")
		h.start()
		h.until("an edge of the new version serves", func() error {
			if now := h.edge(); now == nil || now.PID == was.PID || now.Version == was.Version {
				return fmt.Errorf("%+v", now)
			}
			return nil
		})
		good("rolling", "{strategy: rolling}")
	})
	step("a revision that ends at once", bad("{strategy: rolling}", `      FAIL: "1"`))
	step("a revision that is never healthy", bad("{strategy: blue-green}", `      WARMUP: 1h`))
	step("a revision that does not hear SIGTERM", func(t *testing.T) {
		if r := up("{strategy: rolling}", `      DEAF: "1"`); r.err() != nil {
			t.Fatal(r.all())
		}
		good("rolling", "{strategy: rolling}")
	})
	l.stop()
	l.none("all of it")
	if l.echoes.Load() == 0 {
		t.Error("no upgraded connection said anything")
	}

	// The proof of the last rollout counts what the client counted, or less: it
	// began later.
	out := h.must("show", lastRollout(h))
	if !strings.Contains(out, "failed") {
		t.Errorf("the proof does not say what was served and failed:\n%s", out)
	}
	t.Log(out)
}

// lastRollout is the id of the newest.
func lastRollout(h *host) string {
	h.t.Helper()
	var list []struct {
		ID int64 `json:"id"`
	}
	if err := json.Unmarshal([]byte(h.must("history", "--json")), &list); err != nil || len(list) == 0 {
		h.t.Fatalf("history has no rollout: %v", err)
	}
	return strconv.FormatInt(list[0].ID, 10)
}

// An instance that dies may lose what it was answering, and nothing else.
func TestAnInstanceThatDiesMustLoseOnlyItsOwnRequests(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	port := freePort(t)
	h.file("compose.yaml", behind(port, "1", "{strategy: rolling}", ""))
	h.must("up")
	l := h.load(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), 100, 0)
	before := l.answered.Load()
	h.until("load is answered", func() error {
		if l.answered.Load() < before+100 {
			return fmt.Errorf("%d answered", l.answered.Load())
		}
		return nil
	})
	if r := run(exec.Command("docker", "kill", "-s", "KILL", h.running("web")[0])); r.err() != nil {
		t.Fatal(r.all())
	}
	mark := l.answered.Load()
	h.until("three run again", func() error {
		if n := len(h.running("web")); n != 3 || l.answered.Load() < mark+300 {
			return fmt.Errorf("%d run, %d answered since", n, l.answered.Load()-mark)
		}
		return nil
	})
	l.stop()
	// What was under way there: at most one request of each of the five workers.
	if n := l.failed.Load(); n > 5 {
		t.Errorf("%d requests failed, more than were under way: %v", n, l.why)
	}
	t.Logf("%d sent, %d failed", l.sent.Load(), l.failed.Load())
}
