package forward

import (
	"compress/gzip"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tenderhq/tender/internal/logs"
)

// caOf writes the certificate of a test's server to a file.
func caOf(t *testing.T, c *x509.Certificate) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAWebhookGetsSignedBatches(t *testing.T) {
	var mu sync.Mutex
	var entries []map[string]any
	var batches []string
	refusals := []int{503, 301, 400} // 400 before it has ever taken anything
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if got, want := r.Header.Get("X-Tender-Signature"), "sha256="+Sign("shared", r.Header.Get("X-Tender-Timestamp"), body); got != want || r.Header.Get("Content-Type") != "application/json" || r.Method != http.MethodPost {
			t.Errorf("%s %s with signature %q, want %q", r.Method, r.Header.Get("Content-Type"), got, want)
		}
		batches = append(batches, r.Header.Get("X-Tender-Batch"))
		if len(refusals) > 0 {
			w.Header().Set("Location", "https://elsewhere.example.com/")
			w.WriteHeader(refusals[0])
			refusals = refusals[1:]
			return
		}
		v := decode(t, body)
		if v["sink"] != "hook" {
			t.Errorf("sink: %v", v["sink"])
		}
		for _, e := range v["entries"].([]any) {
			entries = append(entries, e.(map[string]any))
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(srv.Close)
	src, k := newShelf(), &memory{}
	src.put(web, entry{begin.UnixNano(), "level=warn msg=hi\nmore", []logs.Field{{Name: "message", Value: "hi"}, {Name: "level", Value: "warn"}, {Name: "project", Value: "not this"}}})
	start(t, fmt.Sprintf(`{hook: {webhook: {url: "%s/in?token=x", sign: {secret: sign}, tls: {ca: %q}}}}`, srv.URL, caOf(t, srv.Certificate())), src, k)
	soon(t, "it is taken", func() bool { return k.state("hook").Cursor == "1" })
	mu.Lock()
	defer mu.Unlock()
	want := []map[string]any{{
		"@timestamp": "2026-11-29T12:59:59.000000000Z", "message": "hi", "text": "level=warn msg=hi\nmore", "level": "warn",
		"project": "shop", "service": "web", "instance": "shop-web-1", "node": "host1", "revision": "7f3a", "stream": "stdout",
	}}
	if diff := cmp.Diff(want, entries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if len(batches) != 4 || len(slices.Compact(batches)) != 1 {
		t.Errorf("ids of one batch: %q", batches)
	}
	if len(k.dead()) != 0 {
		t.Errorf("letters: %+v", k.dead())
	}
}

func TestATLSServerThatIsNotKnownGetsNothing(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it got something") }))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	src := newShelf()
	src.put(web, lines(0, 1)...)
	s, _ := start(t, `{hook: {webhook: {url: "`+srv.URL+`"}}}`, src, &memory{})
	soon(t, "the trouble is shown", func() bool { return strings.Contains(only(s).Error, "certificate") })
}

func TestAnOTLPReceiverGetsLogRecords(t *testing.T) {
	var mu sync.Mutex
	var got collector.ExportLogsServiceRequest
	requests := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("X-Team") != "tok" {
			t.Errorf("%s %v", r.URL.Path, r.Header)
		}
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		body, err := io.ReadAll(z)
		if err != nil {
			t.Error(err)
		}
		requests++
		if requests == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		var in collector.ExportLogsServiceRequest
		if err := (proto.UnmarshalOptions{}).Unmarshal(body, &in); err != nil {
			t.Error(err)
		}
		if len(in.ProtoReflect().GetUnknown()) > 0 {
			t.Error("unknown fields")
		}
		proto.Merge(&got, &in)
		out, err := proto.Marshal(&collector.ExportLogsServiceResponse{PartialSuccess: &collector.ExportLogsPartialSuccess{RejectedLogRecords: 1, ErrorMessage: "too old"}})
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(out)
	}))
	t.Cleanup(srv.Close)
	src, k := newShelf(), &memory{}
	src.put(web, entry{begin.UnixNano(), `{"level":"ERROR"}`, []logs.Field{
		{Name: "level", Value: "ERROR"},
		{Name: "trace_id", Value: "0123456789abcdef0123456789abcdef"},
		{Name: "span_id", Value: "0123456789abcdef"},
		{Name: "user", Value: "a\xffb"},
		{Name: "user", Value: "twice"},
	}}, plain(1, "plain"))
	src.put(labelsOf("project", "shop", "service", "db"), plain(2, "other"))
	s, _ := start(t, `{o: {otlp: {url: "`+srv.URL+`", headers: {X-Team: {secret: token}}}}}`, src, k)
	soon(t, "it is taken", func() bool { return k.state("o").Cursor == "2" })
	mu.Lock()
	defer mu.Unlock()
	text, err := protojson.MarshalOptions{}.Marshal(&got)
	if err != nil {
		t.Fatal(err)
	}
	attr := func(pairs ...string) (out []any) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, map[string]any{"key": pairs[i], "value": map[string]any{"stringValue": pairs[i+1]}})
		}
		return out
	}
	var plainText map[string]any
	if err := json.Unmarshal(text, &plainText); err != nil {
		t.Fatal(err)
	}
	scope := map[string]any{"name": "tender"}
	want := map[string]any{"resourceLogs": []any{
		map[string]any{
			"resource": map[string]any{"attributes": attr("service.instance.id", "shop-web-1", "host.name", "host1", "service.namespace", "shop", "service.version", "7f3a", "service.name", "web")},
			"scopeLogs": []any{map[string]any{"scope": scope, "logRecords": []any{
				map[string]any{
					"timeUnixNano": fmt.Sprint(begin.UnixNano()), "severityNumber": "SEVERITY_NUMBER_ERROR", "severityText": "ERROR", "body": map[string]any{"stringValue": `{"level":"ERROR"}`},
					"attributes": attr("log.iostream", "stdout", "user", "a\uFFFDb"), "traceId": "ASNFZ4mrze8BI0VniavN7w==", "spanId": "ASNFZ4mrze8=",
				},
				map[string]any{"timeUnixNano": fmt.Sprint(begin.UnixNano() + 1e6), "body": map[string]any{"stringValue": "plain"}, "attributes": attr("log.iostream", "stdout")},
			}}},
		},
		map[string]any{
			"resource": map[string]any{"attributes": attr("service.namespace", "shop", "service.name", "db", "host.name", "host1")},
			"scopeLogs": []any{map[string]any{"scope": scope, "logRecords": []any{
				map[string]any{"timeUnixNano": fmt.Sprint(begin.UnixNano() + 2e6), "body": map[string]any{"stringValue": "other"}},
			}}},
		},
	}}
	if diff := cmp.Diff(want, plainText); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	// The receiver says how many it has refused, not which.
	if st := only(s); st.Refused != 1 || st.Sent != 2 || !strings.Contains(st.Error, "too old") {
		t.Errorf("status: %+v", st)
	}
}
