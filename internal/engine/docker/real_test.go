package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/docker"
)

// host is a real engine with a project of its own, and a client beside it that
// does what people do behind Tender's back.
type host struct {
	*testing.T
	*docker.Engine
	raw     *client.Client
	project string
}

func newHost(t *testing.T) *host {
	t.Helper()
	e := real(t)
	raw, err := client.New(client.WithHost(orDefault(os.Getenv("DOCKER_HOST"))))
	if err != nil {
		t.Fatal(err)
	}
	name := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	h := &host{T: t, Engine: e, raw: raw, project: fmt.Sprintf("engine-%.24s-%d", name, os.Getpid())}
	t.Cleanup(h.clean)
	return h
}

func orDefault(s string) string {
	if s == "" {
		return docker.DefaultHost
	}
	return s
}

func (h *host) clean() {
	ctx := context.Background()
	p, err := h.List(ctx)
	if err != nil {
		h.Errorf("clean up: %v", err)
	}
	for _, i := range p.Of(h.project) {
		h.ok(h.Remove(ctx, i.ID, 0, true))
	}
	for _, n := range p.Networks {
		if n.Project == h.project {
			h.ok(h.RemoveNetwork(ctx, n.ID))
		}
	}
	for _, v := range p.Volumes {
		if v.Project == h.project {
			h.ok(h.RemoveVolume(ctx, v.Name))
		}
	}
	h.raw.Close()
}

func (h *host) ok(err error) {
	h.Helper()
	if err != nil {
		h.Error(err)
	}
}

