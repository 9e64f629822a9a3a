package proxy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"
)

// CertReport is how the certificate of one host of a route is.
type CertReport struct {
	Host string `json:"host,omitempty"` // "": of a route for any host
	From string `json:"from"`           // auto, internal, file
	// Ends is when it expires, in unix milliseconds; 0: there is none, or each name below a wildcard has its own.
	Ends int64 `json:"ends,omitempty"`
	// Problem says why there is none, why it is not renewed, or that it ends soon.
	Problem string `json:"problem,omitempty"`
	// OCSP is the authority's word on one in files.
	OCSP string `json:"ocsp,omitempty"`
}

// A certificate that should have been renewed is told of when less than this is
// left, or a part of its life.
const (
	soonMost = 14 * 24 * time.Hour
	soonPart = 6
	maxCause = 400 // bytes of why one was refused
)

// trouble is why certificates were not obtained, by host.
type trouble struct {
	mu sync.Mutex
	by map[string]mishap
}

type mishap struct {
	at   time.Time
	text string
}

func (t *trouble) note(host string, err error, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[string]mishap{}
	}
	t.by[host] = mishap{now, causeOf(err)}
}

func (t *trouble) clear(host string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by, host)
}

func (t *trouble) of(host string) (mishap, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.by[host]
	return m, ok
}

// keep forgets hosts that are not wanted any more.
func (t *trouble) keep(wanted func(host string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.by, func(host string, _ mishap) bool { return !wanted(host) })
}

func causeOf(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > maxCause {
		text = strings.ToValidUTF8(text[:maxCause], "") + "…"
	}
	return text
}

// heard is told by certmagic what becomes of a certificate.
func (c *certs) heard(_ context.Context, event string, data map[string]any) error {
	name, _ := data["identifier"].(string)
	_, managed := (*c.wanted.Load())[name]
	switch event {
	case "cert_failed":
		err, _ := data["error"].(error)
		if err == nil || errors.Is(err, context.Canceled) {
			return nil
		}
		if managed {
			c.trouble.note(name, err, time.Now())
		} else {
			c.demands.refuse(c.wildcardOf(name), name, causeOf(err), time.Now())
		}
	case "cert_obtained":
		c.trouble.clear(name)
		c.demands.granted(name)
	}
	return nil
}

// report says how the certificates of a route are.
func (c *certs) report(r Route, now time.Time) (out []CertReport) {
	mode := r.Mode()
	if len(c.o.HTTPS) == 0 || mode == "off" {
		return nil
	}
	hosts := r.Hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	for _, h := range hosts {
		s := (*c.said.Load())[h]
		switch {
		case s == nil:
			one := CertReport{Host: h, From: mode, Problem: "no authority vouches for any host"}
			if why := c.unable.Load(); why != nil {
				one.Problem = *why
			}
			out = append(out, one)
		case s.file != nil:
			one := s.file.report(h, now)
			out = append(out, one)
		case s.demand:
			out = append(out, CertReport{Host: h, From: "auto", Problem: c.demands.problem(h, now)})
		default:
			out = append(out, c.kept(h, s, now))
		}
	}
	return out
}

// kept is the report of one that certmagic keeps.
func (c *certs) kept(host string, s *certSource, now time.Time) CertReport {
	out := CertReport{Host: host, From: "auto"}
	if s.config == c.internal {
		out.From = "internal"
	}
	name := host
	if name == "" {
		name = ownNames()[0]
	}
	var leaf *x509.Certificate
	if cache := c.cache.Load(); cache != nil {
		for _, one := range cache.AllMatchingCertificates(name) {
			if leaf == nil || one.Leaf.NotAfter.After(leaf.NotAfter) {
				leaf = one.Leaf
			}
		}
	}
	failed, why := c.trouble.of(name)
	cause := ""
	if why {
		cause = failed.text + " (at " + moment(failed.at) + ")"
	}
	if leaf == nil {
		if why {
			out.Problem = "there is none: " + cause
		}
		return out
	}
	out.Ends = leaf.NotAfter.UnixMilli()
	switch {
	case now.After(leaf.NotAfter):
		out.Problem = "expired on " + moment(leaf.NotAfter)
	case why && leaf.NotBefore.Before(failed.at):
		out.Problem = "ends on " + moment(leaf.NotAfter) + " and is not renewed"
	case soon(leaf, now):
		out.Problem = "ends on " + moment(leaf.NotAfter) + " and has not been renewed"
	}
	if out.Problem != "" && why {
		out.Problem += ": " + cause
	}
	return out
}

// soon says whether a certificate ends before long.
func soon(leaf *x509.Certificate, now time.Time) bool {
	return leaf.NotAfter.Sub(now) < min(soonMost, leaf.NotAfter.Sub(leaf.NotBefore)/soonPart)
}

// report says how the certificate in these files is, for a host that it is shown for.
func (f *certFile) report(host string, now time.Time) CertReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look(now)
	out := CertReport{Host: host, From: "file", Problem: f.problem, OCSP: f.ocsp.text}
	if f.loaded == nil {
		return out
	}
	leaf := f.loaded.Leaf
	out.Ends = leaf.NotAfter.UnixMilli()
	say := func(format string, more ...any) {
		if out.Problem != "" {
			out.Problem += "; the one shown "
		}
		out.Problem += fmt.Sprintf(format, more...)
	}
	switch {
	case now.After(leaf.NotAfter):
		say("expired on %s", moment(leaf.NotAfter))
	case now.Before(leaf.NotBefore):
		say("is good from %s on", moment(leaf.NotBefore))
	case f.ocsp.revoked:
		say("was %s", f.ocsp.text)
	case host != "" && leaf.VerifyHostname(strings.Replace(host, "*", "any", 1)) != nil:
		say("is not for %s but for %s", host, strings.Join(leaf.DNSNames, ", "))
	case soon(leaf, now):
		say("ends on %s: put a new one in its place", moment(leaf.NotAfter))
	}
	return out
}
