package compose

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"

	tender "github.com/tenderhq/tender"
)

// The extensions that the normal form carries beside x-tender itself.
const (
	format       = 1
	formatKey    = "x-tender-format" // at the top: the version of the normal form
	contentKey   = "x-tender-sha256" // on a config: the hash of its content
	secretKey    = "x-tender-secret" // on a secret: where its value was, file or environment
	extensionKey = "x-tender"
)

// normalizer moves what is not plain Compose YAML out of a project: contents of
// configs, values of secrets, profiles in files, builds.
type normalizer struct {
	project  *types.Project
	document *Document
	check    *check
}

// run fills the document. With remote, mounts of the user's own folders are
// refused.
func (n *normalizer) run(remote bool) error {
	d := n.document
	if err := n.check.err(n.misfits(remote)); err != nil {
		return err
	}
	d.Files, d.Secrets = map[string][]byte{}, map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(n.project.Services)) {
		s := n.project.Services[name]
		s.Develop = nil
		s.EnvFiles, s.LabelFiles = nil, nil
		if err := n.seccomp(&s); err != nil {
			return err
		}
		if s.Build != nil {
			s.Build.Context = orElse(s.Build.Context, n.project.WorkingDir)
			if s.Build.DockerfileInline == "" {
				s.Build.Dockerfile = orElse(s.Build.Dockerfile, "Dockerfile")
			}
			if s.Image == "" {
				s.Image = builtImage(n.project.Name, name)
				if _, err := reference.ParseAnyReference(s.Image); err != nil {
					return n.fail(tender.Errorf(tender.Invalid, "services.%s: %q cannot be the name of its image", name, s.Image).
						Hint("add image: NAME under services.%s", name), "services", name, "build")
				}
			}
			d.Builds = append(d.Builds, n.build(s))
		}
		n.project.Services[name] = s
	}
	for _, key := range slices.Sorted(maps.Keys(n.project.Configs)) {
		if err := n.config(key); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(n.project.Secrets)) {
		if err := n.secret(key); err != nil {
			return err
		}
	}
	yml, err := marshal(n.project)
	if err != nil {
		return err
	}
	if len(yml) > maxYAML {
		return tender.Errorf(tender.Invalid, "project is larger than %d MiB", maxYAML>>20)
	}
	d.YAML = string(yml)
	return nil
}

// fail reports an error at the place in the user's files that path names.
func (n *normalizer) fail(err *tender.Error, path ...string) error {
	return n.check.at(err, path...)
}

// misfits finds what can be seen in the merged project alone.
func (n *normalizer) misfits(remote bool) []problem {
	var out []problem
	for _, name := range slices.Sorted(maps.Keys(n.project.Services)) {
		s := n.project.Services[name]
		for _, p := range s.Ports {
			said := asMap(s.Extensions[extensionKey])["publish"]
			if said == tender.PublishProxy || said == nil && edgeable(s) {
				break // the edge leads to all of them
			}
			if ports := hostPorts(p.Published); ports > 0 && ports < s.GetScale() {
				out = append(out, n.check.locate(problem{
					text:   fmt.Sprintf("services.%s.ports: %d instances cannot share host port %s", name, s.GetScale(), p.Published),
					advice: fmt.Sprintf("let the edge hold it with x-tender: {publish: proxy}, or publish a range of %d ports or more, as in \"8080-%d:%d\"", s.GetScale(), 8079+s.GetScale(), p.Target),
				}, []string{"services", name, "ports", p.Published}))
			}
		}
		for _, v := range s.Volumes {
			if remote && v.Type == types.VolumeTypeBind {
				out = append(out, n.check.locate(problem{
					text:   fmt.Sprintf("services.%s.volumes: the engine is on another host, which does not have %s", name, v.Source),
					advice: "use a named volume, or configs: for single files",
				}, []string{"services", name, "volumes", v.Target}))
			}
		}
	}
	return append(out, n.check.gentle(n.project)...)
}

