package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// needsCurrent keeps a build of four minutes out of make test.
func needsCurrent(t *testing.T) {
	t.Helper()
	if os.Getenv("TENDER_E2E") != "current" {
		t.Skip("needs the current engine, which takes minutes to build: make e2e-current")
	}
}

// shop is what people have: data in a named volume and in an anonymous one, a
// secret in a file, services that the engine restarts and one that waits its turn.
const shop = `
services:
  db:
    image: postgres:15
    restart: always
    environment: {POSTGRES_PASSWORD_FILE: /run/secrets/password}
    secrets: [password]
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -U, postgres, -h, 127.0.0.1], interval: 1s, timeout: 10s, retries: 60}
  notes:
    image: busybox
    restart: always
    command: [sh, -c, "trap exit TERM; while :; do sleep 1; done"]
    volumes: [/notes]
  web:
    image: busybox
    restart: unless-stopped
    command: [httpd, -f, -p, "8080"]
    stop_signal: SIGKILL
  worker:
    image: postgres:15
    restart: always
    entrypoint: [sh, -c, "pg_isready -h db || echo too early; trap exit TERM; while :; do sleep 1; done"]
    depends_on: {db: {condition: service_healthy}}
    x-tender: {boot: ordered}
secrets:
  password: {file: ./password.txt}
volumes: {data: {}}
`

// upgrade is one project through the years.
type upgrade struct {
	*host
	engine *own
}

func (u *upgrade) psql(sql string) string {
	u.t.Helper()
	var out string
	u.until("the database answers", func() error {
		ids := u.running("db")
		if len(ids) != 1 {
			return fmt.Errorf("%d of db run", len(ids))
		}
		r := docker("exec", "-e", "PGPASSWORD=pw", ids[0], "psql", "-h", "127.0.0.1", "-U", "postgres", "-Atc", sql)
		out = strings.TrimSpace(r.out)
		return r.err()
	})
	return out
}

// keeps checks that the data is what was written on the first day.
func (u *upgrade) keeps(when string) {
	u.t.Helper()
	if got := u.psql("select sum(n) from orders"); got != "42" {
		u.t.Errorf("%s: the rows come to %q", when, got)
	}
	notes := u.running("notes")
	if len(notes) != 1 {
		u.t.Fatalf("%s: %d of notes run", when, len(notes))
	}
	if got := docker("exec", notes[0], "cat", "/notes/first").out; got != "day\n" {
		u.t.Errorf("%s: the anonymous volume holds %q", when, got)
	}
}

// settled waits until all four run as they should, and returns the ids by service.
func (u *upgrade) settled(when string) map[string]string {
	u.t.Helper()
	ids := map[string]string{}
	u.until("everything runs "+when, func() error {
		for _, service := range []string{"db", "notes", "web", "worker"} {
			all := u.containers(service)
			if len(all) != 1 {
				return fmt.Errorf("%d containers of %s", len(all), service)
			}
			c := all[0]
			if !c.State.Running || c.State.Health != nil && c.State.Health.Status != "healthy" {
				return fmt.Errorf("%s is %s", c.Name, c.State.Status)
			}
			ids[service] = c.ID
		}
		if r := u.tender("plan"); r.code != 0 {
			return r.err()
		}
		return nil
	})
	return ids
}

// same checks that what was there before is still there: ids, or times of starts.
func (u *upgrade) same(when string, before, after map[string]string) {
	u.t.Helper()
	for service, was := range before {
		if after[service] != was {
			u.t.Errorf("%s: %s was %s and is %s", when, service, was, after[service])
		}
	}
}

// starts returns when each running container was started, by service.
func (u *upgrade) starts() map[string]string {
	u.t.Helper()
	at := map[string]string{}
	for _, c := range u.containers("") {
		if c.State.Running {
			at[c.Config.Labels["com.docker.compose.service"]] = c.State.StartedAt
		}
	}
	return at
}

// version is the engine's.
func (u *upgrade) version() string {
	return docker("version", "-f", "{{.Server.Version}}").out
}

// reboot is a power cut. Afterwards the run directory is empty and the engine,
// which knows nothing of Tender, comes first.
func (u *upgrade) reboot(between func()) {
	u.t.Helper()
	u.kill()
	u.engine.do("kill")
	run := filepath.Join(u.dir, "run")
	entries, err := os.ReadDir(run)
	if err != nil {
		u.t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(run, e.Name())); err != nil {
			u.t.Fatal(err)
		}
	}
	between()
	u.engine.do("start", "current")
}

// booted waits until these services and no others run: those that the engine starts by itself.
func (u *upgrade) booted(services ...string) {
	u.t.Helper()
	u.until(strings.Join(services, ", ")+" run by themselves", func() error {
		var up []string
		for _, s := range []string{"db", "notes", "web", "worker"} {
			if len(u.running(s)) > 0 {
				up = append(up, s)
			}
		}
		if !slices.Equal(up, services) {
			return fmt.Errorf("running: %v", up)
		}
		return nil
	})
}

