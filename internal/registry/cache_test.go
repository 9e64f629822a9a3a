package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tenderhq/tender/internal/store"
)

// far is another registry, which writes down what it was asked and can be made to fail.
type far struct {
	*site
	mu    sync.Mutex
	hook  func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	asked []string
}

func newFar(t *testing.T) *far {
	t.Helper()
	r := opened(t, Options{Enter: func(*http.Request) (Account, error) { return Account{Name: "any", Admin: true}, nil }})
	f := &far{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		f.mu.Lock()
		hook := f.hook
		f.asked = append(f.asked, req.Method+" "+req.URL.Path)
		f.mu.Unlock()
		if hook == nil || !hook(w, req) {
			r.Handler().ServeHTTP(w, req)
		}
	}))
	t.Cleanup(s.Close)
	f.site = &site{r, t, s.URL, strings.TrimPrefix(s.URL, "http://")}
	return f
}

func (f *far) fail(hook func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// seen is how many requests whose line contains this came since the last call.
func (f *far) seen(part string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, line := range f.asked {
		if strings.Contains(line, part) {
			n++
		}
	}
	f.asked = nil
	return n
}

// near keeps what it is asked for of f, under far.example.
func near(t *testing.T, f *far, o Options) *site {
	t.Helper()
	o.Upstreams = append(o.Upstreams, Upstream{Name: "far.example", URL: f.url})
	if o.Enter == nil {
		o.Enter = func(r *http.Request) (Account, error) {
			a, err := enter(r)
			if a.Name == "eve" {
				a.Grants = []Grant{{"far.example/**", []string{Pull, Push}}}
			}
			return a, err
		}
	}
	return listening(t, o)
}

func status(code int, header ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		return true
	}
}

// settled waits until no fill goes on.
func (s *site) settled() {
	s.t.Helper()
	s.until("fills end", func() bool {
		s.cache.mu.Lock()
		defer s.cache.mu.Unlock()
		return len(s.cache.fills) == 0
	})
	s.cache.work.Wait()
}

