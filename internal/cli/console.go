package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/mattn/go-shellwords"
	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

const passesCode = "otherwise that of the process in the container"

func (a *app) execCommand() *cobra.Command {
	var r api.ExecRequest
	var noTTY bool
	var index int
	c := &cobra.Command{
		Use:   "exec [flags] SERVICE COMMAND [ARG...]",
		Short: "Run a command in a running instance",
		Example: `  tender exec web sh
  tender exec -T db psql -U postgres < schema.sql`,
		Args:              args(2, -1, "SERVICE and COMMAND"),
		Annotations:       map[string]string{ownCode: passesCode},
		ValidArgsFunction: a.firstService,
		RunE: func(c *cobra.Command, words []string) error {
			project, d, err := a.at(c.Context())
			if err != nil {
				return err
			}
			r.Cmd, r.Stdin = words[1:], !r.Detach
			r.TTY = !noTTY && !r.Detach && isTerminal(a.In) && isTerminal(a.Out)
			r.Width, r.Height = a.window(r.TTY)
			s, err := d.Exec(c.Context(), api.Target{Project: project, Service: words[0], Slot: index}, r)
			if err != nil {
				return fmt.Errorf("exec %s/%s: %w", project, words[0], err)
			}
			if r.Detach {
				return s.Close()
			}
			return a.connect(c.Context(), s, joint{stdin: r.Stdin, raw: r.TTY})
		},
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&r.Detach, "detach", "d", false, "do not wait for the command")
	f.StringArrayVarP(&r.Env, "env", "e", nil, "variable for the command: `NAME=VALUE`")
	f.StringVarP(&r.User, "user", "u", "", "`user` to run it as")
	f.StringVarP(&r.WorkingDir, "workdir", "w", "", "`directory` to run it in")
	f.BoolVar(&r.Privileged, "privileged", false, "with all privileges")
	f.BoolVarP(&noTTY, "no-tty", "T", false, "no terminal (the default when stdin or stdout is none)")
	alsoCalled(c, "no-tty", "no-TTY")
	f.IntVar(&index, "index", 0, "`slot` of the instance (default: the first that runs)")
	accepted(c, "interactive", "i")
	accepted(c, "tty", "t")
	a.inFile(c)
	return c
}

// accepted takes a flag of docker that says what is the default here.
func accepted(c *cobra.Command, name, short string) {
	c.Flags().BoolP(name, short, true, "")
	c.Flags().Lookup(name).Hidden = true
}

// alsoCalled gives a flag the name that another version of docker has for it.
func alsoCalled(c *cobra.Command, name, other string) {
	also := *c.Flags().Lookup(name)
	also.Name, also.Shorthand, also.Hidden = other, "", true
	c.Flags().AddFlag(&also)
}

func (a *app) runCommand() *cobra.Command {
	var r api.ExecRequest
	var noTTY, build, noStdin bool
	var entrypoint string
	var labels []string
	c := &cobra.Command{
		Use:   "run [flags] SERVICE [COMMAND] [ARG...]",
		Short: "Run a command in a new instance of a service",
		Long: `Makes one more instance of a service, beside those that serve, with another command.
The service is the one the daemon holds: tender up comes first.`,
		Example: `  tender run --rm web ./manage migrate
  tender run --rm -e DEBUG=1 --entrypoint sh web`,
		Args:              args(1, -1, "SERVICE"),
		Annotations:       map[string]string{ownCode: passesCode},
		ValidArgsFunction: a.firstService,
		RunE: func(c *cobra.Command, words []string) error {
			ctx := c.Context()
			var err error
			if r.Labels, err = pairs("--label", labels); err != nil {
				return err
			}
			if entrypoint != "" {
				if r.Entrypoint, err = shellwords.Parse(entrypoint); err != nil {
					return misuse("quote it as for a shell", "--entrypoint %q: %v", entrypoint, err)
				}
			}
			leave, err := detachKeys(dockersKeys)
			if err != nil {
				return err
			}
			project, d, err := a.at(ctx)
			if err != nil {
				return err
			}
			if build {
				if err := a.build(ctx, buildFlags{}, words[:1]); err != nil {
					return err
				}
			}
			r.Cmd, r.Stdin = words[1:], !r.Detach && !noStdin
			r.TTY = !noTTY && !r.Detach && isTerminal(a.In) && isTerminal(a.Out)
			r.Width, r.Height = a.window(r.TTY)
			p, err := a.progressFor()
			if err != nil {
				return err
			}
			s, err := d.Run(ctx, project, words[0], r, p.report)
			p.close()
			if err != nil {
				return fmt.Errorf("run %s/%s: %w", project, words[0], err)
			}
			if r.Detach {
				fmt.Fprintln(a.Out, s.Instance)
				return s.Close()
			}
			return a.connect(ctx, s, joint{stdin: r.Stdin, raw: r.TTY, leave: leave})
		},
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&r.Detach, "detach", "d", false, "print the instance's name and do not wait")
	f.BoolVar(&r.Remove, "rm", false, "remove the instance when it has ended")
	f.StringArrayVarP(&r.Env, "env", "e", nil, "variable: `NAME=VALUE`")
	f.StringVarP(&r.User, "user", "u", "", "`user` to run as")
	f.StringVarP(&r.WorkingDir, "workdir", "w", "", "`directory` to run in")
	f.StringVar(&entrypoint, "entrypoint", "", "another `entrypoint`")
	f.StringVar(&r.Name, "name", "", "`name` of the instance")
	f.StringArrayVarP(&labels, "label", "l", nil, "label: `NAME=VALUE`")
	f.BoolVarP(&r.Ports, "service-ports", "P", false, "publish the service's ports")
	f.BoolVar(&r.NoDeps, "no-deps", false, "do not start what the service depends on")
	f.BoolVar(&build, "build", false, "build the image first")
	f.BoolVarP(&noTTY, "no-tty", "T", false, "no terminal (the default when stdin or stdout is none)")
	alsoCalled(c, "no-tty", "no-TTY")
	f.BoolVar(&noStdin, "no-stdin", false, "leave stdin alone")
	accepted(c, "interactive", "i")
	accepted(c, "tty", "t")
	a.inFile(c)
	return c
}

