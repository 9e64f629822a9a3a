package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// A certificate in files is shown with its authority's word that it holds (OCSP
// stapling), where it names a responder. Those of certmagic have theirs from there.

const (
	stapleTimeout = 10 * time.Second // of one question
	stapleAgain   = time.Minute      // after the first that was not answered; then longer
	stapleLatest  = time.Hour
	stapleLook    = 15 * time.Second // between two looks whether one is due
	stapleSkew    = 5 * time.Minute  // that a responder's clock may be ahead
	maxOCSP       = 1 << 20          // bytes of an answer, or of an issuer
)

// stapled is what the authority has said of one certificate, and when it is asked next.
type stapled struct {
	until   time.Time // what is shown holds; zero: nothing is shown
	next    time.Time // zero: at once
	fails   int
	never   bool   // it names no responder
	text    string // for reports
	revoked bool
	issuer  *x509.Certificate
}

// stapleClient goes no way that a certificate does not ask for, and keeps nothing open.
var stapleClient = &http.Client{Timeout: stapleTimeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}

// stapling keeps the authorities' words fresh until ctx ends.
func (c *certs) stapling(ctx context.Context) {
	tick := time.NewTicker(stapleLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.mu.Lock()
			c.staple()
			c.mu.Unlock()
		}
	}
}

// staple asks for what is due, without waiting; c.mu is held.
func (c *certs) staple() {
	if c.ctx == nil {
		return
	}
	ctx := c.ctx
	var files []*certFile
	for _, s := range *c.said.Load() {
		if s.file != nil && !slices.Contains(files, s.file) {
			files = append(files, s.file)
		}
	}
	for _, f := range files {
		if f.due(time.Now()) {
			c.work.Go(func() { f.ask(ctx) })
		}
	}
}

// due says whether the authority is to be asked now, and counts that as done.
func (f *certFile) due(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look(now)
	if f.loaded == nil || f.ocsp.never || now.Before(f.ocsp.next) {
		return false
	}
	if len(f.loaded.Leaf.OCSPServer) == 0 || now.After(f.loaded.Leaf.NotAfter) {
		f.ocsp.never = true
		return false
	}
	f.ocsp.next = now.Add(2 * stapleTimeout) // nobody else meanwhile
	return true
}

// ask asks the authority and shows what it says.
func (f *certFile) ask(ctx context.Context) {
	f.mu.Lock()
	pair, issuer := f.loaded, f.ocsp.issuer
	f.mu.Unlock()
	raw, said, issuer, err := askAuthority(ctx, pair, issuer)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.EqualFunc(f.loaded.Certificate, pair.Certificate, bytes.Equal) {
		return // another one by now, which has its own
	}
	f.ocsp.issuer = issuer
	if err != nil {
		f.ocsp.next = now.Add(min(stapleAgain<<min(f.ocsp.fails, 10), stapleLatest))
		f.ocsp.fails++
		if f.ocsp.until.IsZero() {
			f.ocsp.text = err.Error()
		}
		f.log.Warn("the certificate's authority does not vouch for it now", "cert_file", f.cert, "again", f.ocsp.next, "err", err)
		return
	}
	f.take(raw, said)
	if f.staples == "" || said.Status != ocsp.Good {
		return
	}
	if err := errors.Join(os.MkdirAll(f.staples, 0o700), writeWhole(f.stapleFile(), raw, 0o600)); err != nil {
		f.log.Warn("what the certificate's authority said is not kept", "cert_file", f.cert, "err", err)
	}
}

// take shows what the authority says from now on; f.mu is held.
func (f *certFile) take(raw []byte, said *ocsp.Response) {
	f.ocsp.fails, f.ocsp.revoked = 0, said.Status == ocsp.Revoked
	f.ocsp.next = said.ThisUpdate.Add(said.NextUpdate.Sub(said.ThisUpdate) / 2)
	if floor := time.Now().Add(stapleAgain); f.ocsp.next.Before(floor) {
		f.ocsp.next = floor
	}
	shown := *f.loaded
	switch said.Status {
	case ocsp.Good:
		shown.OCSPStaple, f.ocsp.until = raw, said.NextUpdate
		f.ocsp.text = "good until " + moment(said.NextUpdate)
	case ocsp.Revoked:
		shown.OCSPStaple, f.ocsp.until = nil, time.Time{}
		f.ocsp.text = "revoked on " + moment(said.RevokedAt)
	default:
		shown.OCSPStaple, f.ocsp.until = nil, time.Time{}
		f.ocsp.text = "the authority does not know it"
	}
	f.loaded = &shown // handshakes that are under way have the one before
}