func (s *site) until(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(end) {
			s.t.Fatalf("in vain until %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func layerSums(t *testing.T, img v1.Image) (ds []string) {
	t.Helper()
	ls, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range ls {
		d, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d.String())
	}
	return ds
}

// blobOf puts a blob of so many bytes into an image over there, and the image's manifest over here.
func (f *far) blobOf(n *site, bytes int64) (d string) {
	f.t.Helper()
	img, err := random.Image(bytes, 1)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := remote.Write(f.ref("team/web:1"), img); err != nil {
		f.t.Fatal(err)
	}
	if code, _, body := n.do("eve", "GET", "/v2/far.example/team/web/manifests/"+digestOf(f.t, img), ""); code != 200 {
		f.t.Fatalf("%d %s", code, body)
	}
	f.seen("")
	return layerSums(f.t, img)[0]
}

const webBlobs = "/v2/far.example/team/web/blobs/"

// What was pulled once is pulled again without its upstream, by those who may.
func TestWhatWasPulledThroughStays(t *testing.T) {
	f := newFar(t)
	img := f.push("team/web:1")
	n := near(t, f, Options{})
	for range 2 {
		got, err := remote.Image(n.ref("far.example/team/web:1"), as("eve"))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(got); err != nil {
			t.Error(err)
		}
		n.settled()
		f.fail(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	}
	d := digestOf(t, img)
	want := "far.example/team/web " + d + " manifest.v2+json subject= config,layer,layer by cache\nfar.example/team/web:1 " + d + " by cache\n"
	if got := n.index(); got != want {
		t.Errorf("the index is\n%s, not\n%s", got, want)
	}
	for _, c := range []struct {
		who, method, path, want string
	}{
		{"bob", "GET", "/v2/far.example/team/web/manifests/1", "403 DENIED"},
		{"bob", "GET", webBlobs + layerSums(t, img)[0], "403 DENIED"},
		{"bob", "GET", "/v2/shop/web/manifests/" + d, "404 MANIFEST_UNKNOWN"},
		{"bob", "GET", "/v2/shop/web/blobs/" + layerSums(t, img)[0], "404 BLOB_UNKNOWN"},
		{"", "GET", "/v2/far.example/team/web/manifests/1", "401 UNAUTHORIZED"},
		{"eve", "POST", "/v2/far.example/team/web/blobs/uploads/", "403 DENIED"},
		{"eve", "PUT", "/v2/far.example/team/web/manifests/2", "403 DENIED"},
		{"ann", "POST", "/v2/far.example/team/web/blobs/uploads/", "403 DENIED"},
		{"eve", "GET", "/v2/far.example/team/web/manifests/sha256:" + strings.Repeat("0", 64), "503 UNAVAILABLE"},
	} {
		code, _, body := n.do(c.who, c.method, c.path, "{}")
		var said struct {
			Errors []struct{ Code, Message string }
		}
		_ = json.Unmarshal([]byte(body), &said)
		got := fmt.Sprint(code)
		if len(said.Errors) > 0 {
			got += " " + said.Errors[0].Code
		}
		if got != c.want {
			t.Errorf("%s %s by %q: %s (%s), not %s", c.method, c.path, c.who, got, body, c.want)
		}
	}
	if counts, kept := n.CacheCounts(); counts[0].Hits < 4 || counts[0].Misses < 4 || counts[0].Fetched == 0 || counts[0].Served == 0 || counts[0].Errors == 0 || kept <= 0 {
		t.Errorf("counted: %+v, %d bytes kept", counts, kept)
	}
	if code, _, body := n.do("ann", "DELETE", "/v2/far.example/team/web/manifests/"+d, ""); code != http.StatusAccepted || n.index() != "" {
		t.Errorf("deleted: %d %s\n%s", code, body, n.index())
	}
}

// Its own names are used over there: the login's, after the upstream's way to ask for a token; never the client's.
func TestTheUpstreamSeesTheLoginAlone(t *testing.T) {
	f := newFar(t)
	f.push("team/web:1")
	var seen []string
	f.fail(func(w http.ResponseWriter, r *http.Request) bool {
		seen = append(seen, r.Header.Get("Authorization")) // hook calls come one after the other here
		switch {
		case r.URL.Path == "/token":
			if name, password, _ := r.BasicAuth(); name != "robot" || password != "far secret" || r.URL.Query().Get("scope") != "repository:team/web:pull" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			_, _ = io.WriteString(w, `{"token":"good"}`)
			return true
		case r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+f.url+`/token",service="far"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	login := ""
	var host string
	n := near(t, f, Options{Login: func(_ context.Context, h string) (string, error) { host = h; return login, nil }})
	code, _, body := n.do("eve", "GET", "/v2/far.example/team/web/manifests/1", "")
	if code != http.StatusForbidden || !strings.Contains(body, "tender registry login "+f.host) {
		t.Errorf("without a login: %d %s", code, body)
	}
	login = base64.URLEncoding.EncodeToString([]byte(`{"username":"robot","password":"far secret"}`))
	if code, _, body := n.do("eve", "GET", "/v2/far.example/team/web/manifests/1", ""); code != 200 || host != f.host {
		t.Errorf("with one of %s: %d %s", host, code, body)
	}
	for _, a := range seen {
		if !slices.Contains([]string{"", "Bearer good", "Basic " + base64.StdEncoding.EncodeToString([]byte("robot:far secret"))}, a) {
			t.Errorf("it was sent %q", a)
		}
	}
}

// A tag is asked about when it is not fresh; one that cannot be asked about is answered as it was, and said to be old.
func TestATagOverThereMoves(t *testing.T) {
	f := newFar(t)
	first := digestOf(t, f.push("team/web:1"))
	c := newClock()
	n := near(t, f, Options{Now: c.now})
	ask := func(want, cache string, code int) http.Header {
		t.Helper()
		got, header, body := n.do("eve", "GET", "/v2/far.example/team/web/manifests/1", "")
		if got != code || header.Get("Docker-Content-Digest") != want || !strings.HasPrefix(header.Get("Cache-Status"), cache) {
			t.Errorf("%d %s %q, not %d %s %q: %s", got, header.Get("Docker-Content-Digest"), header.Get("Cache-Status"), code, want, cache, body)
		}
		return header
	}
	ask(first, "tender; fwd=uri-miss; stored", 200)
	second := digestOf(t, f.push("team/web:1"))
	f.seen("")
	ask(first, "tender; hit", 200)
	if got := f.seen("GET"); got != 0 {
		t.Errorf("a fresh tag: %d requests", got)
	}
	c.add(6 * time.Minute)
	ask(second, "tender; fwd=uri-miss; stored", 200)
	ask(second, "tender; hit", 200)

	c.add(6 * time.Minute)
	f.fail(status(429, "Retry-After", "300"))
	f.seen("")
	header := ask(second, `tender; hit; ttl=-60; detail="far.example takes no more requests`, 200)
	if !strings.Contains(header.Get("Cache-Status"), "it answered 429") {
		t.Errorf("it says %q", header.Get("Cache-Status"))
	}
	for range 3 {
		ask(second, "tender; hit; ttl=-60", 200)
	}
	code, header, body := n.do("eve", "GET", "/v2/far.example/team/web/manifests/2", "")
	if code != 429 || header.Get("Retry-After") != "301" || !strings.Contains(body, "TOOMANYREQUESTS") || !strings.Contains(body, "tender registry login") {
		t.Errorf("what is not kept: %d %v %s", code, header, body)
	}
	if got := f.seen("/"); got != 1 {
		t.Errorf("it was asked %d times, not once", got)
	}
	if counts, _ := n.CacheCounts(); counts[0].Stale != 4 || !counts[0].Resting {
		t.Errorf("counted: %+v", counts)
	}
	f.fail(nil)
	c.add(5 * time.Minute)
	ask(second, "tender; hit", 200)
	if got := f.seen("HEAD"); got != 1 {
		t.Errorf("after Retry-After: %d HEAD requests, not one", got)
	}
	c.add(6 * time.Minute)
	f.fail(status(404))
	ask("", "", 404)
	for _, code := range []int{401, 403} { // somebody has taken away what was allowed
		f.fail(status(code))
		ask("", "", 403)
		if code, _, body := n.do("eve", "GET", "/v2/far.example/team/web/tags/list", ""); code != 403 {
			t.Errorf("tags: %d %s", code, body)
		}
	}
	f.fail(status(500))
	ask(second, `tender; hit; ttl=-60; detail="far.example answers 500`, 200)
}

// Two who want one blob get it of one fetch; the first goes away in the middle, and the second has it whole.
func TestOneFetchForAllWhoWait(t *testing.T) {
	f := newFar(t)
	n := near(t, f, Options{})
	d := f.blobOf(n, 1<<20)
	gate := make(chan struct{})
	f.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/blobs/"+d) {
			return false
		}
		f.Registry.serve(&slow{ResponseWriter: w, after: 300 << 10, gate: gate}, r)
		return true
	})
	ctx, leave := context.WithCancel(t.Context())
	begun, gone := make(chan struct{}), make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, "GET", n.url+webBlobs+d, http.NoBody)
		if err != nil {
			gone <- err
			return
		}
		req.SetBasicAuth("eve", "secret")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			gone <- err
			return
		}
		defer resp.Body.Close()
		if _, err = io.ReadFull(resp.Body, make([]byte, 100<<10)); err != nil {
			gone <- err
			return
		}
		close(begun)
		_, err = io.Copy(io.Discard, resp.Body)
		gone <- err
	}()
	select {
	case <-begun:
	case err := <-gone:
		t.Fatal(err)
	}
	whole := make(chan string, 1)
	go func() {
		code, _, body := n.do("eve", "GET", webBlobs+d, "")
		whole <- fmt.Sprint(code, " ", digest.FromString(body))
	}()
	n.until("both wait", func() bool {
		n.cache.mu.Lock()
		defer n.cache.mu.Unlock()
		fill := n.cache.fills["far.example/team/web@"+d]
		return fill != nil && fill.users == 3
	})
	leave()
	if err := <-gone; err == nil {
		t.Error("the first had all of it")
	}
	n.until("the first is gone", func() bool {
		n.cache.mu.Lock()
		defer n.cache.mu.Unlock()
		return n.cache.fills["far.example/team/web@"+d].users == 2
	})
	close(gate)
	if got := <-whole; got != "200 "+d {
		t.Errorf("the second has %s, not %s", got, d)
	}
	if got := f.seen("GET /v2/team/web/blobs/" + d); got != 1 {
		t.Errorf("it was fetched %d times", got)
	}
}

