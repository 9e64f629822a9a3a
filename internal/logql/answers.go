package logql

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// result is the data of query and query_range.
type result struct {
	Type     string   `json:"resultType"`
	Result   any      `json:"result"`
	Flags    []string `json:"encodingFlags,omitempty"`
	Stats    any      `json:"stats"`
	Warnings []string `json:"warnings,omitempty"`
}

// streamed is a stream with its lines: each the time in nanoseconds, the text and,
// if labels are to be told apart, where they come from.
type streamed struct {
	Stream map[string]string `json:"stream"`
	Values [][]any           `json:"values"`
}

type sampled struct {
	Metric map[string]string `json:"metric"`
	Value  []any             `json:"value,omitempty"`
	Values [][]any           `json:"values,omitempty"`
}

// apart is the encoding flag with which a client says that it wants to know which
// labels are of the stream, which are stored with the line and which parsed.
const apart = "categorize-labels"

func wantsApart(r *http.Request) bool {
	for _, h := range r.Header.Values("X-Loki-Response-Encoding-Flags") {
		for f := range strings.SplitSeq(h, ",") {
			if strings.TrimSpace(f) == apart {
				return true
			}
		}
	}
	return false
}

func fieldsOf(l []logs.Field) map[string]string {
	m := make(map[string]string, len(l))
	for _, f := range l {
		m[f.Name] = f.Value
	}
	return m
}

// streams sorts lines into streams, in the order in which those appear.
func streams(lines []Line, split bool) []streamed {
	out := []streamed{}
	at := map[string]int{}
	for _, l := range lines {
		labels := logs.Labels(l.Stream)
		value := []any{strconv.FormatInt(l.Time.UnixNano(), 10), l.Text}
		if split {
			more := map[string]map[string]string{}
			if len(l.Fields) > 0 {
				more["structuredMetadata"] = fieldsOf(l.Fields)
			}
			if len(l.Parsed) > 0 {
				more["parsed"] = fieldsOf(l.Parsed)
			}
			value = append(value, more)
		} else {
			labels = entry{l.Stream, l.Meta, l.Parsed}.merged()
		}
		key := labels.String()
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			out = append(out, streamed{Stream: fieldsOf(labels)})
		}
		out[i].Values = append(out[i].Values, value)
	}
	return out
}

func flags(split bool) []string {
	if split {
		return []string{apart}
	}
	return nil
}

func decimal(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	case math.IsNaN(v):
		return "NaN"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func stamp(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func vectorAt(series []Series, at time.Time) []sampled {
	out := []sampled{}
	for _, s := range series {
		if v := s.Values[0]; !absent(v) {
			out = append(out, sampled{Metric: fieldsOf(s.Labels), Value: []any{stamp(at), decimal(v)}})
		}
	}
	return out
}

func matrix(series []Series, start time.Time, step time.Duration) []sampled {
	out := []sampled{}
	for _, s := range series {
		x := sampled{Metric: fieldsOf(s.Labels)}
		for i, v := range s.Values {
			if !absent(v) {
				x.Values = append(x.Values, []any{stamp(start.Add(time.Duration(i) * step)), decimal(v)})
			}
		}
		if x.Values != nil {
			out = append(out, x)
		}
	}
	return out
}

// spent are the numbers that clients show below a result.
func spent(began time.Time, lines, bytes int) any {
	took := time.Since(began).Seconds()
	per := func(n int) int { return int(float64(n) / max(took, 1e-6)) }
	return map[string]any{
		"summary": map[string]any{
			"bytesProcessedPerSecond": per(bytes), "linesProcessedPerSecond": per(lines), "totalBytesProcessed": bytes, "totalLinesProcessed": lines,
			"execTime": took, "queueTime": 0, "subqueries": 0, "totalEntriesReturned": lines, "splits": 0, "shards": 0,
		},
		"querier": map[string]any{"store": map[string]any{}}, "ingester": map[string]any{"store": map[string]any{}}, "cache": map[string]any{},
	}
}

func (l *loki) query(r *http.Request) (any, error) {
	began := time.Now()
	x, err := Parse(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	at, err := instant(r, "time", began)
	if err != nil {
		return nil, err
	}
	if !x.metric() {
		return nil, tender.Errorf(tender.Invalid, "log queries are not supported as an instant query type, please change your query to a range query type")
	}
	series, err := l.engine.Series(r.Context(), x, Steps{Start: at, End: at})
	if err != nil {
		return nil, err
	}
	d := result{Type: "vector", Result: vectorAt(series, at), Stats: spent(began, 0, 0)}
	if b, ok := x.(*binary); ok && scalar(b) || isNumber(x) {
		d.Type, d.Result = "scalar", []any{stamp(at), decimal(series[0].Values[0])}
	}
	return success{"success", d}, nil
}

func isNumber(x Expr) bool {
	_, ok := x.(*literal)
	return ok
}

func (l *loki) queryRange(r *http.Request) (any, error) {
	began := time.Now()
	x, err := Parse(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	start, end, err := spanOf(r, time.Hour)
	if err != nil {
		return nil, err
	}
	if x.metric() {
		step, err := stepOf(r, start, end)
		if err != nil {
			return nil, err
		}
		series, err := l.engine.Series(r.Context(), x, Steps{start, end, step})
		if err != nil {
			return nil, err
		}
		return success{"success", result{Type: "matrix", Result: matrix(series, start, step), Stats: spent(began, 0, 0)}}, nil
	}
	o := Lines{From: start, To: end}
	if o.Limit, err = count(r, "limit", 100, l.engine.limits.Entries); err != nil {
		return nil, err
	}
	if o.Backward, err = backward(r); err != nil {
		return nil, err
	}
	if o.Every, err = lapse(r, "interval", 0); err != nil {
		return nil, err
	}
	lines, err := l.engine.Lines(r.Context(), x, o)
	if err != nil {
		return nil, err
	}
	bytes := 0
	for _, x := range lines {
		bytes += len(x.Text)
	}
	split := wantsApart(r)
	return success{"success", result{Type: "streams", Result: streams(lines, split), Flags: flags(split), Stats: spent(began, len(lines), bytes)}}, nil
}

func (l *loki) format(r *http.Request) (any, error) {
	x, err := Parse(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	return success{"success", x.String()}, nil
}
