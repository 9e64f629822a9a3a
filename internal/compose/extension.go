package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// extension is what x-tender says of a service.
type extension struct {
	Boot    string
	Publish string
	Rollout tender.Rollout // without what update_config says
	Routes  []tender.Route
	Scale   *tender.Scale
	Update  *tender.Update
}

// extensionOf reads x-tender of a service. Unknown keys and wrong values were
// refused before, where they have a line; what comes another way is refused here.
func extensionOf(s types.ServiceConfig) (extension, error) {
	var x extension
	m, ok := s.Extensions[extensionKey].(map[string]any)
	if !ok {
		return x, nil
	}
	r := reader{path: extensionKey}
	x.Boot = r.text(m, "boot")
	x.Publish = r.text(m, "publish")
	if m, ok := m["rollout"].(map[string]any); ok {
		x.Rollout = r.at("rollout").rollout(m)
	}
	if _, err := logsOf(s); err != nil {
		return x, err
	}
	if m, ok := m["scale"].(map[string]any); ok {
		x.Scale = r.at("scale").scale(m)
	}
	if m, ok := m["update"].(map[string]any); ok {
		x.Update = r.at("update").update(m)
	}
	if _, err := metricsOf(s); err != nil {
		return x, err
	}
	if _, err := alertsOf(m); err != nil {
		return x, err
	}
	for i, v := range r.list(m, "routes") {
		route := r.at(fmt.Sprintf("routes[%d]", i)).route(v)
		route.Service = s.Name
		x.Routes = append(x.Routes, route)
	}
	return x, r.err()
}

// word is what may stand at one place of x-tender: one value, a list or a
// mapping. The same words check a file with its lines, are published as a
// schema, and keep what later versions know apart from what nobody does.
type word struct {
	about    string                                // one line, for the schema
	kind     string                                // of a value: string, integer, number, boolean; "": any
	rule     func(v string) error                  // what the value must be beside
	enum     []string                              // the values there are
	also     []string                              // values beside those that rule takes
	keys     map[string]*word                      // a mapping of these
	free     *word                                 // a mapping of names of the user's choice
	items    *word                                 // a list of these
	or       *word                                 // or this, where it is of another kind
	must     []string                              // keys that may not be missing
	named    func(key string) error                // what keys of the user's choice must be
	fits     func(has func(key string) bool) error // what keys must be together
	language string                                // of the expression that it is
	later    bool                                  // another version knows it
}

// extension checks a key that begins with x-: those of Tender's own strictly,
// others only for their variables.
func (w *walk) extension(k, v *yaml.Node, at place) {
	down := at.down(k.Value, "x-")
	if !strings.HasPrefix(k.Value, extensionKey) {
		w.node(v, nil, down)
		return
	}
	if k.Value != extensionKey {
		own := k.Value == formatKey && at.field == "" || k.Value == contentKey && at.field == "configs.*" || k.Value == secretKey && at.field == "secrets.*"
		if !w.normal || !own {
			w.bad(k, "", at.text("unknown key %q%s", k.Value, meant(k.Value, []string{extensionKey})))
		}
		return
	}
	words := map[string]*word{"services.*": serviceWords, "volumes.*": volumeWords, "": projectWords}[at.field]
	if words == nil {
		w.bad(k, "", at.text("x-tender has no place here, only in a service, a volume or at the top"))
		return
	}
	w.word(v, words, down)
}

// word compares a node with what may stand there.
func (w *walk) word(n *yaml.Node, s *word, at place) {
	if n.Tag == "!reset" || len(w.problems) > maxCounted {
		return
	}
	n = follow(n)
	if s.or != nil && !s.takes(n) && s.or.takes(n) {
		s = s.or
	}
	switch {
	case s.keys != nil || s.free != nil:
		if n.Kind != yaml.MappingNode {
			w.bad(n, "", at.text("want %s", s.wants()))
			return
		}
		seen := map[string]bool{}
		w.wordKeys(n, s, at, seen)
		if s.fits != nil {
			if err := s.fits(func(key string) bool { return seen[key] }); err != nil {
				w.bad(n, "", at.text("%s", err))
			}
		}
	case s.items != nil:
		if n.Kind != yaml.SequenceNode {
			w.bad(n, "", at.text("want %s", s.wants()))
			return
		}
		for i, item := range n.Content {
			w.word(item, s.items, at.down(fmt.Sprintf("[%d]", i), "[]"))
		}
	case n.Kind != yaml.ScalarNode:
		w.bad(n, "", at.text("want one value"))
	default:
		kind, value, known := w.scalar(n, at)
		if !known {
			return
		}
		if err := s.check(kind, value); err != nil {
			w.bad(n, "", at.text("%q: %s", value, err))
			return
		}
		if s.language != "" && w.expr != nil {
			if err := w.expr(s.language, value); err != nil {
				w.bad(n, "", at.text("%s", err))
			}
		}
	}
}

// takes reports whether n is of the kind that s is.
func (s *word) takes(n *yaml.Node) bool {
	switch {
	case s.keys != nil || s.free != nil:
		return n.Kind == yaml.MappingNode
	case s.items != nil:
		return n.Kind == yaml.SequenceNode
	}
	return n.Kind == yaml.ScalarNode
}

func (s *word) wants() string {
	what := "a mapping"
	if s.items != nil {
		what = "a list"
	} else if s.keys == nil && s.free == nil {
		what = "one value"
	}
	if s.or != nil {
		what = s.or.wants() + " or " + what
	}
	return what
}

// check compares one value with what it may be.
func (s *word) check(kind, value string) error {
	if slices.Contains(s.also, value) {
		return nil
	}
	switch {
	case kind == "null" && slices.Contains(s.also, ""):
		return nil
	case kind == "null":
		return fmt.Errorf("it is empty")
	case s.kind == "boolean" && value != "true" && value != "false":
		return fmt.Errorf("want true or false")
	case s.kind == "string" && kind != "string":
		return fmt.Errorf("want text: put it in quotes")
	case len(s.enum) > 0 && !slices.Contains(s.enum, value):
		return fmt.Errorf("want %s%s", list(s.enum), meant(value, s.enum))
	case s.rule != nil:
		return s.rule(value)
	}
	return nil
}

// wordKeys walks a mapping of x-tender; seen are its keys, those merged in among them.
func (w *walk) wordKeys(n *yaml.Node, s *word, at place, seen map[string]bool) {
	own := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Value == "<<" {
			if m := follow(v); m.Kind == yaml.MappingNode {
				w.wordKeys(m, s, at, seen)
			}
			continue
		}
		below := s.keys[k.Value]
		if s.free != nil {
			below = s.free
		}
		switch {
		case own[k.Value]:
			w.bad(k, "", at.text("key %q is there already", k.Value))
		case below == nil:
			w.bad(k, "", at.text("unknown key %q%s", k.Value, meant(k.Value, slices.Collect(maps.Keys(s.keys)))))
		case s.named != nil && s.named(k.Value) != nil:
			w.bad(k, "", at.text("%q: %s", k.Value, s.named(k.Value)))
		case below.later:
			w.bad(k, "", at.down(k.Value, "x-").text("not known to this version"))
		default:
			w.word(v, below, at.down(k.Value, "x-"))
		}
		own[k.Value], seen[k.Value] = true, true
	}
	for _, key := range s.must {
		if !seen[key] {
			w.bad(n, "", at.text("%s is missing", key))
		}
	}
}
