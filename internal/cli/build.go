package cli

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/spf13/cobra"
	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
)

type buildFlags struct {
	noCache, pull, quiet, push bool
	args                       []string
}

func (a *app) buildCommand() *cobra.Command {
	var f buildFlags
	c := &cobra.Command{
		Use:               "build [flags] [SERVICE...]",
		Short:             "Build the images of services",
		Example:           "  tender build\n  tender build --build-arg VERSION=1.4.3 web",
		ValidArgsFunction: a.fileServices,
		RunE:              func(c *cobra.Command, services []string) error { return a.build(c.Context(), f, services) },
	}
	c.Flags().BoolVar(&f.noCache, "no-cache", false, "run every step anew")
	c.Flags().BoolVar(&f.pull, "pull", false, "pull base images although they are there")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print the ids of the images alone")
	c.Flags().BoolVar(&f.push, "push", false, "push the images afterwards")
	c.Flags().StringArrayVar(&f.args, "build-arg", nil, "argument of the build: `NAME=VALUE`")
	a.inFile(c)
	return c
}

func (a *app) build(ctx context.Context, f buildFlags, services []string) error {
	doc, err := a.load(ctx, services)
	if err != nil {
		return err
	}
	p, err := compose.Parse([]byte(doc.YAML))
	if err != nil {
		return err
	}
	in, err := need(p, services, true)
	if err != nil {
		return err
	}
	extra := map[string]*string{}
	for _, s := range f.args {
		if k, v, ok := strings.Cut(s, "="); ok {
			extra[k] = &v
		} else if v := a.getenv(k); v != "" {
			extra[k] = &v
		}
	}
	d, err := a.client()
	if err != nil {
		return err
	}
	if f.quiet {
		a.progress = "quiet"
	}
	at, err := a.bench(ctx, d)
	if err != nil {
		return err
	}
	built := 0
	for _, b := range doc.Builds {
		if !in[b.Service] {
			continue
		}
		b.NoCache, b.Pull = b.NoCache || f.noCache, b.Pull || f.pull
		if len(extra) > 0 {
			b.Args = maps.Clone(b.Args)
			if b.Args == nil {
				b.Args = map[string]*string{}
			}
			maps.Copy(b.Args, extra)
		}
		id, err := a.buildOne(ctx, at, b)
		if err == nil {
			err = a.send(ctx, at, b.Tags)
		}
		if err != nil {
			return err
		}
		if f.quiet {
			fmt.Fprintln(a.Out, id)
		}
		built++
	}
	if built == 0 {
		a.note("nothing to build: no service here has build:")
		return nil
	}
	if f.push {
		return a.push(ctx, services)
	}
	return nil
}

// buildMissing builds, before an up, what has no image yet, or all that can be built.
func (a *app) buildMissing(ctx context.Context, d *api.Client, doc compose.Document, p tender.Project, f upFlags, services []string) error {
	in, err := need(p, services, f.noDeps)
	if err != nil {
		return err
	}
	other, err := pairs("--image", f.images)
	if err != nil {
		return err
	}
	shape, err := readForm(doc.YAML)
	if err != nil {
		return err
	}
	var candidates []compose.Build
	var refs []string
	for _, b := range doc.Builds {
		if in[b.Service] && other[b.Service] == "" && len(b.Tags) > 0 {
			candidates = append(candidates, b)
			refs = append(refs, b.Tags[0])
		}
	}
	at, err := a.bench(ctx, d)
	if err != nil {
		return err
	}
	if err := a.sendOwn(ctx, at, p, in); err != nil {
		return err
	}
	if len(candidates) == 0 {
		return nil
	}
	there, here := map[string]bool{}, map[string]bool{}
	if !f.build {
		images, err := d.Images(ctx, refs)
		if err != nil {
			return err
		}
		for _, i := range images {
			there[i.Reference] = true
		}
		if at.here != nil {
			if images, err = at.here.Images(ctx, refs); err != nil {
				return err
			}
			for _, i := range images {
				here[i.Reference] = true
			}
		}
	}
	for _, b := range candidates {
		anew := shape.Services[b.Service].PullPolicy == "build"
		if there[b.Tags[0]] && !anew {
			continue
		}
		if !here[b.Tags[0]] || anew {
			if _, err := a.buildOne(ctx, at, b); err != nil {
				return err
			}
		}
		if err := a.send(ctx, at, b.Tags); err != nil {
			return err
		}
	}
	return nil
}

