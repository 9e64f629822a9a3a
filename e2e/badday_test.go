package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// lose deletes the store while serve is not there.
func (h *host) lose() {
	h.t.Helper()
	files, _ := filepath.Glob(filepath.Join(h.dir, "data", "tender.db*"))
	if len(files) == 0 {
		h.t.Fatal("there is no store to lose")
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			h.t.Fatal(err)
		}
	}
}

func TestALostStoreMustBeRebuilt(t *testing.T) {
	t.Parallel()
	plain := unused(t)
	h := newHost(t, "--http="+plain)
	h.file("password.txt", "pw")
	// A route at the top is no service's: no instance carries it.
	h.file("compose.yaml", web(2, "    depends_on: [app]")+`
secrets:
  password: {file: ./password.txt}
x-tender:
  routes:
    - {host: shop.test, max_body: 7kb, to: [{service: web, port: 8080, weight: 3}]}
`)
	file, err := os.ReadFile(filepath.Join(h.dir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.file("compose.yaml", strings.Replace(string(file), "\nconfigs:", `
  app:
    image: busybox
    command: [sh, -c, "trap exit TERM; while :; do sleep 1; done"]
    secrets: [password]
configs:`, 1))
	h.must("up")
	ids := func() []string {
		all := append(h.running("web"), h.running("app")...)
		slices.Sort(all)
		return all
	}
	was := ids()
	served := func() error {
		return run(exec.Command("curl", "-fsS", "-m", "10", "-H", "Host: shop.test", "http://"+plain)).err()
	}
	h.until("the route is served", served)
	h.kill()
	h.lose()
	h.start()
	h.until("the project is known again", func() error { return h.tender("history").err() })
	if out := h.must("ls"); !strings.Contains(out, "rebuilt") {
		t.Errorf("ls does not say that it was rebuilt:\n%s", out)
	}
	if out := h.must("history"); !strings.Contains(out, "rebuilt") {
		t.Errorf("history:\n%s", out)
	}
	if out := h.must("route", "ls", "-q"); strings.TrimSpace(out) != h.project+"/shop.test/" {
		t.Errorf("the routes that were found: %q", out)
	}
	if err := served(); err != nil {
		t.Error(err)
	}
	h.must("up")
	if now := ids(); !slices.Equal(now, was) {
		t.Errorf("running %v, were %v", now, was)
	}
	// What is repaired needs its config and its secret again.
	for _, service := range []string{"web", "app"} {
		victim := h.one(service)
		if r := docker("rm", "-f", victim); r.err() != nil {
			t.Fatal(r.all())
		}
		h.until(service+" is repaired", func() error {
			now := h.running(service)
			if slices.Contains(now, victim) || len(now) != map[string]int{"web": 2, "app": 1}[service] {
				return fmt.Errorf("running %v", now)
			}
			return nil
		})
	}
	if got := docker("exec", h.one("app"), "cat", "/run/secrets/password").out; got != "pw" {
		t.Errorf("the service reads %q", got)
	}

	// What was released is nobody's to rebuild.
	h.must("release", h.project)
	h.kill()
	h.start()
	if r := h.tender("history"); r.code == 0 {
		t.Errorf("released, and known again: %s", r.all())
	}
}

func TestADamagedStoreMustSayWhatToType(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", web(1, ""))
	h.must("up")
	h.kill()
	db := filepath.Join(h.dir, "data", "tender.db")
	if err := errors.Join(os.WriteFile(db, []byte(strings.Repeat("no store ", 4096)), 0o600), os.RemoveAll(db+"-wal"), os.RemoveAll(db+"-shm")); err != nil {
		t.Fatal(err)
	}
	r := run(exec.CommandContext(t.Context(), binary, "serve", "--data-dir", filepath.Join(h.dir, "data"), "--run-dir", filepath.Join(h.dir, "run"),
		"--vault-key", filepath.Join(h.dir, "vault.key"), "--listen", ""))
	if r.code == 0 || !strings.Contains(r.stderr, db+" is damaged") || !strings.Contains(r.stderr, "mv "+db) {
		t.Errorf("serve on a damaged store:\n%s", r.all())
	}
	was := h.running("web")
	if err := os.Rename(db, db+".damaged"); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.must("up")
	if now := h.running("web"); !slices.Equal(now, was) {
		t.Errorf("running %v, were %v", now, was)
	}
}

// disk puts a small disk of its own at dir until the test ends.
func (h *host) disk(dir string, megabytes int) {
	h.t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	if r := run(exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", megabytes), "tmpfs", dir)); r.err() != nil {
		h.t.Fatal(r.all())
	}
	h.t.Cleanup(func() {
		h.stop()
		if r := run(exec.Command("umount", dir)); r.err() != nil {
			h.t.Error(r.all())
		}
	})
}

// fill leaves no room on the disk of dir; free gives it back.
func (h *host) fill(dir string) (free func()) {
	h.t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			h.t.Fatal(err)
		}
	}
}

