package logql

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// logfmtParser is | logfmt.
type logfmtParser struct {
	strict, keepEmpty bool
	parts             []extraction
}

func (p *parser) logfmt() (stage, error) {
	l := &logfmtParser{}
	for p.peek().kind == flag {
		switch f := p.next(); f.val {
		case "--strict":
			l.strict = true
		case "--keep-empty":
			l.keepEmpty = true
		default:
			return nil, wrong(p.q, f.pos, "logfmt has no flag %s; it has --strict and --keep-empty", f.val)
		}
	}
	var err error
	l.parts, err = p.extractions(nil)
	return l, err
}

func (l *logfmtParser) String() string {
	s := "| logfmt"
	if l.strict {
		s += " --strict"
	}
	if l.keepEmpty {
		s += " --keep-empty"
	}
	return s + extractionText(l.parts)
}

func (l *logfmtParser) reads() []string { return nil }

func (l *logfmtParser) run(r *row) bool {
	if l.parts == nil {
		r.later(l)
		return true
	}
	r.parse()
	l.find(r, r.now())
	return true
}

func (l *logfmtParser) find(r *row, line []byte) {
	var seen []string
	bad := logfmt(line, func(key, value string, bare bool) {
		if l.parts == nil {
			if !bare && value != "" || l.keepEmpty {
				r.find(sanitize(key), value)
			}
			return
		}
		for _, e := range l.parts {
			if e.from == key && !slices.Contains(seen, e.name) {
				seen = append(seen, e.name)
				r.find(e.name, value)
			}
		}
	}, l.strict)
	if bad >= 0 && l.strict {
		r.fail(errLogfmt, "no pair of key and value at byte "+strconv.Itoa(bad+1))
	}
	for _, e := range l.parts {
		if !slices.Contains(seen, e.name) {
			r.find(e.name, "")
		}
	}
}

// logfmt reports the pairs of a line, and where the first bad one stands (-1: none
// is). With strict it ends there, else it goes on behind it.
func logfmt(line []byte, found func(key, value string, bare bool), strict bool) (bad int) {
	bad = -1
	for i := 0; i < len(line); {
		if line[i] <= ' ' {
			i++
			continue
		}
		start := i
		for i < len(line) && line[i] > ' ' && line[i] != '=' && line[i] != '"' {
			i++
		}
		key := string(line[start:i])
		ok := key != "" && utf8.ValidString(key)
		bare, value := true, ""
		switch {
		case i < len(line) && line[i] == '"':
			ok = false
		case i < len(line) && line[i] == '=':
			bare = false
			i++
			if i < len(line) && line[i] == '"' {
				end := i + 1
				for end < len(line) && line[end] != '"' {
					if line[end] == '\\' {
						end++
					}
					end++
				}
				if end >= len(line) {
					ok, i = false, len(line)
					break
				}
				raw := string(line[i : end+1])
				i = end + 1
				v, err := strconv.Unquote(strings.ReplaceAll(raw, "\n", `\n`))
				if err != nil {
					v = raw[1 : len(raw)-1]
				}
				value = v
				break
			}
			from := i
			for i < len(line) && line[i] > ' ' {
				if line[i] == '=' || line[i] == '"' {
					ok = false
				}
				i++
			}
			value = string(line[from:i])
		}
		if !ok {
			if bad < 0 {
				bad = start
			}
			if strict {
				return bad
			}
			for i < len(line) && line[i] > ' ' {
				i++
			}
			continue
		}
		found(key, value, bare)
	}
	return bad
}

// regexpParser is | regexp "(?P<name>...)".
type regexpParser struct {
	re    *regexp.Regexp
	raw   string
	names []string
}

func (p *parser) regexpParser() (stage, error) {
	t := p.next()
	if t.kind != text {
		return nil, p.unexpected(t, "a string")
	}
	re, err := p.regexp(t, "", "")
	if err != nil {
		return nil, err
	}
	s := &regexpParser{re: re, raw: t.val, names: re.SubexpNames()}
	named := slices.DeleteFunc(slices.Clone(s.names), func(n string) bool { return n == "" })
	if len(named) == 0 {
		return nil, wrong(p.q, t.pos, "the expression names nothing: write (?P<name>...)")
	}
	slices.Sort(named)
	if len(slices.Compact(named)) != len(slices.DeleteFunc(slices.Clone(s.names), func(n string) bool { return n == "" })) {
		return nil, wrong(p.q, t.pos, "the expression uses one name twice")
	}
	return s, nil
}

func (s *regexpParser) String() string  { return "| regexp " + strconv.Quote(s.raw) }
func (s *regexpParser) reads() []string { return nil }

func (s *regexpParser) run(r *row) bool {
	r.parse()
	line := r.now()
	m := s.re.FindSubmatchIndex(line)
	for i, name := range s.names {
		if m != nil && name != "" && m[2*i] >= 0 {
			r.find(name, string(line[m[2*i]:m[2*i+1]]))
		}
	}
	return true
}

// patternParser is | pattern "<ip> - <_>".
type patternParser struct {
	raw   string
	parts []patternPart
}

// patternPart is text that must stand there, or a capture.
type patternPart struct {
	literal []byte
	capture string // "_" skips
}

var captures = regexp.MustCompile("<[a-zA-Z_][a-zA-Z0-9_]*>")

func (p *parser) patternParser() (stage, error) {
	t := p.next()
	if t.kind != text {
		return nil, p.unexpected(t, "a string")
	}
	s := &patternParser{raw: t.val}
	named, last := map[string]bool{}, 0
	for n, m := range captures.FindAllStringIndex(t.val, -1) {
		if m[0] > last {
			s.parts = append(s.parts, patternPart{literal: []byte(t.val[last:m[0]])})
		} else if n > 0 {
			return nil, wrong(p.q, t.pos, "two captures with nothing between them")
		}
		name := t.val[m[0]+1 : m[1]-1]
		if name != "_" {
			if named[name] {
				return nil, wrong(p.q, t.pos, "the pattern uses %q twice", name)
			}
			named[name] = true
		}
		s.parts = append(s.parts, patternPart{capture: name})
		last = m[1]
	}
	if len(named) == 0 {
		return nil, wrong(p.q, t.pos, "the pattern captures nothing: write <name>")
	}
	if last < len(t.val) {
		s.parts = append(s.parts, patternPart{literal: []byte(t.val[last:])})
	}
	return s, nil
}

func (s *patternParser) String() string  { return "| pattern " + strconv.Quote(s.raw) }
func (s *patternParser) reads() []string { return nil }

func (s *patternParser) run(r *row) bool {
	r.parse()
	rest := r.now()
	for i, part := range s.parts {
		if part.capture == "" {
			if i > 0 { // consumed by the capture before it
				continue
			}
			if !bytes.HasPrefix(rest, part.literal) {
				return true
			}
			rest = rest[len(part.literal):]
			continue
		}
		value := rest
		if i+1 < len(s.parts) {
			end := bytes.Index(rest, s.parts[i+1].literal)
			if end < 0 {
				if part.capture != "_" {
					r.find(part.capture, string(rest))
				}
				return true
			}
			value, rest = rest[:end], rest[end+len(s.parts[i+1].literal):]
		}
		if part.capture != "_" {
			r.find(part.capture, string(value))
		}
	}
	return true
}
