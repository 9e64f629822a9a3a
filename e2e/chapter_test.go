package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lesson is a Compose file as it is taught, and how it shows that it runs.
type lesson struct {
	file string
	// with is a second file, for those that name what another one brings; alone they are refused with these words.
	with, alone string
	images      map[string]string // stand-ins: what is run under a name that is the user's to build or too large to pull
	secrets     []string          // that lie in the vault
	services    []string
	ports       []int
	detach      bool // its first healthcheck comes after half a minute, as printed
	check       func(t *testing.T, h *host, project string)
}

const postgres = `
services:
  postgres:
    image: postgres:15
    environment: {POSTGRES_PASSWORD: mypassword, POSTGRES_DB: myapp}
    volumes: ["postgres_data:/var/lib/postgresql/data"]
volumes: {postgres_data: {}}
`

var lessons = []lesson{
	{
		file: "02-lifecycle/config.compose.yaml", images: map[string]string{"myapp:latest": "nginx:alpine"},
		secrets: []string{"api_key"}, services: []string{"app"},
		check: func(t *testing.T, h *host, project string) {
			within(t, h, project, "app", `cat /run/secrets/api_key /app/config.yml; echo "$LOG_LEVEL"`, "value of api_key", "INFO")
		},
	},
	{
		file:     "03-logging-monitoring/elk.compose.yaml",
		images:   map[string]string{"myapp:latest": "nginx:alpine", "elasticsearch:8.11.0": "nginx:alpine", "logstash:8.11.0": "nginx:alpine", "kibana:8.11.0": "nginx:alpine"},
		services: []string{"app", "elasticsearch", "logstash", "kibana"}, ports: []int{5601},
		check: func(t *testing.T, h *host, project string) {
			id := h.first(project, "app").ID
			if got := docker("inspect", "-f", "{{.HostConfig.LogConfig}}", id).out; !strings.Contains(got, "max-size:10m") || !strings.Contains(got, "labels:service=myapp") {
				t.Errorf("log options %s", got)
			}
		},
	},
	{
		file: "03-logging-monitoring/monitoring.compose.yaml", images: map[string]string{"grafana/grafana:latest": "nginx:alpine"},
		services: []string{"prometheus", "grafana", "alertmanager"}, ports: []int{9090, 3000, 9093},
		check: func(t *testing.T, h *host, _ string) {
			h.until("prometheus and alertmanager are ready", func() error {
				if _, err := get("http://127.0.0.1:9090/-/ready"); err != nil {
					return err
				}
				_, err := get("http://127.0.0.1:9093/-/ready")
				return err
			})
		},
	},
	{
		file: "04-security/hardened.compose.yaml", images: map[string]string{"myapp:latest": "demo/app:latest"},
		secrets: []string{"mysql_root_password"}, services: []string{"app"},
		check: func(t *testing.T, h *host, project string) {
			id := h.first(project, "app").ID
			got := docker("inspect", "-f", "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} {{.HostConfig.SecurityOpt}}", id).out
			for _, want := range []string{"1001:1001 true [ALL]", "NET_BIND_SERVICE", "no-new-privileges", "seccomp={"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in %s", want, got)
				}
			}
		},
	},
	{
		file: "05-discovery/consul.compose.yaml", images: map[string]string{"consul:latest": "demo/app:latest", "myapp:latest": "nginx:alpine"},
		services: []string{"consul", "app"}, ports: []int{8500},
		check: func(t *testing.T, h *host, project string) {
			within(t, h, project, "app", "getent hosts consul && echo $CONSUL_HTTP_ADDR", "consul:8500")
		},
	},
	{
		file: "05-discovery/dns.compose.yaml", services: []string{"web", "db", "cache"},
		check: func(t *testing.T, h *host, project string) {
			within(t, h, project, "web", "getent hosts db && getent hosts cache", "db", "cache")
		},
	},
	{
		file: "05-discovery/haproxy.compose.yaml", services: []string{"haproxy", "web-app"}, ports: []int{80, 8404}, detach: true,
		check: func(t *testing.T, h *host, _ string) {
			seen := map[string]bool{}
			h.until("three instances answer through HAProxy", func() error {
				body, err := get("http://127.0.0.1:80/")
				if err != nil {
					return err
				}
				seen[body] = true
				if len(seen) < 3 {
					return fmt.Errorf("only %v", seen)
				}
				return nil
			})
			for body := range seen {
				if !strings.HasPrefix(body, "hello from ") {
					t.Errorf("answer %q", body)
				}
			}
		},
	},
	{
		file: "06-backup/backup.compose.yaml", with: postgres, alone: `backup.compose.yaml:19:9: services.backup: depends on undefined service "postgres"`,
		services: []string{"backup", "postgres"},
		check: func(t *testing.T, h *host, project string) {
			h.until("a dump is begun", func() error { return execIn(h, project, "backup", "ls /backups | grep 'backup_.*[.]sql'").err() })
		},
	},
	{
		file: "07-performance/pgbouncer.compose.yaml", with: postgres, alone: `pgbouncer.compose.yaml:17:9: services.pgbouncer: depends on undefined service "postgres"`,
		images: map[string]string{"myapp:latest": "nginx:alpine"}, services: []string{"pgbouncer", "postgres", "app"}, ports: []int{6432},
		check: func(t *testing.T, h *host, project string) {
			h.until("postgres answers through pgbouncer", func() error {
				return execIn(h, project, "postgres", "PGPASSWORD=mypassword psql -h pgbouncer -p 6432 -U postgres -c 'select 1' myapp").err()
			})
		},
	},
	{
		file: "08-registry/registry.compose.yaml", images: map[string]string{"joxit/docker-registry-ui:latest": "nginx:alpine"},
		services: []string{"registry", "registry-ui"}, ports: []int{5000, 8080},
		check: func(t *testing.T, h *host, _ string) {
			h.until("the registry asks for a password", func() error {
				if _, err := get("http://127.0.0.1:5000/v2/"); err == nil || !strings.Contains(err.Error(), "401") {
					return fmt.Errorf("%w", err)
				}
				return nil
			})
		},
	},
	{
		file: "09-migration/strangler.compose.yaml", images: map[string]string{"legacy-app:latest": "demo/app:latest", "new-service:latest": "demo/app:latest"},
		services: []string{"legacy-app", "new-service", "nginx"}, ports: []int{80, 8081, 8082},
		check: func(t *testing.T, h *host, _ string) {
			h.until("the old application answers through nginx", func() error { _, err := get("http://127.0.0.1:80/health"); return err })
		},
	},
}

