package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	tender "github.com/tenderhq/tender"
)

// tlsRig is a Server with HTTPS.
type tlsRig struct {
	*Server
	dir, address string
	stop         func()
}

func serveTLS(t *testing.T, dir string, routes ...Route) *tlsRig {
	t.Helper()
	return serveTLSBy(t, Options{Dir: dir}, routes...)
}

func serveTLSBy(t *testing.T, o Options, routes ...Route) *tlsRig {
	t.Helper()
	r := &tlsRig{dir: o.Dir, address: nowhere(t)}
	o.HTTPS = []string{r.address}
	var err error
	if r.Server, err = New(o); err != nil {
		t.Fatal(err)
	}
	r.table(t, 1, routes...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	ended := false
	r.stop = func() {
		cancel()
		if !ended {
			ended = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(r.stop)
	until(t, "https is listened on", func() bool {
		c, err := net.Dial("tcp", r.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return r
}

func (r *tlsRig) table(t *testing.T, version uint64, routes ...Route) {
	t.Helper()
	if err := r.Set(Table{Format: Format, Version: version, Routes: routes}); err != nil {
		t.Fatal(err)
	}
}

// shake says which certificate a client is shown for a name, and what it speaks.
func (r *tlsRig) shake(name string, roots *x509.CertPool) (*x509.Certificate, string, error) {
	c, err := tls.Dial("tcp", r.address, &tls.Config{ServerName: name, RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		return nil, "", err
	}
	defer c.Close()
	s := c.ConnectionState()
	return s.PeerCertificates[0], s.NegotiatedProtocol, nil
}

func rootsOf(t *testing.T, path string) *x509.CertPool {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(raw) {
		t.Fatalf("%s is no certificate", path)
	}
	return p
}

func internalRoute(hosts ...string) Route {
	return Route{ID: "shop/" + hosts[0] + "/", Project: "shop", Hosts: hosts, Path: "/", RouteOptions: tender.RouteOptions{TLS: "internal"}}
}

func TestTheOwnAuthorityVouchesForItsHosts(t *testing.T) {
	dir := t.TempDir()
	r := serveTLS(t, dir, internalRoute("shop.test", "*.shop.test"))
	roots := rootsOf(t, filepath.Join(dir, "ca.pem"))
	first, spoken, err := r.shake("shop.test", roots)
	if err != nil || spoken != "h2" {
		t.Fatalf("%s %v", spoken, err)
	}
	if left := time.Until(first.NotAfter); left > leafLife || left < leafLife-time.Hour {
		t.Errorf("it is good for %s", left)
	}
	if _, _, err := r.shake("de.shop.test", roots); err != nil {
		t.Errorf("below the wildcard: %v", err)
	}
	if _, _, err := r.shake("SHOP.test", roots); err != nil {
		t.Errorf("in capitals: %v", err)
	}
	for _, name := range []string{"other.test", "a.b.shop.test", ""} {
		_, _, err := r.shake(name, roots)
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := tls.Dial("tcp", r.address, &tls.Config{ServerName: "shop.test", RootCAs: roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	key, err := os.Stat(filepath.Join(dir, "ca.key"))
	if err != nil || key.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v %v", key.Mode(), err)
	}
	// Hosts come and go with the table.
	r.table(t, 2, internalRoute("shop.test"), internalRoute("new.test"))
	if _, _, err := r.shake("new.test", roots); err != nil {
		t.Errorf("a new host: %v", err)
	}
	if _, _, err := r.shake("de.shop.test", roots); err == nil {
		t.Error("a host that has left is vouched for")
	}
	r.stop()
	// The next one has the same authority and the same certificate, before it serves.
	again := serveTLS(t, dir, internalRoute("shop.test"))
	second, _, err := again.shake("shop.test", roots)
	if err != nil || !second.Equal(first) {
		t.Errorf("after a restart: %v", err)
	}
}

func TestAnAuthorityIsMadeAnewOnlyNearItsEnd(t *testing.T) {
	dir := t.TempDir()
	a, err := openAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := openAuthority(dir)
	if err != nil || !a.cert.Equal(b.cert) || a.IssuerKey() != b.IssuerKey() {
		t.Fatalf("another authority: %v", err)
	}
	old, err := newAuthority(time.Now().Add(-rootLife + 24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := old.keep(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	c, err := openAuthority(dir)
	if err != nil || c.cert.Equal(old.cert) || time.Until(c.cert.NotAfter) < rootLeft {
		t.Errorf("near its end: %v", err)
	}
	// A damaged one is not replaced in silence: clients trust it.
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openAuthority(dir); err == nil {
		t.Error("a damaged authority is opened")
	}
}

// writePair makes a certificate in files, as some other tool would.
func writePair(t *testing.T, a *authority, dir, name string) (certFile, keyFile string) {
	t.Helper()
	now := time.Now()
	return writeLeaf(t, a, dir, x509.Certificate{DNSNames: []string{name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(leafLife)})
}

// writeLeaf writes a certificate of what leaf says, and its key.
func writeLeaf(t *testing.T, a *authority, dir string, leaf x509.Certificate) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.SerialNumber, err = serialNumber(); err != nil {
		t.Fatal(err)
	}
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, &leaf, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if err := os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile
}

func TestACertificateInFilesIsReadAgainWhenItChanges(t *testing.T) {
	a, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := writePair(t, a, dir, "shop.test")
	route := Route{ID: "shop/shop.test/", Project: "shop", Hosts: []string{"shop.test"}, Path: "/", RouteOptions: tender.RouteOptions{CertFile: cert, KeyFile: key}}
	r := serveTLS(t, t.TempDir(), route)
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	first, _, err := r.shake("shop.test", roots)
	if err != nil {
		t.Fatal(err)
	}
	f := (*r.certs.said.Load())["shop.test"].file
	now := time.Now()
	look := func() *x509.Certificate {
		t.Helper()
		now = now.Add(fileCheck)
		c, err := x509.ParseCertificate(f.get(now).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	// Half of a renewal: the old one serves on.
	if err := os.WriteFile(cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !look().Equal(first) {
		t.Error("a broken file replaced the certificate")
	}
	writePair(t, a, dir, "shop.test")
	if look().Equal(first) {
		t.Error("the new certificate is not shown")
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if look() == nil {
		t.Error("a missing file took the certificate away")
	}
}

func TestWhoVouches(t *testing.T) {
	for _, c := range []struct {
		host, tls, directory, want string
	}{
		{"shop.example.com", "", "", "public"},
		{"shop.example.com", "auto", "", "public"},
		{"shop.example.com", "internal", "", "internal"},
		{"*.example.com", "auto", "", "each name below"},
		{"*.example.com", "internal", "", "internal"},
		{"localhost", "auto", "", "internal"},
		{"10.0.0.8", "auto", "", "internal"},
		{"shop.internal", "auto", "", "internal"},
		{"shop.internal", "auto", "https://ca.internal/directory", "public"},
		{"10.0.0.8", "auto", "https://ca.internal/directory", "internal"},
	} {
		s := newCerts(Options{ACME: ACME{Directory: c.directory}})
		s.public, s.internal, s.demand = new(certmagic.Config), new(certmagic.Config), new(certmagic.Config)
		got := map[*certmagic.Config]string{s.public: "public", s.internal: "internal", s.demand: "each name below"}[s.voucher(Route{RouteOptions: tender.RouteOptions{TLS: c.tls}}, c.host)]
		if got != c.want {
			t.Errorf("%s, tls %q, directory %q: %s, want %s", c.host, c.tls, c.directory, got, c.want)
		}
	}
}
