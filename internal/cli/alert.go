package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

func (a *app) alertCommand() *cobra.Command {
	silence := a.family("silence", "Mute alerts for a while", a.silenceAdd(), a.silenceList(), a.silenceExpire())
	silence.Long = `A silence mutes the alerts that all of its matchers fit, until it ends. What it mutes goes on
to be shown by tender alert ls.`
	silence.Example = `  tender alert silence add service=db --for 2h --comment "disk is replaced"
  tender alert silence ls
  tender alert silence expire 7f3c2b1a-...`
	c := a.family("alert", "See what is wrong, mute it, try who is told", a.alertList(), a.rulesCommand(), silence, a.alertTest())
	c.Long = `Alerts are grouped, muted and sent by Alertmanager's own rules, which lie in the file that
"alertmanager:" in tender.yaml names. amtool works against the daemon, too: docs/alertmanager.md.`
	c.Example = `  tender alert ls
  tender alert ls -p shop severity=critical
  tender alert silence add service=db --for 2h
  tender alert test ops`
	return c
}

const matcherHelp = `Matchers are written as amtool takes them: service=web, severity!=info, service=~"web|db",
alertname!~"Disk.*"; a first word without any of these is the name of an alert.`

func (a *app) alertList() *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:   "ls [flags] [MATCHER...]",
		Short: "List alerts that fire",
		Long: `Lists the alerts that fire and fit all matchers, the oldest first. STATE is active, silenced
(by a silence), inhibited (by another alert) or muted (by a time interval).

` + matcherHelp,
		Example: `  tender alert ls
  tender alert ls -p shop 'severity=~critical|warning'
  tender alert ls --json DiskFull`,
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			all, err := d.Alerts(c.Context(), a.project, words)
			if err != nil {
				return fmt.Errorf("list alerts: %w", err)
			}
			switch {
			case a.json:
				return printJSON(a.Out, all)
			case quiet:
				for _, l := range all.Alerts {
					fmt.Fprintln(a.Out, l.Name)
				}
				return nil
			}
			return a.alerts(all, time.Now())
		},
	}
	c.Flags().StringVarP(&a.project, "project", "p", a.project, "those of this `project` alone")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names alone")
	return c
}

func (a *app) alerts(all api.Alerts, now time.Time) error {
	var rows [][]string
	for _, l := range all.Alerts {
		about := strings.Trim(l.Project+"/"+l.Service, "/")
		if about == "" {
			about = l.Labels["node"]
		}
		rows = append(rows, []string{l.Name, orDash(l.Severity), orDash(about), ago(l.Since, now), l.State, clip(strings.Join(strings.Fields(l.Summary), " "), 100)})
	}
	if len(rows) == 0 {
		a.note("no alert fires")
	} else if err := table(a.Out, []string{"ALERT", "SEVERITY", "ABOUT", "SINCE", "STATE", "SUMMARY"}, rows); err != nil {
		return err
	}
	how := all.Alerting
	if how.Problem != "" {
		a.note("%s", how.Problem)
	}
	if how.Outside != "" {
		a.note("they are sent by the Alertmanager at %s", how.Outside)
	}
	if how.Waiting > 0 {
		a.note("%s not been taken there yet", hasOrHave(how.Waiting, "alert"))
	}
	if how.Dropped > 0 {
		a.note("%s been lost since the daemon's start: too many waited", hasOrHave(int(how.Dropped), "alert"))
	}
	return nil
}

func hasOrHave(n int, noun string) string {
	if n == 1 {
		return countOf(n, noun) + " has"
	}
	return countOf(n, noun) + " have"
}

func (a *app) silenceAdd() *cobra.Command {
	var length, comment string
	c := &cobra.Command{
		Use:   "add [flags] MATCHER...",
		Short: "Mute the alerts that all matchers fit",
		Long: `Mutes the alerts that all matchers fit, from now on. With -p the silence is for that project
alone. Who made it is noted.

` + matcherHelp,
		Example: `  tender alert silence add service=db --for 2h --comment "disk is replaced"
  tender alert silence add -p shop NearMemoryLimit --for 1d`,
		Args: args(1, -1, "at least one MATCHER, such as service=web"),
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			long, err := span(length)
			if err != nil || long <= 0 {
				return misuse("such as 30m, 2h, 1d", "--for %q is no duration", length)
			}
			s, err := d.AddSilence(c.Context(), a.project, api.SilenceRequest{Matchers: words, For: long, Comment: comment})
			if err != nil {
				return fmt.Errorf("add a silence: %w", err)
			}
			if a.json {
				return printJSON(a.Out, s)
			}
			fmt.Fprintln(a.Out, s.ID)
			a.note("mutes %s until %s; tender alert silence expire %s ends it before", strings.Join(s.Matchers, " "), stamp(s.Ends), s.ID)
			return nil
		},
	}
	c.Flags().StringVarP(&a.project, "project", "p", a.project, "alerts of this `project` alone")
	c.Flags().StringVar(&length, "for", "1h", "`how long`: 30m, 2h, 1d")
	c.Flags().StringVar(&comment, "comment", "", "`why`, for those who wonder")
	return c
}

