package scan

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
)

const (
	maxJarDepth    = 4
	maxDirectory   = 16 << 20 // of one archive: about 150,000 classes
	maxJarEntries  = 2_000_000
	maxProperties  = 1 << 20
	maxNested      = 256 << 20 // of one jar in a jar
	maxJarUnpacked = 2 << 30   // of all that lie in one jar
)

func isJar(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".jar", ".war", ".ear", ".jpi", ".hpi", ".par", ".sar":
		return true
	}
	return false
}

// jars looks into one jar, and into those in it.
type jars struct {
	r        *reading
	f        *file
	name     string // of the outermost
	entries  int
	unpacked int64
	temps    []*os.File
}

func parseJar(r *reading, _ *layer, name string, f *file, body io.ReaderAt, size int64) error {
	j := jars{r: r, f: f, name: name}
	defer func() {
		for _, t := range j.temps {
			t.Close()
			os.Remove(t.Name())
		}
	}()
	return j.look(name, body, size, 0)
}

// look finds the packages of a jar. An archive says what it is in pom.properties, one
// for each artifact that was packed into it, or else in its manifest and its name.
func (j *jars) look(name string, body io.ReaderAt, size int64, depth int) error {
	entries, read, err := directory(body, size)
	if err != nil {
		return err
	}
	if j.unpacked += read; j.unpacked > maxJarUnpacked { // a jar may hold itself, many times
		return fmt.Errorf("it unpacks to more than %d MiB", maxJarUnpacked>>20)
	}
	var manifest map[string]string
	poms := 0
	own := artifactOf(name)
	main := false
	for _, e := range entries {
		if j.entries++; j.entries > maxJarEntries {
			return fmt.Errorf("it holds more than %d files", maxJarEntries)
		}
		if j.r.ctx != nil && j.r.ctx.Err() != nil {
			return j.r.ctx.Err()
		}
		switch base := path.Base(e.name); {
		case e.name == "META-INF/MANIFEST.MF":
			if text, err := j.text(body, size, e); err == nil {
				manifest = attributes(text)
			}
		case base == "pom.properties" && strings.HasPrefix(e.name, "META-INF/maven/"):
			text, err := j.text(body, size, e)
			if err != nil {
				continue
			}
			p := keyValues(text)
			if p["groupId"] == "" || p["artifactId"] == "" || p["version"] == "" {
				continue
			}
			poms++
			main = main || p["artifactId"] == own.artifact
			j.r.found(j.f, j.name, Package{Name: p["groupId"] + ":" + p["artifactId"], Version: p["version"], Type: "maven", Path: name})
		case isJar(base):
			if depth+1 >= maxJarDepth {
				j.r.cutf("%s!%s: nested deeper than %d", short(name), short(e.name), maxJarDepth)
				continue
			}
			if err := j.nested(name+"!"+inside(e.name), body, size, e, depth); err != nil {
				if j.r.ctx != nil && j.r.ctx.Err() != nil {
					return err
				}
				j.r.cutf("%s!%s: %v", short(name), short(e.name), err)
			}
		}
	}
	// Shaded: others' properties lie in it, and none of its own.
	if poms == 0 || !main && manifest != nil && own.version != "" && groupOf(own.artifact, manifest) != "" {
		if p := own.pkg(manifest); p.Name != "" {
			p.Path = name
			j.r.found(j.f, j.name, p)
		}
	}
	return nil
}

func (j *jars) nested(name string, body io.ReaderAt, size int64, e entry, depth int) error {
	in, err := e.open(body, size)
	if err != nil {
		return err
	}
	if e.size > maxNested {
		return fmt.Errorf("it is larger than %d MiB", maxNested>>20)
	}
	in = io.LimitReader(in, maxNested)
	if e.method == 0 { // stored: no copy is needed
		if s, ok := e.stored(body, size); ok {
			return j.look(name, s, s.Size(), depth+1)
		}
	}
	var held io.ReaderAt
	var n int64
	if e.size <= inMemory {
		text, err := io.ReadAll(io.LimitReader(in, inMemory))
		if err != nil {
			return err
		}
		held, n = bytes.NewReader(text), int64(len(text))
	} else {
		for len(j.temps) <= depth {
			t, err := os.CreateTemp(j.r.limits.TempDir, "tender-scan-*")
			if err != nil {
				return err
			}
			j.temps = append(j.temps, t)
		}
		t := j.temps[depth]
		if err := t.Truncate(0); err != nil {
			return err
		}
		if _, err := t.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if n, err = io.Copy(t, in); err != nil {
			return err
		}
		held = t
	}
	if j.unpacked += n; j.unpacked > maxJarUnpacked {
		return fmt.Errorf("it unpacks to more than %d MiB", maxJarUnpacked>>20)
	}
	return j.look(name, held, n, depth+1)
}

