package docker_test

import (
	"context"
	"strings"
	"testing"

	tender "github.com/tenderhq/tender"
)

func TestAMissingImageIsNotFound(t *testing.T) {
	t.Parallel()
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
