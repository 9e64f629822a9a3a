package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// upload begins one and returns where it goes on.
func (s *site) upload(repository string) (location string) {
	s.t.Helper()
	status, header, body := s.do("ann", "POST", "/v2/"+repository+"/blobs/uploads/", "")
	if status != http.StatusAccepted {
		s.t.Fatalf("begin an upload: %d %s", status, body)
	}
	return header.Get("Location")
}

func and(location, query string) string {
	if strings.Contains(location, "?") {
		return location + "&" + query
	}
	return location + "?" + query
}

func TestABlobIsReadInParts(t *testing.T) {
	s := listening(t, Options{})
	text := strings.Repeat("0123456789", 100)
	d := digest.FromString(text)
	if status, _, body := s.do("ann", "PUT", and(s.upload("shop/web"), "digest="+d.String()), text); status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	blob := "/v2/shop/web/blobs/" + d.String()
	for _, c := range []struct {
		of     string
		want   int
		body   string
		length string
	}{
		{"", 200, text, "1000"},
		{"bytes=10-14", 206, "01234", "5"},
		{"bytes=995-", 206, "56789", "5"},
		{"bytes=-3", 206, "789", "3"},
		{"bytes=2000-", 416, "", ""},
	} {
		var header []string
		if c.of != "" {
			header = []string{"Range", c.of}
		}
		status, got, body := s.do("ann", "GET", blob, "", header...)
		if status != c.want || c.want < 300 && (body != c.body || got.Get("Content-Length") != c.length) {
			t.Errorf("%q: %d, %s bytes, %q", c.of, status, got.Get("Content-Length"), body)
		}
	}
	status, got, body := s.do("ann", "HEAD", blob, "")
	if status != 200 || body != "" || got.Get("Content-Length") != "1000" || got.Get("Docker-Content-Digest") != d.String() {
		t.Errorf("HEAD: %d %v %q", status, got, body)
	}
}

func TestAnotherDigestIsNoBlob(t *testing.T) {
	s := listening(t, Options{})
	said := digest.FromString("what was meant").String()
	status, _, body := s.do("ann", "PUT", and(s.upload("shop/web"), "digest="+said), "what came")
	if status != http.StatusBadRequest || !strings.Contains(body, "DIGEST_INVALID") {
		t.Errorf("%d %s", status, body)
	}
	for _, d := range []string{said, digest.FromString("what came").String()} {
		if status, _, _ := s.do("ann", "HEAD", "/v2/shop/web/blobs/"+d, ""); status != http.StatusNotFound {
			t.Errorf("HEAD of %s: %d", d, status)
		}
	}
}

// What was sent before a connection broke stays, and the upload goes on where it ended: also in
// another process of the registry.
func TestAnUploadThatWasCutGoesOn(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	s := listening(t, o)
	whole := bytes.Repeat([]byte("abcdefgh"), 64<<10)
	d := digest.FromBytes(whole).String()
	location := s.upload("shop/web")

	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(whole[:len(whole)/2])
		w.CloseWithError(errors.New("the cable was pulled"))
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, absolute(s, location), r)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("ann", "secret")
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Fatalf("half of it was taken as the whole: %s", resp.Status)
	}
	if status, _, _ := s.do("ann", "HEAD", "/v2/shop/web/blobs/"+d, ""); status != http.StatusNotFound {
		t.Fatalf("half a blob is there: %d", status)
	}

	s = listening(t, o)
	status, header, body := s.do("ann", "GET", location, "")
	if status != http.StatusNoContent {
		t.Fatalf("where the upload is: %d %s", status, body)
	}
	var last int
	if _, err := fmt.Sscanf(header.Get("Range"), "0-%d", &last); err != nil {
		t.Fatalf("%q: %v", header.Get("Range"), err)
	}
	have := last + 1
	if last == 0 { // nothing arrived, or one byte: the header says the same of both
		have = 0
	}
	rest := string(whole[have:])
	if next := header.Get("Location"); next != "" {
		location = next
	}
	status, header, body = s.do("ann", "PATCH", location, rest, "Content-Type", "application/octet-stream",
		"Content-Range", fmt.Sprintf("%d-%d", have, len(whole)-1))
	if status != http.StatusAccepted {
		t.Fatalf("go on at %d: %d %s", have, status, body)
	}
	status, _, body = s.do("ann", "PUT", and(header.Get("Location"), "digest="+d), "")
	if status != http.StatusCreated {
		t.Fatalf("end it: %d %s", status, body)
	}
	if _, _, got := s.do("ann", "GET", "/v2/shop/web/blobs/"+d, ""); got != string(whole) {
		t.Errorf("%d bytes came back, not the %d that were sent", len(got), len(whole))
	}
}

