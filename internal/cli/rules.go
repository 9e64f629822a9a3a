package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

func (a *app) rulesCommand() *cobra.Command {
	var active, quiet bool
	c := &cobra.Command{
		Use:   "rules [flags] [NAME...]",
		Short: "List the rules that make alerts and series",
		Long: `Lists the rules that are evaluated, those that come with Tender among them. STATE is inactive,
pending (true, but not yet for as long as FOR says) or firing, with how many alerts; HEALTH says
whether the expression could be evaluated. SOURCE is built-in, a file, PROJECT/SERVICE (its
x-tender.alerts) or api (tender alert rules set).`,
		Example: `  tender alert rules
  tender alert rules --active
  tender alert rules show NearMemoryLimit
  tender alert rules set team.yml`,
		RunE: func(c *cobra.Command, names []string) error {
			r, err := a.rules(c, names)
			if err != nil {
				return err
			}
			if active {
				r.Rules = slices.DeleteFunc(r.Rules, func(x api.Rule) bool { return len(x.Active) == 0 })
			}
			switch {
			case a.json:
				return printJSON(a.Out, r)
			case quiet:
				for _, x := range r.Rules {
					fmt.Fprintln(a.Out, x.Name)
				}
				return nil
			}
			return a.ruleTable(r, time.Now())
		},
	}
	c.Flags().BoolVar(&active, "active", false, "those alone that are pending or fire")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names alone")
	c.AddCommand(a.rulesShow(), a.rulesSet(), a.rulesRemove())
	return c
}

// rules asks for those of these names; all without names.
func (a *app) rules(c *cobra.Command, names []string) (api.Rules, error) {
	d, err := a.client()
	if err != nil {
		return api.Rules{}, err
	}
	r, err := d.Rules(c.Context())
	if err != nil {
		return r, fmt.Errorf("alert rules: %w", err)
	}
	var known []string
	for _, x := range r.Rules {
		known = append(known, x.Name)
	}
	for _, name := range names {
		if slices.Contains(known, name) {
			continue
		}
		e := tender.Errorf(tender.NotFound, "there is no rule %q", name)
		if near := tender.Nearest(name, known); near != "" {
			return r, e.Hint("did you mean: %s", near)
		}
		return r, e.Hint("tender alert rules lists them")
	}
	if len(names) > 0 {
		r.Rules = slices.DeleteFunc(r.Rules, func(x api.Rule) bool { return !slices.Contains(names, x.Name) })
	}
	return r, nil
}

func (a *app) ruleTable(r api.Rules, now time.Time) error {
	// What needs somebody comes first.
	rank := map[string]int{"firing": 0, "pending": 1}
	of := func(x api.Rule) int {
		if n, ok := rank[x.State]; ok {
			return n
		}
		if x.Health == "err" {
			return 2
		}
		return 3
	}
	slices.SortStableFunc(r.Rules, func(x, y api.Rule) int { return cmp.Compare(of(x), of(y)) })
	var rows [][]string
	for _, x := range r.Rules {
		state := x.State
		switch {
		case x.Kind == "record":
			state = "records"
		case len(x.Active) > 0:
			state = fmt.Sprintf("%s %d", x.State, len(x.Active))
		}
		rows = append(rows, []string{x.Name, orDash(state), ruleTime(x.For), x.Source, x.Health, orDash(ago(x.Evaluated, now))})
	}
	if len(rows) == 0 {
		a.note("no rules")
	} else if err := table(a.Out, []string{"NAME", "STATE", "FOR", "SOURCE", "HEALTH", "EVALUATED"}, rows); err != nil {
		return err
	}
	for _, x := range r.Rules {
		if x.Error != "" {
			a.note("%s (%s): %s", x.Name, x.Source, clip(x.Error, 300))
		}
	}
	for _, p := range r.Problems {
		a.note("%s", p)
	}
	return nil
}

// ruleTime is a duration as rule files have it, - for none.
func ruleTime(s float64) string {
	if s == 0 {
		return "-"
	}
	return model.Duration(s * float64(time.Second)).String()
}

func (a *app) rulesShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show [flags] NAME",
		Short: "Show a rule whole, with the alerts that it makes",
		Args:  args(1, 1, "one NAME"),
		RunE: func(c *cobra.Command, names []string) error {
			r, err := a.rules(c, names)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.Out, r.Rules)
			}
			for i, x := range r.Rules {
				if i > 0 {
					fmt.Fprintln(a.Out)
				}
				a.ruleWhole(x, time.Now())
			}
			return nil
		},
	}
}

func (a *app) ruleWhole(x api.Rule, now time.Time) {
	w := a.Out
	line := func(what, text string) {
		fmt.Fprintf(w, "%-10s  %s\n", what, strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n            "))
	}
	line(x.Kind, x.Name)
	line("source", x.Source+", group "+x.Group)
	line(x.Language, x.Expr)
	if x.For > 0 {
		line("for", ruleTime(x.For))
	}
	if x.KeepFiringFor > 0 {
		line("keeps", "firing for "+ruleTime(x.KeepFiringFor))
	}
	if len(x.Labels) > 0 {
		line("labels", labelText(x.Labels))
	}
	for _, name := range slices.Sorted(maps.Keys(x.Annotations)) {
		what := name
		if name == "runbook_url" {
			what = "runbook"
		}
		line(what, x.Annotations[name])
	}
	how := x.Health + ", every " + ruleTime(x.Every)
	if !x.Evaluated.IsZero() {
		how += fmt.Sprintf(", last %s in %.1f ms", ago(x.Evaluated, now), x.Took*1000)
	}
	line("health", how)
	if x.Error != "" {
		line("error", x.Error)
	}
	if x.State != "" {
		line("state", x.State)
	}
	for _, y := range x.Active {
		state := "fires"
		since := y.Fires
		if since.IsZero() {
			state, since = "pending", y.Since
		}
		line(state, fmt.Sprintf("since %s, value %s: %s", stamp(since), y.Value, cmp.Or(y.Annotations["summary"], labelText(y.Labels))))
	}
}

func (a *app) rulesSet() *cobra.Command {
	var logs bool
	c := &cobra.Command{
		Use:   "set [flags] FILE",
		Short: "Set the groups of a rule file",
		Long: `Takes in a rule file of Prometheus or, with --logs, one of Loki: each of its groups takes the
place of that with its name. If anything in it is not right, nothing is taken. - reads standard input.`,
		Example: `  tender alert rules set team.yml
  tender alert rules set --logs loki-rules.yml`,
		Args: args(1, 1, "one FILE"),
		RunE: func(c *cobra.Command, words []string) error {
			name := words[0]
			text, err := a.ruleFile(name)
			if err != nil {
				return tender.Errorf(tender.Invalid, "read rules: %w", err)
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			f := api.RuleFile{Text: string(text)}
			if logs {
				f.Language = "logql"
			}
			set, err := d.SetRules(c.Context(), f)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if a.json {
				return printJSON(a.Out, set)
			}
			for _, g := range set {
				fmt.Fprintln(a.Out, g.Name)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&logs, "logs", false, "its expressions are LogQL")
	return c
}

func (a *app) ruleFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(a.In)
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(a.Dir, name)
	}
	return os.ReadFile(name)
}

func (a *app) rulesRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm [flags] GROUP...",
		Short: "Remove groups of rules that were set",
		Args:  args(1, -1, "the name of a GROUP"),
		RunE: func(c *cobra.Command, groups []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			for _, g := range groups {
				if err := d.RemoveRules(c.Context(), g); err != nil {
					return fmt.Errorf("remove rules: %w", err)
				}
			}
			return nil
		},
	}
}
