package scan

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

func TestNothingLeavesTheImage(t *testing.T) {
	dir := t.TempDir()
	layer := tarOf(t,
		"/etc/os-release", debian12,
		"../../../../var/lib/dpkg/status", dpkg("bash 5.2"),
		tar.Header{Name: "app", Typeflag: tar.TypeSymlink, Linkname: "/"},
		tar.Header{Name: "loop", Typeflag: tar.TypeSymlink, Linkname: "loop/loop"},
		tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8},
		tar.Header{Name: "node_modules/evil/package.json", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"},
		tar.Header{Name: "usr/lib/os-release", Typeflag: tar.TypeLink, Linkname: "etc/os-release"},
		strings.Repeat("a/", 32<<10)+"x.jar", "PK",
	)
	c, err := Read(t.Context(), Source{Stream: bytes.NewReader(saved(t, nil, made{"x", layer}))}, Limits{TempDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Packages) != 1 || c.Distro.Version != "12" {
		t.Errorf("%+v %+v", c.Packages, c.Distro)
	}
	if len(c.Cut) != 2 || !strings.Contains(c.Cut[0], "a second name of etc/passwd") || !strings.Contains(c.Cut[1], "longer than 4096") {
		t.Errorf("%q", c.Cut)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWhiteoutsHideWhatLiesBelow(t *testing.T) {
	npm := func(name string) (string, string) {
		return "srv/" + name + "/node_modules/m/package.json", `{"name":"` + name + `","version":"1"}`
	}
	var base []any
	for _, n := range []string{"stays", "file", "dir", "opaque", "replaced"} {
		p, s := npm(n)
		base = append(base, p, s)
	}
	p, s := npm("new")
	p = strings.Replace(p, "new", "opaque", 1)
	c := read(t, saved(t, nil, made{"1", tarOf(t, base...)}, made{"2", tarOf(t,
		"srv/file/node_modules/m/.wh.package.json", "",
		"srv/.wh.dir", "",
		p, s, // before the mark of its own layer, which it survives
		"srv/opaque/.wh..wh..opq", "",
		tar.Header{Name: "srv/replaced", Typeflag: tar.TypeSymlink, Linkname: "stays"},
	)}))
	if got, want := listed(c), "1 pkg:npm/new@1 npm\n0 pkg:npm/stays@1 npm\n"; got != want {
		t.Errorf("got %s", got)
	}
}

// zeros is what an archive of nothing but zeros unpacks to.
func zeros(t *testing.T, name string, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zero{}, size); err != nil {
		t.Fatal(err)
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLimitsCutAndSaySo(t *testing.T) {
	bomb := zeros(t, "x.jar", 32<<20)
	r := func(l Limits) *layer {
		t.Helper()
		r := &reading{ctx: t.Context(), limits: l.withDefaults()}
		defer r.close()
		got, err := r.layer(bytes.NewReader(bomb))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if l := r(Limits{Bytes: 1 << 20}); !strings.Contains(l.cut, "larger than 1 MiB") || l.bytes > 3<<20 {
		t.Errorf("%q %d", l.cut, l.bytes)
	}
	many := []any{}
	for i := range 100 {
		many = append(many, fmt.Sprint(i), "")
	}
	bomb = tarOf(t, many...)
	if l := r(Limits{Entries: 50}); l.cut != "too many entries" || len(l.covers) > 50 {
		t.Errorf("%q %d", l.cut, len(l.covers))
	}
	// 100 GiB declared, and nothing there.
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "x.jar", Size: 100 << 30, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	_, err := (&reading{ctx: t.Context(), limits: Limits{}.withDefaults()}).layer(&b)
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("%v", err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errors.New("enough"))
	if _, err := Read(ctx, Source{Stream: bytes.NewReader(saved(t, nil, made{"x", bomb}))}, Limits{}); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("%v", err)
	}
}

// A sparse file declares what is not in its archive.
func TestHolesCostNothing(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	pax := map[string]string{"GNU.sparse.major": "1"}
	if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, PAXRecords: pax}); err == nil {
		t.Skip("the writer of archives makes sparse files now: use it here")
	}
	// GNU's old format, by hand: one byte at 0, then a hole up to 512 MiB.
	h := make([]byte, 512)
	put := func(at int, s string) { copy(h[at:], s) }
	put(0, "a.jar")
	put(100, "0000644\x00")
	put(108, "0000000\x000000000\x00")
	put(124, "00000001000\x00") // stored: 512
	put(136, "00000000000\x00")
	put(156, "S")
	put(257, "ustar  \x00")
	put(386, "00000000000\x0000000001000\x00") // offset 0, 512 bytes
	put(483, "04000000000\x00")                // real size: 512 MiB
	put(148, "        ")
	n := 0
	for _, c := range h {
		n += int(c)
	}
	put(148, fmt.Sprintf("%06o\x00 ", n))
	b.Reset()
	for range 100 {
		b.Write(h)
		b.Write(make([]byte, 512))
	}
	b.Write(make([]byte, 1024))
	r := &reading{ctx: t.Context(), limits: Limits{File: 600 << 20, Bytes: 400 << 20, TempDir: t.TempDir()}.withDefaults()}
	defer r.close()
	if _, err := r.layer(&b); err != nil {
		t.Fatal(err)
	}
	if len(r.cut) != 100 || !strings.Contains(r.cut[0], "more than can be looked into") {
		t.Errorf("%q", r.cut)
	}
}

func zipOf(t testing.TB, method uint16, entries ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		f, err := w.CreateHeader(&zip.FileHeader{Name: entries[i], Method: method})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(f, entries[i+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func pom(group, artifact, version string) (string, string) {
	return "META-INF/maven/" + group + "/" + artifact + "/pom.properties", "#x\ngroupId=" + group + "\nartifactId=" + artifact + "\nversion=" + version + "\n"
}

func TestJarsInJars(t *testing.T) {
	log4jName, log4j := pom("org.apache.logging.log4j", "log4j-core", "2.14.1")
	shadedName, shaded := pom("com.google.guava", "guava", "30.0")
	inner := zipOf(t, zip.Deflate, log4jName, log4j, shadedName, shaded)
	spring := zipOf(t, zip.Deflate, "META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nImplementation-Title: spring-core\r\n\r\n")
	boot := "#!/bin/sh\nexec java -jar $0\n" + zipOf(t, zip.Store, "BOOT-INF/lib/log4j-core-2.14.1.jar", inner, "BOOT-INF/lib/spring-core-5.3.1.jar", spring)
	deep := inner
	for range 6 {
		deep = zipOf(t, zip.Deflate, "in.jar", deep)
	}
	large := zipOf(t, zip.Deflate, "lib/large.jar", zipOf(t, zip.Store, log4jName, log4j, "x.class", strings.Repeat("x", inMemory+1)))
	dir := t.TempDir()
	c, err := Read(t.Context(), Source{Stream: bytes.NewReader(saved(t, nil, made{"x", tarOf(t, "app.jar", boot, "deep.jar", deep, "large.war", large, "odd.jar", "PK\x05\x06 no")}))}, Limits{TempDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range c.Packages {
		got = append(got, p.Name+" "+p.Version+" "+p.Path)
	}
	want := []string{
		"com.google.guava:guava 30.0 app.jar!BOOT-INF/lib/log4j-core-2.14.1.jar",
		"org.apache.logging.log4j:log4j-core 2.14.1 app.jar!BOOT-INF/lib/log4j-core-2.14.1.jar",
		"org.apache.logging.log4j:log4j-core 2.14.1 large.war!lib/large.jar",
		"org.springframework:spring-core 5.3.1 app.jar!BOOT-INF/lib/spring-core-5.3.1.jar",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if len(c.Cut) != 2 || !strings.HasSuffix(c.Cut[0], "nested deeper than 4") || !strings.HasPrefix(c.Cut[1], "odd.jar: ") {
		t.Errorf("%q", c.Cut)
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A jar that unpacks to itself, or to far more, ends.
func TestAZipBombIsCut(t *testing.T) {
	bomb := zipOf(t, zip.Deflate, "a.jar", strings.Repeat("\x00", 64<<20))
	var entries []string
	for i := range 8 {
		entries = append(entries, fmt.Sprintf("%d.jar", i), bomb)
	}
	c := read(t, saved(t, nil, made{"x", tarOf(t, "bomb.jar", zipOf(t, zip.Deflate, entries...))}))
	if len(c.Packages) != 0 || len(c.Cut) != 8 {
		t.Errorf("%v %q", c.Packages, c.Cut)
	}
}

func FuzzRead(f *testing.F) {
	pom, text := pom("g", "a", "1")
	f.Add(tarOf(f, "etc/os-release", debian12, "var/lib/dpkg/status", dpkg("bash 5.2"), "lib/apk/db/installed", "P:a\nV:1\n\n", "a.jar", zipOf(f, 8, pom, text)))
	f.Add(tarOf(f, "a/.wh.b", "", "a/.wh..wh..opq", "", tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "../y"}, ".env", "A_TOKEN=abcdefgh\n"))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, layer []byte) {
		src := Source{Stream: bytes.NewReader(saved(t, nil, made{"x", layer}))}
		_, _ = Read(t.Context(), src, Limits{Bytes: 64 << 20, File: 8 << 20, TempDir: t.TempDir()})
		_, _ = Read(t.Context(), Source{Stream: bytes.NewReader(layer)}, Limits{Bytes: 64 << 20, File: 8 << 20, TempDir: t.TempDir()})
	})
}

// FuzzParsers gives each parser any bytes; a panic that guard would catch counts.
func FuzzParsers(f *testing.F) {
	for i := range parsers {
		f.Add(i, []byte(dpkg("a 1")+"\nP:x\nV:1\n[[package]]\nname = \"a\"\n"))
		f.Add(i, []byte("{\"name\":\"a\",\"version\":\"1\",\"packages\":[{}],\"libraries\":{\"a/1\":{\"type\":\"package\"}}}"))
	}
	db := unzipped(f, "testdata/rpm/Packages.gz")
	f.Add(4, db)
	f.Add(4, sqliteOf(f, [][]byte{[]byte("header")}))
	f.Fuzz(func(t *testing.T, i int, text []byte) {
		if i < 0 || i >= len(parsers) {
			return
		}
		r := &reading{ctx: t.Context(), limits: Limits{TempDir: t.TempDir()}.withDefaults()}
		defer r.close()
		_ = parsers[i](r, &layer{files: map[string]*file{}}, "x", &file{}, bytes.NewReader(text), int64(len(text)))
	})
}

var parsers = []parser{parseRelease, parseDpkg, parseOwned, parseApk, parseRPM, parseRPMManifest, parseNPM, parsePython, parseGem, parseComposer, parseCargoLock, parseNuGet, parseJar, parseBinary, func(_ *reading, _ *layer, name string, _ *file, body io.ReaderAt, size int64) error {
	t, err := text(body, size)
	secretsIn(name, t)
	secretsIn(".env", t)
	return err
}}
