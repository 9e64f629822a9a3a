package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// Image is what the promises are tried with: it must be among the engine's images.
const Image = "busybox"

// Run checks that an engine keeps its promises. Each engine calls it from its
// own tests: the fake always, docker where TENDER_E2E is set. For a fake, web
// must print hello and job must exit with 3 (see Behave).
func Run(t *testing.T, start func(testing.TB) engine.Engine) {
	for name, promise := range map[string]func(*testing.T, *trial){
		"scale is exact and repeatable":                     scaleIsExact,
		"revisions do not touch each other":                 revisionsApart,
		"a newcomer gets the plain name when it is free":    plainNames,
		"a newcomer is found by name once it is promoted":   promotes,
		"scale removes what it is told to drop":             drops,
		"events come in the engine's words":                 tellsEvents,
		"a newcomer inherits the anonymous volumes":         inherits,
		"scale starts a slot that has stopped":              startsStopped,
		"a call that was cut off can be repeated":           repeats,
		"watch tells of changes":                            watchTells,
		"stop, start, restart, pause and signal":            lifecycle,
		"an exit code is shown":                             exitCode,
		"health is shown":                                   healthShown,
		"remove is repeatable":                              removes,
		"what is not there is not found":                    notThere,
		"exec passes output and exit code":                  execs,
		"logs hold what was printed":                        logs,
		"copy brings back what it took":                     copies,
		"a one-off is created, not started, and waited for": oneoff,
		"ensure is repeatable and what it made can go":      ensures,
		"an image is resolved or not found":                 resolves,
		"an image is discarded where nobody has it":         discards,
	} {
		t.Run(name, func(t *testing.T) {
			if name != "watch tells of changes" { // it would be told of those of the others
				t.Parallel()
			}
			promise(t, newTrial(t, start(t)))
		})
	}
}

func scaleIsExact(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1, 2)))
	first := x.shows("web@r1/1 running", "web@r1/2 running")
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1, 2)))
	again := x.shows("web@r1/1 running", "web@r1/2 running")
	if diff := cmp.Diff(ids(first), ids(again)); diff != "" {
		x.Errorf("the second call made other ones:\n%s", diff)
	}
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 3)))
	x.shows("web@r1/1 running", "web@r1/2 running", "web@r1/3 running")
	for n, i := range x.instances() {
		if want := fmt.Sprintf("%s-web-%d", x.project, n+1); i.Name != want {
			x.Errorf("name %s, want %s", i.Name, want)
		}
		if i.Foreign || i.Oneoff || i.Image != Image || i.ImageID != x.image.ID || i.Started.IsZero() || i.Drift != "" {
			x.Errorf("%+v", i)
		}
	}
}

func revisionsApart(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	x.must(x.e.Scale(x.Context(), x.want("web", "r2", 1)))
	x.must(x.e.Scale(x.Context(), x.want("keep", "r1", 1)))
	x.shows("keep@r1/1 running", "web@r1/1 running", "web@r2/1 running")
}

func plainNames(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	x.must(x.e.Scale(x.Context(), x.want("web", "r2", 1)))
	list := x.shows("web@r1/1 running", "web@r2/1 running")
	plain := x.project + "-web-1"
	if list[0].Name != plain || list[1].Name != plain+"-r2" {
		x.Fatalf("names %s, %s", list[0].Name, list[1].Name)
	}
	x.is(x.e.Name(x.Context(), list[1].ID), tender.Conflict)
	x.must(x.e.Remove(x.Context(), list[0].ID, 0, false))
	x.must(x.e.Name(x.Context(), list[1].ID))
	x.must(x.e.Name(x.Context(), list[1].ID))
	if got := x.shows("web@r2/1 running"); got[0].Name != plain {
		x.Errorf("name %s", got[0].Name)
	}
}

