package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// process is a fake one: what is written to in is seen by run, which writes
// framed output and returns its exit code.
func process(tty bool, run func(in io.Reader, out io.Writer) (int, error)) func(context.Context) api.Stream {
	return func(context.Context) api.Stream {
		inR, inW := io.Pipe()
		outR, outW := io.Pipe()
		ended := make(chan struct{})
		var code int
		var err error
		go func() {
			defer close(ended)
			code, err = run(inR, outW)
			inR.Close()
			outW.Close()
		}()
		return api.Stream{
			TTY: tty, Instance: "shop-web-2", Output: outR, Input: inW, CloseWrite: inW.Close,
			Close: func() error {
				inW.CloseWithError(io.ErrUnexpectedEOF)
				outR.CloseWithError(io.ErrClosedPipe)
				return nil
			},
			Exit: func(ctx context.Context) (int, error) {
				select {
				case <-ended:
					return code, err
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			},
		}
	}
}

var web = api.Target{Project: "shop", Service: "web"}

func exec(t *testing.T, c *api.Client) api.Stream {
	t.Helper()
	s, err := c.Exec(t.Context(), web, api.ExecRequest{Cmd: []string{"sh"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// cat must get all of its input, see its end, and have its code arrive.
func TestHalfCloseAndExitCode(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	for _, network := range []string{"unix", "tcp"} {
		for _, tty := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, tty %v", network, tty), func(t *testing.T) {
				f := &fake{tokens: people(), stream: process(tty, func(in io.Reader, out io.Writer) (int, error) {
					b, err := io.ReadAll(in)
					if err != nil {
						return 1, err
					}
					if tty {
						_, err = out.Write(b)
					} else {
						_, err = out.Write(append(framed(1, string(b)), framed(2, "done")...))
					}
					return 42, err
				})}
				host, _ := serve(t, network, f, api.Options{})
				s := exec(t, dial(t, host, map[string]string{"tcp": "d"}[network]))
				if s.TTY != tty || s.Instance != "shop-web-2" {
					t.Errorf("opened %+v", s)
				}
				go func() {
					_, _ = s.Input.Write(big)
					_ = s.CloseWrite()
				}()
				got, err := io.ReadAll(s.Output)
				if err != nil {
					t.Fatal(err)
				}
				stdout, stderr := got, []byte(nil)
				if !tty {
					stdout, stderr = split(t, got)
				}
				if !bytes.Equal(stdout, big) || !tty && string(stderr) != "done" {
					t.Errorf("%d bytes of stdout, stderr %q", len(stdout), stderr)
				}
				code, err := s.Exit(t.Context())
				if code != 42 || err != nil {
					t.Errorf("exit %d, %v", code, err)
				}
			})
		}
	}
}

// split takes Docker's frames apart.
func split(t *testing.T, b []byte) (stdout, stderr []byte) {
	t.Helper()
	for len(b) > 0 {
		n := int(b[4])<<24 | int(b[5])<<16 | int(b[6])<<8 | int(b[7])
		switch b[0] {
		case 1:
			stdout = append(stdout, b[8:8+n]...)
		case 2:
			stderr = append(stderr, b[8:8+n]...)
		default:
			t.Fatalf("a frame of stream %d", b[0])
		}
		b = b[8+n:]
	}
	return stdout, stderr
}

// A process that ends without reading its input must still deliver its code.
func TestExitWhileInputFlows(t *testing.T) {
	f := &fake{stream: process(false, func(in io.Reader, out io.Writer) (int, error) {
		_, err := io.ReadFull(in, make([]byte, 10))
		if err == nil {
			_, err = out.Write(framed(1, "enough"))
		}
		return 7, err
	})}
	host, _ := serve(t, "unix", f, api.Options{})
	s := exec(t, dial(t, host, ""))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if _, err := s.Input.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	got, err := io.ReadAll(s.Output)
	if err != nil || !strings.Contains(string(got), "enough") {
		t.Errorf("output %q, %v", got, err)
	}
	if code, err := s.Exit(t.Context()); code != 7 || err != nil {
		t.Errorf("exit %d, %v", code, err)
	}
	s.Close()
	wg.Wait()
}

func TestHeartbeatsAreNotOutput(t *testing.T) {
	more := make(chan struct{})
	f := &fake{stream: process(true, func(_ io.Reader, out io.Writer) (int, error) {
		for range 50 {
			<-more
			if _, err := io.WriteString(out, "x"); err != nil {
				return 1, err
			}
		}
		return 0, nil
	})}
	host, _ := serve(t, "unix", f, api.Options{Heartbeat: 50 * time.Microsecond})
	s := exec(t, dial(t, host, ""))
	go func() {
		for range 50 {
			more <- struct{}{}
		}
	}()
	got, err := io.ReadAll(s.Output)
	if string(got) != strings.Repeat("x", 50) || err != nil {
		t.Errorf("output %q, %v", got, err)
	}
}

// A client that is gone must end the process's connection, although the
// process says nothing and reads nothing.
func TestAClientThatGoesAwayEndsTheStream(t *testing.T) {
	closed := make(chan struct{})
	var once sync.Once
	f := &fake{stream: func(context.Context) api.Stream {
		out, _ := io.Pipe()
		return api.Stream{
			TTY: true, Output: out,
			Close: func() error { once.Do(func() { close(closed) }); return out.Close() },
			Exit:  func(context.Context) (int, error) { return 0, nil },
		}
	}}
	host, _ := serve(t, "unix", f, api.Options{Heartbeat: time.Millisecond})
	if err := exec(t, dial(t, host, "")).Close(); err != nil {
		t.Fatal(err)
	}
	<-closed
}

// A daemon that dies must not look like a process that ended.
func TestAStreamCutInTheMiddle(t *testing.T) {
	opened := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tender-stream\r\n\r\n" +
		string(framed(5, `{"id":"1","tty":true,"instance":"x"}`)) + string(framed(1, "some"))
	for name, rest := range map[string]string{"between frames": "", "in a frame": "\x01\x00\x00\x00\x00\x00\x00\xffhalf", "a mad length": "\x01\x00\x00\x00\xff\xff\xff\xff"} {
		t.Run(name, func(t *testing.T) {
			l, host := listen(t, "unix")
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, opened+rest)
				_ = conn.Close()
			}()
			s := exec(t, dial(t, host, ""))
			if _, err := io.ReadAll(s.Output); err == nil {
				t.Error("the output ended as if all was well")
			}
			if _, err := s.Exit(t.Context()); err == nil {
				t.Error("there is an exit code")
			}
		})
	}
}

