package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	replyKept  = 4 << 10   // what is gathered before it is sent
	replyMax   = 32 << 10  // of a buffer that is kept for later
	replyOpen  = 2 << 10   // a body of up to this gets a length if none was said
	discardMax = 256 << 10 // of a body that nobody wanted, to keep the connection
)

// reply writes an answer on a line. It is an http.ResponseWriter that knows its flushes,
// full duplex, deadlines and Hijack.
type reply struct {
	l      *line
	header http.Header
	head   bool  // the request was HEAD
	minor  uint8 // of the client's HTTP/1
	last   bool  // the connection ends with this answer

	status   int
	length   int64 // said; -1: none
	written  int64
	chunked  bool
	lined    bool // all that does not hang on framing is in out
	full     bool // the body may be read while the answer is written
	hijacked bool
	timed    bool // a deadline was set
	trailer  []string
	pend     []byte // of a body whose framing is not decided
	out      []byte // to be sent
	vec      [3][]byte
	bufs     net.Buffers
	err      error // of a write

	mu    sync.Mutex // a body is read on another goroutine, which says 100
	begun bool       // the head is in out, or sent
}

func (w *reply) reset() {
	h, out, pend := w.header, w.out[:0], w.pend[:0]
	if len(h) > 64 {
		h = http.Header{}
	}
	if cap(out) > replyMax {
		out = nil
	}
	clear(h)
	l := w.l
	*w = reply{l: l, header: h, out: out, pend: pend} //nolint:govet // nobody holds mu between two requests
}

func (w *reply) begin(r *http.Request, _ *line) {
	w.head, w.minor, w.length = r.Method == http.MethodHead, uint8(r.ProtoMinor), -1
	w.last = w.last || r.Close
}

// Header is what WriteHeader sends.
func (w *reply) Header() http.Header { return w.header }

// WriteHeader sends an interim answer, or begins the answer.
func (w *reply) WriteHeader(status int) {
	if w.status != 0 || w.hijacked {
		return
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		w.inform(status)
		return
	}
	w.status = status
	if v := w.header["Content-Length"]; len(v) > 0 {
		if n, err := parseLength(v[0]); err == nil {
			w.length = n
		}
	}
	w.leftover()
	if w.length >= 0 || w.empty() || w.head {
		w.open()
	}
}

// empty: no body follows such a status.
func (w *reply) empty() bool {
	return w.status == http.StatusNoContent || w.status == http.StatusNotModified
}

func (w *reply) inform(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := append(make([]byte, 0, 256), "HTTP/1.1 "...)
	b = appendStatus(b, status)
	for _, k := range keys(w.header) {
		if k == "Content-Length" || k == "Transfer-Encoding" {
			continue
		}
		for _, v := range w.header[k] {
			b = appendField(b, k, v)
		}
	}
	_, _ = w.l.c.Write(append(b, "\r\n"...))
}

// goOn tells the client that its body is wanted, unless the answer has begun.
func (w *reply) goOn() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun {
		_, _ = io.WriteString(w.l.c, "HTTP/1.1 100 Continue\r\n\r\n")
	}
}

// leftover sees to a body that nobody has read: some clients do not read the
// answer before they have sent all of it. Too much of it ends the connection.
func (w *reply) leftover() {
	b := &w.l.turn.body
	if w.full || b.done {
		return
	}
	if b.expect || b.err != nil || !b.chunked && b.left > discardMax {
		w.last = true
		return
	}
	g := w.l.guard
	g.reading.Store(time.Now().UnixNano())
	defer g.reading.Store(0)
	pooled := w.l.s.bytes.Get().(*[]byte)
	defer w.l.s.bytes.Put(pooled)
	for n := 0; n <= discardMax; {
		m, err := b.Read(*pooled)
		n += m
		if b.done {
			return
		}
		if err != nil {
			break
		}
	}
	w.last = true
}

