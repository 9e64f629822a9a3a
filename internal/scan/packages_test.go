package scan

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"database/sql"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite"
)

// TestDpkgsOwnList holds what is found against what dpkg says of this machine.
func TestDpkgsOwnList(t *testing.T) {
	status, err := os.ReadFile("/var/lib/dpkg/status")
	if err != nil {
		t.Skip("this machine has no dpkg to be held against")
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for line := range strings.Lines(string(out)) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "installed "); ok {
			want = append(want, p)
		}
	}
	c := read(t, saved(t, nil, made{"x", tarOf(t, "etc/os-release", string(release), "var/lib/dpkg/status", string(status))}))
	for _, p := range c.Packages {
		name, version := p.Name, p.Version
		if p.Source != "" {
			name = p.Source
		}
		if p.SourceVer != "" {
			version = p.SourceVer
		}
		got = append(got, strings.Join([]string{p.Name, p.Version, p.Arch, name, version}, " "))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 50 {
		t.Errorf("%d packages: %s", len(want), diff)
	}
}

func TestPackagesOfDistributions(t *testing.T) {
	status := "Package: libssl3\nStatus: install ok installed\nSource: openssl (3.0.11-1)\nArchitecture: amd64\nVersion: 3.0.11-1+b1\n\n" +
		"Package: removed\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n" +
		"Package: half\nStatus: install ok unpacked\nVersion: 1:2-3\nArchitecture: all\n"
	apk := "C:Q1\nP:libcrypto3\nV:3.3.0-r2\nA:x86_64\nL:Apache-2.0\no:openssl\nF:usr/lib\nR:libcrypto.so.3\n\nP:musl\nV:1.2.5-r0\nA:x86_64\no:musl\n\n"
	for name, c := range map[string]struct{ release, path, text, want string }{
		"dpkg": {
			"ID=ubuntu\nVERSION_ID=\"22.04\"\n", "var/lib/dpkg/status", status,
			"half 1:2-3   pkg:deb/ubuntu/half@1:2-3?arch=all&distro=ubuntu-22.04 Ubuntu:22.04:LTS\nlibssl3 3.0.11-1+b1 openssl 3.0.11-1 pkg:deb/ubuntu/libssl3@3.0.11-1%2Bb1?arch=amd64&distro=ubuntu-22.04 Ubuntu:22.04:LTS\n",
		},
		"distroless": {
			debian12, "var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2024a\nArchitecture: all\n",
			"tzdata 2024a   pkg:deb/debian/tzdata@2024a?arch=all&distro=debian-12 Debian:12\n",
		},
		"apk": {
			"ID=alpine\nVERSION_ID=3.20.1\n", "lib/apk/db/installed", apk,
			"libcrypto3 3.3.0-r2 openssl 3.3.0-r2 pkg:apk/alpine/libcrypto3@3.3.0-r2?arch=x86_64&distro=alpine-3.20.1 Alpine:v3.20\nmusl 1.2.5-r0   pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.1 Alpine:v3.20\n",
		},
		"rpm": {
			"ID=\"rocky\"\nVERSION_ID=\"9.3\"\n", "var/lib/rpm/Packages", string(unzipped(t, "testdata/rpm/Packages.gz")),
			"libuuid 2.32.1-42.el8_8 util-linux 2.32.1-42.el8_8 pkg:rpm/rocky/libuuid@2.32.1-42.el8_8?arch=x86_64&distro=rocky-9.3 Rocky Linux:9\n",
		},
	} {
		got := read(t, saved(t, nil, made{"x", tarOf(t, "etc/os-release", c.release, c.path, c.text)}))
		var b strings.Builder
		for _, p := range got.Packages {
			b.WriteString(strings.Join([]string{p.Name, p.Version, p.Source, p.SourceVer, p.PURL, p.Ecosystem}, " ") + "\n")
		}
		if diff := cmp.Diff(c.want, b.String()); diff != "" {
			t.Errorf("%s: %s %q", name, diff, got.Cut)
		}
	}
}

