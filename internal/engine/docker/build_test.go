package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"
	"golang.org/x/crypto/ssh/agent"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// packed is a tar of files, each with an extended header, as those of real files have.
func (h *host) packed(files map[string]string) io.Reader {
	h.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h.must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg, Format: tar.FormatPAX, ModTime: time.Unix(1700000000, 123456789)}))
		_, err := w.Write([]byte(files[name]))
		h.must(err)
	}
	h.must(w.Close())
	return &b
}

// build builds files as the project's image, and says which lines were told.
func (h *host) build(o engine.BuildOptions, files map[string]string) (id string, lines []string, err error) {
	h.Helper()
	tag := h.project + ":1"
	o.Tags = []string{tag}
	h.Cleanup(func() { h.ok(h.RemoveImage(context.Background(), tag)) })
	id, err = h.Build(h.Context(), h.packed(files), o, func(p engine.Progress) { lines = append(lines, p.Text) })
	return id, lines, err
}

// has reports whether a line of a step ends in text, which may be "#N text" or "#N [step] text".
func has(lines []string, text string) bool {
	return slices.ContainsFunc(lines, func(l string) bool {
		_, said, _ := strings.Cut(l, " ")
		return strings.HasPrefix(l, "#") && said == text
	})
}

func TestBuildMakesAnImageOrSaysWhatFailed(t *testing.T) {
	h := newHost(t)
	value := "given"
	o := engine.BuildOptions{Args: map[string]*string{"WORD": &value}}
	id, lines, err := h.build(o, map[string]string{"Dockerfile": "FROM busybox\nARG WORD\nRUN echo word=$WORD " + h.project + "\nVOLUME /data\nHEALTHCHECK CMD true\n"})
	if err != nil || !has(lines, "word=given "+h.project) {
		t.Fatalf("%v %q", err, lines)
	}
	got, err := h.Resolve(t.Context(), h.project+":1")
	got.Digest = "" // engines that keep images in containerd have one for what was never pushed, too
	want := tender.ImageID{Reference: h.project + ":1", ID: id, Healthcheck: true, Volumes: []string{"/data"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	_, _, err = h.build(engine.BuildOptions{}, map[string]string{"Dockerfile": "FROM busybox\n\nRUN echo first; echo last words; exit 9\n"})
	h.is(err, tender.Invalid, "build "+h.project, "[2/2] RUN", "exit 9", "code: 9", "\n  first\n  last words")
	_, _, err = h.build(engine.BuildOptions{}, map[string]string{"Dockerfile": "FROM busybox\nRUNN true\n"})
	h.is(err, tender.Invalid, "build "+h.project, "Dockerfile:2: unknown instruction: RUNN (did you mean RUN?)")
	_, _, err = h.build(engine.BuildOptions{Dockerfile: "other"}, map[string]string{"Dockerfile": "FROM busybox\n"})
	h.is(err, tender.Invalid, "other")
}

func TestABuildWithNothingChangedRunsNothing(t *testing.T) {
	h := newHost(t)
	files := map[string]string{"Dockerfile": "FROM busybox\nCOPY a.txt /\nRUN date +%N >/now; echo " + h.project + "\n", "a.txt": "a"}
	first, _, err := h.build(engine.BuildOptions{}, files)
	h.must(err)
	second, lines, err := h.build(engine.BuildOptions{}, files)
	h.must(err)
	if first != second || !has(lines, "CACHED") {
		t.Errorf("%s, then %s: %q", first, second, lines)
	}
	third, _, err := h.build(engine.BuildOptions{NoCache: true}, files)
	h.must(err)
	if third == second {
		t.Errorf("with NoCache it is %s again", third)
	}
}

// The value of a secret reaches its step, and is then nowhere: not in the image, not in its history.
func TestABuildSecretLeavesNoTrace(t *testing.T) {
	h := newHost(t)
	const value = "Tr0ub4dor-build-secret"
	id, _, err := h.build(engine.BuildOptions{Secrets: map[string][]byte{"token": []byte(value)}}, map[string]string{
		"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=token test \"$(cat /run/secrets/token)\" = Tr0ub4dor-build-\"secret\" && ls -l /run/secrets >/seen; echo " + h.project + "\n",
	})
	h.must(err)
	var all bytes.Buffer
	history, err := h.raw.ImageHistory(t.Context(), id)
	h.must(err)
	for _, i := range history.Items {
		all.WriteString(i.CreatedBy + i.Comment)
	}
	var inspected bytes.Buffer
	_, err = h.raw.ImageInspect(t.Context(), id, client.ImageInspectWithRawResponse(&inspected))
	h.must(err)
	all.Write(inspected.Bytes())
	saved, err := h.raw.ImageSave(t.Context(), []string{id})
	h.must(err)
	defer saved.Close()
	_, err = io.Copy(&all, saved)
	h.must(err)
	if !bytes.Contains(all.Bytes(), []byte("/run/secrets/token")) {
		t.Error("the history does not even hold the step")
	}
	if bytes.Contains(all.Bytes(), []byte(value)) {
		t.Error("the value is in the image")
	}
	_, _, err = h.build(engine.BuildOptions{}, map[string]string{"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=token,required=true true\n"})
	h.is(err, tender.Invalid, "token", "not found", "secrets")
}

func TestABuildHasWhatItsOptionsSay(t *testing.T) {
	h := newHost(t)
	o := engine.BuildOptions{
		Target: "first", Labels: map[string]string{"who": "me"}, Dockerfile: "sub/Other", NoCache: true,
		ExtraHosts: []string{"db:10.1.2.3", "up:host-gateway"}, ShmSize: 9 << 20, Ulimits: []string{"nofile=1000:1000"},
		Contexts: map[string]io.Reader{"lib": h.packed(map[string]string{"hello.txt": "hello from lib"})},
		// An image as a context takes the place of one that FROM names.
		ContextURLs: map[string]string{"base": "docker-image://busybox"},
	}
	id, lines, err := h.build(o, map[string]string{"sub/Other": `# syntax=docker/dockerfile:1
FROM base AS first
COPY --from=lib hello.txt /
RUN <<END
cat /hello.txt
echo
grep -wE 'db|up' /etc/hosts | tr '\t' ' '
df -k /dev/shm | tail -1 | awk '{print "shm", $2}'
echo files $(ulimit -n)
END
FROM first AS second
RUN exit 1
`})
	h.must(err)
	for _, want := range []string{"hello from lib", "10.1.2.3 db"} {
		if !has(lines, want) {
			t.Errorf("no line %q in %q", want, lines)
		}
	}
	// Old engines cannot do these; then they say so.
	for field, want := range map[string]string{"shm_size": "shm 9216", "ulimits": "files 1000"} {
		left := slices.Contains(lines, "warning: the engine is too old for build."+field+", which is left out")
		if has(lines, want) == left {
			t.Errorf("%s: left out %v in %q", field, left, lines)
		}
	}
	got, err := h.raw.ImageInspect(t.Context(), id)
	h.must(err)
	if got.Config.Labels["who"] != "me" {
		t.Errorf("labels %v", got.Config.Labels)
	}
}

func TestABuildReachesTheAgent(t *testing.T) {
	h := newHost(t)
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	h.must(err)
	defer l.Close()
	asked := make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked <- struct{}{}
			go func() { _ = agent.ServeAgent(agent.NewKeyring(), c); c.Close() }()
		}
	}()
	_, lines, err := h.build(engine.BuildOptions{Agents: map[string]string{"default": socket}}, map[string]string{
		"Dockerfile": "FROM busybox\nRUN --mount=type=ssh test -S \"$SSH_AUTH_SOCK\" && echo socket of " + h.project + "\n",
	})
	h.must(err)
	if !has(lines, "socket of "+h.project) {
		t.Errorf("%q", lines)
	}
	_, _, err = h.build(engine.BuildOptions{Agents: map[string]string{"default": socket + "-gone"}}, map[string]string{"Dockerfile": "FROM busybox\n"})
	h.is(err, tender.Invalid, "ssh", "ssh-add")
}

