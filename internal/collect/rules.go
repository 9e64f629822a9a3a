package collect

import (
	"hash/fnv"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

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

// redaction takes something out of a text before anything is kept of it.
type redaction struct {
	name  string
	hint  string // a text without any of these bytes has nothing to redact; "": any may have
	find  *regexp.Regexp
	holds func(string) bool // of what was found; nil: all
}

var redactions = map[string]redaction{
	"email": {name: "email", hint: "@", find: regexp.MustCompile(`[\w.+%-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+`)},
	"card":  {name: "card", find: regexp.MustCompile(`\b[0-9](?:[ -]?[0-9]){12,18}\b`), holds: luhn},
	"token": {name: "token", find: regexp.MustCompile(
		`\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*` + // a JSON web token
			`|\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|sk-[\w-]{16,}|[sr]k_(?:live|test)_\w{10,}|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{30,})` +
			`|(?i:\b(?:bearer|basic)\s+)([\w.~+/-]{8,}=*)` +
			`|(?i:(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|authorization)\\?["']?\s*[:=]\s*\\?["']?(?:(?:bearer|basic|digest|token|apikey|negotiate)\s+)?)([^\s"'\\,;&}]{4,})`)},
}

func redactionOf(word string) (redaction, error) {
	if r, ok := redactions[word]; ok {
		return r, nil
	}
	x, err := regexp.Compile(word)
	return redaction{name: "redacted", find: x}, err
}

// clean returns text with what must not be kept taken out. Where a pattern has a
// group, only what the group found goes.
func (r *rules) clean(text string) (string, bool) {
	was, changed := text, false
	// Fields are kept as what they mean: the same word must be found however it is spelt.
	text = spelt(text)
	for _, x := range r.redact {
		if x.hint != "" && !strings.Contains(text, x.hint) {
			continue
		}
		found := x.find.FindAllStringSubmatchIndex(text, -1)
		if found == nil {
			continue
		}
		var b strings.Builder
		at := 0
		for _, f := range found {
			from, to := f[0], f[1]
			for i := 2; i < len(f); i += 2 {
				if f[i] >= 0 {
					from, to = f[i], f[i+1]
					break
				}
			}
			if from == to || x.holds != nil && !x.holds(text[from:to]) {
				continue
			}
			b.WriteString(text[at:from])
			b.WriteString("[" + x.name + "]")
			at = to
		}
		if at > 0 {
			b.WriteString(text[at:])
			text, changed = b.String(), true
		}
	}
	if !changed {
		return was, false
	}
	return text, true
}

// spelt writes out the escapes of JSON that stand for what needs none: \u0040 and \/.
func spelt(text string) string {
	if !strings.Contains(text, `\u`) && !strings.Contains(text, `\/`) {
		return text
	}
	code := func(at int) rune {
		if at+6 > len(text) || text[at:at+2] != `\u` {
			return -1
		}
		n, err := strconv.ParseUint(text[at+2:at+6], 16, 16)
		if err != nil {
			return -1
		}
		return rune(n)
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			i++
			continue
		}
		c, n := code(i), 6
		if utf16.IsSurrogate(c) {
			c, n = utf16.DecodeRune(c, code(i+6)), 12
		}
		switch {
		case text[i+1] == '/':
			b.WriteByte('/')
			i += 2
		case c >= ' ' && c != '"' && c != '\\' && c != 0x7f && c != utf8.RuneError:
			b.WriteRune(c)
			i += n
		default:
			b.WriteString(text[i : i+2])
			i += 2
		}
	}
	return b.String()
}

// luhn reports whether the digits in s can be the number of a card.
func luhn(s string) bool {
	sum, n := 0, 0
	for i := len(s) - 1; i >= 0; i-- {
		if !digit(s[i]) {
			continue
		}
		d := int(s[i] - '0')
		if n%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
		n++
	}
	return n >= 13 && sum%10 == 0
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
