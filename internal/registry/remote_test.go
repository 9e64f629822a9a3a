package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	foreign "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	tender "github.com/tenderhq/tender"
)

func client(s *site) *Remote {
	return NewRemote(RemoteOptions{
		Own:   func(context.Context) (*Registry, error) { return s.Registry, nil },
		Hosts: []string{s.host}, Store: s.o.Store,
	})
}

func parsed(t *testing.T, c *Remote, text string) Reference {
	t.Helper()
	r, err := c.Parse(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRemoteNames(t *testing.T) {
	s := listening(t, Options{})
	s.push("shop/web:1.4.2")
	c := client(s)
	for text, want := range map[string]string{
		"shop/web:1.4.2":                  "shop/web:1.4.2",
		s.host + "/shop/web":              "shop/web:latest",
		"shop/api:1":                      "docker.io/shop/api:1",
		"nginx":                           "docker.io/library/nginx:latest",
		"docker.io/shop/web:1.4.2":        "docker.io/shop/web:1.4.2",
		"registry.company.com/shop/web:1": "registry.company.com/shop/web:1",
		"localhost:1/web:1":               "localhost:1/web:1",
		"shop/web@sha256:" + strings.Repeat("a", 64): "shop/web@sha256:" + strings.Repeat("a", 64),
	} {
		if got := parsed(t, c, text).String(); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	if _, err := c.Parse(t.Context(), "Shop/Web"); tender.KindOf(err) != tender.Invalid {
		t.Errorf("capitals: %v", err)
	}
}

// What opens an image reads its configuration whole.
func TestAnEndlessConfigurationIsNotRead(t *testing.T) {
	s := listening(t, Options{})
	c := client(s)
	digest := "sha256:" + strings.Repeat("a", 64)
	for size, ok := range map[int64]bool{-1: false, 4 << 20: true, 4<<20 + 1: false, 1 << 40: false} {
		raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`, ociManifest, imageConfig, digest, size)
		away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", ociManifest)
			_, _ = io.WriteString(w, raw)
		}))
		_, err := c.Image(t.Context(), parsed(t, c, strings.TrimPrefix(away.URL, "http://")+"/web:1"), "")
		away.Close()
		if ok != (err == nil) || !ok && tender.KindOf(err) != tender.Invalid {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// Only blobs may be of any size, and what a registry leads to is no blob for its name.
func TestAnAnswerWithoutAnEndIsCutOff(t *testing.T) {
	pages := 0
	blob := "/v2/web/blobs/sha256:" + strings.Repeat("a", 64)
	over := fmt.Sprintf(`{"name":"web","tags":[%q`, strings.Repeat("x", maxRead))
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case strings.HasPrefix(r.URL.Path, "/v2/led/tags/"):
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case strings.HasPrefix(r.URL.Path, "/v2/blob/tags/"):
			http.Redirect(w, r, blob, http.StatusTemporaryRedirect)
		case strings.HasPrefix(r.URL.Path, "/v2/next/tags/"):
			w.Header().Set("Link", "<"+blob+`>; rel="next"`)
			_, _ = io.WriteString(w, `{"tags":["1"]}`)
		case strings.HasPrefix(r.URL.Path, "/v2/empty/tags/"):
			pages++
			w.Header().Set("Link", fmt.Sprintf(`</v2/empty/tags/list?last=%d>; rel="next"`, pages))
			_, _ = io.WriteString(w, `{"tags":[]}`)
		default:
			_, _ = io.WriteString(w, over)
		}
	}))
	t.Cleanup(away.Close)
	c := NewRemote(RemoteOptions{})
	host := strings.TrimPrefix(away.URL, "http://")
	for _, repository := range []string{"led", "blob", "next", "web/blobs/x"} {
		if _, err := c.Tags(t.Context(), Reference{Host: host, Repository: repository}); err == nil || !strings.Contains(err.Error(), "answer is longer than") {
			t.Errorf("%s: %v", repository, err)
		}
	}
	if tags, err := c.Tags(t.Context(), Reference{Host: host, Repository: "empty"}); err != nil || len(tags) != 0 || pages > maxPages+1 {
		t.Errorf("empty pages: %d tags of %d pages, %v", len(tags), pages, err)
	}
	for from, want := range map[string]bool{blob: false, "/v2/web/manifests/1": true, "/v2/web/blobs/uploads/tags/list": true} {
		first := httptest.NewRequest(http.MethodGet, from, nil)
		second := httptest.NewRequest(http.MethodGet, "/storage/of/it", nil)
		second.Response = &http.Response{Request: first}
		if small(first) != want || small(second) != want {
			t.Errorf("%s, and where it leads: %v, %v", from, small(first), small(second))
		}
	}
}

func TestRemoteCopies(t *testing.T) {
	s := listening(t, Options{})
	other := httptest.NewServer(foreign.New(foreign.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(other.Close)
	c := client(s)
	want := digestOf(t, s.push("shop/web:1"))
	away := strings.TrimPrefix(other.URL, "http://") + "/team/web:1"
	for _, step := range [][2]string{
		{"shop/web:1", "shop/web:2"},              // a tag
		{"shop/web:2", s.host + "/staging/web:2"}, // blobs are mounted
		{"shop/web:1", away},                      // blobs are sent
		{away, s.host + "/back/web:1"},            // and come back
	} {
		got, err := c.Copy(t.Context(), parsed(t, c, step[0]), parsed(t, c, step[1]))
		if err != nil {
			t.Fatalf("%v: %v", step, err)
		}
		if got != want {
			t.Errorf("%v: digest %s, want %s", step, got, want)
		}
	}
	ref, err := name.ParseReference(away)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err == nil {
		err = validate.Image(img)
	}
	if err != nil {
		t.Errorf("what was sent: %v", err)
	}
	for _, text := range []string{"back/web:1", "staging/web:2"} {
		img, err := c.Image(t.Context(), parsed(t, c, text), "linux/amd64")
		if err == nil {
			err = validate.Image(img)
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	tags, err := c.Tags(t.Context(), parsed(t, c, "shop/web"))
	if err != nil || strings.Join(tags, " ") != "1 2" {
		t.Errorf("tags %v, %v", tags, err)
	}
	index, err := random.Index(512, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(s.ref("shop/many:1"), index, as("ann")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Copy(t.Context(), parsed(t, c, "shop/many:1"), Reference{Repository: "staging/many", Tag: "1"}); err != nil {
		t.Errorf("an index: %v", err)
	}
}

func TestRemoteAttaches(t *testing.T) {
	s := listening(t, Options{})
	other := httptest.NewServer(foreign.New(foreign.Logger(log.New(io.Discard, "", 0)), foreign.WithReferrersSupport(false)))
	t.Cleanup(other.Close)
	c := client(s)
	s.push("shop/web:1")
	away := parsed(t, c, strings.TrimPrefix(other.URL, "http://")+"/team/web:1")
	if _, err := c.Copy(t.Context(), parsed(t, c, "shop/web:1"), away); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []Reference{parsed(t, c, "shop/web:1"), away} {
		digest, err := c.Attach(t.Context(), subject, Artifact{
			Type: "application/vnd.tender.note.v1+json", Annotations: map[string]string{"who": "ann"},
			Blobs: []Blob{{MediaType: "application/json", Data: []byte(`{"a":1}`)}},
		})
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		if _, err := c.Attach(t.Context(), subject, Artifact{Type: "application/vnd.tender.other.v1+json"}); err != nil {
			t.Fatalf("%s: without blobs: %v", subject, err)
		}
		found, err := c.Referrers(t.Context(), subject, "application/vnd.tender.note.v1+json")
		if err != nil || len(found) != 1 || found[0].Digest != digest || found[0].Annotations["who"] != "ann" {
			t.Errorf("%s: referrers %v, %v", subject, found, err)
		}
		if all, err := c.Referrers(t.Context(), subject, ""); err != nil || len(all) != 2 {
			t.Errorf("%s: all referrers %v, %v", subject, all, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestRemoteSaysWhatIsWrong(t *testing.T) {
	s := listening(t, Options{})
	limited := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	t.Cleanup(limited.Close)
	c := client(s)
	s.push("shop/web:1")
	for text, want := range map[string]tender.Kind{
		"shop/web:2": tender.NotFound,
		strings.TrimPrefix(limited.URL, "http://") + "/a/b:1": tender.Unavailable,
	} {
		if _, err := c.Head(t.Context(), parsed(t, c, text)); tender.KindOf(err) != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	_, err := NewRemote(RemoteOptions{}).Head(t.Context(), Reference{Host: s.host, Repository: "shop/web", Tag: "1"})
	if tender.KindOf(err) != tender.Denied {
		t.Errorf("without a login: %v", err)
	}
	known := NewRemote(RemoteOptions{
		Login: func(context.Context, string) (string, error) {
			return base64.URLEncoding.EncodeToString([]byte(`{"Username":"ann","Password":"secret"}`)), nil
		},
		Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") != "" || req.URL.Scheme != "https" {
				t.Errorf("a login goes to %s", req.URL)
			}
			return nil, errors.New("connection refused")
		}),
	})
	if _, err := known.Head(t.Context(), Reference{Host: "10.1.2.3:5000", Repository: "shop/web", Tag: "1"}); tender.KindOf(err) != tender.Denied || !strings.Contains(err.Error(), "in the clear") {
		t.Errorf("a login in the clear: %v", err)
	}
	if _, err := c.Blob(t.Context(), parsed(t, c, "shop/web:1"), "sha256:"+strings.Repeat("0", 64), 10); tender.KindOf(err) != tender.NotFound {
		t.Errorf("a blob that is not there: %v", err)
	}
}
