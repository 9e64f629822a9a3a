package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

// port is an engine that says what it runs on.
type port struct{ engine.Engine }

func (port) Info(context.Context) (engine.Info, error) { return engine.Info{Arch: "x86_64"}, nil }

func (port) Resolve(_ context.Context, ref string) (tender.ImageID, error) {
	return tender.ImageID{}, tender.Errorf(tender.NotFound, "no %s", ref)
}

// shipyard is a backend with a registry of its own, reached without a network.
func shipyard(t *testing.T) *backend {
	t.Helper()
	b := &backend{
		config: Config{RegistryDir: filepath.Join(t.TempDir(), "registry")}, engine: port{}, version: "v1",
		board: new(board), log: slog.New(slog.DiscardHandler),
	}
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	b.store = st
	b.images = openRegistryRoom(b, b.log)
	t.Cleanup(func() { b.images.Close() })
	b.remote = registry.NewRemote(registry.RemoteOptions{
		Own: func(ctx context.Context) (*registry.Registry, error) { return b.images.get(ctx) }, Store: st, Hosts: []string{"127.0.0.1:7070"},
	})
	b.scans = newScans(b, t.TempDir(), b.log)
	t.Cleanup(b.scans.db.Close)
	b.knowledge.scanned = b.scans.scanned
	return b
}

