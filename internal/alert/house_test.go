package alert

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// complaints are what is logged at least as a warning.
type complaints struct {
	slog.Handler
	mu  sync.Mutex
	all []string
}

func (c *complaints) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (c *complaints) WithAttrs([]slog.Attr) slog.Handler           { return c }
func (c *complaints) WithGroup(string) slog.Handler                { return c }
func (c *complaints) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, r.Message)
	return nil
}

// Where nobody is told, which is how it begins, an alert that fires is no trouble.
func TestNobodyToTellIsNoTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &complaints{}
		r, err := Open(Options{Dir: filepath.Join(t.TempDir(), "alerts"), Log: slog.New(c)})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Put(t.Context(), Alert{Labels: map[string]string{"alertname": "Down"}, EndsAt: time.Now().Add(time.Hour)}); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute) // longer than groups wait
		synctest.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if len(c.all) > 0 {
			t.Errorf("it complains: %s", strings.Join(c.all, "; "))
		}
	})
}
