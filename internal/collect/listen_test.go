package collect

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"logs.example"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// One address takes what comes over TLS (RFC 5425 for syslog) and what comes without.
func TestSendersMaySpeakTLS(t *testing.T) {
	c, s := outsideOf(t)
	own, pool := certificate(t)
	c.o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	for protocol, message := range map[string]string{
		"syslog": "26 <12>1 - h1 app1 - - - one\n",
		"gelf":   `{"version":"1.1","host":"h2","short_message":"two","_service":"app2"}` + "\x00",
		"fluent": "\x93\xa4app3\xce\x00\x00\x00\x00\x81\xa3log\xa5three",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		l.Close()
		work.Go(func() {
			if err := c.Listen(ctx, protocol, address); err != nil {
				t.Errorf("%s: %v", protocol, err)
			}
		})
		for _, sealed := range []bool{true, false} {
			var conn net.Conn
			for conn == nil && ctx.Err() == nil {
				conn, _ = net.Dial("tcp", address)
			}
			t.Cleanup(func() { conn.Close() })
			if sealed {
				conn = tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: "logs.example"})
			}
			if _, err := io.WriteString(conn, message); err != nil {
				t.Errorf("%s, TLS %v: %v", protocol, sealed, err)
			}
		}
	}
	s.await(t, 6)
}

// far is a connection from the open internet.
type far struct{ net.Conn }

func (far) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 5} }

func TestInTheClearComesFromPrivateNetworks(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "10.1.2.3:4": true, "172.17.0.2:9": true, "192.168.0.9:1": true, "[fd00::7]:1": true, "[fe80::1%eth0]:2": true,
		"100.64.3.2:1": true, "[::ffff:10.0.0.1]:3": true, "203.0.113.7:5": false, "8.8.8.8:53": false, "[2001:db8::1]:5": false, "172.32.0.1:1": false, "100.128.0.1:1": false,
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if near(a) != want {
			t.Errorf("near(%s) is %v", address, !want)
		}
	}
	c, _ := outsideOf(t)
	for message, want := range map[string]string{
		"<11>1 - h1 app1 - - - one\n": "not from a private network",
		"\x16\x03\x01":                "tls.cert",
	} {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.WriteString(theirs, message) }()
		if err := c.serve(t.Context(), "syslog", far{ours}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", message, err)
		}
		theirs.Close()
		ours.Close()
	}
}
