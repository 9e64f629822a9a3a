package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

func (a *app) imagePrune() *cobra.Command {
	var r api.PruneRequest
	var rule api.RegistryRule
	var older, untagged, until, keepCache string
	var all bool
	c := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove images of the engine by rules",
		Long: `Applies the rules of images.retain in tender.yaml or, with --keep or --older-than, one that is given
here, to the images that lie on the daemon's host. An image goes when it is beyond --keep and older than
--older-than, by the day on which it came there. What any container has, running or not, what is
deployed, what may be rolled back to, what an up or a build under way needs, what came within the hour,
and what has the label tender.pin, stays. So does what Tender did not pull, build or take in, unless
--foreign is given. Nothing is forced. It needs a token of scope admin.`,
		Example: `  tender image prune --dry-run
  tender image prune --keep 10 --older-than 30d --dry-run -a
  tender image prune --until-free 20% --build-cache`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := ruleNumbers(c, &rule); err != nil {
				return err
			}
			if until != "" {
				n, err := strconv.ParseFloat(strings.TrimSuffix(until, "%"), 64)
				if err != nil || n <= 0 || n > 90 {
					return misuse("tender image prune --until-free 20%", "--until-free: %q is not a share of the disk such as 20%%, up to 90%%", until)
				}
				r.UntilFree = n / 100
			}
			if keepCache != "" {
				n, err := units.RAMInBytes(keepCache)
				if err != nil || n < 0 {
					return misuse("tender image prune --build-cache --cache-keep 10GiB", "--cache-keep: %q is not a size such as 10GiB", keepCache)
				}
				if !r.BuildCache {
					return misuse("tender image prune --build-cache --cache-keep "+keepCache, "--cache-keep says nothing without --build-cache")
				}
				r.CacheKeep = n
			}
			if r.BuildCache {
				r.CacheOlderThan = rule.OlderThan
			}
			if rule.Keep > 0 || rule.OlderThan > 0 || rule.Untagged > 0 {
				r.Rules = []api.RegistryRule{rule}
			} else if len(rule.Tags)+len(rule.KeepTags)+len(rule.Repositories) > 0 {
				return misuse("tender image prune --tags 'v*' --keep 10", "nothing goes without --keep or --older-than")
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			done, err := d.PruneImages(c.Context(), r)
			if err != nil {
				return fmt.Errorf("prune images: %w", err)
			}
			return a.pruned(done, all)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&rule.Repositories, "repository", nil, "images of this `pattern` alone: shop/*, registry.company.com/**")
	f.StringArrayVar(&rule.Tags, "tags", nil, "tags of this `pattern` alone")
	f.IntVar(&rule.Keep, "keep", 0, "so many of the newest stay of each repository: versions by their order, others by the day they came")
	f.StringVar(&older, "older-than", "", "those that came longer ago go: 30d")
	f.StringVar(&untagged, "untagged", "", "images without a name that came longer ago go")
	f.StringArrayVar(&rule.KeepTags, "keep-tags", nil, "tags of this `pattern` stay")
	f.StringVar(&until, "until-free", "", "stop once this `share` of the engine's disk is free: 20%; without a rule all that nobody needs may go, the oldest first")
	f.BoolVar(&r.Foreign, "foreign", false, "images that Tender did not bring, too")
	f.BoolVar(&r.BuildCache, "build-cache", false, "what builds left, too; of it what was used within --older-than stays")
	f.StringVar(&keepCache, "cache-keep", "", "so much of the build cache stays, the last used: 10GiB")
	f.BoolVar(&r.DryRun, "dry-run", false, "say what would go and why, and change nothing")
	f.BoolVarP(&all, "all", "a", false, "show what stays, too")
	return c
}

// pruned prints what went, or would.
func (a *app) pruned(done api.Pruned, all bool) error {
	if a.json {
		return printJSON(a.Out, done)
	}
	var rows [][]string
	stayed, foreign := 0, 0
	for _, s := range done.Steps {
		if !s.Goes {
			if strings.Contains(s.Why, "--foreign") {
				foreign++
			}
			if !all && !strings.HasPrefix(s.Why, "meanwhile: ") {
				stayed++
				continue
			}
		}
		does := "stays"
		switch {
		case s.Goes && done.DryRun:
			does = "would go"
		case s.Goes:
			does = "went"
		}
		name := shortID(s.ID)
		switch {
		case len(s.Names) > 0:
			name = strings.Join(s.Names, ", ")
		case s.Was != "":
			name += " (was " + s.Was + ")"
		}
		size := "-"
		if s.Bytes >= 0 {
			size = units.HumanSizeWithPrecision(float64(s.Bytes), 3)
		}
		rows = append(rows, []string{name, does, size, s.Why})
	}
	if len(rows) > 0 {
		if err := table(a.Out, []string{"IMAGE", "", "ITS OWN", "WHY"}, rows); err != nil {
			return err
		}
	}
	verb := "went"
	if done.DryRun {
		verb = "would go"
	}
	text := fmt.Sprintf("%s %s, %s", countOf(done.Images, "image"), verb, units.HumanSizeWithPrecision(float64(done.Bytes), 3))
	if done.Images > 1 {
		text += " or more" // what they share among them is nobody's own
	}
	if done.Cache > 0 {
		text += fmt.Sprintf("; %s of the build cache", units.HumanSizeWithPrecision(float64(done.Cache), 3))
	}
	if done.Free > 0 {
		text += fmt.Sprintf("; %.0f %% of the engine's disk %s free", 100*done.Free, map[bool]string{true: "would be", false: "are"}[done.DryRun])
	}
	a.note("%s", text)
	if stayed > 0 {
		a.note("%s: -a shows why", stays(stayed))
	}
	if foreign > 0 {
		a.note("%s of those because Tender did not bring them; --foreign takes such by the same rules", fmt.Sprint(foreign))
	}
	return nil
}

func stays(n int) string {
	if n == 1 {
		return "1 image stays"
	}
	return fmt.Sprintf("%d images stay", n)
}
