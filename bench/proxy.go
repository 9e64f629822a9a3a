package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tenderhq/tender/internal/proxy"
)

// The proxies are processes of their own, each with the same target behind it,
// and their CPU time is what the kernel counted. They take turns, so that a busy
// moment meets all of them.
//
//	go run ./bench proxy [-runs 5] [-requests 20000] [-clients 32]
func proxies(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("proxy", flag.ExitOnError)
	runs := set.Int("runs", 5, "runs of each measurement; the median is shown")
	requests := set.Int("requests", 20_000, "requests of each run")
	clients := set.Int("clients", 32, "connections that ask at the same time")
	role := set.String("role", "", "of a child: target, own, front or std")
	listen := set.String("listen", "", "of a child")
	target := set.String("target", "", "of a child")
	idle := set.Int("idle", 10_000, "connections that have asked once and stay open, for the memory of each")
	only := set.String("only", "", "one proxy alone, for a profile")
	if err := set.Parse(args); err != nil {
		return err
	}
	switch *role {
	case "":
	case "target":
		return serveTarget(ctx, *listen)
	default:
		return serveEdge(ctx, *listen, *target, *role)
	}
	dir, err := os.MkdirTemp("", "tbp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	at, err := ports(7)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := func(role, listen string) *exec.Cmd {
		return exec.CommandContext(ctx, self, "proxy", "-role", role, "-listen", listen, "-target", at[0])
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		return path
	}
	peers := []*peer{
		{name: "haproxy", addr: at[1], cmd: exec.CommandContext(ctx, "haproxy", "-q", "-db", "-f", file("haproxy.cfg", fmt.Sprintf(`
defaults
  mode http
  option forwardfor
  timeout client 50s
  timeout server 50s
  timeout connect 5s
frontend f
  bind %s
  default_backend b
backend b
  server s %s
`, at[1], at[0])))},
		{name: "nginx", addr: at[2], cmd: exec.CommandContext(ctx, "nginx", "-e", filepath.Join(dir, "error.log"), "-c", file("nginx.conf", fmt.Sprintf(`
daemon off;
worker_processes auto;
pid %[3]s/nginx.pid;
events { worker_connections 30000; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path %[3]s/body; proxy_temp_path %[3]s/temp; fastcgi_temp_path %[3]s/f; uwsgi_temp_path %[3]s/u; scgi_temp_path %[3]s/s;
  upstream b { server %[2]s; keepalive 64; keepalive_requests 100000000; }
  server {
    listen %[1]s;
    location / {
      proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
    }
  }
}
`, at[2], at[0], dir)))},
		{name: "caddy", addr: at[3], cmd: exec.CommandContext(ctx, "caddy", "run", "--adapter", "caddyfile", "--config", file("Caddyfile", fmt.Sprintf(`
{
	admin off
	auto_https off
	log default {
		output discard
	}
}
http://%s {
	reverse_proxy %s
}
`, at[3], at[0])))},
		{name: "tender", addr: at[4], cmd: child("own", at[4])},
		{name: "tender, std front", addr: at[5], cmd: child("front", at[5])},
		{name: "tender, std", addr: at[6], cmd: child("std", at[6])},
	}
	if err != nil {
		return err
	}
	if *only != "" {
		peers = slices.DeleteFunc(peers, func(p *peer) bool { return p.name != *only })
	}
	back := &peer{name: "target", addr: at[0], cmd: child("target", at[0])}
	for _, p := range append([]*peer{back}, peers...) {
		p.cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
		var text bytes.Buffer
		p.cmd.Stderr = &text
		if err := p.cmd.Start(); err != nil {
			return fmt.Errorf("%s: %w (apt-get install haproxy nginx caddy)", p.name, err)
		}
		defer func() {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
			_ = p.cmd.Wait()
		}()
		if err := answers(p.addr); err != nil {
			return fmt.Errorf("%s: %w\n%s", p.name, err, text.String())
		}
	}
	fmt.Printf("machine: %d cores, load %s; medians of %d runs of %d requests on %d connections\n", runtime.NumCPU(), load(), *runs, *requests, *clients)
	for _, size := range []string{"small", "large"} {
		body := map[string]string{"small": "100 bytes", "large": "20 KB"}[size]
		fmt.Printf("\n%-18s %16s %12s %10s %12s %12s\n", body, "CPU us/request", "requests/s", "p99 ms", "of haproxy", "of caddy")
		for _, p := range peers {
			p.cpu, p.rate, p.p99 = nil, nil, nil
		}
		for range *runs {
			for _, p := range peers {
				if err := p.measure("/"+size, *requests, *clients); err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
			}
		}
		base := map[string]float64{}
		for _, p := range peers {
			base[p.name] = middle(p.cpu)
		}
		for _, p := range peers {
			cpu := middle(p.cpu)
			fmt.Printf("%-18s %16.1f %12.0f %10.2f %12.2f %12.2f\n", p.name, cpu, middle(p.rate), middle(p.p99), cpu/base["haproxy"], cpu/base["caddy"])
		}
	}
	fmt.Printf("\n%-18s %16s\n", fmt.Sprintf("%d idle", *idle), "KB each")
	for _, p := range peers {
		each, err := p.hold(*idle)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Printf("%-18s %16.1f\n", p.name, each*1024)
	}
	return nil
}

