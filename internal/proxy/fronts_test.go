package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// asks are requests on which two readers might disagree, and others.
var asks = []string{
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /a/b?c=d HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX-A: 1\r\nx-a: 2\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3;a=b\r\nhel\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: , X A,Host\r\n\r\n0\r\nHost: b\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 5\r\n\r\nhello",
	"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
	"GET / HTTP/1.0\r\n\r\n",
	"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /next HTTP/1.0\r\n\r\n",
	"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\nGET /next HTTP/1.0\r\n\r\n",
	"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET http://b HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET http://u:p@b/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET // HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /%2e%2e/%zz HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /%e4?%zz#f HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /\xe4?\xe4 HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /a?b HTTP/1.1\r\nHost: a\r\nRange: x\r\nCookie: a=b; c\r\nCookie: d\r\n\r\n",
	"GET /? HTTP/1.1\r\nHost: a\r\nTe: trailers\r\nPragma: no-cache\r\nX-Forwarded-For: 1\r\nX_Real_IP: 2\r\n\r\n",
	"GET /a;b!'()* HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\n",
	"PRI * HTTP/1.1\r\nHost: a\r\n\r\n",
	"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
	"get / HTTP/1.1\r\nHost: a\r\n\r\n",
	"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\n\r\n",
	"GET / HTTP/1.1\r\nHost:\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: [::1]:8\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
	"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
	"GET / a HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
	"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
	"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
	"GET / http/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\nHost: a\n\n",
	"GET / HTTP/1.1\r\nHost: a\n\r\n",
	"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
	"GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX\xe4: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\t \r\nY:\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
	"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\na",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n00\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 1\r\na\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX : b\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: b\n\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	"DELETE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
}

// counted is a target that tells what it was asked, and keeps it.
type counted struct {
	addr string
	mu   sync.Mutex
	seen []string
}

func newCounted(t testing.TB) *counted {
	c := new(counted)
	c.addr = speaker(t, func(conn net.Conn, in *bufio.Reader) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if r.Header.Get("Expect") != "" {
				io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			text := fmt.Sprintf("%s %s %q %q %d %v", r.Method, r.RequestURI, r.Host, body, r.ContentLength, r.TransferEncoding)
			for i, h := range []http.Header{r.Header, r.Trailer} {
				for _, k := range slices.Sorted(maps.Keys(h)) {
					if i == 1 && (!token(k) || !trailing(k)) {
						continue // announced, and nothing comes of it
					}
					text += fmt.Sprintf("|%s %q", k, h[k])
				}
				text += "|"
			}
			c.mu.Lock()
			c.seen = append(c.seen, text)
			c.mu.Unlock()
			answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Was: %s\r\nContent-Length: %d\r\n\r\n", r.Method, len(text))
			if r.URL.Path == "/next" {
				answer = "HTTP/1.1 200 OK\r\nX-Was: " + r.Method + "\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(text), text)
			} else {
				answer += text
			}
			if r.Method == "HEAD" {
				answer, _, _ = strings.Cut(answer, "\r\n\r\n")
				answer += "\r\n\r\n"
			}
			if _, err := io.WriteString(conn, answer); err != nil {
				return
			}
		}
	})
	return c
}

func (c *counted) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.seen
	c.seen = nil
	return list
}

// behind follows what a fuzzer sends: more bytes than any body that is left, and no request.
var behind = strings.Repeat("\x00\r\n\r\n", 2000)

// What clients send means the same to our front and to net/http's: the target is asked
// the same and the client told the same. Ours may refuse more, for the reasons that refuses lists.
func FuzzBothFronts(f *testing.F) {
	for _, text := range asks {
		f.Add(text, uint8(0))
		if !strings.HasPrefix(text, "PRI") { // which net/http waits for
			f.Add(text, uint8(1))
			f.Add(text, uint8(7))
		}
	}
	log.SetOutput(io.Discard)
	f.Cleanup(func() { log.SetOutput(os.Stderr) })
	front := func(std bool) (*running, *counted) {
		c := newCounted(f)
		route := to(c.addr)
		route.Retries = -1
		return serve(f, Options{StdFront: std, Log: slog.New(slog.DiscardHandler)}, tableOf(route)), c
	}
	own, ownTarget := front(false)
	std, stdTarget := front(true)
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		if large.MatchString(text) || len(text) > 16<<10 {
			t.Skip("a body that is longer than what follows would be waited for")
		}
		a, b := own.heard(t, text, int(size)), std.heard(t, text, int(size))
		one, two := ownTarget.take(), stdTarget.take()
		if why := apart(a, b, one, two); why != "" && !(why == stopped && refuses(text) != "") {
			t.Errorf("%q\n%s\nown: %q\nstd: %q\ntarget of own: %q\ntarget of std: %q", text, why, a, b, one, two)
		}
	})
}

// large is a number that may be a length.
var large = regexp.MustCompile(`[0-9a-fA-F]{4}`)

// heard sends text and returns the answers that come: a status and all that the
// target said. The last one is "refused" or "cut" if the connection ended so.
func (r *running) heard(t *testing.T, text string, size int) (list []string) {
	t.Helper()
	c := r.dial(t)
	defer c.Close()
	go func() {
		for rest := text; rest != "" && size > 0; {
			n := min(len(rest), size)
			if _, err := io.WriteString(c, rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		if size == 0 {
			_, _ = io.WriteString(c, text)
		}
		_, _ = io.WriteString(c, behind)
	}()
	all, err := io.ReadAll(c)
	if err != nil && isDeadline(err) {
		t.Fatalf("%q: no end after %q", text, all)
	}
	for len(all) > 0 {
		method := "GET"
		if head, _, _ := bytes.Cut(all, []byte("\r\n\r\n")); bytes.Contains(head, []byte("X-Was: HEAD")) {
			method = "HEAD"
		}
		raw := bytes.NewReader(all)
		in := bufio.NewReaderSize(raw, 16)
		a, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return append(list, "cut")
		}
		body, err := io.ReadAll(a.Body)
		if err != nil {
			return append(list, "cut")
		}
		all = all[len(all)-raw.Len()-in.Buffered():]
		if a.StatusCode < 200 {
			continue
		}
		if a.StatusCode >= 400 {
			if !a.Close {
				list = append(list, fmt.Sprint(a.StatusCode))
				continue
			}
			return append(list, "refused")
		}
		delete(a.Header, "Date")
		for k := range a.Header {
			if framing(k) {
				delete(a.Header, k)
			}
		}
		list = append(list, fmt.Sprintf("%d %v %s", a.StatusCode, a.Header, body))
	}
	return list
}

const stopped = "ours stops where net/http's goes on"

// apart says in what two fronts differ.
func apart(a, b, one, two []string) string {
	last := func(list []string) (string, []string) {
		if n := len(list); n > 0 && (list[n-1] == "refused" || list[n-1] == "cut") {
			return list[n-1], list[:n-1]
		}
		return "", list
	}
	_, a = last(a)
	_, b = last(b)
	switch {
	case slices.Equal(a, b) && slices.Equal(one, two):
		return ""
	case len(a) <= len(b) && slices.Equal(a, b[:len(a)]) && len(one) <= len(two) && slices.Equal(one, two[:len(one)]):
		return stopped
	case !slices.Equal(one, two):
		return "the target was asked something else"
	}
	return "the client was told something else"
}

var (
	bareFeed = regexp.MustCompile(`(^|[^\r])\n`)
	folded   = regexp.MustCompile(`\n[ \t]`)
	versions = regexp.MustCompile(`HTTP/[0-9]\.[0-9]`)
	length   = regexp.MustCompile(`(?i)\ncontent-length`)
	encoding = regexp.MustCompile(`(?i)\ntransfer-encoding`)
	nameless = regexp.MustCompile("\n[^\n:]*[^!#$%&'*+.^_`|~0-9A-Za-z\n:-][^\n:]*:")
	keeps    = regexp.MustCompile(`(?i)\nconnection:[ \t]*(\S[^\r\n]*keep-alive|keep-alive[^\r\n]*[^\r\n \t])`)
	expects  = regexp.MustCompile(`(?i)\nexpect:[ \t]*(\S[^\r\n]*100-continue|100-continue[^\r\n]*[^\r\n \t])`)
	chunk    = regexp.MustCompile(`\n[0-9a-fA-F]+[ \t]*;[^\n]*[\x00-\x08\x0b-\x1f\x7f][^\n]*\n`)
	absolute = regexp.MustCompile(` [a-zA-Z][a-zA-Z0-9+.-]*:`)
)

// refuses says why our front may refuse what net/http's takes; "": it may not.
func refuses(text string) string {
	lengths, encodings := len(length.FindAllString(text, -1)), len(encoding.FindAllString(text, -1))
	switch {
	case bareFeed.MatchString(text):
		return "a line that ends with LF alone: others take it for a part of the line"
	case folded.MatchString(text):
		return "a line that goes on: two readers could take it for two"
	case lengths > 1:
		return "a length said twice, even if the same"
	case lengths > 0 && encodings > 0:
		return "a length and chunks: two readers would see two ends"
	case encodings > 0 && strings.Contains(text, "HTTP/1.0"):
		return "chunks in HTTP/1.0, which an old reader does not see"
	case strings.Contains(text, "CONNECT "):
		return "a tunnel, behind which no request can be told from what is inside"
	case chunk.MatchString(text):
		return "control characters behind the size of a chunk"
	case nameless.MatchString(text):
		return "a trailer whose name is none"
	case keeps.MatchString(text):
		return "keep-alive among other words, which may be another one"
	case expects.MatchString(text):
		return "an expectation beside that of 100, which nobody meets"
	case absolute.MatchString(text):
		return "a host in an address with characters that no host has"
	}
	for _, v := range versions.FindAllString(text, -1) {
		if v != "HTTP/1.1" && v != "HTTP/1.0" {
			return "a version of HTTP/1 that is none"
		}
	}
	return ""
}
