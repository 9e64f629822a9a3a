package forward

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/snappy"

	"github.com/tenderhq/tender/internal/logs"
)

// A Loki that refuses some rows takes the others. Those it names by time become dead
// letters, and those in another stream of the same request stay.
func TestLokiRefusesWhatIsTooOld(t *testing.T) {
	var mu sync.Mutex
	took := map[string]bool{}
	oldest := begin.Add(time.Second)
	limited := true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path != "/loki/api/v1/push" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("X-Scope-OrgID") != "me" {
			t.Errorf("%s %v", r.URL.Path, r.Header)
		}
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		body, err := snappy.Decode(nil, raw)
		if err != nil {
			t.Error(err)
		}
		if limited {
			limited = false
			http.Error(w, "Ingestion rate limit exceeded for user me", http.StatusTooManyRequests)
			return
		}
		why := ""
		for stream := range protoAll(body, 1) {
			labels := protoFind(stream, 1)
			for e := range protoAll(stream, 2) {
				stamp := []byte(protoFind(e, 1))
				at := time.Unix(int64(protoNumber(stamp, 1)), int64(protoNumber(stamp, 2)))
				if strings.Contains(labels, `service="web"`) && at.Before(oldest) {
					why = fmt.Sprintf("entry for stream '%s' has timestamp too old: %s, oldest acceptable timestamp is: %s", labels, at.UTC().Format(time.RFC3339), oldest.Format(time.RFC3339))
					continue
				}
				took[labels+" "+protoFind(e, 2)] = true
			}
		}
		if why != "" {
			http.Error(w, why, http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(srv.Close)
	src, k := newShelf(), &memory{}
	src.put(labelsOf("project", "shop", "service", "db"), plain(0, "old, and fine"))
	src.put(web, plain(0, "old"), plain(999, "nearly"), plain(1000, "young"), plain(2000, "younger"))
	start(t, `{l: {loki: {url: "`+srv.URL+`", tenant: me}, batch: {wait: 10ms}}}`, src, k)
	soon(t, "all is taken or refused", func() bool { return k.state("l").Cursor == "2" })
	mu.Lock()
	defer mu.Unlock()
	own := `{node="host1", project="shop", service="web", stream="stdout"} `
	if diff := cmp.Diff(map[string]bool{`{project="shop", service="db"} old, and fine`: true, own + "young": true, own + "younger": true}, took); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	var dead []string
	for _, l := range k.dead() {
		dead = append(dead, l.Text)
	}
	if !slices.Equal(dead, []string{"old", "nearly"}) || !strings.Contains(k.dead()[0].Reason, "too old") {
		t.Errorf("letters: %+v", k.dead())
	}
	if st := k.state("l"); st.Sent != 3 || st.Refused != 2 {
		t.Errorf("state: %+v", st)
	}
}

// protoAll yields the messages of a repeated field.
func protoAll(b []byte, number int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for m := range fieldsOf(b) {
			if m.number == number && !yield(m.value) {
				return
			}
		}
	}
}

// realLoki runs a Loki of its own, whose program TENDER_LOKI names.
func realLoki(t *testing.T) (base string) {
	t.Helper()
	program := os.Getenv("TENDER_LOKI")
	if program == "" {
		t.Skip("TENDER_LOKI names no Loki: make peers builds one and runs this")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "loki.yaml")
	text := fmt.Sprintf(`
auth_enabled: false
server: {http_listen_address: 127.0.0.1, http_listen_port: %s, grpc_listen_address: 127.0.0.1, grpc_listen_port: 0, log_level: warn}
common:
  instance_addr: 127.0.0.1
  path_prefix: %[2]s
  replication_factor: 1
  ring: {kvstore: {store: inmemory}}
  storage: {filesystem: {chunks_directory: %[2]s/chunks, rules_directory: %[2]s/rules}}
schema_config:
  configs: [{from: 2020-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {prefix: index_, period: 24h}}]
limits_config: {reject_old_samples: true, reject_old_samples_max_age: 24h, allow_structured_metadata: true}
analytics: {reporting_enabled: false}
`, port, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "-config.file="+config, "-target=all")
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGKILL) // its data goes anyway
		<-ended
		out.Close()
		if t.Failed() {
			said, _ := os.ReadFile(out.Name())
			t.Logf("Loki said:\n%s", said[max(0, len(said)-4000):])
		}
	})
	base = "http://127.0.0.1:" + port
	soon(t, "Loki is ready", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("Loki ended: %v", err)
		default:
		}
		r, err := http.Get(base + "/ready")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == 200
	})
	return base
}