// open ends the head in out. From here on the framing is decided.
func (w *reply) open() {
	w.mu.Lock()
	w.begun = true
	w.mu.Unlock()
	h := w.header
	if c := h["Connection"]; len(c) > 0 && anyLists(c, "close") || w.l.s.lines.shut.Load() {
		w.last = true
	}
	if w.length < 0 && !w.empty() && !w.head {
		if w.minor > 0 {
			w.chunked = true
		} else {
			w.last = true
		}
	}
	if !w.lined {
		w.fields()
	}
	if w.length >= 0 && !w.empty() {
		w.out = append(w.out, "Content-Length: "...)
		w.out = appendInt(w.out, w.length)
		w.out = append(w.out, crlf...)
	}
	switch {
	case w.last && w.minor > 0:
		w.out = append(w.out, "Connection: close\r\n"...)
	case !w.last && w.minor == 0:
		w.out = append(w.out, "Connection: keep-alive\r\n"...)
	}
	if w.chunked {
		w.out = append(w.out, "Transfer-Encoding: chunked\r\n"...)
	}
	w.out = append(w.out, crlf...)
}

// fields puts all of the head into out that does not hang on its framing.
func (w *reply) fields() {
	w.first()
	h := w.header
	for _, k := range keys(h) {
		switch {
		case framing(k), k == "Content-Type" && w.status == http.StatusNotModified, strings.HasPrefix(k, http.TrailerPrefix):
			continue
		case k == "Trailer":
			for _, v := range h[k] {
				for name := range strings.SplitSeq(v, ",") {
					w.trailer = append(w.trailer, trim(name))
				}
			}
		}
		for _, v := range h[k] {
			w.out = appendField(w.out, k, v)
		}
	}
	if h["Date"] == nil {
		w.out = appendField(w.out, "Date", w.l.s.lines.now())
	}
}

// framing says whether a line is the connection's own.
func framing(key string) bool {
	return key == "Content-Length" || key == "Connection" || key == "Transfer-Encoding"
}

// first puts the status line into out.
func (w *reply) first() {
	if w.minor > 0 {
		w.out = append(w.out, "HTTP/1.1 "...)
	} else {
		w.out = append(w.out, "HTTP/1.0 "...)
	}
	w.out = appendStatus(w.out, w.status)
}

// pass is WriteHeader for the head of a target's answer that nobody adds to: it takes no way by a map.
func (w *reply) pass(a *answer) {
	w.status, w.length, w.lined = a.status, a.length, true
	w.leftover()
	w.first()
	dated := false
	for _, f := range a.fields {
		dated = dated || f.key == "Date"
		if f.key == "Content-Type" && w.status == http.StatusNotModified {
			continue
		}
		b := append(w.out, f.key...)
		b = append(b, ": "...)
		b = append(b, f.value...)
		w.out = append(b, crlf...)
	}
	if !dated {
		w.out = appendField(w.out, "Date", w.l.s.lines.now())
	}
	if w.length >= 0 || w.empty() || w.head {
		w.open()
	}
}

// Write writes a piece of the body.
func (w *reply) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.hijacked:
		return 0, http.ErrHijacked
	case w.empty():
		return 0, http.ErrBodyNotAllowed
	case w.length >= 0 && w.written+int64(len(b)) > w.length:
		return 0, http.ErrContentLength
	case w.err != nil:
		return 0, w.err
	}
	w.written += int64(len(b))
	if w.head || len(b) == 0 {
		return len(b), nil
	}
	if !w.begun {
		if len(w.pend)+len(b) <= replyOpen {
			w.pend = append(w.pend, b...)
			return len(b), nil
		}
		w.decide()
	}
	w.put(b)
	if w.err != nil {
		return 0, w.err
	}
	return len(b), nil
}

// decide opens an answer whose length is not known.
func (w *reply) decide() {
	w.open()
	if len(w.pend) > 0 {
		w.put(w.pend)
		w.pend = w.pend[:0]
	}
}

