package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

func (a *app) cpCommand() *cobra.Command {
	var index int
	var archive, follow bool
	c := &cobra.Command{
		Use:   "cp [flags] SERVICE:PATH PATH | PATH SERVICE:PATH",
		Short: "Copy files out of an instance or into one",
		Long: `Copies as docker cp does: into a directory that is there, else under the name given;
"PATH/." is the content of a directory, - is a tar on stdin or stdout.`,
		Example: `  tender cp db:/var/lib/postgresql/data/postgresql.conf .
  tender cp ./seed.sql db:/tmp/
  tender cp web:/app/logs - | tar t`,
		Args: args(2, 2, "a source and a destination, one of them SERVICE:PATH"),
		RunE: func(c *cobra.Command, words []string) error {
			from, source := place(words[0])
			to, target := place(words[1])
			if (from == "") == (to == "") {
				return misuse("tender cp web:/etc/hosts .", "cp wants one SERVICE:PATH and one path of this machine")
			}
			project, d, err := a.at(c.Context())
			if err != nil {
				return err
			}
			t := api.Target{Project: project, Service: from + to, Slot: index}
			if from != "" {
				err = a.copyOut(c.Context(), d, t, source, target)
			} else {
				err = a.copyIn(c.Context(), d, t, source, target, archive, follow)
			}
			if err != nil {
				return fmt.Errorf("copy %s to %s: %w", words[0], words[1], err)
			}
			return nil
		},
	}
	c.Flags().IntVar(&index, "index", 0, "`slot` of the instance (default: the first that runs)")
	c.Flags().BoolVarP(&archive, "archive", "a", false, "keep user and group ids")
	c.Flags().BoolVarP(&follow, "follow-link", "L", false, "copy what a link at PATH leads to")
	a.inFile(c)
	return c
}

// copyOut unpacks the tar of source in an instance at target on this machine.
func (a *app) copyOut(ctx context.Context, d *api.Client, t api.Target, source, target string) error {
	// The engine names the entries of "dir/." differently from version to version.
	plain, content := strings.CutSuffix(source, "/.")
	if plain == "" {
		plain = "/"
	}
	r, err := d.CopyFrom(ctx, t, plain)
	if err != nil {
		return err
	}
	defer r.Close()
	if target == "-" {
		_, err := io.Copy(a.Out, r)
		return err
	}
	target = a.abs(target)
	dir, name := target, ""
	st, err := os.Stat(target)
	switch {
	case err == nil && st.IsDir():
	case err == nil || errors.Is(err, fs.ErrNotExist):
		if strings.HasSuffix(target, "/") && err != nil {
			return tender.Errorf(tender.NotFound, "directory %s is not there", target).Hint("mkdir -p %s", target)
		}
		dir, name = filepath.Dir(target), filepath.Base(target)
	default:
		return err
	}
	if content && name != "" {
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		dir, name = target, ""
	}
	return unpack(r, dir, name, content)
}

// unpack writes a tar into dir. name, if set, takes the place of the tar's first
// path element; content drops that element. Nothing is written outside dir,
// whatever the paths and links in the tar say.
func unpack(r io.Reader, dir, name string, content bool) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the tar: %w", err)
		}
		to := rename(h.Name, name, content)
		if to == "" {
			continue
		}
		if err := unpackOne(root, t, h, to, rename(h.Linkname, name, content)); err != nil {
			return err
		}
	}
}

// rename gives a path of the tar its place below the target; "" is the target itself.
func rename(p, name string, content bool) string {
	p = strings.Trim(path.Clean("/"+p), "/")
	first, rest, _ := strings.Cut(p, "/")
	switch {
	case content:
		return rest
	case name != "":
		return path.Join(name, rest)
	}
	return path.Join(first, rest)
}

