package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/proxy"
)

// What lies around a request: TLS with connections that stay and with new ones,
// HTTP/2, connections that are idle, and a port of TCP. Each proxy has the same
// certificate and the same two targets; they take turns.
//
//	go run ./bench wire [-runs 5] [-requests 10000] [-clients 32] [-idle 10000] [-bytes 1073741824]
func wire(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("wire", flag.ExitOnError)
	runs := set.Int("runs", 5, "runs of each measurement; the median is shown")
	requests := set.Int("requests", 10_000, "requests of each run; a tenth of that with new connections")
	clients := set.Int("clients", 32, "that ask at the same time")
	idle := set.Int("idle", 10_000, "connections over TLS that have asked once and stay open")
	size := set.Int64("bytes", 1<<30, "through the port of TCP")
	role := set.String("role", "", "of a child: source or edge")
	listen := set.String("listen", "", "of a child: addresses with commas")
	target := set.String("target", "", "of a child: the same")
	dir := set.String("dir", "", "of a child: where the certificate is")
	if err := set.Parse(args); err != nil {
		return err
	}
	switch *role {
	case "source":
		return serveSource(ctx, *listen)
	case "edge":
		return serveWire(ctx, strings.Split(*listen, ","), strings.Split(*target, ","), *dir)
	}
	w := wiring{clients: *clients}
	var err error
	if w.dir, err = os.MkdirTemp("", "tbw-"); err != nil {
		return err
	}
	defer os.RemoveAll(w.dir)
	if w.roots, err = certificate(w.dir); err != nil {
		return err
	}
	peers, back, err := w.peers(ctx)
	if err != nil {
		return err
	}
	for _, cmd := range back {
		if err := cmd.Start(); err != nil {
			return err
		}
		defer ended(cmd)
	}
	for _, p := range peers {
		var text bytes.Buffer
		p.cmd.Stderr = &text
		if err := p.cmd.Start(); err != nil {
			return fmt.Errorf("%s: %w (apt-get install haproxy nginx libnginx-mod-stream caddy)", p.name, err)
		}
		defer ended(p.cmd)
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			err := w.ask(p.addr, 1)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %w\n%s", p.name, err, text.String())
			}
		}
	}
	fmt.Printf("machine: %d cores, load %s; medians of %d runs\n", runtime.NumCPU(), load(), *runs)
	for _, m := range []struct {
		what, unit string
		n          float64 // that the CPU time is divided by
		do         func(p wired) error
	}{
		{"TLS, kept", "CPU us/request", float64(*requests), func(p wired) error { return w.kept(p.addr, *requests) }},
		{"TLS, new", "CPU us/connection", float64(*requests / 10), func(p wired) error { return w.fresh(p.addr, *requests/10) }},
		{"HTTP/2", "CPU us/request", float64(*requests), func(p wired) error { return w.two(p.addr, *requests) }},
		{"TCP", "CPU us/MB", float64(*size) / (1 << 20), func(p wired) error { return w.pour(p.tcp, *size) }},
	} {
		cpu := map[string][]float64{}
		for range *runs {
			for _, p := range peers {
				if m.what == "TCP" && p.tcp == "" {
					continue
				}
				before, err := cpuTime(p.cmd.Process.Pid)
				if err == nil {
					err = m.do(p)
				}
				if err != nil {
					return fmt.Errorf("%s: %s: %w", p.name, m.what, err)
				}
				after, err := cpuTime(p.cmd.Process.Pid)
				if err != nil {
					return err
				}
				cpu[p.name] = append(cpu[p.name], float64((after-before).Microseconds())/m.n)
			}
		}
		fmt.Printf("\n%-14s %18s %12s %12s\n", m.what, m.unit, "of haproxy", "of caddy")
		for _, p := range peers {
			if list := cpu[p.name]; len(list) > 0 {
				fmt.Printf("%-14s %18.1f %12s %12s\n", p.name, middle(list), of(list, cpu["haproxy"]), of(list, cpu["caddy"]))
			}
		}
	}
	fmt.Printf("\n%-14s %18s\n", fmt.Sprintf("%d idle, TLS", *idle), "KB each")
	for _, p := range peers {
		each, err := w.hold(p, *idle)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Printf("%-14s %18.1f\n", p.name, each)
	}
	return nil
}

