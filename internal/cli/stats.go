package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

// statsRow is one instance with the field names of docker stats, and ours after them.
type statsRow struct {
	Container string
	ID        string
	Name      string
	Project   string
	Service   string
	CPUPerc   string
	MemUsage  string
	MemPerc   string
	NetIO     string
	BlockIO   string
	PIDs      string
	NetRate   string
	Requests  string
	P99       string
	Restarts  string
	Health    string
}

var statsHeadings = map[string]string{
	"Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "Project": "PROJECT", "Service": "SERVICE", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
	"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS", "NetRate": "NET IN / OUT", "Requests": "REQ/S", "P99": "P99",
	"Restarts": "RESTARTS", "Health": "HEALTH",
}

// statsTable has the columns of docker stats in their places.
const statsTable = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}\t{{.Requests}}\t{{.P99}}\t{{.Restarts}}\t{{.Health}}"

// liveColumns are those of the live view; on a narrow terminal they go in the order of first.
var liveColumns = []struct {
	heading string
	first   int // 0: it stays
	cell    func(statsRow) string
}{
	{"NAME", 0, func(r statsRow) string { return r.Name }},
	{"CPU %", 0, func(r statsRow) string { return r.CPUPerc }},
	{"MEM USAGE / LIMIT", 0, func(r statsRow) string { return r.MemUsage }},
	{"MEM %", 4, func(r statsRow) string { return r.MemPerc }},
	{"NET IN / OUT", 3, func(r statsRow) string { return r.NetRate }},
	{"REQ/S", 0, func(r statsRow) string { return r.Requests }},
	{"P99", 0, func(r statsRow) string { return r.P99 }},
	{"RESTARTS", 5, func(r statsRow) string { return r.Restarts }},
	{"HEALTH", 6, func(r statsRow) string { return r.Health }},
	{"PIDS", 2, func(r statsRow) string { return r.PIDs }},
	{"BLOCK I/O", 1, func(r statsRow) string { return r.BlockIO }},
}