func (h *host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// doc is a canonical document of one service; rest follows services:.
func (h *host) doc(service, body, rest string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nservices:\n  %s:\n    image: busybox\n    stop_signal: SIGKILL\n", h.project, service)
	for line := range strings.Lines(strings.TrimSpace(body) + "\n") {
		b.WriteString("    " + line)
	}
	b.WriteString(rest)
	return []byte(b.String())
}

func (h *host) want(service, revision string, spec []byte, slots ...int) engine.Want {
	h.Helper()
	id, err := h.Resolve(h.Context(), "busybox")
	h.must(err)
	h.must(h.Ensure(h.Context(), tender.Project{Name: h.project, Spec: spec}))
	return engine.Want{
		Project: h.project, Image: id, Slots: slots, WorkingDir: "/srv/shop", ComposeFiles: []string{"/srv/shop/compose.yaml"},
		Generation: 4, Service: tender.Service{Name: service, Revision: revision, Spec: spec},
	}
}

func (h *host) instances() []tender.Instance {
	h.Helper()
	p, err := h.List(h.Context())
	h.must(err)
	out := p.Of(h.project)
	slices.SortFunc(out, func(a, b tender.Instance) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (h *host) one() tender.Instance {
	h.Helper()
	list := h.instances()
	if len(list) != 1 {
		h.Fatalf("%d instances: %+v", len(list), list)
	}
	return list[0]
}

func (h *host) inspect(id string) container.InspectResponse {
	h.Helper()
	c, err := h.raw.ContainerInspect(h.Context(), id, client.ContainerInspectOptions{})
	h.must(err)
	return c.Container
}

func (h *host) is(err error, kind tender.Kind, words ...string) {
	h.Helper()
	if err == nil || tender.KindOf(err) != kind {
		h.Errorf("error %v, want one of kind %q", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+"\n"+tender.AdviceOf(err), w) {
			h.Errorf("error %q, advice %q: no %q in it", err, tender.AdviceOf(err), w)
		}
	}
}

const sleeps = `command: [sleep, "3600"]` + "\n"

// Every ordinary field must reach the container.
func TestEveryFieldArrives(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	h.must(os.WriteFile(filepath.Join(dir, "token"), []byte("x"), 0o600))
	spec := h.doc("web", `
command: [sleep, "3600"]
entrypoint: [env]
environment: {A: "1", B: "two words", PATH: /bin}
user: "0:0"
working_dir: /tmp
hostname: here
domainname: example.com
tty: true
stdin_open: true
read_only: true
privileged: false
init: true
stop_grace_period: 1500ms
restart: on-failure:3
labels: {com.example.a: b}
expose: ["9000"]
ports: [{target: 80, published: "18099", host_ip: 127.0.0.1, protocol: tcp}, {target: 53, published: "18098", protocol: udp}]
cap_add: [NET_ADMIN]
cap_drop: [MKNOD]
security_opt: ["no-new-privileges:true", "seccomp=unconfined"]
dns: [10.1.2.3]
dns_opt: [ndots:2]
dns_search: [example.com]
extra_hosts: ["db=10.9.9.9", "gw=host-gateway"]
group_add: ["7"]
shm_size: 33554432
sysctls: {net.core.somaxconn: "99"}
tmpfs: ["/run:size=1m"]
ulimits: {nofile: {soft: 100, hard: 200}, nproc: 50}
mem_limit: 10000000
pids_limit: 20
cpus: 0.25
cpuset: "0"
cpu_shares: 512
oom_score_adj: 100
ipc: shareable
pid: host
cgroup: host
devices: [{source: /dev/null, target: /dev/nil, permissions: r}]
healthcheck: {test: [CMD, "true"], interval: 3s, timeout: 2s, retries: 4, start_period: 5s}
logging: {driver: json-file, options: {max-size: 1m}}
deploy: {resources: {limits: {memory: "20000000", cpus: "0.5"}, reservations: {memory: "8000000"}}}
volumes:
- {type: bind, source: `+dir+`, target: /host, read_only: true, bind: {create_host_path: false}}
- {type: bind, source: `+dir+`/made, target: /made, bind: {create_host_path: true}}
- {type: volume, source: data, target: /data, volume: {nocopy: true}}
- {type: volume, target: /anonymous}
- {type: tmpfs, target: /scratch, tmpfs: {size: 1048576, mode: 448}}
networks: {front: {aliases: [www], priority: 10}, back: {ipv4_address: 10.77.3.9}}
`, `networks:
  front: {name: `+h.project+`_front}
  back: {name: `+h.project+`_back, internal: true, ipam: {config: [{subnet: 10.77.3.0/24, ip_range: 10.77.3.128/25, gateway: 10.77.3.1}]}}
volumes:
  data: {name: `+h.project+`_data, labels: {a: b}}
`)
	w := h.want("web", "r1", spec, 2)
	w.Service.DependsOn = nil
	w.Files = []engine.File{{Source: filepath.Join(dir, "token"), Target: "/run/secrets/token"}}
	if warnings, err := h.Check(t.Context(), w.Service); err != nil || len(warnings) != 0 {
		t.Errorf("Check: %v, %v", warnings, err)
	}
	h.must(h.Scale(t.Context(), w))
	i := h.one()
	c := h.inspect(i.ID)
	for label, want := range map[string]string{
		"com.docker.compose.project": h.project, "com.docker.compose.service": "web", "com.docker.compose.container-number": "2",
		"com.docker.compose.oneoff": "False", "com.docker.compose.image": w.Image.ID,
		"com.docker.compose.project.working_dir": "/srv/shop", "com.docker.compose.project.config_files": "/srv/shop/compose.yaml",
		"tender.project": h.project, "tender.service": "web", "tender.revision": "r1", "tender.slot": "2", "tender.generation": "4",
		"tender.spec": string(spec), "com.example.a": "b",
	} {
		if got := c.Config.Labels[label]; got != want {
			t.Errorf("label %s: %q, want %q", label, got, want)
		}
	}
	if len(c.Config.Labels["com.docker.compose.config-hash"]) != 64 {
		t.Error("no config-hash: Compose would not list it")
	}
	got := map[string]any{
		"cmd": c.Config.Cmd, "entrypoint": c.Config.Entrypoint, "env": c.Config.Env, "user": c.Config.User, "dir": c.Config.WorkingDir,
		"host": c.Config.Hostname + "." + c.Config.Domainname, "tty": c.Config.Tty, "stdin": c.Config.OpenStdin, "stop": c.Config.StopTimeout,
		"signal": c.Config.StopSignal, "health": c.Config.Healthcheck, "exposed": len(c.Config.ExposedPorts),
		"readonly": c.HostConfig.ReadonlyRootfs, "init": c.HostConfig.Init, "restart": c.HostConfig.RestartPolicy,
		"caps": []any{c.HostConfig.CapAdd, c.HostConfig.CapDrop}, "security": c.HostConfig.SecurityOpt[:2], "dns": c.HostConfig.DNS,
		"dnsopt": c.HostConfig.DNSOptions, "dnssearch": c.HostConfig.DNSSearch, "hosts": c.HostConfig.ExtraHosts, "groups": c.HostConfig.GroupAdd,
		"shm": c.HostConfig.ShmSize, "sysctls": c.HostConfig.Sysctls, "tmpfs": c.HostConfig.Tmpfs, "ulimits": c.HostConfig.Ulimits,
		"memory": []int64{c.HostConfig.Memory, c.HostConfig.MemoryReservation}, "cpus": []int64{c.HostConfig.NanoCPUs, c.HostConfig.CPUShares},
		"cpuset": c.HostConfig.CpusetCpus, "pids": c.HostConfig.PidsLimit, "oom": c.HostConfig.OomScoreAdj,
		"modes":   []any{c.HostConfig.IpcMode, c.HostConfig.PidMode, c.HostConfig.CgroupnsMode},
		"devices": c.HostConfig.Devices, "log": c.HostConfig.LogConfig,
	}
	want := `{
 "caps":[["CAP_NET_ADMIN"],["CAP_MKNOD"]],"cmd":["sleep","3600"],"cpus":[500000000,512],"cpuset":"0",
 "devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/nil","CgroupPermissions":"r"}],
 "dir":"/tmp","dns":["10.1.2.3"],"dnsopt":["ndots:2"],"dnssearch":["example.com"],"entrypoint":["env"],
 "env":["A=1","B=two words","PATH=/bin"],"exposed":3,"groups":["7"],
 "health":{"Test":["CMD","true"],"Interval":3000000000,"Timeout":2000000000,"StartPeriod":5000000000,"Retries":4},
 "host":"here.example.com","hosts":["db:10.9.9.9","gw:host-gateway"],"init":true,
 "log":{"Type":"json-file","Config":{"max-size":"1m"}},"memory":[20000000,8000000],"modes":["shareable","host","host"],
 "oom":100,"pids":20,"readonly":true,"restart":{"Name":"on-failure","MaximumRetryCount":3},
 "security":["no-new-privileges=true","seccomp=unconfined"],"shm":33554432,"signal":"SIGKILL","stdin":true,"stop":2,
 "sysctls":{"net.core.somaxconn":"99"},"tmpfs":{"/run":"size=1m"},"tty":true,
 "ulimits":[{"Name":"nofile","Hard":200,"Soft":100},{"Name":"nproc","Hard":50,"Soft":50}],"user":"0:0"}`
	if diff := cmp.Diff(normal(t, []byte(want)), normal(t, marshal(t, got))); diff != "" {
		t.Errorf("container (-want +got):\n%s", diff)
	}
	var mounts []string
	for _, m := range c.Mounts {
		name := m.Source
		if m.Type == "volume" {
			name = m.Name
			if len(name) == 64 {
				name = "anonymous"
			}
		}
		mounts = append(mounts, fmt.Sprintf("%s %s %s %t", m.Type, strings.ReplaceAll(name, dir, "DIR"), m.Destination, m.RW))
	}
	slices.Sort(mounts)
	if diff := cmp.Diff([]string{
		"bind DIR /host false", "bind DIR/made /made true", "bind DIR/token /run/secrets/token false",
		"tmpfs  /scratch true", "volume anonymous /anonymous true", "volume " + h.project + "_data /data true",
	}, mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	front, back := c.NetworkSettings.Networks[h.project+"_front"], c.NetworkSettings.Networks[h.project+"_back"]
	if front == nil || back == nil || back.IPAddress != netip.MustParseAddr("10.77.3.9") {
		t.Fatalf("networks %v", c.NetworkSettings.Networks)
	}
	for _, alias := range []string{"web", "web-2", "www"} {
		if !slices.Contains(front.Aliases, alias) {
			t.Errorf("aliases in front %v: no %s", front.Aliases, alias)
		}
	}
	if slices.Contains(back.Aliases, "www") || !slices.Contains(back.Aliases, "web-2") {
		t.Errorf("aliases in back %v", back.Aliases)
	}
	if diff := cmp.Diff([]tender.Port{
		{HostIP: "0.0.0.0", HostPort: 18098, Container: 53, Protocol: "udp"}, {HostIP: "127.0.0.1", HostPort: 18099, Container: 80, Protocol: "tcp"},
	}, slices.DeleteFunc(i.Ports, func(p tender.Port) bool { return p.HostIP == "::" })); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	if i.Drift != "" {
		t.Errorf("drift right after creation: %s", i.Drift)
	}
	if same, why, err := h.Equal(t.Context(), w, i.ID); err != nil || !same {
		t.Errorf("not equal to what made it: %s, %v", why, err)
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func normal(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLogsAreBoundedWhereTheUserSaysNothing(t *testing.T) {
	h := newHost(t)
	h.must(h.Scale(t.Context(), h.want("web", "r1", h.doc("web", sleeps, ""), 1)))
	got := h.inspect(h.one().ID).HostConfig.LogConfig
	if info, err := h.Engine.Info(t.Context()); err != nil || info.LoggingDriver != "json-file" {
		t.Fatalf("the engine's driver is %s, %v", info.LoggingDriver, err)
	}
	if got.Config["max-size"] != "10m" || got.Config["max-file"] != "3" {
		t.Errorf("%+v", got)
	}
}

func TestEachReplicaTakesAPortOfTheRange(t *testing.T) {
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
	h := newHost(t)
	w := h.want("web", "r1", h.doc("web", sleeps, ""), 1)
	w.Files = []engine.File{{Source: filepath.Join(t.TempDir(), "gone"), Target: "/run/secrets/gone"}}
	h.is(h.Scale(t.Context(), w), tender.NotFound, "/gone", "is not there")
	if list := h.instances(); len(list) != 0 {
		t.Errorf("left behind: %+v", list)
	}
}

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

func TestACommandThatIsNotThereSaysSo(t *testing.T) {
	h := newHost(t)
	err := h.Scale(t.Context(), h.want("web", "r1", h.doc("web", "command: [nosuchcommand]", ""), 1))
	h.is(err, tender.Invalid, "nosuchcommand", "not in the image")
}

// A newcomer that holds inherited volumes and cannot start was once removed,
// and with it the only trace of where the data was.
func TestInheritedVolumesOutliveAFailedStart(t *testing.T) {
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

func TestDriftIsSeen(t *testing.T) {
	h := newHost(t)
	spec := h.doc("web", sleeps+"mem_limit: 20000000\nrestart: always\n", "")
	h.must(h.Scale(t.Context(), h.want("web", "r1", spec, 1)))
	i := h.one()
	if i.Drift != "" {
		t.Fatalf("drift %q", i.Drift)
	}
	_, err := h.raw.ContainerUpdate(t.Context(), i.ID, client.ContainerUpdateOptions{
		Resources:     &container.Resources{Memory: 30000000, MemorySwap: 60000000},
		RestartPolicy: &container.RestartPolicy{Name: "no"},
	})
	h.must(err)
	_, err = h.raw.NetworkDisconnect(t.Context(), h.project+"_default", client.NetworkDisconnectOptions{Container: i.ID})
	h.must(err)
	want := "memory 30000000 instead of 20000000, restart no instead of always, not in network " + h.project + "_default"
	if got := h.one().Drift; got != want {
		t.Errorf("drift %q, want %q", got, want)
	}
}

func TestNetworkModeOfAnotherService(t *testing.T) {
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

func TestEnsureHonoursSubnetsAndFindsConflicts(t *testing.T) {
	h := newHost(t)
	ensure := func(rest string) error {
		return h.Ensure(t.Context(), tender.Project{Name: h.project, Spec: h.doc("web", sleeps+"networks: {a: null}\n", rest)})
	}
	a := func(more string) string { return "networks: {a: {name: " + h.project + "_a" + more + "}}\n" }
	h.must(ensure(a("")))
	n, err := h.raw.NetworkInspect(t.Context(), h.project+"_a", client.NetworkInspectOptions{})
	h.must(err)
	if s := n.Network.IPAM.Config[0].Subnet; !docker.DefaultPool.Contains(s.Addr()) || s.Bits() != 24 {
		t.Errorf("subnet %s is not of the pool %s", s, docker.DefaultPool)
	}
	h.must(ensure(a(`, driver: bridge, internal: false`)))
	h.is(ensure(a(`, internal: true`)), tender.Conflict, "internal:", "docker network rm")
	h.is(ensure(a(`, ipam: {config: [{subnet: 10.78.0.0/24}]}`)), tender.Conflict, "subnet", "10.78.0.0/24")
	h.is(ensure(`networks: {a: {name: engine-nobody-has-this, external: true}}`), tender.NotFound, "external", "docker network create engine-nobody-has-this")
	h.must(ensure(`networks: {a: {name: bridge, external: true}}`))
	h.is(ensure(a("")+`volumes: {v: {name: engine-nobody-has-this, external: true}}`), tender.NotFound, "docker volume create")
	v := func(more string) string { return a("") + "volumes: {v: {name: " + h.project + "_v" + more + "}}\n" }
	h.must(ensure(v(`, driver_opts: {type: tmpfs, device: tmpfs, o: size=1m}`)))
	h.must(ensure(v(`, driver_opts: {type: tmpfs, device: tmpfs, o: size=1m}`)))
	h.is(ensure(v(`, driver_opts: {type: tmpfs, device: tmpfs, o: size=2m}`)), tender.Conflict, "option o")
	other := tender.Project{Name: h.project + "x", Spec: h.doc("web", sleeps+"networks: {a: null}\n", a(""))}
	h.is(h.Ensure(t.Context(), other), tender.Conflict, "belongs to project "+h.project)
}

func TestForeignContainersAreShownAndCompared(t *testing.T) {
	h := newHost(t)
	spec := h.doc("web", sleeps+"environment: {A: b}\nvolumes: [{type: volume, source: data, target: /data}]\n", "volumes: {data: {name: "+h.project+"_data}}\n")
	w := h.want("web", "r1", spec, 1)
	create := func(env string) string {
		t.Helper()
		made, err := h.raw.ContainerCreate(t.Context(), client.ContainerCreateOptions{
			Name: h.project + "-web-1",
			Config: &container.Config{Image: "busybox", Cmd: []string{"sleep", "3600"}, Env: []string{env}, StopSignal: "SIGKILL", Labels: map[string]string{
				"com.docker.compose.project": h.project, "com.docker.compose.service": "web", "com.docker.compose.container-number": "1",
				"com.docker.compose.oneoff": "False", "com.docker.compose.config-hash": "abc",
			}},
			HostConfig: &container.HostConfig{Binds: []string{h.project + "_data:/data:rw"}, NetworkMode: container.NetworkMode(h.project + "_default")},
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				h.project + "_default": {Aliases: []string{h.project + "-web-1", "web"}},
			}},
		})
		h.must(err)
		_, err = h.raw.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
		h.must(err)
		return made.ID
	}
	id := create("A=b")
	i := h.one()
	if !i.Foreign || i.Service != "web" || i.Slot != 1 || i.Revision != "" || i.ConfigHash != "abc" || i.State != tender.Running {
		t.Errorf("%+v", i)
	}
	if same, why, err := h.Equal(t.Context(), w, id); err != nil || !same {
		t.Errorf("an equal one differs: %s, %v", why, err)
	}
	h.must(h.Remove(t.Context(), id, 0, false))
	id = create("A=c")
	if same, why, err := h.Equal(t.Context(), w, id); err != nil || same || why != "environment" {
		t.Errorf("same %t, why %q, %v", same, why, err)
	}
	w.Drop = []string{id}
	h.must(h.Scale(t.Context(), w))
	if i := h.one(); i.Foreign || i.Name != h.project+"-web-1" {
		t.Errorf("%+v", i)
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
	want := tender.ImageID{Reference: h.project + ":1", ID: id, Healthcheck: true, Volumes: []string{"/data"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	_, _, err = build("FROM busybox\nRUN exit 9\n")
	h.is(err, tender.Invalid, "build "+h.project, "exit 9", "code: 9")
}
