package logql_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tenderhq/tender/internal/logql"
	"github.com/tenderhq/tender/internal/logs"
)

func serve(t *testing.T, s *shelf) string {
	t.Helper()
	server := httptest.NewServer(logql.Loki(s, logql.LokiOptions{}))
	t.Cleanup(server.Close)
	return server.URL
}

// ask gets a path with parameters and returns the status and the body, without the
// numbers about the query itself.
func ask(t *testing.T, base, path string, header http.Header, params ...string) string {
	t.Helper()
	q := url.Values{}
	for i := 0; i < len(params); i += 2 {
		q.Add(params[i], params[i+1])
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path+"?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if json.Unmarshal(body, &v) == nil {
		if data, ok := v["data"].(map[string]any); ok {
			delete(data, "stats")
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		body = b.Bytes()
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(body)))
}

// The calls that Grafana's Loki data source makes, one after the other.
func TestWhatGrafanaAsks(t *testing.T) {
	base := serve(t, shop())
	start, end := fmt.Sprint(second(0)), fmt.Sprint(second(100))
	flags := http.Header{"X-Loki-Response-Encoding-Flags": {"categorize-labels"}}
	for _, tt := range []struct {
		name, path string
		header     http.Header
		params     []string
		want       string
	}{
		{
			"save and test", "/loki/api/v1/query", nil,
			[]string{"query", "vector(1)+vector(1)", "time", "1777896000000000000"},
			`200 {"data":{"result":[{"metric":{},"value":[1777896000,"2"]}],"resultType":"vector"},"status":"success"}`,
		},
		{
			"a number", "/loki/api/v1/query", nil,
			[]string{"query", "1+1", "time", "1777896000"},
			`200 {"data":{"result":[1777896000,"2"],"resultType":"scalar"},"status":"success"}`,
		},
		{
			"labels", "/loki/api/v1/labels", nil,
			[]string{"start", start, "end", end},
			`200 {"data":["instance","node","project","revision","service","stream","team"],"status":"success"}`,
		},
		{"values", "/loki/api/v1/label/service/values", nil, []string{"start", start, "end", end, "query", `{team=""}`}, `200 {"data":["web"],"status":"success"}`},
		{
			"series", "/loki/api/v1/series", nil,
			[]string{"match[]", `{service="worker"}`, "start", start, "end", end},
			`200 {"data":[{"instance":"shop-worker-1","node":"n1","project":"shop","revision":"r7","service":"worker","stream":"stdout","team":"blue"}],"status":"success"}`,
		},
		{
			"lines", "/loki/api/v1/query_range", nil,
			[]string{"query", `{service="web"} |= "boom"`, "start", start, "end", end, "limit", "10"},
			`200 {"data":{"result":[{"stream":{"instance":"shop-web-1","level":"error","node":"n1","project":"shop","revision":"r1","service":"web","stream":"stdout"},"values":[["1777896025000000000","panic: boom"]]}],"resultType":"streams"},"status":"success"}`,
		},
		{
			"lines with labels told apart", "/loki/api/v1/query_range", flags,
			[]string{"query", `{service="worker"} | logfmt s="size" | s="3KB"`, "start", start, "end", end, "direction", "forward"},
			`200 {"data":{"encodingFlags":["categorize-labels"],"result":[{"stream":{"instance":"shop-worker-1","node":"n1","project":"shop","revision":"r7","service":"worker","stream":"stdout","team":"blue"},"values":[["1777896005000000000","at=queue size=3KB msg=\"took one\"",{"parsed":{"s":"3KB"},"structuredMetadata":{"at":"queue","msg":"took one","size":"3KB"}}]]}],"resultType":"streams"},"status":"success"}`,
		},
		{
			"the histogram above the lines", "/loki/api/v1/query_range", nil,
			[]string{"query", `sum by (level, detected_level) (count_over_time({service="web"} | drop __error__[1m]))`, "start", start, "end", end, "step", "60000ms"},
			`200 {"data":{"result":[{"metric":{"detected_level":"error","level":"error"},"values":[[1777896060,"2"]]},{"metric":{"detected_level":"info","level":"info"},"values":[[1777896000,"1"],[1777896060,"1"]]}],"resultType":"matrix"},"status":"success"}`,
		},
		{"stats", "/loki/api/v1/index/stats", nil, []string{"query", `{service="web"}`, "start", start, "end", end}, `200 {"bytes":318,"chunks":1,"entries":5,"streams":1}`},
		{
			"volume", "/loki/api/v1/index/volume", nil,
			[]string{"query", `{project="shop"}`, "start", start, "end", end, "targetLabels", "service", "limit", "1"},
			`200 {"data":{"result":[{"metric":{"service":"web"},"value":[1777896100,"318"]}],"resultType":"vector"},"status":"success"}`,
		},
		{
			"volume by label", "/loki/api/v1/index/volume", nil,
			[]string{"query", `{team=~".+"}`, "start", start, "end", end, "aggregateBy", "labels"},
			`200 {"data":{"result":[{"metric":{"team":""},"value":[1777896100,"92"]}],"resultType":"vector"},"status":"success"}`,
		},
		{
			"volume over time", "/loki/api/v1/index/volume_range", nil,
			[]string{"query", `{service="web"}`, "start", start, "end", end, "step", "50"},
			`200 {"data":{"result":[{"metric":{"service":"web"},"values":[[1777896050,"190"],[1777896100,"63"]]}],"resultType":"matrix"},"status":"success"}`,
		},
		{
			"fields", "/loki/api/v1/detected_fields", nil,
			[]string{"query", `{service="worker"}`, "start", start, "end", end, "limit", "2"},
			`200 {"fields":[{"cardinality":2,"label":"at","parsers":null,"type":"string"},{"cardinality":1,"label":"message","parsers":null,"type":"string"}],"limit":2}`,
		},
		{"values of a field", "/loki/api/v1/detected_field/status/values", nil, []string{"query", `{service="web"}`, "start", start, "end", end}, `200 {"limit":1000,"values":["200","404","500"]}`},
		{
			"detected labels", "/loki/api/v1/detected_labels", nil,
			[]string{"query", `{service="web"}`, "start", start, "end", end},
			`200 {"detectedLabels":[{"cardinality":1,"label":"instance"},{"cardinality":1,"label":"node"},{"cardinality":1,"label":"project"},{"cardinality":1,"label":"revision"},{"cardinality":1,"label":"service"},{"cardinality":1,"label":"stream"}]}`,
		},
		{"patterns", "/loki/api/v1/patterns", nil, []string{"query", `{service="web"}`}, `200 {"data":[],"status":"success"}`},
		{"format", "/loki/api/v1/format_query", nil, []string{"query", `{a="b"}|="c"`}, `200 {"data":"{a=\"b\"} |= \"c\"","status":"success"}`},
		{"ready", "/ready", nil, nil, "200 ready"},
		{"below the prefix", "/loki/ready", nil, nil, "200 ready"},
		{"below the prefix, too", "/loki/loki/api/v1/label/service/values", nil, []string{"start", start, "end", end}, `200 {"data":["web","worker"],"status":"success"}`},
		{
			"lines at one time", "/loki/api/v1/query", nil,
			[]string{"query", `{service="web"}`},
			`400 {"error":"log queries are not supported as an instant query type, please change your query to a range query type","errorType":"bad_data","status":"error"}`,
		},
		{
			"a wrong query", "/loki/api/v1/query_range", nil,
			[]string{"query", `{service="web"`},
			`400 {"error":"parse error at line 1, col 15: unexpected end of query, expected \",\" or \"}\" (docs/logql.md has the whole language)","errorType":"bad_data","status":"error"}`,
		},
		{
			"too much", "/loki/api/v1/query_range", nil,
			[]string{"query", `{service="web"}`, "limit", "60000"},
			`400 {"error":"limit=60000 is more than the limit of 50000","errorType":"bad_data","status":"error"}`,
		},
		{"what is not there", "/loki/api/v1/rules", nil, nil, `404 {"error":"GET /loki/api/v1/rules is not part of Loki's API here","errorType":"not_found","status":"error"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, ask(t, base, tt.path, tt.header, tt.params...)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestPush(t *testing.T) {
	s := &shelf{}
	base := serve(t, s)
	at := time.Now().UnixNano()
	post := func(kind, encoding string, body []byte) string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/loki/api/v1/push", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Content-Encoding", encoding)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(answer)))
	}
	plain := fmt.Appendf(nil, `{"streams":[{"stream":{"app":"cron","stream":"stderr"},"values":[["%d","by JSON",{"trace_id":"7"}]]}]}`, at)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(bytes.ReplaceAll(plain, []byte("by JSON"), []byte("by gzip"))); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	message := func(fields ...any) (b []byte) {
		for i := 0; i < len(fields); i += 2 {
			n := protowire.Number(fields[i].(int))
			switch v := fields[i+1].(type) {
			case string:
				b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), v)
			case []byte:
				b = protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
			case int64:
				b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(v))
			}
		}
		return b
	}
	proto := message(1, message(1, `{app="cron"}`, 2, message(1, message(1, at/1e9, 2, at%1e9), 2, "by protobuf", 3, message(1, "pod.id", 2, "p-9"))))
	for _, tt := range []struct {
		kind, encoding string
		body           []byte
		want           string
	}{
		{"application/json", "", plain, "204 "},
		{"application/json; charset=utf-8", "gzip", zipped.Bytes(), "204 "},
		{"application/x-protobuf", "", snappy.Encode(nil, proto), "204 "},
		{"text/plain", "", plain, `400 {"error":"Content-Type \"text/plain\" is neither application/json nor application/x-protobuf","errorType":"bad_data","status":"error"}`},
		{"application/json", "", []byte(`{"streams":[{"stream":{},"values":[]}]}`), `400 {"error":"the push cannot be read: a stream has no labels","errorType":"bad_data","status":"error"}`},
		{"application/json", "", []byte(`{"streams":[{"stream":{"a":"b"},"values":[["now","x"]]}]}`), `400 {"error":"the push cannot be read: \"now\" is no time in nanoseconds","errorType":"bad_data","status":"error"}`},
		{"application/x-protobuf", "", []byte("junk"), `400 {"error":"the push cannot be read: s2: corrupt input","errorType":"bad_data","status":"error"}`},
	} {
		if d := cmp.Diff(tt.want, post(tt.kind, tt.encoding, tt.body)); d != "" {
			t.Errorf("%s %s (-want +got)\n%s", tt.kind, tt.encoding, d)
		}
	}
	var got []string
	for _, r := range s.rows {
		got = append(got, fmt.Sprintf("%s %s %v", r.labels, r.row.Text(nil), r.row.Fields[1:]))
	}
	want := []string{
		`{app="cron", project="outside", service="cron", source="loki", stream="stderr"} by JSON [{trace_id 7}]`,
		`{app="cron", project="outside", service="cron", source="loki", stream="stderr"} by gzip [{trace_id 7}]`,
		`{app="cron", project="outside", service="cron", source="loki", stream="stdout"} by protobuf [{pod_id p-9}]`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestTail(t *testing.T) {
	s := shop()
	base := serve(t, s)
	q := url.Values{"query": {`{service="web"} != "panic"`}, "limit": {"2"}, "start": {fmt.Sprint(second(0))}}
	c, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(base, "http")+"/loki/api/v1/tail?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow() //nolint:errcheck // the end of the test
	type message struct {
		Streams []struct {
			Stream map[string]string
			Values [][]string
		}
	}
	var texts []string
	read := func(want int) {
		for len(texts) < want {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			var m message
			err := wsjson.Read(ctx, c, &m)
			cancel()
			if err != nil {
				t.Fatalf("after %q: %v", texts, err)
			}
			for _, s := range m.Streams {
				for _, v := range s.Values {
					texts = append(texts, v[1])
				}
			}
		}
	}
	read(2)
	now := int(time.Since(noon) / time.Second)
	for i := range 20 { // many at once, some before it is followed: none is lost, none doubled
		s.add(labels("service", "web"), plain(now+i, fmt.Sprintf("new %d", i)))
		s.add(labels("service", "db"), plain(now+i, "other"))
	}
	read(22)
	want := []string{at20, at70}
	for i := range 20 {
		want = append(want, fmt.Sprintf("new %d", i))
	}
	if d := cmp.Diff(want, texts); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	resp, err := http.Get(base + "/loki/api/v1/tail?query=vector(1)")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("numbers are followed: %s", resp.Status)
	}
}

func FuzzPush(f *testing.F) {
	f.Add([]byte(`{"streams":[{"stream":{"a":"b"},"values":[["1","x",{"c":"d"}]]}]}`), true)
	f.Add(snappy.Encode(nil, []byte("\n\x15\n\x07{a=\"b\"}\x12\n\n\x04\b\x01\x10\x02\x12\x02hi")), false)
	f.Fuzz(func(t *testing.T, body []byte, plain bool) {
		s := &shelf{}
		r := httptest.NewRequest(http.MethodPost, "/loki/api/v1/push", bytes.NewReader(body))
		if plain {
			r.Header.Set("Content-Type", "application/json")
		}
		w := httptest.NewRecorder()
		logql.Loki(s, logql.LokiOptions{}).ServeHTTP(w, r)
		if w.Code != http.StatusNoContent && w.Code != http.StatusBadRequest {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		for _, x := range s.rows {
			if !strings.Contains(x.labels.String(), "stream=") || len(x.row.Fields) == 0 {
				t.Errorf("%v", x)
			}
		}
	})
}

var _ logs.Chunk = (*run)(nil)
