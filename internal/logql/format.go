package logql

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
	"unicode"
)

// maxFormatted bounds what a template may write, in bytes.
const maxFormatted = 1 << 20

var errFormatted = errors.New("the template writes more than 1 MiB")

// shape is a template of line_format or label_format, with the labels that it names.
// It is run by one query at a time.
type shape struct {
	raw   string
	t     *template.Template
	names []string
	all   bool // it uses the whole dot
	row   *row
	out   bounded
}

type bounded struct{ b []byte }

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.b)+len(p) > maxFormatted {
		return 0, errFormatted
	}
	b.b = append(b.b, p...)
	return len(p), nil
}

func (p *parser) shape(t token) (*shape, error) {
	s := &shape{raw: t.val}
	funcs := template.FuncMap{
		"__line__":      func() string { return string(s.row.now()) },
		"__timestamp__": func() time.Time { return time.Unix(0, s.row.times[s.row.i]).UTC() },
	}
	var err error
	s.t, err = template.New("").Option("missingkey=zero").Funcs(functions).Funcs(funcs).Parse(t.val)
	if err != nil {
		return nil, wrong(p.q, t.pos, "%s", strings.TrimPrefix(err.Error(), "template: :"))
	}
	for _, t := range s.t.Templates() {
		if t.Tree != nil && t.Root != nil {
			s.walk(t.Root)
		}
	}
	if s.all {
		s.names = append(s.names, everything)
	}
	return s, nil
}

// walk notes which labels a template names.
func (s *shape) walk(n parse.Node) {
	pipe := func(p *parse.PipeNode) {
		if p != nil {
			s.walk(p)
		}
	}
	list := func(l *parse.ListNode) {
		if l != nil {
			s.walk(l)
		}
	}
	branch := func(b *parse.BranchNode) { pipe(b.Pipe); list(b.List); list(b.ElseList) }
	switch n := n.(type) {
	case *parse.ListNode:
		for _, c := range n.Nodes {
			s.walk(c)
		}
	case *parse.ActionNode:
		pipe(n.Pipe)
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			for _, a := range c.Args {
				s.walk(a)
			}
		}
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	case *parse.TemplateNode:
		s.all = true
	case *parse.FieldNode:
		s.names = append(s.names, n.Ident[0])
	case *parse.ChainNode:
		s.walk(n.Node)
	case *parse.VariableNode:
		if n.Ident[0] == "$" {
			if len(n.Ident) > 1 {
				s.names = append(s.names, n.Ident[1])
			} else {
				s.all = true
			}
		}
	case *parse.DotNode:
		s.all = true
	}
}

// run writes the template for a row; false: it could not, and the row says so.
func (s *shape) run(r *row) (string, bool) {
	s.row, s.out.b = r, s.out.b[:0]
	dot := map[string]string{}
	if s.all {
		for _, f := range r.labelsOf(true).merged() {
			dot[f.Name] = f.Value
		}
	}
	for _, n := range s.names {
		if v, src := r.get(n); src != nowhere {
			dot[n] = v
		}
	}
	if err := s.t.Execute(&s.out, dot); err != nil {
		r.fail(errTemplate, strings.TrimPrefix(err.Error(), "template: :"))
		return "", false
	}
	return string(s.out.b), true
}

type lineFormat struct{ *shape }

func (p *parser) lineFormat() (stage, error) {
	t := p.next()
	if t.kind != text {
		return nil, p.unexpected(t, "a string")
	}
	s, err := p.shape(t)
	return &lineFormat{s}, err
}

func (l *lineFormat) String() string  { return "| line_format " + strconv.Quote(l.raw) }
func (l *lineFormat) reads() []string { return l.names }

func (l *lineFormat) run(r *row) bool {
	if s, ok := l.shape.run(r); ok {
		r.rewrite([]byte(s))
	}
	return true
}

// labelFormat is | label_format a=b, c="{{.d}}".
type labelFormat struct{ parts []formatPart }

type formatPart struct {
	dst, src string
	shape    *shape
}

func (p *parser) labelFormat() (stage, error) {
	f := &labelFormat{}
	for {
		n := p.next()
		if n.kind != ident {
			return nil, p.unexpected(n, "the name of a label")
		}
		if slices.ContainsFunc(f.parts, func(o formatPart) bool { return o.dst == n.val }) {
			return nil, wrong(p.q, n.pos, "label_format sets %q twice; write two of them", n.val)
		}
		if n.val == errorLabel || n.val == detailsLabel {
			return nil, wrong(p.q, n.pos, "label_format may not set %s", n.val)
		}
		if err := p.want("="); err != nil {
			return nil, err
		}
		v := p.next()
		part := formatPart{dst: n.val}
		switch v.kind {
		case ident:
			part.src = v.val
		case text:
			var err error
			if part.shape, err = p.shape(v); err != nil {
				return nil, err
			}
		default:
			return nil, p.unexpected(v, "a label or a string")
		}
		f.parts = append(f.parts, part)
		if !p.is(",") {
			return f, nil
		}
	}
}

func (f *labelFormat) String() string {
	var out []string
	for _, p := range f.parts {
		if p.shape != nil {
			out = append(out, p.dst+"="+strconv.Quote(p.shape.raw))
		} else {
			out = append(out, p.dst+"="+p.src)
		}
	}
	return "| label_format " + strings.Join(out, ", ")
}

func (f *labelFormat) reads() (names []string) {
	for _, p := range f.parts {
		if p.shape != nil {
			names = append(names, p.shape.names...)
		} else {
			names = append(names, p.src)
		}
	}
	return names
}

func (f *labelFormat) run(r *row) bool {
	r.parse()
	for _, p := range f.parts {
		if p.shape != nil {
			if v, ok := p.shape.run(r); ok {
				r.put(p.dst, v)
			}
			continue
		}
		if v, src := r.get(p.src); src != nowhere {
			r.put(p.dst, v)
			if p.src != p.dst {
				r.drop(p.src)
			}
		}
	}
	return true
}

// functions are those that Loki documents for its templates.
var functions = template.FuncMap{
	"lower": strings.ToLower, "upper": strings.ToUpper, "ToLower": strings.ToLower, "ToUpper": strings.ToUpper, "title": title,
	"trim": strings.TrimSpace, "TrimSpace": strings.TrimSpace,
	"Trim": strings.Trim, "TrimLeft": strings.TrimLeft, "TrimRight": strings.TrimRight, "TrimPrefix": strings.TrimPrefix, "TrimSuffix": strings.TrimSuffix,
	"trimAll":    func(chars, s string) string { return strings.Trim(s, chars) },
	"trimPrefix": func(prefix, s string) string { return strings.TrimPrefix(s, prefix) },
	"trimSuffix": func(suffix, s string) string { return strings.TrimSuffix(s, suffix) },
	"replace":    func(old, with, s string) (string, error) { return bound(strings.ReplaceAll(s, old, with)) },
	"Replace":    func(s, old, with string, n int) (string, error) { return bound(strings.Replace(s, old, with, n)) },
	"contains":   func(part, s string) bool { return strings.Contains(s, part) },
	"hasPrefix":  func(prefix, s string) bool { return strings.HasPrefix(s, prefix) },
	"hasSuffix":  func(suffix, s string) bool { return strings.HasSuffix(s, suffix) },
	"default": func(d, s string) string {
		if s == "" {
			return d
		}
		return s
	},
	"trunc": func(n int, s string) string {
		switch {
		case n >= 0 && n < len(s):
			return s[:n]
		case n < 0 && -n < len(s):
			return s[len(s)+n:]
		}
		return s
	},
	"substr": func(start, end int, s string) string {
		if end < 0 || end > len(s) {
			end = len(s)
		}
		start = max(0, start)
		if start >= end {
			return ""
		}
		return s[start:end]
	},
	"alignLeft":  func(n int, s string) (string, error) { return align(n, s, false) },
	"alignRight": func(n int, s string) (string, error) { return align(n, s, true) },
	"indent":     func(n int, s string) (string, error) { return indent(n, s) },
	"nindent": func(n int, s string) (string, error) {
		s, err := indent(n, s)
		return "\n" + s, err
	},
	"repeat": func(n int, s string) (string, error) {
		if n < 0 || n*len(s) > maxFormatted || n > maxFormatted {
			return "", errFormatted
		}
		return strings.Repeat(s, n), nil
	},
	"b64enc": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"b64dec": func(s string) string {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return err.Error()
		}
		return string(b)
	},
	"urlencode": url.QueryEscape,
	"urldecode": url.QueryUnescape,
	"fromJson": func(s string) any {
		var v any
		if json.Unmarshal([]byte(s), &v) != nil {
			return ""
		}
		return v
	},
	"bytes": func(s string) (float64, error) {
		v, ok := bytesOf(s)
		if !ok {
			return 0, fmt.Errorf("%q is no size", s)
		}
		return v, nil
	},
	"duration": seconds, "duration_seconds": seconds,
	"count": func(re, s string) (int, error) {
		r, err := compiled(re)
		if err != nil {
			return 0, err
		}
		return len(r.FindAllStringIndex(s, -1)), nil
	},
	"regexReplaceAll": func(re, s, with string) (string, error) {
		r, err := compiled(re)
		if err != nil {
			return "", err
		}
		return bound(r.ReplaceAllString(s, with))
	},
	"regexReplaceAllLiteral": func(re, s, with string) (string, error) {
		r, err := compiled(re)
		if err != nil {
			return "", err
		}
		return bound(r.ReplaceAllLiteralString(s, with))
	},
	"now":  time.Now,
	"date": func(layout string, t time.Time) string { return t.Format(layout) },
	"toDate": func(layout, s string) (time.Time, error) {
		return time.ParseInLocation(layout, s, time.Local)
	},
	"toDateInZone": func(layout, zone, s string) (time.Time, error) {
		l, err := time.LoadLocation(zone)
		if err != nil {
			return time.Time{}, err
		}
		return time.ParseInLocation(layout, s, l)
	},
	"unixEpoch":       func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) },
	"unixEpochMillis": func(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) },
	"unixEpochNanos":  func(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) },
	"unixToTime":      unixToTime,
	"int":             func(v any) int { return int(float(v)) },
	"float64":         float,
	"add":             func(v ...any) int64 { return foldInt(v, func(a, b int64) int64 { return a + b }) },
	"sub":             func(a, b any) int64 { return int64(float(a)) - int64(float(b)) },
	"mul":             func(v ...any) int64 { return foldInt(v, func(a, b int64) int64 { return a * b }) },
	"div":             func(a, b any) (int64, error) { return divide(a, b, func(x, y int64) int64 { return x / y }) },
	"mod":             func(a, b any) (int64, error) { return divide(a, b, func(x, y int64) int64 { return x % y }) },
	"max":             func(v ...any) int64 { return foldInt(v, func(a, b int64) int64 { return max(a, b) }) },
	"min":             func(v ...any) int64 { return foldInt(v, func(a, b int64) int64 { return min(a, b) }) },
	"addf":            func(v ...any) float64 { return foldFloat(v, func(a, b float64) float64 { return a + b }) },
	"subf":            func(v ...any) float64 { return foldFloat(v, func(a, b float64) float64 { return a - b }) },
	"mulf":            func(v ...any) float64 { return foldFloat(v, func(a, b float64) float64 { return a * b }) },
	"divf":            func(v ...any) float64 { return foldFloat(v, func(a, b float64) float64 { return a / b }) },
	"maxf":            func(v ...any) float64 { return foldFloat(v, math.Max) },
	"minf":            func(v ...any) float64 { return foldFloat(v, math.Min) },
	"ceil":            func(v any) float64 { return math.Ceil(float(v)) },
	"floor":           func(v any) float64 { return math.Floor(float(v)) },
	"round": func(v any, places int) float64 {
		p := math.Pow(10, float64(places))
		return math.Round(float(v)*p) / p
	},
}

