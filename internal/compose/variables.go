package compose

import (
	"errors"
	"fmt"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"
)

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
