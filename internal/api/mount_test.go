package api_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/tenderhq/tender/internal/api"
)

// A question is no change, whichever method carries it.
func TestQuestionsByPostNeedToReadOnly(t *testing.T) {
	answers := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	host, _ := serve(t, "tcp", &fake{tokens: people()}, api.Options{Mounts: map[string]http.Handler{
		"/api/v1/": answers, "/api/v2/": answers, "/prometheus/": answers, "/loki/": answers,
	}})
	for path, want := range map[string]int{
		"/api/v1/query": 200, "/api/v1/query_range": 200, "/api/v1/labels": 200, "/api/v1/series": 200, "/api/v1/read": 200,
		"/prometheus/api/v1/query": 200, "/prometheus/api/v1/query_exemplars": 200, "/api/v1/format_query": 200, "/api/v1/parse_query": 200,
		"/loki/api/v1/query": 200, "/loki/loki/api/v1/query_range": 200, "/loki/api/v1/label/service/values": 200, "/loki/api/v1/index/volume": 200,
		"/loki/api/v1/detected_field/status/values": 200, "/loki/api/v1/format_query": 200,
		"/api/v1/write": 403, "/api/v1/admin/tsdb/delete_series": 403, "/api/v1/query/": 403, "/api/v1/otlp/v1/metrics": 403,
		"/prometheus/api/v1/write": 403, "/api/v2/silences": 403, "/loki/api/v1/push": 403, "/loki/api/v1/label/push": 403, "/loki/loki/api/v1/push": 403,
		"/loki/api/v1/label/a/b/values": 403,
	} {
		if resp := raw(t, host, "POST", path, "r", "query=up"); resp.StatusCode != want {
			t.Errorf("POST %s: %s, want %d", path, resp.Status, want)
		}
		// Who may see one project alone may not ask of all.
		if resp := raw(t, host, "POST", path, "s", "query=up"); resp.StatusCode != 403 {
			t.Errorf("POST %s by one who may see one project: %s", path, resp.Status)
		}
	}
	if resp := raw(t, host, "DELETE", "/api/v1/series", "r", ""); resp.StatusCode != 403 {
		t.Errorf("DELETE /api/v1/series: %s", resp.Status)
	}
}

// Who may see one project alone reaches what keeps projects apart, and no further.
func TestProjectsApart(t *testing.T) {
	answers := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := api.PersonFrom(r.Context())
		_, _ = fmt.Fprint(w, who.Projects)
	})
	host, _ := serve(t, "tcp", &fake{tokens: people()}, api.Options{
		Apart:  map[string]http.Handler{"/loki/": answers},
		Mounts: map[string]http.Handler{"/v1/": answers},
	})
	for _, c := range []struct {
		method, path, token string
		want                int
	}{
		{"GET", "/loki/api/v1/labels", "s", 200},
		{"POST", "/loki/api/v1/query", "s", 200},
		{"GET", "/loki/api/v1/labels", "r", 200},
		{"GET", "/loki/api/v1/labels", "", 401},
		{"GET", "/v1/agent/self", "s", 403},
	} {
		if resp := raw(t, host, c.method, c.path, c.token, ""); resp.StatusCode != c.want {
			t.Errorf("%s %s by %q: %s, want %d", c.method, c.path, c.token, resp.Status, c.want)
		}
	}
}
