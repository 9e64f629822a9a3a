package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
)

type imageBuildFlags struct {
	tags, args, secrets, labels, platforms, ssh, contexts []string
	file, target, iidfile, metadata                       string
	noCache, pull, push, quiet                            bool
	auto, moving, git                                     bool
	autoSaid                                              bool
}

func (a *app) imageBuild() *cobra.Command {
	var f imageBuildFlags
	c := &cobra.Command{
		Use:   "build [flags] CONTEXT",
		Short: "Build an image, name it by version, commit and content, and push it",
		Long: `Builds CONTEXT, a folder or an address that the engine fetches, as docker build does.

With --push, and where no -t is given, the image also gets the names that say what it is (--auto):
its version (the tag v1.4.2 at the commit, else git describe), the commit (git-3f2a9c1d4b5e, with
-dirty if the context has more) and its content (id-0f4c1d2e3a5b). Without -t the repository is
called as the folder is.

After --push of a version such as 1.4.2 the tags 1.4, 1 and latest go forward to it, by semver and
never back; what moved and what did not is told. The labels org.opencontainers.image.source,
revision, created and version come from git and are the same for the same commit.`,
		Example: `  tender image build -t shop/web:1.4.2 .
  tender image build .                                   web:1.4.2, web:git-…, web:id-…
  tender image build --push -t registry.example.com/shop/web .
  tender image build --push --moving=false -t registry.example.com/shop/web:1.3.9 .`,
		Args: args(1, 1, "one CONTEXT, such as ."),
		RunE: func(c *cobra.Command, words []string) error {
			f.autoSaid = c.Flags().Changed("auto")
			return a.imageBuilt(c.Context(), f, words[0])
		},
	}
	s := c.Flags()
	s.StringArrayVarP(&f.tags, "tag", "t", nil, "`name` of the image, REPOSITORY[:TAG]; may be given several times")
	s.StringVarP(&f.file, "file", "f", "", "the Dockerfile, `-` is stdin (default: CONTEXT/Dockerfile)")
	s.StringVar(&f.target, "target", "", "`stage` to build")
	s.StringArrayVar(&f.args, "build-arg", nil, "argument of the build: `NAME=VALUE`, or NAME of the environment")
	s.StringArrayVar(&f.secrets, "secret", nil, "secret of the build: `id=ID,src=FILE` or id=ID,env=NAME")
	s.StringArrayVar(&f.ssh, "ssh", nil, "SSH agent for RUN --mount=type=ssh: `default` or ID=SOCKET")
	s.StringArrayVar(&f.labels, "label", nil, "label of the image: `NAME=VALUE`")
	s.StringArrayVar(&f.contexts, "build-context", nil, "another context: `NAME=FOLDER` or NAME=URL")
	s.StringSliceVar(&f.platforms, "platform", nil, "`platform` to build for, such as linux/arm64")
	s.BoolVar(&f.noCache, "no-cache", false, "run every step anew")
	s.BoolVar(&f.pull, "pull", false, "pull base images although they are there")
	s.BoolVar(&f.push, "push", false, "push every name afterwards")
	s.BoolVar(&f.auto, "auto", false, "name it by version, commit and content, too (default with --push and without -t)")
	s.BoolVar(&f.moving, "moving", true, "with --push of a version: let 1.4, 1 and latest go forward to it")
	s.BoolVar(&f.git, "git", true, "take version, commit and labels from git")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "print the id of the image alone")
	s.StringVar(&f.iidfile, "iidfile", "", "write the id to this `file`")
	s.StringVar(&f.metadata, "metadata-file", "", "write id, digest and names as JSON to this `file`")
	return c
}

// namedImage is one name of an image and what became of it.
type namedImage struct {
	Name  string `json:"name"`
	State string `json:"state"` // built, pushed, and those of api.Tagged
	Note  string `json:"note,omitempty"`
}

