package docker_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

func TestEachReplicaTakesAPortOfTheRange(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	spec := h.doc("web", sleeps+`ports: [{target: 80, published: "18110-18112", protocol: tcp}]`, "")
	h.must(h.Scale(t.Context(), h.want("web", "r1", spec, 1, 2, 3)))
	ports := map[int]bool{}
	for _, i := range h.instances() {
		for _, p := range i.Ports {
			ports[p.HostPort] = true
		}
	}
	if len(ports) != 3 || !ports[18110] || !ports[18111] || !ports[18112] {
		t.Errorf("ports %v", ports)
	}
	err := h.Scale(t.Context(), h.want("web", "r1", spec, 4))
	h.is(err, tender.Conflict, "18110")
	if n := len(h.instances()); n != 3 {
		t.Errorf("%d instances: the one that could not start was left behind", n)
	}
}

func TestAPortInUseSaysWhoHasIt(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	spec := h.doc("web", sleeps+`ports: [{target: 80, published: "18120", protocol: tcp}]`, "")
	h.must(h.Scale(t.Context(), h.want("web", "r1", spec, 1)))
	err := h.Scale(t.Context(), h.want("web", "r2", spec, 1))
	h.is(err, tender.Conflict, "port 18120", "container "+h.project+"-web-1", "publish another port")
	if i := h.one(); i.Revision != "r1" {
		t.Errorf("left behind: %+v", i)
	}
}

func TestPortAddressAndNameMoveToTheNewcomer(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	spec := func(version string) []byte {
		return h.doc("web", sleeps+"environment: {V: \""+version+"\"}\ncontainer_name: "+h.project+"-front\n"+
			"ports: [{target: 80, published: \"18140\", protocol: tcp}]\nnetworks: {a: {ipv4_address: 10.79.1.5}}\n",
			"networks: {a: {name: "+h.project+"_a, ipam: {config: [{subnet: 10.79.1.0/24}]}}}\n")
	}
	h.must(h.Scale(t.Context(), h.want("web", "r1", spec("1"), 1)))
	old := h.one()
	w := h.want("web", "r2", spec("2"), 1)
	w.Drop = []string{old.ID}
	h.must(h.Scale(t.Context(), w))
	i := h.one()
	if i.Name != h.project+"-front" || i.Name != old.Name || i.Addresses[h.project+"_a"] != "10.79.1.5" || len(i.Ports) == 0 || i.Ports[0].HostPort != 18140 {
		t.Errorf("%+v", i)
	}
}

func TestAMissingFileFailsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := h.want("web", "r1", h.doc("web", sleeps, ""), 1)
	w.Files = []engine.File{{Source: filepath.Join(t.TempDir(), "gone"), Target: "/run/secrets/gone"}}
	h.is(h.Scale(t.Context(), w), tender.NotFound, "/gone", "is not there")
	if list := h.instances(); len(list) != 0 {
		t.Errorf("left behind: %+v", list)
	}
}

func TestACommandThatIsNotThereSaysSo(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	err := h.Scale(t.Context(), h.want("web", "r1", h.doc("web", "command: [nosuchcommand]", ""), 1))
	h.is(err, tender.Invalid, "nosuchcommand", "not in the image")
}

// A newcomer that holds inherited volumes and cannot start was once removed,
// and with it the only trace of where the data was.
func TestInheritedVolumesOutliveAFailedStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	volume := "volumes: [{type: volume, target: /data}]\n"
	h.must(h.Scale(t.Context(), h.want("db", "r1", h.doc("db", sleeps+volume, ""), 1)))
	old := h.one()
	bad := h.want("db", "r2", h.doc("db", "command: [nosuchcommand]\n"+volume, ""), 1)
	bad.Drop, bad.Inherit = []string{old.ID}, map[int]string{1: old.ID}
	h.is(h.Scale(t.Context(), bad), tender.Invalid)
	failed := h.one()
	if failed.Revision != "r2" || failed.State != tender.Created || failed.ExitCode == 0 || failed.Error == "" {
		t.Errorf("%+v", failed)
	}
	back := h.want("db", "r1", h.doc("db", sleeps+volume, ""), 1)
	back.Drop, back.Inherit = []string{failed.ID}, map[int]string{1: failed.ID}
	h.must(h.Scale(t.Context(), back))
	if got := h.one(); got.State != tender.Running || !slices.Equal(got.Anonymous, old.Anonymous) {
		t.Errorf("volumes %v, first %v", got.Anonymous, old.Anonymous)
	}
}

func TestALeftoverIsFinishedNotDoubled(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	spec := h.doc("web", sleeps+"networks: {a: null, b: null}\n", `networks: {a: {name: `+h.project+`_a}, b: {name: `+h.project+`_b}}`)
	w := h.want("web", "r1", spec, 1)
	h.must(h.Scale(t.Context(), w))
	whole := h.inspect(h.one().ID)
	h.must(h.Remove(t.Context(), whole.ID, 0, true))
	// What a daemon leaves that is killed between create and start: in one network of two.
	made, err := h.raw.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: h.project + "-web-1", Config: whole.Config, HostConfig: whole.HostConfig,
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{h.project + "_a": {}}},
	})
	h.must(err)
	h.must(h.Scale(t.Context(), w))
	got := h.one()
	if got.ID != made.ID || got.State != tender.Running || len(got.Addresses) != 2 || got.Drift != "" {
		t.Errorf("%+v", got)
	}
}

// The engine goes on with a creation whose caller is gone.
func TestACallThatIsCutOffAtAnyMomentDoublesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := h.want("web", "r1", h.doc("web", sleeps, ""), 1, 2, 3)
	for moment := range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(moment)*50*time.Millisecond)
		if err := h.Scale(ctx, w); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cut off after %d steps: %v", moment, err)
		}
		cancel()
		h.must(h.Scale(t.Context(), w))
		var got []string
		var ids []string
		for _, i := range h.instances() {
			got = append(got, fmt.Sprintf("%s %d %s", i.Name, i.Slot, i.State))
			ids = append(ids, i.ID)
		}
		plain := h.project + "-web-"
		if diff := cmp.Diff([]string{plain + "1 1 running", plain + "2 2 running", plain + "3 3 running"}, got); diff != "" {
			t.Fatalf("cut off after %d steps (-want +got):\n%s", moment, diff)
		}
		none := w
		none.Slots, none.Drop = nil, ids
		h.must(h.Scale(t.Context(), none))
	}
}

func TestNetworkModeOfAnotherService(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.must(h.Scale(t.Context(), h.want("web", "r1", h.doc("web", sleeps, ""), 1)))
	web := h.one()
	side := h.want("side", "r1", h.doc("side", sleeps+"network_mode: service:web\npid: service:web\n", ""), 1)
	h.must(h.Scale(t.Context(), side))
	c := h.inspect(h.project + "-side-1")
	if string(c.HostConfig.NetworkMode) != "container:"+web.ID || string(c.HostConfig.PidMode) != "container:"+web.ID {
		t.Errorf("network %s, pid %s", c.HostConfig.NetworkMode, c.HostConfig.PidMode)
	}
	lost := h.want("lost", "r1", h.doc("lost", sleeps+"network_mode: service:nobody\n", ""), 1)
	h.is(h.Scale(t.Context(), lost), tender.NotFound, "nobody")
}
