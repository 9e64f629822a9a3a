package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

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
	l.tell = func(problem string) { said <- problem }
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
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
