package compose

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

var (
	fileNames     = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
	overrideNames = []string{"compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"}
)

// found is everything that is settled before the first line is parsed.
type found struct {
	files    []input
	dir      string            // the project's folder, absolute
	env      map[string]string // the user's environment, then what env files add
	profiles []string
	name     string
	warnings []Warning
}

// input is one Compose file named by the user or found for them.
type input struct {
	path    string // absolute, or "-"
	content []byte
}

// find settles files, folder, environment, profiles and name in the order that
// docker compose has: the environment may name files, and their folder may hold
// a .env that adds to the environment.
func find(s Source) (*found, error) {
	f := &found{env: map[string]string{}}
	for _, e := range s.Env {
		if k, v, ok := strings.Cut(e, "="); ok && k != "" {
			f.env[k] = v
		}
	}
	dir, err := filepath.Abs(s.Dir)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "find compose file: %w", err)
	}
	absolute := func(p string) string {
		if p == "-" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	if s.ProjectDir != "" {
		f.dir = absolute(s.ProjectDir)
	}

	envFiles := s.EnvFiles
	if v := f.env["COMPOSE_ENV_FILES"]; len(envFiles) == 0 && v != "" {
		envFiles = strings.Split(v, ",")
	}
	for i, p := range envFiles {
		envFiles = append(envFiles[:i:i], append([]string{absolute(p)}, envFiles[i+1:]...)...)
	}

	paths := make([]string, 0, len(s.Files))
	for _, p := range s.Files {
		paths = append(paths, absolute(p))
	}
	if err := f.dotenv(envFiles, folder(f.dir, paths, dir)); err != nil {
		return nil, err
	}
	if v := f.env["COMPOSE_FILE"]; len(paths) == 0 && v != "" {
		sep := f.env["COMPOSE_PATH_SEPARATOR"]
		if sep == "" {
			sep = string(os.PathListSeparator)
		}
		for p := range strings.SplitSeq(v, sep) {
			paths = append(paths, absolute(p))
		}
	}
	if len(paths) == 0 {
		start := dir
		if f.dir != "" {
			start = f.dir
		}
		if paths = f.search(start); len(paths) == 0 {
			return nil, tender.Errorf(tender.NotFound, "no compose file in %s or any folder above it", start).
				Hint("name one with -f, or create compose.yaml here")
		}
	}
	f.dir = folder(f.dir, paths, dir)
	if err := f.dotenv(envFiles, f.dir); err != nil {
		return nil, err
	}

	f.profiles = s.Profiles
	if len(f.profiles) == 0 {
		for p := range strings.SplitSeq(f.env["COMPOSE_PROFILES"], ",") {
			if p = strings.TrimSpace(p); p != "" {
				f.profiles = append(f.profiles, p)
			}
		}
	}
	for _, p := range paths {
		content, err := read(p, s.Stdin)
		if err != nil {
			return nil, err
		}
		f.files = append(f.files, input{path: p, content: content})
	}
	return f, f.settleName(s.Name)
}

// folder is where relative paths start.
func folder(explicit string, paths []string, cwd string) string {
	if explicit != "" {
		return explicit
	}
	for _, p := range paths {
		if p != "-" {
			return filepath.Dir(p)
		}
	}
	return cwd
}

// search looks for a file with one of Compose's names from dir upwards.
func (f *found) search(dir string) []string {
	hits := func(names []string) []string {
		var there []string
		for _, n := range names {
			if present(filepath.Join(dir, n)) == nil {
				there = append(there, n)
			}
		}
		if len(there) > 1 {
			f.warnings = append(f.warnings, Warning{Text: "found " + strings.Join(there, ", ") + " in " + dir + ", using " + there[0]})
		}
		return there
	}
	for {
		if main := hits(fileNames); len(main) > 0 {
			paths := []string{filepath.Join(dir, main[0])}
			if over := hits(overrideNames); len(over) > 0 {
				paths = append(paths, filepath.Join(dir, over[0]))
			}
			return paths
		}
		up := filepath.Dir(dir)
		if up == dir {
			return nil
		}
		dir = up
	}
}

