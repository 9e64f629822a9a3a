package scan

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// A parser reads one file that tells of packages. It fills f; what it returns as an
// error leaves the file out, which Contents.Cut says, and harms nothing else.
type parser func(r *reading, l *layer, name string, f *file, body io.ReaderAt, size int64) error

const (
	maxText   = 8 << 20   // of a file that tells of one package
	maxList   = 128 << 20 // of one that lists all of a system
	minBinary = 32 << 10  // smaller ones hold no Go and no list of crates
)

// kindOf says by its path which parser a file is for; nil: none, or it depends on how
// the file begins.
func kindOf(name string) *kind {
	for i := range kinds {
		if kinds[i].is(name, path.Base(name)) {
			return &kinds[i]
		}
	}
	return nil
}

type kind struct {
	is    func(name, base string) bool
	limit int64
	parse parser
}

var kinds = []kind{
	{func(name, _ string) bool {
		return name == "etc/os-release" || name == "usr/lib/os-release"
	}, 64 << 10, parseRelease},

	// Distributions.
	{func(name, base string) bool {
		return name == "var/lib/dpkg/status" || strings.HasPrefix(name, "var/lib/dpkg/status.d/") && !strings.HasSuffix(base, ".md5sums")
	}, maxList, parseDpkg},
	{func(name, base string) bool {
		return strings.HasPrefix(name, "var/lib/dpkg/info/") && strings.HasSuffix(base, ".list") || strings.HasPrefix(name, "var/lib/dpkg/status.d/")
	}, maxList, parseOwned},
	{func(name, _ string) bool { return name == "lib/apk/db/installed" || name == "usr/lib/apk/db/installed" }, maxList, parseApk},
	{func(name, base string) bool {
		switch strings.TrimSuffix(name, base) {
		case "var/lib/rpm/", "usr/lib/sysimage/rpm/", "usr/share/rpm/":
			return base == "Packages" || base == "Packages.db" || base == "rpmdb.sqlite"
		}
		return false
	}, 512 << 20, parseRPM},
	{func(name, base string) bool {
		return strings.HasPrefix(name, "var/lib/rpmmanifest/") && base == "container-manifest-2"
	}, maxList, parseRPMManifest},

	// Languages.
	{func(name, base string) bool { return base == "package.json" && npmModule(name) }, maxText, parseNPM},
	{func(name, base string) bool {
		dir := path.Dir(name)
		return base == "METADATA" && strings.HasSuffix(dir, ".dist-info") ||
			base == "PKG-INFO" && (strings.HasSuffix(dir, ".egg-info") || path.Base(dir) == "EGG-INFO") ||
			strings.HasSuffix(base, ".egg-info")
	}, maxText, parsePython},
	{func(name, base string) bool {
		return strings.HasSuffix(base, ".gemspec") && strings.Contains(name, "specifications/")
	}, maxText, parseGem},
	{func(name, base string) bool {
		return base == "installed.json" && strings.HasSuffix(path.Dir(name), "vendor/composer")
	}, maxList, parseComposer},
	{func(_, base string) bool { return base == "composer.lock" }, maxList, parseComposer},
	{func(_, base string) bool { return base == "Cargo.lock" }, maxText, parseCargoLock},
	{func(_, base string) bool { return strings.HasSuffix(base, ".deps.json") }, maxList, parseNuGet},
	{func(_, base string) bool { return isJar(base) }, 0, parseJar},
}

