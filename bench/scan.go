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

// looker looks into an archive of docker save, and says in a file what it found there.
type looker struct {
	name string
	run  func(ctx context.Context, archive, into string) (scanned, error)
	read func(file string) (map[string]bool, error)
}

// scanned is one run.
type scanned struct {
	took time.Duration
	cpu  float64 // seconds, of all processes that took part
	peak int64   // bytes, of the one that reads
}

// scanBench lists the packages of images of e2e/images with Tender and syft, and looks for flaws in them with Tender and
// grype, which have the same advisories; in turns, and it says which of them find what.
func scanBench(ctx context.Context, args []string) (err error) {
	set := flag.NewFlagSet("scan", flag.ContinueOnError)
	runs := set.Int("runs", 3, "runs of each; the median is shown")
	images := set.String("images", "postgres:15,openjdk:17-jre-slim,debian:latest", "images of the engine")
	each := set.Int("advisories", 50, "advisories for each package that dpkg lists; two of them are about the version that is there")
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
	advisories, count, err := writeAdvisories(dir, *each)
	if err != nil {
		return err
	}
	if err := b.advise(ctx, advisories); err != nil {
		return err
	}
	syft, err := peerTool(ctx, "e2e/peer.sh", "syft")
	if err != nil {
		return err
	}
	grype, err := peerTool(ctx, "e2e/peer.sh", "grype")
	if err != nil {
		return err
	}
	writer, err := peerTool(ctx, "e2e/grype.sh")
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(advisories, "*.jsonl"))
	if err != nil {
		return err
	}
	// Its database has one family of Red Hat's kind; these images have none.
	files = slices.DeleteFunc(files, func(f string) bool {
		return strings.HasPrefix(filepath.Base(f), "Rocky") || strings.HasPrefix(filepath.Base(f), "Alma")
	})
	database := filepath.Join(dir, "grype")
	if err := output(exec.CommandContext(ctx, writer, append([]string{database}, files...)...)); err != nil {
		return err
	}
	catalogue := []looker{{"tender image sbom", func(ctx context.Context, archive, into string) (scanned, error) {
		return b.scanned(b.cmd(ctx, "image", "sbom", archive, "-o", into))
	}, packagesOf}, {"syft", func(ctx context.Context, archive, into string) (scanned, error) {
		return alone(exec.CommandContext(ctx, syft, "scan", "-q", "docker-archive:"+archive, "-o", "cyclonedx-json="+into), "SYFT_CHECK_FOR_APP_UPDATE=false")
	}, packagesOf}}
	flaws := []looker{{"tender image scan", func(ctx context.Context, archive, into string) (scanned, error) {
		return b.scanned(b.cmd(ctx, "image", "scan", archive, "--format", "json", "-o", into))
	}, flawsOfTender}, {"grype", func(ctx context.Context, archive, into string) (scanned, error) {
		return alone(exec.CommandContext(ctx, grype, "-q", "docker-archive:"+archive, "-o", "json="+into),
			"GRYPE_CHECK_FOR_APP_UPDATE=false", "GRYPE_DB_AUTO_UPDATE=false", "GRYPE_DB_VALIDATE_AGE=false", "GRYPE_DB_CACHE_DIR="+database)
	}, flawsOfGrype}}
	fmt.Printf("machine: %d cores, load %s; medians of %d; %d advisories\n", runtime.NumCPU(), load(), *runs, count)
	for image := range strings.SplitSeq(*images, ",") {
		if err := b.scanImage(ctx, image, [][]looker{catalogue, flaws}, *runs, *all); err != nil {
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

func (b *bench) scanImage(ctx context.Context, image string, kinds [][]looker, runs int, all bool) error {
	archive := filepath.Join(b.dir, "image.tar")
	if err := saveListed(ctx, image, archive); err != nil {
		return err
	}
	defer os.Remove(archive)
	info, err := os.Stat(archive)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s, %d MB, load %s\n%-22s %8s %8s %10s %9s\n", image, info.Size()/1e6, load(), "", "s", "CPU s", "peak RSS", "found")
	for _, ways := range kinds {
		took, found := map[string][]scanned{}, map[string]map[string]bool{}
		for range runs {
			for _, w := range ways {
				into := filepath.Join(b.dir, "found.json")
				s, err := w.run(ctx, archive, into)
				if err != nil {
					return err
				}
				took[w.name] = append(took[w.name], s)
				if found[w.name], err = w.read(into); err != nil {
					return fmt.Errorf("%s: %w", w.name, err)
				}
				if err := os.Remove(into); err != nil {
					return err
				}
			}
		}
		for _, w := range ways {
			list := took[w.name]
			slices.SortFunc(list, func(a, b scanned) int { return int(1000 * (a.cpu - b.cpu)) })
			m := list[len(list)/2]
			fmt.Printf("%-22s %8.2f %8.2f %7d MB %9d\n", w.name, m.took.Seconds(), m.cpu, m.peak>>20, len(found[w.name]))
		}
		difference("only "+ways[0].name, found[ways[0].name], found[ways[1].name], all)
		difference("only "+ways[1].name, found[ways[1].name], found[ways[0].name], all)
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

// alone runs a command that does the work itself.
func alone(c *exec.Cmd, env ...string) (s scanned, err error) {
	c.Env = append(os.Environ(), env...)
	if s.took, err = timed(func() error { return output(c) }); err != nil {
		return s, err
	}
	s.cpu = (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
	if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.peak = u.Maxrss << 10
	}
	return s, nil
}

// peerTool builds a program, once, and says where it is.
func peerTool(ctx context.Context, script string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, script, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", script, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// flawsOfTender and flawsOfGrype read which flaw each has found in which package.
func flawsOfTender(file string) (map[string]bool, error) {
	var scan struct {
		Findings []struct{ Kind, ID, Package, Version string }
	}
	found := map[string]bool{}
	err := readJSON(file, &scan)
	for _, f := range scan.Findings {
		if f.Kind == "vulnerability" {
			found[f.ID+" "+f.Package+" "+f.Version] = true
		}
	}
	return found, err
}

func flawsOfGrype(file string) (map[string]bool, error) {
	var scan struct {
		Matches []struct {
			Vulnerability struct{ ID string }
			Artifact      struct{ Name, Version string }
		}
	}
	found := map[string]bool{}
	err := readJSON(file, &scan)
	for _, m := range scan.Matches {
		found[m.Vulnerability.ID+" "+m.Artifact.Name+" "+m.Artifact.Version] = true
	}
	return found, err
}

func readJSON(file string, into any) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// writeAdvisories makes a folder with those of the tests and, of each package that dpkg lists, so
// many more: one without a fix, one that the next version has, and ones that earlier versions had.
func writeAdvisories(dir string, each int) (into string, count int, err error) {
	into = filepath.Join(dir, "osv")
	if err := os.MkdirAll(into, 0o700); err != nil {
		return "", 0, err
	}
	files, err := filepath.Glob("internal/scan/testdata/osv/*.jsonl")
	if err != nil || len(files) == 0 {
		return "", 0, errors.Join(err, errors.New("no advisories in internal/scan/testdata/osv"))
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return "", 0, err
		}
		count += bytes.Count(raw, []byte("\n"))
		if filepath.Base(file) == "Debian.jsonl" {
			more, n, err := madeUp(each)
			if err != nil {
				return "", 0, err
			}
			raw, count = append(raw, more...), count+n
		}
		if err := os.WriteFile(filepath.Join(into, filepath.Base(file)), raw, 0o600); err != nil {
			return "", 0, err
		}
	}
	return into, count, nil
}

func madeUp(each int) (lines []byte, count int, err error) {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${source:Package} ${source:Version}\n").Output()
	if err != nil {
		return nil, 0, err
	}
	release, err := exec.Command("sh", "-c", ". /etc/os-release && echo Debian:$VERSION_ID").Output()
	if err != nil {
		return nil, 0, err
	}
	type event map[string]string
	var b bytes.Buffer
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		name, version, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || seen[name] {
			continue
		}
		seen[name] = true
		for n := range each {
			events := []event{{"introduced": "0"}}
			switch n {
			case 0:
			case 1:
				events = append(events, event{"fixed": version + "+deb99u1"})
			default:
				epoch, _, has := strings.Cut(version, ":")
				before := fmt.Sprintf("0~%d", n)
				if has {
					before = epoch + ":" + before
				}
				events = append(events, event{"fixed": before})
			}
			count++
			flaw := fmt.Sprintf("CVE-1999-%d", 100_000+count)
			raw, err := json.Marshal(map[string]any{
				"schema_version": "1.7.3", "id": "DEBIAN-" + flaw, "upstream": []string{flaw}, "published": "2024-01-01T00:00:00Z", "modified": "2024-01-01T00:00:00Z",
				"summary": "made up, to be looked up", "severity": []map[string]string{{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}},
				"affected": []any{map[string]any{
					"package": map[string]string{"ecosystem": strings.TrimSpace(string(release)), "name": name},
					"ranges":  []any{map[string]any{"type": "ECOSYSTEM", "events": events}},
				}},
			})
			if err != nil {
				return nil, 0, err
			}
			b.Write(append(raw, '\n'))
		}
	}
	return b.Bytes(), count, nil
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
