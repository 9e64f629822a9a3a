package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/api"
)

func TestTheHeartbeatIsCalledWhileAllIsWell(t *testing.T) {
	calls, status := 0, http.StatusOK
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.WriteHeader(status)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // one client below does not trust it
	srv.StartTLS()
	defer srv.Close()
	ill := ""
	var p api.Part
	h := &heartbeat{
		url: srv.URL + "/secret-path", client: srv.Client(), ill: func(time.Time) string { return ill },
		tell: func(change func(*api.Part)) { change(&p) },
	}
	h.beat(t.Context())
	if calls != 1 || p.Error != "" || p.Done.IsZero() {
		t.Errorf("all is well: %d calls, %+v", calls, p)
	}
	done := p.Done
	ill = "loop is failed"
	h.beat(t.Context())
	if calls != 1 || p.Error != "not called: loop is failed" || p.Done != done {
		t.Errorf("all is not well: %d calls, %+v", calls, p)
	}
	ill, status = "", http.StatusNotFound
	h.beat(t.Context())
	if calls != 2 || !strings.HasSuffix(p.Error, ": 404 Not Found") || p.Done != done {
		t.Errorf("nobody knows it: %+v", p)
	}
	h.client = nil // which does not trust the server
	h.beat(t.Context())
	if calls != 2 || !strings.Contains(p.Error, "certificate") || strings.Contains(p.Error, "secret-path") {
		t.Errorf("another answers: %+v", p)
	}
	h.client, status = srv.Client(), http.StatusOK
	h.beat(t.Context())
	if calls != 3 || p.Error != "" {
		t.Errorf("well again: %+v", p)
	}
}

// Who does not answer is not waited for without an end.
func TestAHeartbeatHasALimit(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer srv.Close()
	defer close(release)
	h := &heartbeat{url: srv.URL, wait: time.Millisecond}
	if err := h.call(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
