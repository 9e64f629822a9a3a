package sample

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what was found into testdata")

const anID = "7d3f0c4c2a5e4d1b9a8f7e6d5c4b3a29181706f5e4d3c2b1a09f8e7d6c5b4a39"

var aStart = time.Date(2026, 3, 1, 12, 0, 0, 250e6, time.UTC)

// web is an instance whose files are in the trees of testdata.
func web() Instance {
	return Instance{
		ID: anID, Name: "shop-web-1", Project: "shop", Service: "web", Revision: "7f3a", Image: "demo/app", PID: 4242, Running: true,
		Health: "healthy", Restarts: 2, Created: aStart.Add(-time.Minute), Started: aStart,
	}
}

// tree writes files below a new folder; ROOT in one of them stands for the folder.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		put(t, filepath.Join(root, name), strings.ReplaceAll(text, "ROOT", root))
	}
	return root
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recorded is a tree of testdata, as files.
func recorded(t testing.TB, name string) map[string]string {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range a.Files {
		files[f.Name] = string(f.Data)
	}
	delete(files, "want")
	return files
}

// in opens a sampler for a tree. Files stay open only where the test says so: what is
// written anew has another inode.
func in(t *testing.T, root string) *Sampler {
	t.Helper()
	s, err := New(Options{Node: "n1", Proc: filepath.Join(root, "proc"), Sys: filepath.Join(root, "sys"), NoHost: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if s.desk.open != 0 {
			t.Errorf("%d files are open after Close", s.desk.open)
		}
	})
	return s
}

// printed shows points, one a line, without labels that all have.
func printed(points []Point, but ...string) string {
	var b strings.Builder
	for _, p := range points {
		var labels []string
		for _, l := range p.Series.Labels {
			if !slices.Contains(but, l.Name) {
				labels = append(labels, fmt.Sprintf("%s=%q", l.Name, l.Value))
			}
		}
		if !slices.IsSortedFunc(p.Series.Labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) }) {
			fmt.Fprintf(&b, "labels are not in order: ")
		}
		fmt.Fprintf(&b, "%s{%s} %.9g\n", p.Series.Name, strings.Join(labels, ","), p.Value)
	}
	return b.String()
}

// common are the labels that all series of web have.
var common = []string{"container", "id", "image", "instance", "name", "node", "project", "revision", "service"}

// value finds the one point of a name.
func value(t *testing.T, points []Point, name string, labels ...Label) float64 {
	t.Helper()
	found, v := 0, 0.0
	for _, p := range points {
		if p.Series.Name == name && !slices.ContainsFunc(labels, func(l Label) bool { return !slices.Contains(p.Series.Labels, l) }) {
			found, v = found+1, p.Value
		}
	}
	if found != 1 {
		t.Fatalf("%d points of %s%v in\n%s", found, name, labels, printed(points, common...))
	}
	return v
}

func has(points []Point, name string) bool {
	return slices.ContainsFunc(points, func(p Point) bool { return strings.HasPrefix(p.Series.Name, name) })
}

func TestRecordedTrees(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, path := range names {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			files := recorded(t, name)
			s := in(t, tree(t, files))
			var got string
			for range 2 { // the second round reads files that are open
				r := s.Take(t.Context(), []Instance{web()})
				points := slices.DeleteFunc(slices.Clone(r.Points), func(p Point) bool { return p.Series.Name == "container_last_seen" })
				labels, _, _ := strings.Cut(printed(r.Points[:1]), " ") // the value is the time
				text := labels + "\n" + printed(points, common...)
				if got != "" && got != text {
					t.Errorf("the second round differs:\n%s", cmp.Diff(got, text))
				}
				got = text
			}
			if st := s.Status(); st.Errors != 0 || st.Problem != "" || st.Instances != 1 {
				t.Errorf("status %+v", st)
			}
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == "want" })
			if *update {
				if i < 0 {
					a.Files = append(a.Files, txtar.File{Name: "want"})
					i = len(a.Files) - 1
				}
				a.Files[i].Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if i < 0 {
				t.Fatalf("%s says not what is wanted; found\n%s", path, got)
			}
			if diff := cmp.Diff(string(bytes.TrimSpace(a.Files[i].Data)), strings.TrimSpace(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
