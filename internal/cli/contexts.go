package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// contextFile is ~/.config/tender/config.yaml: names for places where daemons are.
type contextFile struct {
	Current  string               `yaml:"current,omitempty"`
	Contexts map[string]contextAt `yaml:"contexts,omitempty"`
}

type contextAt struct {
	Host  string `yaml:"host"`
	Token string `yaml:"token,omitempty"` // of http and https; the file is its owner's alone
}

var contextName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

func (a *app) contextPath() string {
	dir := a.getenv("XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(a.getenv("HOME"), ".config")
	}
	return filepath.Join(dir, "tender", "config.yaml")
}

// contexts reads the file; one that is not there has no contexts.
func (a *app) contexts() (contextFile, error) {
	var f contextFile
	path := a.contextPath()
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("read contexts: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		text := strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), "yaml: ")
		return f, tender.Errorf(tender.Invalid, "%s: %s", path, text).
			Hint("it holds current: NAME and contexts: {NAME: {host: ADDRESS}}; tender context add writes it")
	}
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 && slices.ContainsFunc(slices.Collect(maps.Values(f.Contexts)), func(c contextAt) bool { return c.Token != "" }) {
		return f, tender.Errorf(tender.Denied, "%s holds tokens and may be read by others (mode %04o)", path, st.Mode().Perm()).Hint("chmod 600 %s", path)
	}
	return f, nil
}

// keepContexts replaces the file in one step.
func (a *app) keepContexts(f contextFile) error {
	path := a.contextPath()
	raw, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	return replaceFile(path, bytes.NewReader(raw), 0o600)
}

// replaceFile writes beside path and renames: whoever opens path sees the old
// content or the new one, also after a power cut.
func replaceFile(path string, content io.Reader, mode fs.FileMode) error {
	t, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name()) // gone already, once it was renamed
	_, err = io.Copy(t, content)
	if err == nil {
		err = t.Chmod(mode)
	}
	if err == nil {
		err = t.Sync()
	}
	if err := errors.Join(err, t.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(t.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (a *app) inContext(name, from string) (site, error) {
	f, err := a.contexts()
	if err != nil {
		return site{}, err
	}
	if name == "default" {
		return site{host: api.DefaultHost, from: "context default"}, nil
	}
	c, ok := f.Contexts[name]
	if !ok {
		e := tender.Errorf(tender.NotFound, "%s: there is no context %q", from, name)
		if near := tender.Nearest(name, slices.Collect(maps.Keys(f.Contexts))); near != "" {
			return site{}, e.Hint("did you mean: %s", near)
		}
		return site{}, e.Hint("tender context ls lists them; tender context add %s ADDRESS adds it", name)
	}
	return site{c.Host, c.Token, "context " + name}, nil
}

func (a *app) contextCommand() *cobra.Command {
	c := a.family("context", "Name the places where daemons are", a.contextList(), a.contextUse(), a.contextAdd(), a.contextRemove())
	c.Long = `A context is a name for the address of a daemon. --host and TENDER_HOST win over it;
--context and TENDER_CONTEXT choose one for a command or a shell. They are kept in
~/.config/tender/config.yaml, which only its owner may read.`
	c.Example = `  tender context add prod ssh://deploy@prod.example.com
  tender context use prod
  tender --context staging ps`
	return c
}

func (a *app) contextList() *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:   "ls [flags]",
		Short: "List contexts",
		Args:  args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			f, err := a.contexts()
			if err != nil {
				return err
			}
			type shown struct {
				Name    string `json:"name"`
				Host    string `json:"host"`
				Token   bool   `json:"token"`
				Current bool   `json:"current"`
			}
			all := []shown{{Name: "default", Host: api.DefaultHost, Current: f.Current == ""}}
			for _, n := range sortedKeys(f.Contexts) {
				all = append(all, shown{n, f.Contexts[n].Host, f.Contexts[n].Token != "", n == f.Current})
			}
			if a.json {
				return printJSON(a.Out, all)
			}
			var rows [][]string
			for _, s := range all {
				if quiet {
					fmt.Fprintln(a.Out, s.Name)
					continue
				}
				mark := ""
				if s.Current {
					mark = "*"
				}
				rows = append(rows, []string{mark, s.Name, s.Host})
			}
			if quiet {
				return nil
			}
			return table(a.Out, []string{"", "NAME", "HOST"}, rows)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names alone")
	return c
}

func (a *app) contextUse() *cobra.Command {
	return &cobra.Command{
		Use:               "use NAME",
		Short:             "Choose the context for the commands that name none",
		Args:              args(1, 1, "one NAME; default is this machine"),
		ValidArgsFunction: a.contextNames,
		RunE: func(_ *cobra.Command, words []string) error {
			f, err := a.contexts()
			if err != nil {
				return err
			}
			p, err := a.inContext(words[0], "use")
			if err != nil {
				return err
			}
			f.Current = words[0]
			if words[0] == "default" {
				f.Current = ""
			}
			if err := a.keepContexts(f); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "%s: %s\n", words[0], p.host)
			for _, v := range []string{"TENDER_HOST", "TENDER_CONTEXT"} {
				if a.getenv(v) != "" {
					a.note("note: %s is set, and wins", v)
				}
			}
			return nil
		},
	}
}

