package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// A WebSocket's frames, by RFC 6455.
type wsFrame struct {
	op      byte
	more    bool // not the last of its message
	odd     byte // reserved bits
	payload string
	bare    bool // sent without a mask, which clients may not
}

const (
	wsMore, wsText, wsBinary, wsClose, wsPing, wsPong = 0, 1, 2, 8, 9, 10

	wsProtocol, wsNoText, wsTooBig = 1002, 1007, 1009
	wsLimit                        = 32 << 20
)

func closing(code uint16, reason string) wsFrame {
	return wsFrame{op: wsClose, payload: string(binary.BigEndian.AppendUint16(nil, code)) + reason}
}

// bytes are a frame as it travels: masked from a client, bare from a server.
func (f wsFrame) bytes(client bool) []byte {
	first := f.op | f.odd<<4
	if !f.more {
		first |= 0x80
	}
	mask := client && !f.bare
	bit := byte(0)
	if mask {
		bit = 0x80
	}
	b := []byte{first}
	switch n := len(f.payload); {
	case n < 126:
		b = append(b, bit|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, bit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, bit|127), uint64(n))
	}
	if !mask {
		return append(b, f.payload...)
	}
	key := [4]byte{0x9c, 0x00, 0xff, byte(len(f.payload))}
	b = append(b, key[:]...)
	at := len(b)
	b = append(b, f.payload...)
	unmask(b[at:], key)
	return b
}

// unmask is mask, too.
func unmask(b []byte, key [4]byte) {
	pad := bytes.Repeat(key[:], 1024)
	for ; len(b) > 0; b = b[min(len(b), len(pad)):] {
		subtle.XORBytes(b, b, pad)
	}
}

var errBare = errors.New("a frame of a client has no mask")

// readFrame reads one, of a client or of a server.
func readFrame(in *bufio.Reader, client bool) (f wsFrame, err error) {
	var head [2]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return f, err
	}
	f.op, f.odd, f.more = head[0]&0x0f, head[0]>>4&7, head[0]&0x80 == 0
	n := uint64(head[1] & 0x7f)
	long := map[uint64]int{126: 2, 127: 8}[n]
	if long > 0 {
		var b [8]byte
		if _, err := io.ReadFull(in, b[8-long:]); err != nil {
			return f, err
		}
		n = binary.BigEndian.Uint64(b[:])
	}
	if n > wsLimit {
		return f, fmt.Errorf("a frame of %d bytes", n)
	}
	var key [4]byte
	if masked := head[1]&0x80 != 0; masked != client {
		return f, errBare
	} else if masked {
		if _, err := io.ReadFull(in, key[:]); err != nil {
			return f, err
		}
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(in, payload); err != nil {
		return f, err
	}
	if client {
		unmask(payload, key)
	}
	f.payload = string(payload)
	return f, nil
}

// judge answers the frames of a client as a strict server does: a message comes
// back as it came, frame by frame, a ping with a pong, a close with a close. What
// breaks the protocol ends it with the code for that.
func judge(in *bufio.Reader, out io.Writer) error {
	say := func(f wsFrame) error {
		_, err := out.Write(f.bytes(false))
		return err
	}
	var message strings.Builder
	kind := byte(0)
	for {
		f, err := readFrame(in, true)
		switch {
		case errors.Is(err, errBare), err == nil && (f.odd != 0 || f.op > wsBinary && f.op < wsClose || f.op > wsPong),
			err == nil && f.op >= wsClose && (f.more || len(f.payload) > 125),
			err == nil && (f.op == wsMore) != (kind != 0) && f.op < wsClose:
			return say(closing(wsProtocol, ""))
		case err != nil:
			return err
		}
		switch f.op {
		case wsPing:
			err = say(wsFrame{op: wsPong, payload: f.payload})
		case wsPong:
		case wsClose:
			if len(f.payload) == 1 {
				return say(closing(wsProtocol, ""))
			}
			if len(f.payload) > 2 && !utf8.ValidString(f.payload[2:]) {
				return say(closing(wsNoText, ""))
			}
			return say(f)
		default:
			if f.op != wsMore {
				kind = f.op
				message.Reset()
			}
			if message.WriteString(f.payload); message.Len() > wsLimit {
				return say(closing(wsTooBig, ""))
			}
			if !f.more {
				if kind == wsText && !utf8.ValidString(message.String()) {
					return say(closing(wsNoText, ""))
				}
				kind = 0
			}
			err = say(f)
		}
		if err != nil {
			return err
		}
	}
}

