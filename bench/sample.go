package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/tenderhq/tender/internal/sample"
)

// sampled is what rounds of one kind cost. CPU is of the process that asks, Engine of
// those that it makes work: the engine and what runs containers for it.
type sampled struct {
	CPU, Engine, Wall float64 // seconds, of all rounds
	Rounds            int
	RSS               int64 // bytes, at its highest
	Points            int
}

// per is what one round takes of seconds, in milliseconds.
func (s sampled) per(seconds float64) float64 { return 1000 * seconds / float64(s.Rounds) }

func newestCadvisor() string {
	found, _ := filepath.Glob(".cache/tools/cadvisor-v*")
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// sampleBench times rounds over real containers: the kernel's files, as Tender reads
// them, the engine's stats API, and cAdvisor where one is given.
func sampleBench(ctx context.Context, args []string) (err error) {
	set := flag.NewFlagSet("sample", flag.ContinueOnError)
	n := set.Int("n", 50, "containers")
	rounds := set.Int("rounds", 30, "rounds of each kind")
	cadvisor := set.String("cadvisor", newestCadvisor(), "cAdvisor's binary; empty: without")
	child := set.String("child", "", "used by the command itself")
	if err := set.Parse(args); err != nil {
		return err
	}
	if *child != "" {
		return sampleChild(ctx, *child, *rounds)
	}
	engine, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	ids, remove, err := sleepers(ctx, engine, *n)
	defer func() { err = errors.Join(err, remove()) }()
	if err != nil {
		return err
	}
	fmt.Printf("machine: %d cores, load %s; %d containers, %d rounds of each kind, in turns\n\n", runtime.NumCPU(), load(), len(ids), *rounds)
	kinds := []string{"files", "api"}
	if *cadvisor != "" {
		kinds = append(kinds, "cadvisor")
	}
	total := map[string]sampled{}
	const turns = 3 // so that a busy moment meets all of them
	for range turns {
		for _, kind := range kinds {
			var r sampled
			if kind == "cadvisor" {
				r, err = besideCadvisor(ctx, *cadvisor, 2) // of ten seconds each
			} else {
				r, err = runSampleChild(ctx, engine, kind, ids, *rounds/turns)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			t := total[kind]
			t.Rounds += r.Rounds
			t.CPU, t.Engine, t.Wall = t.CPU+r.CPU, t.Engine+r.Engine, t.Wall+r.Wall
			t.RSS, t.Points = max(t.RSS, r.RSS), r.Points
			total[kind] = t
		}
	}
	fmt.Printf("%-10s %14s %16s %10s %20s %10s %8s\n", "", "CPU ms/round", "engine ms/round", "wall ms", "% of a core at 10 s", "peak RSS", "values")
	for _, kind := range kinds {
		r := total[kind]
		wall := fmt.Sprintf("%.1f", r.per(r.Wall))
		if kind == "cadvisor" {
			wall = "-" // it keeps its own time
		}
		fmt.Printf("%-10s %14.2f %16.2f %10s %20.3f %7d MB %8d\n", kind, r.per(r.CPU), r.per(r.Engine), wall, r.per(r.CPU+r.Engine)/100, r.RSS>>20, r.Points)
	}
	files := total["files"]
	for _, kind := range kinds[1:] {
		r := total[kind]
		fmt.Printf("files take %.4f of %s\n", files.per(files.CPU)/r.per(r.CPU+r.Engine), kind)
	}
	fmt.Printf("at 100 instances every 10 s: %.3f %% of a core\n", files.per(files.CPU)/float64(len(ids)))
	return nil
}

// sleepers starts n containers that do a little now and then.
func sleepers(ctx context.Context, engine *client.Client, n int) (ids []string, remove func() error, err error) {
	made := make([]string, n)
	work, inner := errgroup.WithContext(ctx)
	work.SetLimit(4)
	for i := range n {
		work.Go(func() error {
			r, err := engine.ContainerCreate(inner, client.ContainerCreateOptions{
				Name:       fmt.Sprintf("tb-sample-%d", i),
				Config:     &container.Config{Image: image, Cmd: []string{"sh", "-c", "while :; do echo >/tmp/x; sleep 5; done"}},
				HostConfig: &container.HostConfig{Resources: container.Resources{Memory: 64 << 20, NanoCPUs: 5e8}},
			})
			if err != nil {
				return err
			}
			made[i] = r.ID
			_, err = engine.ContainerStart(inner, r.ID, client.ContainerStartOptions{})
			return err
		})
	}
	err = work.Wait()
	remove = func() error {
		work, ctx := errgroup.WithContext(context.WithoutCancel(ctx))
		work.SetLimit(4)
		for _, id := range made {
			if id != "" {
				work.Go(func() error {
					_, err := engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
					return err
				})
			}
		}
		return work.Wait()
	}
	return made, remove, err
}

// runSampleChild takes rounds in a process of its own.
func runSampleChild(ctx context.Context, engine *client.Client, kind string, ids []string, rounds int) (r sampled, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	list := make([]sample.Instance, 0, len(ids))
	for i, id := range ids {
		got, err := engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil {
			return r, err
		}
		list = append(list, sample.Instance{ID: id, Name: "web-" + strconv.Itoa(i), Project: "shop", Service: "web", Image: image, PID: got.Container.State.Pid, Running: true})
	}
	what, err := json.Marshal(list)
	if err != nil {
		return r, err
	}
	before, err := enginesCPU()
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, self, "sample", "-child", kind, "-rounds", strconv.Itoa(rounds))
	cmd.Stdin, cmd.Stderr = strings.NewReader(string(what)), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, err
	}
	after, err := enginesCPU()
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, err
	}
	if kind == "api" { // nobody asks the engine in the other one; what it does then is its own
		r.Engine = after - before
	}
	return r, nil
}