func newStatsRow(s api.Sample, noTrunc bool) statsRow {
	bytesOf := func(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
	r := statsRow{
		Container: s.Instance, ID: shortID(s.ID), Name: s.Instance, Project: s.Project, Service: s.Service,
		CPUPerc:  fmt.Sprintf("%.2f%%", s.CPU),
		MemUsage: units.BytesSize(float64(s.Memory)) + " / " + units.BytesSize(float64(s.MemoryLimit)),
		MemPerc:  "0.00%",
		NetIO:    bytesOf(s.NetRead) + " / " + bytesOf(s.NetSent),
		BlockIO:  bytesOf(s.BlkRead) + " / " + bytesOf(s.BlkSent),
		PIDs:     fmt.Sprint(s.PIDs),
		NetRate:  "-", Requests: "-", P99: "-", Restarts: fmt.Sprint(s.Restarts), Health: orDash(s.Health),
	}
	if s.MemoryLimit > 0 {
		r.MemPerc = fmt.Sprintf("%.2f%%", float64(s.Memory)/float64(s.MemoryLimit)*100)
	}
	if s.NetReadRate != nil && s.NetSentRate != nil {
		r.NetRate = units.HumanSizeWithPrecision(*s.NetReadRate, 3) + " / " + units.HumanSizeWithPrecision(*s.NetSentRate, 3)
	}
	if s.Requests != nil {
		r.Requests = digits(*s.Requests, 3)
	}
	if s.P99 != nil {
		r.P99 = saySeconds(*s.P99)
	}
	if noTrunc {
		r.ID = s.ID
	}
	return r
}

// statsOrder are what --sort knows. The highest comes first, except of names.
var statsOrder = map[string]func(x, y api.Sample) int{
	"name":     func(x, y api.Sample) int { return 0 },
	"cpu":      func(x, y api.Sample) int { return cmp.Compare(y.CPU, x.CPU) },
	"memory":   func(x, y api.Sample) int { return cmp.Compare(y.Memory, x.Memory) },
	"net":      func(x, y api.Sample) int { return cmp.Compare(netOf(y), netOf(x)) },
	"requests": func(x, y api.Sample) int { return cmp.Compare(valueOf(y.Requests), valueOf(x.Requests)) },
	"p99":      func(x, y api.Sample) int { return cmp.Compare(valueOf(y.P99), valueOf(x.P99)) },
	"restarts": func(x, y api.Sample) int { return cmp.Compare(y.Restarts, x.Restarts) },
}

func valueOf(p *float64) float64 {
	if p == nil {
		return -1
	}
	return *p
}

// netOf is what flows now, where that is known, else what has flowed.
func netOf(s api.Sample) float64 {
	if s.NetReadRate != nil && s.NetSentRate != nil {
		return *s.NetReadRate + *s.NetSentRate
	}
	return float64(s.NetRead + s.NetSent)
}

type statsFlags struct {
	once, noTrunc, everywhere bool
	format, sort              string
	filters                   []string
}

func (a *app) statsCommand() *cobra.Command {
	var f statsFlags
	c := &cobra.Command{
		Use:   "stats [flags] [SERVICE...]",
		Short: "Show what instances use, live: processor, memory, network, requests",
		Long: `Shows of each instance its processor time (100% is one core), memory against its limit, what comes and goes
over the network, requests and the time in which 99 of 100 of them are answered as the edge sees it, restarts
and health: of the last 30 s (requests: of the last minute), once a second, those that use most processor time
first, as many as the terminal has lines for.`,
		Example: `  tender stats
  tender stats --sort memory --filter health=unhealthy --all-projects
  tender stats --no-stream
  tender stats --no-stream --format 'table {{.Name}}\t{{.CPUPerc}}\t{{.MemPerc}}'`,
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			return a.stats(c.Context(), f, services)
		},
	}
	c.Flags().BoolVar(&f.once, "no-stream", false, "print once")
	c.Flags().BoolVar(&f.noTrunc, "no-trunc", false, "do not cut ids")
	c.Flags().BoolVar(&f.everywhere, "all-projects", false, "of all projects")
	c.Flags().StringVar(&f.sort, "sort", "", "`order`: cpu, memory, net, requests, p99, restarts or name; default cpu, with --no-stream name")
	c.Flags().StringArrayVar(&f.filters, "filter", nil, "keep what `matches`: name=PART, service=NAME, project=NAME, health=STATE or state=STATE")
	c.Flags().StringVar(&f.format, "format", "", "table, json, or a `template` as for docker stats")
	complete(c, "sort", func(c *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
		return sortedKeys(statsOrder), cobra.ShellCompDirectiveNoFileComp
	})
	a.inFile(c)
	return c
}

func (a *app) stats(ctx context.Context, f statsFlags, services []string) error {
	live := !f.once && isTerminal(a.Out) && f.format == "" && !a.json
	order := cmp.Or(f.sort, map[bool]string{true: "cpu", false: "name"}[live])
	compare := statsOrder[order]
	if compare == nil {
		return misuse("one of "+strings.Join(sortedKeys(statsOrder), ", "), "--sort %q is not known", f.sort)
	}
	keep, err := statsFilter(f.filters)
	if err != nil {
		return err
	}
	project, d := "", (*api.Client)(nil)
	if f.everywhere {
		if len(services) > 0 {
			return misuse("tender stats --all-projects --filter service="+services[0], "--all-projects takes no SERVICE")
		}
		d, err = a.client()
	} else {
		project, d, err = a.at(ctx)
	}
	if err != nil {
		return err
	}
	defer d.Close()
	show := func(ctx context.Context) (string, error) {
		samples, err := d.Stats(ctx, project, services)
		if err != nil {
			return "", fmt.Errorf("stats %s: %w", cmp.Or(project, "of all projects"), err)
		}
		samples = slices.DeleteFunc(samples, func(s api.Sample) bool { return !keep(s) })
		slices.SortFunc(samples, func(x, y api.Sample) int {
			return cmp.Or(compare(x, y), strings.Compare(x.Instance, y.Instance))
		})
		if live {
			width, height := size(a.Out)
			return statsScreen(samples, order, width, height), nil
		}
		var b bytes.Buffer
		if a.json {
			err := printJSON(&b, samples)
			return b.String(), err
		}
		var rows []statsRow
		for _, s := range samples {
			rows = append(rows, newStatsRow(s, f.noTrunc))
		}
		err = formatted(&b, f.format, statsTable, statsHeadings, rows)
		return b.String(), err
	}
	return a.repeat(ctx, f.once, show)
}

