package compose_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/compose"
)

// load makes a project of one Compose file without anything around it.
func load(t *testing.T, yaml string) (compose.Document, tender.Project) {
	t.Helper()
	d, err := compose.Load(t.Context(), compose.Source{Files: []string{"-"}, Dir: t.TempDir(), Name: "shop", Stdin: strings.NewReader(yaml)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := compose.Parse([]byte(d.YAML))
	if err != nil {
		t.Fatal(err)
	}
	return d, p
}

// What each service means is printed without its spec and compared whole.
func TestParseSaysWhatIsDecidedOn(t *testing.T) {
	tests := []struct{ name, service, want string }{
		{
			"defaults", `image: x`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"build without image", `build: .`,
			`web x1 image=shop-web build=true restart=""/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"replicas, also none", `{image: x, deploy: {replicas: 0}}`,
			`web x0 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"scale", `{image: x, scale: 3}`,
			`web x3 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"grace", `{image: x, stop_grace_period: 1m30s}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=1m30s one-at-a-time=""`,
		},
		{
			"restart", `{image: x, restart: "on-failure:3"}`,
			`web x1 image=x build=false restart="on-failure"/3 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"restart no", `{image: x, restart: "no"}`,
			`web x1 image=x build=false restart="no"/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"restart_policy overrides restart", `{image: x, restart: always, deploy: {restart_policy: {condition: on-failure, max_attempts: 5}}}`,
			`web x1 image=x build=false restart="on-failure"/5 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"restart_policy any", `{image: x, deploy: {restart_policy: {condition: any}}}`,
			`web x1 image=x build=false restart="always"/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"restart_policy none", `{image: x, deploy: {restart_policy: {condition: none}}}`,
			`web x1 image=x build=false restart="no"/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"healthcheck", `{image: x, healthcheck: {test: "true"}}`,
			`web x1 image=x build=false restart=""/0 health=1 job=false grace=10s one-at-a-time=""`,
		},
		{
			"healthcheck disabled", `{image: x, healthcheck: {disable: true}}`,
			`web x1 image=x build=false restart=""/0 health=-1 job=false grace=10s one-at-a-time=""`,
		},
		{
			"healthcheck none", `{image: x, healthcheck: {test: [NONE]}}`,
			`web x1 image=x build=false restart=""/0 health=-1 job=false grace=10s one-at-a-time=""`,
		},
		{
			"the image's healthcheck with another interval", `{image: x, healthcheck: {interval: 5s}}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"host port", `{image: x, ports: ["8080:80"]}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time="host port 8080"`,
		},
		{
			"port range with room for one more", `{image: x, ports: ["8080-8083:80"], scale: 3}`,
			`web x3 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"port range without room", `{image: x, ports: ["8080-8082:80"], scale: 3}`,
			`web x3 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time="host port 8080-8082"`,
		},
		{
			"port that the engine chooses", `{image: x, ports: ["80"]}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"host network", `{image: x, network_mode: host}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time="host network"`,
		},
		{
			"static address", `{image: x, networks: {default: {ipv4_address: 172.30.0.9}}}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time="static address 172.30.0.9"`,
		},
		{
			"device", `{image: x, devices: [/dev/fuse]}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time="device /dev/fuse"`,
		},
		{
			"container_name", `{image: x, container_name: w1}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time="container_name w1"`,
		},
		{
			"anonymous volume", `{image: x, volumes: [/data], scale: 2}`,
			`web x2 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time="anonymous volume at /data"`,
		},
		{
			"writable volume, one replica", `{image: x, volumes: ["/srv:/data"]}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time="writable volume /srv with one replica"`,
		},
		{
			"writable volume, two replicas", `{image: x, volumes: ["/srv:/data"], scale: 2}`,
			`web x2 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"volume that is only read", `{image: x, volumes: ["/srv:/data:ro"]}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time=""`,
		},
		{
			"update and rollback", `{image: x, deploy: {update_config: {parallelism: 0, delay: 5s, order: start-first, failure_action: rollback, monitor: 20s, max_failure_ratio: 0.1}, rollback_config: {parallelism: 2, order: stop-first}}, x-tender: {rollout: {strategy: recreate, hold: 3s}}}`,
			`web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time=""
rollout strategy="recreate" order="start-first" parallel=0 delay=5s hold=3s monitor=20s failure="rollback" ratio=0.1 before=""
rollback strategy="" order="stop-first" parallel=2 delay=0s hold=- monitor=0s failure="" ratio=0 before=""`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, p := load(t, "services:\n  web: "+inline(tt.service)+"\n")
			if diff := cmp.Diff(tt.want, describe(p.Services[0])); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
		})
	}
}

func inline(s string) string {
	if strings.HasPrefix(s, "{") {
		return s
	}
	return "{" + s + "}"
}

func describe(s tender.Service) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s x%d image=%s build=%v restart=%q/%d health=%d job=%v grace=%s one-at-a-time=%q", s.Name, s.Replicas, s.Image, s.Build,
		s.Restart, s.RestartMax, s.Healthcheck, s.Job, s.Grace, s.OneAtATime)
	for _, r := range []struct {
		name string
		r    tender.Rollout
	}{{"rollout", s.Rollout}, {"rollback", s.Rollback}} {
		if reflect.DeepEqual(r.r, tender.Rollout{}) {
			continue
		}
		parallel, hold := "-", "-"
		if r.r.Parallel != nil {
			parallel = fmt.Sprint(*r.r.Parallel)
		}
		if r.r.Hold != nil {
			hold = r.r.Hold.String()
		}
		fmt.Fprintf(&b, "\n%s strategy=%q order=%q parallel=%s delay=%s hold=%s monitor=%s failure=%q ratio=%v before=%q", r.name, r.r.Strategy, r.r.Order,
			parallel, r.r.Delay, hold, r.r.Monitor, r.r.Failure, r.r.MaxRatio, r.r.Before)
	}
	for _, d := range s.DependsOn {
		fmt.Fprintf(&b, "\nneeds %s %s required=%v restart=%v", d.Service, d.Condition, d.Required, d.Restart)
	}
	for _, f := range s.Secrets {
		fmt.Fprintf(&b, "\nsecret %s external=%v from %s at %s %d:%d %#o", f.Name, f.External, f.Source, f.Target, f.UID, f.GID, f.Mode)
	}
	for _, f := range s.Configs {
		fmt.Fprintf(&b, "\nconfig %s at %s %d:%d %#o %.8s", f.Source, f.Target, f.UID, f.GID, f.Mode, f.SHA256)
	}
	return b.String()
}

