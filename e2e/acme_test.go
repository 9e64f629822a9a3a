package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/proxy"
)

// unused is an address where nothing listens.
func unused(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePort(t))
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port
}

// soon waits for a state, however long a busy machine takes.
func soon(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// names answers every question for an address with 127.0.0.1, over TCP as Pebble asks.
func names(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		for _, one := range q.Question {
			if one.Qtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: one.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1)})
			}
		}
		_ = w.WriteMsg(m) // who does not hear asks again
	})}
	done := make(chan error, 1)
	go func() { done <- s.ActivateAndServe() }()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// selfSigned writes a certificate for 127.0.0.1.
func selfSigned(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, x, x, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "authority.pem"), filepath.Join(dir, "authority.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// pebble runs the authority. It asks for proofs at the two ports.
func pebble(t *testing.T, program, dir string, httpPort, tlsPort int) (directory, roots string, issuers func() *x509.CertPool) {
	t.Helper()
	cert, key := selfSigned(t, dir)
	listen, manage := unused(t), unused(t)
	config := filepath.Join(dir, "pebble.json")
	raw, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": manage, "certificate": cert, "privateKey": key, "httpPort": httpPort, "tlsPort": tlsPort,
		"domainBlocklist": []string{"refused.example.com"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-config", config, "-dnsserver", names(t))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // of a signal
	})
	trust := x509.NewCertPool()
	own, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	trust.AppendCertsFromPEM(own)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust}, DisableKeepAlives: true}}
	get := func(url string) ([]byte, error) {
		res, err := client.Get(url)
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		return io.ReadAll(res.Body)
	}
	soon(t, "the authority answers", func() error {
		_, err := get("https://" + listen + "/dir")
		return err
	})
	return "https://" + listen + "/dir", cert, func() *x509.CertPool {
		raw, err := get("https://" + manage + "/roots/0")
		if err != nil {
			t.Fatal(err)
		}
		p := x509.NewCertPool()
		p.AppendCertsFromPEM(raw)
		return p
	}
}

