package proxy

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	tender "github.com/tenderhq/tender"
)

// responder is an authority's, which says what it is told to.
type responder struct {
	*httptest.Server
	authority *authority

	mu     sync.Mutex
	status int // of all certificates; -1: it breaks
	asked  int
	until  time.Time
	by     *authority // who signs
}

func newResponder(t *testing.T, a *authority) *responder {
	r := &responder{authority: a, by: a, until: time.Now().Add(time.Hour)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/issuer" {
			w.Write(a.cert.Raw)
			return
		}
		raw, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		question, err := ocsp.ParseRequest(raw)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked++
		if err != nil || r.status < 0 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		said, err := ocsp.CreateResponse(a.cert, r.by.cert, ocsp.Response{
			Status: r.status, SerialNumber: question.SerialNumber, ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: r.until,
			RevokedAt: time.Now(), IssuerHash: crypto.SHA1,
		}, r.by.key)
		if err != nil {
			t.Error(err)
		}
		w.Write(said)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *responder) says(change func(r *responder)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

// A certificate in files comes with its authority's word, over restarts, for as long
// as that holds; a revoked one comes without, and is told of.
func TestCertificatesInFilesAreStapled(t *testing.T) {
	a, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o := newResponder(t, a)
	cert, key := writeLeaf(t, a, t.TempDir(), x509.Certificate{
		DNSNames: []string{"shop.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		OCSPServer: []string{o.URL}, IssuingCertificateURL: []string{o.URL + "/issuer"},
	})
	route := Route{ID: "shop/shop.test/", Project: "shop", Hosts: []string{"shop.test"}, Path: "/", RouteOptions: tender.RouteOptions{CertFile: cert, KeyFile: key}}
	dir := t.TempDir()
	r := serveTLS(t, dir, route)
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	shown := func() []byte {
		t.Helper()
		c, err := tls.Dial("tcp", r.address, &tls.Config{ServerName: "shop.test", RootCAs: roots})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().OCSPResponse
	}
	file := func() *certFile { return (*r.certs.said.Load())["shop.test"].file }
	// again has it asked once more, now.
	again := func() {
		f := file()
		f.mu.Lock()
		f.ocsp.next = time.Time{}
		f.mu.Unlock()
		r.certs.mu.Lock()
		r.certs.staple()
		r.certs.mu.Unlock()
	}
	until(t, "it is stapled", func() bool { return shown() != nil })
	said, err := ocsp.ParseResponse(shown(), a.cert)
	if err != nil || said.Status != ocsp.Good {
		t.Fatalf("%v %v", said, err)
	}
	if got := certificateOf(r, "shop.test"); got.OCSP != "good until "+moment(o.until) || got.Problem != "" {
		t.Errorf("reported %+v", got)
	}
	// Away, it changes nothing, nor over a restart.
	o.says(func(o *responder) { o.status = -1 })
	again()
	until(t, "it was asked in vain", func() bool { f := file(); f.mu.Lock(); defer f.mu.Unlock(); return f.ocsp.fails > 0 })
	if shown() == nil {
		t.Error("an authority that is away took its word back")
	}
	r.stop()
	r = serveTLS(t, dir, route)
	if shown() == nil {
		t.Error("after a restart it is not shown")
	}
	// What no longer holds is not shown.
	f := file()
	f.get(time.Now().Add(time.Hour + time.Minute))
	if shown() != nil {
		t.Error("one that is out of date is shown")
	}
	o.says(func(o *responder) { o.status, o.until = ocsp.Revoked, time.Now().Add(2*time.Hour) })
	again()
	until(t, "that it is revoked is told", func() bool { return certificateOf(r, "shop.test").Problem != "" })
	if got := certificateOf(r, "shop.test"); got.Problem != "was "+got.OCSP || shown() != nil {
		t.Errorf("revoked: %+v", got)
	}
	o.says(func(o *responder) { o.status = ocsp.Good })
	again()
	until(t, "it is well again", func() bool { return shown() != nil })
}

// Words of somebody else, or of another time, are not passed on.
func TestStaplesOfOthersAreRefused(t *testing.T) {
	a, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o := newResponder(t, a)
	cert, key := writeLeaf(t, a, t.TempDir(), x509.Certificate{
		DNSNames: []string{"shop.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		OCSPServer: []string{o.URL}, IssuingCertificateURL: []string{o.URL + "/issuer"},
	})
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*responder){
		"signed by a stranger": func(o *responder) { o.by = stranger },
		"out of date":          func(o *responder) { o.by, o.until = a, time.Now().Add(-time.Second) },
	} {
		o.says(change)
		if _, _, _, err := askAuthority(t.Context(), &pair, nil); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	o.says(func(o *responder) { o.by, o.until = a, time.Now().Add(time.Hour) })
	if _, said, _, err := askAuthority(t.Context(), &pair, nil); err != nil || said.Status != ocsp.Good {
		t.Errorf("%v %v", said, err)
	}
}

// An authority that does not answer holds up neither a table nor the end.
func TestAnAuthorityThatHangsHoldsNothingUp(t *testing.T) {
	a, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	asked, let := make(chan struct{}, 1), make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked <- struct{}{}
		select {
		case <-let:
		case <-q.Context().Done():
		}
	}))
	t.Cleanup(hangs.Close)
	defer close(let)
	cert, key := writeLeaf(t, a, t.TempDir(), x509.Certificate{
		DNSNames: []string{"shop.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		OCSPServer: []string{hangs.URL}, IssuingCertificateURL: []string{hangs.URL},
	})
	r := serveTLS(t, t.TempDir(), Route{ID: "shop/shop.test/", Project: "shop", Hosts: []string{"shop.test"}, Path: "/", RouteOptions: tender.RouteOptions{CertFile: cert, KeyFile: key}})
	<-asked
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	if _, _, err := r.shake("shop.test", roots); err != nil {
		t.Error(err)
	}
	r.stop() // while it hangs
}
