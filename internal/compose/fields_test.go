package compose

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
)

// Every field that the specification has is in the table, and the table has no
// field that the specification has not.
func TestFieldsCoverTheSpecification(t *testing.T) {
	used := map[string]bool{}
	for _, p := range schema.AttributePaths() {
		f, ok := verdictOf(string(p))
		if !ok {
			t.Errorf("%s is in the specification and not in the table", p)
		}
		used[f.path] = true
	}
	for _, f := range fields {
		if !used[f.path] {
			t.Errorf("%s is in the table and not in the specification", f.path)
		}
		if f.verdict != honoured && f.why == "" {
			t.Errorf("%s is %s and does not say why", f.path, f.verdict)
		}
	}
	if !slices.IsSortedFunc(fields, func(a, b field) int { return strings.Compare(a.path, b.path) }) {
		t.Error("the table is not in the order of its paths")
	}
}

// docs/compose.md lists the table; go test -update writes it anew.
func TestDocsListTheFields(t *testing.T) {
	const file, begin, end = "../../docs/compose.md", "<!-- fields -->\n", "<!-- end of fields -->\n"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q and %q", file, begin, end)
	}
	want := head + begin + fieldsTable() + end + tail
	if *updateDocs {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("%s is not made from the table (go test ./internal/compose -docs): want -, is +\n%s", file, diff)
	}
}

func fieldsTable() string {
	var b strings.Builder
	b.WriteString("| field | | |\n|---|---|---|\n")
	for _, f := range fields {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.path, f.verdict, f.why)
	}
	return b.String()
}

func TestTheSchemaIsUnderstood(t *testing.T) {
	if _, err := shapes(); err != nil {
		t.Fatal(err)
	}
}

func TestValueRulesAreForFieldsOfTheTable(t *testing.T) {
	for path := range values {
		if f, ok := verdictOf(path); !ok || f.verdict == refused {
			// An item of a list is no field of its own: its list is.
			if f, ok = verdictOf(strings.TrimSuffix(path, ".[]")); !ok || f.verdict == refused {
				t.Errorf("rule for %s, which is no honoured field", path)
			}
		}
	}
	for path := range outside {
		if _, ok := verdictOf(path); !ok {
			t.Errorf("%s is no field", path)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"image", "ports", "networks", "network_mode", "depends_on", "restart"}
	for word, want := range map[string]string{
		"imgae": "image", "Image": "image", "port": "ports", "netwroks": "networks", "depend_on": "depends_on", "dependson": "depends_on", "zzz": "", "x": "", "restrat": "restart",
	} {
		if got := tender.Nearest(word, known); got != want {
			t.Errorf("%q: want %q, got %q", word, want, got)
		}
	}
}
