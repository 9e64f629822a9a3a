package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// tree is one Compose file as nodes that know their lines.
type tree struct {
	name string // as shown to the user
	path string // absolute, "-" or ""
	docs []*yaml.Node
	// lookup answers for variables; nil: values are taken as they are.
	lookup template.Mapping
}

const (
	maxNodes  = 100_000 // in one document with its aliases written out; the parser has the same bound
	maxNormal = 250_000 // in the normal form, which has more of them, as ports are written out
	maxDepth  = 100
	maxItems  = 20_000 // in one mapping or list: the YAML library compares each key with each
)

var yamlPlace = regexp.MustCompile(`line (\d+)(?:, column (\d+))?`)

// parseTree reads content. It refuses what would grow without bound: deep
// nesting, anchors within themselves, and aliases that multiply.
func parseTree(name, path string, content []byte, most int) (*tree, *problem) {
	t := &tree{name: name, path: path}
	d := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, syntax(name, err)
		}
		if len(doc.Content) == 0 {
			continue
		}
		root := doc.Content[0]
		m := measure{left: most, open: map[*yaml.Node]bool{}}
		if n, why := m.walk(root, 0); n != nil {
			if m.left < 0 {
				why = fmt.Sprintf("more than %d values with aliases written out", most)
			}
			return nil, &problem{file: name, line: n.Line, column: n.Column, text: "too large: " + why}
		}
		t.docs = append(t.docs, root)
	}
}

// syntax turns the YAML library's error into one with a place.
func syntax(name string, err error) *problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	p := &problem{file: name, line: 1, column: 1}
	for _, m := range yamlPlace.FindAllStringSubmatch(text, -1) {
		p.line, _ = strconv.Atoi(m[1])
		p.column = 1
		if m[2] != "" {
			p.column, _ = strconv.Atoi(m[2])
		}
	}
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	p.text = "not YAML: " + text
	return p
}

// measure walks a document with its aliases and finds where a bound is passed.
type measure struct {
	left int                 // values
	open map[*yaml.Node]bool // on the way to the present one
}

func (m *measure) walk(n *yaml.Node, depth int) (at *yaml.Node, why string) {
	m.left--
	switch {
	case m.left < 0:
		return n, ""
	case m.open[n]:
		return n, "an anchor within itself"
	case depth > maxDepth:
		return n, fmt.Sprintf("more than %d levels", maxDepth)
	case len(n.Content) > maxItems:
		return n, fmt.Sprintf("more than %d items in one place", maxItems)
	}
	m.open[n] = true
	defer delete(m.open, n)
	if n.Kind == yaml.AliasNode {
		return m.walk(n.Alias, depth+1)
	}
	for _, c := range n.Content {
		if at, why := m.walk(c, depth+1); at != nil {
			return at, why
		}
	}
	return nil, ""
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// value returns the text of a scalar, interpolated.
func (t *tree) value(n *yaml.Node) string {
	if t.lookup == nil || !strings.Contains(n.Value, "$") || strings.Count(n.Value, "${") > maxVariables {
		return n.Value
	}
	v, err := template.SubstituteWithOptions(n.Value, t.lookup, template.WithoutLogging)
	if err != nil {
		return n.Value
	}
	return v
}

// find follows path as far as it goes and returns the last node on it: a key
// where the path ends at one, else an item of a list.
func (t *tree) find(path []string) (at *yaml.Node, steps int) {
	for _, doc := range t.docs {
		if n, s := t.descend(doc, path); s > steps {
			at, steps = n, s
		}
	}
	return at, steps
}

func (t *tree) descend(n *yaml.Node, path []string) (at *yaml.Node, steps int) {
	n = follow(n)
	if len(path) == 0 {
		return n, 0
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if k.Value == path[0] {
				deeper, s := t.descend(v, path[1:])
				if s == 0 {
					return k, 1
				}
				return deeper, s + 1
			}
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value != "<<" {
				continue
			}
			merged := follow(n.Content[i+1])
			from := []*yaml.Node{merged}
			if merged.Kind == yaml.SequenceNode {
				from = merged.Content
			}
			for _, m := range from {
				if a, s := t.descend(m, path); s > steps {
					at, steps = a, s
				}
			}
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			if t.isItem(follow(item), i, path[0]) {
				deeper, s := t.descend(item, path[1:])
				if s == 0 {
					return item, 1
				}
				return deeper, s + 1
			}
		}
	}
	return at, steps
}

// isItem reports whether an item of a list is the one that a step of a path
// means: by number, by its text, by the name it begins with or by its target.
func (t *tree) isItem(item *yaml.Node, i int, step string) bool {
	if step == "["+strconv.Itoa(i)+"]" {
		return true
	}
	if item.Kind == yaml.ScalarNode {
		v := t.value(item)
		return v == step || strings.HasPrefix(v, step+":") || strings.HasPrefix(v, step+"=") ||
			strings.HasSuffix(v, ":"+step) || strings.Contains(v, ":"+step+":") || leadsTo(v, step)
	}
	if item.Kind != yaml.MappingNode {
		return false
	}
	for k := 0; k+1 < len(item.Content); k += 2 {
		switch item.Content[k].Value {
		case "source", "target", "path":
			if v := follow(item.Content[k+1]); v.Kind == yaml.ScalarNode && (t.value(v) == step || leadsTo(t.value(v), step)) {
				return true
			}
		}
	}
	return false
}

// leadsTo reports whether a relative path in a file can have become abs.
func leadsTo(rel, abs string) bool {
	return filepath.IsAbs(abs) && rel != "" && !filepath.IsAbs(rel) && strings.HasSuffix(abs, "/"+filepath.Clean(rel))
}

// problem is something wrong at a place in a file.
type problem struct {
	file         string
	order        int // of the file among those that were read
	line, column int
	text, advice string
}

func (p problem) String() string {
	return Warning{File: p.file, Line: p.line, Column: p.column, Text: p.text}.String()
}

func (p problem) error() *tender.Error {
	e := tender.Errorf(tender.Invalid, "%s", p.String())
	if p.advice != "" {
		e.Advice = p.advice
	}
	return e
}
