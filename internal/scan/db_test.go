package scan_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/scan"
)

// dump makes all.zip of advisories, one a line.
func dump(t testing.TB, lines string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for line := range strings.Lines(lines) {
		var o struct{ ID string }
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		w, err := z.Create(o.ID + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// mirror lays the advisories of testdata out as OSV's bucket does.
func mirror(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob("testdata/osv/*.jsonl")
	if err != nil || len(files) < 12 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, strings.TrimSuffix(filepath.Base(f), ".jsonl"), "all.zip"), dump(t, string(b)))
	}
	return dir
}

func update(t testing.TB, db *scan.DB, o scan.UpdateOptions) []scan.Updated {
	t.Helper()
	done, err := db.Update(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range done {
		if d.Err != nil {
			t.Fatal(d.Err)
		}
	}
	return done
}

func filled(t testing.TB) *scan.DB {
	t.Helper()
	db := scan.OpenDB(t.TempDir())
	t.Cleanup(db.Close)
	update(t, db, scan.UpdateOptions{From: mirror(t), All: true})
	return db
}

func match(t testing.TB, db *scan.DB, pkgs ...scan.Package) []tender.Finding {
	t.Helper()
	found, err := db.Match(pkgs, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// line is a finding as one line.
func line(f tender.Finding) string {
	return fmt.Sprintf("%s %s %s %s fixed %q %v", f.ID, f.Package, f.Version, f.Severity, f.Fixed, f.Aliases)
}

// The advisories of testdata/osv are abridged for tests: two of them say that they are made up,
// and none is a source for anything else. The pairs hold the matching against their ranges:
// both sides of each bound, other releases, other packages.
func TestPairsOfPackagesAndAdvisories(t *testing.T) {
	db := filled(t)
	table, err := os.ReadFile("testdata/pairs.tsv")
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]int{}
	for row := range strings.Lines(string(table)) {
		if strings.HasPrefix(row, "#") {
			continue
		}
		f := strings.Split(strings.TrimSpace(row), "\t")
		if len(f) != 7 {
			t.Fatalf("%d fields: %q", len(f), row)
		}
		var got *tender.Finding
		for _, one := range match(t, db, scan.Package{Name: f[2], Version: f[3], Ecosystem: f[1]}) {
			if one.ID == f[4] {
				got = &one
			}
		}
		switch {
		case (got != nil) != (f[0] == "true"):
			t.Errorf("%s: found %v", strings.TrimSpace(row), got)
		case got != nil && got.Fixed != f[5]:
			t.Errorf("%s: fixed %q", strings.TrimSpace(row), got.Fixed)
		default:
			held[f[0]]++
		}
	}
	t.Logf("%d true and %d false pairs hold", held["true"], held["false"])
	if held["true"] < 100 || held["false"] < 100 {
		t.Errorf("only %v", held)
	}
}

func TestWhatIsFoundForAnImage(t *testing.T) {
	db := filled(t)
	found := match(t, db,
		scan.Package{Name: "libssl3", Version: "3.0.11-1~deb12u1", Source: "openssl", Ecosystem: "Debian:12"},
		scan.Package{Name: "libc6", Version: "2.36-9+deb12u7", Source: "glibc", Ecosystem: "Debian:12"},
		scan.Package{Name: "libcoreutils", Version: "8.32-4.1ubuntu1.2", Source: "coreutils", Ecosystem: "Ubuntu:22.04:LTS"},
		scan.Package{Name: "openssl-libs", Version: "1:1.1.1k-5.el8_5", Source: "openssl", Ecosystem: "Red Hat:enterprise_linux:8"},
		scan.Package{Name: "flatmap-stream", Version: "0.1.1", Ecosystem: "npm"},
		scan.Package{Name: "golang.org/x/net", Version: "v0.16.0", Ecosystem: "Go"},
		scan.Package{Name: "busybox", Version: "1.33.1-r6", Ecosystem: "Alpine:v3.14"},
		scan.Package{Name: "nobody", Version: "1", Ecosystem: ""},
	)
	var got strings.Builder
	for _, f := range found {
		fmt.Fprintln(&got, line(f))
	}
	want := `MAL-2025-20690 flatmap-stream 0.1.1 critical fixed "" []
CVE-2023-39325 golang.org/x/net v0.16.0 high fixed "0.17.0" [GHSA-4374-p667-p6c8 GO-2023-2102]
CVE-2023-5363 libssl3 3.0.11-1~deb12u1 high fixed "3.0.11-1~deb12u2" []
CVE-2022-0778 openssl-libs 1:1.1.1k-5.el8_5 high fixed "1:1.1.1k-6.el8_5" [RHSA-2022:1065]
CVE-2016-2781 libcoreutils 8.32-4.1ubuntu1.2 low fixed "" []
CVE-2010-4756 libc6 2.36-9+deb12u7 negligible fixed "" []
CVE-2022-28391 busybox 1.33.1-r6 unknown fixed "1.33.1-r7" []
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

const notice = `{"id":"DSA-1-1","modified":"2024-01-01T00:00:00Z","upstream":["CVE-2024-1","CVE-2024-2"],"summary":"a - update","affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"2-1"}]}]}]}
{"id":"DEBIAN-CVE-2024-1","modified":"2024-01-02T00:00:00Z","upstream":["CVE-2024-1"],"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],"affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"2-3"}]}],"ecosystem_specific":{"urgency":"low**"}}]}
{"id":"DEBIAN-CVE-2024-2","modified":"2024-01-02T00:00:00Z","upstream":["CVE-2024-2"],"affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"1-1"}]}]}]}
{"id":"DEBIAN-CVE-2024-3","modified":"2024-01-02T00:00:00Z","withdrawn":"2024-02-01T00:00:00Z","affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}]}
{"id":"DEBIAN-CVE-2024-4","modified":"2024-01-02T00:00:00Z","affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"ranges":[{"type":"GIT","events":[{"introduced":"0"}]}]}]}
`

func TestANoticeAndTheRecordsOfItsFlawsAreOneFindingEach(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "Debian", "all.zip"), dump(t, notice))
	db := scan.OpenDB(t.TempDir())
	defer db.Close()
	update(t, db, scan.UpdateOptions{From: dir, All: true})
	found := match(t, db, scan.Package{Name: "a", Version: "1-5", Ecosystem: "Debian:12"})
	// CVE-2024-2 has a record of its own, which says that 1-5 is not affected.
	if len(found) != 1 || line(found[0]) != `CVE-2024-1 a 1-5 low fixed "2-1" [DSA-1-1]` || found[0].Score != 9.8 {
		t.Errorf("got %+v", found)
	}
}

func TestDamagedFilesAreToldAndSetAsideAndOthersGoOn(t *testing.T) {
	dir := t.TempDir()
	db := scan.OpenDB(dir)
	defer db.Close()
	update(t, db, scan.UpdateOptions{From: mirror(t), All: true})
	whole, err := os.ReadFile(filepath.Join(dir, "npm.adv"))
	if err != nil {
		t.Fatal(err)
	}
	whole[len(whole)/3] ^= 0x40
	write(t, filepath.Join(dir, "npm.adv"), whole)
	pkgs := []scan.Package{{Name: "lodash", Version: "4.17.20", Ecosystem: "npm"}, {Name: "PyYAML", Version: "5.3.1", Ecosystem: "PyPI"}}
	found, err := db.Match(pkgs, time.Time{})
	if err == nil || !strings.Contains(err.Error(), "advisories of npm are damaged") || len(found) != 1 {
		t.Fatal(found, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "npm.adv.damaged")); err != nil {
		t.Error(err)
	}
	if _, err = db.Match(pkgs, time.Time{}); err == nil || !strings.Contains(err.Error(), "there are no advisories of npm") {
		t.Error(err)
	}
}

func TestAReaderGoesOnWhileFilesAreReplaced(t *testing.T) {
	db := filled(t)
	from := mirror(t)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 20 {
				found, err := db.Match([]scan.Package{{Name: "lodash", Version: "4.17.20", Ecosystem: "npm"}}, time.Time{})
				if err != nil || len(found) != 1 {
					t.Error(found, err)
					return
				}
			}
		})
	}
	for range 5 {
		update(t, db, scan.UpdateOptions{From: from, Ecosystems: []string{"npm"}, Whole: true})
	}
	readers.Wait()
}

func TestMirrorInATar(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	z := dump(t, notice)
	for _, name := range []string{"./mirror/npm/other.txt", "./mirror/Debian/all.zip"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(z))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(z); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(t.TempDir(), "osv.tar")
	write(t, from, b.Bytes())
	db := scan.OpenDB(t.TempDir())
	defer db.Close()
	if done := update(t, db, scan.UpdateOptions{From: from, All: true}); len(done) != 1 || done[0].How != "whole" || done[0].Advisories != 3 {
		t.Errorf("got %+v", done)
	}
	if done := update(t, db, scan.UpdateOptions{From: from}); done[0].How != "unchanged" {
		t.Errorf("got %+v", done)
	}
}

// bucket serves files as OSV's does: with ETags, ranges and 304.
type bucket struct {
	mu    sync.Mutex
	files map[string][]byte
	asked []string
	cut   int // answers that break off in the middle
}

func (b *bucket) put(name string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files[name] = data
}

func (b *bucket) log() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := b.asked
	b.asked = nil
	return asked
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	data, ok := b.files[r.URL.Path]
	cut := ok && b.cut > 0 && strings.HasSuffix(r.URL.Path, ".zip")
	if cut {
		b.cut--
	}
	b.asked = append(b.asked, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Range")))
	b.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf("\"%x\"", sha256.Sum256(data)))
	if cut {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func serve(t *testing.T, files map[string][]byte) (*bucket, string) {
	b := &bucket{files: files}
	s := httptest.NewServer(b)
	t.Cleanup(s.Close)
	return b, s.URL
}

func TestUpdatesFromAServer(t *testing.T) {
	old := time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC)
	b, from := serve(t, map[string][]byte{
		"/ecosystems.txt":          []byte("Debian\nDebian:12\n../x\n"),
		"/Debian/all.zip":          dump(t, notice),
		"/Debian/modified_id.csv":  []byte("2024-01-02T00:00:00Z,DEBIAN-CVE-2024-1\n2024-01-02T00:00:00Z,DEBIAN-CVE-2024-2\n2024-01-01T00:00:00Z,DSA-1-1\n"),
		"/Debian/DSA-1-1.json":     []byte("{}"),
		"/Debian/unrelated-1.json": []byte("{}"),
	})
	b.cut = 1
	db := scan.OpenDB(t.TempDir())
	defer db.Close()
	done := update(t, db, scan.UpdateOptions{From: from, All: true, Now: old})
	if done[0].How != "whole" || done[0].Advisories != 3 {
		t.Fatalf("got %+v", done)
	}
	asked := b.log()
	if len(asked) != 4 || !strings.HasPrefix(asked[3], "/Debian/all.zip bytes=") {
		t.Errorf("a download that broke off did not go on: %q", asked)
	}
	if done = update(t, db, scan.UpdateOptions{From: from, Now: old.Add(time.Hour)}); done[0].How != "unchanged" {
		t.Errorf("got %+v", done)
	}
	if asked = b.log(); !slices.Equal(asked, []string{"/Debian/modified_id.csv"}) {
		t.Errorf("asked %q", asked)
	}
	age, err := db.Age()
	if err != nil || !age.Updated.Equal(old.Add(time.Hour)) || age.Newest.Format(time.DateOnly) != "2024-01-02" || age.Advisories != 3 {
		t.Errorf("age %+v, %v", age, err)
	}

	// One is new, one has gone.
	fresh := `{"id":"DEBIAN-CVE-2024-9","modified":"2024-03-02T00:00:00Z","upstream":["CVE-2024-9"],"affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}]}`
	b.put("/Debian/modified_id.csv", []byte("2024-03-02T00:00:00Z,DEBIAN-CVE-2024-9\n2024-01-02T00:00:00Z,DEBIAN-CVE-2024-2\n2024-01-01T00:00:00Z,DSA-1-1\n"))
	b.put("/Debian/DEBIAN-CVE-2024-9.json", []byte(fresh))
	b.put("/Debian/DEBIAN-CVE-2024-2.json", []byte(strings.Split(notice, "\n")[2]))
	done = update(t, db, scan.UpdateOptions{From: from, Now: old.Add(48 * time.Hour)})
	if done[0].How != "changed" || done[0].Changed != 2 || done[0].Advisories != 3 {
		t.Errorf("got %+v", done)
	}
	var ids []string
	for _, f := range match(t, db, scan.Package{Name: "a", Version: "1-5", Ecosystem: "Debian:12"}) {
		ids = append(ids, f.ID)
	}
	if !slices.Equal(ids, []string{"CVE-2024-1", "CVE-2024-9"}) { // the first by its notice alone
		t.Errorf("found %v", ids)
	}

	// What comes is no zip: the index stays.
	b.put("/Debian/all.zip", []byte("<html>maintenance</html>"))
	broken, err := db.Update(t.Context(), scan.UpdateOptions{From: from, Now: old, Whole: true})
	if err != nil || broken[0].Err == nil {
		t.Errorf("got %+v, %v", broken, err)
	}
	if found := match(t, db, scan.Package{Name: "a", Version: "1-5", Ecosystem: "Debian:12"}); len(found) != 2 {
		t.Errorf("found %v", found)
	}
}

func TestOldAdvisoriesAreWarnedOf(t *testing.T) {
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		updated time.Time
		want    string
	}{
		{time.Time{}, "there are no advisories yet: tender image db update"},
		{now.AddDate(0, 0, -2), ""},
		{now.AddDate(0, 0, -9), "the advisories are 9 days old: tender image db update"},
	} {
		if got := (scan.Age{Updated: c.updated}).Stale(now, 72*time.Hour); got != c.want {
			t.Errorf("%v: %q", c.updated, got)
		}
	}
}

func TestWithoutAnIndexItIsSaid(t *testing.T) {
	db := scan.OpenDB(filepath.Join(t.TempDir(), "none"))
	defer db.Close()
	_, err := db.Match([]scan.Package{{Name: "a", Version: "1", Ecosystem: "npm"}}, time.Time{})
	var e *tender.Error
	if !errors.As(err, &e) || e.Kind != tender.Unavailable {
		t.Error(err)
	}
}