func absolute(s *site, location string) string {
	if strings.HasPrefix(location, "/") {
		return s.url + location
	}
	return location
}

// A full disk is said; nothing of what did not fit is there, and what was there is served on.
func TestAFullDiskIsSaid(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a disk that is small enough")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("no disk of 2 MiB here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := listening(t, Options{Dir: dir})
	img := s.push("shop/web:1")
	large := make([]byte, 4<<20)
	rand.Read(large) //nolint:errcheck // it never fails
	d := digest.FromBytes(large).String()
	status, _, body := s.do("ann", "PUT", and(s.upload("shop/web"), "digest="+d), string(large))
	if status != http.StatusInsufficientStorage || !strings.Contains(body, "no space left on the registry's disk") {
		t.Errorf("%d %s", status, body)
	}
	if strings.Contains(body, dir) {
		t.Errorf("the answer tells of the host: %s", body)
	}
	if status, _, _ := s.do("ann", "HEAD", "/v2/shop/web/blobs/"+d, ""); status != http.StatusNotFound {
		t.Errorf("what did not fit is there: %d", status)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "docker/registry/v2/repositories/shop/web/_uploads/*")); err != nil || len(left) != 0 {
		t.Errorf("what arrived of it stays: %q, %v", left, err)
	}
	if status, header, _ := s.do("ann", "HEAD", "/v2/shop/web/manifests/1", ""); status != 200 || header.Get("Docker-Content-Digest") != digestOf(t, img) {
		t.Errorf("what was there: %d", status)
	}
}

func TestGrants(t *testing.T) {
	for _, c := range []struct {
		pattern, repository string
		want                bool
	}{
		{"**", "a", true},
		{"**", "a/b/c", true},
		{"shop/*", "shop/web", true},
		{"shop/*", "shop/web/x", false},
		{"shop/*", "shop", false},
		{"shop/**", "shop/web/x", true},
		{"shop/**", "shop", true},
		{"shop/**", "shopping/web", false},
		{"shop/**/x", "shop/web/a/x", true},
		{"shop/**/x", "shop/web", false},
		{"shop/w*", "shop/web", true},
		{"shop", "shop/web", false},
		{"[", "[", false},
	} {
		a := Account{Grants: []Grant{{c.pattern, []string{Pull}}}}
		if got := a.May(c.repository, Pull); got != c.want {
			t.Errorf("%s allows %s: %v", c.pattern, c.repository, got)
		}
		if a.May(c.repository, Push) {
			t.Errorf("%s allows more than it says", c.pattern)
		}
	}
}

// Whoever goes in the middle of a push leaves rows that say what the files say.
func TestAClientThatHasGone(t *testing.T) {
	var leave context.CancelFunc
	s := listening(t, Options{Before: []func(context.Context, Pushed) error{func(context.Context, Pushed) error {
		if leave != nil {
			leave()
		}
		return nil
	}}})
	img := s.push("shop/web:1")
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	media, err := img.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, reference, body string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		leave = cancel
		if method != http.MethodPut {
			cancel()
		}
		req := httptest.NewRequestWithContext(ctx, method, "/v2/shop/web/manifests/"+reference, strings.NewReader(body))
		req.SetBasicAuth("ann", "secret")
		req.Header.Set("Content-Type", string(media))
		s.Handler().ServeHTTP(httptest.NewRecorder(), req)
		rows := s.index()
		if err := s.Reindex(t.Context()); err != nil {
			t.Fatal(err)
		}
		if files := s.index(); files != rows {
			t.Errorf("%s %s: rows said\n%s, files\n%s", method, reference, rows, files)
		}
	}
	ask("PUT", "2", string(raw))
	ask("DELETE", "1", "")
	ask("DELETE", digestOf(t, img), "")
}
