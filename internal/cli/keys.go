package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// maxSecret is the largest value of a secret, in bytes.
const maxSecret = 1 << 20

func (a *app) secretCommand() *cobra.Command {
	c := a.family("secret", "Keep secrets in the vault", a.secretSet(), a.secretList(), a.secretShow(), a.secretRemove(), a.secretMount())
	c.Long = `Secrets lie sealed in the daemon's vault. A Compose file uses one by name with
"external: true"; instances see it as a file under /run/secrets. A value is never
taken as an argument and never shown again.`
	c.Example = `  pass show db | tender secret set db_password
  tender secret set db_password --file ./db.txt
  tender secret ls`
	return c
}

// ofProject adds the flag that says whose secret it is.
func (a *app) ofProject(c *cobra.Command) {
	c.Flags().StringVarP(&a.project, "project", "p", a.project, "a secret of this `project` alone (default: for all projects)")
}

func (a *app) secretSet() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "set [flags] NAME",
		Short: "Store a value: from stdin, a file, or typed without echo",
		Long: `Stores a new version of a secret. The value is read from stdin, or from --file, or asked
for without echo on a terminal. It is kept byte for byte, with a line feed at its end
if there is one. Services take the new version with the next tender up.`,
		Example: `  printf %s "$PASSWORD" | tender secret set db_password
  tender secret set tls_key --file key.pem --project shop`,
		Args:              args(1, 1, "one NAME; the value comes from stdin or --file"),
		ValidArgsFunction: a.secrets,
		RunE: func(c *cobra.Command, words []string) error {
			value, err := a.secretValue(words[0], file)
			if err != nil {
				return err
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			s, err := d.SetSecret(c.Context(), a.project, words[0], value)
			if err != nil {
				return fmt.Errorf("set secret %s: %w", words[0], err)
			}
			if a.json {
				return printJSON(a.Out, s)
			}
			fmt.Fprintf(a.Out, "%s version %d, %d bytes\n", s.Name, s.Version, s.Size)
			if len(s.UsedBy) > 0 {
				a.note("used by %s: tender up gives them the new version", strings.Join(s.UsedBy, ", "))
			}
			return nil
		},
	}
	a.ofProject(c)
	c.Flags().StringVar(&file, "file", "", "read the value from this `file`")
	return c
}

func (a *app) secretValue(name, file string) ([]byte, error) {
	var value []byte
	var err error
	switch {
	case file != "" && file != "-":
		f, e := os.Open(a.abs(file))
		if e != nil {
			return nil, fmt.Errorf("set secret %s: %w", name, e)
		}
		defer f.Close()
		value, err = io.ReadAll(io.LimitReader(f, maxSecret+1))
	case isTerminal(a.In):
		return a.askValue(name, "tender secret set "+name)
	default:
		value, err = io.ReadAll(io.LimitReader(a.In, maxSecret+1))
	}
	if err != nil {
		return nil, fmt.Errorf("read the value of %s: %w", name, err)
	}
	if len(value) > maxSecret {
		return nil, tender.Errorf(tender.Invalid, "the value of %s is larger than 1 MiB", name).Hint("keep the file elsewhere and its key here")
	}
	if len(value) == 0 {
		return nil, tender.Errorf(tender.Invalid, "the value of %s is empty", name).Hint("pipe it in: printf %%s VALUE | tender secret set %s", name)
	}
	if bytes.HasSuffix(value, []byte("\n")) && bytes.Count(value, []byte("\n")) == 1 {
		a.note("note: the value ends with a line feed, which is kept; printf %%s gives one without")
	}
	return value, nil
}

