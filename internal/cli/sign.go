package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

func (a *app) imageSign() *cobra.Command {
	var r api.ImageSign
	var notes []string
	c := &cobra.Command{
		Use:   "sign [flags] REF",
		Short: "Sign an image with a key of the vault, as cosign does",
		Long: `Signs the digest that REF names in its registry now; of an image for several platforms that of its
index. The signature lies beside the image, in both places where cosign looks: cosign verify
--key release.pub --insecure-ignore-tlog REF verifies it. Nothing is sent to a transparency log.`,
		Example: `  tender image key create release
  tender image sign shop/web:1.4.2 --key release
  tender image sign shop/web:1.4.2 --key release --annotation build=42`,
		Args: args(1, 1, "one REF"),
		RunE: func(c *cobra.Command, words []string) error {
			r.Reference = words[0]
			if r.Key == "" {
				return misuse("tender image sign "+words[0]+" --key NAME; tender image key ls lists them", "sign with which key? --key is missing")
			}
			for _, n := range notes {
				k, v, ok := strings.Cut(n, "=")
				if !ok || k == "" {
					return misuse("--annotation build=42", "--annotation %q is not KEY=VALUE", n)
				}
				if r.Annotations == nil {
					r.Annotations = map[string]string{}
				}
				r.Annotations[k] = v
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			r.Auth = a.authOf(r.Reference)
			s, err := d.SignImage(c.Context(), r)
			if err != nil {
				return fmt.Errorf("sign %s: %w", words[0], err)
			}
			if a.json {
				return printJSON(a.Out, s)
			}
			does := "signed with"
			if s.Before {
				does = "was signed before with"
			}
			fmt.Fprintf(a.Out, "%s %s %s\n", s.Reference, does, r.Key)
			a.note("→ tender image verify %s --key %s", words[0], r.Key)
			return nil
		},
	}
	c.Flags().StringVar(&r.Key, "key", "", "`name` of the key")
	c.Flags().StringArrayVar(&notes, "annotation", nil, "`KEY=VALUE` that is signed, too; may be given several times")
	complete(c, "key", a.keyNames)
	return c
}

// authOf is this machine's login for the registry of an image; "": the daemon's is used.
func (a *app) authOf(ref string) string {
	auth, err := a.auth(registryOf(ref))
	if err != nil {
		a.note("warning: %v", err)
	}
	return auth
}

func (a *app) imageVerify() *cobra.Command {
	var r api.ImageVerify
	c := &cobra.Command{
		Use:   "verify [flags] REF",
		Short: "Say who signed an image",
		Long: `Looks for signatures by keys of the vault beside the digest that REF names, in both forms of cosign.
With --key all of those named must have signed it, else one of the keys in the vault. Exit code 4
says that they did not. Signatures count by their key alone: transparency logs and certificates
are not looked at.`,
		Example: `  tender image verify shop/web:1.4.2
  tender image verify registry.company.com/shop/web:1.4.2 --key release --key qa`,
		Args: args(1, 1, "one REF"),
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			r.Reference = words[0]
			r.Auth = a.authOf(r.Reference)
			s, err := d.VerifyImage(c.Context(), r)
			if err != nil {
				return fmt.Errorf("verify %s: %w", words[0], err)
			}
			if a.json {
				if err := printJSON(a.Out, s); err != nil {
					return err
				}
			} else if err := a.printSignatures(s); err != nil {
				return err
			}
			if s.Verified {
				return nil
			}
			switch {
			case len(s.Missing) > 0:
				a.note("%s is not signed by %s", words[0], strings.Join(s.Missing, ", "))
				a.note("→ tender image sign %s --key %s", words[0], s.Missing[0])
			default:
				a.note("%s is not signed by any key of the vault", words[0])
				a.note("→ tender image key ls shows the keys; sign it: tender image sign %s --key NAME", words[0])
			}
			return exit(denied)
		},
	}
	c.Flags().StringArrayVar(&r.Keys, "key", nil, "`name` of a key that must have signed; may be given several times")
	complete(c, "key", a.keyNames)
	return c
}

