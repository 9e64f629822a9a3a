package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"
)

// keeper is a registry under measurement: a process that keeps images.
type keeper struct {
	name     string
	binary   string
	htpasswd bool   // it asks for a password, of which it keeps bcrypt of the lowest cost
	password string // "": it asks nobody
	dir      string // where its blobs lie
	base     string
	pid      int
	ours     *bench
	cmd      *exec.Cmd
}

// shape is what an image is made of.
type shape struct {
	name   string
	layers int
	size   int64 // of each
}

// moved is one push or pull.
type moved struct {
	took time.Duration
	cpu  float64 // seconds of the server
	peak int64   // bytes, of the server since its start
	pss  float64 // MB, afterwards
}

const tenderName = "tender"

// registryBench has the same client push to and pull from Tender's registry, Debian's
// docker-registry 2.8 and registry 3, in turns, then lets each free the blobs of the same
// deleted manifests.
func registryBench(ctx context.Context, args []string) (err error) {
	set := flag.NewFlagSet("registry", flag.ContinueOnError)
	runs := set.Int("runs", 3, "runs of each; the median is shown")
	only := set.String("only", "large,small,gc", "which tables")
	built := set.String("tender", "", "Tender's binary; empty: builds one")
	megabytes := set.Int64("mb", 1024, "of an image, in MiB")
	n := set.Int("n", 5000, "manifests, for gc")
	if err := set.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tb-registry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	keepers, err := findKeepers(ctx, dir, *built)
	if err != nil {
		return err
	}
	fmt.Printf("machine: %d cores, load %s\n", runtime.NumCPU(), load())
	for _, s := range []shape{{"large", 4, *megabytes << 20 / 4}, {"small", 2000, *megabytes << 20 / 2000 &^ 4095}} {
		if strings.Contains(*only, s.name) {
			if err := moveAll(ctx, keepers, s, *runs, dir); err != nil {
				return fmt.Errorf("%s layers: %w", s.name, err)
			}
		}
	}
	if strings.Contains(*only, "gc") {
		return sweepAll(ctx, keepers, *n, *runs, dir)
	}
	return nil
}

// findKeepers gets the peers: Debian's out of its package, registry 3 built of its module.
func findKeepers(ctx context.Context, dir, built string) ([]*keeper, error) {
	path := func(script, what, below string) (string, error) {
		out, err := exec.CommandContext(ctx, script, what).Output()
		if err != nil {
			return "", fmt.Errorf("%s %s: %w", script, what, err)
		}
		return filepath.Join(strings.TrimSpace(string(out)), below), nil
	}
	two, err := path("e2e/debian.sh", "docker-registry", "usr/bin/docker-registry")
	if err != nil {
		return nil, err
	}
	three, err := path("e2e/peer.sh", "distribution", "")
	if err != nil {
		return nil, err
	}
	if built == "" {
		built = filepath.Join(dir, "tender")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built, "./cmd/tender")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := output(build); err != nil {
			return nil, err
		}
	}
	return []*keeper{
		{name: tenderName, binary: built},
		{name: "docker-registry 2.8", binary: two},
		{name: "registry 3", binary: three},
		{name: "registry 3, htpasswd", binary: three, htpasswd: true},
	}, nil
}

// start lets it serve what lies in dir/blobs.
func (k *keeper) start(ctx context.Context, dir string) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	k.base, k.dir = "http://"+address, filepath.Join(dir, "blobs")
	if k.name == tenderName {
		k.ours = &bench{dir: dir, built: k.binary, flags: []string{"--listen-registry", address, "--registry-dir", k.dir}}
		if err := k.ours.prepare(ctx); err != nil {
			return err
		}
		k.pid = k.ours.serve.Process.Pid
		token, err := k.ours.cmd(ctx, "token", "create", "bench", "--scope", "admin").Output()
		if err != nil {
			return fmt.Errorf("tender token create: %w", err)
		}
		k.password = strings.TrimSpace(string(token))
		return nil
	}
	config, err := k.config(dir, address)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	k.cmd = exec.Command(k.binary, "serve", config)
	k.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none") // nobody is there to take them
	k.cmd.Stdout, k.cmd.Stderr = log, log
	if err := k.cmd.Start(); err != nil {
		return err
	}
	k.pid = k.cmd.Process.Pid
	c := &mover{base: k.base, password: k.password}
	for deadline := time.Now().Add(30 * time.Second); c.answers(ctx) != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%s does not answer: %s", k.name, text)
		}
	}
	return nil
}

// config is as the packages' own: a cache of what blobs there are in memory, no log of requests.
func (k *keeper) config(dir, address string) (string, error) {
	text := fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %s}
  cache: {blobdescriptor: inmemory}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: %s}
