package compose

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	tender "github.com/tenderhq/tender"
	"go.yaml.in/yaml/v4"
)

// check reads the files of a project beside the parser, for what the parser
// does not tell: where a thing is, what else is wrong, and what of it Tender
// honours. The parser still decides what the files mean.
type check struct {
	root *shape
	// normal: the input is the normal form, which has keys of Tender's own and
	// no variables, and points at no other file.
	normal bool
	dir    string // paths below it are shown relative to it

	trees    []*tree // in the order in which they are merged
	problems []problem
	// doubts become problems when the parser is not content either: a later file
	// may complete what is missing in an earlier one.
	doubts   []problem
	warnings []Warning

	read  map[string]bool // included and extended files
	open  []string        // the files on the way to the one that is read now
	unset map[string]bool // variables warned about
	ports int             // published one by one
	told  map[string]bool // problems, since aliases lead to one place twice
}

const (
	maxProblems  = 10
	maxCounted   = 1000 // problems after which no more are looked for
	maxPorts     = 10_000
	maxFiles     = 100
	maxVariables = 1000 // in one value: the parser takes quadratic time over them
)

func newCheck(dir string, normal bool) (*check, error) {
	root, err := shapes()
	if err != nil {
		return nil, err
	}
	return &check{root: root, normal: normal, dir: dir, read: map[string]bool{}, unset: map[string]bool{}, told: map[string]bool{}}, nil
}

// place is where the walk is: in the file's own keys, and in the pattern that
// the table of fields has.
type place struct {
	path  []string
	field string
}

func (p place) down(key, step string) place {
	field := step
	if p.field != "" {
		field = p.field + "." + step
	}
	return place{path: append(slices.Clip(p.path), key), field: field}
}

func (p place) String() string {
	var b strings.Builder
	for i, step := range p.path {
		if i > 0 && !strings.HasPrefix(step, "[") {
			b.WriteByte('.')
		}
		b.WriteString(step)
	}
	return b.String()
}

// text prefixes a message with where in the file it applies.
func (p place) text(format string, args ...any) string {
	msg := fmt.Sprintf(format, args...)
	if len(p.path) == 0 {
		return msg
	}
	return p.String() + ": " + msg
}

// add reads one file and walks it, after those that it includes or extends.
func (c *check) add(f source) {
	most := maxNodes
	if c.normal {
		most = maxNormal
	}
	t, bad := parseTree(c.show(f.path), f.path, f.content, most)
	if bad != nil {
		c.problem(*bad)
		return
	}
	c.open = append(c.open, f.path)
	defer func() { c.open = c.open[:len(c.open)-1] }()
	w := &walk{check: c, tree: t, source: f}
	if !c.normal {
		t.lookup = func(name string) (string, bool) { v, ok := f.env[name]; return v, ok }
	}
	for _, doc := range t.docs {
		w.node(doc, c.root, place{})
	}
	c.trees = append(c.trees, t)
}

// show is how the user calls a file.
func (c *check) show(path string) string {
	if path == "-" {
		return "stdin"
	}
	if rel, err := filepath.Rel(c.dir, path); err == nil && filepath.IsAbs(path) && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}

func (c *check) problem(p problem) {
	p.order = len(c.trees)
	if key := fmt.Sprint(p.file, p.line, p.column); !c.told[key] {
		c.told[key] = true
		c.problems = append(c.problems, p)
	}
}

func (c *check) warn(t *tree, n *yaml.Node, text string) {
	w := Warning{File: t.name, Line: n.Line, Column: n.Column, Text: text}
	if key := w.String(); !c.told[key] {
		c.told[key] = true
		c.warnings = append(c.warnings, w)
	}
}

// at puts an error where path leads in the files, the last one first.
func (c *check) at(err *tender.Error, path ...string) error {
	return c.locate(problem{text: err.Msg, advice: err.Advice}, path).error()
}

// locate gives p the deepest place that path leads to.
func (c *check) locate(p problem, path []string) problem {
	best := 0
	for i := len(c.trees) - 1; i >= 0; i-- {
		t := c.trees[i]
		if n, steps := t.find(path); steps > best {
			best = steps
			p.file, p.order, p.line, p.column = t.name, i, n.Line, n.Column
		}
	}
	if best == 0 && len(c.trees) > 0 {
		p.file = c.trees[len(c.trees)-1].name
	}
	return p
}

