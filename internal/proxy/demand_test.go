package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// Clients choose the names below a wildcard: how many certificates they can cause is bounded.
func TestNamesBelowAWildcardAreBounded(t *testing.T) {
	var a demands
	now := time.Now()
	for i := range demandNames {
		if err := a.allow("*.shop.test", fmt.Sprintf("n%d.shop.test", i), now.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	late := now.Add(demandNames * time.Minute)
	if err := a.allow("*.shop.test", "more.shop.test", late); err == nil {
		t.Error("one more is taken")
	}
	if p := a.problem("*.shop.test", late); !strings.HasPrefix(p, "20 new names were asked for in 1h0m0s") {
		t.Errorf("reported %q", p)
	}
	if err := a.allow("*.other.test", "n.other.test", late); err != nil {
		t.Errorf("another wildcard: %v", err)
	}
	if err := a.allow("*.shop.test", "more.shop.test", now.Add(demandPer)); err != nil {
		t.Errorf("an hour after the first: %v", err)
	}
	// One that was refused is left alone for longer each time.
	for n, wait := range []time.Duration{demandAgain, 2 * demandAgain, 4 * demandAgain} {
		late = late.Add(10 * time.Hour)
		a.refuse("*.shop.test", "bad.shop.test", "no such name", late)
		if err := a.allow("*.shop.test", "bad.shop.test", late.Add(wait-time.Second)); err == nil || !strings.Contains(err.Error(), "no such name") {
			t.Errorf("%d: %v", n, err)
		}
		if err := a.allow("*.shop.test", "bad.shop.test", late.Add(wait)); err != nil {
			t.Errorf("%d, later: %v", n, err)
		}
	}
	if p := a.problem("*.shop.test", late); p != "bad.shop.test has none: no such name" {
		t.Errorf("reported %q", p)
	}
	a.granted("bad.shop.test")
	if p := a.problem("*.shop.test", late); p != "" {
		t.Errorf("reported %q", p)
	}
	for i := range 3 * demandKnown {
		a.refuse("*.shop.test", fmt.Sprintf("x%d.shop.test", i), "no", late.Add(time.Duration(i)))
	}
	if len(a.refused) != demandKnown || a.refused[fmt.Sprintf("x%d.shop.test", 3*demandKnown-1)].times != 1 {
		t.Errorf("%d are remembered", len(a.refused))
	}
	for range demandWaiting {
		if !a.enter() {
			t.Fatal("too few may wait")
		}
	}
	if a.enter() {
		t.Error("any number may wait")
	}
}

// A name below a wildcard has that of the nearest one.
func TestTheNearestWildcardVouches(t *testing.T) {
	c := newCerts(Options{})
	demand, internal, exact := &certSource{demand: true, config: new(certmagic.Config)}, &certSource{config: new(certmagic.Config)}, &certSource{config: new(certmagic.Config)}
	c.said.Store(&map[string]*certSource{"*.shop.test": demand, "*.in.shop.test": internal, "a.shop.test": exact})
	for name, want := range map[string]*certSource{
		"a.shop.test": exact, "b.shop.test": demand, "x.y.shop.test": demand, "a.in.shop.test": internal, "a.b.in.shop.test": nil,
		"shop.test": nil, "in.shop.test": demand, "other.test": nil, "": nil,
	} {
		if c.find(name) != want {
			t.Errorf("%q has another", name)
		}
	}
	if got := c.wildcardOf("x.y.shop.test"); got != "*.shop.test" {
		t.Errorf("x.y.shop.test is below %q", got)
	}
	for _, name := range []string{"a.in.shop.test", "other.test"} {
		if c.decide(t.Context(), name) == nil {
			t.Errorf("%s may have one", name)
		}
	}
	if err := c.heard(t.Context(), "cert_failed", map[string]any{"identifier": "b.shop.test", "error": errors.New("not you")}); err != nil {
		t.Error(err)
	}
	if got := c.demands.problem("*.shop.test", time.Now()); got != "b.shop.test has none: not you" {
		t.Errorf("reported %q", got)
	}
}

// slowIssuer vouches for nobody before its time.
type slowIssuer struct{ asked chan struct{} }

func (i slowIssuer) Issue(ctx context.Context, _ *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	i.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (slowIssuer) IssuerKey() string { return "slow" }

// A client was cut off after 10 seconds of a handshake that waited for its certificate, not for him.
func TestAHandshakeMayWaitForItsCertificate(t *testing.T) {
	s, err := New(Options{Dir: t.TempDir(), HTTPS: []string{"127.0.0.1:0"}, ACME: ACME{Directory: "https://acme.invalid/"}})
	if err != nil {
		t.Fatal(err)
	}
	r := to("127.0.0.1:1")
	r.Hosts, r.TLS = []string{"*.shop.test"}, "auto"
	s.certs.set(tableOf(r))
	slow := slowIssuer{make(chan struct{}, 16)}
	s.certs.demand.Issuers = []certmagic.Issuer{slow}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.certs.start(ctx)
	near, far := net.Pipe()
	defer near.Close()
	g := &guarded{Conn: far, home: &s.active}
	l := s.newLine(g)
	g.line = l
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.serve(s.certs.config())
	}()
	go func() {
		_ = tls.Client(near, &tls.Config{ServerName: "a.shop.test", InsecureSkipVerify: true}).HandshakeContext(ctx) //nolint:gosec // it gets none
	}()
	<-slow.asked
	now := time.Now()
	l.look(now)
	if l.look(now.Add(headTime + time.Second)); l.stage.Load()&atMask == atEnd {
		t.Error("it was cut off")
	}
	cancel()
	s.certs.stop()
	<-ended
}

// A name below a wildcard whose route had gone was renewed for as long as the edge ran.
func TestANameBelowAWildcardIsRenewedWhenItIsAskedFor(t *testing.T) {
	c := newCerts(Options{Dir: t.TempDir(), HTTPS: []string{"127.0.0.1:0"}})
	defer c.stop()
	r := to("127.0.0.1:1")
	r.Hosts, r.TLS = []string{"*.example.org", "www.example.com"}, "auto"
	for _, table := range []Table{tableOf(r), tableOf()} {
		c.set(table)
		for name, demand := range map[string]bool{"a.example.org": true, "www.example.com": len(table.Routes) == 0} {
			m, err := c.keeper(certmagic.Certificate{Names: []string{name}})
			if err != nil || (m.OnDemand != nil) != demand {
				t.Errorf("%d routes: %s is renewed by itself: %t, %v", len(table.Routes), name, m.OnDemand == nil, err)
			}
		}
	}
}
