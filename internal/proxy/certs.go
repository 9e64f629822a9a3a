package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// certs has a certificate for every host of the table that is served over TLS,
// and keeps it fresh. A name that no route has gets none: the handshake ends
// there.
//
// Three kinds of source: an ACME authority, the edge's own, and files. Who
// vouches for a name is decided in set; certmagic obtains, keeps and renews for
// the first two.
type certs struct {
	o    Options
	log  *slog.Logger
	said atomic.Pointer[map[string]*certSource] // by host, lower case; "" for clients that name none

	cache                    atomic.Pointer[certmagic.Cache]
	public, internal, demand *certmagic.Config
	issuer                   *certmagic.ACMEIssuer

	wanted  atomic.Pointer[map[string]*certmagic.Config] // who keeps the certificate of a host
	trouble trouble
	demands demands
	unable  atomic.Pointer[string]          // why no certificates can be kept
	running atomic.Pointer[context.Context] // ctx, for handshakes, which do not wait for mu

	mu      sync.Mutex
	ctx     context.Context // from start to stop; nil: nothing is obtained
	managed map[string]bool // obtained and renewed
	work    sync.WaitGroup  // staples, and certificates that a handshake asks for
}

// certSource is where the certificate of one host comes from.
type certSource struct {
	config *certmagic.Config
	file   *certFile
	demand bool // of names below the host, each with its own as it is asked for
}

const (
	fileCheck   = 5 * time.Second  // how long a certificate's file is believed without looking
	loadTimeout = 10 * time.Second // for what lies on disk, or the own authority issues
)

