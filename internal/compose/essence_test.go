package compose_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tenderhq/tender/internal/compose"
)

const base = `
services:
  web:
    image: nginx:1
    command: [serve]
    environment: {A: "1"}
    networks: [front]
    volumes: ["data:/data"]
    configs: [app]
    secrets: [key]
    depends_on: [db]
    deploy: {replicas: 2, resources: {limits: {memory: 64m}}}
    profiles: []
  db: {image: postgres}
networks: {front: {}, back: {}}
volumes: {data: {}, other: {}}
configs: {app: {content: "a=1"}}
secrets: {key: {external: true}}
`

func web(t *testing.T, yaml string) []byte {
	t.Helper()
	_, p := load(t, yaml)
	s, ok := p.Service("web")
	if !ok {
		t.Fatal("no service web")
	}
	return s.Spec
}

func TestSameIsFalseForWhatMakesAnInstanceDifferent(t *testing.T) {
	tests := []struct{ name, from, to string }{
		{"image", "nginx:1", "nginx:2"},
		{"command", "[serve]", "[serve, more]"},
		{"command that becomes empty", "command: [serve]", "command: []"},
		{"environment", `{A: "1"}`, `{A: "2"}`},
		{"environment, one more", `{A: "1"}`, `{A: "1", B: ""}`},
		{"network", "networks: [front]", "networks: [back]"},
		{"name of a network", "front: {}", "front: {name: elsewhere}"},
		{"volume", "data:/data", "other:/data"},
		{"volume that is only read", "data:/data", "data:/data:ro"},
		{"name of a volume", "data: {}", "data: {name: elsewhere}"},
		{"content of a config", "a=1", "a=2"},
		{"where a config goes", "configs: [app]", "configs: [{source: app, target: /x}]"},
		{"mode of a secret", "secrets: [key]", `secrets: [{source: key, mode: "0400"}]`},
		{"which secret of the vault", "key: {external: true}", "key: {external: true, name: other}"},
		{"limits", "memory: 64m", "memory: 65m"},
		{"restart", "command: [serve]", "command: [serve]\n    restart: always"},
		{"who boots it", "command: [serve]", "command: [serve]\n    x-tender: {boot: ordered}"},
		{"restart policy", "deploy: {replicas: 2", "deploy: {restart_policy: {condition: any}, replicas: 2"},
		{"healthcheck", "command: [serve]", "command: [serve]\n    healthcheck: {test: \"true\"}"},
		{"ports", "command: [serve]", "command: [serve]\n    ports: [\"80\"]"},
		{"labels", "command: [serve]", "command: [serve]\n    labels: {a: b}"},
		{"stop grace", "command: [serve]", "command: [serve]\n    stop_grace_period: 20s"},
		{"user", "command: [serve]", "command: [serve]\n    user: \"1000\""},
		{"links", "command: [serve]", "command: [serve]\n    links: [\"db:d\"]"},
	}
	was := web(t, base)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if compose.Same(was, web(t, change(t, tt.from, tt.to))) {
				t.Error("the same")
			}
		})
	}
}

func TestSameIsTrueForWhatDoesNot(t *testing.T) {
	tests := []struct{ name, from, to string }{
		{"nothing", "", ""},
		{"replicas", "replicas: 2", "replicas: 5"},
		{"scale beside deploy", "replicas: 2", "replicas: 2, update_config: {delay: 5s}"},
		{"rollback_config", "replicas: 2", "replicas: 2, rollback_config: {order: stop-first}"},
		{"depends_on", "depends_on: [db]", "depends_on: {db: {condition: service_healthy}}"},
		{"no depends_on", "depends_on: [db]", "x-nothing: 1"},
		{"rollout", "command: [serve]", "command: [serve]\n    x-tender: {rollout: {hold: 3s}}"},
		{"the default of boot", "command: [serve]", "command: [serve]\n    x-tender: {boot: engine}"},
		{"build", "command: [serve]", "command: [serve]\n    build: ."},
		{"pull_policy", "command: [serve]", "command: [serve]\n    pull_policy: always"},
		{"profiles", "profiles: []", "profiles: []\n    attach: true"},
		{"another service", "image: postgres", "image: postgres:16"},
		{"networks that it does not use", "back: {}", "back: {internal: true}"},
		{"long syntax", `"data:/data"`, "{type: volume, source: data, target: /data, volume: {}}"},
		{"a list for a mapping", `{A: "1"}`, "[A=1]"},
		{"how a size is written", "memory: 64m", `memory: "67108864"`},
		{"order of keys", "command: [serve]\n    environment: {A: \"1\"}", "environment: {A: \"1\"}\n    command: [serve]"},
	}
	was := web(t, base)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := web(t, change(t, tt.from, tt.to))
			if !compose.Same(was, is) {
				a, _ := compose.Essence(was)
				b, _ := compose.Essence(is)
				t.Errorf("not the same:\n%s\n%s", a, b)
			}
		})
	}
}

func change(t *testing.T, from, to string) string {
	t.Helper()
	if !strings.Contains(base, from) {
		t.Fatalf("base has no %q", from)
	}
	return strings.Replace(base, from, to, 1)
}

func TestEssenceIsTheSameBytesEachTime(t *testing.T) {
	spec := web(t, base)
	first, err := compose.Essence(spec)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := compose.Essence(web(t, base))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, again) {
			t.Fatalf("was\n%s\nis\n%s", first, again)
		}
	}
}

func TestEssenceWantsOneService(t *testing.T) {
	d, _ := load(t, base)
	if _, err := compose.Essence([]byte(d.YAML)); err == nil {
		t.Error("took a whole project")
	}
	if compose.Same([]byte("x"), []byte("y")) {
		t.Error("what cannot be read is the same as something")
	}
}
