package daemon

import (
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/collect"
	"github.com/tenderhq/tender/internal/edge"
	"github.com/tenderhq/tender/internal/forward"
	"github.com/tenderhq/tender/internal/logs"
)

var (
	sampleLine = regexp.MustCompile(`^[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.e+-]+$`)
	headLine   = regexp.MustCompile(`^# (HELP [a-z_]+ .+|TYPE [a-z_]+ (gauge|counter))$`)
)

// Each sample follows its own HELP and TYPE, whose kind its name agrees with.
func wellFormed(t *testing.T, text string) {
	t.Helper()
	name, kind := "", ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch f := strings.Fields(line); {
		case headLine.MatchString(line):
			name = f[2]
			if f[1] == "TYPE" {
				kind = f[3]
			}
		case !sampleLine.MatchString(line):
			t.Errorf("no sample: %q", line)
		case regexp.MustCompile(`^[a-z_]+`).FindString(line) != name:
			t.Errorf("%q stands below %s", line, name)
		case strings.HasSuffix(name, "_total") != (kind == "counter"):
			t.Errorf("%s is a %s", name, kind)
		}
	}
}

func TestMetricsOfLogsAndSinks(t *testing.T) {
	var f figures
	f.logs(logs.Stats{Rows: 12, Bytes: 3456, Failing: "no space left on device", Pressed: 7}, collect.Status{Files: 3, API: 1, Lines: 99, Gaps: 2})
	f.sinks([]forward.Status{{Name: "es", Kind: "elasticsearch", Lag: 1500 * time.Millisecond, Rows: 8, State: forward.State{Sent: 5, Refused: 1, Expired: 2}}})
	wellFormed(t, f.String())
	for _, want := range []string{
		`tender_logs_followed{from="files"} 3`, `tender_logs_collected_lines_total 99`, `tender_logs_gaps_total 2`, `tender_logs_rows 12`,
		`tender_logs_disk_bytes 3456`, `tender_logs_expired_bytes_total{why="disk"} 7`, `tender_logs_failing 1`,
		`tender_sink_lag_seconds{sink="es",kind="elasticsearch"} 1.5`, `tender_sink_waiting_rows{sink="es",kind="elasticsearch"} 8`,
		`tender_sink_sent_rows_total{sink="es",kind="elasticsearch"} 5`, `tender_sink_refused_rows_total{sink="es",kind="elasticsearch"} 1`, `tender_sink_expired_rows_total{sink="es",kind="elasticsearch"} 2`,
	} {
		if !strings.Contains(f.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, f.String())
		}
	}
}

// What the edge says of its targets and the daemon of the edge is one gauge.
func TestTheEdgesFiguresStandWithTheDaemons(t *testing.T) {
	var f figures
	f.edge("# HELP tender_edge_open Under way.\n# TYPE tender_edge_open gauge\ntender_edge_open 3\n"+
		"# HELP tender_edge_up Whether the target gets requests.\n# TYPE tender_edge_up gauge\ntender_edge_up{instance=\"a\"} 0\n", 1)
	wellFormed(t, f.String())
	if text := f.String(); strings.Count(text, "# TYPE tender_edge_up gauge\ntender_edge_up 1\ntender_edge_up{instance=\"a\"} 0\n") != 1 || strings.Count(text, "TYPE tender_edge_up") != 1 {
		t.Error(text)
	}
}

// Without an edge and without logs there are fewer figures, and none of them wrong.
func TestMetricsOfADaemonAlone(t *testing.T) {
	b := ruled(t, Config{})
	b.version, b.started, b.rules = "1.2.3", time.Unix(1_800_000_000, 0), nil
	w := httptest.NewRecorder()
	b.metrics(edge.NewClient(filepath.Join(t.TempDir(), "none.sock"))).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	wellFormed(t, text)
	for _, want := range []string{`tender_build_info{version="1.2.3"} 1`, "tender_edge_up 0", "tender_engine_up 0", "tender_start_time_seconds 1800000000"} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}
