package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	headTime = 10 * time.Second // for a request's head, and for a handshake
	idleKept = 2 * time.Minute  // between requests
	newTime  = 5 * time.Second  // how long a drain waits for the first request of a connection
)

// preface begins a connection that speaks HTTP/2 in clear text: its first half reads as a request.
const preface = "PRI * HTTP/2.0\r\n\r\n"

// line is a client's connection that speaks HTTP/1. One goroutine reads its
// requests, one after the other, and answers each. Between requests it holds no
// buffer; the sweep sees to its time limits, and that a client has gone.
type line struct {
	s     *Server
	guard *guarded
	c     net.Conn        // guard, or TLS over it
	raw   syscall.RawConn // of the socket; nil: it has none to look at
	tls   *tls.ConnectionState
	born  time.Time
	in    input
	take  func(fd uintptr) bool // read once, for raw; made once
	peek  func(fd uintptr)
	saw   error // of take
	spare int   // line ends that old clients send behind the body of a POST, at most
	held  int   // bytes that peek saw; -1: the client has gone
	first [1]byte

	stage atomic.Uint32 // what it is at, and in the upper bits how often that changed

	mu      sync.Mutex
	since   time.Time // of seen, which is what the sweep saw last
	seen    uint32
	turn    *turn         // under way
	quiet   bool          // all of the request has been read: nobody else reads
	early   bool          // a byte of the next one is in first
	listens chan struct{} // closes when the goroutine that listens for the client's end has ended
}

// What a line is at, in the lower two bits of its stage.
const (
	atIdle  = iota // between two requests
	atHead         // a head is on its way, or the first one is waited for
	atWork         // a request is being answered
	atEnd          // closed, or taken over by a tunnel
	atMask  = 3
	oneMore = 4
)

var (
	lineInputs = sync.Pool{New: func() any { b := make([]byte, lineInput); return &b }}
	errEnded   = errors.New("connection is closed")
)

// lineInput is what a request's head usually fits in; a longer one gets more.
const lineInput = 4 << 10

func (s *Server) newLine(g *guarded) *line {
	l := &line{s: s, guard: g, c: g, born: time.Now()}
	l.stage.Store(atHead)
	if c, ok := g.Conn.(syscall.Conn); ok {
		l.raw, _ = c.SyscallConn()
	}
	l.take = func(fd uintptr) bool {
		l.in.borrowFrom(&lineInputs)
		n, err := syscall.Read(int(fd), l.in.buf)
		for err == syscall.EINTR { //nolint:errorlint // system calls return numbers
			n, err = syscall.Read(int(fd), l.in.buf)
		}
		if n > 0 {
			l.in.end, l.saw = n, nil
			return true
		}
		l.in.release()
		if l.saw = err; err == nil {
			l.saw = io.EOF
		}
		return err != syscall.EAGAIN //nolint:errorlint // likewise
	}
	l.peek = func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR: //nolint:errorlint // likewise
			l.held = 0
		case err != nil || n == 0:
			l.held = -1
		default:
			l.held = n
		}
	}
	return l
}

// serve is the goroutine of l.
func (l *line) serve(config *tls.Config) {
	handed, fresh := false, true
	settle := func() {
		if fresh {
			fresh = false
			l.s.lines.fresh.Add(-1)
		}
	}
	defer func() {
		settle()
		if e := recover(); e != nil {
			l.s.log.Error("a request made the proxy panic", "error", e, "stack", string(debug.Stack()))
		}
		if !handed {
			l.stage.Store(atEnd)
			l.endTurn()
			l.in.release()
			l.c.Close()
		}
	}()
	if config != nil {
		c := tls.Server(l.guard, config)
		l.c = c
		if err := l.shake(c); err != nil {
			return
		}
		if l.tls.NegotiatedProtocol == "h2" {
			l.stage.Store(atEnd)
			handed = true
			l.s.lines.pass(c)
			return
		}
	}
	l.in.conn = l.c
	for n := 0; ; n++ {
		head, err := l.head(n == 0)
		if err != nil {
			return
		}
		if n == 0 && config == nil && string(head) == preface {
			l.guard.early = append([]byte(preface), l.in.held()...)
			l.in.release()
			l.stage.Store(atEnd)
			handed = true
			l.s.lines.pass(l.guard)
			return
		}
		settle()
		if !l.answer(head) {
			return
		}
	}
}

