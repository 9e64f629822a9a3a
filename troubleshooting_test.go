package tender_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var verb = regexp.MustCompile(`%[-+#0]*[0-9]*[a-zA-Z%]`)

// telling is the longest part of a format between what is filled in.
func telling(format string) (longest string) {
	for _, part := range verb.Split(format, -1) {
		if part = strings.Trim(part, " :;,.()\""); len(part) > len(longest) {
			longest = part
		}
	}
	return longest
}

// What is not the fault of the words that somebody typed (those errors say what to
// type instead) must be on the page, with its cause and its cure.
func TestTheTroubleshootingPageKnowsEveryError(t *testing.T) {
	page, err := os.ReadFile("docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	found := 0
	err = filepath.WalkDir("internal", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "enginetest") {
			return err
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 2 {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "Errorf" {
				return true
			}
			kind, ok := call.Args[0].(*ast.SelectorExpr)
			format, literal := call.Args[1].(*ast.BasicLit)
			if !ok || !literal || kind.Sel.Name == "Invalid" || kind.Sel.Name == "NotFound" {
				return true
			}
			text, err := strconv.Unquote(format.Value)
			if err != nil {
				t.Fatal(err)
			}
			found++
			// What only passes on another's words has none of its own.
			if words := telling(text); strings.Contains(words, " ") && !strings.Contains(string(page), words) {
				t.Errorf("%s: docs/troubleshooting.md does not know %q", files.Position(call.Pos()), words)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 50 {
		t.Errorf("only %d errors were found", found)
	}
}
