package scan

import (
	"encoding/json"
	"errors"
	"io"
	"path"
	"regexp"
	"strings"
)

// npmModule says whether a package.json is that of an installed module, and not of the
// application, or of a folder inside of a module.
func npmModule(name string) bool {
	dir := path.Dir(name)
	up := path.Dir(dir)
	if strings.HasPrefix(path.Base(up), "@") {
		up = path.Dir(up)
	}
	return path.Base(up) == "node_modules" && !strings.HasPrefix(path.Base(dir), ".")
}

func parseNPM(r *reading, _ *layer, name string, f *file, body io.ReaderAt, size int64) error {
	var p struct {
		Name, Version    string
		License, Private any
	}
	if err := json.NewDecoder(io.NewSectionReader(body, 0, size)).Decode(&p); err != nil {
		return errNothing // test data of modules is often broken, and is no module
	}
	found := Package{Name: p.Name, Version: p.Version, Type: "npm"}
	if s, ok := p.License.(string); ok && s != "" {
		found.Licenses = []string{s}
	}
	r.found(f, name, found)
	return nil
}

// parsePython reads METADATA or PKG-INFO: https://packaging.python.org/en/latest/specifications/core-metadata/
func parsePython(r *reading, _ *layer, name string, f *file, body io.ReaderAt, size int64) error {
	first := true
	wanted := func(k string) bool { return k == "Name" || k == "Version" || k == "License-Expression" }
	return stanzas(body, size, wanted, func(s map[string]string) {
		if !first { // what follows is the description
			return
		}
		first = false
		p := Package{Name: s["Name"], Version: s["Version"], Type: "pypi"}
		if l := s["License-Expression"]; l != "" {
			p.Licenses = []string{l}
		}
		r.found(f, name, p)
	})
}

var (
	gemName    = regexp.MustCompile(`\.name\s*=\s*["']([^"']+)["']`)
	gemVersion = regexp.MustCompile(`\.version\s*=\s*(?:Gem::Version\.new\s*\(?\s*)?["']([^"']+)["']`)
	gemLicense = regexp.MustCompile(`\.licenses\s*=\s*\[\s*["']([^"']+)["']`)
)

// parseGem reads a specification as RubyGems writes it: Ruby, but always the same.
func parseGem(r *reading, _ *layer, name string, f *file, body io.ReaderAt, size int64) error {
	t, err := text(body, size)
	if err != nil {
		return err
	}
	n, v := gemName.FindSubmatch(t), gemVersion.FindSubmatch(t)
	if n == nil || v == nil {
		return errNothing
	}
	p := Package{Name: string(n[1]), Version: string(v[1]), Type: "gem"}
	if l := gemLicense.FindSubmatch(t); l != nil {
		p.Licenses = []string{string(l[1])}
	}
	r.found(f, name, p)
	return nil
}

// parseComposer reads vendor/composer/installed.json, of Composer 1 (a list) or 2, and
// composer.lock.
func parseComposer(r *reading, _ *layer, name string, f *file, body io.ReaderAt, size int64) error {
	type pkg struct {
		Name, Version string
		License       any
	}
	var all []pkg
	raw, err := text(body, size)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		var v2 struct {
			Packages []pkg
		}
		if err := json.Unmarshal(raw, &v2); err != nil {
			return errors.New("it is no list of Composer")
		}
		all = v2.Packages
	}
	for _, p := range all {
		found := Package{Name: p.Name, Version: strings.TrimPrefix(p.Version, "v"), Type: "composer"}
		if l, ok := p.License.([]any); ok {
			for _, one := range l {
				if s, ok := one.(string); ok && len(found.Licenses) < 10 {
					found.Licenses = append(found.Licenses, s)
				}
			}
		}
		r.found(f, name, found)
	}
	return nil
}

// parseCargoLock reads the tables [[package]] of a Cargo.lock. Those without a source
// are the program's own.
func parseCargoLock(r *reading, _ *layer, name string, f *file, body io.ReaderAt, size int64) error {
	var p Package
	var from string
	end := func() {
		if strings.HasPrefix(from, "registry+") || strings.HasPrefix(from, "sparse+") {
			p.Type = "cargo"
			r.found(f, name, p)
		}
		p, from = Package{}, ""
	}
	err := lines(body, size, func(line []byte) {
		s := strings.TrimSpace(string(line))
		if strings.HasPrefix(s, "[") && !strings.HasPrefix(s, "[\"") {
			end()
			return
		}
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return
		}
		v = strings.Trim(strings.TrimSpace(v), `"`)
		switch strings.TrimSpace(k) {
		case "name":
			p.Name = v
		case "version":
			p.Version = v
		case "source":
			from = v
		}
	})
	end()
	return err
}

// parseNuGet reads the NAME.deps.json that .NET puts beside a program: what it runs with.
// https://github.com/dotnet/sdk/blob/main/documentation/specs/runtime-configuration-file.md
func parseNuGet(r *reading, _ *layer, name string, f *file, body io.ReaderAt, size int64) error {
	var deps struct {
		Libraries map[string]struct{ Type string }
	}
	if err := json.NewDecoder(io.NewSectionReader(body, 0, size)).Decode(&deps); err != nil {
		return errNothing
	}
	for key, lib := range deps.Libraries {
		if lib.Type != "package" && lib.Type != "runtimepack" {
			continue
		}
		n, v, _ := strings.Cut(key, "/")
		r.found(f, name, Package{Name: strings.TrimPrefix(n, "runtimepack."), Version: v, Type: "nuget"})
	}
	return nil
}
