package logs_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// go test ./internal/logs -run - -bench Logs -logs.rows 10000000
var benchRows = flag.Int("logs.rows", 200_000, "rows that the benchmark keeps and searches")

// cpu is the time that all threads of the process took.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// traffic makes rows as a web service writes them: JSON of about 231 bytes with
// twelve fields, about 1000 a second.
type traffic struct {
	*rand.Rand
	at   int64
	rare string
	n    int
}

var (
	jsonNames  = []string{"ts", "level", "service", "message", "trace_id", "user_id", "method", "path", "status", "duration_ms", "bytes", "host"}
	jsonQuoted = []bool{true, true, true, true, true, false, true, true, false, false, false, true}
	services   = []string{"checkout", "catalog", "users", "payments", "search"}
)

func jsonShape() string {
	var b strings.Builder
	for i, n := range jsonNames {
		b.WriteString([]string{`,"`, `{"`}[max(0, 1-i)] + n + `":`)
		if jsonQuoted[i] {
			b.WriteString("\"\x00\"")
		} else {
			b.WriteString("\x00")
		}
	}
	return b.String() + "}"
}

// batch fills b with rows; its strings point into one buffer, as those of a parser do.
func (m *traffic) batch(b *logs.Batch, n int, shape string) {
	if len(b.Rows) != n {
		b.Rows = make([]logs.Row, n)
	}
	for i := range b.Rows {
		m.at += m.Int64N(2e6)
		m.n++
		r := &b.Rows[i]
		r.Time, r.Shape = m.at-m.at%1e3, shape
		word := []string{"connection reset by peer, retrying", "cache miss for key", "slow query on orders", "request completed"}[min(m.IntN(20), 3)]
		msg := fmt.Sprintf("%s item %d", word, m.IntN(100000))
		if m.n%1_000_003 == 77 {
			msg += " " + m.rare
		}
		level, status := "info", "200"
		switch m.IntN(50) {
		case 0:
			level, status = "error", []string{"500", "502", "503"}[m.IntN(3)]
		case 1, 2:
			level, status = "warn", "404"
		}
		if r.Fields == nil {
			r.Fields = make([]logs.Field, len(jsonNames))
			for j, name := range jsonNames {
				r.Fields[j].Name = name
			}
		}
		for j, v := range []string{
			time.UnixMicro(r.Time / 1e3).UTC().Format("2006-01-02T15:04:05.000000Z"), level, b.Labels.Get("service"), msg,
			fmt.Sprintf("%016x", m.Uint64()), strconv.Itoa(m.IntN(50000)), []string{"GET", "POST"}[m.IntN(2)],
			[]string{"/api/v1/orders", "/api/v1/items", "/api/v1/users/me", "/healthz", "/api/v1/cart"}[m.IntN(5)], status,
			strconv.FormatFloat(m.ExpFloat64()*20, 'f', 2, 64), strconv.Itoa(m.IntN(20000)), "web-" + strconv.Itoa(m.IntN(4)),
		} {
			r.Fields[j].Value = v
		}
	}
}