// slow waits at the gate after so many bytes.
type slow struct {
	http.ResponseWriter
	after int
	gate  chan struct{}
}

func (s *slow) Write(b []byte) (int, error) {
	if s.after -= len(b); s.after < 0 {
		_ = http.NewResponseController(s.ResponseWriter).Flush()
		<-s.gate
	}
	return s.ResponseWriter.Write(b)
}

func (s *slow) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// cut breaks off after so many bytes.
type cut struct {
	http.ResponseWriter
	after int
}

func (c *cut) Write(b []byte) (int, error) {
	if c.after < len(b) {
		_, _ = c.ResponseWriter.Write(b[:c.after])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.after -= len(b)
	return c.ResponseWriter.Write(b)
}

// A blob that breaks off over there is gone on with, whether or not ranges are known there;
// where that does not help, nobody takes what came for whole and nothing is kept.
func TestABlobThatBreaksOff(t *testing.T) {
	f := newFar(t)
	n := near(t, f, Options{})
	for _, c := range []struct {
		name   string
		breaks int // so often
		ranges bool
		want   bool
		asked  int
	}{
		{"once", 1, true, true, 2},
		{"twice, without ranges", 2, false, true, 3},
		{"always", 1000, true, false, fillTries},
	} {
		d := f.blobOf(n, 1<<20)
		breaks := c.breaks
		f.fail(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/blobs/"+d) {
				return false
			}
			if !c.ranges {
				r.Header.Del("Range")
			}
			if breaks--; breaks >= 0 {
				w = &cut{w, 150 << 10 * (1 + c.breaks - breaks) / 2}
				if c.breaks == 1000 {
					w.(*cut).after = 150 << 10
				}
			}
			f.Registry.serve(w, r)
			return true
		})
		got := n.blob(d)
		if (got == d) != c.want {
			t.Errorf("%s: the client has %s", c.name, got)
		}
		n.settled()
		if got := f.seen("GET /v2/team/web/blobs/" + d); got != c.asked {
			t.Errorf("%s: it was asked %d times, not %d", c.name, got, c.asked)
		}
		if kept := n.cache.there(t.Context(), layer("far.example/team/web", d), blobPath(d)); kept != c.want {
			t.Errorf("%s: kept: %v", c.name, kept)
		}
		n.tidy()
	}
}