func (a *app) printSignatures(s api.ImageSignatures) error {
	fmt.Fprintln(a.Out, s.Digest)
	var rows [][]string
	type line struct{ key, by, at, notes string }
	var lines []line
	forms := map[line][]string{}
	for _, v := range s.Signatures {
		var notes []string
		for _, k := range slices.Sorted(maps.Keys(v.Annotations)) {
			notes = append(notes, k+"="+v.Annotations[k])
		}
		l := line{v.Key, v.By, stamp(v.At), strings.Join(notes, ", ")}
		if v.At.IsZero() {
			l.at = ""
		}
		if forms[l] == nil {
			lines = append(lines, l)
		}
		forms[l] = append(forms[l], v.Form)
	}
	for _, l := range lines {
		slices.Sort(forms[l])
		rows = append(rows, []string{l.key, orDash(l.by), orDash(l.at), strings.Join(slices.Compact(forms[l]), ", "), orDash(clip(l.notes, 60))})
	}
	if len(rows) > 0 {
		if err := table(a.Out, []string{"KEY", "BY", "SIGNED", "AS", "ANNOTATIONS"}, rows); err != nil {
			return err
		}
	}
	if s.Others > 0 {
		a.note("%s by other keys", countOf(s.Others, "signature"))
	}
	for _, p := range s.Problems {
		a.note("warning: %s", p)
	}
	return nil
}

func (a *app) imageKey() *cobra.Command {
	c := a.family("key", "Keep the keys that sign images", a.keyList(), a.keyCreate(), a.keyImport(), a.keyExport(), a.keyRemove())
	c.Long = `Private keys lie sealed in the vault. Of a key that signs elsewhere the public half is enough to verify.
They are cosign's: cosign.key and cosign.pub go in and out. A gate asks for signatures by these
names (sign: in tender.yaml, docs/signing.md).`
	c.Example = `  tender image key create release
  tender image key import vendor vendor.pub
  COSIGN_PASSWORD=… tender image key import release cosign.key
  tender image key export release > release.pub`
	return c
}

func (a *app) keyList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [flags]",
		Short: "List keys, never their private halves",
		Args:  args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			all, err := d.ImageKeys(c.Context())
			if err != nil {
				return fmt.Errorf("list keys: %w", err)
			}
			if a.json {
				return printJSON(a.Out, all)
			}
			if len(all) == 0 {
				a.note("no keys; tender image key create NAME makes one")
				return nil
			}
			var rows [][]string
			for _, k := range all {
				does := "verifies"
				if k.Signs {
					does = "signs, verifies"
				}
				rows = append(rows, []string{k.Name, does, k.Kind, clip(k.Fingerprint, 17), stamp(k.Created), orDash(k.Who), orDash(strings.Join(k.Gates, ", "))})
			}
			return table(a.Out, []string{"NAME", "DOES", "KIND", "FINGERPRINT", "SINCE", "BY", "ASKED FOR BY"}, rows)
		},
	}
}

func (a *app) keyCreate() *cobra.Command {
	return &cobra.Command{
		Use:   "create [flags] NAME",
		Short: "Make a key, and print its public half",
		Args:  args(1, 1, "a NAME"),
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			k, err := d.AddImageKey(c.Context(), api.ImageKeyNew{Name: words[0]})
			if err != nil {
				return fmt.Errorf("create key %s: %w", words[0], err)
			}
			if a.json {
				return printJSON(a.Out, k)
			}
			fmt.Fprint(a.Out, k.Public)
			a.note("→ tender image sign REF --key %s", k.Name)
			return nil
		},
	}
}

