package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
)

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes commands, flags and live names",
		Example: `  tender completion bash > /etc/bash_completion.d/tender
  tender completion zsh > "${fpath[1]}/_tender"
  tender completion fish > ~/.config/fish/completions/tender.fish`,
		Args:      args(1, 1, "the name of a shell: bash, zsh, fish or powershell"),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(c *cobra.Command, words []string) error {
			root := c.Root()
			switch words[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Out, true)
			case "zsh":
				return root.GenZshCompletion(a.Out)
			case "fish":
				return root.GenFishCompletion(a.Out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Out)
			}
			return misuse("bash, zsh, fish or powershell", "no completion for %q", words[0])
		},
	}
}

// complete says how the value of a flag is completed.
func complete(c *cobra.Command, flag string, with cobra.CompletionFunc) {
	// It fails only where the flag is not there or has one already: a slip in this package.
	if err := c.RegisterFlagCompletionFunc(flag, with); err != nil {
		panic(err)
	}
}

// tabPatience is longer than the daemon waits for a busy engine.
const tabPatience = 1500 * time.Millisecond

// names completes with what ask finds within tabPatience; whatever goes wrong,
// there is just nothing to offer.
func names(c *cobra.Command, taken []string, part string, ask func(ctx context.Context) []string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), tabPatience)
	defer cancel()
	var out []string
	for _, n := range ask(ctx) {
		if strings.HasPrefix(n, part) && !slices.Contains(taken, n) && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, cobra.ShellCompDirectiveNoFileComp
}

// services completes with the services that the daemon knows of the project.
func (a *app) services(c *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
	return names(c, taken, part, func(ctx context.Context) []string {
		project, err := a.name(ctx)
		if err != nil {
			return nil
		}
		return known(a, func(d *api.Client) ([]api.Instance, error) { return d.Instances(ctx, project, true) }, func(i api.Instance) string { return i.Service })
	})
}

// firstService completes one service; what follows is a command in a container.
func (a *app) firstService(c *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
	if len(taken) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.services(c, taken, part)
}

// fileServices completes with the services of the Compose file.
func (a *app) fileServices(c *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
	return names(c, taken, part, func(ctx context.Context) []string {
		doc, err := compose.Load(ctx, a.source(nil))
		if err != nil {
			return nil
		}
		f, err := readForm(doc.YAML)
		if err != nil {
			return nil
		}
		return sortedKeys(f.Services)
	})
}

func (a *app) projects(c *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
	return names(c, taken, part, a.projectNames)
}

// projectNames are those that the daemon knows, as far as it answers.
func (a *app) projectNames(ctx context.Context) []string {
	return known(a, func(d *api.Client) ([]api.Project, error) { return d.Projects(ctx) }, func(p api.Project) string { return p.Name })
}

// known are the names of what the daemon lists; none where it does not answer.
func known[T any](a *app, list func(d *api.Client) ([]T, error), name func(T) string) []string {
	d, err := a.client()
	if err != nil {
		return nil
	}
	defer d.Close()
	all, err := list(d)
	if err != nil {
		return nil
	}
	var out []string
	for _, x := range all {
		if n := name(x); n != "" {
			out = append(out, n)
		}
	}
	return out
}

// revisions completes with the revisions that a service once ran.
func (a *app) revisions(c *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
	return names(c, nil, part, func(ctx context.Context) []string {
		project, err := a.name(ctx)
		if err != nil || len(taken) == 0 {
			return nil
		}
		return known(a, func(d *api.Client) ([]api.Rollout, error) { return d.History(ctx, project, taken[0]) }, func(r api.Rollout) string { return r.To })
	})
}

func (a *app) secrets(c *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
	return names(c, taken, part, func(ctx context.Context) []string {
		project := ""
		if f := c.Flags().Lookup("project"); f != nil {
			project = f.Value.String()
		}
		return known(a, func(d *api.Client) ([]api.Secret, error) { return d.Secrets(ctx, project) }, func(s api.Secret) string { return s.Name })
	})
}