func promotes(_ *testing.T, x *trial) {
	found := func(what string, want ...tender.Found) []tender.Instance {
		x.Helper()
		list := x.instances()
		var got []tender.Found
		for _, i := range list {
			got = append(got, i.Found)
			if !i.Pinned || i.Drift != "" {
				x.Errorf("%s: %s is pinned: %t, drift %q", what, i.Name, i.Pinned, i.Drift)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			x.Fatalf("%s (-want +got):\n%s", what, diff)
		}
		return list
	}
	x.must(x.e.Scale(x.Context(), x.want("sound", "r1", 1)))
	w := x.want("sound", "r2", 1)
	w.Unnamed = true
	x.must(x.e.Scale(x.Context(), w))
	before := found("made", tender.ByService, tender.BySlot)
	x.must(x.e.Scale(x.Context(), w))
	found("made again", tender.ByService, tender.BySlot)
	for range 2 {
		x.must(x.e.Promote(x.Context(), before[1].ID))
		found("promoted", tender.ByService, tender.ByService)
	}
	for range 2 {
		x.must(x.e.Demote(x.Context(), before[0].ID))
		found("and the old one is not", tender.BySlot, tender.ByService)
	}
	x.must(x.e.Promote(x.Context(), before[0].ID))
	after := found("both", tender.ByService, tender.ByService)
	for n := range before {
		if diff := cmp.Diff(before[n].Addresses, after[n].Addresses); diff != "" || !before[n].Started.Equal(after[n].Started) {
			x.Errorf("%s was restarted, or has another address (-before +after):\n%s", after[n].Name, diff)
		}
	}
	x.is(x.e.Promote(x.Context(), "nobody"), tender.NotFound)
	x.is(x.e.Demote(x.Context(), "nobody"), tender.NotFound)
	// Without a healthcheck nobody waits for it.
	plain := x.want("web", "r1", 1)
	plain.Unnamed = true
	x.must(x.e.Scale(x.Context(), plain))
	if list := x.instances(); list[len(list)-1].Found != tender.ByService {
		x.Errorf("without a healthcheck: %+v", list[len(list)-1])
	}
}

func drops(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1, 2)))
	old := x.shows("web@r1/1 running", "web@r1/2 running")
	w := x.want("web", "r2", 1)
	w.Drop = []string{old[0].ID}
	x.must(x.e.Scale(x.Context(), w))
	got := x.shows("web@r2/1 running", "web@r1/2 running")
	if want := x.project + "-web-1"; got[0].Name != want {
		x.Errorf("name %s, want %s: it was free", got[0].Name, want)
	}
	x.must(x.e.Scale(x.Context(), w))
	x.shows("web@r2/1 running", "web@r1/2 running")
	none := x.want("web", "r2")
	none.Drop = ids(got)
	x.must(x.e.Scale(x.Context(), none))
	x.shows()
}

func inherits(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("keep", "r1", 1)))
	old := x.shows("keep@r1/1 running")
	if len(old[0].Anonymous) != 1 {
		x.Fatalf("anonymous volumes %v", old[0].Anonymous)
	}
	w := x.want("keep", "r2", 1)
	w.Drop, w.Inherit = ids(old), map[int]string{1: old[0].ID}
	x.must(x.e.Scale(x.Context(), w))
	got := x.shows("keep@r2/1 running")
	if diff := cmp.Diff(old[0].Anonymous, got[0].Anonymous); diff != "" {
		x.Errorf("volumes (-old +new):\n%s", diff)
	}
	x.must(x.e.Scale(x.Context(), w))
	again := x.shows("keep@r2/1 running")
	if diff := cmp.Diff(old[0].Anonymous, again[0].Anonymous); diff != "" {
		x.Errorf("volumes after the same call again (-old +new):\n%s", diff)
	}
}

func startsStopped(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	old := x.shows("web@r1/1 running")
	x.must(x.e.Stop(x.Context(), old[0].ID, 0))
	x.shows("web@r1/1 exited")
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	if got := x.shows("web@r1/1 running"); got[0].ID != old[0].ID {
		x.Error("made another one instead of starting the one that is there")
	}
}