func (w *reply) put(b []byte) {
	if w.chunked {
		w.out = strconv.AppendInt(w.out, int64(len(b)), 16)
		w.out = append(w.out, crlf...)
	}
	if len(w.out)+len(b) <= replyKept || w.l.tls != nil && len(w.out)+len(b) <= 16<<10 {
		w.out = append(w.out, b...)
		if w.chunked {
			w.out = append(w.out, "\r\n"...)
		}
		return
	}
	end := b[:0:0]
	if w.chunked {
		end = crlf
	}
	if w.l.tls != nil {
		w.send(w.out)
		w.send(b)
		w.out = append(w.out[:0], end...)
		return
	}
	w.vec = [3][]byte{w.out, b, end}
	w.bufs = w.vec[:]
	if w.err == nil {
		w.err = w.l.guard.writeAll(&w.bufs)
	}
	w.vec, w.out = [3][]byte{}, w.out[:0]
}

var crlf = []byte("\r\n")

func (w *reply) send(b []byte) {
	if w.err == nil && len(b) > 0 {
		_, w.err = w.l.c.Write(b)
	}
}

// Flush sends what was gathered.
func (w *reply) Flush() {
	if w.hijacked {
		return
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.begun {
		w.decide()
	}
	w.send(w.out)
	w.out = w.out[:0]
}

// finish ends the answer and says whether the connection may carry another.
func (w *reply) finish() bool {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.begun {
		told := len(w.header["Trailer"]) > 0
		for k := range w.header {
			told = told || strings.HasPrefix(k, http.TrailerPrefix)
		}
		if !told {
			w.length = int64(len(w.pend))
		}
		w.decide()
	}
	if w.chunked {
		w.out = append(w.out, "0\r\n"...)
		w.trailers()
		w.out = append(w.out, "\r\n"...)
	}
	w.send(w.out)
	w.out = w.out[:0]
	if w.timed {
		w.err = firstError(w.err, w.l.c.SetReadDeadline(time.Time{}))
	}
	return w.err == nil && !w.last && (w.length < 0 || w.head || w.empty() || w.written == w.length)
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (w *reply) trailers() {
	for _, k := range w.trailer {
		for _, v := range w.header[k] {
			w.out = appendField(w.out, k, v)
		}
	}
	for k, values := range w.header {
		if name, ok := strings.CutPrefix(k, http.TrailerPrefix); ok {
			for _, v := range values {
				w.out = appendField(w.out, name, v)
			}
		}
	}
}

// EnableFullDuplex lets the answer be written while the body is read.
func (w *reply) EnableFullDuplex() error {
	w.full = true
	return nil
}

// SetReadDeadline ends reads of the body.
func (w *reply) SetReadDeadline(t time.Time) error {
	w.timed = true
	return w.l.c.SetReadDeadline(t)
}

// Hijack hands the connection over, with what has been read of it.
func (w *reply) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	l := w.l
	if w.hijacked {
		return nil, nil, http.ErrHijacked
	}
	l.listenNoMore()
	w.hijacked = true
	l.stage.Store(atEnd)
	held := bytes.Clone(l.in.held())
	in := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(held), l.c), max(len(held), 16))
	if len(held) > 0 {
		_, _ = in.Peek(len(held))
	}
	return l.c, bufio.NewReadWriter(in, bufio.NewWriter(l.c)), nil
}

// keys are those of h, in order: two equal answers look alike.
func keys(h http.Header) []string {
	list := make([]string, 0, 16)
	for k := range h {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

func appendField(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, ": "...)
	if strings.ContainsAny(value, "\r\n") {
		value = oneLine.Replace(value)
	}
	b = append(b, value...)
	return append(b, "\r\n"...)
}

var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

// appendStatus appends what follows HTTP/1.1 in a status line, and its end.
func appendStatus(b []byte, status int) []byte {
	b = appendInt(b, int64(status))
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = appendInt(append(b, "status code "...), int64(status))
	}
	return append(b, "\r\n"...)
}
