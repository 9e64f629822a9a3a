package daemon

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/registry"
)

// checkRegistryHost refuses a name that cannot be one, or that nothing would serve.
func (c Config) checkRegistryHost() error {
	h := c.RegistryHost
	switch {
	case h == "":
		return nil
	case c.NoRegistry:
		return tender.Errorf(tender.Invalid, "the registry is off, and registry.host is %s", h).Hint("leave one of them out")
	case c.HTTPS == "":
		return tender.Errorf(tender.Invalid, "registry.host is %s, and the edge listens for HTTPS nowhere", h).Hint("leave listen.https as it is, :443")
	case h != strings.ToLower(h) || !strings.Contains(h, ".") || strings.ContainsAny(h, "/:@* ") || strings.HasPrefix(h, ".") || strings.HasSuffix(h, "."):
		return tender.Errorf(tender.Invalid, "registry.host: %q is no name of a host", h).Hint("without a scheme and a port, in small letters: registry.example.com")
	}
	return nil
}

// treeAnonymous reads what everybody may pull.
func treeAnonymous(c *Config, n *yaml.Node) error {
	c.RegistryAnonymous = nil
	return words(&c.RegistryAnonymous, registry.CheckPattern)(plainNode(n))
}

// treeImmutable reads patterns of tags, or mappings that say for which repositories, too.
func treeImmutable(c *Config, n *yaml.Node) error {
	c.RegistryImmutable = nil
	return items(n, "registry.immutable", func(n *yaml.Node) error {
		var i registry.Immutable
		if n.Kind == yaml.ScalarNode {
			i.Tags = []string{n.Value}
		} else if err := mapping(n, "registry.immutable", map[string]func(*yaml.Node) error{
			"repositories": func(n *yaml.Node) error { i.Repositories = n.Value; return nil },
			"tags":         words(&i.Tags, func(string) error { return nil }),
		}); err != nil {
			return err
		}
		if len(i.Tags) == 0 {
			return wrongNode(n, "registry.immutable: tags is missing")
		}
		if err := registry.CheckLimits([]registry.Immutable{i}, nil); err != nil {
			return wrongNode(n, "%s", err)
		}
		c.RegistryImmutable = append(c.RegistryImmutable, i)
		return nil
	})
}

func treeQuotas(c *Config, n *yaml.Node) error {
	c.RegistryQuotas = nil
	return items(n, "registry.quota", func(n *yaml.Node) error {
		var q registry.Quota
		err := mapping(n, "registry.quota", map[string]func(*yaml.Node) error{
			"repositories": func(n *yaml.Node) error { q.Repositories = n.Value; return nil },
			"bytes": func(n *yaml.Node) (err error) {
				if q.Bytes, err = size(n.Value); err != nil {
					return wrongNode(n, "%s", err)
				}
				return nil
			},
			"tags": func(n *yaml.Node) (err error) {
				if q.Tags, err = strconv.Atoi(n.Value); err != nil {
					return wrongNode(n, "%q is not a number", n.Value)
				}
				return nil
			},
		})
		if err != nil {
			return err
		}
		if err := registry.CheckLimits(nil, []registry.Quota{q}); err != nil {
			return wrongNode(n, "%s", err)
		}
		c.RegistryQuotas = append(c.RegistryQuotas, q)
		return nil
	})
}

// items hands each item of a list to who takes it.
func items(n *yaml.Node, what string, take func(*yaml.Node) error) error {
	n = plainNode(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return wrongNode(n, "%s is not a list", what)
	}
	for _, item := range n.Content {
		if err := take(plainNode(item)); err != nil {
			return err
		}
	}
	return nil
}
