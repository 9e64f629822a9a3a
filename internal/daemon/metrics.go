package daemon

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tenderhq/tender/internal/collect"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/forward"
	"github.com/tenderhq/tender/internal/logs"
	"github.com/tenderhq/tender/internal/registry"
)

// figures are what the parts of the daemon count, in Prometheus' text format.
type figures struct{ bytes.Buffer }

// metric writes one, whose samples are pairs of labels ("" for none) and a value.
func (f *figures) metric(name, kind, help string, samples ...any) {
	fmt.Fprintf(f, "# HELP tender_%s %s\n# TYPE tender_%s %s\n", name, help, name, kind)
	for i := 0; i+1 < len(samples); i += 2 {
		fmt.Fprintf(f, "tender_%s%s %v\n", name, samples[i], samples[i+1])
	}
}

// logs writes how the store of logs and who fills it fare.
func (f *figures) logs(s logs.Stats, c collect.Status) {
	f.metric("logs_followed", "gauge", "Instances whose logs are followed, by where they are read.", `{from="files"}`, c.Files, `{from="engine"}`, c.API)
	f.metric("logs_collected_lines_total", "counter", "Lines read since the start.", "", c.Lines)
	f.metric("logs_collected_bytes_total", "counter", "Bytes read since the start.", "", c.Bytes)
	f.metric("logs_gaps_total", "counter", "Times that lines were lost since the start.", "", c.Gaps)
	f.metric("logs_rows", "gauge", "Entries on disk.", "", s.Rows)
	f.metric("logs_disk_bytes", "gauge", "Bytes on disk.", "", s.Bytes)
	f.metric("logs_unflushed_bytes", "gauge", "Bytes that wait in memory.", "", s.Unflushed)
	f.metric("logs_damaged_blocks", "gauge", "Blocks that cannot be read.", "", s.Damaged)
	f.metric("logs_expired_bytes_total", "counter", "Bytes that retention removed, by why: of age or size as asked for, or to keep the disk free.",
		`{why="retention"}`, s.Expired, `{why="disk"}`, s.Pressed)
	failing := 0
	if s.Failing != "" {
		failing = 1
	}
	f.metric("logs_failing", "gauge", "1 while nothing can be written.", "", failing)
}

// registry writes how much the registry was used; nothing if nobody has.
func (f *figures) registry(r *registry.Registry) {
	if r == nil {
		return
	}
	counts, in, out := r.Counts()
	samples := make([]any, 0, 2*len(counts))
	for _, c := range counts {
		samples = append(samples, fmt.Sprintf(`{method=%q,status="%d"}`, c.Method, c.Status), c.N)
	}
	f.metric("registry_requests_total", "counter", "Requests to the registry since the start, by method and status.", samples...)
	f.metric("registry_received_bytes_total", "counter", "Bytes that were pushed.", "", in)
	f.metric("registry_sent_bytes_total", "counter", "Bytes that were pulled.", "", out)
	f.cached(r)
}

// sinks writes how far each has come.
func (f *figures) sinks(all []forward.Status) {
	each := func(name, kind, help string, value func(forward.Status) any) {
		samples := make([]any, 0, 2*len(all))
		for _, s := range all {
			samples = append(samples, fmt.Sprintf("{sink=%q,kind=%q}", s.Name, s.Kind), value(s))
		}
		f.metric(name, kind, help, samples...)
	}
	each("sink_lag_seconds", "gauge", "Age of the oldest entry that was not yet taken.", func(s forward.Status) any { return s.Lag.Seconds() })
	each("sink_waiting_rows", "gauge", "Entries that wait, of all projects and services.", func(s forward.Status) any { return s.Rows })
	each("sink_waiting_bytes", "gauge", "Bytes of them.", func(s forward.Status) any { return s.Waiting })
	each("sink_sent_rows_total", "counter", "Entries that the other side has taken.", func(s forward.Status) any { return s.Sent })
	each("sink_sent_bytes_total", "counter", "Bytes of them.", func(s forward.Status) any { return s.Bytes })
	each("sink_failed_requests_total", "counter", "Requests in vain.", func(s forward.Status) any { return s.Failed })
	each("sink_refused_rows_total", "counter", "Entries that the other side will never take: tender logs sinks --dead lists them.", func(s forward.Status) any { return s.Refused })
	each("sink_expired_rows_total", "counter", "Entries that retention took before they were sent.", func(s forward.Status) any { return s.Expired })
}

// edge writes whether the edge answers, and what it says of itself. Both know a gauge of one
// name, which may have one place only.
func (f *figures) edge(own string, up int) {
	const head = "# TYPE tender_edge_up gauge\n"
	before, after, both := strings.Cut(own, head)
	if !both {
		f.metric("edge_up", "gauge", "1 while the edge answers.", "", up)
		f.WriteString(own)
		return
	}
	fmt.Fprintf(f, "%s%stender_edge_up %d\n%s", before, head, up, after)
}

// metrics answers with the figures of the daemon and, where one serves, of the edge.
func (b *backend) metrics(e *edge.Client) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var f figures
		f.metric("build_info", "gauge", "1; its label is the version.", fmt.Sprintf("{version=%q}", b.version), 1)
		f.metric("start_time_seconds", "gauge", "When the daemon started, in seconds since 1970.", "", b.started.Unix())
		var samples []any
		for _, p := range b.board.all() {
			if p.State == "off" { // it is meant to be
				continue
			}
			up := 0
			if p.State == "running" {
				up = 1
			}
			samples = append(samples, fmt.Sprintf("{part=%q}", p.Name), up)
		}
		f.metric("part_up", "gauge", "1 while a part of the daemon runs.", samples...)
		if b.logs != nil {
			f.logs(b.logs.store.Stats(), b.logs.collector.Status())
		}
		if b.sinks != nil {
			f.sinks(b.sinks.Status(time.Now()))
		}
		if b.images != nil {
			f.registry(b.images.opened())
		}
		f.hostImages(&b.host)
		b.alertable(r.Context(), &f)
		if b.sampling != nil {
			f.samples(b.sampling)
		}
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		var of bytes.Buffer
		up := 1
		if err := e.Metrics(ctx, &of); err != nil {
			up = 0
			of.Reset()
		}
		f.edge(of.String(), up)
		if b.metered != nil {
			f.WriteString(b.metered.db.Figures())
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = f.WriteTo(w) // who asked may have gone
	})
}