func repeats(_ *testing.T, x *trial) {
	ctx, cancel := context.WithCancel(x.Context())
	var calling sync.WaitGroup
	calling.Go(func() {
		// It may still succeed: what counts is what the second call leaves.
		if err := x.e.Scale(ctx, x.want("web", "r1", 1, 2, 3, 4)); err != nil {
			x.Log("cut off:", err)
		}
	})
	cancel()
	calling.Wait()
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1, 2, 3, 4)))
	x.shows("web@r1/1 running", "web@r1/2 running", "web@r1/3 running", "web@r1/4 running")
}

func watchTells(_ *testing.T, x *trial) {
	ctx, cancel := context.WithCancel(x.Context())
	defer cancel()
	started, changed := make(chan struct{}), make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- x.e.Watch(ctx, func() { close(started) }, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	wait := func(c <-chan struct{}, what string) {
		x.Helper()
		select {
		case <-c:
		case err := <-ended:
			x.Fatalf("watch ended: %v", err)
		case <-time.After(deadline):
			x.Fatalf("not told of %s", what)
		}
	}
	wait(started, "the start of the watch")
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	wait(changed, "a new instance")
	cancel()
	x.ok(<-ended)
}

func lifecycle(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	i := x.shows("web@r1/1 running")[0]
	x.must(x.e.Pause(x.Context(), i.ID))
	x.shows("web@r1/1 paused")
	x.must(x.e.Unpause(x.Context(), i.ID))
	x.shows("web@r1/1 running")
	x.must(x.e.Stop(x.Context(), i.ID, 0))
	x.shows("web@r1/1 exited")
	x.must(x.e.Stop(x.Context(), i.ID, 0))
	x.must(x.e.Start(x.Context(), i.ID))
	x.must(x.e.Start(x.Context(), i.ID))
	started := x.shows("web@r1/1 running")[0]
	x.must(x.e.Restart(x.Context(), i.ID, 0))
	if again := x.shows("web@r1/1 running")[0]; !again.Started.After(started.Started) {
		x.Errorf("started %v after a restart, %v before", again.Started, started.Started)
	}
	x.must(x.e.Signal(x.Context(), i.ID, "KILL"))
	ended := x.until("killed", func(l []tender.Instance) bool { return len(l) == 1 && l[0].State == tender.Exited })
	if ended[0].ExitCode != 137 {
		x.Errorf("exit code %d", ended[0].ExitCode)
	}
}

func exitCode(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("job", "r1", 1)))
	got := x.until("ended", func(l []tender.Instance) bool { return len(l) == 1 && l[0].State == tender.Exited })
	if got[0].ExitCode != 3 || got[0].Finished.IsZero() {
		x.Errorf("exit code %d, finished %v", got[0].ExitCode, got[0].Finished)
	}
	code, err := x.e.Wait(x.Context(), got[0].ID)
	if err != nil || code != 3 {
		x.Errorf("Wait: %d, %v", code, err)
	}
}

func healthShown(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("sound", "r1", 1)))
	x.until("healthy", func(l []tender.Instance) bool { return len(l) == 1 && l[0].Health == tender.HealthyIs && l[0].Ready() })
}

func removes(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("keep", "r1", 1)))
	i := x.shows("keep@r1/1 running")[0]
	x.must(x.e.Remove(x.Context(), i.ID, 0, true))
	x.shows()
	x.must(x.e.Remove(x.Context(), i.ID, 0, true))
	x.must(x.e.RemoveVolume(x.Context(), i.Anonymous[0]))
}

func notThere(_ *testing.T, x *trial) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	ctx := x.Context()
	x.is(x.e.Start(ctx, id), tender.NotFound)
	x.is(x.e.Stop(ctx, id, 0), tender.NotFound)
	x.is(x.e.Name(ctx, id), tender.NotFound)
	x.is(x.e.Pause(ctx, id), tender.NotFound)
	_, _, err := x.e.Logs(ctx, id, engine.LogOptions{Tail: -1})
	x.is(err, tender.NotFound)
	_, err = x.e.Exec(ctx, id, engine.ExecOptions{Cmd: []string{"true"}})
	x.is(err, tender.NotFound)
	_, err = x.e.Wait(ctx, id)
	x.is(err, tender.NotFound)
	_, _, err = x.e.Equal(ctx, x.want("web", "r1", 1), id)
	x.is(err, tender.NotFound)
	x.ok(x.e.RemoveNetwork(ctx, id))
	x.ok(x.e.RemoveVolume(ctx, id))
}

