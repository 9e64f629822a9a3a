package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

func (a *app) metricsCommand() *cobra.Command {
	c := a.family("metrics", "Ask what instances, the host and the edge use", a.metricsQuery(), a.metricsTargets(), a.metricsGrafana())
	c.Long = `Figures of all instances, of the host, of the edge and of what applications export lie in a store of
Prometheus' own kind, and are asked in its language, PromQL. docs/stats.md has recipes. Grafana
and all clients of Prometheus ask the same at the daemon's address: tender metrics grafana.`
	return c
}

func (a *app) metricsQuery() *cobra.Command {
	var at, span, step string
	c := &cobra.Command{
		Use:   "query [flags] EXPR",
		Short: "Answer an expression of PromQL, as a table or a chart",
		Long: `Prints one value for each series as a table, the highest first; labels that all of them have in common
stand above it. With --range a chart shows how they went; the unit is guessed from the names of the
series. --json prints what Prometheus' API answers. All projects are asked; -p keeps to one.`,
		Example: `  tender metrics query up
  tender metrics query 'sum by (service) (rate(container_cpu_usage_seconds_total[1m]))'
  tender metrics query --range 6h 'container_memory_working_set_bytes{service="web"}'
  tender metrics query -p shop --range 1d 'sum(rate(tender_edge_requests_total[5m]))'`,
		Args: args(1, 1, "an expression of PromQL, in quotes"),
		RunE: func(c *cobra.Command, words []string) error {
			expr := words[0]
			now := time.Now()
			end, err := moment("--at", at, now)
			if err != nil {
				return err
			}
			end = cmp.Or(end, now)
			d, err := a.client()
			if err != nil {
				return err
			}
			if span == "" {
				if step != "" {
					return misuse("tender metrics query --range 1h --step "+step+" EXPR", "--step belongs to --range")
				}
				f, err := d.QueryMetrics(c.Context(), expr, a.project, end)
				if err != nil {
					return a.pointed(expr, err)
				}
				return a.figures(expr, f, end)
			}
			r, err := positive("--range", span)
			if err != nil {
				return err
			}
			width, _ := size(a.Out)
			s := roundSpan(r / time.Duration(max(width, 40)))
			if step != "" {
				if s, err = positive("--step", step); err != nil {
					return err
				}
			}
			return a.figuresOver(c.Context(), d, expr, end.Add(-r).Truncate(s), end.Truncate(s), s)
		},
	}
	c.Flags().StringVar(&at, "at", "", "at this `moment`, or with --range until then: 10m ago as 10m, 2026-01-02T15:04:05Z")
	c.Flags().StringVar(&span, "range", "", "how it went for this `long`: 1h, 7d")
	c.Flags().StringVar(&step, "step", "", "`time` from one value to the next; default: as the width has room for")
	a.inProject(c)
	return c
}

// inProject adds -p alone, for commands that read no Compose file.
func (a *app) inProject(c *cobra.Command) {
	c.Flags().StringVarP(&a.project, "project-name", "p", a.project, "of this project alone, by `name`")
	complete(c, "project-name", a.projects)
}

func positive(flag, s string) (time.Duration, error) {
	d, err := span(s)
	if err != nil || d < time.Millisecond {
		return 0, misuse("such as 30s, 15m, 6h or 7d", "%s %q is no span of time", flag, s)
	}
	return d, nil
}

// pointed prints where an expression is wrong, if the daemon has said so.
func (a *app) pointed(expr string, err error) error {
	q, ok := errors.AsType[*api.QueryError](err)
	if !ok {
		return fmt.Errorf("metrics query: %w", err)
	}
	fmt.Fprintln(a.Err, "tender: metrics query: "+q.Error())
	lines := strings.Split(expr, "\n")
	if q.Line < 1 || q.Line > len(lines) {
		return exit(failed)
	}
	// Prometheus counts bytes.
	text := lines[q.Line-1]
	before := text[:min(max(q.Column-1, 0), len(text))]
	gap := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, before)
	fmt.Fprintf(a.Err, "  %s\n  %s^\n", text, gap)
	return exit(failed)
}

// warned notes what came beside an answer.
func (a *app) warned(f api.Figures) {
	for _, w := range f.Warnings {
		a.note("%s", w)
	}
}

func (a *app) figures(expr string, f api.Figures, at time.Time) error {
	a.warned(f)
	if a.json {
		return printJSON(a.Out, f.Raw)
	}
	switch {
	case f.Kind == "string":
		_, err := fmt.Fprintln(a.Out, f.Text)
		return err
	case f.Kind == "matrix":
		return a.spelled(f)
	case len(f.Series) == 0:
		a.note("nothing: no series fits at %s", stamp(at))
		return nil
	}
	common, names := sharedLabels(f.Series)
	unit := a.quantity(expr, f.Series)
	last := func(s api.FigureSeries) float64 {
		switch {
		case len(s.Values) > 0:
			return s.Values[len(s.Values)-1].Value
		case len(s.Histograms) > 0:
			return s.Histograms[len(s.Histograms)-1].Sum
		}
		return math.NaN()
	}
	slices.SortStableFunc(f.Series, func(x, y api.FigureSeries) int {
		return cmp.Or(cmp.Compare(last(y), last(x)), strings.Compare(labelText(x.Labels), labelText(y.Labels)))
	})
	rows := [][]string{}
	for _, s := range f.Series {
		row := []string{}
		for _, n := range names {
			row = append(row, orDash(s.Labels[n]))
		}
		unit := unit
		if name := s.Labels["__name__"]; name != "" {
			unit = quantityNamed(name)
		}
		value := unit.say(last(s))
		if len(s.Values) == 0 && len(s.Histograms) > 0 {
			h := s.Histograms[len(s.Histograms)-1]
			value = fmt.Sprintf("%s observed, %s on average", sayNumber(h.Count), unit.say(h.Sum/h.Count))
		}
		rows = append(rows, append(row, value))
	}
	if head := selector(common); head != "" {
		fmt.Fprintln(a.Out, head)
	}
	heading := []string{}
	for _, n := range names {
		if n == "__name__" {
			n = "series"
		}
		heading = append(heading, strings.ToUpper(n))
	}
	heading = append(heading, "VALUE")
	if isTerminal(a.Out) {
		width, _ := size(a.Out)
		heading, rows = narrowed(heading, rows, width)
	}
	return table(a.Out, heading, rows)
}

// quantity guesses what the numbers count: by the name that the answer kept, else by
// the names in the question.
func (a *app) quantity(expr string, series []api.FigureSeries) quantity {
	if len(series) > 0 {
		if name := series[0].Labels["__name__"]; name != "" {
			return quantityNamed(name)
		}
	}
	return quantityOf(expr)
}

// spelled prints all values of series, as a selector with a range answers them.
func (a *app) spelled(f api.Figures) error {
	rows := [][]string{}
	for _, s := range f.Series {
		for _, v := range s.Values {
			rows = append(rows, []string{selector(s.Labels), stamp(v.Time), sayNumber(v.Value)})
		}
	}
	return table(a.Out, []string{"SERIES", "TIME", "VALUE"}, rows)
}

func (a *app) figuresOver(ctx context.Context, d *api.Client, expr string, start, end time.Time, step time.Duration) error {
	f, err := d.QueryMetricsRange(ctx, expr, a.project, start, end, step)
	if err != nil {
		return a.pointed(expr, err)
	}
	a.warned(f)
	if a.json {
		return printJSON(a.Out, f.Raw)
	}
	if len(f.Series) == 0 {
		a.note("nothing: no series fits from %s to %s", stamp(start), stamp(end))
		return nil
	}
	common, names := sharedLabels(f.Series)
	telling := names
	if one := tellsApart(f.Series, names); one != "" {
		telling = []string{one}
	}
	var lines []curve
	for _, s := range f.Series {
		l := curve{}
		if len(names) > 0 {
			own := map[string]string{}
			for _, n := range telling {
				own[n] = s.Labels[n]
			}
			l.name = labelText(own)
		}
		for _, v := range s.Values {
			l.points = append(l.points, point{v.Time, v.Value})
		}
		for _, h := range s.Histograms {
			l.points = append(l.points, point{h.Time, h.Sum / h.Count})
		}
		lines = append(lines, l)
	}
	highest := func(l curve) float64 {
		v := math.Inf(-1)
		for _, p := range l.points {
			if finite(p.value) {
				v = max(v, p.value)
			}
		}
		return v
	}
	slices.SortStableFunc(lines, func(x, y curve) int {
		return cmp.Or(cmp.Compare(highest(y), highest(x)), strings.Compare(x.name, y.name))
	})
	all := len(lines)
	lines = lines[:min(all, mostLines)]
	width, height := size(a.Out)
	terminal := isTerminal(a.Out)
	if !terminal {
		width, height = 80, 40
	}
	head := cmp.Or(selector(common), expr)
	c := chart{
		start: start, end: end, step: step, width: width - 1, unit: a.quantity(expr, f.Series), colour: terminal && a.getenv("NO_COLOR") == "",
		height: min(max(height-len(lines)-6, 8), 18),
	}
	if len(lines) == 1 {
		lines[0].name = cmp.Or(lines[0].name, head)
	}
	fmt.Fprintln(a.Out, clip(strings.Join(strings.Fields(head), " "), width))
	fmt.Fprint(a.Out, c.draw(lines))
	fmt.Fprint(a.Out, c.legend(lines, width-1))
	if all > len(lines) {
		a.note("%d of %d series, those with the highest values; topk(), sum by () or a label choose others", len(lines), all)
	}
	return nil
}

// sharedLabels are those that all series have with the same value, and the names of the others.
func sharedLabels(series []api.FigureSeries) (common map[string]string, names []string) {
	common = map[string]string{}
	if len(series) > 0 {
		maps.Copy(common, series[0].Labels)
	}
	all := map[string]bool{}
	for _, s := range series {
		for k := range s.Labels {
			all[k] = true
		}
		maps.DeleteFunc(common, func(k, v string) bool { got, has := s.Labels[k]; return !has || got != v })
	}
	for k := range all {
		if _, is := common[k]; !is {
			names = append(names, k)
		}
	}
	// From the large to the small, what else there is by name.
	order := []string{"__name__", "job", "node", "project", "service", "revision", "instance"}
	slices.SortFunc(names, func(x, y string) int {
		i, j := slices.Index(order, x), slices.Index(order, y)
		switch {
		case i >= 0 && j >= 0:
			return i - j
		case i >= 0:
			return -1
		case j >= 0:
			return 1
		}
		return strings.Compare(x, y)
	})
	return common, names
}

