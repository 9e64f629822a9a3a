package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

// statsRow is one instance with the field names of docker stats.
type statsRow struct {
	Container string
	ID        string
	Name      string
	Service   string
	CPUPerc   string
	MemUsage  string
	MemPerc   string
	NetIO     string
	BlockIO   string
	PIDs      string
}

var statsHeadings = map[string]string{
	"Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "Service": "SERVICE", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
	"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}

const statsTable = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"

func newStatsRow(s api.Sample, noTrunc bool) statsRow {
	bytesOf := func(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
	r := statsRow{
		Container: s.Instance, ID: shortID(s.ID), Name: s.Instance, Service: s.Service,
		CPUPerc:  fmt.Sprintf("%.2f%%", s.CPU),
		MemUsage: units.BytesSize(float64(s.Memory)) + " / " + units.BytesSize(float64(s.MemoryLimit)),
		MemPerc:  "0.00%",
		NetIO:    bytesOf(s.NetRead) + " / " + bytesOf(s.NetSent),
		BlockIO:  bytesOf(s.BlkRead) + " / " + bytesOf(s.BlkSent),
		PIDs:     fmt.Sprint(s.PIDs),
	}
	if s.MemoryLimit > 0 {
		r.MemPerc = fmt.Sprintf("%.2f%%", float64(s.Memory)/float64(s.MemoryLimit)*100)
	}
	if noTrunc {
		r.ID = s.ID
	}
	return r
}

func (a *app) statsCommand() *cobra.Command {
	var once, noTrunc bool
	var format string
	c := &cobra.Command{
		Use:   "stats [flags] [SERVICE...]",
		Short: "Show what instances use: processor, memory, network, disk",
		Example: `  tender stats --no-stream
  tender stats --no-stream --format 'table {{.Name}}\t{{.CPUPerc}}\t{{.MemPerc}}'`,
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			project, d, err := a.at(c.Context())
			if err != nil {
				return err
			}
			show := func(ctx context.Context) (string, error) {
				samples, err := d.Stats(ctx, project, services)
				if err != nil {
					return "", fmt.Errorf("stats %s: %w", project, err)
				}
				slices.SortFunc(samples, func(x, y api.Sample) int { return strings.Compare(x.Instance, y.Instance) })
				var b bytes.Buffer
				if a.json {
					return b.String(), printJSON(a.Out, samples)
				}
				var rows []statsRow
				for _, s := range samples {
					rows = append(rows, newStatsRow(s, noTrunc))
				}
				err = formatted(&b, format, statsTable, statsHeadings, rows)
				return b.String(), err
			}
			return a.repeat(c.Context(), once, show)
		},
	}
	c.Flags().BoolVar(&once, "no-stream", false, "print once")
	c.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not cut ids")
	c.Flags().StringVar(&format, "format", "", "table, json, or a `template` as for docker stats")
	a.inFile(c)
	return c
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