// lokiFinds runs a query over the last two days.
func lokiFinds(t *testing.T, base, query string) (lines []string, stream map[string]string) {
	t.Helper()
	q := url.Values{"query": {query}, "limit": {"5000"}, "direction": {"forward"}, "start": {fmt.Sprint(time.Now().Add(-25 * time.Hour).UnixNano())}, "end": {fmt.Sprint(time.Now().Add(time.Minute).UnixNano())}}
	r, err := http.Get(base + "/loki/api/v1/query_range?" + q.Encode())
	if err != nil {
		return nil, nil
	}
	defer r.Body.Close()
	var a struct {
		Data struct {
			Result []struct {
				Stream map[string]string
				Values [][]string
			}
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		return nil, nil
	}
	type line struct{ at, text string }
	var all []line
	for _, s := range a.Data.Result {
		stream = s.Stream
		for _, v := range s.Values {
			all = append(all, line{v[0], v[1]})
		}
	}
	slices.SortStableFunc(all, func(a, b line) int { return strings.Compare(a.at, b.at) })
	for _, l := range all {
		lines = append(lines, l.text)
	}
	return lines, stream
}

// A real Loki takes what is sent, finds it by its labels and metadata, refuses what is
// too old for it, and sees a repeat as one.
func TestARealLokiTakesAll(t *testing.T) {
	base := realLoki(t)
	now := time.Now().Add(-time.Minute)
	src := newShelf()
	at := func(d time.Duration, text string, fields ...logs.Field) entry {
		return entry{now.Add(d).UnixNano(), text, fields}
	}
	var many []entry
	for i := range 3000 {
		many = append(many, at(time.Duration(i)*time.Millisecond, fmt.Sprintf("line %d", i)))
	}
	src.put(web, many...)
	src.put(web, at(-48*time.Hour, "too old"), at(-47*time.Hour, "too old as well"), at(4*time.Second, "young"))
	src.put(labelsOf("instance", "shop-db-1", "project", "shop", "service", "db", "team", `a"b`), at(0, `{"level":"error","user":"ann"}`,
		logs.Field{Name: "level", Value: "error"}, logs.Field{Name: "user", Value: "ann"}, logs.Field{Name: "odd name", Value: "x"}))
	config := `{l: {loki: {url: "` + base + `"}, batch: {wait: 10ms}}}`
	for range 2 {
		k := &memory{}
		_, stop := start(t, config, src, k)
		soon(t, "all is taken or refused", func() bool { return k.state("l").Cursor == "3" })
		stop()
		var dead []string
		for _, l := range k.dead() {
			dead = append(dead, l.Text)
		}
		if !slices.Equal(dead, []string{"too old", "too old as well"}) {
			t.Errorf("letters: %+v", k.dead())
		}
	}
	soon(t, "Loki finds all lines, once", func() bool {
		lines, _ := lokiFinds(t, base, `{project="shop", service="web", node="host1", stream="stdout"} | instance="shop-web-1"`)
		return slices.Equal(lines, append(texts(0, 3000), "young"))
	})
	var stream map[string]string
	soon(t, "Loki finds a line by its metadata", func() bool {
		var lines []string
		lines, stream = lokiFinds(t, base, `{service="db"} | user="ann" | team="a\"b" | odd_name="x"`)
		return len(lines) == 1
	})
	if stream["level"] != "error" || stream["instance"] != "shop-db-1" {
		t.Errorf("stream: %v", stream)
	}
}
