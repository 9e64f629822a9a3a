package scan

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenderhq/tender"
)

// Source is where an image is read from. One of Path, Stream and Image is set.
type Source struct {
	// Path is a tarball: of docker save, old or new, or an OCI layout; plain or gzip.
	Path string
	// Stream is the same, as an engine exports it. It is read once, and to its end
	// unless there is an error.
	Stream io.Reader
	// Image is one in a registry. Its blobs must be checked against their digests
	// while they are read, as go-containerregistry does.
	Image v1.Image

	// Reference is what the image is called: shop/web:1.4. It chooses where an
	// archive holds more than one.
	Reference string
	// Digest of the manifest, where the asker knows it and the archive does not.
	Digest string
	// Platform chooses in an index; "" is linux on this machine's processor.
	Platform string
}

// Limits bound what one reading may cost. A zero is the default.
type Limits struct {
	Bytes    int64         // unpacked, of all layers: 64 GiB
	Entries  int           // of all layers: 4 million; each costs 8 bytes of memory
	File     int64         // the largest file that is looked into for packages: 512 MiB; it may lie in a temporary file meanwhile
	Packages int           // of all layers: 200,000
	Time     time.Duration // 10 minutes
	Ratio    int64         // how many times larger than its archive a layer may be, beyond its first GiB: 250
	TempDir  string        // where the one temporary file lies; "": the system's
	Now      time.Time     // the day by which ends of life are judged; zero: today
}

func (l Limits) withDefaults() Limits {
	l.Bytes = or(l.Bytes, 64<<30)
	l.Entries = or(l.Entries, 4_000_000)
	l.File = or(l.File, 512<<20)
	l.Packages = or(l.Packages, 200_000)
	l.Time = or(l.Time, 10*time.Minute)
	l.Ratio = or(l.Ratio, 250)
	if l.Now.IsZero() {
		l.Now = time.Now()
	}
	return l
}