// blob is the digest of what a client takes for the whole blob, or why it does not.
func (s *site) blob(d string) string {
	req, err := http.NewRequestWithContext(s.t.Context(), "GET", s.url+webBlobs+d, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	req.SetBasicAuth("eve", "secret")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err.Error()
	case resp.StatusCode != 200:
		return fmt.Sprintf("%d %s", resp.StatusCode, body)
	}
	return digest.FromBytes(body).String()
}

// tidy fails if anything lies where fills are.
func (s *site) tidy() {
	s.t.Helper()
	left, err := filepath.Glob(filepath.Join(s.o.Dir, fillFolder, "*"))
	if err != nil || len(left) > 0 {
		s.t.Errorf("there are %q, %v", left, err)
	}
}

// What is not what its digest says is not kept, and nobody takes it for whole: neither a blob,
// small or large, nor a manifest.
func TestAnUpstreamThatLies(t *testing.T) {
	f := newFar(t)
	n := near(t, f, Options{})
	for _, size := range []int64{1 << 10, 1 << 20} {
		d := f.blobOf(n, size)
		f.fail(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/blobs/"+d) {
				return false
			}
			rec := httptest.NewRecorder()
			f.Registry.serve(rec, r)
			body := rec.Body.Bytes()
			body[len(body)/2] ^= 1
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = w.Write(body)
			return true
		})
		if got := n.blob(d); strings.HasPrefix(got, "sha256:") {
			t.Errorf("of %d bytes: the client has %s", size, got)
		} else if size < fillRead && !strings.Contains(got, "sent something else") {
			t.Errorf("of %d bytes: %s", size, got)
		}
		n.settled()
		n.cache.mu.Lock()
		n.cache.full = n.o.Now().Add(time.Minute) // not kept, it is looked at all the same
		n.cache.mu.Unlock()
		if got := n.blob(d); strings.HasPrefix(got, "sha256:") {
			t.Errorf("of %d bytes, let past: the client has %s", size, got)
		}
		n.cache.mu.Lock()
		n.cache.full = time.Time{}
		n.cache.mu.Unlock()
		if n.cache.there(t.Context(), blobPath(d)) || n.cache.there(t.Context(), layer("far.example/team/web", d)) {
			t.Errorf("of %d bytes: it is kept", size)
		}
		n.tidy()
		f.fail(nil)
		if got := n.blob(d); got != d {
			t.Errorf("of %d bytes, after it: %s", size, got)
		}
	}
	d := digestOf(t, f.push("team/api:1"))
	f.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == "GET" && strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", ociManifest)
			_, _ = io.WriteString(w, `{"schemaVersion":2,"config":{"digest":"`+d+`","size":1}}`)
			return true
		}
		return false
	})
	if code, _, body := n.do("eve", "GET", "/v2/far.example/team/api/manifests/1", ""); code != 503 || !strings.Contains(body, "sent something else") {
		t.Errorf("a manifest: %d %s", code, body)
	}
	if n.cache.has(t.Context(), "far.example/team/api", d) {
		t.Error("the manifest is kept")
	}
}

