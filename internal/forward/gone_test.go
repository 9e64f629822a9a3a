package forward

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// What the store has no more, and a sink has neither sent nor read, is counted: that
// of its projects and services alone.
func TestWhatGoesBeforeItIsSentIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, k := newShelf(), &memory{}
		src.put(web, lines(0, 3)...)
		w := &script{always: func([]item) (verdict, error) { return verdict{}, errors.New("away") }}
		s := scripted(w, src, k, func(c *Config) { c.Match.Services = []string{"web"} })
		s.gone([]logs.Gone{{Service: "web", Rows: 5, Behind: cursorOf(9)}}) // before the sink knows where it is
		if n := s.status(time.Now()).Expired; n != 0 {
			t.Errorf("%d rows before the start", n)
		}
		inTime(t, s, func() {
			time.Sleep(time.Minute) // it has read the first block, and holds it
			synctest.Wait()
			s.gone([]logs.Gone{
				{Service: "web", Rows: 3, Behind: cursorOf(1)},
				{Service: "web", Rows: 20, Behind: cursorOf(2)},
				{Service: "db", Rows: 100, Behind: cursorOf(3)},
			})
			if n := s.status(time.Now()).Expired; n != 25 {
				t.Errorf("%d rows are counted, not 25", n)
			}
		})
		if n := k.state("x").Expired; n != 25 {
			t.Errorf("%d rows are remembered", n)
		}
	})
}
