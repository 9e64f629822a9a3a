package enginetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// deadline is generous: it only ends a test that would never end.
const deadline = 2 * time.Minute

// spec is the canonical document of a service of the promises: web prints
// hello and runs on; keep has an anonymous volume; sound has a healthcheck;
// job exits with 3.
const spec = `name: %s
services:
  %s:
    image: busybox
    command: %s
    stop_signal: SIGKILL
    networks: {default: null}
%snetworks:
  default: {name: %s_default}
`

var trials atomic.Int64

// trial is one promise put to the test, with a project of its own.
type trial struct {
	*testing.T
	e       engine.Engine
	project string
	image   tender.ImageID
}

func newTrial(t *testing.T, e engine.Engine) *trial {
	t.Helper()
	x := &trial{T: t, e: e, project: fmt.Sprintf("engine-promise-%d-%d", time.Now().UnixNano()%1e9, trials.Add(1))}
	id, err := e.Resolve(t.Context(), Image)
	if err != nil {
		t.Fatal(err)
	}
	x.image = id
	t.Cleanup(x.clean)
	x.must(e.Ensure(t.Context(), tender.Project{Name: x.project, Spec: x.spec("web")}))
	return x
}

func (x *trial) clean() {
	ctx := context.Background()
	p, err := x.e.List(ctx)
	if err != nil {
		x.Errorf("clean up: %v", err)
	}
	for _, i := range p.Of(x.project) {
		x.ok(x.e.Remove(ctx, i.ID, 0, true))
	}
	for _, n := range p.Networks {
		if n.Project == x.project {
			x.ok(x.e.RemoveNetwork(ctx, n.ID))
		}
	}
}

func (x *trial) ok(err error) {
	x.Helper()
	if err != nil {
		x.Error(err)
	}
}

func (x *trial) must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

func (x *trial) is(err error, kind tender.Kind) {
	x.Helper()
	if err == nil || tender.KindOf(err) != kind {
		x.Errorf("error %v, want one of kind %q", err, kind)
	}
}

func (x *trial) spec(service string) []byte {
	command, more := `[sh, -c, "echo hello; exec sleep 3600"]`, ""
	switch service {
	case "job":
		command = `[sh, -c, "exit 3"]`
	case "keep":
		more = "    volumes: [{type: volume, target: /data}]\n"
	case "sound":
		more = "    healthcheck: {test: [CMD, \"true\"], interval: 1s, timeout: 30s}\n"
	}
	return fmt.Appendf(nil, spec, x.project, service, command, more, x.project)
}

func (x *trial) want(service, revision string, slots ...int) engine.Want {
	w := engine.Want{
		Project: x.project, Generation: 1, Image: x.image, Slots: slots,
		Service: tender.Service{Name: service, Revision: revision, Image: Image, Replicas: len(slots), Grace: time.Second, Spec: x.spec(service)},
	}
	switch service {
	case "keep":
		w.Image.Volumes = []string{"/data"}
	case "sound":
		w.Service.Healthcheck = 1
	}
	return w
}

// instances lists the project's, in order.
func (x *trial) instances() []tender.Instance {
	x.Helper()
	p, err := x.e.List(x.Context())
	x.must(err)
	out := p.Of(x.project)
	slices.SortFunc(out, func(a, b tender.Instance) int {
		return strings.Compare(fmt.Sprintf("%s %03d %s", a.Service, a.Slot, a.Revision), fmt.Sprintf("%s %03d %s", b.Service, b.Slot, b.Revision))
	})
	return out
}

// shows compares the project's instances, one line each: SERVICE@REVISION/SLOT STATE.
func (x *trial) shows(want ...string) []tender.Instance {
	x.Helper()
	list := x.instances()
	var got []string
	for _, i := range list {
		got = append(got, fmt.Sprintf("%s@%s/%d %s", i.Service, i.Revision, i.Slot, i.State))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		x.Fatalf("instances (-want +got):\n%s", diff)
	}
	return list
}

// until waits for the picture to be as asked for.
func (x *trial) until(what string, is func([]tender.Instance) bool) []tender.Instance {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), deadline)
	defer cancel()
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	var watching sync.WaitGroup
	watching.Go(func() { x.ok(x.e.Watch(ctx, poke, poke)) })
	defer watching.Wait()
	defer cancel()
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			x.Fatalf("%s: not so after %v: %+v", what, deadline, x.instances())
		}
		if list := x.instances(); is(list) {
			return list
		}
	}
}

func ids(list []tender.Instance) []string {
	var out []string
	for _, i := range list {
		out = append(out, i.ID)
	}
	return out
}

// unframe takes Docker's framing off.
func unframe(b []byte) string {
	var out strings.Builder
	for len(b) >= 8 {
		n := int(b[4])<<24 | int(b[5])<<16 | int(b[6])<<8 | int(b[7])
		n = min(n, len(b)-8)
		out.Write(b[8 : 8+n])
		b = b[8+n:]
	}
	return out.String()
}
