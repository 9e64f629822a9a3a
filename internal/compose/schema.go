package compose

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/schema"
)

// shape is what the Compose Specification's JSON schema says of one place in a
// file, with references followed and allOf merged. It knows the keywords
// that the schema uses and no others; shapes fails when one is added.
type shape struct {
	kinds    []string // object, array, string, integer, number, boolean, null; none: anything
	keys     map[string]*shape
	named    []named // keys that the user chooses
	closed   bool    // no other keys
	required []string
	items    *shape
	choices  []*shape // exactly one of them
	enum     []string
	pattern  *regexp.Regexp
	min, max *float64
}

type named struct {
	pattern *regexp.Regexp
	shape   *shape
}

// shapes reads the schema that comes with the parser, once.
var shapes = sync.OnceValues(func() (*shape, error) {
	var root map[string]any
	if err := json.Unmarshal([]byte(schema.Schema), &root); err != nil {
		return nil, fmt.Errorf("read the Compose schema: %w", err)
	}
	defs, _ := root["$defs"].(map[string]any)
	r := schemaReader{defs: defs, done: map[string]*shape{}}
	s := &shape{}
	r.fill(s, root)
	return s, r.err
})

type schemaReader struct {
	defs map[string]any
	done map[string]*shape
	err  error
}

func (r *schemaReader) shape(v any) *shape {
	node, _ := v.(map[string]any)
	if ref, ok := node["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/$defs/")
		if s, ok := r.done[name]; ok {
			return s
		}
		s := &shape{}
		r.done[name] = s
		def, _ := r.defs[name].(map[string]any)
		r.fill(s, def)
		return s
	}
	s := &shape{}
	r.fill(s, node)
	return s
}

func (r *schemaReader) fill(s *shape, node map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(node)) {
		v := node[key]
		switch key {
		case "$schema", "$id", "$defs", "title", "description", "deprecated", "default":
		case "anyOf": // only says that a job needs one of two keys; jobs are refused
		case "uniqueItems": // the parser drops what is listed twice before it looks
		case "type":
			s.kinds = texts(v)
		case "properties":
			for name, sub := range v.(map[string]any) {
				s.key(name, r.shape(sub))
			}
		case "patternProperties":
			for p, sub := range v.(map[string]any) {
				if p != "^x-" {
					s.named = append(s.named, named{regexp.MustCompile(p), r.shape(sub)})
				}
			}
		case "additionalProperties", "unevaluatedProperties":
			if open, ok := v.(bool); ok {
				s.closed = !open
			}
		case "required":
			s.required = texts(v)
		case "items":
			s.items = r.shape(v)
		case "oneOf":
			for _, sub := range v.([]any) {
				s.choices = append(s.choices, r.shape(sub))
			}
		case "allOf":
			for _, sub := range v.([]any) {
				for name, k := range r.shape(sub).keys {
					s.key(name, k)
				}
			}
		case "enum":
			s.enum = texts(v)
		case "pattern":
			s.pattern = regexp.MustCompile(v.(string))
		case "minimum", "maximum":
			n := v.(float64)
			if key == "minimum" {
				s.min = &n
			} else {
				s.max = &n
			}
		default:
			r.err = fmt.Errorf("the Compose schema has a keyword that is not understood: %s", key)
		}
	}
}

func (s *shape) key(name string, k *shape) {
	if s.keys == nil {
		s.keys = map[string]*shape{}
	}
	s.keys[name] = k
}

// of finds the shape of a key; step is how the key is written in the path of a
// field. A key that may stand here without a shape is an extension.
func (s *shape) of(key string) (k *shape, step string, ok bool) {
	if k, ok := s.keys[key]; ok {
		return k, key, true
	}
	for _, n := range s.named {
		if n.pattern.MatchString(key) {
			return n.shape, "*", true
		}
	}
	return nil, "", !s.closed || strings.HasPrefix(key, "x-")
}

func (s *shape) allows(kind string) bool {
	if len(s.kinds) == 0 {
		return true
	}
	return slices.Contains(s.kinds, kind) || kind == "integer" && slices.Contains(s.kinds, "number")
}

// words says what s wants, for a person.
func (s *shape) words() string {
	if len(s.choices) > 0 {
		var all []string
		for _, c := range s.choices {
			if w := c.words(); !slices.Contains(all, w) {
				all = append(all, w)
			}
		}
		return strings.Join(all, " or ")
	}
	var all []string
	for _, k := range s.kinds {
		switch k {
		case "object":
			k = "a mapping"
		case "array":
			k = "a list"
		case "integer":
			k = "a whole number"
		case "null":
			k = "empty"
		case "boolean":
			k = "true or false"
		default:
			k = "a " + k
		}
		all = append(all, k)
	}
	if len(all) > 1 && all[len(all)-1] == "empty" {
		all = all[:len(all)-1]
	}
	return strings.Join(all, " or ")
}

func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
		return out
	}
	return nil
}