func TestAFullDiskMustStopNothingThatRuns(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"data", "run"} {
		t.Run(where, func(t *testing.T) {
			h := newHost(t)
			h.stop()
			if err := os.RemoveAll(filepath.Join(h.dir, where)); err != nil {
				t.Fatal(err)
			}
			h.disk(filepath.Join(h.dir, where), 24)
			h.start()
			h.file("password.txt", "pw")
			big := func(word string) { h.file("page.txt", word+strings.Repeat(" ", 1<<20)) }
			big("one")
			h.file("compose.yaml", strings.NewReplacer(
				"    configs:", "    secrets: [password]\n    configs:", `{content: "${PAGE:-one}"}`, "{file: ./page.txt}",
			).Replace(web(2, ""))+"secrets: {password: {file: ./password.txt}}\n")
			h.must("up")
			was := h.running("web")

			free := h.fill(filepath.Join(h.dir, where))
			h.file("password.txt", strings.Repeat("another ", 1000))
			var r result
			for n := 0; n < 5 && r.code == 0; n++ { // the store's reserve takes the first one
				big(fmt.Sprint("page ", n))
				r = h.tender("up")
			}
			t.Logf("up on a full disk:\n%s", r.all())
			if r.code == 0 || !strings.Contains(r.all(), "no space left") && !strings.Contains(r.all(), "full") {
				t.Errorf("up does not say that the disk is full:\n%s", r.all())
			}
			if len(h.running("web")) != 2 {
				t.Fatalf("running %v, were %v", h.running("web"), was)
			}
			// What runs is still repaired.
			victim := h.one("web")
			if r := docker("kill", victim); r.err() != nil {
				t.Fatal(r.all())
			}
			h.until("repaired on a full disk", func() error {
				if now := h.running("web"); len(now) != 2 {
					return fmt.Errorf("running %v", now)
				}
				return nil
			})
			free()
			big("room again")
			h.must("up", "--supersede")
			for _, c := range h.containers("web") {
				if body, err := page(c.ID); strings.TrimSpace(body) != "room again" {
					t.Errorf("%s serves %.20q, err %v", c.Name, body, err)
				}
			}
		})
	}
}

func TestARegistryThatFailsMustBeNamed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, c := range []struct {
		status int
		body   string
		want   string
	}{
		{http.StatusTooManyRequests, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`, "gives no more for now"},
		{http.StatusUnauthorized, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, "log in"},
		{http.StatusNotFound, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`, "name and tag"},
	} {
		registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
			w.Header().Set("Content-Type", "application/json")
			if r.URL.Path == "/v2/" && c.status == http.StatusNotFound {
				return
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}))
		name := registry.Listener.Addr().String()
		h.file("compose.yaml", "services: {x: {image: "+name+"/x:1}}\n")
		r := h.tender("up")
		t.Logf("%d: %s", c.status, r.stderr)
		if r.code == 0 || !strings.Contains(r.stderr, name) || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%d, want %q:\n%s", c.status, c.want, r.all())
		}
		registry.Close()
	}
}
