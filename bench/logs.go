package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/collect"
	"github.com/tenderhq/tender/internal/logs"
)

// ingest is what a run of reading, parsing and storing cost.
type ingest struct {
	Lines int64
	CPU   float64 // seconds
	Wall  float64
	RSS   int64 // bytes, at its highest
	Disk  int64
}

// logBench times the way of a line from the engine's files into the store.
func logBench(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("logs", flag.ContinueOnError)
	lines := set.Int("n", 10_000_000, "lines of each kind")
	only := set.String("only", "json,plain,idle,ask", "which rows")
	loki := set.String("loki", newestLoki(), "Loki's binary; empty: without")
	child := set.String("child", "", "used by the command itself")
	if err := set.Parse(args); err != nil {
		return err
	}
	if *child != "" {
		return logChild(ctx, *child)
	}
	dir, err := os.MkdirTemp("", "tb-logs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("machine: %d cores, load %s; read + parse + store, a process each\n\n", runtime.NumCPU(), load())
	fmt.Printf("%-8s %12s %10s %14s %10s %12s %10s\n", "", "lines", "CPU s", "M lines/CPU s", "wall s", "bytes/line", "peak RSS")
	for kind := range strings.SplitSeq(*only, ",") {
		if kind == "idle" || kind == "ask" {
			continue
		}
		at := filepath.Join(dir, kind)
		if err := writeEngineLog(at, kind, *lines); err != nil {
			return err
		}
		r, err := runLogChild(ctx, kind+":"+at)
		if err != nil {
			return err
		}
		fmt.Printf("%-8s %12d %10.2f %14.2f %10.1f %12.1f %7d MB\n", kind, r.Lines, r.CPU, float64(r.Lines)/r.CPU/1e6, r.Wall, float64(r.Disk)/float64(r.Lines), r.RSS>>20)
		if err := os.RemoveAll(at); err != nil {
			return err
		}
	}
	if strings.Contains(*only, "idle") {
		r, err := runLogChild(ctx, "idle:"+filepath.Join(dir, "idle"))
		if err != nil {
			return err
		}
		fmt.Printf("\nidle: 100 containers that write nothing take %.2f %% of a core, peak RSS %d MB\n", 100*r.CPU/r.Wall, r.RSS>>20)
	}
	if strings.Contains(*only, "ask") {
		return askLogs(ctx, *lines, *loki)
	}
	return nil
}

func runLogChild(ctx context.Context, what string) (r ingest, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, self, "logs", "-child", what)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("%s: %w", what, err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("%s: %w", what, err)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return r, errors.New("no usage of the child")
	}
	r.RSS = usage.Maxrss << 10
	if r.CPU == 0 {
		r.CPU = cmd.ProcessState.UserTime().Seconds() + cmd.ProcessState.SystemTime().Seconds()
	}
	return r, nil
}

