package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tenderhq/tender/internal/logql"
	"github.com/tenderhq/tender/internal/logs"
)

// asked is one question, in LogQL: to Tender's store, to Loki (whose fields are only
// in the text), and to ripgrep over the raw lines ("": it cannot).
type asked struct {
	name, query, loki, raw string
	over                   bool // time, a minute a step; else at one time, or lines
}

// askLogs puts the same lines into a store of Tender's, into raw files and, where it
// is built (make loki), into a Loki, and asks all of them the same. Times are
// CPU seconds of the process that answers, its threads together.
func askLogs(ctx context.Context, rows int, peer string) (err error) {
	dir, err := os.MkdirTemp("", "tb-logs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store, err := logs.Open(filepath.Join(dir, "store"), logs.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	var l *lokiPeer
	if peer != "" {
		if l, err = startLoki(ctx, peer, filepath.Join(dir, "loki")); err != nil {
			return err
		}
		defer l.stop()
	}
	end := time.Now().Truncate(time.Second)
	start := end.Add(-time.Duration(rows) * time.Millisecond)
	fmt.Printf("\n%d lines of JSON, about 1000 a second, load %s\n", rows, load())
	if err := fill(ctx, store, l, dir, rows, start, end); err != nil {
		return err
	}
	if l != nil {
		fmt.Printf("loki took them in with %.1f CPU s, %.2f M lines/CPU s, peak RSS %d MB (pushed as JSON, without fields)\n",
			l.cpu().Seconds(), float64(rows)/l.cpu().Seconds()/1e6, l.peak()>>20)
	}
	whole := fmt.Sprintf("[%ds]", rows/1000+60)
	questions := []asked{
		{name: "rare word", query: `sum(count_over_time({project="shop"} |= "zebra_crossing" ` + whole + `))`, raw: "zebra_crossing"},
		{name: "common word", query: `sum(count_over_time({project="shop"} |= "retrying" ` + whole + `))`, raw: "retrying"},
		{name: "field, 1 h", query: `sum(count_over_time({project="shop"} | status="500" [1h]))`, loki: `sum(count_over_time({project="shop"} | json | status="500" [1h]))`},
		{name: "field behind json, 1 h", query: `sum(count_over_time({project="shop"} | json | status="500" [1h]))`},
		{name: "count by service over time", query: `sum by (service) (count_over_time({project="shop"}[1m]))`, over: true},
		{name: "regular expression", query: `sum(count_over_time({project="shop"} |~ "reset by peer.*item 4[0-9]{4}\"" ` + whole + `))`, raw: `reset by peer.*item 4[0-9]{4}"`},
		{name: "latest 100 of a service", query: `{service="checkout"}`},
	}
	out, err := exec.CommandContext(ctx, "e2e/debian.sh", "ripgrep").Output()
	if err != nil {
		return fmt.Errorf("e2e/debian.sh ripgrep: %w", err)
	}
	rg := filepath.Join(strings.TrimSpace(string(out)), "usr/bin/rg")
	fmt.Printf("\n%-28s %10s %10s %10s %14s %14s %14s\n", "CPU seconds", "tender", "loki", "ripgrep", "loki/tender", "rg/tender", "found")
	engine := logql.New(store, logql.Limits{Timeout: time.Hour})
	for _, q := range questions {
		took, found, err := askTender(ctx, engine, q, start, end)
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		peer, ofLoki := "-", "-"
		if l != nil {
			t, n, err := l.ask(ctx, q, start, end)
			switch {
			case err != nil:
				peer = "no result"
			case n != found:
				peer, ofLoki = fmt.Sprintf("%.2f (%s)", t.Seconds(), n), times(t, took)
			default:
				peer, ofLoki = fmt.Sprintf("%.2f", t.Seconds()), times(t, took)
			}
		}
		floor, ofRaw := "-", "-"
		if q.raw != "" {
			t, n, err := ripgrep(ctx, rg, q.raw, filepath.Join(dir, "raw.log"))
			if err != nil {
				return err
			}
			floor, ofRaw = fmt.Sprintf("%.2f", t.Seconds()), times(t, took)
			if n != found {
				floor += " (" + n + ")"
			}
		}
		fmt.Printf("%-28s %10.3f %10s %10s %14s %14s %14s\n", q.name, took.Seconds(), peer, floor, ofLoki, ofRaw, found)
	}
	return nil
}

// ripgrep counts the lines that match, as a store without a store would.
func ripgrep(ctx context.Context, rg, pattern, file string) (time.Duration, string, error) {
	c := exec.CommandContext(ctx, rg, "--no-config", "--count", "--include-zero", "--no-filename", pattern, file)
	n, err := c.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 { // nothing is found
		err = nil
	}
	if err != nil {
		return 0, "", fmt.Errorf("rg %s: %w", pattern, err)
	}
	return c.ProcessState.UserTime() + c.ProcessState.SystemTime(), strings.TrimSpace(string(n)), nil
}

// times is how many times as much the peer took.
func times(peer, ours time.Duration) string {
	if ours <= 0 {
		return "-"
	}
	return strconv.FormatFloat(peer.Seconds()/ours.Seconds(), 'g', 3, 64)
}

func newestLoki() string {
	found, _ := filepath.Glob(".cache/tools/loki-v*")
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

func spent() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func askTender(ctx context.Context, e *logql.Engine, q asked, start, end time.Time) (time.Duration, string, error) {
	before := spent()
	x, err := logql.Parse(q.query)
	if err != nil {
		return 0, "", err
	}
	if !logql.IsMetric(x) {
		lines, err := e.Lines(ctx, x, logql.Lines{From: start, To: end, Limit: 100, Backward: true})
		return spent() - before, fmt.Sprint(len(lines)), err
	}
	s := logql.Steps{Start: end, End: end}
	if q.over {
		s = logql.Steps{Start: start.Truncate(time.Minute), End: end.Truncate(time.Minute).Add(time.Minute), Step: time.Minute}
	}
	series, err := e.Series(ctx, x, s)
	took := spent() - before
	sum := 0.0
	for _, s := range series {
		for _, v := range s.Values {
			if v == v { //nolint:gocritic // not NaN
				sum += v
			}
		}
	}
	return took, strconv.FormatFloat(sum, 'f', -1, 64), err
}

// fill writes the lines everywhere.
func fill(ctx context.Context, store *logs.Store, l *lokiPeer, dir string, rows int, start, end time.Time) error {
	raw, err := os.Create(filepath.Join(dir, "raw.log"))
	if err != nil {
		return err
	}
	defer raw.Close()
	out := bufio.NewWriterSize(raw, 1<<20)
	names := []string{"ts", "level", "service", "message", "trace_id", "user_id", "method", "path", "status", "duration_ms", "bytes", "host"}
	var shape strings.Builder
	for i, n := range names {
		shape.WriteString([]string{`,"`, `{"`}[max(0, 1-i)] + n + `":` + "\"\x00\"")
	}
	shape.WriteString("}")
	services := []string{"checkout", "catalog", "users", "payments", "search"}
	r := rand.New(rand.NewPCG(1, 2))
	at, step := start.UnixNano(), end.Sub(start).Nanoseconds()/int64(rows)
	const batch = 1000
	var text []byte
	for n := 0; n < rows; n += batch {
		service := services[n/batch%len(services)]
		b := logs.Batch{Labels: logs.Labels{{Name: "project", Value: "shop"}, {Name: "service", Value: service}}, Source: service}
		b.From, b.To = logs.Place{Seq: 1, Offset: int64(n)}, logs.Place{Seq: 1, Offset: int64(n + batch)}
		for i := range min(batch, rows-n) {
			at += step
			word := []string{"connection reset by peer, retrying", "cache miss for key", "slow query on orders", "request completed"}[min(r.IntN(20), 3)]
			message := fmt.Sprintf("%s item %d", word, r.IntN(100000))
			if (n+i)%1_000_003 == 77 {
				message += " zebra_crossing"
			}
			level, status := "info", "200"
			switch r.IntN(50) {
			case 0:
				level, status = "error", []string{"500", "502", "503"}[r.IntN(3)]
			case 1, 2:
				level, status = "warn", "404"
			}
			row := logs.Row{Time: at, Shape: shape.String()}
			for j, v := range []string{
				time.UnixMicro(at / 1e3).UTC().Format("2006-01-02T15:04:05.000000Z"), level, service, message, fmt.Sprintf("%016x", r.Uint64()), strconv.Itoa(r.IntN(50000)),
				[]string{"GET", "POST"}[r.IntN(2)], []string{"/api/v1/orders", "/api/v1/items", "/api/v1/users/me", "/healthz", "/api/v1/cart"}[r.IntN(5)], status,
				strconv.FormatFloat(r.ExpFloat64()*20, 'f', 2, 64), strconv.Itoa(r.IntN(20000)), "web-" + strconv.Itoa(r.IntN(4)),
			} {
				row.Fields = append(row.Fields, logs.Field{Name: names[j], Value: v})
			}
			b.Rows = append(b.Rows, row)
			text = append(row.Text(text[:0]), '\n')
			if _, err := out.Write(text); err != nil {
				return err
			}
		}
		if err := store.Append(ctx, b); err != nil {
			return err
		}
		if l != nil {
			if err := l.push(ctx, b); err != nil {
				return err
			}
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return store.Flush(ctx)
}

// lokiPeer is a Loki of one process, as its own documentation begins.
type lokiPeer struct {
	cmd  *exec.Cmd
	base string
	end  context.CancelFunc
}

func startLoki(ctx context.Context, binary, dir string) (*lokiPeer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		ports[i] = l.Addr().(*net.TCPAddr).Port //nolint:errcheck // it is one
		l.Close()
	}
	config := fmt.Sprintf(`auth_enabled: false
server: {http_listen_address: 127.0.0.1, http_listen_port: %d, grpc_listen_address: 127.0.0.1, grpc_listen_port: %d, log_level: error, http_server_read_timeout: 1h, http_server_write_timeout: 1h, grpc_server_max_recv_msg_size: 104857600, grpc_server_max_send_msg_size: 104857600}
common: {instance_addr: 127.0.0.1, path_prefix: %s, storage: {filesystem: {chunks_directory: %s/chunks, rules_directory: %s/rules}}, replication_factor: 1, ring: {kvstore: {store: inmemory}}}
schema_config: {configs: [{from: 2020-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {prefix: index_, period: 24h}}]}
limits_config: {max_query_length: 0, ingestion_rate_mb: 1000, ingestion_burst_size_mb: 1000, per_stream_rate_limit: 1GB, per_stream_rate_limit_burst: 1GB, unordered_writes: true, reject_old_samples: false, max_query_series: 100000, query_timeout: 30m, discover_service_name: [], discover_log_levels: false}
analytics: {reporting_enabled: false}
`, ports[0], ports[1], dir, dir, dir)
	file := filepath.Join(dir, "loki.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(ctx)
	l := &lokiPeer{base: fmt.Sprintf("http://127.0.0.1:%d", ports[0]), end: end}
	l.cmd = exec.CommandContext(ctx, binary, "-config.file="+file)
	var said bytes.Buffer
	l.cmd.Stderr = &said
	if err := l.cmd.Start(); err != nil {
		end()
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	for range 600 {
		resp, err := http.Get(l.base + "/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return l, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	l.stop()
	return nil, fmt.Errorf("loki is not ready after a minute: %.500s", said.String())
}

func (l *lokiPeer) stop() {
	l.end()
	_ = l.cmd.Wait()
}

// cpu is what the process has used.
func (l *lokiPeer) cpu() time.Duration {
	s, err := cpuOfPID(l.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}

// peak is the most memory that the process has had, in bytes.
func (l *lokiPeer) peak() int64 {
	n, err := peakOf(l.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	return n
}

func (l *lokiPeer) push(ctx context.Context, b logs.Batch) error {
	values := make([][2]string, len(b.Rows))
	for i := range b.Rows {
		values[i] = [2]string{strconv.FormatInt(b.Rows[i].Time, 10), string(b.Rows[i].Text(nil))}
	}
	labels := map[string]string{}
	for _, f := range b.Labels {
		labels[f.Name] = f.Value
	}
	body, err := json.Marshal(map[string]any{"streams": []any{map[string]any{"stream": labels, "values": values}}})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.base+"/loki/api/v1/push", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return fmt.Errorf("push to loki: %s: %s", resp.Status, said)
	}
	return nil
}

func (l *lokiPeer) ask(ctx context.Context, q asked, start, end time.Time) (time.Duration, string, error) {
	text := q.query
	if q.loki != "" {
		text = q.loki
	}
	path, v := "query", url.Values{"query": {text}, "time": {strconv.FormatInt(end.UnixNano(), 10)}, "limit": {"100"}}
	if q.over || strings.HasPrefix(text, "{") {
		path = "query_range"
		v.Set("start", strconv.FormatInt(start.UnixNano(), 10))
		v.Set("end", strconv.FormatInt(end.UnixNano(), 10))
		v.Set("step", "60")
	}
	before := l.cpu()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+"/loki/api/v1/"+path+"?"+v.Encode(), nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var out struct {
		Data struct {
			Result []struct {
				Value  []any
				Values [][]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return 0, "", err
	}
	sum, lines := 0.0, 0
	add := func(v any) {
		s, _ := v.(string)
		n, _ := strconv.ParseFloat(s, 64)
		sum += n
	}
	for _, r := range out.Data.Result {
		if len(r.Value) == 2 {
			add(r.Value[1])
		}
		for _, v := range r.Values {
			lines++
			add(v[1])
		}
	}
	if strings.HasPrefix(text, "{") {
		sum = float64(lines)
	}
	return l.cpu() - before, strconv.FormatFloat(sum, 'f', -1, 64), nil
}
