package daemon

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/policy"
)

// Step is one of the pipeline: what runs in it says x-tender: {environment: NAME}.
type Step struct {
	Name string
	// Gate holds beside the general one.
	Gate policy.Gate
	// Where the images of the step lie: with none of them, where they lay before.
	Registry string // the host of a registry
	Prefix   string // before the repository: staging/
	Tag      string // a pattern: {version}-staging
}

// treeGate reads what must hold of all that is to run.
func treeGate(c *Config, n *yaml.Node) (err error) {
	c.Gate, err = gateOf(n, "gate", policy.Gate{}, nil)
	return err
}

// treePipeline reads the steps; the general gate was read before.
func treePipeline(c *Config, n *yaml.Node) error {
	c.Pipeline = nil
	n = plainNode(n)
	if n.Kind != yaml.SequenceNode {
		return wrongNode(n, "pipeline is not a list of steps")
	}
	for _, one := range n.Content {
		var s Step
		var before []string
		for _, p := range c.Pipeline {
			before = append(before, p.Name)
		}
		if err := mapping(one, "pipeline", map[string]func(*yaml.Node) error{
			"name": func(n *yaml.Node) error {
				if n.Kind != yaml.ScalarNode || n.Value == "" || strings.ContainsAny(n.Value, " /:") {
					return wrongNode(n, "want the name of a step, such as staging")
				}
				if slices.Contains(before, n.Value) {
					return wrongNode(n, "the step %s is there twice", n.Value)
				}
				s.Name = n.Value
				return nil
			},
			"gate": func(n *yaml.Node) (err error) {
				s.Gate, err = gateOf(n, "pipeline.gate", c.Gate, before)
				return err
			},
			"registry": place(&s.Registry, checkStepRegistry), "prefix": place(&s.Prefix, checkStepPrefix), "tag": place(&s.Tag, checkStepTag),
		}); err != nil {
			return err
		}
		if s.Name == "" {
			return wrongNode(plainNode(one), "pipeline: a step has no name")
		}
		for _, o := range c.Pipeline {
			if s.Tag != "" && s.Tag == o.Tag && s.Registry == o.Registry && s.Prefix == o.Prefix {
				return wrongNode(plainNode(one), "the steps %s and %s would write the same tags", o.Name, s.Name)
			}
		}
		c.Pipeline = append(c.Pipeline, s)
	}
	return nil
}

// gateOf reads a gate. What a step does not say of its threshold is as the general gate
// has it, so that a lower threshold alone keeps its fixable and grace.
func gateOf(n *yaml.Node, what string, general policy.Gate, before []string) (policy.Gate, error) {
	var g policy.Gate
	var deny, fixable, grace *yaml.Node
	keep := func(to **yaml.Node) func(*yaml.Node) error {
		return func(n *yaml.Node) error { *to = n; return nil }
	}
	anything := func(string) error { return nil }
	take := map[string]func(*yaml.Node) error{
		"deny": keep(&deny), "fixable": keep(&fixable), "grace": keep(&grace),
		"scan_age": days(&g.ScanAge), "base_age": days(&g.BaseAge),
		"sign": words(&g.Sign, anything), "registries": words(&g.Registries, policy.CheckRegistry),
		"rules": func(n *yaml.Node) (err error) { g.Rules, err = gateRules(n, what); return err },
	}
	take["promoted"] = func(n *yaml.Node) error {
		if n.Value != "true" && n.Value != "false" {
			return wrongNode(n, "%s.promoted: %q is neither true nor false", what, n.Value)
		}
		g.Promoted = n.Value == "true"
		return nil
	}
	if before != nil || what != "gate" {
		take["from"] = func(n *yaml.Node) error {
			if !slices.Contains(before, n.Value) {
				return wrongNode(n, "%s.from: %q is no step before this one", what, n.Value)
			}
			g.From = n.Value
			return nil
		}
	}
	if err := mapping(n, what, take); err != nil {
		return g, err
	}
	if deny == nil && fixable == nil && grace == nil {
		return g, nil
	}
	g.Deny, g.Fixable, g.Grace = general.Deny, general.Fixable, general.Grace
	if deny != nil {
		s, err := tender.ParseSeverity(deny.Value)
		if err != nil || s < tender.Low {
			return g, wrongNode(deny, "%s.deny: %q is none of low, medium, high, critical", what, deny.Value)
		}
		g.Deny = s
	}
	if g.Deny == 0 {
		return g, wrongNode(plainNode(n), "%s: fixable and grace say nothing without deny", what)
	}
	if fixable != nil {
		if fixable.Value != "true" && fixable.Value != "false" {
			return g, wrongNode(fixable, "%s.fixable: %q is neither true nor false", what, fixable.Value)
		}
		g.Fixable = fixable.Value == "true"
	}
	if grace != nil && grace.Value == "0" {
		g.Grace = 0
	} else if grace != nil {
		if err := days(&g.Grace)(grace); err != nil {
			return g, err
		}
	}
	return g, nil
}

func days(to *time.Duration) func(*yaml.Node) error {
	return func(n *yaml.Node) (err error) {
		if *to, err = age(n.Value); err != nil {
			return wrongNode(n, "%s", err)
		}
		return nil
	}
}

// gateRules reads rules in CEL, and what is wrong with them where it stands.
func gateRules(n *yaml.Node, what string) ([]policy.Rule, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, wrongNode(n, "%s.rules is not a list of rules", what)
	}
	var out []policy.Rule
	var compiler policy.Compiler
	for _, one := range n.Content {
		var r policy.Rule
		at := one
		word := func(to *string) func(*yaml.Node) error {
			return func(n *yaml.Node) error {
				if n.Kind != yaml.ScalarNode {
					return wrongNode(n, "want a text")
				}
				*to = n.Value
				return nil
			}
		}
		if err := mapping(one, what+".rules", map[string]func(*yaml.Node) error{
			"name": word(&r.Name), "why": word(&r.Why), "fix": word(&r.Fix),
			"expr": func(n *yaml.Node) error { at = n; return word(&r.Expr)(n) },
			"warn": func(n *yaml.Node) error {
				if n.Value != "true" && n.Value != "false" {
					return wrongNode(n, "%q is neither true nor false", n.Value)
				}
				r.Warn = n.Value == "true"
				return nil
			},
		}); err != nil {
			return nil, err
		}
		if r.Name == "" || strings.HasPrefix(r.Name, "gate/") || slices.ContainsFunc(out, func(o policy.Rule) bool { return o.Name == r.Name }) {
			return nil, wrongNode(one, "%s.rules: a rule needs a name of its own, not %q", what, r.Name)
		}
		r, err := compiler.Compile(r)
		if err != nil {
			return nil, wrongNode(at, "rule %s, %s", r.Name, err)
		}
		out = append(out, r)
	}
	return out, nil
}