func (a *app) imageBuilt(ctx context.Context, f imageBuildFlags, dir string) error {
	b, doc, err := a.buildOf(ctx, &f, dir)
	if err != nil {
		return err
	}
	d, err := a.client()
	if err != nil {
		return err
	}
	if f.quiet {
		a.progress = "quiet"
	}
	at, err := a.bench(ctx, d, nil)
	if err != nil {
		return err
	}
	id, err := a.buildOne(ctx, at, doc, b)
	if err == nil {
		err = a.send(ctx, at, b.Tags)
	}
	if err != nil {
		return err
	}
	refs := b.Tags
	if f.auto {
		var content []string
		for _, r := range repositoriesOf(refs) {
			content = append(content, r+":id-"+shortID(id))
		}
		if _, err := d.TagImage(ctx, api.TagRequest{Source: b.Tags[0], Targets: content}); err != nil {
			return fmt.Errorf("name %s by its content: %w", shortID(id), err)
		}
		refs = append(slices.Clone(refs), content...)
	}
	if f.iidfile != "" {
		if err := a.into(f.iidfile, func(w io.Writer, _ int) error { _, err := io.WriteString(w, id); return err }); err != nil {
			return err
		}
	}
	names := make([]namedImage, len(refs))
	for i, ref := range refs {
		names[i] = namedImage{Name: ref, State: "built"}
	}
	digest := ""
	if f.push {
		if err := a.transfer(ctx, "push", tender.Project{}, refs, (*api.Client).Push); err != nil {
			return err
		}
		for i := range names {
			names[i].State = "pushed"
		}
		if found, err := d.Images(ctx, refs[:1]); err == nil && len(found) == 1 {
			digest = found[0].Digest
		}
		if f.moving {
			moved, err := a.moveAll(ctx, d, refs)
			names = append(names, moved...)
			if err != nil {
				return errors.Join(a.printNames(f.quiet, id, names), err)
			}
		}
	}
	if f.metadata != "" {
		if err := a.into(f.metadata, func(w io.Writer, _ int) error { return writeMetadata(w, id, digest, refs) }); err != nil {
			return err
		}
	}
	return a.printNames(f.quiet, id, names)
}

// moveAll lets the moving tags of each version that was pushed go forward.
func (a *app) moveAll(ctx context.Context, d *api.Client, refs []string) (out []namedImage, err error) {
	type release struct {
		ref string
		v   tender.Version
	}
	var all []release
	for _, ref := range refs {
		if v, is := tender.VersionOf(tagOf(ref)); is && v.Released() {
			all = append(all, release{ref, v})
		}
	}
	slices.SortStableFunc(all, func(a, b release) int { return a.v.Compare(b.v) })
	for _, r := range all {
		moved, err := d.TagImage(ctx, api.TagRequest{Source: r.ref, Moving: true, Auths: a.authsFor(r.ref)})
		if err != nil {
			return out, fmt.Errorf("it is pushed; move the tags that stand for %s: %w", r.ref, err)
		}
		out = append(out, tagRows(moved)...)
	}
	return out, nil
}

// authsFor are the user's own logins at the registries of references.
func (a *app) authsFor(refs ...string) map[string]string {
	out := map[string]string{}
	for _, ref := range refs {
		host := registryOf(ref)
		auth, err := a.auth(host)
		if err != nil {
			a.note("warning: %v", err) // the daemon may have a login of its own
		}
		if auth != "" {
			out[host] = auth
		}
	}
	return out
}

func tagRows(tagged []api.Tagged) (out []namedImage) {
	for _, t := range tagged {
		r := namedImage{Name: t.Reference, State: t.Outcome, Note: t.Why}
		if t.Outcome == api.TagMoved && t.Was != "" {
			r.Note = "from " + t.Was
			if strings.HasPrefix(t.Was, "sha256:") {
				r.Note = "from " + shortID(t.Was)
			}
		}
		out = append(out, r)
	}
	return out
}

func (a *app) printNames(quiet bool, id string, names []namedImage) error {
	switch {
	case a.json:
		return printJSON(a.Out, struct {
			ID    string       `json:"id,omitempty"`
			Names []namedImage `json:"names"`
		}{id, names})
	case quiet && id != "":
		_, err := fmt.Fprintln(a.Out, id)
		return err
	}
	var rows [][]string
	for _, n := range names {
		rows = append(rows, []string{n.Name, n.State, orDash(n.Note)})
	}
	return table(a.Out, []string{"NAME", "STATE", "NOTE"}, rows)
}

// writeMetadata writes what docker buildx build --metadata-file has under the same keys.
func writeMetadata(w io.Writer, id, digest string, refs []string) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Config string `json:"containerimage.config.digest"`
		Digest string `json:"containerimage.digest,omitempty"`
		Name   string `json:"image.name"`
	}{id, digest, strings.Join(refs, ",")})
}

