package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/daemon"
)

// servePercent is how much garbage the daemon lets grow, in percent of what lives:
// it rests most of the time, and memory that waits to be collected is the host's.
const servePercent = 50

func (a *app) serveCommand() *cobra.Command {
	var configured func() (daemon.Config, error)
	c := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Run the control plane",
		Long: `Runs the daemon: it keeps what is wanted, watches what is there, and acts until both are
the same. It stays in the foreground and ends in good order at SIGTERM or Ctrl-C;
instances run on without it.

Every setting is a key of the configuration file, a flag and a variable: a flag wins
over a variable, a variable over the file.`,
		Example: `  tender serve
  tender serve --data-dir /srv/tender --listen ""`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := configured()
			if err != nil {
				return fmt.Errorf("serve: %w", err)
			}
			if a.getenv("GOGC") == "" {
				debug.SetGCPercent(servePercent)
			}
			defer resting(c.Context())()
			log := slog.New(slog.NewTextHandler(a.Err, nil))
			if err := daemon.Run(c.Context(), cfg, daemon.Options{Version: a.Version, Log: log}); err != nil {
				return fmt.Errorf("serve: %w", err)
			}
			return nil
		},
	}
	configured = a.configures(c)
	return c
}

// configures adds the settings of the daemon as flags, or those named, and
// returns what reads them with the file and the environment.
func (a *app) configures(c *cobra.Command, only ...string) func() (daemon.Config, error) {
	var file string
	values := map[string]*string{}
	c.Flags().StringVar(&file, "config", "", "configuration `file` (default "+daemon.ConfigFile+", where it is there)")
	for _, k := range daemon.Keys() {
		if len(only) == 0 || slices.Contains(only, k.Flag) {
			values[k.Flag] = c.Flags().String(k.Flag, k.Default, k.Help+"; "+k.Variable)
		}
	}
	return func() (daemon.Config, error) {
		said := map[string]string{}
		for name, v := range values {
			if c.Flags().Changed(name) {
				said[name] = *v
			}
		}
		return daemon.Configure(file, a.getenv, said)
	}
}

