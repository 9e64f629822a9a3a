package cli

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
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

// joint says how the user's streams are joined with a process.
type joint struct {
	stdin bool   // it reads
	raw   bool   // every key is handed over
	leave []byte // keys that leave the process running, where raw; none: there are none
}

// connect joins the user's streams with a process until it ends, and returns
// its code as exit.
func (a *app) connect(ctx context.Context, s api.Stream, how joint) error {
	defer s.Close()
	// Ctrl-C ends the wait where the terminal is not raw: the connection is what is read from.
	defer context.AfterFunc(ctx, func() { s.Close() })()

	if how.raw {
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
	if how.stdin && s.Input != nil {
		in := a.In
		if how.raw && len(how.leave) > 0 {
			in = &leaveKeys{r: a.In, keys: how.leave}
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

// proxied are the signals that a process gets in our place; what ends us
// unseen, and what says that the terminal or a child has changed, are none.
var proxied = map[os.Signal]string{
	syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP", syscall.SIGQUIT: "QUIT",
	syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2", syscall.SIGALRM: "ALRM", syscall.SIGCONT: "CONT",
}

// proxySignals hands signals on to a process instead of ending this one. The
// function returned ends it.
func (a *app) proxySignals(ctx context.Context, s api.Stream) func() {
	got := make(chan os.Signal, 16)
	for sig := range proxied {
		signal.Notify(got, sig)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case sig := <-got:
				if err := s.Signal(ctx, proxied[sig]); err != nil && ctx.Err() == nil {
					a.note("signal %s: %v", proxied[sig], err)
				}
			}
		}
	}()
	return func() {
		signal.Stop(got)
		cancel()
		<-ended
	}
}

// dockersKeys leave a process running unless others are given.
const dockersKeys = "ctrl-p,ctrl-q"

// detachKeys reads keys as docker's --detach-keys has them: single characters
// and ctrl-X, separated by commas.
func detachKeys(s string) ([]byte, error) {
	var keys []byte
	for _, k := range strings.Split(s, ",") {
		name, ctrl := strings.CutPrefix(k, "ctrl-")
		switch {
		case len(name) != 1 || name[0] > 126 || name[0] < 32:
			return nil, misuse("as a, or ctrl-p,ctrl-q", "--detach-keys %q: %q is no key", s, k)
		case !ctrl:
			keys = append(keys, name[0])
		case name[0] >= 'a' && name[0] <= 'z':
			keys = append(keys, name[0]-'a'+1)
		case name[0] >= '@' && name[0] <= '_':
			keys = append(keys, name[0]-'@')
		default:
			return nil, misuse("ctrl- goes with a-z @ [ \\ ] ^ _", "--detach-keys %q: %q is no key", s, k)
		}
	}
	return keys, nil
}

// leaveKeys reads until the keys to leave come one after the other.
type leaveKeys struct {
	r    io.Reader
	keys []byte
	held int    // how many of keys have come and are not passed on yet
	rest []byte // read and not passed on yet
	end  error  // comes after rest
}

func (k *leaveKeys) Read(p []byte) (int, error) {
	for len(k.rest) == 0 && k.end == nil {
		buf := make([]byte, max(len(p), 1))
		n, err := k.r.Read(buf)
		k.take(buf[:n])
		if err != nil && k.end == nil {
			k.rest = append(k.rest, k.keys[:k.held]...)
			k.end = err
		}
	}
	n := copy(p, k.rest)
	if k.rest = k.rest[n:]; n > 0 {
		return n, nil
	}
	return 0, k.end
}

func (k *leaveKeys) take(typed []byte) {
	for _, b := range typed {
		if b != k.keys[k.held] && k.held > 0 {
			k.rest = append(k.rest, k.keys[:k.held]...)
			k.held = 0
		}
		switch {
		case b != k.keys[k.held]:
			k.rest = append(k.rest, b)
		case k.held+1 == len(k.keys):
			k.end = errDetached
			return
		default:
			k.held++
		}
	}
}
