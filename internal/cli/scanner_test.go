package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
)

func TestAnotherScannerIsRun(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	script, err := os.ReadFile("testdata/scanner.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"trivy", "grype"} {
		if err := os.WriteFile(filepath.Join(bin, name), script, 0o755); err != nil { //nolint:gosec // it is a program
			t.Fatal(err)
		}
	}
	tar := filepath.Join(dir, "web.tar")
	for name, text := range map[string]string{tar: "tar", filepath.Join(dir, "trivy.json"): "a file"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	record := filepath.Join(dir, "record")
	ask := func(with, image string, env ...string) (string, string, error) {
		t.Helper()
		if err := os.RemoveAll(record); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		a := newApp(Stdio{Out: io.Discard, Err: &said, Dir: dir, Env: append([]string{"PATH=" + bin + ":/usr/bin:/bin", "RECORD=" + record, "FOUND={}"}, env...)})
		out, err := a.secondOpinion(t.Context(), with, image)
		args, _ := os.ReadFile(record)
		return out, strings.Join(strings.Fields(string(args)), " "), err
	}
	const evil = "--output=/etc/passwd"
	for _, c := range []struct{ with, image, args string }{
		{"trivy", "shop/web:1", "image --format json --quiet --no-progress -- shop/web:1"},
		{"trivy", evil, "image --format json --quiet --no-progress -- " + evil},
		{"trivy", "web.tar", "image --format json --quiet --no-progress --input " + tar},
		{"grype", "$(reboot)", "--output json --quiet -- $(reboot)"},
		{"grype", "web.tar", "--output json --quiet -- docker-archive:" + tar},
	} {
		out, args, err := ask(c.with, c.image)
		if diff := cmp.Diff(c.args, args); err != nil || out != "{}" || diff != "" {
			t.Errorf("%s %s: %q, %v %s", c.with, c.image, out, err, diff)
		}
	}
	if out, args, err := ask("trivy.json", "shop/web:1"); out != "a file" || args != "" || err != nil {
		t.Errorf("of a file: %q, %v", out, err)
	}
	for what, c := range map[string]struct {
		with string
		env  []string
		kind tender.Kind
		want string
	}{
		"absent": {"trivy", []string{"PATH=" + dir + ":."}, tender.NotFound, "--with trivy: there is no trivy in PATH"},
		"failed": {"grype", []string{"FAIL=no such image"}, tender.Unavailable, "grype failed (exit status 3): no such image"},
		"flood":  {"trivy", []string{"FLOOD=1"}, tender.Invalid, "trivy has written more than 32 MiB"},
	} {
		if _, _, err := ask(c.with, "shop/web:1", c.env...); tender.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
