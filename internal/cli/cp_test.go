package cli

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A tar comes from a container, which may be hostile: nothing of it lands
// outside of the directory that it is unpacked in.
func TestUnpackStaysInside(t *testing.T) {
	outside := t.TempDir()
	for name, headers := range map[string][]tar.Header{
		"a path that climbs":             {{Name: "../../evil", Typeflag: tar.TypeReg, Size: 4}},
		"an absolute path":               {{Name: filepath.Join(outside, "evil"), Typeflag: tar.TypeReg, Size: 4}},
		"a link that leads out":          {{Name: "app/out", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "app/out/evil", Typeflag: tar.TypeReg, Size: 4}},
		"a file over a link":             {{Name: "app/evil", Typeflag: tar.TypeSymlink, Linkname: filepath.Join(outside, "evil")}, {Name: "app/evil", Typeflag: tar.TypeReg, Size: 4}},
		"a hard link to a file outside":  {{Name: "app/evil", Typeflag: tar.TypeLink, Linkname: filepath.Join(outside, "there")}},
		"a hard link through a link out": {{Name: "app/out", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "app/evil", Typeflag: tar.TypeLink, Linkname: "app/out/there"}},
	} {
		t.Run(name, func(t *testing.T) {
			there := filepath.Join(outside, "there")
			if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range headers {
				h.Mode = 0o777
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
				if h.Size > 0 {
					if _, err := w.Write([]byte("evil")); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "deep", "deeper")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			// Refused or put elsewhere below dir: both are right.
			err := unpack(&b, dir, "", false)
			t.Logf("unpack: %v", err)
			for _, p := range []string{filepath.Join(outside, "evil"), filepath.Join(dir, "..", "evil"), filepath.Join(dir, "..", "..", "evil")} {
				if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s was written", p)
				}
			}
			if raw, err := os.ReadFile(there); err != nil || string(raw) != "mine" {
				t.Errorf("a file outside was changed: %q, %v", raw, err)
			}
			a, err := os.Stat(filepath.Join(dir, "app", "evil"))
			if err != nil {
				return
			}
			b2, err := os.Stat(there)
			if err != nil {
				t.Fatal(err)
			}
			if os.SameFile(a, b2) {
				t.Error("a file outside became reachable as a file inside")
			}
		})
	}
}
