// Command bench times Tender against its peers on this machine, in one run,
// and prints a table: docker compose v5 with the same file, and the bare Engine
// API at its best parallelism. Every figure is a median; the machine may be
// busy, so read the ratios.
//
//	go run ./bench [-runs 5] [-n 1,20,50] [-only up,repair,plan]
//	go run ./bench proxy: the edge's proxy against HAProxy, nginx and Caddy
//	go run ./bench wire: the same over TLS and HTTP/2, with idle connections and TCP
//	go run ./bench logs [-n LINES] [-only ask]: from the engine's files into the store, and questions to
//	it, to a Loki (make loki builds one) and to ripgrep
//	go run ./bench sample [-n CONTAINERS]: what instances use, read from the kernel's files and asked of
//	the engine's stats API
//	go run ./bench metrics [-n SERIES] [-rounds 20] [-every 3s] [-only scrape] [-profile DIR]: scraping and
//	questions, against Debian's Prometheus
//	go run ./bench alert [-n ALERTS] [-every 1s]: from a condition true to the webhook, against Debian's
//	Prometheus and Alertmanager
//	go run ./bench idle [-n INSTANCES] [-settle 1m] [-for 1m] [-tender BINARY]: what serve and the edge hold and use
//	go run ./bench registry [-mb 1024] [-n MANIFESTS] [-runs 3] [-only large,small,gc]: pushes, pulls and garbage, against
//	Debian's docker-registry 2.8 and registry 3
//	go run ./bench scan [-runs 3] [-images NAME,NAME] [-diff]: packages and flaws of images, against syft
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
)

const image = "busybox"

type bench struct {
	runs    int
	dir     string
	tender  string
	built   string   // a binary that is there already; "": one is built
	flags   []string // of serve, beside its own
	compose string
	serve   *exec.Cmd
	engine  *client.Client
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 {
		others := map[string]func(context.Context, []string) error{"proxy": proxies, "wire": wire, "logs": logBench, "sample": sampleBench, "metrics": metricBench, "idle": idleBench, "alert": alertBench, "registry": registryBench, "scan": scanBench}
		if other := others[os.Args[1]]; other != nil {
			if err := other(ctx, os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
				os.Exit(1)
			}
			return
		}
	}
	runs := flag.Int("runs", 5, "runs of each measurement; the median is shown")
	sizes := flag.String("n", "1,20,50", "how many instances")
	only := flag.String("only", "up,repair,plan", "which tables")
	flag.Parse()
	if err := run(ctx, *runs, *sizes, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, runs int, sizes, only string) (err error) {
	dir, err := os.MkdirTemp("", "tb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{runs: runs, dir: dir, tender: filepath.Join(dir, "tender")}
	out, err := exec.CommandContext(ctx, "bench/compose.sh").Output()
	if err != nil {
		return fmt.Errorf("bench/compose.sh: %w", err)
	}
	b.compose = strings.TrimSpace(string(out))
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.end()) }()
	fmt.Printf("machine: %d cores, %s, load %s; medians of %d\n", runtime.NumCPU(), b.version(ctx), load(), runs)
	if strings.Contains(only, "up") {
		fmt.Printf("\n%-22s %10s %16s %10s %12s %8s\n", "", "tender", "docker compose", "bare API", "of compose", "of bare")
		for s := range strings.SplitSeq(sizes, ",") {
			n, err := strconv.Atoi(s)
			if err != nil {
				return err
			}
			if err := b.updown(ctx, n); err != nil {
				return err
			}
		}
	}
	if strings.Contains(only, "repair") {
		if err := b.repair(ctx); err != nil {
			return err
		}
	}
	if strings.Contains(only, "plan") {
		return b.plan(ctx)
	}
	return nil
}

