package metrics

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/tenderhq/tender/internal/sample"
)

// Whatever is asked, and however, nobody sees a series of a project that is not theirs.
func TestOneProjectSeesNothingOfAnother(t *testing.T) {
	d := open(t, Options{})
	of := func(name, project string, more ...string) *sample.Series {
		return series(name, append(more, "project", project)...)
	}
	points := []sample.Point{
		{Series: of("orders", "shop", "color", "green"), Value: 1},
		{Series: of("orders", "blog", "color", "black"), Value: 1},
		{Series: of("orders", "shopping", "color", "pink"), Value: 1},
		{Series: of("secretname", "blog"), Value: 1},
		{Series: of("orders", "a.b", "color", "white"), Value: 1},
		{Series: of("orders", "aXb", "color", "grey"), Value: 1},
		{Series: series("ofnobody", "color", "brown"), Value: 1},
	}
	now := time.Now().Truncate(time.Second)
	points[0].Series.Help, points[3].Series.Help = "Orders that were placed.", "It is pink."
	for _, back := range []time.Duration{10 * time.Minute, time.Minute, 30 * time.Second, 0} {
		if err := d.Keep(t.Context(), sample.Round{Source: "here", At: now.Add(-back), Points: points}); err != nil {
			t.Fatal(err)
		}
	}
	var theirs []string
	h := d.Narrowed(d.Apart(func(context.Context) []string { return theirs }))
	ask := func(projects []string, method, path, form string) (int, string) {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(form))
		if method == http.MethodPost {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		} else if form != "" {
			r = httptest.NewRequest(method, path+"?"+form, nil)
		}
		w := httptest.NewRecorder()
		theirs = projects
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	foreign := []string{"black", "pink", "brown", "secretname", "ofnobody", "grey", "shopping", "white"}
	quiet := func(what, body string, may ...string) {
		t.Helper()
		for _, word := range foreign {
			if strings.Contains(body, word) && !strings.Contains(strings.Join(may, " "), word) {
				t.Errorf("%s tells of %s: %s", what, word, body)
			}
		}
	}
	for _, expr := range []string{
		`orders`, `{__name__=~".+"}`, `{project=~".+"}`, `{__name__!="",project!="shop"}`, `{__name__!="",project=""} or orders`, `orders offset 10m`, `orders offset -1s`, `orders @ end()`,
		`orders @ start()`, `{__name__!="",color!=""}`, `max_over_time(orders[15m:1m])`, `count_over_time({__name__=~".+"}[15m])`, `max_over_time((orders or {color="black"})[15m:30s] offset 10s)`,
		`orders or on () {project="blog"}`, `{__name__="orders",project="blog"} or {__name__="orders",project="shopping"}`, `group by (project, color) ({color=~".+"})`,
		`count_values by (project, color) ("n", {__name__=~".+"})`, `label_replace({__name__=~".+"}, "project", "shop", "project", ".*")`, `absent(orders{project="shop"}) or {project=~".+"}`,
		`sort_desc({__name__=~"o.*"})`, `topk(100, {__name__=~".+"})`, `orders * on () group_right () orders{project="blog"}`, `last_over_time({project="blog"}[1h] @ ` + now.Format("20060102") + `)`,
		`{"orders", project="blog"}`, `{__name__=~".+", project=~"shop|blog"}`, `absent_over_time({project="shop"}[1h]) or {project="blog"}`,
	} {
		form := url.Values{"query": {expr}, "stats": {"all"}, "project": {""}}
		for _, method := range []string{"GET", "POST"} {
			code, body := ask([]string{"shop"}, method, "/api/v1/query", form.Encode())
			if code != 200 {
				t.Errorf("%s %s: %d %s", method, expr, code, body)
			}
			quiet(expr, body)
			form := url.Values{"query": {expr}, "start": {now.Add(-5 * time.Minute).Format(time.RFC3339)}, "end": {now.Format(time.RFC3339)}, "step": {"15"}}
			_, body = ask([]string{"shop"}, method, "/api/v1/query_range", form.Encode())
			quiet("a range of "+expr, body)
		}
	}
	// A question in the URL and another in the body, and a parameter that names another project.
	_, body := ask([]string{"shop"}, "POST", `/api/v1/query?query=%7Bproject%3D"blog"%7D&project=blog`, "query=orders&project=blog")
	quiet("two questions", body)
	if code, body := ask([]string{"shop"}, "GET", "/api/v1/query", "query=orders"); code != 200 || !strings.Contains(body, "green") {
		t.Errorf("its own: %d %s", code, body)
	}
	for _, q := range []string{
		"/api/v1/series?match[]={__name__=~\".%2B\"}", "/api/v1/series?match[]=orders&match[]={project=\"blog\"}", "/api/v1/labels", "/api/v1/labels?match[]={project=\"blog\"}",
		"/api/v1/label/__name__/values", "/api/v1/label/project/values", "/api/v1/label/color/values", "/api/v1/label/color/values?match[]={project=\"blog\"}&match[]={__name__=~\".%2B\"}",
		"/api/v1/label/project/values?match[]={project!~\"shop\",color=~\".%2B\"}", "/api/v1/series?match[]={project=~\"\",color!=\"\"}&match[]={color!=\"\"}",
	} {
		code, body := ask([]string{"shop"}, "GET", q, "")
		if code != 200 {
			t.Errorf("%s: %d %s", q, code, body)
		}
		quiet(q, body)
	}
	for _, path := range []string{"/api/v1/series", "/api/v1/labels"} {
		_, body := ask([]string{"shop"}, "POST", path, url.Values{"match[]": {`{__name__=~".+"}`, `{project="blog"}`}}.Encode())
		quiet("POST "+path, body)
		if !strings.Contains(body, "color") {
			t.Errorf("POST %s: %s", path, body)
		}
	}
	// Several: each of them, by its name and not as an expression.
	code, body := ask([]string{"shop", "a.b"}, "GET", "/api/v1/label/color/values", "")
	if code != 200 || !strings.Contains(body, `["green","white"]`) {
		t.Errorf("two projects: %d %s", code, body)
	}
	quiet("two projects", body, "white")

	ruled(t, d)
	exemplify(t, d, now, points)
	for path, want := range map[string]string{
		"/api/v1/status/buildinfo":                                               `"version":"3.`,
		"/api/v1/format_query?query=sum(orders)by(color)":                        `sum by (color) (orders)`,
		"/api/v1/parse_query?query=orders{project=\"shop\"}":                     `"vectorSelector"`,
		"/api/v1/metadata":                                                       `"Orders that were placed."`,
		"/api/v1/metadata?metric=orders":                                         `"Orders that were placed."`,
		"/api/v1/metadata?metric=secretname":                                     `"data":{}`,
		"/api/v1/query_exemplars?query=orders":                                   `"trace-green"`,
		"/api/v1/query_exemplars?query=orders{project=\"blog\"}":                 `"data":[]`,
		"/api/v1/query_exemplars?query={color!=\"\",project!=\"shop\"}":          `"data":[]`,
		"/api/v1/query_exemplars?query={color=~\".%2B\"}-on(){project=\"blog\"}": `"trace-green"`,
		"/api/v1/rules":                            `"name":"Ours"`,
		"/api/v1/rules?type=alert":                 `"name":"Ours"`,
		"/api/v1/rules?type=record":                `"name":"ours:rate"`,
		"/api/v1/rules?exclude_alerts=true":        `"name":"Ours"`,
		"/api/v1/rules?match[]={severity=\"low\"}": `"name":"Ours"`,
		"/api/v1/rules?match[]={severity=\"low\"}&match[]={project=\"blog\"}": `"name":"Ours"`,
		"/api/v1/rules?match[]={project=\"blog\"}":                            `"groups":[]`,
		"/api/v1/rules?match[]={severity=~\".*\"}":                            `"name":"Ours"`,
		"/api/v1/rules?rule_name[]=Theirsblack":                               `"groups":[]`,
		"/api/v1/rules?rule_name[]=Everywherebrown&rule_name[]=Ours":          `"name":"Ours"`,
		"/api/v1/rules?rule_group[]=mixed&file[]=here":                        `"name":"Ours"`,
		"/api/v1/rules?group_limit=1":                                         `"name":"Ours"`,
		"/api/v1/alerts":                                                      `"alertname":"Ours"`,
	} {
		path = strings.NewReplacer("{", "%7B", "}", "%7D", "\"", "%22").Replace(path)
		// An alert of a rule for all, which is theirs by its label, says so once it is evaluated.
		until(t, path+" with "+want, func() bool {
			code, body := ask([]string{"shop"}, "GET", path, "")
			quiet(path, strings.ReplaceAll(body, "Everywherebrown", ""))
			return code == 200 && strings.Contains(body, want)
		})
	}
	until(t, "an alert of it of a rule for all", func() bool {
		_, body := ask([]string{"shop"}, "GET", "/api/v1/alerts", "")
		return strings.Contains(body, "Everywherebrown") && strings.Contains(body, `"Ours"`)
	})
	_, body = ask([]string{"shop"}, "POST", "/api/v1/query_exemplars?query=%7Bproject%3D%22blog%22%7D", url.Values{"query": {`{color=~".+"}`}}.Encode())
	if quiet("exemplars by POST", body); !strings.Contains(body, "trace-green") {
		t.Errorf("exemplars by POST: %s", body)
	}
	for _, path := range []string{"/api/v1/rules", "/api/v1/alerts", "/api/v1/metadata"} {
		code, body := ask([]string{"shop"}, "POST", path, "match[]={project=\"blog\"}")
		if quiet("POST "+path, body); code == 200 {
			t.Errorf("POST %s: %s", path, body)
		}
	}
	for path, want := range map[string]int{"/api/v1/rules?match[]=%7B": 400, "/api/v1/rules?type=x": 400, "/api/v1/metadata?limit=x": 400, "/api/v1/query_exemplars": 400} {
		if code, body := ask([]string{"shop"}, "GET", path, ""); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}

	for _, k := range []struct{ method, path string }{
		{"GET", "/federate"},
		{"GET", "/api/v1/targets"},
		{"GET", "/api/v1/targets/metadata"},
		{"GET", "/api/v1/status/config"},
		{"GET", "/api/v1/status/tsdb"},
		{"POST", "/api/v1/read"},
		{"POST", "/api/v1/write"},
		{"POST", "/api/v1/otlp/v1/metrics"},
		{"DELETE", "/api/v1/series"},
		{"GET", "/api/v1/alertmanagers"},
		{"GET", "/api/v1/query/"},
		{"GET", "/api/v1/label/a/b/values"},
		{"GET", "/api/v1/status/tsdb/query"},
		{"POST", "/-/reload"},
		{"GET", "/api/v1/scrape_pools"},
		{"PUT", "/api/v1/query"},
		{"GET", "/api/v1/features"},
		{"GET", "/api/v1/status/runtimeinfo"},
		{"GET", "/api/v1/status/flags"},
		{"GET", "/api/v1/status/buildinfo/../config"},
		{"GET", "/api/v1/rules/"},
		{"GET", "/api/v1/metadata/x"},
		{"DELETE", "/api/v1/rules"},
	} {
		if code, body := ask([]string{"shop"}, k.method, k.path, ""); code != 403 || !strings.Contains(body, "this token is for shop only") {
			t.Errorf("%s %s: %d %s", k.method, k.path, code, body)
		}
	}
	q, err := confined{d.all}.Querier(0, now.UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, _, err := q.LabelNames(t.Context(), nil); err == nil || q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "project", "blog")).Err() == nil {
		t.Error("one whose context says nothing is answered")
	}
	for _, none := range [][]string{nil, {}, {""}} {
		if code, body := ask(none, "GET", "/api/v1/query", "query=ofnobody"); code != 403 {
			t.Errorf("%q: %d %s", none, code, body)
		}
	}
}