// of is the ratio of two medians.
func of(list, base []float64) string {
	if len(base) == 0 {
		return "-"
	}
	return strconv.FormatFloat(middle(list)/middle(base), 'f', 2, 64)
}

// wiring is the client of all of them.
type wiring struct {
	dir     string
	roots   *x509.CertPool
	clients int
}

// wired is one proxy.
type wired struct {
	name, addr, tcp string // https, and a port of TCP; "": it has none
	cmd             *exec.Cmd
}

func ended(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}

func (w *wiring) peers(ctx context.Context) (peers []wired, back []*exec.Cmd, err error) {
	at, err := ports(10)
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	web, source := at[0], at[1]
	file := func(name, text string, facts ...any) string {
		path := filepath.Join(w.dir, name)
		err = errors.Join(err, os.WriteFile(path, []byte(fmt.Sprintf(text, facts...)), 0o600))
		return path
	}
	command := func(program string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env = append(os.Environ(), "HOME="+w.dir, "XDG_DATA_HOME="+w.dir, "XDG_CONFIG_HOME="+w.dir)
		return cmd
	}
	back = []*exec.Cmd{
		command(self, "proxy", "-role", "target", "-listen", web), command(self, "wire", "-role", "source", "-listen", source),
	}
	peers = []wired{
		{"haproxy", at[2], at[3], command("haproxy", "-q", "-db", "-f", file("haproxy.cfg", `
global
  no strict-limits
  maxconn 12000
  maxpipes 100
defaults
  timeout client 300s
  timeout server 300s
  timeout connect 5s
  timeout http-keep-alive 300s
frontend f
  mode http
  option forwardfor
  bind %s ssl crt %s/both.pem alpn h2,http/1.1
  default_backend b
backend b
  mode http
  server s %s
listen t
  mode tcp
  option splice-auto
  bind %s
  server s %s
`, at[2], w.dir, web, at[3], source))},
		{"nginx", at[4], at[5], command("nginx", "-e", filepath.Join(w.dir, "error.log"), "-c", file("nginx.conf", `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
worker_processes auto;
pid %[1]s/nginx.pid;
events { worker_connections 30000; }
http {
  access_log off;
  keepalive_requests 100000000; keepalive_timeout 300s;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/temp; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  upstream b { server %[2]s; keepalive 64; keepalive_requests 100000000; }
  server {
    listen %[3]s ssl http2;
    ssl_certificate %[1]s/both.pem; ssl_certificate_key %[1]s/both.pem;
    location / {
      proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
    }
  }
}
stream { server { listen %[4]s; proxy_pass %[5]s; } }
`, w.dir, web, at[4], at[5], source))},
		{"caddy", at[6], "", command("caddy", "run", "--adapter", "caddyfile", "--config", file("Caddyfile", `
{
	admin off
	auto_https off
	log default {
		output discard
	}
}
https://%s {
	tls %[2]s/both.pem %[2]s/both.pem
	reverse_proxy %[3]s
}
`, at[6], w.dir, web))},
		{"tender", at[8], at[9], command(self, "wire", "-role", "edge", "-listen", at[8]+","+at[9], "-target", web+","+source, "-dir", w.dir)},
	}
	return peers, back, err
}

// certificate writes both.pem and what trusts it.
func certificate(dir string) (*x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		return nil, err
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	both := append(cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})...)
	return roots, os.WriteFile(filepath.Join(dir, "both.pem"), both, 0o600)
}

func (w *wiring) secure(addr string) (net.Conn, error) {
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: w.roots, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}})
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(5 * time.Minute))
}