// buildOne streams the context of one service to the engine that builds it.
func (a *app) buildOne(ctx context.Context, d builder, b compose.Build) (string, error) {
	if strings.Contains(b.Context, "://") || strings.HasPrefix(b.Context, "git@") {
		return "", tender.Errorf(tender.Invalid, "build %s: the context %s is not on this machine", b.Service, b.Context).
			Hint("clone it and name the directory under build.context")
	}
	p, err := a.progressFor()
	if err != nil {
		return "", err
	}
	begun := time.Now()
	dockerfile, r, err := contextTar(b)
	if err != nil {
		p.close()
		return "", fmt.Errorf("build %s: %w", b.Service, err)
	}
	id, err := d.Build(ctx, api.BuildRequest{
		Service: b.Service, Tags: b.Tags, Dockerfile: dockerfile, Args: b.Args, Target: b.Target, Labels: b.Labels, NoCache: b.NoCache,
		Pull: b.Pull, CacheFrom: b.CacheFrom, Network: b.Network, ShmSize: b.ShmSize, ExtraHosts: b.ExtraHosts, Platform: b.Platform,
		Auths: a.allAuths(),
	}, r, func(e api.Event) {
		if e.Service == "" {
			e.Service = b.Service
		}
		p.report(e)
	})
	r.Close()
	p.close()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", b.Service, err)
	}
	if a.progress != "quiet" && a.progress != "json" {
		a.note("built %s: %s (%s)", b.Service, shortID(id), took(time.Since(begun)))
	}
	return id, nil
}

// contextTar streams the build context as a tar, without what .dockerignore
// names, and returns the Dockerfile's path in it. One that lies outside of the
// context, or inline, is added under a name of its own.
func contextTar(b compose.Build) (dockerfile string, r *io.PipeReader, err error) {
	st, err := os.Stat(b.Context)
	if err != nil {
		return "", nil, tender.Errorf(tender.Invalid, "context: %w", err).Hint("see services.%s.build.context", b.Service)
	}
	if !st.IsDir() {
		return "", nil, tender.Errorf(tender.Invalid, "context %s is no directory", b.Context).Hint("see services.%s.build.context", b.Service)
	}
	dockerfile = b.Dockerfile
	if dockerfile == "" {
		dockerfile = "Dockerfile"
	}
	var own []byte
	file := dockerfile
	if !filepath.IsAbs(file) {
		file = filepath.Join(b.Context, file)
	}
	if b.DockerfileInline != "" {
		own = []byte(b.DockerfileInline)
	} else {
		if _, err := os.Stat(file); err != nil {
			return "", nil, tender.Errorf(tender.Invalid, "Dockerfile: %w", err).Hint("see services.%s.build.dockerfile", b.Service)
		}
		rel, err := filepath.Rel(b.Context, file)
		if err != nil {
			return "", nil, err
		}
		if filepath.IsLocal(rel) {
			dockerfile = filepath.ToSlash(rel)
		} else if own, err = os.ReadFile(file); err != nil {
			return "", nil, err
		}
	}
	if own != nil {
		sum := sha256.Sum256(own)
		dockerfile = ".dockerfile." + hex.EncodeToString(sum[:8])
	}
	ignored, err := ignore(b.Context, file)
	if err != nil {
		return "", nil, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(packContext(w, b.Context, dockerfile, own, ignored)) }()
	return dockerfile, r, nil
}

// ignore reads what is left out of a context: DOCKERFILE.dockerignore, else .dockerignore.
func ignore(dir, dockerfile string) (*patternmatcher.PatternMatcher, error) {
	f, err := os.Open(dockerfile + ".dockerignore")
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(filepath.Join(dir, ".dockerignore"))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return patternmatcher.New(nil)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "read %s: %w", f.Name(), err)
	}
	return m, nil
}

func packContext(w io.Writer, dir, dockerfile string, own []byte, ignored *patternmatcher.PatternMatcher) error {
	t := tar.NewWriter(w)
	// What the builder must see, whatever the file says.
	kept := map[string]bool{dockerfile: true, ".dockerignore": true}
	parents := map[string]patternmatcher.MatchInfo{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		name := filepath.ToSlash(rel)
		skip, info, err := ignored.MatchesUsingParentResults(rel, parents[filepath.Dir(rel)])
		if err != nil {
			return fmt.Errorf("match %s: %w", rel, err)
		}
		if e.IsDir() {
			parents[rel] = info
		}
		if !skip || kept[name] {
			return packFile(t, p, name, e, false)
		}
		// Nothing below comes back unless a pattern with ! or the Dockerfile does.
		if e.IsDir() && !ignored.Exclusions() && !strings.HasPrefix(dockerfile, name+"/") {
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		return err
	}
	if own != nil {
		h := &tar.Header{Name: dockerfile, Mode: 0o644, Size: int64(len(own)), Typeflag: tar.TypeReg}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(own); err != nil {
			return err
		}
	}
	return t.Close()
}
