package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// walk compares one file with the schema and the table of fields.
type walk struct {
	*check
	tree   *tree
	source source
}

func (w *walk) bad(n *yaml.Node, advice, text string) {
	w.problem(problem{file: w.tree.name, line: n.Line, column: n.Column, text: text, advice: advice})
}

func (w *walk) doubt(n *yaml.Node, text string) {
	w.doubts = append(w.doubts, problem{file: w.tree.name, order: len(w.trees), line: n.Line, column: n.Column, text: text})
}

// node walks n; s is nil where anything may stand.
func (w *walk) node(n *yaml.Node, s *shape, at place) {
	if n.Tag == "!reset" || len(w.problems) > maxCounted {
		return
	}
	n = follow(n)
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") && n.Tag != "!override" {
		w.bad(n, "", at.text("tag %s is not known, only !reset and !override are", n.Tag))
		return
	}
	kind, value, known := "", "", true
	switch n.Kind {
	case yaml.MappingNode:
		kind = "object"
	case yaml.SequenceNode:
		kind = "array"
	default:
		kind, value, known = w.scalar(n, at)
	}
	if s = w.fitting(n, s, kind, known, at); s != nil && kind != "object" && kind != "array" && known {
		w.value(n, s, kind, value, at)
	}
	switch kind {
	case "object":
		w.mapping(n, s, at)
	case "array":
		for i, item := range n.Content {
			var below *shape
			if s != nil {
				below = s.items
			}
			w.node(item, below, at.down(fmt.Sprintf("[%d]", i), "[]"))
		}
	}
	if known && !w.normal {
		w.follow(n, kind, value, at)
	}
}

// fitting returns the alternative of s that a value of this kind is for, and nil
// when there is none; then that has been told.
func (w *walk) fitting(n *yaml.Node, s *shape, kind string, known bool, at place) *shape {
	if s == nil {
		return nil
	}
	if fit := s.choose(kind); fit != nil {
		return fit
	}
	// The parser reads "3" and "true" where it wants a number or a truth value, and
	// so it does with what a variable held.
	if kind == "string" && (s.choose("integer") != nil || s.choose("boolean") != nil) || !known {
		return nil
	}
	if kind == "null" {
		w.doubt(n, at.text("is empty, want %s", s.words()))
		return nil
	}
	if n.Kind == yaml.ScalarNode && s.choose("string") != nil {
		if rule := values[at.field]; rule != nil && rule(n.Value) != nil {
			w.bad(n, "", at.text("%q: %s", n.Value, rule(n.Value)))
			return nil
		}
		w.bad(n, "", at.text("want text: put %s in quotes", n.Value))
		return nil
	}
	w.bad(n, "", at.text("want %s", s.words()))
	return nil
}

// choose finds the alternative for a kind.
func (s *shape) choose(kind string) *shape {
	if len(s.choices) == 0 {
		if s.allows(kind) {
			return s
		}
		return nil
	}
	for _, c := range s.choices {
		if fit := c.choose(kind); fit != nil {
			return fit
		}
	}
	return nil
}

func (w *walk) mapping(n *yaml.Node, s *shape, at place) {
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content) && len(w.problems) <= maxCounted; i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.ShortTag() == "!!merge" || k.Value == "<<" {
			w.merge(v, s, at)
			continue
		}
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			w.bad(k, "", at.text("a key must be text: put %s in quotes", orElse(k.Value, "it")))
			continue
		}
		if first := seen[k.Value]; first != nil {
			w.bad(k, "", at.text("key %q is there already, on line %d", k.Value, first.Line))
			continue
		}
		seen[k.Value] = k
		w.key(k, v, s, at)
	}
	if s == nil {
		return
	}
	for _, need := range s.required {
		if seen[need] == nil {
			w.doubt(n, at.text("%s is missing", need))
		}
	}
	if kind := seen["type"]; at.field == "services.*.volumes.[]" && kind != nil && seen["source"] == nil && w.text(n, "type") == "bind" {
		w.doubt(n, at.text("source is missing"))
	}
}

// merge walks what << brings in, as if it stood here.
func (w *walk) merge(v *yaml.Node, s *shape, at place) {
	v = follow(v)
	switch v.Kind {
	case yaml.MappingNode:
		w.mapping(v, s, at)
	case yaml.SequenceNode:
		for _, m := range v.Content {
			if m = follow(m); m.Kind == yaml.MappingNode {
				w.mapping(m, s, at)
			}
		}
	}
}

func (w *walk) key(k, v *yaml.Node, s *shape, at place) {
	if s == nil {
		w.node(v, nil, at.down(k.Value, "*"))
		return
	}
	below, step, ok := s.of(k.Value)
	if !ok {
		w.unknown(k, s, at)
		return
	}
	if below == nil && strings.HasPrefix(k.Value, "x-") {
		w.extension(k, v, at)
		return
	}
	if step == "" {
		step = "*"
	}
	down := at.down(k.Value, step)
	if step != "*" {
		f, _ := verdictOf(down.field)
		switch {
		case f.verdict == refused && !(follow(v).Value == "false" && follow(v).ShortTag() == "!!bool"):
			w.bad(k, "", down.text("not honoured: %s", f.why))
			return
		case f.verdict == warned && strings.TrimSuffix(f.path, ".**") == down.field:
			w.warn(w.tree, k, down.text("has no effect: %s", f.why))
		case w.normal && outside[down.field]:
			w.bad(k, "", down.text("has no place in the normal form"))
			return
		}
	}
	w.logOption(k, v, down)
	w.node(v, below, down)
}

// outside are fields that point at files: Load has read them.
var outside = map[string]bool{
	"include": true, "services.*.extends": true, "services.*.env_file": true, "services.*.label_file": true,
	"configs.*.file": true, "configs.*.content": true, "configs.*.environment": true, "secrets.*.file": true, "secrets.*.environment": true,
}

func (w *walk) unknown(k *yaml.Node, s *shape, at place) {
	known := slices.Collect(maps.Keys(s.keys))
	switch {
	case len(s.keys) == 0:
		w.bad(k, "", at.text("%q is not a name that can be used here", k.Value))
	case tender.Nearest(k.Value, known) != "":
		w.bad(k, "", at.text("unknown key %q, did you mean %q?", k.Value, tender.Nearest(k.Value, known)))
	case at.field == "services.*" && w.root.deploy(k.Value):
		w.bad(k, "", at.text("unknown key %q, did you mean deploy.%s?", k.Value, k.Value))
	case len(at.path) == 0:
		w.bad(k, "services go under services:", at.text("unknown key %q", k.Value))
	default:
		w.bad(k, "", at.text("unknown key %q", k.Value))
	}
}

// deploy reports whether key belongs under a service's deploy.
func (s *shape) deploy(key string) bool {
	for _, step := range []string{"services", "any", "deploy"} {
		next, _, ok := s.of(step)
		if !ok || next == nil {
			return false
		}
		s = next
	}
	_, ok := s.keys[key]
	return ok
}
