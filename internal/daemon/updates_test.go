package daemon

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	foreign "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

// quay is a registry in this process: no connection keeps fake time from going on.
type quay struct {
	handler http.Handler
	mu      sync.Mutex
	asked   int
	before  func(req *http.Request) // each request
}

func newQuay() *quay { return &quay{handler: foreign.New(foreign.Logger(log.New(io.Discard, "", 0)))} }

func (q *quay) RoundTrip(req *http.Request) (*http.Response, error) {
	q.mu.Lock()
	q.asked++
	before := q.before
	q.mu.Unlock()
	if before != nil {
		before(req)
	}
	in := req.Clone(req.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	q.handler.ServeHTTP(w, in)
	out := w.Result()
	out.Request = req
	return out, nil
}

// push makes a new image with these names, and says its digest.
func (q *quay) push(t *testing.T, refs ...string) string {
	t.Helper()
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	return q.write(t, img, refs...)
}

func (q *quay) write(t *testing.T, img v1.Image, refs ...string) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range refs {
		n, err := name.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(n, img, remote.WithTransport(q)); err != nil {
			t.Fatal(err)
		}
	}
	return d.String()
}

// pier is one service in memory. What it is told to become, it becomes when the test says.
type pier struct {
	t       *testing.T
	q       *quay
	remote  *registry.Remote
	updates *updates

	mu       sync.Mutex
	service  deploy.ServiceImage
	before   deploy.ServiceImage
	rollouts []store.Rollout
	denied   error
	log      []string
}

const dock = "registry.example.com/shop/web"

