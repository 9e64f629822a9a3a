package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/store"
)

// A disk that fails under the store of logs ends collecting, and nothing else.
func TestABrokenStoreOfLogsIsSaidAndEndsNothingElse(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	log := slog.New(slog.DiscardHandler)
	l, err := openLogs(Config{DataDir: dir}, st, log)
	if err != nil {
		t.Fatal(err)
	}
	l.inventory = engine.NewInventory(nil, log)
	said := make(chan string, 16)
	l.fail = func(problem string) { said <- problem }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- l.run(ctx) }()
	if err := l.store.Close(); err != nil { // what a failed sync leaves behind
		t.Fatal(err)
	}
	for text := ""; !strings.Contains(text, "not kept"); {
		select {
		case text = <-said:
		case err := <-ended:
			t.Fatalf("the part has ended: %v", err)
		}
	}
	// Who asks is told, and gets what the engine has. This one has no engine to ask.
	b := &backend{logs: l, inventory: l.inventory}
	note := ""
	_ = b.Logs(t.Context(), "shop", api.LogRequest{}, func(line api.LogLine) error { note += line.Note; return nil })
	if note != "the store of logs has failed: these are the lines that the engine has" {
		t.Errorf("tender logs says %q", note)
	}
	if err := b.Logs(t.Context(), "shop", api.LogRequest{Query: `| level="error"`}, nil); tender.KindOf(err) != tender.Unavailable {
		t.Errorf("a query says %v", err)
	}
	answer := httptest.NewRecorder()
	b.loki().ServeHTTP(answer, httptest.NewRequest("GET", "/loki/api/v1/labels", nil))
	if answer.Code != 503 {
		t.Errorf("Loki's API says %d", answer.Code)
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Who does not want logs has nothing of them: no store, no part that runs.
func TestLogsThatAreOffLeaveNothing(t *testing.T) {
	c := Config{DataDir: t.TempDir(), NoLogs: true}
	parts := new(board)
	if l := openLogRoom(c, nil, parts, slog.New(slog.DiscardHandler)); l != nil {
		t.Error("there is a room for logs")
	}
	if left, err := os.ReadDir(c.DataDir); err != nil || len(left) > 0 {
		t.Errorf("in its folder: %v, %v", left, err)
	}
	if all := parts.all(); len(all) != 1 || all[0].State != "off" {
		t.Errorf("status shows %v", all)
	}
	b := &backend{config: c}
	if err := b.noStore(); !strings.Contains(err.Error(), "switched off") {
		t.Error(err)
	}
	c.Syslog = "127.0.0.1:5514"
	if err := c.check(); tender.KindOf(err) != tender.Invalid {
		t.Errorf("a listener without logs: %v", err)
	}
}