// A blob that is here in another repository is one of this only if the upstream says so.
func TestABlobOfOthersDoesNotComeOut(t *testing.T) {
	f := newFar(t)
	n := near(t, f, Options{})
	private := layerSums(t, n.push("private/db:1"))[0]
	evil, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "config": descriptor{MediaType: "x/y", Digest: private, Size: 1},
		"layers": []descriptor{},
	})
	if err != nil {
		t.Fatal(err)
	}
	if code, _, body := f.do("any", "PUT", "/v2/team/web/manifests/1", string(evil), "Content-Type", ociManifest); code != 201 && code != 400 {
		t.Fatalf("%d %s", code, body)
	}
	if code, _, body := n.do("eve", "GET", webBlobs+private, ""); code != 404 {
		t.Errorf("it came out: %d, %d bytes", code, len(body))
	}
	// What the upstream has, too, is not fetched again.
	shared := f.push("team/web:2")
	if err := remote.Write(n.ref("shop/web:2"), shared, as("ann")); err != nil {
		t.Fatal(err)
	}
	f.seen("")
	d := layerSums(t, shared)[0]
	if got := n.blob(d); got != d {
		t.Errorf("one that both have: %s", got)
	}
	if got := f.seen("GET /v2/team/web/blobs"); got != 0 {
		t.Errorf("it was fetched %d times", got)
	}
}

