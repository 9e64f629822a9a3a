package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const exitCodes = `Exit codes:
  0 done   1 error   2 usage   3 plan found changes   4 denied by policy or scan
  5 not healthy, rolled back or failed   130 interrupted
`

// ownCode marks commands that pass the container's exit code.
const ownCode = "exit code"

// help prints the page of one command: what it is, how to call it, examples,
// flags under their headings, exit codes.
func (a *app) help(c *cobra.Command, _ []string) {
	w := c.OutOrStdout()
	width, _ := size(w)
	width = min(max(width, 80), 100)

	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	fmt.Fprintf(w, "%s\n\nUsage:\n", strings.TrimSpace(text))
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "  %s COMMAND\n", c.CommandPath())
	} else {
		fmt.Fprintf(w, "  %s\n", c.UseLine())
	}
	if c.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", c.Example)
	}
	commands(w, c)

	var headings []string
	flags := map[string]*pflag.FlagSet{}
	put := func(heading string, f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if flags[heading] == nil {
			headings = append(headings, heading)
			flags[heading] = pflag.NewFlagSet(heading, pflag.ContinueOnError)
		}
		flags[heading].AddFlag(f)
	}
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		switch {
		case len(f.Annotations[section]) > 0:
			put(f.Annotations[section][0], f)
		case c.Root().PersistentFlags().Lookup(f.Name) != nil:
			put("Everywhere:", f)
		default:
			put("Flags:", f)
		}
	})
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) { put("Everywhere:", f) })
	order := []string{"Flags:", "Which project:", "Everywhere:"}
	slices.SortFunc(headings, func(x, y string) int { return slices.Index(order, x) - slices.Index(order, y) })
	for _, h := range headings {
		fmt.Fprintf(w, "\n%s\n%s", h, flags[h].FlagUsagesWrapped(width))
	}
	fmt.Fprint(w, "\n"+exitCodes)
	if c.Annotations[ownCode] != "" {
		fmt.Fprintln(w, "  "+c.Annotations[ownCode])
	}
}

// commands prints the commands below c, by group where it has groups.
func commands(w io.Writer, c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	row := func(s *cobra.Command) { fmt.Fprintf(w, "  %-12s %s\n", s.Name(), s.Short) }
	if len(c.Groups()) == 0 {
		fmt.Fprintln(w, "\nCommands:")
		for _, s := range c.Commands() {
			if s.IsAvailableCommand() {
				row(s)
			}
		}
		return
	}
	for _, g := range c.Groups() {
		fmt.Fprintln(w, "\n"+g.Title)
		for _, s := range c.Commands() {
			if s.GroupID == g.ID && s.IsAvailableCommand() {
				row(s)
			}
		}
	}
}

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "help [COMMAND]",
		Short:  "Help about a command",
		Hidden: true,
		RunE: func(c *cobra.Command, words []string) error {
			found := c.Root()
			for _, w := range words {
				i := slices.IndexFunc(found.Commands(), func(s *cobra.Command) bool { return s.Name() == w || s.HasAlias(w) })
				if i < 0 {
					return a.known(found, []string{w})
				}
				found = found.Commands()[i]
			}
			return found.Help()
		},
	}
}