func TestUpgradeDayMustLoseNothing(t *testing.T) {
	needsCurrent(t)
	engine := newEngine(t, "debian", "postgres:15", "busybox:latest")
	u := &upgrade{makeHost(t), engine}
	u.file("password.txt", "pw")
	u.file("compose.yaml", shop)
	old := u.released()

	// Docker Compose made it, and data is in it.
	if r := compose(u.host, "up", "-d", "--wait"); r.err() != nil {
		t.Fatal(r.all())
	}
	u.psql("create table orders (n int); insert into orders values (41), (1)")
	if r := docker("exec", u.one("notes"), "sh", "-c", "echo day > /notes/first"); r.err() != nil {
		t.Fatal(r.all())
	}
	// Tender is upgraded: this release finds the state that the last one left, and all that runs.
	old.upgraded()
	u.must("up")
	ids := u.settled("after the takeover")
	u.keeps("after the takeover")

	// Another serve on the same state: nothing moves.
	began := u.starts()
	u.stop()
	u.start()
	u.settled("after a restart of serve")
	u.same("after a restart of serve", began, u.starts())
	u.same("after a restart of serve", old.began, old.starts())

	// The engine is upgraded under a serve that goes on.
	debian := u.version()
	engine.do("stop")
	engine.do("start", "current")
	if now := u.version(); now == debian {
		t.Fatalf("the engine is still %s", now)
	}
	u.same("after the upgrade of the engine", ids, u.settled("after the upgrade of the engine"))
	u.keeps("after the upgrade of the engine")
	old.there("after the upgrade of the engine")

	// A power cut: the engine comes back first. What has a secret cannot start
	// before Tender delivers it, and what is ordered not before its database.
	u.reboot(func() {})
	u.booted("notes", "web")
	began = u.starts()
	u.start()
	u.same("after a reboot", ids, u.settled("after a reboot"))
	u.same("after a reboot", began, u.starts())
	u.keeps("after a reboot")
	if logs := docker("logs", ids["worker"]).all(); strings.Contains(logs, "too early") {
		t.Errorf("worker was started before its database:\n%s", logs)
	}

	// Another one, and Tender does not come back: all without a secret does.
	u.reboot(func() {})
	u.booted("notes", "web")

	// With secrets unsealed before the engine, those too; only what is to be
	// started in order waits for Tender.
	u.reboot(func() { u.mount() })
	u.booted("db", "notes", "web")
	u.keeps("with serve absent")
	u.start()
	u.same("in the end", ids, u.settled("in the end"))
	old.there("in the end")
}

// release is a project that an earlier release of Tender ran on the same host.
type release struct {
	*host
	u         *upgrade
	revisions string            // that it gave
	began     map[string]string // when its instances were started, by id
}

// released makes what the release before this one left behind: its state as it
// was written, and the instances that it wants, running.
func (u *upgrade) released() *release {
	u.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(stateDir, "state-*"))
	if err != nil || len(dirs) == 0 {
		u.t.Fatalf("no state of any release in %s: %v", stateDir, err)
	}
	last := dirs[len(dirs)-1]
	h := *u.host // for what is asked; serve is u's
	h.project = stateProject
	r := &release{host: &h, u: u, revisions: h.state(last, "released")}
	u.start()
	r.there("before the upgrade")
	r.began = r.starts()
	u.stop()
	// The store as it was written, and no trace of this release beside it.
	made, err := filepath.Glob(filepath.Join(u.dir, "data", "tender.db*"))
	for _, file := range made {
		err = errors.Join(err, os.Remove(file))
	}
	if err != nil {
		u.t.Fatal(err)
	}
	h.state(last, "released")
	return r
}

func (r *release) starts() map[string]string {
	r.t.Helper()
	at := map[string]string{}
	for _, c := range r.containers("") {
		at[c.ID] = c.State.StartedAt
	}
	return at
}

// there waits until nothing is to be done for it, and holds it against what the
// release wanted.
func (r *release) there(when string) {
	r.t.Helper()
	r.until("nothing is to be done "+when, func() error {
		return r.tender("plan", "-f", filepath.Join("released", "compose.yaml"), "-p", stateProject).err()
	})
	if got := r.wanted(); got != r.revisions {
		r.t.Errorf("%s: revisions\n%swere\n%s", when, got, r.revisions)
	}
	for _, c := range r.containers("") {
		if _, known := r.began[c.ID]; len(r.began) > 0 && !known {
			r.t.Errorf("%s: %s is another one", when, c.Name)
		}
	}
}

// upgraded starts this release on that state: an empty plan, and no restart.
func (r *release) upgraded() {
	r.t.Helper()
	r.u.start()
	r.there("after the upgrade of Tender")
	r.u.same("after the upgrade of Tender", r.began, r.starts())
}

// mount unseals secrets as a unit before the engine's does.
func (u *upgrade) mount() {
	u.t.Helper()
	u.must("secret", "mount", "--data-dir", filepath.Join(u.dir, "data"), "--run-dir", filepath.Join(u.dir, "run"),
		"--vault-key", filepath.Join(u.dir, "vault.key"))
}
