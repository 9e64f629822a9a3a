package collect

import (
	"hash/fnv"
	"maps"
	"regexp"
	"slices"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/logs"
)

// rules are what x-tender.logs says, ready to be followed.
type rules struct {
	format     string
	zone       *time.Location
	multiline  *regexp.Regexp // the first line of an entry
	single     bool           // no lines are joined
	redact     []redaction
	parse      []*regexp.Regexp
	rename     map[string]string
	add        []logs.Field
	drop, keep []match
	sample     float64
	active     bool // some rows may not be wanted
	text       []byte
}

type match struct {
	text   *regexp.Regexp
	fields map[string]*regexp.Regexp
}

// Check compiles what x-tender.logs says. Errors are Invalid and name the key.
func Check(l tender.Logs) error {
	_, err := newRules(l)
	return err
}

func newRules(l tender.Logs) (*rules, error) {
	r := &rules{format: l.Format, rename: l.Rename, sample: l.Sample}
	if r.format == "auto" {
		r.format = ""
	}
	bad := func(key string, err error) error {
		return tender.Errorf(tender.Invalid, "x-tender.logs.%s: %w", key, err)
	}
	var err error
	if l.Zone != "" {
		if r.zone, err = time.LoadLocation(l.Zone); err != nil {
			return nil, bad("zone", err)
		}
	}
	switch l.Multiline {
	case "":
	case "off":
		r.single = true
	default:
		if r.multiline, err = regexp.Compile(l.Multiline); err != nil {
			return nil, bad("multiline", err)
		}
	}
	for _, word := range l.Redact {
		x, err := redactionOf(word)
		if err != nil {
			return nil, bad("redact", err)
		}
		r.redact = append(r.redact, x)
	}
	for _, pattern := range l.Parse {
		x, err := compile(pattern)
		if err != nil {
			return nil, bad("parse", err)
		}
		r.parse = append(r.parse, x)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Add)) {
		r.add = append(r.add, logs.Field{Name: name, Value: l.Add[name]})
	}
	if r.drop, err = matches(l.Drop); err != nil {
		return nil, bad("drop", err)
	}
	if r.keep, err = matches(l.Keep); err != nil {
		return nil, bad("keep", err)
	}
	r.active = len(r.drop) > 0 || len(r.keep) > 0 || r.sample > 0 && r.sample < 1
	return r, nil
}

func matches(list []tender.LogMatch) (out []match, err error) {
	for _, l := range list {
		m := match{fields: map[string]*regexp.Regexp{}}
		if l.Text != "" {
			if m.text, err = regexp.Compile(l.Text); err != nil {
				return nil, err
			}
		}
		for name, pattern := range l.Fields {
			if m.fields[name], err = regexp.Compile("^(?:" + pattern + ")$"); err != nil {
				return nil, err
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// mayBe reports whether lines may be of a format.
func (r *rules) mayBe(format string) bool { return r.format == "" || r.format == format }

// cutGroups adds what the named groups of parse find in a text.
func (r *rules) cutGroups(p *parser, text string, start int, roles *roles) {
	for _, x := range r.parse {
		found := x.FindStringSubmatchIndex(text)
		if found == nil {
			continue
		}
		for i, name := range x.SubexpNames() {
			if name == "" || found[2*i] < 0 || found[2*i] == found[2*i+1] {
				continue
			}
			name = p.field(name)
			roles.see(len(p.rows.fields)-start, name)
			p.rows.add(name, text[found[2*i]:found[2*i+1]])
		}
		return
	}
}

// wants reports whether a row stays. What is decided is decided by the row alone,
// so that it is the same when the row is read again.
func (r *rules) wants(p *parser, row *logs.Row) bool {
	r.text = row.Text(r.text[:0])
	is := func(m match) bool { return m.is(r.text, row.Fields) }
	if slices.ContainsFunc(r.drop, is) || len(r.keep) > 0 && !slices.ContainsFunc(r.keep, is) {
		return false
	}
	if r.sample <= 0 || r.sample >= 1 {
		return true
	}
	switch find(row.Fields, detectedLevel) {
	case levelWarn, levelError, levelCritical, levelFatal:
		return true
	}
	h := fnv.New64a()
	h.Write(r.text)
	for i := range 8 {
		r.text = append(r.text[:0], byte(row.Time>>(8*i)))
		h.Write(r.text)
	}
	x := h.Sum64() // its high bits are poor: all are folded into those that count
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11)/(1<<53) < r.sample
}

func (m match) is(text []byte, fields []logs.Field) bool {
	if m.text != nil && !m.text.Match(text) {
		return false
	}
	for name, x := range m.fields {
		if !x.MatchString(find(fields, name)) {
			return false
		}
	}
	return true
}

func find(fields []logs.Field, name string) string {
	for _, f := range fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// compile makes a regular expression of one with grok patterns in it.
func compile(pattern string) (*regexp.Regexp, error) {
	expanded, err := grok(pattern, 0, map[string]bool{})
	if err != nil {
		return nil, err
	}
	x, err := regexp.Compile(expanded)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(x.SubexpNames(), func(s string) bool { return s != "" }) {
		return nil, tender.Errorf(tender.Invalid, "%q names no field", pattern).
			Hint("name what it finds: (?P<user>\\w+) or %%{WORD:user}")
	}
	return x, nil
}
