package logql

import (
	"slices"
	"strings"

	"github.com/tenderhq/tender/internal/logs"
)

// What __error__ says, and what it means, are Loki's words.
const (
	errJSON     = "JSONParserErr"
	errLogfmt   = "LogfmtParserErr"
	errSample   = "SampleExtractionErr"
	errFilter   = "LabelFilterErr"
	errTemplate = "TemplateFormatErr"

	errorLabel   = "__error__"
	detailsLabel = "__error_details__"
	extracted    = "_extracted"
)

// from says where the value of a label comes from.
type from uint8

const (
	nowhere from = iota
	stream       // the labels of the stream
	stored       // a field that the store keeps
	made         // a stage of the query
)

// view is a chunk with what was asked of it.
type view struct {
	logs.Chunk
	labels logs.Labels
	times  []int64
	cols   map[string][]string
	alias  map[string][]string // see plan
	raw    bool                // see plan
}

func newView(c logs.Chunk, p *plan) *view {
	return &view{Chunk: c, labels: c.Labels(), times: c.Times(), cols: map[string][]string{}, alias: p.alias, raw: p.raw}
}

// rawField is what collect keeps a text in whose meaning is in another field. It is the
// line that one sees anyway, so it is shown as a field only to who asks for it.
const rawField = "_raw"

// label returns the value of a label of the stream.
func (v *view) label(name string) (string, bool) {
	for _, f := range v.labels {
		if f.Name == name {
			return f.Value, true
		}
	}
	return "", false
}

// field returns a stored field of row i. What has the name of a label of the
// stream is found as NAME_extracted; a level also as detected_level, which is
// how Grafana asks for it.
func (v *view) field(name string, i int) string {
	if s := v.column(name, i); s != "" {
		return s
	}
	if base, cut := strings.CutSuffix(name, extracted); cut {
		if _, clash := v.label(base); clash {
			return v.column(base, i)
		}
	}
	if name == detectedLevel {
		return v.column("level", i)
	}
	return ""
}

// hasField: field may find something in a row.
func (v *view) hasField(name string) bool {
	return slices.ContainsFunc(append(columns([]string{name}), v.alias[name]...), func(c string) bool { return v.Column(c) != nil })
}

const detectedLevel = "detected_level"

func (v *view) column(name string, i int) string {
	col, asked := v.cols[name]
	if !asked {
		col = v.Column(name)
		v.cols[name] = col
	}
	if col != nil && col[i] != "" {
		return col[i]
	}
	for _, other := range v.alias[name] {
		if s := v.column(other, i); s != "" {
			return s
		}
	}
	return ""
}

// row is one entry on its way through the stages. It is used again for the next.
type row struct {
	*view
	i    int
	text []byte // as it was written; only with read
	read bool
	line []byte // what the stages made of it; with changed
	// changed: line is no longer text.
	changed bool

	set     []logs.Field // made by stages
	gone    []string     // dropped by stages
	only    bool         // after keep: what is not in set is gone
	pending stage        // a parser that has not run, because nobody has asked for what it finds

	err, details string

	fields []logs.Field
}

func (r *row) reset(v *view, i int) {
	r.view, r.i = v, i
	r.text, r.read, r.changed = r.text[:0], false, false
	r.set, r.gone, r.only, r.pending = r.set[:0], r.gone[:0], false, nil
	r.err, r.details = "", ""
}

// original is the exact text of the entry.
func (r *row) original() []byte {
	if !r.read {
		r.text, r.read = r.Text(r.text[:0], r.i), true
	}
	return r.text
}

// now is the line as the stages have it.
func (r *row) now() []byte {
	if r.changed {
		return r.line
	}
	return r.original()
}

// rewrite makes line the line.
func (r *row) rewrite(line []byte) { r.line, r.changed = line, true }

// fail notes the first thing that went wrong.
func (r *row) fail(kind, details string) {
	if r.err == "" {
		r.err, r.details = kind, details
	}
}

// get returns the value of a label and where it comes from.
func (r *row) get(name string) (string, from) {
	switch name {
	case errorLabel, detailsLabel:
		r.parse()
		v := r.err
		if name == detailsLabel {
			v = r.details
		}
		if v == "" {
			return "", nowhere
		}
		return v, made
	}
	if v, ok := r.made(name); ok {
		return v, made
	}
	if r.only || slices.Contains(r.gone, name) {
		return "", nowhere
	}
	if v, ok := r.label(name); ok {
		return v, stream
	}
	if v := r.field(name, r.i); v != "" {
		return v, stored
	}
	if r.pending != nil {
		r.parse()
		if v, ok := r.made(name); ok {
			return v, made
		}
	}
	return "", nowhere
}

func (r *row) made(name string) (string, bool) {
	for i := range r.set {
		if r.set[i].Name == name {
			return r.set[i].Value, true
		}
	}
	return "", false
}

