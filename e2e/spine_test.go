package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// web is a service that answers with the text of its config, and is healthy
// once it listens.
func web(replicas int, more string) string {
	return fmt.Sprintf(`
services:
  web:
    image: busybox
    command: [httpd, -f, -p, "8080", -h, /www]
    stop_signal: SIGKILL
    configs: [{source: page, target: /www/index.html}]
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 1s, timeout: 5s, retries: 5}
    deploy: {replicas: %d}
%s
configs:
  page: {content: "${PAGE:-one}"}
`, replicas, more)
}

// page asks one container for its page, from inside.
func page(id string) (string, error) {
	r := docker("exec", id, "wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
	return r.out, r.err()
}

func TestUpMustRunWhatTheFileSays(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	port := freePort(t)
	h.file("compose.yaml", fmt.Sprintf(`
services:
  web:
    image: busybox
    command: [httpd, -f, -p, "8080", -h, /www]
    stop_signal: SIGKILL
    ports: ["127.0.0.1:%d:8080"]
    environment: {COLOUR: blue}
    configs: [{source: page, target: /www/index.html}]
    volumes: ["data:/data"]
    depends_on: {migrate: {condition: service_completed_successfully}}
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 1s, retries: 30}
  migrate:
    image: busybox
    command: [sh, -c, "echo migrated > /data/state"]
    volumes: ["data:/data"]
configs:
  page: {content: hello}
volumes: {data: {}}
`, port))

	// Plan writes nothing and says that there is something to do.
	r := h.exits(3, "plan")
	if len(h.containers("")) != 0 || !strings.Contains(r.out, "web") {
		t.Fatalf("plan: %s, containers %v", r.all(), h.containers(""))
	}
	h.must("up")
	if body, err := get(fmt.Sprintf("http://127.0.0.1:%d/", port)); err != nil || body != "hello" {
		t.Errorf("body %q, err %v", body, err)
	}
	c := h.first(h.project, "web")
	if state := docker("exec", c.ID, "cat", "/data/state").out; state != "migrated\n" {
		t.Errorf("web began before its migration ended: %q", state)
	}
	if c.Name != "/"+h.project+"-web-1" || !slices.Contains(c.Config.Env, "COLOUR=blue") {
		t.Errorf("name %s, env %v", c.Name, c.Config.Env)
	}

	// The same file again changes nothing.
	h.exits(0, "plan")
	h.must("up")
	if again := h.first(h.project, "web"); again.ID != c.ID {
		t.Errorf("up of the same file replaced %s with %s", c.ID, again.ID)
	}
	if out := h.must("ps"); !strings.Contains(out, h.project+"-web-1") || !strings.Contains(out, "healthy") {
		t.Errorf("ps:\n%s", out)
	}

	// Down keeps the volume, down -v does not.
	h.must("down")
	volumes := func() string {
		return docker("volume", "ls", "-q", "--filter", "label=com.docker.compose.project="+h.project).out
	}
	if len(h.containers("")) != 0 || volumes() == "" {
		t.Errorf("after down: containers %v, volumes %q", h.containers(""), volumes())
	}
	h.must("up")
	if out := h.exits(0, "down", "-v").all(); volumes() != "" || !strings.Contains(out, h.project+"_data") {
		t.Errorf("after down -v: volumes %q, and it said:\n%s", volumes(), out)
	}
}

func TestARolloutMustKeepServing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", web(3, ""))
	h.must("up")
	first := h.running("web")

	h.setenv("PAGE", "two")
	cmd := h.command("up")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	// All along, at least three are healthy: newcomers come first.
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("up: %v", err)
			}
			running = false
		default:
			if n := len(h.healthy()); n < 3 {
				t.Errorf("only %d healthy instances during the rollout", n)
				running = false
				<-done
			}
		}
	}
	var names []string
	for _, c := range h.containers("web") {
		names = append(names, c.Name)
		if slices.Contains(first, c.ID) {
			t.Errorf("%s is still of the first revision", c.Name)
		}
		if body, err := page(c.ID); body != "two" {
			t.Errorf("%s serves %q, err %v", c.Name, body, err)
		}
	}
	slices.Sort(names)
	if want := []string{"/" + h.project + "-web-1", "/" + h.project + "-web-2", "/" + h.project + "-web-3"}; !slices.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}

	// Back again, with the old content.
	h.must("rollback", "web")
	for _, c := range h.containers("web") {
		if body, err := page(c.ID); body != "one" {
			t.Errorf("after rollback %s serves %q, err %v", c.Name, body, err)
		}
	}
	if out := h.must("history"); strings.Count(out, "web") < 3 {
		t.Errorf("history:\n%s", out)
	}
	h.must("scale", "web=1")
	if n := len(h.running("web")); n != 1 {
		t.Errorf("after scale web=1: %d running", n)
	}
}

func TestABadRevisionMustGoBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", web(2, ""))
	h.must("up")
	first := h.running("web")

	bad := strings.Replace(web(2, ""), `"http://127.0.0.1:8080/"]`, `"http://127.0.0.1:8080/nowhere"]`, 1)
	h.file("compose.yaml", strings.Replace(bad, "retries: 5", "retries: 2", 1))
	r := h.exits(5, "up")
	if !strings.Contains(r.all(), "rolled back") {
		t.Errorf("up does not say that it went back:\n%s", r.all())
	}
	h.until("only the first two run", func() error {
		if got := h.running("web"); len(got) != 2 || len(h.containers("web")) != 2 || !slices.Contains(got, first[0]) {
			return fmt.Errorf("running %v, were %v", got, first)
		}
		return nil
	})
	if out := h.must("history"); !strings.Contains(out, "rolled back") {
		t.Errorf("history:\n%s", out)
	}
}

func TestWhatIsBrokenMustBeRepaired(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", web(2, ""))
	h.must("up")
	for _, how := range [][]string{{"kill"}, {"rm", "-f"}, {"stop"}} {
		victim := h.one("web")
		started := docker("inspect", "-f", "{{.State.StartedAt}}", victim).out
		if r := docker(append(how, victim)...); r.err() != nil {
			t.Fatal(r.all())
		}
		// What begins anew is another container, or another start of this one.
		h.until("repaired after docker "+how[0], func() error {
			if healthy := h.healthy(); len(healthy) != 2 {
				return fmt.Errorf("healthy: %v", healthy)
			}
			if now := docker("inspect", "-f", "{{.State.StartedAt}}", victim); now.code == 0 && now.out == started {
				return fmt.Errorf("%s has not begun anew", victim)
			}
			return nil
		})
	}
	h.must("stop", "web")
	if n := len(h.running("web")); n != 0 {
		t.Errorf("%d run after tender stop", n)
	}
	h.must("start", "web")
	if n := len(h.running("web")); n != 2 {
		t.Errorf("%d run after tender start", n)
	}
}

func TestASecretMustBeNowhereButInItsFile(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const file, vault = "s3cret-from-a-file-5b1e", "s3cret-from-the-vault-77ac"
	set := h.command("secret", "set", h.project+"-key")
	set.Stdin = strings.NewReader(vault)
	if r := run(set); r.err() != nil {
		t.Fatal(r.all())
	}
	t.Cleanup(func() {
		if h.serve != nil {
			h.tender("secret", "rm", h.project+"-key")
		}
	})
	h.file("password.txt", file)
	h.file("compose.yaml", `
services:
  app:
    image: busybox
    command: [sh, -c, "trap exit TERM; while :; do sleep 1; done"]
    user: "1001:1001"
    secrets:
      - password
      - {source: key, target: /etc/key, uid: "1001", gid: "1001", mode: 0400}
secrets:
  password: {file: ./password.txt}
  key: {external: true, name: `+h.project+`-key}
`)
	plan := h.exits(3, "plan")
	up := h.exits(0, "up")
	id := h.one("app")
	if got := docker("exec", id, "cat", "/run/secrets/password", "/etc/key").out; got != file+vault {
		t.Fatalf("the service reads %q", got)
	}
	if got := docker("exec", id, "stat", "-c", "%u %g %a", "/etc/key").out; got != "1001 1001 400\n" {
		t.Errorf("owner and mode: %q", got)
	}
	os.Remove(filepath.Join(h.dir, "password.txt"))

	places := map[string]string{
		"plan": plan.all(), "up": up.all(), "inspect": docker("inspect", id).out, "serve's log": h.serveLog(),
		"config": h.tender("config").all(), "ps": h.must("ps", "--json"), "history": h.must("history", "--json"),
		"secret ls": h.must("secret", "ls", "--json"), "status": h.must("status", "--json"), "audit": h.must("audit", "--json"),
	}
	args, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, a := range args {
		b, _ := os.ReadFile(a)
		if strings.Contains(string(b), "te-") { // ours
			places[a] = string(b)
		}
	}
	for path, text := range filesUnder(t, h.dir) {
		if !strings.HasPrefix(path, filepath.Join(h.dir, "run", "secrets")) {
			places[path] = text
		}
	}
	for place, text := range places {
		for _, value := range []string{file, vault} {
			if strings.Contains(text, value) {
				t.Errorf("%s holds the secret %q", place, value)
			}
		}
	}

	// A new version is a new revision; rolling back brings the old value.
	set = h.command("secret", "set", h.project+"-key")
	set.Stdin = strings.NewReader("second")
	if r := run(set); r.err() != nil {
		t.Fatal(r.all())
	}
	h.file("password.txt", file)
	h.must("up")
	if got := docker("exec", h.one("app"), "cat", "/etc/key").out; got != "second" {
		t.Errorf("after a new version the service reads %q", got)
	}
	h.must("rollback", "app")
	if got := docker("exec", h.one("app"), "cat", "/etc/key").out; got != vault {
		t.Errorf("after the rollback the service reads %q", got)
	}
}

