package proxy

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// timed is an answer that notes the deadlines of its request's body.
type timed struct {
	*httptest.ResponseRecorder
	last time.Time
}

func (w *timed) SetReadDeadline(t time.Time) error {
	w.last = t
	return nil
}

// An upload that was just about to give its client more time gave it after stop had
// taken it: stop then waited for a client that had nothing more to send.
func TestAStoppedUploadGetsNoMoreTime(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	w := &timed{ResponseRecorder: httptest.NewRecorder()}
	u := &upload{
		x:       &exchange{w: w},
		c:       &conn{Conn: near, home: &active{}},
		started: true,
		done:    make(chan struct{}),
	}
	rc := http.NewResponseController(w)
	if more := time.Now().Add(time.Hour); !u.until(rc, more) || !w.last.Equal(more) {
		t.Fatalf("under way: the deadline is %v, not %v", w.last, more)
	}
	close(u.done)
	u.stop()
	if u.until(rc, time.Now().Add(time.Hour)) || !w.last.Equal(past) {
		t.Errorf("after stop the deadline is %v", w.last)
	}
}
