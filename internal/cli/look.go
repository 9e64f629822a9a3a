package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

// lsRow is one project.
type lsRow struct {
	Name        string
	Status      string
	Services    string
	Generation  string
	Who         string
	ConfigFiles string
}

var lsHeadings = map[string]string{
	"Name": "NAME", "Status": "STATUS", "Services": "SERVICES", "Generation": "GENERATION", "Who": "WHO", "ConfigFiles": "CONFIG FILES",
}

func (a *app) lsCommand() *cobra.Command {
	var all, quiet bool
	var format string
	var filters []string
	c := &cobra.Command{
		Use:     "ls [flags]",
		Aliases: []string{"list"},
		Short:   "List projects",
		Args:    args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			projects, err := d.Projects(c.Context())
			if err != nil {
				return fmt.Errorf("list projects: %w", err)
			}
			for _, f := range filters {
				part, ok := strings.CutPrefix(f, "name=")
				if !ok {
					return misuse("name=PART", "--filter %q is not known", f)
				}
				projects = slices.DeleteFunc(projects, func(p api.Project) bool { return !strings.Contains(p.Name, part) })
			}
			if !all {
				projects = slices.DeleteFunc(projects, func(p api.Project) bool { return p.State == "stopped" })
			}
			if quiet {
				for _, p := range projects {
					fmt.Fprintln(a.Out, p.Name)
				}
				return nil
			}
			if a.json {
				return printJSON(a.Out, projects)
			}
			var rows []lsRow
			for _, p := range projects {
				rows = append(rows, newLsRow(p))
			}
			return listed(a.Out, format, "{{.Name}}\t{{.Status}}\t{{.Services}}\t{{.Generation}}\t{{.ConfigFiles}}", lsHeadings, rows)
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "stopped projects, too")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names alone")
	c.Flags().StringVar(&format, "format", "", "table, json, or a `template` as for docker")
	c.Flags().StringArrayVar(&filters, "filter", nil, "keep what `matches`: name=PART")
	return c
}

func newLsRow(p api.Project) lsRow {
	r := lsRow{Name: p.Name, Status: state(p.State, p.Detail), Who: orDash(p.Who), ConfigFiles: orDash(strings.Join(p.Files, ",")), Generation: "-"}
	if p.Generation > 0 {
		r.Generation = fmt.Sprint(p.Generation)
	}
	ready := 0
	for _, s := range p.Services {
		if s.State == "healthy" || s.State == "done" {
			ready++
		}
	}
	r.Services = fmt.Sprintf("%d/%d", ready, len(p.Services))
	return r
}

// state joins a state with what is to be known about it.
// shorten cuts what a table has no room for; show has the whole of it.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-1], "") + "…"
}

func state(s, detail string) string {
	if detail == "" || detail == s {
		return s
	}
	return s + ": " + detail
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [flags] [PROJECT]",
		Short: "Show the daemon, its engine, its parts and every service",
		Long: `Shows how the daemon and the engine are, which of the daemon's parts run, and for
every project what is wanted and what is there. Exit code 5 says that a part or a
service is not as it should be.`,
		Args:              args(0, 1, "at most one PROJECT"),
		ValidArgsFunction: a.projects,
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			s, err := d.Status(c.Context())
			if err != nil {
				return fmt.Errorf("status: %w", err)
			}
			if len(words) == 1 {
				p, err := d.Project(c.Context(), words[0])
				if err != nil {
					return fmt.Errorf("status of %s: %w", words[0], err)
				}
				s.Projects = []api.Project{p}
			}
			if a.json {
				err = printJSON(a.Out, s)
			} else {
				err = a.printStatus(s, time.Now())
			}
			if err == nil && !sound(s) {
				return exit(unhealthy)
			}
			return err
		},
	}
}

// sound reports whether everything is as it should be or on its way there.
func sound(s api.Status) bool {
	for _, p := range s.Parts {
		if p.State != "running" && p.State != "off" {
			return false
		}
	}
	for _, p := range s.Projects {
		if p.State == "degraded" {
			return false
		}
	}
	return s.Stale.IsZero()
}

