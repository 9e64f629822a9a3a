package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

func (a *app) routeCommand() *cobra.Command {
	c := a.family("route", "Show and steer what the edge serves",
		a.routeLsCommand(), a.routeShowCommand(), a.routePauseCommand(), a.routeResumeCommand(), a.routeShiftCommand(), a.routeImportCommand())
	c.Long = `Routes are written in the Compose file, under x-tender.routes: a host and a path that
lead to a service. These commands show what the edge serves by them, and steer it
without a new deploy. A route is named as route ls prints it: HOST/PATH, or
PROJECT/HOST/PATH.`
	return c
}

func (a *app) routeLsCommand() *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:     "ls [flags]",
		Aliases: []string{"list"},
		Short:   "List routes and the ports that the edge holds",
		Args:    args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			routes, err := d.Routes(c.Context(), a.project, "")
			if err != nil {
				return fmt.Errorf("route ls: %w", err)
			}
			switch {
			case quiet:
				for _, r := range routes {
					fmt.Fprintln(a.Out, r.ID)
				}
				return nil
			case a.json:
				return printJSON(a.Out, routes)
			}
			var rows [][]string
			for _, r := range routes {
				rows = append(rows, []string{
					r.Project, plainRoute(r), leads(r), r.State, secrecy(r), healthy(r), fmt.Sprint(r.Open),
					rate(r.Rate), fmt.Sprint(r.Served.Requests), fmt.Sprint(wrong(r.Served)), millis(r.P99),
				})
			}
			if err := table(a.Out, []string{"PROJECT", "ROUTE", "LEADS TO", "STATE", "TLS", "UP", "OPEN", "REQ/S", "REQUESTS", "ERRORS", "P99"}, rows); err != nil {
				return err
			}
			a.troubles(routes)
			return nil
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print ids alone")
	a.inFile(c)
	return c
}

// troubles says below a table what keeps routes from being served.
func (a *app) troubles(routes []api.Route) {
	var said []string
	for _, r := range routes {
		if r.State == "away" && r.Detail != "" && !slices.Contains(said, r.Detail) {
			said = append(said, r.Detail)
			a.note("%s: %s", r.ID, r.Detail)
		}
		for _, c := range r.Certificates {
			if text := certificateText(c, time.Now()); c.Problem != "" && !slices.Contains(said, text) {
				said = append(said, text)
				a.note("%s: certificate of %s", r.ID, text)
			}
		}
	}
}

// secrecy says how a route is served over TLS, and whether that goes well.
func secrecy(r api.Route) string {
	if slices.ContainsFunc(r.Certificates, func(c api.RouteCertificate) bool { return c.Problem != "" }) {
		if r.TLS == "" {
			return "auto: problem"
		}
		return r.TLS + ": problem"
	}
	return orDash(r.TLS)
}

func certificateText(c api.RouteCertificate, now time.Time) string {
	text := c.Host + ": "
	if c.Host == "" {
		text = "any host: "
	}
	switch {
	case c.Problem != "":
		return text + c.Problem
	case c.Ends.IsZero() && strings.HasPrefix(c.Host, "*."):
		text += "each name below has its own, once it is asked for"
	case c.Ends.IsZero():
		text += "on its way"
	default:
		text += fmt.Sprintf("good until %s", c.Ends.UTC().Format("2006-01-02 15:04 UTC"))
		if left := c.Ends.Sub(now); left > 48*time.Hour {
			text += fmt.Sprintf(" (%d days)", int(left.Hours()/24))
		}
	}
	if c.OCSP != "" {
		text += "; by its authority " + c.OCSP
	}
	return text
}

func plainRoute(r api.Route) string { return strings.TrimPrefix(r.ID, r.Project+"/") }

// leads says where a route goes, with shares where there are several.
func leads(r api.Route) string {
	switch {
	case r.Redirect != "":
		return "→ " + r.Redirect
	case r.Kind != "http":
		return fmt.Sprintf("%s:%d", r.Service, r.Port)
	}
	var out []string
	for _, x := range r.Aims {
		text := aimName(x)
		if len(r.Aims) > 1 {
			text += " " + share(x.Percent)
		}
		out = append(out, text)
	}
	return orDash(strings.Join(out, ", "))
}

func aimName(x api.RouteAim) string {
	if x.Port == 0 {
		return x.Name
	}
	return fmt.Sprintf("%s:%d", x.Name, x.Port)
}

// share prints percent with one digit behind the point, where there is one.
func share(percent float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(percent, 'f', 1, 64), ".0") + "%"
}