// writeEngineLog writes files as the engine has them: 4 containers, each with a
// quarter of the lines.
func writeEngineLog(root, kind string, lines int) error {
	began := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for c := range 4 {
		id := fmt.Sprintf("%064x", c+1)
		dir := filepath.Join(root, "containers", id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(dir, id+"-json.log"))
		if err != nil {
			return err
		}
		w := bufio.NewWriterSize(f, 1<<20)
		x := uint32(c + 1)
		var b []byte
		for n := c; n < lines; n += 4 {
			x = x*1664525 + 1013904223
			at := began.Add(time.Duration(n) * 8 * time.Millisecond)
			level := [...]string{"INFO", "INFO", "INFO", "DEBUG", "WARNING", "INFO", "INFO", "ERROR"}[x>>29]
			b = append(b[:0], `{"log":"`...)
			if kind == "json" {
				b = append(b, `{\"timestamp\":\"`...)
				b = at.AppendFormat(b, "2006-01-02T15:04:05.000000Z")
				b = append(b, `\",\"level\":\"`...)
				b = append(b, level...)
				b = append(b, `\",\"service\":\"user-service\",\"message\":\"request served\",\"container_id\":\"4bf7a3e65e55\",\"version\":\"1.4.2\",\"user_id\":\"`...)
				b = strconv.AppendUint(b, uint64(x>>12)%100_000, 10)
				b = append(b, `\",\"path\":\"/api/v1/items/`...)
				b = strconv.AppendUint(b, uint64(x>>8)%5000, 10)
				b = append(b, `\",\"status\":`...)
				b = append(b, [...]string{"200", "200", "200", "404", "200", "201", "302", "500"}[x>>28&7]...)
				b = append(b, `,\"duration_ms\":`...)
				b = strconv.AppendUint(b, uint64(x>>16)%900, 10)
				b = append(b, '}')
			} else {
				b = at.AppendFormat(b, "2006-01-02 15:04:05,000 ")
				b = append(b, level...)
				b = append(b, " worker-"...)
				b = strconv.AppendUint(b, uint64(x>>28), 10)
				b = append(b, " finished job "...)
				b = strconv.AppendUint(b, uint64(x>>8), 10)
				b = append(b, " of the queue mail, it took "...)
				b = strconv.AppendUint(b, uint64(x>>16)%900, 10)
				b = append(b, " ms and left nothing behind"...)
			}
			b = append(b, `\n","stream":"stdout","time":"`...)
			b = at.Add(time.Duration(x>>12)*time.Nanosecond).AppendFormat(b, time.RFC3339Nano)
			b = append(b, '"', '}', '\n')
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		if err := errors.Join(w.Flush(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// logChild does the work of one row, and says what it took.
func logChild(ctx context.Context, what string) error {
	kind, root, _ := strings.Cut(what, ":")
	if kind == "idle" {
		for c := range 100 {
			id := fmt.Sprintf("%064x", c+1)
			dir := filepath.Join(root, "containers", id)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			line := `{"log":"up\n","stream":"stdout","time":"2026-11-22T00:00:00Z"}` + "\n"
			if err := os.WriteFile(filepath.Join(dir, id+"-json.log"), []byte(line), 0o600); err != nil {
				return err
			}
		}
	}
	var collector atomic.Pointer[collect.Collector]
	store, err := logs.Open(filepath.Join(root, "logs"), logs.Options{
		Retention: logs.Retention{Age: 100 * 365 * 24 * time.Hour},
		Durable: func(source string, to logs.Place) {
			if c := collector.Load(); c != nil {
				c.Durable(source, to)
			}
		},
	})
	if err != nil {
		return err
	}
	c, err := collect.New(collect.Options{Store: store, Dir: filepath.Join(root, "collect"), Local: true})
	if err != nil {
		return err
	}
	collector.Store(c)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 2)
	keeping, close := context.WithCancel(context.WithoutCancel(ctx))
	go func() { done <- c.Run(ctx) }()
	go func() { done <- store.Run(keeping) }()
	began := time.Now()
	entries, err := os.ReadDir(filepath.Join(root, "containers"))
	if err != nil {
		close()
		return err
	}
	var picture []tender.Instance
	var bytes int64
	for i, e := range entries {
		path := filepath.Join(root, "containers", e.Name(), e.Name()+"-json.log")
		st, err := os.Stat(path)
		if err != nil {
			close()
			return err
		}
		bytes += st.Size()
		picture = append(picture, tender.Instance{
			ID: e.Name(), Name: fmt.Sprintf("shop-web-%d", i+1), Project: "shop", Service: "web" + strconv.Itoa(i), State: tender.Running,
			LogDriver: "json-file", LogPath: path, Started: began,
		})
	}
	c.See(picture)
	for c.Status().Bytes < bytes {
		select {
		case <-ctx.Done():
			close()
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	var r ingest
	if kind == "idle" {
		// What it took to begin is none of idling.
		time.Sleep(5 * time.Second)
		before, from := cpu(), time.Now()
		time.Sleep(20 * time.Second)
		r.CPU, r.Wall = cpu()-before, time.Since(from).Seconds()
	}
	cancel()
	err = errors.Join(<-done, store.Flush(keeping))
	close()
	err = errors.Join(err, <-done)
	r.Lines = c.Status().Lines
	if kind != "idle" {
		r.CPU, r.Wall = cpu(), time.Since(began).Seconds()
	}
	r.Disk = sizeOf(filepath.Join(root, "logs"))
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(r))
}

func cpu() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func sizeOf(dir string) (n int64) {
	_ = filepath.Walk(dir, func(_ string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().IsRegular() {
			n += st.Size()
		}
		return nil
	})
	return n
}
