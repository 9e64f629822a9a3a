// Package convert turns what people have into what Tender reads: a docker run
// into a Compose file, the configuration of HAProxy or nginx into routes. It hides
// docker's flags, a shell's quotes and two grammars; the command line knocks. It
// reads no file, asks no engine, and drops nothing in silence: what has no
// counterpart is named.
package convert

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// Result is what a docker run comes to.
type Result struct {
	YAML  string
	Notes []string // what is meant differently, or was left out as it only concerns the terminal
}

// Run turns a docker run into a Compose file: every flag has its field, or
// is refused by its name. One word is a whole command line as a shell reads it;
// several are what a shell has made of one.
func Run(words []string) (Result, error) {
	if len(words) == 1 {
		var err error
		if words, err = shellWords(words[0]); err != nil {
			return Result{}, fmt.Errorf("convert: %w", err)
		}
	} else {
		words = slices.Clone(words)
		for i := range words {
			words[i] = dollars(words[i])
		}
	}
	for len(words) > 0 && slices.Contains([]string{"sudo", "docker", "container"}, words[0]) {
		words = words[1:]
	}
	if len(words) == 0 || words[0] != "run" && words[0] != "create" {
		return Result{}, tender.Errorf(tender.Invalid, "convert: this is no docker run").Hint("tender convert 'docker run -d -p 80:8080 --name web nginx'")
	}
	c := &conversion{service: mapping(), networks: mapping(), volumes: mapping()}
	rest, err := c.flags(words[1:])
	if err != nil {
		return Result{}, fmt.Errorf("convert: %w", err)
	}
	if len(rest) == 0 {
		return Result{}, tender.Errorf(tender.Invalid, "convert: no image is named").Hint("an image follows the flags: docker run [flags] IMAGE [COMMAND...]")
	}
	c.image = rest[0]
	if len(rest) > 1 {
		c.command = rest[1:]
	}
	if err := c.finish(); err != nil {
		return Result{}, fmt.Errorf("convert: %w", err)
	}
	return c.write()
}

// conversion collects a service, flag by flag.
type conversion struct {
	service, networks, volumes *yaml.Node
	name, container            string // as a key, and as said with --name
	image, volumeDriver        string
	command                    []string
	joined                     []string // networks, in their order
	own                        []setting
	remove                     bool
	notes                      []string
}

// setting is one of an instance's in its first network: they may stand before it.
type setting struct {
	flag, key string
	value     any
	many      bool
}

func (c *conversion) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// flags reads them up to the image, as docker does, and returns the rest.
func (c *conversion) flags(words []string) ([]string, error) {
	for len(words) > 0 {
		w := words[0]
		switch {
		case w == "--":
			return words[1:], nil
		case strings.HasPrefix(w, "--"):
			name, value, has := strings.Cut(w[2:], "=")
			f := flagCalled(name)
			if f == nil {
				return nil, unknownFlag("--" + name)
			}
			words = words[1:]
			if !has && !f.alone {
				if len(words) == 0 {
					return nil, tender.Errorf(tender.Invalid, "--%s wants a value", name)
				}
				value, words = words[0], words[1:]
			}
			if err := c.one(f, value, has); err != nil {
				return nil, err
			}
		case strings.HasPrefix(w, "-") && len(w) > 1:
			words = words[1:]
			for rest := w[1:]; rest != ""; {
				f := flagCalled(rest[:1])
				if f == nil {
					return nil, unknownFlag("-" + rest[:1])
				}
				rest = rest[1:]
				if f.alone {
					if strings.HasPrefix(rest, "=") {
						if err := c.one(f, rest[1:], true); err != nil {
							return nil, err
						}
						break
					}
					if err := c.one(f, "", false); err != nil {
						return nil, err
					}
					continue
				}
				value := strings.TrimPrefix(rest, "=")
				if rest == "" {
					if len(words) == 0 {
						return nil, tender.Errorf(tender.Invalid, "--%s wants a value", f.name)
					}
					value, words = words[0], words[1:]
				}
				if err := c.one(f, value, true); err != nil {
					return nil, err
				}
				break
			}
		default:
			return words, nil
		}
	}
	return nil, nil
}

func (c *conversion) one(f *runFlag, value string, has bool) error {
	if f.alone {
		on := true
		if has {
			var err error
			if on, err = strconv.ParseBool(value); err != nil {
				return tender.Errorf(tender.Invalid, "--%s=%s: true or false", f.name, value)
			}
		}
		if !on && f.refuse == "" {
			return nil
		}
		value = "true"
	}
	if f.refuse != "" {
		return tender.Errorf(tender.Invalid, "--%s: %s", f.name, f.refuse).Hint("leave it out: tender convert does the rest")
	}
	if f.terminal {
		return nil
	}
	if err := f.put(c, value); err != nil {
		return tender.Errorf(tender.Invalid, "--%s %s: %w", f.name, value, err)
	}
	return nil
}

func unknownFlag(name string) error {
	return tender.Errorf(tender.Invalid, "docker run has no flag %s", name).Hint("see: docker run --help")
}

var (
	variable   = regexp.MustCompile(`\$\{[^}]*\}`)
	notInAName = regexp.MustCompile(`[^a-zA-Z0-9._-]+`)
)

// finish puts in what depends on several flags.
func (c *conversion) finish() error {
	name := c.name
	if name == "" {
		name = c.image
		name = name[strings.LastIndexByte(name, '/')+1:]
		name, _, _ = strings.Cut(name, "@")
		name, _, _ = strings.Cut(name, ":")
	} else {
		c.container = name
		c.note("container_name keeps the name %s; without it several instances can run, and one can replace another without a gap", c.name)
	}
	// The key of a service is not filled in, so variables leave it.
	c.name = strings.Trim(notInAName.ReplaceAllString(variable.ReplaceAllString(name, ""), "-"), "-._")
	if c.name == "" {
		c.name = "app"
	}
	if c.remove {
		if at(c.service, "restart") != nil {
			return tender.Errorf(tender.Invalid, "--rm and --restart exclude each other, for docker, too")
		}
		set(c.service, "restart", "no")
		c.note("--rm: it runs once and is kept for its exit code; tender run --rm %s runs it and removes it", c.name)
	}
	switch first := firstOf(c.joined); {
	case len(c.own) > 0 && (first == "" || c.has("network_mode")):
		return tender.Errorf(tender.Invalid, "--%s needs a --network that was made by somebody", c.own[0].flag)
	case first != "":
		in := under(c.service, "networks", first)
		for _, s := range c.own {
			if s.many {
				add(in, s.key, s.value)
			} else {
				set(in, s.key, s.value)
			}
		}
	}
	if c.volumeDriver != "" {
		for i := 1; i < len(c.volumes.Content); i += 2 {
			set(c.volumes.Content[i], "driver", c.volumeDriver)
		}
	}
	return nil
}

func (c *conversion) has(key string) bool { return at(c.service, key) != nil }

// write puts the image first and the command last.
func (c *conversion) write() (Result, error) {
	s := mapping()
	set(s, "image", c.image)
	if c.container != "" {
		set(s, "container_name", c.container)
	}
	s.Content = append(s.Content, c.service.Content...)
	if c.command != nil {
		set(s, "command", c.command)
	}
	doc := mapping()
	put(under(doc, "services"), c.name, s)
	if len(c.networks.Content) > 0 {
		put(doc, "networks", c.networks)
	}
	if len(c.volumes.Content) > 0 {
		put(doc, "volumes", c.volumes)
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(doc); err != nil {
		return Result{}, err
	}
	return Result{YAML: b.String(), Notes: c.notes}, nil
}

func mapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"} }

func scalar(v any) *yaml.Node {
	n := new(yaml.Node)
	if err := n.Encode(v); err != nil {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: fmt.Sprint(v)}
	}
	if n.Kind == yaml.SequenceNode {
		n.Style = yaml.FlowStyle // a command stands on one line
	}
	return n
}

func at(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func put(m *yaml.Node, key string, value *yaml.Node) {
	if old := at(m, key); old != nil {
		*old = *value
		return
	}
	m.Content = append(m.Content, scalar(key), value)
}

func set(m *yaml.Node, key string, value any) { put(m, key, scalar(value)) }

// under returns the mapping at a path, which it makes.
func under(m *yaml.Node, path ...string) *yaml.Node {
	for _, key := range path {
		n := at(m, key)
		if n == nil {
			n = mapping()
			put(m, key, n)
		}
		m = n
	}
	return m
}

func add(m *yaml.Node, key string, value any) {
	n := at(m, key)
	if n == nil {
		n = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		put(m, key, n)
	}
	v, ok := value.(*yaml.Node)
	if !ok {
		v = scalar(value)
	}
	n.Content = append(n.Content, v)
}

func firstOf(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}
