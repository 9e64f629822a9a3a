package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// form is what the command line reads of a normal form; the rest is compose's.
type form struct {
	Services map[string]struct {
		Image      string   `yaml:"image"`
		PullPolicy string   `yaml:"pull_policy"`
		Profiles   []string `yaml:"profiles"`
		Build      any      `yaml:"build"`
	} `yaml:"services"`
	Volumes map[string]struct {
		Name     string `yaml:"name"`
		External bool   `yaml:"external"`
	} `yaml:"volumes"`
	Networks map[string]any `yaml:"networks"`
}

func readForm(text string) (form, error) {
	var f form
	if err := yaml.Unmarshal([]byte(text), &f); err != nil {
		return f, fmt.Errorf("read the normal form: %w", err)
	}
	return f, nil
}

// withImages puts other images into a normal form.
func withImages(text string, images map[string]string) (string, error) {
	if len(images) == 0 {
		return text, nil
	}
	return edit(text, func(root *yaml.Node) error {
		services := field(root, "services")
		for _, name := range sortedKeys(images) {
			s := field(services, name)
			if s == nil {
				hint := "services: " + strings.Join(keys(services), ", ")
				return misuse(hint, "--image %s=%s: no service %q", name, images[name], name)
			}
			put(s, "image", images[name])
		}
		return nil
	})
}

// onlyServices drops every service that in does not hold.
func onlyServices(text string, in map[string]bool) (string, error) {
	return edit(text, func(root *yaml.Node) error {
		services := field(root, "services")
		if services == nil {
			return tender.Errorf(tender.Invalid, "no services")
		}
		var kept []*yaml.Node
		for i := 0; i+1 < len(services.Content); i += 2 {
			if in[services.Content[i].Value] {
				kept = append(kept, services.Content[i], services.Content[i+1])
			}
		}
		services.Content = kept
		return nil
	})
}

// readable turns a normal form into a Compose file for people and other tools:
// without the marks of the format, with contents of configs back in their place
// and dollar signs doubled, as docker compose config prints them.
func readable(text string, files map[string][]byte) (string, error) {
	return edit(text, func(root *yaml.Node) error {
		drop(root, "x-tender-format")
		if configs := field(root, "configs"); configs != nil {
			for _, key := range keys(configs) {
				c := field(configs, key)
				sum := field(c, "x-tender-sha256")
				if sum == nil {
					continue
				}
				if raw, ok := files[sum.Value]; ok && utf8.Valid(raw) {
					drop(c, "x-tender-sha256")
					put(c, "content", string(raw))
				}
			}
		}
		double(root)
		return nil
	})
}

func double(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		n.Value = strings.ReplaceAll(n.Value, "$", "$$")
	}
	for _, c := range n.Content {
		double(c)
	}
}

func drop(m *yaml.Node, key string) {
	if m == nil || m.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			m.Content = slices.Delete(m.Content, i, i+2)
			return
		}
	}
}

// edit changes YAML in place: order and comments stay.
func edit(text string, change func(root *yaml.Node) error) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", fmt.Errorf("read the normal form: %w", err)
	}
	if len(doc.Content) == 0 {
		return "", tender.Errorf(tender.Invalid, "the normal form is empty")
	}
	if err := change(doc.Content[0]); err != nil {
		return "", err
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return "", fmt.Errorf("write the normal form: %w", err)
	}
	return b.String(), e.Close()
}

// field returns the value under key of a mapping, or nil.
func field(m *yaml.Node, key string) *yaml.Node {
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func keys(m *yaml.Node) []string {
	if m == nil {
		return nil
	}
	var out []string
	for i := 0; i+1 < len(m.Content); i += 2 {
		out = append(out, m.Content[i].Value)
	}
	return out
}

// put sets key of a mapping to a string.
func put(m *yaml.Node, key, value string) {
	if n := field(m, key); n != nil {
		*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Style: yaml.DoubleQuotedStyle}
		return
	}
	m.Content = append(m.Content,
		&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key},
		// Quoted, because the library does not keep every text of several lines otherwise.
		&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Style: yaml.DoubleQuotedStyle})
}

// indent moves every line two columns in.
func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}