func (b *bench) prepare(ctx context.Context) error {
	if b.built != "" {
		path, err := filepath.Abs(b.built)
		if err != nil {
			return err
		}
		b.tender = path
	} else {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.tender, "./cmd/tender")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	var err error
	if b.engine, err = client.New(client.FromEnv); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(b.dir, "serve.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if err := os.Mkdir(filepath.Join(b.dir, "run"), 0o700); err != nil {
		return err
	}
	b.serve = exec.Command(b.tender, append([]string{
		"serve", "--data-dir", filepath.Join(b.dir, "data"), "--run-dir", filepath.Join(b.dir, "run"),
		"--vault-key", filepath.Join(b.dir, "vault.key"), "--listen", "",
	}, b.flags...)...)
	b.serve.Stdout, b.serve.Stderr = log, log
	if err := b.serve.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); b.cmd(ctx, "status").Run() != nil; {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("serve does not answer: %s", text)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

func (b *bench) end() error {
	if b.serve == nil || b.serve.Process == nil {
		return nil
	}
	b.serve.Process.Signal(syscall.SIGTERM)
	return b.serve.Wait()
}

func (b *bench) cmd(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, b.tender, args...)
	c.Dir = b.dir
	c.Env = append(os.Environ(), "TENDER_HOST=unix://"+filepath.Join(b.dir, "run", "tender.sock"))
	return c
}

func (b *bench) version(ctx context.Context) string {
	v, err := b.engine.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return err.Error()
	}
	return "engine " + v.Version
}

func load() string {
	raw, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(raw), " ")
	return first
}

func (b *bench) file(n int) (string, error) {
	path := filepath.Join(b.dir, fmt.Sprintf("up%d.yaml", n))
	return path, os.WriteFile(path, fmt.Appendf(nil, `
name: tb%d
services:
  app:
    image: %s
    command: [sleep, "100000"]
    stop_signal: SIGKILL
    deploy: {replicas: %d}
`, n, image, n), 0o600)
}

// updown times up and down of n instances with all three.
func (b *bench) updown(ctx context.Context, n int) error {
	file, err := b.file(n)
	if err != nil {
		return err
	}
	ours := func(args ...string) func() error {
		return func() error { return output(b.cmd(ctx, append(args, "-f", file)...)) }
	}
	theirs := func(args ...string) func() error {
		return func() error {
			c := exec.CommandContext(ctx, b.compose, append([]string{"-f", file}, args...)...)
			c.Dir = b.dir
			return output(c)
		}
	}
	// What the bare API does best with on this machine: found, not assumed.
	var bare [2]time.Duration
	parallel := 0
	for _, p := range []int{2, 4, 8} {
		up, down, err := b.bare(ctx, n, p)
		if err != nil {
			return err
		}
		if parallel == 0 || up < bare[0] {
			bare, parallel = [2]time.Duration{up, down}, p
		}
	}
	var mine, compose, raw [2][]time.Duration
	for range b.runs { // in turns, so that a busy moment meets all of them
		for _, t := range []struct {
			into     *[2][]time.Duration
			up, down func() error
		}{
			{&mine, ours("up"), ours("down")},
			{&compose, theirs("up", "-d"), theirs("down")},
		} {
			for k, f := range []func() error{t.up, t.down} {
				d, err := timed(f)
				if err != nil {
					return err
				}
				t.into[k] = append(t.into[k], d)
			}
		}
		up, down, err := b.bare(ctx, n, parallel)
		if err != nil {
			return err
		}
		raw[0], raw[1] = append(raw[0], up), append(raw[1], down)
	}
	for k, what := range []string{"up", "down"} {
		m, c, r := median(mine[k]), median(compose[k]), median(raw[k])
		fmt.Printf("%-22s %9.2fs %15.2fs %9.2fs %12.2f %8.2f\n", fmt.Sprintf("%s of %d", what, n), m.Seconds(), c.Seconds(), r.Seconds(), ratio(m, c), ratio(m, r))
	}
	return nil
}

// bare creates and starts n containers on a network of their own, and removes
// them, with nothing but calls of the Engine API, parallel at once.
func (b *bench) bare(ctx context.Context, n, parallel int) (up, down time.Duration, err error) {
	const name = "tb-bare"
	ids := make([]string, n)
	up, err = timed(func() error {
		if _, err := b.engine.NetworkCreate(ctx, name, client.NetworkCreateOptions{Driver: "bridge"}); err != nil {
			return err
		}
		work, ctx := errgroup.WithContext(ctx)
		work.SetLimit(parallel)
		for i := range n {
			work.Go(func() error {
				r, err := b.engine.ContainerCreate(ctx, client.ContainerCreateOptions{
					Name:       fmt.Sprintf("%s-%d", name, i),
					Config:     &container.Config{Image: image, Cmd: []string{"sleep", "100000"}},
					HostConfig: &container.HostConfig{NetworkMode: name},
				})
				if err != nil {
					return err
				}
				ids[i] = r.ID
				_, err = b.engine.ContainerStart(ctx, r.ID, client.ContainerStartOptions{})
				return err
			})
		}
		return work.Wait()
	})
	d, removal := timed(func() error {
		work, ctx := errgroup.WithContext(ctx)
		work.SetLimit(parallel)
		for _, id := range ids {
			if id != "" {
				work.Go(func() error {
					_, err := b.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
					return err
				})
			}
		}
		werr := work.Wait()
		_, err := b.engine.NetworkRemove(context.WithoutCancel(ctx), name, client.NetworkRemoveOptions{})
		return errors.Join(werr, err)
	})
	return up, d, errors.Join(err, removal)
}

