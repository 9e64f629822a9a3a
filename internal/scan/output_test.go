package scan

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	tender "github.com/tenderhq/tender"
)

// What the schemas are, to the byte.
const (
	sarifSum    = "639ddb152218b3b959c5a30cb7e6dabc753801c63a0b73d7e8df060c24055db6"
	bomSum      = "3e92dddbc30cf7f6a02b80f0942b1a4cfd4fb1c26f1dfc4310afa9d613cafb93"
	licencesSum = "669315cee4265ad6d742e92d7afb062fb4847abe754d3ade544b7c40482d0a48"
	jsfSum      = "a517f9e483e2252debd23d5c62edb72805b6d3932935a6ebb8196745052d2dc3"
	spdxSum     = "c2e139546ef93597d3b1214d1d452369d0b536af6c6d6500dbd25c582034aa7c"
)

// found is a report with everything in it that may be awkward to write.
func found() Report {
	at := time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)
	ssl := Package{
		Name: "libssl3", Version: "3.0.11-1~deb12u1", Source: "openssl", SourceVer: "3.0.11-1~deb12u1", Type: "deb", Ecosystem: "Debian:12",
		PURL: "pkg:deb/debian/libssl3@3.0.11-1~deb12u1?arch=amd64&distro=debian-12", Arch: "amd64", Path: "var/lib/dpkg/status", Layer: 1, Licenses: []string{"Apache-2.0", "as is, <b>no</b> warranty"},
	}
	npm := Package{Name: "@babel/traverse", Version: "7.20.0", Type: "npm", Ecosystem: "npm", PURL: "pkg:npm/%40babel/traverse@7.20.0", Path: "app/a/package.json", Layer: 2, Licenses: []string{"MIT"}}
	twin := npm
	twin.Path = "app/b/package.json"
	return Report{
		Contents: Contents{
			Reference: "registry.example.com:5000/shop/web:1.4.2", Digest: "sha256:" + strings.Repeat("ab", 32), ImageID: "sha256:" + strings.Repeat("cd", 32), Platform: "linux/amd64",
			Created: at.AddDate(0, -1, 0), Distro: Distro{"debian", "12", "Debian GNU/Linux 12 (bookworm)"},
			Layers:   []Layer{{DiffID: "sha256:1", Step: "ADD rootfs.tar /", Bytes: 1 << 20}, {DiffID: "sha256:2", Step: "RUN apt-get install -y <openssl>"}, {DiffID: "sha256:3", Step: "COPY . /app"}},
			Packages: []Package{ssl, npm, twin}, Read: at, Cut: []string{"app/x.jar: nested deeper than 4"},
		},
		Findings: []tender.Finding{
			{
				Kind: tender.Vulnerability, ID: "CVE-2023-45133", Aliases: []string{"GHSA-67hx-6x53-jw92"}, Severity: tender.Critical, Score: 9.3, Vector: "CVSS:3.1/AV:L/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H",
				Title: "runs code when it compiles <script>alert(1)</script>", URL: "javascript:alert(1)", Package: npm.Name, Version: npm.Version, Fixed: "7.23.2", Ecosystem: "npm", PURL: npm.PURL, Path: npm.Path, Layer: 2, Published: at,
			},
			{Kind: tender.Vulnerability, ID: "CVE-2023-45133", Severity: tender.Critical, Package: npm.Name, Version: npm.Version, Fixed: "7.23.2", PURL: npm.PURL, Path: twin.Path, Layer: 2},
			{Kind: tender.Vulnerability, ID: "CVE-2024-0727", Severity: tender.Medium, Package: ssl.Name, Source: "openssl", Version: ssl.Version, PURL: ssl.PURL, Path: ssl.Path, Layer: 1, URL: "https://osv.dev/CVE-2024-0727"},
			{Kind: tender.SecretLeft, ID: "secret/private-key", Severity: tender.High, Title: "a private key lies in app/key #1?.pem", Path: "app/key #1?.pem", Layer: 2},
			{Kind: tender.Setup, ID: "setup/root-user", Severity: tender.Low, Title: "the image runs as root", Layer: -1},
		},
		DB: Age{Updated: at, Newest: at, Advisories: 12}, Scanned: at,
	}
}