// A process that ends at any step of a pull leaves a directory from which the next one serves.
func TestKilledWhileItFetches(t *testing.T) {
	f := newFar(t)
	img := f.push("team/web:1")
	dir := t.TempDir()
	open := func(dir string) (*site, func()) {
		s, err := store.Open(filepath.Join(dir, "store"), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Dir: filepath.Join(dir, "images"), Store: s, Upstreams: []Upstream{{Name: "far.example", URL: f.url}}}
		o.Enter = func(*http.Request) (Account, error) { return Account{Name: "any", Admin: true}, nil }
		r, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		h := httptest.NewServer(r.Handler())
		return &site{r, t, h.URL, strings.TrimPrefix(h.URL, "http://")}, func() {
			h.Close()
			if err := errors.Join(r.Close(), s.Close()); err != nil {
				t.Error(err)
			}
		}
	}
	pull := func(s *site) error {
		got, err := remote.Image(s.ref("far.example/team/web:1"))
		if err == nil {
			err = validate.Image(got)
		}
		return err
	}
	n, end := open(dir)
	var copies []string
	var mu sync.Mutex
	n.crash = func(step, _ string) {
		mu.Lock()
		defer mu.Unlock()
		to := t.TempDir()
		if err := os.CopyFS(to, os.DirFS(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("at %s: %v", step, err)
			return
		}
		copies = append(copies, to)
	}
	if err := pull(n); err != nil {
		t.Fatal(err)
	}
	n.settled()
	end()
	if len(copies) < 8 {
		t.Errorf("%d steps", len(copies))
	}
	for _, dir := range copies {
		n, end := open(dir)
		n.tidy()
		if err := pull(n); err != nil {
			t.Errorf("after the end of a process: %v", err)
		}
		n.settled()
		n.tidy()
		whole(t, filepath.Join(dir, "images"))
		if got := len(data(t, filepath.Join(dir, "images"))); got != 4 {
			t.Errorf("%d blobs, not those of %s", got, digestOf(t, img))
		}
		end()
	}
}

// On a full disk images are let through, and not kept.
func TestAFullDiskKeepsNobodyFromPulling(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a disk that is small enough")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("no disk of 2 MiB here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	f := newFar(t)
	n := near(t, f, Options{Dir: dir})
	d := f.blobOf(n, 4<<20)
	n.blob(d) // breaks off where the disk ends
	n.settled()
	n.tidy()
	if got := n.blob(d); got != d {
		t.Errorf("let past: %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "rest"), make([]byte, 4<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	f.push("team/api:1")
	if code, header, body := n.do("eve", "GET", "/v2/far.example/team/api/manifests/1", ""); code != 200 || header.Get("Cache-Status") != "tender; fwd=uri-miss" {
		t.Errorf("a manifest: %d %v %s", code, header, body)
	}
}

// What was pulled longest ago goes when there is too much, but for what is needed, was pulled
// within the hour, or is ours.
func TestTheOldestIsEvicted(t *testing.T) {
	f := newFar(t)
	c := newClock()
	var needed map[string]string
	n := near(t, f, Options{Now: c.now, CacheSize: 1 << 40, Needed: func(context.Context) (map[string]string, error) { return needed, nil }})
	own := n.push("shop/web:1")
	images := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d"} {
		img, err := random.Image(100<<10, 1)
		if err != nil {
			t.Fatal(err)
		}
		index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, ociIndex), mutate.IndexAddendum{Add: img})
		if err := remote.WriteIndex(f.ref("team/"+name+":1"), index); err != nil {
			t.Fatal(err)
		}
		got, err := remote.Index(n.ref("far.example/team/"+name+":1"), as("eve"))
		if err == nil {
			err = validate.Index(got)
		}
		if err != nil {
			t.Fatal(err)
		}
		n.settled()
		images[name] = digestOf(t, img)
		c.add(2 * time.Hour)
	}
	// a is the oldest, and is pulled again by its part alone; b is deployed.
	if code, _, body := n.do("eve", "GET", "/v2/far.example/team/a/manifests/"+images["a"], ""); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	c.add(2 * time.Hour)
	needed = map[string]string{images["b"]: "deployed by b/b"}
	if got, err := n.Evict(t.Context(), "ann"); err != nil || got.Images != 0 || got.Kept < 400<<10 {
		t.Errorf("with room: %+v, %v", got, err)
	}
	n.o.CacheSize = 350 << 10
	got, err := n.Evict(t.Context(), "ann")
	if err != nil || got.Images != 1 || got.Needed != 1 || got.Bytes < 100<<10 || got.Kept > 350<<10 {
		t.Errorf("without: %+v, %v", got, err)
	}
	names := func() string {
		var out []string
		for line := range strings.Lines(n.index()) {
			if name, _, is := strings.Cut(line, ":1 "); is {
				out = append(out, name)
			}
		}
		return strings.Join(out, " ")
	}
	if diff := cmp.Diff("far.example/team/a far.example/team/b far.example/team/d shop/web", names()); diff != "" {
		t.Error(diff)
	}
	whole(t, n.o.Dir)
	n.o.CacheSize = 1
	if got, err := n.Evict(t.Context(), "ann"); err != nil || got.Images != 2 {
		t.Errorf("to nothing: %+v, %v", got, err)
	}
	if diff := cmp.Diff("far.example/team/b shop/web", names()); diff != "" {
		t.Error(diff)
	}
	// What is ours stays.
	pulled, err := remote.Image(n.ref("shop/web@"+digestOf(t, own)), as("bob"))
	if err == nil {
		err = validate.Image(pulled)
	}
	if err != nil {
		t.Error(err)
	}
	if got := len(data(t, n.o.Dir)); got != 4+4 { // of shop/web, and b's index, manifest, configuration and layer
		t.Errorf("%d blobs lie there", got)
	}
}

