package forward

import (
	"strings"
	"time"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// quoteJSON appends s as a JSON string. What is not UTF-8 becomes U+FFFD.
func quoteJSON[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			if c < 0x20 {
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			} else {
				dst = append(dst, "\uFFFD"...)
			}
		}
		i++
		from = i
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

// timeJSON appends a moment as RFC 3339 with nanoseconds, in quotes.
func timeJSON(dst []byte, ns int64) []byte {
	dst = append(dst, '"')
	dst = time.Unix(0, ns).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000000Z")
	return append(dst, '"')
}

// object writes the members of a JSON object, each name once: the first wins.
type object struct {
	dst  []byte
	seen []string
	any  bool
}

func (o *object) open() {
	o.dst = append(o.dst, '{')
	o.seen, o.any = o.seen[:0], false
}

// name writes that of the next member; false: it was there already.
func (o *object) name(name string) bool {
	for _, s := range o.seen {
		if s == name {
			return false
		}
	}
	o.seen = append(o.seen, name)
	if o.any {
		o.dst = append(o.dst, ',')
	}
	o.any = true
	o.dst = append(quoteJSON(o.dst, name), ':')
	return true
}

func (o *object) text(name, value string) {
	if o.name(name) {
		o.dst = quoteJSON(o.dst, value)
	}
}

func (o *object) close() { o.dst = append(o.dst, '}') }

// plainJSON appends a row as one flat object: time, the labels, the fields, and the
// exact text as message. A label is never hidden by a field.
func plainJSON(o *object, r *row) {
	o.open()
	if o.name("@timestamp") {
		o.dst = timeJSON(o.dst, r.time)
	}
	for _, l := range r.labels {
		o.text(l.Name, l.Value)
	}
	// Of what has no structure the text is the message; of the rest it holds the fields.
	text := "message"
	if message := r.field("message"); message != "" && message != string(r.text) {
		text = "text"
	}
	if o.name(text) {
		o.dst = quoteJSON(o.dst, r.text)
	}
	for _, f := range r.fields {
		o.text(strings.ToValidUTF8(f.Name, "\uFFFD"), f.Value)
	}
	o.close()
}
