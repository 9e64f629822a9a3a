package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	foreign "github.com/google/go-containerregistry/pkg/registry"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/policy"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

var ann = api.Person{Name: "ann", Scope: api.Deploy}

// yard is a daemon with a registry of its own, and a foreign registry beside it.
type yard struct {
	*backend
	t    *testing.T
	away string // the foreign one's host
	// broken answers requests to the foreign one with 500 where it says so.
	broken atomic.Pointer[func(*http.Request) bool]
}

func newYard(t *testing.T, pipeline func(away string) []Step) *yard {
	t.Helper()
	y := &yard{t: t}
	inner := foreign.New(foreign.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := y.broken.Load(); f != nil && (*f)(r) {
			http.Error(w, "broken", http.StatusInsufficientStorage) // which no client tries again
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	y.away = strings.TrimPrefix(server.URL, "http://")
	b := scanning(t, oldAlpine(t), Config{RegistryDir: filepath.Join(t.TempDir(), "registry"), Listen: "127.0.0.1:7070", Pipeline: pipeline(y.away)})
	b.log, b.board = slog.New(slog.DiscardHandler), new(board)
	b.images = openRegistryRoom(b, b.log)
	t.Cleanup(func() {
		if err := b.images.Close(); err != nil {
			t.Error(err)
		}
	})
	b.remote = registry.NewRemote(registry.RemoteOptions{Own: b.images.get, Hosts: ownHosts(b.config.Listen), Store: b.store})
	b.knowledge.promoted = b.promotedTo
	y.backend = b
	return y
}

// push puts an image there whose digest follows from its words.
func (y *yard) push(host, repository, tag, words string) string {
	y.t.Helper()
	to := registry.Reference{Host: host, Repository: repository, Tag: tag}
	layer := tarWith(y.t, [2]string{"etc/os-release", "ID=alpine\nVERSION_ID=3.18.4\n"}, [2]string{"lib/apk/db/installed", "P:libssl3\nV:3.1.0-r0\nA:x86_64\no:openssl\n\n"}, [2]string{"words", words})
	put := func(media string, data []byte) string {
		d, err := y.remote.PutBlob(y.t.Context(), to, registry.Blob{MediaType: media, Data: data})
		if err != nil {
			y.t.Fatal(err)
		}
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, media, d, len(data))
	}
	l := put("application/vnd.oci.image.layer.v1.tar", layer)
	diff := l[strings.Index(l, "sha256:"):][:71]
	c := put("application/vnd.oci.image.config.v1+json", []byte(`{"architecture":"amd64","os":"linux","config":{"User":"65534","Labels":{"org.opencontainers.image.revision":"abc123","org.opencontainers.image.source":"https://git.example.com/shop"}},"rootfs":{"type":"layers","diff_ids":["`+diff+`"]}}`))
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` + c + `,"layers":[` + l + `]}`
	if err := y.remote.Put(y.t.Context(), to, []byte(manifest), "application/vnd.oci.image.manifest.v1+json"); err != nil {
		y.t.Fatal(err)
	}
	return y.digest(to.String())
}

// digest is what a name leads to; "" nothing.
func (y *yard) digest(name string) string {
	y.t.Helper()
	ref, err := y.remote.Parse(y.t.Context(), name)
	if err != nil {
		y.t.Fatal(err)
	}
	d, err := y.remote.Head(y.t.Context(), ref)
	if err != nil && tender.KindOf(err) != tender.NotFound {
		y.t.Fatal(err)
	}
	return d.Digest
}

func (y *yard) referrers(name string) int {
	y.t.Helper()
	ref, err := y.remote.Parse(y.t.Context(), name)
	if err != nil {
		y.t.Fatal(err)
	}
	found, err := y.remote.Referrers(y.t.Context(), ref, artifactPromotion)
	if err != nil {
		y.t.Fatal(err)
	}
	return len(found)
}

func (y *yard) promote(q api.PromoteRequest) (api.Promotion, error) {
	return y.Promote(y.t.Context(), ann, q, silent)
}

func (y *yard) must(q api.PromoteRequest) api.Promotion {
	y.t.Helper()
	p, err := y.promote(q)
	if err != nil {
		y.t.Fatalf("%+v: %v (%s)", q, err, tender.AdviceOf(err))
	}
	return p
}

func (y *yard) steps(digest string) string {
	y.t.Helper()
	steps, err := y.promotedTo(y.t.Context(), digest)
	if err != nil {
		y.t.Fatal(err)
	}
	return strings.Join(steps, " ")
}

// walk is each kind of step: a fact, a prefix, another registry with tags of its own.
func walk(away string) []Step {
	return []Step{
		{Name: "dev"},
		{Name: "staging", Prefix: "staging/", Gate: policy.Gate{From: "dev"}},
		{Name: "production", Registry: away, Tag: "{version}-prod", Gate: policy.Gate{From: "staging"}},
	}
}

func TestADigestGoesThroughThePipelineInItsOrder(t *testing.T) {
	y := newYard(t, walk)
	one := y.push("", "shop/web", "1.4.2", "one")
	_, err := y.promote(api.PromoteRequest{Reference: "shop/web:1.4.2", To: "production"})
	want := "the gate of production denies it, nothing has changed:\ngate/promotion: it was not promoted to staging: to no step: tender image promote shop/web:1.4.2 --to staging"
	if tender.KindOf(err) != tender.Denied || err.Error() != want {
		t.Fatalf("past the steps before: %v", err)
	}
	if p := y.must(api.PromoteRequest{Reference: "shop/web:1.4.2", To: "dev", DryRun: true}); !p.DryRun || y.steps(one) != "" {
		t.Errorf("a dry run: %+v, %s", p, y.steps(one))
	}
	if p := y.must(api.PromoteRequest{Reference: "shop/web:1.4.2", To: "dev", Reason: "tests pass"}); p.Target != "" || p.Digest != one || p.Evidence.Revision != "abc123" {
		t.Errorf("to dev: %+v", p)
	}
	if p := y.must(api.PromoteRequest{Reference: "shop/web:1.4.2", To: "dev"}); !p.Already {
		t.Errorf("again: %+v", p)
	}
	y.must(api.PromoteRequest{Reference: "shop/web:1.4.2", To: "staging"})
	if got := y.digest("staging/shop/web:1.4.2"); got != one {
		t.Errorf("at staging: %s, want %s", got, one)
	}
	// From where it lies at the step before, and by what stands there.
	p := y.must(api.PromoteRequest{Reference: "shop/web", From: "staging", To: "production", Reason: "release"})
	if p.Target != y.away+"/shop/web:1.4.2-prod" || p.From != "staging" || p.Evidence.Source != "staging/shop/web:1.4.2" || p.Evidence.Reason != "release" {
		t.Errorf("to production: %+v", p)
	}
	if got := y.digest(p.Target); got != one || y.steps(one) != "dev staging production" {
		t.Errorf("at production: %s, want %s; %s", got, one, y.steps(one))
	}
	// Its own evidence, and that of the steps before, which came along.
	if n := y.referrers(p.Target); n != 3 {
		t.Errorf("%d pieces of evidence at production", n)
	}
	needed, err := y.neededImages(t.Context())
	if err != nil || needed[one] == "" {
		t.Errorf("clean-up keeps %v, %v", needed, err)
	}
	// The next version, and back.
	two := y.push("", "shop/web", "1.5.0", "two")
	for _, step := range []string{"dev", "staging", "production"} {
		y.must(api.PromoteRequest{Reference: "shop/web:1.5.0", To: step})
	}
	if _, err := y.promote(api.PromoteRequest{Reference: "shop/web:1.4.2", To: "production", Undo: true}); tender.KindOf(err) != tender.Conflict {
		t.Errorf("an undo of what does not stand: %v", err)
	}
	for i := range 2 { // the second finds it done
		p := y.must(api.PromoteRequest{Reference: "shop/web:1.5.0", To: "production", Undo: true, Reason: "slow"})
		if p.Digest != one || p.Already != (i == 1) || !p.Undo {
			t.Errorf("undo: %+v", p)
		}
	}
	if got := y.digest(y.away + "/shop/web:1.5.0-prod"); got != "" || y.steps(two) != "dev staging" || y.digest(p.Target) != one {
		t.Errorf("after the undo: %s, %s", got, y.steps(two))
	}
	list, err := y.ListImages(t.Context(), ann, "shop/web")
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, i := range list {
		got += strings.Join(i.Tags, ",")
		for _, s := range i.Stands {
			got += " " + s.Step
		}
		got += fmt.Sprintf(" %d; ", len(i.Promotions))
	}
	// 1.4.2 was promoted three times, and stands again by the undo.
	if want := "1.5.0 staging dev 3; 1.4.2 production 4; "; got != want {
		t.Errorf("list: %s\nwant  %s", got, want)
	}
	if _, err := y.ListImages(t.Context(), ann, "shop/none"); tender.KindOf(err) != tender.NotFound {
		t.Errorf("a list of what there is not: %v", err)
	}
	if list, err := y.ListImages(t.Context(), api.Person{Name: "bob", Scope: api.Read, Projects: []string{"blog"}}, ""); err != nil || len(list) != 0 {
		t.Errorf("bob sees %v, %v", list, err)
	}
}

func TestWhatAPromotionIsRefusedFor(t *testing.T) {
	y := newYard(t, walk)
	y.push("", "shop/web", "1", "one")
	y.push("", "shop/api", "latest", "api")
	for what, c := range map[string]struct {
		who  api.Person
		q    api.PromoteRequest
		want string
	}{
		"a step that is none":     {ann, api.PromoteRequest{Reference: "shop/web:1", To: "prodction"}, `the pipeline has no step "prodction", only dev, staging, production did you mean: production`},
		"backwards":               {ann, api.PromoteRequest{Reference: "shop/web:1", To: "dev", From: "staging"}, "staging is no step before dev"},
		"a stranger":              {api.Person{Name: "bob", Scope: api.Deploy, Projects: []string{"blog"}}, api.PromoteRequest{Reference: "shop/web:1", To: "dev"}, "bob may not promote shop/web"},
		"what was never pushed":   {ann, api.PromoteRequest{Reference: "local:1", To: "dev"}, "local:1 is in the engine alone: it was never pushed"},
		"how to push it":          {ann, api.PromoteRequest{Reference: "local:1", To: "dev"}, "docker push 127.0.0.1:7070/local:1"},
		"a tag that is not there": {ann, api.PromoteRequest{Reference: "shop/web:2", To: "dev"}, "our own registry does not have it"},
		"not promoted to from":    {ann, api.PromoteRequest{Reference: "shop/web:1", From: "dev", To: "staging"}, "it was not promoted to dev"},
		"nothing stands at from":  {ann, api.PromoteRequest{Reference: "shop/web", From: "dev", To: "staging"}, "nothing of shop/web stands at dev"},
		"nothing to undo":         {ann, api.PromoteRequest{Reference: "shop/web:1", To: "dev", Undo: true}, "nothing of shop/web stands at dev"},
		"no version":              {ann, api.PromoteRequest{Reference: "shop/web@" + y.digest("shop/web:1"), To: "production"}, "nobody knows the version of"},
	} {
		_, err := y.Promote(t.Context(), c.who, c.q, silent)
		if err == nil || !strings.Contains(err.Error()+" "+tender.AdviceOf(err), c.want) {
			t.Errorf("%s: %v (%s), want %s", what, err, tender.AdviceOf(err), c.want)
		}
	}
	y.config.Pipeline = nil
	if _, err := y.promote(api.PromoteRequest{Reference: "shop/web:1", To: "dev"}); err == nil || !strings.Contains(err.Error(), "there is no pipeline") {
		t.Errorf("without a pipeline: %v", err)
	}
}

// An image of our own has no name that Docker reads as its own.
func TestAnImageOfOurOwnIsNoneOfDockers(t *testing.T) {
	var c policy.Compiler
	rule, err := c.Compile(policy.Rule{Name: "docker", Expr: `image.registry == "docker.io"`})
	if err != nil {
		t.Fatal(err)
	}
	y := newYard(t, func(string) []Step {
		return []Step{{Name: "ruled", Gate: policy.Gate{Rules: []policy.Rule{rule}}}, {Name: "scanned", Gate: policy.Gate{Deny: tender.Critical}}}
	})
	y.push("", "shop/web", "1", "one")
	if err := y.scans.update(t.Context(), api.AdvisoriesUpdate{From: advisories(t, "CVE-2024-1")}, silent); err != nil {
		t.Fatal(err)
	}
	if err := y.store.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.AddWaiver(tender.Waiver{Finding: "CVE-2024-1", Scope: "docker.io/shop/web", Reason: "theirs", By: "bob", Made: tomorrow().AddDate(0, 0, -1), Until: tomorrow()})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for step, want := range map[string]string{"ruled": "docker", "scanned": "CVE-2024-1"} {
		if _, err := y.promote(api.PromoteRequest{Reference: "shop/web:1", To: step}); tender.KindOf(err) != tender.Denied || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", step, err)
		}
	}
}

// A step may name our own registry as everybody else does.
func TestAStepMayNameOurRegistryByItsHost(t *testing.T) {
	y := newYard(t, func(string) []Step { return []Step{{Name: "live", Registry: "registry.example.com", Prefix: "live/"}} })
	y.config.RegistryHost = "registry.example.com"
	y.remote = y.registries(nil)
	one := y.push("", "shop/web", "1", "one")
	if p := y.must(api.PromoteRequest{Reference: "registry.example.com/shop/web:1", To: "live"}); p.Repository != "shop/web" || p.Target != "live/shop/web:1" || y.digest("live/shop/web:1") != one {
		t.Errorf("%+v", p)
	}
	_, err := y.promote(api.PromoteRequest{Reference: "local:1", To: "live"})
	if !strings.Contains(tender.AdviceOf(err), "docker push registry.example.com/local:1") {
		t.Errorf("how to push: %v (%s)", err, tender.AdviceOf(err))
	}
}

// A gate asks for scans and registries of what may not even be in the engine.
func TestTheGateOfAStepIsAskedOfTheRegistry(t *testing.T) {
	y := newYard(t, func(away string) []Step {
		return []Step{{Name: "dev", Gate: policy.Gate{Deny: tender.Critical}}, {Name: "production", Registry: away, Gate: policy.Gate{Registries: []string{"registry.company.com"}}}}
	})
	one := y.push("", "shop/web", "1", "one")
	if err := y.scans.update(t.Context(), api.AdvisoriesUpdate{From: advisories(t, "CVE-2024-1")}, silent); err != nil {
		t.Fatal(err)
	}
	_, err := y.promote(api.PromoteRequest{Reference: "shop/web:1", To: "dev"})
	if tender.KindOf(err) != tender.Denied || !strings.Contains(err.Error(), "CVE-2024-1 (critical 9.8) in libssl3 3.1.0-r0") {
		t.Fatalf("a critical one: %v", err)
	}
	if err := y.store.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.AddWaiver(tender.Waiver{Finding: "CVE-2024-1", Reason: "not reachable", By: "bob", Made: tomorrow().AddDate(0, 0, -1), Until: tomorrow()})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	p := y.must(api.PromoteRequest{Reference: "shop/web:1", To: "dev"})
	if p.Evidence.Scan == nil || p.Evidence.Scan.Found["critical"] != 1 || p.Evidence.Scan.Fixable != 1 || len(p.Evidence.Exceptions) != 1 || !strings.Contains(p.Evidence.Exceptions[0], "by bob: not reachable") {
		t.Errorf("the evidence: %+v %v", p.Evidence.Scan, p.Evidence.Exceptions)
	}
	if _, err := y.promote(api.PromoteRequest{Reference: "shop/web:1", To: "production"}); err == nil || !strings.Contains(err.Error(), "it comes from "+y.away+"/shop/web, which is not among the allowed") {
		t.Errorf("a registry that is not allowed: %v", err)
	}
	// What is attached is what the store has.
	ref := registry.Reference{Repository: "shop/web", Digest: p.Referrer}
	raw, _, err := y.remote.Manifest(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Subject struct{ Digest string }
		Layers  []struct{ Digest string }
	}
	if err := json.Unmarshal(raw, &m); err != nil || m.Subject.Digest != one || len(m.Layers) != 1 {
		t.Fatalf("%s %v", raw, err)
	}
	blob, err := y.remote.Blob(t.Context(), ref, m.Layers[0].Digest, 1<<20)
	var e api.PromotionEvidence
	if err := errors.Join(err, json.Unmarshal(blob, &e)); err != nil || e.Digest != one || e.Who != "ann" || e.Step != "dev" {
		t.Errorf("%s %v", blob, err)
	}
}

func TestAPromotionThatIsKilledIsNothingOrIsEnded(t *testing.T) {
	killed := errors.New("killed")
	for _, at := range []string{"begun", "copied", "attached", "tagged", "undo begun", "undo tagged"} {
		t.Run(at, func(t *testing.T) {
			y := newYard(t, func(away string) []Step {
				return []Step{{Name: "production", Registry: away, Prefix: "live/", Tag: "current"}}
			})
			one := y.push("", "shop/web", "1", "one")
			two := y.push("", "shop/web", "2", "two")
			target := y.away + "/live/shop/web:current"
			q := api.PromoteRequest{Reference: "shop/web:2", To: "production", Undo: strings.HasPrefix(at, "undo")}
			y.must(api.PromoteRequest{Reference: "shop/web:1", To: "production"})
			before, after := one, two
			if q.Undo {
				y.must(api.PromoteRequest{Reference: "shop/web:2", To: "production"})
				before, after = two, one
			}
			y.promoting.crash = func(where string) error {
				if where == at {
					return killed
				}
				return nil
			}
			if _, err := y.promote(q); !errors.Is(err, killed) {
				t.Fatalf("it was not killed: %v", err)
			}
			stands := func() (digest string, unfinished int) {
				var all []store.Promotion
				if err := y.store.View(t.Context(), func(tx *store.Tx) (err error) { all, err = tx.Promotions("", ""); return err }); err != nil {
					t.Fatal(err)
				}
				for _, p := range all {
					if !p.Done {
						unfinished++
					}
				}
				if s := store.Stands(all); len(s) == 1 {
					digest = s[0].Now.Digest
				}
				return digest, unfinished
			}
			if d, n := stands(); d != before || n != 1 {
				t.Errorf("after the kill %s stands, want %s; %d were begun", d, before, n)
			}
			y.promoting.crash = nil
			if p := y.must(q); p.Already || p.Digest != after {
				t.Errorf("again: %+v", p)
			}
			if d, n := stands(); d != after || n != 0 || y.digest(target) != after {
				t.Errorf("in the end %s stands, and the tag is %s, want %s; %d were begun", d, y.digest(target), after, n)
			}
			if n := y.referrers(target); n != 1 {
				t.Errorf("%d pieces of evidence", n)
			}
			if !q.Undo {
				y.must(api.PromoteRequest{Reference: "shop/web:2", To: "production", Undo: true})
				if y.digest(target) != one {
					t.Error("an undo after it does not give back the tag")
				}
			}
		})
	}
}

// An undo takes back what was begun last, though it was cut off, and not what stood before.
func TestWhatWasCutOffIsTakenBackFirst(t *testing.T) {
	killed := errors.New("killed")
	for _, at := range []string{"begun", "copied", "tagged"} {
		for _, name := range []string{"shop/web", "shop/web:2"} {
			y := newYard(t, func(away string) []Step {
				return []Step{{Name: "production", Registry: away, Prefix: "live/", Tag: "current"}}
			})
			one := y.push("", "shop/web", "1", "one")
			y.push("", "shop/web", "2", "two")
			y.must(api.PromoteRequest{Reference: "shop/web:1", To: "production"})
			y.promoting.crash = func(where string) error {
				if where == at {
					return killed
				}
				return nil
			}
			if _, err := y.promote(api.PromoteRequest{Reference: "shop/web:2", To: "production"}); !errors.Is(err, killed) {
				t.Fatalf("it was not killed: %v", err)
			}
			y.promoting.crash = nil
			if _, err := y.promote(api.PromoteRequest{Reference: "shop/web:1", To: "production", Undo: true}); tender.KindOf(err) != tender.Conflict || !strings.Contains(tender.AdviceOf(err), "tender image promote shop/web:2 --to production ") {
				t.Errorf("cut off at %s: an undo of what stands: %v (%s)", at, err, tender.AdviceOf(err))
			}
			if p := y.must(api.PromoteRequest{Reference: name, To: "production", Undo: true}); p.Digest != one || p.Already || !p.Undo {
				t.Errorf("cut off at %s: %+v", at, p)
			}
			if d := y.digest(y.away + "/live/shop/web:current"); d != one || y.steps(one) != "production" {
				t.Errorf("cut off at %s: the tag is %s, want %s; %q", at, d, one, y.steps(one))
			}
			if p := y.must(api.PromoteRequest{Reference: "shop/web:1", To: "production"}); !p.Already {
				t.Errorf("cut off at %s: something is left: %+v", at, p)
			}
		}
	}
}

// What somebody put under the tag by hand was asked about by no gate, and no undo brings it back.
func TestAnUndoGoesBackToWhatWasPromoted(t *testing.T) {
	for _, ours := range []bool{true, false} {
		y := newYard(t, func(away string) []Step {
			if ours {
				away = ""
			}
			return []Step{{Name: "production", Registry: away, Prefix: "live/", Tag: "current"}}
		})
		host := y.away
		if ours {
			host = ""
		}
		one := y.push("", "shop/web", "1", "one")
		y.push("", "shop/web", "2", "two")
		y.must(api.PromoteRequest{Reference: "shop/web:1", To: "production"})
		y.push(host, "live/shop/web", "current", "by hand")
		p := y.must(api.PromoteRequest{Reference: "shop/web:2", To: "production"})
		y.must(api.PromoteRequest{Reference: "shop/web:2", To: "production", Undo: true})
		if got := y.digest(p.Target); got != one {
			t.Errorf("the tag is %s, want %s", got, one)
		}
	}
}

// Two promotions may share a version: an undo that names it, typed twice, undoes one of them.
func TestAnUndoOfASharedVersionIsSafeToRepeat(t *testing.T) {
	y := newYard(t, walk)
	var digests []string
	for _, words := range []string{"one", "two", "three"} {
		digests = append(digests, y.push("", "shop/web", "latest", words))
		y.must(api.PromoteRequest{Reference: "shop/web:latest", To: "dev"})
	}
	for i := range 2 {
		if p := y.must(api.PromoteRequest{Reference: "shop/web:latest", To: "dev", Undo: true}); p.Digest != digests[1] || p.Already != (i == 1) {
			t.Errorf("undo %d: %+v", i, p)
		}
	}
	for i := range 2 {
		p, err := y.promote(api.PromoteRequest{Reference: "shop/web@" + digests[1], To: "dev", Undo: true})
		if err != nil || p.Digest != digests[0] || p.Already != (i == 1) {
			t.Errorf("undo %d by the digest: %+v, %v", i, p, err)
		}
	}
	if y.steps(digests[0]) != "dev" || y.steps(digests[1]) != "" {
		t.Errorf("%q, %q", y.steps(digests[0]), y.steps(digests[1]))
	}
}

// A list is there without what nobody can say.
func TestTheListStaysWhereNobodySaysWhoSigned(t *testing.T) {
	y := newYard(t, walk)
	y.push("", "shop/web", "1", "one")
	key, err := registry.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := y.remote.Sign(t.Context(), registry.Reference{Repository: "shop/web", Tag: "1"}, registry.Signing{Key: key}); err != nil {
		t.Fatal(err)
	}
	y.knowledge.signers = func(context.Context, tender.ImageID) ([]string, error) {
		return nil, tender.Errorf(tender.Conflict, "a signature is damaged")
	}
	list, err := y.ListImages(t.Context(), ann, "shop/web")
	if err != nil || len(list) == 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	if !slices.ContainsFunc(list, func(i api.ListedImage) bool { return i.Signed }) {
		t.Errorf("none is signed: %+v", list)
	}
}

// Whoever goes away when all is written leaves a promotion that is done.
func TestAPromotionThatIsWrittenIsDone(t *testing.T) {
	y := newYard(t, walk)
	one := y.push("", "shop/web", "1", "one")
	ctx, cancel := context.WithCancel(t.Context())
	y.promoting.crash = func(where string) error {
		if where == "tagged" {
			cancel()
		}
		return nil
	}
	if _, err := y.Promote(ctx, ann, api.PromoteRequest{Reference: "shop/web:1", To: "dev"}, silent); err != nil || y.steps(one) != "dev" {
		t.Errorf("%v, %q", err, y.steps(one))
	}
}

func TestATagThatMovesUnderwayIsRefused(t *testing.T) {
	y := newYard(t, func(away string) []Step { return []Step{{Name: "production", Registry: away, Tag: "{version}-prod"}} })
	one := y.push("", "shop/web", "1", "one")
	y.promoting.crash = func(where string) error {
		if where == "attached" {
			y.push("", "shop/web", "1", "another")
		}
		return nil
	}
	_, err := y.promote(api.PromoteRequest{Reference: "shop/web:1", To: "production"})
	if tender.KindOf(err) != tender.Conflict || !strings.Contains(err.Error(), "somebody pushed meanwhile") {
		t.Errorf("%v", err)
	}
	if y.digest(y.away+"/shop/web:1-prod") != "" || y.steps(one) != "" {
		t.Error("it was promoted all the same")
	}
}

func TestARegistryThatFailsMidwayLosesNothing(t *testing.T) {
	y := newYard(t, func(away string) []Step { return []Step{{Name: "production", Registry: away, Tag: "{version}-prod"}} })
	one := y.push("", "shop/web", "1", "one")
	for _, at := range []string{"/blobs/uploads/", "/manifests/sha256:", "/manifests/1-prod"} {
		fails := func(r *http.Request) bool {
			return r.Method != http.MethodGet && r.Method != http.MethodHead && strings.Contains(r.URL.Path, at)
		}
		y.broken.Store(&fails)
		if _, err := y.promote(api.PromoteRequest{Reference: "shop/web:1", To: "production"}); tender.KindOf(err) != tender.Unavailable || tender.AdviceOf(err) == "" {
			t.Errorf("%s: %v", at, err)
		}
		if y.steps(one) != "" {
			t.Errorf("%s: it counts as promoted", at)
		}
	}
	y.broken.Store(nil)
	if p := y.must(api.PromoteRequest{Reference: "shop/web:1", To: "production"}); y.digest(p.Target) != one {
		t.Errorf("in the end: %+v", p)
	}
}

func TestPromotionsOfOneRepositoryToOneStepTakeTurns(t *testing.T) {
	y := newYard(t, walk)
	one := y.push("", "shop/web", "1", "one")
	var already atomic.Int32
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			p, err := y.promote(api.PromoteRequest{Reference: "shop/web:1", To: "dev"})
			if err != nil {
				t.Error(err)
			}
			if p.Already {
				already.Add(1)
			}
		})
	}
	all.Wait()
	if already.Load() != 5 || y.referrers("shop/web@"+one) != 1 || len(y.promoting.turns) != 0 {
		t.Errorf("%d of 6 found it done, %d pieces of evidence", already.Load(), y.referrers("shop/web@"+one))
	}
	release, err := y.promoting.take(t.Context(), "dev", "shop/web")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := y.promoting.take(ctx, "dev", "shop/web"); !errors.Is(err, enough) {
		t.Errorf("whoever has gone waits on: %v", err)
	}
}
