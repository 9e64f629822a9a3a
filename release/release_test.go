package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/cli"
)

// The list is made of this test's own binary, which links the commands, too.
func TestTheListNamesWhatIsLinked(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := writeSBOM(w, exe, "1.2.3", day); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != second.String() {
		t.Error("the same binary gives two lists")
	}
	var got bom
	if err := json.Unmarshal(first.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Format != "CycloneDX" || got.Spec != "1.6" || !strings.HasPrefix(got.Serial, "urn:uuid:") || got.Metadata.Component.Version != "1.2.3" {
		t.Errorf("head: %+v", got)
	}
	refs := map[string]bool{got.Metadata.Component.Ref: true}
	for _, c := range got.Components {
		if refs[c.Ref] {
			t.Errorf("%s is there twice", c.Ref)
		}
		refs[c.Ref] = true
	}
	for _, name := range []string{"pkg:golang/std@", "pkg:golang/github.com/spf13/cobra@v", "pkg:golang/modernc.org/sqlite@v"} {
		found := false
		for ref := range refs {
			found = found || strings.HasPrefix(ref, name)
		}
		if !found {
			t.Errorf("no component %s in %d", name, len(refs))
		}
	}
	for _, d := range got.Dependencies {
		for _, r := range append(d.DependsOn, d.Ref) {
			if !refs[r] {
				t.Errorf("%s is no component", r)
			}
		}
	}
}

func TestEachCommandHasItsPage(t *testing.T) {
	dir := t.TempDir()
	if err := cli.Manual(dir, "1.2.3", time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"tender.1", "tender-up.1", "tender-registry-login.1", "tender-context-use.1"} {
		raw, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !bytes.Contains(raw, []byte("Tender 1.2.3")) {
			t.Errorf("%s: %v", page, err)
		}
	}
}
