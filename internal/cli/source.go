package cli

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/daemon"
)

// load reads the Compose files where the user stands and prints their warnings.
func (a *app) load(ctx context.Context, services []string) (compose.Document, error) {
	doc, err := compose.Load(ctx, a.source(services))
	if err != nil {
		return doc, err
	}
	for _, w := range doc.Warnings {
		a.note("warning: %s", w)
	}
	return doc, nil
}

// placed finds the place in the files for what the daemon refused because of where
// its engine is: only the daemon knows that, and only the files have lines.
func (a *app) placed(ctx context.Context, d *api.Client, services []string, refused error) error {
	if tender.KindOf(refused) != tender.Invalid || slices.Contains(a.files, "-") { // which is read once
		return refused
	}
	s, err := d.Status(ctx)
	if err != nil || s.Engine.Host == "" || strings.HasPrefix(s.Engine.Host, "unix://") {
		return refused // for another reason
	}
	source := a.source(services)
	source.Far = s.Engine.Host
	if _, err := compose.Load(ctx, source); err != nil && tender.KindOf(err) == tender.Invalid {
		return err
	}
	return refused
}

func (a *app) source(services []string) compose.Source {
	dir := a.Dir
	projectDir := a.projectDir
	if projectDir != "" && !filepath.IsAbs(projectDir) {
		projectDir = filepath.Join(dir, projectDir)
	}
	return compose.Source{
		Files: a.files, Dir: dir, ProjectDir: projectDir, Name: a.project,
		Profiles: a.profiles, EnvFiles: a.envFiles, Env: a.Env, Stdin: a.In,
		Remote: a.remote(), Services: services, Expr: daemon.CheckExpr,
	}
}

// name says which project a command is about that needs no file: -p,
// COMPOSE_PROJECT_NAME, else the name that the Compose file here gives.
func (a *app) name(ctx context.Context) (string, error) {
	if a.project != "" {
		return a.project, nil
	}
	if n := a.getenv("COMPOSE_PROJECT_NAME"); n != "" && len(a.files) == 0 {
		return n, nil
	}
	doc, err := compose.Load(ctx, a.source(nil))
	if err == nil {
		return doc.Name, nil
	}
	if tender.KindOf(err) == tender.NotFound && len(a.files) == 0 {
		return "", tender.Errorf(tender.NotFound, "which project? There is no Compose file here or above").
			Hint("name it: -p NAME; tender ls lists them")
	}
	if tender.AdviceOf(err) == "" {
		return "", tender.Errorf(tender.Invalid, "%w", err).Hint("mend the file, or name the project: -p NAME")
	}
	return "", err
}

// pick keeps the instances of the services asked for, all when none is. A
// service that nobody knows is an error naming the nearest one.
func pick(instances []api.Instance, services []string) ([]api.Instance, error) {
	if len(services) == 0 {
		return instances, nil
	}
	known := map[string]bool{}
	for _, i := range instances {
		known[i.Service] = true
	}
	for _, s := range services {
		if !known[s] {
			return nil, noService(s, slices.Sorted(maps.Keys(known)))
		}
	}
	return slices.DeleteFunc(slices.Clone(instances), func(i api.Instance) bool { return !slices.Contains(services, i.Service) }), nil
}

func noService(name string, known []string) error {
	e := tender.Errorf(tender.NotFound, "no instance of service %q", name)
	if near := tender.Nearest(name, known); near != "" {
		return e.Hint("did you mean: %s", near)
	}
	if len(known) > 0 {
		return e.Hint("services: %s", strings.Join(known, ", "))
	}
	return e.Hint("tender ps -a lists what is there")
}

// need returns the services asked for and, unless alone, all they depend on;
// every service of p when none is asked for.
func need(p tender.Project, services []string, alone bool) (map[string]bool, error) {
	in := map[string]bool{}
	if len(services) == 0 {
		for _, s := range p.Services {
			in[s.Name] = true
		}
		return in, nil
	}
	queue := slices.Clone(services)
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if in[name] {
			continue
		}
		s, ok := p.Service(name)
		if !ok {
			if !slices.Contains(services, name) {
				continue // a dependency that is not required and not there
			}
			var names []string
			for _, s := range p.Services {
				names = append(names, s.Name)
			}
			hint := "services: " + strings.Join(names, ", ")
			if near := tender.Nearest(name, names); near != "" {
				hint = "did you mean: " + near
			}
			return nil, tender.Errorf(tender.NotFound, "no service %q in project %s", name, p.Name).Hint("%s", hint)
		}
		in[name] = true
		if !alone {
			for _, d := range s.DependsOn {
				queue = append(queue, d.Service)
			}
		}
	}
	return in, nil
}

// pairs reads NAME=VALUE words.
func pairs(flag string, words []string) (map[string]string, error) {
	if len(words) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(words))
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" || v == "" {
			return nil, misuse("write it as SERVICE=VALUE", "%s %q has no value", flag, w)
		}
		out[k] = v
	}
	return out, nil
}

// counts reads SERVICE=N words.
func counts(flag string, words []string) (map[string]int, error) {
	p, err := pairs(flag, words)
	if err != nil || p == nil {
		return nil, err
	}
	out := make(map[string]int, len(p))
	for k, v := range p {
		var n int
		if _, err := fmt.Sscanf(v, "%d", &n); err != nil || n < 0 || fmt.Sprint(n) != v {
			return nil, misuse("write it as "+k+"=3", "%s %s=%s is no number of instances", flag, k, v)
		}
		out[k] = n
	}
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func errNoPort(service string, port int, protocol string, found []api.Instance) error {
	e := tender.Errorf(tender.NotFound, "%s does not publish %d/%s", service, port, protocol)
	for _, i := range found {
		if len(i.Ports) > 0 {
			return e.Hint("it publishes %s", portsOf(i.Ports))
		}
	}
	return e.Hint("publish it under services.%s.ports", service)
}
