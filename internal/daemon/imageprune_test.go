package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

const gib = 1 << 30

var root = api.Person{Name: "root", Scope: api.Admin}

// tidy is a backend with an engine in memory, whose disk has so much free.
func tidy(t *testing.T, c ImagesConfig) (*backend, *enginetest.Fake) {
	t.Helper()
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	e := &enginetest.Fake{}
	b := &backend{config: Config{Images: c}, store: st, engine: e, board: new(board), log: slog.New(slog.DiscardHandler)}
	return b, e
}

// put shelves an image of a GiB that came so many days ago; how: as Tender brought it, "": somebody else did.
func put(t *testing.T, b *backend, e *enginetest.Fake, id string, days int, how string, names ...string) engine.Shelved {
	t.Helper()
	at := time.Now().Add(-time.Duration(days)*24*time.Hour - time.Minute)
	s := engine.Shelved{ID: "sha256:" + id, Names: names, Size: gib, Own: gib, Created: at, Tagged: at}
	e.Shelve(s)
	if how != "" {
		ref := "shop/web:lost"
		if len(names) > 0 {
			ref = names[0]
		}
		if err := b.store.Update(t.Context(), func(tx *store.Tx) error {
			return tx.PutHostImage(store.HostImage{ID: s.ID, Reference: ref, How: how, Came: at})
		}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// decided writes steps one a line, those that go first.
func decided(p api.Pruned) string {
	var b strings.Builder
	for _, s := range p.Steps {
		does := "stays"
		if s.Goes {
			does = "goes"
		}
		name := strings.Join(s.Names, ",")
		if name == "" {
			name = s.ID
		}
		fmt.Fprintf(&b, "%s %s: %s\n", name, does, s.Why)
	}
	return b.String()
}

func there(t *testing.T, e engine.Engine) string {
	t.Helper()
	all, err := e.Shelf(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range all {
		out = append(out, strings.TrimPrefix(s.ID, "sha256:"))
	}
	return strings.Join(out, " ")
}

func TestWhatAnEngineHoldsGoesByTheRulesOfTheRegistry(t *testing.T) {
	b, e := tidy(t, ImagesConfig{})
	for n := range 6 {
		put(t, b, e, fmt.Sprintf("web%d", n), 60-n, "built", fmt.Sprintf("shop/web:1.%d", n))
	}
	put(t, b, e, "young", 3, "pulled", "shop/db:1")
	put(t, b, e, "old", 90, "pulled", "shop/db:2", "backup/db:2")
	put(t, b, e, "theirs", 90, "", "redis:7")
	put(t, b, e, "lost", 2, "built")
	put(t, b, e, "now", 0, "pulled", "shop/now:1")
	pinned := put(t, b, e, "pinned", 90, "pulled", "shop/pinned:1")
	pinned.Labels = map[string]string{pin: ""} // LABEL tender.pin=
	e.Shelve(pinned)
	parent := put(t, b, e, "parent", 90, "built", "shop/base:1")
	parent.Children = true
	e.Shelve(parent)
	arriving := put(t, b, e, "arriving", 90, "loaded", engine.Arriving+"x")
	used := put(t, b, e, "used", 90, "pulled", "shop/job:1")
	e.Adopt(tender.Instance{ID: "c1", Name: "somebodys", ImageID: used.ID, State: tender.Exited}, false, "")
	kept := put(t, b, e, "kept", 90, "built")
	if err := e.Keep(t.Context(), "shop", []tender.ImageID{{ID: kept.ID}}); err != nil {
		t.Fatal(err)
	}
	// Deployed by its name's image, and one to go back to; none of them runs now.
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error {
		web := tender.Service{Name: "web", Revision: "r2", Image: "shop/web:1.1", Spec: []byte("name: shop\nx-tender-format: 1\nservices: {web: {image: shop/web:1.1, volumes: [{type: image, source: backup/db:2, target: /x}]}}\n")}
		if err := tx.SaveRevision(store.Revision{Project: "shop", Service: tender.Service{Name: "web", Revision: "r1"}, Image: tender.ImageID{Reference: "shop/web:1.0", ID: "sha256:web0"}}); err != nil {
			return err
		}
		return tx.AddGeneration(store.Generation{
			Project: "shop", N: 1, At: time.Now(), YAML: []byte("name: shop\n"),
			Services: []store.WantedService{{Service: web, Image: tender.ImageID{Reference: "shop/web:1.1", ID: "sha256:web1"}}},
		}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	q := api.PruneRequest{Rules: []api.RegistryRule{{Keep: 2, OlderThan: (30 * 24 * time.Hour).Seconds()}}, DryRun: true}
	before := there(t, e)
	got, err := b.PruneImages(t.Context(), root, q)
	if err != nil {
		t.Fatal(err)
	}
	want := `sha256:lost goes: it has no tag, and came 2d ago
shop/web:1.2 goes: came 58d ago, and not one of the 2 newest
shop/web:1.3 goes: came 57d ago, and not one of the 2 newest
`
	going, staying, _ := strings.Cut(decided(got), "sha256:")
	going += "sha256:" + staying
	if !strings.HasPrefix(going, want) {
		t.Errorf("%s\nwant first\n%s", going, want)
	}
	for _, line := range []string{
		"redis:7 stays: Tender did not bring it: --foreign takes those, too",
		"shop/pinned:1 stays: its label tender.pin keeps it",
		"shop/base:1 stays: another image is made from it",
		"tender-arriving:x stays: it is arriving",
		"shop/job:1 stays: container somebodys has it",
		"sha256:kept stays: rollback of shop",
		"shop/now:1 stays: it came within the hour",
		"backup/db:2,shop/db:2 stays: mounted by shop/web",
		"shop/db:1 stays: one of the 2 newest",
		"shop/web:1.0 stays: rollback of shop/web",
		"shop/web:1.1 stays: deployed by shop/web",
		"shop/web:1.5 stays: one of the 2 newest",
	} {
		if !strings.Contains(going, line+"\n") {
			t.Errorf("no %q in\n%s", line, going)
		}
	}
	if got.Images != 3 || got.Bytes != 3*gib || there(t, e) != before {
		t.Errorf("%d images, %d bytes; there is %s, was %s", got.Images, got.Bytes, there(t, e), before)
	}
	_ = arriving
	q.DryRun = false
	done, err := b.PruneImages(t.Context(), root, q)
	if err != nil || done.Images != 3 {
		t.Fatal(done, err)
	}
	if diff := cmp.Diff(strings.NewReplacer("lost ", "", "web2 ", "", "web3 ", "").Replace(before), there(t, e)); diff != "" {
		t.Error(diff)
	}
	// Each one, and the run, is on the record.
	audits, err := b.Audit(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, a := range audits {
		said = append(said, a.What+" "+a.Detail)
	}
	if len(said) != 4 || !strings.Contains(strings.Join(said, "\n"), "image prune 3 images, 3.22GB, 0B of the build cache") ||
		!strings.Contains(strings.Join(said, "\n"), "image removed shop/web:1.2 sha256:web2: came 58d ago, and not one of the 2 newest") {
		t.Errorf("%q", said)
	}
	q.Foreign = true
	if done, err = b.PruneImages(t.Context(), root, api.PruneRequest{Foreign: true, Rules: []api.RegistryRule{{OlderThan: (80 * 24 * time.Hour).Seconds()}}}); err != nil || done.Images != 1 {
		t.Errorf("the foreign one: %s%v", decided(done), err)
	}
	if _, err := b.PruneImages(t.Context(), root, api.PruneRequest{}); tender.KindOf(err) != tender.Invalid {
		t.Errorf("without rules: %v", err)
	}
}

func TestAnImageStaysThatBecomesNeededBetweenLookAndRemoval(t *testing.T) {
	for what, meanwhile := range map[string]func(*testing.T, *backend, *enginetest.Fake){
		"container late has it": func(_ *testing.T, _ *backend, e *enginetest.Fake) {
			e.Adopt(tender.Instance{ID: "late", Name: "late", ImageID: "sha256:b"}, false, "")
		},
		"is called shop/other:1 by now": func(t *testing.T, _ *backend, e *enginetest.Fake) {
			if err := e.Tag(t.Context(), "sha256:b", "shop/other:1"); err != nil {
				t.Error(err)
			}
		},
	} {
		b, e := tidy(t, ImagesConfig{})
		put(t, b, e, "b", 50, "pulled", "shop/b:1")
		e.Meanwhile(func() { meanwhile(t, b, e) })
		got, err := b.PruneImages(t.Context(), root, api.PruneRequest{Rules: []api.RegistryRule{{OlderThan: 3600}}})
		if err != nil || got.Images != 0 || !strings.Contains(decided(got), "shop/b:1 stays: meanwhile: ") || !strings.Contains(decided(got), what) {
			t.Errorf("%s: %s%v", what, decided(got), err)
		}
		if there(t, e) != "b" {
			t.Errorf("%s: there is %q", what, there(t, e))
		}
	}
}

func TestAnUpThatBeginsMeanwhileHasItsImages(t *testing.T) {
	b, e := tidy(t, ImagesConfig{})
	put(t, b, e, "a", 60, "pulled", "shop/a:1")
	put(t, b, e, "b", 50, "pulled", "docker.io/shop/b:1")
	put(t, b, e, "c", 40, "pulled", "shop/c:latest")
	up := tender.Project{Name: "shop", Services: []tender.Service{{Name: "b", Image: "shop/b:1"}, {Name: "c", Image: "docker.io/shop/c"}}}
	var wait sync.WaitGroup
	held := make(chan func(), 1)
	e.Meanwhile(func() {
		// It waits for the removal that goes on, and then has what is there.
		begun := make(chan struct{})
		wait.Go(func() {
			close(begun)
			held <- b.host.lease("an up of shop is under way", b.refsOf(up)...)
		})
		<-begun
	})
	q := api.PruneRequest{Rules: []api.RegistryRule{{OlderThan: 3600}}}
	first, err := b.PruneImages(t.Context(), root, q)
	if err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	done := <-held
	// What the first clean-up did not remove before the up began stays from then on.
	left := there(t, e)
	second, err := b.PruneImages(t.Context(), root, q)
	if err != nil || second.Images != 0 || there(t, e) != left {
		t.Errorf("%s%s, was %s: %v", decided(second), there(t, e), left, err)
	}
	if !strings.HasPrefix(decided(first), "shop/a:1 goes") {
		t.Errorf("%s", decided(first))
	}
	for _, s := range second.Steps {
		if s.Why != "an up of shop is under way" {
			t.Errorf("%v: %s", s.Names, s.Why)
		}
	}
	done()
	build := b.host.lease("a build is under way")
	if got, err := b.PruneImages(t.Context(), root, q); err != nil || got.Images != 0 {
		t.Errorf("while a build goes on: %s%v", decided(got), err)
	}
	build()
	if _, err := b.PruneImages(t.Context(), root, q); err != nil || there(t, e) != "" {
		t.Errorf("then: %q, %v", there(t, e), err)
	}
}

// hung is an engine that never removes an image.
type hung struct {
	*enginetest.Fake
	asked func()
}

func (h hung) Discard(ctx context.Context, _ string, _ []string, _ bool) error {
	h.asked()
	<-ctx.Done()
	return ctx.Err()
}

// An engine that hangs is waited for a minute, and keeps nobody from reading the metrics meanwhile.
func TestACleanUpDoesNotWaitForAnEngineThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(t.TempDir(), store.Options{Reserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		e := &enginetest.Fake{}
		b := &backend{store: st, board: new(board), log: slog.New(slog.DiscardHandler)}
		b.engine = hung{e, func() {
			var f figures
			f.hostImages(&b.host)
			if !strings.Contains(f.String(), "tender_images_pruned_total 0") {
				t.Errorf("%s", f.String())
			}
		}}
		put(t, b, e, "a", 60, "pulled", "shop/a:1")
		got, err := b.PruneImages(t.Context(), root, api.PruneRequest{Rules: []api.RegistryRule{{OlderThan: 3600}}})
		if tender.KindOf(err) != tender.Unavailable || !strings.Contains(err.Error(), "the engine does not remove image shop/a:1 within 1m0s") || got.Images != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		b.host.lease("a build is under way")()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTwoCleanUpsAtOnceAndOneThatWasCutOff(t *testing.T) {
	b, e := tidy(t, ImagesConfig{})
	for n := range 20 {
		put(t, b, e, fmt.Sprintf("x%02d", n), 60, "pulled", fmt.Sprintf("shop/x:%d", n))
	}
	q := api.PruneRequest{Rules: []api.RegistryRule{{OlderThan: 3600}}}
	// A cancelled one is like one that was killed: what went is gone, the next goes on.
	ctx, cancel := context.WithCancelCause(t.Context())
	e.Meanwhile(func() { cancel(errors.New("enough")) })
	cut, err := b.PruneImages(ctx, root, q)
	if err == nil || cut.Images != 1 || !strings.Contains(decided(cut), "stays: the clean-up was cut off") {
		t.Errorf("%d, %v\n%s", cut.Images, err, decided(cut))
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for range 4 {
		wait.Go(func() {
			got, err := b.PruneImages(t.Context(), root, q)
			mu.Lock()
			defer mu.Unlock()
			total += got.Images
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if total != 19 || there(t, e) != "" {
		t.Errorf("%d went, there is %q", total, there(t, e))
	}
	// Rows of what somebody else has removed go with the next one.
	put(t, b, e, "y", 60, "pulled", "shop/y:1")
	if err := e.Discard(t.Context(), "sha256:y", []string{"shop/y:1"}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.PruneImages(t.Context(), root, q); err != nil {
		t.Fatal(err)
	}
	var rows []store.HostImage
	if err := b.store.View(t.Context(), func(tx *store.Tx) (err error) { rows, err = tx.HostImages(); return err }); err != nil || len(rows) > 0 {
		t.Errorf("%v, %v", rows, err)
	}
}

func TestACleanUpEndsOnceEnoughIsFree(t *testing.T) {
	b, e := tidy(t, ImagesConfig{})
	for n := range 5 {
		put(t, b, e, fmt.Sprintf("x%d", n), 60-n, "pulled", fmt.Sprintf("shop/x:%d", n))
	}
	put(t, b, e, "lost", 1, "built")
	free := func(context.Context) (int64, int64, error) {
		all, err := e.Shelf(t.Context())
		return int64(10-len(all)) * gib, 10 * gib, err
	}
	b.host.free = free
	e.SetCache(engine.Cached{Size: gib / 2, Used: time.Now().Add(-48 * time.Hour)}, engine.Cached{Size: gib / 2, InUse: true})
	for _, dry := range []bool{true, false} {
		got, err := b.PruneImages(t.Context(), root, api.PruneRequest{UntilFree: 0.6, BuildCache: true, Rules: []api.RegistryRule{{OlderThan: 3600}}, DryRun: dry})
		if err != nil {
			t.Fatal(err)
		}
		// In the dry run the cache is free space as well.
		want, images := "sha256:lost goes", 2
		if !strings.HasPrefix(decided(got), want) || got.Images != images || got.Cache != gib/2 || got.Free < 0.6 {
			t.Errorf("dry %v: %d images, cache %d, free %.2f\n%s", dry, got.Images, got.Cache, got.Free, decided(got))
		}
		if !strings.Contains(decided(got), "shop/x:4 stays: 6") {
			t.Errorf("dry %v: %s", dry, decided(got))
		}
	}
	b.host.free = func(context.Context) (int64, int64, error) { return 0, 0, nil }
	if _, err := b.PruneImages(t.Context(), root, api.PruneRequest{UntilFree: 0.9}); tender.KindOf(err) != tender.Unavailable {
		t.Errorf("an engine elsewhere: %v", err)
	}
}

func TestCleanUpsComeByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := tidy(t, ImagesConfig{GC: 3*time.Hour + 30*time.Minute, Free: 0.2, Retain: []registry.Rule{{OlderThan: 30 * 24 * time.Hour}}})
		b.started = time.Now()
		var short atomic.Bool
		b.host.free = func(context.Context) (int64, int64, error) {
			if short.Load() {
				return gib, 10 * gib, nil
			}
			return 5 * gib, 10 * gib, nil
		}
		put(t, b, e, "old", 40, "pulled", "shop/x:1")
		put(t, b, e, "later", 29, "pulled", "shop/x:2")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.tidyImages(ctx) }()
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if got := there(t, e); got != "later" {
			t.Errorf("after a day there is %q", got)
		}
		put(t, b, e, "second", 40, "pulled", "shop/x:3")
		short.Store(true)
		time.Sleep(3 * time.Minute) // well before the next night
		synctest.Wait()
		if got := there(t, e); strings.Contains(got, "second") {
			t.Errorf("with a short disk there is %q", got)
		}
		if p := problemOf(b, "image clean-up"); !strings.Contains(p, "10 % of the engine's disk are free, 20 % are wanted") {
			t.Errorf("status says %q", p)
		}
		calls := e.Calls()["Shelf"]
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if n := e.Calls()["Shelf"] - calls; n > 0 {
			t.Errorf("it looked %d times again within the half hour", n)
		}
		short.Store(false)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if p := problemOf(b, "image clean-up"); p != "" {
			t.Errorf("with room again status says %q", p)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func problemOf(b *backend, part string) string {
	for _, p := range b.board.all() {
		if p.Name == part {
			return p.Error
		}
	}
	return ""
}

func TestWhatTenderBroughtIsKnown(t *testing.T) {
	b, e := tidy(t, ImagesConfig{})
	e.SetImage("shop/a:1", tender.ImageID{Reference: "shop/a:1", ID: "sha256:a"})
	if err := b.pull(t.Context(), "shop/a:1", "", "", silent); err != nil {
		t.Fatal(err)
	}
	if err := b.Load(t.Context(), root, strings.NewReader("shop/b:1\nshop/c:1\n"), api.Arrival{}, silent); err != nil {
		t.Fatal(err)
	}
	var how []string
	if err := b.store.View(t.Context(), func(tx *store.Tx) error {
		all, err := tx.HostImages()
		for _, i := range all {
			how = append(how, i.How+" "+i.Reference)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(how)
	if diff := cmp.Diff([]string{"loaded shop/b:1", "loaded shop/c:1", "pulled shop/a:1"}, how); diff != "" {
		t.Error(diff)
	}
}

func TestWhatGoesOfTheEngineIsConfiguredStrictly(t *testing.T) {
	none := func(string) string { return "" }
	for text, want := range map[string]string{
		"images: {retain: [{keep: 3, keep_signed: true}]}": "images.retain[0].keep_signed: signatures lie in registries",
		"images: {retain: [{older: 3d}]}":                  `unknown key "images.retain[0].older"`,
		"images: {free: 200%}":                             "is neither a share of the disk such as 15%",
		"images: {free: 20}":                               "is neither a share of the disk such as 15%",
		"images: {gc: noon}":                               "is neither a time of day such as 03:00 nor off",
		"images: {build_cache: {}}":                        "want keep, older_than or both",
		"images: {foreign: some}":                          "is neither on nor off",
	} {
		file := filepath.Join(t.TempDir(), "tender.yaml")
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Configure(file, none, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	file := filepath.Join(t.TempDir(), "tender.yaml")
	if err := os.WriteFile(file, []byte("images:\n  retain: [{repositories: shop/*, keep: 3}]\n  free: 15%\n  gc: \"05:00\"\n  build_cache: {keep: 10GiB, older_than: 7d}\n  foreign: on\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Configure(file, none, nil)
	want := ImagesConfig{
		GC: 5 * time.Hour, Retain: []registry.Rule{{Repositories: []string{"shop/*"}, Keep: 3}}, Free: 0.15,
		BuildCache: &engine.CachePrune{Keep: 10 << 30, OlderThan: 7 * 24 * time.Hour}, Foreign: true,
	}
	if diff := cmp.Diff(want, c.Images); err != nil || diff != "" {
		t.Error(diff, err)
	}
	if c, err = Configure(os.DevNull, none, nil); err != nil || !c.Images.idle() || c.Images.GC != 3*time.Hour+30*time.Minute {
		t.Errorf("by default %+v, %v", c.Images, err)
	}
}
