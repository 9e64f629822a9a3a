package compose

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// source is a file with what its variables and relative paths mean.
type source struct {
	path    string // absolute, "-" or ""
	content []byte
	env     map[string]string
	dir     string // where include and extends start
	// extended: the file was reached by extends, so its own includes do not count.
	extended bool
}

// follow goes on into the files that n names, when it is an include or extends.
func (w *walk) follow(n *yaml.Node, kind, value string, at place) {
	switch at.field {
	case "include.[]":
		if w.source.extended {
			return
		}
		if kind == "string" {
			w.include(n, []string{value}, "", nil)
			return
		}
		w.include(n, w.list(n, "path"), w.text(n, "project_directory"), w.list(n, "env_file"))
	case "services.*.extends":
		if file := w.text(n, "file"); file != "" {
			w.extend(n, file)
		}
	}
}

// include reads the files of one include entry as the parser will: the first
// one's folder is where their paths start, and its .env adds to the environment.
func (w *walk) include(n *yaml.Node, files []string, projectDir string, envFiles []string) {
	if len(files) == 0 {
		return
	}
	absolute := func(p string) string {
		if filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(w.source.dir, p)
	}
	for i, f := range files {
		if remote(f) {
			w.bad(n, "copy the file beside this one and include that", "include: "+f+" is not a local file")
			return
		}
		files[i] = absolute(f)
	}
	dir := filepath.Dir(files[0])
	if projectDir != "" {
		dir = absolute(projectDir)
	}
	var envs []string
	for _, e := range envFiles {
		if e != "/dev/null" {
			envs = append(envs, absolute(e))
		}
	}
	if len(envFiles) == 0 {
		if st, err := os.Stat(filepath.Join(dir, ".env")); err == nil && !st.IsDir() {
			envs = []string{filepath.Join(dir, ".env")}
		}
	}
	env := maps.Clone(w.source.env)
	add, err := readEnv(env, envs)
	if err != nil {
		w.bad(n, "", "include: "+err.Error())
		return
	}
	for k, v := range add {
		if _, ok := env[k]; !ok {
			env[k] = v
		}
	}
	for _, f := range files {
		w.visit(n, "include", source{path: f, env: env, dir: dir})
	}
}

func (w *walk) extend(n *yaml.Node, file string) {
	if remote(file) {
		w.bad(n, "copy the file beside this one and extend that", "extends: "+file+" is not a local file")
		return
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(w.source.dir, file)
	}
	w.visit(n, "extends", source{path: file, env: w.source.env, dir: filepath.Dir(file), extended: true})
}

// visit reads a file once, however many lead to it.
func (w *walk) visit(n *yaml.Node, word string, s source) {
	if i := slices.Index(w.open, s.path); i >= 0 && word == "include" {
		var round []string
		for _, p := range append(slices.Clone(w.open[i:]), s.path) {
			round = append(round, w.show(p))
		}
		w.bad(n, "", "include: a file includes itself: "+strings.Join(round, " -> "))
		return
	}
	if w.read[s.path] {
		return
	}
	w.read[s.path] = true
	if len(w.read) > maxFiles {
		w.bad(n, "", word+": more than 100 files")
		return
	}
	content, err := readFile(s.path, maxFile)
	if err != nil {
		w.bad(n, "", word+": "+err.Error())
		return
	}
	s.content = content
	w.add(s)
}

// text and list read a key of a small mapping whose shape has been checked.
func (w *walk) text(n *yaml.Node, key string) string {
	if l := w.list(n, key); len(l) > 0 {
		return l[0]
	}
	return ""
}

func (w *walk) list(n *yaml.Node, key string) []string {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			continue
		}
		v := follow(n.Content[i+1])
		items := []*yaml.Node{v}
		if v.Kind == yaml.SequenceNode {
			items = v.Content
		}
		var out []string
		for _, item := range items {
			if item = follow(item); item.Kind == yaml.ScalarNode {
				out = append(out, w.tree.value(item))
			}
		}
		return out
	}
	return nil
}

// remote reports whether a path is one that Docker Compose would fetch.
func remote(path string) bool {
	for _, prefix := range []string{"oci://", "git@", "https://", "http://", "git://", "ssh://", "github.com/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
