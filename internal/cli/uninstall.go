package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/daemon"
)

// installed are the files of an installation, as a release lays them out.
var installed = []string{
	"usr/lib/systemd/system/tender.service", "usr/lib/systemd/system/tender-edge.service", "usr/lib/systemd/system/tender-secrets.service",
	"etc/systemd/system/tender.service", "etc/systemd/system/tender-edge.service", "etc/systemd/system/tender-secrets.service",
	"usr/share/man/man1/tender.1.gz", "usr/share/man/man1/tender-*.1.gz",
	"usr/share/bash-completion/completions/tender", "usr/share/zsh/vendor-completions/_tender", "usr/share/fish/vendor_completions.d/tender.fish",
	"usr/share/doc/tender",
}

// owned is the data of an installation: what was decided, and what opens its secrets.
var owned = []string{"var/lib/tender", "etc/tender", "run/tender"}

func (a *app) uninstallCommand() *cobra.Command {
	var sure, purge bool
	var root string
	c := &cobra.Command{
		Use:   "uninstall [flags]",
		Short: "Remove Tender from this machine; instances run on",
		Long: `Stops serve and the edge, and removes the units, the manual, the completions and this binary. Instances,
networks and volumes stay as they are, and docker compose can work with them: each has
Compose's labels. Data stays too, so that Tender can be installed again and go on;
--purge removes it with the secrets that it holds.`,
		Example: "  sudo tender uninstall\n  sudo tender uninstall --purge --yes",
		Args:    args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.uninstall(c.Context(), root, sure, purge); err != nil {
				_, misused := errors.AsType[usage](err)
				if _, no := errors.AsType[exit](err); misused || no {
					return err
				}
				return fmt.Errorf("uninstall: %w", err)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&sure, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&purge, "purge", false, "remove the data and the secrets, too")
	c.Flags().StringVar(&root, "root", "/", "`directory` that the installation is below")
	_ = c.Flags().MarkHidden("root") // it fails only for a flag that is not there
	return c
}

func (a *app) uninstall(ctx context.Context, root string, sure, purge bool) error {
	binary, err := self()
	if err != nil {
		return err
	}
	if name := packaged(ctx, binary); name != "" {
		verb := "remove"
		if purge {
			verb = "purge"
		}
		return tender.Errorf(tender.Conflict, "%s belongs to the package %s", binary, name).Hint("sudo apt %s %s", verb, name)
	}
	if a.remote() {
		return misuse("type it there", "uninstall is for this machine, and the daemon is at %s", a.address())
	}
	var gone []string
	patterns := installed
	if purge {
		patterns = append(append([]string{}, installed...), owned...)
	}
	for _, p := range patterns {
		found, err := filepath.Glob(filepath.Join(root, p))
		if err != nil {
			return err
		}
		gone = append(gone, found...)
	}
	if purge && filepath.Clean(root) == "/" {
		gone = append(gone, daemon.LogSpools("/var/lib/tender")...)
	}
	gone = append(gone, binary) // last: what fails before can be tried again
	a.note("These go:")
	for _, f := range gone {
		a.note("  %s", f)
	}
	if names := a.projectNames(ctx); len(names) > 0 {
		a.note("These projects run on, and docker compose -p NAME can work with them: %s", strings.Join(names, ", "))
	}
	if purge {
		a.note("With the data go its secrets: an instance that has one does not start again after a reboot.")
	}
	if !sure {
		if err := a.confirm("remove Tender", "--yes"); err != nil {
			return err
		}
	}
	if filepath.Clean(root) == "/" {
		if err := dropUnits(ctx); err != nil {
			return err
		}
	}
	for _, f := range gone {
		if err := os.RemoveAll(f); err != nil {
			return tender.Errorf(tender.Denied, "%w", err).Hint("try again with sudo")
		}
	}
	if filepath.Clean(root) == "/" {
		_ = exec.CommandContext(ctx, "systemctl", "daemon-reload").Run() // a host without systemd has no units
	}
	fmt.Fprintf(a.Out, "%s removed; instances run on\n", countOf(len(gone), "path"))
	if !purge {
		a.note("data stays in /var/lib/tender and /etc/tender; installed again, Tender goes on where it was")
	}
	return nil
}

// projectNames are those that a daemon here tends, as far as one answers.
func (a *app) projectNames(ctx context.Context) []string {
	d, err := a.client()
	if err != nil {
		return nil
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	all, err := d.Projects(ctx)
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range all {
		out = append(out, p.Name)
	}
	return out
}

// dropUnits stops serve and the edge, and takes the units out of the boot. What runs in the
// engine's units goes on.
func dropUnits(ctx context.Context) error {
	if _, err := exec.LookPath("systemctl"); err != nil {
		return nil
	}
	for _, u := range []string{unit, "tender-edge.service", "tender-secrets.service"} {
		if exec.CommandContext(ctx, "systemctl", "cat", u).Run() != nil {
			continue // it is not here
		}
		if out, err := exec.CommandContext(ctx, "systemctl", "disable", "--now", u).CombinedOutput(); err != nil {
			return fmt.Errorf("stop %s: %w: %s", u, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}
