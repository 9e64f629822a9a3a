package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// protocols are those of a route's option protocol.
func protocols(protocol string) *http.Protocols {
	p := new(http.Protocols)
	switch protocol {
	case "h2c":
		p.SetUnencryptedHTTP2(true)
	case "https":
		p.SetHTTP1(true)
		p.SetHTTP2(true)
	default:
		p.SetHTTP1(true)
	}
	return p
}

// transport is the standard library's client for one target, made when it is needed first.
type transport struct {
	mu    sync.Mutex
	kinds map[string]*http.Transport // by protocol
}

func (t *target) transport(protocol string, connect time.Duration) *http.Transport {
	if t.tls {
		protocol = "https"
	}
	t.std.mu.Lock()
	defer t.std.mu.Unlock()
	one := t.std.kinds[protocol]
	if one == nil {
		one = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: connect}).DialContext,
			MaxIdleConnsPerHost:    idleMax,
			IdleConnTimeout:        idleTime,
			TLSHandshakeTimeout:    connect,
			ExpectContinueTimeout:  continueWait,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHead,
			Protocols:              protocols(protocol),
			// The address of an instance is in no certificate; that of a URL must be.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: !t.tls, MinVersion: tls.VersionTLS12}, //nolint:gosec // see above
		}
		if t.std.kinds == nil {
			t.std.kinds = map[string]*http.Transport{}
		}
		t.std.kinds[protocol] = one
	}
	return one
}

func (t *transport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, one := range t.kinds {
		one.CloseIdleConnections()
	}
}

// byStd sends the request by the standard library's transport. It is the whole
// client path with Options.Std, and of targets that speak h2c or https always.
func (x *exchange) byStd() (verdict, error) {
	for n := 0; ; n++ {
		v, reused, err := x.onceStd()
		if v != broken || !reused || x.begun || !idempotent(x.r.Method) || n == 3 {
			return v, err
		}
		// The connection ended while it was idle: that says nothing of the target.
		x.t.std.close()
	}
}

func (x *exchange) onceStd() (v verdict, reused bool, err error) {
	ctx, cancel := context.WithCancelCause(x.ctx())
	defer cancel(nil)
	watch := newWatch(cancel)
	defer watch.stop()
	out, body := x.request(ctx, watch)
	var interim sync.Mutex // the transport tells of interim answers on a goroutine of its own
	over := false
	var old atomic.Bool
	out = out.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { old.Store(i.Reused) },
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			interim.Lock()
			defer interim.Unlock()
			if over {
				return nil
			}
			x.inform(code, endToEnd(http.Header(h)))
			return nil
		},
	}))
	watch.set(x.limitAt(x.route.Timeout.Connect + x.route.Timeout.Server))
	a, err := x.t.transport(x.route.Protocol, x.route.Timeout.Connect).RoundTrip(out)
	interim.Lock()
	over = true
	interim.Unlock()
	defer func() {
		if body != nil {
			x.o.in = uint64(body.close())
			x.begun = body.read
		}
	}()
	if err != nil {
		v, err = x.blameStd(ctx, body, err)
		return v, old.Load(), err
	}
	defer a.Body.Close()
	if a.StatusCode < 100 || a.StatusCode > 999 {
		return bad, false, nonsense("status %d", a.StatusCode)
	}
	if a.StatusCode == http.StatusSwitchingProtocols {
		conn, ok := a.Body.(io.ReadWriteCloser)
		if got := a.Header.Get("Upgrade"); !ok || x.upgrade == "" || !strings.EqualFold(got, x.upgrade) {
			return bad, false, nonsense("an upgrade to %.40q, which nobody asked for", got)
		}
		watch.stop()
		return answered, false, x.join(quietDuplex{conn}, nil, endToEnd(a.Header))
	}
	h := x.w.Header()
	listed := a.Header["Connection"]
	for k, values := range a.Header {
		if !hop(k) && (len(listed) == 0 || !anyLists(listed, k)) {
			h[k] = values
		}
	}
	if n := a.Header["Content-Length"]; len(n) > 0 && a.StatusCode != http.StatusNoContent {
		h["Content-Length"] = n[:1]
	}
	announced := make([]string, 0, len(a.Trailer))
	for k := range a.Trailer {
		if token(k) && trailing(k) {
			announced = append(announced, k)
		}
	}
	if len(announced) > 0 {
		h["Trailer"] = append([]string(nil), announced...)
	}
	x.commit(h, a.StatusCode, a.ContentLength, a.Header["Content-Type"] != nil)
	if len(announced) > 0 {
		x.flush()
	}
	err = x.copyStd(a, watch)
	x.unzip(err == nil)
	if err != nil {
		x.abort = true
		switch cause := context.Cause(ctx); {
		case errors.Is(err, errClient), x.ctx().Err() != nil:
			return answered, false, err
		case errors.Is(cause, errTimeout):
			err = cause
		}
		x.o.reason = plainly(err).Error()
		if a.ContentLength < 0 && x.t.closed.Load() {
			x.o.cut = true
		} else {
			x.o.failed, x.o.broken = true, true
		}
		return answered, false, err
	}
	var list []field
	for k, values := range a.Trailer {
		for _, v := range values {
			if trailing(k) {
				list = append(list, field{k, v})
			}
		}
	}
	x.trailers(h, announced, list)
	return answered, false, nil
}

