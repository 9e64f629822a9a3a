package collect

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

const (
	maxDepth  = 12  // of objects in objects; what is below is one value, as JSON
	maxPrefix = 256 // bytes of the names around a value; the same goes for what is inside of longer ones
)

// jsonReader takes a JSON object apart that is itself escaped as the inside of a
// JSON string, as it lies in the engine's file: nothing is unescaped on the way.
type jsonReader struct {
	p      *parser
	s      []byte
	prefix []byte // of names: the objects around

	values []jsonValue
	plain  bool // every value can be found again by what stands around it
}

// jsonValue is a cut-out: s[from:to].
type jsonValue struct {
	from, to int
	name     string
	quoted   bool
	// inner: the value has escapes of its own, so that it means something else than it says. outer: the
	// engine escaped something in it.
	inner, outer bool
}

// read reports whether all of s is one object.
func (r *jsonReader) read(s []byte) bool {
	r.s, r.prefix, r.values, r.plain = s, r.prefix[:0], r.values[:0], true
	i, ok := r.object(r.space(0), 0)
	return ok && r.space(i) == len(s) && len(r.values) <= maxFields
}

func (r *jsonReader) space(i int) int {
	for i < len(r.s) && r.s[i] == ' ' {
		i++
	}
	return i
}

func (r *jsonReader) at(i int, c byte) bool { return i < len(r.s) && r.s[i] == c }

// object reads the one that begins at i and returns where it ends.
func (r *jsonReader) object(i, depth int) (int, bool) {
	if !r.at(i, '{') {
		return i, false
	}
	if i = r.space(i + 1); r.at(i, '}') {
		return i + 1, true
	}
	for {
		i = r.space(i)
		from, to, inner, outer, ok := r.quoted(i)
		if !ok {
			return i, false
		}
		key := r.s[from:to]
		if outer {
			key = unescape(nil, key)
		}
		if inner {
			if !outer {
				key = unescape(nil, key)
			}
			key = unescape(nil, key)
		}
		if i = r.space(to + 2); !r.at(i, ':') {
			return i, false
		}
		i = r.space(i + 1)
		outside := len(r.prefix)
		if outside > 0 {
			r.prefix = append(r.prefix, '.')
		}
		r.prefix = append(r.prefix, key...)
		if i, ok = r.value(i, depth); !ok {
			return i, false
		}
		r.prefix = r.prefix[:outside]
		i = r.space(i)
		switch {
		case r.at(i, ','):
			i++
		case r.at(i, '}'):
			return i + 1, true
		default:
			return i, false
		}
	}
}

// quoted finds the string that begins at i; to is where its closing quote stands.
func (r *jsonReader) quoted(i int) (from, to int, inner, outer, ok bool) {
	s := r.s
	if i+1 >= len(s) || s[i] != '\\' || s[i+1] != '"' {
		return 0, 0, false, false, false
	}
	from = i + 2
	for i = from; ; {
		j := bytes.IndexByte(s[i:], '\\')
		if j < 0 || i+j+1 >= len(s) {
			return 0, 0, false, false, false
		}
		i += j
		switch s[i+1] {
		case '"':
			return from, i, inner, outer, true
		case '\\': // a backslash in the object: it escapes what follows
			inner = true
			if i += 2; r.at(i, '\\') {
				i += 2
			} else {
				i++
			}
			if i > len(s) {
				return 0, 0, false, false, false
			}
		case 'u':
			if outer = true; i+6 > len(s) {
				return 0, 0, false, false, false
			}
			i += 6
		default:
			outer = true
			i += 2
		}
	}
}

func (r *jsonReader) value(i, depth int) (int, bool) {
	if i >= len(r.s) {
		return i, false
	}
	switch r.s[i] {
	case '\\':
		from, to, inner, outer, ok := r.quoted(i)
		if !ok {
			return i, false
		}
		r.cut(jsonValue{from: from, to: to, quoted: true, inner: inner, outer: outer})
		return to + 2, true
	case '{':
		if depth < maxDepth && len(r.prefix) < maxPrefix {
			return r.object(i, depth+1)
		}
		fallthrough
	case '[':
		end, ok := r.skip(i)
		if !ok {
			return i, false
		}
		r.cut(jsonValue{from: i, to: end, outer: true})
		r.plain = false
		return end, true
	}
	from := i
	for i < len(r.s) && r.s[i] != ',' && r.s[i] != '}' && r.s[i] != ' ' && r.s[i] != ']' {
		i++
	}
	if string(r.s[from:i]) == "null" {
		return i, true // no value: it stays in the shape
	}
	if !scalar(r.s[from:i]) {
		return i, false
	}
	r.cut(jsonValue{from: from, to: i})
	return i, true
}

func (r *jsonReader) cut(v jsonValue) {
	v.name = r.p.shapes.name(r.prefix)
	r.values = append(r.values, v)
	r.plain = r.plain && !v.inner && !v.outer
}

