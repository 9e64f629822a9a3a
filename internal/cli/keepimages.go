package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

// imageName takes REPOSITORY[:TAG|@DIGEST] apart. A registry's name has no place in it: there is one.
func imageName(s string) (repository, tag, digest string) {
	repository, digest, _ = strings.Cut(s, "@")
	if digest == "" {
		repository, tag, _ = strings.Cut(repository, ":")
	}
	return repository, tag, digest
}

func (a *app) registryImages() *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:   "ls [flags] [REPOSITORY[:TAG]]",
		Short: "List what is in Tender's own registry",
		Long: `Lists repositories or, of one, its tags and the manifests without a tag, the newest first.
SCAN is what the newest scan has found, - if there was none.
NEEDED says what runs it, or could be rolled back to it: neither rules nor rm remove that.`,
		Example: `  tender registry ls
  tender registry ls shop/web
  tender registry ls shop/web:1.4.2 --json`,
		Args: args(0, 1, "at most one REPOSITORY"),
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			var repository, tag string
			if len(words) > 0 {
				repository, tag, _ = imageName(words[0])
			}
			all, err := d.RegistryImages(c.Context(), repository)
			if err != nil {
				return fmt.Errorf("list images: %w", err)
			}
			some := []api.RegistryImage{}
			for _, i := range all {
				if tag == "" || i.Tag == tag {
					some = append(some, i)
				}
			}
			switch {
			case a.json:
				return printJSON(a.Out, some)
			case repository == "":
				return a.repositoryTable(some, quiet, time.Now())
			}
			return a.imageTable(some, quiet, time.Now())
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names alone")
	return c
}

func (a *app) repositoryTable(all []api.RegistryImage, quiet bool, now time.Time) error {
	var rows [][]string
	for i := 0; i < len(all); {
		first, tags := all[i], 0
		for ; i < len(all) && all[i].Repository == first.Repository; i++ {
			if all[i].Tag != "" {
				tags++
			}
		}
		if quiet {
			fmt.Fprintln(a.Out, first.Repository)
		}
		rows = append(rows, []string{first.Repository, fmt.Sprint(tags), orDash(ago(first.Pushed, now)), orDash(first.Who)})
	}
	if quiet {
		return nil
	}
	if len(rows) == 0 {
		a.note("the registry is empty")
		return nil
	}
	return table(a.Out, []string{"REPOSITORY", "TAGS", "PUSHED", "BY"}, rows)
}

func (a *app) imageTable(all []api.RegistryImage, quiet bool, now time.Time) error {
	var rows [][]string
	for _, i := range all {
		if quiet {
			if i.Tag != "" {
				fmt.Fprintln(a.Out, i.Repository+":"+i.Tag)
			} else {
				fmt.Fprintln(a.Out, i.Repository+"@"+i.Digest)
			}
		}
		signed := "-"
		if i.Signed {
			signed = "signed"
		}
		found := "-"
		if i.Scan != nil {
			found = i.Scan.String()
		}
		rows = append(rows, []string{orDash(i.Tag), shortID(i.Digest), units.HumanSizeWithPrecision(float64(i.Size), 3), orDash(ago(i.Pushed, now)), orDash(i.Who), signed, found, orDash(i.Needed)})
	}
	if quiet {
		return nil
	}
	return table(a.Out, []string{"TAG", "DIGEST", "SIZE", "PUSHED", "BY", "SIGNED", "SCAN", "NEEDED"}, rows)
}

func (a *app) registryRetain() *cobra.Command {
	var r api.RetainRequest
	var rule api.RegistryRule
	var older, untagged string
	var all bool
	c := &cobra.Command{
		Use:   "retain [flags]",
		Short: "Remove tags and manifests by rules",
		Long: `Applies the rules of registry.retain in tender.yaml or, with --keep or --older-than, one that is
given here. A tag goes when it is beyond --keep and older than --older-than, by the date of its push.
What is deployed, what may be rolled back to, what was pulled or pushed within the hour, and what refers
to something that stays, stays. Blobs go at the next tender registry gc.`,
		Example: `  tender registry retain --dry-run
  tender registry retain --repository 'shop/*' --tags 'v*' --keep 10 --older-than 30d --dry-run`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := ruleNumbers(c, &rule); err != nil {
				return err
			}
			if rule.Keep > 0 || rule.OlderThan > 0 || rule.Untagged > 0 {
				r.Rules = []api.RegistryRule{rule}
			} else if len(rule.Tags)+len(rule.KeepTags) > 0 || rule.KeepSigned {
				return misuse("tender registry retain --tags 'v*' --keep 10", "nothing goes without --keep or --older-than")
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			done, err := d.RetainImages(c.Context(), r)
			if err != nil {
				return fmt.Errorf("retain: %w", err)
			}
			return a.cleaned(done, all)
		},
	}
	f := c.Flags()
	f.StringVar(&r.Repository, "repository", "", "repositories of this `pattern` alone: shop/*, shop/**")
	f.StringArrayVar(&rule.Tags, "tags", nil, "tags of this `pattern` alone")
	f.IntVar(&rule.Keep, "keep", 0, "so many of the newest stay: versions by their order, others by push date")
	f.StringVar(&older, "older-than", "", "those pushed longer ago go: 30d")
	f.StringVar(&untagged, "untagged", "", "manifests without a tag that were pushed longer ago go")
	f.StringArrayVar(&rule.KeepTags, "keep-tags", nil, "tags of this `pattern` stay")
	f.BoolVar(&rule.KeepSigned, "keep-signed", false, "what is signed stays")
	f.BoolVar(&r.DryRun, "dry-run", false, "say what would go and why, and change nothing")
	f.BoolVarP(&all, "all", "a", false, "show what stays, too")
	return c
}

