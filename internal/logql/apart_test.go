package logql_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/tenderhq/tender/internal/logql"
	"github.com/tenderhq/tender/internal/logs"
)

// two is a store of two projects. All that is in theirs says so: its names, its
// fields and its texts.
func two(t *testing.T) *logs.Store {
	s, err := logs.Open(t.TempDir(), logs.Options{Retention: logs.Retention{Age: 100 * 365 * 24 * time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	put(t, s, "mine", "web", "first of mine")
	put(t, s, "theirs", "theirs-api", "first of theirs")
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, "mine", "web", "second of mine")
	put(t, s, "theirs", "theirs-api", "second of theirs")
	return s
}

func put(t *testing.T, s *logs.Store, project, service, text string) {
	t.Helper()
	r := logs.Row{Time: noon.Add(time.Second).UnixNano(), Shape: "\x00", Fields: []logs.Field{{Name: "message", Value: text}, {Name: project + "_field", Value: project}}}
	if err := s.Append(t.Context(), logs.Batch{Labels: labels("instance", project+"-1", "project", project, "service", service), Rows: []logs.Row{r}}); err != nil {
		t.Fatal(err)
	}
}

// Who may see one project is told nothing of another, whatever is asked and wherever.
func TestProjectsAreKeptApart(t *testing.T) {
	s := two(t)
	var seen atomic.Value
	seen.Store([]string{"mine"})
	server := httptest.NewServer(logql.Loki(s, logql.LokiOptions{Projects: func(context.Context) []string { return seen.Load().([]string) }}))
	t.Cleanup(server.Close)
	span := []string{"start", fmt.Sprint(second(0)), "end", fmt.Sprint(second(100)), "time", fmt.Sprint(second(100))}
	lines := []string{
		`{}`, `{project=~".+"}`, `{project!="mine"}`, `{project=~"mine|.*heir.*"}`, `{project!=""} |~ "."`, `{service=~".*api"}`,
		`{} | label_format project="x"`, `{} | drop project`, `{} | instance=~".+"`, `{instance!=""} |= "of"`,
	}
	numbers := []string{
		`sum by (project, service, instance) (count_over_time({}[5m]))`, `count_over_time({project!="mine"}[5m]) or count_over_time({}[5m])`,
		`topk(5, sum by (message) (count_over_time({}[5m])))`, `sum by (instance) (bytes_over_time({service!=""}[5m])) * on() group_left count(rate({project!="mine"}[5m]))`,
	}
	var asked int
	check := func(path, query string, answer string) {
		t.Helper()
		asked++
		if strings.Contains(answer, "theirs") || strings.HasPrefix(answer, "5") {
			t.Errorf("%s of %s says %s", path, query, answer)
		}
	}
	for _, q := range append(lines, numbers...) {
		for _, path := range []string{
			"query_range", "query", "labels", "label", "label/project/values", "label/service/values", "series", "index/stats", "index/volume", "index/volume_range",
			"detected_fields", "detected_field/message/values", "detected_field/theirs_field/values", "detected_labels", "patterns",
		} {
			check(path, q, ask(t, server.URL, "/loki/api/v1/"+path, nil, append([]string{"query", q, "match[]", q, "step", "50"}, span...)...))
		}
	}
	for _, path := range []string{"labels", "label/project/values", "series", "index/stats", "index/volume", "detected_fields", "detected_labels", "detected_field/message/values"} {
		check(path, "nothing", ask(t, server.URL, "/loki/api/v1/"+path, nil, span...))
		check(path, "nothing", ask(t, server.URL, "/loki/loki/api/v1/"+path, nil, span...))
	}
	if asked < 200 {
		t.Errorf("%d questions", asked)
	}

	// What is theirs is not counted either, and what is mine is all there.
	for _, c := range []struct{ path, query, want string }{
		{"index/stats", `{}`, `"entries":2,"streams":1`},
		{"query", `sum(count_over_time({}[5m]))`, fmt.Sprintf(`[%d,"2"]`, noon.Add(100*time.Second).Unix())},
		{"query", `sum(count_over_time({project="theirs"}[5m])) or vector(0)`, `"0"`},
		{"label/project/values", `{}`, `["mine"]`},
		{"query_range", `{}`, `first of mine`},
		{"query_range", `{}`, `second of mine`},
		{"detected_fields", `{}`, `mine_field`},
	} {
		got := ask(t, server.URL, "/loki/api/v1/"+c.path, nil, append([]string{"query", c.query}, span...)...)
		if !strings.Contains(got, c.want) {
			t.Errorf("%s of %s: %s lacks %s", c.path, c.query, got, c.want)
		}
	}

	resp, err := http.Post(server.URL+"/loki/api/v1/push", "application/json", strings.NewReader(`{"streams":[{"stream":{"project":"theirs"},"values":[["1","x"]]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("push: %s", resp.Status)
	}

	seen.Store([]string{"mine", "theirs"})
	if got := ask(t, server.URL, "/loki/api/v1/label/project/values", nil, span...); !strings.Contains(got, `["mine","theirs"]`) {
		t.Errorf("of two projects: %s", got)
	}
	seen.Store([]string{})
	if got := ask(t, server.URL, "/loki/api/v1/index/stats", nil, append([]string{"query", "{}"}, span...)...); !strings.Contains(got, `"streams":2`) {
		t.Errorf("of all: %s", got)
	}
}

func TestTailIsKeptApart(t *testing.T) {
	s := two(t)
	server := httptest.NewServer(logql.Loki(s, logql.LokiOptions{Projects: func(context.Context) []string { return []string{"mine"} }}))
	t.Cleanup(server.Close)
	c, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http")+"/loki/api/v1/tail?"+url.Values{"query": {`{project=~".+"}`}, "start": {fmt.Sprint(second(0))}}.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	var got strings.Builder
	until := func(text string) {
		t.Helper()
		for !strings.Contains(got.String(), text) {
			var m any
			if err := wsjson.Read(t.Context(), c, &m); err != nil {
				t.Fatalf("%v after %s", err, got.String())
			}
			fmt.Fprintln(&got, m)
		}
	}
	until("second of mine")
	put(t, s, "theirs", "theirs-api", "third of theirs")
	put(t, s, "mine", "web", "third of mine")
	until("third of mine")
	if strings.Contains(got.String(), "theirs") {
		t.Error(got.String())
	}
}

// What a field keeps of the text as it was is no field to look at.
func TestTheRawTextIsShownToWhoAsksForIt(t *testing.T) {
	s := &shelf{}
	s.add(labels("project", "shop", "service", "web"), logs.Row{
		Time: noon.Add(time.Second).UnixNano(), Shape: "\x00",
		Fields: []logs.Field{{Name: "_raw", Value: "\x1b[31mred\x1b[0m"}, {Name: "message", Value: "red"}},
	})
	base := serve(t, s)
	span := []string{"start", fmt.Sprint(second(0)), "end", fmt.Sprint(second(100))}
	flags := http.Header{"X-Loki-Response-Encoding-Flags": {"categorize-labels"}}
	for _, c := range []struct {
		path, query string
		shown       bool
	}{
		{"query_range", `{service="web"}`, false},
		{"detected_fields", `{service="web"}`, false},
		{"query_range", `{service="web"} | _raw=~".*31m.*"`, true},
	} {
		got := ask(t, base, "/loki/api/v1/"+c.path, flags, append([]string{"query", c.query}, span...)...)
		if strings.Contains(got, "_raw") != c.shown || !strings.Contains(got, "red") && c.path == "query_range" {
			t.Errorf("%s of %s: %s", c.path, c.query, got)
		}
	}
}
