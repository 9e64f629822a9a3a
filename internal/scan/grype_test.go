package scan_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/scan"
)

// differs says where grype and Tender are of two minds, and why.
var differs = map[string]string{
	"pkg:apk/alpine/curl@8.3.0-r0?distro=alpine-3.20 CVE-2023-38545":        "grype takes the advisories of another release of Alpine where it has none of this one",
	"pkg:deb/ubuntu/openssh@1%3A7.6p1-4?distro=ubuntu-18.04 CVE-2023-38408": "that only subscribers have a fix stands in an advisory of Ubuntu Pro, which grype gets in a channel of its own",
}

// grype is the other side: it is asked about the pairs of packages and advisories, with the same
// advisories, and compares their versions by rules of its own. e2e/peer.sh and e2e/grype.sh build
// it and what writes its database, in minutes: make peers.
func TestGrype(t *testing.T) {
	tool, writer := os.Getenv("TENDER_GRYPE"), os.Getenv("TENDER_GRYPE_WRITER")
	if tool == "" || writer == "" {
		t.Skip("TENDER_GRYPE and TENDER_GRYPE_WRITER name no grype; make peers builds one and runs this")
	}
	type pair struct {
		holds         bool
		name, version string
		flaw, fixed   string
		purl, reason  string
	}
	pairs := map[string][]pair{} // by ecosystem, with its release
	f, err := os.Open("testdata/pairs.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	left := 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		x := strings.Split(lines.Text(), "\t")
		if strings.HasPrefix(x[0], "#") {
			continue
		}
		purl := purlFor(x[1], x[2], x[3])
		if purl == "" {
			left++
			continue
		}
		pairs[x[1]] = append(pairs[x[1]], pair{x[0] == "true", x[2], x[3], x[4], x[5], purl, x[6]})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}

	asked := 0
	for ecosystem, list := range pairs {
		dir := t.TempDir()
		base, _, _ := strings.Cut(ecosystem, ":")
		if out, err := exec.CommandContext(t.Context(), writer, filepath.Join(dir, "db"), filepath.Join("testdata/osv", base+".jsonl")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var text strings.Builder
		for _, p := range list {
			fmt.Fprintln(&text, p.purl)
		}
		packages := filepath.Join(dir, "packages")
		write(t, packages, []byte(text.String()))
		cmd := exec.CommandContext(t.Context(), tool, "purl:"+packages, "-o", "json", "--by-cve=false")
		cmd.Env = append(os.Environ(), "GRYPE_DB_CACHE_DIR="+filepath.Join(dir, "db"), "GRYPE_DB_AUTO_UPDATE=false", "GRYPE_DB_VALIDATE_AGE=false", "GRYPE_CHECK_FOR_APP_UPDATE=false", "HOME="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		raw, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v: %s", ecosystem, err, &stderr)
		}
		var said struct {
			Matches []struct {
				Vulnerability struct {
					ID  string
					Fix struct{ Versions []string }
				}
				Artifact struct{ PURL string }
			}
		}
		if err := json.Unmarshal(raw, &said); err != nil {
			t.Fatal(err)
		}
		// Its report is a second opinion that can be read.
		opinion, err := scan.ReadFindings(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("%s: %v", ecosystem, err)
		}
		for _, m := range said.Matches {
			if !slices.ContainsFunc(opinion, func(f tender.Finding) bool { return f.ID == m.Vulnerability.ID && f.PURL == m.Artifact.PURL }) {
				t.Errorf("%s: %s of %s is not read from grype's report", ecosystem, m.Vulnerability.ID, m.Artifact.PURL)
			}
		}
		for _, p := range list {
			found, fixed := false, []string(nil)
			for _, m := range said.Matches {
				if m.Artifact.PURL == p.purl && m.Vulnerability.ID == p.flaw {
					found, fixed = true, append(fixed, m.Vulnerability.Fix.Versions...)
				}
			}
			asked++
			if why := differs[p.purl+" "+p.flaw]; why != "" {
				if found == p.holds {
					t.Errorf("%s %s %s: grype and Tender agree, although %s", p.name, p.version, p.flaw, why)
				}
				continue
			}
			switch {
			case found != p.holds:
				t.Errorf("%s %s %s %s: grype says %v, Tender %v: %s", ecosystem, p.name, p.version, p.flaw, found, p.holds, p.reason)
			case found && p.fixed != "" && !slices.Contains(fixed, p.fixed):
				t.Errorf("%s %s %s %s: grype has it fixed in %q, Tender in %q", ecosystem, p.name, p.version, p.flaw, fixed, p.fixed)
			}
		}
	}
	t.Logf("%d pairs asked, %d not", asked, left)
	if asked < 200 {
		t.Errorf("only %d pairs were asked", asked)
	}
}

// purlFor is a package as package-url writes it, https://github.com/package-url/purl-spec; "":
// grype would need to be told in another way.
func purlFor(ecosystem, name, version string) string {
	base, release, _ := strings.Cut(ecosystem, ":")
	if strings.HasPrefix(release, "Pro:") {
		return ""
	}
	release = strings.TrimPrefix(strings.TrimPrefix(release, "enterprise_linux:"), "v")
	release, _, _ = strings.Cut(release, ":")
	at, distro := url.QueryEscape(version), ""
	switch base {
	case "Debian", "Ubuntu", "Alpine":
		distro = strings.ToLower(base) + "-" + release
	case "Red Hat", "Rocky Linux", "AlmaLinux":
		distro = "rhel-" + release
		if epoch, rest, ok := strings.Cut(version, ":"); ok {
			at, distro = url.QueryEscape(rest), distro+"&epoch="+epoch
		}
	}
	switch base { // as package-url has it
	case "npm":
		if name != strings.ToLower(name) {
			return "" // it takes names of npm for such without a case, which old ones are not
		}
	case "PyPI":
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	case "Packagist":
		name = strings.ToLower(name)
	}
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.QueryEscape(parts[i])
	}
	name = strings.Join(parts, "/")
	switch base {
	case "Debian", "Ubuntu":
		return "pkg:deb/" + strings.ToLower(base) + "/" + name + "@" + at + "?distro=" + distro
	case "Alpine":
		return "pkg:apk/alpine/" + name + "@" + at + "?distro=" + distro
	case "Red Hat", "Rocky Linux", "AlmaLinux":
		return "pkg:rpm/redhat/" + name + "@" + at + "?distro=" + distro
	case "Maven":
		group, artifact, _ := strings.Cut(name, "%3A")
		return "pkg:maven/" + group + "/" + artifact + "@" + at
	}
	kind := map[string]string{"npm": "npm", "PyPI": "pypi", "RubyGems": "gem", "crates.io": "cargo", "Packagist": "composer", "NuGet": "nuget", "Go": "golang"}[base]
	if kind == "" {
		return ""
	}
	return "pkg:" + kind + "/" + name + "@" + at
}