// ship pushes an image with libssl3 of Alpine 3.18 for an architecture; then its layer is lost from the
// registry's directory lose, if there is one.
func ship(t *testing.T, b *backend, to, arch, lose string) (digest string, size int) {
	t.Helper()
	layer := tarWith(t, [2]string{"etc/os-release", "ID=alpine\nVERSION_ID=3.18.4\n"}, [2]string{"lib/apk/db/installed", "P:libssl3\nV:3.1.0-r0\nA:x86_64\no:openssl\n\n"}, [2]string{"etc/for", to + arch})
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "config": map[string]any{"User": "65534", "Healthcheck": map[string]any{"Test": []string{"CMD", "true"}}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
		"history": []map[string]any{{"created_by": "RUN apk add openssl"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := b.remote.Parse(t.Context(), "127.0.0.1:7070/"+to)
	if err != nil {
		t.Fatal(err)
	}
	blob := func(data []byte, media string) map[string]any {
		out := map[string]any{"mediaType": media, "digest": fmt.Sprintf("sha256:%x", sha256.Sum256(data)), "size": len(data)}
		if _, err := b.remote.PutBlob(t.Context(), ref, registry.Blob{MediaType: media, Data: data}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	digest, size = manifest(t, b, ref, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": blob(config, "application/vnd.oci.image.config.v1+json"), "layers": []any{blob(layer, "application/vnd.oci.image.layer.v1.tar")},
	}, "application/vnd.oci.image.manifest.v1+json")
	if lose != "" {
		sum := fmt.Sprintf("%x", sha256.Sum256(layer))
		if err := os.Remove(filepath.Join(lose, "docker/registry/v2/blobs/sha256", sum[:2], sum, "data")); err != nil {
			t.Fatal(err)
		}
	}
	return digest, size
}

func manifest(t *testing.T, b *backend, ref registry.Reference, m any, media string) (digest string, size int) {
	t.Helper()
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.remote.Put(t.Context(), ref, raw, media); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(raw)), len(raw)
}

// found is what registry ls says of an image's scan.
func found(t *testing.T, b *backend, repository, digest string) string {
	t.Helper()
	all, err := b.RegistryImages(t.Context(), repository)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Digest == digest {
			if i.Scan == nil {
				return "not scanned"
			}
			return i.Scan.String()
		}
	}
	return "not there"
}

func TestWhatIsPushedIsScanned(t *testing.T) {
	b := shipyard(t)
	failed := map[string]*attempt{}
	scan := func() (n int) {
		t.Helper()
		for {
			more, err := b.scans.scanPushed(t.Context(), failed)
			if err != nil {
				t.Fatal(err)
			}
			if !more {
				return n
			}
			n++
		}
	}
	if err := b.scans.update(t.Context(), api.AdvisoriesUpdate{From: advisories(t, "CVE-2024-1")}, silent); err != nil {
		t.Fatal(err)
	}
	digest, _ := ship(t, b, "shop/web:1", "amd64", "")
	if got := found(t, b, "shop/web", digest); got != "not scanned" {
		t.Errorf("before: %s", got)
	}
	if n := scan(); n != 1 {
		t.Errorf("%d scans", n)
	}
	if got := found(t, b, "shop/web", digest); !strings.HasPrefix(got, "1 critical") {
		t.Errorf("after: %s", got)
	}
	// The gate, and a promotion, ask by the digest.
	s, err := b.scans.scanned(t.Context(), tender.ImageID{Reference: "registry:5000/shop/web:1", Digest: digest, ID: "sha256:other"})
	if err != nil || s == nil || len(s.Findings) == 0 || s.Findings[0].ID != "CVE-2024-1" {
		t.Errorf("the gate has %+v, %v", s, err)
	}
	// The same again, under other names, costs nothing; a signature is no image.
	ship(t, b, "shop/web:1", "amd64", "")
	ref, err := b.remote.Parse(t.Context(), "127.0.0.1:7070/shop/web:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.remote.Copy(t.Context(), ref, ref.At("2")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.remote.Attach(t.Context(), ref, registry.Artifact{Type: "application/vnd.dev.cosign.artifact.sig.v1+json"}); err != nil {
		t.Fatal(err)
	}
	if n := scan(); n != 0 {
		t.Errorf("%d scans of what is known", n)
	}
	// A restart, and a newer version, find what waits in the store.
	b.scans.version = "v2"
	if n := scan(); n != 1 {
		t.Errorf("%d scans by a newer version", n)
	}
	// By hand it is found by its name alone, and not read again.
	r, _, err := b.scans.find(t.Context(), "shop/web:2", "", silent)
	if err != nil || r.Digest != digest {
		t.Errorf("by hand: %s, %v", r.Digest, err)
	}
	// Of rows that were written before there were counts a new look makes whole ones.
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error {
		old, err := tx.Scan(digest)
		if err != nil {
			return err
		}
		old.Version, old.Counts = "", ""
		return tx.PutScan(old)
	}); err != nil {
		t.Fatal(err)
	}
	if n := scan(); n != 1 || !strings.HasPrefix(found(t, b, "shop/web", digest), "1 critical") {
		t.Errorf("%d scans, then %s", n, found(t, b, "shop/web", digest))
	}
}

func TestOfAnIndexThePlatformOfTheHostIsScanned(t *testing.T) {
	b := shipyard(t)
	if err := b.scans.update(t.Context(), api.AdvisoriesUpdate{From: advisories(t, "CVE-2024-1")}, silent); err != nil {
		t.Fatal(err)
	}
	var parts []any
	var digests []string
	for _, arch := range []string{"arm64", "amd64"} {
		digest, size := ship(t, b, "shop/web:"+arch, arch, "")
		digests = append(digests, digest)
		parts = append(parts, map[string]any{
			"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size, "platform": map[string]any{"os": "linux", "architecture": arch},
		})
	}
	ref, err := b.remote.Parse(t.Context(), "127.0.0.1:7070/shop/web:1")
	if err != nil {
		t.Fatal(err)
	}
	const index = "application/vnd.oci.image.index.v1+json"
	whole, _ := manifest(t, b, ref, map[string]any{"schemaVersion": 2, "mediaType": index, "manifests": parts}, index)
	// The tags of its parts go, so that it alone waits.
	for _, tag := range []string{"arm64", "amd64"} {
		if err := b.store.Update(t.Context(), func(tx *store.Tx) error { return tx.RemoveTag("shop/web", tag) }); err != nil {
			t.Fatal(err)
		}
	}
	failed := map[string]*attempt{}
	for more := true; more; {
		if more, err = b.scans.scanPushed(t.Context(), failed); err != nil {
			t.Fatal(err)
		}
	}
	if got := found(t, b, "shop/web", whole); !strings.HasPrefix(got, "1 critical") {
		t.Errorf("the index: %s", got)
	}
	for i, want := range []bool{false, true} {
		r, err := b.scans.kept(t.Context(), digests[i])
		if (err == nil) != want || want && r.Platform != "linux/amd64" {
			t.Errorf("part %d: %s, %v", i, r.Platform, err)
		}
	}
}

func TestAScanOfAPushIsTriedAgainWithBounds(t *testing.T) {
	b := shipyard(t)
	if err := b.scans.update(t.Context(), api.AdvisoriesUpdate{From: advisories(t, "CVE-2024-1")}, silent); err != nil {
		t.Fatal(err)
	}
	good, _ := ship(t, b, "shop/good:1", "amd64", "")
	bad, _ := ship(t, b, "shop/bad:1", "amd64", b.config.RegistryDir) // the last one pushed: it is the first
	failed := map[string]*attempt{}
	scans, errs := 0, 0
	round := func() {
		t.Helper()
		for {
			more, err := b.scans.scanPushed(t.Context(), failed)
			if err != nil {
				errs++
				if !strings.Contains(err.Error(), "scan shop/bad:1@"+bad) {
					t.Error(err)
				}
			} else if more {
				scans++
			}
			if !more {
				return
			}
		}
	}
	round()
	if !strings.HasPrefix(found(t, b, "shop/good", good), "1 critical") || scans != 1 || errs != 1 {
		t.Errorf("one that fails holds up another: %d, %d", scans, errs)
	}
	var pauses []string
	for range 10 {
		round() // its time has not come
		a := failed[bad]
		pauses = append(pauses, time.Until(a.next).Round(time.Minute).String())
		a.next = time.Time{}
		before := errs
		round()
		if errs == before {
			break
		}
	}
	if got := strings.Join(pauses, " "); got != "1m0s 5m0s 25m0s 2h5m0s 10h25m0s" || errs != scanTries {
		t.Errorf("%d tries, pauses of %s", errs, got)
	}
	// What has gone is forgotten.
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error { return tx.RemoveTag("shop/bad", "1") }); err != nil {
		t.Fatal(err)
	}
	round()
	if len(failed) > 0 || errs != scanTries {
		t.Errorf("%v, %d", failed, errs)
	}
}