// put sets a label, over whatever had that name.
func (r *row) put(name, value string) {
	switch name {
	case errorLabel:
		r.err = value
		return
	case detailsLabel:
		r.details = value
		return
	}
	for i := range r.set {
		if r.set[i].Name == name {
			r.set[i].Value = value
			return
		}
	}
	r.set = append(r.set, logs.Field{Name: name, Value: value})
	r.gone = slices.DeleteFunc(r.gone, func(n string) bool { return n == name })
}

// drop takes a label away.
func (r *row) drop(name string) {
	switch name {
	case errorLabel:
		r.err, r.details = "", ""
		return
	case detailsLabel:
		r.details = ""
		return
	}
	r.set = slices.DeleteFunc(r.set, func(f logs.Field) bool { return f.Name == name })
	r.gone = append(r.gone, name)
}

// find notes what a parser found. A label of the stream is never overwritten,
// and of two with one name the first counts.
func (r *row) find(name, value string) {
	if name == "" {
		return
	}
	if _, clash := r.label(name); clash && !r.only && !slices.Contains(r.gone, name) {
		name += extracted
	}
	if _, there := r.made(name); !there {
		r.set = append(r.set, logs.Field{Name: name, Value: value})
		r.gone = slices.DeleteFunc(r.gone, func(n string) bool { return n == name })
	}
}

// parse runs the parser that waits, on the text as it was written.
func (r *row) parse() {
	if p := r.pending; p != nil {
		r.pending = nil
		p.(finder).find(r, r.original())
	}
}

// later lets a parser wait until somebody asks for what it finds, or runs it at
// once where the line may change.
func (r *row) later(p stage) {
	r.parse()
	if r.changed {
		p.(finder).find(r, r.line)
		return
	}
	r.pending = p
}

// finder is a parser of lines.
type finder interface{ find(r *row, line []byte) }

// entry is the labels of a row, sorted by where they come from.
type entry struct {
	stream, meta, parsed []logs.Field
}

// labels returns all that the row has, each group sorted by name. Empty values
// are left out, as nobody could ask for them.
func (r *row) labelsOf(all bool) (e entry) {
	r.parse()
	if !r.only {
		for _, f := range r.labels {
			if _, over := r.made(f.Name); !over && f.Value != "" && !slices.Contains(r.gone, f.Name) {
				e.stream = append(e.stream, f)
			}
		}
		r.fields = r.Fields(r.fields[:0], r.i)
		fields := r.fields
		if !all {
			fields = fields[cutOut(r.original(), fields):]
		}
		for _, f := range fields {
			if f.Name == rawField && !r.raw {
				continue
			}
			f.Name = sanitize(f.Name)
			if _, clash := r.label(f.Name); clash {
				f.Name += extracted
			}
			_, over := r.made(f.Name)
			if over || f.Value == "" || slices.Contains(r.gone, f.Name) || has(e.meta, f.Name) {
				continue
			}
			e.meta = append(e.meta, f)
		}
	}
	for _, f := range r.set {
		if f.Value != "" {
			e.parsed = append(e.parsed, f)
		}
	}
	if r.err != "" {
		e.parsed = append(e.parsed, logs.Field{Name: errorLabel, Value: r.err})
		if r.details != "" {
			e.parsed = append(e.parsed, logs.Field{Name: detailsLabel, Value: r.details})
		}
	}
	for _, l := range [][]logs.Field{e.stream, e.meta, e.parsed} {
		slices.SortFunc(l, func(a, b logs.Field) int { return strings.Compare(a.Name, b.Name) })
	}
	return e
}

func has(l []logs.Field, name string) bool {
	return slices.ContainsFunc(l, func(f logs.Field) bool { return f.Name == name })
}

// merged is all of e in one list, sorted by name.
func (e entry) merged() logs.Labels {
	out := make(logs.Labels, 0, len(e.stream)+len(e.meta)+len(e.parsed))
	out = append(append(append(out, e.stream...), e.meta...), e.parsed...)
	slices.SortFunc(out, func(a, b logs.Field) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// cutOut is how many of the first fields stand in the text, one behind the other:
// they were cut out of it, and who sees the line sees them.
func cutOut(text []byte, fields []logs.Field) int {
	rest := string(text)
	for n, f := range fields {
		i := strings.Index(rest, f.Value)
		if i < 0 || f.Value == "" && rest == "" {
			return n
		}
		rest = rest[i+len(f.Value):]
	}
	return len(fields)
}

// sanitize makes a name that LogQL can say: ASCII letters, digits and _.
func sanitize(name string) string {
	if isName(name) {
		return name
	}
	b := []byte(name)
	for i, c := range b {
		if !nameByte(c) && c != ':' {
			b[i] = '_'
		}
	}
	if len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		return "_" + string(b)
	}
	return string(b)
}
