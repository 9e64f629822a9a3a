package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// named is a service that tells its version and, at /health, whether it is warm,
// beside one that asks it by name all along and writes down what it hears.
func named(version, warmup string) string {
	return fmt.Sprintf(`
services:
  web:
    image: demo/app
    environment: {VERSION: %q, WARMUP: %s}
    stop_grace_period: 1s
    healthcheck: {test: [CMD, /app, check], interval: 1s, timeout: 10s, retries: 5}
    deploy: {replicas: 1}
  caller:
    image: busybox
    stop_signal: SIGKILL
    command:
    - sh
    - -c
    - |
      while :; do
        wget -S -T 5 -O /dev/null http://web:8080/health 2>&1 |
          awk '/HTTP\/1/ {code = $2} /Version:/ {version = $2} END {print "heard", version, code}'
        sleep 0.05
      done
`, version, warmup)
}

func TestWhoAsksByNameMustReachWhatIsProven(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", named("one", "0s"))
	h.must("up")
	heard := func() string { return docker("logs", h.one("caller")).all() }
	hears := func(what string) {
		t.Helper()
		h.until("the caller hears "+what, func() error {
			if !strings.Contains(heard(), "heard "+what+" 200") {
				return fmt.Errorf("it does not yet:\n%.2000s", heard())
			}
			return nil
		})
	}
	hears("one")
	ids := strings.Join(h.running("web"), " ")
	if h.must("up"); strings.Join(h.running("web"), " ") != ids {
		t.Error("up without a change replaced something")
	}

	h.file("compose.yaml", named("two", "1h"))
	h.exits(5, "up")
	h.file("compose.yaml", named("three", "2s"))
	if plan := h.exits(3, "plan").out; !strings.Contains(plan, "promote") {
		t.Errorf("the plan does not say when the newcomers get their name:\n%s", plan)
	}
	h.must("up")
	hears("three")
	for line := range strings.Lines(heard()) {
		if strings.Contains(line, "two") || strings.Contains(line, "503") {
			t.Errorf("the caller reached one that was not proven: %s", line)
		}
	}
	if out := docker("ps", "--filter", "label=com.docker.compose.project="+h.project, "--filter", "label=com.docker.compose.service=web", "-q").out; len(strings.Fields(out)) != 1 {
		t.Errorf("Docker Compose would list %q", out)
	}
}