func (j *jars) text(body io.ReaderAt, size int64, e entry) ([]byte, error) {
	in, err := e.open(body, size)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(in, maxProperties))
	if j.unpacked += int64(len(text)); j.unpacked > maxJarUnpacked {
		return nil, fmt.Errorf("it unpacks to more than %d MiB", maxJarUnpacked>>20)
	}
	return text, err
}

// artifact is what a file's name says: log4j-core-2.14.1.jar.
type artifact struct{ artifact, version string }

var jarName = regexp.MustCompile(`^(.+?)-(\d[0-9A-Za-z.+_-]*)$`)

func artifactOf(name string) artifact {
	base := path.Base(name)
	base = strings.TrimSuffix(base, path.Ext(base))
	if m := jarName.FindStringSubmatch(base); m != nil {
		return artifact{m[1], m[2]}
	}
	return artifact{artifact: base}
}

// pkg names a jar without properties. Without a group it names nothing that advisories
// know, but it is there, and the list says so.
func (a artifact) pkg(manifest map[string]string) Package {
	version := a.version
	for _, k := range []string{"Implementation-Version", "Bundle-Version", "Specification-Version"} {
		if version == "" {
			version = manifest[k]
		}
	}
	name := a.artifact
	if a.version == "" { // app.jar: the manifest knows better
		for _, k := range []string{"Implementation-Title", "Bundle-SymbolicName"} {
			if t := manifest[k]; t != "" && !strings.ContainsAny(t, " ;:/") {
				name = t
				break
			}
		}
	}
	if group := groupOf(name, manifest); group != "" {
		name = group + ":" + name
	}
	return Package{Name: name, Version: version, Type: "maven"}
}

// groups are those whose jars name no group: they are not built with Maven.
var groups = []struct{ prefix, group string }{
	{"spring-boot", "org.springframework.boot"},
	{"spring-security", "org.springframework.security"},
	{"spring-data", "org.springframework.data"},
	{"spring-cloud", "org.springframework.cloud"},
	{"spring-ws", "org.springframework.ws"},
	{"spring-kafka", "org.springframework.kafka"},
	{"spring-amqp", "org.springframework.amqp"},
	{"spring-rabbit", "org.springframework.amqp"},
	{"spring-session", "org.springframework.session"},
	{"spring-batch", "org.springframework.batch"},
	{"spring-integration", "org.springframework.integration"},
	{"spring-hateoas", "org.springframework.hateoas"},
	{"spring-retry", "org.springframework.retry"},
	{"spring-", "org.springframework"},
	{"hibernate-validator", "org.hibernate.validator"},
	{"kotlin-", "org.jetbrains.kotlin"},
	{"kotlinx-coroutines", "org.jetbrains.kotlinx"},
	{"kafka-clients", "org.apache.kafka"},
	{"lucene-", "org.apache.lucene"},
	{"solr-", "org.apache.solr"},
	{"micrometer-", "io.micrometer"},
	{"okhttp", "com.squareup.okhttp3"},
	{"okio", "com.squareup.okio"},
	{"reactor-core", "io.projectreactor"},
	{"reactor-netty", "io.projectreactor.netty"},
	{"grpc-", "io.grpc"},
	{"elasticsearch", "org.elasticsearch"},
	{"groovy", "org.codehaus.groovy"},
	{"mockito-", "org.mockito"},
	{"tomcat-embed", "org.apache.tomcat.embed"},
	{"rxjava", "io.reactivex.rxjava3"},
	{"postgresql", "org.postgresql"},
}

func groupOf(name string, manifest map[string]string) string {
	for _, g := range groups {
		if strings.HasPrefix(name, g.prefix) {
			return g.group
		}
	}
	for _, k := range []string{"Implementation-Vendor-Id", "Bundle-SymbolicName", "Automatic-Module-Name"} {
		v, _, _ := strings.Cut(manifest[k], ";")
		v = strings.TrimSpace(v)
		if k != "Implementation-Vendor-Id" {
			// org.apache.commons.lang3 of commons-lang3: the group is what comes before.
			v = strings.TrimSuffix(v, "."+name)
			i := strings.LastIndexByte(v, '.')
			if i < 0 || v == strings.TrimSpace(manifest[k]) && !strings.HasSuffix(name, v[i+1:]) {
				continue
			}
			if v == strings.TrimSpace(manifest[k]) {
				v = v[:i]
			}
		}
		if strings.Contains(v, ".") && !strings.ContainsAny(v, " /:") {
			return v
		}
	}
	return ""
}

// attributes reads the first section of a manifest, in which long lines go on after a
// line's end and a space.
func attributes(text []byte) map[string]string {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	text, _, _ = bytes.Cut(text, []byte("\n\n"))
	out := map[string]string{}
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\n ", "")) {
		if k, v, ok := strings.Cut(strings.TrimRight(line, "\n"), ":"); ok && len(v) < 512 {
			out[k] = strings.TrimSpace(v)
		}
	}
	return out
}

