package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// changing makes a command that asks the daemon for one change of a project.
// ask fills in what the flags say and may refuse.
func (a *app) changing(verb, use, short string, ask func(c *cobra.Command, services []string, ch *api.Change) error) *cobra.Command {
	c := &cobra.Command{
		Use:               use,
		Short:             short,
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			ch := api.Change{Verb: verb, Services: services}
			if ask != nil {
				if err := ask(c, services, &ch); err != nil {
					return err
				}
			}
			project, err := a.name(c.Context())
			if err != nil {
				return err
			}
			return a.ask(c.Context(), project, ch)
		},
	}
	a.inFile(c)
	return c
}

// ask runs one change of a project to its end.
func (a *app) ask(ctx context.Context, project string, ch api.Change) error {
	d, err := a.client()
	if err != nil {
		return err
	}
	doing := ch.Verb + " " + project
	if len(ch.Services) > 0 {
		doing += "/" + strings.Join(ch.Services, ",")
	}
	return a.change(ctx, doing, func(ctx context.Context, report func(api.Event)) (api.Result, error) {
		return d.Change(ctx, project, ch, report)
	})
}

// grace reads -t: seconds, where the flag was given.
func grace(c *cobra.Command) (*time.Duration, error) {
	f := c.Flags().Lookup("timeout")
	if f == nil || !f.Changed {
		return nil, nil
	}
	n, err := c.Flags().GetInt("timeout")
	if err != nil {
		return nil, err
	}
	if n < 0 {
		return nil, misuse("give seconds: -t 30", "--timeout %d is negative", n)
	}
	d := time.Duration(n) * time.Second
	return &d, nil
}

func withGrace(c *cobra.Command) *cobra.Command {
	c.Flags().IntP("timeout", "t", 0, "`seconds` until an instance is killed (default: its stop_grace_period)")
	return c
}

func withSupersede(c *cobra.Command) *cobra.Command {
	c.Flags().Bool("supersede", false, "take over from a rollout that is still going on")
	return c
}

func (a *app) stopCommand() *cobra.Command {
	c := withGrace(a.changing("stop", "stop [flags] [SERVICE...]", "Stop services; they stay stopped until start or up", takeGrace))
	return withSupersede(c)
}

func takeGrace(c *cobra.Command, _ []string, ch *api.Change) (err error) {
	ch.Grace, err = grace(c)
	if err != nil {
		return err
	}
	if c.Flags().Lookup("supersede") != nil {
		ch.Supersede, err = c.Flags().GetBool("supersede")
	}
	return err
}

func (a *app) startCommand() *cobra.Command {
	return a.changing("start", "start [flags] [SERVICE...]", "Start services that were stopped", nil)
}

func (a *app) restartCommand() *cobra.Command {
	return withGrace(a.changing("restart", "restart [flags] [SERVICE...]", "Restart the instances of services", takeGrace))
}

func (a *app) pauseCommand() *cobra.Command {
	return a.changing("pause", "pause [SERVICE...]", "Freeze the processes of services", nil)
}

func (a *app) unpauseCommand() *cobra.Command {
	return a.changing("unpause", "unpause [SERVICE...]", "Let paused services go on", nil)
}

func (a *app) killCommand() *cobra.Command {
	var signal string
	var orphans bool
	c := a.changing("kill", "kill [flags] [SERVICE...]", "Send a signal to the instances of services",
		func(_ *cobra.Command, _ []string, ch *api.Change) error {
			ch.Signal, ch.Orphans = signal, orphans
			return nil
		})
	c.Flags().StringVarP(&signal, "signal", "s", "SIGKILL", "`signal` to send")
	c.Flags().BoolVar(&orphans, "remove-orphans", false, "remove instances of services that the file no longer has")
	return c
}

func (a *app) scaleCommand() *cobra.Command {
	c := a.changing("scale", "scale [flags] SERVICE=N...", "Set how many instances services have",
		func(c *cobra.Command, words []string, ch *api.Change) (err error) {
			ch.Services = nil
			ch.Scale, err = counts("scale", words)
			if err != nil {
				return err
			}
			ch.Supersede, err = c.Flags().GetBool("supersede")
			return err
		})
	c.Example = "  tender scale web=5 worker=2"
	c.Args = args(1, -1, "SERVICE=N")
	return withSupersede(c)
}

func (a *app) rollbackCommand() *cobra.Command {
	var to string
	c := a.changing("rollback", "rollback [flags] [SERVICE]", "Go back to the revision before",
		func(c *cobra.Command, services []string, ch *api.Change) (err error) {
			if to != "" && len(services) != 1 {
				return misuse("tender rollback SERVICE --to "+to, "--to wants the one service it is a revision of")
			}
			ch.To = to
			ch.Supersede, err = c.Flags().GetBool("supersede")
			return err
		})
	c.Long = `Makes the revision that ran before the wanted one again, with the image, the
configs and the secrets it had. The revision left behind is marked as rejected:
only an up brings it back.`
	c.Example = `  tender rollback                   every service of the last change
  tender rollback web
  tender rollback web --to 7f3a09c1  tender history web lists them`
	c.Args = args(0, 1, "at most one SERVICE")
	c.Flags().StringVar(&to, "to", "", "`revision` to go back to")
	complete(c, "to", a.revisions)
	return withSupersede(c)
}

