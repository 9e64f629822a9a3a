package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// alertSides is of how many targets and groups of rules there are: each has its own moment
// within the interval, so that no single pair of them is the luck of a run.
const alertSides = 10

// alertBench times from a figure's passing its threshold to the webhook that says so: of
// serve, and of Debian's Prometheus with Debian's Alertmanager, which scrape the same figures.
func alertBench(ctx context.Context, args []string) (err error) {
	set := flag.NewFlagSet("alert", flag.ContinueOnError)
	n := set.Int("n", 200, "alerts")
	every := set.Duration("every", time.Second, "between scrapes, and between looks of a rule")
	built := set.String("tender", "", "binary to look at; empty: builds one")
	if err := set.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tb-alert-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := startAlarms(*n + 1)
	if err != nil {
		return err
	}
	defer w.stop()
	var free [4]string
	for i := range free {
		if free[i], err = freeAddress(); err != nil {
			return err
		}
	}
	files := map[string]string{
		"rules.yml": w.rules(*every), "tender.yml": w.scrapes(*every),
		"prometheus.yml":          w.scrapes(*every) + fmt.Sprintf("alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}\n", free[0]),
		"tender-alerts.yml":       w.route("tender"),
		"alertmanager-alerts.yml": w.route("prometheus"),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		pack, binary string
		args         []string
	}{
		{"prometheus-alertmanager", "prometheus-alertmanager", []string{"--config.file=" + filepath.Join(dir, "alertmanager-alerts.yml"), "--storage.path=" + filepath.Join(dir, "alertmanager"), "--web.listen-address=" + free[0], "--cluster.listen-address="}},
		{"prometheus", "prometheus", []string{"--config.file=" + filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path=" + filepath.Join(dir, "prometheus"), "--web.listen-address=" + free[1]}},
	} {
		out, err := exec.CommandContext(ctx, "e2e/debian.sh", p.pack).Output()
		if err != nil {
			return fmt.Errorf("e2e/debian.sh %s: %w", p.pack, err)
		}
		usr := filepath.Join(strings.TrimSpace(string(out)), "usr")
		// Debian's Alertmanager reads templates from /usr/share: it sees its package's there.
		c := exec.Command("unshare", append([]string{
			"--mount", "sh", "-c", `mount --bind "$0/share" /usr/share && exec "$@"`,
			usr, filepath.Join(usr, "bin", p.binary), "--log.level=error",
		}, p.args...)...)
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			return err
		}
		defer func() {
			_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
			_ = c.Wait()
		}()
	}
	b := &bench{dir: dir, tender: filepath.Join(dir, "tender"), built: *built, flags: []string{
		"--http", free[2], "--https", "", "--dns", free[3],
		"--metrics-config", filepath.Join(dir, "tender.yml"), "--alertmanager", filepath.Join(dir, "tender-alerts.yml"),
	}}
	defer func() { err = errors.Join(err, b.end(), b.endEdge()) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	fmt.Printf("machine: %d cores, load %s; %d alerts, for: 0, of %d targets and %d groups; scraped and looked at every %s, group_wait 0\n", runtime.NumCPU(), load(), *n, alertSides, alertSides, *every)
	// The first shows that both are there; it is not counted.
	for i := range *n + 1 {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration((0.2 + 0.6*rand.Float64()) * float64(*every))): // at any moment of the interval
			}
		}
		w.raise(i)
		if i == 0 {
			if err := w.wait(ctx, 1); err != nil {
				return err
			}
		}
	}
	if err := w.wait(ctx, *n+1); err != nil {
		return err
	}
	fmt.Printf("\n%-28s %10s %14s %8s\n", "", "tender", "prometheus +", "ratio")
	fmt.Printf("%-28s %10s %14s %8s\n", "true to the webhook", "", "alertmanager", "")
	ours, theirs := w.took("tender"), w.took("prometheus")
	for _, q := range []struct {
		name string
		of   float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"longest", 1}} {
		a, b := quantile(ours, q.of), quantile(theirs, q.of)
		fmt.Printf("%-28s %8.2f s %12.2f s %8.2f\n", q.name, a.Seconds(), b.Seconds(), ratio(a, b))
	}
	return nil
}