// err reports problems together, in the order of the files.
func (c *check) err(problems []problem) error {
	if len(problems) == 0 {
		return nil
	}
	problems = slices.Clone(problems)
	slices.SortStableFunc(problems, func(a, b problem) int {
		if a.order != b.order {
			return a.order - b.order
		}
		if a.line != b.line {
			return a.line - b.line
		}
		return a.column - b.column
	})
	if len(problems) == 1 {
		return problems[0].error()
	}
	var lines []string
	advice := ""
	for i, p := range problems {
		if i == maxProblems {
			lines = append(lines, fmt.Sprintf("and %d more", len(problems)-i))
			break
		}
		lines = append(lines, p.String())
		advice = orElse(advice, p.advice)
	}
	e := tender.Errorf(tender.Invalid, "%s", strings.Join(lines, "\n"))
	e.Advice = advice
	return e
}

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

// scalar returns the JSON kind of a scalar and its text with variables filled
// in; known is false when they could not be.
func (w *walk) scalar(n *yaml.Node, at place) (kind, value string, known bool) {
	switch n.ShortTag() {
	case "!!int":
		kind = "integer"
	case "!!float":
		kind = "number"
	case "!!bool":
		kind = "boolean"
	case "!!null":
		kind = "null"
	default:
		kind = "string"
	}
	if kind != "string" || w.tree.lookup == nil || !strings.Contains(n.Value, "$") {
		return kind, n.Value, true
	}
	if strings.Count(n.Value, "$") > maxVariables {
		w.bad(n, "", at.text("more than %d variables in one value", maxVariables))
		return kind, "", false
	}
	for _, name := range bare(n.Value, w.tree.lookup) {
		if !w.unset[name] {
			w.unset[name] = true
			w.warn(w.tree, n, fmt.Sprintf("variable %s is not set, an empty string stands for it", name))
		}
	}
	v, err := template.SubstituteWithOptions(n.Value, w.tree.lookup, template.WithoutLogging)
	var missing *template.MissingRequiredError
	var malformed *template.InvalidTemplateError
	switch {
	case errors.As(err, &missing):
		w.bad(n, fmt.Sprintf("set %s in your environment or in .env", missing.Variable), at.text("%s", err.Error()))
	case errors.As(err, &malformed):
		w.bad(n, "write $$ where you mean a dollar sign", at.text("%q does not name a variable rightly", n.Value))
	case err != nil:
		w.bad(n, "", at.text("%s", err.Error()))
	}
	return kind, v, err == nil
}

// bare lists the variables of s that nobody set and that have no default.
func bare(s string, lookup template.Mapping) []string {
	var out []string
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			return out
		}
		braced := s[i+1] == '{'
		s = s[i+1:]
		if !braced {
			if s[0] == '$' {
				s = s[1:]
				continue
			}
			name := s[:wordLen(s)]
			if _, ok := lookup(name); !ok && name != "" {
				out = append(out, name)
			}
			continue
		}
		inner := s[1:]
		end, depth := len(inner), 1
		for j := range len(inner) {
			if inner[j] == '{' {
				depth++
			}
			if inner[j] == '}' {
				if depth--; depth == 0 {
					end = j
					break
				}
			}
		}
		inner, s = inner[:end], inner[min(end+1, len(inner)):]
		name := inner[:wordLen(inner)]
		v, ok := lookup(name)
		op, soft := strings.CutPrefix(inner[len(name):], ":")
		empty := !ok || soft && v == ""
		switch {
		case op == "":
			if !ok && name != "" {
				out = append(out, name)
			}
		case op[0] == '-' && empty, op[0] == '+' && !empty:
			out = append(out, bare(op[1:], lookup)...)
		}
	}
}

// wordLen counts the bytes at the start of s that can be a variable's name.
func wordLen(s string) int {
	for i := range len(s) {
		c := s[i]
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return i
		}
	}
	return len(s)
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
	case nearest(k.Value, known) != "":
		w.bad(k, "", at.text("unknown key %q, did you mean %q?", k.Value, nearest(k.Value, known)))
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
