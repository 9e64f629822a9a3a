package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/api"
)

func TestImagesAtTheWidthOfATerminal(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	before := func(d time.Duration) time.Time { return now.Add(-d) }
	var rows []listedRow
	for _, i := range []api.ListedImage{
		{
			Repository: "shop/web", Digest: "sha256:3f2a9c81d0e4aaaa", Tags: []string{"1.5.0"}, Pushed: before(5 * time.Hour), Size: 12_300_000,
			Stands: []api.ImageStand{{Step: "staging", Since: before(time.Hour)}, {Step: "dev", Since: before(5 * time.Hour)}}, Signed: true,
			Scan: &api.ScanVerdict{}, Running: []string{"shop-staging/web"},
		},
		{
			Repository: "shop/web", Digest: "sha256:b81d9c81d0e4bbbb", Tags: []string{"1", "1.4", "1.4.2", "latest"}, Pushed: before(80 * time.Hour), Size: 12_100_000, Signed: true, Signers: []string{"release"},
			Scan: &api.ScanVerdict{Found: map[string]int{"critical": 2, "high": 15, "low": 3}}, Stands: []api.ImageStand{{Step: "production", Since: before(50 * time.Hour)}}, Running: []string{"shop/web", "shop/worker"},
		},
		{Repository: "postgres", Digest: "sha256:cccc9c81d0e4", Tags: []string{"15"}, Pushed: before(500 * 24 * time.Hour), Size: 379_000_000, Elsewhere: true, Running: []string{"shop/db"}},
	} {
		rows = append(rows, listedRowOf(i, now))
	}
	for width, want := range map[int]string{
		80: `
  DIGEST         TAGS               AGE   SIZE     SCAN        SIGNED BY
shop/web
  3f2a9c81d0e4   1.5.0              5h    12.3MB   ok          yes
    → at staging 1h, dev 5h; runs in shop-staging/web
  b81d9c81d0e4   1, 1.4, 1.4.2, …   3d    12.1MB   2C 15H 3L   release
    → at production 2d; runs in shop/web, shop/worker
postgres
  cccc9c81d0e4   15                 1y    379MB    -           -
    → runs in shop/db
`,
		160: `
  DIGEST         TAGS                    AGE   SIZE     SCAN        SIGNED BY   STANDS               RUNNING IN
shop/web
  3f2a9c81d0e4   1.5.0                   5h    12.3MB   ok          yes         staging 1h, dev 5h   shop-staging/web
  b81d9c81d0e4   1, 1.4, 1.4.2, latest   3d    12.1MB   2C 15H 3L   release     production 2d        shop/web, shop/worker
postgres
  cccc9c81d0e4   15                      1y    379MB    -           -           -                    shop/db
`,
	} {
		var b strings.Builder
		if err := printImages(&b, rows, width); err != nil {
			t.Fatal(err)
		}
		if got := "\n" + b.String(); got != want {
			t.Errorf("%d columns:%s\nwant%s", width, got, want)
		}
		for line := range strings.Lines(b.String()) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width {
				t.Errorf("%d columns in %d: %s", n, width, line)
			}
		}
	}
}
