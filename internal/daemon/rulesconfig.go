package daemon

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/metrics"
)

// mapping hands each value of a mapping to who takes its key.
func mapping(n *yaml.Node, what string, take map[string]func(*yaml.Node) error) error {
	n = plainNode(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return wrongNode(n, "%s is not a mapping", what)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], plainNode(n.Content[i+1])
		f := take[k.Value]
		if f == nil {
			f = take["*"]
		}
		switch {
		case seen[k.Value]:
			return wrongNode(k, "%s.%s is there twice", what, k.Value)
		case f == nil:
			if near := tender.Nearest(k.Value, slices.Collect(maps.Keys(take))); near != "" && near != "*" {
				return wrongNode(k, "unknown key %q, did you mean %q?", what+"."+k.Value, near)
			}
			return wrongNode(k, "unknown key %q", what+"."+k.Value)
		}
		seen[k.Value] = true
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

func plainNode(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode || n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
			continue
		}
		n = n.Content[0]
	}
	return n
}

func wrongNode(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%d:%d: %s", n.Line, n.Column, fmt.Sprintf(format, args...))
}

// words reads a list of words, or one.
func words(to *[]string, check func(string) error) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		list := []*yaml.Node{n}
		if n.Kind == yaml.SequenceNode {
			list = n.Content
		}
		for _, one := range list {
			one = plainNode(one)
			if one.Kind != yaml.ScalarNode || one.Value == "" {
				return wrongNode(one, "want a word or a list of words")
			}
			if err := check(one.Value); err != nil {
				return wrongNode(one, "%s", err)
			}
			*to = append(*to, one.Value)
		}
		return nil
	}
}

func ruleFile(v string) error {
	if !filepath.IsAbs(v) {
		return fmt.Errorf("%q is not an absolute path", v)
	}
	_, err := filepath.Match(v, "")
	return err
}

func promDuration(to *time.Duration, least time.Duration) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		d, err := model.ParseDuration(n.Value)
		if err != nil || time.Duration(d) < least {
			return wrongNode(n, "%q is not a duration such as 1m, of at least %s", n.Value, least)
		}
		*to = time.Duration(d)
		return nil
	}
}

// treeRules reads where rules stand beside those of projects.
func treeRules(c *Config, n *yaml.Node) error {
	c.RuleFiles, c.LogRuleFiles, c.RulesEvery = nil, nil, 0
	return mapping(n, "rules", map[string]func(*yaml.Node) error{
		"files": words(&c.RuleFiles, ruleFile), "logs": words(&c.LogRuleFiles, ruleFile), "every": promDuration(&c.RulesEvery, time.Second),
	})
}

// treeAlerts reads what is different of the built-in set.
func treeAlerts(c *Config, n *yaml.Node) error {
	b := metrics.Builtin{Set: map[string]metrics.Tuning{}}
	err := mapping(n, "alerts", map[string]func(*yaml.Node) error{
		"off": words(&b.Off, func(string) error { return nil }),
		"set": func(n *yaml.Node) error {
			if n.Kind != yaml.MappingNode {
				return wrongNode(n, "alerts.set is not a mapping")
			}
			for i := 0; i+1 < len(n.Content); i += 2 {
				var t metrics.Tuning
				name := n.Content[i].Value
				if err := mapping(n.Content[i+1], "alerts.set."+name, map[string]func(*yaml.Node) error{
					"threshold": func(n *yaml.Node) error {
						f, err := strconv.ParseFloat(n.Value, 64)
						if err != nil {
							return wrongNode(n, "%q is not a number", n.Value)
						}
						t.Threshold = &f
						return nil
					},
					"for": func(n *yaml.Node) error {
						t.For = new(time.Duration)
						return promDuration(t.For, 0)(n)
					},
					"severity": func(n *yaml.Node) error {
						t.Severity = n.Value
						return nil
					},
				}); err != nil {
					return err
				}
				b.Set[name] = t
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	if slices.Contains(b.Off, "all") {
		b.Off, b.None = nil, true
	}
	if _, err := metrics.BuiltinGroups(b); err != nil {
		return wrongNode(plainNode(n), "alerts: %s", err)
	}
	c.Builtin = b
	return nil
}

// treeHeartbeat reads whom to call while all is well: a URL, or {url, every}.
func treeHeartbeat(c *Config, n *yaml.Node) error {
	c.Heartbeat, c.HeartbeatEvery = "", 0
	take := func(n *yaml.Node) error {
		u, err := url.Parse(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return wrongNode(n, "heartbeat: want an address such as https://hc-ping.com/…") // what is there may be secret
		}
		c.Heartbeat = n.Value
		return nil
	}
	n = plainNode(n)
	if n.Kind == yaml.ScalarNode {
		if n.Value == "" {
			return nil
		}
		return take(n)
	}
	if err := mapping(n, "heartbeat", map[string]func(*yaml.Node) error{"url": take, "every": promDuration(&c.HeartbeatEvery, time.Second)}); err != nil {
		return err
	}
	if c.Heartbeat == "" {
		return wrongNode(n, "heartbeat: url is missing")
	}
	return nil
}

// treeSetter is the same in a flag and in a variable.
func treeSetter(tree func(*Config, *yaml.Node) error) func(*Config, string) error {
	return func(c *Config, v string) error {
		var n yaml.Node
		if err := yaml.Unmarshal([]byte(v), &n); err != nil || n.Kind == 0 {
			return err
		}
		return tree(c, &n)
	}
}
