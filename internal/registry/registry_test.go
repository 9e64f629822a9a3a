package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// ann may do everything, bob may pull from shop/*, nobody else may knock.
func enter(r *http.Request) (Account, error) {
	name, password, ok := r.BasicAuth()
	switch {
	case !ok:
		return Account{}, nil
	case password != "secret":
		return Account{}, tender.Errorf(tender.Denied, "wrong name or password")
	case name == "ann":
		return Account{Name: "ann", Admin: true}, nil
	}
	return Account{Name: name, Grants: []Grant{{"shop/*", []string{Pull}}}}, nil
}

// opened is a registry in a folder of the test's own.
func opened(t *testing.T, o Options) *Registry {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Store == nil {
		s, err := store.Open(t.TempDir(), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		o.Store = s
	}
	if o.Enter == nil {
		o.Enter = enter
	}
	if o.Now == nil {
		o.Now = func() time.Time { return time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC) }
	}
	r, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// site is a registry that listens, and how clients of it look.
type site struct {
	*Registry
	t    *testing.T
	url  string
	host string
}

func listening(t *testing.T, o Options) *site {
	return serving(t, opened(t, o))
}

func serving(t *testing.T, r *Registry) *site {
	s := httptest.NewServer(r.Handler())
	t.Cleanup(s.Close)
	return &site{r, t, s.URL, strings.TrimPrefix(s.URL, "http://")}
}

func (s *site) ref(text string) name.Reference {
	s.t.Helper()
	ref, err := name.ParseReference(s.host+"/"+text, name.Insecure)
	if err != nil {
		s.t.Fatal(err)
	}
	return ref
}

func as(who string) remote.Option {
	return remote.WithAuth(&authn.Basic{Username: who, Password: "secret"})
}

// push writes a random image and returns it.
func (s *site) push(ref string) v1.Image {
	s.t.Helper()
	img, err := random.Image(1024, 2)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := remote.Write(s.ref(ref), img, as("ann")); err != nil {
		s.t.Fatal(err)
	}
	return img
}

// do asks for a path and returns status, header and body.
func (s *site) do(who, method, path, body string, header ...string) (int, http.Header, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if who != "" {
		req.SetBasicAuth(who, "secret")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

// index is what the rows say, a line each.
func (s *site) index() string {
	s.t.Helper()
	var b strings.Builder
	err := s.o.Store.View(s.t.Context(), func(tx *store.Tx) error {
		ms, err := tx.Manifests("")
		if err != nil {
			return err
		}
		for _, m := range ms {
			kinds := []string{}
			for _, r := range m.Refs {
				kinds = append(kinds, r.Kind)
			}
			fmt.Fprintf(&b, "%s %s %s subject=%s %s by %s\n", m.Repository, m.Digest, m.MediaType[len(m.MediaType)-16:], m.Subject, strings.Join(kinds, ","), m.Who)
		}
		ts, err := tx.Tags("")
		for _, t := range ts {
			fmt.Fprintf(&b, "%s:%s %s by %s\n", t.Repository, t.Tag, t.Digest, t.Who)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

func digestOf(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestWhatIsPushedIsPulledAndIndexed(t *testing.T) {
	s := listening(t, Options{})
	img := s.push("shop/web:1")
	d := digestOf(t, img)
	got, err := remote.Image(s.ref("shop/web@"+d), as("bob"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	want := "shop/web " + d + " manifest.v2+json subject= config,layer,layer by ann\nshop/web:1 " + d + " by ann\n"
	if got := s.index(); got != want {
		t.Errorf("the index is\n%s, not\n%s", got, want)
	}
	if status, _, body := s.do("ann", "DELETE", "/v2/shop/web/manifests/"+d, ""); status != http.StatusAccepted {
		t.Errorf("delete: %d %s", status, body)
	}
	if got := s.index(); got != "" {
		t.Errorf("after its end the index is\n%s", got)
	}
}

func TestWhoMayWhat(t *testing.T) {
	s := listening(t, Options{})
	img := s.push("shop/web:1")
	s.push("other/web:1")
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	blob, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who, method, path string
		want              int
		says              string
	}{
		{"", "GET", "/v2/", 401, "UNAUTHORIZED"},
		{"ann", "GET", "/v2/", 200, "{}"},
		{"", "GET", "/v2/shop/web/manifests/1", 401, "UNAUTHORIZED"},
		{"bob", "GET", "/v2/shop/web/manifests/1", 200, "schemaVersion"},
		{"bob", "HEAD", "/v2/shop/web/manifests/1", 200, ""},
		{"bob", "GET", "/v2/other/web/manifests/1", 403, "bob may not pull in other/web"},
		{"bob", "PUT", "/v2/shop/web/manifests/2", 403, "bob may not push in shop/web"},
		{"bob", "POST", "/v2/shop/web/blobs/uploads/", 403, "may not push"},
		{"bob", "GET", "/v2/shop/web/blobs/uploads/x", 403, "may not push"},
		{"bob", "DELETE", "/v2/shop/web/manifests/1", 403, "may not delete"},
		{"bob", "GET", "/v2/_catalog", 200, `{"repositories":["shop/web"]}`},
		{"ann", "GET", "/v2/_catalog?n=1", 200, `{"repositories":["other/web"]}`},
		{"ann", "GET", "/v2/_catalog?n=x", 400, "PAGINATION_NUMBER_INVALID"},
		{"ann", "GET", "/v2/_catalog?last=other/web", 200, `{"repositories":["shop/web"]}`},
		{"ann", "GET", "/v2/Shop/web/tags/list", 400, "NAME_INVALID"},
		{"ann", "GET", "/v2/shop/%2e%2e/etc/tags/list", 400, "NAME_INVALID"},
		{"ann", "GET", "/v2/shop/web/nothing", 404, "UNSUPPORTED"},
		{"ann", "GET", "/v2/shop/web/referrers/sha256:12", 400, "DIGEST_INVALID"},
		{"ann", "PUT", "/v2/shop/web/referrers/" + blob.String(), 405, "UNSUPPORTED"},
		// A blob of a repository that may not be read is not mounted: 202 asks for the bytes.
		{"ann", "POST", "/v2/shop/new/blobs/uploads/?mount=" + blob.String() + "&from=shop/web", 201, ""},
		{"ann", "POST", "/v2/shop/new/blobs/uploads/?mount=" + blob.String() + "&from=not/there", 202, ""},
	} {
		status, header, body := s.do(c.who, c.method, c.path, "{}")
		if status != c.want || !strings.Contains(body, c.says) {
			t.Errorf("%s %s %s: %d %s, not %d %q", c.who, c.method, c.path, status, body, c.want, c.says)
		}
		if status == 401 && !strings.HasPrefix(header.Get("WWW-Authenticate"), "Basic realm=") {
			t.Errorf("%s: asked to log in with %q", c.path, header.Get("WWW-Authenticate"))
		}
	}
	s.o.Enter = func(r *http.Request) (Account, error) {
		return Account{Name: "carl", Grants: []Grant{{"mine/*", []string{Pull, Push}}}}, nil
	}
	if status, _, body := s.do("carl", "POST", "/v2/mine/x/blobs/uploads/?mount="+blob.String()+"&from=shop/web", ""); status != 202 {
		t.Errorf("a mount from what carl may not read: %d %s", status, body)
	}
}

// The files are the truth: a store that was lost, or a row that a crash kept from being
// written, is made again; so is the index of a directory that registry:2 has written.
func TestTheIndexIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	s := listening(t, Options{Dir: dir})
	img := s.push("shop/web:1")
	s.push("shop/sub/web:latest")
	signed := s.refer("shop/web", digestOf(t, img), "application/x.signature")
	want := strings.ReplaceAll(s.index(), "by ann", "by ")
	again := listening(t, Options{Dir: dir})
	if got := again.index(); got != want {
		t.Errorf("the index made again is\n%s, not\n%s", got, want)
	}
	if _, _, body := again.do("ann", "GET", "/v2/shop/web/referrers/"+digestOf(t, img), ""); !strings.Contains(body, signed) {
		t.Errorf("referrers: %s", body)
	}
	// What is gone from the directory goes from the index.
	if err := os.RemoveAll(filepath.Join(dir, "docker/registry/v2/repositories/shop/sub")); err != nil {
		t.Fatal(err)
	}
	if err := again.Reindex(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := again.index(); strings.Contains(got, "shop/sub") {
		t.Errorf("what is gone is still there:\n%s", got)
	}
}

// refer pushes a manifest that refers to another, and returns its digest.
func (s *site) refer(repository, subject, kind string) string {
	s.t.Helper()
	const empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	if status, _, body := s.do("ann", "POST", "/v2/"+repository+"/blobs/uploads/?digest="+empty, "{}", "Content-Type", "application/octet-stream"); status != 201 && status != 202 {
		s.t.Fatal(status, body)
	} else if status == 202 {
		l := static.NewLayer([]byte("{}"), "application/vnd.oci.empty.v1+json")
		repo, err := name.NewRepository(s.host+"/"+repository, name.Insecure)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := remote.WriteLayer(repo, l, as("ann")); err != nil {
			s.t.Fatal(err)
		}
	}
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"a":"b"}}`,
		ociManifest, kind, empty, dockerManifest, subject)
	d := digest.FromString(body).String()
	status, header, text := s.do("ann", "PUT", "/v2/"+repository+"/manifests/"+d, body, "Content-Type", ociManifest)
	if status != 201 || header.Get("OCI-Subject") != subject {
		s.t.Fatal(status, header, text)
	}
	return d
}

func TestReferrersComeInPages(t *testing.T) {
	s := listening(t, Options{})
	img := s.push("shop/web:1")
	subject := digestOf(t, img)
	want := map[string]bool{}
	for i := range referrersPage + 5 {
		want[s.refer("shop/web", subject, fmt.Sprintf("application/x.%d", i%2)+strings.Repeat("x", i/2))] = true
	}
	path := "/v2/shop/web/referrers/" + subject
	got := map[string]bool{}
	for pages := 0; path != ""; pages++ {
		if pages > 3 {
			t.Fatal("there is no end of pages")
		}
		status, header, body := s.do("bob", "GET", path, "")
		var index struct{ Manifests []descriptor }
		if err := json.Unmarshal([]byte(body), &index); err != nil || status != 200 {
			t.Fatal(status, err, body)
		}
		for _, m := range index.Manifests {
			got[m.Digest] = true
		}
		path = strings.TrimPrefix(strings.TrimSuffix(header.Get("Link"), `>; rel="next"`), "<")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("referrers (-want +got):\n%s", diff)
	}
}

func TestWhatIsNoManifestIsRefused(t *testing.T) {
	s := listening(t, Options{})
	img := s.push("shop/web:1")
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	missing := regexp.MustCompile(`sha256:[0-9a-f]{4}`).ReplaceAllString(string(raw), "sha256:0000")
	for title, c := range map[string]struct {
		path, body, media string
		want              int
	}{
		"no JSON":            {"2", "x", dockerManifest, 400},
		"a blob is missing":  {"2", missing, dockerManifest, 400},
		"another digest":     {"sha256:" + strings.Repeat("0", 64), string(raw), dockerManifest, 400},
		"another media type": {"2", string(raw), ociManifest, 400},
		"too large":          {"2", `{"annotations":{"a":"` + strings.Repeat("x", maxManifest) + `"}}`, ociManifest, 413},
		"no tag":             {"-2", string(raw), dockerManifest, 400},
		"a long tag":         {strings.Repeat("a", 129), string(raw), dockerManifest, 400},
	} {
		status, _, body := s.do("ann", "PUT", "/v2/shop/web/manifests/"+c.path, c.body, "Content-Type", c.media)
		if status != c.want || !strings.Contains(body, `"errors"`) {
			t.Errorf("%s: %d %s", title, status, body)
		}
	}
	if got := strings.Count(s.index(), "\n"); got != 2 {
		t.Errorf("the index has more than was pushed:\n%s", s.index())
	}
}

// Whichever of two pushes of a tag comes last, files and rows say the same.
func TestTwoPushesOfATag(t *testing.T) {
	s := listening(t, Options{})
	var wait sync.WaitGroup
	for range 8 {
		img, err := random.Image(256, 1)
		if err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			if err := remote.Write(s.ref("shop/web:1"), img, as("ann")); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	d, err := remote.Head(s.ref("shop/web:1"), as("ann"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "shop/web:1 " + d.Digest.String() + " by ann\n"; !strings.HasSuffix(s.index(), want) {
		t.Errorf("files say %s, rows\n%s", d.Digest, s.index())
	}
}

func TestWhoIsAskedBeforeAPush(t *testing.T) {
	var after []string
	s := listening(t, Options{
		Before: []func(context.Context, Pushed) error{func(_ context.Context, p Pushed) error {
			if p.Tag == "v1" {
				return tender.Errorf(tender.Conflict, "the tag v1 does not move").Hint("push another")
			}
			return nil
		}},
		After: []func(Pushed){func(p Pushed) { after = append(after, p.Repository+":"+p.Tag) }},
	})
	img, err := random.Image(256, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(s.ref("shop/web:v1"), img, as("ann")); err == nil || !strings.Contains(err.Error(), "the tag v1 does not move (push another)") {
		t.Errorf("the push ended with %v", err)
	}
	s.push("shop/web:v2")
	if diff := cmp.Diff([]string{"shop/web:v2"}, after); diff != "" {
		t.Errorf("heard of (-want +got):\n%s", diff)
	}
}
