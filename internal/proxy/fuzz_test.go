package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// What our parser takes for the head of an answer, the standard library must
// take for the same. It may refuse more than that one does, never read it differently.
func FuzzHead(f *testing.F) {
	for _, c := range answers {
		f.Add(c.reply)
	}
	f.Fuzz(func(t *testing.T, text string) {
		in := input{conn: &script{strings.NewReader(text)}}
		in.borrow()
		defer in.release()
		var head []byte
		seen := 0
		for head == nil {
			if head, seen = in.head(seen); head == nil && in.fill() != nil {
				return
			}
		}
		var a answer
		if a.parse(string(head)) != nil {
			return
		}
		want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), &http.Request{Method: "GET"})
		if err != nil {
			t.Fatalf("%q: taken, but not by the standard library: %v", head, err)
		}
		if a.status != want.StatusCode {
			t.Errorf("%q: status %d, not %d", head, a.status, want.StatusCode)
		}
		if none := a.bodiless("GET"); !none && a.chunked != (len(want.TransferEncoding) > 0) {
			t.Errorf("%q: chunked %v, not %v", head, a.chunked, want.TransferEncoding)
		} else if !none && !a.chunked && a.length != want.ContentLength {
			t.Errorf("%q: length %d, not %d", head, a.length, want.ContentLength)
		}
		for _, one := range a.fields {
			found := false
			for _, v := range want.Header[one.key] {
				found = found || textproto.TrimString(v) == one.value
			}
			if !found {
				t.Errorf("%q: %s: %q is not in %v", head, one.key, one.value, want.Header)
			}
		}
	})
}

// The same for chunks: what is taken has the same bytes for both.
func FuzzChunks(f *testing.F) {
	for _, c := range answers {
		if _, body, ok := strings.Cut(c.reply, "\r\n\r\n"); ok && strings.Contains(c.reply, "chunked") {
			f.Add(body)
		}
	}
	f.Add("1\r\na\r\n1\r\nb\r\n0\r\nX: y\r\n\r\n")
	s, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	way := newRoute(to("h:1"), newPool(newLedger("x", ""), nil, nil, ""), false)
	f.Fuzz(func(t *testing.T, text string) {
		c := &conn{home: &s.active}
		c.in.conn = &script{strings.NewReader(text)}
		c.in.borrow()
		defer c.in.release()
		w := &record{header: http.Header{}}
		x := &exchange{s: s, w: w, r: new(http.Request), route: way}
		if _, err := x.chunks(c); err != nil {
			return
		}
		want, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(text)))
		if err != nil {
			t.Fatalf("%q: taken, but not by the standard library: %v", text, err)
		}
		if got := w.body.String(); got != string(want) {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	})
}

// What our parser takes for a request, the standard library must take for the
// same, and its body too. It may refuse more than that one does, never read it differently.
func FuzzRequest(f *testing.F) {
	for _, text := range asks {
		f.Add(text)
	}
	s, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l := s.newLine(&guarded{Conn: &script{strings.NewReader(text)}})
		l.in.conn = l.c
		head, err := l.head(true)
		if err != nil {
			return
		}
		x := l.borrow()
		if status, _ := x.ask(l, string(head)); status != 0 {
			return
		}
		want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			t.Fatalf("%q: taken, but not by the standard library: %v", head, err)
		}
		r := x.r
		delete(want.Header, "Host")
		delete(want.Header, "Trailer")
		delete(r.Header, "Trailer")
		delete(r.Header, "Content-Length")
		delete(want.Header, "Content-Length")
		if r.Method != want.Method || r.RequestURI != want.RequestURI || r.Host != want.Host || !reflect.DeepEqual(r.URL, want.URL) || !same(r.Header, want.Header) {
			t.Errorf("%q: %s %s %q %#v %v\nnot %s %s %q %#v %v", head, r.Method, r.RequestURI, r.Host, r.URL, r.Header, want.Method, want.RequestURI, want.Host, want.URL, want.Header)
		}
		if r.ContentLength != want.ContentLength || x.body.chunked != (len(want.TransferEncoding) > 0) {
			t.Errorf("%q: length %d, not %d", head, r.ContentLength, want.ContentLength)
		}
		if want.Close && !x.reply.last {
			t.Errorf("%q: the connection goes on", head)
		}
		got, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		body, err := io.ReadAll(want.Body)
		if err != nil || string(got) != string(body) {
			t.Errorf("%q: body %q, not %q, %v", text, got, body, err)
		}
		for k, v := range r.Trailer {
			if token(k) && trailing(k) && len(v) > 0 && !slices.Equal(v, want.Trailer[k]) {
				t.Errorf("%q: trailer %s %q, not %q", text, k, v, want.Trailer[k])
			}
		}
	})
}

// script is a connection that says what it was given.
type script struct{ *strings.Reader }

func (*script) Write(b []byte) (int, error)      { return len(b), nil }
func (*script) Close() error                     { return nil }
func (*script) LocalAddr() net.Addr              { return nil }
func (*script) RemoteAddr() net.Addr             { return nil }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }
