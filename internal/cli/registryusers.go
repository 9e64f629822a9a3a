package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

func (a *app) registryUserCommand() *cobra.Command {
	c := a.family("user", "Say who may use the daemon's own registry", a.userList(), a.userAdd(), a.userRemove(), a.userPassword(), a.userGrant(), a.userImport())
	c.Long = `Users have a password, robots a token that is shown once; both log in with docker login.
What they may do is granted by repositories: shop/web, shop/* (one level), team/** (team and
all below). Tokens of tender token create work as passwords, too.`
	c.Example = `  tender registry user add ci --robot --push 'shop/*' --expires 90d
  tender registry user import htpasswd --push '**'`
	return c
}

// access adds the flags that grant; what they say comes with the call.
func access(c *cobra.Command) func() api.RegistryAccess {
	var pull, push, remove []string
	var admin bool
	c.Flags().StringArrayVar(&pull, "pull", nil, "may pull from these `repositories`; repeat it for several patterns")
	c.Flags().StringArrayVar(&push, "push", nil, "may pull from and push to these `repositories`")
	c.Flags().StringArrayVar(&remove, "delete", nil, "may pull from and delete in these `repositories`")
	c.Flags().BoolVar(&admin, "admin", false, "may do everything everywhere")
	return func() api.RegistryAccess {
		out := api.RegistryAccess{Admin: admin}
		for _, g := range []struct {
			patterns []string
			actions  []string
		}{{pull, []string{"pull"}}, {push, []string{"pull", "push"}}, {remove, []string{"pull", "delete"}}} {
			for _, p := range g.patterns {
				out.Grants = append(out.Grants, api.RegistryGrant{Repositories: p, Actions: g.actions})
			}
		}
		return out
	}
}

func (a *app) userAdd() *cobra.Command {
	var robot, stdin bool
	var expires string
	c := &cobra.Command{
		Use:   "add [flags] NAME",
		Short: "Add a user, or a robot with a token",
		Long: `The password of a user is read from stdin, or asked for without echo on a terminal. The token of a
robot is printed, once. Without --pull, --push, --delete or --admin it may do what everybody may.`,
		Example: `  tender registry user add ann --push 'shop/*' --password-stdin < password
  tender registry user add ci --robot --push 'shop/*' --expires 90d`,
		Args: args(1, 1, "a NAME"),
	}
	may := access(c)
	c.RunE = func(c *cobra.Command, words []string) error {
		u := api.RegistryUserNew{Name: words[0], Robot: robot, RegistryAccess: may()}
		var err error
		if expires != "" && expires != "never" {
			if u.Valid, err = span(expires); err != nil || u.Valid <= 0 {
				return misuse("such as 12h, 90d, or never", "--expires %q is no duration", expires)
			}
		}
		switch {
		case robot && stdin:
			return misuse("leave out --password-stdin", "a robot has a token instead of a password")
		case !robot:
			if u.Password, err = a.userSecret("add", words[0], stdin); err != nil {
				return err
			}
		}
		d, err := a.client()
		if err != nil {
			return err
		}
		made, err := d.AddRegistryUser(c.Context(), u)
		if err != nil {
			return fmt.Errorf("add user %s: %w", words[0], err)
		}
		switch {
		case a.json:
			return printJSON(a.Out, made)
		case robot:
			fmt.Fprintln(a.Out, made.Secret)
			a.note("token of %s, shown this once: docker login HOST -u %s --password-stdin", made.Name, made.Name)
		default:
			fmt.Fprintf(a.Out, "%s: %s\n", made.Name, mayText(made))
		}
		return nil
	}
	c.Flags().BoolVar(&robot, "robot", false, "make a token instead of asking for a password, and print it")
	c.Flags().StringVar(&expires, "expires", "never", "`how long` it is good for: 12h, 90d, never")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from stdin")
	return c
}

// userSecret asks for a password, twice on a terminal.
func (a *app) userSecret(verb, name string, stdin bool) (string, error) {
	if stdin {
		raw, err := io.ReadAll(io.LimitReader(a.In, 4<<10))
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return strings.TrimRight(string(raw), "\r\n"), nil
	}
	if !isTerminal(a.In) {
		return "", misuse("tender registry user "+verb+" "+name+" --password-stdin < FILE", "%s: there is no terminal to ask for the password", verb)
	}
	raw, err := a.askValue("the password of "+name, "tender registry user passwd "+name)
	return string(raw), err
}

