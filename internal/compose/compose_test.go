package compose_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/compose"
)

var update = flag.Bool("update", false, "write what is found into testdata")

// TestLoad reads the cases in testdata. Each is an archive: its comment holds
// what the user typed, one word a line (f, p, profile, env-file, env, dir,
// project-dir, remote, service), its files are where the user stands, and the
// file "want" is all that Load answers.
func TestLoad(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for _, name := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			src := source(t, a, dir)
			got := strings.ReplaceAll(answer(t, src), dir, "$DIR")
			for i, f := range a.Files {
				if f.Name != "want" {
					continue
				}
				if *update {
					a.Files[i].Data = []byte(got)
					if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if diff := cmp.Diff(string(a.Files[i].Data), got); diff != "" {
					t.Errorf("want -, got +\n%s", diff)
				}
				return
			}
			t.Errorf("no file named want; got\n%s", got)
		})
	}
}

// source unpacks an archive into dir and reads its comment.
func source(t *testing.T, a *txtar.Archive, dir string) compose.Source {
	t.Helper()
	s := compose.Source{Dir: dir}
	for _, f := range a.Files {
		if f.Name == "want" {
			continue
		}
		if f.Name == "stdin" {
			s.Stdin = strings.NewReader(string(f.Data))
			continue
		}
		p := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(string(a.Comment)) {
		word, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "f":
			s.Files = append(s.Files, value)
		case "p":
			s.Name = value
		case "profile":
			s.Profiles = append(s.Profiles, value)
		case "env-file":
			s.EnvFiles = append(s.EnvFiles, value)
		case "env":
			s.Env = append(s.Env, value)
		case "dir":
			s.Dir = filepath.Join(dir, value)
		case "project-dir":
			s.ProjectDir = value
		case "service":
			s.Services = append(s.Services, value)
		case "remote":
			s.Remote = true
		case "", "#":
		default:
			t.Fatalf("comment: unknown word %q", word)
		}
	}
	return s
}

// answer is all that Load says, printed.
func answer(t *testing.T, src compose.Source) string {
	t.Helper()
	var b strings.Builder
	d, err := compose.Load(t.Context(), src)
	if err != nil {
		if k := tender.KindOf(err); k != tender.Invalid && k != tender.NotFound {
			t.Errorf("kind of error is %q", k)
		}
		fmt.Fprintf(&b, "error:\n%s\n", err)
		if h := tender.AdviceOf(err); h != "" {
			fmt.Fprintf(&b, "hint: %s\n", h)
		}
		return b.String()
	}
	for _, w := range d.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	b.WriteString(d.YAML)
	for _, c := range d.Builds {
		fmt.Fprintf(&b, "build %s: %s %s %v\n", c.Service, c.Context, c.Dockerfile, c.Tags)
		for _, more := range []struct {
			what  string
			value any
			there bool
		}{
			{"secrets", c.Secrets, len(c.Secrets) > 0},
			{"from the vault", c.External, len(c.External) > 0},
			{"ssh", c.SSH, len(c.SSH) > 0},
			{"contexts", c.Contexts, len(c.Contexts) > 0},
			{"platforms", c.Platforms, len(c.Platforms) > 1},
			{"cache to", c.CacheTo, len(c.CacheTo) > 0},
			{"ulimits", c.Ulimits, len(c.Ulimits) > 0},
			{"entitlements", c.Entitlements, len(c.Entitlements) > 0},
			{"anew", c.NoCacheFilter, len(c.NoCacheFilter) > 0},
		} {
			if more.there {
				fmt.Fprintf(&b, "  %s %v\n", more.what, more.value)
			}
		}
	}
	settled(t, d)
	return b.String()
}

// settled checks what holds for every document: the normal form is read, and
// written again the same; each service is the same as itself; no secret is in it.
func settled(t *testing.T, d compose.Document) {
	t.Helper()
	p, err := compose.Parse([]byte(d.YAML))
	if err != nil {
		t.Fatalf("parse the normal form: %v\n%s", err, d.YAML)
	}
	if diff := cmp.Diff(d.YAML, string(p.Spec)); diff != "" {
		t.Errorf("normal form written again: was -, is +\n%s", diff)
	}
	for _, s := range p.Services {
		again, err := compose.Parse(s.Spec)
		if err == nil {
			if diff := cmp.Diff(string(s.Spec), string(again.Services[0].Spec)); diff != "" {
				t.Errorf("spec of %s written again: was -, is +\n%s", s.Name, diff)
			}
		}
		if !compose.Same(s.Spec, append([]byte("# again\n"), s.Spec...)) {
			t.Errorf("%s is not the same as itself", s.Name)
		}
		for _, c := range s.Configs {
			if _, ok := d.Files[c.SHA256]; !ok {
				t.Errorf("%s: content %s of config %s does not travel", s.Name, c.SHA256, c.Source)
			}
		}
	}
	for key, value := range d.Secrets {
		if len(value) > 0 && strings.Contains(d.YAML, strings.TrimSpace(string(value))) {
			t.Errorf("secret %s is in the normal form", key)
		}
	}
}
