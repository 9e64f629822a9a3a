package registry

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The conformance suite of the OCI's distribution specification, at the version that
// e2e/oci pins, with what a registry may leave out, too: but for SHA-512 and digests that come with tags.
func TestConformance(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	bin := filepath.Join(t.TempDir(), "conformance")
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, "github.com/opencontainers/distribution-spec/conformance")
	build.Dir, build.Env = "../../e2e/oci", append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the suite: %v\n%s", err, out)
	}
	s := httptest.NewServer(opened(t, Options{}).Handler())
	defer s.Close()
	results := os.Getenv("TENDER_REPORTS")
	if results == "" {
		results = t.TempDir()
	}
	results = filepath.Join(results, "oci-conformance")
	run := exec.CommandContext(ctx, bin)
	run.Dir = t.TempDir()
	run.Env = append(os.Environ(), "OCI_REGISTRY="+strings.TrimPrefix(s.URL, "http://"), "OCI_TLS=disabled", "OCI_USERNAME=ann", "OCI_PASSWORD=secret",
		"OCI_RESULTS_DIR="+results, "OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true", "OCI_API_BLOBS_UPLOAD_CANCEL=true",
		// SHA-512, which a registry may take, is what distribution does not.
		"OCI_DATA_SHA512=false")
	out, err := run.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	report, err := os.ReadFile(filepath.Join(results, "report.html"))
	if err != nil || len(report) == 0 {
		t.Errorf("there is no report in %s: %v\n%s", results, err, out)
	}
}