// What lay here before its repository was an upstream's, and has no row of a push, is not evicted as if it had been fetched.
func TestWhatNobodyKnowsWhoPushedIsNotEvicted(t *testing.T) {
	f := newFar(t)
	c := newClock()
	n := near(t, f, Options{Now: c.now, CacheSize: 1})
	d := digestOf(t, f.push("team/web:1"))
	if code, _, body := n.do("eve", "GET", "/v2/far.example/team/web/manifests/"+d, ""); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	n.settled()
	all, err := n.manifests(t.Context(), "far.example/team/web")
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	m := all[0]
	m.Who = ""
	change := func(do func(tx *store.Tx) error) {
		t.Helper()
		if err := n.o.Store.Update(t.Context(), do); err != nil {
			t.Fatal(err)
		}
	}
	change(func(tx *store.Tx) error {
		return errors.Join(tx.RemoveManifest(m.Repository, m.Digest), tx.ForgetCached(), tx.PutManifest(m))
	})
	pulled := c.now()
	c.add(3 * time.Hour)
	if got, err := n.Evict(t.Context(), "ann"); err != nil || got.Images != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	change(func(tx *store.Tx) error { return tx.PullCached(m.Repository, m.Digest, pulled) })
	if got, err := n.Evict(t.Context(), "ann"); err != nil || got.Images != 1 {
		t.Errorf("pulled through: %+v, %v", got, err)
	}
}

// The size is a bound: what is beyond twice of it is let through, and so is what no manifest here names.
func TestWhatIsTooMuchIsLetThrough(t *testing.T) {
	f := newFar(t)
	n := near(t, f, Options{CacheSize: 100 << 10})
	fetched := func(d string) (kept bool) {
		t.Helper()
		if got := n.blob(d); got != d {
			t.Error(got)
		}
		n.settled()
		return n.cache.there(t.Context(), layer("far.example/team/web", d))
	}
	if fetched(layerSums(t, f.push("team/web:2"))[0]) {
		t.Error("what no manifest names is kept")
	}
	d := f.blobOf(n, 10<<10)
	n.settled()
	n.cache.mu.Lock()
	n.cache.evicted = n.o.Now() // and all that there was is needed
	n.cache.mu.Unlock()
	n.cache.bytes.Store(200<<10 + 1)
	if fetched(d) {
		t.Error("beyond twice the size it is kept")
	}
	n.cache.bytes.Store(0)
	if !fetched(d) {
		t.Error("with room it is not kept")
	}
}