// cleaned prints what went, or would.
func (a *app) cleaned(done api.RegistryClean, all bool) error {
	if a.json {
		return printJSON(a.Out, done)
	}
	var rows [][]string
	for _, s := range done.Steps {
		if !s.Goes && !all {
			continue
		}
		does := "stays"
		switch {
		case s.Goes && done.DryRun:
			does = "would go"
		case s.Goes:
			does = "went"
		}
		name := s.Repository + ":" + s.Tag
		if s.Tag == "" {
			name = s.Repository + "@" + shortID(s.Digest)
		}
		rows = append(rows, []string{name, does, s.Why})
	}
	if len(rows) > 0 {
		if err := table(a.Out, []string{"IMAGE", "", "WHY"}, rows); err != nil {
			return err
		}
	}
	verb := "went"
	if done.DryRun {
		verb = "would go"
	}
	a.note("%s and %s %s, %s become free", countOf(done.Tags, "tag"), countOf(done.Manifests, "manifest"), verb, units.HumanSizeWithPrecision(float64(done.Bytes), 3))
	return nil
}

func (a *app) registrySweep() *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use:   "gc [flags]",
		Short: "Remove blobs that no manifest names",
		Long: `Removes what no manifest of any repository names, is older than a day, and was not asked for or
pushed within the hour. Pushes and pulls go on meanwhile. The daemon does it each day at the time that
registry.gc in tender.yaml says, after the rules of registry.retain.`,
		Example: `  tender registry gc --dry-run
  tender registry gc`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			s, err := d.SweepRegistry(c.Context(), dry)
			if err != nil {
				return fmt.Errorf("registry gc: %w", err)
			}
			if a.json {
				return printJSON(a.Out, s)
			}
			verb := "went"
			if dry {
				verb = "would go"
			}
			fmt.Fprintf(a.Out, "%s %s, %s\n", countOf(s.Blobs, "blob"), verb, units.HumanSizeWithPrecision(float64(s.Bytes), 3))
			a.note("%s name %s; %d stay for being young, %d for a push or a pull", countOf(s.Manifests, "manifest"), countOf(s.Referenced, "blob"), s.Young, s.Leased)
			return nil
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "say how much would go, and change nothing")
	return c
}

func (a *app) registryRemove() *cobra.Command {
	var force, dry bool
	c := &cobra.Command{
		Use:   "rm [flags] REPOSITORY[:TAG|@DIGEST]...",
		Short: "Remove tags, manifests or whole repositories",
		Long: `Removes what is named, with the signatures and other things that refer to it, and lists it. A tag's
manifest goes with it unless another tag names it. What is deployed or may be rolled back to is refused.
Blobs go at the next tender registry gc.`,
		Example: `  tender registry rm shop/web:1.4.1
  tender registry rm --dry-run shop/old`,
		Args: args(1, -1, "REPOSITORY[:TAG|@DIGEST]"),
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			for _, w := range words {
				r := api.RemoveImageRequest{Force: force, DryRun: dry}
				r.Repository, r.Tag, r.Digest = imageName(w)
				done, err := d.RemoveImage(c.Context(), r)
				if err != nil {
					return fmt.Errorf("remove %s: %w", w, err)
				}
				if err := a.cleaned(done, false); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&force, "force", false, "what is needed, too")
	c.Flags().BoolVar(&dry, "dry-run", false, "list what would go, and change nothing")
	return c
}

// ruleNumbers reads what the flags of a rule say in numbers.
func ruleNumbers(c *cobra.Command, rule *api.RegistryRule) error {
	for flag, to := range map[string]*float64{"older-than": &rule.OlderThan, "untagged": &rule.Untagged} {
		text := c.Flag(flag).Value.String()
		if text == "" {
			continue
		}
		d, err := model.ParseDuration(text)
		if err != nil || d <= 0 {
			return misuse(c.CommandPath()+" --"+flag+" 30d", "--%s: %q is not a duration such as 30d", flag, text)
		}
		*to = time.Duration(d).Seconds()
	}
	if rule.Keep < 0 {
		return misuse(c.CommandPath()+" --keep 10", "--keep is how many stay, 1 or more")
	}
	return nil
}
