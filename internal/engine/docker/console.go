package docker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// Logs implements engine.Console.
func (e *Engine) Logs(ctx context.Context, id string, o engine.LogOptions) (io.ReadCloser, bool, error) {
	c, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, false, wrap(err, "logs of %s", short(id))
	}
	opts := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: o.Timestamps, Follow: o.Follow}
	if !o.Since.IsZero() {
		opts.Since = o.Since.UTC().Format(time.RFC3339Nano)
	}
	if !o.Until.IsZero() {
		opts.Until = o.Until.UTC().Format(time.RFC3339Nano)
	}
	if o.Tail >= 0 {
		opts.Tail = strconv.Itoa(o.Tail)
	}
	stream, err := e.c().ContainerLogs(ctx, id, opts)
	if err != nil {
		return nil, false, wrap(err, "logs of %s", short(id))
	}
	return stream, c.Container.Config.Tty, nil
}

// Exec implements engine.Console.
func (e *Engine) Exec(ctx context.Context, id string, o engine.ExecOptions) (*engine.Session, error) {
	size := client.ConsoleSize{}
	if o.TTY && o.Width > 0 && o.Height > 0 {
		if ok, err := e.atLeast(ctx, "1.42"); err != nil {
			return nil, err
		} else if ok {
			size = client.ConsoleSize{Width: uint(o.Width), Height: uint(o.Height)}
		}
	}
	made, err := e.c().ExecCreate(ctx, id, client.ExecCreateOptions{
		User: o.User, Privileged: o.Privileged, TTY: o.TTY, ConsoleSize: size, Env: o.Env, WorkingDir: o.WorkingDir, Cmd: o.Cmd,
		AttachStdin: o.Stdin && !o.Detach, AttachStdout: !o.Detach, AttachStderr: !o.Detach,
	})
	if err != nil {
		return nil, wrap(err, "exec in %s", short(id))
	}
	resize := func(ctx context.Context, width, height int) error {
		_, err := e.c().ExecResize(ctx, made.ID, client.ExecResizeOptions{Width: uint(width), Height: uint(height)})
		return wrap(err, "resize")
	}
	exit := func(ctx context.Context) (int, error) { return e.execExit(ctx, made.ID) }
	if o.Detach {
		if _, err := e.c().ExecStart(ctx, made.ID, client.ExecStartOptions{Detach: true, TTY: o.TTY}); err != nil {
			return nil, wrap(err, "exec in %s", short(id))
		}
		nothing := func() error { return nil }
		return &engine.Session{ID: made.ID, TTY: o.TTY, Output: strings.NewReader(""), CloseWrite: nothing, Close: nothing, Resize: resize, Exit: exit}, nil
	}
	at, err := e.c().ExecAttach(ctx, made.ID, client.ExecAttachOptions{TTY: o.TTY, ConsoleSize: size})
	if err != nil {
		return nil, wrap(err, "exec in %s", short(id))
	}
	s := session(at.HijackedResponse, o.TTY, o.Stdin)
	s.ID, s.Resize, s.Exit = made.ID, resize, exit
	if o.TTY && size.Width == 0 && o.Width > 0 && o.Height > 0 {
		if err := resize(ctx, o.Width, o.Height); err != nil {
			e.o.Log.Debug("terminal keeps its size", "err", err)
		}
	}
	return s, nil
}

func session(h client.HijackedResponse, tty, stdin bool) *engine.Session {
	s := &engine.Session{
		TTY: tty, Output: h.Reader, CloseWrite: h.CloseWrite,
		Close: func() error { h.Close(); return nil },
	}
	if stdin {
		s.Input = h.Conn
	}
	return s
}