func or[T int | int64 | time.Duration](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

const (
	maxLayers   = 1024
	maxJSON     = 8 << 20  // of one manifest or configuration
	maxJSONs    = 64 << 20 // of all in one archive
	maxArchived = 65536    // entries of the archive around the layers
)

// config is what is used of an image's configuration.
type config struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	Variant      string    `json:"variant"`
	OS           string    `json:"os"`
	Config       struct {
		User         string              `json:"User"`
		Env          []string            `json:"Env"`
		Labels       map[string]string   `json:"Labels"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Healthcheck  *struct {
			Test []string `json:"Test"`
		} `json:"Healthcheck"`
	} `json:"config"`
	History []struct {
		CreatedBy  string `json:"created_by"`
		EmptyLayer bool   `json:"empty_layer"`
	} `json:"history"`
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// Read says what is in an image. It reads each layer once, as a stream, and never
// writes a file of the image under a name that the image chose. Archives that are
// broken are errors; what goes beyond the limits is named in Contents.Cut.
func Read(ctx context.Context, src Source, limits Limits) (Contents, error) {
	limits = limits.withDefaults()
	ctx, cancel := context.WithTimeoutCause(ctx, limits.Time,
		tender.Errorf(tender.Invalid, "the image took longer than %s to read", limits.Time))
	defer cancel()
	r := &reading{ctx: ctx, limits: limits}
	defer r.close()

	img, err := r.image(src)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		name := src.Reference
		if name == "" {
			name = src.Path
		}
		return Contents{}, fmt.Errorf("read image %s: %w", name, err)
	}
	return r.contents(src, img), nil
}

// image is one whose layers have been read.
type image struct {
	reference string
	digest    string // of the manifest; ""
	id        string
	config    config
	layers    []*layer
	digests   []string // of layers, as transferred
}

func (r *reading) image(src Source) (image, error) {
	switch {
	case src.Image != nil:
		return r.pulled(src.Image)
	case src.Stream != nil:
		return r.archive(src.Stream, src)
	case src.Path != "":
		f, err := os.Open(src.Path)
		if err != nil {
			return image{}, err
		}
		defer f.Close()
		return r.archive(f, src)
	}
	return image{}, tender.Errorf(tender.Invalid, "no image is named")
}

func (r *reading) pulled(from v1.Image) (image, error) {
	raw, err := from.RawConfigFile()
	if err != nil {
		return image{}, fmt.Errorf("configuration: %w", err)
	}
	var img image
	if err := img.configure(raw); err != nil {
		return image{}, err
	}
	digest, err := from.Digest()
	if err != nil {
		return image{}, err
	}
	img.digest = digest.String()
	layers, err := from.Layers()
	if err != nil {
		return image{}, err
	}
	if len(layers) != len(img.config.RootFS.DiffIDs) {
		return image{}, tender.Errorf(tender.Invalid, "the manifest has %d layers, the configuration %d", len(layers), len(img.config.RootFS.DiffIDs))
	}
	for i, one := range layers {
		digest, err := one.Digest()
		if err != nil {
			return image{}, err
		}
		body, err := one.Compressed()
		if err != nil {
			return image{}, fmt.Errorf("layer %d: %w", i, err)
		}
		l, err := r.layer(body)
		body.Close()
		if err != nil {
			return image{}, fmt.Errorf("layer %d: %w", i, err)
		}
		img.layers = append(img.layers, l)
		img.digests = append(img.digests, digest.String())
	}
	return img, img.check()
}

// configure reads the configuration; the image's ID is its hash.
func (m *image) configure(raw []byte) error {
	if err := json.Unmarshal(raw, &m.config); err != nil {
		return tender.Errorf(tender.Invalid, "configuration: %w", err)
	}
	if n := len(m.config.RootFS.DiffIDs); n > maxLayers {
		return tender.Errorf(tender.Invalid, "configuration: %d layers are more than %d", n, maxLayers)
	}
	sum := sha256.Sum256(raw)
	m.id = "sha256:" + hex.EncodeToString(sum[:])
	return nil
}

// check compares layers with what the configuration promises of them. A layer that
// was cut was not read to its end, so nothing is known of its hash.
func (m *image) check() error {
	for i, l := range m.layers {
		if want := m.config.RootFS.DiffIDs[i]; l.cut == "" && want != l.diffID {
			return tender.Errorf(tender.Invalid, "layer %d is %s, and the configuration says %s", i, l.diffID, want)
		}
	}
	return nil
}

// bundle is an archive that has been read: what it says, and the layers in it. Layers
// come in any order, and before the manifest that gives it, so they are put in order
// last.
type bundle struct {
	texts  map[string][]byte
	layers map[string]*layer
	links  map[string]string
}

func (r *reading) archive(from io.Reader, src Source) (image, error) {
	in, err := gunzip(bufio.NewReaderSize(&ctxReader{r.ctx, from}, 256<<10))
	if err != nil {
		return image{}, err
	}
	in = io.LimitReader(in, 2*r.limits.Bytes)
	b := bundle{texts: map[string][]byte{}, layers: map[string]*layer{}, links: map[string]string{}}
	t, texts := tar.NewReader(in), 0
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return image{}, tender.Errorf(tender.Invalid, "it is no archive of an image: %w", err).
				Hint("docker save -o image.tar NAME, or skopeo copy … oci-archive:image.tar, makes one")
		}
		if n >= maxArchived {
			return image{}, tender.Errorf(tender.Invalid, "the archive has more than %d entries", maxArchived)
		}
		name := inside(h.Name)
		switch h.Typeflag {
		case tar.TypeSymlink: // docker save writes a layer once, and links to it after that
			b.links[name] = inside(path.Join(path.Dir(name), h.Linkname))
			continue
		case tar.TypeLink:
			b.links[name] = inside(h.Linkname)
			continue
		case tar.TypeReg:
		default:
			continue
		}
		body := bufio.NewReaderSize(t, 64<<10)
		start, err := body.Peek(512)
		if err != nil && !errors.Is(err, io.EOF) {
			return image{}, tender.Errorf(tender.Invalid, "%s: %w", name, err)
		}
		switch {
		case looksLikeLayer(start):
			if len(b.layers) >= maxLayers {
				return image{}, tender.Errorf(tender.Invalid, "the archive has more than %d layers", maxLayers)
			}
			l, err := r.layer(body)
			if err != nil {
				return image{}, fmt.Errorf("%s: %w", name, err)
			}
			b.layers[name] = l
		case len(start) > 0 && (start[0] == '{' || start[0] == '[') && h.Size <= maxJSON && texts+int(h.Size) <= maxJSONs:
			text, err := io.ReadAll(body)
			if err != nil {
				return image{}, tender.Errorf(tender.Invalid, "%s: %w", name, err)
			}
			texts += len(text)
			b.texts[name] = text
		}
	}
	return b.choose(src)
}

// choose finds the image that is meant, and puts its layers in order.
func (b *bundle) choose(src Source) (image, error) {
	if text, ok := b.texts["manifest.json"]; ok {
		return b.saved(text, src)
	}
	if text, ok := b.texts["index.json"]; ok {
		return b.layout(text, src)
	}
	return image{}, tender.Errorf(tender.Invalid, "it is no archive of an image: neither manifest.json nor index.json is in it").
		Hint("docker save -o image.tar NAME, or skopeo copy … oci-archive:image.tar, makes one")
}

// saved reads what docker save wrote.
func (b *bundle) saved(text []byte, src Source) (image, error) {
	var all []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return image{}, tender.Errorf(tender.Invalid, "manifest.json: %w", err)
	}
	var names []string
	found := -1
	for i, one := range all {
		names = append(names, one.RepoTags...)
		if slices.ContainsFunc(one.RepoTags, func(tag string) bool { return sameName(tag, src.Reference) }) {
			found = i
		}
	}
	if found < 0 && len(all) == 1 {
		found = 0
	}
	if found < 0 {
		return image{}, several(names, src.Reference)
	}
	one := all[found]
	img := image{reference: src.Reference}
	if img.reference == "" && len(one.RepoTags) > 0 {
		img.reference = one.RepoTags[0]
	}
	if err := img.configure(b.texts[b.at(one.Config)]); err != nil {
		return image{}, err
	}
	return img, b.order(&img, one.Layers)
}

// several says what is in an archive of which no image, or more than one, is meant.
func several(names []string, wanted string) error {
	if len(names) > 10 {
		names = append(names[:10:10], "…")
	}
	return tender.Errorf(tender.Invalid, "the archive does not hold the image %q", wanted).
		Hint("it holds: %s", strings.Join(names, ", "))
}

// sameName compares names as Docker shortens them.
func sameName(a, b string) bool {
	long := func(s string) string {
		s = strings.TrimPrefix(strings.TrimPrefix(s, "docker.io/"), "library/")
		if !strings.Contains(path.Base(s), ":") {
			s += ":latest"
		}
		return s
	}
	return a != "" && b != "" && long(a) == long(b)
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
	Platform    *struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant"`
	} `json:"platform"`
}

