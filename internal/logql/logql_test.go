package logql_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/logql"
	"github.com/tenderhq/tender/internal/logs"
)

// noon is when the entries of the tests begin.
var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func second(n int) int64 { return noon.Add(time.Duration(n) * time.Second).UnixNano() }

func labels(pairs ...string) (l logs.Labels) {
	for i := 0; i < len(pairs); i += 2 {
		l = append(l, logs.Field{Name: pairs[i], Value: pairs[i+1]})
	}
	return l
}

// plain is a row without structure, as it is stored.
func plain(at int, text string, derived ...string) logs.Row {
	r := logs.Row{Time: second(at), Shape: "\x00", Fields: []logs.Field{{Name: "message", Value: text}}}
	for i := 0; i < len(derived); i += 2 {
		r.Fields = append(r.Fields, logs.Field{Name: derived[i], Value: derived[i+1]})
	}
	return r
}

// shaped is a row whose fields were cut out of a text: shape has %s for each.
func shaped(at int, shape string, pairs ...string) logs.Row {
	r := logs.Row{Time: second(at), Shape: strings.ReplaceAll(shape, "%s", "\x00")}
	for i := 0; i < len(pairs); i += 2 {
		r.Fields = append(r.Fields, logs.Field{Name: pairs[i], Value: pairs[i+1]})
	}
	return r
}

// shop is a store with a web and a worker, whose web writes JSON.
func shop() *shelf {
	s := &shelf{}
	request := `{"level":"%s","status":%s,"took":"%s","path":"%s","service":"%s"}`
	web := labels("instance", "shop-web-1", "node", "n1", "project", "shop", "revision", "r1", "service", "web")
	s.add(web,
		shaped(0, request, "level", "info", "status", "200", "took", "12ms", "path", "/", "service", "front"),
		shaped(10, request, "level", "info", "status", "200", "took", "30ms", "path", "/orders", "service", "front"),
		shaped(20, request, "level", "error", "status", "500", "took", "1.5s", "path", "/orders", "service", "front"),
		plain(25, "panic: boom", "level", "error"),
		shaped(70, request, "level", "info", "status", "404", "took", "2ms", "path", "/nothing", "service", "front"),
	)
	worker := labels("instance", "shop-worker-1", "node", "n1", "project", "shop", "revision", "r7", "service", "worker", "team", "blue")
	s.add(worker,
		shaped(5, `at=%s size=%s msg="%s"`, "at", "queue", "size", "3KB", "msg", "took one"),
		shaped(15, `at=%s size=%s msg="%s"`, "at", "queue", "size", "2MiB", "msg", "took two"),
		plain(65, "10.1.2.3 - bye \x1b[31mred\x1b[0m"),
	)
	return s
}

