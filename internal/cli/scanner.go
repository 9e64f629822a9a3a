package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

const (
	// scannerTime is how long another scanner may take; some fetch their advisories first.
	scannerTime = 15 * time.Minute
	// scannerOutput is what it may write: half of what a request holds, as it travels with escapes.
	scannerOutput = 32 << 20
	scannerErrors = 16 << 10
)

// scanners are the programs that --with runs by their bare names, with all that they are given
// before the image. None of it comes from the user.
var scanners = map[string]struct{ image, archive []string }{
	"trivy": {
		image:   []string{"image", "--format", "json", "--quiet", "--no-progress", "--"},
		archive: []string{"image", "--format", "json", "--quiet", "--no-progress", "--input"},
	},
	"grype": {
		image:   []string{"--output", "json", "--quiet", "--"},
		archive: []string{"--output", "json", "--quiet", "--"},
	},
}

// secondOpinion is what another scanner has found: a file with it, or a scanner that is run now.
func (a *app) secondOpinion(ctx context.Context, with, image string) (string, error) {
	args, known := scanners[with]
	if !known {
		text, err := os.ReadFile(a.path(with))
		if err != nil {
			return "", fmt.Errorf("read the second opinion: %w", err)
		}
		return string(text), nil
	}
	program, err := a.lookPath(with)
	if err != nil {
		return "", err
	}
	archive := a.path(image)
	run := append(slices.Clone(args.image), image)
	if info, err := os.Stat(archive); err == nil && info.Mode().IsRegular() {
		if with == "grype" {
			archive = "docker-archive:" + archive
		}
		run = append(slices.Clone(args.archive), archive)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, scannerTime,
		tender.Errorf(tender.Unavailable, "%s has not ended within %s", with, scannerTime).Hint("run it by itself, and give its JSON: --with FILE"))
	defer cancel()
	c := exec.CommandContext(ctx, program, run...)
	c.Env, c.Dir = a.Env, a.Dir
	c.WaitDelay = 5 * time.Second // of children that hold its output open
	out, said := &bounded{most: scannerOutput}, &bounded{most: scannerErrors, drop: true}
	c.Stdout, c.Stderr = out, said
	a.note("asking %s", with)
	err = c.Run()
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case out.over:
		return "", tender.Errorf(tender.Invalid, "%s has written more than %d MiB", with, scannerOutput>>20)
	case err != nil:
		text := strings.TrimSpace(said.String())
		if at := strings.LastIndexByte(text, '\n'); at >= 0 {
			text = text[at+1:]
		}
		if text != "" {
			text = ": " + text
		}
		return "", tender.Errorf(tender.Unavailable, "%s failed (%w)%s", with, err, text).Hint("see whether it works by itself: %s %s", with, strings.Join(run, " "))
	}
	return out.String(), nil
}

// lookPath finds a program as the caller's PATH names it.
func (a *app) lookPath(name string) (string, error) {
	for _, dir := range filepath.SplitList(a.getenv("PATH")) {
		if !filepath.IsAbs(dir) {
			continue // not from where the user happens to stand
		}
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", tender.Errorf(tender.NotFound, "--with %s: there is no %s in PATH", name, name).
		Hint("install it, or give a file with its JSON: --with ./%s.json", name)
}

// bounded is a buffer that takes no more than most bytes. The buffer is not embedded: its ReadFrom would take all.
type bounded struct {
	buffer bytes.Buffer
	most   int
	drop   bool // what is too much is dropped; else it is an error
	over   bool
}

func (b *bounded) String() string { return b.buffer.String() }

func (b *bounded) Write(p []byte) (int, error) {
	left := b.most - b.buffer.Len()
	if len(p) <= left {
		return b.buffer.Write(p)
	}
	b.over = true
	if !b.drop {
		return 0, errors.New("too much output")
	}
	b.buffer.Write(p[:max(0, left)])
	return len(p), nil
}
