package proxy

import (
	"context"
	"net/http"
	"strings"
	"sync"
)

// turn is one request and its answer: what is made anew so seldom that it is borrowed.
type turn struct {
	r      *http.Request // with a context of its own
	cancel context.CancelFunc
	gone   bool // cancelled: it is not used again
	asked  asked
	body   body
	reply  reply
}

var turns = sync.Pool{New: func() any {
	t := new(turn)
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	t.r = new(http.Request).WithContext(ctx)
	t.asked.header, t.reply.header = http.Header{}, http.Header{}
	return t
}}

// borrow takes a turn for the request that has come.
func (l *line) borrow() *turn {
	if l.turn != nil {
		l.turn.reset()
		return l.turn
	}
	t := turns.Get().(*turn)
	t.body.l, t.reply.l = l, l
	l.mu.Lock()
	l.turn = t
	l.mu.Unlock()
	return t
}

func (t *turn) reset() {
	t.asked.reset()
	t.body = body{l: t.body.l}
	t.reply.reset()
}

// endTurn gives back what was borrowed.
func (l *line) endTurn() {
	l.mu.Lock()
	t := l.turn
	l.turn = nil
	l.mu.Unlock()
	if t == nil || t.gone {
		return
	}
	t.reset()
	t.r.URL, t.r.Header, t.r.Body, t.r.TLS, t.r.Trailer = nil, nil, nil, nil, nil
	t.r.Method, t.r.Host, t.r.RequestURI, t.r.RemoteAddr = "", "", "", ""
	t.body.l, t.reply.l = nil, nil
	turns.Put(t)
}

// answer answers one request and says whether another one may follow.
func (l *line) answer(head []byte) bool {
	t := l.borrow()
	status, why := t.ask(l, string(head))
	if status != 0 {
		return l.refuse(status, why) == nil
	}
	r := t.r
	if l.spare = 0; r.Method == http.MethodPost {
		l.spare = 4
	}
	if values := r.Header["Expect"]; values != nil && values[0] != "" {
		if !lists(values[0], "100-continue") {
			_ = l.refuse(http.StatusExpectationFailed, "")
			return false
		}
		t.body.expect = r.ProtoMinor > 0 && r.ContentLength != 0
	}
	if t.body.done {
		l.hush()
	}
	abort := false
	if r.Method == http.MethodOptions && r.RequestURI == "*" {
		t.reply.header["Content-Length"] = []string{"0"} // of the server as a whole: net/http answers so
		t.reply.WriteHeader(http.StatusOK)
	} else {
		abort = l.s.carry(&t.reply, r, l.guard)
	}
	if t.reply.hijacked {
		return false
	}
	l.listenNoMore()
	if abort {
		if r.ProtoMinor == 0 {
			l.guard.harshly()
		}
		return false
	}
	keep := t.reply.finish() && t.body.done && !l.s.lines.shut.Load()
	l.mu.Lock()
	gone := t.gone
	l.mu.Unlock()
	if gone {
		return false
	}
	if !keep {
		if !t.body.done || len(l.in.held()) > 0 {
			l.guard.linger.Store(true)
		}
		return false
	}
	if len(l.in.held()) > 0 {
		return true // the next one is here already
	}
	l.in.release()
	l.endTurn()
	return l.move(atIdle)
}

// refuse answers what is no request, or not one that can be served. It returns an error.
func (l *line) refuse(status int, why string) error {
	text := http.StatusText(status)
	body := text
	if why != "" {
		body += ": " + why
	}
	b := append(make([]byte, 0, 256), "HTTP/1.1 "...)
	b = appendStatus(b, status)
	b = append(b, "Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: "...)
	b = appendInt(b, int64(len(body)))
	b = append(b, "\r\n\r\n"...)
	_, _ = l.c.Write(append(b, body...))
	l.guard.linger.Store(true)
	l.s.log.Debug("client", "error", strings.ToLower(body), "from", l.guard.text)
	return errEnded
}
