package e2e

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The number of instances must follow the load, up and down again, and no request
// may be lost on the way.
func TestTheCountMustFollowTheLoad(t *testing.T) {
	t.Parallel()
	h := newHost(t, "--autoscale-interval=1s")
	port := freePort(t)
	h.file("compose.yaml", fmt.Sprintf(`
services:
  web:
    image: demo/app:2
    environment: {VERSION: one}
    ports: ["127.0.0.1:%d:8080"]
    x-tender:
      scale: {min: 2, max: 6, requests: 6/s, cooldown: 2s, window: 4s}
`, port))
	h.must("up")
	there := func(n int) {
		t.Helper()
		h.until(fmt.Sprintf("%d instances run", n), func() error {
			if got := len(h.running("web")); got != n {
				return fmt.Errorf("%d run\n%s", got, h.tender("status", h.project).all())
			}
			return nil
		})
	}
	there(2)
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	// The light load goes on all the time; the heavy one asks for more than max, on a busy machine, too.
	light, heavy := h.loadBy(addr, 1, 100*time.Millisecond, 0), h.loadBy(addr, 24, 50*time.Millisecond, 0)
	there(6)
	why := h.must("why", "web")
	heavy.stop()
	there(2)
	light.stop()
	heavy.none("heavy load")
	light.none("light load")

	for _, want := range []string{"its count follows what is measured: 2..6, requests 6/s", "requests/s for "} {
		if !strings.Contains(why, want) {
			t.Errorf("why does not say %q:\n%s", want, why)
		}
	}
	history := h.must("history", "web")
	if !strings.Contains(history, "autoscale") || !strings.Contains(history, "scale") {
		t.Errorf("history:\n%s", history)
	}
	t.Logf("history:\n%s", history)
	// The file again, which says nothing of replicas, and a count by hand that the rule would undo.
	h.exits(0, "plan")
	if r := h.tender("scale", "web=9"); r.code == 0 || !strings.Contains(r.all(), "x-tender.scale") {
		t.Errorf("nine by hand: %s", r.all())
	}
}
