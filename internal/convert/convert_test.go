package convert_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/convert"
)

// Each flag, and what it writes below services.app (or, with a dot, the whole).
var flags = []struct{ flag, want string }{
	{"--add-host db:10.0.0.5", "extra_hosts:\n- db:10.0.0.5"},
	{"--annotation a=b", "annotations:\n  a: b"},
	{"-a stdout", ""},
	{"--blkio-weight 300", "blkio_config:\n  weight: 300"},
	{"--blkio-weight-device /dev/sda:400", "blkio_config:\n  weight_device:\n  - path: /dev/sda\n    weight: 400"},
	{"--cap-add NET_ADMIN --cap-add=SYS_TIME", "cap_add:\n- NET_ADMIN\n- SYS_TIME"},
	{"--cap-drop ALL", "cap_drop:\n- ALL"},
	{"--cgroup-parent web.slice", "cgroup_parent: web.slice"},
	{"--cgroupns host", "cgroup: host"},
	{"--cpu-period 50000", "cpu_period: 50000"},
	{"--cpu-quota 25000", "cpu_quota: 25000"},
	{"--cpu-rt-period 1000", "cpu_rt_period: 1000"},
	{"--cpu-rt-runtime 900", "cpu_rt_runtime: 900"},
	{"-c 512", "cpu_shares: 512"},
	{"--cpus 1.5", `cpus: "1.5"`},
	{"--cpuset-cpus 0-1", "cpuset: 0-1"},
	{"-d --detach-keys ctrl-a --sig-proxy=false -q --disable-content-trust", ""},
	{"--device /dev/fuse:/dev/fuse:rwm", "devices:\n- /dev/fuse:/dev/fuse:rwm"},
	{"--device-cgroup-rule 'c 1:3 mr'", "device_cgroup_rules:\n- c 1:3 mr"},
	{"--device-read-bps /dev/sda:1mb", "blkio_config:\n  device_read_bps:\n  - path: /dev/sda\n    rate: 1mb"},
	{"--device-read-iops /dev/sda:100", "blkio_config:\n  device_read_iops:\n  - path: /dev/sda\n    rate: 100"},
	{"--device-write-bps /dev/sda:1mb", "blkio_config:\n  device_write_bps:\n  - path: /dev/sda\n    rate: 1mb"},
	{"--device-write-iops /dev/sda:100", "blkio_config:\n  device_write_iops:\n  - path: /dev/sda\n    rate: 100"},
	{"--dns 1.1.1.1 --dns-option ndots:1 --dns-opt edns0 --dns-search example.com", "dns:\n- 1.1.1.1\ndns_opt:\n- ndots:1\n- edns0\ndns_search:\n- example.com"},
	{"--domainname example.com -h web", "domainname: example.com\nhostname: web"},
	{"--entrypoint /bin/sh", "entrypoint: [/bin/sh]"},
	{"--entrypoint ''", "entrypoint: []"},
	{"-e A=1 --env B=$B -e C -e 'D=pa$$ word'", "environment:\n  A: \"1\"\n  B: ${B}\n  C: null\n  D: pa$$$$ word"},
	{"--env-file app.env", "env_file:\n- app.env"},
	{"--expose 9000", "expose:\n- \"9000\""},
	{"--gpus all", "gpus: all"},
	{"--gpus 2", "gpus:\n- count: 2"},
	{`--gpus '"device=0,1",driver=nvidia'`, "gpus:\n- device_ids: [\"0\", \"1\"]\n  driver: nvidia"},
	{"--group-add video", "group_add:\n- video"},
	{
		"--health-cmd 'curl -f localhost || exit 1' --health-interval=30s --health-timeout 10s --health-retries 3 --health-start-period 5s --health-start-interval 1s",
		"healthcheck:\n  test: [CMD-SHELL, curl -f localhost || exit 1]\n  interval: 30s\n  timeout: 10s\n  retries: 3\n  start_period: 5s\n  start_interval: 1s",
	},
	{"--init -it", "init: true\nstdin_open: true\ntty: true"},
	{"--init=false", ""},
	{"--ipc host --pid=host --uts host --userns host", "ipc: host\npid: host\nuts: host\nuserns_mode: host"},
	{"--isolation default", "isolation: default"},
	{"-l a=b --label c --label-file l", "labels:\n  a: b\n  c: \"\"\nlabel_file:\n- l"},
	{"--link db:database", "external_links:\n- db:database"},
	{"--log-driver json-file --log-opt max-size=10m", "logging:\n  driver: json-file\n  options:\n    max-size: 10m"},
	{"--mac-address 02:42:ac:11:65:43", "mac_address: 02:42:ac:11:65:43"},
	{"-m512m --memory-reservation 256m --memory-swap -1 --memory-swappiness 10", "mem_limit: 512m\nmem_reservation: 256m\nmemswap_limit: \"-1\"\nmem_swappiness: 10"},
	{"--mount type=bind,source=/etc/app,target=/etc/app,readonly,bind-propagation=rslave", "volumes:\n- type: bind\n  source: /etc/app\n  target: /etc/app\n  read_only: true\n  bind:\n    propagation: rslave\n    create_host_path: false"},
	{"--mount type=tmpfs,dst=/run,tmpfs-size=64m,tmpfs-mode=1770", "volumes:\n- type: tmpfs\n  target: /run\n  tmpfs:\n    size: 64m\n    mode: 1016"},
	{"--network host", "network_mode: host"},
	{"--net container:db", "network_mode: container:db"},
	{"--no-healthcheck", "healthcheck:\n  disable: true"},
	{"--oom-kill-disable --oom-score-adj -500 --pids-limit 100", "oom_kill_disable: true\noom_score_adj: -500\npids_limit: 100"},
	{"--platform linux/arm64 --privileged --read-only --runtime runc", "platform: linux/arm64\nprivileged: true\nread_only: true\nruntime: runc"},
	{"-p 80:8080 -p127.0.0.1:53:53/udp --publish 9000", "ports:\n- 80:8080\n- 127.0.0.1:53:53/udp\n- \"9000\""},
	{"--pull always --restart on-failure:3", "pull_policy: always\nrestart: on-failure:3"},
	{"--rm", "restart: \"no\""},
	{"--security-opt no-new-privileges:true", "security_opt:\n- no-new-privileges:true"},
	{"--shm-size 64m --stop-signal SIGINT --stop-timeout 30", "shm_size: 64m\nstop_signal: SIGINT\nstop_grace_period: 30s"},
	{"--storage-opt size=10G", "storage_opt:\n  size: 10G"},
	{"--sysctl net.core.somaxconn=1024", "sysctls:\n  net.core.somaxconn: \"1024\""},
	{"--tmpfs /run:size=64m", "tmpfs:\n- /run:size=64m"},
	{"--ulimit nofile=1024:2048 --ulimit nproc=50", "ulimits:\n  nofile:\n    soft: 1024\n    hard: 2048\n  nproc: 50"},
	{"-u 1000:1000 -w /srv", "user: 1000:1000\nworking_dir: /srv"},
	{"-v $(pwd)/site:/www:ro -v /data", "volumes:\n- ${PWD}/site:/www:ro\n- /data"},
	{"--volumes-from db", "volumes_from:\n- container:db"},
	{"--use-api-socket", "use_api_socket: true"},
}

