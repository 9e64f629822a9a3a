package compose_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/compose"
)

// seeds are the Compose files of the cases in testdata.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	var out [][]byte
	cases, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range cases {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if filepath.Ext(file.Name) == ".yaml" {
				out = append(out, file.Data)
			}
		}
	}
	files, _ := filepath.Glob("testdata/chapter/*/*.yaml")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, b)
	}
	return append(out, []byte(bomb()))
}

// Whatever stands in a Compose file, Load answers, with a document that Parse
// reads or with an error of a user's kind.
func FuzzLoad(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		d, err := compose.Load(t.Context(), compose.Source{Files: []string{"-"}, Dir: "/nowhere", Name: "shop", Stdin: bytes.NewReader(content)})
		if err != nil {
			if k := tender.KindOf(err); k != tender.Invalid && k != tender.NotFound {
				t.Fatalf("kind of error is %q: %v", k, err)
			}
			return
		}
		p, err := compose.Parse([]byte(d.YAML))
		if err != nil {
			t.Fatalf("parse what Load wrote: %v\n%s", err, d.YAML)
		}
		if string(p.Spec) != d.YAML {
			t.Fatalf("written again it differs:\n%s\n%s", d.YAML, p.Spec)
		}
	})
}

// Whatever reaches the daemon, Parse answers; what it accepts it accepts again,
// and every service has an essence.
func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		d, err := compose.Load(f.Context(), compose.Source{Files: []string{"-"}, Dir: "/nowhere", Name: "shop", Stdin: bytes.NewReader(s)})
		if err == nil {
			f.Add([]byte(d.YAML))
		}
		f.Add(append([]byte("x-tender-format: 1\n"), s...))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := compose.Parse(content)
		if err != nil {
			if k := tender.KindOf(err); k != tender.Invalid {
				t.Fatalf("kind of error is %q: %v", k, err)
			}
			return
		}
		again, err := compose.Parse(p.Spec)
		if err != nil {
			t.Fatalf("parse what Parse wrote: %v\n%s", err, p.Spec)
		}
		if !bytes.Equal(p.Spec, again.Spec) {
			t.Fatalf("written again it differs:\n%s\n%s", p.Spec, again.Spec)
		}
		for _, s := range p.Services {
			if _, err := compose.Essence(s.Spec); err != nil {
				t.Fatalf("%s: %v\n%s", s.Name, err, s.Spec)
			}
			if !compose.Same(s.Spec, s.Spec) {
				t.Fatalf("%s is not the same as itself", s.Name)
			}
		}
	})
}
