package docker_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client/pkg/versions"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// Every ordinary field must reach the container.
func TestEveryFieldArrives(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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

// What needs a later API arrives there, and is refused before anything is made elsewhere.
func TestFieldsOfLaterEngines(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	info, err := h.Engine.Info(t.Context())
	h.must(err)
	spec := h.doc("web", sleeps+`
annotations: {com.example.a: b}
healthcheck: {test: [CMD, "true"], start_interval: 2s}
networks: {default: {mac_address: "02:42:ac:11:00:09", gw_priority: 3}}
volumes: [{type: volume, source: data, target: /data, volume: {subpath: .}}]
`, "volumes: {data: {name: "+h.project+"_data}}\n")
	w := h.want("web", "r1", spec, 1)
	warnings, err := h.Check(t.Context(), w.Service)
	if versions.LessThan(info.API, "1.48") {
		h.is(err, tender.Invalid, "needs API 1.4", "this engine speaks "+info.API, "upgrade the engine")
		return
	}
	if err != nil || len(warnings) != 0 {
		t.Fatalf("Check: %v, %v", warnings, err)
	}
	h.must(h.Scale(t.Context(), w))
	c := h.inspect(h.one().ID)
	n := c.NetworkSettings.Networks[h.project+"_default"]
	if c.HostConfig.Annotations["com.example.a"] != "b" || c.Config.Healthcheck.StartInterval != 2*time.Second ||
		n.MacAddress.String() != "02:42:ac:11:00:09" || n.GwPriority != 3 || c.HostConfig.Mounts[0].VolumeOptions.Subpath != "." {
		t.Errorf("%+v %+v %+v", c.HostConfig, c.Config.Healthcheck, n)
	}
}

// Who asks for an order at boot must not find that the engine was faster.
func TestWhatBootsInOrderIsNotRestartedByTheEngine(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	spec := h.doc("web", sleeps+"restart: always\nx-tender: {boot: ordered}", "")
	h.must(h.Scale(t.Context(), h.want("web", "r1", spec, 1)))
	i := h.one()
	if p := h.inspect(i.ID).HostConfig.RestartPolicy; p.Name != "no" {
		t.Errorf("restart policy %+v", p)
	}
	if i.Drift != "" {
		t.Errorf("drift: %s", i.Drift)
	}
}
