package proxy

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// fieldsMax is how many header lines a request may have.
const fieldsMax = 256

// asked is what a request's head is read into.
type asked struct {
	header http.Header
	values []string // of header
	url    url.URL
}

func (a *asked) reset() {
	if len(a.values) > 64 {
		a.header, a.values = http.Header{}, nil // a map does not shrink
		return
	}
	clear(a.header)
	clear(a.values)
	a.values, a.url = a.values[:0], url.URL{}
}

// ask reads a request's head: everything up to and with the empty line. It is as strict as
// it can be: what two readers could take for two different requests is refused,
// since the second one could pass by the gates of its route. status 0: taken.
func (t *turn) ask(l *line, head string) (status int, why string) {
	a, r := &t.asked, t.r
	line, rest, ok := cutLine(head)
	if !ok {
		return http.StatusBadRequest, "a line that does not end with CR LF"
	}
	method, line, _ := strings.Cut(line, " ")
	target, proto, _ := strings.Cut(line, " ")
	if !token(method) || target == "" || len(proto) != len("HTTP/1.1") || proto[:5] != "HTTP/" || proto[6] != '.' || !digit(proto[5]) || !digit(proto[7]) {
		return http.StatusBadRequest, "no request line"
	}
	if proto != "HTTP/1.1" && proto != "HTTP/1.0" {
		return http.StatusHTTPVersionNotSupported, "unsupported protocol version"
	}
	if method == http.MethodConnect {
		return http.StatusBadRequest, "no tunnels from here"
	}
	r.Method, r.RequestURI, r.Proto, r.ProtoMajor, r.ProtoMinor = method, target, proto, 1, int(proto[7]-'0')
	r.URL = &a.url
	if !plainTarget(target, r.URL) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return http.StatusBadRequest, "no address"
		}
		r.URL = u
	}
	r.Header, r.Body, r.TLS, r.RemoteAddr, r.Trailer = a.header, &t.body, l.tls, l.guard.text, nil
	r.ContentLength, r.Close = 0, r.ProtoMinor == 0
	host, hosts, lengths, encoded := "", 0, 0, false
	var announced []string
	for n := 0; ; n++ {
		if line, rest, ok = cutLine(rest); !ok {
			return http.StatusBadRequest, "a line that does not end with CR LF"
		}
		if line == "" {
			break
		}
		if n == fieldsMax {
			return http.StatusRequestHeaderFieldsTooLarge, ""
		}
		key, value, err := parseField(line)
		if err != nil {
			return http.StatusBadRequest, "a line that is no header"
		}
		switch key {
		case "Host":
			host = value
			hosts++
			continue
		case "Content-Length":
			if r.ContentLength, err = parseLength(value); err != nil {
				return http.StatusBadRequest, "no length"
			}
			lengths++
		case "Transfer-Encoding":
			if encoded || !strings.EqualFold(value, "chunked") {
				return http.StatusNotImplemented, "unsupported transfer encoding"
			}
			encoded = true
			continue
		case "Connection":
			if strings.Contains(strings.ToLower(value), "close") { // however it is written
				t.reply.last = true
			} else if lists(value, "keep-alive") {
				r.Close = false
			}
		case "Trailer":
			announced = append(announced, value)
		}
		i := len(a.values)
		a.values = append(a.values, value)
		if before := a.header[key]; before != nil {
			a.header[key] = append(before, value)
		} else {
			a.header[key] = a.values[i : i+1 : i+1]
		}
	}
	r.Host = r.URL.Host
	if r.Host == "" {
		r.Host = host
	}
	switch {
	case hosts > 1 || hosts == 0 && r.ProtoMinor > 0:
		return http.StatusBadRequest, "missing required Host header"
	case !validHost(host) || !validHost(r.Host):
		return http.StatusBadRequest, "malformed Host header"
	case lengths > 1:
		return http.StatusBadRequest, "two lengths"
	case encoded && lengths > 0:
		return http.StatusBadRequest, "a length and a transfer encoding"
	case encoded && r.ProtoMinor == 0:
		return http.StatusBadRequest, "HTTP/1.0 with a transfer encoding"
	}
	if cache := a.header["Pragma"]; len(cache) > 0 && cache[0] == "no-cache" && a.header["Cache-Control"] == nil {
		a.header["Cache-Control"] = []string{"no-cache"} // as net/http reads it (RFC 9111, 5.4)
	}
	switch {
	case encoded:
		r.ContentLength = -1
		t.body.chunked = true
		if len(announced) > 0 && !t.announce(announced) {
			return http.StatusBadRequest, "framing is announced as a trailer"
		}
	case r.ContentLength > 0:
		t.body.left = r.ContentLength
	default:
		t.body.done = true
	}
	t.reply.begin(r, l)
	return 0, ""
}

// announce notes the names of trailers that are to come. False: one would frame or route the message.
func (t *turn) announce(values []string) bool {
	t.r.Trailer = http.Header{}
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			switch name = textproto.CanonicalMIMEHeaderKey(trim(name)); name {
			case "":
			case "Transfer-Encoding", "Trailer", "Content-Length":
				return false
			default:
				if token(name) && trailing(name) {
					t.r.Trailer[name] = nil
				}
			}
		}
	}
	return true
}

// cutLine cuts at CR LF. ok: the line ends so.
func cutLine(s string) (line, rest string, ok bool) {
	i := strings.IndexByte(s, '\n')
	if i < 1 || s[i-1] != '\r' {
		return "", "", false
	}
	return s[:i-1], s[i+1:], true
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// isPlain holds the characters that a path and its escaped form have alike; isHost those of RFC 3986's hosts.
var isPlain, isHost = func() (p, h [256]bool) {
	for c := range 256 {
		name := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		p[c] = name || c < 127 && strings.IndexByte("-_.~$&+,/:;=@", byte(c)) >= 0
		h[c] = name || c < 127 && strings.IndexByte("!$%&'()*+,-.:;=[]_~", byte(c)) >= 0
	}
	return p, h
}()

// plainTarget reads an address that is only a path without escapes, and a query
// of which nothing is to be known; that is what most are. False: it is another one.
func plainTarget(target string, u *url.URL) bool {
	if target[0] != '/' {
		return false
	}
	for i := range len(target) {
		if !isPlain[target[i]] {
			if target[i] != '?' {
				return false
			}
			for j := i + 1; j < len(target); j++ {
				if c := target[j]; c <= ' ' || c >= 127 || c == '#' {
					return false
				}
			}
			*u = url.URL{Path: target[:i], RawQuery: target[i+1:], ForceQuery: i+1 == len(target)}
			return true
		}
	}
	*u = url.URL{Path: target}
	return true
}

func validHost(s string) bool {
	for i := range len(s) {
		if !isHost[s[i]] {
			return false
		}
	}
	return true
}
