package compose_test

import (
	"testing"

	"github.com/tenderhq/tender/internal/compose"
)

func TestWhatIsLostWithALayerIsNamed(t *testing.T) {
	one := []string{"shop-web-1"}
	for _, tt := range []struct {
		name  string
		layer compose.Layer
		want  string
	}{
		{"little", compose.Layer{Instances: one, Size: 10<<20 - 1, Files: []string{"/data/a"}}, ""},
		{
			"files of one folder",
			compose.Layer{Instances: one, Size: 11 << 20, Files: []string{"/data/a", "/data/b"}},
			"web keeps 11MiB inside of shop-web-1, which is lost when it is replaced: below /data; copy out what matters (tender cp web:/data .), and mount a volume there, or a tmpfs for what may go",
		},
		{"in several instances, in folders of folders", compose.Layer{
			Instances: []string{"shop-web-1", "shop-web-2"}, Size: 3 << 30,
			Files: []string{"/var/lib/db/base/1", "/var/lib/db/base/2", "/var/lib/db/log/1", "/var/lib/db/log/2/a", "/var/lib/db/pid", "/tmp/x"},
		}, "web keeps 3GiB inside of 2 instances, which is lost when it is replaced: below /var/lib/db, /tmp; copy out what matters (tender cp web:/var/lib/db .), and mount a volume there, or a tmpfs for what may go"},
		{
			"everywhere",
			compose.Layer{Instances: one, Size: 11 << 20, Files: []string{"/a/b/c", "/d/e", "/f/g", "/h/i", "/a/k", "/j"}},
			"web keeps 11MiB inside of shop-web-1, which is lost when it is replaced: below /a, /, /d and elsewhere; copy out what matters (tender cp web:/a .), and mount a volume there, or a tmpfs for what may go",
		},
		{
			"nobody knows where",
			compose.Layer{Instances: one, Size: 11 << 20},
			"web keeps 11MiB inside of shop-web-1, which is lost when it is replaced: docker diff shop-web-1 shows what; copy it out, and mount a volume there",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := compose.Loses("web", tt.layer); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
