package logql

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// jsonParser is | json: all of an object, or the paths that are named.
type jsonParser struct{ parts []extraction }

func (j *jsonParser) String() string  { return "| json" + extractionText(j.parts) }
func (j *jsonParser) reads() []string { return nil }

func (j *jsonParser) run(r *row) bool {
	if j.parts == nil {
		r.later(j)
		return true
	}
	r.parse()
	j.find(r, r.now())
	return true
}

func (j *jsonParser) find(r *row, line []byte) {
	if j.parts == nil {
		w := jsonWalk{in: line, found: r.find}
		if !w.document() {
			r.fail(errJSON, "the line is no JSON object at byte "+strconv.Itoa(w.at+1))
		}
		return
	}
	v, err := decodeJSON(line)
	if err != nil {
		r.fail(errJSON, err.Error())
	}
	for _, e := range j.parts {
		r.find(e.name, textOf(at(v, e.path)))
	}
}

func decodeJSON(line []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// at follows a path into a document.
func at(v any, path []any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}
	return v
}

func textOf(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// jsonPath reads a.b["c d"][0].
func jsonPath(s string) ([]any, bool) {
	var path []any
	for i := 0; i < len(s); {
		switch {
		case s[i] == '[' && i+1 < len(s) && s[i+1] == '"':
			q, err := strconv.QuotedPrefix(s[i+1:])
			if err != nil || len(s) <= i+1+len(q) || s[i+1+len(q)] != ']' {
				return nil, false
			}
			name, _ := strconv.Unquote(q)
			path, i = append(path, name), i+2+len(q)
		case s[i] == '[':
			end := strings.IndexByte(s[i:], ']')
			if end < 0 {
				return nil, false
			}
			n, err := strconv.ParseUint(s[i+1:i+end], 10, 31)
			if err != nil {
				return nil, false
			}
			path, i = append(path, int(n)), i+end+1
		default:
			if s[i] == '.' {
				if i == 0 {
					return nil, false
				}
				i++
			} else if i > 0 {
				return nil, false
			}
			end := strings.IndexAny(s[i:], ".[")
			if end < 0 {
				end = len(s) - i
			}
			if end == 0 {
				return nil, false
			}
			path, i = append(path, s[i:i+end]), i+end
		}
	}
	return path, len(path) > 0
}

// jsonWalk reads an object and reports its leaves under flat names: a_b for the b
// inside of a. Arrays and null are left out.
type jsonWalk struct {
	in    []byte
	at    int
	name  []byte
	depth int
	found func(name, value string)
}

const maxJSONDepth = 128

func (w *jsonWalk) document() bool {
	w.space()
	if w.at >= len(w.in) || w.in[w.at] != '{' || !w.object() {
		return false
	}
	w.space()
	return w.at == len(w.in)
}

func (w *jsonWalk) space() {
	for w.at < len(w.in) && (w.in[w.at] == ' ' || w.in[w.at] == '\t' || w.in[w.at] == '\n' || w.in[w.at] == '\r') {
		w.at++
	}
}

func (w *jsonWalk) byte(c byte) bool {
	w.space()
	if w.at < len(w.in) && w.in[w.at] == c {
		w.at++
		return true
	}
	return false
}

func (w *jsonWalk) object() bool {
	if w.depth++; w.depth > maxJSONDepth {
		return false
	}
	defer func() { w.depth-- }()
	w.at++
	if w.byte('}') {
		return true
	}
	for {
		w.space()
		key, ok := w.string()
		if !ok || !w.byte(':') {
			return false
		}
		w.space()
		before := len(w.name)
		if before > 0 {
			w.name = append(w.name, '_')
		}
		w.name = append(w.name, sanitize(key)...)
		if before > 0 && w.name[before+1:] != nil && len(key) > 0 && key[0] >= '0' && key[0] <= '9' {
			w.name = append(w.name[:before+1], w.name[before+2:]...) // only a whole name may not begin with a digit
		}
		if !w.value() {
			return false
		}
		w.name = w.name[:before]
		if w.byte('}') {
			return true
		}
		if !w.byte(',') {
			return false
		}
	}
}

func (w *jsonWalk) value() bool {
	if w.at >= len(w.in) {
		return false
	}
	switch c := w.in[w.at]; c {
	case '{':
		return w.object()
	case '"':
		s, ok := w.string()
		if ok {
			w.found(string(w.name), s)
		}
		return ok
	default:
		d := json.NewDecoder(bytes.NewReader(w.in[w.at:]))
		if c != '[' {
			end := w.at
			for end < len(w.in) && !bytes.ContainsRune([]byte(",}] \t\r\n"), rune(w.in[end])) {
				end++
			}
			raw := w.in[w.at:end]
			if !json.Valid(raw) {
				return false
			}
			if c != 'n' {
				w.found(string(w.name), string(raw))
			}
			w.at = end
			return true
		}
		var skip json.RawMessage
		if d.Decode(&skip) != nil {
			return false
		}
		w.at += int(d.InputOffset())
		return true
	}
}

func (w *jsonWalk) string() (string, bool) {
	if w.at >= len(w.in) || w.in[w.at] != '"' {
		return "", false
	}
	escaped := false
	for i := w.at + 1; i < len(w.in); i++ {
		switch c := w.in[i]; {
		case c == '\\':
			escaped = true
			i++
		case c < ' ':
			return "", false
		case c == '"':
			raw := w.in[w.at : i+1]
			w.at = i + 1
			if !escaped && utf8.Valid(raw) {
				return string(raw[1 : len(raw)-1]), true
			}
			var s string
			err := json.Unmarshal(raw, &s)
			return s, err == nil
		}
	}
	return "", false
}

// unpack is | unpack: the strings of an object become labels, _entry the line.
type unpack struct{}

func (*unpack) String() string  { return "| unpack" }
func (*unpack) reads() []string { return nil }

func (*unpack) run(r *row) bool {
	r.parse()
	v, err := decodeJSON(r.now())
	m, ok := v.(map[string]any)
	if err != nil || !ok {
		r.fail(errJSON, "the line is no JSON object")
		return true
	}
	var entry []byte
	for k, v := range m {
		s, ok := v.(string)
		switch {
		case !ok:
		case k == "_entry":
			entry = []byte(s)
		default:
			r.find(sanitize(k), s)
		}
	}
	if entry != nil {
		r.rewrite(entry)
	}
	return true
}
