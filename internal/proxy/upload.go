package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// upload sends a body on while the answer is read: whoever answers before the
// body has ended, or lets both flow, is heard.
type upload struct {
	x       *exchange
	c       *conn
	started bool
	mu      sync.Mutex
	stopped bool // stop ended the read: that is not the client's fault; held by mu, as the read's deadline is
	done    chan struct{}
	n       int64
	whole   bool // the target has all of it
	err     error
}

// duplex lets an answer be written while the body is read. net/http then leaves
// the rest of a body on the connection, so that it is for last to end that.
func (x *exchange) duplex() *http.ResponseController {
	rc := http.NewResponseController(x.w)
	_ = rc.EnableFullDuplex() // HTTP/2 always is
	x.both = true
	return rc
}

// last makes an answer the connection's last whose head is written before the body
// has been read to its end: what comes of that would be taken for the next request.
func (x *exchange) last(h http.Header) {
	if !x.both || x.r.ProtoMajor > 1 || x.whole.Load() {
		return
	}
	h["Connection"] = lastAnswer
	if x.guard != nil {
		x.guard.linger.Store(true)
	}
}

func (u *upload) start() {
	u.started = true
	go u.run(u.x.duplex())
}

// stop ends the upload if it has not ended, and waits for it.
func (u *upload) stop() {
	if !u.started {
		return
	}
	if u.x.whole.Load() {
		// What is left to send is at hand, or sent and not noted yet.
		_ = u.c.SetWriteDeadline(time.Now().Add(continueWait))
		<-u.done
		_ = u.c.SetWriteDeadline(time.Time{})
		return
	}
	// The answer is complete: nobody waits for the rest. A read of the client would not end by itself.
	u.c.Close()
	u.mu.Lock()
	u.stopped = true
	_ = http.NewResponseController(u.x.w).SetReadDeadline(past)
	u.mu.Unlock()
	<-u.done
}

// until sets the read's deadline, and says whether it may go on: after stop it has
// had its last one, or stop would wait for a client that sends no more.
func (u *upload) until(rc *http.ResponseController, t time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.stopped {
		_ = rc.SetReadDeadline(t)
	}
	return !u.stopped
}

func (u *upload) run(rc *http.ResponseController) {
	defer close(u.done)
	x := u.x
	pooled := x.s.bytes.Get().(*[]byte)
	defer x.s.bytes.Put(pooled)
	buf := *pooled
	const front = 10 // room for the size of a chunk
	chunked := x.r.ContentLength < 0
	patience := x.route.Timeout.Client
	if chunked && x.r.ProtoMajor > 1 {
		patience = x.route.Timeout.Tunnel
	}
	var renewed time.Time
	for {
		if now := time.Now(); now.Sub(renewed) > time.Second {
			renewed = now
			if !u.until(rc, now.Add(patience)) {
				return
			}
			u.renew(max(patience, x.route.Timeout.Server))
		}
		n, err := x.r.Body.Read(buf[front : len(buf)-2])
		u.n += int64(n)
		if err == nil && u.n == x.r.ContentLength {
			err = io.EOF
		}
		if errors.Is(err, io.EOF) {
			x.whole.Store(true)
		}
		if n > 0 {
			if x.route.MaxBody > 0 && u.n > x.route.MaxBody {
				u.fail(errTooLarge)
				return
			}
			b := buf[front : front+n]
			if chunked {
				b = frame(buf, n)
			}
			if _, werr := u.c.Write(b); werr != nil {
				u.err = werr // the answer says why
				return
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			u.mu.Lock()
			stopped := u.stopped
			u.mu.Unlock()
			if stopped {
				return
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				u.fail(errTimeout)
			} else {
				u.fail(errClient)
			}
			return
		}
	}
	if chunked {
		b := append(buf[:0], "0\r\n"...)
		for k, values := range x.r.Trailer {
			for _, v := range values {
				if token(k) && validValue(v) && trailing(k) {
					b = append(b, k+": "+v+"\r\n"...)
				}
			}
		}
		if _, err := u.c.Write(append(b, "\r\n"...)); err != nil {
			u.err = err
			return
		}
	}
	u.whole = true
	u.until(rc, time.Time{})
	u.renew(x.route.Timeout.Server)
}

// renew moves the limit, if the head of the answer is still waited for.
func (u *upload) renew(d time.Duration) {
	if at := u.c.limit.Load(); at != 0 {
		u.c.limit.CompareAndSwap(at, u.x.limitAt(d))
	}
}

// fail ends the exchange from the client's side.
func (u *upload) fail(err error) {
	u.err = err
	_ = u.c.SetDeadline(past)
}

// frame puts n bytes that lie at ten into a chunk.
func frame(buf []byte, n int) []byte {
	const front = 10
	var size [8]byte
	s := strconv.AppendInt(size[:0], int64(n), 16)
	at := front - 2 - len(s)
	copy(buf[at:], s)
	buf[front-2], buf[front-1] = '\r', '\n'
	buf[front+n], buf[front+n+1] = '\r', '\n'
	return buf[at : front+n+2]
}