// Docker 28's own list of its flags (docker run --help).
const known = `add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile cpu-period
cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule
device-read-bps device-read-iops device-write-bps device-write-iops disable-content-trust dns dns-option dns-search domainname
entrypoint env env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval health-start-period
health-timeout help hostname init interactive ip ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver
log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount name network network-alias no-healthcheck
oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only restart rm runtime
security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit use-api-socket user userns uts volume
volume-driver volumes-from workdir`

func TestEachFlagHasItsField(t *testing.T) {
	for _, k := range flags {
		t.Run(k.flag, func(t *testing.T) {
			got, err := convert.Run([]string{"docker run " + k.flag + " app"})
			if err != nil {
				t.Fatal(err)
			}
			want := "services:\n  app:\n    image: app\n"
			if k.want != "" {
				want += "    " + strings.ReplaceAll(k.want, "\n", "\n    ") + "\n"
			}
			if diff := cmp.Diff(outline(want), outline(got.YAML)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			loads(t, got.YAML)
		})
	}
}

// outline leaves out how deep lists are indented.
func outline(s string) []string {
	var out []string
	for l := range strings.Lines(s) {
		out = append(out, strings.TrimSpace(l))
	}
	return out
}

// loads fails unless the file is one that Compose reads, with every variable set.
func loads(t *testing.T, yaml string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"compose.yaml": yaml, "app.env": "A=1\n", "l": "a=b\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, err := compose.Load(t.Context(), compose.Source{Dir: dir, Name: "x", Env: []string{
		"PWD=" + dir, "B=1", "BACKUP_DIR=/backup", "NEW_COLOR=green", "NEW_VERSION=2", "BACKUP_FILE=a.sql", "HOME=" + dir,
	}})
	// What Tender refuses it refuses with the line, and the conversion has kept it.
	if err != nil && !strings.Contains(err.Error(), "compose.yaml:") {
		t.Errorf("%v\n%s", err, yaml)
	}
}

func TestEveryFlagIsKnown(t *testing.T) {
	for _, name := range strings.Fields(known) {
		for _, flag := range []string{"--" + name + "=1", "--" + name} {
			if _, err := convert.Run([]string{"docker", "run", flag, "1", "app"}); err != nil && strings.Contains(err.Error(), "has no flag") {
				t.Errorf("%s: %v", flag, err)
			}
		}
	}
}

