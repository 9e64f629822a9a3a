package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// No ACME authority vouches for a wildcard that is proven over HTTP or TLS. A
// route of one with tls: auto has a certificate for each name below it instead,
// asked for with the first handshake that names it. Clients choose the names, so
// what they can cause is bounded.
const (
	demandNames   = 20               // new names below one wildcard
	demandPer     = time.Hour        // in this time
	demandWait    = 30 * time.Second // of a handshake for its certificate; obtaining goes on
	demandWaiting = 256              // handshakes that wait, of all names
	demandAgain   = 10 * time.Minute // after a name was refused; then longer
	demandLatest  = 6 * time.Hour
	demandKnown   = 1024 // refused names that are remembered
)

// demands is what clients have asked for below wildcards.
type demands struct {
	mu      sync.Mutex
	began   map[string][]time.Time // by wildcard: new names of late
	refused map[string]refusal     // by name
	waiting int
}

// refusal is a name that its authority did not vouch for.
type refusal struct {
	under string // the wildcard
	at    time.Time
	text  string
	times int
}

func (r refusal) until() time.Time {
	return r.at.Add(min(demandAgain<<min(r.times-1, 10), demandLatest))
}

// onDemand returns the certificate of a name below a wildcard.
func (c *certs) onDemand(hello *tls.ClientHelloInfo, demand *certmagic.Config, name string) (*tls.Certificate, error) {
	ctx, cache := c.running.Load(), c.cache.Load()
	if ctx == nil || cache == nil {
		return nil, nil
	}
	if len(cache.AllMatchingCertificates(name)) > 0 {
		return demand.GetCertificateWithContext(*ctx, hello)
	}
	if !certmagic.SubjectQualifiesForPublicCert(name) && c.o.ACME.Directory == "" || strings.ContainsAny(name, "*_") {
		return nil, nil
	}
	if !c.demands.enter() {
		return nil, errors.New("too many handshakes wait for certificates")
	}
	type got struct {
		cert *tls.Certificate
		err  error
	}
	done := make(chan got, 1)
	c.mu.Lock()
	if c.ctx == nil {
		c.mu.Unlock()
		c.demands.exit()
		return nil, errors.New("the edge ends")
	}
	c.work.Go(func() {
		defer c.demands.exit()
		cert, err := demand.GetCertificateWithContext(*ctx, hello)
		done <- got{cert, err}
	})
	c.mu.Unlock()
	if g, ok := hello.Conn.(*guarded); ok && g.line != nil {
		// It is not the client who is late: what bounds a handshake does not count meanwhile.
		g.line.move(atWork)
		defer g.line.move(atHead)
	}
	limit := time.NewTimer(demandWait)
	defer limit.Stop()
	select {
	case g := <-done:
		return g.cert, g.err
	case <-hello.Context().Done():
		return nil, hello.Context().Err()
	case <-limit.C:
		return nil, fmt.Errorf("the certificate of %s is being obtained", name)
	}
}

func (a *demands) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting >= demandWaiting {
		return false
	}
	a.waiting++
	return true
}

func (a *demands) exit() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting--
}

// decide says whether a certificate may be obtained for a name: certmagic asks.
func (c *certs) decide(ctx context.Context, name string) error {
	s := c.find(name)
	if s == nil || !s.demand {
		return fmt.Errorf("no route leads to %s", name)
	}
	// What is there already costs nobody anything, and neither does its renewal.
	if c.demand.Storage.Exists(ctx, certmagic.StorageKeys.SiteCert(c.issuer.IssuerKey(), name)) {
		return nil
	}
	return c.demands.allow(c.wildcardOf(name), name, time.Now())
}

// wildcardOf is the host of the route that leads to a name below it.
func (c *certs) wildcardOf(name string) string {
	said := *c.said.Load()
	for _, above, ok := strings.Cut(name, "."); ok; _, above, ok = strings.Cut(above, ".") {
		if said["*."+above] != nil {
			return "*." + above
		}
	}
	return ""
}

// allow counts a new name, where it is not refused or one too many.
func (a *demands) allow(under, name string, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r, ok := a.refused[name]; ok && now.Before(r.until()) {
		return fmt.Errorf("%s was refused: %s", name, r.text)
	}
	recent := a.recent(under, now)
	if len(recent) >= demandNames {
		return fmt.Errorf("%d new names below %s in %s", len(recent), under, demandPer)
	}
	if a.began == nil {
		a.began = map[string][]time.Time{}
	}
	a.began[under] = append(recent, now)
	return nil
}

// recent are the new names below a wildcard that count still; a.mu is held.
func (a *demands) recent(under string, now time.Time) []time.Time {
	list := a.began[under]
	for len(list) > 0 && now.Sub(list[0]) >= demandPer {
		list = list[1:]
	}
	return list
}

// refuse remembers that a name was not vouched for.
func (a *demands) refuse(under, name, text string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused == nil {
		a.refused = map[string]refusal{}
	}
	if _, known := a.refused[name]; !known && len(a.refused) >= demandKnown {
		oldest := ""
		for n, r := range a.refused {
			if oldest == "" || r.at.Before(a.refused[oldest].at) {
				oldest = n
			}
		}
		delete(a.refused, oldest)
	}
	a.refused[name] = refusal{under: under, at: now, text: text, times: a.refused[name].times + 1}
}

func (a *demands) granted(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.refused, name)
}

// problem says what is wrong below a wildcard: the last refusal of the hour, or
// that no more names are taken.
func (a *demands) problem(under string, now time.Time) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.recent(under, now)); n >= demandNames {
		return fmt.Sprintf("%d new names were asked for in %s: no more are taken for now", n, demandPer)
	}
	last, who := refusal{}, ""
	for name, r := range a.refused {
		if r.under == under && now.Sub(r.at) < demandPer && r.at.After(last.at) {
			last, who = r, name
		}
	}
	if who == "" {
		return ""
	}
	return fmt.Sprintf("%s has none: %s", who, last.text)
}
