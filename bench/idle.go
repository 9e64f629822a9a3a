package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tenderhq/tender/internal/daemon"
	"github.com/tenderhq/tender/internal/edge"
)

// idleFile is a project of n instances that write a line of JSON now and then, with a
// route, an alert over samples and one over logs.
const idleFile = `
name: %s
services:
  app:
    image: %s
    command: [sh, -c, 'while :; do echo "{\"level\":\"info\",\"message\":\"still here\",\"user_id\":42}"; sleep 10; done']
    stop_signal: SIGKILL
    expose: ["8080"]
    deploy: {replicas: %d}
    x-tender:
      routes:
        - host: idle.localhost
      alerts:
        - {alert: Busy, expr: 'sum(rate(container_cpu_usage_seconds_total[1m])) > 100'}
        - {alert: Panics, logql: 'sum(count_over_time({} |= "panic" [5m])) > 0'}
`

// idleBench reads what serve and the edge hold and use while instances run and nothing happens.
func idleBench(ctx context.Context, args []string) (err error) {
	set := flag.NewFlagSet("idle", flag.ContinueOnError)
	n := set.Int("n", 50, "instances")
	settle := set.Duration("settle", time.Minute, "from all of them running to the first look")
	span := set.Duration("for", time.Minute, "between the first look and the last")
	built := set.String("tender", "", "binary to look at; empty: builds one")
	if err := set.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tb-idle-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	project := filepath.Base(dir)
	var ports [2]string
	for i := range ports {
		if ports[i], err = freeAddress(); err != nil {
			return err
		}
	}
	told := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(told, []byte("route: {receiver: team}\nreceivers: [{name: team, webhook_configs: [{url: 'http://127.0.0.1:9/'}]}]\n"), 0o600); err != nil {
		return err
	}
	b := &bench{dir: dir, tender: filepath.Join(dir, "tender"), built: *built, flags: []string{
		"--http", ports[0], "--https", "", "--dns", ports[1], "--alertmanager", told,
	}}
	defer func() {
		err = errors.Join(err, b.end(), b.endEdge())
		for _, spool := range daemon.LogSpools(filepath.Join(dir, "data")) { // in the engine's data root
			err = errors.Join(err, os.RemoveAll(spool))
		}
	}()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	file := filepath.Join(dir, "idle.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, idleFile, project, image, *n), 0o600); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute) // an engine may never let go of a network
		defer cancel()
		err = errors.Join(err, output(b.cmd(ctx, "down", "-v", "-p", project)))
	}()
	if err := output(b.cmd(ctx, "up", "-f", file)); err != nil {
		return err
	}
	e, err := b.edgeStatus(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("machine: %d cores, %s, load %s; %d instances, logs, metrics and alerts on, %s to settle, %s looked at\n", runtime.NumCPU(), b.version(ctx), load(), *n, *settle, *span)
	processes := []struct {
		name string
		pid  int
	}{{"serve", b.serve.Process.Pid}, {"edge", e.PID}}
	pause := func(d time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}
	if err := pause(*settle); err != nil {
		return err
	}
	began, before := time.Now(), map[int]float64{}
	for _, p := range processes {
		if before[p.pid], err = cpuOfPID(p.pid); err != nil {
			return err
		}
	}
	if err := pause(*span); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	fmt.Printf("\n%-8s %10s %12s %12s %12s %12s\n", "", "PSS", "anonymous", "of files", "peak RSS", "% of a core")
	var all, core float64
	for _, p := range processes {
		now, err := cpuOfPID(p.pid)
		if err != nil {
			return err
		}
		kb, err := rollup(p.pid)
		if err != nil {
			return err
		}
		peak, err := peakOf(p.pid)
		if err != nil {
			return err
		}
		used := 100 * (now - before[p.pid]) / took
		all, core = all+kb["Pss"]/1024, core+used
		fmt.Printf("%-8s %7.1f MB %9.1f MB %9.1f MB %9d MB %12.2f\n", p.name, kb["Pss"]/1024, kb["Pss_Anon"]/1024, kb["Pss_File"]/1024, peak>>20, used)
	}
	fmt.Printf("%-8s %7.1f MB %38s %12.2f\n", "both", all, "", core)
	for _, p := range processes {
		kinds, err := mapped(p.pid)
		if err != nil {
			return err
		}
		fmt.Printf("\n%s:\n", p.name)
		for _, k := range slices.SortedFunc(maps.Keys(kinds), func(a, b string) int { return cmp.Compare(kinds[b], kinds[a]) }) {
			fmt.Printf("  %-34s %7.1f MB\n", k, kinds[k]/1024)
		}
	}
	return nil
}

func (b *bench) edgeStatus(ctx context.Context) (edge.Status, error) {
	return edge.NewClient(filepath.Join(b.dir, "run", "edge.sock")).Status(ctx)
}

// endEdge ends the edge, which outlives serve.
func (b *bench) endEdge() error {
	e, err := b.edgeStatus(context.Background())
	if err != nil {
		return nil //nolint:nilerr // there is none
	}
	if err := syscall.Kill(e.PID, syscall.SIGTERM); err != nil {
		return err
	}
	for deadline := time.Now().Add(40 * time.Second); syscall.Kill(e.PID, 0) == nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			return syscall.Kill(e.PID, syscall.SIGKILL)
		}
	}
	return nil
}

// rollup is smaps_rollup, in KB.
func rollup(pid int) (map[string]float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return nil, err
	}
	kb := map[string]float64{}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "kB" {
			if kb[strings.TrimSuffix(f[0], ":")], err = strconv.ParseFloat(f[1], 64); err != nil {
				return nil, err
			}
		}
	}
	return kb, nil
}

// mapped is the PSS of a process by what it is of, in KB.
func mapped(pid int) (map[string]float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	kinds, kind := map[string]float64{}, ""
	for s := bufio.NewScanner(f); ; {
		if !s.Scan() {
			return kinds, s.Err()
		}
		w := strings.Fields(s.Text())
		switch {
		case len(w) >= 5 && !strings.HasSuffix(w[0], ":"):
			kind = mapping(w)
		case len(w) == 3 && w[0] == "Pss:":
			kb, err := strconv.ParseFloat(w[1], 64)
			if err != nil {
				return nil, err
			}
			kinds[kind] += kb
		}
	}
}

// mapping names what a line of maps stands for.
func mapping(w []string) string {
	name := strings.Join(w[5:], " ")
	switch {
	case name == "", strings.HasPrefix(name, "[anon"):
		return "Go's heap, stacks and runtime"
	case strings.HasPrefix(name, "["):
		return "kernel's: stack, vdso"
	case filepath.Base(name) == "tender" && strings.Contains(w[1], "w"):
		return "the binary's variables"
	case filepath.Base(name) == "tender":
		return "the binary's code and constants"
	case strings.Contains(name, "/metrics/"):
		return "samples, mapped"
	case strings.Contains(name, "/logs/"):
		return "logs, mapped"
	default:
		return "other files, mapped"
	}
}