func TestNetworksAndVolumesKeepTheirNames(t *testing.T) {
	got, err := convert.Run([]string{`docker run -d --name db --ip 10.9.0.5 --network-alias database --network backend \
		--network name=front,alias=pg -v data:/var/lib/db \
		--mount type=volume,src=logs,dst=/logs,volume-driver=local,volume-opt=type=tmpfs postgres:15 -c max_connections=5`})
	if err != nil {
		t.Fatal(err)
	}
	want := `services:
  db:
    image: postgres:15
    container_name: db
    networks:
      backend:
        ipv4_address: 10.9.0.5
        aliases:
          - database
      front:
        aliases:
          - pg
    volumes:
      - data:/var/lib/db
      - type: volume
        source: logs
        target: /logs
    command: [-c, max_connections=5]
networks:
  backend:
    name: backend
    external: true
  front:
    name: front
    external: true
volumes:
  data:
    name: data
  logs:
    name: logs
    driver: local
    driver_opts:
      type: tmpfs
`
	if diff := cmp.Diff(outline(want), outline(got.YAML)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	loads(t, got.YAML)
}

func TestWhatIsRefusedIsNamed(t *testing.T) {
	for _, k := range []struct{ command, want string }{
		{"docker run", "no image is named"},
		{"docker ps", "no docker run"},
		{"docker run -P nginx", "--publish-all: a Compose file names its ports"},
		{"docker run --cidfile x nginx", "--cidfile: a Compose file has no word for it"},
		{"docker run --frob nginx", "has no flag --frob"},
		{"docker run -Z nginx", "has no flag -Z"},
		{"docker run --ip 10.0.0.1 nginx", "--ip needs a --network"},
		{"docker run --network host --ip 10.0.0.1 nginx", "--ip needs a --network"},
		{"docker run --rm --restart always nginx", "--rm and --restart exclude each other"},
		{"docker run --name", "--name wants a value"},
		{"docker run --cpu-period many nginx", "--cpu-period many: a number is needed"},
		{"docker run --init=perhaps nginx", "true or false"},
		{"docker run nginx | tee log", `"|" is the shell's`},
		{"docker run nginx\ndocker run redis", `a second command follows: "docker run redis"`},
		{"docker run -v $(date):/x nginx", "$(date) is filled in by a shell"},
		{"docker run -e A=${A%x} nginx", "${A%x} is filled in by a shell"},
		{"docker run -e A=$1 nginx", "$1 is filled in by a shell"},
		{"docker run 'nginx", "a ' is never closed"},
		{"docker run --mount type=bind,source=/x nginx", "target is missing"},
	} {
		_, err := convert.Run([]string{k.command})
		if err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: %v, want %q", k.command, err, k.want)
		}
	}
}

// What a shell has read already holds no variables.
func TestWordsAreTakenAsTheyAre(t *testing.T) {
	got, err := convert.Run([]string{"docker", "run", "-e", "A=$B", "app", "echo", "${C}"})
	if err != nil {
		t.Fatal(err)
	}
	want := "services:\n  app:\n    image: app\n    environment:\n      A: $$B\n    command: [echo, '$${C}']\n"
	if diff := cmp.Diff(outline(want), outline(got.YAML)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Commands as they stand in scripts about running containers in production.
func TestCommandsOfScripts(t *testing.T) {
	for name, command := range map[string]string{
		"health":  "docker run -d \\\n  --name myapp \\\n  --health-cmd=\"curl -f http://localhost:8080/health || exit 1\" \\\n  --health-interval=30s \\\n  --health-timeout=10s \\\n  --health-retries=3 \\\n  myapp:1.2.3",
		"restart": "docker run -d --restart=unless-stopped myapp:1.2.3",
		"network": "docker run -d \\\n  --name web-app \\\n  --network frontend-network \\\n  -p 80:8080 \\\n  web-app:latest",
		"backup":  "docker run --rm \\\n  -v postgres_data:/source:ro \\\n  -v $BACKUP_DIR:/backup \\\n  ubuntu tar czf /backup/postgres-volume.tar.gz -C /source .",
		"restore": "docker run --rm \\\n  -v postgres_data:/var/lib/postgresql/data \\\n  -v $(pwd):/backup \\\n  postgres:15 \\\n  sh -c \"\n    pg_ctl init -D /var/lib/postgresql/data\n    psql -U postgres < /backup/$BACKUP_FILE\n    pg_ctl stop\n  \"",
		"limits":  "docker run -d \\\n  --name optimized-app \\\n  --memory=512m \\\n  --cpus=\"1.0\" \\\n  --pids-limit=100 \\\n  --ulimit nofile=1024:2048 \\\n  myapp:latest",
		"colour":  "docker run -d \\\n  --name production-app-$NEW_COLOR \\\n  --label color=$NEW_COLOR \\\n  --network production \\\n  myapp:$NEW_VERSION",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := convert.Run([]string{command})
			if err != nil {
				t.Fatal(err)
			}
			loads(t, got.YAML)
		})
	}
}

func FuzzRun(f *testing.F) {
	for _, k := range flags {
		f.Add("docker run " + k.flag + " app")
	}
	f.Add("docker run -v ${A:-b}:/x 'y' \"z\\\"\" `pwd` \\\n #")
	f.Fuzz(func(t *testing.T, command string) {
		got, err := convert.Run([]string{command})
		if err == nil && !strings.HasPrefix(got.YAML, "services:") {
			t.Errorf("%q gives\n%s", command, got.YAML)
		}
	})
}
