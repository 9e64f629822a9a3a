package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSourcesTellNobodysPassword(t *testing.T) {
	for remote, want := range map[string]string{
		"https://ann:secret@git.example.com/shop/web.git":       "https://git.example.com/shop/web",
		"https://x-token@git.example.com/shop/web?token=secret": "https://git.example.com/shop/web",
		"ssh://git@git.example.com:2222/shop/web.git":           "ssh://git.example.com:2222/shop/web",
		"git@git.example.com:shop/web.git":                      "https://git.example.com/shop/web",
		"git.example.com:shop/web":                              "https://git.example.com/shop/web",
		"/srv/git/web.git":                                      "",
		"file:///srv/git/web.git":                               "",
		"../web":                                                "",
		`C:\git\web`:                                            "",
		"":                                                      "",
	} {
		if got := publicURL(remote); got != want {
			t.Errorf("%s is %q, want %q", remote, got, want)
		}
	}
}

func TestImagesAreNamedByWhatTheyAre(t *testing.T) {
	from := origin{version: "1.4.2", commit: "3f2a9c1d4b5e60718293a4b5c6d7e8f901234567", at: time.Unix(1764504000, 0), source: "https://git.example.com/shop/web"}
	none := origin{}
	for _, tt := range []struct {
		given []string
		auto  bool
		from  origin
		want  string
	}{
		{[]string{"shop/web"}, false, from, "shop/web:latest"},
		{[]string{"shop/web:1", "shop/web:2"}, false, from, "shop/web:1 shop/web:2"},
		{nil, true, from, "web:1.4.2 web:git-3f2a9c1d4b5e"},
		{nil, true, none, "web:latest"},
		{[]string{"r.io:5000/web"}, true, from, "r.io:5000/web:1.4.2 r.io:5000/web:git-3f2a9c1d4b5e"},
		{[]string{"r.io:5000/web:1.4.2"}, true, from, "r.io:5000/web:1.4.2 r.io:5000/web:git-3f2a9c1d4b5e"},
		{[]string{"r.io/web:edge"}, true, none, "r.io/web:edge"},
		{[]string{"r.io/web"}, true, none, "r.io/web:latest"},
	} {
		got, err := namesFor(tt.given, tt.auto, tt.from, ".", "/home/ann/Web")
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%v: %v, %v, want %s", tt.given, got, err, tt.want)
		}
	}
	if _, err := namesFor(nil, true, none, "https://git.example.com/x.git", ""); err == nil {
		t.Error("an address has no name")
	}
	want := map[string]string{
		"org.opencontainers.image.source": "https://git.example.com/shop/web", "org.opencontainers.image.version": "1.4.2",
		"org.opencontainers.image.revision": from.commit, "org.opencontainers.image.created": "2025-11-30T12:00:00Z",
	}
	if diff := cmp.Diff(want, from.labels(time.Time{})); diff != "" {
		t.Error(diff)
	}
	from.dirty = true
	got := from.labels(time.Time{})
	if got["org.opencontainers.image.revision"] != from.commit+"-dirty" || got["org.opencontainers.image.created"] != "" {
		t.Errorf("what was changed: %v", got)
	}
	if got := from.labels(time.Unix(0, 0))["org.opencontainers.image.created"]; got != "1970-01-01T00:00:00Z" {
		t.Errorf("with SOURCE_DATE_EPOCH: %s", got)
	}
	if got := fmt.Sprint(none.labels(time.Time{})); got != "map[]" {
		t.Errorf("of nothing: %s", got)
	}
}

func TestTheHighestVersionNamesTheCommit(t *testing.T) {
	for tags, want := range map[string]string{"v1.4.2 v1.4.2-rc.1 latest 1.4": "1.4.2", "v1.9.0 v1.10.0": "1.10.0", "release main": "", "v2": ""} {
		if got := highest(strings.Fields(tags)); got != want {
			t.Errorf("%s: %q, want %q", tags, got, want)
		}
	}
}