// alarms are figures that pass a threshold when told to, and who was told of them when.
type alarms struct {
	server  *http.Server
	address string
	done    sync.WaitGroup

	mu     sync.Mutex
	raised []time.Time // zero: not yet
	told   map[string]map[int]time.Time
}

func startAlarms(n int) (*alarms, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &alarms{address: l.Addr().String(), raised: make([]time.Time, n), told: map[string]map[int]time.Time{"tender": {}, "prometheus": {}}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics/{target}", w.figures)
	mux.HandleFunc("POST /told/{who}", w.receive)
	w.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	w.done.Go(func() { _ = w.server.Serve(l) })
	return w, nil
}

func (w *alarms) stop() {
	_ = w.server.Close() // nobody waits for an answer any more
	w.done.Wait()
}

func (w *alarms) figures(out http.ResponseWriter, r *http.Request) {
	target, err := strconv.Atoi(r.PathValue("target"))
	if err != nil {
		http.Error(out, "no such target", http.StatusNotFound)
		return
	}
	out.Header().Set("Content-Type", "text/plain; version=0.0.4")
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := target; i < len(w.raised); i += alertSides {
		value := 0
		if !w.raised[i].IsZero() {
			value = 1
		}
		fmt.Fprintf(out, "bench_alarm{n=\"%d\"} %d\n", i, value)
	}
}

func (w *alarms) receive(out http.ResponseWriter, r *http.Request) {
	now := time.Now()
	var body struct {
		Alerts []struct{ Labels map[string]string }
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	told := w.told[r.PathValue("who")]
	for _, a := range body.Alerts {
		i, err := strconv.Atoi(a.Labels["n"])
		if _, twice := told[i]; err == nil && told != nil && !twice { // others are built-in
			told[i] = now
		}
	}
}

func (w *alarms) raise(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.raised[i] = time.Now()
}

// wait until both were told of as many.
func (w *alarms) wait(ctx context.Context, n int) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		w.mu.Lock()
		ours, theirs := len(w.told["tender"]), len(w.told["prometheus"])
		w.mu.Unlock()
		if ours >= n && theirs >= n {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("of %d alerts Tender told of %d, Alertmanager of %d", n, ours, theirs)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// quantile is of at least one.
func quantile(d []time.Duration, q float64) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

// took is how long each took but the first.
func (w *alarms) took(who string) (out []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, at := range w.told[who] {
		if i > 0 {
			out = append(out, at.Sub(w.raised[i]))
		}
	}
	return out
}

// rules are in groups across the targets: each group has a rule for what its tenth of the figures say.
func (w *alarms) rules(every time.Duration) string {
	var b strings.Builder
	b.WriteString("groups:\n")
	for g := range alertSides {
		fmt.Fprintf(&b, "- name: bench-%d\n  interval: %s\n  rules:\n", g, every)
		for i := range w.raised {
			if i/alertSides%alertSides == g {
				fmt.Fprintf(&b, "  - {alert: Bench, expr: 'bench_alarm{n=\"%d\"} > 0'}\n", i)
			}
		}
	}
	return b.String()
}

func (w *alarms) scrapes(every time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global: {scrape_interval: %s, scrape_timeout: %s, evaluation_interval: %s}\nrule_files: [rules.yml]\nscrape_configs:\n- job_name: bench\n  static_configs:\n", every, every, every)
	for t := range alertSides {
		fmt.Fprintf(&b, "  - {targets: [%q], labels: {__metrics_path__: /metrics/%d, instance: \"%d\"}}\n", w.address, t, t)
	}
	return b.String()
}

func (w *alarms) route(who string) string {
	return fmt.Sprintf("route: {receiver: bench, group_by: [n], group_wait: 0s}\nreceivers: [{name: bench, webhook_configs: [{url: 'http://%s/told/%s', send_resolved: false}]}]\n", w.address, who)
}