// skip finds the end of the array or object that begins at i.
func (r *jsonReader) skip(i int) (int, bool) {
	depth := 0
	for i < len(r.s) {
		switch r.s[i] {
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth == 0 {
				return i + 1, true
			}
		case '\\':
			_, to, _, _, ok := r.quoted(i)
			if !ok {
				return i, false
			}
			i = to + 1
		}
		i++
	}
	return i, false
}

// json makes a row of an escaped line that looks like a JSON object. ok false: it
// is none.
func (p *parser) json(line []byte, row int) bool {
	out := p.rows
	start := len(out.fields)
	if s, values := p.shapes.find(line, p.values[:0]); s != nil {
		for i, v := range values {
			out.add(s.names[i], str(v))
		}
		p.values = values
		p.row(row, s.text, start, s.roles)
		return true
	}
	r := &p.reader
	r.p = p
	if !r.read(line) {
		return p.slowJSON(line, row)
	}
	// The text between the values, with holes; escaped it is the pieces.
	p.scratch = p.scratch[:0]
	roles, at, inner := noRoles, 0, false
	for i := range r.values {
		v := &r.values[i]
		p.scratch = append(unescape(p.scratch, line[at:v.from]), 0)
		at = v.to
		v.name = p.field(v.name)
		inner = inner || v.inner
	}
	p.scratch = unescape(p.scratch, line[at:])
	text, ok := p.shapes.intern(p.scratch, len(r.values))
	if !ok { // its keys are data
		whole := out.plain(line)
		out.add(rawField, str(whole))
		text = wholeShape
	}
	derived := len(out.fields)
	for i, v := range r.values {
		raw := line[v.from:v.to]
		if v.outer || v.inner {
			raw = out.plain(raw)
		}
		switch {
		case v.inner && ok:
			out.add(rawField, str(raw))
			continue
		case v.inner:
			raw = out.plain(raw)
		}
		roles.see(derived+i-start, v.name)
		out.add(v.name, str(raw))
	}
	if ok && inner {
		for _, v := range r.values {
			if !v.inner {
				continue
			}
			roles.see(len(out.fields)-start, v.name)
			out.add(v.name, str(out.plain(out.plain(line[v.from:v.to]))))
		}
	}
	if ok && r.plain && len(r.values) > 0 {
		p.shapes.learn(newShape(line, text, r.values))
	}
	p.row(row, text, start, roles)
	return true
}

func newShape(line []byte, text string, values []jsonValue) *shape {
	s := &shape{text: text, roles: noRoles}
	at := 0
	for i, v := range values {
		s.pieces = append(s.pieces, bytes.Clone(line[at:v.from]))
		s.quoted = append(s.quoted, v.quoted)
		s.names = append(s.names, v.name)
		s.roles.see(i, v.name)
		at = v.to
	}
	s.pieces = append(s.pieces, bytes.Clone(line[at:]))
	return s
}

// slowJSON reads what is written in unusual ways: tabs between values, or more
// fields than fit. Such a line is kept whole.
func (p *parser) slowJSON(line []byte, row int) bool {
	if line[len(line)-1] != '}' {
		return false
	}
	out := p.rows
	whole := out.plain(line)
	start, roles := len(out.fields), noRoles
	out.add(rawField, str(whole))
	if !p.object(whole, start, &roles) {
		out.fields = out.fields[:start]
		return false
	}
	p.row(row, wholeShape, start, roles)
	return true
}

// object adds the fields of a JSON object, beside its text. ok false: it is none.
func (p *parser) object(text []byte, start int, roles *roles) (ok bool) {
	if len(text) < 2 || text[0] != '{' {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var m map[string]any
	if d.Decode(&m) != nil || d.More() {
		return false
	}
	out := p.rows
	flat(m, "", 0, func(name, value string) bool {
		name = p.field(name)
		roles.see(len(out.fields)-start, name)
		out.add(name, value)
		return len(out.fields)-start < maxFields
	})
	return true
}

// flat tells the values of a decoded object in the order of their names, those of
// objects in it as a.b, arrays as JSON. It stops when tell says so.
func flat(m map[string]any, prefix string, depth int, tell func(name, value string) bool) bool {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		name := key
		if prefix != "" {
			name = prefix + "." + key
		}
		value := ""
		switch v := m[key].(type) {
		case nil:
			continue
		case string:
			value = v
		case json.Number:
			value = v.String()
		case bool:
			value = strconv.FormatBool(v)
		case map[string]any:
			if depth < maxDepth && len(name) < maxPrefix {
				if !flat(v, name, depth+1, tell) {
					return false
				}
				continue
			}
			b, _ := json.Marshal(v) //nolint:errchkjson // it was decoded from JSON
			value = string(b)
		default:
			b, _ := json.Marshal(v) //nolint:errchkjson // it was decoded from JSON
			value = string(b)
		}
		if !tell(name, value) {
			return false
		}
	}
	return true
}