// statsFilter is what all of --filter together keep.
func statsFilter(filters []string) (func(api.Sample) bool, error) {
	var all []func(api.Sample) bool
	for _, f := range filters {
		key, want, _ := strings.Cut(f, "=")
		field := map[string]func(api.Sample) string{
			"service": func(s api.Sample) string { return s.Service },
			"project": func(s api.Sample) string { return s.Project },
			"health":  func(s api.Sample) string { return cmp.Or(s.Health, "none") },
			"state":   func(s api.Sample) string { return s.State },
		}[key]
		switch {
		case key == "name" && want != "":
			all = append(all, func(s api.Sample) bool { return strings.Contains(s.Instance, want) })
		case field != nil && want != "":
			all = append(all, func(s api.Sample) bool { return field(s) == want })
		default:
			return nil, misuse("name=PART, service=NAME, project=NAME, health=STATE or state=STATE", "--filter %q is not known", f)
		}
	}
	return func(s api.Sample) bool {
		return !slices.ContainsFunc(all, func(fits func(api.Sample) bool) bool { return !fits(s) })
	}, nil
}

// statsScreen is a frame of the live view: one line for all, then as many instances as there is room for.
func statsScreen(samples []api.Sample, order string, width, height int) string {
	var cpu, requests, memory float64
	unhealthy := 0
	for _, s := range samples {
		cpu, memory, requests = cpu+s.CPU, memory+float64(s.Memory), requests+max(valueOf(s.Requests), 0)
		if s.Health == "unhealthy" {
			unhealthy++
		}
	}
	head := fmt.Sprintf("%s, by %s: processor %.1f%%, memory %s, %s requests/s", countOf(len(samples), "instance"), order, cpu, units.BytesSize(memory), digits(requests, 3))
	if unhealthy > 0 {
		head += fmt.Sprintf(", %d unhealthy", unhealthy)
	}
	room := max(height-3, 1) // the heads, and the line of the prompt
	shown := samples
	if len(samples) > room {
		shown = samples[:max(room-1, 1)]
	}
	rows := make([]statsRow, 0, len(shown))
	for _, s := range shown {
		rows = append(rows, newStatsRow(s, false))
	}
	var lines []string
	for gone := 0; gone <= 6; gone++ { // one column after the other, until all fits
		var b bytes.Buffer
		t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		line := func(cell func(i int) string) {
			var cells []string
			for i, c := range liveColumns {
				if c.first == 0 || c.first > gone {
					cells = append(cells, cell(i))
				}
			}
			fmt.Fprintln(t, strings.Join(cells, "\t"))
		}
		line(func(i int) string { return liveColumns[i].heading })
		for _, r := range rows {
			line(func(i int) string { return liveColumns[i].cell(r) })
		}
		t.Flush()
		lines = strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
		if !slices.ContainsFunc(lines, func(l string) bool { return len([]rune(l)) > width }) {
			break
		}
	}
	if n := len(samples) - len(shown); n > 0 {
		lines = append(lines, fmt.Sprintf("and %d more: --filter and --sort choose", n))
	}
	return head + "\n" + strings.Join(lines, "\n") + "\n"
}

// repeat prints what show returns each second, in place on a terminal, until
// Ctrl-C, which is the way to end it.
func (a *app) repeat(ctx context.Context, once bool, show func(context.Context) (string, error)) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	live := !once && isTerminal(a.Out)
	drawn := 0
	for {
		text, err := show(ctx)
		if ctx.Err() != nil {
			return exit(interrupted)
		}
		if err != nil {
			return err
		}
		if live {
			width, height := size(a.Out)
			lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
			lines = lines[:min(len(lines), max(height-1, 1))]
			for n := range lines {
				lines[n] = clip(lines[n], width)
			}
			text = strings.Join(lines, "\n") + "\n"
			if drawn > 0 {
				text = fmt.Sprintf("\r\x1b[%dA\x1b[J", drawn) + text
			}
			drawn = len(lines)
		}
		fmt.Fprint(a.Out, text)
		if once {
			return nil
		}
		select {
		case <-ctx.Done():
			return exit(interrupted)
		case <-t.C:
		}
	}
}