// The daemon stops: the client is told, and the server does not hang.
func TestStopCutsStreams(t *testing.T) {
	f := &fake{stream: process(true, func(in io.Reader, _ io.Writer) (int, error) {
		_, err := io.ReadAll(in)
		return 1, err
	})}
	host, stop := serve(t, "unix", f, api.Options{})
	s := exec(t, dial(t, host, ""))
	go io.Copy(io.Discard, s.Output)
	stop()
	if _, err := s.Exit(t.Context()); tender.KindOf(err) != tender.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestRunReportsBeforeItOpens(t *testing.T) {
	f := &fake{
		events: []api.Event{{Kind: api.KindPull, Text: "pulling"}, {Kind: api.KindBegun, Text: "starting"}},
		stream: process(false, func(_ io.Reader, out io.Writer) (int, error) {
			_, err := out.Write(framed(1, "hello"))
			return 0, err
		}),
	}
	host, _ := serve(t, "unix", f, api.Options{})
	var said []string
	s, err := dial(t, host, "").Run(t.Context(), "shop", "web", api.ExecRequest{}, func(e api.Event) { said = append(said, e.Text) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if diff := cmp.Diff([]string{"pulling", "starting"}, said); diff != "" {
		t.Error(diff)
	}
	got, err := io.ReadAll(s.Output)
	if !bytes.Equal(got, framed(1, "hello")) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if code, err := s.Exit(t.Context()); code != 0 || err != nil {
		t.Errorf("exit %d, %v", code, err)
	}
}

// Detached, there is nothing to read and nothing to wait for.
func TestDetached(t *testing.T) {
	f := &fake{stream: func(context.Context) api.Stream { return api.Stream{Instance: "shop-web-run-1"} }}
	host, _ := serve(t, "unix", f, api.Options{})
	s := exec(t, dial(t, host, ""))
	if b, err := io.ReadAll(s.Output); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if code, err := s.Exit(t.Context()); code != 0 || err != nil || s.Instance != "shop-web-run-1" {
		t.Errorf("exit %d, %v, %s", code, err, s.Instance)
	}
}

func TestResize(t *testing.T) {
	sizes := make(chan [2]int, 1)
	f := &fake{tokens: people(), stream: func(context.Context) api.Stream {
		out, in := io.Pipe()
		return api.Stream{
			TTY: true, Output: out, Close: in.Close,
			Resize: func(_ context.Context, w, h int) error { sizes <- [2]int{w, h}; return nil },
		}
	}}
	host, _ := serve(t, "tcp", f, api.Options{})
	s := exec(t, dial(t, host, "d"))
	if err := s.Resize(t.Context(), 120, 40); err != nil {
		t.Fatal(err)
	}
	if got := <-sizes; got != [2]int{120, 40} {
		t.Errorf("size %v", got)
	}
	if err := s.Resize(t.Context(), 0, 40); tender.KindOf(err) != tender.Invalid {
		t.Errorf("no width: %v", err)
	}
	resp := raw(t, host, "POST", api.Prefix+"/streams/unknown/resize?width=1&height=1", "d", "")
	if resp.StatusCode != 404 {
		t.Errorf("an unknown stream: %s", resp.Status)
	}
}

func TestSignal(t *testing.T) {
	signals := make(chan string, 1)
	takes := true
	f := &fake{tokens: people(), stream: func(context.Context) api.Stream {
		out, in := io.Pipe()
		s := api.Stream{Output: out, Close: in.Close}
		if takes {
			s.Signal = func(_ context.Context, signal string) error { signals <- signal; return nil }
		}
		return s
	}}
	host, _ := serve(t, "tcp", f, api.Options{})
	s := exec(t, dial(t, host, "d"))
	if err := s.Signal(t.Context(), "INT"); err != nil {
		t.Fatal(err)
	}
	if got := <-signals; got != "INT" {
		t.Errorf("signal %s", got)
	}
	if err := s.Signal(t.Context(), "; rm"); tender.KindOf(err) != tender.Invalid {
		t.Errorf("no signal: %v", err)
	}
	takes = false
	if err := exec(t, dial(t, host, "d")).Signal(t.Context(), "INT"); tender.KindOf(err) != tender.Invalid {
		t.Errorf("a process that takes none: %v", err)
	}
	resp := raw(t, host, "POST", api.Prefix+"/streams/unknown/signal?signal=INT", "d", "")
	if resp.StatusCode != 404 {
		t.Errorf("an unknown stream: %s", resp.Status)
	}
}

func TestOpeningIsCancelled(t *testing.T) {
	f := &fake{hold: make(chan struct{}), arrived: make(chan struct{}, 1), left: make(chan struct{}), events: []api.Event{{Text: "one"}}}
	host, _ := serve(t, "unix", f, api.Options{Heartbeat: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(t, host, "")
	done := make(chan error, 1)
	go func() {
		_, err := c.Run(ctx, "shop", "web", api.ExecRequest{}, nil)
		done <- err
	}()
	<-f.arrived
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-f.left
}