// buildOf turns flags into a build as Compose files have it.
func (a *app) buildOf(ctx context.Context, f *imageBuildFlags, dir string) (compose.Build, compose.Document, error) {
	fail := func(err error) (compose.Build, compose.Document, error) {
		return compose.Build{}, compose.Document{}, err
	}
	doc := compose.Document{Secrets: map[string][]byte{}}
	b := compose.Build{Target: f.target, NoCache: f.noCache, Pull: f.pull, Platforms: f.platforms, Args: map[string]*string{}, Labels: map[string]string{}}
	if dir == "-" {
		return fail(misuse("unpack it, and name the folder", "a context from stdin is not read"))
	}
	if !f.autoSaid {
		f.auto = f.push || len(f.tags) == 0
	}
	b.Context = dir
	var from origin
	if !elsewhere(dir) {
		b.Context = a.path(dir)
		if err := isFolder(b.Context); err != nil {
			return fail(misuse("tender image build [flags] FOLDER", "context: %v", err))
		}
		if f.git {
			why := ""
			if from, why = a.originOf(ctx, b.Context); why != "" && f.auto {
				a.note("no version, commit and labels: %s", why)
			}
		}
	}
	if err := a.dockerfile(f, &b); err != nil {
		return fail(err)
	}
	epoch := time.Time{}
	if text := a.getenv("SOURCE_DATE_EPOCH"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fail(misuse("seconds since 1970, as date +%s prints them", "SOURCE_DATE_EPOCH %q is no number", text))
		}
		epoch = time.Unix(n, 0)
		b.Args["SOURCE_DATE_EPOCH"] = &text
	}
	if f.git {
		b.Labels = from.labels(epoch)
	}
	for _, s := range f.labels {
		k, v, _ := strings.Cut(s, "=")
		b.Labels[k] = v
	}
	for _, s := range f.args {
		if k, v, ok := strings.Cut(s, "="); ok {
			b.Args[k] = &v
		} else if v := a.getenv(k); v != "" {
			b.Args[k] = &v
		}
	}
	for _, s := range f.contexts {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" || v == "" {
			return fail(misuse("write it as NAME=FOLDER", "--build-context %q has no value", s))
		}
		if !elsewhere(v) {
			v = a.path(v)
		}
		if b.Contexts == nil {
			b.Contexts = map[string]string{}
		}
		b.Contexts[k] = v
	}
	if err := a.fileSecrets(f.secrets, &b, &doc); err != nil {
		return fail(err)
	}
	var err error
	if b.SSH, err = a.sshSockets(f.ssh); err != nil {
		return fail(err)
	}
	if b.Tags, err = namesFor(f.tags, f.auto, from, dir, b.Context); err != nil {
		return fail(err)
	}
	b.Service = b.Tags[0]
	return b, doc, nil
}

// dockerfile finds it: as docker has it, relative to where the user stands.
func (a *app) dockerfile(f *imageBuildFlags, b *compose.Build) error {
	switch {
	case f.file == "-":
		text, err := io.ReadAll(io.LimitReader(a.In, 1<<20))
		if err != nil {
			return fmt.Errorf("read the Dockerfile: %w", err)
		}
		b.DockerfileInline = string(text)
		return nil
	case elsewhere(b.Context):
		b.Dockerfile = f.file
		return nil
	case f.file != "":
		b.Dockerfile = a.path(f.file)
	}
	file := cmp.Or(b.Dockerfile, filepath.Join(b.Context, "Dockerfile"))
	if _, err := os.Stat(file); err != nil {
		return misuse("name it: -f FILE", "Dockerfile: %v", err)
	}
	return nil
}

// fileSecrets reads id=ID,src=FILE and id=ID,env=NAME.
func (a *app) fileSecrets(words []string, b *compose.Build, doc *compose.Document) error {
	for _, s := range words {
		said := map[string]string{}
		for part := range strings.SplitSeq(s, ",") {
			k, v, _ := strings.Cut(part, "=")
			if !slices.Contains([]string{"id", "src", "source", "env", "type"}, k) {
				return misuse("--secret id=ID,src=FILE or id=ID,env=NAME", "--secret: %q is not known", k)
			}
			said[k] = v
		}
		id, file := said["id"], cmp.Or(said["src"], said["source"])
		if id == "" {
			return misuse("--secret id=ID,src=FILE or id=ID,env=NAME", "--secret has no id")
		}
		variable := said["env"]
		if variable == "" && file == "" {
			variable = id
		}
		if said["type"] == "env" && variable == "" {
			variable, file = file, "" // docker's src names a variable there
		}
		var value []byte
		if file != "" {
			raw, err := os.ReadFile(a.path(file))
			if err != nil {
				return fmt.Errorf("read the secret %s: %w", id, err)
			}
			value = raw
		} else {
			text := a.getenv(variable)
			if text == "" {
				return misuse("export it first, or give a file: --secret id="+id+",src=FILE", "--secret %s: the variable %s is not set", id, variable)
			}
			value = []byte(text)
		}
		if b.Secrets == nil {
			b.Secrets = map[string]string{}
		}
		b.Secrets[id], doc.Secrets[id] = id, value
	}
	return nil
}

