package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenderhq/tender/internal/metrics"
)

// Of each target there are a thousand series: twenty names with fifty sets of labels.
const (
	targetSeries = 1000
	seriesSets   = 50
)

// asks are range queries over all that was scraped. The step is that of the scrapes.
var asks = []struct{ name, query string }{
	{"one series", `bench_3_total{instance="1",path="/p/11",le="0.55"}`},
	{"rates of a target", `rate(bench_3_total{instance="1"}[20s])`},
	{"sum of all rates", `sum(rate(bench_3_total[20s]))`},
	{"sum of rates by path", `sum by (path) (rate(bench_3_total[20s]))`},
	{"p99 of a histogram", `histogram_quantile(0.99, sum by (le) (rate(bench_0_bucket[20s])))`},
	{"ten highest", `topk(10, max_over_time(bench_7_total[20s]))`},
	{"ratio of two", `sum by (instance) (rate(bench_1_total[20s])) / sum by (instance) (rate(bench_2_total[20s]))`},
	{"every series counted", `count by (job) ({__name__=~"bench_.+"})`},
}

// metricBench has Tender's store and Debian's Prometheus scrape the same targets at the
// same time, and asks both the same.
func metricBench(ctx context.Context, args []string) (err error) {
	set := flag.NewFlagSet("metrics", flag.ContinueOnError)
	n := set.Int("n", 50_000, "series")
	rounds := set.Int("rounds", 20, "scrapes of all targets that are measured")
	every := set.Duration("every", 3*time.Second, "between scrapes")
	profile := set.String("profile", "", "folder for CPU profiles of both while they scrape")
	only := set.String("only", "scrape,ask", "which parts")
	child := set.String("child", "", "used by the command itself")
	if err := set.Parse(args); err != nil {
		return err
	}
	if *child != "" {
		return metricChild(ctx, *child)
	}
	dir, err := os.MkdirTemp("", "tb-metrics-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	targets := max(1, *n/targetSeries)
	x, err := startExporter(targets)
	if err != nil {
		return err
	}
	defer x.stop()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte(x.config(targets, *every)), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "e2e/debian.sh", "prometheus").Output()
	if err != nil {
		return fmt.Errorf("e2e/debian.sh prometheus: %w", err)
	}
	prometheus := filepath.Join(strings.TrimSpace(string(out)), "usr/bin/prometheus")
	fmt.Printf("machine: %d cores, load %s; %d series of %d targets, scraped every %s by both at the same time\n", runtime.NumCPU(), load(), targets*targetSeries, targets, *every)
	ours, theirs := &scraper{name: "Tender"}, &scraper{name: "Prometheus"}
	for _, s := range []*scraper{ours, theirs} {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		s.base, s.dir = "http://"+address, filepath.Join(dir, s.name)
		if s == ours {
			s.cmd = exec.Command(self, "metrics", "-child", strings.Join([]string{s.dir, config, address}, ","))
		} else {
			s.cmd = exec.Command(prometheus, "--config.file="+config, "--storage.tsdb.path="+s.dir, "--web.listen-address="+address, "--log.level=error")
		}
		s.cmd.Stderr = os.Stderr
		if err := s.cmd.Start(); err != nil {
			return err
		}
		defer func() {
			_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			_ = s.cmd.Wait()
		}()
	}
	both := []*scraper{ours, theirs}
	// The first scrapes make the series; they are not what it costs to keep them.
	const first = 3
	if err := x.wait(ctx, both, first*targets); err != nil {
		return err
	}
	for _, s := range both {
		if s.before, err = cpuOfPID(s.cmd.Process.Pid); err != nil {
			return err
		}
		s.seen, s.first = x.seen(s.name), s.before
	}
	began := time.Now()
	profiles, cctx := errgroup.WithContext(ctx)
	if *profile != "" {
		for _, s := range both {
			profiles.Go(func() error {
				return s.profile(cctx, filepath.Join(*profile, s.name+".prof"), time.Duration(*rounds)**every)
			})
		}
	}
	if err := x.wait(ctx, both, (first+*rounds)*targets); err != nil {
		return err
	}
	if err := profiles.Wait(); err != nil {
		return err
	}
	for _, s := range both {
		now, err := cpuOfPID(s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		s.scrape = (now - s.before) / float64(x.seen(s.name)-s.seen) * float64(targets)
		if s.pss, err = memory(s.cmd.Process.Pid); err != nil {
			return err
		}
	}
	end := time.Now()
	x.stop() // nothing to scrape while they are asked
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * *every): // they mark that series have ended
	}
	fmt.Printf("\n%-34s %10s %12s %8s\n", "", "tender", "prometheus", "ratio")
	row := func(name, unit string, a, b float64) {
		fmt.Printf("%-34s %10s %12s %8.2f\n", name, fmt.Sprintf("%.4g %s", a, unit), fmt.Sprintf("%.4g %s", b, unit), a/b)
	}
	row("a scrape of all, CPU", "ms", 1000*ours.scrape, 1000*theirs.scrape)
	row("the first 3, with the start, CPU", "ms", 1000*ours.first, 1000*theirs.first)
	sum := [2]float64{ours.scrape, theirs.scrape}
	for _, q := range asks {
		if !strings.Contains(*only, "ask") {
			break
		}
		if err := askBoth(ctx, both, q.query, began, end, *every); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		if ours.found != theirs.found {
			fmt.Printf("found: %d series by Tender, %d by Prometheus\n", ours.found, theirs.found)
		}
		row(q.name+", CPU", "ms", 1000*ours.asked, 1000*theirs.asked)
		sum[0], sum[1] = sum[0]+ours.asked, sum[1]+theirs.asked
	}
	if strings.Contains(*only, "ask") {
		row("a scrape and each question, CPU", "ms", 1000*sum[0], 1000*sum[1])
	}
	row("memory (PSS) after the scrapes", "MB", ours.pss, theirs.pss)
	for _, s := range both {
		if s.peak, err = peakOf(s.cmd.Process.Pid); err != nil {
			return err
		}
		if s.disk, err = treeSize(s.dir); err != nil {
			return err
		}
	}
	row("peak RSS, questions too", "MB", float64(ours.peak>>20), float64(theirs.peak>>20))
	row("on disk", "MB", float64(ours.disk)/(1<<20), float64(theirs.disk)/(1<<20))
	return nil
}