// execIn runs a command in the first instance of a service.
func execIn(h *host, project, service, command string) result {
	list := h.containersOf(project, service)
	if len(list) == 0 {
		return result{what: service, code: 1, stderr: "no instance"}
	}
	return docker("exec", list[0].ID, "sh", "-c", command)
}

func within(t *testing.T, h *host, project, service, command string, want ...string) {
	t.Helper()
	r := execIn(h, project, service, command)
	for _, w := range want {
		if r.err() != nil || !strings.Contains(r.out, w) {
			t.Errorf("want %q of %s", w, r.all())
		}
	}
}

// Every Compose file of the chapter must run as it is printed. One after the
// other, and alone: they publish ports and give names to images as printed.
func TestTheChapterMustRunAsPrinted(t *testing.T) {
	h := newHost(t)
	files := filepath.Join(h.dir, "chapter")
	for _, from := range []string{"internal/compose/testdata/chapter", "e2e/testdata/chapter"} {
		if err := os.CopyFS(files, os.DirFS(filepath.Join(root, from))); err != nil {
			t.Fatal(err)
		}
	}
	printed, err := filepath.Glob(filepath.Join(files, "*", "*.compose.yaml"))
	if err != nil || len(printed) != len(lessons) {
		t.Fatalf("%d files for %d lessons: %v", len(printed), len(lessons), err)
	}
	for i, l := range lessons {
		t.Run(strings.NewReplacer("/", "-", ".compose.yaml", "").Replace(l.file), func(t *testing.T) {
			project := fmt.Sprintf("%s-%d", h.project, i)
			l.run(t, h.as(t), filepath.Join(files, l.file), project)
		})
	}
}

func (l lesson) run(t *testing.T, h *host, file, project string) {
	for name, stand := range l.images {
		standIn(t, name, stand)
	}
	for _, name := range l.secrets {
		cmd := h.command("secret", "set", name)
		cmd.Stdin = strings.NewReader("value of " + name)
		if r := run(cmd); r.err() != nil {
			t.Fatal(r.all())
		}
	}
	tender := func(args ...string) result {
		cmd := h.command(append([]string{args[0], "-p", project, "-f", filepath.Base(file)}, args[1:]...)...)
		cmd.Dir = filepath.Dir(file)
		return run(cmd)
	}
	var second []string
	if l.with != "" {
		if r := tender("plan"); r.code != 1 || !strings.Contains(r.stderr, l.alone) {
			t.Errorf("alone: %s", r.all())
		}
		second = []string{"-f", h.file("second.yaml", l.with)}
	}
	if r := tender(append([]string{"plan"}, second...)...); r.code != 3 {
		t.Fatalf("plan: %s", r.all())
	}
	for _, port := range l.ports {
		mustBeFree(t, port)
	}
	t.Cleanup(func() {
		if t.Failed() {
			show(t, "instances", tender(append([]string{"ps", "-a"}, second...)...).all())
			show(t, "logs", tender(append([]string{"logs"}, second...)...).all())
		}
		if r := tender(append([]string{"down", "-v", "--supersede", "-t", "1"}, second...)...); r.err() != nil {
			t.Error(r.all())
		}
		wipe(t, project)
		docker("rmi", project+"-web", project+"-web-app")
	})
	up := append([]string{"up"}, second...)
	if l.detach {
		up = append(up, "-d")
	}
	if r := tender(up...); r.err() != nil {
		t.Fatal(r.all())
	}
	l.check(t, h, project)
	for _, s := range l.services {
		if len(h.containersOf(project, s)) == 0 {
			t.Errorf("%s has no instance", s)
		}
	}
}

// standIn gives an image the name of one that cannot be had, until the test ends.
func standIn(t *testing.T, name, stand string) {
	t.Helper()
	if docker("image", "inspect", name).code == 0 {
		t.Fatalf("an image %s is there already: remove it, or this test would run it", name)
	}
	if r := docker("tag", stand, name); r.err() != nil {
		t.Fatal(r.all())
	}
	t.Cleanup(func() { docker("rmi", name) })
}

// mustBeFree fails with what holds a port that the chapter prints.
func mustBeFree(t *testing.T, port int) {
	t.Helper()
	// The engine's proxy ends a moment after its container.
	for range 150 {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			l.Close()
			return
		}
		<-time.After(200 * time.Millisecond)
	}
	holder := strings.TrimSpace(docker("ps", "--filter", fmt.Sprintf("publish=%d", port), "--format", "container {{.Names}}").out)
	if holder == "" {
		holder = "a process of this host: ss -ltnp names it"
	}
	t.Fatalf("port %d, which the file publishes, is held by %s", port, holder)
}
