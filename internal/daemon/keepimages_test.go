package daemon

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/registry"
)

func TestRulesOfTheRegistry(t *testing.T) {
	none := func(string) string { return "" }
	for _, test := range []struct{ text, err string }{
		{"registry:\n  retain:\n  - {repositories: \"shop/*\", tags: [\"v*\"], keep: 10, older_than: 30d, untagged: 7d, keep_tags: lts, keep_signed: true}\n  gc: \"04:30\"\n", ""},
		{"registry:\n  retain:\n  - keep: ten\n", `tender.yaml:3:11: "ten" is not how many stay, 1 or more`},
		{"registry:\n  retain:\n  - older: 3d\n", `tender.yaml:3:5: unknown key "registry.retain[0].older"`},
		{"registry:\n  retain:\n  - tags: \"[\"\n", `tender.yaml:3:11: "[" is not a pattern`},
		{"registry:\n  retain: all\n", `tender.yaml:2:11: registry.retain is not a list of rules`},
		{"registry:\n  gc: noon\n", `tender.yaml: registry.gc: "noon" is neither a time of day such as 03:00 nor off`},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "tender.yaml")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Configure(file, none, nil)
		if test.err != "" {
			if err == nil || err.Error() != dir+"/"+test.err {
				t.Errorf("%s%v\nwant %s", test.text, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want := []registry.Rule{{
			Repositories: []string{"shop/*"}, Tags: []string{"v*"}, Keep: 10, OlderThan: 30 * 24 * time.Hour, Untagged: 7 * 24 * time.Hour,
			KeepTags: []string{"lts"}, KeepSigned: true,
		}}
		if diff := cmp.Diff(want, c.RegistryRetain); diff != "" || c.RegistryGC != 4*time.Hour+30*time.Minute {
			t.Error(diff, c.RegistryGC)
		}
	}
}

func TestTheNextTimeOfDay(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ now, want string }{
		{"2026-11-30 02:59", "2026-11-30 03:00"},
		{"2026-11-30 03:00", "2026-12-01 03:00"},
		{"2026-12-31 23:00", "2027-01-01 03:00"},
		{"2026-10-24 12:00", "2026-10-25 03:00"}, // the clock is put back at 3
	} {
		now, err := time.ParseInLocation("2006-01-02 15:04", test.now, berlin)
		if err != nil {
			t.Fatal(err)
		}
		if got := nextAt(now, 3*time.Hour); got.Format("2006-01-02 15:04") != test.want {
			t.Errorf("after %s: %s, want %s", test.now, got, test.want)
		}
	}
}

func TestNamesOfAnImage(t *testing.T) {
	for _, test := range []struct {
		image tender.ImageID
		want  []string
	}{
		{tender.ImageID{Reference: "localhost:5000/shop/web:v1", Digest: "sha256:d", ID: "sha256:i"}, []string{"sha256:d", "sha256:i", "shop/web:v1"}},
		{tender.ImageID{Reference: "localhost:5000/shop/web", ID: "sha256:i"}, []string{"sha256:i", "shop/web:latest"}},
		{tender.ImageID{Reference: "localhost:5000/shop/web@sha256:r"}, []string{"sha256:r"}},
		{tender.ImageID{Reference: "postgres:15", ID: "sha256:i"}, []string{"sha256:i"}},
	} {
		if diff := cmp.Diff(test.want, imageNames(test.image)); diff != "" {
			t.Errorf("%+v: %s", test.image, diff)
		}
	}
}
