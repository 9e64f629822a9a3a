package cli

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/daemon"
)

func (a *app) secretMount() *cobra.Command {
	var configured func() (daemon.Config, error)
	c := &cobra.Command{
		Use:   "mount [flags]",
		Short: "Unseal secrets on this host, at boot, before the engine",
		Long: `Puts the secrets of every service that is wanted into the run directory, which is empty
after a boot. It needs the vault's key and the data directory, and neither the daemon
nor the engine: run it before the engine, which starts instances by itself and cannot
start one whose secret is missing. docs/secrets.md has a unit for systemd.

The daemon does the same when it starts, so mount is refused while one runs.`,
		Example: `  tender secret mount
  tender secret mount --data-dir /srv/tender --vault-key /root/vault.key`,
		Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := configured()
			if err != nil {
				return fmt.Errorf("mount secrets: %w", err)
			}
			done, err := daemon.Mount(c.Context(), cfg, daemon.Options{Version: a.Version, Log: slog.New(slog.NewTextHandler(a.Err, nil))})
			if err := a.printMounted(done); err != nil {
				return err
			}
			if err != nil {
				return fmt.Errorf("mount secrets: %w", err)
			}
			return nil
		},
	}
	configured = a.configures(c, "data-dir", "run-dir", "vault-key")
	return c
}

func (a *app) printMounted(done []daemon.Mounted) error {
	if a.json {
		return printJSON(a.Out, slices.Concat([]daemon.Mounted{}, done))
	}
	if len(done) == 0 {
		a.note("no service that is wanted has a secret")
		return nil
	}
	var rows [][]string
	for _, m := range done {
		rows = append(rows, []string{m.Project, m.Service, m.Revision, fmt.Sprint(m.Secrets)})
	}
	return table(a.Out, []string{"PROJECT", "SERVICE", "REVISION", "SECRETS"}, rows)
}