func newCerts(o Options) *certs {
	c := &certs{o: o, log: o.Log, managed: map[string]bool{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.said.Store(&map[string]*certSource{})
	c.wanted.Store(&map[string]*certmagic.Config{})
	return c
}

// prepare makes what obtains certificates, once there is something to obtain.
// c.mu is held.
func (c *certs) prepare() error {
	if c.cache.Load() != nil {
		return nil
	}
	dir := c.o.Dir
	if dir == "" {
		return fmt.Errorf("there is no directory to keep certificates in")
	}
	own, err := openAuthority(dir)
	if err != nil {
		return err
	}
	logger := zap.New(&zapToSlog{log: c.log})
	storage := &certmagic.FileStorage{Path: filepath.Join(dir, "certs")}
	cache := certmagic.NewCache(certmagic.CacheOptions{Logger: logger, GetConfigForCert: c.keeper})
	// With a proxy to ask for, certmagic's client has a time limit, too.
	ocsp := certmagic.OCSPConfig{HTTPProxy: http.ProxyFromEnvironment}
	c.internal = certmagic.New(cache, certmagic.Config{Logger: logger, Storage: storage, Issuers: []certmagic.Issuer{own}, OnEvent: c.heard, OCSP: certmagic.OCSPConfig{DisableStapling: true}})
	c.public = certmagic.New(cache, certmagic.Config{Logger: logger, Storage: storage, OnEvent: c.heard, OCSP: ocsp})
	c.demand = certmagic.New(cache, certmagic.Config{
		Logger: logger, Storage: storage, OnEvent: c.heard, OCSP: ocsp, OnDemand: &certmagic.OnDemandConfig{DecisionFunc: c.decide},
	})
	a := certmagic.ACMEIssuer{
		CA: c.o.ACME.Directory, Email: c.o.ACME.Email, Agreed: true, Logger: logger,
		DisableHTTPChallenge: len(c.o.HTTP) == 0, DisableTLSALPNChallenge: len(c.o.HTTPS) == 0,
	}
	if a.CA == "" {
		a.CA = certmagic.LetsEncryptProductionCA
	}
	// certmagic looks whether somebody listens where challenges arrive, which is us.
	a.ListenHost, a.AltHTTPPort = firstOf(c.o.HTTP)
	_, a.AltTLSALPNPort = firstOf(c.o.HTTPS)
	if len(c.o.ACME.Roots) > 0 {
		a.TrustedRoots = x509.NewCertPool()
		if !a.TrustedRoots.AppendCertsFromPEM(c.o.ACME.Roots) {
			return fmt.Errorf("the roots of %s are no PEM certificates", a.CA)
		}
	}
	c.issuer = certmagic.NewACMEIssuer(c.public, a)
	c.public.Issuers = []certmagic.Issuer{c.issuer}
	c.demand.Issuers = c.public.Issuers
	c.cache.Store(cache)
	return nil
}

// keeper says who renews a certificate.
func (c *certs) keeper(cert certmagic.Certificate) (*certmagic.Config, error) {
	for _, name := range cert.Names {
		if m := (*c.wanted.Load())[name]; m != nil {
			return m, nil
		}
	}
	// It was asked for below a wildcard, and is renewed as it is asked for: where its route is gone, never.
	return c.demand, nil
}

func firstOf(addresses []string) (host string, port int) {
	if len(addresses) == 0 {
		return "", 0
	}
	host, text, err := net.SplitHostPort(addresses[0])
	if err != nil {
		return "", 0
	}
	port, _ = strconv.Atoi(text) // a name of a service is what certmagic takes for the standard port
	return host, port
}

// set makes t's hosts the ones that certificates are kept for.
func (c *certs) set(t Table) {
	if len(c.o.HTTPS) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := *c.said.Load()
	next := map[string]*certSource{}
	for _, r := range t.Routes {
		switch r.Mode() {
		case "off":
			continue
		case "file":
			hosts := r.Hosts
			if len(hosts) == 0 {
				hosts = []string{""}
			}
			for _, h := range hosts {
				next[h] = c.fileFor(before[h], r)
			}
			continue
		}
		if err := c.prepare(); err != nil {
			c.log.Error("no certificates can be kept", "route", r.ID, "err", err)
			c.unable.Store(new(err.Error()))
			continue
		}
		for _, h := range r.Hosts {
			if s := next[h]; s != nil && s.file != nil {
				continue // another path of the host has a file: that stands
			}
			config := c.voucher(r, h)
			next[h] = &certSource{config: config, demand: config == c.demand}
		}
		if len(r.Hosts) == 0 && r.TLS == "internal" {
			next[""] = &certSource{config: c.internal}
		}
	}
	c.said.Store(&next)
	c.manage()
	c.staple()
}

// voucher says who issues the certificate of a host.
func (c *certs) voucher(r Route, host string) *certmagic.Config {
	public := certmagic.SubjectQualifiesForPublicCert(host)
	if c.o.ACME.Directory != "" { // an authority of one's own knows names of one's own
		public = !certmagic.SubjectIsIP(host) && host != "localhost"
	}
	switch {
	case r.TLS == "internal", !public:
		return c.internal
	case strings.HasPrefix(host, "*."):
		// Neither way of proving a name works for a wildcard: each name has a certificate of its own.
		return c.demand
	}
	return c.public
}

func (c *certs) fileFor(before *certSource, r Route) *certSource {
	if before != nil && before.file != nil && before.file.cert == r.CertFile && before.file.key == r.KeyFile {
		return before
	}
	f := &certFile{cert: r.CertFile, key: r.KeyFile, log: c.log.With("route", r.ID)}
	if c.o.Dir != "" {
		f.staples = filepath.Join(c.o.Dir, "staples")
	}
	f.get(time.Now()) // says now what is wrong with it
	return &certSource{file: f}
}

// start obtains and renews until stop. It comes after the listeners: an
// authority asks there, and certmagic would open them itself.
func (c *certs) start(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx = ctx
	c.running.Store(&ctx)
	c.manage()
	c.staple()
	c.work.Go(func() { c.stapling(ctx) })
}

// stop comes after the end of start's ctx.
func (c *certs) stop() {
	c.mu.Lock()
	c.ctx = nil
	c.running.Store(nil)
	cache := c.cache.Swap(nil)
	c.mu.Unlock()
	c.work.Wait()
	if cache != nil {
		cache.Stop()
	}
}

// manage tells certmagic of hosts that are new and gone; c.mu is held. What lies
// on disk is there when it returns, and so is what the own authority issues.
func (c *certs) manage() {
	wanted := map[string]*certmagic.Config{}
	for h, s := range *c.said.Load() {
		switch {
		case s.config == nil, s.demand:
		case h == "":
			for _, name := range ownNames() {
				wanted[name] = s.config
			}
		default:
			wanted[h] = s.config
		}
	}
	before := *c.wanted.Swap(&wanted)
	var gone []certmagic.SubjectIssuer
	for h, m := range before {
		if wanted[h] != m {
			for _, i := range m.Issuers {
				gone = append(gone, certmagic.SubjectIssuer{Subject: h, IssuerKey: i.IssuerKey()})
			}
			delete(c.managed, h)
		}
	}
	if cache := c.cache.Load(); len(gone) > 0 && cache != nil {
		cache.RemoveManaged(gone)
	}
	c.trouble.keep(func(host string) bool { return wanted[host] != nil })
	limit, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	fresh := map[*certmagic.Config][]string{}
	for h, m := range wanted {
		if before[h] != m && c.ctx == nil {
			// So that a new edge has them before it takes the old one's place. What is not there is obtained later.
			_, _ = m.CacheManagedCertificate(limit, h)
		}
		if c.ctx != nil && !c.managed[h] {
			c.managed[h] = true
			fresh[m] = append(fresh[m], h)
		}
	}
	for m, hosts := range fresh {
		var err error
		if m == c.internal {
			err = m.ManageSync(limit, hosts)
		}
		if m != c.internal || err != nil {
			err = m.ManageAsync(c.ctx, hosts)
		}
		if err != nil {
			c.log.Error("certificates cannot be kept", "hosts", hosts, "err", err)
			for _, h := range hosts {
				c.trouble.note(h, err, time.Now())
			}
		}
	}
}

// ownNames are those of the host itself, for clients that say no name or its address.
func ownNames() []string {
	names := []string{"localhost"}
	if h, err := os.Hostname(); err == nil && h != "" {
		names = append(names, strings.ToLower(h))
	}
	return names
}

// config is how TLS is spoken: from version 1.2 on, HTTP/2 where the client takes it.
func (c *certs) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1", "acme-tls/1"},
		GetCertificate: c.get,
	}
}

