package e2e

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// An image with a known flaw must be denied by the command and by the gate until there is
// a waiver, from the engine and from a file.
func TestAFlawedImageMustNotRunUntilItIsWaived(t *testing.T) {
	t.Parallel()
	needsEngine(t)
	h := makeHost(t)
	config := h.file("tender.yaml", "gate: {deny: critical, fixable: true}\n")
	h.flags = append(h.flags, "--config", config)
	h.start()
	image := h.project + "/flawed:1"
	h.file("image/installed", "P:libssl3\nV:3.1.0-r0\nA:x86_64\no:openssl\n\n")
	h.file("image/os-release", "ID=alpine\nVERSION_ID=3.18.4\nPRETTY_NAME=\"Alpine Linux v3.18\"\n")
	h.file("image/Dockerfile", "FROM busybox\nCOPY os-release /etc/os-release\nCOPY installed /lib/apk/db/installed\nUSER 65534\n")
	if r := docker("build", "-q", "-t", image, filepath.Join(h.dir, "image")); r.err() != nil {
		t.Fatal(r.all())
	}
	t.Cleanup(func() { docker("rmi", "-f", image) })
	archive := filepath.Join(h.dir, "flawed.tar")
	if r := docker("save", "-o", archive, image); r.err() != nil {
		t.Fatal(r.all())
	}
	var dump bytes.Buffer
	z := zip.NewWriter(&dump)
	w, err := z.Create("ALPINE-CVE-2023-5363.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(`{"schema_version":"1.7.3","id":"ALPINE-CVE-2023-5363","modified":"2025-06-01T00:00:00Z","published":"2024-01-01T00:00:00Z","upstream":["CVE-2023-5363"],` +
		`"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],` +
		`"affected":[{"package":{"ecosystem":"Alpine:v3.18","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"3.1.4-r0"}]}]}]}`)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	h.file("mirror/Alpine/all.zip", dump.String())

	// Without advisories it says what was not looked for.
	if r := h.exits(0, "image", "scan", image); !strings.Contains(r.out, "tender image db update") || strings.Contains(r.out, "CVE-") {
		t.Errorf("without advisories:\n%s", r.all())
	}
	h.must("image", "db", "update", "--from", filepath.Join(h.dir, "mirror"))
	for _, what := range []string{image, archive} {
		r := h.exits(4, "image", "scan", what, "--deny", "critical")
		if !strings.Contains(r.out, "1 critical (1 fixable)") || !strings.Contains(r.stderr, "CVE-2023-5363") {
			t.Errorf("scan of %s:\n%s", what, r.all())
		}
	}
	h.file("compose.yaml", "services:\n  web:\n    image: "+image+"\n    command: [sleep, \"100000\"]\n    stop_signal: SIGKILL\n")
	h.exits(4, "plan")
	if r := h.exits(4, "up"); !strings.Contains(r.stderr, "CVE-2023-5363") {
		t.Errorf("up does not say why:\n%s", r.all())
	}
	if n := len(h.running("web")); n != 0 {
		t.Errorf("%d instances run that the gate denied", n)
	}
	h.must("policy", "waive", "CVE-2023-5363", "--project", h.project, "--until", "2d", "--reason", "no TLS here")
	h.must("up")
	h.one("web")

	for _, format := range []string{"cyclonedx", "spdx"} {
		var bom map[string]any
		if err := json.Unmarshal([]byte(h.must("image", "sbom", image, "--format", format)), &bom); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
}