// stores are the store in memory, and real ones with the same rows: one that has them
// on disk, and one that has yet to write them.
func stores(t *testing.T) map[string]logql.Store {
	t.Helper()
	memory := shop()
	out := map[string]logql.Store{"in memory": memory}
	for _, flushed := range []bool{true, false} {
		s, err := logs.Open(t.TempDir(), logs.Options{Retention: logs.Retention{Age: 100 * 365 * 24 * time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		for _, r := range memory.rows {
			own := slices.DeleteFunc(slices.Clone(r.labels), func(f logs.Field) bool { return f.Name == "stream" })
			if err := s.Append(t.Context(), logs.Batch{Labels: own, Rows: []logs.Row{r.row}}); err != nil {
				t.Fatal(err)
			}
		}
		if flushed {
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		out[fmt.Sprintf("real, flushed %t", flushed)] = s
	}
	return out
}

// lines prints what a query finds: seconds since noon, service, what the query made, text.
func lines(t *testing.T, s logql.Store, query string) string {
	t.Helper()
	x, err := logql.Parse(query)
	if err != nil {
		return err.Error() + "\n"
	}
	found, err := logql.New(s, logql.Limits{}).Lines(t.Context(), x, logql.Lines{From: noon, Limit: 100})
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for _, l := range found {
		fmt.Fprintf(&b, "%d", l.Time.Sub(noon)/time.Second)
		for _, f := range l.Parsed {
			fmt.Fprintf(&b, " %s=%s", f.Name, f.Value)
		}
		fmt.Fprintf(&b, " | %s\n", l.Text)
	}
	return b.String()
}

const (
	at0  = `{"level":"info","status":200,"took":"12ms","path":"/","service":"front"}`
	at10 = `{"level":"info","status":200,"took":"30ms","path":"/orders","service":"front"}`
	at20 = `{"level":"error","status":500,"took":"1.5s","path":"/orders","service":"front"}`
	at70 = `{"level":"info","status":404,"took":"2ms","path":"/nothing","service":"front"}`
)

var lineCases = []struct{ name, query, want string }{
	{"an equal label", `{service="web", stream="stdout"} |= "boom"`, "25 | panic: boom\n"},
	{"labels by regexp are anchored", `{service=~"work|we"}`, ""},
	{"a label that is not there is empty", `{team=""} != "status"`, "25 | panic: boom\n"},
	{"line filters in a row", `{service="web"} |= "orders" !~ "\"status\":5.."`, "10 | " + at10 + "\n"},
	{"alternatives", `{project="shop"} |= "boom" or "bye"`, "25 | panic: boom\n65 | 10.1.2.3 - bye \x1b[31mred\x1b[0m\n"},
	{"none of the alternatives", `{service="worker"} != "one" or "two"`, "65 | 10.1.2.3 - bye \x1b[31mred\x1b[0m\n"},
	{"an address in the line", `{} |= ip("10.1.0.0/16") | decolorize`, "65 | 10.1.2.3 - bye red\n"},
	{"a likeness", "{} |> `panic: <_>`", "25 | panic: boom\n"},
	{"not a likeness", "{service=\"worker\"} !> `at=<_>`", "65 | 10.1.2.3 - bye \x1b[31mred\x1b[0m\n"},
	{"a stored field without a parser", `{service="web"} | status = 500`, "20 | " + at20 + "\n"},
	{"a derived field", `{service="web"} | level="error" |= "boom"`, "25 | panic: boom\n"},
	{"a duration", `{service="web"} | took > 1s`, "20 | " + at20 + "\n"},
	{"a size", `{service="worker"} | size >= 1MB`, `15 | at=queue size=2MiB msg="took two"` + "\n"},
	{
		"json re-exposes stored fields under their own names, and never a label",
		`{service="web", stream="stdout"} != "boom" | json | status = 404`, "70 level=info path=/nothing service_extracted=front status=404 took=2ms | " + at70 + "\n",
	},
	{"what was not read as a number is let through with its error", `{service="web"} |= "boom" | json | status = 404`, "25 __error__=JSONParserErr __error_details__=the line is no JSON object at byte 1 | panic: boom\n"},
	{"a field that clashes with a label", `{service="web"} | service_extracted="front" | status>400 | path="/orders"`, "20 | " + at20 + "\n"},
	{"what is no JSON says so and stays", `{service="web"} |= "boom" | json`, "25 __error__=JSONParserErr __error_details__=the line is no JSON object at byte 1 | panic: boom\n"},
	{"and can be left out", `{service="web"} | json | __error__="" | level="error" | keep level`, "20 level=error | " + at20 + "\n"},
	{"json with paths", `{service="web"} |= "500" | json code="status", p="path"`, "20 code=500 p=/orders | " + at20 + "\n"},
	{"logfmt", `{service="worker"} |= "two" | logfmt | keep at, msg`, `15 at=queue msg=took two | at=queue size=2MiB msg="took two"` + "\n"},
	{"logfmt with names", `{service="worker"} |= "two" | logfmt s="size"`, `15 s=2MiB | at=queue size=2MiB msg="took two"` + "\n"},
	{"regexp", "{} |= \"boom\" | regexp `(?P<what>\\w+): (?P<word>.*)`", "25 what=panic word=boom | panic: boom\n"},
	{"pattern", "{} |= \"boom\" | pattern `<what>: <word>`", "25 what=panic word=boom | panic: boom\n"},
	{"a pattern that ends early", "{service=\"worker\"} |= \"bye\" | pattern `<ip> - <word> <_>x`", "65 ip=10.1.2.3 word=bye | 10.1.2.3 - bye \x1b[31mred\x1b[0m\n"},
	{"an address in a label", "{service=\"worker\"} | pattern `<ip> - <_>` | ip = ip(\"10.1.2.1-10.1.2.9\") | line_format \"{{.ip}}\"", "65 ip=10.1.2.3 | 10.1.2.3\n"},
	{"line_format reads stored fields", "{service=\"web\"} | status=500 | line_format `{{.status}} {{.path | trimPrefix \"/\" | upper}} {{.none}}{{__line__ | trunc 2}}`", `20 | 500 ORDERS {"` + "\n"},
	{"label_format renames and makes", "{service=\"web\"} | status=500 | label_format sum=`{{add .status 1}}`, code=status | line_format `{{.code}} {{.sum}} {{.status}}`", "20 code=500 sum=501 | 500 501 \n"},
	{"a filter behind line_format sees the new line", "{service=\"web\"} | line_format `{{.level}}` |= \"error\"", "20 | error\n25 | error\n"},
	{"and and or bind alike, from the left", `{service="web"} | status=200 or status=500 and path="/orders" | line_format "{{.path}}"`, "10 | /orders\n20 | /orders\n"},
	{"brackets", `{service="web"} | status=404 or (status=500 and path="/") | line_format "{{.path}}"`, "70 | /nothing\n"},
	{"drop of one value", `{service="web"} |= "404" | json | drop level="info", took, path, service_extracted`, "70 status=404 | " + at70 + "\n"},
	{
		"a label that is no number", `{service="web"} | path="/" | label_format p="{{.path}}" | p > 5 | line_format "x" | keep nothing`,
		"0 __error__=LabelFilterErr __error_details__=\"/\" is no number | x\n",
	},
	{"a stored field that is no number does not hold", `{service="web"} | path > 5`, ""},
	{"unpack", "{} |= \"boom\" | line_format `{\"_entry\":\"inside\",\"pod\":\"a\"}` | unpack", "25 pod=a | inside\n"},
	{"a template that fails says so", "{} |= \"boom\" | line_format `{{div 1 0}}`", "25 __error__=TemplateFormatErr __error_details__=1:2: executing \"\" at <div 1 0>: error calling div: division by zero | panic: boom\n"},
	{"a comment", "{service=\"web\"} # all of it\n|= \"boom\"", "25 | panic: boom\n"},
}

func TestLines(t *testing.T) {
	for _, tt := range lineCases {
		t.Run(tt.name, func(t *testing.T) {
			for name, s := range stores(t) {
				if d := cmp.Diff(tt.want, lines(t, s, tt.query)); d != "" {
					t.Errorf("%s: %s\n(-want +got)\n%s", name, tt.query, d)
				}
			}
		})
	}
}

func TestNestedFieldsAreCalledAsLogQLCan(t *testing.T) {
	s := &shelf{}
	s.add(labels("service", "web"), shaped(0, `{"http":{"status":%s},"user-id":"%s"}`, "http.status", "503", "user-id", "7"), plain(1, "other"))
	for query, want := range map[string]string{
		`{service="web"} | http_status >= 500 | user_id="7" | line_format "{{.http_status}}"`: "0 | 503\n",
		`{service="web"} | json | http_status >= 500 | __error__=""`:                          `0 http_status=503 user_id=7 | {"http":{"status":503},"user-id":"7"}` + "\n",
	} {
		if d := cmp.Diff(want, lines(t, s, query)); d != "" {
			t.Errorf("%s (-want +got)\n%s", query, d)
		}
	}
	if d := cmp.Diff("{} 1\n{http_status=\"503\"} 1\n", vector(t, s, `sum by (http_status) (count_over_time({service="web"}[5m]))`)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func vector(t *testing.T, s logql.Store, query string) string {
	t.Helper()
	found, err := logql.New(s, logql.Limits{}).Instant(t.Context(), query, noon.Add(100*time.Second))
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for _, x := range found {
		fmt.Fprintf(&b, "%s %g\n", x.Labels, math.Round(x.Value*1e6)/1e6)
	}
	return b.String()
}

var numberCases = []struct{ query, want string }{
	{`vector(1)+vector(1)`, "{} 2\n"},
	{`1 + 2 * 3 ^ 2`, "{} 19\n"},
	{`sum(count_over_time({project="shop"}[5m]))`, "{} 8\n"},
	{`sum by (service) (count_over_time({project="shop"}[5m]))`, "{service=\"web\"} 5\n{service=\"worker\"} 3\n"},
	{`sum(count_over_time({project="shop"}[5m])) by (service, team)`, "{service=\"web\"} 5\n{service=\"worker\", team=\"blue\"} 3\n"},
	{`sum without (instance, node, project, revision, stream) (count_over_time({project="shop"}[5m]))`, "{service=\"web\"} 5\n{service=\"worker\", team=\"blue\"} 3\n"},
	{`sum by (level) (count_over_time({service="web"}[5m]))`, "{level=\"error\"} 2\n{level=\"info\"} 3\n"},
	{`sum by (level, detected_level) (count_over_time({service="web"} |= "" | drop __error__ [5m]))`, "{detected_level=\"error\", level=\"error\"} 2\n{detected_level=\"info\", level=\"info\"} 3\n"},
	{`sum by (status) (count_over_time({service="web"} | json | __error__="" [5m]))`, "{status=\"200\"} 2\n{status=\"404\"} 1\n{status=\"500\"} 1\n"},
	{`sum(rate({service="web"}[50s]))`, "{} 0.02\n"},
	{`sum(bytes_over_time({service="web"} |= "boom" [5m]))`, "{} 11\n"},
	{`sum(count_over_time({service="web"}[30s] offset 75s))`, "{} 4\n"},
	{`count_over_time({service="nobody"}[5m])`, ""},
	{`absent_over_time({service="nobody"}[5m])`, "{service=\"nobody\"} 1\n"},
	{`absent_over_time({service="web"}[5m])`, ""},
	{`sum(count_over_time({service="nobody"}[5m])) or vector(0)`, "{} 0\n"},
	{`max_over_time({service="web"} | unwrap duration(took) [5m]) by (path)`, "{path=\"/\"} 0.012\n{path=\"/nothing\"} 0.002\n{path=\"/orders\"} 1.5\n"},
	{`sum(sum_over_time({service="worker"} | unwrap bytes(size) [5m]))`, "{} 2.100152e+06\n"},
	{`quantile_over_time(0.5, {service="web"} | unwrap status [5m]) by (service)`, "{service=\"web\"} 302\n"},
	{`avg_over_time({service="web"} | json | unwrap status | __error__="" [5m]) by (level)`, "{level=\"error\"} 500\n{level=\"info\"} 268\n"},
	{`stddev_over_time({service="web"} | status=200 | unwrap status [5m]) by ()`, "{} 0\n"},
	{`first_over_time({service="web"} | unwrap status [5m]) by () + last_over_time({service="web"} | unwrap status [5m]) by ()`, "{} 604\n"},
	{`sum_over_time({service="web"} | unwrap path [5m])`, "pipeline error: SampleExtractionErr: \"/\" of path is no number\n"},
	{`topk(1, sum by (service) (count_over_time({project="shop"}[5m])))`, "{service=\"web\"} 5\n"},
	{`bottomk(1, sum by (service) (count_over_time({project="shop"}[5m])))`, "{service=\"worker\"} 3\n"},
	{`sort(sum by (service) (count_over_time({project="shop"}[5m])))`, "{service=\"worker\"} 3\n{service=\"web\"} 5\n"},
	{`count(count_over_time({project="shop"}[5m]))`, "{} 2\n"},
	{`sum by (service) (count_over_time({project="shop"}[5m])) > 4`, "{service=\"web\"} 5\n"},
	{`sum by (service) (count_over_time({project="shop"}[5m])) > bool 4`, "{service=\"web\"} 1\n{service=\"worker\"} 0\n"},
	{`sum by (service) (count_over_time({project="shop"} | level="error" [5m])) / sum by (service) (count_over_time({project="shop"}[5m])) * 100`, "{service=\"web\"} 40\n"},
	{`sum by (service) (count_over_time({project="shop"}[5m])) / on() group_left sum(count_over_time({project="shop"}[5m]))`, "{service=\"web\"} 0.625\n{service=\"worker\"} 0.375\n"},
	{`sum by (service) (count_over_time({project="shop"}[5m])) unless on(service) sum by (service) (count_over_time({service="web"}[5m]))`, "{service=\"worker\"} 3\n"},
	{`label_replace(sum by (service) (count_over_time({service="web"}[5m])), "short", "$1", "service", "(.).*")`, "{service=\"web\", short=\"w\"} 5\n"},
	{`sum(count_over_time({service="web"} | json [5m]))`, "{} 5\n"},
	{`count_over_time({service="web"} | json [5m])`, "pipeline error: JSONParserErr: the line is no JSON object at byte 1\n"},
	{`count_over_time({service="web"} | label_format x="{{.level}}" | keep x [5m])`, "{x=\"error\"} 2\n{x=\"info\"} 3\n"},
}

func TestNumbers(t *testing.T) {
	for _, tt := range numberCases {
		t.Run(tt.query, func(t *testing.T) {
			for name, s := range stores(t) {
				if d := cmp.Diff(tt.want, vector(t, s, tt.query)); d != "" {
					t.Errorf("%s (-want +got)\n%s", name, d)
				}
			}
		})
	}
}

// A line without a byte is a line: no value would say that there was none.
func TestTheBytesOfEmptyLines(t *testing.T) {
	s := &shelf{}
	s.add(labels("service", "web"), plain(1, ""), plain(2, ""))
	for query, want := range map[string]string{
		`sum(bytes_over_time({service="web"}[5m]))`:     "{} 0\n",
		`sum(bytes_rate({service="web"}[5m]))`:          "{} 0\n",
		`sum(bytes_over_time({service="nobody"}[5m]))`:  "",
		`sum(count_over_time({service="web"}[5m])) + 1`: "{} 3\n",
	} {
		if got := vector(t, s, query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func TestEachStepLooksBackOverItsRange(t *testing.T) {
	s := shop()
	for _, tt := range []struct {
		query string
		step  int // seconds
		want  string
	}{
		// A window holds its end and not its beginning.
		{`sum(count_over_time({project="shop"}[10s]))`, 10, "1 2 2 1 - - - 2 - - -"},
		{`sum(count_over_time({project="shop"}[20s]))`, 10, "1 3 4 3 1 - - 2 2 - -"},
		{`sum(count_over_time({project="shop"}[5s]))`, 10, "1 1 1 - - - - 1 - - -"}, // gaps between the windows
		{`sum(max_over_time({service="web"} | unwrap status [20s]))`, 10, "200 200 500 500 - - - 404 404 - -"},
		{`sum(count_over_time({project="shop"}[10s])) > 1`, 10, "- 2 2 - - - - 2 - - -"},
	} {
		x, err := logql.Parse(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		series, err := logql.New(s, logql.Limits{}).Series(t.Context(), x, logql.Steps{Start: noon, End: noon.Add(100 * time.Second), Step: time.Duration(tt.step) * time.Second})
		if err != nil || len(series) != 1 {
			t.Fatalf("%s: %v, %v", tt.query, series, err)
		}
		var got []string
		for _, v := range series[0].Values {
			if math.IsNaN(v) {
				got = append(got, "-")
			} else {
				got = append(got, fmt.Sprint(v))
			}
		}
		if d := cmp.Diff(tt.want, strings.Join(got, " ")); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.query, d)
		}
	}
}

func TestWhatTheStoreIsAsked(t *testing.T) {
	for _, tt := range []struct{ query, want string }{
		{`sum by (service) (count_over_time({project="shop"}[5m]))`, `labels project="shop"; columns [service]; no text`},
		{`sum by (level) (rate({project="shop"} |= "x" [5m]))`, `labels project="shop"; text |="x"; columns [level]; no text`},
		{`sum by (level) (rate({project="shop"} | json | drop __error__ [5m]))`, `labels project="shop"; columns [level]`},
		{
			`{service="web"} |= "a" != "b" |~ "c." | status >= 500 | path="/" or path="/x" | service="web"`,
			`labels service="web" service="web"; text |="a" !|"b" =~"(?s:c.)"; where status>=500; columns all`,
		},
		{`{service="web"} | took > 1500ms and size < 2KiB`, `labels service="web"; where took>1.5 size<2048; columns all`},
		{`{service="web"} | status == 500`, `labels service="web"; where status>=500 status<=500; columns all; limit 100`},
		{`{service="web"} | team="blue" | trace_id="7"`, `labels service="web"; where team="blue" trace_id="7"; columns all; limit 100`},
		{`{service="worker"} | team="blue"`, `labels service="worker"; columns all`}, // team is a label of that stream
		{`{service="web"} | line_format "{{.path}}" |= "x"`, `labels service="web"; columns all`},
		{`{service="web"} | json | status=500`, `labels service="web"; columns all`},
		{`{service="web"} |= "a" or "b.c"`, `labels service="web"; text =~"a|b\\.c"; columns all; limit 100`},
	} {
		s := shop()
		x, err := logql.Parse(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		e := logql.New(s, logql.Limits{})
		if logql.IsMetric(x) {
			_, err = e.Series(t.Context(), x, logql.Steps{Start: noon, End: noon})
		} else {
			_, err = e.Lines(t.Context(), x, logql.Lines{From: noon, Limit: 100})
		}
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, asked(s.asked[len(s.asked)-1])); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.query, d)
		}
	}
}

func asked(q logs.Query) string {
	var out []string
	part := func(word string, cs []logs.Condition) {
		var l []string
		for _, c := range cs {
			v := fmt.Sprintf("%q", c.Value)
			if strings.ContainsAny(string(c.Op), "<>") {
				v = fmt.Sprint(c.Number)
			}
			l = append(l, c.Name+string(c.Op)+v)
		}
		if len(l) > 0 {
			out = append(out, word+" "+strings.Join(l, " "))
		}
	}
	part("labels", q.Labels)
	part("text", q.Text)
	part("where", q.Where)
	if q.Columns == nil {
		out = append(out, "columns all")
	} else {
		out = append(out, fmt.Sprint("columns ", q.Columns))
	}
	if q.NoText {
		out = append(out, "no text")
	}
	if q.Limit > 0 {
		out = append(out, fmt.Sprint("limit ", q.Limit))
	}
	return strings.Join(out, "; ")
}

func TestLimits(t *testing.T) {
	s := shop()
	for _, tt := range []struct {
		limits      logql.Limits
		query, want string
	}{
		{logql.Limits{Series: 1}, `sum by (service) (count_over_time({project="shop"}[5m]))`, "the query makes more than 1 series"},
		{logql.Limits{Steps: 5}, `sum(count_over_time({project="shop"}[5m]))`, "11 points in time are more than 5"},
		{logql.Limits{Points: 15}, `sum by (service) (count_over_time({project="shop"}[5m]))`, "2 series at 11 points in time are more than 15 values"},
		{logql.Limits{Samples: 3}, `quantile_over_time(0.9, {service="web"} | unwrap status [5m])`, "quantile_over_time holds more than 3 values"},
		{logql.Limits{Timeout: 1}, `sum(count_over_time({project="shop"}[5m]))`, "the query took longer than 1ns"},
	} {
		x, err := logql.Parse(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		_, err = logql.New(s, tt.limits).Series(t.Context(), x, logql.Steps{Start: noon, End: noon.Add(100 * time.Second), Step: 10 * time.Second})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.query, err, tt.want)
		}
	}
	x, _ := logql.Parse(`{project="shop"}`)
	for _, tt := range []struct {
		limits logql.Limits
		want   string
	}{
		{logql.Limits{Entries: 3}, "the answer has more than 3 lines"},
		{logql.Limits{Bytes: 100}, "the answer has more than 0 MiB of text"},
	} {
		if _, err := logql.New(s, tt.limits).Lines(t.Context(), x, logql.Lines{From: noon}); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: %v", tt.limits, err)
		}
	}
}

func TestTheNewestLines(t *testing.T) {
	s := shop()
	x, _ := logql.Parse(`{project="shop"} | line_format "{{__timestamp__ | unixEpoch}}"`)
	for _, backward := range []bool{true, false} {
		found, err := logql.New(s, logql.Limits{}).Lines(t.Context(), x, logql.Lines{From: noon, Limit: 3, Backward: backward})
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, l := range found {
			got = append(got, int64(l.Time.Sub(noon)/time.Second))
		}
		want := []int64{0, 5, 10}
		if backward {
			want = []int64{70, 65, 25}
		}
		if !slices.Equal(got, want) {
			t.Errorf("backward %t: %v, want %v", backward, got, want)
		}
	}
}