// schema is one that its publisher gave to a module of Go: what lies in that module's
// sources is taken, if it is to the byte what was once looked at.
func schema(t *testing.T, module, file, sum string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", module).Output()
	if err != nil {
		t.Fatalf("go mod download %s: %v\n%s", module, err, out)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(m.Dir, file))
	if err != nil {
		t.Fatal(err)
	}
	if h := sha256.Sum256(b); hex.EncodeToString(h[:]) != sum {
		t.Fatalf("%s of %s is another: %x", file, module, h)
	}
	if strings.HasSuffix(file, ".go") { // a constant
		_, text, _ := strings.Cut(string(b), "`")
		text, _, _ = strings.Cut(text, "`")
		return []byte(text)
	}
	return b
}

// hold fails unless the document is valid under the first of the schemas, which may name the others.
func hold(t *testing.T, document []byte, schemas map[string][]byte, first string) {
	t.Helper()
	c := jsonschema.NewCompiler()
	for url, text := range schemas {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if err := c.AddResource(url, doc); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile(first)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(doc); err != nil {
		t.Errorf("not valid: %v\n%s", err, document)
	}
	// A schema that takes everything would prove nothing.
	broken := doc.(map[string]any)
	for _, key := range []string{"version", "specVersion", "spdxVersion", "bomFormat", "SPDXID"} {
		delete(broken, key)
	}
	if s.Validate(broken) == nil {
		t.Error("the schema takes what lacks its version")
	}
}

func TestOutputsAreValid(t *testing.T) {
	const bom = "github.com/CycloneDX/cyclonedx-go@v0.11.0"
	for _, r := range []Report{found(), {Contents: Contents{Reference: "x", ImageID: "sha256:00"}}} {
		var b bytes.Buffer
		if err := WriteSARIF(&b, r, "1.0"); err != nil {
			t.Fatal(err)
		}
		hold(t, b.Bytes(), map[string][]byte{"s:sarif": schema(t, "github.com/owenrumney/go-sarif/v3@v3.3.1", "pkg/report/v210/sarif/schema.go", sarifSum)}, "s:sarif")
		b.Reset()
		if err := WriteCycloneDX(&b, r, "1.0"); err != nil {
			t.Fatal(err)
		}
		hold(t, b.Bytes(), map[string][]byte{
			"http://cyclonedx.org/schema/bom-1.6.schema.json":  schema(t, bom, "schema/bom-1.6.schema.json", bomSum),
			"http://cyclonedx.org/schema/spdx.schema.json":     schema(t, bom, "schema/spdx.schema.json", licencesSum),
			"http://cyclonedx.org/schema/jsf-0.82.schema.json": schema(t, bom, "schema/jsf-0.82.schemax.json", jsfSum),
		}, "http://cyclonedx.org/schema/bom-1.6.schema.json")
		b.Reset()
		if err := WriteSPDX(&b, r, "1.0"); err != nil {
			t.Fatal(err)
		}
		hold(t, b.Bytes(), map[string][]byte{"s:spdx": schema(t, "github.com/anchore/syft@v1.44.0", "schema/spdx-json/spdx-schema-2.3.json", spdxSum)}, "s:spdx")
	}
}

// The licences that are written as identifiers are on SPDX' own list.
func TestLicencesAreOfTheList(t *testing.T) {
	var list struct{ Enum []string }
	if err := json.Unmarshal(schema(t, "github.com/CycloneDX/cyclonedx-go@v0.11.0", "schema/spdx.schema.json", licencesSum), &list); err != nil {
		t.Fatal(err)
	}
	for id := range known {
		if !slices.Contains(list.Enum, id) {
			t.Errorf("%s is not on the list", id)
		}
	}
}

// What advisories and images say is text, and no markup, script or address of one.
func TestThePageHoldsNothingForeign(t *testing.T) {
	var b bytes.Buffer
	if err := WriteHTML(&b, found(), "1.0"); err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"<script", "javascript:", "<b>no</b>", "src="} {
		if strings.Contains(b.String(), never) {
			t.Errorf("the page holds %q", never)
		}
	}
	for _, want := range []string{"2 critical", "CVE-2023-45133", "7.23.2", "&lt;script&gt;", "layer 1: RUN apt-get install -y &lt;openssl&gt;", `href="https://osv.dev/CVE-2024-0727"`, "nested deeper than 4"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestTheSameReportGivesTheSameBytes(t *testing.T) {
	for name, write := range map[string]func(io.Writer, Report, string) error{"sarif": WriteSARIF, "cyclonedx": WriteCycloneDX, "spdx": WriteSPDX, "html": WriteHTML} {
		var a, b bytes.Buffer
		if err := errors.Join(write(&a, found(), "1"), write(&b, found(), "1")); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("%s: two writings differ", name)
		}
	}
}
