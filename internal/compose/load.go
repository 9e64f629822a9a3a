package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"

	tender "github.com/tenderhq/tender"
)

// Load reads the user's Compose files and makes the document that the daemon
// gets. Errors in the files are Invalid and name file, line and column, ten of
// them at most.
func Load(ctx context.Context, s Source) (Document, error) {
	d, said, err := quietly(func() (Document, error) { return load(ctx, s) })
	if err != nil {
		return Document{}, err
	}
	for _, text := range said {
		d.Warnings = append(d.Warnings, Warning{Text: text})
	}
	return d, nil
}

func load(ctx context.Context, s Source) (Document, error) {
	rawEnvFiles()
	f, err := find(s)
	if err != nil {
		return Document{}, err
	}
	c, err := newCheck(orElse(s.Dir, f.dir), false)
	if err != nil {
		return Document{}, err
	}
	c.far, c.expr = s.Far, s.Expr
	env := maps.Clone(f.env)
	env["COMPOSE_PROJECT_NAME"] = f.name
	for _, in := range f.files {
		c.add(source{path: in.path, content: in.content, env: env, dir: f.dir})
	}
	// The parser only sees what has passed: it repeats the first error alone, and
	// it takes hostile aliases as they come.
	if err := c.err(c.problems); err != nil {
		return Document{}, err
	}
	project, err := assemble(ctx, f, c, s.Services)
	if err != nil {
		return Document{}, err
	}
	d := Document{Name: project.Name, WorkingDir: f.dir, Warnings: append(f.warnings, c.warnings...)}
	for _, in := range f.files {
		d.ComposeFiles = append(d.ComposeFiles, in.path)
	}
	for _, s := range project.AllServices() {
		d.Profiles = append(d.Profiles, s.Profiles...)
	}
	slices.Sort(d.Profiles)
	d.Profiles = slices.Compact(d.Profiles)
	n := normalizer{project: project, document: &d, check: c}
	return d, n.run(s.Remote)
}

// assemble has the parser read, interpolate, merge and check the files.
func assemble(ctx context.Context, f *found, c *check, services []string) (*types.Project, error) {
	details := types.ConfigDetails{WorkingDir: f.dir, Environment: maps.Clone(f.env)}
	for _, in := range f.files {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: in.path, Content: in.content})
	}
	profiles := slices.Clone(f.profiles)
	options := func(o *loader.Options) {
		o.SetProjectName(f.name, true)
		o.Profiles = profiles
		o.SkipResolveEnvironment = true
		o.SkipResolveLabels = true
	}
	p, err := caught(func() (*types.Project, error) {
		model, err := loader.LoadModelWithContext(ctx, details, options)
		if err != nil {
			return nil, err
		}
		// Once without the parser's consistency check, which stops at the first name
		// that leads nowhere and does not say where it is written.
		o := loader.ToOptions(&details, []func(*loader.Options){options})
		o.SkipConsistencyCheck = true
		loose, err := loader.ModelToProject(clone(model).(map[string]any), o, details)
		if err != nil {
			return nil, err
		}
		for _, name := range services {
			s, ok := loose.AllServices()[name]
			if !ok {
				return nil, tender.Errorf(tender.NotFound, "no service %q in project %s", name, loose.Name).
					Hint("its services: %s", strings.Join(slices.Sorted(maps.Keys(loose.AllServices())), ", "))
			}
			if _, active := loose.Services[name]; !active {
				profiles = append(profiles, s.Profiles...)
			}
		}
		if loose, err = loose.WithProfiles(profiles); err != nil {
			return nil, err
		}
		if err := c.err(c.references(loose)); err != nil {
			return nil, err
		}
		return loose, consistent(model, details, options)
	})
	if err != nil {
		return nil, c.explain(err)
	}
	// A dependency that may be absent is left out where it is: its profile is off, or another service was asked for.
	p = p.WithoutUnresolvedOptionalDependencies().WithoutUnnecessaryResources()
	if err := c.err(c.envFiles(p)); err != nil {
		return nil, err
	}
	if p, err = p.WithServicesEnvironmentResolved(true); err != nil {
		return nil, c.explain(err)
	}
	if p, err = p.WithServicesLabelsResolved(true); err != nil {
		return nil, c.explain(err)
	}
	return p, nil
}

// consistent runs the parser's own check, without dependencies: it follows every
// path through them, of which there can be more than there is time for.
func consistent(model map[string]any, details types.ConfigDetails, options func(*loader.Options)) error {
	for _, section := range []string{"services", "jobs"} {
		services, _ := model[section].(map[string]any)
		for _, s := range services {
			if s, ok := s.(map[string]any); ok {
				delete(s, "depends_on")
			}
		}
	}
	_, err := loader.ModelToProject(model, loader.ToOptions(&details, []func(*loader.Options){options}), details)
	return err
}

