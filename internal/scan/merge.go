package scan

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"

	"github.com/tenderhq/tender"
)

// alive is a file that can be seen in the image, and the layer that brought it.
type alive struct {
	*file
	layer int
}

// contents puts the layers on top of each other.
func (r *reading) contents(src Source, img image) Contents {
	c := Contents{
		Reference: img.reference, Digest: img.digest, ImageID: img.id, Created: img.config.Created.UTC(),
		Platform: platform(img.config.OS, img.config.Architecture, img.config.Variant),
		Read:     r.limits.Now.UTC(), Bytes: r.bytes,
	}
	if src.Reference != "" {
		c.Reference = src.Reference
	}
	if src.Digest != "" {
		c.Digest = src.Digest
	}
	steps := img.config.steps(len(img.layers))
	seen := map[string]alive{}
	var left []tender.Finding
	for i, l := range img.layers {
		one := Layer{DiffID: img.config.RootFS.DiffIDs[i], Step: steps[i], Bytes: l.bytes}
		if i < len(img.digests) {
			one.Digest = img.digests[i]
		}
		c.Layers = append(c.Layers, one)
		if l.cut != "" {
			r.cutf("layer %d: %s", i, l.cut)
		}
		for p := range seen {
			if _, again := l.files[p]; !again && l.hides(p) || again && l.removes(p) {
				delete(seen, p)
			}
		}
		for p, f := range l.files {
			for k := range f.packages {
				f.packages[k].Layer = i
			}
			if before, ok := seen[p]; ok {
				since(before.packages, f.packages)
			}
			seen[p] = alive{f, i}
		}
	}
	for i, l := range img.layers {
		left = append(left, r.leaks(l, i, img.layers)...)
	}

	release := seen["etc/os-release"].release()
	if release == nil {
		release = seen["usr/lib/os-release"].release()
	}
	c.Distro = distro(release)
	c.Packages = r.packagesOf(seen, img.layers, c.Distro, release)

	words := img.config.words()
	for i := range c.Layers {
		c.Layers[i].Step = words.mask(c.Layers[i].Step)
	}
	if len(img.config.Config.Labels) > 0 {
		c.Labels = map[string]string{}
		for k, v := range img.config.Config.Labels {
			c.Labels[k] = words.mask(v)
		}
	}
	c.Problems = slices.Concat(words.findings, left, r.setup(img, seen, c.Distro))
	slices.SortStableFunc(c.Problems, func(a, b tender.Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Path, b.Path))
	})
	c.Cut = r.cut
	return c
}

func (a alive) release() map[string]string {
	if a.file == nil {
		return nil
	}
	return a.file.release
}

// since keeps the older layer of what was there before in the same version.
func since(before, now []Package) {
	type key struct{ name, version, arch, path string }
	was := make(map[key]int, len(before))
	for _, p := range before {
		was[key{p.Name, p.Version, p.Arch, p.Path}] = p.Layer
	}
	for i, p := range now {
		if l, ok := was[key{p.Name, p.Version, p.Arch, p.Path}]; ok {
			now[i].Layer = l
		}
	}
}

// packagesOf lists what can be seen. What a language's own files tell of counts only if
// no package of the distribution brought them: python3-yaml is one package, not two.
func (r *reading) packagesOf(seen map[string]alive, layers []*layer, d Distro, release map[string]string) []Package {
	var out []Package
	type key struct{ kind, name, version, arch, path string }
	once := map[key]bool{}
	for p, a := range seen {
		if path.Base(p) == "composer.lock" {
			if _, installed := seen[path.Join(path.Dir(p), "vendor/composer/installed.json")]; installed {
				continue
			}
		}
		for _, one := range a.packages {
			if !a.lists && has(layers[one.Layer].owned, hashOf(usr(p))) {
				continue
			}
			finish(&one, d, release)
			k := key{one.Type, one.Name, one.Version, one.Arch, one.Path}
			if one.Type == "golang" || one.Type == "cargo" || a.lists {
				k.path = p
			}
			if once[k] {
				continue
			}
			once[k] = true
			out = append(out, one)
		}
	}
	slices.SortFunc(out, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Path, b.Path))
	})
	return out
}

var ecosystems = map[string]string{
	"golang": "Go", "npm": "npm", "pypi": "PyPI", "maven": "Maven", "gem": "RubyGems", "cargo": "crates.io", "composer": "Packagist", "nuget": "NuGet",
}

// finish adds what depends on the distribution, or on the whole.
func finish(p *Package, d Distro, release map[string]string) {
	name, version, space := p.Name, p.Version, ""
	var more packageurl.Qualifiers
	add := func(k, v string) {
		if v != "" {
			more = append(more, packageurl.Qualifier{Key: k, Value: v})
		}
	}
	switch p.Type {
	case "deb", "apk", "rpm":
		p.Ecosystem = d.ecosystem(release)
		if space = d.ID; space == "rhel" {
			space = "redhat"
		}
		add("arch", p.Arch)
		if p.Type == "rpm" {
			if epoch, rest, ok := strings.Cut(version, ":"); ok {
				add("epoch", epoch)
				version = rest
			}
		}
		if d.ID != "" {
			add("distro", strings.TrimSuffix(d.ID+"-"+d.Version, "-"))
		}
	case "maven":
		p.Ecosystem = ecosystems[p.Type]
		if g, a, ok := strings.Cut(name, ":"); ok {
			space, name = g, a
		}
	case "pypi":
		p.Ecosystem = ecosystems[p.Type]
		name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	default:
		p.Ecosystem = ecosystems[p.Type]
		if i := strings.LastIndexByte(name, '/'); i > 0 {
			space, name = name[:i], name[i+1:]
		}
	}
	p.PURL = packageurl.NewPackageURL(p.Type, space, name, version, more, "").ToString()
}

// steps says for each layer which step of the Dockerfile made it. Steps without a layer
// are in the history, too; "" where the history does not fit to the layers.
func (c *config) steps(layers int) []string {
	var out []string
	for _, h := range c.History {
		if !h.EmptyLayer {
			out = append(out, step(h.CreatedBy))
		}
	}
	if len(out) > layers {
		return make([]string, layers)
	}
	return append(out, make([]string, layers-len(out))...)
}

const maxStep = 2000

// step says it as it stood in the Dockerfile.
func step(by string) string {
	s := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(clean(strings.Join(strings.Fields(by), " "))), "# buildkit"))
	if n, rest, ok := strings.Cut(s, " "); ok && strings.HasPrefix(n, "|") { // build arguments come first: |1 VERSION=2 /bin/sh -c …
		if _, command, ok := strings.Cut(rest, "/bin/sh -c "); ok {
			s = "/bin/sh -c " + command
		}
	}
	if run, ok := strings.CutPrefix(s, "RUN |"); ok {
		if _, command, ok := strings.Cut(run, "/bin/sh -c "); ok {
			s = "RUN " + command
		}
	}
	s = strings.Replace(s, "RUN /bin/sh -c ", "RUN ", 1)
	if nop, ok := strings.CutPrefix(s, "/bin/sh -c #(nop) "); ok {
		s = strings.TrimSpace(nop)
	} else if run, ok := strings.CutPrefix(s, "/bin/sh -c "); ok {
		s = "RUN " + run
	}
	if len(s) > maxStep {
		s = strings.ToValidUTF8(s[:maxStep], "") + "…"
	}
	return s
}

// sortedNames are a map's keys in order, so that what is said has an order, too.
func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
