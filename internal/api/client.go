package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tenderhq/tender"
)

// DefaultHost is where a daemon answers on the machine itself.
const DefaultHost = "unix:///run/tender/tender.sock"

// silence is how long the client waits for a word of an answer that goes on.
const silence = 35 * time.Second

// ClientOptions of New; the zero value works.
type ClientOptions struct {
	Token string // needed for http and https
}

// Client speaks to a daemon. Its methods are those of Backend without the
// person, who is known from the connection. Errors are *tender.Error.
type Client struct {
	host  string
	base  string // of URLs
	token string
	dial  func(ctx context.Context) (net.Conn, error)
	http  *http.Client
}

// New makes a client of the daemon at host: unix:///path, http://host:port,
// https://host:port or ssh://user@host[:port]; "" is DefaultHost. It does not connect yet.
func New(host string, o ClientOptions) (*Client, error) {
	if host == "" {
		host = DefaultHost
	}
	bad := func() error {
		return tender.Errorf(tender.Invalid, "%q is no address of a daemon", host).
			Hint("use unix:///path, ssh://user@host, http://host:port or https://host:port")
	}
	u, err := url.Parse(host)
	if err != nil {
		return nil, bad()
	}
	c := &Client{host: host, base: "http://tender", token: o.Token}
	var d net.Dialer
	switch {
	case u.Scheme == "unix" && u.Path != "" && u.Host == "":
		c.dial = func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "unix", u.Path) }
	case u.Scheme == "http" && u.Host != "", u.Scheme == "https" && u.Host != "":
		c.base = strings.TrimSuffix(host, "/")
		c.dial = dialTCP(u)
	case u.Scheme == "ssh" && u.Host != "" && !strings.HasPrefix(u.Hostname(), "-"):
		c.dial = func(ctx context.Context) (net.Conn, error) { return dialSSH(ctx, u) }
	default:
		return nil, bad()
	}
	t := &http.Transport{
		// TLS, where there is any, is done by dial.
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DialTLSContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		MaxIdleConns:          4,
		IdleConnTimeout:       time.Minute,
		ExpectContinueTimeout: time.Second,
	}
	// A redirect would send the token elsewhere.
	c.http = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// Host is the address that New was given.
func (c *Client) Host() string { return c.host }

// Close gives idle connections free.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call is one request. Empty values of query are left out.
type call struct {
	method, path string
	query        url.Values
	body         io.Reader
	kind         string // Content-Type
	accept       string
	// root: path begins there, not below Prefix.
	root bool
	// alone: the connection is not used again. The server may close it after a body that
	// flowed both ways, and the next request would run into that.
	alone bool
}

// send returns an answer that is no error. Its body must be closed.
func (c *Client) send(ctx context.Context, r call) (*http.Response, error) {
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close() //nolint:errcheck // what was read of it counts
		return nil, c.refused(resp)
	}
	return resp, nil
}

func (c *Client) request(ctx context.Context, r call) (*http.Request, error) {
	for k, v := range r.query {
		if len(v) == 1 && v[0] == "" {
			delete(r.query, k)
		}
	}
	address := c.base + Prefix + r.path
	if r.root {
		address = c.base + r.path
	}
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, r.body)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "ask %s: %w", c.host, err)
	}
	req.Close = r.alone
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// refused reads the error out of an answer.
func (c *Client) refused(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "application/problem+json" {
		var e Error
		if json.Unmarshal(body, &e) == nil && e.Detail != "" {
			return e.plain()
		}
	}
	return tender.Errorf(kindOf(resp.StatusCode), "%s answers %s", c.host, resp.Status).
		Hint("is that a Tender daemon? the address comes from --host or TENDER_HOST")
}

// unreachable says why there was no answer, and what to do.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*tender.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		t := tender.Errorf(tender.Unavailable, "no Tender daemon answers at %s: %w", c.host, e.Err)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return tender.Errorf(tender.Denied, "the socket %s may not be opened: %w", c.host, e.Err).Hint("try again with sudo")
		case strings.HasPrefix(c.host, "unix:"):
			return t.Hint("start one: tender serve, or: systemctl start tender")
		}
		return t.Hint("is it running there, and is the address right? it comes from --host or TENDER_HOST")
	}
	return tender.Errorf(tender.Unavailable, "ask the daemon at %s: %w", c.host, err).
		Hint("is it still running? see: systemctl status tender")
}

// get asks for JSON.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (out T, err error) {
	return ask[T](ctx, c, call{method: http.MethodGet, path: path, query: query})
}

// post sends JSON and asks for JSON.
func post[T any](ctx context.Context, c *Client, path string, body any) (out T, err error) {
	r, err := jsonCall(http.MethodPost, path, nil, body)
	if err != nil {
		return out, err
	}
	return ask[T](ctx, c, r)
}

func jsonCall(method, path string, query url.Values, body any) (call, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return call{}, fmt.Errorf("write the request: %w", err)
	}
	return call{method: method, path: path, query: query, body: bytes.NewReader(b), kind: "application/json"}, nil
}

func ask[T any](ctx context.Context, c *Client, r call) (out T, err error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close() //nolint:errcheck // all of it was read
	if resp.StatusCode == http.StatusNoContent {
		return out, nil
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		return out, tender.Errorf(tender.Unavailable, "read the answer of %s: %w", c.host, err)
	}
	return out, nil
}

// stream reads values until the answer ends; take's error ends it, too.
func stream[T any](ctx context.Context, c *Client, r call, take func(T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // what was read of it counts
	lost := c.lost()
	w := &watched{r: resp.Body}
	w.timer = time.AfterFunc(silence, func() { cancel(lost) })
	defer w.timer.Stop()
	for d := json.NewDecoder(w); ; {
		var v T
		err := d.Decode(&v)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return lost
		}
		if err := take(v); err != nil {
			return err
		}
	}
}

// watched puts its timer off with each read.
type watched struct {
	r     io.Reader
	timer *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.timer.Reset(silence)
	return n, err
}
