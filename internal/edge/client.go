package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/proxy"
)

// Client asks the edge at a socket. Every call is a connection of its own, so
// that it reaches the edge that serves now and not the one before.
type Client struct {
	socket string
	http   http.Client
}

// NewClient asks the edge at socket; nothing is dialled yet.
func NewClient(socket string) *Client {
	if socket == "" {
		socket = DefaultSocket
	}
	var d net.Dialer
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}
}

// Away reports whether err says that no edge answers at the socket.
func Away(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// Set makes t what is served, whole or not at all. An error of kind Invalid
// names the route; then the table before is served on.
func (c *Client) Set(ctx context.Context, t Table) error {
	body, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("set the edge's table: %w", err)
	}
	return c.do(ctx, "set the edge's table", http.MethodPut, "/table", body, nil)
}

// Report returns what was served since the first of a chain of edges that
// handed over to one another.
func (c *Client) Report(ctx context.Context) (r proxy.Report, err error) {
	return r, c.do(ctx, "read the edge's report", http.MethodGet, "/report", nil, &r)
}

// Status says which edge answers.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.do(ctx, "read the edge's status", http.MethodGet, "/status", nil, &s)
}

// Metrics copies the edge's Prometheus metrics to w.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	return c.do(ctx, "read the edge's metrics", http.MethodGet, "/metrics", nil, w)
}

// Hello reports whether the edge that serves would hand over to one of this
// binary's version; the error says why not.
func (c *Client) Hello(ctx context.Context, version string) error {
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	switch {
	case Protocol != s.Protocol && Protocol != s.Protocol+1:
		return tender.Errorf(tender.Conflict, "the edge (version %s) speaks hand-over protocol %d, version %s speaks %d", s.Version, s.Protocol, version, Protocol)
	case Format != s.Format && Format != s.Format+1:
		return tender.Errorf(tender.Conflict, "the edge (version %s) serves tables of format %d, version %s knows %d", s.Version, s.Format, version, Format)
	}
	return nil
}

// Ask sends r to a revision behind a route, whatever share of the traffic that
// has. Bodies are bounded to 1 MiB, each way.
func (c *Client) Ask(ctx context.Context, route, revision string, r *http.Request) (*http.Response, error) {
	a := asked{Route: route, Revision: revision, Method: r.Method, URL: r.URL.String(), Host: r.Host, Header: r.Header}
	if r.Body != nil {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", route, err)
		}
		a.Body = body
	}
	body, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", route, err)
	}
	var got answered
	if err := c.do(ctx, "ask the edge", http.MethodPost, "/ask", body, &got); err != nil {
		return nil, err
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", got.Status, http.StatusText(got.Status)), StatusCode: got.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: got.Header, Body: io.NopCloser(bytes.NewReader(got.Body)), ContentLength: int64(len(got.Body)), Request: r,
	}, nil
}

// carry tells what run has counted, and returns the version of the table that is served now.
func (c *Client) carry(ctx context.Context, run string, said Carried) (table uint64, err error) {
	body, err := json.Marshal(said)
	if err != nil {
		return 0, err
	}
	return table, c.do(ctx, "tell what was counted", http.MethodPost, "/carry/"+run, body, &table)
}

func (c *Client) table(ctx context.Context) (t Table, err error) {
	return t, c.do(ctx, "read the edge's table", http.MethodGet, "/table", nil, &t)
}

// next returns the table once it is another one than that of the version after, or
// the same after a while.
func (c *Client) next(ctx context.Context, after uint64) (t Table, err error) {
	return t, c.do(ctx, "wait for the edge's next table", http.MethodGet, "/table/"+strconv.FormatUint(after, 10), nil, &t)
}

// do asks, and asks again while one edge hands over to another.
func (c *Client) do(ctx context.Context, doing, method, path string, body []byte, out any) error {
	cuts := 0
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := c.once(ctx, method, path, body, out)
		if err == nil {
			return nil
		}
		// A connection that the old edge did not get round to answering is asked anew, too.
		if errors.Is(err, errCut) && cuts < 3 {
			cuts++
		} else if !errors.Is(err, errHandedOver) {
			return fmt.Errorf("%s: %w", doing, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", doing, err)
		case <-time.After(wait):
		}
	}
}

// errHandedOver is what errHanding says, heard here.
var errHandedOver = errors.New("one edge hands over to another")

// errCut is an edge that ended before it answered.
var errCut = errors.New("the edge ended")

const handingHeader = "Tender-Edge-Handing"

func (c *Client) once(ctx context.Context, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://edge"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		if Away(err) {
			return tender.Errorf(tender.Unavailable, "no edge answers at %s: %w", c.socket, err).Hint("start one: tender edge, or: systemctl start tender-edge")
		}
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			err = fmt.Errorf("%w: %w", errCut, err)
		}
		return tender.Errorf(tender.Unavailable, "ask the edge at %s: %w", c.socket, err)
	}
	defer res.Body.Close()
	if res.Header.Get(handingHeader) != "" {
		return fmt.Errorf("%w: %w", errHandedOver, readProblem(res))
	}
	if res.StatusCode/100 != 2 {
		return readProblem(res)
	}
	switch out := out.(type) {
	case nil:
		return nil
	case io.Writer:
		_, err := io.Copy(out, res.Body)
		return err
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return tender.Errorf(tender.Unavailable, "understand the edge: %w", err)
	}
	return nil
}