func execs(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	i := x.shows("web@r1/1 running")[0]
	run := func(o engine.ExecOptions, input string) (string, int) {
		x.Helper()
		s, err := x.e.Exec(x.Context(), i.ID, o)
		x.must(err)
		defer s.Close()
		if o.Stdin {
			go func() {
				io.WriteString(s.Input, input)
				s.CloseWrite()
			}()
		}
		b, err := io.ReadAll(s.Output)
		x.must(err)
		code, err := s.Exit(x.Context())
		x.must(err)
		return unframe(b), code
	}
	if out, code := run(engine.ExecOptions{Cmd: []string{"echo", "a", "b"}}, ""); out != "a b\n" || code != 0 {
		x.Errorf("echo: %q, %d", out, code)
	}
	if _, code := run(engine.ExecOptions{Cmd: []string{"sh", "-c", "exit 7"}}, ""); code != 7 {
		x.Errorf("exit 7: %d", code)
	}
	if out, code := run(engine.ExecOptions{Cmd: []string{"cat"}, Stdin: true}, "typed\n"); out != "typed\n" || code != 0 {
		x.Errorf("cat: %q, %d", out, code)
	}
	if _, rows, err := x.e.Top(x.Context(), i.ID, nil); err != nil || len(rows) == 0 {
		x.Errorf("Top: %v, %v", rows, err)
	}
	stats, err := x.e.Stats(x.Context(), []string{i.ID})
	if err != nil || stats[i.ID].Memory <= 0 {
		x.Errorf("Stats: %+v, %v", stats, err)
	}
	x.must(x.e.Stop(x.Context(), i.ID, 0))
	_, err = x.e.Exec(x.Context(), i.ID, engine.ExecOptions{Cmd: []string{"true"}})
	x.is(err, tender.Conflict)
	if stats, err := x.e.Stats(x.Context(), []string{i.ID}); err != nil || len(stats) != 0 {
		x.Errorf("Stats of a stopped one: %+v, %v", stats, err)
	}
}

func logs(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	i := x.shows("web@r1/1 running")[0]
	ctx, cancel := context.WithTimeout(x.Context(), deadline)
	defer cancel()
	stream, tty, err := x.e.Logs(ctx, i.ID, engine.LogOptions{Tail: -1, Follow: true})
	x.must(err)
	defer stream.Close()
	b := make([]byte, 8+len("hello\n"))
	if _, err := io.ReadFull(stream, b); err != nil || tty || unframe(b) != "hello\n" {
		x.Errorf("logs: %q, tty %t, %v", b, tty, err)
	}
}

func copies(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	i := x.shows("web@r1/1 running")[0]
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	x.must(w.WriteHeader(&tar.Header{Name: "note", Mode: 0o644, Size: 4, Typeflag: tar.TypeReg}))
	_, err := io.WriteString(w, "note")
	x.must(err)
	x.must(w.Close())
	x.must(x.e.CopyTo(x.Context(), i.ID, "/tmp", &b))
	r, err := x.e.CopyFrom(x.Context(), i.ID, "/tmp/note")
	x.must(err)
	defer r.Close()
	back := tar.NewReader(r)
	h, err := back.Next()
	x.must(err)
	body, err := io.ReadAll(back)
	if err != nil || h.Name != "note" || string(body) != "note" {
		x.Errorf("copy: %s %q %v", h.Name, body, err)
	}
	for _, ids := range [][]string{nil, {i.ID}, {"gone", i.ID}} {
		if sizes, err := x.e.Sizes(x.Context(), ids...); err != nil || sizes[i.ID] < 4 {
			x.Errorf("with that in its layer its size is %d of %v, %v", sizes[i.ID], sizes, err)
		}
	}
	if sizes, err := x.e.Sizes(x.Context(), "gone"); err != nil || len(sizes) > 0 {
		x.Errorf("the size of one that is gone: %v, %v", sizes, err)
	}
	if disk, err := x.e.Disk(x.Context()); err != nil || disk["containers"] < 4 {
		x.Errorf("with that in its layer the disk holds %v, %v", disk, err)
	}
	if files, err := x.e.Written(x.Context(), i.ID); err != nil || !slices.Contains(files, "/tmp/note") {
		x.Errorf("it has written %q, %v", files, err)
	}
	_, err = x.e.CopyFrom(x.Context(), i.ID, "/tmp/nothing")
	x.is(err, tender.NotFound)
}