func (d descriptor) platform() string {
	if d.Platform == nil {
		return ""
	}
	return platform(d.Platform.OS, d.Platform.Architecture, d.Platform.Variant)
}

func platform(os, arch, variant string) string {
	return strings.TrimSuffix(os+"/"+arch+"/"+variant, "/")
}

func blob(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

// layout reads an OCI image layout.
func (b *bundle) layout(text []byte, src Source) (image, error) {
	wanted := src.Platform
	if wanted == "" {
		wanted = "linux/" + runtime.GOARCH
	}
	var names []string
	var found []descriptor
	var walk func(text []byte, named bool, depth int) error
	walk = func(text []byte, named bool, depth int) error {
		var index struct {
			Manifests []descriptor `json:"manifests"`
		}
		if err := json.Unmarshal(text, &index); err != nil {
			return tender.Errorf(tender.Invalid, "index: %w", err)
		}
		for _, d := range index.Manifests {
			name := d.Annotations["io.containerd.image.name"]
			if name == "" {
				name = d.Annotations["org.opencontainers.image.ref.name"]
			}
			if name != "" {
				names = append(names, name)
			}
			named := named || sameName(name, src.Reference) || name != "" && strings.HasSuffix(src.Reference, ":"+name) || d.Digest == src.Digest && src.Digest != ""
			if len(index.Manifests) > 1 && depth == 0 && src.Reference != "" && name != "" && !named {
				continue
			}
			switch {
			case strings.HasSuffix(d.MediaType, "index.v1+json"), strings.HasSuffix(d.MediaType, "manifest.list.v2+json"):
				if depth < 3 {
					if err := walk(b.texts[b.at(blob(d.Digest))], named, depth+1); err != nil {
						return err
					}
				}
			case d.platform() == "unknown/unknown": // an attestation, not an image
			default:
				found = append(found, d)
			}
		}
		return nil
	}
	if err := walk(text, false, 0); err != nil {
		return image{}, err
	}
	if len(found) > 1 {
		found = slices.DeleteFunc(found, func(d descriptor) bool { return d.platform() != wanted && d.platform() != wanted+"/v8" })
		if len(found) == 0 {
			return image{}, tender.Errorf(tender.Invalid, "the archive has no image for %s", wanted)
		}
	}
	if len(found) != 1 {
		return image{}, several(names, src.Reference)
	}
	img := image{reference: src.Reference, digest: found[0].Digest}
	if img.reference == "" && len(names) > 0 {
		img.reference = names[0]
	}
	raw := b.texts[b.at(blob(found[0].Digest))]
	if sum := sha256.Sum256(raw); "sha256:"+hex.EncodeToString(sum[:]) != found[0].Digest {
		return image{}, tender.Errorf(tender.Invalid, "the manifest %s is missing, or another one", found[0].Digest)
	}
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return image{}, tender.Errorf(tender.Invalid, "manifest: %w", err)
	}
	if err := img.configure(b.texts[b.at(blob(manifest.Config.Digest))]); err != nil {
		return image{}, err
	}
	var paths []string
	for _, l := range manifest.Layers {
		paths = append(paths, blob(l.Digest))
		img.digests = append(img.digests, l.Digest)
	}
	return img, b.order(&img, paths)
}

