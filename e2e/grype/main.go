// Command grype writes advisories of OSV, one JSON record a line, into a database of grype's own, so
// that grype can be asked about the same advisories as Tender:
//
//	go run . INTO FILE.jsonl...
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v6 "github.com/anchore/grype/grype/db/v6"
	"github.com/spf13/afero"
)

// advisory is what is read of OSV's schema, https://ossf.github.io/osv-schema/.
type advisory struct {
	ID        string
	Aliases   []string
	Upstream  []string
	Published time.Time
	Modified  time.Time
	Withdrawn *time.Time
	Affected  []affected
}

type affected struct {
	Package  struct{ Ecosystem, Name string }
	Versions []string
	Ranges   []struct {
		Type   string
		Events []struct {
			Introduced, Fixed string
			LastAffected      string `json:"last_affected"`
		}
	}
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: grype INTO FILE.jsonl...")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(into string, files []string) error {
	dir := filepath.Join(into, fmt.Sprint(v6.ModelVersion)) // where grype looks within GRYPE_DB_CACHE_DIR
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	w, err := v6.NewWriter(v6.Config{DBDirPath: dir, CacheSizeKiB: 16 << 10})
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := load(w, file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := v6.Hydrater()(dir); err != nil {
		return err
	}
	_, err = v6.WriteImportMetadata(afero.NewOsFs(), dir, "osv")
	return err
}

func load(w v6.Writer, file string) error {
	provider := v6.Provider{ID: strings.TrimSuffix(filepath.Base(file), ".jsonl"), Version: "1", Processor: "osv"}
	now := time.Now()
	provider.DateCaptured = &now
	if err := w.AddProvider(provider); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var a advisory
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return err
		}
		if a.Withdrawn != nil {
			continue
		}
		for _, name := range namesOf(a) {
			v := &v6.VulnerabilityHandle{
				Name: name, Status: v6.VulnerabilityActive, PublishedDate: &a.Published, ModifiedDate: &a.Modified, ProviderID: provider.ID,
				BlobValue: &v6.VulnerabilityBlob{ID: name, Aliases: append([]string{a.ID}, a.Aliases...)},
			}
			if err := w.AddVulnerabilities(v); err != nil {
				return err
			}
			for _, x := range a.Affected {
				if h := handle(v, x); h != nil {
					if err := w.AddAffectedPackages(h); err != nil {
						return err
					}
				}
			}
		}
	}
	return lines.Err()
}

// namesOf are the CVEs that an advisory is about, a notice of several each, else its own ID.
func namesOf(a advisory) (names []string) {
	for _, id := range slices.Concat([]string{a.ID}, a.Upstream, a.Aliases) {
		if strings.HasPrefix(id, "CVE-") && !slices.Contains(names, id) {
			names = append(names, id)
		}
	}
	if names == nil {
		names = []string{a.ID}
	}
	return names
}

// kinds are OSV's ecosystems: the type of package and of version that grype knows them by.
var kinds = map[string]struct{ distro, pkg, version string }{
	// The three of Red Hat's family are one to grype: they need a database each.
	"Debian": {"debian", "deb", "dpkg"}, "Ubuntu": {"ubuntu", "deb", "dpkg"}, "Alpine": {"alpine", "apk", "apk"},
	"Red Hat": {"redhat", "rpm", "rpm"}, "Rocky Linux": {"redhat", "rpm", "rpm"}, "AlmaLinux": {"redhat", "rpm", "rpm"},
	"npm": {"", "npm", "semver"}, "PyPI": {"", "python", "python"}, "Maven": {"", "java-archive", "maven"}, "RubyGems": {"", "gem", "gem"},
	"crates.io": {"", "rust-crate", "semver"}, "Packagist": {"", "php-composer", "semver"}, "NuGet": {"", "dotnet", "semver"}, "Go": {"", "go-module", "go"},
}

// codenames are asked for where an image has a name of its release.
var codenames = map[string]string{
	"debian 11": "bullseye", "debian 12": "bookworm", "debian 13": "trixie",
	"ubuntu 18.04": "bionic", "ubuntu 20.04": "focal", "ubuntu 22.04": "jammy", "ubuntu 24.04": "noble",
}

func handle(v *v6.VulnerabilityHandle, x affected) *v6.AffectedPackageHandle {
	ecosystem, release, _ := strings.Cut(x.Package.Ecosystem, ":")
	kind, known := kinds[ecosystem]
	if !known || strings.HasPrefix(release, "Pro:") { // grype has channels for what is paid for
		return nil
	}
	h := &v6.AffectedPackageHandle{Vulnerability: v, Package: &v6.Package{Ecosystem: kind.pkg, Name: x.Package.Name}, BlobValue: &v6.PackageBlob{}}
	if kind.distro != "" {
		release = strings.TrimPrefix(strings.TrimPrefix(release, "enterprise_linux:"), "v")
		release, _, _ = strings.Cut(release, ":")
		major, minor, _ := strings.Cut(release, ".")
		h.OperatingSystem = &v6.OperatingSystem{Name: kind.distro, ReleaseID: kind.distro, MajorVersion: major, MinorVersion: minor}
		h.OperatingSystem.Codename = codenames[kind.distro+" "+release]
		if kind.distro == "redhat" {
			h.OperatingSystem.ReleaseID = "rhel" // as its os-release has it
		}
	}
	add := func(constraint, fixed string) {
		fix := &v6.Fix{State: v6.NotFixedStatus}
		if fixed != "" {
			fix = &v6.Fix{State: v6.FixedStatus, Version: fixed}
		}
		h.BlobValue.Ranges = append(h.BlobValue.Ranges, v6.Range{Version: v6.Version{Type: kind.version, Constraint: constraint}, Fix: fix})
	}
	for _, r := range x.Ranges {
		if r.Type == "GIT" {
			continue
		}
		from, open := "", false
		close := func(bound, fixed string) {
			var both []string
			if from != "" && from != "0" {
				both = append(both, ">= "+from)
			}
			if bound != "" {
				both = append(both, bound)
			}
			add(strings.Join(both, ", "), fixed) // "": every version
			open = false
		}
		for _, e := range r.Events {
			switch {
			case e.Introduced != "":
				from, open = e.Introduced, true
			case e.Fixed != "":
				close("< "+e.Fixed, e.Fixed)
			case e.LastAffected != "":
				close("<= "+e.LastAffected, "")
			}
		}
		if open {
			close("", "")
		}
	}
	for _, version := range x.Versions {
		add("= "+version, "")
	}
	return h
}
