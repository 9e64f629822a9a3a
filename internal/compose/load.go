package compose

import (
	"context"
	"fmt"
	"io"
	"maps"
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
	f, err := find(s)
	if err != nil {
		return Document{}, err
	}
	warnings := f.warnings
	project, said, err := assemble(ctx, f, s.Services)
	if err != nil {
		return Document{}, err
	}
	for _, text := range said {
		warnings = append(warnings, Warning{Text: text})
	}
	d := Document{Name: project.Name, WorkingDir: f.dir, Warnings: warnings}
	for _, in := range f.files {
		d.ComposeFiles = append(d.ComposeFiles, in.path)
	}
	n := normalizer{project: project, document: &d, remote: s.Remote}
	return d, n.run()
}

// assemble has the parser read, interpolate, merge and check the files. said is
// what it would have written to its log.
func assemble(ctx context.Context, f *found, services []string) (*types.Project, []string, error) {
	details := types.ConfigDetails{WorkingDir: f.dir, Environment: maps.Clone(f.env)}
	for _, in := range f.files {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: in.path, Content: in.content})
	}
	project, said, err := quietly(func() (*types.Project, error) {
		return loader.LoadWithContext(ctx, details, func(o *loader.Options) {
			o.SetProjectName(f.name, f.name != "")
			o.Profiles = f.profiles
			o.SkipResolveEnvironment = true
			o.SkipResolveLabels = true
		})
	})
	if err != nil {
		return nil, nil, err
	}
	for _, name := range services {
		if _, ok := project.AllServices()[name]; !ok {
			return nil, nil, tender.Errorf(tender.NotFound, "no service %q in project %s", name, project.Name).
				Hint("its services: %s", strings.Join(slices.Sorted(maps.Keys(project.AllServices())), ", "))
		}
	}
	if project, err = project.WithServicesEnabled(services...); err != nil {
		return nil, nil, err
	}
	project = project.WithoutUnnecessaryResources()
	if project, err = project.WithServicesEnvironmentResolved(true); err != nil {
		return nil, nil, err
	}
	if project, err = project.WithServicesLabelsResolved(true); err != nil {
		return nil, nil, err
	}
	return project, said, nil
}

// quiet guards the parser's logger, of which a process has one.
var quiet sync.Mutex

// quietly runs load with the parser's log turned into return values, and its
// panics, which odd input can provoke, into errors.
func quietly(load func() (*types.Project, error)) (p *types.Project, said []string, err error) {
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
		said = lines.said
		if r := recover(); r != nil {
			err = fmt.Errorf("the file has a value of a kind that has no place there (%v)", r)
		}
	}()
	p, err = load()
	return p, nil, err
}

// listener collects what the parser logs, except what Load says better itself.
type listener struct{ said []string }

func (l *listener) Levels() []logrus.Level { return logrus.AllLevels }

func (l *listener) Fire(e *logrus.Entry) error {
	if strings.Contains(e.Message, "variable is not set") || strings.Contains(e.Message, "`version` is obsolete") {
		return nil
	}
	if !slices.Contains(l.said, e.Message) {
		l.said = append(l.said, e.Message)
	}
	return nil
}
