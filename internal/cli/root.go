package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// app is one run of the program: what it was given and the flags that every
// command shares.
type app struct {
	Stdio
	host     string // as said with --host
	context  string // as said with --context
	json     bool
	progress string

	files, profiles, envFiles list
	project, projectDir       string
}

func newApp(s Stdio) *app {
	if s.In == nil {
		s.In = strings.NewReader("")
	}
	if s.Out == nil {
		s.Out = io.Discard
	}
	if s.Err == nil {
		s.Err = io.Discard
	}
	return &app{Stdio: s}
}

// getenv returns the value of a variable in the user's environment, the last one given.
func (a *app) getenv(name string) string {
	for _, kv := range slices.Backward(a.Env) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// Groups of commands, in the order of the help.
const (
	groupRun     = "run"
	groupLook    = "look"
	groupConsole = "console"
	groupBuild   = "build"
	groupAdmin   = "admin"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "tender",
		Short: "Tender runs Compose files as a managed system",
		Long: `Tender takes standard Compose files and keeps what they describe running:
deploys without downtime, repairs what breaks, and goes back by itself when a new
revision does not become healthy.`,
		Example: `  tender up                  start what compose.yaml describes, or bring it up to date
  tender plan                say what up would do, and change nothing
  tender ps                  what runs
  tender logs -f web         follow the output of a service
  tender rollback web        back to the revision before`,
		SilenceErrors: true,
		SilenceUsage:  true,
		// -f, -p and their like stand before the command, as with docker compose, or after it.
		TraverseChildren:  true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              a.known,
		RunE: func(c *cobra.Command, _ []string) error {
			if v, err := c.Flags().GetBool("version"); err == nil && v {
				fmt.Fprintln(a.Out, a.versionLine())
				return nil
			}
			return c.Help()
		},
	}
	root.PersistentFlags().StringVar(&a.host, "host", "", "`address` of the daemon: unix:///path, ssh://user@host, https://host:port; TENDER_HOST\n(default "+api.DefaultHost+", or what the context says)")
	root.PersistentFlags().StringVar(&a.context, "context", "", "`name` of the place where the daemon is; TENDER_CONTEXT, tender context ls")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.PersistentFlags().StringVar(&a.progress, "progress", "auto", "`how` to show long work: auto, plain, json or quiet")
	a.inFile(root)
	root.Flags().BoolP("version", "v", false, "print the version")

	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run a project:"},
		&cobra.Group{ID: groupLook, Title: "Look at it:"},
		&cobra.Group{ID: groupConsole, Title: "Work inside it:"},
		&cobra.Group{ID: groupBuild, Title: "Images and files:"},
		&cobra.Group{ID: groupAdmin, Title: "The daemon and its keys:"},
	)
	root.SetHelpCommand(a.helpCommand())
	root.SetHelpFunc(a.help)
	root.SetUsageFunc(func(c *cobra.Command) error { a.help(c, nil); return nil })
	root.SetFlagErrorFunc(flagError)

	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupRun, a.upCommand(), a.planCommand(), a.downCommand(), a.startCommand(), a.stopCommand(), a.restartCommand(),
		a.killCommand(), a.pauseCommand(), a.unpauseCommand(), a.rmCommand(), a.scaleCommand(), a.rollbackCommand(), a.rolloutCommand(), a.routeCommand(), a.releaseCommand())
	add(groupLook, a.psCommand(), a.lsCommand(), a.statusCommand(), a.whyCommand(), a.logsCommand(), a.alertCommand(), a.eventsCommand(), a.historyCommand(),
		a.showCommand(), a.topCommand(), a.statsCommand(), a.metricsCommand(), a.portCommand(), a.imagesCommand())
	add(groupConsole, a.execCommand(), a.runCommand(), a.attachCommand(), a.cpCommand(), a.waitCommand())
	add(groupBuild, a.configCommand(), a.convertCommand(), a.imageCommand(), a.buildCommand(), a.pullCommand(), a.pushCommand())
	add(groupAdmin, a.serveCommand(), a.edgeCommand(), a.doctorCommand(), a.contextCommand(), a.secretCommand(), a.registryCommand(), a.tokenCommand(), a.policyCommand(), a.auditCommand(),
		a.upgradeCommand(), a.uninstallCommand(), a.completionCommand(), a.versionCommand())
	root.AddCommand(a.dialCommand())
	return root
}

// known refuses a word that is no command and names the nearest one.
func (a *app) known(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := c.CommandPath() + " --help lists the commands"
	var known []string
	for _, s := range c.Commands() {
		if s.IsAvailableCommand() {
			known = append(known, s.Name())
		}
	}
	if near := tender.Nearest(args[0], known); near != "" {
		hint = "did you mean: " + c.CommandPath() + " " + near
	}
	return misuse(hint, "%q is no command of %s", args[0], c.CommandPath())
}

// flagError turns pflag's complaint into one that names the nearest flag.
func flagError(c *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	hint := c.CommandPath() + " --help lists the flags"
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && len(e.GetSpecifiedName()) > 1 {
		if near := tender.Nearest(e.GetSpecifiedName(), flagNames(c)); near != "" {
			hint = "did you mean: --" + near
		}
	}
	return misuse(hint, "%s: %v", c.Name(), err)
}

func flagNames(c *cobra.Command) []string {
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// list is a flag that may stand several times, before the command and after it.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }
func (l *list) Type() string       { return "list" }

// section marks a flag for its own heading in the help.
const section = "section"

// inFile adds the flags that say which Compose files, and so which project.
func (a *app) inFile(c *cobra.Command) {
	short := "f"
	if c.Flags().ShorthandLookup("f") != nil {
		short = "" // -f follows or forces here; before the command it still names a file
	}
	fs := pflag.NewFlagSet("file", pflag.ContinueOnError)
	fs.VarP(&a.files, "file", short, "Compose `file`, - is stdin; repeat it to merge several")
	fs.StringVarP(&a.project, "project-name", "p", a.project, "`name` of the project")
	fs.Var(&a.profiles, "profile", "profile to switch on, by `name`; repeat it for several")
	fs.Var(&a.envFiles, "env-file", "`file` with variables, in place of .env")
	fs.StringVar(&a.projectDir, "project-directory", a.projectDir, "`directory` that relative paths start from")
	fs.VisitAll(func(f *pflag.Flag) {
		f.Annotations = map[string][]string{section: {"Which project:"}}
		c.Flags().AddFlag(f)
	})
	complete(c, "project-name", a.projects)
}

// args checks how many words follow the flags; most < 0: any number.
func args(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, got []string) error {
		if len(got) >= least && (most < 0 || len(got) <= most) {
			return nil
		}
		hint := "tender " + strings.TrimPrefix(c.UseLine(), "tender ")
		if what == "" {
			return misuse(hint, "%s takes no %q", c.CommandPath(), got[0])
		}
		return misuse(hint, "%s wants %s", c.CommandPath(), what)
	}
}

// family is a command that only holds others.
func (a *app) family(name, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  a.known,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// countOf says "1 service", "2 services".
func countOf(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
