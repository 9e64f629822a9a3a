package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a program that somebody sits in front of.
type terminal struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	pty  *os.File

	mu  sync.Mutex
	out bytes.Buffer

	ended chan struct{}
}

// sit starts a program on a terminal of so many rows and columns.
func sit(t *testing.T, cmd *exec.Cmd, rows, columns uint16) *terminal {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pty.Close() })
	if err := unix.IoctlSetPointerInt(int(pty.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(int(pty.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	s := &terminal{t: t, name: filepath.Base(cmd.Path) + " " + strings.Join(cmd.Args[1:], " "), cmd: cmd, pty: pty, ended: make(chan struct{})}
	s.size(rows, columns)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		io.Copy(s, pty) // ends with an error when the last one on the terminal has gone
		cmd.Wait()
	}()
	return s
}

// Write takes what the program prints.
func (s *terminal) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *terminal) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// size changes it, as a window does; the kernel tells the program.
func (s *terminal) size(rows, columns uint16) {
	s.t.Helper()
	if err := unix.IoctlSetWinsize(int(s.pty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *terminal) keys(typed string) {
	s.t.Helper()
	if _, err := s.pty.WriteString(typed); err != nil {
		s.t.Fatalf("%s: %v after\n%s", s.name, err, s.shown())
	}
}

// until types again and again until a text is shown.
func (s *terminal) until(h *host, text, typed string) {
	s.t.Helper()
	last := time.Time{}
	h.until(fmt.Sprintf("%s shows %q", s.name, text), func() error {
		if strings.Contains(s.shown(), text) {
			return nil
		}
		if time.Since(last) > time.Second { // a slow machine is not to be flooded with keys
			last = time.Now()
			s.keys(typed)
		}
		return fmt.Errorf("%q", s.shown())
	})
}

// code waits for its end.
func (s *terminal) code() int {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.cmd.Process.Kill()
		s.t.Fatalf("%s did not end:\n%s", s.name, s.shown())
	}
	return s.cmd.ProcessState.ExitCode()
}

// A terminal is one in the instance, too: sizes, keys to leave, codes.
func terminalsFollow(t *testing.T, both []twin) {
	const sizes = "while read x; do stty size; done; exit 5"
	for _, w := range both {
		for _, args := range [][]string{{"exec", "web", "sh", "-c", sizes}, {"exec", "-it", "web", "sh", "-c", sizes}, {"run", "--rm", "--no-deps", "web", "sh", "-c", sizes}} {
			s := sit(t, w.command(args...), 31, 91)
			s.until(w.host, "31 91", "\n")
			s.size(42, 122)
			s.until(w.host, "42 122", "\n")
			s.keys("\x04")
			if code := s.code(); code != 5 {
				t.Errorf("%s ended with %d:\n%s", s.name, code, s.shown())
			}
		}

		// Keys leave the process running. Theirs calls that a failure: ours does not, since it was asked for.
		left := 0
		if w.tool != binary {
			left = 1
		}
		id := w.state("term").ID
		for keys, flags := range map[string][]string{"\x10\x11": nil, "\x01d": {"--detach-keys", "ctrl-a,d"}} {
			s := sit(t, w.command(append(append([]string{"attach"}, flags...), "term")...), 33, 93)
			s.until(w.host, "33 93", "\n")
			s.size(44, 124)
			s.until(w.host, "44 124", "\n")
			s.keys(keys)
			if code := s.code(); code != left {
				t.Errorf("%s ended with %d, want %d:\n%s", s.name, code, left, s.shown())
			}
			if c := w.state("term"); c.ID != id || !c.State.Running {
				t.Errorf("%s: after the keys to leave: %+v", s.name, c.State)
			}
		}

		// The end of the process is the end of attach, with its code.
		s := sit(t, w.command("attach", "term"), 33, 93)
		s.until(w.host, "33 93", "\n")
		s.keys("\x04")
		if code := s.code(); code != 4 {
			t.Errorf("%s ended with %d, want 4:\n%s", s.name, code, s.shown())
		}
	}
}

// Without a terminal, attach passes on what is typed, signals and the code.
func attachPassesOn(t *testing.T, both []twin) {
	for _, w := range both {
		name := filepath.Base(w.tool)
		attach := func(service string) (*exec.Cmd, io.WriteCloser, func() string) {
			cmd := w.command("attach", service)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var out terminal // for its lock alone
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return cmd, in, out.shown
		}

		pipe, in, shown := attach("pipe")
		fmt.Fprintln(in, "hello")
		w.until(name+": the line comes back", func() error {
			if !strings.Contains(shown(), "said hello") {
				return fmt.Errorf("%q", shown())
			}
			return nil
		})
		fmt.Fprintln(in, "end")
		if err := pipe.Wait(); pipe.ProcessState.ExitCode() != 7 {
			t.Errorf("%s: attach to pipe: %v", name, err)
		}

		sig, in, shown := attach("sig")
		w.until(name+": the signal is passed on", func() error {
			if strings.Contains(shown(), "got usr1") {
				return nil
			}
			// Until its runtime has begun, the signal would be its end; then it is dropped until it is asked for.
			if !catches(sig.Process.Pid, syscall.SIGUSR1) {
				return fmt.Errorf("it does not listen yet")
			}
			return errOr(sig.Process.Signal(syscall.SIGUSR1), "%q", shown())
		})
		if err := sig.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		// The process ended with 6. Theirs says 130, because it was told to end itself.
		want := 6
		if w.tool != binary {
			want = 130
		}
		if err := sig.Wait(); sig.ProcessState.ExitCode() != want {
			t.Errorf("%s: attach to sig: %v, want %d", name, err, want)
		}
		if c := w.state("sig"); c.State.Running || c.State.ExitCode != 6 {
			t.Errorf("%s: after SIGINT: %+v", name, c.State)
		}
		in.Close()
	}
}

// catches reports whether a program handles a signal.
func catches(pid int, sig syscall.Signal) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if mask, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			var caught uint64
			fmt.Sscanf(strings.TrimSpace(mask), "%x", &caught)
			return caught&(1<<(uint(sig)-1)) != 0
		}
	}
	return false
}

func errOr(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return fmt.Errorf(format, args...)
}
