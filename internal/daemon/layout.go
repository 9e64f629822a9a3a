package daemon

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/tenderhq/tender/internal/engine"
)

// What an engine that keeps images in containerd makes of the tar of an older
// one. The same words give the image the same id, whichever way it came.
const (
	manifestType = "application/vnd.docker.distribution.manifest.v2+json"
	configType   = "application/vnd.docker.container.image.v1+json"
	layerType    = "application/vnd.docker.image.rootfs.diff.tar"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// layout is how a saved image becomes an OCI layout: what is written anew, and
// which files go along under which names.
type layout struct {
	names []string // of made, in the order in which they are written
	made  map[string][]byte
	files map[string]string // name in the layout by name in the tar
}

func (l *layout) make(name string, content []byte) {
	l.names = append(l.names, name)
	if l.made == nil {
		l.made = map[string][]byte{}
	}
	l.made[name] = content
}

// savedImage is one line of the file manifest.json.
type savedImage struct {
	Config string
	Layers []string
}

// savedTar is what stands in a tar that docker save wrote, but for the content of its layers.
type savedTar struct {
	images []savedImage
	index  []byte // nil: it is no OCI layout
	sizes  map[string]int64
	links  map[string]string
	json   map[string][]byte
}

// smallFile bounds what is read of a tar to find the configuration of an image, in bytes.
const smallFile = 4 << 20

func readSaved(file io.ReadSeeker) (savedTar, error) {
	out := savedTar{sizes: map[string]int64{}, links: map[string]string{}, json: map[string][]byte{}}
	err := readTar(file, func(h *tar.Header, r io.Reader) (err error) {
		name := path.Clean(h.Name)
		switch {
		case h.Typeflag == tar.TypeSymlink:
			out.links[name] = path.Join(path.Dir(name), h.Linkname)
		case h.Typeflag != tar.TypeReg:
		case name == "manifest.json":
			err = json.NewDecoder(r).Decode(&out.images)
		case name == "index.json":
			out.index, err = io.ReadAll(r)
		default:
			out.sizes[name] = h.Size
			if strings.HasSuffix(name, ".json") && h.Size <= smallFile {
				out.json[name], err = io.ReadAll(r)
			}
		}
		return err
	})
	return out, err
}

// file follows a link: a layer that comes again is one.
func (s savedTar) file(name string) string {
	name = path.Clean(name)
	return cmp.Or(s.links[name], name)
}

// layoutOf says how the one image in a saved tar, of these layers, becomes a
// layout in which it is called as, without its lowest shared layers. nil: the
// tar holds something else.
func layoutOf(file io.ReadSeeker, layers []string, shared int, as string) (*layout, error) {
	saved, err := readSaved(file)
	if err != nil || len(saved.images) != 1 || len(saved.images[0].Layers) != len(layers) {
		return nil, err
	}
	there := map[string]bool{} // digests unpacked
	for _, digest := range layers[:shared] {
		there[digest] = true
	}
	if saved.index != nil {
		return saved.renamed(layers, there, as)
	}
	return saved.converted(layers, there, as)
}

// renamed takes what is a layout already. Its manifests stay as they are, and with them the image's id.
func (s savedTar) renamed(layers []string, there map[string]bool, as string) (*layout, error) {
	var index struct {
		Manifests []map[string]any `json:"manifests"`
	}
	if err := json.Unmarshal(s.index, &index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if len(index.Manifests) == 0 {
		return nil, nil
	}
	top := index.Manifests[0]
	for _, m := range index.Manifests {
		if m["digest"] != top["digest"] {
			return nil, nil // one image under several names is one digest
		}
	}
	top["annotations"] = annotations(as)
	l := &layout{files: map[string]string{}}
	if err := l.head(top); err != nil {
		return nil, err
	}
	for name := range s.sizes {
		if strings.HasPrefix(name, "blobs/") {
			l.files[name] = name
		}
	}
	for n, name := range s.images[0].Layers {
		if there[layers[n]] {
			delete(l.files, s.file(name))
		}
	}
	return l, nil
}

// converted makes the manifest that older engines do not write. Their layers are not compressed.
func (s savedTar) converted(layers []string, there map[string]bool, as string) (*layout, error) {
	image := s.images[0]
	config, ok := s.json[path.Clean(image.Config)]
	if !ok {
		return nil, nil
	}
	manifest := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{SchemaVersion: 2, MediaType: manifestType, Config: described(configType, config)}
	files := map[string]string{}
	for n, name := range image.Layers {
		size, ok := s.sizes[s.file(name)]
		if !ok {
			return nil, nil
		}
		manifest.Layers = append(manifest.Layers, descriptor{MediaType: layerType, Digest: layers[n], Size: size})
		if !there[layers[n]] {
			files[s.file(name)] = blob(layers[n])
		}
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	top := described(manifestType, raw)
	top.Annotations = annotations(as)
	l := &layout{files: files}
	if err := l.head(top); err != nil {
		return nil, err
	}
	l.make(blob(top.Digest), raw)
	l.make(blob(manifest.Config.Digest), config)
	return l, nil
}

// head makes the files that every layout begins with.
func (l *layout) head(manifest any) error {
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{manifest}})
	l.make("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	l.make("index.json", index)
	return err
}

func annotations(as string) map[string]string {
	return map[string]string{
		"io.containerd.image.name":          "docker.io/library/" + as,
		"org.opencontainers.image.ref.name": strings.TrimPrefix(as, engine.Arriving),
	}
}

func described(mediaType string, content []byte) descriptor {
	sum := sha256.Sum256(content)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(content))}
}

// blob is the file of a digest.
func blob(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

// pack writes the layout, gzipped.
func (l *layout) pack(w io.Writer, file io.ReadSeeker) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	write := func(name string, size int64, r io.Reader) error {
		err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644})
		if err == nil {
			_, err = io.Copy(t, r)
		}
		return err
	}
	for _, name := range l.names {
		if err := write(name, int64(len(l.made[name])), bytes.NewReader(l.made[name])); err != nil {
			return err
		}
	}
	written := map[string]bool{}
	err = readTar(file, func(h *tar.Header, r io.Reader) error {
		name, ok := l.files[path.Clean(h.Name)]
		if !ok || h.Typeflag != tar.TypeReg || written[name] {
			return nil
		}
		written[name] = true
		return write(name, h.Size, r)
	})
	return errors.Join(err, t.Close(), z.Close())
}
