package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenderhq/tender/internal/api"
)

func (a *app) imageCommand() *cobra.Command {
	c := a.family("image", "Build, scan, sign and promote images", a.imageBuild(), a.imageTag(), a.imageList(), a.imageScan(), a.imageSBOM(), a.imagePromote(), a.imageOutdated(), a.imagePrune(), a.imageDB(),
		a.imageSign(), a.imageVerify(), a.imageKey())
	c.Example = `  tender image build --push -t registry.example.com/shop/web .
  tender image scan shop/web:1.4 --deny high
  tender image sbom shop/web:1.4 -o web.cdx.json
  tender image sign shop/web:1.4 --key release
  tender image promote shop/web:1.4 --to staging
  tender image ls
  tender image db update
  tender image prune --keep 10 --older-than 30d --dry-run`
	return c
}

// severityWords are those that --deny takes, the worst first.
var severityWords = []string{"critical", "high", "medium", "low", "negligible"}

func (a *app) imageScan() *cobra.Command {
	var format, output, with string
	var r api.ScanRequest
	formats := append([]string{"table", "json"}, api.ScanDocuments...)
	c := &cobra.Command{
		Use:   "scan [flags] REF|FILE.tar",
		Short: "Say what is wrong with an image",
		Long: `Looks for packages that advisories hold for, secrets left in layers, and how the image is set up.
REF is an image of the engine, else of its registry; FILE.tar is what docker save wrote, or an OCI
layout. Nothing of the image is run. Where services run another image of the same repository, it
says what differs. With --deny it ends with 4 when something is as bad as that, each with what
mends it; waivers (tender policy waive) are heeded.`,
		Example: `  tender image scan shop/web:1.4
  tender image scan ./web.tar --deny high --fixable
  tender image scan shop/web:1.4 --format sarif -o web.sarif`,
		Args: args(1, 1, "one REF or FILE.tar"),
		RunE: func(c *cobra.Command, words []string) error {
			if a.json && !c.Flags().Changed("format") {
				format = "json"
			}
			if !slices.Contains(formats, format) {
				return misuse("one of "+strings.Join(formats, ", "), "--format %q is not known", format)
			}
			if r.Deny != "" && !slices.Contains(severityWords, r.Deny) {
				return misuse("one of "+strings.Join(severityWords, ", "), "--deny %q is no severity", r.Deny)
			}
			if r.Fixable && r.Deny == "" {
				return misuse("--deny high --fixable", "--fixable says nothing without --deny")
			}
			if slices.Contains(api.ScanDocuments, format) {
				r.Document = format
			}
			if with != "" {
				var err error
				if r.With, err = a.secondOpinion(c.Context(), with, words[0]); err != nil {
					return err
				}
			}
			s, err := a.scan(c.Context(), words[0], r)
			if err != nil {
				return fmt.Errorf("scan %s: %w", words[0], err)
			}
			if err := a.into(output, func(w io.Writer, width int) error {
				switch {
				case r.Document != "":
					_, err := io.WriteString(w, s.Document)
					return err
				case format == "json":
					return printJSON(w, s)
				}
				return printScan(w, s, width, time.Now())
			}); err != nil {
				return err
			}
			return a.scanEnd(s, r, format == "table" && output == "")
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", "table", "`how` to write it: "+strings.Join(formats, ", "))
	f.StringVarP(&output, "output", "o", "", "write it to this `file`")
	f.StringVar(&r.Deny, "deny", "", "end with 4 if there is a finding of this `severity` or worse: "+strings.Join(severityWords, ", "))
	f.BoolVar(&r.Fixable, "fixable", false, "--deny only what has a fixed version")
	f.StringVar(&with, "with", "", "a second opinion: `trivy or grype`, which is run here, or a file with what it found (trivy --format json, grype -o json)")
	f.StringVar(&r.Against, "against", "", "compare with this `image`")
	complete(c, "format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	complete(c, "deny", cobra.FixedCompletions(severityWords, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) imageSBOM() *cobra.Command {
	var output string
	format := "cyclonedx"
	formats := []string{"cyclonedx", "spdx"}
	c := &cobra.Command{
		Use:   "sbom [flags] REF|FILE.tar",
		Short: "List the packages of an image as CycloneDX or SPDX",
		Args:  args(1, 1, "one REF or FILE.tar"),
		RunE: func(c *cobra.Command, words []string) error {
			if !slices.Contains(formats, format) {
				return misuse("one of "+strings.Join(formats, ", "), "--format %q is not known", format)
			}
			s, err := a.scan(c.Context(), words[0], api.ScanRequest{Document: format})
			if err != nil {
				return fmt.Errorf("list the packages of %s: %w", words[0], err)
			}
			return a.into(output, func(w io.Writer, _ int) error {
				_, err := io.WriteString(w, s.Document)
				return err
			})
		},
	}
	c.Flags().StringVar(&format, "format", format, "`how` to write it: cyclonedx or spdx")
	c.Flags().StringVarP(&output, "output", "o", "", "write it to this `file`")
	complete(c, "format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// scan sends what is asked for; a file travels to the daemon.
func (a *app) scan(ctx context.Context, what string, r api.ScanRequest) (api.Scan, error) {
	d, err := a.client()
	if err != nil {
		return api.Scan{}, err
	}
	var archive io.Reader
	switch info, err := os.Stat(a.path(what)); {
	case err == nil && info.Mode().IsRegular():
		f, err := os.Open(a.path(what))
		if err != nil {
			return api.Scan{}, err
		}
		defer f.Close()
		r.Archive, archive = true, f
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return api.Scan{}, err
	case strings.HasSuffix(what, ".tar"), strings.HasPrefix(what, "./"), strings.HasPrefix(what, "/"):
		return api.Scan{}, misuse("docker save -o image.tar NAME makes one", "there is no file %s", what)
	default:
		r.Reference = what
		if r.Auth, err = a.auth(registryOf(what)); err != nil {
			a.note("warning: %v", err) // it may be here, or public
		}
	}
	if r.Against != "" {
		if r.AgainstAuth, err = a.auth(registryOf(r.Against)); err != nil {
			a.note("warning: %v", err)
		}
	}
	show, err := a.progressFor()
	if err != nil {
		return api.Scan{}, err
	}
	defer show.close()
	return d.Scan(ctx, r, archive, show.report)
}

func (a *app) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(a.Dir, name)
}

// into writes to a file, which is whole or not there, or to stdout.
func (a *app) into(output string, write func(w io.Writer, width int) error) error {
	if output == "" || output == "-" {
		width := 200
		if isTerminal(a.Out) {
			width, _ = size(a.Out)
		}
		return write(a.Out, width)
	}
	path := a.path(output)
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", output, err)
	}
	defer os.Remove(f.Name())
	err = errors.Join(write(f, 200), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", output, err)
	}
	return nil
}

// scanEnd says what comes next, and why it is denied.
func (a *app) scanEnd(s api.Scan, r api.ScanRequest, told bool) error {
	if !told {
		for _, w := range s.Warnings {
			a.note("warning: %s", w)
		}
	}
	if r.Deny == "" {
		return nil
	}
	limit := r.Deny + " or worse"
	if r.Fixable {
		limit += ", and fixable"
	}
	for _, v := range s.Verdicts {
		if v.Verdict != "waived" {
			continue
		}
		a.note("waived until %s by %s: %s (%s)", v.Waiver.Until.Format(time.DateOnly), v.Waiver.By, v.Why, v.Waiver.Reason)
	}
	if s.Denied == 0 {
		a.note("%s passes: nothing is %s", s.Reference, limit)
		return nil
	}
	a.note("%s is denied, for %s (%s):", s.Reference, countOf(s.Denied, "reason"), limit)
	for _, v := range s.Verdicts {
		if v.Verdict != "deny" {
			continue
		}
		a.note("  %s: %s", v.Rule, v.Why)
		if v.Fix != "" {
			a.note("    → %s", v.Fix)
		}
	}
	return exit(denied)
}

// printScan is the table, for a terminal of so many columns.
func printScan(w io.Writer, s api.Scan, width int, now time.Time) error {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-11s %s\n", name, text)
		}
	}
	line("image", s.Reference)
	line("digest", s.Digest)
	if s.Digest == "" {
		line("image ID", s.ImageID)
	}
	base := orDash(s.Base)
	if !s.Created.IsZero() && s.Created.Year() > 1980 { // reproducible builds have no day
		base += ", built " + ago(s.Created, now)
	}
	line("base", base)
	line("packages", fmt.Sprintf("%d in %s", s.Packages, countOf(s.Layers, "layer")))
	if s.Advisories.Count > 0 {
		text := fmt.Sprint(s.Advisories.Count)
		if updated := ago(s.Advisories.Updated, now); updated != "" {
			text += ", updated " + updated
		}
		line("advisories", text)
	}
	for _, text := range s.Warnings {
		fmt.Fprintln(w, "warning: "+text)
	}
	fmt.Fprintln(w)
	if len(s.Findings) > 0 {
		if err := printFindings(w, s, width); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, summary(s))
	for _, c := range s.Changes {
		text := "against " + c.Against
		if len(c.Services) > 0 {
			text += ", which " + strings.Join(c.Services, ", ") + " runs"
			if len(c.Services) > 1 {
				text = strings.TrimSuffix(text, "runs") + "run"
			}
		}
		fmt.Fprintln(w, text+": "+c.Text)
	}
	if o := s.Opinion; o != nil {
		fmt.Fprintf(w, "second opinion: %d findings are the same, %d it alone has, %d it does not have\n", o.Both, o.Others, o.Ours)
	}
	for _, text := range nextSteps(s) {
		fmt.Fprintln(w, "→ "+text)
	}
	return nil
}

// printFindings gives what is left of the width to the step of the Dockerfile, and leaves
// that out where it would say nothing.
func printFindings(w io.Writer, s api.Scan, width int) error {
	heading := []string{"SEVERITY", "FINDING", "PACKAGE", "VERSION", "FIXED IN", "LAYER"}
	var rows [][]string
	for _, f := range s.Findings {
		id := f.ID
		if f.Other {
			id += " (other)"
		}
		if f.Waiver != nil {
			id += " (waived)"
		}
		pkg := f.Package
		if f.Kind != "vulnerability" {
			pkg = f.Path
			if pkg == "" {
				pkg = f.Title
			}
		}
		layer := ""
		if f.Layer >= 0 {
			layer = strings.TrimSpace(fmt.Sprintf("%d %s", f.Layer, step(f.Step)))
		}
		rows = append(rows, []string{f.Severity, id, orDash(pkg), orDash(f.Version), orDash(f.Fixed), orDash(layer)})
	}
	const apart = 3
	limits := []int{10, 28, 56, 24, 24}
	switch {
	case width < 120:
		limits = []int{10, 20, 16, 12, 12}
	case width < 160:
		limits = []int{10, 28, 28, 18, 18}
	}
	used := 0
	for i, most := range limits {
		wide := len(heading[i])
		for _, r := range rows {
			r[i] = clip(r[i], most)
			wide = max(wide, len([]rune(r[i])))
		}
		used += wide + apart
	}
	left := width - used
	for i, r := range rows {
		if left < 8 {
			rows[i] = r[:5]
			continue
		}
		r[5] = clip(r[5], left)
	}
	if left < 8 {
		heading = heading[:5]
	}
	return table(w, heading, rows)
}

// copied is how engines write a COPY of what they know by its hash.
var copied = regexp.MustCompile(`^(COPY|ADD) (?:file|dir|multi):[0-9a-f]{64} in (.*)$`)

// step is a line of a Dockerfile as its author wrote it.
func step(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	text = strings.TrimPrefix(text, "/bin/sh -c ")
	text = copied.ReplaceAllString(strings.TrimPrefix(text, "#(nop) "), "$1 $2")
	return strings.TrimSpace(strings.TrimSuffix(text, "# buildkit"))
}

// summary counts: "2 critical (2 fixable), 5 high (1 fixable)".
func summary(s api.Scan) string {
	var parts []string
	waived := 0
	for _, word := range append(slices.Clone(severityWords), "unknown") {
		n, fixable := 0, 0
		for _, f := range s.Findings {
			if f.Severity != word {
				continue
			}
			if f.Waiver != nil {
				waived++
				continue
			}
			n++
			if f.Fixed != "" {
				fixable++
			}
		}
		if n == 0 {
			continue
		}
		text := fmt.Sprintf("%d %s", n, word)
		if fixable > 0 {
			text += fmt.Sprintf(" (%d fixable)", fixable)
		}
		parts = append(parts, text)
	}
	if waived > 0 {
		parts = append(parts, fmt.Sprintf("%d waived", waived))
	}
	if len(parts) == 0 {
		if s.Advisories.Count == 0 {
			return "no secrets and nothing wrong with the setup; vulnerabilities were not looked for"
		}
		return "nothing found"
	}
	return strings.Join(parts, ", ")
}

// nextSteps are what would help most.
func nextSteps(s api.Scan) (out []string) {
	fixable, secrets := 0, 0
	for _, f := range s.Findings {
		switch {
		case f.Waiver != nil:
		case f.Kind == "secret":
			secrets++
		case f.Fixed != "":
			fixable++
		}
	}
	if secrets > 0 {
		out = append(out, "change the secrets that lie in layers: whoever has the image has them; give them at run time: tender secret set")
	}
	if fixable > 0 {
		out = append(out, fmt.Sprintf("%s fixed in later versions: build again on a newer base (tender build --pull --no-cache), or update these packages in the Dockerfile", areIs(fixable)))
	}
	if s.Advisories.Count == 0 {
		out = append(out, "tender image db update fetches advisories, so that vulnerable packages are found")
	}
	return out
}

func areIs(n int) string {
	if n == 1 {
		return "1 is"
	}
	return fmt.Sprintf("%d are", n)
}

func (a *app) imageDB() *cobra.Command {
	c := &cobra.Command{
		Use:   "db",
		Short: "Say how old the advisories are that images are scanned with",
		Args:  a.known,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client()
			if err != nil {
				return err
			}
			return a.advisories(c.Context(), d)
		},
	}
	c.AddCommand(a.imageDBUpdate())
	return c
}

