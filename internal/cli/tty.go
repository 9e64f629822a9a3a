package cli

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/tenderhq/tender/internal/api"
)

// window returns the size of the terminal where one is wanted.
func (a *app) window(tty bool) (width, height int) {
	if !tty {
		return 0, 0
	}
	return size(a.Out)
}

// errDetached: the user typed the keys to leave a process running.
var errDetached = errors.New("detached")

// connect joins the user's streams with a process until it ends, and returns
// its code as exit. stdin says whether it reads; raw hands every key over; keys lets Ctrl-P Ctrl-Q leave.
func (a *app) connect(ctx context.Context, s api.Stream, stdin, raw, keys bool) error {
	defer s.Close()
	// Ctrl-C ends the wait where the terminal is not raw: the connection is what is read from.
	defer context.AfterFunc(ctx, func() { s.Close() })()

	if raw {
		in := a.In.(*os.File)
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return fmt.Errorf("set up the terminal: %w", err)
		}
		defer term.Restore(int(in.Fd()), before)
	}
	if s.TTY && isTerminal(a.Out) {
		defer a.followSize(ctx, s)()
	}

	detached := make(chan struct{})
	if stdin && s.Input != nil {
		in := a.In
		if raw && keys {
			in = &leaveKeys{r: a.In}
		}
		// Nobody waits for this one: a read from a terminal cannot be called back. It ends
		// with the process or at the next key.
		go func() {
			_, err := io.Copy(s.Input, in)
			if errors.Is(err, errDetached) {
				close(detached)
				s.Close()
				return
			}
			s.CloseWrite()
		}()
	}

	var err error
	if s.TTY {
		_, err = io.Copy(a.Out, s.Output)
	} else {
		err = demultiplex(a.Out, a.Err, s.Output)
	}
	select {
	case <-detached:
		return nil
	default:
	}
	if ctx.Err() != nil {
		return exit(interrupted)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.Instance, err)
	}
	code, err := s.Exit(ctx)
	if err != nil {
		return fmt.Errorf("%s: exit code: %w", s.Instance, err)
	}
	if code != 0 {
		return exit(code)
	}
	return nil
}

// followSize tells the process how large the terminal is, now and whenever that
// changes. The function returned ends it.
func (a *app) followSize(ctx context.Context, s api.Stream) func() {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			w, h := size(a.Out)
			// A process that has just ended cannot be resized: no reason to disturb the user.
			s.Resize(ctx, w, h)
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		cancel()
		<-ended
	}
}

// demultiplex parts Docker's framing into the two streams: 8 bytes (stream,
// three zeros, big-endian length), then that many bytes.
func demultiplex(out, errw io.Writer, r io.Reader) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		w := out
		if head[0] == 2 {
			w = errw
		}
		if _, err := io.CopyN(w, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return err
		}
	}
}

// leaveKeys reads until Ctrl-P Ctrl-Q, Docker's keys to leave.
type leaveKeys struct {
	r    io.Reader
	held bool // a Ctrl-P that is not passed on yet
}

const ctrlP, ctrlQ = 16, 17

func (k *leaveKeys) Read(p []byte) (int, error) {
	if len(p) < 2 {
		return k.r.Read(p)
	}
	buf := make([]byte, len(p)/2)
	n, err := k.r.Read(buf)
	out := 0
	for _, b := range buf[:n] {
		if k.held && b == ctrlQ {
			return out, errDetached
		}
		if k.held {
			p[out], out, k.held = ctrlP, out+1, false
		}
		if b == ctrlP {
			k.held = true
			continue
		}
		p[out], out = b, out+1
	}
	return out, err
}