func shortShare(percent float64) string {
	if percent == 0 {
		return "-"
	}
	return strconv.FormatFloat(percent, 'f', 0, 64) + "%"
}

// healthy counts the targets that serve, of those that should.
func healthy(r api.Route) string {
	up, all := 0, 0
	for _, t := range r.Targets {
		if t.State == "gone" || t.State == "leaving" {
			continue
		}
		all++
		if t.State == "up" {
			up++
		}
	}
	if all == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", up, all)
}

// wrong counts what went wrong: the edge's own failures and answers with 5xx.
func wrong(s tender.Served) uint64 { return max(s.Failed, s.Class[5]) }

func rate(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f < 0.1:
		return "<0.1"
	case f < 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}

// millis prints a bound of a latency.
func millis(ms float64) string {
	switch {
	case ms == 0:
		return "-"
	case ms < 1000:
		return "≤" + strconv.FormatFloat(ms, 'f', -1, 64) + "ms"
	}
	return "≤" + strconv.FormatFloat(ms/1000, 'f', -1, 64) + "s"
}

// routeNamed asks for the one route that a word means.
func (a *app) routeNamed(ctx context.Context, word string) (*api.Client, api.Route, error) {
	d, err := a.client()
	if err != nil {
		return nil, api.Route{}, err
	}
	routes, err := d.Routes(ctx, a.project, word)
	if err != nil {
		return nil, api.Route{}, fmt.Errorf("route %s: %w", word, err)
	}
	if len(routes) != 1 {
		return nil, api.Route{}, tender.Errorf(tender.NotFound, "no route %s", word).Hint("tender route ls shows the routes there are")
	}
	return d, routes[0], nil
}

func (a *app) routeNames(c *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
	if len(taken) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names(c, taken, part, func(ctx context.Context) []string {
		return known(a, func(d *api.Client) ([]api.Route, error) { return d.Routes(ctx, a.project, "") }, plainRoute)
	})
}

func (a *app) routeShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "show [flags] ROUTE",
		Short:             "Show one route: each target with its state, share, rate, errors and health checks",
		Example:           "  tender route show shop.example.com/\n  watch tender route show shop/web:8080/tcp",
		Args:              args(1, 1, "ROUTE"),
		ValidArgsFunction: a.routeNames,
		RunE: func(c *cobra.Command, words []string) error {
			_, r, err := a.routeNamed(c.Context(), words[0])
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.Out, r)
			}
			return a.printRoute(r, time.Now())
		},
	}
	a.inFile(c)
	return c
}