// recall shows what was said before this process; f.mu is held.
func (f *certFile) recall(now time.Time) {
	if f.staples == "" || len(f.loaded.Leaf.OCSPServer) == 0 {
		return
	}
	raw, err := os.ReadFile(f.stapleFile())
	if err != nil {
		return // nothing was
	}
	said, err := ocsp.ParseResponseForCert(raw, f.loaded.Leaf, issuerIn(f.loaded))
	if err == nil && said.Status == ocsp.Good && now.Before(said.NextUpdate) {
		f.take(raw, said)
	}
}

// outlived takes what does not hold any more away; f.mu is held.
func (f *certFile) outlived(now time.Time) {
	if f.ocsp.until.IsZero() || now.Before(f.ocsp.until) {
		return
	}
	bare := *f.loaded
	bare.OCSPStaple = nil
	f.loaded, f.ocsp.until, f.ocsp.text = &bare, time.Time{}, "out of date since "+moment(f.ocsp.until)
}

func (f *certFile) stapleFile() string {
	sum := sha256.Sum256(f.loaded.Certificate[0])
	return filepath.Join(f.staples, hex.EncodeToString(sum[:16])+".ocsp")
}

// issuerIn is the issuer that a file has behind its certificate; nil: it has none.
func issuerIn(pair *tls.Certificate) *x509.Certificate {
	if len(pair.Certificate) < 2 {
		return nil
	}
	issuer, err := x509.ParseCertificate(pair.Certificate[1])
	if err != nil {
		return nil
	}
	return issuer
}

// askAuthority asks a certificate's responder, and believes what its issuer has signed.
func askAuthority(ctx context.Context, pair *tls.Certificate, known *x509.Certificate) (raw []byte, said *ocsp.Response, issuer *x509.Certificate, err error) {
	leaf := pair.Leaf
	if issuer = known; issuer == nil {
		issuer = issuerIn(pair)
	}
	if issuer == nil {
		if len(leaf.IssuingCertificateURL) == 0 {
			return nil, nil, nil, errors.New("its issuer is neither in the file nor named by it")
		}
		der, err := fetch(ctx, http.MethodGet, leaf.IssuingCertificateURL[0], nil)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("ask for its issuer: %w", err)
		}
		if issuer, err = x509.ParseCertificate(der); err != nil {
			return nil, nil, nil, fmt.Errorf("its issuer at %s: %w", leaf.IssuingCertificateURL[0], err)
		}
	}
	question, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return nil, nil, issuer, err
	}
	if raw, err = fetch(ctx, http.MethodPost, leaf.OCSPServer[0], question); err != nil {
		return nil, nil, issuer, fmt.Errorf("ask its authority: %w", err)
	}
	if said, err = ocsp.ParseResponseForCert(raw, leaf, issuer); err != nil {
		return nil, nil, issuer, fmt.Errorf("%s answers: %w", leaf.OCSPServer[0], err)
	}
	now := time.Now()
	switch by := said.Certificate; {
	case by != nil && !by.Equal(issuer) && (!slices.Contains(by.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) || now.Before(by.NotBefore) || now.After(by.NotAfter)):
		err = fmt.Errorf("%s answers by a certificate that may not sign it", leaf.OCSPServer[0])
	case said.NextUpdate.IsZero(), now.After(said.NextUpdate), said.ThisUpdate.After(now.Add(stapleSkew)):
		err = fmt.Errorf("%s answers with what does not hold now: from %s to %s", leaf.OCSPServer[0], moment(said.ThisUpdate), moment(said.NextUpdate))
	}
	return raw, said, issuer, err
}

func fetch(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/ocsp-request")
	}
	a, err := stapleClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, a.Status)
	}
	return io.ReadAll(io.LimitReader(a.Body, maxOCSP))
}

// moment is a time as people read it in reports.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