`, filepath.Join(dir, "blobs"), address)
	if k.htpasswd {
		k.password = "bench"
		hash, err := bcrypt.GenerateFromPassword([]byte(k.password), 5) // as htpasswd -B has it
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, "htpasswd"), fmt.Appendf(nil, "bench:%s\n", hash), 0o600); err != nil {
			return "", err
		}
		text += fmt.Sprintf("auth: {htpasswd: {realm: bench, path: %s}}\n", filepath.Join(dir, "htpasswd"))
	}
	file := filepath.Join(dir, "config.yml")
	return file, os.WriteFile(file, []byte(text), 0o600)
}

func (k *keeper) stop() error {
	if k.ours != nil {
		err := k.ours.end()
		k.ours = nil
		return err
	}
	if k.cmd == nil || k.cmd.Process == nil {
		return nil
	}
	_ = k.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = k.cmd.Wait()                          // distribution ends with 1, or by the signal
	k.cmd = nil
	return nil
}

// moveAll pushes and pulls an image of a shape to each registry, in turns, each time a
// fresh one, and prints the medians.
func moveAll(ctx context.Context, keepers []*keeper, s shape, runs int, dir string) error {
	image, err := makeImage(s)
	if err != nil {
		return err
	}
	pushes, pulls := map[string][]moved{}, map[string][]moved{}
	for range runs {
		for _, k := range keepers {
			up, down, err := moveOnce(ctx, k, image, dir)
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			pushes[k.name], pulls[k.name] = append(pushes[k.name], up), append(pulls[k.name], down)
		}
	}
	mb := float64(int64(s.layers)*s.size) / 1e6
	fmt.Printf("\n%d layers of %d KiB, load %s\n%-30s %8s %8s %10s %10s %10s\n", s.layers, s.size>>10, load(), "", "MB/s", "CPU s", "peak RSS", "PSS after", "CPU of 3's")
	for _, what := range []struct {
		name string
		of   map[string][]moved
	}{{"push", pushes}, {"pull", pulls}} {
		for _, k := range keepers {
			m, three := middleOf(what.of[k.name]), middleOf(what.of["registry 3"])
			fmt.Printf("%-30s %8.0f %8.2f %7d MB %7.0f MB %10.2f\n", what.name+": "+k.name, mb/m.took.Seconds(), m.cpu, m.peak>>20, m.pss, m.cpu/three.cpu)
		}
	}
	return nil
}

func moveOnce(ctx context.Context, k *keeper, image *pushed, dir string) (up, down moved, err error) {
	own, err := os.MkdirTemp(dir, "k-")
	if err != nil {
		return up, down, err
	}
	defer os.RemoveAll(own)
	if err := k.start(ctx, own); err != nil {
		return up, down, err
	}
	defer func() { err = errors.Join(err, k.stop()) }()
	c := &mover{base: k.base, password: k.password}
	defer c.close()
	if err := k.settle(ctx, c); err != nil {
		return up, down, err
	}
	if up, err = k.measure(func() error { return c.push(ctx, "bench/app", "1", image) }); err != nil {
		return up, down, fmt.Errorf("push: %w", err)
	}
	if down, err = k.measure(func() error { return c.pull(ctx, "bench/app", "1", image) }); err != nil {
		return up, down, fmt.Errorf("pull: %w", err)
	}
	return up, down, nil
}

// settle has it keep a first small image, and waits until its start is over.
func (k *keeper) settle(ctx context.Context, c *mover) error {
	first, err := makeImage(shape{"first", 1, 4096})
	if err != nil {
		return err
	}
	if err := c.push(ctx, "bench/first", "1", first); err != nil {
		return err
	}
	for range 40 {
		before, err := cpuOfPID(k.pid)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		after, err := cpuOfPID(k.pid)
		if err != nil || after-before <= 0.02 {
			return err
		}
	}
	return fmt.Errorf("%s does not come to rest", k.name)
}

// measure reads what the server used meanwhile. What was written before is on the disk.
func (k *keeper) measure(do func() error) (m moved, err error) {
	unix.Sync()
	before, err := cpuOfPID(k.pid)
	if err != nil {
		return m, err
	}
	if m.took, err = timed(do); err != nil {
		return m, err
	}
	after, err := cpuOfPID(k.pid)
	if err != nil {
		return m, err
	}
	m.cpu = after - before
	if m.peak, err = peakOf(k.pid); err != nil {
		return m, err
	}
	m.pss, err = memory(k.pid)
	return m, err
}

// middleOf takes the median of each figure by itself.
func middleOf(all []moved) (m moved) {
	at := len(all) / 2
	by := func(f func(a, b moved) int) moved { return slices.SortedFunc(slices.Values(all), f)[at] }
	m.took = by(func(a, b moved) int { return cmp.Compare(a.took, b.took) }).took
	m.cpu = by(func(a, b moved) int { return cmp.Compare(a.cpu, b.cpu) }).cpu
	m.peak = by(func(a, b moved) int { return cmp.Compare(a.peak, b.peak) }).peak
	m.pss = by(func(a, b moved) int { return cmp.Compare(a.pss, b.pss) }).pss
	return m
}
