package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// What a service writes must be found by its fields, over Loki's API, after the
// service is gone, and by a follower that outlives the daemon.
func TestLogsMustBeFound(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	h.file("compose.yaml", `services:
  web:
    image: busybox
    command:
      - sh
      - -c
      - |
        for i in 1 2 3 4; do echo "{\"level\":\"info\",\"status\":$$((i * 100 + 100)),\"took\":\"$${i}0ms\"}"; done
        echo "ERROR it broke" >&2
        while [ ! -e /tmp/go ]; do sleep 0.1; done
        echo "and on it goes"
        exec sleep 3600
    stop_grace_period: 0s
`)
	h.must("up", "-d")
	lines := func(args ...string) string { return h.must(append([]string{"logs", "--no-log-prefix"}, args...)...) }
	h.until("all five lines are there", func() error {
		if n := strings.Count(lines(), "\n"); n != 5 {
			return fmt.Errorf("%d lines: %s", n, lines())
		}
		return nil
	})
	for _, tt := range []struct{ args, want string }{
		{"--where status>=400", `{"level":"info","status":400,"took":"30ms"}` + "\n" + `{"level":"info","status":500,"took":"40ms"}` + "\n"},
		{"--where took<15ms", `{"level":"info","status":200,"took":"10ms"}` + "\n"},
		{"--where detected_level=error web", "ERROR it broke\n"},
		{"--grep it.broke -n 1", "ERROR it broke\n"},
		{`--query |status=500|line_format"{{.took}}"`, "40ms\n"},
	} {
		if got := lines(strings.Fields(tt.args)...); got != tt.want {
			t.Errorf("tender logs %s: %q, want %q", tt.args, got, tt.want)
		}
	}
	if got := h.must("logs", "--query", `sum by (detected_level) (count_over_time({service="web"}[1h]))`); strings.Join(strings.Fields(got), " ") != "LABELS VALUE detected_level=error 1 detected_level=info 4" {
		t.Errorf("counts:\n%s", got)
	}
	if got := h.must("logs", "--stats"); !strings.Contains(got, "whole") {
		t.Errorf("a chart:\n%s", got)
	}

	// The same over Loki's API.
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.socket())
	}}}
	resp, err := client.Get("http://tender/loki/api/v1/query_range?" + url.Values{"query": {`{project="` + h.project + `"} | status=500`}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	var found struct {
		Data struct {
			Result []struct{ Stream map[string]string }
		}
	}
	if err := errors.Join(err, json.Unmarshal(body, &found)); err != nil || len(found.Data.Result) != 1 || found.Data.Result[0].Stream["service"] != "web" {
		t.Errorf("%v: %s", err, body)
	}

	// A follower sees what is written while the daemon is away.
	follow := h.command("logs", "-f", "-n", "1", "--no-log-prefix", "--where", "detected_level!=info")
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer follow.Wait()         //nolint:errcheck // killed
	defer follow.Process.Kill() //nolint:errcheck // at the latest now
	late := time.AfterFunc(patience, func() { _ = follow.Process.Kill() })
	defer late.Stop()
	read := func(want string) {
		got := ""
		buf := make([]byte, 4096)
		for got != want {
			n, err := out.Read(buf)
			if got += string(buf[:n]); err != nil || !strings.HasPrefix(want, got) {
				t.Fatalf("followed %q, want %q (%v)", got, want, err)
			}
		}
	}
	read("ERROR it broke\n")
	h.kill()
	docker("exec", h.one("web"), "touch", "/tmp/go")
	h.start()
	read("and on it goes\n")

	// All of it is there when the service is gone.
	h.must("down")
	if n := strings.Count(lines("web"), "\n"); n != 6 {
		t.Errorf("%d lines are left:\n%s", n, lines("web"))
	}
	if got := h.must("doctor", "--logs"); !strings.Contains(got, "all can be read") {
		t.Error(got)
	}
}

// The example must show what its README promises: fields, a stack trace as one entry,
// and nothing of what it says is taken out.
func TestTheExampleOfLogsMustBeAsked(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	source, err := os.ReadFile("../examples/logs/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	h.file("compose.yaml", strings.Replace(string(source), "name: shoplogs\n", "", 1))
	h.must("up", "-d")
	logs := func(args ...string) string {
		return h.tender(append([]string{"logs", "--no-log-prefix"}, args...)...).out
	}
	for _, q := range []struct {
		args []string
		want string
	}{
		{[]string{"--grep", "ValueError", "worker"}, "Traceback (most recent call last):\n  File \"worker.py\", line 7, in <module>\n    pack(order)\nValueError: empty order\n"},
		{[]string{"--where", "user_id=7", "checkout"}, `"user_id":7`},
		{[]string{"--where", "trace_id=00000007"}, `"level":"WARNING"`},
		{[]string{"--where", "level=error"}, "payment refused for"},
		{[]string{"--where", "took>12ms", "worker"}, ""},
		{[]string{"--where", "took<=12ms", "worker"}, "took one"},
	} {
		h.until(strings.Join(q.args, " "), func() error {
			if got := logs(q.args...); !strings.Contains(got, q.want) || q.want == "" && got != "" {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
	}
	if got := logs("--grep", "kim@"); got != "" {
		t.Errorf("an address that was to be taken out: %q", got)
	}
}