func unzipped(t testing.TB, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sqliteOf makes rpmdb.sqlite as RPM does.
func sqliteOf(t testing.TB, headers [][]byte) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rpmdb.sqlite")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE Other (a); CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		if _, err := db.Exec("INSERT INTO Packages (blob) VALUES (?)", h); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The same headers, as SUSE keeps them and as Fedora does, are the same packages. The
// database is that of the image bci-base 15, of which rpm -qa lists 35.
func TestDatabasesOfRPM(t *testing.T) {
	ndb := unzipped(t, "testdata/rpm/Packages.db.gz")
	var headers [][]byte
	if err := (pages{bytes.NewReader(ndb), int64(len(ndb))}).ndb(func(b []byte) error { headers = append(headers, b); return nil }); err != nil {
		t.Fatal(err)
	}
	for range 5 { // more than one page of rows
		headers = append(headers, headers[:min(len(headers), 35)]...)
	}
	list := func(db []byte) (out []string, owned int) {
		t.Helper()
		r, l, f := &reading{ctx: t.Context(), limits: Limits{}.withDefaults()}, &layer{}, &file{}
		if err := parseRPM(r, l, "x", f, bytes.NewReader(db), int64(len(db))); err != nil {
			t.Fatal(err)
		}
		for _, p := range f.packages {
			out = append(out, p.Name+" "+p.Version+" "+p.Arch+" "+p.Source)
		}
		slices.Sort(out)
		return out, len(l.owned)
	}
	a, owned := list(ndb)
	b, _ := list(sqliteOf(t, headers))
	if len(a) != 35 || owned != 2837 || !slices.Equal(a, slices.Compact(b)) || len(b) != 6*35 {
		t.Errorf("%d, %d of %d\n%s", len(a), len(slices.Compact(b)), owned, strings.Join(a, "\n"))
	}
}

func TestDamagedDatabasesOfRPMEnd(t *testing.T) {
	small := unzipped(t, "testdata/rpm/Packages.gz")
	lite := sqliteOf(t, [][]byte{bytes.Repeat([]byte("x"), 100_000)})
	for _, db := range [][]byte{small, lite} {
		for at := 100; at < len(db); at += 97 {
			broken := bytes.Clone(db)
			binary.LittleEndian.PutUint32(broken[min(at, len(db)-4):], 0xffffffff>>(at%9*3))
			r := &reading{ctx: t.Context(), limits: Limits{}.withDefaults()}
			_ = parseRPM(r, &layer{}, "x", &file{}, bytes.NewReader(broken), int64(len(broken)))
		}
	}
}

func TestPackagesOfLanguages(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.Read(bytes.NewReader(self))
	if err != nil {
		t.Fatal(err)
	}
	c := read(t, saved(t, nil, made{"x", tarOf(t,
		"bin/program", string(self),
		"srv/node_modules/@a/b/package.json", `{"name":"@a/b","version":"2.0.0","license":"MIT"}`,
		"srv/node_modules/@a/b/test/package.json", `{"name":"no","version":"1"}`,
		"srv/package.json", `{"name":"app","version":"1"}`,
		"usr/lib/python3/site-packages/PyYAML-6.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: PyYAML\nVersion: 6.0\n\nName: no\n",
		"usr/lib/python3/site-packages/old.egg-info", "Name: old_one\nVersion: 0.1\n",
		"usr/lib/ruby/gems/3.1.0/specifications/rack-2.2.4.gemspec", "Gem::Specification.new do |s|\n  s.name = \"rack\".freeze\n  s.version = \"2.2.4\"\n",
		"srv/Cargo.lock", "version = 3\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\ndependencies = [\n \"serde\",\n]\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n",
		"srv/php/composer.lock", `{"packages":[{"name":"a/locked","version":"1.0"}]}`,
		"srv/php/vendor/composer/installed.json", `{"packages":[{"name":"monolog/monolog","version":"v2.0.1","license":["MIT"]}]}`,
		"app/web.deps.json", `{"libraries":{"web/1.0.0":{"type":"project"},"Newtonsoft.Json/12.0.1":{"type":"package"}}}`,
	)}))
	var got []string
	deps := 0
	for _, p := range c.Packages {
		if p.Type != "golang" {
			got = append(got, p.PURL+" "+p.Ecosystem)
		} else if deps++; p.Name == "stdlib" && "go"+p.Version != info.GoVersion {
			t.Errorf("stdlib %s, and not %s", p.Version, info.GoVersion)
		}
	}
	want := []string{
		"pkg:cargo/serde@1.0.1 crates.io", "pkg:composer/monolog/monolog@2.0.1 Packagist", "pkg:gem/rack@2.2.4 RubyGems",
		"pkg:npm/%40a/b@2.0.0 npm", "pkg:nuget/Newtonsoft.Json@12.0.1 NuGet", "pkg:pypi/pyyaml@6.0 PyPI", "pkg:pypi/old-one@0.1 PyPI",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if deps < len(info.Deps)+1 {
		t.Errorf("%d packages of Go: fewer than the %d of buildinfo, and stdlib", deps, len(info.Deps))
	}
}

func TestCratesOfAProgram(t *testing.T) {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	io.WriteString(w, `{"packages":[{"name":"app","version":"0.1.0","source":"local","root":true},{"name":"serde","version":"1.0.1","source":"crates.io"},{"name":"cc","version":"1","source":"crates.io","kind":"build"}]}`)
	w.Close()
	c := read(t, saved(t, nil, made{"x", tarOf(t, "app", elfWith(t, ".dep-v0", z.Bytes()))}))
	if got, want := listed(c), "0 pkg:cargo/app@0.1.0 crates.io\n0 pkg:cargo/serde@1.0.1 crates.io\n"; got != want {
		t.Errorf("%s %q", got, c.Cut)
	}
}

// elfWith is a program of nothing but one section.
func elfWith(t *testing.T, name string, data []byte) string {
	t.Helper()
	names := "\x00" + name + "\x00.shstrtab\x00"
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: 64}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	at := uint64(64 + 3*64)
	binary.Write(&b, binary.LittleEndian, h)
	binary.Write(&b, binary.LittleEndian, elf.Section64{})
	binary.Write(&b, binary.LittleEndian, elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: at, Size: uint64(len(data))})
	binary.Write(&b, binary.LittleEndian, elf.Section64{Name: uint32(len(name) + 2), Type: uint32(elf.SHT_STRTAB), Off: at + uint64(len(data)), Size: uint64(len(names))})
	b.Write(data)
	b.WriteString(names)
	b.Write(make([]byte, minBinary))
	return b.String()
}

// A library that the distribution packaged is one package: python3-yaml, not PyYAML too.
func TestWhatTheDistributionBroughtIsNotCountedTwice(t *testing.T) {
	meta := "usr/lib/python3/dist-packages/PyYAML-6.0.egg-info/PKG-INFO"
	c := read(t, saved(t, nil,
		made{"1", tarOf(t, "etc/os-release", debian12, "var/lib/dpkg/status", dpkg("python3-yaml 6.0-3"), "var/lib/dpkg/info/python3-yaml:amd64.list", "/.\n/"+meta+"\n", meta, "Name: PyYAML\nVersion: 6.0\n")},
		made{"2", tarOf(t, "usr/local/lib/python3/dist-packages/PyYAML-6.1.dist-info/METADATA", "Name: PyYAML\nVersion: 6.1\n")}))
	if got, want := listed(c), "0 pkg:deb/debian/python3-yaml@6.0-3?arch=amd64&distro=debian-12 Debian:12\n1 pkg:pypi/pyyaml@6.1 PyPI\n"; got != want {
		t.Error(got)
	}
}