// execExit asks for the code; the engine may take a moment after the output has ended.
func (e *Engine) execExit(ctx context.Context, id string) (int, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		x, err := e.c().ExecInspect(ctx, id, client.ExecInspectOptions{})
		if err != nil {
			return 0, wrap(err, "exec")
		}
		if !x.Running {
			return x.ExitCode, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Attach implements engine.Console.
func (e *Engine) Attach(ctx context.Context, id string, stdin bool) (*engine.Session, error) {
	c, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, wrap(err, "attach to %s", short(id))
	}
	tty := c.Container.Config.Tty
	stdin = stdin && c.Container.Config.OpenStdin
	// The wait begins now: one that is removed when it ends may be gone when its code is asked for.
	waiting, stop := context.WithCancel(context.WithoutCancel(ctx))
	exit, err := e.ending(waiting, id)
	if err != nil {
		stop()
		return nil, err
	}
	at, err := e.c().ContainerAttach(ctx, id, client.ContainerAttachOptions{Stream: true, Stdin: stdin, Stdout: true, Stderr: true})
	if err != nil {
		stop()
		return nil, wrap(err, "attach to %s", short(id))
	}
	s := session(at.HijackedResponse, tty, stdin)
	s.Exit = exit
	s.Close = func() error {
		stop()
		at.HijackedResponse.Close()
		return nil
	}
	s.Resize = func(ctx context.Context, width, height int) error {
		_, err := e.c().ContainerResize(ctx, id, client.ContainerResizeOptions{Width: uint(width), Height: uint(height)})
		return wrap(err, "resize")
	}
	return s, nil
}

// Top implements engine.Console.
func (e *Engine) Top(ctx context.Context, id string, args []string) ([]string, [][]string, error) {
	top, err := e.c().ContainerTop(ctx, id, client.ContainerTopOptions{Arguments: args})
	return top.Titles, top.Processes, wrap(err, "top of %s", short(id))
}

// Wait implements engine.Console. One that was never started is waited for too.
func (e *Engine) Wait(ctx context.Context, id string) (int, error) {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	exit, err := e.ending(waiting, id)
	if err != nil {
		return 0, err
	}
	return exit(ctx)
}

// ending begins to wait for the end of a container, until ctx ends, and returns
// who tells its code.
func (e *Engine) ending(ctx context.Context, id string) (exit func(context.Context) (int, error), err error) {
	comes := func() (bool, int, error) {
		c, err := e.c().ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil {
			return false, 0, wrap(err, "wait for %s", short(id))
		}
		s := c.Container.State
		// A start that failed leaves "created" and a code.
		return s.Status == container.StateCreated && s.ExitCode == 0 || s.Running || s.Restarting, s.ExitCode, nil
	}
	ended := func(code int) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { return code, nil }
	}
	if yes, code, err := comes(); err != nil || !yes {
		return ended(code), err
	}
	waiting, cancel := context.WithCancel(ctx)
	wait := e.c().ContainerWait(waiting, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	var code int
	var failed error
	done := make(chan struct{}) // closed once code and failed are there
	go func() {
		defer close(done)
		defer cancel()
		select {
		case r := <-wait.Result:
			code = int(r.StatusCode)
			if r.Error != nil {
				failed = tender.Errorf(tender.Internal, "wait for %s: %s", short(id), r.Error.Message)
			}
		case err := <-wait.Error: // at the latest when ctx ends
			failed = wrap(err, "wait for %s", short(id))
		}
	}()
	// It may have ended between the first look and the wait.
	switch yes, code, err := comes(); {
	case err == nil && !yes:
		return ended(code), nil
	case kind(err) == tender.NotFound:
		// And gone: a wait that began before its end has the code at once, another never ends.
		select {
		case <-done:
		case <-time.After(time.Second):
			cancel()
			return nil, err
		}
	}
	return func(ctx context.Context) (int, error) {
		select {
		case <-done:
			return code, failed
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}, nil
}

// CopyFrom implements engine.Console.
func (e *Engine) CopyFrom(ctx context.Context, id, path string) (io.ReadCloser, error) {
	got, err := e.c().CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: path})
	if err != nil {
		return nil, wrap(err, "copy %s from %s", path, short(id))
	}
	return got.Content, nil
}

// CopyTo implements engine.Console.
func (e *Engine) CopyTo(ctx context.Context, id, path string, tarball io.Reader) error {
	_, err := e.c().CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: path, Content: tarball})
	return wrap(err, "copy to %s in %s", path, short(id))
}