// repair times from the end of a container to its replacement running.
func (b *bench) repair(ctx context.Context) error {
	file, err := b.file(3)
	if err != nil {
		return err
	}
	if err := output(b.cmd(ctx, "up", "-f", file)); err != nil {
		return err
	}
	var took []time.Duration
	for range b.runs {
		victim, err := b.running(ctx, "tb3")
		if err != nil {
			return err
		}
		d, err := timed(func() error {
			if _, err := b.engine.ContainerRemove(ctx, victim[0], client.ContainerRemoveOptions{Force: true}); err != nil {
				return err
			}
			for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
				if now, err := b.running(ctx, "tb3"); err != nil || len(now) == 3 && !slices.Contains(now, victim[0]) {
					return err
				}
				time.Sleep(5 * time.Millisecond)
			}
			return errors.New("a removed container was not replaced within a minute")
		})
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	fmt.Printf("\nremoved container to its replacement running: %.2f s\n", median(took).Seconds())
	return output(b.cmd(ctx, "down", "-f", file))
}

func (b *bench) running(ctx context.Context, project string) ([]string, error) {
	l, err := b.engine.ContainerList(ctx, client.ContainerListOptions{Filters: make(client.Filters).Add("label", "com.docker.compose.project="+project)})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, c := range l.Items {
		ids = append(ids, c.ID)
	}
	return ids, nil
}

// plan times a plan of 200 services as a user sees it, and reads what serve holds then.
func (b *bench) plan(ctx context.Context) error {
	var f strings.Builder
	f.WriteString("name: tb200\nservices:\n")
	for i := range 200 {
		fmt.Fprintf(&f, "  s%03d: {image: %s, command: [sleep, \"100000\"], stop_signal: SIGKILL, deploy: {replicas: 0}}\n", i, image)
	}
	file := filepath.Join(b.dir, "plan.yaml")
	if err := os.WriteFile(file, []byte(f.String()), 0o600); err != nil {
		return err
	}
	if err := output(b.cmd(ctx, "up", "-f", file)); err != nil {
		return err
	}
	full := strings.ReplaceAll(f.String(), "replicas: 0", "replicas: 1")
	if err := os.WriteFile(file, []byte(full), 0o600); err != nil {
		return err
	}
	var took []time.Duration
	for range b.runs {
		d, err := timed(func() error {
			err := output(b.cmd(ctx, "plan", "-f", file))
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 3 { // it found changes, as it must
				return nil
			}
			if err == nil {
				err = errors.New("tender plan found nothing to do")
			}
			return err
		})
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	pss, err := memory(b.serve.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("\ntender plan, 200 services to create, whole command: %.0f ms (go test -bench Make ./internal/plan has the plan alone)\n", float64(median(took).Microseconds())/1000)
	select { // as long as serve takes to give back what a busy minute left
	case <-time.After(2 * time.Minute):
	case <-ctx.Done():
		return ctx.Err()
	}
	rested, err := memory(b.serve.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("serve, 200 services wanted: %.1f MB PSS after the plans, %.1f MB two minutes later\n", pss, rested)
	return output(b.cmd(ctx, "down", "-p", "tb200"))
}

// memory reads a process' PSS in MB.
func memory(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if kb, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")))
			return float64(n) / 1024, err
		}
	}
	return 0, errors.New("smaps_rollup has no Pss line")
}

func output(c *exec.Cmd) error {
	var text bytes.Buffer
	c.Stdout, c.Stderr = &text, &text
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, text.String())
	}
	return nil
}

func timed(f func() error) (time.Duration, error) {
	begun := time.Now()
	err := f()
	return time.Since(begun), err
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }
