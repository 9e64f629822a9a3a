package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// habits is a project of what fingers meet: a server, a terminal, one that
// reads, one that takes signals, one that is deaf to them, one that has ended.
const habits = `
services:
  web:
    image: busybox
    command: [httpd, -f, -p, "8080", -h, /www]
    stop_signal: SIGKILL
    ports: ["127.0.0.1::8080"]
    volumes: ["data:/data", "./www:/www"]
    environment: {COLOUR: blue}
  term:
    image: busybox
    command: [sh, -c, "while read x; do stty size; done; exit 4"]
    tty: true
    stdin_open: true
    stop_signal: SIGKILL
    restart: "no"
  pipe:
    image: busybox
    command: [sh, -c, "read x; echo said $$x; read y; exit 7"]
    stdin_open: true
    stop_signal: SIGKILL
    restart: "no"
  sig:
    image: busybox
    command: [sh, -c, "trap 'echo got int; exit 6' INT; trap 'echo got usr1' USR1; echo ready; while :; do sleep 0.1; done"]
    stop_signal: SIGKILL
    restart: "no"
  deaf:
    image: busybox
    command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]
    stop_grace_period: 10m
  job:
    image: busybox
    command: [sh, -c, "echo worked; exit 3"]
    restart: "no"
    profiles: [tools]
volumes: {data: {}}
`

// habit is a command that is typed to both on the same project.
type habit struct {
	args []string
	// as says what must be the same: "" code and lines of output, in any order; "keys" of the JSON, too, how
	// many objects and whether they are one list; "code" alone; "nothing": they differ, and ours ends with code.
	as   string
	code int
	// lacks are keys of theirs that we have not; agree are those whose values are the same.
	lacks, agree []string
	// why is the reason for anything but the same.
	why string
}

const (
	typo   = "a name that the project does not have is a mistake, said with the nearest one; they print an empty list"
	layout = "the table shows the revision, which theirs does not know"
)

// list is what both are asked, reviewed where they differ.
var list = []habit{
	{args: []string{"config", "--services"}},
	{args: []string{"--profile", "tools", "config", "--services"}},
	{args: []string{"config", "--images"}},
	{args: []string{"config", "--images", "web"}},
	{args: []string{"config", "--volumes"}},
	{args: []string{"config", "--networks"}},
	{args: []string{"config", "--profiles"}},
	{args: []string{"config", "--hash", "*"}},
	{args: []string{"config", "--hash", "web,term"}},
	{args: []string{"config", "--hash", "nosuch"}, as: "code", why: "the words"},
	{args: []string{"config", "-q"}},
	{
		args: []string{"config", "--format", "json"}, as: "keys", agree: []string{"name"},
		why: "ours leaves out what is null or empty: entrypoint, ipam",
	},
	{args: []string{"config", "--format", "toml"}, as: "nothing", code: 2, why: "a command line that is not understood ends with 2; theirs with 1"},
	{args: []string{"port", "web", "8080"}},
	{args: []string{"port", "web", "9999"}, as: "code", why: "the words"},
	{args: []string{"port", "--protocol", "udp", "web", "8080"}, as: "code", why: "the words"},
	{args: []string{"port", "--index", "1", "web", "8080"}},
	{args: []string{"ps", "-q"}},
	{args: []string{"ps", "-a", "-q"}},
	{args: []string{"ps", "-q", "web"}},
	{args: []string{"ps", "--services"}},
	{args: []string{"ps", "--format", "{{.Name}}"}},
	{args: []string{"ps", "--format", "{{.Service}} {{.State}} {{.Health}}"}},
	{args: []string{"ps", "--format", "{{.Command}} {{.Image}} {{.Ports}}"}},
	{args: []string{"ps", "--no-trunc", "--format", "{{.ID}} {{.Command}}"}},
	{args: []string{"ps", "--format", "table {{.Name}}\t{{.Service}}"}},
	{args: []string{"ps", "-a", "--format", "{{.Name}} {{.ExitCode}}"}},
	{args: []string{"ps", "--status", "running", "-q"}},
	{args: []string{"ps", "--status", "exited", "-q"}},
	{args: []string{"ps", "--filter", "status=running", "--format", "{{.Name}}"}},
	{args: []string{"ps", "--filter", "status=paused", "-q"}},
	{args: []string{"ps", "--filter", "nosuch=x"}, as: "nothing", code: 2, why: "a command line that is not understood ends with 2; theirs with 1"},
	{args: []string{"ps", "--status", "nosuch", "-q"}, as: "nothing", code: 2, why: "a state that there is not is a mistake; theirs is an empty list"},
	{
		args: []string{"ps", "--format", "json"}, as: "keys", agree: []string{"Command", "CreatedAt", "ExitCode", "Health", "ID", "Image", "Name", "Names", "Networks", "Ports", "Project", "Publishers", "Service", "State"},
		lacks: []string{"Engine", "Labels", "LocalVolumes", "Mounts", "Size"},
		why:   "labels hold the whole service; docker inspect has them, and the rest",
	},
	{args: []string{"ps"}, as: "code", why: layout},
	{args: []string{"ps", "nosuch"}, as: "nothing", code: 1, why: typo},
	{args: []string{"ls", "-q", "--filter", "name=PROJECT"}},
	{args: []string{"ls", "-a", "-q", "--filter", "name=PROJECT"}},
	{
		args: []string{"ls", "--format", "json", "--filter", "name=PROJECT"}, as: "keys", agree: []string{"Name", "ConfigFiles"},
		why: "Status says how the project is, not how many containers run",
	},
	{args: []string{"ls", "--filter", "nosuch=x"}, as: "nothing", code: 2, why: "a command line that is not understood ends with 2; theirs with 1"},
	{args: []string{"images", "-q"}},
	{args: []string{"images", "-q", "web"}},
	{
		args: []string{"images", "--format", "json"}, as: "keys", agree: []string{"ID", "ContainerName", "Repository", "Tag", "Platform", "Size", "Created"},
		lacks: []string{"LastTagTime"}, why: "when a tag was set here says nothing of the image",
	},
	{args: []string{"images"}, as: "code", why: layout},
	{args: []string{"images", "nosuch"}, as: "nothing", code: 1, why: typo},
	{args: []string{"top", "nosuch"}, as: "nothing", code: 1, why: typo},
	{args: []string{"logs", "--no-log-prefix", "web"}},
	{args: []string{"logs", "sig"}},
	{args: []string{"logs", "-n", "1", "--no-log-prefix", "sig"}},
	{args: []string{"logs", "--tail", "0", "sig"}},
	{args: []string{"logs", "--no-color", "sig"}},
	{args: []string{"logs", "--index", "1", "sig"}},
	{args: []string{"logs", "--since", "1h", "sig"}},
	{args: []string{"logs", "--until", "1h", "sig"}},
	{args: []string{"logs", "--since", "2099-01-01T00:00:00Z", "sig"}},
	{args: []string{"logs", "nosuch"}, as: "nothing", code: 1, why: typo},
	{args: []string{"logs", "--tail", "x", "sig"}, as: "nothing", code: 2, why: "no number is a mistake; theirs prints all"},
	{args: []string{"exec", "-T", "web", "sh", "-c", "echo $COLOUR"}},
	{args: []string{"exec", "-T", "-e", "COLOUR=red", "-w", "/data", "web", "sh", "-c", "echo $COLOUR; pwd"}},
	{args: []string{"exec", "-T", "--index", "1", "web", "cat", "/www/index.html"}},
	{args: []string{"exec", "-T", "-u", "nobody", "--privileged", "web", "id", "-un"}},
	{args: []string{"exec", "-T", "web", "sh", "-c", "exit 7"}},
	{args: []string{"exec", "--no-tty", "web", "true"}},
	{args: []string{"exec", "-d", "web", "true"}},
	{args: []string{"exec", "-T", "nosuch", "true"}, as: "code", why: "the words"},
	{args: []string{"exec", "-T", "--index", "9", "web", "true"}, as: "code", why: "the words"},
	{args: []string{"run", "--rm", "-T", "--no-deps", "web", "echo", "once"}},
	{args: []string{"run", "--rm", "--no-tty", "--no-deps", "web", "echo", "once"}},
	{args: []string{"run", "--rm", "-T", "-e", "X=1", "--entrypoint", "sh", "web", "-c", "echo $X; exit 5"}},
	{args: []string{"run", "--rm", "-T", "-u", "nobody", "-w", "/tmp", "-l", "a=b", "web", "sh", "-c", "id -un; pwd"}},
	{args: []string{"run", "--rm", "-T", "nosuch"}, as: "code", why: "the words"},
	{args: []string{"run", "--rm", "-T", "job"}, as: "nothing", code: 1, why: "run is of a service that the daemon holds: tender --profile tools up comes first, or docker compose for a file that nobody keeps"},
	{args: []string{"version", "--short"}, as: "code", why: "our version"},
	{args: []string{"version", "--format", "json"}, as: "keys", why: "our version"},
	{args: []string{"cp", "web:/nosuch", "y"}, as: "code", why: "the words"},
	{args: []string{"cp", "nosuch:/x", "y"}, as: "code", why: "the words"},
	{args: []string{"wait", "nosuch"}, as: "code", why: "the words"},
	{args: []string{"attach", "nosuch"}, as: "code", why: "the words"},
	{args: []string{"restart", "nosuch"}, as: "code", why: "the words"},
	{args: []string{"stop", "nosuch"}, as: "nothing", code: 1, why: typo},
	{args: []string{"kill", "nosuch"}, as: "nothing", code: 1, why: typo},
}

