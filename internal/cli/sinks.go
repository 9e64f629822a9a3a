package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

func (a *app) sinksCommand() *cobra.Command {
	var dead string
	var limit int
	var quiet bool
	c := &cobra.Command{
		Use:   "sinks [flags]",
		Short: "Show where logs are sent on to, and how far",
		Long: `Lists the sinks that /etc/tender/tender.yaml has under "sinks:". LAG is the age of the oldest row
that was not yet taken, BEHIND how many rows wait. A row that a sink refuses for good is a
dead letter; --dead shows them with the reason. docs/sinks.md has a configuration for each kind.
The logs of a service called sinks: tender logs -- sinks.`,
		Example: `  tender logs sinks
  tender logs sinks --dead es`,
		Args: args(0, 0, "a sink is named with --dead; the logs of a service called sinks: tender logs -- sinks"),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			if dead != "" {
				list, err := d.DeadLetters(c.Context(), dead, limit)
				if err != nil {
					return fmt.Errorf("logs sinks: %w", err)
				}
				return a.deadLetters(list)
			}
			list, err := d.Sinks(c.Context())
			if err != nil {
				return fmt.Errorf("logs sinks: %w", err)
			}
			switch {
			case quiet:
				for _, s := range list {
					fmt.Fprintln(a.Out, s.Name)
				}
				return nil
			case a.json:
				return printJSON(a.Out, list)
			}
			return a.sinks(list, time.Now())
		},
	}
	c.Flags().StringVar(&dead, "dead", "", "show the rows that this `sink` refused for good")
	c.Flags().IntVarP(&limit, "lines", "n", 100, "`number` of dead letters, the newest")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names alone")
	return c
}

func (a *app) sinks(list []api.Sink, now time.Time) error {
	if len(list) == 0 {
		a.note("no sinks: logs stay here; docs/sinks.md says how to send them on")
	}
	var rows [][]string
	for _, s := range list {
		lag := "-"
		if s.Lag >= 1 {
			lag = took(time.Duration(s.Lag) * time.Second)
		}
		behind := "-"
		if s.Rows > 0 {
			behind = fmt.Sprintf("%d (%s)", s.Rows, units.BytesSize(float64(s.Waiting)))
		}
		rows = append(rows, []string{
			s.Name, s.Kind, s.Where, s.Phase, lag, behind, strconv.FormatInt(s.Sent, 10), strconv.FormatInt(s.Failed, 10), strconv.FormatInt(s.Refused, 10), strconv.FormatInt(s.Expired, 10),
		})
	}
	if err := table(a.Out, []string{"NAME", "KIND", "WHERE", "STATE", "LAG", "BEHIND", "SENT", "FAILED", "DEAD", "EXPIRED"}, rows); err != nil {
		return err
	}
	for _, s := range list {
		switch {
		case s.Phase == "waiting":
			a.note("%s: %s (try %d in vain, the next in %s)", s.Name, clip(s.Error, 300), s.Tries, took(max(0, s.Next.Sub(now).Round(time.Second))))
		case s.Error != "":
			a.note("%s: the last error, %s: %s", s.Name, ago(s.ErrorTime, now), clip(s.Error, 300))
		}
		if s.Expired > 0 {
			a.note("%s: %d rows were never sent: retention took them first", s.Name, s.Expired)
		}
		if s.Refused > 0 {
			a.note("%s: %d refused for good: tender logs sinks --dead %s", s.Name, s.Refused, s.Name)
		}
	}
	return nil
}

// deadLetters prints each with its reason.
func (a *app) deadLetters(list []api.DeadLetter) error {
	if a.json {
		e := json.NewEncoder(a.Out)
		e.SetEscapeHTML(false)
		for _, l := range list {
			if err := e.Encode(l); err != nil {
				return err
			}
		}
		return nil
	}
	for _, l := range list {
		fmt.Fprintf(a.Out, "%s  %s\n  refused %s: %s\n  %s\n", stamp(l.Logged), l.Labels, stamp(l.Time), l.Reason, strings.ReplaceAll(l.Text, "\n", "\n  "))
	}
	return nil
}