func (a *app) userPassword() *cobra.Command {
	var stdin bool
	c := &cobra.Command{
		Use:   "passwd [flags] NAME",
		Short: "Set another password; the old one ends at once",
		Args:  args(1, 1, "the NAME of a user"),
		RunE: func(c *cobra.Command, words []string) error {
			password, err := a.userSecret("passwd", words[0], stdin)
			if err != nil {
				return err
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			u, err := d.PasswordRegistryUser(c.Context(), words[0], password)
			if err != nil {
				return fmt.Errorf("set the password of %s: %w", words[0], err)
			}
			if a.json {
				return printJSON(a.Out, u)
			}
			fmt.Fprintln(a.Out, u.Name)
			return nil
		},
	}
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from stdin")
	return c
}

func (a *app) userGrant() *cobra.Command {
	c := &cobra.Command{
		Use:     "grant [flags] NAME",
		Short:   "Say what a user may do, in the place of what it might do",
		Example: `  tender registry user grant ann --push 'shop/*' --pull '**'`,
		Args:    args(1, 1, "the NAME of a user"),
	}
	may := access(c)
	c.RunE = func(c *cobra.Command, words []string) error {
		d, err := a.client()
		if err != nil {
			return err
		}
		u, err := d.GrantRegistryUser(c.Context(), words[0], may())
		if err != nil {
			return fmt.Errorf("grant to %s: %w", words[0], err)
		}
		if a.json {
			return printJSON(a.Out, u)
		}
		fmt.Fprintf(a.Out, "%s: %s\n", u.Name, mayText(u))
		return nil
	}
	return c
}

func (a *app) userImport() *cobra.Command {
	c := &cobra.Command{
		Use:   "import [flags] FILE",
		Short: "Take over the users of an htpasswd file",
		Long: `Takes over names and bcrypt hashes (htpasswd -B), all of them or none; - reads standard input. New users may
pull everything, unless --pull, --push, --delete or --admin say otherwise. Who is known already gets
the file's password, and keeps its grants.`,
		Example: `  tender registry user import /auth/htpasswd --push '**'`,
		Args:    args(1, 1, "one FILE"),
	}
	may := access(c)
	c.RunE = func(c *cobra.Command, words []string) error {
		text, err := a.ruleFile(words[0])
		if err != nil {
			return tender.Errorf(tender.Invalid, "read users: %w", err)
		}
		in := api.RegistryImport{Text: string(text), RegistryAccess: may()}
		if !in.Admin && len(in.Grants) == 0 {
			in.Grants = []api.RegistryGrant{{Repositories: "**", Actions: []string{"pull"}}}
		}
		d, err := a.client()
		if err != nil {
			return err
		}
		list, err := d.ImportRegistryUsers(c.Context(), in)
		if err != nil {
			return fmt.Errorf("%s: %w", words[0], err)
		}
		if a.json {
			return printJSON(a.Out, list)
		}
		for _, u := range list {
			fmt.Fprintf(a.Out, "%s: %s\n", u.Name, mayText(u))
		}
		return nil
	}
	return c
}

func (a *app) userRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove users, at once",
		Args:  args(1, -1, "the NAME of a user: tender registry user ls lists them"),
		RunE: func(c *cobra.Command, words []string) error {
			return a.removeEach("user", words, func(d *api.Client, name string) error { return d.RemoveRegistryUser(c.Context(), name) })
		},
	}
}

func (a *app) userList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [flags]",
		Short: "List users and what they may do",
		Args:  args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			all, err := d.RegistryUsers(c.Context())
			if err != nil {
				return fmt.Errorf("list users: %w", err)
			}
			if a.json {
				return printJSON(a.Out, all)
			}
			var rows [][]string
			for _, u := range all {
				kind, expires := "user", "never"
				if u.Robot {
					kind = "robot"
				}
				if !u.Expires.IsZero() {
					expires = stamp(u.Expires)
				}
				rows = append(rows, []string{u.Name, kind, mayText(u), expires, orDash(ago(u.Used, time.Now()))})
			}
			return table(a.Out, []string{"NAME", "KIND", "MAY", "EXPIRES", "USED"}, rows)
		},
	}
}

func mayText(u api.RegistryUser) string {
	if u.Admin {
		return "everything"
	}
	var parts []string
	for _, g := range u.Grants {
		parts = append(parts, strings.Join(g.Actions, ", ")+" "+g.Repositories)
	}
	if len(parts) == 0 {
		return "nothing of its own"
	}
	return strings.Join(parts, "; ")
}