// What fingers have learned from docker compose must come to the same with
// tender, on one and the same project.
func TestHabitsMustWork(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("compose.yaml", habits)
	h.file("www/index.html", "hello")
	h.must("up")
	h.until("sig has said that it is ready", func() error {
		if out := h.must("logs", "sig"); !strings.Contains(out, "ready") {
			return fmt.Errorf("%q", out)
		}
		return nil
	})
	// One that has ended, and one beside the slots.
	h.exits(3, "run", "-T", "--entrypoint", "sh", "web", "-c", "exit 3")

	try := func(x habit) {
		args := slices.Clone(x.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "PROJECT", h.project)
		}
		if err := x.held(h.tender(args...), compose(h, args...)); err != nil {
			t.Error(err)
		}
	}
	// Those that only look, side by side; then those that make something, which the others would see.
	makes := func(x habit) bool { return x.args[0] == "run" }
	var looks sync.WaitGroup
	places := make(chan struct{}, 6)
	for _, x := range list {
		if !makes(x) {
			places <- struct{}{}
			looks.Go(func() {
				defer func() { <-places }()
				try(x)
			})
		}
	}
	looks.Wait()
	for _, x := range list {
		if makes(x) {
			try(x)
		}
	}

	t.Run("top", func(t *testing.T) {
		// The columns are aligned otherwise, and the words are the same.
		words := func(r result) (lines []string) {
			for line := range strings.Lines(r.out) {
				lines = append(lines, strings.Join(strings.Fields(line), " "))
			}
			slices.Sort(lines)
			return lines
		}
		ours, theirs := h.tender("top", "web"), compose(h, "top", "web")
		if ours.code != theirs.code || !slices.Equal(words(ours), words(theirs)) {
			t.Errorf("not the same:\n%s\n%s", ours.all(), theirs.all())
		}
	})

	t.Run("cp", func(t *testing.T) {
		// Files in and out, as tar would: a file, a folder, a folder's content, a stream.
		h.file("in/a", "alpha")
		h.file("in/deep/c", "gamma")
		for tool, run := range map[string]func(...string) result{"tender": h.tender, "compose": func(a ...string) result { return compose(h, a...) }} {
			for _, args := range [][]string{
				{"cp", "in", "web:/data/" + tool},
				{"cp", "in/a", "web:/data/" + tool + "/b"},
				{"cp", "in/.", "web:/data/" + tool + "/deep"},
				{"cp", "--index", "1", "web:/data/" + tool + "/b", "out-" + tool},
				{"cp", "-a", "web:/data/" + tool, "dir-" + tool},
				{"cp", "web:/data/" + tool + "/deep/.", "content-" + tool},
			} {
				if r := run(args...); r.err() != nil {
					t.Fatal(r.all())
				}
			}
		}
		tree := func(tool string) map[string]string {
			files := map[string]string{}
			for _, top := range []string{"out-", "dir-", "content-"} {
				for path, content := range filesUnder(t, filepath.Join(h.dir, top+tool)) {
					files[strings.Replace(strings.TrimPrefix(path, h.dir), "-"+tool, "", 1)] = content
				}
			}
			return files
		}
		if ours, theirs := tree("tender"), tree("compose"); !maps.Equal(ours, theirs) || len(ours) < 6 {
			t.Errorf("not the same files:\n%q\n%q", ours, theirs)
		}
	})

	t.Run("pull and push in silence", func(t *testing.T) {
		// No registry has this: both say so, and neither shows progress.
		h.file("away.yaml", "services:\n  away:\n    image: 127.0.0.1:1/nowhere:1\n    build: {context: in}\n  far:\n    image: 127.0.0.1:1/nowhere:2\n")
		for _, args := range [][]string{{"-f", "away.yaml", "pull", "-q", "far"}, {"-f", "away.yaml", "push", "-q", "away"}} {
			ours, theirs := h.tender(args...), compose(h, args...)
			if ours.code != theirs.code || ours.out != theirs.out || ours.code == 0 {
				t.Errorf("not the same:\n%s\n%s", ours.all(), theirs.all())
			}
		}
	})
}

