package alert

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
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

// The API is made when it is first asked: it tells of the configuration that is in force by then, and of
// the next, and from when the room is there.
func TestTheAPIIsMadeWhenItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := Open(Options{Dir: filepath.Join(t.TempDir(), "alerts")})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		file := filepath.Join(t.TempDir(), "alertmanager.yml")
		for _, name := range []string{"first", "second"} {
			if err := os.WriteFile(file, []byte("route: {receiver: "+name+"}\nreceivers: [{name: "+name+"}]\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := r.Load(file); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			w := httptest.NewRecorder()
			r.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/api/v2/status", nil))
			var is struct {
				Uptime time.Time
				Config struct{ Original string }
			}
			if err := json.Unmarshal(w.Body.Bytes(), &is); err != nil {
				t.Fatalf("%d %s: %v", w.Code, w.Body, err)
			}
			if !is.Uptime.Equal(began) || !strings.Contains(is.Config.Original, name) {
				t.Errorf("it runs since %s with %s, not since %s with %s", is.Uptime, is.Config.Original, began, name)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}
