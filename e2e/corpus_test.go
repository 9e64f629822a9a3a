package e2e

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
)

// entry is one file of corpus/: NAME.yaml, or a folder NAME with compose.yaml
// and what belongs to it (and args, the flags that choose files and profiles).
type entry struct {
	t       *testing.T
	h       *host
	c       *client.Client
	dir     string
	project string
	shared  string // what the external network and volume are called, but for the end
	args    []string
}

// corpus returns the names of the files.
func corpus(t *testing.T) []string {
	t.Helper()
	list, err := os.ReadDir("corpus")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range list {
		names = append(names, strings.TrimSuffix(f.Name(), ".yaml"))
	}
	return names
}

// open copies the files to where they may be run.
func open(t *testing.T, h *host, name, project string) *entry {
	t.Helper()
	c, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	dir := filepath.Join(h.dir, "corpus", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(root, "e2e", "corpus", name)
	if b, err := os.ReadFile(from + ".yaml"); err == nil {
		if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), b, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	args, _ := os.ReadFile(filepath.Join(dir, "args"))
	e := &entry{t: t, h: h, c: c, dir: dir, project: project, args: strings.Fields(string(args))}
	t.Cleanup(func() {
		wipe(t, project)
		wipe(t, e.theirs())
		if strings.HasPrefix(name, "build") {
			docker("rmi", project+"-app", e.theirs()+"-app")
		}
	})
	return e
}

// theirs is the project under which Docker Compose makes the entry.
func (e *entry) theirs() string { return e.project + "-yardstick" }

// tender runs a command with the entry's flags and more.
func (e *entry) tender(command string, more ...string) result {
	return e.run(e.h.command(slices.Concat([]string{command}, e.args, more)...), e.project)
}

// compose runs one of Docker Compose, which wants the flags first.
func (e *entry) compose(command string, more ...string) result {
	return e.run(exec.CommandContext(e.t.Context(), yardstick(e.t), slices.Concat(e.args, []string{command}, more)...), e.theirs())
}

func (e *entry) run(cmd *exec.Cmd, project string) result {
	cmd.Dir = e.dir
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "COMPOSE_PROJECT_NAME="+project, "CORPUS_NAME=corpus-"+strings.TrimPrefix(e.project, "te-"), "CORPUS_NETWORK="+e.shared+"-net",
		"CORPUS_VOLUME="+e.shared+"-vol", "CORPUS_TOKEN=a token")
	return run(cmd)
}

func (e *entry) picture(project string) picture {
	return takePicture(e.t.Context(), e.t, e.c, project, filepath.Join(e.h.dir, "run"), filepath.Join(e.h.dir, "data"))
}

// Every file of the corpus must make the containers, networks and volumes that
// Docker Compose v5 makes of it, field by field as the engine tells them; where
// it does not, lists.go says why. Alone, because its files are many at once: they
// take all that the machine has.
func TestTheCorpusMustBeWhatDockerComposeMakes(t *testing.T) {
	h := newHost(t)
	names := corpus(t)
	for name := range verdicts {
		if !slices.Contains(names, name) {
			t.Errorf("%s is in the lists and not in corpus/", name)
		}
	}
	yardstick(t)
	c, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	version, err := c.ServerVersion(t.Context(), client.ServerVersionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	label := "com.docker.compose.project=" + h.project // h removes them in the end
	for _, args := range [][]string{
		{"network", "create", "--label", label, h.project + "-net"},
		{"volume", "create", "--label", label, h.project + "-vol"},
	} {
		if r := docker(args...); r.err() != nil {
			t.Fatal(r.all())
		}
	}
	cmd := h.command("secret", "set", "corpus_external")
	cmd.Stdin = strings.NewReader("kept in the vault")
	if r := run(cmd); r.err() != nil {
		t.Fatal(r.all())
	}
	dry := newHost(t, "--engine", "unix://"+withoutStarts(t))
	workers := make(chan struct{}, 8)
	t.Run("files", func(t *testing.T) {
		for i, name := range names {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				workers <- struct{}{}
				defer func() { <-workers }()
				v, ok := verdicts[name]
				if !ok {
					t.Fatal("in none of the lists")
				}
				if v.api != "" && versions.GreaterThanOrEqualTo(version.APIVersion, v.api) {
					v.kind, v.both, v.says = cmp.Or(v.then, compared), false, nil
				}
				if v.warns != "" && versions.GreaterThanOrEqualTo(version.APIVersion, v.warns) {
					v.says = nil
				}
				on := h
				if v.unstarted && v.kind == compared {
					on = dry
				}
				e := open(t, on.as(t), name, fmt.Sprintf("%s-%d", h.project, i))
				e.shared = h.project
				e.hold(v)
			})
		}
	})
}