// endToEnd is h without what is of one connection alone.
func endToEnd(h http.Header) (list []field) {
	listed := h["Connection"]
	for k, values := range h {
		if hop(k) || len(listed) > 0 && anyLists(listed, k) {
			continue
		}
		for _, v := range values {
			list = append(list, field{k, v})
		}
	}
	return list
}

func (x *exchange) blameStd(ctx context.Context, body *outgoingBody, err error) (verdict, error) {
	if body != nil {
		switch got := body.failure(); {
		case errors.Is(got, errTooLarge):
			return tooLarge, got
		case errors.Is(got, errTimeout):
			return tooSlow, got
		case errors.Is(got, errClient):
			return gone, got
		}
	}
	if x.ctx().Err() != nil {
		return gone, err
	}
	if cause := context.Cause(ctx); cause != nil {
		return bad, cause
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return refused, err
	}
	return broken, err
}

// request makes the request for the target, the same that the own path writes.
func (x *exchange) request(ctx context.Context, watch *watch) (*http.Request, *outgoingBody) {
	h := make(http.Header, len(x.r.Header)+6)
	x.outgoing(func(k, v string) { h[k] = append(h[k], v) })
	if h["User-Agent"] == nil {
		h["User-Agent"] = nil // or the transport names itself
	}
	if x.r.Header["Expect"] != nil && x.streams() {
		h["Expect"] = []string{"100-continue"}
	}
	scheme := "http"
	if x.t.tls || x.route.Protocol == "https" {
		scheme = "https"
	}
	path := x.toPath()
	u := &url.URL{Scheme: scheme, Host: x.t.address}
	if p, err := url.ParseRequestURI(path); err == nil {
		u.Path, u.RawPath, u.RawQuery, u.ForceQuery = p.Path, p.RawPath, p.RawQuery, p.ForceQuery
	}
	if path != "*" && u.RequestURI() != path { // the client's spelling, which url would normalise
		p, q, asked := strings.Cut(path, "?")
		u.Opaque, u.RawQuery, u.ForceQuery = "//"+x.t.address+p, q, asked && q == ""
	}
	r := (&http.Request{Method: x.r.Method, URL: u, Host: x.toHost(), Header: h, ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	switch {
	case x.streams():
		b := &outgoingBody{x: x, rc: x.duplex(), watch: watch, idle: make(chan struct{}, 1)}
		b.idle <- struct{}{}
		r.Body, r.ContentLength, r.Trailer = b, x.r.ContentLength, x.r.Trailer
		return r, b
	case len(x.body) > 0:
		body := x.body
		x.lent = true
		r.Body, r.ContentLength = io.NopCloser(&bytesReader{b: body}), int64(len(body))
		if idempotent(r.Method) {
			r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(&bytesReader{b: body}), nil }
		}
		x.o.in = uint64(len(body))
	default:
		r.Body = http.NoBody
	}
	return r, nil
}

// copyStd relays the body; what has come is flushed before there is a wait for more.
func (x *exchange) copyStd(a *http.Response, watch *watch) error {
	d := x.route.Timeout.Server
	if a.ContentLength < 0 {
		d = x.route.Timeout.Tunnel
	}
	pooled := x.s.bytes.Get().(*[]byte)
	defer x.s.bytes.Put(pooled)
	if a.ContentLength < 0 {
		x.flush()
	}
	for {
		watch.set(x.limitAt(d))
		n, err := a.Body.Read(*pooled)
		watch.set(0)
		if n > 0 {
			if err := x.send((*pooled)[:n]); err != nil {
				return err
			}
			if err == nil {
				x.flush()
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// watch cancels with errTimeout when it is not renewed in time.
type watch struct {
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func newWatch(cancel context.CancelCauseFunc) *watch {
	return &watch{cancel, time.AfterFunc(time.Hour, func() { cancel(errTimeout) })}
}

func (w *watch) set(at int64) {
	if at == 0 {
		w.timer.Stop()
		return
	}
	w.timer.Reset(time.Until(time.Unix(0, at)))
}

func (w *watch) stop() { w.timer.Stop() }

// outgoingBody reads the client's body for the transport, and remembers whose
// fault it is when that fails.
type outgoingBody struct {
	x     *exchange
	rc    *http.ResponseController
	watch *watch
	idle  chan struct{} // taken while it reads

	mu     sync.Mutex
	n      int64
	err    error
	shut   bool
	set    time.Time
	read   bool // something was asked of it
	hadAll bool
}

func (b *outgoingBody) Read(p []byte) (int, error) {
	<-b.idle
	defer func() { b.idle <- struct{}{} }()
	b.mu.Lock()
	if b.shut {
		b.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	b.read = true
	x := b.x
	wait := x.route.Timeout.Client
	if x.r.ContentLength < 0 && x.r.ProtoMajor > 1 {
		wait = x.route.Timeout.Tunnel
	}
	if now := time.Now(); now.Sub(b.set) > time.Second {
		b.set = now
		_ = b.rc.SetReadDeadline(now.Add(wait))
	}
	b.mu.Unlock()
	n, err := x.r.Body.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n += int64(n)
	switch {
	case x.route.MaxBody > 0 && b.n > x.route.MaxBody:
		b.err = errTooLarge
	case err == nil || errors.Is(err, io.EOF):
		if err != nil || b.n == x.r.ContentLength {
			b.hadAll = true
			x.whole.Store(true)
		}
		return n, err
	case isDeadline(err):
		b.err = errTimeout
	default:
		b.err = errClient
	}
	return 0, b.err
}

// Close is the transport's, which may call it while a Read is under way.
func (b *outgoingBody) Close() error { return nil }

func (b *outgoingBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// close ends reading and waits for a Read that is under way: the request is not
// ours any more once the handler has returned.
func (b *outgoingBody) close() int64 {
	b.mu.Lock()
	b.shut = true
	if !b.read {
		b.mu.Unlock()
		return 0
	}
	if !b.hadAll {
		_ = b.rc.SetReadDeadline(past)
	} else {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	b.mu.Unlock()
	<-b.idle
	b.idle <- struct{}{}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

func isDeadline(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

type bytesReader struct{ b []byte }

func (r *bytesReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// quietDuplex is an upgraded connection of the transport, which has no deadlines.
type quietDuplex struct{ io.ReadWriteCloser }

func (quietDuplex) SetReadDeadline(time.Time) error { return nil }

func (q quietDuplex) CloseWrite() error {
	if c, ok := q.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return q.Close()
}