func (a *app) releaseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "release [flags] [PROJECT]",
		Short: "Give a project back to docker compose, running",
		Long: `Forgets a project without touching what runs: its instances, networks and volumes stay
and docker compose finds them as its own. Tender no longer repairs them.`,
		Args:              args(0, 1, "at most one PROJECT"),
		ValidArgsFunction: a.projects,
		RunE: func(c *cobra.Command, words []string) error {
			if len(words) == 1 {
				a.project = words[0]
			}
			project, err := a.name(c.Context())
			if err != nil {
				return err
			}
			return a.ask(c.Context(), project, api.Change{Verb: "release"})
		},
	}
	a.inFile(c)
	return c
}

func (a *app) downCommand() *cobra.Command {
	var volumes, orphans bool
	var rmi string
	c := &cobra.Command{
		Use:   "down [flags] [SERVICE...]",
		Short: "Stop a project and remove its instances and networks",
		Long: `Stops and removes the instances and networks of a project. Volumes stay unless -v is
given; then each of them is named before it goes.`,
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			t, err := grace(c)
			if err != nil {
				return err
			}
			if rmi != "" && rmi != "local" && rmi != "all" {
				return misuse("local or all", "--rmi %q is not known", rmi)
			}
			project, err := a.name(c.Context())
			if err != nil {
				return err
			}
			if volumes && len(services) == 0 {
				if err := a.nameVolumes(c.Context(), project); err != nil {
					return err
				}
			}
			supersede, err := c.Flags().GetBool("supersede")
			if err != nil {
				return err
			}
			return a.ask(c.Context(), project, api.Change{
				Verb: "down", Services: services, Grace: t, Volumes: volumes, Images: rmi, Orphans: orphans, Supersede: supersede,
			})
		},
	}
	c.Flags().BoolVarP(&volumes, "volumes", "v", false, "remove the project's volumes, too, with what is in them")
	c.Flags().StringVar(&rmi, "rmi", "", "`which` images to remove: local (those without a tag of their own) or all")
	c.Flags().BoolVar(&orphans, "remove-orphans", false, "remove instances of services that the file no longer has")
	a.inFile(c)
	return withSupersede(withGrace(c))
}

// nameVolumes says which volumes down -v takes away.
func (a *app) nameVolumes(ctx context.Context, project string) error {
	d, err := a.client()
	if err != nil {
		return err
	}
	text, err := d.Config(ctx, project, 0)
	if tender.KindOf(err) == tender.NotFound {
		return nil // down says so itself, or takes down what docker compose left
	}
	if err != nil {
		return fmt.Errorf("down %s: %w", project, err)
	}
	f, err := readForm(text)
	if err != nil {
		return err
	}
	for _, key := range sortedKeys(f.Volumes) {
		v := f.Volumes[key]
		if v.External {
			a.note("keeps volume %s: it is external", orKey(v.Name, key))
			continue
		}
		if v.Name == "" {
			v.Name = project + "_" + key
		}
		a.note("removes volume %s", v.Name)
	}
	return nil
}

func orKey(name, key string) string {
	if name == "" {
		return key
	}
	return name
}

func (a *app) rmCommand() *cobra.Command {
	var force, stop, volumes bool
	c := &cobra.Command{
		Use:               "rm [flags] [SERVICE...]",
		Short:             "Remove stopped instances",
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			project, err := a.name(c.Context())
			if err != nil {
				return err
			}
			if !force {
				what := "the stopped instances of " + project
				if len(services) > 0 {
					what += " (" + strings.Join(services, ", ") + ")"
				}
				if err := a.confirm("remove "+what, "-f"); err != nil {
					return err
				}
			}
			if stop {
				if err := a.ask(c.Context(), project, api.Change{Verb: "stop", Services: services}); err != nil {
					return err
				}
			}
			return a.ask(c.Context(), project, api.Change{Verb: "rm", Services: services, Volumes: volumes})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	c.Flags().BoolVarP(&stop, "stop", "s", false, "stop the services first")
	c.Flags().BoolVarP(&volumes, "volumes", "v", false, "remove the anonymous volumes of the instances, too")
	a.inFile(c)
	return c
}

// confirm asks on a terminal; elsewhere only the flag says yes.
func (a *app) confirm(what, flag string) error {
	if !isTerminal(a.In) {
		return misuse("say so with "+flag, "%s: nobody is there to ask", what)
	}
	fmt.Fprintf(a.Err, "%s? [y/N] ", strings.ToUpper(what[:1])+what[1:])
	answer, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return exit(failed)
}
