package tender

import (
	"slices"
	"testing"
	"time"
)

func version(t *testing.T, tag string) Version {
	t.Helper()
	v, ok := VersionOf(tag)
	if !ok {
		t.Fatalf("%s is no version", tag)
	}
	return v
}

func TestRangesHoldWhatNpmSaysTheyDo(t *testing.T) {
	for text, want := range map[string]struct{ in, out []string }{
		"~1.4":            {[]string{"1.4.0", "v1.4.9", "1.4", "1.4.2-alpine"}, []string{"1.3.9", "1.5.0", "1.4.2-rc.1", "2.4.0"}},
		"~1.4.2":          {[]string{"1.4.2", "1.4.10"}, []string{"1.4.1", "1.5.0"}},
		"~1":              {[]string{"1.0.0", "1.99"}, []string{"2.0.0"}},
		"^1.4":            {[]string{"1.4.0", "1.9"}, []string{"1.3.9", "2.0.0"}},
		"^0.3.1":          {[]string{"0.3.1", "0.3.9"}, []string{"0.4.0", "0.3.0"}},
		"^0.0.3":          {[]string{"0.0.3"}, []string{"0.0.4"}},
		"1.x":             {[]string{"1.0.0", "1.9.9"}, []string{"2.0.0", "0.9"}},
		"1.4":             {[]string{"1.4.7"}, []string{"1.5.0"}},
		"=1.4.2":          {[]string{"1.4.2"}, []string{"1.4.3"}},
		">=1.4 <2":        {[]string{"1.4.0", "1.9"}, []string{"1.3", "2.0.0"}},
		">= 1.4 < 1.6":    {[]string{"1.5.9"}, []string{"1.6.0"}},
		">1.4 <=1.6":      {[]string{"1.5.0", "1.6.9"}, []string{"1.4.9", "1.7.0"}},
		"1.2.x || ^3":     {[]string{"1.2.9", "3.1.0"}, []string{"1.3.0", "2.0.0"}},
		"*":               {[]string{"0.0.1", "9.9.9"}, []string{"1.0.0-beta"}},
		"v1.4.x || 2.0.0": {[]string{"1.4.1", "2.0.0"}, []string{"2.0.1"}},
	} {
		r, err := ParseRange(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, tag := range want.in {
			if !r.Holds(version(t, tag)) {
				t.Errorf("%s does not hold %s", text, tag)
			}
		}
		for _, tag := range want.out {
			if r.Holds(version(t, tag)) {
				t.Errorf("%s holds %s", text, tag)
			}
		}
	}
	for _, text := range []string{"", "one", "1.2.3.4", "~", "1.2 ||", "^x", "1.-2", "<>1", "~1.4-rc"} {
		if _, err := ParseRange(text); KindOf(err) != Invalid {
			t.Errorf("%q is a range: %v", text, err)
		}
	}
}

func TestTagsOfOneKindFollowEachOther(t *testing.T) {
	for _, c := range []struct {
		a, b string
		like bool
	}{
		{"1.25", "1.27", true},
		{"1.25", "1.27.1", false},
		{"7-alpine", "8-alpine", true},
		{"7-alpine", "8", false},
		{"v1.4.2", "1.4.3", false},
		{"1.4.2", "1.5.0-rc.1", true},
		{"1.27-alpine3.19", "1.28-alpine3.20", false},
	} {
		if got := version(t, c.a).Like(version(t, c.b)); got != c.like {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
	for _, tag := range []string{"1.0.0-rc.1", "1.0.0-rc1", "1.0.0-beta", "1.0.0-3-g1a2b3c", "1.0.0-SNAPSHOT"} {
		if !version(t, tag).Prerelease() {
			t.Errorf("%s is no pre-release", tag)
		}
	}
	for _, tag := range []string{"1.0.0", "1.0-alpine", "7-bookworm", "1-apache"} {
		if version(t, tag).Prerelease() {
			t.Errorf("%s is a pre-release", tag)
		}
	}
}

// 2026-11-30 is a Monday.
func at(text string) time.Time {
	day, hour := text[:3], text[4:]
	d := slices.Index([]string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}, day)
	h, err := time.Parse("15:04", hour)
	if err != nil || d < 0 {
		panic(text)
	}
	return time.Date(2026, 11, 30+d, h.Hour(), h.Minute(), 0, 0, time.UTC)
}

func TestWindowsAreOpenWhenTheySay(t *testing.T) {
	for text, want := range map[string]struct{ in, out []string }{
		"":                                     {[]string{"Mon 00:00"}, nil},
		"Sat-Sun 02:00-05:00":                  {[]string{"Sat 02:00", "Sun 04:59"}, []string{"Sat 05:00", "Sat 01:59", "Mon 03:00"}},
		"02:00-05:00":                          {[]string{"Wed 03:00"}, []string{"Wed 06:00"}},
		"Fri 22:00-04:00":                      {[]string{"Fri 23:00", "Sat 03:59"}, []string{"Fri 03:00", "Sat 23:00"}},
		"Sat, Mon 01:00-02:00":                 {[]string{"Sat 01:00", "Mon 01:30"}, []string{"Sun 01:00"}},
		"Mon-Thu 03:00-04:00, Sun 01:00-24:00": {[]string{"Tue 03:00", "Sun 23:59"}, []string{"Fri 03:00", "Sun 00:59"}},
		"saturday-monday 10:00-11:00 UTC":      {[]string{"Sun 10:00", "Mon 10:59"}, []string{"Tue 10:00"}},
	} {
		w, err := ParseWindow(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, moment := range want.in {
			if !w.Open(at(moment)) {
				t.Errorf("%q is not open on %s", text, moment)
			}
		}
		for _, moment := range want.out {
			if w.Open(at(moment)) {
				t.Errorf("%q is open on %s", text, moment)
			}
		}
	}
	for _, text := range []string{"Sunday", "Sat 5:00", "Someday 02:00-05:00", "02:00-02:00", "Sat 02:00-25:00", "Sat Sun 02:00-05:00", ",", "Sat 02:00-05:00 CET"} {
		if _, err := ParseWindow(text); KindOf(err) != Invalid {
			t.Errorf("%q is a window: %v", text, err)
		}
	}
	w, err := ParseWindow("Sat 02:00-05:00")
	if err != nil {
		t.Fatal(err)
	}
	if next := w.Next(at("Mon 12:30")); !next.Equal(at("Sat 02:00")) {
		t.Errorf("it opens next on %s", next)
	}
}
