package edge

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/proxy"
)

// What clients send must not break a line, and comes back as it was.
func TestAccessLinesAreTheEnginesRecords(t *testing.T) {
	x := proxy.Access{
		Time: time.Now(), Took: 12 * time.Millisecond, Client: netip.MustParseAddr("10.0.0.1"), Method: "GET", Host: "shop.test", URI: `/a"b\c?d=é`, Protocol: "HTTP/1.1",
		Agent: "x\n\x00\"}\\", Status: 503, In: 1, Out: 2, Route: "shop/shop.test/", Project: "shop", Aim: "web", Target: "shop-web-1", Revision: "abc",
	}
	line := string(accessLine(nil, &x))
	var record struct{ Log, Stream, Time string }
	if err := json.Unmarshal([]byte(line), &record); err != nil || !strings.HasSuffix(line, "}\n") || strings.Count(line, "\n") != 1 {
		t.Fatalf("%v: %q", err, line)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(record.Log), &got); err != nil {
		t.Fatalf("%v: %q", err, record.Log)
	}
	for name, want := range map[string]any{
		"level": "error", "client": "10.0.0.1", "path": x.URI, "agent": x.Agent, "status": 503.0, "size": 2.0, "duration_ms": 12.0, "to_service": "web", "to_instance": "shop-web-1",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

func TestTheAccessLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	a, err := openAccess(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	x := proxy.Access{Method: "GET", URI: "/" + strings.Repeat("x", 1000), Status: 200}
	line := accessLine(nil, &x)
	for range 5 * accessMax / len(line) / 50 {
		a.write([]byte(strings.Repeat(string(line), 50)))
	}
	a.add(&x)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.run(ctx)
	files, err := filepath.Glob(filepath.Join(dir, AccessDir, "*", AccessFile+"*"))
	if err != nil || len(files) != accessFiles {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil || st.Size() > accessMax {
			t.Errorf("%s: %d bytes, %v", f, st.Size(), err)
		}
		in, err := os.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		s := bufio.NewScanner(in)
		for s.Scan() {
			if !json.Valid(s.Bytes()) {
				t.Fatalf("%s has a torn line", f)
			}
		}
		in.Close()
	}
}

// A file that could not be opened as the log was rotated ended the log for good.
func TestTheAccessLogIsOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	a, err := openAccess(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.lock.Close()
	folder := filepath.Dir(a.path)
	a.write([]byte("one\n"))
	a.size = accessMax
	path := a.path
	a.path = filepath.Join(folder, "none", "x") // as without descriptors: neither renamed nor opened
	a.write([]byte("lost\n"))
	a.size, a.path = 0, path
	a.write([]byte("two\n"))
	a.f.Close()
	if got, err := os.ReadFile(path); string(got) != "one\ntwo\n" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if a.dropped.Load() != 1 {
		t.Errorf("%d are missing", a.dropped.Load())
	}
}

// A head may be long, and thousands of lines wait where the disk is slow.
func TestAnAccessLineIsBounded(t *testing.T) {
	long := strings.Repeat(`"é`, 64<<10)
	x := proxy.Access{Method: "GET", Host: long, URI: long, Referer: long, Agent: long, Status: 200}
	line := accessLine(nil, &x)
	if len(line) > 20*accessText {
		t.Errorf("a line of %d bytes", len(line))
	}
	var record, got map[string]any
	if err := json.Unmarshal(line, &record); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(record["log"].(string)), &got); err != nil || !strings.HasSuffix(got["path"].(string), "…") {
		t.Errorf("%v: %.20s", err, got["path"])
	}
}