// askValue reads a value twice from the terminal without echo. again is what to type after two that differ.
func (a *app) askValue(name, again string) ([]byte, error) {
	in := a.In.(*os.File)
	ask := func(text string) ([]byte, error) {
		fmt.Fprint(a.Err, text)
		v, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(a.Err)
		return v, err
	}
	first, err := ask("Value of " + name + " (not shown): ")
	if err != nil {
		return nil, fmt.Errorf("read the value of %s: %w", name, err)
	}
	second, err := ask("Once more: ")
	if err != nil {
		return nil, fmt.Errorf("read the value of %s: %w", name, err)
	}
	if !bytes.Equal(first, second) {
		return nil, tender.Errorf(tender.Invalid, "the two values of %s differ", name).Hint("try again: %s", again)
	}
	if len(first) == 0 {
		return nil, tender.Errorf(tender.Invalid, "the value of %s is empty", name).Hint("try again: %s", again)
	}
	return first, nil
}

func (a *app) secretList() *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:   "ls [flags]",
		Short: "List secrets, never their values",
		Args:  args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			all, err := d.Secrets(c.Context(), a.project)
			if err != nil {
				return fmt.Errorf("list secrets: %w", err)
			}
			if a.json {
				return printJSON(a.Out, all)
			}
			var rows [][]string
			for _, s := range all {
				if quiet {
					fmt.Fprintln(a.Out, s.Name)
				}
				rows = append(rows, []string{
					s.Name, orAll(s.Project), fmt.Sprint(s.Version), fmt.Sprint(s.Size), stamp(s.Created), s.Who, orDash(strings.Join(s.UsedBy, ", ")),
				})
			}
			if quiet {
				return nil
			}
			return table(a.Out, []string{"NAME", "PROJECT", "VERSION", "BYTES", "SET", "WHO", "USED BY"}, rows)
		},
	}
	c.Flags().StringVarP(&a.project, "project", "p", a.project, "the secrets of this `project` (default: those for all projects)")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names alone")
	return c
}

func orAll(project string) string {
	if project == "" {
		return "(all)"
	}
	return project
}

func (a *app) secretShow() *cobra.Command {
	c := &cobra.Command{
		Use:               "show [flags] NAME",
		Short:             "Show versions and users of a secret, never its value",
		Args:              args(1, 1, "one NAME"),
		ValidArgsFunction: a.secrets,
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			s, err := d.Secret(c.Context(), a.project, words[0])
			if err != nil {
				return fmt.Errorf("show secret %s: %w", words[0], err)
			}
			if a.json {
				return printJSON(a.Out, s)
			}
			fmt.Fprintf(a.Out, "name      %s\nproject   %s\nused by   %s\n\n", s.Name, orAll(s.Project), orDash(strings.Join(s.UsedBy, ", ")))
			var rows [][]string
			for _, v := range s.Versions {
				rows = append(rows, []string{fmt.Sprint(v.Version), fmt.Sprint(v.Size), stamp(v.Created), v.Who})
			}
			return table(a.Out, []string{"VERSION", "BYTES", "SET", "WHO"}, rows)
		},
	}
	a.ofProject(c)
	return c
}

func (a *app) secretRemove() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:               "rm [flags] NAME...",
		Short:             "Remove secrets with all their versions",
		Args:              args(1, -1, "at least one NAME"),
		ValidArgsFunction: a.secrets,
		RunE: func(c *cobra.Command, words []string) error {
			return a.removeEach("secret", words, func(d *api.Client, name string) error { return d.RemoveSecret(c.Context(), a.project, name) })
		},
	}
	a.ofProject(c)
	c.Flags().BoolVarP(&force, "force", "f", false, "accepted as docker's; a secret in use is never removed")
	c.Flags().Lookup("force").Hidden = true
	return c
}

// removeEach removes all that it can, and prints what went.
func (a *app) removeEach(noun string, words []string, remove func(d *api.Client, word string) error) error {
	d, err := a.client()
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range words {
		if err := remove(d, w); err != nil {
			errs = append(errs, fmt.Errorf("remove %s %s: %w", noun, w, err))
			continue
		}
		fmt.Fprintln(a.Out, w)
	}
	return joined(errs)
}

// joined is one error for several; one alone keeps its kind and advice.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

