package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

func (a *app) imagePromote() *cobra.Command {
	var q api.PromoteRequest
	c := &cobra.Command{
		Use:   "promote [flags] REF --to STEP",
		Short: "Bring an image to a step of the pipeline, or take it back",
		Long: `The steps are those of "pipeline:" in tender.yaml. The digest that REF names is copied to where the
step has its images, without the engine, if the gate of the step lets it through; who did it, when,
from where, what its scan found, who signed it and how it did at the step before is attached to it
and kept. With --from, REF may be a repository alone: what stands at that step is meant. A promotion
that was cut off is ended by the same command; one that stands already changes nothing. Exit code 4
says that the gate denies it, each reason with what mends it.`,
		Example: `  tender image promote shop/web:1.4.2 --to staging
  tender image promote shop/web --from staging --to production --reason 'release 42'
  tender image promote shop/web:1.4.2 --to production --dry-run
  tender image promote shop/web:1.4.2 --to production --undo --reason 'p99 doubled'`,
		Args: args(1, 1, "one REF"),
		RunE: func(c *cobra.Command, words []string) error {
			q.Reference = words[0]
			switch {
			case q.To == "":
				return misuse("tender image promote "+q.Reference+" --to staging", "--to is missing")
			case q.Undo && q.From != "":
				return misuse("leave one of them out", "--undo and --from exclude each other")
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			show, err := a.progressFor()
			if err != nil {
				return err
			}
			p, err := d.Promote(c.Context(), q, show.report)
			show.close()
			if err != nil {
				what := "promote"
				if q.Undo {
					what = "undo the promotion of"
				}
				return fmt.Errorf("%s %s to %s: %w", what, q.Reference, q.To, err)
			}
			if a.json {
				return printJSON(a.Out, p)
			}
			return printPromotion(a.Out, p, time.Now())
		},
	}
	f := c.Flags()
	f.StringVar(&q.To, "to", "", "the `step` that it is to stand at")
	f.StringVar(&q.From, "from", "", "the `step` that it must have been promoted to")
	f.StringVar(&q.Reason, "reason", "", "`why`; it is kept with the promotion")
	f.BoolVar(&q.DryRun, "dry-run", false, "ask the gate, say what would be done, and do nothing")
	f.BoolVar(&q.Undo, "undo", false, "let the step stand again where it stood before")
	return c
}

// printPromotion is the account of one.
func printPromotion(w io.Writer, p api.Promotion, now time.Time) error {
	name := p.Repository
	if p.Version != "" {
		name += ":" + p.Version
	}
	switch {
	case p.Already && p.Undo && p.Digest == "":
		fmt.Fprintf(w, "nothing of %s stands at %s, since %s, by %s; nothing was done\n", p.Repository, p.Step, ago(p.At, now), p.Who)
		return nil
	case p.Already && p.Undo:
		fmt.Fprintf(w, "%s stands again at %s already, since %s, by %s; nothing was done\n", name, p.Step, ago(p.At, now), p.Who)
		return nil
	case p.Already:
		fmt.Fprintf(w, "%s stands at %s already, since %s, by %s; nothing was done\n", name, p.Step, ago(p.At, now), p.Who)
		return nil
	case p.Undo && p.Digest == "":
		fmt.Fprintf(w, "nothing of %s %s at %s any more\n", p.Repository, would(p, "stands", "would stand"), p.Step)
	case p.Undo:
		fmt.Fprintf(w, "%s %s again at %s\n", name, would(p, "stands", "would stand"), p.Step)
	default:
		fmt.Fprintf(w, "%s %s at %s\n", name, would(p, "stands", "would stand"), p.Step)
	}
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-10s %s\n", name, text)
		}
	}
	line("digest", p.Digest)
	if !p.Undo {
		line("at", p.Target)
	}
	if e := p.Evidence; e != nil && !p.Undo {
		from := p.Source
		if p.From != "" {
			from += ", " + p.From
		}
		line("from", from)
		if c := e.Canary; c != nil {
			text := fmt.Sprintf("rollout %d of %s/%s, %s: %s", c.Rollout, c.Project, c.Service, c.Strategy, c.State)
			if c.Verdict != "" && c.Verdict != c.State {
				text += ", " + c.Verdict
			}
			line(orDash(p.From), text)
		}
		line("built from", strings.TrimSpace(e.URL+" "+e.Revision))
		if e.Scan == nil {
			line("scan", "none")
		} else {
			text := scanWords(*e.Scan)
			if when := ago(e.Scan.Scanned, now); when != "" {
				text += ", " + when
			}
			line("scan", text)
		}
		line("signed by", orDash(strings.Join(e.Signers, ", ")))
	}
	if p.Before != "" && p.Before != p.Digest {
		what := "before"
		if p.Undo {
			what = "undone"
		}
		line(what, p.Before)
	}
	line("reason", p.Reason)
	line("evidence", p.Referrer)
	for _, text := range p.Warnings {
		fmt.Fprintln(w, "warning: "+text)
	}
	return nil
}

func would(p api.Promotion, is, would string) string {
	if p.DryRun {
		return would
	}
	return is
}

// scanWords counts what was found: 2 critical, 5 high (3 fixable).
func scanWords(s api.ScanVerdict) string {
	var parts []string
	for _, word := range append(append([]string{}, severityWords...), "unknown") {
		if n := s.Found[word]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, word))
		}
	}
	if len(parts) == 0 {
		return "nothing found"
	}
	out := strings.Join(parts, ", ")
	if s.Fixable > 0 {
		out += fmt.Sprintf(" (%d fixable)", s.Fixable)
	}
	return out
}
