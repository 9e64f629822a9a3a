package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cataloguer lists the packages of an archive of docker save, as CycloneDX.
type cataloguer struct {
	name string
	run  func(ctx context.Context, archive, into string) (scanned, error)
}

// scanned is one run.
type scanned struct {
	took time.Duration
	cpu  float64 // seconds, of all processes that took part
	peak int64   // bytes, of the one that reads
}

// scanBench lists the packages of images of e2e/images with Tender and syft (what grype looks with), in turns, and says
// which of them find what; then asks Tender what is wrong with them. The others' databases are not needed for the first.
func scanBench(ctx context.Context, args []string) (err error) {
	set := flag.NewFlagSet("scan", flag.ContinueOnError)
	runs := set.Int("runs", 3, "runs of each; the median is shown")
	images := set.String("images", "postgres:15,openjdk:17-jre-slim,debian:latest", "images of the engine")
	peers := set.String("peers", "syft", "peers, folders of e2e; each is built once, in minutes")
	built := set.String("tender", "", "Tender's binary; empty: builds one")
	all := set.Bool("diff", false, "list every package that not all find")
	if err := set.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tb-scan-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, tender: filepath.Join(dir, "tender"), built: *built}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.end()) }()
	if err := b.advise(ctx, "internal/scan/testdata/osv"); err != nil {
		return err
	}
	ways := []cataloguer{{"tender image sbom", func(ctx context.Context, archive, into string) (scanned, error) {
		return b.scanned(b.cmd(ctx, "image", "sbom", archive, "-o", into))
	}}}
	for peer := range strings.SplitSeq(*peers, ",") {
		way, err := peerScanner(ctx, peer)
		if err != nil {
			return err
		}
		ways = append(ways, way)
	}
	fmt.Printf("machine: %d cores, load %s; medians of %d\n", runtime.NumCPU(), load(), *runs)
	for image := range strings.SplitSeq(*images, ",") {
		if err := b.scanImage(ctx, image, ways, *runs, *all); err != nil {
			return fmt.Errorf("%s: %w", image, err)
		}
	}
	return nil
}

// saveListed saves an image with this machine's own list of packages as its dpkg's: the
// recipes of e2e/images run no dpkg, and leave no list.
func saveListed(ctx context.Context, image, archive string) error {
	list, err := os.ReadFile("/var/lib/dpkg/status")
	if err != nil {
		return err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(archive), "listed-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	made := "tb-scan/" + strings.ReplaceAll(image, ":", "-")
	err = errors.Join(os.WriteFile(filepath.Join(dir, "status"), list, 0o600), os.WriteFile(filepath.Join(dir, "os-release"), release, 0o600),
		os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+image+"\nCOPY status /var/lib/dpkg/status\nCOPY os-release /etc/os-release\n"), 0o600))
	if err != nil {
		return err
	}
	if err := output(exec.CommandContext(ctx, "docker", "build", "-q", "-t", made, dir)); err != nil {
		return err
	}
	err = output(exec.CommandContext(ctx, "docker", "save", "-o", archive, made))
	return errors.Join(err, output(exec.CommandContext(context.WithoutCancel(ctx), "docker", "rmi", made)))
}

func (b *bench) scanImage(ctx context.Context, image string, ways []cataloguer, runs int, all bool) error {
	archive := filepath.Join(b.dir, "image.tar")
	if err := saveListed(ctx, image, archive); err != nil {
		return err
	}
	defer os.Remove(archive)
	info, err := os.Stat(archive)
	if err != nil {
		return err
	}
	ways = append(slices.Clip(ways), cataloguer{"tender image scan", func(ctx context.Context, archive, _ string) (scanned, error) {
		return b.scanned(b.cmd(ctx, "image", "scan", archive))
	}})
	took, found := map[string][]scanned{}, map[string]map[string]bool{}
	for range runs {
		for _, w := range ways {
			into := filepath.Join(b.dir, "found.json")
			s, err := w.run(ctx, archive, into)
			if err != nil {
				return err
			}
			took[w.name] = append(took[w.name], s)
			if w.name == "tender image scan" {
				continue
			}
			if found[w.name], err = packagesOf(into); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			if err := os.Remove(into); err != nil {
				return err
			}
		}
	}
	fmt.Printf("\n%s, %d MB, load %s\n%-22s %8s %8s %10s %9s\n", image, info.Size()/1e6, load(), "", "s", "CPU s", "peak RSS", "packages")
	for _, w := range ways {
		list := took[w.name]
		slices.SortFunc(list, func(a, b scanned) int { return int(1000 * (a.cpu - b.cpu)) })
		m := list[len(list)/2]
		fmt.Printf("%-22s %8.2f %8.2f %7d MB %9d\n", w.name, m.took.Seconds(), m.cpu, m.peak>>20, len(found[w.name]))
	}
	ours := found[ways[0].name]
	for _, w := range ways[1 : len(ways)-1] {
		difference("only "+ways[0].name, ours, found[w.name], all)
		difference("only "+w.name, found[w.name], ours, all)
	}
	return nil
}

