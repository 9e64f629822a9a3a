package proxy

import (
	"errors"
	"fmt"
	"net/textproto"
	"strings"
)

const maxHead = 64 << 10 // of an answer's head, and of its trailers

// answer is the head of a target's response. Parsing is stricter than what a
// browser forgives: what two readers could take for two different messages is
// refused, since the next answer on the connection could be another client's.
type answer struct {
	status  int
	old     bool   // HTTP/1.0
	length  int64  // of Content-Length; -1: none
	said    string // as it was written
	chunked bool
	close   bool // the connection ends with it
	upgrade string
	fields  []field  // all but framing and what is of this connection alone
	listed  []string // values of Connection
	trailer []string // names that Trailer announces
	typed   bool     // has a Content-Type
}

var errNonsense = errors.New("answered nonsense")

func nonsense(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errNonsense, fmt.Sprintf(format, args...))
}

// parse reads a head: everything up to and with the empty line.
func (a *answer) parse(head string) error {
	*a = answer{length: -1, fields: a.fields[:0], listed: a.listed[:0], trailer: a.trailer[:0]}
	line, rest, _ := strings.Cut(head, "\n")
	line = strings.TrimSuffix(line, "\r")
	if len(line) < 12 || line[:7] != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return nonsense("%.40q is no status line", line)
	}
	a.old = line[7] == '0'
	for _, c := range []byte(line[9:12]) {
		if c < '0' || c > '9' {
			return nonsense("%.40q is no status line", line)
		}
		a.status = a.status*10 + int(c-'0')
	}
	if a.status < 100 {
		return nonsense("status %d", a.status)
	}
	if !validValue(line) {
		return nonsense("control characters in the status line")
	}
	keep, encoded, frames := false, false, false
	for {
		line, rest, _ = strings.Cut(rest, "\n")
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			break
		}
		key, value, err := parseField(line)
		if err != nil {
			return err
		}
		switch key {
		case "Content-Length":
			n, err := parseLength(value)
			if err != nil {
				return err
			}
			if a.length >= 0 && a.said != value {
				return nonsense("two lengths")
			}
			a.length, a.said = n, value
			continue
		case "Transfer-Encoding":
			if encoded || !strings.EqualFold(value, "chunked") {
				return nonsense("transfer encoding %.40q", value)
			}
			encoded = true
			continue
		case "Connection":
			if lists(value, "close") {
				a.close = true
			}
			if lists(value, "keep-alive") {
				keep = true
			}
			a.listed = append(a.listed, value)
			continue
		case "Upgrade":
			a.upgrade = value
			continue
		case "Trailer":
			for name := range strings.SplitSeq(value, ",") {
				if name = textproto.CanonicalMIMEHeaderKey(trim(name)); name == "Content-Length" || name == "Transfer-Encoding" || name == "Trailer" {
					frames = true
				} else if token(name) && trailing(name) {
					a.trailer = append(a.trailer, name)
				}
			}
			continue
		case "Content-Type":
			a.typed = true
		default:
			if hop(key) {
				continue
			}
		}
		a.fields = append(a.fields, field{key, value})
	}
	if encoded {
		if a.old {
			return nonsense("HTTP/1.0 with a transfer encoding")
		}
		if a.length >= 0 {
			return nonsense("a length and a transfer encoding")
		}
		if frames {
			return nonsense("framing is announced as a trailer")
		}
		a.chunked = true
	}
	if a.old && !keep {
		a.close = true
	}
	// What Connection names is of this connection alone.
	if len(a.listed) > 0 {
		kept := a.fields[:0]
		for _, f := range a.fields {
			if !anyLists(a.listed, f.key) {
				kept = append(kept, f)
			}
		}
		a.fields = kept
	}
	return nil
}

// bodiless says whether no body follows, whatever the head says of one.
func (a *answer) bodiless(method string) bool {
	return method == "HEAD" || a.status < 200 || a.status == 204 || a.status == 304
}

func parseField(line string) (key, value string, err error) {
	i := strings.IndexByte(line, ':')
	if i < 0 || !token(line[:i]) {
		// Also lines that go on with what the one before began, and names with a space before the colon.
		return "", "", nonsense("%.40q is no header line", line)
	}
	value = trim(line[i+1:])
	if !validValue(value) {
		return "", "", nonsense("control characters in header %.40q", line[:i])
	}
	return textproto.CanonicalMIMEHeaderKey(line[:i]), value, nil
}

func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 {
		return 0, nonsense("length %.40q", s)
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, nonsense("length %.40q", s)
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, nil
}

// parseChunk reads the line before a chunk. Extensions are dropped.
func parseChunk(line []byte) (int64, error) {
	var n int64
	i := 0
	for ; i < len(line); i++ {
		c := line[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			goto end
		}
		if i == 15 {
			return 0, nonsense("a chunk too large")
		}
		n = n<<4 | int64(c)
	}
end:
	rest := line[i:]
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		rest = rest[1:]
	}
	if i == 0 || len(rest) > 0 && rest[0] != ';' || !validValue(string(rest)) {
		return 0, nonsense("%.40q is no chunk", line)
	}
	return n, nil
}
