package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tenderhq/tender"
)

// lastWords is how long a client may take to read the end of a stream.
const lastWords = 10 * time.Second

// streams are the open connections to processes, for resize and signal.
type streams struct {
	mu   sync.Mutex
	open map[string]openStream
}

type openStream struct {
	who    string
	resize func(ctx context.Context, width, height int) error
	signal func(ctx context.Context, signal string) error
}

func (s *streams) add(o openStream) (id string) {
	id = rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[id] = o
	return id
}

func (s *streams) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

func (s *streams) get(id string) (openStream, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.open[id]
	return o, ok
}

// consoleRoutes lead to processes and files of instances.
func (h *handler) consoleRoutes() {
	deploy := rule{scope: Deploy}
	upgrade := "Switches the connection to " + Upgrade + " (Connection: Upgrade, Upgrade: " + Upgrade + "): " +
		"towards the client frames of 1 byte stream, 3 zero bytes, 4 bytes length (big-endian) and the data; streams: 0 heartbeat, 1 stdout (with a TTY everything), 2 stderr, " +
		`3 JSON {"code"} or {"error"} at the end, 4 JSON events before the process runs, 5 JSON {"id","tty","instance"} when it runs. ` +
		"From the client the bare standard input; its half-close is the end of that."
	switching := func() map[string]*huma.Response {
		return map[string]*huma.Response{"101": {Description: "Switched to " + Upgrade}}
	}
	add(h, deploy, huma.Operation{OperationID: "exec", Method: http.MethodPost, Path: "/exec", Summary: "Run a command in an instance", Description: upgrade, Responses: switching()},
		func(_ context.Context, in *struct {
			TargetIn
			Body ExecRequest
		},
		) (*huma.StreamResponse, error) {
			t, err := in.target()
			if err == nil && len(in.Body.Cmd) == 0 {
				err = tender.Errorf(tender.Invalid, "cmd: no command is named")
			}
			return h.console(func(ctx context.Context, who Person, _ func(Event)) (Stream, error) {
				return h.backend.Exec(ctx, who, t, in.Body)
			}), err
		})
	add(h, deploy, huma.Operation{OperationID: "attach", Method: http.MethodPost, Path: "/attach", Summary: "Connect to the main process of an instance", Description: upgrade, Responses: switching()},
		func(_ context.Context, in *struct {
			TargetIn
			Stdin bool `query:"stdin"`
		},
		) (*huma.StreamResponse, error) {
			t, err := in.target()
			return h.console(func(ctx context.Context, who Person, _ func(Event)) (Stream, error) {
				return h.backend.Attach(ctx, who, t, in.Stdin)
			}), err
		})
	add(h, deploy, huma.Operation{OperationID: "run", Method: http.MethodPost, Path: "/projects/{project}/services/{service}/run", Summary: "Run a one-off instance of a service", Description: upgrade, Responses: switching()},
		func(_ context.Context, in *struct {
			ProjectIn
			Service string `path:"service" maxLength:"128"`
			Body    ExecRequest
		},
		) (*huma.StreamResponse, error) {
			return h.console(func(ctx context.Context, who Person, report func(Event)) (Stream, error) {
				return h.backend.Run(ctx, who, in.Project, in.Service, in.Body, report)
			}), nil
		})
	add(h, rule{scope: Deploy, own: true}, huma.Operation{OperationID: "resize", Method: http.MethodPost, Path: "/streams/{id}/resize", Summary: "Tell a TTY its size", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *struct {
			ID     string `path:"id" maxLength:"64"`
			Width  int    `query:"width" required:"true" minimum:"1" maximum:"65535"`
			Height int    `query:"height" required:"true" minimum:"1" maximum:"65535"`
		},
		) (*nothing, error) {
			who, _ := PersonFrom(ctx)
			s, ok := h.streams.get(in.ID)
			if !ok || s.who != who.Name {
				return nil, tender.Errorf(tender.NotFound, "there is no open stream %q", in.ID)
			}
			if s.resize == nil {
				return nil, tender.Errorf(tender.Invalid, "stream %q has no terminal", in.ID)
			}
			return &nothing{}, s.resize(ctx, in.Width, in.Height)
		})
	add(h, rule{scope: Deploy, own: true}, huma.Operation{OperationID: "signal", Method: http.MethodPost, Path: "/streams/{id}/signal", Summary: "Send a signal to the process", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *struct {
			ID     string `path:"id" maxLength:"64"`
			Signal string `query:"signal" required:"true" pattern:"^[A-Z0-9+]+$" maxLength:"16"`
		},
		) (*nothing, error) {
			who, _ := PersonFrom(ctx)
			s, ok := h.streams.get(in.ID)
			if !ok || s.who != who.Name {
				return nil, tender.Errorf(tender.NotFound, "there is no open stream %q", in.ID)
			}
			if s.signal == nil {
				return nil, tender.Errorf(tender.Invalid, "the process of stream %q takes no signals", in.ID)
			}
			return &nothing{}, s.signal(ctx, in.Signal)
		})
	h.copyRoutes()
}

