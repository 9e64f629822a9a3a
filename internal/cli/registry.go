package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
)

func (a *app) pullCommand() *cobra.Command {
	var quiet, ignoreFailures, deps bool
	c := &cobra.Command{
		Use:               "pull [flags] [SERVICE...]",
		Short:             "Pull the images of services",
		ValidArgsFunction: a.fileServices,
		RunE: func(c *cobra.Command, services []string) error {
			if quiet {
				a.progress = "quiet"
			}
			return a.pull(c.Context(), services, deps, ignoreFailures)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	c.Flags().BoolVar(&ignoreFailures, "ignore-pull-failures", false, "go on with what can be pulled")
	c.Flags().BoolVar(&deps, "include-deps", false, "those that the services depend on, too")
	a.inFile(c)
	return c
}

func (a *app) pushCommand() *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:               "push [flags] [SERVICE...]",
		Short:             "Push the images that services are built as",
		ValidArgsFunction: a.fileServices,
		RunE: func(c *cobra.Command, services []string) error {
			if quiet {
				a.progress = "quiet"
			}
			return a.push(c.Context(), services)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	a.inFile(c)
	return c
}

func (a *app) pull(ctx context.Context, services []string, deps, ignoreFailures bool) error {
	doc, err := a.load(ctx, services)
	if err != nil {
		return err
	}
	p, err := compose.Parse([]byte(doc.YAML))
	if err != nil {
		return err
	}
	in, err := need(p, services, !deps)
	if err != nil {
		return err
	}
	var refs []string
	for _, s := range p.Services {
		switch {
		case !in[s.Name]:
		case s.Build:
			a.note("%s: not pulled, it is built here", s.Name)
		default:
			refs = append(refs, s.Image)
		}
	}
	err = a.transfer(ctx, "pull", p, refs, (*api.Client).Pull)
	if err != nil && ignoreFailures && ctx.Err() == nil {
		a.note("warning: %v", err)
		return nil
	}
	return err
}

func (a *app) push(ctx context.Context, services []string) error {
	doc, err := a.load(ctx, services)
	if err != nil {
		return err
	}
	p, err := compose.Parse([]byte(doc.YAML))
	if err != nil {
		return err
	}
	in, err := need(p, services, true)
	if err != nil {
		return err
	}
	var refs []string
	for _, b := range doc.Builds {
		if in[b.Service] {
			refs = append(refs, b.Tags...)
		}
	}
	if len(refs) == 0 {
		a.note("nothing to push: no service here has build:")
		return nil
	}
	return a.transfer(ctx, "push", p, refs, (*api.Client).Push)
}

// transfer moves images, three at a time, each once, and returns every error.
func (a *app) transfer(ctx context.Context, verb string, p tender.Project, refs []string,
	move func(d *api.Client, ctx context.Context, ref, auth string, report func(api.Event)) error,
) error {
	d, err := a.client()
	if err != nil {
		return err
	}
	show, err := a.progressFor()
	if err != nil {
		return err
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	places := make(chan struct{}, 3)
	seen := map[string]bool{}
	for _, ref := range refs {
		if seen[ref] {
			continue
		}
		seen[ref] = true
		places <- struct{}{}
		wait.Go(func() {
			defer func() { <-places }()
			auth, err := a.auth(registryOf(ref))
			if err == nil {
				err = move(d, ctx, ref, auth, func(e api.Event) {
					if e.Service == "" {
						e.Service = ref
					}
					show.report(e)
				})
			}
			e := api.Event{Kind: api.KindEnded, Service: ref, Text: verb + "ed"}
			if err != nil {
				e.Kind, e.Text = api.KindFailed, err.Error()
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s %s: %w", verb, ref, err))
				mu.Unlock()
			}
			show.report(e)
		})
	}
	wait.Wait()
	show.close()
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// registryOf returns the registry's host of an image reference, as docker's
// config file names it.
func registryOf(ref string) string {
	first, _, slash := strings.Cut(ref, "/")
	if !slash || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return "docker.io"
	}
	return first
}

// hubKey is the name under which docker login keeps the default registry.
const hubKey = "https://index.docker.io/v1/"

// auths collects the user's docker logins for the registries of a project, in
// the form of the X-Registry-Auth header. What cannot be read is a warning: the
// image may be public, or there already.
func (a *app) auths(p tender.Project) (map[string]string, []string) {
	out := map[string]string{}
	var warnings []string
	seen := map[string]bool{}
	for _, s := range p.Services {
		host := registryOf(s.Image)
		if s.Image == "" || seen[host] {
			continue
		}
		seen[host] = true
		auth, err := a.auth(host)
		if err != nil {
			warnings = append(warnings, err.Error())
		}
		if auth != "" {
			out[host] = auth
		}
	}
	return out, warnings
}

// login is what docker login leaves behind.
type login struct {
	Auths map[string]struct {
		Auth          string `json:"auth"`
		IdentityToken string `json:"identitytoken"`
	} `json:"auths"`
	CredsStore  string            `json:"credsStore"`
	CredHelpers map[string]string `json:"credHelpers"`
}

// logins reads the user's docker configuration; there may be none.
func (a *app) logins() (l login, file string, err error) {
	dir := a.getenv("DOCKER_CONFIG")
	if dir == "" {
		dir = filepath.Join(a.getenv("HOME"), ".docker")
	}
	file = filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return l, file, nil
	}
	if err != nil {
		return l, file, err
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return l, file, tender.Errorf(tender.Invalid, "read %s: %w", file, err)
	}
	return l, file, nil
}

// allAuths collects every login: which registries a build asks is known only
// once the engine has read the Dockerfile. What could be read comes with the error.
func (a *app) allAuths() (map[string]string, error) {
	l, _, err := a.logins()
	if err != nil {
		return nil, err
	}
	var out map[string]string
	keys := append(sortedKeys(l.Auths), sortedKeys(l.CredHelpers)...)
	for _, key := range keys {
		host := strings.TrimSuffix(strings.TrimPrefix(key, "https://"), "/")
		if key == hubKey {
			host = "docker.io"
		}
		auth, e := a.auth(host)
		if e != nil {
			err = errors.Join(err, e)
		}
		if auth == "" {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[host] = auth
	}
	return out, err
}

// auth returns the user's login at a registry, "" where there is none.
func (a *app) auth(host string) (string, error) {
	l, file, err := a.logins()
	if err != nil {
		return "", err
	}
	key := host
	if host == "docker.io" {
		key = hubKey
	}
	helper := l.CredHelpers[key]
	if helper == "" {
		helper = l.CredsStore
	}
	if helper != "" {
		return a.askHelper(helper, key)
	}
	entry, ok := l.Auths[key]
	if !ok {
		entry, ok = l.Auths["https://"+key]
	}
	if !ok {
		return "", nil
	}
	if entry.IdentityToken != "" {
		return header(map[string]string{"identitytoken": entry.IdentityToken, "serveraddress": key})
	}
	pair, err := base64.StdEncoding.DecodeString(entry.Auth)
	user, password, ok := strings.Cut(string(pair), ":")
	if err != nil || !ok {
		return "", tender.Errorf(tender.Invalid, "read %s: the login at %s is damaged", file, key).Hint("docker login %s", host)
	}
	return header(map[string]string{"username": user, "password": password, "serveraddress": key})
}

// askHelper runs docker-credential-NAME, as docker does.
func (a *app) askHelper(name, key string) (string, error) {
	c := exec.Command("docker-credential-"+name, "get")
	c.Stdin = strings.NewReader(key)
	c.Env = a.Env
	out, err := c.Output()
	if err != nil {
		if bytes.Contains(out, []byte("credentials not found")) {
			return "", nil
		}
		return "", fmt.Errorf("docker-credential-%s: %w", name, err)
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", fmt.Errorf("docker-credential-%s: %w", name, err)
	}
	if got.Username == "<token>" {
		return header(map[string]string{"identitytoken": got.Secret, "serveraddress": key})
	}
	return header(map[string]string{"username": got.Username, "password": got.Secret, "serveraddress": key})
}

func header(fields map[string]string) (string, error) {
	raw, err := json.Marshal(fields)
	if err != nil {
		return "", err
	}
	return base64.URLEncoding.EncodeToString(raw), nil
}
