package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	tender "github.com/tenderhq/tender"
)

func (a *app) registryCommand() *cobra.Command {
	c := a.family("registry", "Look after Tender's own registry, and log in at others", a.registryImages(), a.registryRetain(), a.registrySweep(), a.registryRemove(),
		a.registryLogin(), a.registryLogout(), a.registryList())
	c.Long = `ls, retain, gc and rm are about the images that the daemon keeps: docs/registry-cleanup.md.

The daemon's own logins lie sealed in its vault, and serve every pull, push and build.
Those of docker login on this machine, with their credential helpers, are sent along
with each up, build, pull and push, win over the daemon's, and are not kept.`
	c.Example = `  pass show registry | tender registry login registry.example.com -u deploy --password-stdin
  tender registry logins
  tender registry retain --keep 10 --older-than 30d --dry-run`
	return c
}

func (a *app) registryLogin() *cobra.Command {
	var user string
	var stdin bool
	c := &cobra.Command{
		Use:   "login [flags] HOST",
		Short: "Log in at a registry, and keep that in the vault",
		Long: `Asks the registry, from the daemon's host, whether it knows the user, and keeps the login
only then. The password is read from stdin, or asked for without echo on a terminal.`,
		Example: `  tender registry login registry.example.com -u deploy --password-stdin < password`,
		Args:    args(1, 1, "one HOST, as image references name it"),
		RunE: func(c *cobra.Command, words []string) error {
			if user == "" {
				return misuse("tender registry login "+words[0]+" -u USER --password-stdin", "login: who? -u is missing")
			}
			password, err := a.password(words[0], stdin)
			if err != nil {
				return err
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			l, err := d.Login(c.Context(), words[0], user, password)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.Out, l)
			}
			fmt.Fprintf(a.Out, "%s: logged in as %s\n", l.Registry, l.User)
			return nil
		},
	}
	c.Flags().StringVarP(&user, "username", "u", "", "`name` of the user")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password, or a token, from stdin")
	return c
}

func (a *app) password(host string, stdin bool) (string, error) {
	if !stdin && isTerminal(a.In) {
		fmt.Fprintf(a.Err, "Password for %s (not shown): ", host)
		raw, err := term.ReadPassword(int(a.In.(*os.File).Fd()))
		fmt.Fprintln(a.Err)
		return string(raw), err
	}
	if !stdin {
		return "", misuse("tender registry login "+host+" -u USER --password-stdin < FILE", "login: there is no terminal to ask for the password")
	}
	raw, err := io.ReadAll(io.LimitReader(a.In, 64<<10))
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	// As docker login: the line feed at the end is the shell's.
	p := strings.TrimRight(string(raw), "\r\n")
	if p == "" {
		return "", tender.Errorf(tender.Invalid, "the password for %s is empty", host).Hint("pipe it in: tender registry login %s -u USER --password-stdin < FILE", host)
	}
	return p, nil
}

func (a *app) registryLogout() *cobra.Command {
	return &cobra.Command{
		Use:               "logout HOST...",
		Short:             "Forget logins",
		Aliases:           []string{"rm"},
		Args:              args(1, -1, "HOST..."),
		ValidArgsFunction: a.registries,
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			for _, host := range words {
				if err := d.Logout(c.Context(), host); err != nil {
					return err
				}
				fmt.Fprintf(a.Out, "%s: logged out\n", host)
			}
			return nil
		},
	}
}

func (a *app) registryList() *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:   "logins [flags]",
		Short: "List logins, never passwords",
		Args:  args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			all, err := d.Logins(c.Context())
			if err != nil {
				return fmt.Errorf("list logins: %w", err)
			}
			if a.json {
				return printJSON(a.Out, all)
			}
			var rows [][]string
			for _, l := range all {
				if quiet {
					fmt.Fprintln(a.Out, l.Registry)
				}
				rows = append(rows, []string{l.Registry, orDash(l.User), stamp(l.Created), orDash(l.Who)})
			}
			if quiet {
				return nil
			}
			return table(a.Out, []string{"REGISTRY", "USER", "SINCE", "BY"}, rows)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print hosts alone")
	return c
}

func (a *app) registries(c *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
	d, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := d.Logins(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, l := range all {
		if strings.HasPrefix(l.Registry, part) {
			out = append(out, l.Registry)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
