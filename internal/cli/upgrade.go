package cli

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
)

const (
	unit = "tender.service"
	// sums is the file with checksums that lies beside the binaries of a release.
	sums = "SHA256SUMS"
	// maxBinary bounds what is fetched, in bytes.
	maxBinary = 1 << 30
	// comeback is how long serve may take to answer after a restart.
	comeback = time.Minute
)

func (a *app) upgradeCommand() *cobra.Command {
	var checksum string
	var wait time.Duration
	c := &cobra.Command{
		Use:   "upgrade [flags] FILE|URL",
		Short: "Put another version of Tender in place of this one",
		Long: `Takes a binary of a release from a file or a URL, compares it with its checksum, puts it
in place of this one in a single step, and restarts serve alone: instances run on. When
the new serve does not answer, the old binary is put back.

The checksum is given with --checksum, else it is read from ` + sums + ` beside the binary,
which guards against a broken copy and not against a false one.`,
		Example: `  sudo tender upgrade ./tender_1.2.0_linux_amd64
  sudo tender upgrade https://example.com/tender_1.2.0_linux_amd64 --checksum 9f86d0...`,
		Args: args(1, 1, "a FILE or URL"),
		RunE: func(c *cobra.Command, words []string) error {
			if err := a.upgrade(c.Context(), words[0], checksum, wait); err != nil {
				return fmt.Errorf("upgrade: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&checksum, "checksum", "", "SHA-256 of the binary, in `hex`")
	c.Flags().DurationVar(&wait, "wait-timeout", comeback, "`time` that the new serve has to answer")
	return c
}

func (a *app) upgrade(ctx context.Context, source, checksum string, wait time.Duration) error {
	if strings.HasSuffix(source, ".deb") {
		return tender.Errorf(tender.Invalid, "%s is a package", source).Hint("sudo apt install %s", source)
	}
	target, err := self()
	if err != nil {
		return err
	}
	if name := packaged(ctx, target); name != "" {
		return tender.Errorf(tender.Conflict, "%s belongs to the package %s", target, name).Hint("sudo apt install ./tender_VERSION_%s.deb", runtime.GOARCH)
	}
	if checksum == "" {
		if checksum, err = a.listed(ctx, source); err != nil {
			return err
		}
	}
	fresh, err := a.fetch(ctx, source, filepath.Dir(target), checksum)
	if err != nil {
		return err
	}
	defer os.Remove(fresh) // gone already, once it is in place
	version, err := proveBinary(ctx, fresh)
	if err != nil {
		return err
	}
	old := target + ".old"
	if err := errors.Join(remove(old), os.Link(target, old)); err != nil {
		return fmt.Errorf("keep the old binary: %w", err)
	}
	if err := os.Rename(fresh, target); err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "%s: %s, was %s\n", target, version, orDash(a.Version))
	if exec.CommandContext(ctx, "systemctl", "is-active", "--quiet", unit).Run() != nil {
		a.note("%s does not run here: a serve that was started in another way goes on as %s until it is started again", unit, orDash(a.Version))
		return nil
	}
	err = a.restart(ctx, version, wait)
	if err == nil {
		fmt.Fprintf(a.Out, "serve runs %s; instances ran on\n", version)
		return remove(old)
	}
	if e := os.Rename(old, target); e != nil {
		return fmt.Errorf("%w; and the old binary could not be put back from %s: %w", err, old, e)
	}
	if e := a.restart(context.WithoutCancel(ctx), "", comeback); e != nil {
		return fmt.Errorf("%w; the old binary is back, and it does not answer either: %w", err, e)
	}
	return tender.Errorf(tender.Unavailable, "%w; the old version is back and serves", err).Hint("journalctl -u %s", unit)
}

// self is the binary that runs, with no symbolic link on the way.
func self() (string, error) {
	p, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(p)
}

// packaged names the package that a file came with, "" for none.
func packaged(ctx context.Context, file string) string {
	for _, f := range []string{file, strings.TrimPrefix(file, "/usr")} { // Debian's /bin may be a link
		out, err := exec.CommandContext(ctx, "dpkg-query", "-S", f).Output()
		if name, _, ok := strings.Cut(string(out), ":"); err == nil && ok {
			return name
		}
	}
	return ""
}

func remove(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// listed reads the checksum of source from the list beside it.
func (a *app) listed(ctx context.Context, source string) (string, error) {
	name, list := filepath.Base(source), filepath.Join(filepath.Dir(source), sums)
	if u := webAddress(source); u != nil {
		name = path.Base(u.Path)
		u.Path = path.Join(path.Dir(u.Path), sums)
		list = u.String()
	}
	hint := "give --checksum SHA256, or put " + sums + " of the release beside it"
	r, err := a.open(ctx, list)
	if err != nil {
		return "", tender.Errorf(tender.Invalid, "there is no checksum for %s: %w", source, err).Hint("%s", hint)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", list, err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 2 && strings.TrimPrefix(f[1], "*") == name {
			return f[0], nil
		}
	}
	return "", tender.Errorf(tender.Invalid, "%s does not list %s", list, name).Hint("%s", hint)
}

func webAddress(source string) *url.URL {
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil
	}
	return u
}

func (a *app) open(ctx context.Context, source string) (io.ReadCloser, error) {
	if webAddress(source) == nil {
		return os.Open(a.abs(source))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("get %s: %s", source, resp.Status)
	}
	return resp.Body, nil
}

// fetch copies source into dir, and leaves nothing there unless the checksum is right.
func (a *app) fetch(ctx context.Context, source, dir, checksum string) (string, error) {
	r, err := a.open(ctx, source)
	if err != nil {
		return "", err
	}
	defer r.Close()
	f, err := os.CreateTemp(dir, ".tender-")
	if err != nil {
		return "", tender.Errorf(tender.Denied, "%w", err).Hint("try again with sudo")
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, maxBinary+1))
	err = errors.Join(err, f.Chmod(0o755), f.Sync(), f.Close())
	sum := hex.EncodeToString(h.Sum(nil))
	switch {
	case err != nil:
		err = fmt.Errorf("copy %s: %w", source, err)
	case n > maxBinary:
		err = tender.Errorf(tender.Invalid, "%s is larger than %d bytes", source, maxBinary)
	case !strings.EqualFold(sum, strings.TrimPrefix(strings.TrimSpace(checksum), "sha256:")):
		err = tender.Errorf(tender.Invalid, "%s has the checksum %s, not %s", source, sum, checksum).Hint("fetch it again; nothing was changed")
	default:
		return f.Name(), nil
	}
	return "", errors.Join(err, os.Remove(f.Name()))
}

// proveBinary says which version a file is, if it is Tender for this machine.
func proveBinary(ctx context.Context, file string) (string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", tender.Errorf(tender.Invalid, "this is no program for Linux: %w", err).Hint("take tender_VERSION_linux_%s of a release", runtime.GOARCH)
	}
	machine := f.Machine
	if err := f.Close(); err != nil {
		return "", err
	}
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]; machine != want {
		return "", tender.Errorf(tender.Invalid, "this is a program for %s", machine).Hint("take tender_VERSION_linux_%s of a release", runtime.GOARCH)
	}
	out, err := exec.CommandContext(ctx, file, "version", "--short").Output()
	version := strings.TrimSpace(string(out))
	if err != nil || version == "" || strings.ContainsAny(version, " \n") {
		return "", tender.Errorf(tender.Invalid, "this is not Tender: asked for its version it says %q (%v)", version, err)
	}
	return version, nil
}

// restart restarts serve and waits until it answers, as version where one is given.
func (a *app) restart(ctx context.Context, version string, wait time.Duration) error {
	if out, err := exec.CommandContext(ctx, "systemctl", "restart", unit).CombinedOutput(); err != nil {
		return tender.Errorf(tender.Unavailable, "restart %s: %w: %s", unit, err, strings.TrimSpace(string(out)))
	}
	d, err := a.client()
	if err != nil {
		return err
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := d.Status(ctx)
		if err == nil && (version == "" || s.Version == version) {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%s answers", s.Version)
		}
		select {
		case <-ctx.Done():
			return tender.Errorf(tender.Unavailable, "the new serve does not answer: %w", err)
		case <-tick.C:
		}
	}
}
