package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// role makes this test's binary one of three hosts, each in a network of its own:
// nothing of the real host's is touched.
const role = "TENDER_TEST_TRANSPARENT"

func TestATargetSeesTheClientsAddress(t *testing.T) {
	if os.Getenv(role) != "" {
		t.Skip("this is one of the hosts")
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, tool := range []string{"unshare", "nsenter", "ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	if out, err := exec.Command("unshare", "-n", "iptables", "-t", "mangle", "-A", "PREROUTING", "-p", "tcp", "-m", "socket", "--transparent", "-j", "ACCEPT").CombinedOutput(); err != nil {
		t.Skipf("this kernel knows no transparent sockets: %v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-n", os.Args[0], "-test.run", "^TestRouterOfTheTransparentPort$", "-test.v")
	// The race detector sleeps a second at the end of each of those clients.
	cmd.Env = append(os.Environ(), role+"=router", "GORACE=atexit_sleep_ms=20")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: TestRouterOfTheTransparentPort") {
		t.Errorf("in a network of its own: %v", err)
	}
}

// network is the other end of a cable: a process that holds a namespace.
type network struct{ pid int }

func (n network) command(program string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(n.pid), "-n", program}, args...)...)
}

func mustRun(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
}

// cable joins a new network with this one: here it has .1, there .2.
func cable(t *testing.T, name, subnet string) network {
	t.Helper()
	hold := exec.Command("unshare", "-n", "sh", "-c", "echo ready; exec sleep 300")
	out, err := hold.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := hold.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = hold.Process.Kill() // it sleeps
		_ = hold.Wait()         // of that signal
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q %v", line, err)
	}
	n := network{hold.Process.Pid}
	mustRun(t, exec.Command("ip", "link", "add", name, "type", "veth", "peer", "name", name+"p"))
	mustRun(t, exec.Command("ip", "link", "set", name+"p", "netns", strconv.Itoa(n.pid)))
	mustRun(t, exec.Command("ip", "addr", "add", subnet+".1/24", "dev", name))
	mustRun(t, exec.Command("ip", "link", "set", name, "up"))
	mustRun(t, n.command("ip", "addr", "add", subnet+".2/24", "dev", name+"p"))
	mustRun(t, n.command("ip", "link", "set", name+"p", "up"))
	mustRun(t, n.command("ip", "link", "set", "lo", "up"))
	mustRun(t, n.command("ip", "route", "add", "default", "via", subnet+".1"))
	return n
}

func (n network) play(t *testing.T, part string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := n.command(os.Args[0], "-test.run", "^TestEndOfTheTransparentPort$", "-test.v")
	cmd.Env = append(append(os.Environ(), role+"="+part), env...)
	return cmd
}

func TestRouterOfTheTransparentPort(t *testing.T) {
	if os.Getenv(role) != "router" {
		t.Skip("TestATargetSeesTheClientsAddress runs it in a network of its own")
	}
	mustRun(t, exec.Command("ip", "link", "set", "lo", "up"))
	inside, outside := cable(t, "tin", "10.77.1"), cable(t, "tout", "10.77.2")
	target := inside.play(t, "target")
	out, err := target.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = target.Process.Kill() // it serves for ever
		_ = target.Wait()         // of that signal
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "listening" {
	}
	port := tcpPort("0.0.0.0:5432", Target{ID: "one", Name: "db-1", Address: "10.77.1.2:80"})
	port.Transparent = true
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set(Table{Format: Format, Version: 1, Ports: []Port{port}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	until(t, "the port is listened on", func() bool { return s.ports.listens(port.ID) })
	ask := func(n network) string {
		t.Helper()
		var seen string
		until(t, "an answer", func() bool {
			out, err := n.play(t, "client").Output()
			for line := range strings.Lines(string(out)) {
				if address, ok := strings.CutPrefix(line, "seen "); ok && err == nil {
					seen = strings.TrimSpace(address)
				}
			}
			return seen != ""
		})
		return seen
	}
	if got := ask(outside); got != "10.77.2.2" {
		t.Errorf("a client outside is seen as %s", got)
	}
	// A neighbour of the target would be answered past this host: it is seen as this host.
	if got := ask(inside); got != "10.77.1.1" {
		t.Errorf("a neighbour is seen as %s", got)
	}
	// Another edge of this host comes and goes: it took the rules of both away.
	other := transparency{own: rulesOf(7)}
	if err := other.ready(ctx); err != nil {
		t.Error(err)
	}
	other.drop(ctx)
	own := s.transparent.own
	mustRun(t, exec.Command("iptables", "-t", "mangle", "-C", "PREROUTING", "-p", "tcp", "-j", own.chain))
	if out, err := exec.Command("ip", "rule", "show", "priority", own.table).Output(); err != nil || len(out) == 0 {
		t.Errorf("the other one took the rule away: %v", err)
	}
	// Somebody has taken the rules away: they are made again.
	mustRun(t, exec.Command("iptables", "-t", "mangle", "-D", "PREROUTING", "-p", "tcp", "-j", own.chain))
	mustRun(t, exec.Command("ip", "rule", "del", "priority", own.table))
	until(t, "a client outside is seen again, once the rules had gone", func() bool {
		if ask(outside) == "10.77.2.2" {
			return true
		}
		s.transparent.learn("10.77.1.2:80", false, time.Now().Add(-provenAgain)) // a busy machine needed longer than a proof has
		return false
	})
	// Where the answers take another way, the connection comes about all the same.
	mustRun(t, inside.command("ip", "route", "del", "default"))
	s.transparent.learn("10.77.1.2:80", false, time.Now().Add(-provenAgain))
	if got := ask(outside); got != "10.77.1.1" {
		t.Errorf("without a way back it is seen as %s", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, c := range [][]string{{"iptables", "-t", "mangle", "-S"}, {"ip", "rule"}, {"ip", "route", "show", "table", own.table}} {
		out, err := exec.Command(c[0], c[1:]...).CombinedOutput()
		if text := string(out); strings.Contains(text, "TENDER-EDGE") || strings.Contains(text, own.table) || strings.Contains(text, rulesOf(7).table) || strings.Contains(text, "0.0.0.0/0") || strings.Contains(text, "local default") {
			t.Errorf("%v leaves (%v):\n%s", c, err, text)
		}
	}
}

// The other two hosts: a target that says whom it sees, and a client who asks.
func TestEndOfTheTransparentPort(t *testing.T) {
	switch os.Getenv(role) {
	case "target":
		l, err := net.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("listening")
		for {
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(c, addrPort(c.RemoteAddr()).Addr())
			c.Close()
		}
	case "client":
		// The router has .1 in whichever network this is.
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
				router := n.IP.To4().Mask(n.Mask)
				router[3] = 1
				c, err := net.Dial("tcp", router.String()+":5432")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				seen, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Printf("seen %s", seen)
			}
		}
	default:
		t.Skip("TestATargetSeesTheClientsAddress runs it in networks of its own")
	}
}
