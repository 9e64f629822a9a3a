package logql_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A real logcli, as users have it, works unchanged. It is AGPL and a process of its
// own: e2e/loki.sh builds it, which takes minutes, so this test runs where TENDER_LOGCLI
// names it (make peers).
func TestLogcli(t *testing.T) {
	tool := os.Getenv("TENDER_LOGCLI")
	if tool == "" {
		t.Skip("TENDER_LOGCLI names no logcli; make peers builds one and runs this")
	}
	s := shop()
	base := serve(t, s)
	run := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, tool, append([]string{"--addr=" + base, "--quiet", "--timezone=UTC"}, args...)...)
		var errs bytes.Buffer
		c.Stderr = &errs
		out, err := c.Output()
		if err != nil {
			return fmt.Sprintf("%v: %s", err, errs.String())
		}
		return string(out)
	}
	from, to := "--from="+noon.Format(time.RFC3339), "--to="+noon.Add(100*time.Second).Format(time.RFC3339)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"labels", from, to}, "instance\nnode\nproject\nrevision\nservice\nstream\nteam\n"},
		{[]string{"labels", from, to, "service"}, "web\nworker\n"},
		{[]string{"series", from, to, `{service="web"}`}, `{instance="shop-web-1", node="n1", project="shop", revision="r1", service="web", stream="stdout"}` + "\n"},
		{[]string{"query", from, to, "--output=raw", `{service="web"} |= "orders"`}, at20 + "\n" + at10 + "\n"},
		{[]string{"query", from, to, "--output=raw", "--forward", "--limit=2", `{project="shop"} | line_format "{{.service}}"`}, "web\nworker\n"},
		// In batches, each with another question.
		{[]string{"query", from, to, "--output=raw", "--limit=8", "--batch=3", `{project="shop"} | line_format "{{__timestamp__ | unixEpoch}}"`}, "1777896070\n1777896065\n1777896025\n1777896020\n1777896015\n1777896010\n1777896005\n1777896000\n"},
		{[]string{"query", from, to, "--include-label=status", `{service="web"} |= "orders" | json | status=500`}, `2026-05-04T12:00:20Z {status="500"} ` + at20 + "\n"},
		{[]string{"instant-query", "--now=" + noon.Add(100*time.Second).Format(time.RFC3339), `sum by (service) (count_over_time({project="shop"}[5m]))`}, `[{"metric":{"service":"web"},"value":[1777896100,"5"]},{"metric":{"service":"worker"},"value":[1777896100,"3"]}]`},
		{[]string{"query", from, to, "--step=50s", `sum(count_over_time({project="shop"}[50s]))`}, `[{"metric":{},"values":[[1777896000,"1"],[1777896050,"5"],[1777896100,"2"]]}]`},
		{[]string{"stats", from, to, `{service="web"}`}, "{\n  bytes: 318B\n  chunks: 1\n  streams: 1\n  entries: 5\n}"},
		{[]string{"volume", from, to, `{service=~".+"}`}, `[{"metric":{"service":"web"},"value":[1777896100,"318"]},{"metric":{"service":"worker"},"value":[1777896100,"92"]}]`},
		{[]string{"detected-fields", from, to, `{service="worker"}`}, "label: at\t\ttype: string\t\tcardinality: 2\nlabel: message\t\ttype: string\t\tcardinality: 1\nlabel: msg\t\ttype: string\t\tcardinality: 2\nlabel: size\t\ttype: string\t\tcardinality: 2\n"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			got := run(tt.args...)
			if strings.HasPrefix(tt.want, "[") {
				got = compact(got)
			}
			if d := cmp.Diff(strings.TrimSpace(tt.want), strings.TrimSpace(got)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}

	t.Run("tail", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, tool, "--addr="+base, "--quiet", "query", "--tail", "--output=raw", from, `{service="web"} |~ "boom|fresh"`)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer c.Wait() //nolint:errcheck // killed
		defer cancel()
		buf := make([]byte, 4096)
		seen := ""
		for _, want := range []string{"panic: boom\n", "panic: boom\nfresh\n"} {
			for seen != want {
				n, err := out.Read(buf)
				seen += string(buf[:n])
				if err != nil || !strings.HasPrefix(want, seen) {
					t.Fatalf("%q, %v", seen, err)
				}
			}
			s.add(labels("service", "web"), plain(int(time.Since(noon)/time.Second), "fresh"))
		}
	})
}

func compact(s string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "\n", "")), "")
}
