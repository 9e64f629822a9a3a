package scan

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	"github.com/tenderhq/tender"
)

// tarOf makes a layer: text at a name, and entries as they are.
func tarOf(t testing.TB, entries ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(entries); i++ {
		var h *tar.Header
		var text string
		switch e := entries[i].(type) {
		case string:
			i++
			text = entries[i].(string)
			h = &tar.Header{Name: e, Mode: 0o644, Typeflag: tar.TypeReg}
		case tar.Header:
			h = &e
			if e.Typeflag == tar.TypeReg && i+1 < len(entries) {
				if s, ok := entries[i+1].(string); ok && e.Size == -1 {
					text, i = s, i+1
				}
			}
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(text))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// step of a history; its layer is nil if it made none.
type made struct {
	by    string
	layer []byte
}

// configOf is the configuration of an image made by these steps.
func configOf(t testing.TB, inner map[string]any, steps ...made) []byte {
	t.Helper()
	var ids []string
	var history []map[string]any
	for _, s := range steps {
		if s.layer != nil {
			ids = append(ids, "sha256:"+sum(s.layer))
		}
		history = append(history, map[string]any{"created_by": s.by, "empty_layer": s.layer == nil})
	}
	raw, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": inner,
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}, "history": history,
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// saved is what docker save writes of it, before Docker 25: layers first, the manifest last.
func saved(t testing.TB, inner map[string]any, steps ...made) []byte {
	t.Helper()
	config := configOf(t, inner, steps...)
	var entries []any
	var names []string
	for i, s := range steps {
		if s.layer != nil {
			name := fmt.Sprintf("%d%s/layer.tar", i, strings.Repeat("f", 63))
			names = append(names, name)
			entries = append(entries, name, string(s.layer))
		}
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": sum(config) + ".json", "RepoTags": []string{"shop/web:1"}, "Layers": names}})
	if err != nil {
		t.Fatal(err)
	}
	return tarOf(t, append(entries, sum(config)+".json", string(config), "manifest.json", string(manifest))...)
}

func read(t testing.TB, image []byte) Contents {
	t.Helper()
	c, err := Read(t.Context(), Source{Stream: bytes.NewReader(image)}, Limits{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const debian12 = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n"

func dpkg(packages ...string) string {
	var b strings.Builder
	for _, p := range packages {
		name, version, _ := strings.Cut(p, " ")
		fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nArchitecture: amd64\nVersion: %s\nDescription: x\n more\n\n", name, version)
	}
	return b.String()
}

func listed(c Contents) string {
	var b strings.Builder
	for _, p := range c.Packages {
		fmt.Fprintf(&b, "%d %s %s\n", p.Layer, p.PURL, p.Ecosystem)
	}
	return b.String()
}

func TestAPackageIsOfTheLayerThatBroughtItsVersion(t *testing.T) {
	c := read(t, saved(t, nil,
		made{"/bin/sh -c #(nop) ADD file:1 in / ", tarOf(t, "etc/os-release", debian12, "var/lib/dpkg/status", dpkg("libc6 2.36-9", "bash 5.2", "gone 1"))},
		made{"/bin/sh -c #(nop)  ENV A=b", nil},
		made{"RUN /bin/sh -c apt-get install -y curl # buildkit", tarOf(t, "./var/lib/dpkg/status", dpkg("libc6 2.36-10", "bash 5.2", "curl 7.88"))},
		made{"COPY . /app # buildkit", tarOf(t, "app/node_modules/left-pad/package.json", `{"name":"left-pad","version":"1.3.0"}`, "app/node_modules/old/package.json", `{"name":"old","version":"1"}`)},
		made{"RUN |1 VERSION=2 /bin/sh -c rm -r old # buildkit", tarOf(t, "app/node_modules/.wh.old", "", "app/node_modules/left-pad/package.json", `{"name":"left-pad","version":"1.3.0","x":1}`)},
	))
	want := "0 pkg:deb/debian/bash@5.2?arch=amd64&distro=debian-12 Debian:12\n" +
		"1 pkg:deb/debian/curl@7.88?arch=amd64&distro=debian-12 Debian:12\n" +
		"1 pkg:deb/debian/libc6@2.36-10?arch=amd64&distro=debian-12 Debian:12\n" +
		"2 pkg:npm/left-pad@1.3.0 npm\n"
	if diff := cmp.Diff(want, listed(c)); diff != "" {
		t.Error(diff)
	}
	var steps []string
	for _, l := range c.Layers {
		steps = append(steps, l.Step)
	}
	if diff := cmp.Diff([]string{"ADD file:1 in /", "RUN apt-get install -y curl", "COPY . /app", "RUN rm -r old"}, steps); diff != "" {
		t.Error(diff)
	}
}

func TestAnImageIsTheSameFromEverywhere(t *testing.T) {
	layers := []made{
		{"one", tarOf(t, "usr/lib/os-release", debian12, "var/lib/dpkg/status", dpkg("bash 5.2"))},
		{"two", tarOf(t, "opt/x.txt", strings.Repeat("text ", 1000))},
	}
	old := saved(t, nil, layers...)
	want := read(t, old)

	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(old)
	z.Close()
	file := filepath.Join(t.TempDir(), "image.tar.gz")
	if err := os.WriteFile(file, zipped.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	config := configOf(t, nil, layers...)
	blobs := []string{}
	entries := []any{}
	var descriptors []map[string]any
	for _, l := range layers {
		packed := enc.EncodeAll(l.layer, nil)
		blobs = append(blobs, sum(packed))
		entries = append(entries, "blobs/sha256/"+sum(packed), string(packed))
		descriptors = append(descriptors, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": "sha256:" + sum(packed)})
	}
	manifest, err := json.Marshal(map[string]any{"config": map[string]any{"digest": "sha256:" + sum(config)}, "layers": descriptors})
	if err != nil {
		t.Fatal(err)
	}
	index := fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s"},{"digest":"sha256:00","platform":{"os":"unknown","architecture":"unknown"}}]}`, sum(manifest))
	layout := tarOf(t, append(entries, "blobs/sha256/"+sum(manifest), string(manifest), "blobs/sha256/"+sum(config), string(config), "index.json", index, "oci-layout", `{"imageLayoutVersion":"1.0.0"}`)...)

	for name, src := range map[string]Source{
		"gzip":     {Path: file},
		"layout":   {Stream: bytes.NewReader(layout)},
		"registry": {Image: registryImage(t, layers)},
	} {
		got, err := Read(t.Context(), src, Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(listed(want), listed(got)); diff != "" || got.Distro != want.Distro {
			t.Errorf("%s: %s", name, diff)
		}
		if name == "layout" && (got.Digest != "sha256:"+sum(manifest) || got.ImageID != want.ImageID || got.Layers[1].Digest != "sha256:"+blobs[1]) {
			t.Errorf("%s: %s %s %+v", name, got.Digest, got.ImageID, got.Layers)
		}
	}
}

func registryImage(t *testing.T, layers []made) v1.Image {
	t.Helper()
	img := empty.Image
	for _, l := range layers {
		one, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l.layer)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, one); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

func TestWhatIsNoImageIsSaid(t *testing.T) {
	layer := tarOf(t, "a", "b")
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"text":         {[]byte("hello"), "read image : it is no archive of an image: unexpected EOF"},
		"other tar":    {tarOf(t, "a", "b"), "read image : it is no archive of an image: neither manifest.json nor index.json is in it"},
		"cut off":      {saved(t, nil, made{"x", layer})[:1500], "read image : "},
		"other layer":  {bytes.Replace(saved(t, nil, made{"x", layer}), layer[512:513], []byte("c"), 1), "is sha256:"},
		"broken layer": {bytes.Replace(saved(t, nil, made{"x", layer}), layer[:8], []byte("\x1f\x8b567890"), 1), "layer.tar: gzip: gzip: invalid header"},
	} {
		_, err := Read(t.Context(), Source{Stream: bytes.NewReader(c.image)}, Limits{})
		if err == nil || !strings.Contains(err.Error(), c.want) || tender.KindOf(err) != tender.Invalid {
			t.Errorf("%s: %v (%s)", name, err, tender.KindOf(err))
		}
	}
}