func (a *app) printRoute(r api.Route, now time.Time) error {
	line := func(what, text string) {
		if text != "" {
			fmt.Fprintf(a.Out, "%-9s  %s\n", what, text)
		}
	}
	line("route", r.ID)
	state := r.State
	if r.State == "paused" {
		state += fmt.Sprintf(" by %s, for %s more", r.Who, took(max(r.Until.Sub(now), 0)))
	} else if r.Detail != "" {
		state += ": " + r.Detail
	}
	line("state", state)
	line("hosts", strings.Join(r.Hosts, ", "))
	line("listens", r.Address)
	line("tls", r.TLS)
	for _, c := range r.Certificates {
		line("cert", certificateText(c, now))
	}
	balance := r.Balance
	if r.Sticky {
		balance += ", sticky"
	}
	line("balance", balance)
	line("redirect", r.Redirect)
	for _, x := range r.Aims {
		text := fmt.Sprintf("%s gets %s", aimName(x), share(x.Percent))
		if x.Weight != x.Written {
			text += fmt.Sprintf(" (weight %d; %d in the file)", x.Weight, x.Written)
		}
		line("leads to", text)
	}
	if r.Walk != nil {
		line("shift", walkText(*r.Walk, now))
	}
	what := "requests"
	if r.Kind != "http" {
		line("leads to", leads(r))
		what = "connections"
	}
	line("served", fmt.Sprintf("%d %s, %d errors; %s a second now; half within %s, 99%% within %s", r.Served.Requests, what, wrong(r.Served), rate(r.Rate), bound(r.P50), bound(r.P99)))
	line("answers", classes(r.Served))
	line("now", fmt.Sprintf("%d under way, %d waiting", r.Open, r.Waiting))
	if len(r.Targets) == 0 {
		return nil
	}
	fmt.Fprintln(a.Out)
	var rows [][]string
	for _, t := range r.Targets {
		state := t.State
		if t.Reason != "" && t.Reason != t.State {
			state += ": " + t.Reason
		}
		revision := orDash(t.Revision)
		rows = append(rows, []string{
			t.Name, revision, t.Address, state, since(t.Since, now), shortShare(t.Weight), fmt.Sprint(t.Open), rate(t.Rate),
			fmt.Sprint(t.Served.Requests), fmt.Sprint(wrong(t.Served)), millis(t.P50), millis(t.P99),
		})
	}
	if err := table(a.Out, []string{"TARGET", "REVISION", "ADDRESS", "STATE", "SINCE", "SHARE", "OPEN", "REQ/S", "REQUESTS", "ERRORS", "P50", "P99"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, t := range r.Targets {
		for _, x := range slices.Backward(t.Checks) {
			good := "ok"
			if !x.OK {
				good = "bad"
			}
			rows = append(rows, []string{t.Name, ago(x.At, now), good, x.Text, strconv.FormatFloat(x.Millis, 'f', 1, 64) + "ms"})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(a.Out)
	return table(a.Out, []string{"HEALTH OF", "WHEN", "", "ANSWER", "AFTER"}, rows)
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return ago(t, now)
}

func bound(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return strings.TrimPrefix(millis(ms), "≤")
}

// classes counts answers by the first digit of their status.
func classes(s tender.Served) string {
	var out []string
	for digit := 1; digit < len(s.Class); digit++ {
		if n := s.Class[digit]; n > 0 {
			out = append(out, fmt.Sprintf("%d x %dxx", n, digit))
		}
	}
	if s.Failed > 0 {
		out = append(out, fmt.Sprintf("%d not brought home", s.Failed))
	}
	if s.Cut > 0 {
		out = append(out, fmt.Sprintf("%d streams cut at the end of a drain", s.Cut))
	}
	return strings.Join(out, ", ")
}

func walkText(w api.RouteWalk, now time.Time) string {
	var steps []string
	for i, p := range w.Steps {
		text := fmt.Sprintf("%d%%", p)
		if i == w.Step && w.State == "walking" {
			text = "[" + text + "]"
		}
		steps = append(steps, text)
	}
	text := fmt.Sprintf("%s: %s, by %s", w.Aim, strings.Join(steps, " "), w.Who)
	switch w.State {
	case "walking":
		return text + fmt.Sprintf("; the next step in %s, back above %s errors", took(max(w.Since.Add(w.Every).Sub(now), 0)), share(100*w.Errors))
	case "done":
		return text + ", done " + ago(w.Ended, now) + ": " + w.Reason
	case "back":
		return text + ", went back " + ago(w.Ended, now) + ": " + w.Reason
	}
	return text + ", stopped " + ago(w.Ended, now) + " " + w.Reason
}

func (a *app) routePauseCommand() *cobra.Command {
	var limit time.Duration
	c := &cobra.Command{
		Use:   "pause [flags] ROUTE",
		Short: "Let new requests of a route wait, for a while",
		Long: `New requests of the route wait at the edge, up to the route's timeout.queue, as long as
the pause lasts; then they go on. Nobody sees an error where that is enough for what
you do meanwhile: a migration, a restart of the database.`,
		Example:           "  tender route pause shop.example.com/ --for 20s",
		Args:              args(1, 1, "ROUTE"),
		ValidArgsFunction: a.routeNames,
		RunE: func(c *cobra.Command, words []string) error {
			d, r, err := a.routeNamed(c.Context(), words[0])
			if err != nil {
				return err
			}
			if r, err = d.PauseRoute(c.Context(), r.Project, r.ID, limit); err != nil {
				return fmt.Errorf("pause %s: %w", words[0], err)
			}
			return a.steered(r, "%s is paused until %s; tender route resume %s ends that", r.ID, stamp(r.Until), plainRoute(r))
		},
	}
	c.Flags().DurationVar(&limit, "for", 30*time.Second, "how long at most")
	a.inFile(c)
	return c
}

// steered tells what has been done to a route.
func (a *app) steered(r api.Route, format string, facts ...any) error {
	if a.json {
		return printJSON(a.Out, r)
	}
	a.note(format, facts...)
	return nil
}

func (a *app) routeResumeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "resume [flags] ROUTE",
		Short:             "Let the requests of a paused route go on",
		Args:              args(1, 1, "ROUTE"),
		ValidArgsFunction: a.routeNames,
		RunE: func(c *cobra.Command, words []string) error {
			d, r, err := a.routeNamed(c.Context(), words[0])
			if err != nil {
				return err
			}
			if r, err = d.ResumeRoute(c.Context(), r.Project, r.ID); err != nil {
				return fmt.Errorf("resume %s: %w", words[0], err)
			}
			return a.steered(r, "%s goes on", r.ID)
		},
	}
	a.inFile(c)
	return c
}
