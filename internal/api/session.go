package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/tenderhq/tender"
)

// Exec is Backend's.
func (c *Client) Exec(ctx context.Context, t Target, r ExecRequest) (Stream, error) {
	return c.session(ctx, "/exec", t.query(), r, nil)
}

// Attach is Backend's.
func (c *Client) Attach(ctx context.Context, t Target, stdin bool) (Stream, error) {
	query := t.query()
	query.Set("stdin", flag(stdin))
	return c.session(ctx, "/attach", query, nil, nil)
}

// Run is Backend's.
func (c *Client) Run(ctx context.Context, project, service string, r ExecRequest, report func(Event)) (Stream, error) {
	return c.session(ctx, pathf("/projects/%s/services/%s/run", project, service), nil, r, report)
}

// session switches a connection of its own to Upgrade. ctx counts until the
// stream is open; after that Close ends it.
func (c *Client) session(ctx context.Context, path string, query url.Values, body any, report func(Event)) (Stream, error) {
	r := call{method: http.MethodPost, path: path, query: query}
	if body != nil {
		var err error
		if r, err = jsonCall(http.MethodPost, path, query, body); err != nil {
			return Stream{}, err
		}
	}
	req, err := c.request(ctx, r)
	if err != nil {
		return Stream{}, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", Upgrade)
	conn, err := c.dial(ctx)
	if err != nil {
		return Stream{}, c.unreachable(ctx, err)
	}
	undo := context.AfterFunc(ctx, func() { _ = conn.Close() })
	s := &session{client: c, conn: conn, buf: bufio.NewReader(conn), ended: make(chan struct{})}
	start, err := s.start(req, report)
	if !undo() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Stream{}, err
	}
	out, in := io.Pipe()
	go s.read(in, start.TTY)
	stream := Stream{TTY: start.TTY, Instance: start.Instance, Output: out, Input: conn, CloseWrite: s.closeWrite, Exit: s.exit}
	stream.Close = func() error {
		err := conn.Close()
		_ = out.Close() // a reader that has stopped reading must not hold read up
		<-s.ended
		return err
	}
	stream.Resize = func(ctx context.Context, width, height int) error {
		query := url.Values{"width": {number(width)}, "height": {number(height)}}
		_, err := ask[nothing](ctx, c, call{method: http.MethodPost, path: pathf("/streams/%s/resize", start.ID), query: query})
		return err
	}
	stream.Signal = func(ctx context.Context, signal string) error {
		_, err := ask[nothing](ctx, c, call{method: http.MethodPost, path: pathf("/streams/%s/signal", start.ID), query: url.Values{"signal": {signal}}})
		return err
	}
	return stream, nil
}

// session is the client's end of Upgrade.
type session struct {
	client *Client
	conn   net.Conn
	buf    *bufio.Reader
	ended  chan struct{} // closed after code and err are set

	code int
	err  error

	half sync.Once
}

// start sends the request and reads until the process runs.
func (s *session) start(req *http.Request, report func(Event)) (opened, error) {
	if err := req.Write(s.conn); err != nil {
		return opened{}, s.client.unreachable(req.Context(), err)
	}
	resp, err := http.ReadResponse(s.buf, req)
	if err != nil {
		return opened{}, s.client.unreachable(req.Context(), err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close() //nolint:errcheck // what was read of it counts
		return opened{}, s.client.refused(resp)
	}
	for {
		kind, data, err := s.frame()
		if err != nil {
			return opened{}, err
		}
		switch kind {
		case frameEvent:
			var e Event
			if json.Unmarshal(data, &e) == nil && report != nil {
				report(e)
			}
		case frameOpened:
			var o opened
			if err := json.Unmarshal(data, &o); err != nil {
				return o, fmt.Errorf("read the answer of %s: %w", s.client.host, err)
			}
			return o, nil
		case frameExit:
			if _, err := s.parseExit(data); err != nil {
				return opened{}, err
			}
			return opened{}, s.client.lost()
		}
	}
}

// frame reads one frame; heartbeats are frames, so silence means that the
// connection is dead.
func (s *session) frame() (kind byte, data []byte, err error) {
	_ = s.conn.SetReadDeadline(time.Now().Add(silence))
	kind, n, err := readHeader(s.buf)
	if err == nil && n > maxFrame {
		return 0, nil, tender.Errorf(tender.Internal, "%s sends a frame of %d bytes, more than %d", s.client.host, n, maxFrame)
	}
	if err == nil {
		data = make([]byte, n)
		_, err = io.ReadFull(s.buf, data)
	}
	if err != nil {
		return 0, nil, s.client.lost()
	}
	return kind, data, nil
}

// read hands output on until the last frame.
func (s *session) read(out *io.PipeWriter, tty bool) {
	defer close(s.ended)
	// The server waits for us to hang up before it closes.
	defer s.conn.Close() //nolint:errcheck // everything was read
	frames := frames{w: out}
	for {
		kind, data, err := s.frame()
		if err != nil {
			s.err = err
			out.CloseWithError(err)
			return
		}
		switch {
		case kind == frameExit:
			s.code, s.err = s.parseExit(data)
			out.Close() //nolint:errcheck // a pipe's Close returns nil
			return
		case kind == frameStdout && tty:
			_, err = out.Write(data)
		case kind == frameStdout || kind == frameStderr:
			err = frames.write(kind, data)
		}
		if err != nil && !errors.Is(err, io.ErrClosedPipe) {
			s.err = err
			return
		}
	}
}

func (s *session) parseExit(data []byte) (int, error) {
	var e exit
	if err := json.Unmarshal(data, &e); err != nil {
		return 0, fmt.Errorf("read the answer of %s: %w", s.client.host, err)
	}
	if e.Error != nil {
		return 0, e.Error.plain()
	}
	if e.Code == nil {
		return 0, s.client.lost()
	}
	return *e.Code, nil
}

// exit waits for the last frame.
func (s *session) exit(ctx context.Context) (int, error) {
	select {
	case <-s.ended:
		return s.code, s.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// closeWrite is the end of standard input.
func (s *session) closeWrite() (err error) {
	s.half.Do(func() {
		h, ok := s.conn.(interface{ CloseWrite() error })
		if !ok {
			err = fmt.Errorf("%T has no half-close", s.conn)
			return
		}
		err = h.CloseWrite()
	})
	return err
}
