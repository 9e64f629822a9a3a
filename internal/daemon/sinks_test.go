package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/forward"
	"github.com/tenderhq/tender/internal/logs"
	"github.com/tenderhq/tender/internal/store"
)

// sinkProcess says to the test's own program: be a sink for the data in this folder,
// as the other variable configures it.
const sinkProcess, sinkConfig = "TENDER_TEST_SINK", "TENDER_SINKS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(sinkProcess); dir != "" {
		fmt.Fprintln(os.Stderr, beSink(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// beSink runs until it is killed, or has sent all.
func beSink(dir string) error {
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		return err
	}
	rows, err := logs.Open(filepath.Join(dir, "logs"), logs.Options{})
	if err != nil {
		return err
	}
	c, err := Configure(filepath.Join(dir, "tender.yaml"), os.Getenv, nil)
	if err != nil {
		return err
	}
	b := &backend{config: c, store: st, logs: &logRoom{store: rows}}
	return b.makeSinks(nil).Run(context.Background())
}

// Killed while a batch is under way, or behind its answer and before the cursor is
// saved: rows come again, and none is ever left out.
func TestAKilledSinkRepeatsAndNeverSkips(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tender.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := fillLogs(t, filepath.Join(dir, "logs"))
	const kills = 6
	var mu sync.Mutex
	var got []string
	killed, requests := 0, 0
	var child *exec.Cmd
	ended := make(chan struct{}, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Entries []struct{ Message, Stream string }
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			return // cut by a kill
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range in.Entries {
			got = append(got, strings.TrimSpace(e.Message)+" "+e.Stream)
		}
		requests++
		if killed < kills && requests > killed%3 {
			killed, requests = killed+1, 0
			if killed%2 == 0 { // it may hear that it was taken, and dies of the news
				w.WriteHeader(http.StatusNoContent)
				_ = http.NewResponseController(w).Flush()
			}
			if err := child.Process.Kill(); err != nil {
				t.Error(err)
			}
			return
		}
		w.WriteHeader(http.StatusNoContent)
		if killed == kills && len(in.Entries) > 0 && strings.TrimSpace(in.Entries[len(in.Entries)-1].Message) == "last" {
			select {
			case ended <- struct{}{}:
			default:
			}
		}
	}))
	defer srv.Close()
	for {
		var said strings.Builder
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), sinkProcess+"="+dir, sinkConfig+`={hook: {webhook: {url: "`+srv.URL+`"}, batch: {size: 64kB, wait: 10ms}}}`)
		c.Stderr = &said
		mu.Lock()
		child = c
		err := c.Start()
		mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan error, 1)
		go func() { over <- c.Wait() }()
		done := false
		select {
		case <-ended:
			done = true
			if err := c.Process.Kill(); err != nil {
				t.Error(err)
			}
			<-over
		case err := <-over:
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Exited() {
				t.Fatalf("the sink ended by itself: %v\n%s", err, said.String())
			}
		case <-time.After(2 * time.Minute):
			_ = c.Process.Kill()
			<-over
			t.Fatalf("it does not come to the end\n%s", said.String())
		}
		if done {
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	var first []string
	seen := map[string]bool{}
	for _, line := range got {
		if !seen[line] {
			seen[line] = true
			first = append(first, line)
		}
	}
	if killed != kills || len(got) == len(want) {
		t.Errorf("%d kills, %d rows came for %d: nothing was repeated", killed, len(got), len(want))
	}
	slices.Sort(first)
	slices.Sort(want)
	if !slices.Equal(first, want) {
		t.Errorf("%d different rows came, %d were sent", len(first), len(want))
	}
}

// fillLogs writes blocks of stdout and stderr, and returns all rows.
func fillLogs(t *testing.T, dir string) (all []string) {
	t.Helper()
	s, err := logs.Open(dir, logs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Minute)
	put := func(text string, n int) {
		shape := string([]byte{logs.Hole})
		all = append(all, strings.TrimSpace(text)+" "+map[bool]string{false: "stdout", true: "stderr"}[n%3 == 0])
		b := logs.Batch{
			Labels: logs.Labels{{Name: "project", Value: "shop"}, {Name: "service", Value: "web"}},
			Rows:   []logs.Row{{Time: at.Add(time.Duration(n) * time.Millisecond).UnixNano(), Stderr: n%3 == 0, Shape: shape, Fields: []logs.Field{{Name: "message", Value: text}}}},
		}
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 300 {
		put(fmt.Sprintf("line %d", n)+strings.Repeat(" ", 2000), n)
		if n%10 == 9 {
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("last", 301)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSinksAreReadFromTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tender.yaml")
	text := "engine: unix:///x.sock\nsinks:\n  es:\n    elasticsearch: {url: 'https://es:9200', key: {secret: es}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	none := func(string) string { return "" }
	c, err := Configure(file, none, nil)
	if err != nil || len(c.Sinks) != 1 || c.Sinks[0].Kind != "elasticsearch" || c.Engine != "unix:///x.sock" {
		t.Errorf("%+v, %v", c.Sinks, err)
	}
	if got := sinksWith(c, "", "es"); !slices.Equal(got, []string{"sink es"}) {
		t.Errorf("who needs the secret: %q", got)
	}
	// A flag wins over the file, and is YAML as well.
	if c, err = Configure(file, none, map[string]string{"sinks": `{l: {loki: {url: "https://loki"}}}`}); err != nil || len(c.Sinks) != 1 || c.Sinks[0].Name != "l" {
		t.Errorf("%+v, %v", c.Sinks, err)
	}
	if err := os.WriteFile(file, []byte(text+"    pipline: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Configure(file, none, nil)
	if want := file + `:5:5: unknown key "sinks.es.pipline"`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := os.WriteFile(file, []byte(text+"  l: {loki: {url: 'https://x', tenat: y}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Configure(file, none, nil)
	if want := file + `:5:32: unknown key "sinks.l.loki.tenat"`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

var _ forward.Source = (*logs.Store)(nil)