func (a *app) contextAdd() *cobra.Command {
	var token bool
	c := &cobra.Command{
		Use:     "add [flags] NAME ADDRESS",
		Short:   "Add a context, or give one another address",
		Example: "  tender context add prod ssh://deploy@prod.example.com\n  tender context add lab https://lab:7070 --token-stdin < token",
		Args:    args(2, 2, "NAME ADDRESS"),
		RunE: func(_ *cobra.Command, words []string) error {
			name, host := words[0], words[1]
			if !contextName.MatchString(name) || name == "default" {
				return misuse("letters, digits, dots, dashes; default is this machine's", "%q is no name for a context", name)
			}
			if _, err := api.New(host, api.ClientOptions{}); err != nil {
				return misuse(tender.AdviceOf(err), "%v", err)
			}
			f, err := a.contexts()
			if err != nil {
				return err
			}
			at := contextAt{Host: host}
			if token {
				raw, err := io.ReadAll(io.LimitReader(a.In, 4096))
				if err != nil {
					return fmt.Errorf("read the token: %w", err)
				}
				at.Token = strings.TrimSpace(string(raw))
			}
			if f.Contexts == nil {
				f.Contexts = map[string]contextAt{}
			}
			f.Contexts[name] = at
			if err := a.keepContexts(f); err != nil {
				return err
			}
			a.note("added; choose it with: tender context use %s", name)
			return nil
		},
	}
	c.Flags().BoolVar(&token, "token-stdin", false, "read the daemon's token, for https, from stdin")
	return c
}

func (a *app) contextRemove() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Short:             "Forget contexts",
		Args:              args(1, -1, "NAME..."),
		ValidArgsFunction: a.contextNames,
		RunE: func(_ *cobra.Command, words []string) error {
			f, err := a.contexts()
			if err != nil {
				return err
			}
			for _, n := range words {
				if _, ok := f.Contexts[n]; !ok {
					return tender.Errorf(tender.NotFound, "there is no context %q", n).Hint("tender context ls lists them")
				}
				delete(f.Contexts, n)
				if f.Current == n {
					f.Current = ""
					a.note("note: %s was in use; commands go to this machine now", n)
				}
			}
			return a.keepContexts(f)
		},
	}
}

func (a *app) contextNames(_ *cobra.Command, taken []string, part string) ([]string, cobra.ShellCompDirective) {
	f, err := a.contexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, n := range sortedKeys(f.Contexts) {
		if strings.HasPrefix(n, part) && !slices.Contains(taken, n) {
			out = append(out, n)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