// tellsApart is the label that is enough to know the series by, if there is one: a
// legend has no room for all of them.
func tellsApart(series []api.FigureSeries, names []string) string {
	for _, n := range []string{"instance", "service", "project"} {
		values := map[string]bool{}
		for _, s := range series {
			values[s.Labels[n]] = true
		}
		if slices.Contains(names, n) && len(values) == len(series) {
			return n
		}
	}
	return ""
}

// selector writes labels as PromQL does, with the name of the series before them.
func selector(l map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(l)) {
		if k != "__name__" {
			out = append(out, fmt.Sprintf("%s=%q", k, l[k]))
		}
	}
	if len(out) == 0 {
		return l["__name__"]
	}
	return l["__name__"] + "{" + strings.Join(out, ", ") + "}"
}

// narrowed leaves out columns from the right that rows can be told apart without, until a
// table fits; if that is not enough it cuts cells. The last column stays as it is.
func narrowed(heading []string, rows [][]string, width int) ([]string, [][]string) {
	for n := len(heading) - 2; n > 0; n-- {
		if total(widths(heading, rows)) <= width {
			return heading, rows
		}
		seen := map[string]bool{}
		for _, r := range rows {
			seen[strings.Join(slices.Delete(slices.Clone(r[:len(r)-1]), n, n+1), "\x00")] = true
		}
		if len(seen) == len(rows) {
			heading = slices.Delete(slices.Clone(heading), n, n+1)
			for i := range rows {
				rows[i] = slices.Delete(rows[i], n, n+1)
			}
		}
	}
	wide := widths(heading, rows)
	for over := total(wide) - width; over > 0 && len(wide) > 1; over-- {
		widest := 0
		for i, w := range wide[:len(wide)-1] {
			if w > wide[widest] {
				widest = i
			}
		}
		if wide[widest] <= 6 {
			break
		}
		wide[widest]--
	}
	for _, r := range append(slices.Clone(rows), heading) {
		for i := range r[:len(r)-1] {
			r[i] = clip(r[i], wide[i])
		}
	}
	return heading, rows
}

func widths(heading []string, rows [][]string) []int {
	wide := make([]int, len(heading))
	for _, r := range append(slices.Clone(rows), heading) {
		for i, cell := range r {
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	return wide
}

// total is how wide a table of such columns is.
func total(wide []int) (n int) {
	for _, w := range wide {
		n += w + 3
	}
	return n - 3
}

func (a *app) metricsTargets() *cobra.Command {
	c := &cobra.Command{
		Use:   "targets [flags]",
		Short: "List what is scraped, and how it fares",
		Long: `Lists each address that figures are scraped from, those that are down first, with the error of the last
time. What instances and the host use is not scraped but read from the kernel: it is not listed.`,
		Example: `  tender metrics targets
  tender metrics targets --json | jq '.[] | select(.health == "down")'`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			list, err := d.MetricTargets(c.Context())
			if err != nil {
				return fmt.Errorf("metrics targets: %w", err)
			}
			if a.project != "" {
				list = slices.DeleteFunc(list, func(t api.ScrapeTarget) bool { return t.Labels["project"] != a.project })
			}
			slices.SortStableFunc(list, func(x, y api.ScrapeTarget) int {
				order := []string{"down", "unknown", "up"}
				return cmp.Or(slices.Index(order, x.Health)-slices.Index(order, y.Health), strings.Compare(x.Job, y.Job), strings.Compare(x.Labels["instance"], y.Labels["instance"]), strings.Compare(x.URL, y.URL))
			})
			if a.json {
				return printJSON(a.Out, list)
			}
			return a.targets(list, time.Now())
		},
	}
	a.inProject(c)
	return c
}

func (a *app) targets(list []api.ScrapeTarget, now time.Time) error {
	if len(list) == 0 {
		a.note("nothing is scraped; x-tender.metrics in a Compose file says what is: docs/metrics.md")
	}
	var rows [][]string
	for _, t := range list {
		service := t.Labels["service"]
		if p := t.Labels["project"]; p != "" {
			service = p + "/" + orDash(service)
		}
		last, duration := "-", "-"
		if !t.LastScrape.IsZero() {
			last, duration = took(max(now.Sub(t.LastScrape), 0))+" ago", saySeconds(t.Duration)
		}
		rows = append(rows, []string{t.Job, orDash(service), orDash(t.Labels["instance"]), t.URL, t.Health, last, duration, orDash(t.Error)})
	}
	return table(a.Out, []string{"JOB", "SERVICE", "INSTANCE", "URL", "STATE", "LAST", "TOOK", "ERROR"}, rows)
}