// ruled has rules of two projects in one group, and one for all.
func ruled(t *testing.T, d *DB) {
	t.Helper()
	r, err := NewRules(d, RulesOptions{Every: 100 * time.Millisecond, Notify: func(context.Context, []Firing) {}})
	if err != nil {
		t.Fatal(err)
	}
	of := func(project string) map[string]string {
		return map[string]string{"project": project, "severity": "low"}
	}
	if err := r.Set([]Group{{Source: "here", Name: "mixed", Rules: []Rule{
		{Alert: "Ours", Expr: `orders{project="shop"} > 0`, Labels: of("shop")},
		{Alert: "Theirsblack", Expr: `orders{project="blog"} > 0`, Labels: of("blog"), Annotations: map[string]string{"summary": "pink"}},
		{Record: "ours:rate", Expr: `vector(1)`, Labels: of("shop")},
		{Record: "theirs:black", Expr: `vector(1)`, Labels: of("blog")},
		{Alert: "Everywherebrown", Expr: `orders{project!=""} > 0`},
	}}, {Source: "there", Name: "shopping", Rules: []Rule{{Alert: "Grey", Expr: `vector(1)`, Labels: of("shopping")}}}}); err != nil {
		t.Fatal(err)
	}
	d.SetRules(r)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// exemplify gives each series an exemplar that names its color.
func exemplify(t *testing.T, d *DB, at time.Time, points []sample.Point) {
	t.Helper()
	app := d.Appendable().AppenderV2(t.Context())
	for _, p := range points {
		l := labelsOf(p.Series)
		e := exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "trace-"+l.Get("color")), Value: 1, Ts: at.UnixMilli() + 1}
		if _, err := app.Append(0, l, 0, at.UnixMilli()+1, 1, nil, nil, storage.AOptions{Exemplars: []exemplar.Exemplar{e}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

// What rounds bring has a type and a help as what is scraped has.
func TestMetadataOfWhatIsSampled(t *testing.T) {
	d := open(t, Options{})
	oom := series("container_oom_events_total", "instance", "a")
	oom.Help, oom.Kind = "Count of out of memory events", sample.Counter
	load := series("node_load1")
	load.Help = "1m load average."
	if err := d.Keep(t.Context(), sample.Round{Source: "host", At: time.Now(), Points: []sample.Point{{Series: oom}, {Series: load}}}); err != nil {
		t.Fatal(err)
	}
	h := d.API()
	for query, want := range map[string]string{
		"":                        `{"container_oom_events_total":[{"type":"counter","unit":"","help":"Count of out of memory events"}],"node_load1":[{"type":"gauge","unit":"","help":"1m load average."}]}`,
		"?metric=node_load1":      `{"node_load1":[{"type":"gauge","unit":"","help":"1m load average."}]}`,
		"?limit=1":                `{"container_oom_events_total":[{"type":"counter","unit":"","help":"Count of out of memory events"}]}`,
		"?metric=unheard&limit=3": `{}`,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/metadata"+query, nil))
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != `{"data":`+want+`,"status":"success"}` {
			t.Errorf("%s: %d %s", query, w.Code, got)
		}
	}
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/metadata?limit=x", nil)); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
