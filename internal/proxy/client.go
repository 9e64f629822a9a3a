package proxy

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

const continueWait = time.Second // for a target that was asked whether it wants the body

// byOwn sends the request over a connection of ours, and reads the answer, on
// this goroutine. Only a body that is not at hand yet gets one of its own.
func (x *exchange) byOwn() (verdict, error) {
	fresh := false
	for {
		var c *conn
		if !fresh {
			c = x.t.conns.get()
			if c != nil && x.streams() && !c.alive() {
				c.Close()
				continue
			}
		}
		if c == nil {
			var err error
			if c, err = x.s.dial(x.ctx(), x.t, x.route.Timeout.Connect); err != nil {
				if x.ctx().Err() != nil {
					return gone, err
				}
				return refused, err
			}
		}
		reused := c.reused
		v, err := x.over(c)
		if v == stale {
			continue
		}
		if v == broken && reused && !x.begun && idempotent(x.r.Method) && !errors.Is(err, errTimeout) {
			// It ended while it was idle: that says nothing of the target.
			fresh = true
			continue
		}
		return v, err
	}
}

// streams says whether there is a body that is not in x.body.
func (x *exchange) streams() bool {
	return x.r.ContentLength != 0 && len(x.body) == 0
}

// over is one request and its answer over c, which is kept or closed at its end.
func (x *exchange) over(c *conn) (v verdict, err error) {
	c.begin(x.ctx())
	keep := false
	defer func() {
		if c.end() != nil || !keep {
			c.Close()
		} else {
			c.keep()
		}
	}()
	var up *upload
	x.head()
	c.limit.Store(x.limitAt(x.route.Timeout.Server))
	if !x.streams() {
		x.out = append(x.out, x.body...)
		x.o.in = uint64(len(x.body))
		// What may not be sent twice does not begin on a connection that has ended,
		// and what was said on it meanwhile is nobody's answer.
		if !c.ask(x.out) {
			return stale, nil
		}
	} else {
		asked := x.r.Header["Expect"] != nil
		up = &upload{x: x, c: c, done: make(chan struct{})}
		if _, err = c.Write(x.out); err == nil && (!asked || x.invited(c)) {
			x.begun = true
			up.start()
		}
		defer func() {
			if up.stop(); up.err != nil || !up.whole {
				keep = false
			}
			x.o.in = uint64(up.n)
			switch {
			case v == answered:
			case errors.Is(up.err, errTooLarge):
				v, err = tooLarge, up.err
			case errors.Is(up.err, errClient):
				v, err = gone, up.err
			case errors.Is(up.err, errTimeout):
				v, err = tooSlow, up.err
			}
		}()
	}
	if v, err = x.answer(c); v != answered {
		return v, err
	}
	keep, err = x.relay(c)
	return answered, err
}

// answer reads heads up to that of the final answer into x.ans.
func (x *exchange) answer(c *conn) (verdict, error) {
	seen := 0
	for n := 0; ; n++ {
		var head []byte
		for {
			if head, seen = c.in.head(seen); head != nil {
				break
			}
			if len(c.in.held()) > maxHead {
				return bad, nonsense("a head of more than %d bytes", maxHead)
			}
			if err := c.in.fill(); err != nil {
				return x.blame(c, err)
			}
		}
		if err := x.ans.parse(string(head)); err != nil {
			return bad, err
		}
		if len(head) > maxHead {
			return bad, nonsense("a head of more than %d bytes", maxHead)
		}
		c.in.skip(seen)
		seen = 0
		status := x.ans.status
		if status >= 200 || status == http.StatusSwitchingProtocols {
			if status == http.StatusSwitchingProtocols && (x.upgrade == "" || len(x.body) > 0) {
				return bad, nonsense("101, which nobody asked for")
			}
			c.limit.Store(0)
			return answered, nil
		}
		if n == 32 {
			return bad, nonsense("more interim answers than anybody needs")
		}
		x.inform(status, x.ans.fields)
	}
}

// blame says whose fault it is that no answer came.
func (x *exchange) blame(c *conn, err error) (verdict, error) {
	err = c.cause(err)
	switch {
	case errors.Is(err, errGone):
		return gone, err
	case errors.Is(err, errTimeout), c.in.read, errors.Is(err, errNonsense):
		return bad, err
	}
	return broken, err
}

// head makes the request's head in x.out.
func (x *exchange) head() {
	b := append(x.out[:0], x.r.Method...)
	b = append(b, ' ')
	b = append(b, x.toPath()...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, x.toHost()...)
	b = append(b, "\r\n"...)
	x.outgoing(func(k, v string) {
		b = append(b, k...)
		b = append(b, ": "...)
		b = append(b, v...)
		b = append(b, "\r\n"...)
	})
	switch n := x.r.ContentLength; {
	case n > 0, n == 0 && (x.r.Method == http.MethodPost || x.r.Method == http.MethodPut || x.r.Method == http.MethodPatch):
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, n, 10)
		b = append(b, "\r\n"...)
	case n < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for k := range x.r.Trailer {
			if !token(k) || !trailing(k) {
				continue // it would not be sent
			}
			b = append(b, "Trailer: "...)
			b = append(b, k...)
			b = append(b, "\r\n"...)
		}
	}
	if x.streams() && x.r.Header["Expect"] != nil {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	x.out = append(b, "\r\n"...)
}