func (a *app) tokenCommand() *cobra.Command {
	c := a.family("token", "Give access over the network", a.tokenCreate(), a.tokenList(), a.tokenRemove())
	c.Long = `Every request that does not come over the unix socket needs a token. A token may read,
deploy or administer, some projects or all, for a while or without end.`
	return c
}

func (a *app) tokenCreate() *cobra.Command {
	var scope, expires string
	var projects []string
	c := &cobra.Command{
		Use:   "create [flags] NAME",
		Short: "Make a token and print it, once",
		Example: `  tender token create ci --scope deploy --project shop --expires 90d
  export TENDER_HOST=https://host:7070 TENDER_TOKEN=...`,
		Args: args(1, 1, "a NAME for the token"),
		RunE: func(c *cobra.Command, words []string) error {
			s := api.Scope(scope)
			if s != api.Read && s != api.Deploy && s != api.Admin {
				return misuse("read, deploy or admin", "--scope %q is not known", scope)
			}
			var valid time.Duration
			if expires != "" && expires != "never" {
				var err error
				if valid, err = span(expires); err != nil || valid <= 0 {
					return misuse("such as 12h, 90d, or never", "--expires %q is no duration", expires)
				}
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			t, err := d.CreateToken(c.Context(), words[0], s, projects, valid)
			if err != nil {
				return fmt.Errorf("create token %s: %w", words[0], err)
			}
			if a.json {
				return printJSON(a.Out, t)
			}
			fmt.Fprintln(a.Out, t.Secret)
			a.note("token %s (%s), shown this once: use it as TENDER_TOKEN, or take it back: tender token rm %s", t.Name, t.Scope, t.ID)
			return nil
		},
	}
	c.Flags().StringVar(&scope, "scope", "read", "`what` it may do: read, deploy or admin")
	c.Flags().StringArrayVar(&projects, "project", nil, "this `project` only; repeat it for several (default: all)")
	c.Flags().StringVar(&expires, "expires", "90d", "`how long` it is good for: 12h, 90d, never")
	return c
}

func (a *app) tokenList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [flags]",
		Short: "List tokens",
		Args:  args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			all, err := d.Tokens(c.Context())
			if err != nil {
				return fmt.Errorf("list tokens: %w", err)
			}
			if a.json {
				return printJSON(a.Out, all)
			}
			var rows [][]string
			for _, t := range all {
				expires := "never"
				if !t.Expires.IsZero() {
					expires = stamp(t.Expires)
				}
				rows = append(rows, []string{t.ID, t.Name, t.Scope, orAll(strings.Join(t.Projects, ", ")), stamp(t.Created), expires})
			}
			return table(a.Out, []string{"ID", "NAME", "SCOPE", "PROJECTS", "CREATED", "EXPIRES"}, rows)
		},
	}
}

func (a *app) tokenRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm ID...",
		Short: "Take tokens back, at once",
		Args:  args(1, -1, "the ID of a token: tender token ls lists them"),
		RunE: func(c *cobra.Command, words []string) error {
			return a.removeEach("token", words, func(d *api.Client, id string) error { return d.RemoveToken(c.Context(), id) })
		},
	}
}

func (a *app) auditCommand() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:   "audit [flags]",
		Short: "List who changed what, newest first",
		Args:  args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			all, err := d.Audit(c.Context(), a.project, limit)
			if err != nil {
				return fmt.Errorf("audit: %w", err)
			}
			if a.json {
				return printJSON(a.Out, all)
			}
			var rows [][]string
			for _, e := range all {
				outcome := "ok"
				if e.Outcome != "" {
					outcome = e.Outcome
				}
				rows = append(rows, []string{stamp(e.Time), e.Who, e.What, orDash(e.Project), orDash(e.Detail), outcome})
			}
			return table(a.Out, []string{"TIME", "WHO", "WHAT", "PROJECT", "DETAIL", "OUTCOME"}, rows)
		},
	}
	c.Flags().IntVarP(&limit, "limit", "n", 50, "how `many`, 0 for all")
	c.Flags().StringVarP(&a.project, "project", "p", a.project, "of this `project` alone")
	return c
}