// The part wakes at a push, and ends when it is told to.
func TestAPushWakesTheScan(t *testing.T) {
	b := shipyard(t)
	if err := b.scans.update(t.Context(), api.AdvisoriesUpdate{From: advisories(t, "CVE-2024-1")}, silent); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan string, 100), make(chan error, 1)
	go func() { done <- b.scans.runPushed(func(problem string) { told <- problem })(ctx) }()
	for n := range 3 {
		digest, _ := ship(t, b, fmt.Sprintf("shop/web:%d", n), "amd64", "")
		if problem := <-told; problem != "" || !strings.HasPrefix(found(t, b, "shop/web", digest), "1 critical") {
			t.Errorf("%q, %s", problem, found(t, b, "shop/web", digest))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestANewAdvisoryIsCountedForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC))) // the advisories are of before
		shelf := oldAlpine(t)
		broken := &flaky{shelf: shelf}
		b := scanning(t, broken, Config{})
		if err := b.store.Update(t.Context(), func(tx *store.Tx) error {
			return tx.AddGeneration(store.Generation{
				Project: "shop", N: 1, At: time.Now(), YAML: []byte("name: shop\n"),
				Services: []store.WantedService{{Service: tender.Service{Name: "web", Image: "shop/web:1"}, Image: tender.ImageID{Reference: "shop/web:1", ID: shelf.id.ID}}},
			}, nil)
		}); err != nil {
			t.Fatal(err)
		}
		mirror := advisories(t, "CVE-2024-1")
		b.scans.config = Advisories{From: mirror, Every: 24 * time.Hour}
		count := func() string {
			var f figures
			f.findings(b.scans)
			for _, line := range strings.Split(f.String(), "\n") {
				// What the alert ImageVulnerable looks at.
				if n, is := strings.CutPrefix(line, `tender_image_findings{project="shop",service="web",severity="critical",fixable="true"} `); is {
					return n
				}
			}
			return "none"
		}
		broken.down = true
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.scans.run(func(func(*api.Part)) {})(ctx) }()
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		// A scan that failed is tried again after an hour, not with each look.
		if count() != "none" || broken.tries != 1 {
			t.Errorf("it failed: %s, %d tries", count(), broken.tries)
		}
		broken.down = false
		time.Sleep(time.Hour)
		synctest.Wait()
		if count() != "1" || broken.tries != 2 {
			t.Errorf("it is read: %s, %d tries", count(), broken.tries)
		}
		replaceAdvisories(t, mirror, "CVE-2024-1", "CVE-2026-9")
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if count() != "2" || broken.tries != 2 {
			t.Errorf("with a new advisory: %s, %d tries", count(), broken.tries)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// flaky is a shelf that can be away.
type flaky struct {
	*shelf
	down  bool
	tries int
}

func (f *flaky) Save(ctx context.Context, refs []string) (io.ReadCloser, error) {
	f.tries++
	if f.down {
		return nil, tender.Errorf(tender.Unavailable, "engine: %w", errors.New("away"))
	}
	return f.shelf.Save(ctx, refs)
}
