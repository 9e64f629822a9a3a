package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/cli"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tender": main})
}

// The scripts run the real program against the real handler of the API, on a
// unix socket, with a backend that says what daemon.json says.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			// The path of a unix socket has room for about a hundred bytes.
			dir, err := os.MkdirTemp("", "tender")
			if err != nil {
				return err
			}
			socket := filepath.Join(dir, "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				return err
			}
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			b := &backend{dir: e.WorkDir}
			handler := api.Handler(b, api.Options{Version: "test", Mounts: map[string]http.Handler{"/api/v1/": http.HandlerFunc(b.prometheus)}})
			go func() { ended <- api.Serve(ctx, handler, []net.Listener{l, tcp}, api.Serving{Grace: time.Second}) }()
			e.Defer(func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				os.RemoveAll(dir)
			})
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TZ", "UTC")
			e.Setenv("TENDER_HOST", "unix://"+socket)
			e.Setenv("TCP_HOST", "http://"+tcp.Addr().String())
			e.Setenv("NO_COLOR", "1")
			// The race detector sleeps a second at the end of each command; the scripts have hundreds.
			e.Setenv("GORACE", "atexit_sleep_ms=20")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":  code,
			"until": until,
			"mask":  mask,
		},
	})
}

// code N COMMAND...: the command ends with exactly this exit code.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	var e interface{ ExitCode() int }
	if errors.As(err, &e) {
		got = fmt.Sprint(e.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// until FILE TEXT: wait until a file that another process writes holds a text.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: until FILE TEXT")
	}
	deadline := time.Now().Add(5 * time.Minute)
	for time.Now().Before(deadline) {
		raw, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(raw), args[1]) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	ts.Fatalf("%s never held %q", args[0], args[1])
}

// mask FILE: write FILE.masked with durations as (TIME), so that it can be compared.
func mask(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mask FILE")
	}
	text := ts.ReadFile(args[0])
	lines := strings.Split(text, "\n")
	for n, l := range lines {
		if i := strings.LastIndex(l, " ("); i >= 0 && strings.HasSuffix(l, "s)") {
			lines[n] = l[:i] + " (TIME)"
		}
	}
	if err := os.WriteFile(ts.MkAbs(args[0]+".masked"), []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		ts.Fatalf("%v", err)
	}
}

// pack returns the tar of a path below root, its base name first, as the engine does.
func pack(root, p string) (io.ReadCloser, error) {
	top := filepath.Join(root, filepath.FromSlash(path.Clean("/"+p)))
	if _, err := os.Lstat(top); errors.Is(err, fs.ErrNotExist) {
		return nil, tender.Errorf(tender.NotFound, "%s is not there", p)
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	err := filepath.WalkDir(top, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		h, err := tar.FileInfoHeader(st, "")
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(filepath.Dir(top), file)
		if err != nil {
			return err
		}
		h.Name = filepath.ToSlash(rel)
		if err := t.WriteHeader(h); err != nil || st.IsDir() {
			return err
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		_, err = t.Write(raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	return io.NopCloser(&b), t.Close()
}

// note writes the names and owners of a tar that was sent into tar.txt.
func (b *backend) note(tarball io.Reader) error {
	var out strings.Builder
	t := tar.NewReader(tarball)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%d:%d %s\n", h.Uid, h.Gid, h.Name)
	}
	// The zeros after the end are a part of it, too.
	if _, err := io.Copy(io.Discard, tarball); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, "tar.txt"), []byte(out.String()), 0o644)
}

// docs/commands.md names every command, and no command that is not there.
func TestCommandsAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if got := cli.Main([]string{"--help"}, cli.Stdio{Out: &out, Err: io.Discard}); got != 0 {
		t.Fatalf("exit code %d", got)
	}
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+) {2,}[A-Z]`).FindAllStringSubmatch(out.String(), -1) {
		there[m[1]] = true
	}
	if len(there) < 30 {
		t.Fatalf("the help lists only %d commands:\n%s", len(there), &out)
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`tender ([a-z]+)").FindAllStringSubmatch(string(raw), -1) {
		named[m[1]] = true
		if !there[m[1]] {
			t.Errorf("docs/commands.md names tender %s, which is not there", m[1])
		}
	}
	for name := range there {
		if !named[name] {
			t.Errorf("docs/commands.md does not name tender %s", name)
		}
	}
}
