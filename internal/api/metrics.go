package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender"
)

// The API of Prometheus, version 1, as the daemon mounts it.
const prometheus = "/api/v1"

// largestAnswer is how much of an answer is read, in bytes.
const largestAnswer = 256 << 20

// Figures are the answer to an expression of PromQL.
type Figures struct {
	Kind     string // vector, matrix, scalar or string, as Prometheus calls them
	Series   []FigureSeries
	Text     string   // of a string
	Warnings []string // beside the answer
	Raw      json.RawMessage
}

// FigureSeries is one series of Figures: one value of a vector or scalar, many of a matrix.
type FigureSeries struct {
	Labels map[string]string
	Values []Figure
	// Histograms holds native histograms in short: count, sum and the mean of what was observed.
	Histograms []Histogram
}

// Figure is a value at a time; it may be NaN or infinite.
type Figure struct {
	Time  time.Time
	Value float64
}

// Histogram is a native one in short.
type Histogram struct {
	Time       time.Time
	Count, Sum float64
}

// ScrapeTarget is what the daemon scrapes, and how it fares.
type ScrapeTarget struct {
	Job        string            `json:"job"`
	URL        string            `json:"url"`
	Labels     map[string]string `json:"labels"`
	Health     string            `json:"health"`               // up, down or unknown: not scraped yet
	LastScrape time.Time         `json:"last_scrape,omitzero"` // zero: not yet
	Duration   float64           `json:"duration"`             // of the last scrape, in seconds
	Interval   string            `json:"interval"`
	Timeout    string            `json:"timeout"`
	Error      string            `json:"error,omitempty"`
}

// QueryError says what is wrong with an expression, and where. Its kind is tender.Invalid.
type QueryError struct {
	Line, Column int // from 1
	err          *tender.Error
}

func (e *QueryError) Error() string { return e.err.Error() }
func (e *QueryError) Unwrap() error { return e.err }

// QueryMetrics answers an expression at one time. within: of one project alone; "": of all.
func (c *Client) QueryMetrics(ctx context.Context, expr, within string, at time.Time) (Figures, error) {
	return c.figures(ctx, "/query", url.Values{"query": {expr}, "time": {seconds(at)}}, within)
}

// QueryMetricsRange answers it for a span of time, one value for each step.
func (c *Client) QueryMetricsRange(ctx context.Context, expr, within string, start, end time.Time, step time.Duration) (Figures, error) {
	return c.figures(ctx, "/query_range", url.Values{
		"query": {expr}, "start": {seconds(start)}, "end": {seconds(end)}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	}, within)
}

// MetricTargets lists what is scraped.
func (c *Client) MetricTargets(ctx context.Context) ([]ScrapeTarget, error) {
	a, err := c.prometheus(ctx, call{method: http.MethodGet, path: prometheus + "/targets?state=active", root: true})
	if err != nil {
		return nil, err
	}
	var data struct {
		ActiveTargets []struct {
			ScrapePool         string            `json:"scrapePool"`
			ScrapeURL          string            `json:"scrapeUrl"`
			Labels             map[string]string `json:"labels"`
			Health             string            `json:"health"`
			LastError          string            `json:"lastError"`
			LastScrape         time.Time         `json:"lastScrape"`
			LastScrapeDuration float64           `json:"lastScrapeDuration"`
			ScrapeInterval     string            `json:"scrapeInterval"`
			ScrapeTimeout      string            `json:"scrapeTimeout"`
		} `json:"activeTargets"`
	}
	if err := json.Unmarshal(a.Data, &data); err != nil {
		return nil, c.strange(err)
	}
	out := make([]ScrapeTarget, 0, len(data.ActiveTargets))
	for _, t := range data.ActiveTargets {
		job := t.Labels["job"]
		if job == "" {
			job = t.ScrapePool
		}
		out = append(out, ScrapeTarget{
			Job: job, URL: t.ScrapeURL, Labels: t.Labels, Health: t.Health, LastScrape: t.LastScrape, Duration: t.LastScrapeDuration,
			Interval: t.ScrapeInterval, Timeout: t.ScrapeTimeout, Error: t.LastError,
		})
	}
	return out, nil
}

func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

// figures asks by POST: expressions may be longer than a URL.
func (c *Client) figures(ctx context.Context, path string, form url.Values, within string) (Figures, error) {
	if within != "" {
		form.Set("project", within)
	}
	a, err := c.prometheus(ctx, call{
		method: http.MethodPost, path: prometheus + path, root: true,
		body: strings.NewReader(form.Encode()), kind: "application/x-www-form-urlencoded",
	})
	if err != nil {
		return Figures{}, err
	}
	f := Figures{Warnings: append(a.Warnings, a.Infos...), Raw: a.Data}
	if err := f.read(a.Data); err != nil {
		return Figures{}, c.strange(err)
	}
	return f, nil
}

// envelope is what every answer of Prometheus' API comes in.
type envelope struct {
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
	Infos     []string        `json:"infos"`
}

func (c *Client) strange(err error) error {
	return tender.Errorf(tender.Unavailable, "read the answer of %s: %w", c.host, err)
}

