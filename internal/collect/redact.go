package collect

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// redaction takes something out of a text before anything is kept of it.
type redaction struct {
	name string
	hint string // a text without any of these bytes has nothing to redact; "": any may have
	find func(text string) []span
}

// span is a part of a text. Those of one text are in order and apart.
type span struct{ from, to int }

var redactions = map[string]redaction{
	"email": {name: "email", hint: "@", find: emails},
	"card":  {name: "card", find: cards},
	"token": {name: "token", find: tokens},
}

func redactionOf(word string) (redaction, error) {
	if r, ok := redactions[word]; ok {
		return r, nil
	}
	x, err := regexp.Compile(word)
	return redaction{name: "redacted", find: func(text string) []span { return found(x, text) }}, err
}

// clean returns text with what must not be kept taken out.
func (r *rules) clean(text string) (string, bool) {
	was, changed := text, false
	// Fields are kept as what they mean: the same word must be found however it is spelt.
	text = spelt(text)
	for _, x := range r.redact {
		if x.hint != "" && !strings.Contains(text, x.hint) {
			continue
		}
		spans := x.find(text)
		if len(spans) == 0 {
			continue
		}
		var b strings.Builder
		at := 0
		for _, s := range spans {
			b.WriteString(text[at:s.from])
			b.WriteString("[" + x.name + "]")
			at = s.to
		}
		b.WriteString(text[at:])
		text, changed = b.String(), true
	}
	if !changed {
		return was, false
	}
	return text, true
}

// found are the parts that a pattern finds. Where it has a group, only what the group
// found goes.
func found(x *regexp.Regexp, text string) (out []span) {
	for _, f := range x.FindAllStringSubmatchIndex(text, -1) {
		if s := group(f); s.from < s.to {
			out = append(out, s)
		}
	}
	return out
}

// group is what the first group found that found anything, else the whole.
func group(f []int) span {
	for i := 2; i < len(f); i += 2 {
		if f[i] >= 0 {
			return span{f[i], f[i+1]}
		}
	}
	return span{f[0], f[1]}
}

var cardPattern = regexp.MustCompile(`\b[0-9](?:[ -]?[0-9]){12,18}\b`)

func cards(text string) (out []span) {
	for _, s := range found(cardPattern, text) {
		if luhn(text[s.from:s.to]) {
			out = append(out, s)
		}
	}
	return out
}

// emails finds what [\w.+%-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+ does, from
// each @ on: the pattern itself tries its repetitions at every byte.
func emails(text string) (out []span) {
	const longestName, longestLabel = 64, 63
	end := 0
	for at := 0; at < len(text); at++ {
		n := strings.IndexByte(text[at:], '@')
		if n < 0 {
			break
		}
		at += n
		from := at
		for from > max(end, at-longestName) && mailByte(text[from-1]) {
			from--
		}
		to, labels := at+1, 0
		for {
			next := to
			for next < min(len(text), to+longestLabel) && labelByte(text[next]) {
				next++
			}
			if next == to {
				to-- // the dot before it, or the @
				break
			}
			to, labels = next, labels+1
			if to == len(text) || text[to] != '.' {
				break
			}
			to++
		}
		if from < at && labels > 1 {
			out = append(out, span{from, to})
			end = to
		}
	}
	return out
}

func mailByte(c byte) bool {
	return labelByte(c) || c == '_' || c == '.' || c == '+' || c == '%'
}

func labelByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
}

const (
	secretKey    = `(?i:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|authorization)`
	secretScheme = `(?i:(?:bearer|basic|digest|token|apikey|negotiate)\s+)?`
)

// tokenPattern has a group for what goes. Of a value in quotes it finds the quote and
// where the value begins: closing looks for its end. A quote behind a key that has none
// may as well be the end of a text, so that there the value has to begin at once.
var tokenPattern = regexp.MustCompile(
	`\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*` + // a JSON web token
		`|\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|sk-[\w-]{16,}|[sr]k_(?:live|test)_\w{10,}|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{30,})` +
		`|(?i:\b(?:bearer|basic)\s+)(?P<bearer>[\w.~+/-]{8,}=*)` +
		`|` + secretKey + `(?:` +
		`\\*["']\s*[:=]\s*(?P<quote>\\*["'])` + secretScheme + `(?P<value>)` +
		`|\s*[:=]\s*(?P<loose>\\*["'])` + secretScheme + `(?P<there>)(?:[^\s"'\\,;&}]|\\[^\snrt])` +
		`|\\*["']?\s*[:=]\s*` + secretScheme + `(?P<bare>[^\s"'\\,;&}]{4,}))`)

func tokens(text string) (out []span) {
	const shortest = 4
	quote, loose := 2*tokenPattern.SubexpIndex("quote"), 2*tokenPattern.SubexpIndex("loose")
	end := 0
	for _, f := range tokenPattern.FindAllStringSubmatchIndex(text, -1) {
		s := group(f)
		for _, q := range []int{quote, loose} {
			if f[q] < 0 {
				continue
			}
			s = span{f[q+2], closing(text, f[q+2], text[f[q]:f[q+1]])}
			if s.to-s.from < shortest {
				s.to = s.from
			}
		}
		s.from = max(s.from, end) // what looks like a key may be part of a value
		if s.from < s.to {
			out = append(out, s)
			end = s.to
		}
	}
	return out
}

// closing is where a value ends that begins at from, behind an opening quote with the
// backslashes before it. JSON within JSON doubles backslashes at each level: with k of them
// before the quotes around a value, one that belongs to it has an odd number times k+1,
// and k. A value that is not closed ends with its line.
func closing(text string, from int, opening string) int {
	k, quote := len(opening)-1, opening[len(opening)-1]
	json := strings.HasPrefix(text, "{")
	run := 0
	for i := from; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			run++
			continue
		case c == '\n':
			return i
		case c == quote && (run < k || (run+1)/(k+1)%2 == 1):
			return i - min(run, k)
		case c == '"' && quote != c && json && run <= k && run%2 == 0:
			return i // of the string around it
		}
		run = 0
	}
	return len(text)
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
