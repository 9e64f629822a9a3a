package forward

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// parser keeps the first error, and the names of the secrets.
type parser struct {
	err     error
	secrets []string
}

func (p *parser) fail(n *yaml.Node, hint, format string, args ...any) {
	if p.err == nil {
		p.err = tender.Errorf(tender.Invalid, "%d:%d: %s", n.Line, n.Column, fmt.Sprintf(format, args...)).Hint("%s", hint)
	}
}

// section is a mapping of the file. What is asked for is known; done refuses the rest.
type section struct {
	*parser
	path   string
	node   *yaml.Node
	names  []string // in the file's order
	keys   map[string]*yaml.Node
	values map[string]*yaml.Node
	asked  map[string]bool
}

func (p *parser) section(n *yaml.Node, path string) *section {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	s := &section{parser: p, path: path, node: n, keys: map[string]*yaml.Node{}, values: map[string]*yaml.Node{}, asked: map[string]bool{}}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return s
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n, "see docs/sinks.md", "%s is not a mapping", path)
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if s.values[k.Value] != nil {
			p.fail(k, "keep one of them", "%s.%s is there twice", path, k.Value)
		}
		s.names = append(s.names, k.Value)
		s.keys[k.Value], s.values[k.Value] = k, n.Content[i+1]
	}
	return s
}

func (s *section) has(key string) bool {
	s.asked[key] = true
	return s.values[key] != nil
}

// value is the node to point at when that of key is wrong.
func (s *section) value(key string) *yaml.Node {
	if v := s.values[key]; v != nil {
		return v
	}
	return s.node
}

func (s *section) section(key string) *section {
	s.has(key)
	return s.parser.section(s.values[key], s.path+"."+key)
}

func (s *section) optional(key string) *section {
	if !s.has(key) {
		return nil
	}
	return s.section(key)
}

// done refuses the keys that nobody asked for.
func (s *section) done(also ...string) {
	for _, k := range also {
		s.asked[k] = true
	}
	for _, name := range s.names {
		if s.asked[name] {
			continue
		}
		known := make([]string, 0, len(s.asked))
		for k := range s.asked {
			known = append(known, k)
		}
		slices.Sort(known)
		s.fail(s.keys[name], "known here: "+strings.Join(known, ", "), "unknown key %q", s.path+"."+name)
	}
}

// text is a scalar, standard where it is not there.
func (s *section) text(key, standard string) string {
	if !s.has(key) {
		return standard
	}
	v := s.values[key]
	if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
		s.fail(v, "write one value", "%s.%s is not a text", s.path, key)
		return standard
	}
	return v.Value
}

func (s *section) must(key, example string) string {
	v := s.text(key, "")
	if v == "" {
		s.fail(s.value(key), fmt.Sprintf("add, for example: %s: %s", key, example), "%s has no %s", s.path, key)
	}
	return v
}

func (s *section) bool(key string) bool {
	switch v := s.text(key, "false"); v {
	case "true":
		return true
	case "false":
	default:
		s.fail(s.value(key), "true or false", "%s.%s: %q is not known", s.path, key, v)
	}
	return false
}

// list is one text or several.
func (s *section) list(key string) (out []string) {
	if !s.has(key) {
		return nil
	}
	v := s.values[key]
	if v.Kind == yaml.ScalarNode {
		return []string{s.text(key, "")}
	}
	for _, n := range v.Content {
		if v.Kind != yaml.SequenceNode || n.Kind != yaml.ScalarNode {
			s.fail(v, "write [one, two]", "%s.%s is not a list of texts", s.path, key)
			return nil
		}
		out = append(out, n.Value)
	}
	if out == nil {
		s.fail(v, "leave it out for all", "%s.%s is empty", s.path, key)
	}
	return out
}

// word is one of a few.
func (s *section) word(key string, words ...string) string {
	v := s.text(key, words[0])
	if !slices.Contains(words, v) {
		s.fail(s.value(key), "it may be "+strings.Join(words, " or "), "%s.%s: %q is not known", s.path, key, v)
	}
	return v
}

func (s *section) duration(key string, standard, least, most time.Duration) time.Duration {
	v := s.text(key, standard.String())
	d, err := time.ParseDuration(v)
	if err != nil || d < least || d > most {
		s.fail(s.value(key), fmt.Sprintf("from %s to %s", least, most), "%s.%s: %q is no such time", s.path, key, v)
		return standard
	}
	return d
}

func (s *section) size(key string, standard, least, most int) int {
	if !s.has(key) {
		return standard
	}
	v := s.text(key, "")
	n, err := units.RAMInBytes(v)
	if err != nil || n < int64(least) || n > int64(most) {
		s.fail(s.value(key), fmt.Sprintf("from %s to %s", units.BytesSize(float64(least)), units.BytesSize(float64(most))), "%s.%s: %q is no such size", s.path, key, v)
		return standard
	}
	return int(n)
}

// secret is the name of one: {secret: NAME}. A value is refused.
func (s *section) secret(key string) string {
	if !s.has(key) {
		return ""
	}
	v := s.values[key]
	if v.Kind != yaml.MappingNode {
		s.fail(v, fmt.Sprintf("keep the value in the vault (tender secret set NAME) and write %s: {secret: NAME}", key), "%s.%s: secrets are named here, never written", s.path, key)
		return ""
	}
	in := s.section(key)
	name := in.must("secret", "NAME")
	in.done()
	s.secrets = append(s.secrets, name)
	return name
}

// security reads tls: {ca: FILE, insecure: BOOL}.
func (s *section) security() security {
	var t security
	in := s.optional("tls")
	if in == nil {
		return t
	}
	t.insecure = in.bool("insecure")
	if file := in.text("ca", ""); file != "" {
		pem, err := os.ReadFile(file)
		if err == nil {
			err = t.trust(pem)
		}
		if err != nil {
			s.fail(in.value("ca"), "name a file with certificates in PEM", "%s.ca: %v", in.path, err)
		}
	}
	in.done()
	return t
}

// address reads an URL of one of the schemes. One that would carry logs in the
// clear to another host must say so.
func (s *section) address(key, text, example string, t security, clear []string, safe []string) *url.URL {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || !slices.Contains(append(slices.Clone(clear), safe...), u.Scheme) {
		s.fail(s.value(key), "write it like "+example, "%s.%s: %q is no address", s.path, key, text)
		return &url.URL{}
	}
	if u.User != nil {
		s.fail(s.value(key), "take them out of the address: user: NAME and password: {secret: NAME}", "%s.%s: secrets are named here, never written", s.path, key)
	}
	if slices.Contains(clear, u.Scheme) && !t.insecure && !isLoopback(u.Hostname()) {
		s.fail(s.value(key), fmt.Sprintf("use %s://, or say that it may be: tls: {insecure: true}", safe[0]), "%s.%s: to %s logs would cross the network in the clear", s.path, key, u.Host)
	}
	return u
}