// hold holds what Tender makes of an entry against what Docker Compose does.
func (e *entry) hold(v verdict) {
	t := e.t
	t.Helper()
	var made result
	var theirs picture
	if v.kind != refused || v.both {
		made = e.compose("create")
		theirs = e.picture(e.theirs())
		wipe(t, e.theirs())
	}
	incapable := v.may != "" && strings.Contains(made.all(), v.may)
	switch {
	case incapable:
	case v.kind == compared && made.err() != nil:
		t.Error(made.all())
	case v.kind == compared && len(theirs) == 0 && !v.nothing:
		t.Error("docker compose made nothing")
	case v.kind == oursOnly && made.code == 0:
		t.Errorf("docker compose can do it: %s", made.all())
	case v.both && made.code == 0:
		t.Errorf("docker compose accepts it: %s", made.all())
	}

	var up result
	var mine picture
	if v.unstarted && v.kind == compared {
		up = e.tender("up", "-d", "--progress", "quiet")
		e.h.until("there is a container", func() error {
			mine = e.picture(e.project)
			for path := range mine {
				if strings.Contains(path, " HostConfig.") {
					return nil
				}
			}
			return fmt.Errorf("only %v", mine.lines(nil))
		})
	} else {
		up = e.tender("up", "--progress", "plain")
		mine = e.picture(e.project)
	}
	if incapable {
		v.kind, v.says = refused, []string{v.may}
	}
	for _, words := range v.says {
		if !strings.Contains(up.stderr, words) {
			t.Errorf("tender does not say %q: %s", words, up.all())
		}
	}
	if v.kind == refused {
		if up.code == 0 || len(v.says) == 0 {
			t.Errorf("want it refused, with the words that say why: %s", up.all())
		}
		maps.DeleteFunc(mine, func(path, _ string) bool { return strings.HasPrefix(path, "network ") })
		if len(mine) > 0 {
			t.Errorf("left behind: %v", mine.lines(nil))
		}
		return
	}
	if up.code != 0 {
		t.Error(up.all())
	}
	for _, o := range observed[filepath.Base(e.dir)] {
		e.observe(o)
	}
	if r := e.tender("down", "-v", "-t", "0", "--supersede", "--progress", "quiet"); r.err() != nil {
		t.Error(r.all())
	}
	if left := e.picture(e.project); len(left) > 0 {
		t.Errorf("left behind by down -v: %v", left.lines(nil))
	}
	if v.kind == oursOnly {
		if len(mine) == 0 {
			t.Error("nothing was made")
		}
		return
	}
	// Files of secrets and configs are mounts of Tender's; of Docker Compose's only where they are files of the user.
	for path, m := range mine {
		if m != `"a file of a secret or config"` {
			continue
		}
		delete(mine, path)
		other := strings.Replace(path, " Mounts.", " HostConfig.MountOptions.", 1)
		maps.DeleteFunc(theirs, func(p, _ string) bool { return strings.HasPrefix(p, path+".") || strings.HasPrefix(p, other+".") })
	}
	if d := diff(theirs.lines(v.but), mine.lines(v.but)); d != "" {
		t.Errorf("docker compose -, tender +\n%s", d)
	}
	for _, d := range v.but {
		rest := slices.DeleteFunc(slices.Clone(v.but), func(o difference) bool { return o == d })
		if diff(theirs.lines(rest), mine.lines(rest)) == "" {
			t.Errorf("%q is no difference any more", d.path)
		}
	}
}

// observe looks into a running instance.
func (e *entry) observe(o observation) {
	e.t.Helper()
	id := e.h.first(e.project, cmp.Or(o.service, "app")).ID
	var r result
	if o.afterStop != "" {
		if r = e.tender("stop", "-t", "0", "--progress", "quiet"); r.err() != nil {
			e.t.Error(r.all())
		}
		r = docker("cp", id+":"+o.afterStop, "-")
	} else {
		r = docker("exec", id, "sh", "-c", o.command)
	}
	if r.err() != nil || !strings.Contains(r.out, o.want) {
		e.t.Errorf("want %q of %s", o.want, r.all())
	}
}

// withoutStarts is the socket of an engine that takes a start for done: what a
// machine cannot start can still be looked at as it is created.
func withoutStarts(t *testing.T) string {
	t.Helper()
	engine := strings.TrimPrefix(cmp.Or(os.Getenv("DOCKER_HOST"), client.DefaultDockerHost), "unix://")
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine" },
		FlushInterval: -1,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", engine)
		}},
	}
	dir, err := os.MkdirTemp("", "te-") // a short name, as sockets need it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "engine.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/start") {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return socket
}

// wipe removes what belongs to a project.
func wipe(t *testing.T, project string) {
	c, err := client.New(client.FromEnv)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	ctx := context.WithoutCancel(t.Context())
	of := make(client.Filters).Add("label", "com.docker.compose.project="+project)
	for _, all := range []client.Filters{of, make(client.Filters).Add("label", "tender.keep="+project)} {
		l, err := c.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: all})
		if err != nil {
			continue
		}
		for _, i := range l.Items {
			_, err := c.ContainerRemove(ctx, i.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			if err != nil {
				t.Logf("clean up: %v", err)
			}
		}
	}
	if l, err := c.NetworkList(ctx, client.NetworkListOptions{Filters: of}); err == nil {
		for _, i := range l.Items {
			if _, err := c.NetworkRemove(ctx, i.ID, client.NetworkRemoveOptions{}); err != nil {
				t.Logf("clean up: %v", err)
			}
		}
	}
	if l, err := c.VolumeList(ctx, client.VolumeListOptions{Filters: of}); err == nil {
		for _, i := range l.Items {
			if _, err := c.VolumeRemove(ctx, i.Name, client.VolumeRemoveOptions{Force: true}); err != nil {
				t.Logf("clean up: %v", err)
			}
		}
	}
}

// diff returns the lines that only one of both has.
func diff(theirs, mine []string) string {
	var b strings.Builder
	for _, l := range theirs {
		if !slices.Contains(mine, l) {
			fmt.Fprintf(&b, "-\t%s\n", l)
		}
	}
	for _, l := range mine {
		if !slices.Contains(theirs, l) {
			fmt.Fprintf(&b, "+\t%s\n", l)
		}
	}
	return b.String()
}