func TestParseKnowsDependenciesAndJobs(t *testing.T) {
	_, p := load(t, `
services:
  web:
    image: x
    depends_on:
      db: {condition: service_healthy, restart: true}
      seed: {condition: service_completed_successfully}
      cache: {condition: service_started, required: false}
    links: [linked]
    x-tender: {rollout: {before: migrate}}
  db: {image: x}
  seed: {image: x}
  migrate: {image: x, depends_on: [db]}
  cache: {image: x}
  linked: {image: x}
  side: {image: x, network_mode: "service:web", volumes_from: [db]}
`)
	var got strings.Builder
	for _, s := range p.Services {
		fmt.Fprintln(&got, s.Name, "job:", s.Job)
		for _, d := range s.DependsOn {
			fmt.Fprintln(&got, " needs", d.Service, d.Condition, "required:", d.Required, "restart:", d.Restart)
		}
	}
	want := `cache job: false
db job: false
linked job: false
migrate job: true
 needs db service_started required: true restart: false
seed job: true
side job: false
 needs db service_started required: true restart: false
 needs web service_started required: true restart: true
web job: false
 needs cache service_started required: false restart: false
 needs db service_healthy required: true restart: true
 needs linked service_started required: true restart: true
 needs seed service_completed_successfully required: true restart: false
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func TestParseSaysWhereFilesGo(t *testing.T) {
	_, p := load(t, `
services:
  web:
    image: x
    secrets:
      - a
      - {source: a, target: short, uid: "1000", gid: "50", mode: 0400}
      - {source: a, target: /etc/whole}
      - vault
    configs:
      - c
      - {source: c, target: rel/c}
      - {source: c, target: /etc/c, uid: "7", mode: "0440"}
secrets:
  a: {external: true}
  vault: {external: true, name: other-name}
configs:
  c: {content: hello}
`)
	want := `web x1 image=x build=false restart=""/0 health=0 job=false grace=10s one-at-a-time=""
secret a external=true from a at /run/secrets/a 0:0 0444
secret a external=true from a at /run/secrets/short 1000:50 0400
secret a external=true from a at /etc/whole 0:0 0444
secret other-name external=true from vault at /run/secrets/vault 0:0 0444
config c at /c 0:0 0444 2cf24dba
config c at /rel/c 0:0 0444 2cf24dba
config c at /etc/c 7:0 0440 2cf24dba`
	if diff := cmp.Diff(want, describe(p.Services[0])); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// The daemon takes the normal form from anyone who reaches it.
func TestParseRefusesWhatIsNotTheNormalForm(t *testing.T) {
	const top = "x-tender-format: 1\nname: shop\n"
	tests := []struct{ name, yaml, want string }{
		{"nothing", "", "project: empty compose file"},
		{"no format", "name: shop\nservices: {web: {image: x}}\n", "project: x-tender-format is missing, this version reads 1"},
		{"a later format", "x-tender-format: 2\nname: shop\nservices: {web: {image: x}}\n", "project: x-tender-format is 2, this version reads 1"},
		{"no name", "x-tender-format: 1\nservices: {web: {image: x}}\n", "project: it has no name"},
		{"a name that is none", "x-tender-format: 1\nname: A/../b\nservices: {web: {image: x}}\n", `project: "A/../b" is not a project's name`},
		{
			"files of the host", top + "services:\n  web:\n    image: x\n    env_file: /etc/shadow\n    extends: {file: /etc/passwd, service: x}\n    label_file: /etc/group\nsecrets:\n  s: {file: /etc/shadow}\nconfigs:\n  c: {file: /etc/shadow}\ninclude: [/etc/passwd]\n",
			"project:6:5: services.web.env_file: has no place in the normal form\nproject:7:5: services.web.extends: has no place in the normal form\nproject:8:5: services.web.label_file: has no place in the normal form\nproject:10:7: secrets.s.file: has no place in the normal form\nproject:12:7: configs.c.file: has no place in the normal form\nproject:13:1: include: has no place in the normal form",
		},
		{
			"values of secrets", top + "services: {web: {image: x}}\nsecrets:\n  s: {environment: HOME}\nconfigs:\n  c: {content: x}\n  d: {environment: HOME}\n",
			"project:5:7: secrets.s.environment: has no place in the normal form\nproject:7:7: configs.c.content: has no place in the normal form\nproject:8:7: configs.d.environment: has no place in the normal form",
		},
		{"a profile in a file", top + "services: {web: {image: x, security_opt: [\"seccomp:/etc/shadow\"]}}\n", "project:3:43: services.web: seccomp profile /etc/shadow is not in the normal form"},
		{"unknown keys", top + "services: {web: {imgae: x}}\n", `project:3:18: services.web: unknown key "imgae", did you mean "image"?`},
		{"names that lead nowhere", top + "services: {web: {image: x, depends_on: {db: {condition: service_started}}}}\n", `project:3:41: services.web: depends on undefined service "db"`},
		{"a config without its hash", top + "services: {web: {image: x, configs: [{source: c}]}}\nconfigs: {c: {name: c}}\n", `services.web: config "c": x-tender-sha256 "" is not a hash`},
		{"a mode beyond modes", top + "services: {web: {image: x, secrets: [{source: s, mode: 99999}]}}\nsecrets: {s: {external: true}}\n", `services.web: secret "s": mode 0303237 is not the mode of a file`},
		{"an alias bomb", top + bomb() + "services: {web: {image: x}}\n", "project:3:24: too large: more than 250000 values with aliases written out"},
		{"deep nesting", top + "x-deep: " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "\nservices: {web: {image: x}}\n", "project:3:109: too large: more than 100 levels"},
		{"more than there is room for", top + "# " + strings.Repeat("x", 8<<20), "project is larger than 8 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := compose.Parse([]byte(tt.yaml))
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			if k := tender.KindOf(err); k != tender.Invalid {
				t.Errorf("kind is %q", k)
			}
		})
	}
}

func bomb() string {
	var b strings.Builder
	b.WriteString("x-a: &a [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 8 {
		fmt.Fprintf(&b, "x-%c: &%c [%s]\n", 'b'+i, 'b'+i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", 'a'+i), 10), ","))
	}
	return b.String()
}

func TestParseDoesNotInterpolate(t *testing.T) {
	_, p := load(t, "services:\n  web: {image: x, command: [\"$${HOME}\", \"$$1\"]}\n")
	spec, err := compose.Spec(p.Services[0].Spec)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"${HOME}", "$1"}, []string(spec.Services["web"].Command)); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// The parser's own search for circles follows every path, of which this file has 2^40.
func TestManyDependenciesTakeNoTime(t *testing.T) {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range 40 {
		fmt.Fprintf(&b, "  s%d: {image: x, depends_on: [", i)
		for j := range i {
			fmt.Fprintf(&b, "s%d,", j)
		}
		b.WriteString("]}\n")
	}
	_, p := load(t, b.String())
	if s, _ := p.Service("s39"); len(s.DependsOn) != 39 {
		t.Errorf("s39 needs %d services", len(s.DependsOn))
	}
}
