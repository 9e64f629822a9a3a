package docker_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// piece is one file of a layout.
type piece struct {
	Type    string `json:"mediaType"`
	Digest  string `json:"digest"`
	Size    int    `json:"size"`
	content []byte
}

func newPiece(kind string, content []byte) piece {
	return piece{kind, fmt.Sprintf("sha256:%x", sha256.Sum256(content)), len(content), content}
}

// layer is one with a single file.
func (h *host) layer(name, content string) []byte {
	h.Helper()
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	h.must(t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644}))
	_, err := t.Write([]byte(content))
	h.must(err)
	h.must(t.Close())
	return b.Bytes()
}

// layout is an image of these layers, as a tar, without the files of those that are left out.
func (h *host) layout(name string, layers [][]byte, packed bool, without ...int) *bytes.Reader {
	h.Helper()
	var ids []string
	var pieces []piece
	for _, l := range layers {
		p := newPiece("application/vnd.docker.image.rootfs.diff.tar", l)
		ids = append(ids, p.Digest)
		if packed {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, err := z.Write(l)
			h.must(err)
			h.must(z.Close())
			p = newPiece("application/vnd.docker.image.rootfs.diff.tar.gzip", b.Bytes())
		}
		pieces = append(pieces, p)
	}
	marshal := func(v any) []byte {
		raw, err := json.Marshal(v)
		h.must(err)
		return raw
	}
	info, err := h.Info(h.Context())
	h.must(err)
	config := newPiece("application/vnd.docker.container.image.v1+json", marshal(map[string]any{
		"architecture": info.Arch, "os": info.OS, "config": map[string]any{"Cmd": []string{"/app"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	}))
	kind := "application/vnd.docker.distribution.manifest.v2+json"
	manifest := newPiece(kind, marshal(map[string]any{"schemaVersion": 2, "mediaType": kind, "config": config, "layers": pieces}))
	index := map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{
		"mediaType": kind, "digest": manifest.Digest, "size": manifest.Size,
		"annotations": map[string]string{"io.containerd.image.name": "docker.io/library/" + name},
	}}}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	write := func(name string, content []byte) {
		h.must(t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644}))
		_, err := t.Write(content)
		h.must(err)
	}
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	write("index.json", marshal(index))
	for n, p := range append(pieces, config, manifest) {
		left := false
		for _, w := range without {
			left = left || n == w
		}
		if !left {
			write("blobs/"+strings.Replace(p.Digest, ":", "/", 1), p.content)
		}
	}
	h.must(t.Close())
	return bytes.NewReader(b.Bytes())
}

func TestAnImageArrivesWithoutTheLayersThatAreThere(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx := t.Context()
	works, err := h.Layouts(ctx)
	h.must(err)
	info, err := h.Info(ctx)
	h.must(err)
	if want := info.StorageDriver == "overlayfs"; works != want {
		t.Fatalf("an engine with %s takes layouts: %t", info.StorageDriver, works)
	}
	if !works {
		return // as overlay2, which docker save and load do without the files of layers
	}
	name := func(word string) string { return h.project + "-" + word + ":latest" }
	t.Cleanup(func() {
		for _, word := range []string{"base", "packed", "app", "more"} {
			h.ok(h.RemoveImage(context.Background(), name(word)))
		}
	})
	base, packed := h.layer("base", h.project), h.layer("packed", h.project)
	first, second, third := h.layer("app", "first "+h.project), h.layer("app", "second "+h.project), h.layer("app", "third "+h.project)
	h.must(h.Load(ctx, h.layout(name("base"), [][]byte{base}, false), nil))
	h.must(h.Load(ctx, h.layout(name("packed"), [][]byte{packed}, true), nil))

	left := engine.Arriving + h.project + "-cut-off"
	h.must(h.Load(ctx, h.layout(left, [][]byte{base, third}, false), nil))
	as := engine.Arriving + h.project
	id := func(ref string) string {
		i, err := h.Resolve(ctx, ref)
		if tender.KindOf(err) != tender.NotFound {
			h.must(err)
		}
		return i.ID
	}
	gone := func() {
		t.Helper()
		for _, ref := range []string{as, left} {
			if id(ref) != "" {
				t.Errorf("%s is still there", ref)
			}
		}
	}
	var said []string
	note := func(p engine.Progress) { said = append(said, p.Text) }
	h.must(h.Arrive(ctx, h.layout(as, [][]byte{base, first}, false, 0), as, []string{name("app"), name("more")}, note))
	gone()
	was := id(name("app"))
	if was == "" || id(name("more")) != was {
		t.Errorf("app is %q, more %q", was, id(name("more")))
	}
	if all := strings.Join(said, "\n"); !strings.Contains(all, name("app")) || strings.Contains(all, engine.Arriving) {
		t.Errorf("it says %s", all)
	}
	got, err := h.raw.ContainerCreate(ctx, client.ContainerCreateOptions{Image: name("app")})
	h.must(err)
	_, err = h.raw.ContainerRemove(ctx, got.ID, client.ContainerRemoveOptions{Force: true})
	h.must(err)

	// Layers that nobody has, and those that are there in another form: their content could be unpacked and is gone.
	for _, lower := range [][]byte{h.layer("nobody", "has this "+h.project), packed} {
		err := h.Arrive(ctx, h.layout(as, [][]byte{lower, second}, false, 0), as, []string{name("app")}, nil)
		if tender.KindOf(err) != tender.Invalid {
			t.Errorf("an image that lacks a layer arrives: %v", err)
		}
		gone()
		if id(name("app")) != was {
			t.Error("app has become another image")
		}
	}

	// A new version takes the name over; the one before stays as what it is.
	h.must(h.Arrive(ctx, h.layout(as, [][]byte{base, second}, false, 0), as, []string{name("app")}, nil))
	gone()
	if now := id(name("app")); now == was || now == "" || id(name("more")) != was || id(was) != was {
		t.Errorf("app is %q, was %q, more %q", now, was, id(name("more")))
	}

	// What was pulled is packed, on both sides.
	h.must(h.Arrive(ctx, h.layout(as, [][]byte{packed, second}, true, 0), as, []string{name("more")}, nil))
	gone()

	// What was not sent is the image's own by now, whoever had it before.
	h.must(h.RemoveImage(ctx, name("base")))
	h.must(h.RemoveImage(ctx, name("more")))
	saved, err := h.Save(ctx, []string{name("app")})
	h.must(err)
	defer saved.Close()
	files := map[string]bool{}
	for r := tar.NewReader(saved); ; {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		h.must(err)
		files[f.Name] = true
	}
	if want := fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(base)); !files[want] {
		t.Errorf("without the image that had it, %s is gone: %v", want, files)
	}

	if err := h.Arrive(ctx, h.layout(name("app"), [][]byte{base}, false), name("app"), []string{name("more")}, nil); tender.KindOf(err) != tender.Invalid {
		t.Errorf("it arrives under any name: %v", err)
	}
}