// A mirror is asked under the names over there; what is nobody's whom we know is not one of ours.
func TestAsAMirror(t *testing.T) {
	f := newFar(t)
	d := digestOf(t, f.push("team/web:1"))
	n := near(t, f, Options{Enter: func(r *http.Request) (Account, error) {
		if _, _, ok := r.BasicAuth(); ok {
			return enter(r)
		}
		return Account{Grants: []Grant{{"far.example/**", []string{Pull}}}}, nil
	}})
	n.push("team/web:1")
	mirror := httptest.NewServer(n.Mirror("far.example"))
	t.Cleanup(mirror.Close)
	m := &site{n.Registry, t, mirror.URL, strings.TrimPrefix(mirror.URL, "http://")}
	got, err := remote.Image(m.ref("team/web:1"))
	if err == nil {
		err = validate.Image(got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if digestOf(t, got) != d {
		t.Errorf("the mirror has another one")
	}
	for _, c := range []struct {
		on     *site
		method string
		path   string
		want   int
	}{
		{m, "GET", "/v2/", 200},
		{m, "POST", "/v2/team/web/blobs/uploads/", 401},
		{m, "GET", "/v2/_catalog", 200},
		{m, "GET", "/v2/team/web/manifests/1?ns=far.example", 200},
		{m, "GET", "/v2/team/web/tags/list?n=1&ns=far.example", 200},
		{m, "GET", "/v2/team/web/manifests/1?ns=other.example", 404},
		{n, "GET", "/v2/team/web/manifests/1?ns=far.example", 200},
		{n, "GET", "/v2/team/web/manifests/1?ns=other.example", 404},
		{n, "GET", "/v2/team/web/manifests/1", 401},
		{n, "GET", "/v2/team/web/manifests/1?ns=" + n.host, 401},
	} {
		if code, _, body := c.on.do("", c.method, c.path, ""); code != c.want {
			t.Errorf("%s %s: %d, not %d: %s", c.method, c.path, code, c.want, body)
		}
	}
}

// Tags and referrers are listed over there, under the name that the repository has here.
func TestWhatIsListedOverThere(t *testing.T) {
	f := newFar(t)
	img := f.push("team/web:1")
	f.push("team/web:2")
	n := near(t, f, Options{})
	code, header, body := n.do("eve", "GET", "/v2/far.example/team/web/tags/list?n=1", "")
	if code != 200 || body != `{"name":"far.example/team/web","tags":["1"]}` || !strings.HasPrefix(header.Get("Link"), "</v2/far.example/team/web/tags/list?") {
		t.Errorf("%d %v %s", code, header, body)
	}
	if code, _, body := n.do("eve", "GET", "/v2/far.example/team/web/referrers/"+digestOf(t, img), ""); code != 200 || !strings.Contains(body, `"manifests":[]`) {
		t.Errorf("%d %s", code, body)
	}
	if code, _, body := n.do("eve", "GET", "/v2/far.example/team/web/manifests/2", ""); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	f.fail(status(503))
	code, header, body = n.do("eve", "GET", "/v2/far.example/team/web/tags/list", "")
	if code != 200 || strings.TrimSpace(body) != `{"name":"far.example/team/web","tags":["2"]}` || !strings.Contains(header.Get("Cache-Status"), "answers 503") {
		t.Errorf("of what is kept: %d %v %s", code, header, body)
	}
}

func TestUpstreamsAsWritten(t *testing.T) {
	for _, c := range []struct{ name, url, want string }{
		{"docker.io", "", "https://registry-1.docker.io"},
		{"quay.io", "", "https://quay.io"},
		{"company", "https://registry.example.com/team", "https://registry.example.com/team"},
		{"Quay", "", `"Quay" is no name for an upstream: repositories begin with it`},
		{"a", "ftp://a", "the address of the upstream a is not a URL such as https://registry.example.com"},
		{"a", "https://me:secret@a", "the address of the upstream a is not a URL such as https://registry.example.com"},
	} {
		list := []Upstream{{Name: c.name, URL: c.url}}
		got := ""
		if err := CheckUpstreams(list); err != nil {
			got = err.Error()
		} else {
			got = list[0].URL
		}
		if got != c.want {
			t.Errorf("%s %s: %s, not %s", c.name, c.url, got, c.want)
		}
	}
	u, err := newUpstream(Upstream{Name: "company", URL: "https://registry.example.com/team"}, nil, nil, nil)
	if err != nil || u.away("company/web") != "team/web" {
		t.Errorf("%v, %v", u, err)
	}
	hub := &cache{upstreams: []*upstream{{Upstream: Upstream{Name: "docker.io"}, hub: true}}}
	rt := route{repository: "docker.io/nginx"}
	req := httptest.NewRequest("GET", "/v2/docker.io/nginx/manifests/1", http.NoBody)
	if req, _, err = hub.enter(req, &rt); err != nil || rt.repository != "docker.io/library/nginx" || req.URL.Path != "/v2/docker.io/library/nginx/manifests/1" {
		t.Errorf("%v %v %v", rt, req.URL, err)
	}
}