func oneoff(_ *testing.T, x *trial) {
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	id, err := x.e.Oneoff(x.Context(), x.want("job", "r1"), engine.OneoffOptions{})
	x.must(err)
	find := func() tender.Instance {
		x.Helper()
		for _, i := range x.instances() {
			if i.ID == id {
				return i
			}
		}
		x.Fatal("the one-off is not shown")
		return tender.Instance{}
	}
	if i := find(); i.State != tender.Created || !i.Oneoff || i.Service != "job" {
		x.Errorf("%+v", i)
	}
	code := make(chan int, 1)
	go func() {
		n, err := x.e.Wait(x.Context(), id)
		x.ok(err)
		code <- n
	}()
	x.must(x.e.Start(x.Context(), id))
	if n := <-code; n != 3 {
		x.Errorf("exit code %d", n)
	}
	// A one-off takes no slot.
	x.must(x.e.Scale(x.Context(), x.want("job", "r1", 1)))
	if len(x.instances()) != 3 {
		x.Errorf("%d instances", len(x.instances()))
	}
}

func ensures(_ *testing.T, x *trial) {
	ctx := x.Context()
	x.must(x.e.Ensure(ctx, tender.Project{Name: x.project, Spec: x.spec("web")}))
	network := func() (found []tender.Network) {
		p, err := x.e.List(ctx)
		x.must(err)
		for _, n := range p.Networks {
			if n.Project == x.project {
				found = append(found, n)
			}
		}
		return found
	}
	n := network()
	if len(n) != 1 || n[0].Key != "default" || n[0].Name != x.project+"_default" || n[0].Foreign {
		x.Fatalf("networks %+v", n)
	}
	x.must(x.e.Scale(ctx, x.want("web", "r1", 1)))
	i := x.shows("web@r1/1 running")[0]
	if i.Addresses[n[0].Name] == "" {
		x.Errorf("addresses %v", i.Addresses)
	}
	x.is(x.e.RemoveNetwork(ctx, n[0].ID), tender.Conflict)
	x.must(x.e.Remove(ctx, i.ID, 0, true))
	x.must(x.e.RemoveNetwork(ctx, n[0].ID))
	x.must(x.e.RemoveNetwork(ctx, n[0].ID))
	if n := network(); len(n) != 0 {
		x.Errorf("networks %+v", n)
	}
}

func resolves(_ *testing.T, x *trial) {
	if x.image.ID == "" || x.image.Reference != Image {
		x.Errorf("%+v", x.image)
	}
	other := "engine-promise-image:" + x.project
	x.must(x.e.Tag(x.Context(), x.image.ID, other))
	same, err := x.e.Resolve(x.Context(), other)
	if err != nil || !same.Same(x.image) {
		x.Errorf("%+v, %v", same, err)
	}
	x.must(x.e.RemoveImage(x.Context(), other))
	x.must(x.e.RemoveImage(x.Context(), other))
	_, err = x.e.Resolve(x.Context(), other)
	x.is(err, tender.NotFound)
}

