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

func (a *app) historyCommand() *cobra.Command { return a.rolloutList("history") }

func (a *app) showCommand() *cobra.Command { return a.rolloutShow() }

// rolloutCommand is everything about rollouts.
func (a *app) rolloutCommand() *cobra.Command {
	c := a.family("rollout", "Look at rollouts, and steer one that is open",
		a.rolloutList("ls"), a.rolloutShow(),
		a.steer("hold", "Let an open rollout wait before its next step",
			`A canary stays at the share of the traffic that it has, a blue-green rollout waits before
the switch, and a rolling one before its next batch, until tender rollout resume.`),
		a.steer("resume", "Let a rollout that is held go on",
			"With tender up --hold it waits at the next step again."),
		a.steer("abort", "Take an open rollout back",
			`The service goes back to the revision it had, as if the rollout had failed, and what ran
on has all of the traffic at once. The revision is not tried again until the next up.`))
	c.Long = `A rollout is the move of one service from a revision to another. It goes on in the daemon
whoever watches; these commands look at it and tell it what to do next.`
	c.Example = `  tender up --strategy canary --hold web
  tender rollout ls web
  tender rollout resume 12      to the next share of the traffic
  tender rollout abort 12       back to the revision before`
	return c
}

func (a *app) rolloutList(name string) *cobra.Command {
	short := "List the rollouts of a project or a service, newest first"
	if name == "history" {
		short = "List the rollouts and changes of counts of a project or a service, newest first"
	}
	c := &cobra.Command{
		Use:               name + " [flags] [SERVICE]",
		Short:             short,
		Args:              args(0, 1, "at most one SERVICE"),
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, words []string) error {
			project, d, err := a.at(c.Context())
			if err != nil {
				return err
			}
			rollouts, err := d.History(c.Context(), project, strings.Join(words, ""))
			if err != nil {
				return fmt.Errorf("history of %s: %w", project, err)
			}
			if name != "history" {
				rollouts = slices.DeleteFunc(rollouts, func(r api.Rollout) bool { return r.Scaled != nil })
			}
			if a.json {
				return printJSON(a.Out, rollouts)
			}
			var rows [][]string
			for _, r := range rollouts {
				if n := r.Scaled; n != nil {
					rows = append(rows, []string{
						"-", r.Service, fmt.Sprint(n.From), fmt.Sprint(n.To), r.Strategy, shorten(state(r.State, r.Reason), 60), stamp(r.Started), "-", r.Who,
					})
					continue
				}
				spent := "-"
				if !r.Ended.IsZero() {
					spent = took(r.Ended.Sub(r.Started))
				}
				rows = append(rows, []string{
					fmt.Sprint(r.ID), r.Service, orDash(r.From), r.To, r.Strategy, shorten(state(r.State, standing(r)), 60), stamp(r.Started), spent, r.Who,
				})
			}
			return table(a.Out, []string{"ROLLOUT", "SERVICE", "FROM", "TO", "STRATEGY", "STATE", "STARTED", "TOOK", "WHO"}, rows)
		},
	}
	a.inFile(c)
	return c
}

// standing says why a rollout ended as it did, or where an open one is.
func standing(r api.Rollout) string {
	var parts []string
	if n := len(r.Shifts); n > 0 && r.State == "open" {
		parts = append(parts, fmt.Sprintf("%g %% of the traffic", r.Shifts[n-1].Percent))
	}
	if r.Held != "" {
		parts = append(parts, "held by "+r.Held)
	}
	if r.Reason != "" {
		parts = append(parts, r.Reason)
	}
	return strings.Join(parts, ", ")
}

func (a *app) rolloutShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show [flags] ROLLOUT",
		Short:             "Show one rollout with its proof: what was served, and what happened, in order",
		Args:              args(1, 1, "the number of a ROLLOUT: tender history lists them"),
		ValidArgsFunction: a.rollouts(false),
		RunE: func(c *cobra.Command, words []string) error {
			id, err := rolloutID(words[0])
			if err != nil {
				return err
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			r, err := d.Rollout(c.Context(), id)
			if err != nil {
				return fmt.Errorf("show rollout %d: %w", id, err)
			}
			if a.json {
				return printJSON(a.Out, r)
			}
			return a.printRollout(r)
		},
	}
}

func (a *app) steer(verb, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " [flags] ROLLOUT",
		Short:             short,
		Long:              long,
		Args:              args(1, 1, "the number of an open ROLLOUT: tender rollout ls lists them"),
		ValidArgsFunction: a.rollouts(true),
		RunE: func(c *cobra.Command, words []string) error {
			id, err := rolloutID(words[0])
			if err != nil {
				return err
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			r, err := d.Steer(c.Context(), id, verb)
			if err != nil {
				return fmt.Errorf("%s rollout %d: %w", verb, id, err)
			}
			if a.json {
				return printJSON(a.Out, r)
			}
			word := map[string]string{"hold": "held", "resume": "goes on", "abort": "goes back"}[verb]
			a.note("rollout %d of %s/%s: %s", r.ID, r.Project, r.Service, word)
			return nil
		},
	}
}

