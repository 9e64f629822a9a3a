package collect

import (
	"encoding/hex"
	"encoding/json"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// spoolOf is the folder of a container's links: inside the engine's data root, since
// a link cannot leave its file system.
func (c *Collector) spoolOf(containers, id string) spool {
	h := fnv.New64a()
	h.Write([]byte(c.o.Home))
	return spool{filepath.Join(filepath.Dir(containers), "tender-logs", hex.EncodeToString(h.Sum(nil)), id)}
}

// Spools are the folders that a collector with these Options.Dir and Home keeps
// links in, beside those in its own data.
func Spools(dir, home string) (out []string) {
	c := &Collector{o: Options{Dir: dir, Home: home}}
	for _, root := range c.readRoots() {
		if s := filepath.Dir(c.spoolOf(root, "x").dir); dirThere(s) {
			out = append(out, s)
		}
	}
	return out
}

// watchRoot watches the folder of all containers: one that lives shorter than a
// picture takes is followed all the same.
func (c *Collector) watchRoot(root string) {
	c.mu.Lock()
	known := c.roots[root]
	c.roots[root] = true
	list := slices.Sorted(maps.Keys(c.roots))
	c.mu.Unlock()
	if known {
		return
	}
	path := filepath.Join(c.o.Dir, rootsFile)
	if err := os.WriteFile(path, []byte(strings.Join(list, "\n")+"\n"), 0o600); err != nil {
		c.spoolTrouble(err)
	}
	if c.watcher == nil || !dirThere(root) {
		return
	}
	err := c.watcher.add(root, watchFolder, func(e event) {
		if len(e.name) == 64 {
			c.newcomer(root, e.name)
		}
	})
	if err != nil {
		c.unwatchable(err)
	}
}

const rootsFile = "roots"

func (c *Collector) readRoots() []string {
	raw, err := os.ReadFile(filepath.Join(c.o.Dir, rootsFile))
	if err != nil {
		return nil
	}
	return strings.Fields(string(raw))
}

// newcomer watches a container that was just made until it has a log file, and
// then follows it if this Tender made it.
func (c *Collector) newcomer(root, id string) {
	dir := filepath.Join(root, id)
	path := filepath.Join(dir, id+"-json.log")
	try := func() {
		c.mu.Lock()
		_, known := c.tails[id]
		c.mu.Unlock()
		if known || inodeOf(path) == 0 {
			return
		}
		if who, ok := c.identify(dir, path); ok {
			c.follow(who)
		}
	}
	if err := c.watcher.add(dir, watchFolder, func(e event) {
		c.mu.Lock()
		t := c.tails[id]
		c.mu.Unlock()
		switch {
		case t != nil: // the picture was faster, and this is the folder's one watch
			t.look()
			t.nudge()
		case e.name == id+"-json.log":
			try()
		}
	}); err == nil {
		try()
	}
}

// identify reads from a container's own files who it is.
func (c *Collector) identify(dir, path string) (who Identity, ok bool) {
	raw, err := os.ReadFile(filepath.Join(dir, "config.v2.json"))
	if err != nil {
		return who, false
	}
	var config struct {
		ID, Name string
		Config   struct{ Labels map[string]string }
	}
	if json.Unmarshal(raw, &config) != nil {
		return who, false
	}
	l := config.Config.Labels
	if l["tender.home"] == "" || l["tender.home"] != c.o.Home {
		return who, false
	}
	who = Identity{
		ID: config.ID, Path: path, Project: l["com.docker.compose.project"], Service: l["com.docker.compose.service"], Revision: l["tender.revision"],
		Instance: plainName(strings.TrimPrefix(config.Name, "/"), l["tender.revision"]), Node: c.o.Node,
	}
	who.Logs, _ = c.settings(who.Project, who.Service) // its project may be so new that nobody has said anything
	return who, who.ID != "" && who.Project != ""
}