func keyValues(text []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
			out[strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
	}
	return out
}

// entry is one file of a zip archive. The standard library's reader takes memory for
// whatever number of files an archive claims; this one is bounded before it reads.
// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
type entry struct {
	name         string
	method       uint16
	packed, size int64
	at           int64 // of the local header
}

var errZip = errors.New("it is no archive that can be read")

// directory reads the list of what an archive holds; only what is wanted is kept.
func directory(body io.ReaderAt, size int64) (out []entry, read int64, err error) {
	tail := make([]byte, min(size, 65557))
	if _, err := body.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	end := bytes.LastIndex(tail, []byte("PK\x05\x06"))
	if end < 0 || end+22 > len(tail) {
		return nil, 0, errZip
	}
	e := tail[end:]
	n, at := int64(binary.LittleEndian.Uint32(e[12:])), int64(binary.LittleEndian.Uint32(e[16:]))
	endAt := size - int64(len(tail)) + int64(end)
	if loc := end - 20; loc >= 0 && string(tail[loc:loc+4]) == "PK\x06\x07" {
		head := make([]byte, 56)
		if _, err := body.ReadAt(head, int64(binary.LittleEndian.Uint64(tail[loc+8:]))); err == nil && string(head[:4]) == "PK\x06\x06" {
			n, at = int64(binary.LittleEndian.Uint64(head[40:])), int64(binary.LittleEndian.Uint64(head[48:]))
			endAt = int64(binary.LittleEndian.Uint64(tail[loc+8:]))
		}
	}
	if n < 0 || n > maxDirectory || at < 0 || n > endAt {
		return nil, 0, fmt.Errorf("its list of files is larger than %d MiB, or broken", maxDirectory>>20)
	}
	base := endAt - n - at // what was put before the archive: a script that starts it
	list := make([]byte, n)
	if _, err := body.ReadAt(list, endAt-n); err != nil {
		return nil, 0, errZip
	}
	for len(list) >= 46 && string(list[:4]) == "PK\x01\x02" {
		name, extra, comment := int(binary.LittleEndian.Uint16(list[28:])), int(binary.LittleEndian.Uint16(list[30:])), int(binary.LittleEndian.Uint16(list[32:]))
		next := 46 + name + extra + comment
		if next > len(list) {
			return nil, 0, errZip
		}
		if called := list[46 : 46+name]; name < maxPath && wantedInJar(string(called)) {
			e := entry{
				name:   string(called),
				method: binary.LittleEndian.Uint16(list[10:]),
				packed: int64(binary.LittleEndian.Uint32(list[20:])), size: int64(binary.LittleEndian.Uint32(list[24:])),
				at: int64(binary.LittleEndian.Uint32(list[42:])),
			}
			e.wide(list[46+name : 46+name+extra])
			e.at += base
			out = append(out, e)
		}
		list = list[next:]
	}
	return out, n, nil
}

func wantedInJar(name string) bool {
	return name == "META-INF/MANIFEST.MF" || isJar(name) ||
		strings.HasPrefix(name, "META-INF/maven/") && strings.HasSuffix(name, "/pom.properties")
}

// wide reads the numbers that did not fit into 32 bits.
func (e *entry) wide(extra []byte) {
	for len(extra) >= 4 {
		id, n := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		if extra = extra[4:]; n > len(extra) {
			return
		}
		if f := extra[:n]; id == 1 {
			for _, v := range []*int64{&e.size, &e.packed, &e.at} {
				if *v == 0xffffffff && len(f) >= 8 {
					*v, f = int64(binary.LittleEndian.Uint64(f)), f[8:]
				}
			}
		}
		extra = extra[n:]
	}
}

// stored is where the packed bytes lie.
func (e entry) stored(body io.ReaderAt, size int64) (*io.SectionReader, bool) {
	head := make([]byte, 30)
	if e.at < 0 || e.packed < 0 || e.at > size {
		return nil, false
	}
	if _, err := body.ReadAt(head, e.at); err != nil || string(head[:4]) != "PK\x03\x04" {
		return nil, false
	}
	from := e.at + 30 + int64(binary.LittleEndian.Uint16(head[26:])) + int64(binary.LittleEndian.Uint16(head[28:]))
	if from > size || e.packed > size-from {
		return nil, false
	}
	return io.NewSectionReader(body, from, e.packed), true
}

func (e entry) open(body io.ReaderAt, size int64) (io.Reader, error) {
	s, ok := e.stored(body, size)
	if !ok || e.size < 0 {
		return nil, errZip
	}
	switch e.method {
	case 0:
		return s, nil
	case 8:
		return io.LimitReader(flate.NewReader(s), e.size), nil
	}
	return nil, fmt.Errorf("it is packed by method %d", e.method)
}