// envFiles finds env and label files that are not there.
func (c *check) envFiles(p *types.Project) []problem {
	var out []problem
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		look := func(field, path string, required bool) {
			if err := present(path); err != nil && (required || tender.KindOf(err) != tender.NotFound) {
				out = append(out, c.locate(problem{text: fmt.Sprintf("services.%s.%s: %s", name, field, err)}, []string{"services", name, field, path}))
			}
		}
		for _, f := range s.EnvFiles {
			look("env_file", f.Path, bool(f.Required))
		}
		for _, f := range s.LabelFiles {
			look("label_file", f, true)
		}
	}
	return out
}

// clone copies a model, because binding it changes it.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = clone(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = clone(e)
		}
		return l
	}
	return v
}

// explain gives an error of the parser its place. A doubt of our own says the
// same better where it is on the same line.
func (c *check) explain(err error) error {
	var own *tender.Error
	if errors.As(err, &own) {
		return own
	}
	problems := slices.Clone(c.doubts)
	for _, p := range c.parserProblems(err.Error()) {
		if !slices.ContainsFunc(c.doubts, func(d problem) bool { return d.file == p.file && d.line == p.line || p.line == 0 }) {
			problems = append(problems, p)
		}
	}
	return c.err(problems)
}

var (
	undecoded = regexp.MustCompile(`(?m)^'([^']+)' (.+)$`)
	uncast    = regexp.MustCompile(`(?m)^error while interpolating (\S+): failed to cast to expected type: (.+)$`)
)

// parserProblems takes what the parser says apart: it reports some errors together.
func (c *check) parserProblems(text string) []problem {
	var out []problem
	for _, form := range []*regexp.Regexp{undecoded, uncast} {
		for _, m := range form.FindAllStringSubmatch(text, -1) {
			path := strings.FieldsFunc(m[1], func(r rune) bool { return r == '.' || r == '[' || r == ']' })
			out = append(out, c.locate(problem{text: strings.Join(path, ".") + ": " + m[2]}, path))
		}
	}
	if len(out) > 0 {
		return out
	}
	text, _, _ = strings.Cut(text, ": invalid compose project")
	if rest, ok := strings.CutPrefix(text, "validating "); ok {
		_, text, _ = strings.Cut(rest, ": ")
	}
	return []problem{c.locate(problem{text: text}, pathIn(text))}
}

// pathIn finds the path or the service that an error of the parser speaks of.
func pathIn(text string) []string {
	var extending string
	if _, err := fmt.Sscanf(text, "cannot extend service %q", &extending); err == nil {
		return []string{"services", extending, "extends"}
	}
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" :'\"`,\n", r) }) {
		top, _, dotted := strings.Cut(word, ".")
		if !dotted || !slices.Contains([]string{"services", "networks", "volumes", "configs", "secrets"}, top) {
			continue
		}
		word = strings.ReplaceAll(strings.TrimSuffix(word, "."), "[", ".[")
		return strings.Split(word, ".")
	}
	for _, kind := range []string{"service", "secret", "config", "volume", "network"} {
		var name string
		if i := strings.Index(text, kind+" \""); i >= 0 {
			if _, err := fmt.Sscanf(text[i+len(kind)+1:], "%q", &name); err == nil {
				return []string{kind + "s", name}
			}
		}
	}
	return nil
}

// quiet guards the parser's logger, of which a process has one.
var quiet sync.Mutex

// quietly runs load and returns what the parser would have written to its log.
func quietly[T any](load func() (T, error)) (v T, said []string, err error) {
	quiet.Lock()
	defer quiet.Unlock()
	var lines listener
	log := logrus.StandardLogger()
	out := log.Out
	hooks := log.ReplaceHooks(logrus.LevelHooks{logrus.WarnLevel: {&lines}, logrus.ErrorLevel: {&lines}})
	log.SetOutput(io.Discard)
	defer func() {
		log.SetOutput(out)
		log.ReplaceHooks(hooks)
	}()
	v, err = load()
	return v, lines.said, err
}

// caught turns a panic of the parser into an error: it trusts its input to have
// the right kinds of values.
func caught(load func() (*types.Project, error)) (p *types.Project, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("a value has a kind that does not belong there (%v)", r)
		}
	}()
	return load()
}

// listener collects what the parser logs, except what Load says better itself.
type listener struct{ said []string }

func (l *listener) Levels() []logrus.Level { return logrus.AllLevels }

func (l *listener) Fire(e *logrus.Entry) error {
	if _, ok := e.Data["go.version"]; ok {
		return nil // the registry's, which logs to the same logger meanwhile
	}
	if strings.Contains(e.Message, "variable is not set") || strings.Contains(e.Message, "`version` is obsolete") {
		return nil
	}
	if !slices.Contains(l.said, e.Message) {
		l.said = append(l.said, e.Message)
	}
	return nil
}