// sides are the bytes of one connection, as one end of it has them.
type sides struct{ read, written [sha256.Size]byte }

// tally sums what passes.
type tally struct {
	io.ReadWriter
	in, out hash.Hash
}

func tallied(rw io.ReadWriter) *tally { return &tally{rw, sha256.New(), sha256.New()} }

func (t *tally) Read(p []byte) (int, error) {
	n, err := t.ReadWriter.Read(p)
	t.in.Write(p[:n])
	return n, err
}

func (t *tally) Write(p []byte) (int, error) {
	t.out.Write(p)
	return t.ReadWriter.Write(p)
}

func (t *tally) sides() (s sides) {
	t.in.Sum(s.read[:0])
	t.out.Sum(s.written[:0])
	return s
}

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// speaksWebSocket is a target that judges each connection, and tells what passed.
// Asked for /greet it speaks first, in the same bytes as its 101.
func speaksWebSocket(t *testing.T, seen chan<- sides) string {
	return speaker(t, func(c net.Conn, in *bufio.Reader) {
		r, err := http.ReadRequest(in)
		if err != nil || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || r.Header.Get("Sec-Websocket-Version") != "13" {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: " + r.Header.Get("Sec-Websocket-Protocol") +
			"\r\nSec-WebSocket-Accept: " + acceptKey(r.Header.Get("Sec-Websocket-Key")) + "\r\n\r\n"
		rw := tallied(struct {
			io.Reader
			io.Writer
		}{in, c})
		greeting := []byte{}
		if r.URL.Path == "/greet" {
			greeting = append(wsFrame{op: wsText, payload: "welcome"}.bytes(false), wsFrame{op: wsPing}.bytes(false)...)
			rw.out.Write(greeting)
		}
		c.Write(append([]byte(head), greeting...))
		ordered := bufio.NewReader(rw)
		if judge(ordered, rw) == nil {
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, ordered) // a close with bytes unread would be a reset
		}
		seen <- rw.sides()
	})
}

// talk is what a client says, and what it is to hear.
type talk struct {
	name, path string
	say        []wsFrame
	chop       int       // bytes of a write; 0: all at once
	hear       []wsFrame // nil: what it says
}

func text(n int) string {
	return strings.Repeat("Grüße, Welt. ", n/15+1)[:n/15*15] + strings.Repeat("x", n%15)
}