func (a *app) advisories(ctx context.Context, d *api.Client) error {
	s, err := d.Advisories(ctx)
	if err != nil {
		return fmt.Errorf("look at the advisories: %w", err)
	}
	if a.json {
		return printJSON(a.Out, s)
	}
	every := s.Every
	if every == "" {
		every = "never by itself"
	} else {
		every = "every " + strings.TrimSuffix(strings.TrimSuffix(every, "0s"), "0m")
	}
	if s.Count > 0 {
		fmt.Fprintf(a.Out, "%-11s %d\n%-11s %s\n%-11s %s\n%-11s %s\n", "advisories", s.Count, "updated", ago(s.Updated, time.Now()), "newest", ago(s.Newest, time.Now()), "ecosystems", strings.Join(s.Ecosystems, ", "))
	}
	fmt.Fprintf(a.Out, "%-11s %s, %s\n", "source", s.From, every)
	if s.Stale != "" {
		a.note("warning: %s", s.Stale)
	}
	return nil
}

func (a *app) imageDBUpdate() *cobra.Command {
	var u api.AdvisoriesUpdate
	c := &cobra.Command{
		Use:   "update [flags] [ECOSYSTEM...]",
		Short: "Bring the advisories up to date",
		Long: `Fetches what is new of the ecosystems named, else of those in tender.yaml, else of those that are
there already and that deployed images need. Names are OSV's, without a release: Debian, Alpine, npm,
PyPI, Go. --from reads a mirror: the address of a server, or on the daemon's host a folder, a .tar or
a .zip, with ECOSYSTEM/all.zip in it. It needs a token of scope admin.`,
		Example: `  tender image db update
  tender image db update Debian npm
  tender image db update --from /mnt/osv`,
		RunE: func(c *cobra.Command, words []string) error {
			u.Ecosystems = words
			if u.From != "" && !strings.Contains(u.From, "://") && !filepath.IsAbs(u.From) {
				if a.remote() {
					return misuse("--from /absolute/path, on the daemon's host", "--from %s: the daemon is on another host", u.From)
				}
				u.From = a.path(u.From)
			}
			if u.All && len(words) > 0 {
				return misuse("leave one of them out", "--all and ECOSYSTEM exclude each other")
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			show, err := a.progressFor()
			if err != nil {
				return err
			}
			err = d.UpdateAdvisories(c.Context(), u, show.report)
			show.close()
			if err != nil {
				return fmt.Errorf("update the advisories: %w", err)
			}
			return a.advisories(c.Context(), d)
		},
	}
	c.Flags().StringVar(&u.From, "from", "", "`where` they are: a URL, or a folder, .tar or .zip on the daemon's host")
	c.Flags().BoolVar(&u.All, "all", false, "every ecosystem that is there")
	return c
}