// scraper is one of the two, and what it took.
type scraper struct {
	name, base, dir string
	cmd             *exec.Cmd
	seen            int64
	// CPU seconds: used at a moment, until series are there, for a scrape of all, for a question.
	before, first, scrape, asked float64
	pss                          float64 // MB
	peak, disk                   int64
	found                        int // series
}

// askBoth asks in turns until what was used is much more than the kernel's tick.
func askBoth(ctx context.Context, both []*scraper, query string, from, to time.Time, step time.Duration) error {
	v := url.Values{"query": {query}, "step": {step.String()}, "start": {strconv.FormatInt(from.Unix(), 10)}, "end": {strconv.FormatInt(to.Unix(), 10)}}
	const turns, enough = 3, 0.3
	for _, s := range both {
		s.asked = 0
	}
	count := map[*scraper]int{}
	for range turns {
		for _, s := range both {
			before, err := cpuOfPID(s.cmd.Process.Pid)
			if err != nil {
				return err
			}
			used := 0.0
			for n := 0; used < enough && n < 200; n++ {
				if s.found, err = s.ask(ctx, v); err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				count[s]++
				now, err := cpuOfPID(s.cmd.Process.Pid)
				if err != nil {
					return err
				}
				used = now - before
			}
			s.asked += used
		}
	}
	for _, s := range both {
		s.asked /= float64(count[s])
	}
	return nil
}

// profile has the process write down where it is for a while.
func (s *scraper) profile(ctx context.Context, path string, span time.Duration) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", s.base, max(1, int(span.Seconds()))), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}

func (s *scraper) ask(ctx context.Context, v url.Values) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/api/v1/query_range?"+v.Encode(), nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var out struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return 0, err
	}
	if out.Status != "success" || len(out.Data.Result) == 0 {
		return 0, fmt.Errorf("%s %s, %d series", out.Status, out.Error, len(out.Data.Result))
	}
	return len(out.Data.Result), nil
}