// get returns the certificate for a handshake. Nil ends it with the alert that
// there is no such name.
func (c *certs) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == "acme-tls/1" {
		c.mu.Lock()
		public := c.public
		c.mu.Unlock()
		if public == nil {
			return nil, nil
		}
		return public.GetCertificate(hello)
	}
	name := strings.TrimSuffix(strings.ToLower(hello.ServerName), ".")
	s := c.find(name)
	if s == nil && name == "" && hello.Conn != nil {
		s = c.find(addrPort(hello.Conn.LocalAddr()).Addr().String())
	}
	if s == nil {
		return nil, nil
	}
	if s.file != nil {
		return s.file.get(time.Now()), nil
	}
	if s.demand {
		return c.onDemand(hello, s.config, name)
	}
	if s == (*c.said.Load())[""] {
		named := *hello
		named.ServerName = ownNames()[0]
		hello = &named
	}
	return s.config.GetCertificate(hello)
}

// find returns the source for a name: its own, that of the nearest wildcard above
// it, or that of routes for any host. A certificate for a wildcard is good for one
// label below it; names of their own may lie deeper.
func (c *certs) find(name string) *certSource {
	said := *c.said.Load()
	if s := said[name]; s != nil {
		return s
	}
	_, above, ok := strings.Cut(name, ".")
	for depth := 1; ok; depth++ {
		if s := said["*."+above]; s != nil {
			if depth == 1 || s.demand {
				return s
			}
			break
		}
		_, above, ok = strings.Cut(above, ".")
	}
	return said[""]
}

// challenge answers an ACME authority that asks over HTTP, and says whether that was one.
func (c *certs) challenge(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
		return false
	}
	c.mu.Lock()
	issuer := c.issuer
	c.mu.Unlock()
	return issuer != nil && issuer.HandleHTTPChallenge(w, r)
}

// certFile is a certificate in files, which others renew.
type certFile struct {
	cert, key string
	log       *slog.Logger

	staples string // where the authority's words on it are kept; "": nowhere

	mu      sync.Mutex
	loaded  *tls.Certificate
	problem string // why what is on disk is not what is shown
	stamp   string // sizes and times of what was read last
	checked time.Time
	ocsp    stapled
}

// get returns the certificate as it is on disk, or as it was when that cannot be read.
func (f *certFile) get(now time.Time) *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.look(now)
}

// look is get with f.mu held.
func (f *certFile) look(now time.Time) *tls.Certificate {
	f.outlived(now)
	if !f.checked.IsZero() && now.Sub(f.checked) < fileCheck {
		return f.loaded
	}
	f.checked = now
	stamp := stampOf(f.cert) + " " + stampOf(f.key)
	if stamp == f.stamp {
		return f.loaded
	}
	f.stamp = stamp
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		f.log.Error("certificate cannot be read", "cert_file", f.cert, "key_file", f.key, "before", f.loaded != nil, "err", err)
		f.problem = "cannot be read: " + err.Error()
		return f.loaded
	}
	f.loaded, f.problem, f.ocsp = &pair, "", stapled{}
	f.recall(now)
	return f.loaded
}

func stampOf(path string) string {
	i, err := os.Stat(path)
	if err != nil {
		return "none"
	}
	return fmt.Sprint(i.Size(), i.ModTime().UnixNano())
}
