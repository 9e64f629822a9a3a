package compose

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// check reads the files of a project beside the parser, for what the parser
// does not tell: where a thing is, what else is wrong, and what of it Tender
// honours. The parser still decides what the files mean.
type check struct {
	root *shape
	// normal: the input is the normal form, which has keys of Tender's own and
	// no variables, and points at no other file.
	normal bool
	dir    string                            // paths below it are shown relative to it
	far    string                            // Source.Far
	expr   func(language, text string) error // Source.Expr

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
