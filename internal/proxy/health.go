package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	tender "github.com/tenderhq/tender"
)

// watch starts the health checks of a route's targets; s.mu is held. A target
// that joins what is served must first prove itself; on a start, with a table
// from before, all are taken to serve until a check says otherwise.
func (s *Server) watch(r *route, trusting bool) {
	for _, g := range r.groups {
		for _, t := range g.targets {
			if r.Health == nil {
				s.unwatch(t)
				if t.sick.Swap(false) {
					t.mu.Lock()
					t.settle(time.Now())
					t.mu.Unlock()
				}
				continue
			}
			h := healthOf(r)
			if t.watched != nil && *t.watched == h {
				continue
			}
			known := t.watched != nil
			s.unwatch(t)
			if !trusting && !known && !t.proven {
				t.mu.Lock()
				t.sick.Store(true)
				t.why = "not checked yet"
				t.settle(time.Now())
				t.mu.Unlock()
			}
			t.proven = true
			if s.ctx == nil {
				continue
			}
			ctx, stop := context.WithCancel(s.ctx)
			t.watched, t.stop = &h, stop
			s.wg.Go(func() { s.check(ctx, t, h) })
		}
	}
}

// unwatch ends the health checks of t; s.mu is held.
func (s *Server) unwatch(t *target) {
	if t.stop != nil {
		t.stop()
		t.stop, t.watched = nil, nil
	}
}

// health is a RouteHealth with its defaults, and how the target is spoken to.
type health struct {
	tender.RouteHealth
	protocol string
}

func healthOf(r *route) health {
	h := health{*r.Health, r.Protocol}
	for v, d := range map[*string]string{&h.Path: "/", &h.Method: "GET", &h.Status: "200-399"} {
		if *v == "" {
			*v = d
		}
	}
	if h.Host == "" && len(r.Hosts) > 0 && !strings.HasPrefix(r.Hosts[0], "*") {
		h.Host = r.Hosts[0]
	}
	if h.Interval <= 0 {
		h.Interval = 2 * time.Second
	}
	if h.Timeout <= 0 {
		h.Timeout = time.Second
	}
	h.Up = max(h.Up, 1)
	if h.Down <= 0 {
		h.Down = 2
	}
	return h
}

func (s *Server) check(ctx context.Context, t *target, h health) {
	tick := time.NewTicker(h.Interval)
	defer tick.Stop()
	inRow := 0 // good ones, or below 0 bad ones
	for {
		begun := time.Now()
		text, err := s.ask(ctx, t, h)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		c := Check{At: now.UnixMilli(), OK: err == nil, Text: text, Millis: float64(now.Sub(begun).Microseconds()) / 1000}
		if err != nil {
			c.Text = err.Error()
			inRow = min(inRow, 0) - 1
		} else {
			inRow = max(inRow, 0) + 1
		}
		t.mu.Lock()
		if len(t.checks) == checksKept {
			t.checks = append(t.checks[:0], t.checks[1:]...)
		}
		t.checks = append(t.checks, c)
		was := t.sick.Load()
		switch {
		case was && inRow >= h.Up:
			t.sick.Store(false)
		case was:
			if err != nil {
				t.why = c.Text
			}
		case -inRow >= h.Down:
			t.why = c.Text
			t.sick.Store(true)
		}
		is := t.sick.Load()
		t.settle(now)
		t.mu.Unlock()
		if was != is {
			s.log.Info("target changed", "target", t.name, "address", t.address, "up", !is, "check", c.Text)
			s.mu.Lock()
			s.wake()
			s.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ask checks t once and says what it answered.
func (s *Server) ask(ctx context.Context, t *target, h health) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	if h.Path == "tcp" {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", t.address)
		if err != nil {
			return "", plainly(err)
		}
		c.Close()
		return "connected", nil
	}
	scheme := "http"
	if t.tls || h.protocol == "https" {
		scheme = "https"
	}
	r, err := http.NewRequestWithContext(ctx, h.Method, scheme+"://"+t.address+h.Path, http.NoBody)
	if err != nil {
		return "", err
	}
	if h.Host != "" {
		r.Host = h.Host
	}
	r.Header.Set("User-Agent", "tender-edge")
	one := &http.Transport{
		DisableKeepAlives: true, Protocols: protocols(h.protocol), DisableCompression: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: !t.tls},
	} //nolint:gosec // an instance's address is in no certificate
	defer one.CloseIdleConnections()
	a, err := one.RoundTrip(r)
	if err != nil {
		return "", plainly(err)
	}
	defer a.Body.Close()
	if _, err := io.CopyN(io.Discard, a.Body, 64<<10); err != nil && !errors.Is(err, io.EOF) {
		return "", plainly(err)
	}
	if ok, err := parseStatus(h.Status); err != nil || !ok(a.StatusCode) {
		return "", errors.New(a.Status)
	}
	return a.Status, nil
}

// parseStatus reads "200", "2xx", "200-399" and lists of them.
func parseStatus(s string) (func(int) bool, error) {
	type span struct{ from, to int }
	var spans []span
	if s == "" {
		s = "200-399"
	}
	for one := range strings.SplitSeq(s, ",") {
		one = trim(one)
		from, to, ranged := strings.Cut(one, "-")
		if !ranged {
			from, to = strings.ReplaceAll(one, "x", "0"), strings.ReplaceAll(one, "x", "9")
		}
		a, err := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err != nil || err2 != nil || a < 100 || b > 999 || a > b {
			return nil, fmt.Errorf("status %q is not like 200, 2xx or 200-399", s)
		}
		spans = append(spans, span{a, b})
	}
	return func(code int) bool {
		for _, p := range spans {
			if p.from <= code && code <= p.to {
				return true
			}
		}
		return false
	}, nil
}

// plainly is an error of the network in the words that people know.
func plainly(err error) error {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errors.New("connection reset")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return errors.New("no way to the host")
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return errTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("connection closed before the answer's end")
	}
	return err
}
