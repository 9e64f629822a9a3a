package compose

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// marshal writes the normal form: the same project gives the same bytes.
func marshal(p *types.Project) ([]byte, error) {
	q := *p
	q.Extensions = maps.Clone(p.Extensions)
	delete(q.Extensions, formatKey)
	q.Services = maps.Clone(p.Services)
	for name, s := range q.Services {
		if s.Build != nil && len(s.Build.SSH) > 0 {
			build := *s.Build
			build.SSH = writtenSSH(build.SSH)
			s.Build = &build
			q.Services[name] = s
		}
	}
	yml, err := write(&q)
	if err != nil {
		return nil, fmt.Errorf("write normal form: %w", err)
	}
	return append(fmt.Appendf(nil, "%s: %d\n", formatKey, format), yml...), nil
}

// writtenSSH is how agents are written to be read again: the parser's own types
// write "ID: SOCKET", which it does not read.
func writtenSSH(keys types.SSHConfig) types.SSHConfig {
	out := make(types.SSHConfig, len(keys))
	for i, k := range keys {
		if k.Path != "" {
			k = types.SSHKey{ID: k.ID + "=" + k.Path}
		}
		out[i] = k
	}
	slices.SortFunc(out, func(a, b types.SSHKey) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// write encodes v such that it is read back as it was. The YAML library does
// not promise that: a text that begins with a blank line loses the indentation of
// the next. So texts with anything unusual in them are set aside while it turns v
// into nodes, and are put back in a style that is sure.
func write(v any) ([]byte, error) {
	var a aside
	v = a.take(reflect.ValueOf(v)).Interface()
	if len(a.texts) > 0 {
		var n yaml.Node
		if err := n.Encode(v); err != nil {
			return nil, err
		}
		a.back(&n)
		v = &n
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// aside holds the texts that were taken out; their stand-ins number them.
type aside struct{ texts []string }

const standIn = "tender-text-"

// take copies v with unusual texts replaced.
func (a *aside) take(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.String:
		if s := v.String(); unusual(s) {
			a.texts = append(a.texts, s)
			out := reflect.New(v.Type()).Elem()
			out.SetString(standIn + strconv.Itoa(len(a.texts)-1))
			return out
		}
	case reflect.Pointer:
		if !v.IsNil() {
			out := reflect.New(v.Type().Elem())
			out.Elem().Set(a.take(v.Elem()))
			return out
		}
	case reflect.Interface:
		if !v.IsNil() {
			out := reflect.New(v.Type()).Elem()
			out.Set(a.take(v.Elem()))
			return out
		}
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(a.take(v.Field(i)))
			}
		}
		return out
	case reflect.Slice:
		if !v.IsNil() {
			out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			for i := range v.Len() {
				out.Index(i).Set(a.take(v.Index(i)))
			}
			return out
		}
	case reflect.Map:
		// Hosts are written as NAME=ADDRESS: a stand-in would not stand alone there.
		if !v.IsNil() && v.Type() != reflect.TypeFor[types.HostsList]() {
			out := reflect.MakeMapWithSize(v.Type(), v.Len())
			for it := v.MapRange(); it.Next(); {
				out.SetMapIndex(a.take(it.Key()), a.take(it.Value()))
			}
			return out
		}
	}
	return v
}

func (a *aside) back(n *yaml.Node) {
	if rest, ok := strings.CutPrefix(n.Value, standIn); ok && n.Kind == yaml.ScalarNode {
		if i, err := strconv.Atoi(rest); err == nil && i < len(a.texts) {
			n.Value, n.Tag, n.Style = a.texts[i], "!!str", yaml.DoubleQuotedStyle
			if block(n.Value) {
				n.Style = yaml.LiteralStyle
			}
		}
	}
	for _, c := range n.Content {
		a.back(c)
	}
}

// unusual reports whether s has more in it than letters on one line.
func unusual(s string) bool {
	return strings.HasPrefix(s, standIn) || strings.ContainsFunc(s, func(r rune) bool {
		return r != ' ' && (unicode.IsControl(r) || unicode.IsSpace(r)) || r == '\ufeff' || r == unicode.ReplacementChar
	})
}

// block reports whether s may be written as a literal block, for people to read.
func block(s string) bool {
	for _, r := range s {
		if r != '\n' && (r < ' ' || r > '~') {
			return false
		}
	}
	return s[0] > ' ' && strings.HasSuffix(s, "\n") && !strings.HasSuffix(s, "\n\n") && !strings.Contains(s, " \n")
}
