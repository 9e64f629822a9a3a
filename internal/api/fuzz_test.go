package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// shoot sends one request to the handler without a network; the client hangs
// up when the answer is there.
func shoot(h http.Handler, method, path, kind, body string) *httptest.ResponseRecorder {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, method, "http://tender/", strings.NewReader(body))
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(path, "?")
	r.Header.Set("Authorization", "Bearer a")
	r.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// soundAnswer fails on what no request may cause: an answer that is our fault,
// or an error without words.
func soundAnswer(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Code >= 500 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	if w.Code >= 400 {
		var e api.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Detail == "" || e.Kind == string(tender.Internal) || e.Status != w.Code {
			t.Errorf("status %d with %s", w.Code, w.Body)
		}
	}
}

func FuzzSubmission(f *testing.F) {
	for _, s := range []string{
		`{"project":"shop","yaml":"name: shop\n","files":{"ab":"AAEC"},"scale":{"web":3},"token":"x"}`,
		`{"project":"shop","yaml":"x","secrets":{"a":"!"}}`, `{"project":"shop","yaml":"x","scale":{"web":1e99}}`,
		`{"yaml":` + strings.Repeat("[", 20000), `{"a":1}{`, "null", `"`, "", "\xff\xfe", "{\"project\":\"sh\x00op\"}",
	} {
		f.Add([]byte(s))
	}
	h := api.Handler(&fake{tokens: people()}, api.Options{})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"/plan", "/up"} {
			soundAnswer(t, shoot(h, "POST", api.Prefix+path, "application/json", string(body)))
		}
	})
}

func FuzzBodies(f *testing.F) {
	f.Add(0, "shop", "application/json", `{"verb":"stop","grace":3000000000}`)
	f.Add(1, "", "application/json", `{"reference":"redis"}`)
	f.Add(2, "", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"request\"\r\n\r\n{\"tags\":[\"x\"]}\r\n--b\r\nContent-Disposition: form-data; name=\"context\"\r\n\r\n"+strings.Repeat("t", 2000)+"\r\n--b--")
	f.Add(2, "", "multipart/form-data; boundary=b", "--b\r\n\r\n")
	f.Add(3, "db", "application/octet-stream", "value")
	f.Add(4, "", "application/json", `{"name":"ci","scope":"read","projects":["shop"],"valid":1}`)
	f.Add(5, "shop", "application/json", `{"cmd":["sh"],"tty":true}`)
	f.Add(6, "shop?since=x&tail=-5&service=a&service=b", "", "")
	f.Add(7, "%2e%2e/x", "", "")
	f.Add(8, "9223372036854775808", "", "")
	f.Add(9, "project=shop&service=web&path=/x", "application/x-tar", "tar")
	b := &fake{tokens: people()}
	h := api.Handler(b, api.Options{})
	routes := []struct{ method, before, after string }{
		{"POST", "/projects/", "/changes"},
		{"POST", "/images/pull", ""},
		{"POST", "/images/build", ""},
		{"PUT", "/secrets/", ""},
		{"POST", "/tokens", ""},
		{"POST", "/projects/", "/services/web/run"},
		{"GET", "/projects/", "/logs"},
		{"GET", "/projects/", "/services/web/why"},
		{"GET", "/rollouts/", ""},
		{"PUT", "/files?", ""},
		{"GET", "/wait?", ""},
		{"POST", "/exec?", ""},
	}
	f.Fuzz(func(t *testing.T, n int, name, kind, body string) {
		k := routes[uint(n)%uint(len(routes))]
		w := shoot(h, k.method, api.Prefix+k.before+name+k.after, kind, body)
		if k.before == "/images/build" && w.Code >= 500 {
			return // the fake's engine says that of a context that is cut off
		}
		soundAnswer(t, w)
	})
}
