package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

func (a *app) policyCommand() *cobra.Command {
	c := a.family("policy", "Ask the gate, and make exceptions from it", a.policyCheck(), a.policyWaive(), a.policyWaivers())
	c.Long = `The gate decides what may run: "gate:" and "pipeline:" in tender.yaml say what must hold of
images and services, docs/gate.md how. up and plan ask it; what it denies ends with exit code 4.`
	c.Example = `  tender policy check
  tender policy waive CVE-2024-1234 --project shop --until 30d --reason 'not reachable'
  tender policy waivers`
	return c
}

func (a *app) policyCheck() *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "check [flags] [SERVICE...]",
		Short: "Say what the gate says of the Compose file, and change nothing",
		Long: `Reads the Compose file as up does and asks the gate about it. Every reason is listed with what
would mend it, the worst first. Exit code 4 says that up would be denied.`,
		ValidArgsFunction: a.fileServices,
		RunE: func(c *cobra.Command, services []string) error {
			doc, err := a.load(c.Context(), services)
			if err != nil {
				return err
			}
			sub, _, err := a.submission(doc, f, services)
			if err != nil {
				return err
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			p, err := d.CheckPolicy(c.Context(), sub)
			if err != nil {
				return fmt.Errorf("check %s: %w", doc.Name, err)
			}
			if a.json {
				if err := printJSON(a.Out, p); err != nil {
					return err
				}
			} else if err := a.printPolicy(p); err != nil {
				return err
			}
			if p.Denied > 0 {
				return exit(denied)
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&f.images, "image", nil, "ask about another image: `SERVICE=REF`")
	c.Flags().BoolVar(&f.noDeps, "no-deps", false, "leave out what the services named depend on")
	a.inFile(c)
	return c
}

func (a *app) printPolicy(p api.Policy) error {
	where := p.Project
	if p.Environment != "" {
		where += " in " + p.Environment
	}
	switch {
	case p.Gates == 0:
		fmt.Fprintf(a.Out, "No gate is configured for %s: everything may run.\n", where)
		return nil
	case len(p.Verdicts) == 0:
		fmt.Fprintf(a.Out, "%s passes the gate.\n", where)
		return nil
	}
	if err := a.verdicts(p.Verdicts); err != nil {
		return err
	}
	if p.Denied > 0 {
		fmt.Fprintf(a.Out, "\n%s is denied, for %s.\n", where, countOf(p.Denied, "reason"))
		return nil
	}
	fmt.Fprintf(a.Out, "\n%s passes the gate.\n", where)
	return nil
}

// verdicts prints what the gate says, each with what mends it below.
func (a *app) verdicts(all []api.Verdict) error {
	var rows [][]string
	for _, v := range all {
		rows = append(rows, []string{v.Verdict, orDash(strings.Join(v.Services, ", ")), v.Rule, v.Why})
		switch {
		case v.Waiver != nil:
			rows = append(rows, []string{"", "", "", fmt.Sprintf("→ waived until %s by %s: %s", v.Waiver.Until.Format(time.DateOnly), v.Waiver.By, v.Waiver.Reason)})
		case v.Fix != "":
			rows = append(rows, []string{"", "", "", "→ " + v.Fix})
		}
	}
	return table(a.Out, []string{"GATE", "SERVICE", "RULE", "WHY"}, rows)
}

func (a *app) policyWaive() *cobra.Command {
	var project, service, repository, until, reason string
	var remove bool
	c := &cobra.Command{
		Use:   "waive [flags] FINDING",
		Short: "Make a dated exception from the gate, or end one",
		Long: `Until its day a waiver lets a finding pass: a CVE, or a rule as tender policy check prints it.
It is shown as waived from then on, with the day and the person. Without --project, --service or
--repository it holds everywhere. It needs a token of scope admin.`,
		Example: `  tender policy waive CVE-2024-1234 --project shop --until 2027-01-31 --reason 'not reachable'
  tender policy waive gate/age --repository registry.company.com/db --until 30d --reason 'vendor'
  tender policy waive --rm 3`,
		Args: args(1, 1, "one FINDING, or with --rm the number of a waiver"),
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			if remove {
				id, err := strconv.ParseInt(words[0], 10, 64)
				if err != nil {
					return misuse("tender policy waivers shows their numbers", "%q is no number of a waiver", words[0])
				}
				return d.RemoveWaiver(c.Context(), id)
			}
			w := api.Waiver{Finding: words[0], Reason: reason}
			for _, scope := range []string{project, service, repository} {
				if scope != "" && w.Scope != "" {
					return misuse("say one of them", "--project, --service and --repository exclude each other")
				}
				if scope != "" {
					w.Scope = scope
				}
			}
			if service != "" && strings.Count(service, "/") != 1 {
				return misuse("--service shop/web", "--service %q is not PROJECT/SERVICE", service)
			}
			if repository != "" && !strings.Contains(repository, "/") {
				w.Scope = "docker.io/library/" + repository // as Docker reads it
			} else if host, _, _ := strings.Cut(repository, "/"); repository != "" && !strings.ContainsAny(host, ".:") && host != "localhost" {
				w.Scope = "docker.io/" + repository
			}
			if w.Until, err = waivedUntil(until, time.Now()); err != nil {
				return err
			}
			w, err = d.Waive(c.Context(), w)
			if err != nil {
				return fmt.Errorf("waive %s: %w", words[0], err)
			}
			if a.json {
				return printJSON(a.Out, w)
			}
			fmt.Fprintf(a.Out, "waiver %d: %s passes in %s until %s\n", w.ID, w.Finding, scopeText(w.Scope), w.Until.Format(time.DateOnly))
			return nil
		},
	}
	s := c.Flags()
	s.StringVar(&project, "project", "", "only in this `project`")
	s.StringVar(&service, "service", "", "only in this service: `PROJECT/SERVICE`")
	s.StringVar(&repository, "repository", "", "only of images from this `repository`")
	s.StringVar(&until, "until", "", "the `day` that it ends, or in how many days: 2027-01-31, 30d; a year at most")
	s.StringVar(&reason, "reason", "", "`why`; it is shown in every report")
	s.BoolVar(&remove, "rm", false, "end the waiver of this number")
	return c
}