func (n *normalizer) config(key string) error {
	c := n.project.Configs[key]
	var content []byte
	switch {
	case c.File != "":
		b, err := readFile(c.File, maxContent)
		if err != nil {
			return n.fail(tender.Errorf(tender.Invalid, "config %q: %w", key, err), "configs", key, "file")
		}
		content = b
	case c.Environment != "":
		v, ok := n.project.Environment[c.Environment]
		if !ok {
			return n.fail(tender.Errorf(tender.Invalid, "config %q: variable %s is not set", key, c.Environment).
				Hint("set %s in your environment or in .env", c.Environment), "configs", key, "environment")
		}
		content = []byte(v)
	default:
		content = []byte(c.Content)
	}
	sum := sha256.Sum256(content)
	hash := hex.EncodeToString(sum[:])
	n.document.Files[hash] = content
	c.File, c.Environment, c.Content = "", "", ""
	c.Extensions = with(c.Extensions, contentKey, hash)
	n.project.Configs[key] = c
	return nil
}

func (n *normalizer) secret(key string) error {
	s := n.project.Secrets[key]
	if bool(s.External) {
		return nil
	}
	from := "file"
	switch {
	case s.File != "":
		b, err := readFile(s.File, maxContent)
		if err != nil {
			return n.fail(tender.Errorf(tender.Invalid, "secret %q: %w", key, err).
				Hint("put the value into that file, or keep it with tender secret set %s and say external: true", key), "secrets", key, "file")
		}
		n.document.Secrets[key] = b
	case s.Environment != "":
		from = "environment"
		v, ok := n.project.Environment[s.Environment]
		if !ok {
			return n.fail(tender.Errorf(tender.Invalid, "secret %q: variable %s is not set", key, s.Environment).
				Hint("set %s in your environment or in .env, or keep the value with tender secret set %s and say external: true", s.Environment, key), "secrets", key, "environment")
		}
		n.document.Secrets[key] = []byte(v)
	}
	s.File, s.Environment, s.Content = "", "", ""
	s.Extensions = with(s.Extensions, secretKey, from)
	n.project.Secrets[key] = s
	return nil
}

// seccomp puts profiles that lie in files into the option itself, as docker's
// own command line does, so that no engine needs the file.
func (n *normalizer) seccomp(s *types.ServiceConfig) error {
	for i, opt := range s.SecurityOpt {
		profile, ok := seccompProfile(opt)
		if !ok || inlineProfile(profile) {
			continue
		}
		path := profile
		if !filepath.IsAbs(path) {
			path = filepath.Join(n.project.WorkingDir, path)
		}
		place := []string{"services", s.Name, "security_opt", opt}
		b, err := readFile(path, maxContent)
		if err != nil {
			return n.fail(tender.Errorf(tender.Invalid, "services.%s: seccomp profile: %w", s.Name, err), place...)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, b); err != nil {
			return n.fail(tender.Errorf(tender.Invalid, "services.%s: seccomp profile %s: %w", s.Name, path, err), place...)
		}
		s.SecurityOpt[i] = "seccomp=" + compact.String()
	}
	return nil
}

// seccompProfile returns what follows seccomp= or seccomp:.
func seccompProfile(opt string) (string, bool) {
	rest, ok := strings.CutPrefix(opt, "seccomp")
	if !ok || rest == "" || rest[0] != '=' && rest[0] != ':' {
		return "", false
	}
	return rest[1:], true
}

func inlineProfile(profile string) bool {
	return profile == "unconfined" || profile == "builtin" || strings.HasPrefix(profile, "{")
}

// builtImage is Docker Compose's name for the image of a service that gives none,
// in the lower case that names of images need.
func builtImage(project, service string) string {
	return project + "-" + strings.ToLower(service)
}

func with(e types.Extensions, key string, value any) types.Extensions {
	e = maps.Clone(e)
	if e == nil {
		e = types.Extensions{}
	}
	e[key] = value
	return e
}
