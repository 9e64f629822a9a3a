package registry

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func sized(t *testing.T, bytes int64) v1.Image {
	t.Helper()
	img, err := random.Image(bytes, 1)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestImmutableTags(t *testing.T) {
	s := listening(t, Options{Immutable: []Immutable{{Repositories: "shop/*", Tags: []string{"v*", "*.*.*"}}}})
	first := s.push("shop/web:v1")
	digest, err := first.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(s.ref("shop/web:v1"), first, as("ann")); err != nil {
		t.Errorf("the same again: %v", err)
	}
	err = remote.Write(s.ref("shop/web:v1"), sized(t, 512), as("ann"))
	for _, want := range []string{"DENIED", "shop/web:v1 is immutable", digest.String(), "2026-11-30 06:00 UTC by ann"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("another digest: no %q in %v", want, err)
		}
	}
	s.push("shop/web:latest")
	s.push("shop/web:latest")
	s.push("other/web:v1")
	s.push("other/web:v1")
	for _, ref := range []string{"v1", digest.String()} {
		if code, _, body := s.do("ann", http.MethodDelete, "/v2/shop/web/manifests/"+ref, ""); code != http.StatusForbidden || !strings.Contains(body, "immutable") {
			t.Errorf("delete %s: %d %s", ref, code, body)
		}
	}
	if code, _, body := s.do("ann", http.MethodDelete, "/v2/shop/web/manifests/latest", ""); code != http.StatusAccepted {
		t.Errorf("delete latest: %d %s", code, body)
	}
	if code, _, body := s.do("ann", http.MethodDelete, "/v2/shop/web/manifests/v1?force=true", ""); code != http.StatusAccepted {
		t.Errorf("an admin's delete with force: %d %s", code, body)
	}
}

func TestQuotas(t *testing.T) {
	s := listening(t, Options{Quotas: []Quota{{Repositories: "shop/**", Bytes: 64 << 10}, {Repositories: "few/*", Tags: 2}}})
	write := func(ref string, img v1.Image) error { return remote.Write(s.ref(ref), img, as("ann")) }
	first := sized(t, 30<<10)
	for _, ref := range []string{"shop/web:1", "shop/web:2", "shop/a/b:1"} { // blobs that are shared count once
		if err := write(ref, first); err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
	}
	err := write("shop/web:3", sized(t, 50<<10))
	for _, want := range []string{"DENIED", "the quota of shop/** is used up", "64.0 KiB"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("too much: no %q in %v", want, err)
		}
	}
	if err := write("other/web:1", sized(t, 50<<10)); err != nil {
		t.Errorf("without a quota: %v", err)
	}
	if code, _, body := s.do("ann", http.MethodPost, "/v2/shop/web/blobs/uploads/?digest=sha256:"+strings.Repeat("0", 64), strings.Repeat("x", 60<<10)); code != http.StatusForbidden || !strings.Contains(body, "quota") {
		t.Errorf("an upload of known size: %d %s", code, body)
	}
	if err := write("shop/web:again", first); err != nil {
		t.Errorf("nothing new: %v", err)
	}
	for _, ref := range []string{"few/a:1", "few/b:1", "few/a:1"} {
		if err := write(ref, sized(t, 10)); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := write("few/a:2", sized(t, 10)); err == nil || !strings.Contains(err.Error(), "2 of 2 tags") {
		t.Errorf("a tag too many: %v", err)
	}
	if err := CheckLimits([]Immutable{{Tags: []string{"["}}}, nil); err == nil {
		t.Error("[ is taken for a pattern of tags")
	}
	if err := CheckLimits(nil, []Quota{{}}); err == nil {
		t.Error("a quota of nothing is taken")
	}
}

// Of many that come at once to different repositories, a quota lets in as many as fit.
func TestAQuotaIsNotPassedTogether(t *testing.T) {
	s := listening(t, Options{Quotas: []Quota{{Repositories: "few/*", Tags: 3}}})
	const all = 8
	img := sized(t, 10)
	in := make(chan bool, all)
	for i := range all {
		go func() { in <- remote.Write(s.ref(fmt.Sprintf("few/r%d:1", i)), img, as("ann")) == nil }()
	}
	let := 0
	for range all {
		if <-in {
			let++
		}
	}
	if let != 3 {
		t.Errorf("%d of %d are in, want 3", let, all)
	}
}