// at follows links between entries of the archive; cycles end after a few steps.
func (b *bundle) at(name string) string {
	name = inside(name)
	for range 8 {
		to, ok := b.links[name]
		if !ok {
			break
		}
		name = to
	}
	return name
}

func (b *bundle) order(img *image, paths []string) error {
	if len(paths) != len(img.config.RootFS.DiffIDs) {
		return tender.Errorf(tender.Invalid, "the manifest has %d layers, the configuration %d", len(paths), len(img.config.RootFS.DiffIDs))
	}
	for _, p := range paths {
		l := b.layers[b.at(p)]
		if l == nil {
			return tender.Errorf(tender.Invalid, "the layer %s is not in the archive", p)
		}
		img.layers = append(img.layers, l)
	}
	return img.check()
}

// looksLikeLayer says whether a blob is a tar archive, packed or not.
func looksLikeLayer(start []byte) bool {
	if bytes.HasPrefix(start, gzipMagic) || bytes.HasPrefix(start, zstdMagic) {
		return true
	}
	if len(start) < 512 {
		return false
	}
	if string(start[257:262]) == "ustar" || bytes.Count(start, []byte{0}) == 512 {
		return true
	}
	// The oldest kind of tar has nothing but a sum of its header.
	sum := 8 * int(' ')
	for i, c := range start[:512] {
		if i < 148 || i >= 156 {
			sum += int(c)
		}
	}
	var said int
	_, err := fmt.Sscanf(strings.Trim(string(start[148:156]), " \x00"), "%o", &said)
	return err == nil && said == sum
}
