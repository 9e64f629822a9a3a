package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	tender "github.com/tenderhq/tender"
)

const (
	// unit is the edge's own under systemd: a child of serve's would end with it.
	unit = "tender-edge.service"
	// logName is where an edge writes that nobody else listens to.
	logName = "edge.log"
)

// Ensure makes an edge of this version with c's settings serve: it starts one
// where none answers, and hands over to a new one where another version or other
// settings serve. It does nothing where all is as it should be.
func Ensure(ctx context.Context, c Config) error {
	c = c.filled()
	client := NewClient(c.Socket)
	now, err := client.Status(ctx)
	switch {
	case err == nil && now.Version == c.Version && now.Settings == c.sum():
		return nil
	case err == nil:
		if err := client.Hello(ctx, c.Version); err != nil {
			return err
		}
	case !Away(err):
		return err
	}
	_, err = Spawn(ctx, c)
	return err
}

// Spawn starts an edge and waits until it serves; one that serves already hands
// over. Under systemd that is the unit's business, elsewhere the edge is detached
// and outlives this process.
func Spawn(ctx context.Context, c Config) (Status, error) {
	c = c.filled()
	for _, path := range []*string{&c.Dir, &c.Socket} {
		abs, err := filepath.Abs(*path) // the edge has another working directory
		if err != nil {
			return Status{}, fmt.Errorf("start the edge: %w", err)
		}
		*path = abs
	}
	if err := c.save(); err != nil {
		return Status{}, err
	}
	if c.Dir == DefaultDir && c.Socket == DefaultSocket && underUnit(ctx) {
		return spawnUnit(ctx, c)
	}
	return spawnDetached(ctx, c)
}

func spawnDetached(ctx context.Context, c Config) (Status, error) {
	binary := c.Binary
	if binary == "" {
		var err error
		if binary, err = os.Executable(); err != nil {
			return Status{}, fmt.Errorf("start the edge: %w", err)
		}
	}
	path := filepath.Join(c.Dir, logName)
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return Status{}, fmt.Errorf("start the edge: %w", err)
	}
	defer out.Close()
	begin, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return Status{}, fmt.Errorf("start the edge: %w", err)
	}
	cmd := exec.Command(binary, "edge", "--dir", c.Dir, "--socket", c.Socket, "--log", path)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.Env = environment(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Status{}, fmt.Errorf("start the edge: %w", err)
	}
	// It outlives this function, and is waited for so that it leaves no zombie while this process lives.
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	status, err := await(ctx, c, func(s Status) bool { return s.PID == cmd.Process.Pid }, ended)
	if err == nil {
		return status, nil
	}
	_ = cmd.Process.Kill() // it may have ended already
	return Status{}, tender.Errorf(tender.Unavailable, "start the edge: %w%s", err, lastLines(path, begin)).Hint("see %s", path)
}

// await asks until the edge that serves is the right one.
func await(ctx context.Context, c Config, right func(Status) bool, ended <-chan error) (Status, error) {
	client := NewClient(c.Socket)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := client.Status(ctx)
		if err == nil && right(s) {
			return s, nil
		}
		select {
		case err := <-ended:
			if err == nil {
				err = errors.New("it ended at once")
			}
			return Status{}, err
		case <-ctx.Done():
			return Status{}, errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// lastLines is what the edge wrote since begin, no more than a screen of it.
func lastLines(path string, begin int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Seek(begin, io.SeekStart); err != nil {
		return ""
	}
	raw, err := io.ReadAll(io.LimitReader(f, 16<<10))
	if err != nil || len(bytes.TrimSpace(raw)) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return "\n" + strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// environment leaves out what systemd meant for serve alone.
func environment(env []string) (out []string) {
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID":
		default:
			out = append(out, kv)
		}
	}
	return out
}

// underUnit reports whether this process is tender.service and the edge's unit is there.
func underUnit(ctx context.Context) bool {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || !strings.Contains(string(groups), "/tender.service") {
		return false
	}
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=LoadState", "--value", unit).Output()
	return err == nil && strings.TrimSpace(string(out)) == "loaded"
}

func spawnUnit(ctx context.Context, c Config) (Status, error) {
	before, err := NewClient(c.Socket).Status(ctx)
	verb := "start"
	if err == nil {
		verb = "reload"
	}
	if out, err := exec.CommandContext(ctx, "systemctl", verb, unit).CombinedOutput(); err != nil {
		return Status{}, tender.Errorf(tender.Unavailable, "%s %s: %w: %s", verb, unit, err, bytes.TrimSpace(out)).
			Hint("journalctl -u %s -n 50", unit)
	}
	return await(ctx, c, func(s Status) bool { return s.PID != before.PID }, nil)
}

// Succeed starts what takes this process's place: the binary that lies where
// this one was started from, with the same arguments. The hand-over is between
// the two; one that cannot start leaves this one serving.
func Succeed(arguments []string) (ended <-chan error, err error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start the next edge: %w", err)
	}
	cmd := exec.Command(binary, arguments...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// systemd hears from the next one that it is the unit's process now.
	cmd.Env = os.Environ()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the next edge: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return done, nil
}