// ask asks n times on one new connection.
func (w *wiring) ask(addr string, n int) error {
	c, err := w.secure(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = askOn(c, addr, "/small", n)
	return err
}

// each shares n out among the clients.
func (w *wiring) each(n int, do func(n int) error) error {
	failed := make([]error, w.clients)
	var all sync.WaitGroup
	for i := range w.clients {
		all.Go(func() { failed[i] = do(n / w.clients) })
	}
	all.Wait()
	return errors.Join(failed...)
}

func (w *wiring) kept(addr string, requests int) error {
	return w.each(requests, func(n int) error { return w.ask(addr, n) })
}

func (w *wiring) fresh(addr string, connections int) error {
	return w.each(connections, func(n int) error {
		for range n {
			if err := w.ask(addr, 1); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *wiring) two(addr string, requests int) error {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	t := &http.Transport{Protocols: &protocols, TLSClientConfig: &tls.Config{RootCAs: w.roots}, DisableCompression: true}
	defer t.CloseIdleConnections()
	client := &http.Client{Transport: t}
	return w.each(requests, func(n int) error {
		for range n {
			a, err := client.Get("https://" + addr + "/small")
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, a.Body)
			a.Body.Close()
			if err != nil || a.StatusCode != 200 || a.ProtoMajor != 2 {
				return fmt.Errorf("%s %s: %w", a.Proto, a.Status, err)
			}
		}
		return nil
	})
}

// pour takes size bytes over four connections.
func (w *wiring) pour(addr string, size int64) error {
	failed := make([]error, 4)
	var all sync.WaitGroup
	for i := range failed {
		all.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				failed[i] = err
				return
			}
			defer c.Close()
			if _, failed[i] = fmt.Fprintf(c, "%d\n", size/4); failed[i] != nil {
				return
			}
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 1<<20))
			if n != size/4 {
				failed[i] = fmt.Errorf("%d bytes of %d came: %w", n, size/4, err)
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// hold returns what a connection costs that has asked once and stays, in KB of the
// process's own memory. What the kernel keeps for a socket is not in it.
func (w *wiring) hold(p wired, n int) (float64, error) {
	before, err := grown(p.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	err = w.each(n, func(n int) error {
		for range n {
			c, err := w.secure(p.addr)
			if err != nil {
				return err
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			if _, err := askOn(c, p.addr, "/small", 1); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	time.Sleep(5 * time.Second) // a collector of garbage may have its turn
	after, err := grown(p.cmd.Process.Pid)
	return (after - before) * 1024 / float64(len(open)), err
}

// grown is the memory of a process and its children, in MB.
func grown(pid int) (float64, error) {
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
		more, err := grown(n)
		if err != nil {
			return 0, err
		}
		sum += more
	}
	return sum, nil
}

// serveSource sends as many bytes as a line asks for.
func serveSource(ctx context.Context, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	chunk := make([]byte, 1<<20)
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
			var n int
			if _, err := fmt.Fscanln(c, &n); err != nil {
				return
			}
			for ; n > 0; n -= min(n, len(chunk)) {
				if _, err := c.Write(chunk[:min(n, len(chunk))]); err != nil {
					return
				}
			}
		}()
	}
}

// serveWire is Tender's proxy with one route over TLS and one port.
func serveWire(ctx context.Context, listen, target []string, dir string) error {
	s, err := proxy.New(proxy.Options{HTTPS: listen[:1], Drain: time.Second})
	if err != nil {
		return err
	}
	group := func(address string) []proxy.Group {
		return []proxy.Group{{Aim: "web", Revision: "1", Weight: 1, Targets: []proxy.Target{{ID: address, Name: "web-1", Address: address}}}}
	}
	pem := filepath.Join(dir, "both.pem")
	err = s.Set(proxy.Table{
		Format: proxy.Format, Version: 1,
		Routes: []proxy.Route{{ID: "bench/web", Project: "bench", Path: "/", RouteOptions: tender.RouteOptions{CertFile: pem, KeyFile: pem}, Groups: group(target[0])}},
		Ports:  []proxy.Port{{ID: "bench/port", Project: "bench", Service: "web", Address: listen[1], Protocol: "tcp", Groups: group(target[1])}},
	})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