// sampleChild measures itself, after a first round in which all is opened.
func sampleChild(ctx context.Context, kind string, rounds int) error {
	var list []sample.Instance
	if err := json.NewDecoder(os.Stdin).Decode(&list); err != nil {
		return err
	}
	var round func() (int, error)
	switch kind {
	case "files":
		s, err := sample.New(sample.Options{Node: "bench"})
		if err != nil {
			return err
		}
		defer s.Close()
		round = func() (int, error) {
			r := s.Take(ctx, list)
			if st := s.Status(); st.Instances != len(list) || st.Problem != "" {
				return 0, fmt.Errorf("%d of %d instances were read: %s", st.Instances, len(list), st.Problem)
			}
			return len(r.Points), nil
		}
	case "api":
		engine, err := client.New(client.FromEnv)
		if err != nil {
			return err
		}
		round = func() (int, error) { return askStats(ctx, engine, list) }
	}
	if _, err := round(); err != nil {
		return err
	}
	var r sampled
	before, begun := ownCPU(), time.Now()
	for range rounds {
		var err error
		if r.Points, err = round(); err != nil {
			return err
		}
	}
	r.CPU, r.Wall, r.Rounds = ownCPU()-before, time.Since(begun).Seconds(), rounds
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return err
	}
	r.RSS = use.Maxrss << 10
	return json.NewEncoder(os.Stdout).Encode(r)
}

// askStats asks the engine once for each container, as cheaply as it can be asked.
func askStats(ctx context.Context, engine *client.Client, list []sample.Instance) (int, error) {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(8)
	for _, i := range list {
		work.Go(func() error {
			got, err := engine.ContainerStats(ctx, i.ID, client.ContainerStatsOptions{Stream: false, IncludePreviousSample: false})
			if err != nil {
				return err
			}
			defer got.Body.Close()
			var s container.StatsResponse
			if err := json.NewDecoder(got.Body).Decode(&s); err != nil {
				return err
			}
			if s.MemoryStats.Usage == 0 {
				return errors.New("the engine's answer is empty")
			}
			_, err = io.Copy(io.Discard, got.Body)
			return err
		})
	}
	return 25 * len(list), work.Wait() // about as many are in an answer
}

func ownCPU() float64 {
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano()).Seconds()
}

// enginesCPU is what the engine's processes have used, in seconds.
func enginesCPU() (float64, error) {
	return cpuOf(func(name string) bool {
		return name == "dockerd" || name == "containerd" || strings.HasPrefix(name, "containerd-shim")
	})
}

func cpuOf(which func(name string) bool) (float64, error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, path := range all {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		before, after, ok := strings.Cut(string(raw), ") ")
		_, name, named := strings.Cut(before, "(")
		if f := strings.Fields(after); ok && named && len(f) > 13 && which(name) {
			user, _ := strconv.Atoi(f[11])
			system, _ := strconv.Atoi(f[12])
			sum += float64(user+system) / 100
		}
	}
	return sum, nil
}

// besideCadvisor lets a cAdvisor look every ten seconds, and scrapes it as often; a round is such a scrape with all that goes before it.
func besideCadvisor(ctx context.Context, binary string, rounds int) (r sampled, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return r, err
	}
	cmd := exec.Command(binary, "-listen", fmt.Sprintf("127.0.0.1:%d", port))
	if err := cmd.Start(); err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}()
	scrape := func() (int, error) {
		text, err := exec.CommandContext(ctx, "curl", "-sf", fmt.Sprintf("http://127.0.0.1:%d/metrics", port)).Output()
		return strings.Count(string(text), "\ncontainer_"), err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		if n, err := scrape(); err == nil && n > 0 {
			break
		}
		if time.Now().After(deadline) {
			return r, errors.New("it does not answer within a minute")
		}
	}
	mine := func(name string) bool { return name == filepath.Base(binary)[:min(15, len(filepath.Base(binary)))] }
	before, err := cpuOf(mine)
	if err != nil {
		return r, err
	}
	begun := time.Now()
	for range rounds {
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(10 * time.Second):
		}
		if r.Points, err = scrape(); err != nil {
			return r, err
		}
	}
	after, err := cpuOf(mine)
	if err != nil {
		return r, err
	}
	r.CPU, r.Wall, r.Rounds = after-before, time.Since(begun).Seconds(), rounds
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return r, err
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.Fields(kb)[0], 10, 64)
			if err != nil {
				return r, err
			}
			r.RSS = n << 10
		}
	}
	return r, nil
}
