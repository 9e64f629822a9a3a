package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A state directory is what a release left behind: tender.db, the vault's key, the
// Compose files, and revisions, a line for each service that is wanted. Images have
// another id on every machine, so that one of the same length stands for it.
const (
	stateDir     = "testdata"
	stateProject = "shop"
)

var stateImage = "sha256:" + strings.Repeat("0f", 32)

// stateFile uses what goes into a revision, and some that must not.
const stateFile = `
services:
  migrate:
    image: busybox
    command: ["true"]
  web:
    image: busybox
    command: [httpd, -f, -p, "8080", -h, /www]
    stop_signal: SIGKILL
    restart: unless-stopped
    environment: {COLOUR: "${SHOP_COLOUR:-green}", "NAME": "a b"}
    configs: [{source: page, target: /www/index.html, mode: 0440}]
    depends_on: {migrate: {condition: service_completed_successfully}, app: {condition: service_started, restart: true}}
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 1s, timeout: 5s, retries: 30}
    networks: {front: {aliases: [www]}, default: {}}
    ulimits: {nofile: {soft: 1024, hard: 2048}}
    deploy: {replicas: 2, resources: {limits: {memory: 32M, pids: 50}}, update_config: {order: start-first, failure_action: rollback}}
    x-tender: {rollout: {hold: 1s}}
  app:
    image: busybox
    command: [sh, -c, "trap exit TERM; while :; do sleep 1; done"]
    restart: always
    user: "1001:1001"
    read_only: true
    cap_drop: [ALL]
    logging: {driver: json-file, options: {max-size: 1m}}
    secrets: [{source: password, uid: "1001", mode: 0400}]
    volumes: ["data:/data", /scratch, {type: tmpfs, target: /tmp}]
    labels: {team: shop}
    x-tender: {boot: ordered}
configs:
  page: {content: hello}
secrets:
  password: {file: ./password.txt}
networks: {front: {internal: true}}
volumes: {data: {labels: {keep: "yes"}}}
`

// wanted prints the revision of every service, as its instances carry it.
func (h *host) wanted() string {
	h.t.Helper()
	seen := map[string]bool{}
	for _, c := range h.containers("") {
		if service := c.Config.Labels["com.docker.compose.service"]; service != "migrate" {
			seen[service+" "+c.Config.Labels["tender.revision"]] = true
		}
	}
	var lines []string
	for line := range seen {
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// state puts the state of a release on the host, and the files of its project
// into a folder. It returns the revisions that the project had there.
func (h *host) state(dir, folder string) (revisions string) {
	h.t.Helper()
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			h.t.Fatal(err)
		}
		return string(b)
	}
	for name, content := range map[string]string{
		"data/tender.db": strings.ReplaceAll(read("tender.db"), stateImage, busybox(h.t)), "vault.key": read("vault.key"),
		folder + "/compose.yaml": read("compose.yaml"), folder + "/password.txt": read("password.txt"),
	} {
		if err := os.Chmod(h.file(name, content), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
	return read("revisions")
}

func busybox(t *testing.T) string {
	t.Helper()
	r := docker("image", "inspect", "-f", "{{.ID}}", "busybox:latest")
	if r.err() != nil {
		t.Fatal(r.all())
	}
	return strings.TrimSpace(r.out)
}

// An upgrade of Tender must restart nothing: whatever state a release left
// behind, this one plans nothing for it, and gives no new revisions.
func TestTheStateOfEveryReleaseMustBeUnderstood(t *testing.T) {
	needsEngine(t)
	dirs, err := filepath.Glob(filepath.Join(stateDir, "state-*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no state of any release in %s: %v", stateDir, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			newEngine(t, "debian", "busybox:latest")
			h := makeHost(t)
			h.project = stateProject
			want := h.state(dir, ".")
			// The engine is an empty one, so that all instances are made again, as the state says.
			h.start()
			h.until("what was wanted is there, and the same file changes nothing", func() error { return h.tender("plan").err() })
			ids := h.running("")
			if got := h.wanted(); got != want {
				t.Errorf("revisions\n%swere\n%s", got, want)
			}
			if len(ids) != 3 {
				t.Errorf("%d instances run", len(ids))
			}
			if got := docker("exec", h.one("app"), "cat", "/run/secrets/password").out; got != "pw" {
				t.Errorf("the secret reads %q", got)
			}
			h.must("up")
			h.must("up", "--scale", "web=3")
			for _, id := range ids {
				if !slices.Contains(h.running(""), id) {
					t.Errorf("%s was replaced", id)
				}
			}
			if got := h.wanted(); got != want {
				t.Errorf("after up: revisions\n%swere\n%s", got, want)
			}
			h.must("rollback", "web")
			if out := h.must("history", "web"); strings.Count(out, "done") < 3 {
				t.Errorf("history:\n%s", out)
			}
		})
	}
}

// TestWriteState is make fixture: it writes the state of this release.
func TestWriteState(t *testing.T) {
	name := os.Getenv("TENDER_FIXTURE")
	if name == "" {
		t.Skip("writes the state of a release: make fixture")
	}
	dir, err := filepath.Abs(filepath.Join(stateDir, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("%v: a state that was written stays as it is, choose another name", err)
	}
	newEngine(t, "debian", "busybox:latest")
	h := makeHost(t)
	h.project = stateProject
	h.start()
	h.file("password.txt", "pw")
	h.file("compose.yaml", stateFile)
	t.Setenv("SHOP_COLOUR", "blue")
	h.must("up")
	os.Unsetenv("SHOP_COLOUR") //nolint:errcheck // t.Setenv puts it back
	h.must("up")
	revisions := h.wanted()
	h.stop()
	db, err := os.ReadFile(filepath.Join(h.dir, "data", "tender.db"))
	if err != nil {
		t.Fatal(err)
	}
	db = bytes.ReplaceAll(db, []byte(busybox(t)), []byte(stateImage))
	key, err := os.ReadFile(filepath.Join(h.dir, "vault.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"tender.db": db, "vault.key": key, "compose.yaml": []byte(stateFile), "password.txt": []byte("pw"), "revisions": []byte(revisions),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("wrote %s:\n%s", dir, revisions)
}