// invited waits until the target says that it wants the body, or says nothing for
// a second. False: it has answered already.
func (x *exchange) invited(c *conn) bool {
	if c.SetReadDeadline(time.Now().Add(continueWait)) != nil {
		return false
	}
	defer c.SetReadDeadline(time.Time{}) //nolint:errcheck // the next read says it
	seen := 0
	for {
		head, at := c.in.head(seen)
		if seen = at; head == nil {
			var timeout interface{ Timeout() bool }
			if err := c.in.fill(); err != nil {
				return errors.As(err, &timeout) && timeout.Timeout() && c.cause(nil) == nil
			}
			continue
		}
		if x.ans.parse(string(head)) != nil || x.ans.status > 199 || x.ans.status == http.StatusSwitchingProtocols {
			return false // answer reads it again
		}
		c.in.skip(seen)
		seen = 0
		if x.ans.status == http.StatusContinue {
			c.in.read = false
			return true
		}
		x.inform(x.ans.status, x.ans.fields)
	}
}

// relay sends on what is in x.ans and follows it. keep: c can serve another request.
// What fails from here on cannot be told but by cutting the answer off.
func (x *exchange) relay(c *conn) (keep bool, err error) {
	a := &x.ans
	if a.status == http.StatusSwitchingProtocols {
		return false, x.tunnel(c)
	}
	h := x.w.Header()
	none := a.bodiless(x.r.Method)
	if !x.pass(a) {
		values := make([]string, len(a.fields)+1)
		for i, f := range a.fields {
			values[i] = f.value
			if old := h[f.key]; old != nil {
				h[f.key] = append(old, f.value)
			} else {
				h[f.key] = values[i : i+1 : i+1]
			}
		}
		if a.length >= 0 && a.status != http.StatusNoContent {
			values[len(a.fields)] = a.said
			h["Content-Length"] = values[len(a.fields):]
		}
		if len(a.trailer) > 0 && a.chunked && !none {
			h["Trailer"] = append([]string(nil), a.trailer...)
		}
		x.commit(h, a.status, a.length, a.typed)
	}
	var list []field
	whole := true
	switch {
	case none:
		// A body where none may be would be taken for the next answer.
		whole = x.r.Method == http.MethodHead || a.status == http.StatusNotModified || a.length <= 0 && !a.chunked
	case a.chunked:
		if len(a.trailer) > 0 {
			x.flush() // a length that net/http works out leaves no room for trailers
		}
		if list, err = x.chunks(c); len(list) > 0 {
			x.flush()
		}
	case a.length >= 0:
		err = x.exactly(c, a.length)
	default:
		whole = false
		err = x.rest(c)
	}
	x.unzip(err == nil)
	if err == nil {
		x.trailers(h, a.trailer, list)
		return whole && !a.close && len(c.in.held()) == 0, nil
	}
	x.cut(c, err, a.length < 0)
	return false, err
}

// cut notes that an answer ended before its end.
func (x *exchange) cut(c *conn, err error, stream bool) {
	x.abort = true
	if errors.Is(err, errClient) || errors.Is(c.cause(err), errGone) {
		return
	}
	x.o.reason = plainly(c.cause(err)).Error()
	if stream && x.t.closed.Load() {
		x.o.cut = true
		return
	}
	x.o.failed, x.o.broken = true, true
}

// more waits for more of an answer.
func (x *exchange) more(c *conn, d time.Duration) error {
	x.flush()
	c.limit.Store(x.limitAt(d))
	err := c.in.fill()
	c.limit.Store(0)
	return err
}

func (x *exchange) exactly(c *conn, n int64) error {
	for n > 0 {
		b := c.in.held()
		if len(b) == 0 {
			if err := x.more(c, x.route.Timeout.Server); err != nil {
				return unexpected(err)
			}
			continue
		}
		b = b[:min(int64(len(b)), n)]
		if err := x.send(b); err != nil {
			return err
		}
		c.in.skip(len(b))
		n -= int64(len(b))
	}
	return nil
}

// rest relays what comes until the target closes.
func (x *exchange) rest(c *conn) error {
	for {
		if b := c.in.held(); len(b) > 0 {
			if err := x.send(b); err != nil {
				return err
			}
			c.in.skip(len(b))
		}
		if err := x.more(c, x.route.Timeout.Tunnel); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (x *exchange) chunks(c *conn) ([]field, error) {
	line := func() ([]byte, error) {
		for {
			l, n, err := c.in.line()
			if err != nil {
				return nil, err
			}
			if n > 0 {
				c.in.at += n // not skip: l is read yet
				return l, nil
			}
			if err := x.more(c, x.route.Timeout.Tunnel); err != nil {
				return nil, unexpected(err)
			}
		}
	}
	for {
		l, err := line()
		if err != nil {
			return nil, err
		}
		n, err := parseChunk(l)
		if err != nil {
			return nil, err
		}
		c.in.skip(0)
		if n == 0 {
			break
		}
		if err := x.exactly(c, n); err != nil {
			return nil, err
		}
		if l, err = line(); err != nil {
			return nil, err
		}
		if len(l) > 0 {
			return nil, nonsense("a chunk longer than it said")
		}
		c.in.skip(0)
	}
	var list []field
	for size := 0; ; {
		l, err := line()
		if err != nil {
			return nil, err
		}
		if len(l) == 0 {
			c.in.skip(0)
			return list, nil
		}
		if size += len(l); size > maxHead {
			return nil, nonsense("trailers of more than %d bytes", maxHead)
		}
		k, v, err := parseField(string(l))
		if err != nil {
			return nil, err
		}
		if trailing(k) {
			list = append(list, field{k, v})
		}
	}
}