func (a *app) keyImport() *cobra.Command {
	var stdin bool
	c := &cobra.Command{
		Use:   "import [flags] NAME FILE",
		Short: "Take over a cosign.key, a cosign.pub, or a private key in PEM",
		Long: `The password of a cosign.key is that of COSIGN_PASSWORD, or is read from stdin with --password-stdin, or
asked for without echo on a terminal. - as FILE reads standard input.`,
		Example: `  tender image key import vendor vendor.pub
  tender image key import release cosign.key --password-stdin < password`,
		Args: args(2, 2, "a NAME and a FILE"),
		RunE: func(c *cobra.Command, words []string) error {
			if stdin && words[1] == "-" {
				return misuse("COSIGN_PASSWORD", "standard input cannot be both the key and its password")
			}
			text, err := a.ruleFile(words[1])
			if err != nil {
				return tender.Errorf(tender.Invalid, "read the key: %w", err)
			}
			k := api.ImageKeyNew{Name: words[0], Key: string(text)}
			if strings.TrimSpace(k.Key) == "" {
				return tender.Errorf(tender.Invalid, "%s is empty", words[1]).Hint("a cosign.key or a cosign.pub")
			}
			if strings.Contains(k.Key, "ENCRYPTED") {
				if k.Password, err = a.keyPassword(words[0], stdin, false); err != nil {
					return err
				}
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			made, err := d.AddImageKey(c.Context(), k)
			if err != nil {
				return fmt.Errorf("import key %s: %w", words[0], err)
			}
			if a.json {
				return printJSON(a.Out, made)
			}
			if made.Signs {
				fmt.Fprintf(a.Out, "%s: signs and verifies\n", made.Name)
				return nil
			}
			fmt.Fprintf(a.Out, "%s: verifies\n", made.Name)
			return nil
		},
	}
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from stdin")
	return c
}

// keyPassword is that of a key file; new: it seals one, and is asked for twice.
func (a *app) keyPassword(name string, stdin, fresh bool) (string, error) {
	if stdin {
		raw, err := io.ReadAll(io.LimitReader(a.In, 64<<10))
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return strings.TrimRight(string(raw), "\r\n"), nil
	}
	for _, kv := range a.Env {
		if strings.HasPrefix(kv, "COSIGN_PASSWORD=") {
			return a.getenv("COSIGN_PASSWORD"), nil // one that is empty is a password, too
		}
	}
	if !isTerminal(a.In) {
		return "", misuse("COSIGN_PASSWORD, or --password-stdin < FILE", "there is no terminal to ask for the password of key %s", name)
	}
	if fresh {
		raw, err := a.askValue("the password of "+name, "tender image key export "+name+" --private")
		return string(raw), err
	}
	fmt.Fprintf(a.Err, "Password of %s (not shown): ", name)
	raw, err := term.ReadPassword(int(a.In.(*os.File).Fd()))
	fmt.Fprintln(a.Err)
	return string(raw), err
}

func (a *app) keyExport() *cobra.Command {
	var private, stdin bool
	var output string
	c := &cobra.Command{
		Use:   "export [flags] NAME",
		Short: "Print the public half of a key, or with --private all of it, sealed with a password",
		Long: `Prints what cosign calls cosign.pub. With --private it is a cosign.key, which a password opens: that of
COSIGN_PASSWORD, or of stdin with --password-stdin, or asked for on a terminal. That needs a token of scope admin.`,
		Example: `  tender image key export release > release.pub
  tender image key export release --private -o cosign.key`,
		Args: args(1, 1, "the NAME of a key"),
		RunE: func(c *cobra.Command, words []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			var text string
			if private {
				password, err := a.keyPassword(words[0], stdin, true)
				if err != nil {
					return err
				}
				if text, err = d.ExportImageKey(c.Context(), words[0], password); err != nil {
					return fmt.Errorf("export key %s: %w", words[0], err)
				}
			} else {
				all, err := d.ImageKeys(c.Context())
				if err != nil {
					return fmt.Errorf("export key %s: %w", words[0], err)
				}
				at := slices.IndexFunc(all, func(k api.ImageKey) bool { return k.Name == words[0] })
				if at < 0 {
					return tender.Errorf(tender.NotFound, "there is no key %q", words[0]).Hint("tender image key ls lists them")
				}
				text = all[at].Public
			}
			if output == "" || output == "-" {
				_, err := io.WriteString(a.Out, text)
				return err
			}
			f, err := os.OpenFile(a.path(output), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return tender.Errorf(tender.Invalid, "%s is there already", output).Hint("choose another file")
			}
			if err == nil {
				_, err = io.WriteString(f, text)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				return fmt.Errorf("write %s: %w", output, err)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&private, "private", false, "the private half, too, sealed with a password")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from stdin")
	c.Flags().StringVarP(&output, "output", "o", "", "write it to this `file`, which must not be there yet")
	return c
}

func (a *app) keyRemove() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:               "rm [flags] NAME...",
		Short:             "Remove keys; what they signed counts as signed by nobody then",
		Args:              args(1, -1, "the NAME of a key: tender image key ls lists them"),
		ValidArgsFunction: a.keyNames,
		RunE: func(c *cobra.Command, words []string) error {
			return a.removeEach("key", words, func(d *api.Client, name string) error { return d.RemoveImageKey(c.Context(), name, force) })
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also when a gate asks for it, which then lets nothing through")
	return c
}

func (a *app) keyNames(c *cobra.Command, _ []string, part string) ([]string, cobra.ShellCompDirective) {
	d, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := d.ImageKeys(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, k := range all {
		if strings.HasPrefix(k.Name, part) {
			out = append(out, k.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