func (a *app) doctorCommand() *cobra.Command {
	var logs bool
	c := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Check the host and the daemon, and say how to mend what is wrong",
		Long: `Checks what Tender needs of the host, and the daemon. --logs reads all that the store of
logs keeps, and says which parts of it are damaged; the rest is not harmed by them.`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			checks := []api.Check{a.reach(c.Context())}
			if checks[0].Result != "failed" {
				d, err := a.client()
				if err != nil {
					return err
				}
				ask := d.Doctor
				if logs {
					ask = d.DoctorLogs
				}
				more, err := ask(c.Context())
				if err != nil {
					return fmt.Errorf("doctor: %w", err)
				}
				checks = append(checks, more...)
			}
			if err := a.printChecks(checks); err != nil {
				return err
			}
			for _, x := range checks {
				if x.Result == "failed" {
					return exit(failed)
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&logs, "logs", false, "verify the store of logs instead")
	return c
}

// reach checks whether a daemon answers where this command looks for one.
func (a *app) reach(ctx context.Context) api.Check {
	d, err := a.client()
	var s api.Status
	if err == nil {
		s, err = d.Status(ctx)
	}
	if err != nil {
		return api.Check{Name: "daemon", Result: "failed", Text: err.Error(), Fix: tender.AdviceOf(err)}
	}
	text := "answers at " + a.address() + ", version " + s.Version
	if s.Version != a.Version {
		return api.Check{Name: "daemon", Result: "warning", Text: text + "; this command is " + a.Version, Fix: "install the same version on both sides"}
	}
	return api.Check{Name: "daemon", Result: "ok", Text: text}
}

func (a *app) printChecks(checks []api.Check) error {
	if a.json {
		return printJSON(a.Out, checks)
	}
	column, counts := 0, map[string]int{}
	for _, x := range checks {
		column = max(column, len(x.Name))
		counts[x.Result]++
	}
	for _, x := range checks {
		fmt.Fprintf(a.Out, "%-7s  %-*s  %s\n", x.Result, column, x.Name, x.Text)
		if x.Fix != "" && x.Result != "ok" {
			fmt.Fprintf(a.Out, "%*s  → %s\n", 9+column, "", strings.ReplaceAll(x.Fix, "\n", fmt.Sprintf("\n%*s    ", 9+column, "")))
		}
	}
	a.note("%d ok, %d to look at, %d failed", counts["ok"], counts["warning"], counts["failed"])
	return nil
}

func (a *app) versionLine() string {
	v := a.Version
	if v == "" {
		v = "dev"
	}
	return "tender " + v
}

func (a *app) versionCommand() *cobra.Command {
	var short bool
	var format string
	c := &cobra.Command{
		Use:   "version [flags]",
		Short: "Print the version of this command and of the daemon",
		Args:  args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if short {
				fmt.Fprintln(a.Out, strings.TrimPrefix(a.versionLine(), "tender "))
				return nil
			}
			switch format {
			case "json": // one line and this key, as of docker compose
				return json.NewEncoder(a.Out).Encode(map[string]string{"version": strings.TrimPrefix(a.versionLine(), "tender ")})
			case "", "pretty":
				return a.printVersion(c.Context())
			}
			return misuse("pretty or json", "--format %q is not known", format)
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "`format`: pretty, or json for this command's version number alone")
	c.Flags().BoolVar(&short, "short", false, "print this command's version number alone")
	return c
}

// patience is how long version waits: it must not say that none answers where one is busy. Where
// nobody listens, that is known at once.
const patience = 5 * time.Second

func (a *app) printVersion(ctx context.Context) error {
	v := struct {
		Client string `json:"client"`
		Go     string `json:"go"`
		Arch   string `json:"arch"`
		Daemon string `json:"daemon,omitempty"`
		Engine string `json:"engine,omitempty"`
	}{Client: strings.TrimPrefix(a.versionLine(), "tender "), Go: runtime.Version(), Arch: runtime.GOOS + "/" + runtime.GOARCH}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var s api.Status
	d, err := a.client()
	if err == nil {
		s, err = d.Status(ctx)
	}
	if err == nil {
		v.Daemon = s.Version
		if s.Engine.Version != "" {
			v.Engine = fmt.Sprintf("%s %s (API %s)", s.Engine.Name, s.Engine.Version, s.Engine.API)
		}
	}
	if a.json {
		return printJSON(a.Out, v)
	}
	fmt.Fprintf(a.Out, "tender  %s (%s, %s)\n", v.Client, v.Go, v.Arch)
	switch {
	case err != nil && tender.KindOf(err) == tender.Unavailable:
		fmt.Fprintf(a.Out, "daemon  none answers at %s\n", a.address())
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Fprintf(a.Out, "daemon  does not answer within %s at %s\n", patience, a.address())
		return nil
	case err != nil:
		fmt.Fprintf(a.Out, "daemon  %v\n", err)
		if advice := tender.AdviceOf(err); advice != "" {
			fmt.Fprintf(a.Out, "        → %s\n", advice)
		}
		return nil
	}
	fmt.Fprintf(a.Out, "daemon  %s\nengine  %s\n", v.Daemon, cmp.Or(v.Engine, "does not answer"))
	return nil
}

// dialCommand is the other end of --host ssh://: it joins stdin and stdout with
// the daemon's socket on this machine.
func (a *app) dialCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "dial-stdio",
		Short:  "Join stdin and stdout with the daemon's socket",
		Hidden: true,
		Args:   args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			path, ok := strings.CutPrefix(a.address(), "unix://")
			if !ok {
				return misuse("leave out --host", "dial-stdio speaks to a unix socket, not to %s", a.address())
			}
			var d net.Dialer
			conn, err := d.DialContext(c.Context(), "unix", path)
			if err != nil {
				return tender.Errorf(tender.Unavailable, "no Tender daemon answers at %s: %w", a.address(), err).
					Hint("start one there: tender serve, or: systemctl start tender")
			}
			defer conn.Close()
			// The copy from stdin ends with the process: a read of it cannot be called back.
			go func() {
				io.Copy(conn, a.In)
				if u, ok := conn.(*net.UnixConn); ok {
					u.CloseWrite()
				}
			}()
			_, err = io.Copy(a.Out, conn)
			return err
		},
	}
}