func TestTwoUpsAtOnceMustNotMix(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", web(2, ""))
	h.must("up")
	// A rollout that takes a while: its newcomers must stay healthy for long.
	h.file("compose.yaml", strings.Replace(web(2, "    x-tender: {rollout: {hold: 10m}}"), "-one", "-two", 1))
	h.must("up", "-d")
	h.file("compose.yaml", strings.Replace(web(2, ""), "-one", "-three", 1))
	r := h.exits(1, "up")
	if !strings.Contains(r.all(), "--supersede") {
		t.Errorf("the second up does not say how to take over:\n%s", r.all())
	}
	h.must("up", "--supersede")
	for _, c := range h.containers("web") {
		if body, err := page(c.ID); body != "three" {
			t.Errorf("%s serves %q, err %v", c.Name, body, err)
		}
	}
}

// Killed at any moment of a rollout, serve goes on where it was: nothing
// doubled, orphaned or lost. Three hosts have a third of the rounds each.
func TestKillNineMustConverge(t *testing.T) {
	t.Parallel()
	rounds := 15
	if n, err := strconv.Atoi(os.Getenv("TENDER_SOAK")); err == nil {
		rounds = n
	}
	const hosts = 3
	for n := range hosts {
		t.Run(fmt.Sprint("host ", n+1), func(t *testing.T) {
			t.Parallel()
			killNine(t, (rounds+n)/hosts)
		})
	}
}

func killNine(t *testing.T, rounds int) {
	h := newHost(t)
	h.file("compose.yaml", web(3, ""))
	h.must("up")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 15))
	for n := range rounds {
		want := fmt.Sprintf("page %d", n)
		up := func(args ...string) {
			t.Helper()
			cmd := h.command(append([]string{"up"}, args...)...)
			cmd.Env = append(cmd.Env, "PAGE="+want)
			if r := run(cmd); r.err() != nil {
				t.Fatal(r.all())
			}
		}
		up("-d")
		moment := time.NewTimer(time.Duration(moments.IntN(4000)) * time.Millisecond)
		<-moment.C
		h.kill()
		h.start()
		h.until(want+" everywhere", func() error {
			all := h.containers("web")
			var names []string
			for _, c := range all {
				body, err := page(c.ID)
				if err != nil {
					return fmt.Errorf("%s: %w", c.Name, err)
				}
				if body != want {
					return fmt.Errorf("%s serves %q", c.Name, body)
				}
				if c.State.Health == nil || c.State.Health.Status != "healthy" {
					return fmt.Errorf("%s is not healthy", c.Name)
				}
				names = append(names, strings.TrimPrefix(c.Name, "/"+h.project))
			}
			slices.Sort(names)
			if !slices.Equal(names, []string{"-web-1", "-web-2", "-web-3"}) {
				return fmt.Errorf("instances %v", names)
			}
			return nil
		})
		up() // changes nothing and waits for the end of the rollout, which is written last
	}
	h.exits(0, "up") // converged: PAGE is not set, so this goes back to the first page
}

