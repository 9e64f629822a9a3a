package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

func TestAMissingImageIsNotFound(t *testing.T) {
	h := newHost(t)
	w := h.want("web", "r1", h.doc("web", sleeps, ""), 1)
	w.Image = tender.ImageID{Reference: "engine-test/nothing:1", ID: "sha256:" + strings.Repeat("0", 64)}
	h.is(h.Scale(t.Context(), w), tender.NotFound, "engine-test/nothing:1", "tender pull")
}

func TestATagThatMovedIsNotUsed(t *testing.T) {
	h := newHost(t)
	w := h.want("web", "r1", h.doc("web", sleeps, ""), 1)
	moved := h.project + ":latest"
	h.must(h.Tag(t.Context(), "redis:alpine", moved))
	t.Cleanup(func() { h.ok(h.RemoveImage(context.Background(), moved)) })
	busybox := w.Image.ID
	w.Image.Reference = moved
	h.must(h.Scale(t.Context(), w))
	if i := h.one(); i.ImageID != busybox || i.Image != moved {
		t.Errorf("image %s %s, want %s of %s", i.Image, i.ImageID, moved, busybox)
	}
}

func TestBuildMakesAnImageOrSaysWhatFailed(t *testing.T) {
	h := newHost(t)
	build := func(dockerfile string) (string, []string, error) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h.must(w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(dockerfile)), Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte(dockerfile))
		h.must(err)
		h.must(w.Close())
		var lines []string
		value := "given"
		id, err := h.Build(t.Context(), &b, engine.BuildOptions{Tags: []string{h.project + ":1"}, Args: map[string]*string{"WORD": &value}},
			func(p engine.Progress) { lines = append(lines, p.Text) })
		return id, lines, err
	}
	t.Cleanup(func() { h.ok(h.RemoveImage(context.Background(), h.project+":1")) })
	id, lines, err := build("FROM busybox\nARG WORD\nRUN echo word=$WORD\nVOLUME /data\nHEALTHCHECK CMD true\n")
	if err != nil || !slices.Contains(lines, "word=given") {
		t.Fatalf("%v %q", err, lines)
	}
	got, err := h.Resolve(t.Context(), h.project+":1")
	got.Digest = "" // engines that keep images in containerd have one for what was never pushed, too
	want := tender.ImageID{Reference: h.project + ":1", ID: id, Healthcheck: true, Volumes: []string{"/data"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	_, _, err = build("FROM busybox\nRUN exit 9\n")
	h.is(err, tender.Invalid, "build "+h.project, "exit 9", "code: 9")
}
