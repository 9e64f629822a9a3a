package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender/internal/api"
)

// chartRows is how many steps a chart has at most, and chartWidth how wide its bars are.
const (
	chartRows  = 30
	chartWidth = 48
)

// chartSteps are the steps that a chart may have.
var chartSteps = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
	15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour,
}

// failings are the levels that count as errors.
var failings = []string{"error", "err", "fatal", "critical", "crit", "panic", "alert", "emerg", "emergency"}

// logNumbers prints a metric query, or how many lines there are over time.
func (a *app) logNumbers(ctx context.Context, r api.LogRequest, index int, metric, chart bool, p *logPrinter) error {
	project, d, err := a.aimed(ctx, &r, index, p)
	if err != nil {
		return err
	}
	n := api.LogNumbers{Query: r.Query, End: r.Until}
	if n.End.IsZero() {
		n.End = time.Now()
	}
	if chart {
		if n.Start = r.Since; n.Start.IsZero() {
			n.Start = n.End.Add(-time.Hour)
		}
		if !n.Start.Before(n.End) {
			return misuse("an earlier --since, or a later --until", "logs: there is no time between --since and --until")
		}
		n.Step = stepOf(n.End.Sub(n.Start))
		n.Start = n.Start.Truncate(n.Step).Add(n.Step) // each looks back over one step
		n.End = n.End.Add(n.Step - 1).Truncate(n.Step)
		if !metric {
			n.Query = "sum by (detected_level) (count_over_time(" + selecting(r) + " [" + strconv.Itoa(int(n.Step/time.Second)) + "s]))"
		}
	}
	series, err := d.LogNumbers(ctx, project, n)
	if err != nil {
		return fmt.Errorf("logs %s: %w", project, err)
	}
	if a.json {
		return printJSON(a.Out, series)
	}
	if chart {
		return a.chart(series, n, p.colour)
	}
	rows := [][]string{}
	for _, s := range series {
		for _, v := range s.Values {
			rows = append(rows, []string{labelText(s.Labels), strconv.FormatFloat(v.Value, 'f', -1, 64)})
		}
	}
	return table(a.Out, []string{"LABELS", "VALUE"}, rows)
}

// selecting is the log query for a request: of a whole query the services are
// already said.
func selecting(r api.LogRequest) string {
	if strings.HasPrefix(r.Query, "{") {
		return r.Query
	}
	var l []string
	if r.Instance != "" {
		l = append(l, "instance="+strconv.Quote(r.Instance))
	}
	if len(r.Services) > 0 {
		quoted := []string{}
		for _, s := range r.Services {
			quoted = append(quoted, regexp.QuoteMeta(s))
		}
		l = append(l, "service=~"+strconv.Quote(strings.Join(quoted, "|")))
	}
	return strings.TrimSpace("{" + strings.Join(l, ", ") + "} " + r.Query)
}

func stepOf(whole time.Duration) time.Duration {
	for _, s := range chartSteps {
		if whole/s < chartRows {
			return s
		}
	}
	return (whole / chartRows).Truncate(time.Hour) + time.Hour
}

func labelText(l map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(l)) {
		out = append(out, k+"="+l[k])
	}
	return cmp.Or(strings.Join(out, " "), "-")
}

// chart prints a bar for each step; errors come first in it, in red where there are
// colours.
func (a *app) chart(series []api.LogSeries, n api.LogNumbers, colour bool) error {
	type bar struct{ all, failing float64 }
	bars := map[int64]bar{}
	most, all, failing := 0.0, 0.0, 0.0
	for _, s := range series {
		bad := slices.Contains(failings, strings.ToLower(s.Labels["detected_level"]))
		for _, v := range s.Values {
			b := bars[v.Time.UnixNano()]
			b.all += v.Value
			all += v.Value
			if bad {
				b.failing += v.Value
				failing += v.Value
			}
			bars[v.Time.UnixNano()] = b
			most = max(most, b.all)
		}
	}
	layout := "15:04:05"
	switch {
	case n.End.Sub(n.Start) > 20*time.Hour:
		layout = "2006-01-02 15:04"
	case n.Step >= time.Minute:
		layout = "15:04"
	}
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	wide := max(len("LINES"), len(number(all)))
	format := fmt.Sprintf("%%-%ds  %%%ds  %%%ds  %%s\n", max(len(layout), len("whole")), wide, max(len("ERRORS"), len(number(failing))))
	var out strings.Builder
	fmt.Fprintf(&out, strings.TrimSuffix(format, "  %s\n")+"\n", "TIME", "LINES", "ERRORS")
	for t := n.Start; !t.After(n.End); t = t.Add(n.Step) {
		b := bars[t.UnixNano()]
		length := func(v float64) int {
			if v <= 0 {
				return 0
			}
			return max(1, int(v/most*chartWidth+0.5))
		}
		red, rest := length(b.failing), length(b.all)
		rest = max(0, rest-red)
		text := strings.Repeat("█", red)
		if colour && red > 0 {
			text = "\x1b[31m" + text + "\x1b[0m"
		}
		line := fmt.Sprintf(format, t.Add(-n.Step).Local().Format(layout), number(b.all), number(b.failing), text+strings.Repeat("█", rest))
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	fmt.Fprintf(&out, strings.TrimSuffix(format, "  %s\n")+"\n", "whole", number(all), number(failing))
	_, err := fmt.Fprint(a.Out, out.String())
	return err
}