// moored makes a service with an image and x-tender.update. It begins on Monday at noon, UTC.
func moored(t *testing.T, q *quay, st *store.Store, tag, update string) *pier {
	t.Helper()
	p := &pier{t: t, q: q, remote: registry.NewRemote(registry.RemoteOptions{Transport: q})}
	dir := t.TempDir()
	file := "name: shop\nservices:\n  web:\n    image: " + dock + ":" + tag + "\n    environment: {A: b}\n    x-tender: {update: " + update + "}\n"
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	doc, err := compose.Load(t.Context(), compose.Source{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	id, err := p.pull(t.Context(), dock+":"+tag, "")
	if err != nil {
		t.Fatal(err)
	}
	p.become([]byte(doc.YAML), id)
	l := &lookout{remote: p.remote, now: time.Now, tags: map[string]answered[[]string]{}, digests: map[string]answered[string]{}}
	p.updates = &updates{log: slog.New(slog.DiscardHandler), every: time.Hour, store: st, loop: p, look: l.look, pull: p.pull, up: p.up, told: map[string]string{}}
	return p
}

func (p *pier) become(yml []byte, id tender.ImageID) {
	project, err := compose.Parse(yml)
	if err != nil {
		p.t.Error(err)
		return
	}
	p.service.Project, p.service.Service, p.service.Image = "shop", project.Services[0], id
	p.service.Service.Revision = id.ID
	p.service.Generation = store.Generation{Project: "shop", N: p.service.Generation.N + 1, YAML: yml}
}

func (p *pier) Images(context.Context) ([]deploy.ServiceImage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return []deploy.ServiceImage{p.service}, nil
}

func (p *pier) Files(context.Context, store.Generation) (map[string][]byte, error) { return nil, nil }

func (p *pier) Rollouts(context.Context, string, string) ([]store.Rollout, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rollouts, nil
}

func (p *pier) Announce(n deploy.News) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := n.Text
	for i := strings.Index(text, "sha256:"); i >= 0; i = strings.Index(text, "sha256:") {
		text = text[:i] + "DIGEST" + text[i+len("sha256:")+12:]
	}
	p.log = append(p.log, time.Now().UTC().Format("Mon ")+strings.ReplaceAll(text, dock, "web"))
}

func (p *pier) pull(ctx context.Context, ref, _ string) (tender.ImageID, error) {
	r, err := p.remote.Parse(ctx, ref)
	if err != nil {
		return tender.ImageID{}, err
	}
	d, err := p.remote.Head(ctx, r)
	return tender.ImageID{Reference: ref, Digest: d.Digest, ID: "id " + d.Digest}, err
}

func (p *pier) up(ctx context.Context, s api.Submission, _ func(api.Event)) (api.Result, error) {
	project, err := compose.Parse([]byte(s.YAML))
	if err != nil {
		return api.Result{}, err
	}
	id, err := p.pull(ctx, project.Services[0].Image, "")
	if err != nil {
		return api.Result{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.denied != nil {
		return api.Result{}, p.denied
	}
	if !s.Detach || !s.NoDeps || strings.Join(s.Services, " ") != "web" || s.Scale["web"] != 1 {
		p.t.Errorf("it asks for %+v", s)
	}
	p.before = p.service
	p.become([]byte(s.YAML), id)
	p.rollouts = append([]store.Rollout{{ID: int64(len(p.rollouts) + 1), Service: "web", To: id.ID, ToImage: id, State: store.RolloutOpen, Started: time.Now()}}, p.rollouts...)
	p.service.Busy = "rollout 1 of web runs"
	return api.Result{Outcome: "accepted", Text: "generation 2 of shop"}, nil
}

// end ends the open rollout.
func (p *pier) end(state, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.rollouts[0]
	r.State, r.Reason = state, reason
	p.service.Busy = ""
	if state == store.RolledBack { // the file says what was tried, the service is what it was
		p.service.Service, p.service.Image = p.before.Service, p.before.Image
	}
}

func (p *pier) said(want ...string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if diff := cmp.Diff(strings.Join(want, "\n"), strings.Join(p.log, "\n")); diff != "" {
		p.t.Errorf("- want, + said\n%s", diff)
	}
	p.log = nil
}

// voyage runs a test in fake time, from Monday at noon.
func voyage(t *testing.T, do func(t *testing.T, q *quay, st *store.Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		// Fake time begins on Saturday 2000-01-01.
		time.Sleep(2*24*time.Hour + 12*time.Hour)
		st, err := store.Open(t.TempDir(), store.Options{Reserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		do(t, newQuay(), st)
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
}

// sail lets the part work for so long.
func (p *pier) sail(d time.Duration) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := p.updates.run(ctx); err != nil {
			p.t.Error(err)
		}
	})
	time.Sleep(d)
	synctest.Wait()
	cancel()
	done.Wait()
}

func TestUpdatesGoForwardInTheirRange(t *testing.T) {
	voyage(t, func(t *testing.T, q *quay, st *store.Store) {
		q.push(t, dock+":1.4.2")
		q.push(t, dock+":1.5.0", dock+":2.0.0", dock+":1.4", dock+":latest")
		q.push(t, dock+":1.4.4-rc.1", dock+":1.4.9-alpine", dock+":v1.4.8")
		p := moored(t, q, st, "1.4.2", "{range: ~1.4, auto: true}")
		p.sail(3 * time.Hour)
		p.said() // pre-releases, variants and what is beyond the range are nothing
		q.push(t, dock+":1.4.3")
		p.sail(90 * time.Minute)
		p.said("Mon web moves from web:1.4.2 to web:1.4.3 (DIGEST): the newest in ~1.4; generation 2 of shop")
		if got := p.service.Image.Reference; got != dock+":1.4.3" {
			t.Errorf("it runs %s", got)
		}
		p.end(store.RolloutDone, "")
		p.sail(2 * time.Hour)
		p.said("Mon the update of web to web:1.4.3 is done")
	})
}

func TestUpdatesFollowTagsThatWereRebuilt(t *testing.T) {
	voyage(t, func(t *testing.T, q *quay, st *store.Store) {
		q.push(t, dock+":stable")
		p := moored(t, q, st, "stable", "{auto: true}")
		digest := q.push(t, dock+":stable")
		p.sail(30 * time.Minute)
		p.said("Mon web moves from web:stable to web:stable (DIGEST): which was rebuilt; generation 2 of shop")
		if p.service.Image.Digest != digest {
			t.Errorf("it runs %s", p.service.Image.Digest)
		}
	})
}

func TestUpdatesWaitForTheirWindow(t *testing.T) {
	voyage(t, func(t *testing.T, q *quay, st *store.Store) {
		q.push(t, dock+":1.4.2")
		q.push(t, dock+":1.4.3")
		p := moored(t, q, st, "1.4.2", `{auto: true, window: "Sat-Sun 02:00-02:20 UTC"}`)
		p.sail(4 * 24 * time.Hour)
		p.said("Mon web: web:1.4.3 (DIGEST), the newest in 1.x: waits for its window Sat-Sun 02:00-02:20 UTC, which opens Sat 2000-01-08 02:00 UTC")
		p.sail(24 * time.Hour) // the window is shorter than the hour between two looks
		p.said(
			"Sat web moves from web:1.4.2 to web:1.4.3 (DIGEST): the newest in 1.x; generation 2 of shop",
		)
	})
}

func TestUpdatesThatTheGateDeniesAreLeftAlone(t *testing.T) {
	voyage(t, func(t *testing.T, q *quay, st *store.Store) {
		q.push(t, dock+":1.4.2")
		q.push(t, dock+":1.4.3")
		p := moored(t, q, st, "1.4.2", "{auto: true}")
		p.denied = tender.Errorf(tender.Denied, "the gate denies it: CVE-2026-1")
		p.sail(time.Hour / 2)
		p.said("Mon web does not move to web:1.4.3 (DIGEST): the gate denies it: CVE-2026-1; it is tried again after 6 h")
		p.denied = nil
		p.updates.told = map[string]string{} // as after a restart
		p.sail(5 * time.Hour)
		p.said("Mon web: web:1.4.3 (DIGEST), the newest in 1.x: left alone, for it was tried at 2000-01-03 12:01:00: denied")
		q.push(t, dock+":1.4.3") // another digest
		p.sail(2 * time.Hour)
		p.said("Mon web moves from web:1.4.2 to web:1.4.3 (DIGEST): the newest in 1.x; generation 2 of shop")
	})
}

// What is denied for a reason that passes comes later, and is told of once meanwhile.
func TestUpdatesThatWereDeniedAreTriedAgainAfterHours(t *testing.T) {
	voyage(t, func(t *testing.T, q *quay, st *store.Store) {
		q.push(t, dock+":1.4.2")
		q.push(t, dock+":1.4.3")
		p := moored(t, q, st, "1.4.2", "{auto: true}")
		p.denied = tender.Errorf(tender.Denied, "web:1.4.3 is not signed")
		p.sail(15 * time.Hour)
		p.said("Mon web does not move to web:1.4.3 (DIGEST): web:1.4.3 is not signed; it is tried again after 6 h")
		p.denied = nil
		p.sail(7 * time.Hour)
		p.said("Tue web moves from web:1.4.2 to web:1.4.3 (DIGEST): the newest in 1.x; generation 2 of shop")
	})
}

// An image that the engine knows by two digests of its repository runs already, whichever it names.
func TestUpdatesToTheImageThatRunsAreTriedOnce(t *testing.T) {
	voyage(t, func(t *testing.T, q *quay, st *store.Store) {
		q.push(t, dock+":stable")
		p := moored(t, q, st, "stable", "{auto: true}")
		pulls := 0
		p.updates.pull = func(context.Context, string, string) (tender.ImageID, error) {
			pulls++
			return p.service.Image, nil
		}
		q.push(t, dock+":stable")
		p.sail(6 * time.Hour)
		p.said("Mon web: web:stable (DIGEST), which was rebuilt: left alone, for it was tried at 2000-01-03 12:01:00: it is the image that ran")
		if pulls != 1 {
			t.Errorf("it was pulled %d times", pulls)
		}
	})
}

func TestUpdatesThatWereRolledBackAreRememberedOverARestart(t *testing.T) {
	voyage(t, func(t *testing.T, q *quay, st *store.Store) {
		q.push(t, dock+":1.4.2")
		q.push(t, dock+":1.4.3")
		p := moored(t, q, st, "1.4.2", "{auto: true}")
		p.sail(time.Hour / 2)
		p.said("Mon web moves from web:1.4.2 to web:1.4.3 (DIGEST): the newest in 1.x; generation 2 of shop")
		p.end(store.RolledBack, "not healthy in 30s")
		p.updates.told = map[string]string{}
		p.sail(10 * time.Hour)
		p.said(
			"Mon the update of web to web:1.4.3 has ended: rolled back: not healthy in 30s; DIGEST is not tried again",
			"Mon web: web:1.4.3 (DIGEST), the newest in 1.x: left alone, for it was tried at 2000-01-03 12:01:00: rolled back",
		)
		q.push(t, dock+":1.4.4")
		p.sail(2 * time.Hour)
		p.said("Mon web moves from web:1.4.2 to web:1.4.4 (DIGEST): the newest in 1.x; generation 2 of shop")
	})
}

func TestUpdatesLeaveAloneWhatIsBusyStoppedOrWentBack(t *testing.T) {
	voyage(t, func(t *testing.T, q *quay, st *store.Store) {
		q.push(t, dock+":1.4.2")
		q.push(t, dock+":1.4.3")
		p := moored(t, q, st, "1.4.2", "{auto: true}")
		p.service.Busy = "rollout 7 of api runs"
		p.sail(3 * time.Hour)
		p.said("Mon web: web:1.4.3 (DIGEST), the newest in 1.x: waits, rollout 7 of api runs")
		p.service.Busy, p.service.Stopped = "", true
		p.sail(3 * time.Hour)
		p.said("Mon web: web:1.4.3 (DIGEST), the newest in 1.x: left alone while the service is stopped")
		p.service.Stopped = false
		now, err := compose.Parse([]byte(strings.Replace(string(p.service.Generation.YAML), "A: b", "A: c", 1)))
		if err != nil {
			t.Fatal(err)
		}
		p.service.Service = now.Services[0] // a person went back to another revision
		p.sail(3 * time.Hour)
		p.said("Mon web: web:1.4.3 (DIGEST), the newest in 1.x: left alone, for an earlier revision runs than the file describes; tender up decides")
	})
}

// What was written down, but never became a rollout because the daemon died, is tried again.
func TestUpdatesThatWereCutOffAreTriedAgain(t *testing.T) {
	voyage(t, func(t *testing.T, q *quay, st *store.Store) {
		q.push(t, dock+":1.4.2")
		digest := q.push(t, dock+":1.4.3")
		p := moored(t, q, st, "1.4.2", "{auto: true}")
		if err := st.Update(t.Context(), func(tx *store.Tx) error {
			return tx.PutImageUpdate(store.ImageUpdate{Project: "shop", Service: "web", Digest: digest, Reference: dock + ":1.4.3", State: store.UpdateTrying, At: time.Now()})
		}); err != nil {
			t.Fatal(err)
		}
		p.sail(time.Hour / 2)
		p.said("Mon web moves from web:1.4.2 to web:1.4.3 (DIGEST): the newest in 1.x; generation 2 of shop")
	})
}

func TestNothingIsAskedWhereNobodyUpdatesByItself(t *testing.T) {
	voyage(t, func(t *testing.T, q *quay, st *store.Store) {
		q.push(t, dock+":1.4.2")
		p := moored(t, q, st, "1.4.2", "{range: 1.x}")
		q.mu.Lock()
		asked := q.asked
		q.mu.Unlock()
		p.sail(48 * time.Hour)
		if q.asked != asked {
			t.Errorf("the registry was asked %d times", q.asked-asked)
		}
	})
}

func TestOutdatedSaysWhatIsNewer(t *testing.T) {
	q := newQuay()
	old := q.push(t, dock+":1.4.2")
	q.push(t, dock+":1.4.9", dock+":1.9.0", dock+":2.1.0")
	q.push(t, dock+":1.4.2")
	q.push(t, dock+":stable")
	c := registry.NewRemote(registry.RemoteOptions{Transport: q})
	l := &lookout{remote: c, now: time.Now, tags: map[string]answered[[]string]{}, digests: map[string]answered[string]{}}
	for _, tt := range []struct {
		r    running
		want string
	}{
		{running{image: tender.ImageID{Reference: dock + ":1.4.2", Digest: old}}, "1.9.0 2.1.0 rebuilt=true outdated=true 1.x"},
		{running{image: tender.ImageID{Reference: dock + ":1.4.2"}, rule: tender.Update{Range: "~1.4"}}, "1.4.9 2.1.0 rebuilt=false outdated=true ~1.4"},
		{running{image: tender.ImageID{Reference: dock + ":2.1.0"}}, "2.1.0 2.1.0 rebuilt=false outdated=false 2.x"},
		{running{image: tender.ImageID{Reference: dock + ":stable", Digest: old}}, "  rebuilt=true outdated=true "},
		{running{image: tender.ImageID{Reference: dock + "@" + old}}, "  rebuilt=false outdated=false  it is named by its digest alone"},
		{running{image: tender.ImageID{Reference: "web:1"}, built: true}, "  rebuilt=false outdated=false  it is built here"},
		{running{image: tender.ImageID{Reference: dock + "/none:1"}}, "  rebuilt=false outdated=false  no registry has it"},
	} {
		o := l.look(t.Context(), tt.r)
		got := strings.TrimRight(fmt.Sprintf("%s %s rebuilt=%v outdated=%v %s %s", o.InRange, o.Newest, o.Rebuilt, o.Outdated, o.Range, o.Problem), " ")
		if got != strings.TrimRight(tt.want, " ") {
			t.Errorf("%s: %s, want %s", tt.r.image.Reference, got, tt.want)
		}
	}
	asked := q.asked
	l.look(t.Context(), running{image: tender.ImageID{Reference: dock + ":1.4.2", Digest: old}})
	if q.asked != asked {
		t.Error("what is known was asked again")
	}
}