func discards(_ *testing.T, x *trial) {
	ctx := x.Context()
	dockerfile := "FROM busybox\nLABEL promise=" + x.project + "\n"
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	x.must(w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(dockerfile))}))
	_, err := io.WriteString(w, dockerfile)
	x.must(err)
	x.must(w.Close())
	names := []string{"engine-promise-a:" + x.project, "engine-promise-a:again-" + x.project, "engine-promise-b:" + x.project}
	id, err := x.e.Build(ctx, &b, engine.BuildOptions{Tags: names}, nil)
	x.must(err)
	// Its name may come first, or its ID.
	made, err := x.e.Resolve(ctx, names[0])
	x.must(err)
	find := func(id string) (engine.Shelved, bool) {
		x.Helper()
		all, err := x.e.Shelf(ctx)
		x.must(err)
		at := slices.IndexFunc(all, func(s engine.Shelved) bool { return s.ID == id })
		if at < 0 {
			return engine.Shelved{}, false
		}
		return all[at], true
	}
	sorted := slices.Sorted(slices.Values(names))
	s, ok := find(made.ID)
	if diff := cmp.Diff(sorted, s.Names); !ok || diff != "" || len(s.Users) > 0 || s.Size <= 0 {
		x.Fatalf("of %s the shelf says %+v, %t: %s", id, s, ok, diff)
	}
	whole := func(what string) {
		x.Helper()
		if s, _ := find(made.ID); !slices.Equal(s.Names, sorted) {
			x.Errorf("%s: it is called %q", what, s.Names)
		}
	}
	x.is(x.e.Discard(ctx, made.ID, names[:1], false), tender.Conflict)
	whole("it has got names meanwhile")
	want := x.want("web", "r1", 1)
	want.Image = made
	x.must(x.e.Scale(ctx, want))
	x.is(x.e.Discard(ctx, made.ID, names, true), tender.Conflict)
	whole("an instance has it")
	i := x.shows("web@r1/1 running")[0]
	if s, _ := find(made.ID); !slices.Contains(s.Users, i.Name) {
		x.Errorf("%s has it, and the shelf says %+v", i.Name, s)
	}
	x.must(x.e.Remove(ctx, i.ID, 0, true))
	x.must(x.e.Keep(ctx, x.project, []tender.ImageID{made}))
	if s, _ := find(made.ID); s.Keeps != x.project || len(s.Users) > 0 {
		x.Errorf("it is kept for %s, and the shelf says %+v", x.project, s)
	}
	x.is(x.e.Discard(ctx, made.ID, names, true), tender.Conflict)
	whole("it is kept")
	x.must(x.e.Keep(ctx, x.project, nil))
	for range 2 {
		x.must(x.e.Discard(ctx, made.ID, names, true))
	}
	for _, n := range names {
		_, err := x.e.Resolve(ctx, n)
		x.is(err, tender.NotFound)
	}
	_, err = x.e.BuildCache(ctx)
	x.must(err)
}

func tellsEvents(_ *testing.T, x *trial) {
	ctx, cancel := context.WithCancel(x.Context())
	more := make(chan string, unread)
	said := map[string]bool{}
	listens, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- x.e.Events(ctx, x.project, func() { close(listens) }, func(e engine.Event) {
			if e.Project != x.project || e.ID == "" || e.Time.IsZero() || e.Attributes["name"] != e.Name {
				x.Errorf("event %+v", e)
			}
			for k := range e.Attributes {
				if strings.HasPrefix(k, "tender.") || strings.HasPrefix(k, "com.docker.compose.") {
					x.Errorf("%s: label %s is one of ours", e.Action, k)
				}
			}
			more <- e.Service + " " + e.Action
		})
	}()
	<-listens
	heard := func(want string) {
		x.Helper()
		late, cancel := context.WithTimeout(ctx, deadline)
		defer cancel()
		for !said[want] {
			select {
			case s := <-more:
				said[s] = true
			case <-late.Done():
				x.Fatalf("no event %s came: %v", want, said)
			}
		}
	}
	x.must(x.e.Scale(x.Context(), x.want("web", "r1", 1)))
	heard("web create")
	heard("web start")
	there := x.instances()
	_, err := x.e.Oneoff(x.Context(), x.want("job", "r1"), engine.OneoffOptions{})
	x.must(err)
	x.must(x.e.Remove(x.Context(), there[0].ID, 0, true))
	heard("web die")
	heard("web destroy")
	cancel()
	x.must(<-ended)
	if said["job create"] {
		x.Errorf("one-off instances are told of: %v", said)
	}
}