func talks() (all []talk) {
	bye := closing(1000, "bye")
	for _, n := range []int{0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20} {
		all = append(all,
			talk{name: fmt.Sprintf("text of %d", n), say: []wsFrame{{op: wsText, payload: text(n)}, bye}},
			talk{name: fmt.Sprintf("binary of %d", n), say: []wsFrame{{op: wsBinary, payload: strings.Repeat("\x00\xff\x80\n\r", n/5+1)[:n]}, bye}, chop: 1 + n/9},
		)
	}
	for _, n := range []int{1, 2, 7, 125} {
		all = append(all, talk{
			name: fmt.Sprintf("written %d bytes at a time", n), chop: n, say: []wsFrame{{op: wsText, payload: text(400)}, {op: wsPing, payload: "p"}, bye},
			hear: []wsFrame{{op: wsText, payload: text(400)}, {op: wsPong, payload: "p"}, bye},
		})
	}
	whole, split := text(200), []wsFrame{}
	for i := range len(whole) { // bytes: letters are split too
		split = append(split, wsFrame{op: map[bool]byte{true: wsText, false: wsMore}[i == 0], more: true, payload: whole[i : i+1]})
	}
	split = append(split, wsFrame{op: wsMore}, bye)
	code := func(n uint16) []wsFrame { return []wsFrame{closing(n, "")} }
	hello := wsFrame{op: wsText, payload: "hello"}
	return append(all,
		talk{name: "16 MB", say: []wsFrame{{op: wsBinary, payload: strings.Repeat("0123456789abcde\n", 1<<20)}, bye}},
		talk{name: "one letter a frame", say: split},
		talk{name: "fragments of 64 KB", say: []wsFrame{{op: wsBinary, more: true, payload: text(65536)}, {op: wsMore, more: true, payload: text(65536)}, {op: wsMore, payload: text(65536)}, bye}},
		talk{name: "a letter split over frames", say: []wsFrame{{op: wsText, more: true, payload: "\xce"}, {op: wsMore, payload: "\xba"}, bye}},
		talk{name: "empty fragments", say: []wsFrame{{op: wsText, more: true}, {op: wsMore, more: true}, {op: wsMore}, bye}},
		talk{
			name: "ping within a message", say: []wsFrame{{op: wsText, more: true, payload: "a"}, {op: wsPing, payload: "now"}, {op: wsMore, payload: "b"}, bye},
			hear: []wsFrame{{op: wsText, more: true, payload: "a"}, {op: wsPong, payload: "now"}, {op: wsMore, payload: "b"}, bye},
		},
		talk{name: "ping of 125", say: []wsFrame{{op: wsPing, payload: text(125)}, bye}, hear: []wsFrame{{op: wsPong, payload: text(125)}, bye}},
		talk{name: "ten pings", say: append(repeated(wsFrame{op: wsPing, payload: "\x00\xff"}, 10), bye), hear: append(repeated(wsFrame{op: wsPong, payload: "\x00\xff"}, 10), bye)},
		talk{name: "pong unasked", say: []wsFrame{{op: wsPong, payload: "?"}, hello, bye}, hear: []wsFrame{hello, bye}},
		talk{name: "the target speaks first", path: "/greet", say: []wsFrame{hello, bye}, hear: []wsFrame{{op: wsText, payload: "welcome"}, {op: wsPing}, hello, bye}},

		talk{name: "close without a code", say: []wsFrame{{op: wsClose}}},
		talk{name: "close with an own code", say: code(4999)},
		talk{name: "close with a long reason", say: []wsFrame{closing(1001, text(123))}},
		talk{name: "after the close nothing is heard", say: []wsFrame{bye, hello, hello}, hear: []wsFrame{bye}},
		talk{name: "close of one byte", say: []wsFrame{{op: wsClose, payload: "\x03"}}, hear: code(wsProtocol)},
		talk{name: "close with a reason that is no text", say: []wsFrame{closing(1000, "\xff\xfe")}, hear: code(wsNoText)},

		talk{name: "no text", say: []wsFrame{{op: wsText, payload: "a\xed\xa0\x80b"}}, hear: code(wsNoText)},
		talk{name: "text cut in a letter", say: []wsFrame{{op: wsText, payload: "\xce"}}, hear: code(wsNoText)},
		talk{name: "overlong letter", say: []wsFrame{{op: wsText, payload: "\xc0\xaf"}}, hear: code(wsNoText)},
		talk{name: "beyond the last letter", say: []wsFrame{{op: wsText, more: true, payload: "a"}, {op: wsMore, payload: "\xf4\x90\x80\x80"}}, hear: []wsFrame{{op: wsText, more: true, payload: "a"}, code(wsNoText)[0]}},
		talk{name: "no text, as bytes", say: []wsFrame{{op: wsBinary, payload: "\xff\xfe\xc0\xaf"}, bye}},

		talk{name: "without a mask", say: []wsFrame{{op: wsText, payload: "hello", bare: true}}, hear: code(wsProtocol)},
		talk{name: "reserved bits", say: []wsFrame{{op: wsText, odd: 4, payload: "hello"}}, hear: code(wsProtocol)},
		talk{name: "reserved kind of message", say: []wsFrame{{op: 3, payload: "hello"}}, hear: code(wsProtocol)},
		talk{name: "reserved kind of control", say: []wsFrame{{op: 11}}, hear: code(wsProtocol)},
		talk{name: "ping of 126", say: []wsFrame{{op: wsPing, payload: text(126)}}, hear: code(wsProtocol)},
		talk{name: "ping in fragments", say: []wsFrame{{op: wsPing, more: true}, {op: wsMore}}, hear: code(wsProtocol)},
		talk{name: "a message within a message", say: []wsFrame{{op: wsText, more: true, payload: "a"}, hello}, hear: []wsFrame{{op: wsText, more: true, payload: "a"}, code(wsProtocol)[0]}},
		talk{name: "the rest of nothing", say: []wsFrame{{op: wsMore, payload: "a"}}, hear: code(wsProtocol)},
	)
}

func repeated(f wsFrame, n int) (out []wsFrame) {
	for range n {
		out = append(out, f)
	}
	return out
}