// look reads what is wanted of one file.
func (r *reading) look(l *layer, name string, size int64, body *bufio.Reader) error {
	if size <= 0 {
		return nil
	}
	kind := kindOf(name)
	limit, parse := r.limits.File, parser(nil)
	if kind != nil {
		parse = kind.parse
		if kind.limit > 0 {
			limit = min(limit, kind.limit)
		}
	} else if start, err := body.Peek(4); err == nil && size >= minBinary && string(start) == "\x7fELF" {
		parse = parseBinary
	}
	if parse == nil {
		return r.lookForSecrets(l, name, size, body)
	}
	if size > limit {
		r.cutf("%s: it is larger than %d MiB", name, limit>>20)
		return nil
	}
	at, n, err := r.hold(body, size)
	if errors.Is(err, errTooMuch) {
		r.cutf("%s: %v", name, err)
		return nil
	}
	if err != nil {
		return err
	}
	f := l.at(name)
	if err := guard(func() error { return parse(r, l, name, f, at, n) }); err != nil {
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		if errors.Is(err, errNothing) {
			err = nil
		} else {
			r.cutf("%s: %v", name, err)
		}
	}
	if len(f.packages) == 0 && f.release == nil && !f.lists && f.mode == 0 {
		delete(l.files, name)
	}
	return nil
}

// errNothing says that a file is not what its name says, and that this is common.
var errNothing = errors.New("nothing")

// guard turns a panic over a file of the image into an error about that file: such
// files are made by whoever made the image.
func guard(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it is broken: %v", p)
		}
	}()
	return do()
}

// found adds a package to a file. Path is set, names are cut to what a name can be.
func (r *reading) found(f *file, name string, p Package) {
	if p.Name == "" || p.Version == "" || len(p.Name) > 512 || len(p.Version) > 512 {
		return
	}
	if len(p.Source) > 512 || len(p.SourceVer) > 512 {
		p.Source, p.SourceVer = "", ""
	}
	if r.packages++; r.packages > r.limits.Packages {
		if r.packages == r.limits.Packages+1 {
			r.cutf("more than %d packages: the rest is not listed", r.limits.Packages)
		}
		return
	}
	if p.Path == "" {
		p.Path = name
	}
	p.Name, p.Version = clean(p.Name), clean(p.Version)
	for i, l := range p.Licenses {
		p.Licenses[i] = clean(short(l))
	}
	f.packages = append(f.packages, p)
}

// clean leaves out what would move a terminal's cursor, and copies, so that a name
// does not keep the text around it in memory.
func clean(s string) string {
	return strings.Clone(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, "")))
}

const maxOwned = 4_000_000

// own notes that a package of the distribution brought a file.
func (r *reading) own(l *layer, name string) {
	if len(l.owned) < maxOwned {
		l.owned = append(l.owned, hashOf(usr(name)))
	}
}

// usr is where a path lies since /bin, /sbin and /lib are links into /usr.
func usr(name string) string {
	if top, _, _ := strings.Cut(name, "/"); top == "bin" || top == "sbin" || strings.HasPrefix(top, "lib") {
		return "usr/" + name
	}
	return name
}

// lines reads a text line by line; longer ones than 1 MiB are left out.
func lines(body io.ReaderAt, size int64, each func(line []byte)) error {
	in := bufio.NewReaderSize(io.NewSectionReader(body, 0, size), 1<<20)
	long := false
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = true
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return err
		}
		if !long {
			each(bytes.TrimRight(line, "\r\n"))
		}
		long = false
		if err != nil {
			return nil
		}
	}
}

func text(body io.ReaderAt, size int64) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(body, 0, size))
}

// parseRelease reads /etc/os-release.
func parseRelease(_ *reading, _ *layer, _ string, f *file, body io.ReaderAt, size int64) error {
	f.release = map[string]string{}
	return lines(body, size, func(line []byte) {
		k, v, ok := strings.Cut(string(line), "=")
		if !ok || len(f.release) > 100 || len(v) > 512 || strings.HasPrefix(k, "#") {
			return
		}
		f.release[strings.TrimSpace(k)] = clean(strings.Trim(strings.TrimSpace(v), `"'`))
	})
}

// parseOwned reads the lists of files that dpkg keeps: NAME.list has a path in each
// line, NAME.md5sums of images without dpkg a hash before it.
func parseOwned(r *reading, l *layer, name string, _ *file, body io.ReaderAt, size int64) error {
	sums := strings.HasSuffix(name, ".md5sums")
	return lines(body, size, func(line []byte) {
		s := string(line)
		if sums {
			_, s, _ = strings.Cut(s, "  ")
		}
		if s = inside(s); s != "" {
			r.own(l, s)
		}
	})
}
