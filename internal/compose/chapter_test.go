package compose_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/compose"
)

// chapter holds files as they are taught: they load as they are printed.
func chapter(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/chapter/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	return files
}

var fragments = map[string]string{
	"backup.compose.yaml": `backup.compose.yaml:6:9: services.backup: refers to undefined volume "postgres_data"
backup.compose.yaml:19:9: services.backup: depends on undefined service "postgres"`,
	"pgbouncer.compose.yaml": `pgbouncer.compose.yaml:17:9: services.pgbouncer: depends on undefined service "postgres"`,
}

func TestChapterFilesLoadAsPrinted(t *testing.T) {
	for _, file := range chapter(t) {
		base := filepath.Base(file)
		if fragments[base] != "" {
			continue
		}
		t.Run(base, func(t *testing.T) {
			d, err := compose.Load(t.Context(), compose.Source{Files: []string{base}, Dir: absolute(t, filepath.Dir(file))})
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range d.Warnings {
				if !strings.HasSuffix(w.Text, "is not set, an empty string stands for it") && !strings.Contains(w.Text, "Tender takes it as a constant label of the logs") {
					t.Errorf("warning: %s", w)
				}
			}
			settled(t, d)
		})
	}
}

// A fragment names what another file brings: alone it is refused with the place
// and the name, with that file it loads.
func TestChapterFragmentsNeedTheirOtherFile(t *testing.T) {
	other := filepath.Join(t.TempDir(), "postgres.yaml")
	if err := os.WriteFile(other, []byte("services: {postgres: {image: \"postgres:15\"}}\nvolumes: {postgres_data: {}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, file := range chapter(t) {
		base := filepath.Base(file)
		want := fragments[base]
		if want == "" {
			continue
		}
		t.Run(base, func(t *testing.T) {
			src := compose.Source{Files: []string{base}, Dir: absolute(t, filepath.Dir(file))}
			_, err := compose.Load(t.Context(), src)
			if err == nil {
				t.Fatal("loaded alone")
			}
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("alone: want -, got +\n%s", diff)
			}
			src.Files = append(src.Files, other)
			d, err := compose.Load(t.Context(), src)
			if err != nil {
				t.Fatal(err)
			}
			settled(t, d)
			p, err := compose.Parse([]byte(d.YAML))
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := p.Service("postgres"); !ok {
				t.Error("no service postgres")
			}
		})
	}
}

func TestChapterHardenedIsWhatItSays(t *testing.T) {
	d, err := compose.Load(t.Context(), compose.Source{Files: []string{"hardened.compose.yaml"}, Dir: absolute(t, "testdata/chapter/04-security")})
	if err != nil {
		t.Fatal(err)
	}
	p, err := compose.Parse([]byte(d.YAML))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := p.Service("app")
	spec, err := compose.Spec(s.Spec)
	if err != nil {
		t.Fatal(err)
	}
	app := spec.Services["app"]
	if !app.ReadOnly || app.User != "1001:1001" || !slices.Equal(app.CapDrop, []string{"ALL"}) {
		t.Errorf("read_only %v, user %q, cap_drop %v", app.ReadOnly, app.User, app.CapDrop)
	}
	if !strings.HasPrefix(app.SecurityOpt[1], `seccomp={"defaultAction"`) {
		t.Errorf("security_opt %q", app.SecurityOpt)
	}
	if len(s.Secrets) != 1 || !s.Secrets[0].External || s.Secrets[0].Target != "/run/secrets/mysql_root_password" {
		t.Errorf("secrets %+v", s.Secrets)
	}
}

func absolute(t *testing.T, dir string) string {
	t.Helper()
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
