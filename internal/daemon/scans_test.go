package daemon

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/policy"
	"github.com/tenderhq/tender/internal/store"
)

// shelf is an engine that has one image, as docker save writes it.
type shelf struct {
	engine.Engine
	id    tender.ImageID
	saved []byte
	reads int
}

func (s *shelf) Resolve(_ context.Context, ref string) (tender.ImageID, error) {
	id := s.id
	id.Reference = ref
	return id, nil
}

func (s *shelf) Describe(ctx context.Context, ref string) (engine.Description, error) {
	id, err := s.Resolve(ctx, ref)
	return engine.Description{ImageID: id, Platform: "linux/amd64", Size: int64(len(s.saved))}, err
}

func (s *shelf) Save(_ context.Context, refs []string) (io.ReadCloser, error) {
	if refs[0] != s.id.ID {
		return nil, tender.Errorf(tender.NotFound, "no %s", refs[0])
	}
	s.reads++
	return io.NopCloser(bytes.NewReader(s.saved)), nil
}

func tarWith(t *testing.T, files ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1])), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// oldAlpine has one package, libssl3 3.1.0-r0 of Alpine 3.18.
func oldAlpine(t *testing.T) *shelf {
	layer := tarWith(t, [2]string{"etc/os-release", "ID=alpine\nVERSION_ID=3.18.4\nPRETTY_NAME=\"Alpine Linux v3.18\"\n"},
		[2]string{"lib/apk/db/installed", "P:libssl3\nV:3.1.0-r0\nA:x86_64\no:openssl\n\n"})
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"User": "65534", "Healthcheck": map[string]any{"Test": []string{"CMD", "true"}}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
		"history": []map[string]any{{"created_by": "RUN apk add openssl"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest := `[{"Config":"config.json","RepoTags":["shop/web:1"],"Layers":["layer.tar"]}]`
	return &shelf{
		id:    tender.ImageID{ID: fmt.Sprintf("sha256:%x", sha256.Sum256(config))},
		saved: tarWith(t, [2]string{"layer.tar", string(layer)}, [2]string{"config.json", string(config)}, [2]string{"manifest.json", manifest}),
	}
}

// advisories writes a mirror with one critical advisory for each CVE, all for openssl.
func advisories(t *testing.T, cves ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "Alpine"), 0o755); err != nil {
		t.Fatal(err)
	}
	replaceAdvisories(t, dir, cves...)
	return dir
}

