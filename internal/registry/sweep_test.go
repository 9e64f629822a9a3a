package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Now().Add(time.Minute)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// data lists the blobs that lie in a directory.
func data(t *testing.T, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(dir, "docker/registry/v2/blobs"), func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "data" {
			found["sha256:"+filepath.Base(filepath.Dir(p))] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// whole reads what every manifest in the directory names and compares sums.
func whole(t *testing.T, dir string) (manifests int) {
	t.Helper()
	read := func(d string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(blobPath(d))))
		if err != nil {
			t.Errorf("a blob is not there: %v", err)
			return nil
		}
		if got := digest.FromBytes(b).String(); got != d {
			t.Errorf("%s has the sum %s", d, got)
		}
		return b
	}
	err := filepath.WalkDir(filepath.Join(dir, filepath.FromSlash(tree)), func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "link" || !strings.Contains(p, "_manifests/revisions") {
			return err
		}
		repository, _, _ := strings.Cut(p, "/_manifests/")
		manifests++
		body := read("sha256:" + filepath.Base(filepath.Dir(p)))
		m, err := describe(body, "")
		if err != nil {
			t.Error(err)
		}
		for _, ref := range m.Refs {
			read(ref.Digest)
			if ref.Kind == "child" {
				continue
			}
			if _, err := os.Stat(filepath.Join(repository, "_layers", strings.Replace(ref.Digest, ":", "/", 1), "link")); err != nil {
				t.Errorf("a layer cannot be pulled: %v", err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return manifests
}

func (s *site) sweep(o SweepOptions) Swept {
	s.t.Helper()
	done, err := s.Sweep(s.t.Context(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	return done
}

func (s *site) remove(o RemoveOptions) Retained {
	s.t.Helper()
	done, err := s.Remove(s.t.Context(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	return done
}

func TestWhatNobodyNamesIsSwept(t *testing.T) {
	c := newClock()
	s := listening(t, Options{Now: c.now, Dir: t.TempDir()})
	kept, gone := s.push("shop/web:v1"), s.push("shop/web:v2")
	shared, err := mutate.AppendLayers(gone, layersOf(t, kept)[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(s.ref("shop/web:v2"), shared, as("ann")); err != nil {
		t.Fatal(err)
	}
	before := len(data(t, s.o.Dir))
	s.remove(RemoveOptions{Repository: "shop/web", Tag: "v2"})
	s.remove(RemoveOptions{Repository: "shop/web", Digest: digestOf(t, gone)})

	// An hour keeps what was just pushed, then a day does.
	if got := s.sweep(SweepOptions{Age: -1}); got.Links != 0 || got.Blobs != 0 || got.Leased == 0 {
		t.Errorf("what is leased: %+v", got)
	}
	c.add(2 * time.Hour)
	if got := s.sweep(SweepOptions{}); got.Links != 0 || got.Blobs != 0 || got.Young == 0 {
		t.Errorf("what is young: %+v", got)
	}
	c.add(24 * time.Hour)
	dry := s.sweep(SweepOptions{DryRun: true})
	if len(data(t, s.o.Dir)) != before {
		t.Error("a dry run removed blobs")
	}
	got := s.sweep(SweepOptions{})
	dry.Took, got.Took = 0, 0
	if dry != got {
		t.Errorf("a dry run says\n%+v, and the sweep\n%+v", dry, got)
	}
	// Two manifests, their configurations, two layers; the third is that of what stays.
	if got.Blobs != 6 || len(data(t, s.o.Dir)) != before-6 || got.Bytes == 0 {
		t.Errorf("%+v, %d blobs of %d stay", got, len(data(t, s.o.Dir)), before)
	}
	img, err := remote.Image(s.ref("shop/web:v1"), as("ann"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	whole(t, s.o.Dir)
	if again := s.sweep(SweepOptions{}); again.Blobs != 0 || again.Links != 0 {
		t.Errorf("the second sweep: %+v", again)
	}
}

func layersOf(t *testing.T, img v1.Image) []v1.Layer {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	return layers
}

// What was answered to a HEAD stays for an hour, and for a day after a restart forgot that.
func TestALeaseOutlivesARestart(t *testing.T) {
	c := newClock()
	dir := t.TempDir()
	s := listening(t, Options{Now: c.now, Dir: dir})
	img := s.push("shop/web:v1")
	s.remove(RemoveOptions{Repository: "shop/web"})
	c.add(48 * time.Hour)
	layer, err := layersOf(t, img)[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	path := "/v2/shop/web/blobs/" + layer.String()
	if status, _, _ := s.do("ann", http.MethodHead, path, ""); status != http.StatusOK {
		t.Fatalf("HEAD: %d", status)
	}
	again := listening(t, Options{Now: c.now, Dir: dir})
	if got := again.sweep(SweepOptions{}); got.Blobs != 3 || got.Young != 1 {
		t.Errorf("%+v", got)
	}
	if status, _, _ := again.do("ann", http.MethodHead, path, ""); status != http.StatusOK {
		t.Errorf("HEAD after the sweep: %d", status)
	}
	c.add(48 * time.Hour)
	again.sweep(SweepOptions{})
	if status, _, _ := again.do("ann", http.MethodHead, path, ""); status != http.StatusNotFound {
		t.Errorf("HEAD of what was swept: %d", status)
	}
}

// A request about what the sweep has claimed waits, and is told that it is gone.
func TestAPushMeetsTheSweep(t *testing.T) {
	c := newClock()
	s := listening(t, Options{Now: c.now, Dir: t.TempDir()})
	img := s.push("shop/web:v1")
	body, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	s.remove(RemoveOptions{Repository: "shop/web"})
	c.add(48 * time.Hour)
	answer := make(chan int, 1)
	var once sync.Once
	s.crash = func(step, what string) {
		if step == "link" {
			once.Do(func() {
				begun := make(chan struct{})
				go func() {
					close(begun)
					status, _, _ := s.do("ann", http.MethodPut, "/v2/shop/web/manifests/v1", string(body), "Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
					answer <- status
				}()
				<-begun
			})
		}
	}
	s.sweep(SweepOptions{})
	if status := <-answer; status != http.StatusBadRequest && status != http.StatusNotFound {
		t.Errorf("a manifest whose blobs were swept was answered with %d", status)
	}
	s.crash = nil
	if n := whole(t, s.o.Dir); n != 0 {
		t.Errorf("%d manifests", n)
	}
}

// killed is what a process that ends says.
type killed struct{}

// The process ends at every step in turn. What it leaves is whole, and the next sweep frees
// as much as one that nobody ended.
func TestKilledAtEveryStep(t *testing.T) {
	c := newClock()
	dir := t.TempDir()
	first, end := reopened(t, dir, c)
	s := serving(t, first)
	stays := s.push("shop/web:v3")
	for _, ref := range []string{"shop/web:v1", "shop/api:v1"} {
		img, err := random.Image(256, 1)
		if err != nil {
			t.Fatal(err)
		}
		index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, "application/vnd.oci.image.index.v1+json"), mutate.IndexAddendum{Add: img}, mutate.IndexAddendum{Add: stays})
		if err := remote.WriteIndex(s.ref(ref), index, as("ann")); err != nil {
			t.Fatal(err)
		}
	}
	c.add(48 * time.Hour)
	s.push("shop/api:v2")
	end()
	for n, ended := 1, true; ended; n++ {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		ended = killAt(t, copied, c, n)
		if err := os.RemoveAll(copied); err != nil {
			t.Fatal(err)
		}
		if n > 500 {
			t.Fatal("it does not end")
		}
	}
}

// reopened is a registry whose blobs and rows lie in one directory.
func reopened(t *testing.T, dir string, c *clock) (r *Registry, end func()) {
	t.Helper()
	st, err := store.Open(filepath.Join(dir, "rows"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err = Open(t.Context(), Options{Dir: filepath.Join(dir, "images"), Store: st, Enter: enter, Now: c.now}); err != nil {
		t.Fatal(err)
	}
	return r, func() {
		if err := errors.Join(r.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	}
}

// killAt ends the process at the nth step, and says whether there is one.
func killAt(t *testing.T, dir string, c *clock, n int) (ended bool) {
	rules := []Rule{{OlderThan: 24 * time.Hour, KeepTags: []string{"v3"}}}
	first, end := reopened(t, dir, c)
	steps := 0
	first.crash = func(string, string) {
		if steps++; steps == n {
			panic(killed{})
		}
	}
	func() {
		defer func() {
			if p := recover(); p != nil {
				if _, is := p.(killed); !is {
					panic(p)
				}
				ended = true
			}
		}()
		if _, err := first.Retain(t.Context(), RetainOptions{Rules: rules}); err != nil {
			t.Fatal(err)
		}
		first.sweepNow(t)
	}()
	images := filepath.Join(dir, "images")
	whole(t, images)
	end()
	second, end := reopened(t, dir, c)
	defer end()
	if _, err := second.Retain(t.Context(), RetainOptions{Rules: rules}); err != nil {
		t.Fatal(err)
	}
	second.sweepNow(t)
	if got := whole(t, images); got != 2 {
		t.Errorf("killed at step %d: %d manifests stay, not v3 and the new one", n, got)
	}
	if got := len(data(t, images)); got != 8 {
		t.Errorf("killed at step %d: %d blobs stay, not two times a manifest, a configuration and two layers", n, got)
	}
	return ended
}

func (r *Registry) sweepNow(t *testing.T) {
	t.Helper()
	if _, err := r.Sweep(t.Context(), SweepOptions{Age: -1}); err != nil {
		t.Fatal(err)
	}
}

// Clients push, pull and delete while sweeps go on that do not care for age: only leases
// keep what is being pushed.
func TestPushesDuringSweeps(t *testing.T) {
	s := listening(t, Options{Now: time.Now, Dir: t.TempDir()})
	base, err := random.Layer(2048, "application/vnd.docker.image.rootfs.diff.tar.gzip")
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var sweeps, clients sync.WaitGroup
	sweeps.Go(func() {
		for {
			if _, err := s.Sweep(t.Context(), SweepOptions{Age: -1}); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for client := range 3 {
		clients.Go(func() {
			for i := range 6 {
				img, err := random.Image(512, 2)
				if err == nil {
					img, err = mutate.AppendLayers(img, base)
				}
				if err != nil {
					t.Error(err)
					return
				}
				ref := s.ref(fmt.Sprintf("shop/c%d:v%d", client, i))
				if err := remote.Write(ref, img, as("ann")); err != nil {
					t.Errorf("push %s: %v", ref, err)
					return
				}
				got, err := remote.Image(ref, as("ann"))
				if err == nil {
					err = validate.Image(got)
				}
				if err != nil {
					t.Errorf("pull %s: %v", ref, err)
				}
				if i%2 == 0 {
					if _, err := s.Remove(t.Context(), RemoveOptions{Repository: fmt.Sprintf("shop/c%d", client), Tag: fmt.Sprintf("v%d", i)}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	sweeps.Wait()
	if n := whole(t, s.o.Dir); n != 9 {
		t.Errorf("%d manifests stay, not 9", n)
	}
}

func TestWhatIsNeededIsNotRemoved(t *testing.T) {
	c := newClock()
	s := listening(t, Options{Now: c.now, Dir: t.TempDir()})
	img := s.push("shop/web:v1")
	needed := map[string]string{digestOf(t, img): "deployed by shop/web"}
	_, err := s.Remove(t.Context(), RemoveOptions{Repository: "shop/web", Tag: "v1", Needed: needed})
	if tender.KindOf(err) != tender.Conflict || err.Error() != "shop/web:v1 is needed: deployed by shop/web" {
		t.Errorf("%v", err)
	}
	if _, err := s.Remove(t.Context(), RemoveOptions{Repository: "shop/web", Tag: "v2"}); tender.KindOf(err) != tender.NotFound {
		t.Errorf("%v", err)
	}
	list, err := s.List(t.Context(), "shop/web", needed)
	if err != nil || len(list) != 1 || list[0].Needed != "deployed by shop/web" || list[0].Who != "ann" || list[0].Size < 2048 {
		t.Errorf("%+v, %v", list, err)
	}
	// A pull within the hour keeps from rules, not from hands.
	c.add(48 * time.Hour)
	if _, err := remote.Image(s.ref("shop/web:v1"), as("ann")); err != nil {
		t.Fatal(err)
	}
	rules := RetainOptions{Rules: []Rule{{OlderThan: time.Hour}}, Who: "ann"}
	done, err := s.Retain(t.Context(), rules)
	if err != nil || done.Tags != 0 || done.Steps[0].Why != "pulled or pushed within the hour" {
		t.Errorf("%+v, %v", done, err)
	}
	c.add(2 * time.Hour)
	rules.DryRun = true
	dry, err := s.Retain(t.Context(), rules)
	if err != nil || dry.Tags != 1 || dry.Manifests != 1 || dry.Bytes < 2048 {
		t.Errorf("%+v, %v", dry, err)
	}
	rules.DryRun = false
	done, err = s.Retain(t.Context(), rules)
	if err != nil || done.Tags != 1 || done.Bytes != dry.Bytes {
		t.Errorf("%+v, %v", done, err)
	}
	if status, _, _ := s.do("ann", http.MethodGet, "/v2/shop/web/manifests/v1", ""); status != http.StatusNotFound {
		t.Errorf("what went is answered with %d", status)
	}
	var audit []store.Audit
	if err := s.o.Store.View(t.Context(), func(tx *store.Tx) (err error) {
		audit, err = tx.Audits("", 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(audit) != 2 || audit[0].What != "registry manifest removed" || !strings.HasSuffix(audit[0].Detail, ": its tag goes: v1") || audit[1].Who != "ann" {
		t.Errorf("%+v", audit)
	}
}

// A manifest that nobody can read may name anything.
func TestAManifestThatCannotBeReadEndsTheSweep(t *testing.T) {
	c := newClock()
	s := listening(t, Options{Now: c.now, Dir: t.TempDir()})
	img := s.push("shop/web:v1")
	s.push("shop/web:v2")
	s.remove(RemoveOptions{Repository: "shop/web", Tag: "v2"})
	c.add(48 * time.Hour)
	before := len(data(t, s.o.Dir))
	file := filepath.Join(s.o.Dir, filepath.FromSlash(blobPath(digestOf(t, img))))
	// A folder in the file's place cannot be read by anybody, root neither.
	if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context(), SweepOptions{}); tender.KindOf(err) != tender.Unavailable {
		t.Errorf("%v", err)
	}
	if got := len(data(t, s.o.Dir)); got != before {
		t.Errorf("%d blobs of %d stay", got, before)
	}
}
