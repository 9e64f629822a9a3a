package collect

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// envelope is one record of the engine's json-file driver.
type envelope struct {
	log    []byte // what was written, still escaped, without the newline at its end
	full   bool   // a newline ended it; else the engine cut a long line here
	stderr bool
	attrs  []byte // JSON object of what the log options labels, env and tag ask for
	time   []byte // RFC 3339
}

var (
	logKey    = []byte(`{"log":"`)
	streamKey = []byte(`","stream":"std`)
	outEnd    = []byte(`","stream":"stdout",`)
	errEnd    = []byte(`","stream":"stderr",`)
	attrsKey  = []byte(`,"attrs":{`)
	timeKey   = []byte(`"time":"`)
	newline   = []byte(`\n`)
)

// longestTime is that of 2026-11-22T01:00:00.067779410+01:00 and a little more.
const longestTime = 40

// readEnvelope takes a record apart from both ends, so that it costs the same
// however long the message is. ok false: it is written in another way.
func readEnvelope(line []byte) (e envelope, ok bool) {
	n := len(line)
	if n < 60 || !bytes.HasPrefix(line, logKey) || line[n-1] != '}' || line[n-2] != '"' {
		return e, false
	}
	tail := line[:n-2]
	q := bytes.LastIndexByte(tail[max(0, len(tail)-longestTime):], '"')
	if q < 0 {
		return e, false
	}
	q += max(0, len(tail)-longestTime)
	e.time = tail[q+1:]
	head, found := bytes.CutSuffix(line[:q+1], timeKey)
	if !found {
		return e, false
	}
	if len(head) > 2 && head[len(head)-2] == '}' {
		// The last place that looks like it: a message cannot, its quotes are escaped. A value of attrs can
		// hold anything, but not an unescaped quote either.
		at := bytes.LastIndex(head, attrsKey)
		if at < 0 {
			return e, false
		}
		e.attrs, head = head[at+len(attrsKey)-1:len(head)-1], head[:at+1]
	}
	var rest []byte
	if rest, found = bytes.CutSuffix(head, outEnd); !found {
		if rest, found = bytes.CutSuffix(head, errEnd); !found {
			return e, false
		}
		e.stderr = true
	}
	if len(rest) < len(logKey) {
		return e, false
	}
	e.log = rest[len(logKey):]
	if bytes.HasSuffix(e.log, newline) && escaped(e.log, len(e.log)-1) {
		e.full, e.log = true, e.log[:len(e.log)-2]
	}
	return e, true
}

// escaped reports whether the byte at i is escaped: an odd number of backslashes
// stands before it.
func escaped(s []byte, i int) bool {
	n := 0
	for i--; i >= 0 && s[i] == '\\'; i-- {
		n++
	}
	return n%2 == 1
}

// salvageEnvelope reads a record that is written in another way, or torn by an
// engine that was killed: what follows the last whole beginning is read. ok
// false: there is nothing to read in it.
func salvageEnvelope(line []byte) (e envelope, ok bool) {
	if at := bytes.LastIndex(line, logKey); at > 0 && bytes.Contains(line[at:], streamKey) {
		if e, ok = readEnvelope(line[at:]); ok {
			return e, true
		}
	}
	var r struct {
		Log    *string         `json:"log"`
		Stream string          `json:"stream"`
		Attrs  json.RawMessage `json:"attrs"`
		Time   string          `json:"time"`
	}
	if json.Unmarshal(line, &r) != nil || r.Log == nil {
		return e, false
	}
	e.log = escape(nil, *r.Log)
	if bytes.HasSuffix(e.log, newline) && escaped(e.log, len(e.log)-1) {
		e.full, e.log = true, e.log[:len(e.log)-2]
	}
	e.stderr, e.attrs, e.time = r.Stream == "stderr", r.Attrs, []byte(r.Time)
	return e, true
}

// unescape appends what the JSON string s (without its quotes) stands for.
func unescape(dst, s []byte) []byte {
	for {
		j := bytes.IndexByte(s, '\\')
		if j < 0 || j+1 >= len(s) {
			return append(dst, s...)
		}
		dst = append(dst, s[:j]...)
		c := s[j+1]
		s = s[j+2:]
		switch c {
		case 'n':
			dst = append(dst, '\n')
		case 't':
			dst = append(dst, '\t')
		case 'r':
			dst = append(dst, '\r')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'u':
			r, ok := hex4(s)
			if !ok {
				dst = append(dst, '\\', 'u')
				continue
			}
			s = s[4:]
			if r >= 0xd800 && r < 0xdc00 && len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
				if low, ok := hex4(s[2:]); ok && low >= 0xdc00 && low < 0xe000 {
					r = (r-0xd800)<<10 | (low - 0xdc00) + 0x10000
					s = s[6:]
				}
			}
			dst = utf8.AppendRune(dst, r) // half a pair becomes U+FFFD
		default: // " \ /
			dst = append(dst, c)
		}
	}
}

func hex4(s []byte) (r rune, ok bool) {
	if len(s) < 4 {
		return 0, false
	}
	for _, c := range s[:4] {
		r <<= 4
		switch {
		case c >= '0' && c <= '9':
			r |= rune(c - '0')
		case c >= 'a' && c <= 'f':
			r |= rune(c-'a') + 10
		case c >= 'A' && c <= 'F':
			r |= rune(c-'A') + 10
		default:
			return 0, false
		}
	}
	return r, true
}

// escape appends text as the inside of a JSON string: only what must be escaped
// is, so that unescape gives the very bytes back.
func escape(dst []byte, text string) []byte {
	const digits = "0123456789abcdef"
	from := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return append(dst, text[from:]...)
}
