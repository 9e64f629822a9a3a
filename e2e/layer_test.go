package e2e

import (
	"strings"
	"testing"
)

// What an instance has written where nothing is mounted goes with it: plan
// and up must say so before it does.
func TestDataInsideOfAnInstanceMustNotGoInSilence(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", `
services:
  web:
    image: busybox
    command: [sleep, "100000"]
    stop_signal: SIGKILL
    environment: {COLOUR: "${COLOUR:-blue}"}
    tmpfs: [/tmp]
    volumes: ["data:/data"]
volumes: {data: {}}
`)
	h.must("up")
	id := h.one("web")
	for _, at := range []string{"/data/kept", "/tmp/memory"} {
		if r := docker("exec", id, "dd", "if=/dev/zero", "of="+at, "bs=1M", "count=12"); r.err() != nil {
			t.Fatal(r.all())
		}
	}
	warned := func(r result) bool { return strings.Contains(r.stderr, "inside of") }
	h.setenv("COLOUR", "red")
	if r := h.exits(3, "plan"); warned(r) {
		t.Errorf("what lies in a volume or in memory is not in the layer:\n%s", r.all())
	}
	if r := docker("exec", id, "sh", "-c", "mkdir -p /srv/files && dd if=/dev/zero of=/srv/files/lost bs=1M count=12"); r.err() != nil {
		t.Fatal(r.all())
	}
	want := "web keeps 12MiB inside of " + h.project + "-web-1, which is lost when it is replaced: below /srv/files; copy out what matters (tender cp web:/srv/files .)"
	for _, r := range []result{h.exits(3, "plan"), h.exits(0, "up")} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("it does not say %q:\n%s", want, r.all())
		}
	}
	// Where nobody is replaced nothing is lost.
	if r := docker("exec", h.one("web"), "dd", "if=/dev/zero", "of=/lost", "bs=1M", "count=12"); r.err() != nil {
		t.Fatal(r.all())
	}
	if r := h.exits(0, "plan"); warned(r) {
		t.Errorf("nothing is replaced:\n%s", r.all())
	}
}