func (l *line) shake(c *tls.Conn) error {
	err := c.HandshakeContext(context.Background()) // the sweep ends one that takes too long
	if err != nil {
		if e, ok := errors.AsType[tls.RecordHeaderError](err); ok && e.Conn != nil && plainHTTP(e.RecordHeader) {
			_, _ = io.WriteString(e.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
			_ = e.Conn.Close()
		}
		l.s.log.Debug("client", "error", "handshake: "+err.Error(), "from", l.guard.text)
		return err
	}
	state := c.ConnectionState()
	l.tls = &state
	return nil
}

// plainHTTP says whether what came for a handshake is the beginning of a request.
func plainHTTP(b [5]byte) bool {
	switch string(b[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return true
	}
	return false
}

// head waits for a request and reads up to the end of its head.
// The bytes are valid until the next read.
func (l *line) head(first bool) ([]byte, error) {
	if len(l.in.held()) == 0 {
		if !first && l.s.lines.shut.Load() {
			return nil, errEnded
		}
		if err := l.await(); err != nil {
			return nil, err
		}
	}
	if !l.begin() {
		return nil, errEnded
	}
	seen, waits := 0, false
	for {
		var head []byte
		for b := l.in.held(); l.spare > 0 && len(b) > 0; b = l.in.held() {
			if b[0] != '\r' && b[0] != '\n' {
				l.spare = 0
				break
			}
			l.in.skip(1)
			l.spare--
		}
		if head, seen = l.in.head(seen); head != nil {
			if waits {
				l.move(atWork)
			}
			if len(head) > maxHead {
				return nil, l.refuse(http.StatusRequestHeaderFieldsTooLarge, "")
			}
			l.in.skip(seen)
			return head, nil
		}
		if len(l.in.held()) > maxHead {
			return nil, l.refuse(http.StatusRequestHeaderFieldsTooLarge, "")
		}
		if !waits {
			waits = true
			l.move(atHead)
		}
		if err := l.in.fill(); err != nil {
			return nil, err
		}
	}
}

// await reads the first bytes that come, into a buffer that is borrowed when they are there.
func (l *line) await() error {
	if l.raw == nil || l.c != net.Conn(l.guard) {
		n, err := l.c.Read(l.first[:])
		if n == 0 {
			if err == nil {
				err = io.ErrNoProgress
			}
			return err
		}
		l.in.borrowFrom(&lineInputs)
		l.in.buf[0], l.in.end = l.first[0], 1
		return nil
	}
	if err := l.raw.Read(l.take); err != nil {
		return err
	}
	return l.saw
}

// begin says that a request has come. False: the connection is being closed.
func (l *line) begin() bool {
	for {
		at := l.stage.Load()
		if at&atMask == atEnd {
			return false
		}
		if l.stage.CompareAndSwap(at, (at&^atMask+oneMore)|atWork) {
			return true
		}
	}
}

// move changes the stage, unless it is the last.
func (l *line) move(to uint32) bool {
	for {
		at := l.stage.Load()
		if at&atMask == atEnd {
			return false
		}
		if l.stage.CompareAndSwap(at, (at&^atMask+oneMore)|to) {
			return true
		}
	}
}

// end makes at, if it is that still, the last stage.
func (l *line) end(at uint32) bool {
	return l.stage.CompareAndSwap(at, at&^atMask|atEnd)
}

// hush says that nobody reads until the answer is whole.
func (l *line) hush() {
	if l.tls == nil {
		return // without TLS the sweep looks at the socket itself
	}
	l.mu.Lock()
	l.quiet = true
	l.mu.Unlock()
}

// look is the sweep's: it ends what takes too long, and sees to a client that has gone.
func (l *line) look(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.stage.Load()
	if at != l.seen || l.since.IsZero() {
		l.seen, l.since = at, now
		return
	}
	switch late := now.Sub(l.since); at & atMask {
	case atIdle:
		if late > idleKept && l.end(at) {
			_ = l.guard.cut()
		}
	case atHead:
		if late > headTime && l.end(at) {
			_ = l.guard.cut()
		}
	case atWork:
		if l.turn == nil || l.turn.gone || l.raw == nil || l.raw.Control(l.peek) != nil {
			return
		}
		switch {
		case l.held < 0:
			l.goes()
		case l.held > 0 && l.quiet && l.listens == nil:
			// In TLS the end is a record, which only reading it tells from a request.
			l.listens = make(chan struct{})
			go l.listen(l.listens)
		}
	}
}

// goes ends what is under way for a client that has gone; l.mu is held.
func (l *line) goes() {
	if l.turn != nil {
		l.turn.gone = true
		l.turn.cancel()
	}
}

// listen reads a byte of what comes next, or the client's end.
func (l *line) listen(done chan struct{}) {
	defer close(done)
	n, err := l.c.Read(l.first[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	l.early = n > 0
	if n == 0 && err != nil && !isDeadline(err) {
		l.goes()
	}
}

// listenNoMore comes before the next read.
func (l *line) listenNoMore() {
	if l.tls == nil {
		return
	}
	l.mu.Lock()
	done := l.listens
	l.quiet = false
	l.mu.Unlock()
	if done == nil {
		return
	}
	_ = l.c.SetReadDeadline(past)
	<-done
	_ = l.c.SetReadDeadline(time.Time{})
	l.mu.Lock()
	early := l.early
	l.listens, l.early = nil, false
	l.mu.Unlock()
	if early {
		l.in.unread(l.first[0])
	}
}
