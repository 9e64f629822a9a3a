package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	ndjson = "application/x-ndjson"
	sse    = "text/event-stream"
)

// lines is an answer that goes on: JSON values, one a line, or server-sent
// events. It begins with the first value or heartbeat, so that what goes wrong
// before that still has an HTTP status of its own. A heartbeat is an empty line
// (a comment in server-sent events).
type lines struct {
	rc   *http.ResponseController
	sse  bool
	quit chan struct{}
	done chan struct{}

	mu    sync.Mutex
	w     http.ResponseWriter
	begun bool
	ended bool
	err   error // of the first write that failed
}

func newLines(w http.ResponseWriter, accept string, beat time.Duration) *lines {
	l := &lines{w: w, rc: http.NewResponseController(w), sse: strings.Contains(accept, sse), quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		t := time.NewTicker(beat)
		defer t.Stop()
		for {
			select {
			case <-l.quit:
				return
			case <-t.C:
				l.raw("")
			}
		}
	}()
	return l
}

// send writes one value; after the end, and after a write that failed, it does nothing.
func (l *lines) send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.raw(string(b))
}

func (l *lines) raw(text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.err != nil {
		return l.err
	}
	l.put(text)
	return l.err
}

// put writes under the lock.
func (l *lines) put(text string) {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", map[bool]string{false: ndjson, true: sse}[l.sse])
		l.w.Header().Set("X-Accel-Buffering", "no") // a proxy in between must not hold lines back
		l.w.WriteHeader(http.StatusOK)
	}
	switch {
	case l.sse && text == "":
		text = ":\n\n"
	case l.sse:
		text = "data: " + text + "\n\n"
	default:
		text += "\n"
	}
	_, l.err = l.w.Write([]byte(text))
	if l.err == nil {
		l.err = l.rc.Flush()
	}
}

// write is send for the function that end calls.
func (l *lines) write(v any) {
	if b, err := json.Marshal(v); err == nil && l.err == nil {
		l.put(string(b))
	}
}

// end stops the heartbeat, calls last, and takes nothing more.
func (l *lines) end(last func(begun bool)) {
	close(l.quit)
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	last(l.begun)
	l.ended = true
	if !l.begun && l.w.Header().Get("Content-Type") == "" {
		// It ended well without a word: an empty stream.
		l.w.Header().Set("Content-Type", ndjson)
		l.w.WriteHeader(http.StatusOK)
	}
}

// stop is in the context of every request that Serve answers.
type stop struct {
	ctx  context.Context // ends when the server begins to stop
	busy sync.WaitGroup  // connections that were taken out of the server's hands
}

type stopKey struct{}

// untilStop ends also when the server begins to stop: for answers that would
// otherwise go on until the client has had enough.
func untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	s, ok := ctx.Value(stopKey{}).(*stop)
	if !ok {
		return ctx, cancel
	}
	undo := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { undo(); cancel() }
}
