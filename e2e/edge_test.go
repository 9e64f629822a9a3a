package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The stories that are told end to end, each by its one command, which fails
// if anybody was not answered.
func TestTheExamplesMustLoseNothing(t *testing.T) {
	t.Parallel()
	needsEngine(t)
	for _, name := range []string{"blue-green", "strangler"} {
		t.Run(name, func(t *testing.T) {
			script := filepath.Join(root, "examples", name, "demo.sh")
			env := append(os.Environ(), fmt.Sprintf("PORT=%d", freePort(t)), fmt.Sprintf("OLD_PORT=%d", freePort(t)))
			demo := func(args ...string) result {
				cmd := exec.Command(script, args...)
				cmd.Env = env
				return run(cmd)
			}
			if name == "blue-green" {
				t.Cleanup(func() {
					if r := demo("down"); r.err() != nil {
						t.Error(r.all())
					}
				})
			}
			if r := demo(); r.err() != nil {
				t.Fatal(r.all())
			}
		})
	}
}

// outsider is a client on a host of its own: a network namespace behind a pair of
// interfaces. It returns the address of this end, as the client sees it, that of
// the client, and what runs a command there.
func outsider(t *testing.T) (here, there string, in func(args ...string) result) {
	t.Helper()
	id := os.Getpid() % 10_000
	name, near, far := fmt.Sprintf("te-%d", id), fmt.Sprintf("tn%d", id), fmt.Sprintf("tf%d", id)
	// From the range for tests between devices (RFC 2544); a net that nobody here has.
	var net24 string
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for n := 64; net24 == "" && n < 128; n++ {
		candidate := fmt.Sprintf("198.18.%d.", n)
		if !strings.Contains(fmt.Sprint(addresses), candidate) {
			net24 = candidate
		}
	}
	here, there = net24+"1", net24+"2"
	for _, args := range [][]string{
		{"netns", "add", name},
		{"link", "add", near, "type", "veth", "peer", "name", far, "netns", name},
		{"address", "add", here + "/30", "dev", near},
		{"link", "set", near, "up"},
		{"-n", name, "address", "add", there + "/30", "dev", far},
		{"-n", name, "link", "set", far, "up"},
	} {
		if r := run(exec.Command("ip", args...)); r.err() != nil {
			t.Fatal(r.all())
		}
		if args[0] == "netns" {
			t.Cleanup(func() { run(exec.Command("ip", "netns", "delete", name)) })
		}
	}
	return here, there, func(args ...string) result {
		return run(exec.Command("nsenter", append([]string{"--net=/run/netns/" + name}, args...)...))
	}
}

// A service must see its client's own address whoever holds its port: the
// engine before a scaling, the edge after it. Alone: the edge makes rules of the
// host's network, which another edge would take away at its end.
func TestAServiceMustSeeItsClient(t *testing.T) {
	h := newHost(t)
	here, there, in := outsider(t)
	port := freePort(t)
	h.file("compose.yaml", fmt.Sprintf(`services:
  web:
    image: demo/app:2
    ports: ["%d:8080"]
    healthcheck: {test: [CMD, /app, check], interval: 1s, timeout: 10s}
    stop_grace_period: 5s
`, port))
	seen := func() string {
		r := in("curl", "-sS", "-m", "20", fmt.Sprintf("http://%s:%d/who", here, port))
		lines := strings.Fields(r.out)
		if r.err() != nil || len(lines) == 0 {
			return r.all()
		}
		return lines[len(lines)-1]
	}
	must := func(when string) {
		t.Helper()
		for range 6 {
			if from := seen(); !strings.HasPrefix(from, there+":") {
				t.Errorf("%s: the service sees %q, and its client has %s", when, from, there)
			}
		}
	}
	h.must("up")
	if h.edge() != nil {
		t.Error("an edge runs for a port that the engine holds")
	}
	must("one instance, the engine's port")
	h.must("scale", "web=3")
	if h.edge() == nil {
		t.Fatal("no edge runs")
	}
	must("three instances, the edge's port")
	if out := h.must("port", "web", "8080"); !strings.Contains(out, fmt.Sprint(port)) {
		t.Errorf("port says %q", out)
	}
}

// A port that somebody else has holds up nothing else, and is said.
func TestATakenPortMustBeSaid(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	port := freePort(t)
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	h.file("compose.yaml", behind(port, "1", "{strategy: rolling}", ""))
	h.must("up", "-d")
	h.until("status says it", func() error {
		if out := h.must("status"); !strings.Contains(out, "another program has that port") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	taken.Close()
	h.until("the port serves", func() error {
		return run(exec.Command("curl", "-fsS", "-m", "5", fmt.Sprintf("http://127.0.0.1:%d/", port))).err()
	})
	h.must("up")
}
