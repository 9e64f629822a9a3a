package cli

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
)

// buildContexts opens the contexts of a build as streams, in the order in which
// they are sent, and writes those that are no streams into r.
func buildContexts(r *api.BuildRequest, builds []compose.Build, b compose.Build) ([]api.BuildContext, error) {
	var out []api.BuildContext
	for _, name := range sortedKeys(b.Contexts) {
		from := b.Contexts[name]
		if other, ok := builtBy(builds, from); ok {
			from = "docker-image://" + other.Tags[0]
		}
		switch {
		case strings.HasPrefix(from, "oci-layout:"):
			return out, tender.Errorf(tender.Invalid, "context %s: a layout in a folder is not carried to the engine", name).
				Hint("docker load it, and write docker-image://NAME")
		case elsewhere(from):
			if r.ContextURLs == nil {
				r.ContextURLs = map[string]string{}
			}
			r.ContextURLs[name] = from
		default:
			if err := isFolder(from); err != nil {
				return out, tender.Errorf(tender.Invalid, "context %s: %w", name, err).Hint("see services.%s.build.additional_contexts", b.Service)
			}
			ignored, err := ignore(from, "")
			if err != nil {
				return out, err
			}
			out = append(out, api.BuildContext{Name: name, Tar: packed(from, "", nil, ignored)})
		}
	}
	if elsewhere(b.Context) {
		if b.DockerfileInline != "" {
			return out, tender.Errorf(tender.Invalid, "dockerfile_inline needs a context that is a folder, not %s", b.Context).
				Hint("see services.%s.build.context", b.Service)
		}
		r.Remote, r.Dockerfile = b.Context, b.Dockerfile
		return out, nil
	}
	dockerfile, tarball, err := contextTar(b)
	if err != nil {
		return out, err
	}
	r.Dockerfile = dockerfile
	return append(out, api.BuildContext{Tar: tarball}), nil
}

// elsewhere reports whether a context is fetched by the engine.
func elsewhere(context string) bool {
	return strings.Contains(context, "://") || strings.HasPrefix(context, "git@") || strings.HasPrefix(context, "github.com/")
}

func isFolder(dir string) error {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		return fmt.Errorf("%s is no directory", dir)
	}
	return err
}

// contextTar streams the build context as a tar, without what .dockerignore
// names, and returns the Dockerfile's path in it. One that lies outside of the
// context, or inline, is added under a name of its own.
func contextTar(b compose.Build) (dockerfile string, r *io.PipeReader, err error) {
	if err := isFolder(b.Context); err != nil {
		return "", nil, tender.Errorf(tender.Invalid, "context: %w", err).Hint("see services.%s.build.context", b.Service)
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
	return dockerfile, packed(b.Context, dockerfile, own, ignored), nil
}

// packed streams dir as a tar; closing it ends the work.
func packed(dir, dockerfile string, own []byte, ignored *patternmatcher.PatternMatcher) *io.PipeReader {
	r, w := io.Pipe()
	go func() { w.CloseWithError(packContext(w, dir, dockerfile, own, ignored)) }()
	return r
}

// ignore reads what is left out of a context: DOCKERFILE.dockerignore, else .dockerignore.
func ignore(dir, dockerfile string) (*patternmatcher.PatternMatcher, error) {
	f, err := (*os.File)(nil), fs.ErrNotExist
	if dockerfile != "" {
		f, err = os.Open(dockerfile + ".dockerignore")
	}
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