// rollouts completes with the numbers of rollouts.
func (a *app) rollouts(open bool) cobra.CompletionFunc {
	return func(c *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
		return names(c, taken, part, func(ctx context.Context) []string {
			project, d, err := a.at(ctx)
			if err != nil {
				return nil
			}
			list, err := d.History(ctx, project, "")
			if err != nil {
				return nil
			}
			var out []string
			for _, r := range list {
				if r.Scaled == nil && (!open || r.State == "open") {
					out = append(out, fmt.Sprint(r.ID))
				}
			}
			return out
		})
	}
}

func rolloutID(word string) (id int64, err error) {
	if _, err := fmt.Sscanf(word, "%d", &id); err != nil || fmt.Sprint(id) != word {
		return 0, misuse("tender history lists them", "%q is no number of a rollout", word)
	}
	return id, nil
}

func (a *app) printRollout(r api.Rollout) error {
	w := a.Out
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-11s %s\n", name, value)
		}
	}
	line("rollout", fmt.Sprintf("%d of %s/%s, generation %d", r.ID, r.Project, r.Service, r.Generation))
	line("state", state(r.State, standing(r)))
	line("strategy", r.Strategy)
	line("from", strings.TrimSpace(orDash(r.From)+"  "+r.FromImage))
	line("to", strings.TrimSpace(r.To+"  "+r.ToImage))
	line("who", r.Who)
	line("started", stamp(r.Started))
	if !r.Ended.IsZero() {
		line("ended", stamp(r.Ended)+", took "+took(r.Ended.Sub(r.Started)))
	}
	for k, s := range r.Shifts {
		name := ""
		if k == 0 {
			name = "traffic"
		}
		fmt.Fprintf(w, "%-11s %g %% after %s\n", name, s.Percent, took(s.At.Sub(r.Started)))
	}
	if e := r.Evidence; e != nil {
		line("verdict", e.Verdict)
		if err := a.printEvidence(*e); err != nil {
			return err
		}
	}
	if r.Diff != "" {
		fmt.Fprintf(w, "\nWhat changed:\n%s\n", indent(r.Diff))
	}
	if len(r.Proof) > 0 {
		fmt.Fprintln(w, "\nWhat happened:")
		for _, s := range r.Proof {
			fmt.Fprintf(w, "  %8s  %s\n", "+"+took(s.Time.Sub(r.Started)), s.Text)
		}
	}
	return nil
}

// printEvidence prints what was counted and seen while a rollout ran.
func (a *app) printEvidence(e api.Evidence) error {
	section := func(title string, heading []string, rows [][]string) error {
		if len(rows) == 0 {
			return nil
		}
		fmt.Fprintln(a.Out, "\n"+title)
		return table(a.Out, heading, rows)
	}
	var rows [][]string
	for _, s := range e.Served {
		p99 := "-"
		if s.P99 > 0 {
			p99 = "≤ " + time.Duration(s.P99*float64(time.Second)).String()
		}
		rows = append(rows, []string{s.Revision, fmt.Sprint(s.Requests), fmt.Sprint(s.Failed), fmt.Sprint(s.Cut), p99, s.Digest})
	}
	title := "What the edge served while it ran:"
	if e.Partial {
		title = "What the edge served while it ran, a part, since it began to count anew:"
	}
	if err := section(title, []string{"REVISION", "REQUESTS", "FAILED", "STREAMS CUT", "P99", "IMAGE"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, v := range e.Health {
		after := "-"
		if v.After > 0 {
			after = took(seconds(v.After))
		}
		rows = append(rows, []string{v.Instance, v.State, after, fmt.Sprint(v.Restarts)})
	}
	if err := section("How the new instances were:", []string{"INSTANCE", "STATE", "AFTER", "RESTARTS"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, d := range e.Drains {
		how := "nothing was under way any more"
		switch {
		case d.Skipped != "":
			how = "not waited for: " + d.Skipped
		case d.Cut == 1:
			how = "1 request was under way still"
		case d.Cut > 0:
			how = fmt.Sprintf("%d requests were under way still", d.Cut)
		}
		rows = append(rows, []string{d.Instance, took(seconds(d.Seconds)), how})
	}
	return section("How the old ones left the traffic:", []string{"INSTANCE", "TOOK", "THEN"}, rows)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