func TestACancelledBuildStops(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	tag := h.project + ":1"
	_, err := h.Build(ctx, h.packed(map[string]string{"Dockerfile": "FROM busybox\nRUN echo " + h.project + "; sleep 600\n"}),
		engine.BuildOptions{Tags: []string{tag}}, func(p engine.Progress) {
			if strings.HasSuffix(p.Text, " "+h.project) && !strings.Contains(p.Text, "RUN") {
				cancel()
			}
		})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
	_, err = h.Resolve(t.Context(), tag)
	h.is(err, tender.NotFound, tag)
}

func TestABuildThatCannotBeIsRefused(t *testing.T) {
	h := newHost(t)
	file := map[string]string{"Dockerfile": "FROM busybox\n"}
	for want, o := range map[string]engine.BuildOptions{
		"default, none or host": {Network: "shop_default"},
		"type=inline":           {CacheTo: []string{"type=local,dest=/tmp/x"}},
		"type=TYPE":             {CacheFrom: []string{"type=registry,what"}},
		"NAME:ADDRESS":          {ExtraHosts: []string{"db"}},
		"login":                 {Auths: map[string]string{"registry.example": "%"}},
	} {
		_, _, err := h.build(o, file)
		h.is(err, tender.Invalid, want)
	}
	if info, err := h.raw.Info(t.Context(), client.InfoOptions{}); err == nil && !strings.Contains(fmt.Sprint(info.Info.DriverStatus), "containerd") {
		_, _, err := h.build(engine.BuildOptions{Platforms: []string{"linux/amd64", "linux/arm64"}}, file)
		h.is(err, tender.Invalid, "linux/amd64, linux/arm64", "containerd")
	}
	_, _, err := h.build(engine.BuildOptions{CacheTo: []string{"type=inline"}, CacheFrom: []string{h.project + ":1"}}, file)
	h.ok(err)
}