func (a *app) printStatus(s api.Status, now time.Time) error {
	w := a.Out
	fmt.Fprintf(w, "daemon   %s, started %s, state in %s\n", s.Version, ago(s.Started, now), s.Data)
	if s.Engine.Version == "" {
		fmt.Fprintf(w, "engine   does not answer at %s\n", orDash(s.Engine.Host))
	} else {
		fmt.Fprintf(w, "engine   %s %s (API %s) at %s, %s/%s, kernel %s\n", s.Engine.Name, s.Engine.Version, s.Engine.API, s.Engine.Host,
			s.Engine.OS, s.Engine.Arch, s.Engine.Kernel)
	}
	switch {
	case !s.Stale.IsZero():
		fmt.Fprintf(w, "picture  stale since %s: the engine does not answer\n", stamp(s.Stale))
	case !s.Taken.IsZero():
		fmt.Fprintf(w, "picture  taken %s\n", ago(s.Taken, now))
	}
	if len(s.Parts) > 0 {
		fmt.Fprintln(w)
		head := []string{"PART", "STATE", "SINCE", "RESTARTS", "ERROR"}
		noted := slices.ContainsFunc(s.Parts, func(p api.Part) bool { return noteOf(p, now) != "" })
		if noted {
			head = append(head, "NOTE")
		}
		var rows [][]string
		for _, p := range s.Parts {
			row := []string{p.Name, p.State, ago(p.Since, now), fmt.Sprint(p.Restarts), orDash(p.Error)}
			if noted {
				row = append(row, orDash(noteOf(p, now)))
			}
			rows = append(rows, row)
		}
		if err := table(w, head, rows); err != nil {
			return err
		}
	}
	var rows [][]string
	for _, p := range s.Projects {
		if len(p.Services) == 0 {
			rows = append(rows, []string{p.Name, "-", "-", state(p.State, p.Detail), "-", "-"})
		}
		for _, v := range p.Services {
			rows = append(rows, []string{p.Name, v.Name, fmt.Sprintf("%d/%d", v.Ready, v.Wanted), state(v.State, scaledDetail(v)), orDash(v.Revision), orDash(v.Image)})
		}
	}
	fmt.Fprintln(w)
	if len(rows) == 0 {
		fmt.Fprintln(w, "No projects. tender up starts the one that compose.yaml here describes.")
		return nil
	}
	return table(w, []string{"PROJECT", "SERVICE", "READY", "STATE", "REVISION", "IMAGE"}, rows)
}

// scaledDetail is what is to be known of a service, with why it has as many
// instances as it has.
func scaledDetail(v api.Service) string {
	parts := []string{v.Detail}
	if s := v.Scale; s != nil {
		parts = append(parts, fmt.Sprintf("%d..%d", s.Min, s.Max), s.Cause)
	}
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ", ")
}

// noteOf is what is to be known of a part though nothing is wrong with it.
func noteOf(p api.Part, now time.Time) string {
	if p.Note == "" && !p.Done.IsZero() {
		return "last done " + ago(p.Done, now)
	}
	return p.Note
}

func (a *app) whyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "why [flags] SERVICE",
		Short: "Say why a service is as it is",
		Long: `Answers "why is it restarting, unhealthy or not there" from exit codes, memory, health
output, restarts, images, ports and dependencies, with the evidence and what to do.`,
		Args:              args(1, 1, "one SERVICE"),
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, words []string) error {
			project, d, err := a.at(c.Context())
			if err != nil {
				return err
			}
			y, err := d.Why(c.Context(), project, words[0])
			if err != nil {
				return fmt.Errorf("why %s/%s: %w", project, words[0], err)
			}
			if a.json {
				return printJSON(a.Out, y)
			}
			fmt.Fprintf(a.Out, "%s/%s: %s\n", y.Project, y.Service, y.Summary)
			for n, f := range y.Findings {
				fmt.Fprintf(a.Out, "\n%d. %s\n", n+1, f.What)
				for _, e := range f.Evidence {
					fmt.Fprintln(a.Out, "     "+strings.ReplaceAll(strings.TrimRight(e, "\n"), "\n", "\n     "))
				}
				if f.Next != "" {
					fmt.Fprintln(a.Out, "   → "+f.Next)
				}
			}
			return nil
		},
	}
	a.inFile(c)
	return c
}

// at returns the project a command is about and the daemon to ask.
func (a *app) at(ctx context.Context) (string, *api.Client, error) {
	project, err := a.name(ctx)
	if err != nil {
		return "", nil, err
	}
	d, err := a.client()
	return project, d, err
}

func (a *app) topCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "top [SERVICE...]",
		Short:             "List the processes of each instance",
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			project, d, err := a.at(c.Context())
			if err != nil {
				return err
			}
			all, err := d.Top(c.Context(), project, services)
			if err != nil {
				return fmt.Errorf("top %s: %w", project, err)
			}
			if a.json {
				return printJSON(a.Out, all)
			}
			return a.printTop(all)
		},
	}
	a.inFile(c)
	return c
}

// printTop prints one table, as docker compose top does: instances whose
// processes are shown in other columns leave those empty that they lack.
func (a *app) printTop(all []api.Processes) error {
	if len(all) == 0 {
		return nil
	}
	heading := []string{"SERVICE", "#"}
	at := map[string]int{}
	for _, p := range all {
		for _, t := range p.Titles {
			if _, ok := at[t]; !ok {
				at[t] = len(heading)
				heading = append(heading, t)
			}
		}
	}
	var rows [][]string
	for _, p := range all {
		for _, r := range p.Rows {
			row := make([]string, len(heading))
			row[0], row[1] = p.Service, fmt.Sprint(p.Slot)
			for k, cell := range r[:min(len(r), len(p.Titles))] {
				row[at[p.Titles[k]]] = cell
			}
			rows = append(rows, row)
		}
	}
	return table(a.Out, heading, rows)
}
