package registry

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	foreign "github.com/google/go-containerregistry/pkg/registry"

	tender "github.com/tenderhq/tender"
)

// A host that asks to be left alone is asked nothing until then.
func TestPoliteLeavesAlone(t *testing.T) {
	var asked atomic.Int32
	var busy atomic.Bool
	to := foreign.New(foreign.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if busy.Load() {
			w.Header().Set("Retry-After", "90")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		to.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	p := NewPolite(http.DefaultTransport)
	p.now = func() time.Time { return now }
	c := NewRemote(RemoteOptions{Transport: p})
	ref := Reference{Host: strings.TrimPrefix(srv.URL, "http://"), Repository: "shop/web", Tag: "1"}
	busy.Store(true)
	if _, err := c.Head(t.Context(), ref); tender.KindOf(err) != tender.Unavailable || !strings.Contains(err.Error(), "too many requests") {
		t.Fatalf("the first: %v", err)
	}
	before := asked.Load()
	if _, err := c.Head(t.Context(), ref); tender.KindOf(err) != tender.Unavailable || !strings.Contains(err.Error(), "2026-11-30 12:01 UTC") {
		t.Fatalf("the second: %v", err)
	}
	if n := asked.Load() - before; n != 0 {
		t.Errorf("it was asked %d times", n)
	}
	now = now.Add(91 * time.Second)
	busy.Store(false)
	if _, err := c.Head(t.Context(), ref); tender.KindOf(err) != tender.NotFound {
		t.Errorf("afterwards: %v", err)
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "soon": 0, "0": 0, "90": 90 * time.Second, "999999999": restMost, "99999999999": restMost,
		"Mon, 30 Nov 2026 12:05:00 GMT": 5 * time.Minute, "Mon, 30 Nov 2020 12:05:00 GMT": 0, "Mon, 30 Nov 2099 12:05:00 GMT": restMost,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// Of two that move a tag, the one that looked before the other wrote is refused.
func TestExpectedTags(t *testing.T) {
	s := listening(t, Options{})
	c := client(s)
	one := digestOf(t, s.push("shop/web:1.4.1"))
	two := digestOf(t, s.push("shop/web:1.4.2"))
	tag := Reference{Repository: "shop/web", Tag: "1.4"}
	if _, err := c.Copy(Expect(t.Context(), ""), tag.At(one), tag); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Copy(Expect(t.Context(), ""), tag.At(two), tag); tender.KindOf(err) != tender.Conflict || !strings.Contains(err.Error(), "meanwhile") {
		t.Errorf("it was there: %v", err)
	}
	if _, err := c.Copy(Expect(t.Context(), one), tag.At(two), tag); err != nil {
		t.Error(err)
	}
	if d, err := c.Head(t.Context(), tag); err != nil || d.Digest != two {
		t.Errorf("it is %s, %v", d.Digest, err)
	}
}

func TestImmutableTagsSayWhy(t *testing.T) {
	s := listening(t, Options{Immutable: []Immutable{{Tags: []string{"*.*.*"}}}})
	c := client(s)
	s.push("shop/web:1.4.1")
	s.push("shop/web:main")
	_, err := c.Copy(t.Context(), Reference{Repository: "shop/web", Tag: "main"}, Reference{Repository: "shop/web", Tag: "1.4.1"})
	if tender.KindOf(err) != tender.Conflict || !strings.Contains(err.Error(), "shop/web:1.4.1 is immutable") {
		t.Error(err)
	}
}