func BenchmarkLogs(b *testing.B) {
	dir := os.Getenv("LOGS_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	s := open(b, dir, logs.Options{})
	start := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC).UnixNano()
	m := &traffic{Rand: rand.New(rand.NewPCG(1, 2)), at: start, rare: "zebra_crossing_4711"}
	if s.Stats().Rows == 0 {
		b.Run("append", func(b *testing.B) {
			shape := jsonShape()
			var spent time.Duration
			batches := make([]logs.Batch, len(services))
			for i := range batches {
				batches[i].Labels, batches[i].Source = labels("shop", services[i]), services[i]
			}
			for n := 0; n < *benchRows; n += 1000 {
				batch := &batches[n/1000%len(services)]
				m.batch(batch, 1000, shape)
				batch.From, batch.To = batch.To, logs.Place{Seq: 1, Offset: int64(n)}
				before := cpu()
				add(b, s, *batch)
				spent += cpu() - before
			}
			before := cpu()
			flush(b, s)
			spent += cpu() - before
			st := s.Stats()
			b.ReportMetric(float64(*benchRows)/spent.Seconds()/1e6, "Mrows/cpu-s")
			b.ReportMetric(float64(st.Bytes)/float64(st.Rows), "B/row")
			var u syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
			b.ReportMetric(float64(u.Maxrss)/1024, "MB-peak")
		})
	}
	runtime.GC()
	hour := start + 3600e9/4
	for _, q := range []struct {
		name string
		q    logs.Query
		use  func(logs.Chunk) int
	}{
		{"rare-word", logs.Query{Text: []logs.Condition{{Op: logs.Contains, Value: "zebra_crossing"}}, NoText: true, Columns: []string{}}, nil},
		{"rare-trace", logs.Query{Text: []logs.Condition{{Op: logs.Contains, Value: "4bf92f3577b34da6"}}, NoText: true, Columns: []string{}}, nil},
		{"common-word", logs.Query{Text: []logs.Condition{{Op: logs.Contains, Value: "retrying"}}, NoText: true, Columns: []string{}}, nil},
		{"key-value", logs.Query{Text: []logs.Condition{{Op: logs.Contains, Value: `"level":"error"`}}, NoText: true, Columns: []string{}}, nil},
		{"field-1h", logs.Query{From: hour, To: hour + 3600e9/4, Where: []logs.Condition{{Name: "user_id", Op: logs.Equal, Value: "12345"}}}, func(c logs.Chunk) int {
			var buf []byte
			for i := range c.Times() {
				buf = c.Text(buf[:0], i)
			}
			return len(buf)
		}},
		{"count-over-time", logs.Query{Columns: []string{}, NoText: true}, func(c logs.Chunk) int {
			buckets := map[int64]int{}
			last, n := int64(-1), 0
			for _, t := range c.Times() {
				if k := t / 60e9; k != last {
					buckets[last] += n
					last, n = k, 0
				}
				n++
			}
			return len(buckets)
		}},
		{"sum-by-level", logs.Query{Columns: []string{"level"}, NoText: true}, func(c logs.Chunk) int {
			n := map[string]int{}
			for _, l := range c.Column("level") {
				n[l]++
			}
			return len(n)
		}},
		{"regex", logs.Query{Text: []logs.Condition{{Op: logs.Matches, Regexp: regexp.MustCompile(`reset by peer.*item 4\d{4}"`)}}, NoText: true, Columns: []string{}}, nil},
		{"regex-status", logs.Query{Where: []logs.Condition{{Name: "status", Op: logs.Matches, Regexp: regexp.MustCompile(`^(?:5..)$`)}}, NoText: true, Columns: []string{}}, nil},
		{"latest-100", logs.Query{Labels: []logs.Condition{{Name: "service", Op: logs.Equal, Value: "users"}}, Backward: true, Limit: 100}, func(c logs.Chunk) int {
			var buf []byte
			for i := range c.Times() {
				buf = c.Text(buf[:0], i)
			}
			return len(buf)
		}},
		{"latest-100-errors", logs.Query{Text: []logs.Condition{{Op: logs.Contains, Value: `"error"`}}, Backward: true, Limit: 100}, nil},
	} {
		b.Run(q.name, func(b *testing.B) {
			found := 0
			before := cpu()
			for range b.N {
				found = 0
				err := s.Scan(b.Context(), q.q, func(c logs.Chunk) error {
					found += len(c.Times())
					if q.use != nil {
						q.use(c)
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(b.N), "cpu-ms")
			b.ReportMetric(float64(found), "found")
		})
	}
}

// BenchmarkQuiet is a hundred instances that write a line each second: what it costs
// to keep them, and what is left of a hundred small blocks every two seconds.
func BenchmarkQuiet(b *testing.B) {
	s := open(b, b.TempDir(), logs.Options{})
	m := &traffic{Rand: rand.New(rand.NewPCG(1, 2)), at: time.Now().UnixNano()}
	shape := jsonShape()
	batches := make([]logs.Batch, 100)
	for i := range batches {
		batches[i].Labels, batches[i].Source = labels("shop", fmt.Sprint("service", i)), fmt.Sprint("source", i)
	}
	const seconds = 1000
	var spent, merging time.Duration
	for n := range seconds / 2 {
		for i := range batches {
			m.batch(&batches[i], 2, shape)
			before := cpu()
			add(b, s, batches[i])
			spent += cpu() - before
		}
		before := cpu()
		flush(b, s)
		spent += cpu() - before
		if n%20 == 19 {
			before := cpu()
			s.MergeSettled(b)
			merging += cpu() - before
		}
	}
	st := s.Stats()
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	b.ReportMetric(float64(spent.Milliseconds())/seconds, "cpu-ms/s")
	b.ReportMetric(float64(merging.Milliseconds())/seconds, "merge-cpu-ms/s")
	b.ReportMetric(float64(st.Blocks), "blocks")
	b.ReportMetric(float64(st.Bytes)/float64(st.Rows), "B/row")
	b.ReportMetric(float64(mem.HeapAlloc)/(1<<20), "MB-heap")
}
