package dns_test

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/dns"
)

type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

func discover(t *testing.T, s *dns.Server, path string) []group {
	t.Helper()
	w := httptest.NewRecorder()
	s.SD().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
	var out []group
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %d %s, %v", path, w.Code, w.Body, err)
	}
	if strings.TrimSpace(w.Body.String()) == "null" {
		t.Errorf("%s: null, where Prometheus wants a list", path)
	}
	return out
}

func TestTargetsForPrometheus(t *testing.T) {
	s, _ := serve(t, dns.Options{}, shop())
	put(t, s, "/v1/agent/service/register", `{"ID":"mf","Name":"mainframe","Address":"host.example","Port":9000}`, 200)
	for path, want := range map[string]string{
		"/sd?project=shop&service=web&port=metrics":            "10.0.0.1:9100 10.0.0.2:9100 10.0.0.3:9100",
		"/sd?project=shop&service=web&port=metrics&healthy":    "10.0.0.1:9100 10.0.0.2:9100",
		"/sd?project=shop&service=web&port=8080&healthy=true":  "10.0.0.1:8080 10.0.0.2:8080",
		"/sd?project=shop&service=web&port=8080&healthy=false": "10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080",
		"/sd?service=db":        "[fd00::5]:5432",
		"/sd?service=mainframe": "host.example:9000",
		"/sd?service=web-1":     "10.0.0.77",
		"/sd?project=nope":      "",
		"/sd?project=shop":      "10.0.0.1:8080 10.0.0.1:9100 10.0.0.2:8080 10.0.0.2:9100 10.0.0.3:8080 10.0.0.3:9100 10.0.0.77 10.0.0.9:80 [fd00::5]:5432",
	} {
		var got []string
		for _, g := range discover(t, s, path) {
			got = append(got, g.Targets...)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	want := map[string]string{
		"__meta_tender_project": "shop", "__meta_tender_service": "web", "__meta_tender_instance": "shop-web-3",
		"__meta_tender_instance_id": "cccccccccccccccccccc", "__meta_tender_node": "one", "__meta_tender_healthy": "false",
		"__meta_tender_foreign": "false", "__meta_tender_address": "10.0.0.3", "__meta_tender_port": "9100",
		"__meta_tender_port_name": "metrics", "__meta_tender_slot": "3", "__meta_tender_tags": ",v2,public,", "__meta_tender_meta_team": "a",
	}
	if diff := cmp.Diff(want, discover(t, s, "/sd?service=web&port=metrics")[2].Labels); diff != "" {
		t.Error(diff)
	}
	w := httptest.NewRecorder()
	s.SD().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/sd", nil))
	if w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}
