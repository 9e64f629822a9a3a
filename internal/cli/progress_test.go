package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/api"
)

// The last picture that the live display leaves on the terminal.
func TestLiveDisplayEndsWithALinePerItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		l := newLive(&b, false)
		for _, e := range []api.Event{
			{Kind: api.KindPull, Text: "postgres:15: downloading", Current: 5e6, Total: 80e6},
			{Kind: api.KindBegun, Service: "db", Text: "db: create shop-db-1"},
			{Kind: api.KindWarning, Text: "web has no healthcheck"},
			{Kind: api.KindEnded, Service: "db", Text: "shop-db-1 is healthy"},
			{Kind: api.KindBegun, Service: "web", Text: "create shop-web-1"},
			{Kind: api.KindFailed, Service: "web", Text: "port 80 is taken by " + strings.Repeat("somebody ", 20)},
			{Kind: api.KindBegun, Project: "shop", Text: "create network shop_default"},
		} {
			l.report(e)
			time.Sleep(500 * time.Millisecond)
		}
		l.report(api.Event{Kind: api.KindDone, Result: &api.Result{Outcome: "rolled back", Services: []api.ServiceResult{
			{Service: "db", State: "healthy"}, {Service: "cache", State: "failed"},
		}}})
		l.close()
		if !strings.Contains(b.String(), "warning: web has no healthcheck\n") {
			t.Error("the warning is lost")
		}
		frames := strings.Split(b.String(), "\x1b[J")
		got := frames[len(frames)-1]
		want := "" +
			" X postgres:15  downloading                                                3.5s\n" +
			" ✔ db           healthy                                                    1.0s\n" +
			" ✘ web          failed: port 80 is taken by somebody somebody somebody so… 0.5s\n" +
			" X shop         create network shop_default                                0.5s\n" +
			" ✘ cache        failed                                                     0.0s\n"
		for _, r := range spinner {
			got = strings.ReplaceAll(got, string(r), "X")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("want -, got +\n%s", diff)
		}
	})
}

func TestLeaveKeys(t *testing.T) {
	for _, c := range []struct {
		keys, typed, passed string
		left                bool
	}{
		{dockersKeys, "ls\r", "ls\r", false},
		{dockersKeys, "a\x10b", "a\x10b", false},
		{dockersKeys, "a\x10\x11b", "a", true},
		{dockersKeys, "\x10\x10\x11", "\x10", true},
		{dockersKeys, "\x11\x10", "\x11\x10", false},
		{"ctrl-], q", "", "", false},
		{"ctrl-]", "\x10\x11a\x1d", "\x10\x11a", true},
		{"a,ctrl-a,b", "aa\x01aa\x01b", "aa\x01a", true},
	} {
		keys, err := detachKeys(c.keys)
		if strings.Contains(c.keys, " ") {
			if err == nil {
				t.Errorf("%s was taken for keys", c.keys)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(c.typed), "key by key": iotest.OneByteReader(strings.NewReader(c.typed))} {
			got, err := io.ReadAll(&leaveKeys{r: r, keys: keys})
			if string(got) != c.passed || errors.Is(err, errDetached) != c.left {
				t.Errorf("%s, %q %s: passed %q, left %v; want %q, %v", c.keys, c.typed, name, got, err, c.passed, c.left)
			}
		}
	}
}

// Output beyond what is held for sorting is printed, none is lost.
func TestLogSorterIsBounded(t *testing.T) {
	var printed []string
	s := sorter{out: func(l api.LogLine) error { printed = append(printed, l.Text[:6]); return nil }}
	text := strings.Repeat("x", 1<<20)
	start := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	var want []string
	for i := range 150 {
		want = append(want, fmt.Sprintf("%06d", i))
		if err := s.add(api.LogLine{Time: start.Add(time.Duration(i) * time.Second), Text: want[i] + text}); err != nil {
			t.Fatal(err)
		}
		if s.bytes > sortBytes+2<<20 {
			t.Fatalf("%d bytes held", s.bytes)
		}
	}
	if err := s.flush(0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, printed); diff != "" {
		t.Error(diff)
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                     {},
		"90s":                  now.Add(-90 * time.Second),
		"2d":                   now.Add(-48 * time.Hour),
		"1w":                   now.Add(-7 * 24 * time.Hour),
		"2026-01-02T15:04:05Z": time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
		"2026-01-02":           time.Date(2026, 1, 2, 0, 0, 0, 0, time.Local),
		"1767366245.5":         time.UnixMilli(1767366245500),
	} {
		got, err := moment("--since", text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	if _, err := moment("--since", "yesterday", now); err == nil {
		t.Error("yesterday was taken for a moment")
	}
}