func (c *Client) prometheus(ctx context.Context, r call) (envelope, error) {
	req, err := c.request(ctx, r)
	if err != nil {
		return envelope{}, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return envelope{}, c.unreachable(ctx, err)
	}
	defer resp.Body.Close() //nolint:errcheck // what was read of it counts
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode == http.StatusNotFound && kind == "application/problem+json":
		return envelope{}, tender.Errorf(tender.Unavailable, "the daemon at %s keeps no metrics", c.host).
			Hint("it is older than they are: tender upgrade")
	case kind == "text/plain" && resp.StatusCode >= 300: // a daemon without metrics says why
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		said, hint, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
		return envelope{}, tender.Errorf(kindOf(resp.StatusCode), "%s", said).Hint("%s", orElse(hint, "tender status"))
	case kind != "application/json":
		if resp.StatusCode >= 300 {
			return envelope{}, c.refused(resp)
		}
		return envelope{}, c.strange(fmt.Errorf("it is %s, not JSON", orElse(kind, "nothing")))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, largestAnswer+1))
	if err == nil && len(body) > largestAnswer {
		return envelope{}, tender.Errorf(tender.Invalid, "the answer is larger than %d MiB", largestAnswer>>20).Hint("ask for less: a longer step, or sum by (service)")
	}
	var a envelope
	if err == nil {
		err = json.Unmarshal(body, &a)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return envelope{}, context.Cause(ctx)
	case err != nil:
		return envelope{}, c.strange(err)
	case a.Status != "success":
		return envelope{}, queryError(a.ErrorType, a.Error)
	}
	return a, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

var (
	parameter = regexp.MustCompile(`^invalid parameter "query": `)
	position  = regexp.MustCompile(`^(\d+):(\d+): (?:parse error: )?`)
)

// queryError turns what Prometheus says into an error of ours. kind is its errorType.
func queryError(kind, text string) error {
	text = parameter.ReplaceAllString(text, "")
	k := tender.Invalid
	switch kind {
	case "timeout", "canceled", "unavailable":
		k = tender.Unavailable
	case "internal":
		k = tender.Internal
	case "not_found":
		k = tender.NotFound
	}
	m := position.FindStringSubmatch(text)
	switch {
	case m == nil && kind == "timeout":
		return tender.Errorf(k, "%s", text).Hint("ask for less: a shorter span, a longer step, or fewer series")
	case m == nil:
		return tender.Errorf(k, "%s", text)
	}
	line, _ := strconv.Atoi(m[1])
	column, _ := strconv.Atoi(m[2])
	return &QueryError{Line: line, Column: column, err: tender.Errorf(k, "%s", text[len(m[0]):])}
}

func (f *Figures) read(data []byte) error {
	var d struct {
		Kind   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	switch f.Kind = d.Kind; d.Kind {
	case "scalar":
		var p pair
		if err := json.Unmarshal(d.Result, &p); err != nil {
			return err
		}
		f.Series = []FigureSeries{{Values: []Figure{Figure(p)}}}
	case "string":
		var p [2]any
		if err := json.Unmarshal(d.Result, &p); err != nil {
			return err
		}
		f.Text, _ = p[1].(string)
	case "vector", "matrix":
		var list []struct {
			Metric     map[string]string `json:"metric"`
			Value      *pair             `json:"value"`
			Values     []pair            `json:"values"`
			Histogram  *bell             `json:"histogram"`
			Histograms []bell            `json:"histograms"`
		}
		if err := json.Unmarshal(d.Result, &list); err != nil {
			return err
		}
		for _, s := range list {
			if s.Value != nil {
				s.Values = append(s.Values, *s.Value)
			}
			if s.Histogram != nil {
				s.Histograms = append(s.Histograms, *s.Histogram)
			}
			o := FigureSeries{Labels: s.Metric}
			for _, v := range s.Values {
				o.Values = append(o.Values, Figure(v))
			}
			for _, h := range s.Histograms {
				o.Histograms = append(o.Histograms, Histogram(h))
			}
			f.Series = append(f.Series, o)
		}
	default:
		return fmt.Errorf("a result of the type %q", d.Kind)
	}
	return nil
}

// pair is [seconds, "value"].
type pair Figure

func (p *pair) UnmarshalJSON(b []byte) error {
	at, rest, err := stamped(b)
	if err != nil {
		return err
	}
	var s string
	if err := json.Unmarshal(rest, &s); err != nil {
		return err
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return err
	}
	p.Time, p.Value = at, v
	return nil
}

// bell is [seconds, {"count": "value", "sum": "value", "buckets": ...}].
type bell Histogram

func (h *bell) UnmarshalJSON(b []byte) error {
	at, rest, err := stamped(b)
	if err != nil {
		return err
	}
	var v struct{ Count, Sum string }
	if err := json.Unmarshal(rest, &v); err != nil {
		return err
	}
	count, err1 := strconv.ParseFloat(v.Count, 64)
	sum, err2 := strconv.ParseFloat(v.Sum, 64)
	*h = bell{Time: at, Count: count, Sum: sum}
	return errors.Join(err1, err2)
}

func stamped(b []byte) (time.Time, json.RawMessage, error) {
	var two []json.RawMessage
	if err := json.Unmarshal(b, &two); err != nil {
		return time.Time{}, nil, err
	}
	if len(two) != 2 {
		return time.Time{}, nil, errors.New("a value must be a time and a number")
	}
	s, err := strconv.ParseFloat(string(two[0]), 64)
	if err != nil || math.IsNaN(s) || math.Abs(s) > 1e15 {
		return time.Time{}, nil, fmt.Errorf("%s is no time", two[0])
	}
	return time.UnixMilli(int64(math.Round(s * 1000))), two[1], nil
}