// held says how ours and theirs are not what x says of them.
func (x habit) held(ours, theirs result) error {
	sorted := func(r result) string {
		lines := strings.Split(strings.TrimSpace(r.out), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s:\n%s\n%s", fmt.Sprintf(format, args...), ours.all(), theirs.all())
	}
	if x.as != "" && x.why == "" {
		return fail("it differs for no reason")
	}
	if x.as == "nothing" {
		if ours.code != x.code || theirs.code == x.code {
			return fail("ours ends with %d, and theirs does not, because %s", x.code, x.why)
		}
		return nil
	}
	if ours.code != theirs.code {
		return fail("not the same code")
	}
	switch x.as {
	case "":
		if sorted(ours) != sorted(theirs) {
			return fail("not the same")
		}
	case "code":
		if ours.code == 0 && sorted(ours) == sorted(theirs) {
			return fail("they do not differ any more, and are said to, because %s", x.why)
		}
	case "keys":
		a, alist, err := objects(ours.out)
		if err != nil {
			return fail("ours: %v", err)
		}
		b, blist, err := objects(theirs.out)
		if err != nil {
			return fail("theirs: %v", err)
		}
		if len(a) != len(b) || alist != blist {
			return fail("%d objects and %d, lists: %v and %v", len(a), len(b), alist, blist)
		}
		for i := range b {
			for k := range b[i] {
				if _, ok := a[i][k]; ok == slices.Contains(x.lacks, k) {
					return fail("key %s: ours has it: %v", k, ok)
				}
			}
			for _, k := range x.agree {
				var x, y any
				if err := errors.Join(json.Unmarshal(a[i][k], &x), json.Unmarshal(b[i][k], &y)); err != nil || !reflect.DeepEqual(x, y) {
					return fail("%s: %s and %s (%v)", k, a[i][k], b[i][k], err)
				}
			}
		}
	}
	return nil
}

// objects reads JSON objects, one after the other or as a list, sorted by what tells them apart.
func objects(text string) (all []map[string]json.RawMessage, isList bool, err error) {
	text = strings.TrimSpace(text)
	d := json.NewDecoder(strings.NewReader(text))
	if isList = strings.HasPrefix(text, "["); isList {
		err = d.Decode(&all)
	} else {
		for d.More() && err == nil {
			var one map[string]json.RawMessage
			if err = d.Decode(&one); err == nil {
				all = append(all, one)
			}
		}
	}
	name := func(o map[string]json.RawMessage) string { return string(o["Name"]) + string(o["ContainerName"]) }
	slices.SortFunc(all, func(x, y map[string]json.RawMessage) int { return strings.Compare(name(x), name(y)) })
	return all, isList, err
}