func (a *app) attachCommand() *cobra.Command {
	var index int
	var noStdin, proxy bool
	var keys string
	c := &cobra.Command{
		Use:   "attach [flags] SERVICE",
		Short: "Connect to the process of a running instance",
		Long: `Connects stdin and the output to the instance's own process. Where it has a terminal
Ctrl-P Ctrl-Q leaves it running; where it has none, Ctrl-C and other signals go to it.`,
		Args:              args(1, 1, "one SERVICE"),
		Annotations:       map[string]string{ownCode: passesCode},
		ValidArgsFunction: a.firstService,
		RunE: func(c *cobra.Command, words []string) error {
			leave, err := detachKeys(keys)
			if err != nil {
				return err
			}
			project, d, err := a.at(c.Context())
			if err != nil {
				return err
			}
			s, err := d.Attach(c.Context(), api.Target{Project: project, Service: words[0], Slot: index}, !noStdin)
			if err != nil {
				return fmt.Errorf("attach %s/%s: %w", project, words[0], err)
			}
			how := joint{stdin: !noStdin, raw: s.TTY && !noStdin && isTerminal(a.In), leave: leave}
			ctx := c.Context()
			if proxy && !how.raw {
				// Signals are the process's, not ours.
				ctx = context.WithoutCancel(ctx)
				defer a.proxySignals(ctx, s)()
			}
			return a.connect(ctx, s, how)
		},
	}
	c.Flags().IntVar(&index, "index", 0, "`slot` of the instance (default: the first that runs)")
	c.Flags().BoolVar(&noStdin, "no-stdin", false, "leave stdin alone")
	c.Flags().BoolVar(&proxy, "sig-proxy", true, "send signals on to the process")
	c.Flags().StringVar(&keys, "detach-keys", dockersKeys, "`keys` that leave it running")
	a.inFile(c)
	return c
}

func (a *app) waitCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "wait SERVICE...",
		Short:             "Wait until the instances of services have ended, and print their codes",
		Args:              args(1, -1, "SERVICE"),
		Annotations:       map[string]string{ownCode: "otherwise the first code that is not 0"},
		ValidArgsFunction: a.services,
		RunE: func(c *cobra.Command, services []string) error {
			found, err := a.instances(c.Context(), services, true)
			if err != nil {
				return err
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			return a.wait(c.Context(), d, found)
		},
	}
	a.inFile(c)
	return c
}

func (a *app) wait(ctx context.Context, d *api.Client, instances []api.Instance) error {
	type ended struct {
		Instance string `json:"instance"`
		Code     int    `json:"exit_code"`
	}
	all := []ended{}
	first := 0
	for _, i := range instances {
		if i.Oneoff {
			continue
		}
		code, err := d.Wait(ctx, api.Target{Project: i.Project, Instance: i.Name})
		if err != nil {
			return fmt.Errorf("wait for %s: %w", i.Name, err)
		}
		if !a.json {
			fmt.Fprintf(a.Out, "%s exited with %d\n", i.Name, code)
		}
		all = append(all, ended{i.Name, code})
		if first == 0 {
			first = code
		}
	}
	if len(all) == 0 {
		return tender.Errorf(tender.NotFound, "nothing to wait for").Hint("tender ps -a lists what is there")
	}
	if a.json {
		if err := printJSON(a.Out, all); err != nil {
			return err
		}
	}
	if first != 0 {
		return exit(first)
	}
	return nil
}

// place parts SERVICE:PATH; a path of this machine has no service.
func place(s string) (service, path string) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok || strings.ContainsAny(name, "/.") || name == "" {
		return "", s
	}
	return name, rest
}