// dotenv adds what env files say to the environment, which wins over them.
func (f *found) dotenv(files []string, dir string) error {
	if len(files) == 0 {
		if off, err := strconv.ParseBool(f.env["COMPOSE_DISABLE_ENV_FILE"]); err == nil && off {
			return nil
		}
		p := filepath.Join(dir, ".env")
		st, err := os.Stat(p)
		if err != nil || st.IsDir() {
			return nil
		}
		files = []string{p}
	}
	add, err := readEnv(f.env, files)
	if err != nil {
		return err
	}
	for k, v := range add {
		if _, ok := f.env[k]; !ok {
			f.env[k] = v
		}
	}
	return nil
}

// readEnv reads env files; in them env wins.
func readEnv(env map[string]string, files []string) (map[string]string, error) {
	for _, p := range files {
		if err := present(p); err != nil {
			return nil, tender.Errorf(tender.KindOf(err), "env file %w", err)
		}
	}
	add, err := dotenv.GetEnvFromFile(maps.Clone(env), files)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "env file: %s", strings.TrimPrefix(err.Error(), "failed to read "))
	}
	return add, nil
}

func (f *found) settleName(flag string) error {
	name := flag
	if name == "" {
		name = f.env["COMPOSE_PROJECT_NAME"]
	}
	if name != "" {
		if name != loader.NormalizeProjectName(name) {
			return tender.Errorf(tender.Invalid, "project name %q: only lower case letters, digits, - and _, and a letter or digit first", name).
				Hint("try -p %s", orElse(loader.NormalizeProjectName(name), "NAME"))
		}
		f.name = name
		return nil
	}
	for _, in := range f.files {
		if n := nameIn(in.content); n != "" {
			name = n
		}
	}
	if name == "" {
		name = filepath.Base(f.dir)
	}
	lookup := func(v string) (string, bool) { value, ok := f.env[v]; return value, ok }
	// A name whose variable is missing is told about later, with its line.
	if full, err := template.SubstituteWithOptions(name, lookup, template.WithoutLogging); err == nil {
		name = full
	}
	if f.name = loader.NormalizeProjectName(name); f.name == "" {
		return tender.Errorf(tender.Invalid, "no project name: %q gives none", name).Hint("name the project with -p NAME or a line name: NAME")
	}
	return nil
}

// nameIn returns the name: of a file, the last one where it holds several
// documents. A file that is not YAML is told about later, with its line.
func nameIn(content []byte) string {
	name := ""
	d := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var n struct {
			Name yaml.Node `yaml:"name"`
		}
		if err := d.Decode(&n); err != nil {
			return name
		}
		if n.Name.Kind == yaml.ScalarNode {
			name = orElse(n.Name.Value, name)
		}
	}
}

// read reads one Compose file, at most maxFile of it.
func read(path string, stdin io.Reader) ([]byte, error) {
	if path == "-" {
		if stdin == nil {
			return nil, tender.Errorf(tender.Invalid, "-f -: nothing on standard input")
		}
		return bounded("standard input", stdin, maxFile)
	}
	return readFile(path, maxFile)
}

// present reports whether there is a file to read. It does not read: a pipe can
// be read only once.
func present(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return tender.Errorf(tender.NotFound, "%s: no such file", path)
	}
	if err != nil {
		return tender.Errorf(tender.Invalid, "%w", err)
	}
	if st.IsDir() {
		return tender.Errorf(tender.Invalid, "%s is a folder, not a file", path)
	}
	return nil
}

func readFile(path string, limit int64) ([]byte, error) {
	if err := present(path); err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "%w", err)
	}
	defer file.Close()
	return bounded(path, file, limit)
}

func bounded(what string, r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "read %s: %w", what, err)
	}
	if int64(len(b)) > limit {
		return nil, tender.Errorf(tender.Invalid, "%s is larger than %d MiB", what, limit>>20)
	}
	return b, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