// waivedUntil reads a day, at its end, or a number of days.
func waivedUntil(v string, now time.Time) (time.Time, error) {
	if d, ok := strings.CutSuffix(v, "d"); ok {
		if n, err := strconv.Atoi(d); err == nil && n > 0 && n <= 366 {
			return now.AddDate(0, 0, n), nil
		}
	}
	day, err := time.ParseInLocation(time.DateOnly, v, time.UTC)
	if err != nil {
		return day, misuse("--until 2027-01-31 or --until 30d", "--until %q is no day", v)
	}
	return day.Add(24*time.Hour - time.Second), nil
}

func scopeText(scope string) string {
	if scope == "" {
		return "all projects"
	}
	return scope
}

func (a *app) policyWaivers() *cobra.Command {
	return &cobra.Command{
		Use:     "waivers [flags]",
		Aliases: []string{"ls"},
		Short:   "List the exceptions from the gate, those that end first first",
		Args:    args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			all, err := d.Waivers(c.Context())
			if err != nil {
				return fmt.Errorf("list waivers: %w", err)
			}
			if a.json {
				return printJSON(a.Out, all)
			}
			if len(all) == 0 {
				a.note("no waivers")
				return nil
			}
			var rows [][]string
			for _, w := range all {
				rows = append(rows, []string{fmt.Sprint(w.ID), w.Finding, scopeText(w.Scope), w.Until.Format(time.DateOnly), waiverState(w, time.Now()), w.By, clip(w.Reason, 80)})
			}
			return table(a.Out, []string{"ID", "FINDING", "SCOPE", "UNTIL", "STATE", "BY", "REASON"}, rows)
		},
	}
}

func waiverState(w api.Waiver, now time.Time) string {
	switch {
	case !w.Until.After(now):
		return "expired"
	case w.Until.Before(now.AddDate(0, 0, 7)):
		return "ends soon"
	}
	return "holds"
}

// denies says whether the gate would refuse.
func denies(all []api.Verdict) bool {
	for _, v := range all {
		if v.Verdict == "deny" {
			return true
		}
	}
	return false
}