// Oneoff implements engine.Console.
func (e *Engine) Oneoff(ctx context.Context, w engine.Want, o engine.OneoffOptions) (string, error) {
	if err := e.negotiate(ctx, false); err != nil {
		return "", err
	}
	img, ref, err := e.image(ctx, w.Image)
	if err != nil {
		return "", fmt.Errorf("run %s: %w", w.Service.Name, err)
	}
	r, err := e.translate(ctx, w, img, 0, nil)
	if err != nil {
		return "", fmt.Errorf("run %s: %w", w.Service.Name, err)
	}
	c, h := r.config, r.host
	c.Image = ref
	if o.Entrypoint != nil {
		c.Entrypoint, c.Cmd = o.Entrypoint, nil
	}
	if o.Cmd != nil {
		c.Cmd = o.Cmd
	}
	c.Env = overlay(c.Env, o.Env)
	if o.User != "" {
		c.User = o.User
	}
	if o.WorkingDir != "" {
		c.WorkingDir = o.WorkingDir
	}
	c.Tty, c.OpenStdin, c.StdinOnce = o.TTY, o.Stdin, o.Stdin
	c.AttachStdin, c.AttachStdout, c.AttachStderr = o.Stdin, true, true
	for k, v := range o.Labels {
		c.Labels[k] = v
	}
	c.Labels[composeOneoff] = "True"
	h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyDisabled}
	h.AutoRemove = o.Remove
	if !o.Ports {
		h.PortBindings = nil
	}
	name := o.Name
	if name == "" {
		name = fmt.Sprintf("%s-%s-run-%s", w.Project, w.Service.Name, strings.ToLower(rand.Text()[:12]))
	}
	var rest []endpoint
	if len(r.endpoints) > 1 {
		rest, r.endpoints = r.endpoints[1:], r.endpoints[:1]
	}
	id, err := e.create(ctx, r, name)
	if err != nil {
		return "", fmt.Errorf("run %s: %w", w.Service.Name, createError(name, err))
	}
	for _, ep := range rest {
		if _, err := e.c().NetworkConnect(ctx, ep.network, client.NetworkConnectOptions{Container: id, EndpointConfig: ep.settings}); err != nil {
			e.undo(ctx, []*newcomer{{id: id, name: name, made: true}})
			return "", wrap(err, "run %s: connect to %s", w.Service.Name, ep.network)
		}
	}
	return id, nil
}

// overlay puts more over env: the later one of a name wins.
func overlay(env, more []string) []string {
	at := map[string]int{}
	var out []string
	for _, list := range [][]string{env, more} {
		for _, kv := range list {
			k, _, _ := strings.Cut(kv, "=")
			if i, ok := at[k]; ok {
				out[i] = kv
				continue
			}
			at[k] = len(out)
			out = append(out, kv)
		}
	}
	return out
}

// Stats implements engine.Console. Instances that do not run are left out.
func (e *Engine) Stats(ctx context.Context, ids []string) (map[string]engine.Sample, error) {
	out := map[string]engine.Sample{}
	var mu sync.Mutex // guards out
	err := each(len(ids), func(n int) error {
		got, err := e.c().ContainerStats(ctx, ids[n], client.ContainerStatsOptions{})
		if err != nil {
			if kind(err) == tender.NotFound || kind(err) == tender.Conflict {
				return nil
			}
			return wrap(err, "stats of %s", short(ids[n]))
		}
		defer got.Body.Close()
		var s container.StatsResponse
		if err := json.NewDecoder(got.Body).Decode(&s); err != nil {
			return wrap(err, "stats of %s", short(ids[n]))
		}
		if s.Read.Year() <= 1 {
			return nil // it does not run
		}
		mu.Lock()
		defer mu.Unlock()
		out[ids[n]] = sample(s)
		return nil
	})
	return out, err
}

func sample(s container.StatsResponse) engine.Sample {
	out := engine.Sample{
		At: s.Read, CPU: time.Duration(s.CPUStats.CPUUsage.TotalUsage),
		Memory: int64(s.MemoryStats.Usage), MemoryLimit: int64(s.MemoryStats.Limit), PIDs: int(s.PidsStats.Current),
	}
	// What the kernel can take back at once is not in use: the first key is cgroup v1's, the second v2's.
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if idle, ok := s.MemoryStats.Stats[key]; ok && int64(idle) < out.Memory {
			out.Memory -= int64(idle)
			break
		}
	}
	for _, n := range s.Networks {
		out.NetRead += int64(n.RxBytes)
		out.NetSent += int64(n.TxBytes)
	}
	for _, b := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(b.Op) {
		case "read":
			out.BlkRead += int64(b.Value)
		case "write":
			out.BlkSent += int64(b.Value)
		}
	}
	return out
}
