package registry

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
)

const (
	// politeEach is how many requests each host gets at a time.
	politeEach = 2
	// politeHosts is how many hosts are remembered.
	politeHosts = 256
)

// Polite is a transport for questions that nobody waits for: few at a time for each host, and
// none while a host asks to be left alone. Such a question ends at once with Unavailable, and
// says until when.
type Polite struct {
	to  http.RoundTripper
	now func() time.Time

	mu    sync.Mutex
	hosts map[string]*politeHost
}

type politeHost struct {
	slots chan struct{}
	until time.Time
}

// NewPolite makes one before another transport.
func NewPolite(to http.RoundTripper) *Polite {
	return &Polite{to: to, now: time.Now, hosts: map[string]*politeHost{}}
}

func (p *Polite) host(name string) *politeHost {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[name]
	if h == nil {
		for other, kept := range p.hosts {
			if len(p.hosts) < politeHosts {
				break
			}
			if len(kept.slots) == 0 && kept.until.Before(p.now()) {
				delete(p.hosts, other)
			}
		}
		h = &politeHost{slots: make(chan struct{}, politeEach)}
		p.hosts[name] = h
	}
	return h
}

// RoundTrip is http.RoundTripper's.
func (p *Polite) RoundTrip(req *http.Request) (*http.Response, error) {
	h := p.host(req.URL.Host)
	select {
	case h.slots <- struct{}{}:
	case <-req.Context().Done():
		return nil, context.Cause(req.Context())
	}
	defer func() { <-h.slots }()
	p.mu.Lock()
	until := h.until
	p.mu.Unlock()
	if p.now().Before(until) {
		return nil, tender.Errorf(tender.Unavailable, "%s asks us to wait until %s: too many requests", req.URL.Host, until.UTC().Format("2006-01-02 15:04 UTC")).
			Hint("again then; a login is often allowed more: tender registry login %s", req.URL.Host)
	}
	res, err := p.to.RoundTrip(req)
	if err != nil || res.StatusCode != http.StatusTooManyRequests {
		return res, err
	}
	p.mu.Lock()
	h.until = p.now().Add(cmp.Or(retryAfter(res.Header, p.now()), restUnsaid))
	p.mu.Unlock()
	return res, nil
}
