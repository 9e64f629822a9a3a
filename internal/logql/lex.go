package logql

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tenderhq/tender"
)

// kind is what a token is.
type kind uint8

const (
	eof kind = iota
	ident
	text  // a quoted string; val is what it says
	digit // a number
	span  // a duration, num in nanoseconds
	size  // a number of bytes
	sign  // an operator or a bracket
	flag  // --strict
)

type token struct {
	kind kind
	val  string
	num  float64
	pos  int // bytes from the start of the query
}

func (t token) String() string {
	switch t.kind {
	case eof:
		return "end of query"
	case text:
		return strconv.Quote(t.val)
	}
	return strconv.Quote(t.val)
}

// signs are the operators, longest first.
var signs = []string{"|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "{", "}", "(", ")", "[", "]", ",", "|", "=", ">", "<", "+", "-", "*", "/", "%", "^"}

// lex splits a query into tokens; the last one is eof.
func lex(q string) ([]token, error) {
	var out []token
	for i := 0; i < len(q); {
		r, n := utf8.DecodeRuneInString(q[i:])
		switch {
		case unicode.IsSpace(r):
			i += n
		case r == '#':
			end := strings.IndexByte(q[i:], '\n')
			if end < 0 {
				end = len(q) - i
			}
			i += end
		case r == '"' || r == '`':
			t, end, err := quoted(q, i)
			if err != nil {
				return nil, err
			}
			out, i = append(out, t), end
		case r >= '0' && r <= '9' || r == '.' && i+1 < len(q) && q[i+1] >= '0' && q[i+1] <= '9':
			t, end, err := number(q, i)
			if err != nil {
				return nil, err
			}
			out, i = append(out, t), end
		case r == '_' || r < utf8.RuneSelf && unicode.IsLetter(r):
			end := i
			for end < len(q) && nameByte(q[end]) {
				end++
			}
			out, i = append(out, token{kind: ident, val: q[i:end], pos: i}), end
		case strings.HasPrefix(q[i:], "--") && i+2 < len(q) && q[i+2] >= 'a' && q[i+2] <= 'z':
			end := i + 2
			for end < len(q) && (nameByte(q[end]) || q[end] == '-') {
				end++
			}
			out, i = append(out, token{kind: flag, val: q[i:end], pos: i}), end
		default:
			found := ""
			for _, s := range signs {
				if strings.HasPrefix(q[i:], s) {
					found = s
					break
				}
			}
			if found == "" {
				if foreign := foreigners[r]; foreign != "" {
					return nil, wrong(q, i, "%s", foreign)
				}
				return nil, wrong(q, i, "%q does not belong here", string(r))
			}
			out, i = append(out, token{kind: sign, val: found, pos: i}), i+len(found)
		}
	}
	return append(out, token{kind: eof, pos: len(q)}), nil
}

func nameByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func quoted(q string, at int) (token, int, error) {
	mark := q[at]
	for i := at + 1; i < len(q); i++ {
		switch {
		case q[i] == '\\' && mark == '"':
			i++
		case q[i] == mark:
			raw := q[at : i+1]
			if mark == '`' {
				return token{kind: text, val: raw[1 : len(raw)-1], pos: at}, i + 1, nil
			}
			// Go's rules, but a line may end in a string.
			val, err := strconv.Unquote(strings.ReplaceAll(raw, "\n", `\n`))
			if err != nil {
				return token{}, 0, wrong(q, at, "the string %s has a bad escape; in backticks nothing needs one", raw)
			}
			return token{kind: text, val: val, pos: at}, i + 1, nil
		}
	}
	return token{}, 0, wrong(q, at, "the string has no end")
}

func number(q string, at int) (token, int, error) {
	end := at
	for end < len(q) {
		c := q[end]
		exponent := (c == '+' || c == '-') && (q[end-1] == 'e' || q[end-1] == 'E') && strings.IndexFunc(q[at:end-1], unicode.IsLetter) < 0
		if c != '.' && !nameByte(c) && c != 0xc2 && c != 0xb5 && !exponent { // c2 b5 is the micro sign
			break
		}
		end++
	}
	raw := q[at:end]
	if v, err := strconv.ParseFloat(raw, 64); err == nil && !strings.ContainsAny(raw, "_xXpP") {
		return token{kind: digit, val: raw, num: v, pos: at}, end, nil
	}
	if d, ok := duration(raw); ok {
		return token{kind: span, val: raw, num: float64(d), pos: at}, end, nil
	}
	if b, ok := bytesOf(raw); ok {
		return token{kind: size, val: raw, num: b, pos: at}, end, nil
	}
	return token{}, 0, wrong(q, at, "%q is no number, duration or size", raw)
}

// duration reads Go's durations, and days, weeks and years before them, as Prometheus does.
func duration(s string) (time.Duration, bool) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, true
	}
	var whole time.Duration
	rest, last := s, 4
	for rest != "" {
		n := 0
		for n < len(rest) && (rest[n] >= '0' && rest[n] <= '9' || rest[n] == '.') {
			n++
		}
		if n == 0 || n == len(rest) {
			return 0, false
		}
		unit := strings.IndexByte("dwy", rest[n])
		if unit < 0 {
			d, err := time.ParseDuration(rest)
			if err != nil {
				return 0, false
			}
			return whole + d, true
		}
		if unit >= last {
			return 0, false
		}
		last = unit
		v, err := strconv.ParseFloat(rest[:n], 64)
		days := v * []float64{1, 7, 365}[unit]
		if err != nil || days > 100*365 {
			return 0, false
		}
		whole += time.Duration(days * 24 * float64(time.Hour))
		rest = rest[n+1:]
	}
	return whole, s != ""
}

// units of sizes: k is 1000 with a B behind it or alone, Ki 1024.
var units = map[string]float64{
	"b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12, "p": 1e15, "pb": 1e15, "e": 1e18, "eb": 1e18,
	"ki": 1 << 10, "kib": 1 << 10, "mi": 1 << 20, "mib": 1 << 20, "gi": 1 << 30, "gib": 1 << 30, "ti": 1 << 40, "tib": 1 << 40, "pi": 1 << 50, "pib": 1 << 50, "ei": 1 << 60, "eib": 1 << 60,
}

// bytesOf reads a size such as 42MB, 1.5 KiB or 512.
func bytesOf(s string) (float64, bool) {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
		n++
	}
	v, err := strconv.ParseFloat(s[:n], 64)
	if err != nil {
		return 0, false
	}
	unit := strings.ToLower(strings.TrimSpace(s[n:]))
	if unit == "" {
		return v, true
	}
	f, ok := units[unit]
	return v * f, ok
}

// wrong is what the query says wrong, with its position.
func wrong(q string, pos int, format string, args ...any) error {
	pos = min(pos, len(q))
	line := 1 + strings.Count(q[:pos], "\n")
	col := 1 + utf8.RuneCountInString(q[strings.LastIndexByte(q[:pos], '\n')+1:pos])
	return tender.Errorf(tender.Invalid, "parse error at line %d, col %d: %s", line, col, fmt.Sprintf(format, args...)).
		Hint("docs/logql.md has the whole language")
}

// foreigners belong to PromQL, and LogQL has no such thing.
var foreigners = map[rune]string{
	'@': `there is no modifier "@" in LogQL; offset moves a range back`,
	':': "there are no subqueries such as [1h:5m] in LogQL; a range holds lines",
}
