package metrics

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestQuestionsOfOneProject(t *testing.T) {
	d, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for expr, want := range map[string]string{
		`up`:                 `up{project="shop"}`,
		`up{project="blog"}`: `up{project="blog",project="shop"}`,
		`{__name__=~".+"}`:   `{__name__=~".+",project="shop"}`,
		`1 + 1`:              `1 + 1`,
		`sum by (a) (rate(b[5m])) / on (a) c offset 1h`: `sum by (a) (rate(b{project="shop"}[5m])) / on (a) c{project="shop"} offset 1h`,
		`max_over_time(a[1h:5m] @ end())`:               `max_over_time(a{project="shop"}[1h:5m] @ end())`,
	} {
		if got, err := d.Within(expr, "shop"); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", expr, got, err, want)
		}
	}
	var asked string
	h := d.Narrowed(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = r.FormValue("query") }))
	for _, k := range []struct{ path, form, want string }{
		{"/api/v1/query", "query=up&project=shop", `up{project="shop"}`},
		{"/api/v1/query_range", "query=up", `up`},
		{"/api/v1/query", "query=up%28&project=shop", `up(`},
		{"/api/v1/format_query", "query=up&project=shop", `up`},
	} {
		r := httptest.NewRequest("POST", k.path, strings.NewReader(k.form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if h.ServeHTTP(httptest.NewRecorder(), r); asked != k.want {
			t.Errorf("POST %s %s: %s", k.path, k.form, asked)
		}
		form, _ := url.ParseQuery(k.form)
		if h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", k.path+"?"+form.Encode(), nil)); asked != k.want {
			t.Errorf("GET %s %s: %s", k.path, k.form, asked)
		}
	}
}