// Whatever a WebSocket carries passes unchanged, both ways, also what breaks its
// rules: it is the service that judges.
func TestWebSockets(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		seen := make(chan sides, 1)
		service := speaksWebSocket(t, seen)
		plain, secure := to(service), to(service)
		plain.TLS = "off"
		secure.ID, secure.Hosts, secure.TLS = "shop/secure", []string{"secure.test"}, "internal"
		o.Dir, o.HTTPS = t.TempDir(), []string{nowhere(t)}
		e := serve(t, o, tableOf(plain, secure))
		address := e.addr
		if address == o.HTTPS[0] { // whichever was open first
			address = e.secure
		}
		roots := rootsOf(t, filepath.Join(o.Dir, "ca.pem"))
		for _, way := range []string{"ws", "wss"} {
			t.Run(way, func(t *testing.T) {
				for _, c := range talks() {
					t.Run(c.name, func(t *testing.T) {
						var raw net.Conn
						var err error
						host := "plain.test"
						if way == "ws" {
							raw, err = net.Dial("tcp", address)
						} else {
							host = "secure.test"
							raw, err = tls.Dial("tcp", o.HTTPS[0], &tls.Config{ServerName: host, RootCAs: roots, NextProtos: []string{"http/1.1"}})
						}
						if err != nil {
							t.Fatal(err)
						}
						defer raw.Close()
						_ = raw.SetDeadline(time.Now().Add(2 * time.Minute))
						c.run(t, raw, host, seen)
					})
				}
			})
		}
		if n := e.Report().Routes[0].Served.Failed + e.Report().Routes[1].Served.Failed; n > 0 {
			t.Errorf("%d count as failed", n)
		}
	})
}

func (c talk) run(t *testing.T, raw net.Conn, host string, seen <-chan sides) {
	rw := tallied(raw)
	key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef"))
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: shop.v1\r\nSec-WebSocket-Key: %s\r\n\r\n",
		max(c.path, "/"), host, key)
	if _, err := io.WriteString(raw, request); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(raw)
	a, err := http.ReadResponse(in, nil)
	if err != nil || a.StatusCode != 101 || a.Header.Get("Sec-Websocket-Accept") != acceptKey(key) || a.Header.Get("Sec-Websocket-Protocol") != "shop.v1" {
		t.Fatalf("got %v %v", a, err)
	}
	var all []byte
	for _, f := range c.say {
		all = append(all, f.bytes(true)...)
	}
	said := make(chan error, 1)
	go func() {
		for rest := all; len(rest) > 0; {
			n := len(rest)
			if c.chop > 0 {
				n = min(n, c.chop)
			}
			if _, err := rw.Write(rest[:n]); err != nil {
				said <- err
				return
			}
			rest = rest[n:]
		}
		said <- nil
	}()
	want := c.hear
	if want == nil {
		want = c.say
	}
	heard := bufio.NewReader(io.TeeReader(in, rw.in))
	for i, w := range want {
		got, err := readFrame(heard, false)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if !bytes.Equal(got.bytes(false), w.bytes(false)) {
			t.Fatalf("frame %d is %d %.80q, want %d %.80q", i, got.op, got.payload, w.op, w.payload)
		}
	}
	if _, err := heard.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last frame: %v", err)
	}
	if err := <-said; err != nil {
		t.Fatal(err)
	}
	raw.Close()
	theirs, ours := <-seen, rw.sides()
	if ours.written != theirs.read {
		t.Error("the service got other bytes than were sent")
	}
	if ours.read != theirs.written {
		t.Error("the client got other bytes than were sent")
	}
}

// WebSockets are spoken over HTTP/1.1 alone: without the setting of RFC 8441
// clients that speak HTTP/2 open a connection of their own for them.
func TestWebSocketsAreNotOfferedOverHTTP2(t *testing.T) {
	r := serveTLS(t, t.TempDir(), internalRoute("shop.test"))
	c, err := tls.Dial("tcp", r.address, &tls.Config{ServerName: "shop.test", RootCAs: rootsOf(t, filepath.Join(r.dir, "ca.pem")), NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 9)
	if _, err := io.ReadFull(c, head); err != nil || head[3] != 4 {
		t.Fatalf("the first frame is %x, %v", head, err)
	}
	settings := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(c, settings); err != nil {
		t.Fatal(err)
	}
	for ; len(settings) >= 6; settings = settings[6:] {
		if binary.BigEndian.Uint16(settings) == 8 {
			t.Errorf("extended CONNECT is offered: %x; then it must carry WebSockets", settings[:6])
		}
	}
}