type copyIn struct {
	TargetIn
	Path string `query:"path" required:"true" maxLength:"4096" doc:"In the instance"`
}

func (h *handler) copyRoutes() {
	tarBody := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	add(h, rule{scope: Deploy}, huma.Operation{
		OperationID: "copy-from", Method: http.MethodGet, Path: "/files", Summary: "A file or folder of an instance, as a tar",
		Responses: contents("application/x-tar", tarBody),
	},
		func(_ context.Context, in *copyIn) (*huma.StreamResponse, error) {
			t, err := in.target()
			if err != nil {
				return nil, err
			}
			return &huma.StreamResponse{Body: func(c huma.Context) {
				_, w := humago.Unwrap(c)
				ctx, cancel := untilStop(c.Context())
				defer cancel()
				r, err := h.backend.CopyFrom(ctx, t, in.Path)
				if err != nil {
					h.complain(c, err)
					writeProblem(w, err)
					return
				}
				defer r.Close() //nolint:errcheck // all of it was read, or the client has gone
				w.Header().Set("Content-Type", "application/x-tar")
				if _, err := io.Copy(w, r); err != nil {
					h.log.Warn("copy cut short", "path", in.Path, "error", err)
					panic(http.ErrAbortHandler) // half a tar must not look whole
				}
			}}, nil
		})
	add(h, rule{scope: Deploy}, huma.Operation{
		OperationID: "copy-to", Method: http.MethodPut, Path: "/files", Summary: "Unpack a tar in a folder of an instance",
		RequestBody:   &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/x-tar": {Schema: tarBody}}},
		DefaultStatus: http.StatusNoContent,
	},
		func(_ context.Context, in *copyIn) (*huma.StreamResponse, error) {
			t, err := in.target()
			if err != nil {
				return nil, err
			}
			return &huma.StreamResponse{Body: func(c huma.Context) {
				r, w := humago.Unwrap(c)
				ctx, cancel := untilStop(c.Context())
				defer cancel()
				who, _ := PersonFrom(ctx)
				if err := h.backend.CopyTo(ctx, who, t, in.Path, r.Body); err != nil {
					h.complain(c, err)
					writeProblem(w, err)
					return
				}
				w.WriteHeader(http.StatusNoContent)
			}}, nil
		})
}

// console connects the client with what open opens. What goes wrong before the
// first event is an HTTP answer, after that it is the last frame.
func (h *handler) console(open func(ctx context.Context, who Person, report func(Event)) (Stream, error)) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(c huma.Context) {
		r, w := humago.Unwrap(c)
		if !strings.EqualFold(r.Header.Get("Upgrade"), Upgrade) || r.ProtoMajor != 1 {
			w.Header().Set("Upgrade", Upgrade)
			writeProblem(w, &Error{
				Status: http.StatusUpgradeRequired, Kind: string(tender.Invalid), Detail: "this is answered on a connection of its own",
				Hint: "send: Connection: Upgrade and Upgrade: " + Upgrade + " (HTTP/1.1)",
			})
			return
		}
		_, _ = io.Copy(io.Discard, r.Body) // nothing of the request may be left on the connection
		ctx, cancel := untilStop(c.Context())
		defer cancel()
		who, _ := PersonFrom(ctx)
		line := &line{w: w, beat: h.beat, cancel: cancel, over: make(chan struct{})}
		defer line.hangUp()
		s, err := open(ctx, who, func(e Event) {
			if line.take() == nil {
				_ = line.frames.writeJSON(frameEvent, e) // a client that has gone shows when the process runs
			}
		})
		if err == nil {
			if s.Close != nil {
				s.Close = sync.OnceValue(s.Close)
			}
			defer closeStream(s)
			err = line.take()
		}
		if err != nil {
			h.complain(c, err)
			if line.conn == nil {
				writeProblem(w, err)
				return
			}
			line.lastWord(exit{Error: problem(err)})
			_, _ = io.Copy(io.Discard, line.in)
			return
		}
		if b, ok := ctx.Value(stopKey{}).(*stop); ok {
			b.busy.Add(1)
			defer b.busy.Done()
		}
		h.connect(ctx, line, who, s)
	}}
}

func closeStream(s Stream) {
	if s.Close != nil {
		_ = s.Close() // its end was told already
	}
}

// connect carries bytes both ways until the process ends or ctx does.
func (h *handler) connect(ctx context.Context, line *line, who Person, s Stream) {
	id := h.streams.add(openStream{who.Name, s.Resize, s.Signal})
	defer h.streams.remove(id)
	if err := line.frames.writeJSON(frameOpened, opened{ID: id, TTY: s.TTY, Instance: s.Instance}); err != nil {
		return
	}
	// Reading output blocks until the stream is closed.
	defer context.AfterFunc(ctx, func() { closeStream(s) })()
	var wg sync.WaitGroup
	wg.Go(func() { line.input(s) })

	var err error
	switch {
	case s.Output == nil: // detached
	case s.TTY:
		err = line.frames.copyRaw(s.Output)
	default:
		err = line.frames.copyFramed(s.Output)
	}
	var end exit
	code := 0
	if err == nil && s.Exit != nil {
		code, err = s.Exit(ctx)
	}
	end.Code = &code
	if err != nil {
		if ctx.Err() != nil {
			err = tender.Errorf(tender.Unavailable, "the connection to the process was cut, because the daemon is stopping")
		}
		end = exit{Error: problem(fmt.Errorf("connection to %s: %w", s.Instance, err))}
	}
	line.lastWord(end)
	closeStream(s) // whoever still writes to the process stops
	wg.Wait()
}

// line is the client's connection, taken from the HTTP server when it is needed.
type line struct {
	w      http.ResponseWriter
	beat   time.Duration
	cancel context.CancelFunc
	over   chan struct{} // closed by hangUp: no more heartbeats
	beats  sync.WaitGroup

	mu     sync.Mutex
	conn   net.Conn
	in     io.Reader
	err    error
	frames frames
}

// take switches protocols, once.
func (l *line) take() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil || l.err != nil {
		return l.err
	}
	conn, rw, err := http.NewResponseController(l.w).Hijack()
	if err != nil {
		l.err = fmt.Errorf("switch to %s: %w", Upgrade, err)
		return l.err
	}
	// The server's own reader would take a half-close for the end of the request.
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	l.conn, l.in, l.frames.w, l.err = conn, io.MultiReader(bytes.NewReader(early), conn), conn, err
	if l.err != nil {
		return l.err
	}
	if _, l.err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", Upgrade); l.err == nil {
		l.beats.Go(l.live)
	}
	return l.err
}

// live sends heartbeats. Where they cannot be sent the client has gone.
func (l *line) live() {
	t := time.NewTicker(l.beat)
	defer t.Stop()
	for {
		select {
		case <-l.over:
			return
		case <-t.C:
			if l.frames.write(frameBeat, nil) != nil {
				l.cancel()
				return
			}
		}
	}
}

// input carries the client's bytes to the process until the connection ends.
func (l *line) input(s Stream) {
	var dst io.Writer = io.Discard
	if s.Input != nil {
		dst = s.Input
	}
	_, err := io.Copy(dst, l.in)
	if s.CloseWrite != nil {
		_ = s.CloseWrite() // the process may have ended before its input
	}
	if err != nil {
		// What cannot be taken by the process is still taken from the client:
		// closing a connection with unread bytes would lose the last frame.
		_, err = io.Copy(io.Discard, l.in)
		if ne, ok := errors.AsType[net.Error](err); err != nil && (!ok || !ne.Timeout()) {
			l.cancel()
		}
	}
}

// lastWord sends how it ended. After it the client hangs up; who reads from
// the line reads until then, but not for ever.
func (l *line) lastWord(e exit) {
	_ = l.frames.writeJSON(frameExit, e)
	if h, ok := l.conn.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
	_ = l.conn.SetReadDeadline(time.Now().Add(lastWords))
}

// hangUp gives the connection up, if it was taken.
func (l *line) hangUp() {
	close(l.over)
	if l.conn != nil {
		_ = l.conn.Close() // the client has hung up already, or never will
	}
	l.beats.Wait()
}
