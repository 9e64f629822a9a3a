package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

// sortBytes is how much output logs holds to sort it by time. Beyond it the
// oldest half is printed as it is.
const sortBytes = 64 << 20

func (a *app) logsCommand() *cobra.Command {
	var follow, stamps, noPrefix, noColor bool
	var since, until, tail, grep string
	var index int
	c := &cobra.Command{
		Use:   "logs [flags] [SERVICE...]",
		Short: "Print what instances wrote",
		Example: `  tender logs -f web
  tender logs --since 10m --grep 'status=5..'
  tender logs -n 100 --index 2 web`,
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			now := time.Now()
			r := api.LogRequest{Services: services, Follow: follow, Tail: -1}
			var err error
			if r.Since, err = moment("--since", since, now); err != nil {
				return err
			}
			if r.Until, err = moment("--until", until, now); err != nil {
				return err
			}
			if tail != "all" {
				if r.Tail, err = strconv.Atoi(tail); err != nil || r.Tail < 0 {
					return misuse("a number of lines, or all", "--tail %q is not known", tail)
				}
			}
			p := &logPrinter{w: a.Out, json: a.json, stamps: stamps, prefix: !noPrefix, colour: !noColor && isTerminal(a.Out) && a.getenv("NO_COLOR") == ""}
			if grep != "" {
				if p.grep, err = regexp.Compile(grep); err != nil {
					return misuse("Go's regular expressions", "--grep: %v", err)
				}
			}
			return a.logs(c.Context(), r, index, p)
		},
	}
	s := c.Flags()
	s.BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on")
	s.StringVar(&since, "since", "", "from this `moment` on: 10m, 2026-01-02, 2026-01-02T15:04:05Z")
	s.StringVar(&until, "until", "", "up to this `moment`")
	s.StringVarP(&tail, "tail", "n", "all", "`lines` from the end, of each instance")
	s.BoolVarP(&stamps, "timestamps", "t", false, "print when each line was written")
	s.BoolVar(&noPrefix, "no-log-prefix", false, "do not print who wrote it")
	s.BoolVar(&noColor, "no-color", false, "no colours")
	s.StringVar(&grep, "grep", "", "only lines that match this `regexp`")
	s.IntVar(&index, "index", 0, "`slot` of the instance (default: all)")
	a.inFile(c)
	return c
}

func (a *app) logs(ctx context.Context, r api.LogRequest, index int, p *logPrinter) error {
	project, d, err := a.at(ctx)
	if err != nil {
		return err
	}
	found, err := d.Instances(ctx, project, true)
	if err != nil {
		return fmt.Errorf("logs %s: %w", project, err)
	}
	if len(found) > 0 {
		if found, err = pick(found, r.Services); err != nil {
			return err
		}
	}
	for _, i := range found {
		if index > 0 && i.Slot == index {
			r.Instance = i.Name
		}
		if !i.Oneoff {
			p.width = max(p.width, len(shortName(project, i.Name)))
		}
	}
	if index > 0 && r.Instance == "" {
		return misuse("tender ps lists them", "logs %s: no instance in slot %d", project, index)
	}
	p.project = project
	if r.Follow {
		err := d.Logs(ctx, project, r, p.print)
		if ctx.Err() != nil {
			return exit(interrupted) // the way to end it
		}
		if err != nil {
			return fmt.Errorf("logs %s: %w", project, err)
		}
		return nil
	}
	s := sorter{out: p.print}
	if err := d.Logs(ctx, project, r, s.add); err != nil {
		return fmt.Errorf("logs %s: %w", project, err)
	}
	return s.flush(0)
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

// logPrinter prints lines as docker compose does: instance, bar, text.
type logPrinter struct {
	w                            io.Writer
	json, stamps, prefix, colour bool
	grep                         *regexp.Regexp
	project                      string
	width                        int
	colours                      map[string]int
}

func (p *logPrinter) print(l api.LogLine) error {
	if p.grep != nil && !p.grep.MatchString(l.Text) {
		return nil
	}
	if p.json {
		e := json.NewEncoder(p.w)
		e.SetEscapeHTML(false)
		return e.Encode(l)
	}
	var b strings.Builder
	if p.prefix {
		name := shortName(p.project, l.Instance)
		p.width = max(p.width, len(name))
		head := fmt.Sprintf("%-*s  | ", p.width, name)
		if p.colour {
			head = "\x1b[" + strconv.Itoa(p.colourOf(l.Service)) + "m" + head + "\x1b[0m"
		}
		b.WriteString(head)
	}
	if p.stamps {
		b.WriteString(l.Time.UTC().Format("2006-01-02T15:04:05.000000000Z") + " ")
	}
	b.WriteString(l.Text + "\n")
	_, err := io.WriteString(p.w, b.String())
	return err
}

// colourOf gives each service a colour in order of appearance.
func (p *logPrinter) colourOf(service string) int {
	if p.colours == nil {
		p.colours = map[string]int{}
	}
	c, ok := p.colours[service]
	if !ok {
		c = []int{36, 33, 32, 35, 34, 96, 93, 92, 95, 94}[len(p.colours)%10]
		p.colours[service] = c
	}
	return c
}

// shortName is an instance's name without that of its project.
func shortName(project, instance string) string {
	return strings.TrimPrefix(instance, project+"-")
}

// moment reads a point in time: RFC 3339, a date, seconds since 1970, or a
// duration before now.
func moment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := span(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f < 1e11 {
		return time.UnixMilli(int64(f * 1000)), nil
	}
	return time.Time{}, misuse("such as 10m, 2d, 2026-01-02 or 2026-01-02T15:04:05Z", "%s %q is no moment", flag, s)
}

// span reads a duration as people write it: Go's, and days and weeks.
func span(s string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		if days, err := strconv.ParseFloat(n, 64); err == nil {
			return time.Duration(days * 24 * float64(time.Hour)), nil
		}
	}
	if n, ok := strings.CutSuffix(s, "w"); ok {
		if weeks, err := strconv.ParseFloat(n, 64); err == nil {
			return time.Duration(weeks * 7 * 24 * float64(time.Hour)), nil
		}
	}
	return time.ParseDuration(s)
}

func (a *app) eventsCommand() *cobra.Command {
	var everything bool
	c := &cobra.Command{
		Use:   "events [flags] [SERVICE...]",
		Short: "Follow what happens, from now on",
		Long: `Prints one line for each change of an instance and each action of the daemon until
Ctrl-C. --json prints JSON lines, and those of docker compose events --json among them:
what the engine says of each instance, with type, id, action and attributes.`,
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			project := ""
			if !everything {
				var err error
				if project, err = a.name(c.Context()); err != nil {
					return err
				}
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			out := json.NewEncoder(a.Out)
			out.SetEscapeHTML(false)
			err = d.Events(c.Context(), project, a.json, func(e api.Event) {
				if len(services) > 0 && !slices.Contains(services, e.Service) {
					return
				}
				if a.json {
					out.Encode(e)
					return
				}
				who := e.Project
				if e.Instance != "" {
					who = e.Instance
				} else if e.Service != "" {
					who += "/" + e.Service
				}
				fmt.Fprintf(a.Out, "%s  %-8s  %s  %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Kind, orDash(who), e.Text)
			})
			if c.Context().Err() != nil {
				return exit(interrupted)
			}
			if err != nil {
				return fmt.Errorf("events: %w", err)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&everything, "all", "a", false, "of every project")
	a.inFile(c)
	return c
}
