package api_test

import (
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// Answers as the documentation of Prometheus' API has them must be understood, and its errors.
func TestAskingPrometheus(t *testing.T) {
	var asked string
	says := func(status int, kind, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_ = r.ParseForm()
			asked = r.Method + " " + r.URL.Path + " " + r.PostForm.Encode()
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
		}
	}
	var now http.HandlerFunc
	host, _ := serve(t, "unix", &fake{}, api.Options{Mounts: map[string]http.Handler{
		"/api/v1/": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { now(w, r) }),
	}})
	c := dial(t, host, "")
	at := time.UnixMilli(1435781451781)

	now = says(200, "application/json", `{"status":"success","data":{"resultType":"vector","result":[
		{"metric":{"__name__":"up","job":"node"},"value":[1435781451.781,"NaN"]},
		{"metric":{"__name__":"h"},"histogram":[1435781451.781,{"count":"4","sum":"10","buckets":[[1,"-1","1","4"]]}]}]},"warnings":["w"],"infos":["i"]}`)
	f, err := c.QueryMetrics(t.Context(), "up", "shop", at)
	if err != nil || f.Kind != "vector" || len(f.Series) != 2 || f.Series[0].Labels["job"] != "node" || !math.IsNaN(f.Series[0].Values[0].Value) ||
		!f.Series[0].Values[0].Time.Equal(at) || f.Series[1].Histograms[0].Sum != 10 || len(f.Warnings) != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	if asked != "POST /api/v1/query project=shop&query=up&time=1435781451.781" {
		t.Errorf("asked %s", asked)
	}

	now = says(200, "application/json", `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"],[2,"+Inf"]]}]}}`)
	f, err = c.QueryMetricsRange(t.Context(), "sum(up)", "", at, at.Add(time.Hour), 1500*time.Millisecond)
	if err != nil || len(f.Series) != 1 || len(f.Series[0].Values) != 2 || !math.IsInf(f.Series[0].Values[1].Value, 1) {
		t.Errorf("%+v, %v", f, err)
	}
	if asked != "POST /api/v1/query_range end=1435785051.781&query=sum%28up%29&start=1435781451.781&step=1.5" {
		t.Errorf("asked %s", asked)
	}

	for text, want := range map[string]string{
		`{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"3"]}}`: "scalar",
		`{"status":"success","data":{"resultType":"string","result":[1435781451.781,"x"]}}`: "string",
	} {
		now = says(200, "application/json", text)
		if f, err := c.QueryMetrics(t.Context(), "1", "", at); err != nil || f.Kind != want || want == "string" && f.Text != "x" || want == "scalar" && f.Series[0].Values[0].Value != 3 {
			t.Errorf("%+v, %v", f, err)
		}
	}

	now = says(400, "application/json", `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 2:7: parse error: unexpected end of input"}`)
	_, err = c.QueryMetrics(t.Context(), "sum(\nrate(", "", at)
	q, ok := errors.AsType[*api.QueryError](err)
	if !ok || q.Line != 2 || q.Column != 7 || q.Error() != "unexpected end of input" || tender.KindOf(err) != tender.Invalid {
		t.Errorf("%+v", err)
	}

	for _, k := range []struct {
		answer http.HandlerFunc
		kind   tender.Kind
	}{
		{says(503, "application/json", `{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}`), tender.Unavailable},
		{says(422, "application/json", `{"status":"error","errorType":"execution","error":"many-to-many matching not allowed"}`), tender.Invalid},
		{says(503, "text/plain; charset=utf-8", "metrics are off\n"), tender.Unavailable},
		{says(503, "text/plain; charset=utf-8", "metrics are off\ntender serve --metrics on\n"), tender.Unavailable},
		{says(200, "text/html", "<html>"), tender.Unavailable},
		{says(200, "application/json", `{"status":"success","data":{"resultType":"vector","result":[{"value":[1]}]}}`), tender.Unavailable},
		{says(200, "application/json", `{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"x"]}]}}`), tender.Unavailable},
		{says(200, "application/json", `{"status":"success","data":{"resultType":"table","result":[]}}`), tender.Unavailable},
		{says(200, "application/json", `{`), tender.Unavailable},
	} {
		now = k.answer
		if f, err := c.QueryMetrics(t.Context(), "up", "", at); tender.KindOf(err) != k.kind || err == nil {
			t.Errorf("%+v, %v, want %s", f, err, k.kind)
		}
		if err != nil && strings.Contains(err.Error(), "metrics are off") && (err.Error() != "metrics are off" || !strings.HasPrefix(tender.AdviceOf(err), "tender s")) {
			t.Errorf("%q, hint %q", err, tender.AdviceOf(err))
		}
	}

	now = says(200, "application/json", `{"status":"success","data":{"activeTargets":[{"discoveredLabels":{"__address__":"127.0.0.1:9090"},"labels":{"instance":"127.0.0.1:9090"},
		"scrapePool":"prometheus","scrapeUrl":"http://127.0.0.1:9090/metrics","globalUrl":"http://example:9090/metrics","lastError":"no","lastScrape":"2017-01-17T15:07:44.723715405+01:00",
		"lastScrapeDuration":0.050688943,"health":"down","scrapeInterval":"1m","scrapeTimeout":"10s"}],"droppedTargets":[]}}`)
	l, err := c.MetricTargets(t.Context())
	if err != nil || len(l) != 1 || l[0].Job != "prometheus" || l[0].Health != "down" || l[0].Error != "no" || l[0].Duration != 0.050688943 {
		t.Errorf("%+v, %v", l, err)
	}
}

// A daemon from before there were metrics, or without.
func TestNoMetricsThere(t *testing.T) {
	host, _ := serve(t, "unix", &fake{}, api.Options{})
	_, err := dial(t, host, "").QueryMetrics(t.Context(), "up", "", time.Now())
	if tender.KindOf(err) != tender.Unavailable || tender.AdviceOf(err) == "" {
		t.Errorf("%v", err)
	}
}