func unpackOne(root *os.Root, r io.Reader, h *tar.Header, to, hard string) error {
	mode := h.FileInfo().Mode().Perm()
	if dir := path.Dir(to); dir != "." && h.Typeflag != tar.TypeDir {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(to, mode|0o700)
	case tar.TypeReg:
		// The old file goes, so that a link of that name is not written through.
		if err := root.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := root.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, r); err != nil {
			f.Close()
			return fmt.Errorf("write %s: %w", to, err)
		}
		return f.Close()
	case tar.TypeSymlink:
		if err := root.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return root.Symlink(h.Linkname, to)
	case tar.TypeLink:
		return root.Link(hard, to)
	}
	return tender.Errorf(tender.Invalid, "%s is neither file, directory nor link", h.Name).Hint("copy it as a tar: tender cp SERVICE:PATH - > copy.tar")
}

// copyIn sends source of this machine into an instance.
func (a *app) copyIn(ctx context.Context, d *api.Client, t api.Target, source, target string, archive, follow bool) error {
	if source == "-" {
		return d.CopyTo(ctx, t, target, a.In)
	}
	source = a.abs(source)
	if follow {
		real, err := filepath.EvalSymlinks(source)
		if err != nil {
			return err
		}
		source = real
	}
	st, err := os.Lstat(source)
	if err != nil {
		return err
	}
	content := strings.HasSuffix(source, "/.")
	dir, name, err := landing(ctx, d, t, target, filepath.Base(source), st.IsDir(), content)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(packTree(w, source, name, archive)) }()
	err = d.CopyTo(ctx, t, dir, r)
	r.Close()
	return err
}

// landing says in which directory of the instance the tar is unpacked and what
// its first element is called there.
func landing(ctx context.Context, d *api.Client, t api.Target, target, base string, sourceIsDir, content bool) (dir, name string, err error) {
	isDir, err := inside(ctx, d, t, target)
	switch {
	case err == nil && isDir && content:
		return target, "", nil
	case err == nil && isDir:
		return target, base, nil
	case err == nil && sourceIsDir:
		return "", "", tender.Errorf(tender.Invalid, "%s in the instance is no directory", target).Hint("name a directory, or a path that is not there")
	case err == nil, tender.KindOf(err) == tender.NotFound && !strings.HasSuffix(target, "/"):
		return path.Dir(path.Clean(target)), path.Base(target), nil
	}
	return "", "", err
}

// inside reports whether path in an instance is a directory. The head of its
// tar tells.
func inside(ctx context.Context, d *api.Client, t api.Target, p string) (bool, error) {
	r, err := d.CopyFrom(ctx, t, p)
	if err != nil {
		return false, err
	}
	defer r.Close()
	h, err := tar.NewReader(r).Next()
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", p, err)
	}
	return h.Typeflag == tar.TypeDir, nil
}

// packTree writes source as a tar whose first element is name, or its content when name is "".
func packTree(w io.Writer, source, name string, archive bool) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(source, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, p)
		if err != nil {
			return err
		}
		to := path.Join(name, filepath.ToSlash(rel))
		if to == "." {
			return nil
		}
		return packFile(t, p, to, e, archive)
	})
	if err != nil {
		return err
	}
	return t.Close()
}

// packFile adds one file, directory or link to a tar; sockets are left out.
func packFile(t *tar.Writer, file, name string, e fs.DirEntry, owners bool) error {
	st, err := e.Info()
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	link := ""
	if st.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(st, link)
	if err != nil {
		return fmt.Errorf("pack %s: %w", file, err)
	}
	h.Name = name
	if st.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname = "", ""
	if !owners {
		h.Uid, h.Gid = 0, 0
	}
	h.Format = tar.FormatPAX
	if err := t.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %s: %w", file, err)
	}
	if !st.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	// A file that grows while it is read is cut at the size that the head says.
	if _, err := io.CopyN(t, f, h.Size); err != nil {
		return fmt.Errorf("pack %s: %w", file, err)
	}
	return nil
}

// abs makes a path of the command line absolute and keeps what its end says.
func (a *app) abs(p string) string {
	end := ""
	if strings.HasSuffix(p, "/.") {
		end = "/."
	} else if strings.HasSuffix(p, "/") {
		end = "/"
	}
	if !filepath.IsAbs(p) {
		p = filepath.Join(a.Dir, p)
	}
	return filepath.Clean(p) + end
}