// namesFor are the names that an image is built under; its content is known later.
func namesFor(given []string, auto bool, from origin, said, context string) ([]string, error) {
	var out, repositories []string
	for _, ref := range given {
		if strings.Contains(ref, "@") {
			return nil, misuse("REPOSITORY[:TAG]", "-t %s: a name has no digest", ref)
		}
		if err := isName(ref); err != nil {
			return nil, err
		}
		if tagOf(ref) != "" {
			out = append(out, ref)
		}
		repositories = append(repositories, repositoryOf(ref))
	}
	if len(given) == 0 {
		name := strings.TrimSuffix(filepath.Base(context), ".git")
		if elsewhere(said) {
			return nil, misuse("tender image build -t REPOSITORY "+said, "which name? The context is elsewhere")
		}
		name = strings.Trim(strings.Map(func(r rune) rune {
			switch {
			case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
				return r
			case r >= 'A' && r <= 'Z':
				return r + 'a' - 'A'
			}
			return -1
		}, name), "._-")
		if name == "" {
			return nil, misuse("tender image build -t REPOSITORY "+said, "the folder's name says no name for the image")
		}
		repositories = append(repositories, name)
	}
	slices.Sort(repositories)
	for _, r := range slices.Compact(repositories) {
		tags := []string{"latest"} // as docker build does
		if auto {
			tags = from.names()
			if from.version == "" {
				tags = append(tags, "latest")
			}
		} else if slices.ContainsFunc(out, func(ref string) bool { return repositoryOf(ref) == r }) && !slices.Contains(given, r) {
			continue
		}
		if auto && from.version == "" && slices.ContainsFunc(out, func(ref string) bool { return repositoryOf(ref) == r }) {
			tags = from.names() // it has a name of its own
		}
		for _, t := range tags {
			if ref := r + ":" + t; !slices.Contains(out, ref) {
				out = append(out, ref)
			}
		}
	}
	return out, nil
}

// isName: a whole build is too long to wait until the engine says it.
func isName(ref string) error {
	if _, err := reference.ParseNormalizedNamed(ref); err != nil {
		return misuse("such as registry.example.com/shop/web:1.4.2", "%q is no name of an image: %v", ref, err)
	}
	return nil
}

// tagOf is the tag of a reference, "" if it has none; repositoryOf what stands before it.
func tagOf(ref string) string { return strings.TrimPrefix(ref[len(repositoryOf(ref)):], ":") }

func repositoryOf(ref string) string {
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}

func repositoriesOf(refs []string) (out []string) {
	seen := map[string]bool{}
	for _, ref := range refs {
		seen[repositoryOf(ref)] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

func (a *app) imageTag() *cobra.Command {
	var r api.TagRequest
	c := &cobra.Command{
		Use:   "tag [flags] SOURCE [NAME...]",
		Short: "Give an image more names, in the engine or in a registry",
		Long: `SOURCE is an image of the engine, which gets the names there as by docker tag; else one of a
registry, where the names are given by its digest, and no layer moves within one registry. An
immutable tag is never overwritten.

With --moving the names are of a registry, go forward by semver and never back: SOURCE is named by
its version, and 1.4.1 does not take latest from 1.4.2. Without NAME they are 1.4, 1 and latest.`,
		Example: `  tender image tag web:dev registry.example.com/shop/web:1.4.2
  tender image tag registry.example.com/shop/web:1.4.2 --moving
  tender image tag --registry shop/web:main shop/web:demo`,
		Args: args(1, -1, "SOURCE and the NAMEs to give"),
		RunE: func(c *cobra.Command, words []string) error {
			r.Source, r.Targets = words[0], words[1:]
			if len(r.Targets) == 0 && !r.Moving {
				return misuse("tender image tag "+r.Source+" NAME, or --moving", "no name is given")
			}
			for _, ref := range r.Targets { // the source may be an ID
				if err := isName(ref); err != nil {
					return err
				}
			}
			d, err := a.client()
			if err != nil {
				return err
			}
			r.Auths = a.authsFor(words...)
			tagged, err := d.TagImage(c.Context(), r)
			if err != nil {
				return fmt.Errorf("tag %s: %w", r.Source, err)
			}
			if a.json {
				return printJSON(a.Out, tagged)
			}
			return a.printNames(false, "", tagRows(tagged))
		},
	}
	c.Flags().BoolVar(&r.Moving, "moving", false, "go forward by semver, never back")
	c.Flags().BoolVar(&r.Registry, "registry", false, "in the registry, although the engine has the image, too")
	return c
}