// hold opens n connections that ask once and stay, and returns what each costs in
// MB of the process's own memory. What the kernel keeps for a socket is not in it.
func (p *peer) hold(n int) (float64, error) {
	before, err := held(p.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	buf := make([]byte, 4096)
	for range n {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			return 0, err
		}
		open = append(open, c)
		if _, err := fmt.Fprintf(c, "GET /small HTTP/1.1\r\nHost: %s\r\n\r\n", p.addr); err != nil {
			return 0, err
		}
		for got := 0; ; {
			m, err := c.Read(buf[got:])
			if err != nil {
				return 0, err
			}
			got += m
			if head := bytes.Index(buf[:got], []byte("\r\n\r\n")); head >= 0 && got >= head+4+100 {
				break
			}
		}
	}
	time.Sleep(3 * time.Second) // a collector of garbage may have its turn
	after, err := held(p.cmd.Process.Pid)
	return (after - before) / float64(n), err
}

// held is the memory of a process and its children, in MB.
func held(pid int) (float64, error) {
	sum, err := memory(pid)
	if err != nil {
		return 0, err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	for one := range strings.FieldsSeq(string(children)) {
		n, err := strconv.Atoi(one)
		if err != nil {
			return 0, err
		}
		more, err := held(n)
		if err != nil {
			return 0, err
		}
		sum += more
	}
	return sum, nil
}

// peer is one proxy under measurement.
type peer struct {
	name, addr     string
	cmd            *exec.Cmd
	cpu, rate, p99 []float64
}

func (p *peer) measure(path string, requests, clients int) error {
	if _, err := drive(p.addr, path, clients*20, clients); err != nil { // connections, buffers
		return err
	}
	before, err := cpuTime(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	begun := time.Now()
	took, err := drive(p.addr, path, requests, clients)
	if err != nil {
		return err
	}
	whole := time.Since(begun)
	after, err := cpuTime(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	slices.Sort(took)
	p.cpu = append(p.cpu, float64((after-before).Microseconds())/float64(len(took)))
	p.rate = append(p.rate, float64(len(took))/whole.Seconds())
	p.p99 = append(p.p99, float64(took[len(took)*99/100].Microseconds())/1000)
	return nil
}

// drive asks requests times over clients connections that stay open.
func drive(addr, path string, requests, clients int) ([]time.Duration, error) {
	each := requests / clients
	all := make([][]time.Duration, clients)
	failed := make([]error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { all[i], failed[i] = ask(addr, path, each) })
	}
	wg.Wait()
	return slices.Concat(all...), errors.Join(failed...)
}

func ask(addr, path string, n int) ([]time.Duration, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	return askOn(c, addr, path, n)
}

// askOn asks n times on a connection.
func askOn(c net.Conn, addr, path string, n int) ([]time.Duration, error) {
	in := bufio.NewReaderSize(c, 32<<10)
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\r\n")
	took := make([]time.Duration, 0, n)
	for range n {
		begun := time.Now()
		if _, err := c.Write(request); err != nil {
			return nil, err
		}
		length := -1
		for first := true; ; first = false {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return nil, err
			}
			if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
				return nil, fmt.Errorf("answered %q", line)
			}
			if len(line) == 2 {
				break
			}
			if k, v, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(k, []byte("Content-Length")) {
				if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
					return nil, err
				}
			}
		}
		if length < 0 {
			return nil, errors.New("answered without a length")
		}
		if _, err := in.Discard(length); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begun))
	}
	return took, nil
}

// cpuTime is what a process and its children have used.
func cpuTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	sum := time.Duration(user+system) * time.Second / 100
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	for one := range strings.FieldsSeq(string(children)) {
		n, err := strconv.Atoi(one)
		if err != nil {
			return 0, err
		}
		d, err := cpuTime(n)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

func middle(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(list))
	return s[len(s)/2]
}

func ports(n int) ([]string, error) {
	var list []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		list = append(list, l.Addr().String())
	}
	return list, nil
}

func answers(addr string) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := drive(addr, "/small", 1, 1)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// serveTarget answers as cheaply as can be: what is measured lies in front of it.
func serveTarget(ctx context.Context, addr string) error {
	answer := map[string][]byte{}
	for path, n := range map[string]int{"/small": 100, "/large": 20 << 10} {
		answer[path] = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\nDate: Sun, 29 Nov 2026 12:00:00 GMT\r\nServer: target\r\n\r\n%s", n, strings.Repeat("x", n))
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			in := bufio.NewReader(c)
			for {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				if _, err := c.Write(answer[r.URL.Path]); err != nil {
					return
				}
			}
		}()
	}
}

// serveEdge is Tender's proxy with one route: "own", with the standard library's
// server in "front", or all of it, "std".
func serveEdge(ctx context.Context, listen, target, role string) error {
	s, err := proxy.New(proxy.Options{HTTP: []string{listen}, Std: role == "std", StdFront: role != "own", Drain: time.Second})
	if err != nil {
		return err
	}
	err = s.Set(proxy.Table{Format: proxy.Format, Version: 1, Routes: []proxy.Route{{
		ID: "bench/web", Project: "bench", Path: "/",
		Groups: []proxy.Group{{Aim: "web", Revision: "1", Weight: 1, Targets: []proxy.Target{{ID: "1", Name: "web-1", Address: target}}}},
	}}})
	if err != nil {
		return err
	}
	if path := os.Getenv("BENCH_PROFILE"); path != "" && role == "own" {
		stop, err := profile(path)
		if err != nil {
			return err
		}
		defer stop()
	}
	return s.Run(ctx)
}

// profile writes where a child spends its time, for BENCH_PROFILE=FILE.
func profile(path string) (stop func(), err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}