func difference(title string, a, b map[string]bool, all bool) {
	var only []string
	for p := range a {
		if !b[p] {
			only = append(only, p)
		}
	}
	slices.Sort(only)
	shown := only
	if !all {
		shown = only[:min(len(only), 5)]
	}
	fmt.Printf("  %s: %d %s\n", title, len(only), strings.Join(shown, " "))
}

// packagesOf reads CycloneDX: type, name and version of each package, without what says
// where it came from.
func packagesOf(file string) (map[string]bool, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var bom struct {
		Components []struct {
			PURL string `json:"purl"`
		} `json:"components"`
	}
	if err := json.Unmarshal(raw, &bom); err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, c := range bom.Components {
		p, query, _ := strings.Cut(c.PURL, "?")
		if p == "" {
			continue
		}
		p, err := url.PathUnescape(p)
		if err != nil {
			return nil, err
		}
		q, err := url.ParseQuery(query)
		if err != nil {
			return nil, err
		}
		if epoch := q.Get("epoch"); epoch != "" { // as some write it
			if at := strings.LastIndexByte(p, '@'); at > 0 && !strings.Contains(p[at:], ":") {
				p = p[:at+1] + epoch + ":" + p[at+1:]
			}
		}
		found[p] = true
	}
	return found, nil
}

// scanned runs a command of Tender's: serve does the work.
func (b *bench) scanned(c *exec.Cmd) (s scanned, err error) {
	before, err := cpuOfPID(b.serve.Process.Pid)
	if err != nil {
		return s, err
	}
	if s.took, err = timed(func() error { return output(c) }); err != nil {
		return s, err
	}
	after, err := cpuOfPID(b.serve.Process.Pid)
	if err != nil {
		return s, err
	}
	s.cpu = after - before + (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
	s.peak, err = peakOf(b.serve.Process.Pid)
	return s, err
}

func peerScanner(ctx context.Context, name string) (w cataloguer, err error) {
	out, err := exec.CommandContext(ctx, "e2e/peer.sh", name).Output()
	if err != nil {
		return w, fmt.Errorf("e2e/peer.sh %s: %w", name, err)
	}
	binary := strings.TrimSpace(string(out))
	args := map[string]func(archive, into string) []string{
		"syft": func(archive, into string) []string {
			return []string{"scan", "-q", "docker-archive:" + archive, "-o", "cyclonedx-json=" + into}
		},
	}[name]
	if args == nil {
		return w, fmt.Errorf("%s is no peer that is known here", name)
	}
	return cataloguer{name, func(ctx context.Context, archive, into string) (s scanned, err error) {
		c := exec.CommandContext(ctx, binary, args(archive, into)...)
		c.Env = append(os.Environ(), "SYFT_CHECK_FOR_APP_UPDATE=false")
		if s.took, err = timed(func() error { return output(c) }); err != nil {
			return s, err
		}
		s.cpu = (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
		if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
			s.peak = u.Maxrss << 10
		}
		return s, nil
	}}, nil
}

// advise loads the advisories of the tests, as the dumps of OSV are laid out.
func (b *bench) advise(ctx context.Context, from string) error {
	files, err := filepath.Glob(filepath.Join(from, "*.jsonl"))
	if err != nil || len(files) == 0 {
		return errors.Join(err, fmt.Errorf("no advisories in %s", from))
	}
	mirror := filepath.Join(b.dir, "mirror")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var packed bytes.Buffer
		z := zip.NewWriter(&packed)
		lines := bufio.NewScanner(bytes.NewReader(raw))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var one struct {
				ID string `json:"id"`
			}
			if json.Unmarshal(lines.Bytes(), &one) != nil || one.ID == "" {
				continue // a line of words
			}
			w, err := z.Create(one.ID + ".json")
			if err == nil {
				_, err = w.Write(lines.Bytes())
			}
			if err != nil {
				return err
			}
		}
		if err := errors.Join(lines.Err(), z.Close()); err != nil {
			return err
		}
		into := filepath.Join(mirror, strings.TrimSuffix(filepath.Base(file), ".jsonl"))
		if err := os.MkdirAll(into, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(into, "all.zip"), packed.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return output(b.cmd(ctx, "image", "db", "update", "--from", mirror))
}