// metricChild is Tender's store as a process: DIR,CONFIG,ADDRESS.
func metricChild(ctx context.Context, what string) error {
	f := strings.Split(what, ",")
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	debug.SetGCPercent(50) // as serve does
	db, err := metrics.Open(metrics.Options{Dir: f[0], Config: f[1], Node: "bench"})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", f[2])
	if err != nil {
		return errors.Join(err, db.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("/", db.API())
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	err = db.Run(ctx)
	return errors.Join(err, server.Close(), db.Close())
}

// exporter answers with series whose values move, and counts who asked.
type exporter struct {
	server  *http.Server
	address string
	done    sync.WaitGroup

	tender, prometheus atomic.Int64 // scrapes of one target
}

func startExporter(targets int) (*exporter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	x := &exporter{address: l.Addr().String()}
	mux := http.NewServeMux()
	for t := range targets {
		mux.HandleFunc(fmt.Sprintf("/metrics/%d", t), func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			_, _ = w.Write(exposition(time.Now())) // who asked may have gone
			if strings.HasPrefix(r.UserAgent(), "Tender") {
				x.tender.Add(1)
			} else {
				x.prometheus.Add(1)
			}
		})
	}
	x.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	x.done.Go(func() { _ = x.server.Serve(l) })
	return x, nil
}

func (x *exporter) stop() {
	_ = x.server.Close() // it is closed twice
	x.done.Wait()
}

// exposition is what a target answers.
func exposition(now time.Time) []byte {
	b := make([]byte, 0, 80*targetSeries)
	second := now.UnixMilli() / 1000
	for m := range targetSeries / seriesSets {
		name, kind := "bench_"+strconv.Itoa(m)+"_total", "counter"
		if m == 0 {
			name, kind = "bench_0_bucket", "untyped"
		}
		b = append(b, "# HELP "+name+" A figure.\n# TYPE "+name+" "+kind+"\n"...)
		for i := range seriesSets {
			b = append(b, name...)
			b = append(b, `{method="GET",path="/p/`...)
			b = strconv.AppendInt(b, int64(i), 10)
			b = append(b, `",le="`...)
			if i == seriesSets-1 {
				b = append(b, "+Inf"...)
			} else {
				b = strconv.AppendFloat(b, float64(i)/20, 'g', -1, 64)
			}
			b = append(b, `"} `...)
			// Some move at each scrape, some now and then, some never, as figures do.
			b = strconv.AppendInt(b, second%1_000_000*int64((i+m)%4)+second/30%1000, 10)
			b = append(b, '\n')
		}
	}
	return b
}

func (x *exporter) config(targets int, every time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global: {scrape_interval: %s, scrape_timeout: %s}\nscrape_configs:\n- job_name: bench\n  static_configs:\n", every, every)
	for t := range targets {
		fmt.Fprintf(&b, "  - {targets: [%q], labels: {__metrics_path__: /metrics/%d, instance: \"%d\", project: shop, service: web}}\n", x.address, t, t)
	}
	return b.String()
}

func (x *exporter) seen(who string) int64 {
	if who == "Tender" {
		return x.tender.Load()
	}
	return x.prometheus.Load()
}

// wait until each has scraped as many targets.
func (x *exporter) wait(ctx context.Context, both []*scraper, scrapes int) error {
	for deadline := time.Now().Add(10 * time.Minute); ; {
		enough := true
		for _, s := range both {
			enough = enough && x.seen(s.name) >= int64(scrapes)
		}
		if enough {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d and %d of %d scrapes in ten minutes", x.seen(both[0].name), x.seen(both[1].name), scrapes)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// cpuOfPID is what a process has used, in seconds; its ticks are of 10 ms.
func cpuOfPID(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, after, ok := strings.Cut(string(raw), ") ")
	f := strings.Fields(after)
	if !ok || len(f) < 14 {
		return 0, fmt.Errorf("process %d has no figures", pid)
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return float64(user+system) / 100, nil
}

// peakOf is the most memory that a process has had, in bytes.
func peakOf(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("status has no VmHWM line")
}

// treeSize is what the files in a folder take.
func treeSize(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		i, err := e.Info()
		if err == nil {
			sum += i.Sys().(*syscall.Stat_t).Blocks * 512 //nolint:errcheck // it is one on Linux
		}
		return err
	})
	return sum, err
}
