package proxy

import (
	"errors"
	"net/http"
	"strings"
	"time"
)

const (
	smallBody = 16 << 10 // a body of up to this is taken whole before it is sent on
	copySize  = 32 << 10
)

var (
	errTooLarge = errors.New("body too large")
	errClient   = errors.New("write to client")
)

// collect takes a small body whole. Then it can be sent in one piece and once
// more elsewhere, and no target waits for a slow client.
func (x *exchange) collect() bool {
	n := x.r.ContentLength
	if n <= 0 || n > smallBody || x.r.Header["Expect"] != nil {
		return true
	}
	if cap(x.body) < int(n) {
		x.body = make([]byte, n, max(int(n), 2048))
	}
	x.body = x.body[:n]
	if x.guard != nil && x.r.ProtoMajor == 1 {
		x.guard.reading.Store(time.Now().UnixNano())
		defer x.guard.reading.Store(0)
	}
	for got := 0; got < int(n); {
		if x.r.ProtoMajor > 1 {
			_ = http.NewResponseController(x.w).SetReadDeadline(time.Unix(0, x.limitAt(x.route.Timeout.Client)))
		}
		m, err := x.r.Body.Read(x.body[got:])
		got += m
		if err != nil && got < int(n) && x.r.ProtoMajor > 1 && isDeadline(err) {
			x.refuse(http.StatusRequestTimeout, "")
			return false
		}
		if err != nil && got < int(n) {
			x.o = outcome{took: time.Since(x.start), in: uint64(got)}
			x.route.own.count(&x.o)
			x.abort = true
			return false
		}
	}
	return true
}

// commit sends the head of an answer to the client, whose fields are in h.
// length is of the body that follows; -1: not known.
func (x *exchange) commit(h http.Header, status int, length int64, typed bool) {
	if !typed && h["Content-Type"] == nil {
		h["Content-Type"] = nil // net/http guesses one where the key is missing
	}
	if x.route.Sticky && x.revision == "" {
		if v := x.route.stick(x.t); v != x.cookie {
			c := http.Cookie{Name: x.route.cookieName, Value: v, Path: x.route.Path, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.https()}
			h.Add("Set-Cookie", c.String())
		}
	}
	if x.route.HSTS || len(x.route.setAnswer) > 0 {
		x.dress(h)
	}
	if x.route.Compress {
		x.compress(h, status, length)
	}
	x.last(h)
	x.o.status = status
	x.o.took = time.Since(x.tryAt)
	x.sent, x.fresh, x.said = true, true, status
	x.w.WriteHeader(status)
}

// inform sends an interim answer (103 and the like).
func (x *exchange) inform(status int, list []field) {
	if status == http.StatusContinue || status == http.StatusSwitchingProtocols {
		return // net/http says 100 itself when the body is read
	}
	if !x.r.ProtoAtLeast(1, 1) {
		return // HTTP/1.0 knows none, and takes it for the answer
	}
	h := x.w.Header()
	clear(h)
	for _, f := range list {
		h[f.key] = append(h[f.key], f.value)
	}
	x.w.WriteHeader(status)
	clear(h)
}

// send writes a piece of the answer's body.
func (x *exchange) send(b []byte) error {
	var n int
	var err error
	defer x.bound()()
	if x.zip != nil {
		n, err = x.zip.Write(b)
	} else {
		n, err = x.w.Write(b)
	}
	x.fresh = true
	x.o.out += uint64(n)
	if err != nil {
		return errClient
	}
	return nil
}

// bound ends a stream of HTTP/2 whose client does not take what it is sent; of
// HTTP/1 the guard sees to that. It returns what ends the watch.
func (x *exchange) bound() func() {
	if x.r.ProtoMajor < 2 {
		return unbound
	}
	rc := http.NewResponseController(x.w)
	_ = rc.SetWriteDeadline(time.Now().Add(x.route.Timeout.Client))
	return func() { _ = rc.SetWriteDeadline(time.Time{}) }
}

func unbound() {}

// flush lets the client have what is written, before there is a wait for more.
func (x *exchange) flush() {
	if !x.fresh {
		return
	}
	x.fresh = false
	defer x.bound()()
	if x.zip != nil {
		x.zip.Flush()
	}
	if x.flusher != nil {
		x.flusher.Flush()
	}
}

// trailers are sent behind the body, whether they were announced or not.
func (x *exchange) trailers(h http.Header, announced []string, list []field) {
	for _, f := range list {
		k := f.key
		if !anyLists(announced, strings.ToLower(k)) {
			k = http.TrailerPrefix + k
		}
		h[k] = append(h[k], f.value)
	}
}

// forbidden in trailers: what frames or routes a message (RFC 9110, 6.5.1).
func trailing(key string) bool {
	switch key {
	case "Authorization", "Cache-Control", "Content-Encoding", "Content-Range", "Content-Type", "Cookie", "Set-Cookie", "Age", "Expires", "Date", "Location", "Vary":
		return false
	}
	return !hop(key) && !says(key)
}
