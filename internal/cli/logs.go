package cli

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// sortBytes is how much output logs holds to sort it by time. Beyond it the
// oldest half is printed as it is.
const sortBytes = 64 << 20

// logFlags is what tender logs was told.
type logFlags struct {
	follow, stats                   bool
	since, until, tail, grep, query string
	where                           []string
	index                           int
	stamps, noPrefix, noColor       bool
}

func (a *app) logsCommand() *cobra.Command {
	var f logFlags
	c := &cobra.Command{
		Use:   "logs [flags] [SERVICE...]",
		Short: "Print what instances wrote, also those that are gone",
		Long: `Prints lines from the store of logs: of all revisions, across restarts, and of instances that
are gone. --grep looks at the line, --where at the fields that were found in it, --query takes
LogQL: stages such as '| json | took > 1s', a whole query, or a metric query, which prints
numbers. --stats counts over time in place of printing lines. docs/logs.md has recipes.`,
		Example: `  tender logs -f web
  tender logs --since 10m --grep 'timed? out'
  tender logs --where 'status>=500' --where 'path=~"/orders.*"' web
  tender logs --since 24h --stats --where level=error
  tender logs --query 'topk(5, sum by (path) (count_over_time({service="web"}[1h])))'`,
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			now := time.Now()
			r := api.LogRequest{Services: services, Follow: f.follow, Tail: -1, Fields: a.json}
			var err error
			if r.Since, err = moment("--since", f.since, now); err != nil {
				return err
			}
			if r.Until, err = moment("--until", f.until, now); err != nil {
				return err
			}
			if f.tail != "all" {
				if r.Tail, err = strconv.Atoi(f.tail); err != nil || r.Tail < 0 {
					return misuse("a number of lines, or all", "--tail %q is not known", f.tail)
				}
			}
			p := &logPrinter{w: a.Out, notes: a.Err, json: a.json, stamps: f.stamps, prefix: !f.noPrefix, colour: !f.noColor && isTerminal(a.Out) && a.getenv("NO_COLOR") == ""}
			stages := ""
			if f.grep != "" {
				if p.grep, err = regexp.Compile(f.grep); err != nil {
					return misuse("Go's regular expressions", "--grep: %v", err)
				}
				stages = "|~ " + strconv.Quote(f.grep)
			}
			for _, w := range f.where {
				stage, err := whereStage(w)
				if err != nil {
					return err
				}
				stages += " " + stage
			}
			numbers := isNumbers(f.query)
			switch {
			case numbers && (stages != "" || len(services) > 0 || f.index > 0):
				return misuse("write it all into the query", "--query with a metric query goes without --grep, --where, --index and services")
			case f.follow && (f.stats || numbers):
				return misuse("run it again, or under watch(1)", "numbers cannot be followed")
			}
			r.Query = strings.TrimSpace(f.query + " " + strings.TrimSpace(stages))
			if numbers || f.stats {
				return a.logNumbers(c.Context(), r, f.index, numbers, f.stats, p)
			}
			return a.logs(c.Context(), r, f.index, p)
		},
	}
	s := c.Flags()
	s.BoolVarP(&f.follow, "follow", "f", false, "go on with what is written from now on")
	s.StringVar(&f.since, "since", "", "from this `moment` on: 10m, 2026-01-02, 2026-01-02T15:04:05Z")
	s.StringVar(&f.until, "until", "", "up to this `moment`")
	s.StringVarP(&f.tail, "tail", "n", "all", "`lines` from the end, of each instance")
	s.BoolVarP(&f.stamps, "timestamps", "t", false, "print when each line was written")
	s.BoolVar(&f.noPrefix, "no-log-prefix", false, "do not print who wrote it")
	s.BoolVar(&f.noColor, "no-color", false, "no colours")
	s.StringVar(&f.grep, "grep", "", "only lines that match this `regexp`")
	s.StringArrayVar(&f.where, "where", nil, "only lines whose fields hold this `condition`: status>=500, level=error, 'took>1s or path=~\"/api.*\"'")
	s.StringVar(&f.query, "query", "", "`LogQL`: stages, a whole query, or a metric query")
	s.BoolVar(&f.stats, "stats", false, "count lines over time, errors apart")
	s.IntVar(&f.index, "index", 0, "`slot` of the instance (default: all)")
	a.inFile(c)
	c.AddCommand(a.sinksCommand())
	return c
}

// isNumbers: a query that begins with neither a selector nor a stage yields numbers.
func isNumbers(query string) bool {
	q := strings.TrimSpace(query)
	return q != "" && !strings.ContainsRune("{|!#", rune(q[0]))
}