func (a *app) silenceList() *cobra.Command {
	var all, quiet bool
	c := &cobra.Command{
		Use:   "ls [flags] [MATCHER...]",
		Short: "List silences",
		Long: `Lists the silences that hold or will, the newest last. Matchers pick those that hold the same.

` + matcherHelp,
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			list, err := d.Silences(c.Context(), a.project, words, all)
			if err != nil {
				return fmt.Errorf("list silences: %w", err)
			}
			if a.json {
				return printJSON(a.Out, list)
			}
			var rows [][]string
			for _, s := range list {
				if quiet {
					fmt.Fprintln(a.Out, s.ID)
				}
				rows = append(rows, []string{s.ID, s.State, strings.Join(s.Matchers, " "), stamp(s.Starts), stamp(s.Ends), s.Who, orDash(clip(s.Comment, 60))})
			}
			if quiet {
				return nil
			}
			return table(a.Out, []string{"ID", "STATE", "MATCHERS", "FROM", "UNTIL", "WHO", "COMMENT"}, rows)
		},
	}
	c.Flags().StringVarP(&a.project, "project", "p", a.project, "those that are for this `project` alone")
	c.Flags().BoolVarP(&all, "all", "a", false, "also those that have ended, for 5 days")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print ids alone")
	return c
}

func (a *app) silenceExpire() *cobra.Command {
	c := &cobra.Command{
		Use:   "expire [flags] ID...",
		Short: "End silences",
		Args:  args(1, -1, "the ID of a silence: tender alert silence ls lists them"),
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			var errs []error
			for _, id := range words {
				if err := d.ExpireSilence(c.Context(), a.project, id); err != nil {
					errs = append(errs, fmt.Errorf("expire silence %s: %w", id, err))
					continue
				}
				fmt.Fprintln(a.Out, id)
			}
			return joined(errs)
		},
	}
	c.Flags().StringVarP(&a.project, "project", "p", a.project, "only if it is for this `project` alone")
	return c
}

func (a *app) alertTest() *cobra.Command {
	return &cobra.Command{
		Use:   "test [flags] [RECEIVER]",
		Short: "Send a sample through a receiver, now",
		Long: `Sends a sample through each integration of a receiver, or of all, and prints what came back.
Routes, groups and silences are passed by. It exits with 1 if the sample did not get through
everywhere, or if there is nobody to send it to.`,
		Example: `  tender alert test
  tender alert test ops`,
		Args: args(0, 1, "one RECEIVER, or none for all"),
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			receiver := strings.Join(words, "")
			all, err := d.TestAlert(c.Context(), receiver)
			if err != nil {
				return fmt.Errorf("test %s: %w", orAllReceivers(receiver), err)
			}
			if a.json {
				err = printJSON(a.Out, all)
			} else {
				err = a.tries(all)
			}
			if err == nil && (len(all) == 0 || slices.ContainsFunc(all, func(t api.AlertTry) bool { return t.Error != "" })) {
				return exit(failed)
			}
			return err
		},
	}
}

func orAllReceivers(name string) string {
	if name == "" {
		return "all receivers"
	}
	return name
}

func (a *app) tries(all []api.AlertTry) error {
	if len(all) == 0 {
		a.note("there is no integration to try: alerts are only shown here; docs/alertmanager.md says how to set receivers")
		return nil
	}
	var rows [][]string
	for _, t := range all {
		outcome := "sent"
		if t.Error != "" {
			outcome = "failed: " + strings.Join(strings.Fields(t.Error), " ")
		}
		rows = append(rows, []string{t.Receiver, t.Integration, took(t.Took), outcome})
	}
	return table(a.Out, []string{"RECEIVER", "INTEGRATION", "TOOK", "OUTCOME"}, rows)
}
