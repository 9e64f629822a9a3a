package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

// outdatedRow is one image that runs.
type outdatedRow struct {
	Service string
	Image   string
	Running string
	InRange string
	Newest  string
	Rebuilt string
	Auto    string
}

var outdatedHeadings = map[string]string{
	"Service": "SERVICE", "Image": "IMAGE", "Running": "RUNNING", "InRange": "NEWEST IN RANGE", "Newest": "NEWEST", "Rebuilt": "REBUILT", "Auto": "BY ITSELF",
}

func (a *app) imageOutdated() *cobra.Command {
	var all, check bool
	var project, format string
	c := &cobra.Command{
		Use:   "outdated [flags] [SERVICE|REF...]",
		Short: "Say which newer images there are of those that run",
		Long: `Asks registries about the images of all services: the newest tag in the range that is welcome
(x-tender.update.range, else the same major version), the newest at all, and whether the tag that
runs was rebuilt since. Only tags written alike follow each other: 7-alpine is followed by
8-alpine. Pre-releases are none. Answers hold for ten minutes.`,
		Example: `  tender image outdated
  tender image outdated -p shop web
  tender image outdated postgres:15
  tender image outdated --check || tender up`,
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			found, err := d.Outdated(c.Context(), api.OutdatedRequest{Project: project, Names: words})
			if err != nil {
				return fmt.Errorf("look for newer images: %w", err)
			}
			old := 0
			var rows []outdatedRow
			for _, o := range found {
				if o.Outdated {
					old++
				}
				if o.Outdated || all || len(words) > 0 {
					rows = append(rows, newOutdatedRow(o))
				}
			}
			if a.json {
				if err := printJSON(a.Out, found); err != nil {
					return err
				}
			} else {
				if err := a.printOutdated(format, found, rows, old, all || len(words) > 0); err != nil {
					return err
				}
			}
			if check && old > 0 {
				return exit(changes)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "those that are the newest, too")
	c.Flags().BoolVar(&check, "check", false, "end with 3 if there is a newer one")
	c.Flags().StringVarP(&project, "project-name", "p", "", "services of this `project` alone")
	c.Flags().StringVar(&format, "format", "", "table, json, or a `template` as for docker")
	complete(c, "project-name", a.projects)
	return c
}

func (a *app) printOutdated(format string, found []api.Outdated, rows []outdatedRow, old int, all bool) error {
	if len(rows) > 0 || format != "" {
		if err := listed(a.Out, format, "{{.Service}}\t{{.Image}}\t{{.Running}}\t{{.InRange}}\t{{.Newest}}\t{{.Rebuilt}}\t{{.Auto}}", outdatedHeadings, rows); err != nil {
			return err
		}
	}
	problems := 0
	for _, o := range found {
		if o.Problem != "" {
			problems++
			if o.Problem != "it is built here" {
				a.note("warning: %s: %s", named(o), o.Problem)
			}
		}
		if l := o.Last; l != nil && l.State != "done" && l.State != "trying" && (o.Outdated || all) {
			a.note("%s: the update to %s %s: %s (%s)", named(o), l.Image, ago(l.At, time.Now()), l.State, strings.TrimSpace(strings.SplitN(l.Why, "\n", 2)[0]))
		}
	}
	newest := len(found) - old - problems
	switch {
	case len(found) == 0:
		a.note("nothing runs here: tender ls -a")
	case old == 0 && problems == 0:
		a.note("%s, all the newest there are", countOf(len(found), "image"))
	case !all && newest > 0:
		a.note("%s more the newest there are: --all lists them", countOf(newest, "image"))
	}
	return nil
}

func named(o api.Outdated) string {
	if o.Service == "" {
		return o.Image
	}
	return o.Project + "/" + o.Service
}

func newOutdatedRow(o api.Outdated) outdatedRow {
	r := outdatedRow{Service: "-", Image: repositoryOf(o.Image), Running: tagOf(o.Image), InRange: orDash(o.InRange), Newest: orDash(o.Newest), Rebuilt: "no", Auto: "no"}
	if o.Service != "" {
		r.Service = named(o)
	}
	if name, digest, pinned := strings.Cut(o.Image, "@"); pinned {
		r.Image, r.Running = repositoryOf(name), shortID(digest)
		if tag := tagOf(name); tag != "" {
			r.Running = tag
		}
	}
	if o.InRange != "" {
		r.InRange += " (" + o.Range + ")"
	}
	switch {
	case o.Rebuilt:
		r.Rebuilt = "yes, " + shortID(o.NewDigest)
	case o.Problem != "" || o.Digest == "":
		r.Rebuilt = "-"
	}
	if o.Auto {
		r.Auto = orDash(o.Window)
		if o.Window == "" {
			r.Auto = "always"
		}
	}
	return r
}