// A route with tls: auto must get its certificate from an ACME authority, by
// either way of proving a name, and keep it over a hand-over; a name below a
// wildcard when it is asked for. A name that is refused must be reported.
func TestACertificateMustComeByACME(t *testing.T) {
	t.Parallel()
	if os.Getenv("TENDER_E2E") == "" {
		t.Skip("builds an ACME authority: TENDER_E2E=1")
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "pebble"), "github.com/letsencrypt/pebble/v2/cmd/pebble")
	build.Dir, build.Env = "pebble", append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the ACME authority cannot be built here, which takes its modules: %v\n%s", err, out)
	}
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "served by ", r.Header.Get("X-Forwarded-Proto"))
	}))
	defer served.Close()
	for _, way := range []string{"http-01", "tls-alpn-01"} {
		t.Run(way, func(t *testing.T) {
			// The path of a unix socket has room for about a hundred bytes.
			dir, err := os.MkdirTemp("", "acme")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			plain, secure := unused(t), unused(t)
			httpPort, tlsPort := portOf(t, plain), portOf(t, secure)
			args := []string{"edge", "--dir", filepath.Join(dir, "edge"), "--socket", filepath.Join(dir, "s"), "--https", secure, "--acme-email", "ops@example.com"}
			if way == "http-01" {
				// Nobody answers the other way.
				tlsPort = portOf(t, unused(t))
				args = append(args, "--http", plain)
			}
			directory, roots, issuers := pebble(t, filepath.Join(bin, "pebble"), dir, httpPort, tlsPort)
			args = append(args, "--acme-directory", directory, "--acme-roots", roots)
			start := func() *exec.Cmd {
				cmd := exec.Command(binary, args...)
				cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					_ = cmd.Process.Kill() // it may have ended
					_ = cmd.Wait()         // again, perhaps
				})
				soon(t, "the edge answers", func() error {
					s, err := edge.NewClient(filepath.Join(dir, "s")).Status(t.Context())
					if err == nil && s.PID != cmd.Process.Pid {
						err = fmt.Errorf("process %d answers", s.PID)
					}
					return err
				})
				return cmd
			}
			first := start()
			table := proxy.Table{Format: proxy.Format, Version: 1}
			for _, host := range []string{"shop.example.com", "*.shop.example.com", "refused.example.com"} {
				table.Routes = append(table.Routes, proxy.Route{
					ID: "shop/" + host + "/", Project: "shop", Hosts: []string{host}, Path: "/", RouteOptions: tender.RouteOptions{TLS: "auto"},
					Groups: []proxy.Group{{Aim: "web", Revision: "aaa", Weight: 1, Targets: []proxy.Target{{ID: "one", Name: "web-1", Address: served.Listener.Addr().String()}}}},
				})
			}
			if err := edge.NewClient(filepath.Join(dir, "s")).Set(t.Context(), edge.Table{Format: edge.Format, Proxy: table}); err != nil {
				t.Fatal(err)
			}
			certificate := func(host string) proxy.CertReport {
				t.Helper()
				r, err := edge.NewClient(filepath.Join(dir, "s")).Report(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, route := range r.Routes {
					if route.ID == "shop/"+host+"/" && len(route.Certificates) == 1 {
						return route.Certificates[0]
					}
				}
				t.Fatalf("nothing is reported of %s", host)
				return proxy.CertReport{}
			}
			ask := func(host string, shown **x509.Certificate) error {
				client := &http.Client{Transport: &http.Transport{
					TLSClientConfig: &tls.Config{RootCAs: issuers(), ServerName: host}, DisableKeepAlives: true, ForceAttemptHTTP2: true,
				}}
				req, err := http.NewRequest("GET", "https://"+secure, nil)
				if err != nil {
					return err
				}
				req.Host = host
				res, err := client.Do(req)
				if err != nil {
					return err
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				*shown = res.TLS.PeerCertificates[0]
				if err == nil && (string(body) != "served by https" || res.ProtoMajor != 2) {
					err = fmt.Errorf("%s %q", res.Proto, body)
				}
				return err
			}
			shown := map[string]*x509.Certificate{}
			for _, host := range []string{"shop.example.com", "de.shop.example.com", "a.b.shop.example.com"} {
				var c *x509.Certificate
				soon(t, host+" is served over https", func() error { return ask(host, &c) })
				shown[host] = c
				if len(c.DNSNames) != 1 || c.DNSNames[0] != host {
					t.Errorf("the certificate of %s is for %q", host, c.DNSNames)
				}
			}
			for _, name := range []string{"other.example.com", "refused.example.com"} {
				if _, err := tls.Dial("tcp", secure, &tls.Config{ServerName: name, RootCAs: issuers()}); err == nil {
					t.Errorf("%s gets a certificate", name)
				}
			}
			soon(t, "that a name is refused is reported", func() error {
				if c := certificate("refused.example.com"); !strings.Contains(c.Problem, "there is none: ") || c.Ends != 0 {
					return fmt.Errorf("%+v", c)
				}
				return nil
			})
			if c := certificate("shop.example.com"); c.Problem != "" || c.Ends != shown["shop.example.com"].NotAfter.UnixMilli() {
				t.Errorf("reported %+v", c)
			}
			if c := certificate("*.shop.example.com"); c.Problem != "" {
				t.Errorf("reported %+v", c)
			}
			second := start()
			for host, before := range shown {
				var after *x509.Certificate
				if err := ask(host, &after); err != nil || !after.Equal(before) {
					t.Errorf("%s after the hand-over: %v", host, err)
				}
			}
			if err := first.Wait(); err != nil {
				t.Errorf("the first edge: %v", err)
			}
			if err := second.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := second.Wait(); err != nil {
				t.Errorf("the second edge: %v", err)
			}
		})
	}
}
