// Package cli is the command line: the words people type, the tables and the
// progress they read, and the codes that scripts branch on.
//
// It hides flags, help, completion, terminals and Docker's output templates.
// Main knocks at the daemon through api.Client and reads the user's Compose
// files through compose.Load; it decides nothing about containers itself. Only
// this package prints and only it chooses the exit code. Results go to stdout,
// progress and notes to stderr, and no secret value is ever taken from an
// argument or printed.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	tender "github.com/tenderhq/tender"
)

// Exit codes. exec, run, attach and wait pass the container's own instead.
const (
	done        = 0
	failed      = 1
	misused     = 2
	changes     = 3
	denied      = 4
	unhealthy   = 5
	interrupted = 130
)

// Stdio is what a process is given: streams, environment and place. Version
// comes from whoever links the binary.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
	Env      []string // NAME=value
	Dir      string   // the working directory, absolute
	Version  string
}

// Main runs one command and returns the exit code of the process.
func Main(args []string, stdio Stdio) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first Ctrl-C ends the command in good order; the second one ends the process.
	context.AfterFunc(ctx, stop)

	a := newApp(stdio)
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	return a.end(ctx, root.ExecuteContext(ctx))
}

// exit is an error that says nothing and ends the process with its code.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usage is a command line that cannot be understood.
type usage struct {
	msg, hint string
}

func (u usage) Error() string { return u.msg }

func misuse(hint, format string, args ...any) error {
	return usage{msg: fmt.Sprintf(format, args...), hint: hint}
}

// end prints err and turns it into an exit code.
func (a *app) end(ctx context.Context, err error) int {
	if err == nil {
		return done
	}
	if e, ok := errors.AsType[exit](err); ok {
		return int(e)
	}
	if ctx.Err() != nil {
		fmt.Fprintln(a.Err, "tender: interrupted")
		return interrupted
	}
	hint := tender.AdviceOf(err)
	u, isUsage := errors.AsType[usage](err)
	if isUsage {
		hint = u.hint
	}
	a.complain(err.Error(), hint)
	if isUsage {
		return misused
	}
	if tender.KindOf(err) == tender.Denied {
		return denied
	}
	return failed
}

// complain prints an error as people read it: what was done and why it did not
// work, then what to type next. Several errors stand on lines of their own.
func (a *app) complain(msg, hint string) {
	lines := strings.Split(strings.TrimSpace(msg), "\n")
	fmt.Fprintln(a.Err, "tender: "+lines[0])
	for _, l := range lines[1:] {
		fmt.Fprintln(a.Err, "  "+strings.TrimSpace(l))
	}
	if hint == "" {
		return
	}
	for _, l := range strings.Split(hint, "\n") {
		fmt.Fprintln(a.Err, "  → "+l)
	}
}

// note prints a line beside the result.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.Err, format+"\n", args...)
}

// isTerminal reports whether stream, one of the three, is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// size returns the columns and rows of stream's terminal, 80 by 24 where there is none.
func size(stream any) (width, height int) {
	if f, ok := stream.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return w, h
		}
	}
	return 80, 24
}
