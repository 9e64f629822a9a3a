package compose_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/compose"
)

func TestEphemeralDataIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name, service string
		image         []string // volumes of the image
		want          []string // what each warning begins with
	}{
		{"a named volume", "{image: postgres:15, volumes: [data:/var/lib/postgresql/data]}", []string{"/var/lib/postgresql/data"}, nil},
		{"a folder of the host", "{image: postgres:15, volumes: [/there:/var/lib/postgresql/data]}", []string{"/var/lib/postgresql/data/"}, nil},
		{"a folder that is not there", "{image: busybox, volumes: [/nowhere:/data]}", nil, []string{"a mounts /nowhere, which is not there"}},
		{"no name", "{image: busybox, volumes: [/data]}", nil, []string{"a keeps /data in a volume without a name: it goes"}},
		{"the image's own", "{image: shop/web:1}", []string{"/cache"}, []string{"a keeps /cache in a volume without a name, because its image says so"}},
		{"the image's own, in memory", "{image: shop/web:1, tmpfs: [/cache:size=1m]}", []string{"/cache"}, nil},
		{"a database without any", "{image: registry.local:5000/x/redis:7}", nil, []string{"a looks like a database"}},
		{"something else without any", "{image: nginx}", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := "name: shop\nservices: {a: " + tt.service + "}\n"
			if strings.Contains(file, "data:/") {
				file += "volumes: {data: {}}\n"
			}
			if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := compose.Load(t.Context(), compose.Source{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			p, err := compose.Parse([]byte(d.YAML))
			if err != nil {
				t.Fatal(err)
			}
			got, err := compose.Ephemeral(p.Services[0].Spec, tt.image, func(path string) bool { return path == "/nowhere" })
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				if i < len(tt.want) && strings.HasPrefix(got[i], tt.want[i]) {
					got[i] = tt.want[i]
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