// replaceAdvisories writes them anew.
func replaceAdvisories(t *testing.T, dir string, cves ...string) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, cve := range cves {
		w, err := z.Create("ALPINE-" + cve + ".json")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(w, `{"schema_version":"1.7.3","id":"ALPINE-%s","modified":"2025-06-01T00:00:00Z","published":"2024-01-01T00:00:00Z","summary":"it leaks","upstream":[%q],`+
			`"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],`+
			`"affected":[{"package":{"ecosystem":"Alpine:v3.18","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"3.1.4-r0"}]}]}]}`, cve, cve)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Alpine", "all.zip"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func silent(api.Event) {}

func scanning(t *testing.T, e engine.Engine, c Config) *backend {
	t.Helper()
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	b := &backend{config: c, store: st, engine: e, version: "v1"}
	b.scans = newScans(b, t.TempDir(), slog.New(slog.DiscardHandler))
	t.Cleanup(b.scans.db.Close)
	b.knowledge.scanned = b.scans.scanned
	return b
}

func TestAnImageIsReadOnceAndAskedAgainWithNewAdvisories(t *testing.T) {
	shelf := oldAlpine(t)
	b := scanning(t, shelf, Config{})
	ids := func() string {
		t.Helper()
		r, _, err := b.scans.find(t.Context(), "shop/web:1", "", silent)
		if err != nil {
			t.Fatal(err)
		}
		out := strings.Join(r.Gaps, ";")
		for _, f := range r.Findings {
			if f.Kind == tender.Vulnerability {
				out += fmt.Sprint(" ", f.ID, " ", f.Severity, " ", f.Fixed)
			}
		}
		return out
	}
	update := func(cves ...string) {
		t.Helper()
		if err := b.scans.update(t.Context(), api.AdvisoriesUpdate{From: advisories(t, cves...)}, silent); err != nil {
			t.Fatal(err)
		}
	}
	if got := ids(); got != "there are no advisories of Alpine" {
		t.Errorf("without advisories: %q", got)
	}
	update("CVE-2024-1")
	if got := ids(); got != " CVE-2024-1 critical 3.1.4-r0" {
		t.Errorf("with one: %q", got)
	}
	update("CVE-2024-1", "CVE-2024-2")
	if got := ids(); got != " CVE-2024-1 critical 3.1.4-r0 CVE-2024-2 critical 3.1.4-r0" {
		t.Errorf("with one more: %q", got)
	}
	if shelf.reads != 1 {
		t.Errorf("the image was read %d times, not once", shelf.reads)
	}
	// What another version has understood of it is not believed.
	b.scans.version = "v2"
	ids()
	if shelf.reads != 2 {
		t.Errorf("the image was read %d times, not once by each version", shelf.reads)
	}
}

func TestTheGateScansWhatNobodyHasScanned(t *testing.T) {
	shelf := oldAlpine(t)
	b := scanning(t, shelf, Config{Gate: policy.Gate{Deny: tender.Critical}})
	services := []tender.Service{{Name: "web", Image: "shop/web:1", Spec: []byte("name: shop\nx-tender-format: 1\nservices: {web: {image: shop/web:1}}\n")}}
	images := map[string]tender.ImageID{"web": {Reference: "shop/web:1", ID: shelf.id.ID}}
	ask := func() string {
		t.Helper()
		all, err := b.judge(t.Context(), question{project: "shop", services: services, images: images})
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, v := range all {
			out += fmt.Sprintf("%s %v %s\n", v.Rule, v.Deny, v.Why)
		}
		return out
	}
	// A gate that cannot be answered denies.
	if got := ask(); got != "gate/scan true nobody can say what is wrong with it: there are no advisories of Alpine\n" {
		t.Errorf("without advisories: %s", got)
	}
	if err := b.scans.update(t.Context(), api.AdvisoriesUpdate{From: advisories(t, "CVE-2024-1")}, silent); err != nil {
		t.Fatal(err)
	}
	if got := ask(); !strings.HasPrefix(got, "gate/severity true CVE-2024-1 ") {
		t.Errorf("with advisories: %s", got)
	}
	if _, err := b.Waive(t.Context(), api.Person{Name: "ann"}, api.Waiver{Finding: "CVE-2024-1", Scope: "shop", Reason: "unreachable", Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if got := ask(); !strings.HasPrefix(got, "gate/severity false CVE-2024-1 ") {
		t.Errorf("waived: %s", got)
	}
	if shelf.reads != 1 {
		t.Errorf("the image was read %d times", shelf.reads)
	}
}

func TestWhatIsDeployedIsCounted(t *testing.T) {
	shelf := oldAlpine(t)
	b := scanning(t, shelf, Config{})
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error {
		return tx.AddGeneration(store.Generation{
			Project: "shop", N: 1, At: time.Now(), YAML: []byte("name: shop\n"),
			Services: []store.WantedService{{Service: tender.Service{Name: "web", Image: "shop/web:1"}, Image: tender.ImageID{Reference: "shop/web:1", ID: shelf.id.ID}}},
		}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	m := &memory{known: map[string]matched{}, unread: map[string]time.Time{}}
	look := func() string {
		t.Helper()
		if err := b.scans.look(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		var f figures
		f.findings(b.scans)
		return f.String()
	}
	const critical = `tender_image_findings{project="shop",service="web",severity="critical",fixable="true"} `
	// Nobody who has no advisories wants images read.
	if got := look(); strings.Contains(got, critical) || shelf.reads != 0 {
		t.Errorf("without advisories, read %d times: %s", shelf.reads, got)
	}
	for n, cves := range [][]string{{"CVE-2024-1"}, {"CVE-2024-1", "CVE-2024-2"}} {
		if err := b.scans.update(t.Context(), api.AdvisoriesUpdate{From: advisories(t, cves...)}, silent); err != nil {
			t.Fatal(err)
		}
		if got := look(); !strings.Contains(got, fmt.Sprintf("%s%d\n", critical, n+1)) {
			t.Errorf("of %v: %s", cves, got)
		}
	}
	if _, err := b.Waive(t.Context(), api.Person{Name: "ann"}, api.Waiver{Finding: "CVE-2024-2", Scope: "shop/web", Reason: "unreachable", Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if got := look(); !strings.Contains(got, critical+"1\n") {
		t.Errorf("what is waived is counted: %s", got)
	}
	if shelf.reads != 1 {
		t.Errorf("the image was read %d times", shelf.reads)
	}
}

func TestAdvisoriesAreConfiguredStrictly(t *testing.T) {
	for yaml, want := range map[string]string{
		"advisories: {evry: 1d}":                        `did you mean "every"?`,
		"advisories: {every: soon}":                     `"soon" is neither off nor a time such as 24h`,
		"advisories: {ecosystems: npm}":                 "is not a list such as [Debian, npm]",
		"advisories: {from: [a]}":                       "want a URL",
		"advisories: {from: /mirror, from: /elsewhere}": "twice",
	} {
		if _, err := gated(t, yaml); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", yaml, err)
		}
	}
	for yaml, want := range map[string]string{
		"":                                    "{ 0s []}",
		"advisories: {}":                      "{ 24h0m0s []}",
		"advisories: {every: off}":            "{ 0s []}",
		"advisories: {from: /osv, every: 7d}": "{/osv 168h0m0s []}",
		"advisories: {ecosystems: [Debian, npm]}": "{ 24h0m0s [Debian npm]}",
	} {
		c, err := gated(t, yaml)
		if got := fmt.Sprint(c.Advisories); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", yaml, got, err, want)
		}
	}
}