func TestAServiceThatEndsMustBeToldWell(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", `
services:
  bad:
    image: busybox
    command: [sh, -c, "echo no database here; exit 7"]
    restart: "no"
  lost:
    image: busybox
    command: [sleep, "1000"]
    depends_on: {bad: {condition: service_completed_successfully}}
`)
	r := h.exits(5, "up")
	if !strings.Contains(r.all(), "bad") || !strings.Contains(r.all(), "7") {
		t.Errorf("up:\n%s", r.all())
	}
	why := h.must("why", "bad")
	if !strings.Contains(why, "7") || !strings.Contains(why, "no database here") {
		t.Errorf("why bad:\n%s", why)
	}
	if why := h.must("why", "lost"); !strings.Contains(why, "bad") {
		t.Errorf("why lost:\n%s", why)
	}
	h.file("compose.yaml", "services: {x: {image: "+h.project+"/nowhere:1, pull_policy: never}}\n")
	r = h.exits(1, "up")
	if !strings.Contains(r.stderr, h.project+"/nowhere:1") {
		t.Errorf("up of a missing image:\n%s", r.all())
	}
}

// yardstick is the path of Docker Compose v5, built once.
func yardstick(t *testing.T) string {
	t.Helper()
	tool, err := buildYardstick()
	if err != nil {
		t.Fatal(err)
	}
	return tool
}

var buildYardstick = sync.OnceValues(func() (string, error) {
	tool := run(exec.Command("bash", filepath.Join(root, "bench", "compose.sh")))
	return strings.TrimSpace(tool.out), tool.err()
})

// compose is Docker Compose v5, the yardstick and the neighbour.
func compose(h *host, args ...string) result {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), yardstick(h.t), args...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), "COMPOSE_PROJECT_NAME="+h.project)
	return run(cmd)
}

func TestWhatDockerComposeRunsMustBeTakenOver(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("password.txt", "pw")
	h.file("compose.yaml", `
services:
  db:
    image: postgres:15
    environment: {POSTGRES_PASSWORD: pw}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -U, postgres, -h, 127.0.0.1], interval: 1s, retries: 60}
  cache:
    image: redis:alpine
  web:
    image: busybox
    command: [httpd, -f, -p, "8080"]
    stop_signal: SIGKILL
    depends_on: {db: {condition: service_healthy}}
volumes: {data: {}}
`)
	if r := compose(h, "up", "-d", "--wait"); r.err() != nil {
		t.Fatal(r.all())
	}
	psql := func(sql string) string {
		t.Helper()
		r := docker("exec", "-e", "PGPASSWORD=pw", h.one("db"), "psql", "-h", "127.0.0.1", "-U", "postgres", "-Atc", sql)
		if r.err() != nil {
			t.Fatal(r.all())
		}
		return strings.TrimSpace(r.out)
	}
	psql("create table orders (n int); insert into orders values (41), (1)")
	cache, db := h.one("cache"), h.one("db")

	plan := h.exits(3, "plan").out
	for _, service := range []string{"db", "cache", "web"} {
		if !strings.Contains(plan, service) {
			t.Errorf("plan does not say what happens to %s:\n%s", service, plan)
		}
	}
	h.must("up")
	if got := psql("select sum(n) from orders"); got != "42" {
		t.Errorf("rows after the takeover: %s", got)
	}
	// What is the same is kept, not restarted.
	if got := h.running("cache"); len(got) != 1 || got[0] != cache {
		t.Errorf("cache was %s and is %v", cache, got)
	}
	if got := h.running("db"); len(got) != 1 || got[0] != db {
		t.Errorf("db was %s and is %v", db, got)
	}
	if vols := strings.Fields(docker("volume", "ls", "-q", "--filter", "label=com.docker.compose.project="+h.project).out); len(vols) != 1 {
		t.Errorf("volumes %v", vols)
	}
	// A change makes it ours, with the same volume and name.
	changed, err := os.ReadFile(filepath.Join(h.dir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.file("compose.yaml", strings.Replace(string(changed), "{POSTGRES_PASSWORD: pw}", "{POSTGRES_PASSWORD: pw, TZ: UTC}", 1))
	h.must("up")
	if got := psql("select sum(n) from orders"); got != "42" {
		t.Errorf("rows after a change: %s", got)
	}
	if c := h.containers("db"); len(c) != 1 || c[0].Name != "/"+h.project+"-db-1" {
		t.Errorf("db containers %v", c)
	}

	h.must("release", h.project)
	if r := compose(h, "up", "-d", "--wait"); r.err() != nil {
		t.Fatal(r.all())
	}
	if got := psql("select sum(n) from orders"); got != "42" {
		t.Errorf("rows after the release: %s", got)
	}
	if r := compose(h, "down", "-v"); r.err() != nil || len(h.containers("")) != 0 {
		t.Errorf("docker compose down: %s, left %v", r.all(), h.containers(""))
	}
}

func TestAnonymousVolumesMustBeCarriedOver(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	file := `
services:
  app:
    image: busybox
    command: [sh, -c, "trap exit TERM; while :; do sleep 1; done"]
    volumes: [/data]
    environment: {N: "%d"}
`
	h.file("compose.yaml", fmt.Sprintf(file, 1))
	h.must("up")
	if r := docker("exec", h.one("app"), "sh", "-c", "echo kept > /data/f"); r.err() != nil {
		t.Fatal(r.all())
	}
	h.file("compose.yaml", fmt.Sprintf(file, 2))
	h.must("up")
	if got := docker("exec", h.one("app"), "cat", "/data/f").out; got != "kept\n" {
		t.Errorf("the anonymous volume holds %q", got)
	}
}