// aimed finds the project and, of the services and the slot that are named, the
// instance. Services may be gone: then the store alone knows them.
func (a *app) aimed(ctx context.Context, r *api.LogRequest, index int, p *logPrinter) (project string, d *api.Client, err error) {
	project, d, err = a.at(ctx)
	if err != nil {
		return "", nil, err
	}
	found, err := d.Instances(ctx, project, true)
	if err != nil {
		return "", nil, fmt.Errorf("logs %s: %w", project, err)
	}
	if len(found) > 0 {
		known, err := pick(found, r.Services)
		if err != nil { // gone, perhaps: the store of logs knows
			p.unknown = err
		}
		found = known
	}
	for _, i := range found {
		if index > 0 && i.Slot == index {
			r.Instance = i.Name
		}
		if !i.Oneoff {
			p.width = max(p.width, len(shortName(project, i.Name)))
		}
	}
	if index > 0 && r.Instance == "" && len(r.Services) == 1 {
		r.Instance = fmt.Sprintf("%s-%s-%d", project, r.Services[0], index)
	}
	if index > 0 && r.Instance == "" {
		return "", nil, misuse("tender ps lists them", "logs %s: no instance in slot %d", project, index)
	}
	p.project = project
	return project, d, nil
}

func (a *app) logs(ctx context.Context, r api.LogRequest, index int, p *logPrinter) error {
	project, d, err := a.aimed(ctx, &r, index, p)
	if err != nil {
		return err
	}
	s := sorter{out: p.print}
	if r.Follow {
		err = a.keepUp(ctx, d, project, r, p)
		if ctx.Err() != nil {
			return exit(interrupted) // the way to end it
		}
	} else {
		err = d.Logs(ctx, project, r, s.add)
	}
	if p.unknown != nil && tender.KindOf(err) == tender.NotFound {
		return p.unknown
	}
	if err != nil {
		return fmt.Errorf("logs %s: %w", project, err)
	}
	return s.flush(0)
}

// again is how long keepUp waits before it tries to reach the daemon again, and
// remembered how many lines it does not print a second time then.
const (
	again      = time.Second
	overlap    = 5 * time.Second // lines of others may come late
	remembered = 4096
)

// keepUp prints what comes, also when the daemon was away meanwhile.
func (a *app) keepUp(ctx context.Context, d *api.Client, project string, r api.LogRequest, p *logPrinter) error {
	type line struct {
		at                     int64
		instance, stream, text string
	}
	var last []line
	seen := map[line]bool{}
	begun, lost, told := false, false, false
	var oldest, newest time.Time // of what was printed
	for {
		err := d.Logs(ctx, project, r, func(l api.LogLine) error {
			if begun, told = true, false; l.Note != "" {
				return p.print(l)
			}
			key := line{l.Time.UnixNano(), l.Instance, l.Stream, l.Text}
			if seen[key] || lost && l.Time.Before(oldest) { // printed, or before what -n asked for
				return nil
			}
			if newest.IsZero() || l.Time.Before(oldest) {
				oldest = l.Time
			}
			seen[key] = true
			if last = append(last, key); len(last) > remembered {
				delete(seen, last[0])
				last = last[1:]
			}
			if l.Time.After(newest) {
				newest = l.Time
			}
			return p.print(l)
		})
		if ctx.Err() != nil || err == nil || tender.KindOf(err) != tender.Unavailable || !begun {
			return err
		}
		if lost = true; !told {
			fmt.Fprintf(a.Err, "the daemon is away (%v); trying again\n", err)
		}
		told = true
		if !newest.IsZero() {
			r.Tail, r.Since = -1, newest.Add(-overlap) // what is printed is known: see seen
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again):
		}
	}
}

// sorter merges the lines of many instances by time. Lines of one instance
// keep their order.
type sorter struct {
	out   func(api.LogLine) error
	lines []api.LogLine
	bytes int
}

func (s *sorter) add(l api.LogLine) error {
	s.lines = append(s.lines, l)
	s.bytes += len(l.Text) + 128
	if s.bytes > sortBytes {
		return s.flush(len(s.lines) / 2)
	}
	return nil
}

// flush prints all but the newest keep lines.
func (s *sorter) flush(keep int) error {
	slices.SortStableFunc(s.lines, func(x, y api.LogLine) int { return x.Time.Compare(y.Time) })
	n := len(s.lines) - keep
	for _, l := range s.lines[:n] {
		s.bytes -= len(l.Text) + 128
		if err := s.out(l); err != nil {
			return err
		}
	}
	s.lines = append([]api.LogLine(nil), s.lines[n:]...)
	return nil
}
