package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// Build implements engine.Images: it reads the tar and makes an id from the tags.
func (f *Fake) Build(_ context.Context, tarball io.Reader, o engine.BuildOptions, report func(engine.Progress)) (string, error) {
	if err := f.called("Build", fmt.Sprintf("build %v", o.Tags)); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, tarball); err != nil {
		return "", fmt.Errorf("build %v: %w", o.Tags, err)
	}
	id := madeID("build " + strings.Join(o.Tags, " "))
	for _, t := range o.Tags {
		f.SetImage(t, tender.ImageID{Reference: t, ID: id})
	}
	if report != nil {
		report(engine.Progress{Text: "built " + id})
	}
	return id, nil
}

// frame puts a line into Docker's multiplexed framing, as stdout.
func frame(s string) []byte {
	if s == "" {
		return nil
	}
	n := len(s)
	return append([]byte{1, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, s...)
}

// Logs implements engine.Console: the Output of an instance's lives. With Follow
// it stays open until the present one ends.
func (f *Fake) Logs(ctx context.Context, id string, o engine.LogOptions) (io.ReadCloser, bool, error) {
	if err := f.called("Logs", ""); err != nil {
		return nil, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.byID(id)
	if i == nil {
		return nil, false, notFound(id)
	}
	lines := strings.SplitAfter(i.out, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if o.Tail >= 0 && o.Tail < len(lines) {
		lines = lines[len(lines)-o.Tail:]
	}
	var b bytes.Buffer
	for _, l := range lines {
		if o.Timestamps {
			l = i.Started.UTC().Format(time.RFC3339Nano) + " " + l
		}
		b.Write(frame(l))
	}
	if !o.Follow || i.State != tender.Running {
		return io.NopCloser(&b), false, nil
	}
	r, w := io.Pipe()
	ended := i.ended
	go func() {
		_, err := w.Write(b.Bytes())
		if err == nil {
			select {
			case <-ended:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		w.CloseWithError(err)
	}()
	return r, false, nil
}

// Exec implements engine.Console for echo, cat, true, false and sh -c "exit N".
func (f *Fake) Exec(_ context.Context, id string, o engine.ExecOptions) (*engine.Session, error) {
	if err := f.called("Exec", "exec "+id+" "+strings.Join(o.Cmd, " ")); err != nil {
		return nil, err
	}
	f.mu.Lock()
	i := f.byID(id)
	running := i != nil && i.State == tender.Running
	f.mu.Unlock()
	if i == nil {
		return nil, notFound(id)
	}
	if !running {
		return nil, tender.Errorf(tender.Conflict, "exec in %s: it is not running", id)
	}
	if len(o.Cmd) == 0 {
		return nil, tender.Errorf(tender.Invalid, "exec in %s: no command", id)
	}
	code, out := 0, ""
	switch {
	case o.Cmd[0] == "echo":
		out = strings.Join(o.Cmd[1:], " ") + "\n"
	case o.Cmd[0] == "true", o.Cmd[0] == "cat":
	case o.Cmd[0] == "false":
		code = 1
	case len(o.Cmd) == 3 && o.Cmd[0] == "sh" && o.Cmd[1] == "-c":
		if _, err := fmt.Sscanf(o.Cmd[2], "exit %d", &code); err != nil {
			return nil, tender.Errorf(tender.Invalid, "exec in %s: the fake knows no %q", id, o.Cmd[2])
		}
	default:
		code, out = 127, o.Cmd[0]+": not found\n"
	}
	if o.Cmd[0] == "cat" && o.Stdin {
		r, w := io.Pipe()
		output := io.Reader(r)
		if !o.TTY {
			output = &framer{r: r}
		}
		return &engine.Session{
			ID: "exec-" + id, TTY: o.TTY, Output: output, Input: w,
			CloseWrite: w.Close, Close: func() error { w.Close(); return r.Close() },
			Resize: func(context.Context, int, int) error { return nil },
			Exit:   func(context.Context) (int, error) { return 0, nil },
		}, nil
	}
	body := []byte(out)
	if !o.TTY {
		body = frame(out)
	}
	s := &engine.Session{
		ID: "exec-" + id, TTY: o.TTY, Output: bytes.NewReader(body),
		CloseWrite: func() error { return nil }, Close: func() error { return nil },
		Resize: func(context.Context, int, int) error { return nil },
		Exit:   func(context.Context) (int, error) { return code, nil },
	}
	if o.Stdin {
		s.Input = io.Discard
	}
	return s, nil
}

// framer frames what it reads.
type framer struct {
	r   io.Reader
	buf bytes.Buffer
}

func (f *framer) Read(p []byte) (int, error) {
	if f.buf.Len() == 0 {
		chunk := make([]byte, 4096)
		n, err := f.r.Read(chunk)
		if n == 0 {
			return 0, err
		}
		f.buf.Write(frame(string(chunk[:n])))
	}
	return f.buf.Read(p)
}

// Attach implements engine.Console: the instance's Output until it ends.
func (f *Fake) Attach(ctx context.Context, id string, _ bool) (*engine.Session, error) {
	if err := f.called("Attach", "attach "+id); err != nil {
		return nil, err
	}
	logs, _, err := f.Logs(ctx, id, engine.LogOptions{Tail: 0, Follow: true})
	if err != nil {
		return nil, err
	}
	return &engine.Session{
		Output: logs, Input: io.Discard,
		CloseWrite: func() error { return nil }, Close: logs.Close,
		Resize: func(context.Context, int, int) error { return nil },
		Exit:   func(ctx context.Context) (int, error) { return f.Wait(ctx, id) },
	}, nil
}

// Top implements engine.Console.
func (f *Fake) Top(_ context.Context, id string, _ []string) ([]string, [][]string, error) {
	if err := f.called("Top", ""); err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.byID(id)
	if i == nil {
		return nil, nil, notFound(id)
	}
	if i.State != tender.Running {
		return nil, nil, tender.Errorf(tender.Conflict, "top of %s: it is not running", id)
	}
	return []string{"PID", "CMD"}, [][]string{{"1", i.Service}}, nil
}

// Wait implements engine.Console.
func (f *Fake) Wait(ctx context.Context, id string) (int, error) {
	f.mu.Lock()
	i := f.byID(id)
	if i == nil {
		f.mu.Unlock()
		return 0, notFound(id)
	}
	if i.State == tender.Exited {
		defer f.mu.Unlock()
		return i.ExitCode, nil
	}
	ended := i.ended
	f.mu.Unlock()
	select {
	case <-ended:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return i.ExitCode, nil
}

// CopyFrom implements engine.Console: only what CopyTo put there comes back.
func (f *Fake) CopyFrom(_ context.Context, id, name string) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.byID(id)
	if i == nil {
		return nil, notFound(id)
	}
	body, ok := i.files[path.Clean(name)]
	if !ok {
		return nil, tender.Errorf(tender.NotFound, "copy from %s: no %s in it", id, name)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := errors.Join(
		w.WriteHeader(&tar.Header{Name: path.Base(name), Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}),
		func() error { _, err := w.Write(body); return err }(),
		w.Close(),
	)
	return io.NopCloser(&b), err
}

// CopyTo implements engine.Console.
func (f *Fake) CopyTo(_ context.Context, id, dir string, tarball io.Reader) error {
	files := map[string][]byte{}
	r := tar.NewReader(tarball)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("copy to %s: %w", id, err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("copy to %s: %w", id, err)
		}
		files[path.Join(dir, h.Name)] = body
	}
	return f.one("CopyTo", "copy to ", id, func(i *instance) {
		if i.files == nil {
			i.files = map[string][]byte{}
		}
		for name, body := range files {
			i.files[name] = body
		}
	})
}

// Oneoff implements engine.Console.
func (f *Fake) Oneoff(_ context.Context, w engine.Want, o engine.OneoffOptions) (string, error) {
	if err := f.called("Oneoff", "oneoff "+w.Service.Name); err != nil {
		return "", err
	}
	var id string
	f.change(func() {
		i := f.create(w, 0, nil)
		i.Oneoff, i.restart = true, ""
		i.Name = o.Name
		if i.Name == "" {
			i.Name = fmt.Sprintf("%s-%s-run-%d", w.Project, w.Service.Name, f.next)
		}
		i.plain = i.Name
		id = i.ID
	})
	return id, nil
}

// Stats implements engine.Console.
func (f *Fake) Stats(_ context.Context, ids []string) (map[string]engine.Sample, error) {
	if err := f.called("Stats", ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]engine.Sample{}
	for _, id := range ids {
		if i := f.byID(id); i != nil && i.State == tender.Running {
			out[id] = engine.Sample{At: time.Now(), Memory: 1 << 20, MemoryLimit: 8 << 30, PIDs: 1}
		}
	}
	return out, nil
}