func bound(s string) (string, error) {
	if len(s) > maxFormatted {
		return "", errFormatted
	}
	return s, nil
}

func compiled(re string) (*regexp.Regexp, error) {
	if len(re) > maxRegex {
		return nil, fmt.Errorf("the regular expression has more than %d bytes", maxRegex)
	}
	return regexp.Compile(re)
}

func title(s string) string {
	before := ' '
	return strings.Map(func(r rune) rune {
		defer func() { before = r }()
		if unicode.IsLetter(before) || unicode.IsDigit(before) || before == '_' || before == '\'' {
			return r
		}
		return unicode.ToTitle(r)
	}, s)
}

func align(n int, s string, right bool) (string, error) {
	if n < 0 || n > maxFormatted {
		return "", errFormatted
	}
	runes := []rune(s)
	fill := strings.Repeat(" ", max(0, n-len(runes)))
	switch {
	case right && len(runes) > n:
		return string(runes[len(runes)-n:]), nil
	case right:
		return fill + s, nil
	case len(runes) > n:
		return string(runes[:n]), nil
	}
	return s + fill, nil
}

func indent(n int, s string) (string, error) {
	if n < 0 || n*(1+strings.Count(s, "\n")) > maxFormatted || n > maxFormatted {
		return "", errFormatted
	}
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(s, "\n", "\n"+pad), nil
}

func seconds(s string) (float64, error) {
	d, err := time.ParseDuration(s)
	return d.Seconds(), err
}

// unixToTime tells days, seconds, milli-, micro- and nanoseconds apart by the
// number of digits.
func unixToTime(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no number", s)
	}
	switch len(s) {
	case 5:
		return time.Unix(n*86400, 0), nil
	case 10:
		return time.Unix(n, 0), nil
	case 13:
		return time.UnixMilli(n), nil
	case 16:
		return time.UnixMicro(n), nil
	case 19:
		return time.Unix(0, n), nil
	}
	return time.Time{}, fmt.Errorf("%q has neither 5, 10, 13, 16 nor 19 digits", s)
}

func float(v any) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case string:
		f, _ := strconv.ParseFloat(v, 64)
		return f
	}
	return 0
}

func foldInt(v []any, f func(a, b int64) int64) int64 {
	if len(v) == 0 {
		return 0
	}
	out := int64(float(v[0]))
	for _, x := range v[1:] {
		out = f(out, int64(float(x)))
	}
	return out
}

func foldFloat(v []any, f func(a, b float64) float64) float64 {
	if len(v) == 0 {
		return 0
	}
	out := float(v[0])
	for _, x := range v[1:] {
		out = f(out, float(x))
	}
	return out
}

func divide(a, b any, f func(x, y int64) int64) (int64, error) {
	y := int64(float(b))
	if y == 0 {
		return 0, errors.New("division by zero")
	}
	return f(int64(float(a)), y), nil
}
