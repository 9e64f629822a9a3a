package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// scripted is a target that answers each request with the same bytes, whatever
// they are, and says "next" to GET /next. With hangUp it closes after the bytes.
func scripted(t *testing.T, reply string, hangUp bool) string {
	t.Helper()
	return speaker(t, func(c net.Conn, in *bufio.Reader) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if r.URL.Path == "/next" {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
				continue
			}
			if r.Header.Get("Expect") == "" {
				io.Copy(io.Discard, r.Body)
			}
			io.WriteString(c, reply)
			if hangUp {
				return
			}
		}
	})
}

// speaker is a target that says what f says on each connection.
func speaker(t testing.TB, f func(c net.Conn, in *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c, bufio.NewReader(c))
			}()
		}
	}()
	return l.Addr().String()
}

const long = "123456789012345678901234567890"

// Answers of targets that lie, break or are merely odd. std says what the
// standard library's path makes of it where that differs: it forgives more.
var answers = []struct {
	name, method, reply string
	hangUp              bool
	want, std           string
}{
	{name: "length", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", want: "200 ok"},
	{name: "no reason", reply: "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", want: "200 ok"},
	{name: "chunked", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", want: "200 ok"},
	{name: "chunked with extensions", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0;x\r\n\r\n", want: "200 ok"},
	{name: "chunked in capitals", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", want: "200 ok"},
	{name: "trailer", reply: "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n", want: "200 ok X-Sum=7"},
	{name: "trailer unannounced", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n", want: "200 ok X-Sum=7"},
	{name: "trailer that frames", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 7\r\n\r\n", want: "200 ok"},
	{name: "trailers of no name", reply: "HTTP/1.1 200 OK\r\nTrailer: , a b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", want: "200 ok"},
	{name: "until close", reply: "HTTP/1.1 200 OK\r\n\r\nok", hangUp: true, want: "200 ok"},
	{name: "old", reply: "HTTP/1.0 200 OK\r\n\r\nok", hangUp: true, want: "200 ok"},
	{name: "old with length", reply: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", hangUp: true, want: "200 ok"},
	{name: "old that stays", reply: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", want: "200 ok"},
	{name: "closes after", reply: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", hangUp: true, want: "200 ok"},
	{name: "bare line feeds", reply: "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", want: "200 ok"},
	{name: "empty", reply: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", want: "200 "},
	{name: "no content", reply: "HTTP/1.1 204 No Content\r\n\r\n", want: "204 "},
	{name: "no content with a length", reply: "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", want: "204 "},
	{name: "not modified", reply: "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", want: "304 "},
	{name: "HEAD", method: "HEAD", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", want: "200 "},
	{name: "HEAD chunked", method: "HEAD", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", want: "200 "},
	{name: "early hints", reply: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", want: "103 200 ok"},
	{name: "processing twice", reply: "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", want: "102 200 ok"},
	{name: "continue unasked", reply: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", want: "200 ok"},
	{name: "same length twice", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", want: "200 ok"},
	{name: "unknown status", reply: "HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok", want: "299 ok"},
	{name: "status beyond", reply: "HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\nok", want: "799 ok"},
	{name: "hop by hop", reply: "HTTP/1.1 200 OK\r\nConnection: X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nok", want: "200 ok"},

	{name: "two lengths", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", want: "502"},
	{name: "one length in two spellings", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 02\r\n\r\nok", want: "502"},
	{name: "length in a list", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", want: "502"},
	{name: "length with a sign", reply: "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", want: "502"},
	{name: "length below zero", reply: "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", want: "502"},
	{name: "length too long", reply: "HTTP/1.1 200 OK\r\nContent-Length: " + long + "\r\n\r\nok", want: "502"},
	{name: "length and chunked", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", want: "502", std: "200 ok"},
	{name: "chunked twice", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", want: "502"},
	{name: "gzip as transfer encoding", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", want: "502"},
	{name: "old and chunked", reply: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", hangUp: true, want: "502", std: "200 2\r\nok\r\n0\r\n\r\n"},
	{name: "folded header", reply: "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok", want: "502", std: "200 ok"},
	{name: "space before the colon", reply: "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", hangUp: true, want: "502", std: "200 ok"},
	{name: "name with a space", reply: "HTTP/1.1 200 OK\r\nX A: 2\r\nContent-Length: 2\r\n\r\nok", want: "502", std: "200 ok"},
	{name: "no name", reply: "HTTP/1.1 200 OK\r\n: 2\r\nContent-Length: 2\r\n\r\nok", want: "502"},
	{name: "no colon", reply: "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n\r\nok", want: "502"},
	{name: "NUL in a value", reply: "HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 2\r\n\r\nok", want: "502"},
	{name: "CR in a value", reply: "HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\nok", want: "502"},
	{name: "not HTTP", reply: "SSH-2.0-OpenSSH\r\n\r\n", want: "502"},
	{name: "HTTP/2", reply: "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", want: "502", std: "200 ok"},
	{name: "status of two digits", reply: "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", want: "502"},
	{name: "status with a sign", reply: "HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nok", want: "502", std: "502"},
	{name: "status zero", reply: "HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok", want: "502"},
	{name: "trailer announced that frames", reply: "HTTP/1.1 200 OK\r\nTrailer: X-Sum, content-length\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", want: "502"},
	{name: "switches unasked", reply: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", want: "502"},
	{name: "nothing", reply: "", hangUp: true, want: "502"},
	{name: "half a head", reply: "HTTP/1.1 200 OK\r\nContent-Le", hangUp: true, want: "502"},
	{name: "endless head", reply: "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 80) + "\r\n", hangUp: true, want: "502"},
	{name: "endless line", reply: "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 80_000) + "\r\n\r\n", hangUp: true, want: "502"},
	{name: "endless interim answers", reply: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 100), hangUp: true, want: "102 502"},

	{name: "short of its length", reply: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", hangUp: true, want: "cut"},
	{name: "short of its chunk", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", hangUp: true, want: "cut"},
	{name: "no last chunk", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", hangUp: true, want: "cut"},
	{name: "no end of trailers", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", hangUp: true, want: "cut"},
	{name: "chunk longer than it said", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", want: "cut"},
	{name: "chunk size with a sign", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n", want: "cut"},
	{name: "chunk size in 0x", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", want: "cut"},
	{name: "chunk size too large", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff2\r\nok\r\n0\r\n\r\n", want: "cut"},
	{name: "no chunk size", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nok\r\n0\r\n\r\n", want: "cut"},
	{name: "chunk ended by a bare line feed", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", want: "cut"},
	{name: "endless chunk extension", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("a", 9000) + "\r\nok\r\n0\r\n\r\n", want: "cut"},

	// What lies behind an answer must never become another client's answer.
	{name: "more than its length", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", want: "200 ok"},
	{name: "more than its chunks", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", want: "200 ok"},
	{name: "body to HEAD", method: "HEAD", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", want: "200 "},
	{name: "body to no content", reply: "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", want: "204 "},
	{name: "body to not modified", reply: "HTTP/1.1 304 Not Modified\r\n\r\nok", want: "304 "},
}

// A target may lie as it likes: the client gets a clean answer, a 502 or one that
// is visibly cut off, and who comes next on the same connections is not harmed.
func TestTargetsThatLie(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for _, c := range answers {
			t.Run(c.name, func(t *testing.T) {
				method := c.method
				if method == "" {
					method = "GET"
				}
				route := to(scripted(t, c.reply, c.hangUp))
				route.Retries = -1
				e := serve(t, o, tableOf(route))
				client := e.dial(t)
				client.say(t, method+" / HTTP/1.1\r\nHost: a\r\n\r\n")
				got := ""
				var a *http.Response
				var body string
				for {
					var err error
					if a, err = http.ReadResponse(client.in, &http.Request{Method: method}); err != nil {
						got = "cut"
						break
					}
					text, err := io.ReadAll(a.Body)
					switch body = string(text); {
					case err != nil:
						got = "cut"
					case a.StatusCode < 200:
						if !strings.HasSuffix(got, fmt.Sprint(a.StatusCode, " ")) {
							got += fmt.Sprint(a.StatusCode, " ")
						}
						continue
					case a.StatusCode == 502:
						got += "502"
					default:
						got += fmt.Sprint(a.StatusCode, " ", body)
					}
					for k, v := range a.Trailer {
						got += " " + k + "=" + v[0]
					}
					for _, k := range []string{"X-Private", "Keep-Alive"} {
						if a.Header.Get(k) != "" {
							t.Errorf("%s is of another connection", k)
						}
					}
					break
				}
				want := c.want
				if o.Std && c.std != "" {
					want = c.std
				}
				if got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				for range 3 {
					if status, body := e.get(t, "/next"); status != 200 || body != "next" {
						t.Errorf("who came next got %d %q", status, body)
					}
				}
			})
		}
	})
}

// Requests that mean two things are refused, or sent on as one thing.
func TestClientsThatLie(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		var seen atomic.Int64
		var admin atomic.Int64
		e := serve(t, o, tableOf(to(backend(t, func(w http.ResponseWriter, r *http.Request) {
			seen.Add(1)
			if r.URL.Path == "/admin" {
				admin.Add(1)
			}
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s", r.URL.Path, body)
		}))))
		for _, c := range []struct {
			name, send string
			status     int
		}{
			{"length and chunked", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", 0},
			{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400},
			{"length with a sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd", 400},
			{"odd transfer encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
			{"space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
			{"folded header", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 0},
			{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
			{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
			{"NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400},
			{"fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
			{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400},
			{"endless head", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 200_000) + "\r\n\r\n", 431},
			{"chunk with a bare line feed", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\n0\n\n", 0},
		} {
			t.Run(c.name, func(t *testing.T) {
				client := e.dial(t)
				go io.WriteString(client, c.send) // a server that has heard enough does not read the rest
				a, err := http.ReadResponse(client.in, nil)
				if c.status == 0 {
					return // either way; what matters is checked below
				}
				if err != nil || a.StatusCode != c.status {
					t.Errorf("got %v %v, want %d", a, err, c.status)
				}
			})
		}
		if status, body := e.get(t, "/next"); status != 200 || body != "/next " {
			t.Errorf("who came next got %d %q", status, body)
		}
		if n := admin.Load(); n > 1 {
			t.Errorf("/admin was asked %d times", n)
		}
	})
}

// The proxy reads the answer while the body is on its way: a target that refuses
// a large body at once is heard.
func TestAnswersBeforeTheBodyEnds(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		e := serve(t, o, tableOf(to(speaker(t, func(c net.Conn, in *bufio.Reader) {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
			io.Copy(io.Discard, in) // until the proxy hangs up
		}))))
		client := e.dial(t)
		client.say(t, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nthe beginning")
		if a, body := client.answer(t, "POST"); a.StatusCode != 413 || body != "big" {
			t.Errorf("got %d %q", a.StatusCode, body)
		}
		until(t, "nothing is under way", func() bool { return e.Report().Routes[0].Targets[0].Open == 0 })
	})
}

// 100-continue goes through both ways: the body is asked for only when the target asks.
func TestContinue(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		wants := make(chan bool, 1)
		e := serve(t, o, tableOf(to(speaker(t, func(c net.Conn, in *bufio.Reader) {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if r.Header.Get("Expect") != "100-continue" {
				io.WriteString(c, "HTTP/1.1 400 Not Expected\r\nContent-Length: 0\r\n\r\n")
				return
			}
			if !<-wants {
				io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
				return
			}
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}))))
		for _, want := range []bool{true, false} {
			client := e.dial(t)
			client.say(t, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			wants <- want
			a, body := client.answer(t, "POST")
			if !want {
				if a.StatusCode != 403 || body != "no" {
					t.Errorf("refused: %d %q", a.StatusCode, body)
				}
				continue
			}
			if a.StatusCode != 100 {
				t.Fatalf("got %d %q before the body", a.StatusCode, body)
			}
			client.say(t, "hello")
			if a, body = client.answer(t, "POST"); a.StatusCode != 200 || body != "hello" {
				t.Errorf("got %d %q", a.StatusCode, body)
			}
		}
	})
}

// Each event of a stream comes when it is sent, not when a buffer is full.
func TestStreams(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		next := make(chan string)
		e := serve(t, o, tableOf(to(backend(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			for event := range next {
				fmt.Fprintf(w, "data: %s\n\n", event)
				w.(http.Flusher).Flush()
			}
		}))))
		a, err := e.client.Get(e.url)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		in := bufio.NewReader(a.Body)
		for i := range 3 {
			next <- fmt.Sprint(i)
			line, err := in.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("got %q %v", line, err)
			}
			in.ReadString('\n')
		}
		close(next)
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("in the end %q %v", rest, err)
		}
	})
}

// Both directions flow at once.
func TestBothWays(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		e := serve(t, o, tableOf(to(backend(t, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.(http.Flusher).Flush()
			in := bufio.NewReader(r.Body)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				io.WriteString(w, "got "+line)
				w.(http.Flusher).Flush()
			}
		}))))
		out, body := io.Pipe()
		r, _ := http.NewRequestWithContext(t.Context(), "POST", e.url, out)
		a, err := e.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		in := bufio.NewReader(a.Body)
		for i := range 5 {
			fmt.Fprintf(body, "%d\n", i)
			if line, err := in.ReadString('\n'); line != fmt.Sprintf("got %d\n", i) {
				t.Fatalf("got %q %v", line, err)
			}
		}
		body.Close()
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("in the end %q %v", rest, err)
		}
	})
}

// WebSockets and their kin: bytes both ways, also those that come along with the
// head, and each side can end alone.
func TestUpgrades(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		e := serve(t, o, tableOf(to(speaker(t, func(c net.Conn, in *bufio.Reader) {
			r, err := http.ReadRequest(in)
			if err != nil || r.Header.Get("Upgrade") != "echo" || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
				io.WriteString(c, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
				return
			}
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\nX-Is: me\r\n\r\nhello ")
			io.Copy(c, in)
			io.WriteString(c, " bye")
		}))))
		client := e.dial(t)
		client.say(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\nearly")
		a, err := http.ReadResponse(client.in, nil)
		if err != nil || a.StatusCode != 101 || a.Header.Get("X-Is") != "me" || a.Header.Get("Upgrade") != "echo" {
			t.Fatalf("got %v %v", a, err)
		}
		read := func(want string) {
			t.Helper()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(client.in, got); err != nil || string(got) != want {
				t.Fatalf("got %q %v, want %q", got, err, want)
			}
		}
		read("hello early")
		client.say(t, " late")
		read(" late")
		if n := e.Report().Routes[0].Targets[0].Open; n != 1 {
			t.Errorf("%d are under way", n)
		}
		client.Conn.(*net.TCPConn).CloseWrite()
		read(" bye")
		if _, err := client.in.ReadByte(); err != io.EOF { //nolint:errorlint // exactly this
			t.Errorf("after the end: %v", err)
		}
		until(t, "nothing is under way", func() bool { return e.Report().Routes[0].Targets[0].Open == 0 })
	})
}

// A connection that its target closed while nobody used it costs nobody an answer.
func TestStaleConnections(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		e := serve(t, o, tableOf(to(speaker(t, func(c net.Conn, in *bufio.Reader) {
			if r, err := http.ReadRequest(in); err == nil {
				io.Copy(io.Discard, r.Body)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // and closes, without a word
			}
		}))))
		for i := range 200 {
			method, body := "GET", io.Reader(nil)
			if i%4 == 3 {
				method, body = "PUT", strings.NewReader("x")
			}
			if status, text, _ := e.do(t, method, "/", body); status != 200 || text != "ok" {
				t.Fatalf("%s %d: %d %q", method, i, status, text)
			}
		}
		if s := e.Report().Routes[0].Served; s.Failed != 0 || s.Requests != 200 {
			t.Errorf("counted %+v", s)
		}
	})
}

// A client that does not take its answer holds neither the target nor a drain for longer than its time limit.
func TestClientsThatDoNotRead(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		route := to(backend(t, func(w http.ResponseWriter, r *http.Request) {
			piece := make([]byte, 64<<10)
			for range 1000 {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		}))
		route.Timeout.Client = 300 * time.Millisecond
		e := serve(t, o, tableOf(route))
		open := func() int { return e.Report().Routes[0].Targets[0].Open }
		client := e.dial(t)
		client.say(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: p}
		defer transport.CloseIdleConnections()
		a, err := (&http.Client{Transport: transport}).Get(e.url)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		if _, err := client.in.Peek(1); err != nil { // both are being answered
			t.Fatal(err)
		}
		until(t, "nothing is under way", func() bool { return open() == 0 })
		if s := e.Report().Routes[0].Served; s.Failed != 0 || s.Requests != 2 {
			t.Errorf("counted %+v", s)
		}
	})
}

// Time limits: of a target that says nothing, of one that stops in the middle, of
// a client that does not send its body, and of the whole.
func TestTimeouts(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		t.Parallel() // it waits, and nothing else
		hang := make(chan struct{})
		t.Cleanup(func() { close(hang) })
		addr := backend(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/middle":
				w.Header().Set("Content-Length", "10")
				io.WriteString(w, "half")
				w.(http.Flusher).Flush()
			case "/body":
				io.Copy(io.Discard, r.Body)
			case "/drip":
				for {
					if _, err := io.WriteString(w, "."); err != nil {
						return
					}
					w.(http.Flusher).Flush()
					select {
					case <-time.After(50 * time.Millisecond):
					case <-hang:
						return
					}
				}
			}
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		})
		route := to(addr)
		route.Timeout.Server = 300 * time.Millisecond
		route.Timeout.Client = 300 * time.Millisecond
		whole := to(addr)
		whole.ID, whole.Path, whole.Timeout.Total = "shop/drip", "/drip", 700*time.Millisecond
		e := serve(t, o, tableOf(route, whole))
		if status, _ := e.get(t, "/silent"); status != 504 {
			t.Errorf("silent: %d", status)
		}
		if status, body := e.get(t, "/middle"); status != 200 || !strings.HasPrefix(body, "half [") {
			t.Errorf("in the middle: %d %q", status, body)
		}
		if status, body := e.get(t, "/drip"); status != 200 || !strings.Contains(body, "EOF]") {
			t.Errorf("the whole: %d %q", status, body)
		}
		for _, head := range []string{"Content-Length: 10", "Content-Length: 100000"} {
			client := e.dial(t)
			client.say(t, "POST /body HTTP/1.1\r\nHost: a\r\n"+head+"\r\n\r\nhalf")
			got, err := io.ReadAll(client.in)
			if len(got) > 0 && !strings.HasPrefix(string(got), "HTTP/1.1 408") {
				t.Errorf("a body that does not come: %q %v", got, err)
			}
		}
		for _, r := range e.Report().Routes {
			if r.ID == "shop/web" && r.Served.Failed != 2 {
				t.Errorf("counted %+v", r.Served)
			}
		}
		until(t, "nothing is under way", func() bool { return e.target(addr).Open == 0 })
	})
}

// A target that answers early leaves the rest of a body on the client's connection:
// it was served as the next request.
func TestTheRestOfABodyIsNoRequest(t *testing.T) {
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	both(t, func(t *testing.T, o Options) {
		for _, c := range []struct {
			name, framing string
			answer        string
			status        int
		}{
			{"length", fmt.Sprintf("Content-Length: %d", 20_000+len(smuggled)), "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", 401},
			{"chunks", "Transfer-Encoding: chunked", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", 401},
			{"a page of the edge", fmt.Sprintf("Content-Length: %d", 20_000+len(smuggled)), "nonsense\r\n\r\n", 502},
		} {
			if o.Std && c.status == 502 {
				continue // the standard library says what went wrong when the client sends on
			}
			t.Run(c.name, func(t *testing.T) {
				var served atomic.Int64
				e := serve(t, o, tableOf(to(speaker(t, func(conn net.Conn, in *bufio.Reader) {
					for {
						r, err := http.ReadRequest(in)
						if err != nil {
							return
						}
						if r.Method == "GET" {
							served.Add(1)
							io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
							continue
						}
						io.CopyN(io.Discard, r.Body, 20_000)
						io.WriteString(conn, c.answer)
						io.Copy(io.Discard, in) // until the proxy hangs up
						return
					}
				}))))
				client := e.dial(t)
				client.say(t, "POST / HTTP/1.1\r\nHost: a\r\n"+c.framing+"\r\n\r\n")
				if strings.Contains(c.framing, "chunked") {
					client.say(t, "4e20\r\n"+strings.Repeat("x", 20_000)+"\r\n")
				} else {
					client.say(t, strings.Repeat("x", 20_000))
				}
				a, _ := client.answer(t, "POST")
				if a.StatusCode != c.status || !a.Close {
					t.Errorf("got %d, close %v", a.StatusCode, a.Close)
				}
				_, _ = io.WriteString(client, smuggled) // it may be closed already
				if rest, _ := io.ReadAll(client.in); len(rest) > 0 {
					t.Errorf("after it came %q", rest)
				}
				if n := served.Load(); n > 0 {
					t.Errorf("%d requests were smuggled", n)
				}
			})
		}
	})
}

// Whose body was read to its end keeps the connection.
func TestALargeBodyKeepsTheConnection(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		e := serve(t, o, tableOf(to(backend(t, func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		}))))
		client := e.dial(t)
		for range 5 {
			client.say(t, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n"+strings.Repeat("x", 50_000))
			if a, body := client.answer(t, "POST"); a.Close || body != "50000" {
				t.Errorf("got %q, close %v", body, a.Close)
			}
			client.say(t, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n"+strings.Repeat("x", 20_000)+"\r\n0\r\n\r\n")
			if a, body := client.answer(t, "POST"); a.Close || body != "20000" {
				t.Errorf("in chunks: got %q, close %v", body, a.Close)
			}
		}
	})
}

// A small body that was announced and never comes held its stream of HTTP/2 for ever.
func TestABodyThatNeverComesEndsItsStream(t *testing.T) {
	for _, c := range []struct {
		name          string
		client, total time.Duration
	}{{"client", 300 * time.Millisecond, 0}, {"total", time.Hour, 50 * time.Millisecond}} {
		t.Run(c.name, func(t *testing.T) {
			r := to(named(t, "a"))
			r.Timeout.Client, r.Timeout.Total = c.client, c.total
			e := serve(t, Options{}, tableOf(r))
			p := new(http.Protocols)
			p.SetUnencryptedHTTP2(true)
			transport := &http.Transport{Protocols: p}
			defer transport.CloseIdleConnections()
			body, sends := io.Pipe()
			defer sends.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			q, err := http.NewRequestWithContext(ctx, "POST", e.url+"/", body)
			if err != nil {
				t.Fatal(err)
			}
			q.ContentLength = 5
			a, err := transport.RoundTrip(q)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			if a.StatusCode != 408 {
				t.Errorf("got %d", a.StatusCode)
			}
		})
	}
}
