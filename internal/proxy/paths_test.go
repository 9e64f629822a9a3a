package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// What clients ask in FuzzBothPaths. Each one ends its connection, so that an
// answer is everything that comes.
var questions = []struct{ method, text string }{
	{"GET", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"},
	{"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"},
	{"POST", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"},
	{"POST", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"},
	{"GET", "GET / HTTP/1.0\r\nHost: a\r\n\r\n"},
}

// odd are answers on which two readers might well disagree.
var odd = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 0000000000000000000000002\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length:\t2 \t\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 02\r\n\r\nok",
	"HTTP/1.1 200\tOK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 \xe4\xff\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
	"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.10 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nX: \r\nX:\r\nx: \xe4 \r\nContent-Type:\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nx_y: 1\r\nX-Y: 2\r\nX.Y: 3\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nConnection: Set-Cookie, content-length\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nConnection: close, , keep-alive\r\nProxy-Connection: x\r\nTE: x\r\nUpgrade: h2c\r\nHost: x\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nDate: yesterday\r\nServer: x\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000002\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \t\r\nok\r\n00\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\n\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: a=1\r\nx-sum: 1\r\nX-Sum: 2\r\nX-Forwarded-For: 1\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTrailer: Set-Cookie, X-A\r\nTrailer: X-B\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-B: 1\r\nX-C: 1\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTrailer: X-A\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nContent-Type: text/plain\r\nEtag: x\r\n\r\n",
	"HTTP/1.1 205 Reset\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 199 Odd\r\nContent-Length: 2\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\nConnection: Link\r\nLink: a\r\nLink: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.0 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nok",
}

// Whatever a target answers, both client paths tell the client the same of it,
// but for what stricter lists; and nobody who comes next is told any of it.
func FuzzBothPaths(f *testing.F) {
	for i, c := range answers {
		if len(c.reply) > 4096 {
			continue // of no use to a mutator
		}
		for n, q := range questions {
			if c.method == "" && n == i%len(questions) || c.method == q.method {
				f.Add(c.reply, uint8(n), uint16(0))
				f.Add(c.reply, uint8(n), uint16(7))
				if head := strings.Index(c.reply, "\r\n\r\n"); head >= 0 {
					f.Add(c.reply, uint8(n), uint16(head+4))
				}
				if behind := strings.LastIndex(c.reply, "HTTP/1."); behind > 0 {
					f.Add(c.reply, uint8(n), uint16(behind))
				}
			}
		}
	}
	for _, text := range odd {
		for n := range questions {
			f.Add(text, uint8(n), uint16(0))
		}
	}
	log.SetOutput(io.Discard) // the standard library tells of what came behind an answer
	f.Cleanup(func() { log.SetOutput(os.Stderr) })
	var reply atomic.Pointer[[][]byte]
	target := speaker(f, func(c net.Conn, in *bufio.Reader) {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		// All of it: to close on what is unread would take back the answer.
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if r.URL.Path == "/next" {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
			return
		}
		for _, piece := range *reply.Load() {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	})
	path := func(std bool) *running {
		route := to(target)
		route.Retries = -1
		return serve(f, Options{Std: std, Log: slog.New(slog.DiscardHandler)}, tableOf(route))
	}
	own, std := path(false), path(true)
	f.Fuzz(func(t *testing.T, text string, question uint8, size uint16) {
		q := questions[int(question)%len(questions)]
		var pieces [][]byte
		for rest := []byte(text); len(rest) > 0; {
			n := len(rest)
			if size > 0 && len(pieces) < 50 {
				n = min(n, int(size))
			}
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		reply.Store(&pieces)
		a, b := own.told(t, q.method, q.text), std.told(t, q.method, q.text)
		if why := differs(a, b); why != "" && !(a.none() && !b.none() && stricter(text) != "") {
			t.Errorf("%q\nanswered with %q\n%s\nown: %s\nstd: %s", q.text, text, why, a, b)
		}
		own.ripen(t)
		if next := own.told(t, "GET", "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); next.status != 200 || next.body != "next" {
			t.Errorf("%q\nanswered with %q\nwho came next got %s", q.text, text, next)
		}
		own.forget(t)
		std.forget(t)
	})
}

// told is what a client was told: one answer, or a part of it.
type told struct {
	interim []string
	status  int // 0: no head came
	header  http.Header
	body    string
	trailer http.Header
	cut     bool   // before its end
	behind  string // what came after it
}

func (a told) String() string {
	return fmt.Sprintf("%q %d %q body %q trailer %q cut %v behind %q", a.interim, a.status, a.header, a.body, a.trailer, a.cut, a.behind)
}

func (r *running) told(t *testing.T, method, question string) (a told) {
	t.Helper()
	c := r.dial(t)
	defer c.Close()
	c.say(t, question)
	all, err := io.ReadAll(c)
	if err != nil && isDeadline(err) {
		t.Fatalf("no end of an answer: %q", all)
	}
	in := bufio.NewReader(bytes.NewReader(all))
	for {
		one, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			a.cut = true
			break
		}
		if one.StatusCode < 200 {
			a.interim = append(a.interim, fmt.Sprint(one.StatusCode, one.Header))
			continue
		}
		body, err := io.ReadAll(one.Body)
		a.status, a.header, a.body, a.trailer, a.cut = one.StatusCode, one.Header, string(body), one.Trailer, err != nil
		break
	}
	a.cut = a.cut || err != nil
	if behind, _ := io.ReadAll(in); !a.cut {
		a.behind = string(behind)
	}
	delete(a.header, "Date")
	delete(a.header, "Connection")
	if one := a.header["Trailer"]; one != nil {
		one = strings.Split(strings.Join(one, ", "), ", ")
		slices.Sort(one) // a map announces them
		a.header["Trailer"] = one
	}
	if method == "HEAD" {
		delete(a.header, "Trailer") // where none come, they need not be announced
	}
	return a
}

// none says whether an answer tells that there is none: 502, or a visible cut.
func (a told) none() bool { return a.cut || a.status == http.StatusBadGateway }

// differs says in what two answers do that matters; "": in nothing.
func differs(a, b told) string {
	switch {
	case a.behind != "" || b.behind != "":
		return "something comes behind the answer"
	case a.none() && b.none():
		return ""
	case a.none() != b.none():
		return "one is an answer and the other none"
	case a.status != b.status:
		return "the status"
	case a.body != b.body:
		return "the body"
	case !slices.Equal(a.interim, b.interim):
		return "interim answers"
	case !same(framed(a), framed(b)):
		return "the headers"
	case !same(a.trailer, b.trailer):
		return "the trailers"
	}
	return ""
}

// framed is the header without the length of the body that came, which net/http
// works out for a short one: whether it does hangs on when pieces come.
func framed(a told) http.Header {
	h := a.header.Clone()
	if h.Get("Content-Length") == strconv.Itoa(len(a.body)) {
		h.Del("Content-Length")
	}
	return h
}

func same(a, b http.Header) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if !slices.Equal(v, b[k]) {
			return false
		}
	}
	return true
}

// stricter says why our own path may refuse an answer that the standard library
// takes; "": it may not.
func stricter(text string) string {
	const twofold = "a line that goes on, or a name with a space: two readers could take it for two things"
	bare := false // whether the last line ended without CR
	next := func() string {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		bare = !strings.HasSuffix(line, "\r")
		return strings.TrimSuffix(line, "\r")
	}
	for n := 0; text != ""; n++ {
		if n > 32 {
			return "more interim answers than anybody needs"
		}
		whole := len(text)
		first := next()
		if !statusLine.MatchString(first) || !validValue(first) {
			return "a status line that is not HTTP/1.0's or 1.1's, or has control characters"
		}
		length, encoded := false, false
		for line := next(); line != ""; line = next() {
			name, value, ok := strings.Cut(line, ":")
			if !ok || !token(name) {
				return twofold
			}
			if strings.EqualFold(name, "Content-Length") && len(trim(value)) > 18 {
				return "a length of more digits than any has"
			}
			length = length || strings.EqualFold(name, "Content-Length")
			encoded = encoded || strings.EqualFold(name, "Transfer-Encoding")
		}
		switch {
		case whole-len(text) > maxHead:
			return "a head too large, by a byte or by many"
		case length && encoded:
			return "a length and chunks: two readers would see two ends"
		case encoded && strings.HasPrefix(first, "HTTP/1.0"):
			return "chunks in HTTP/1.0: an old reader would not see their end"
		}
		if first[9] == '1' && first[9:12] != "101" {
			continue // an interim answer; the next one follows
		}
		if !encoded {
			return ""
		}
		for {
			line := next()
			size, _, _ := strings.Cut(line, ";")
			size = trim(size)
			n, err := strconv.ParseUint(size, 16, 64)
			if err != nil || n > uint64(len(text)) {
				return ""
			}
			if !validValue(line) {
				return "control characters behind the size of a chunk"
			}
			if len(size) > 15 {
				return "a size of more digits than any has"
			}
			if n == 0 {
				break
			}
			text = text[n:]
			if next() != "" {
				return ""
			}
		}
		for line := next(); line != ""; line = next() {
			if bare {
				return "a trailer that ends with LF alone, as no line among chunks may"
			}
			if name, value, _ := strings.Cut(line, ":"); !token(name) || !validValue(value) {
				return twofold
			}
		}
		return ""
	}
	return ""
}

var statusLine = regexp.MustCompile(`^HTTP/1\.[01] [0-9]{3}( |$)`)

// targets are those that r leads to.
func (r *running) targets() (list []*target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.ledgers {
		for _, one := range l.targets {
			list = append(list, one)
		}
	}
	return list
}

// ripen waits until idle connections were closed by their target, or something
// has come on them, and keeps them. It says whether there was one.
func (r *running) ripen(t *testing.T) (found bool) {
	t.Helper()
	for _, one := range r.targets() {
		var list []*conn
		for c := one.conns.get(); c != nil; c = one.conns.get() {
			until(t, "the target has closed", func() bool { return !c.alive() })
			list = append(list, c)
		}
		for _, c := range list {
			found = true
			one.conns.put(c)
		}
	}
	return found
}

// forget ends idle connections, which their target has closed: a POST may find
// that out only when it is too late to send it again.
func (r *running) forget(t *testing.T) {
	t.Helper()
	for _, one := range r.targets() {
		for c := one.conns.get(); c != nil; c = one.conns.get() {
			c.Close()
		}
		one.std.close()
	}
}

// What a target says on an idle connection, where nobody asked for anything, was
// taken for the answer to who came next.
func TestTargetsThatSayMoreLater(t *testing.T) {
	for _, method := range []string{"GET", "HEAD"} {
		t.Run(method, func(t *testing.T) {
			told := make(chan struct{})
			e := serve(t, Options{}, tableOf(to(speaker(t, func(c net.Conn, in *bufio.Reader) {
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if r.URL.Path == "/next" {
						io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
						continue
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					<-told
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
				}
			}))))
			if status, body, _ := e.do(t, method, "/", nil); status != 200 || body != "" {
				t.Fatalf("got %d %q", status, body)
			}
			close(told)
			until(t, "it has said more", func() bool {
				e.active.mu.Lock()
				closed := len(e.active.conns) == 0 // the sweep saw it
				e.active.mu.Unlock()
				return closed || e.ripen(t)
			})
			if status, body := e.get(t, "/next"); status != 200 || body != "next" {
				t.Errorf("who came next got %d %q", status, body)
			}
		})
	}
}

// HTTP/1.0 knows no interim answers: a 103 was taken for the answer. Nor does it know
// chunks: an answer that broke off looked whole, since its end is that of the connection.
func TestClientsOfHTTP10(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for _, c := range []struct {
			name, reply string
			want        told
		}{
			{"early hints", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", told{status: 200, body: "ok"}},
			{"whole", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", told{status: 200, body: "ok"}},
			{"cut off", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", told{cut: true}},
		} {
			t.Run(c.name, func(t *testing.T) {
				e := serve(t, o, tableOf(to(scripted(t, c.reply, true))))
				got := e.told(t, "GET", "GET / HTTP/1.0\r\nHost: a\r\n\r\n")
				if got.cut != c.want.cut || len(got.interim) > 0 || !got.cut && (got.status != c.want.status || got.body != c.want.body || got.behind != "") {
					t.Errorf("got %s", got)
				}
			})
		}
	})
}
