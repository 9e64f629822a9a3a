package metrics

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenderhq/tender/internal/sample"
)

// What stopped coming in four minutes ago is seen by a query, and nothing must be decided by it.
func TestFreshTellsWhatIsTooOldToDecideBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, Options{})
		keep := func(s *sample.Series, every time.Duration, until time.Duration) {
			t.Helper()
			now := time.Now()
			for back := 20 * time.Minute; back >= until; back -= every {
				if err := d.Keep(t.Context(), sample.Round{Source: s.Name, At: now.Add(-back), Points: []sample.Point{{Series: s, Value: 7}}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Hour)
		keep(series("goes_on"), 10*time.Second, 0)
		keep(series("stopped"), 10*time.Second, 4*time.Minute)
		keep(series("seldom"), 2*time.Minute, 4*time.Minute)
		keep(series("long_gone"), 10*time.Second, 10*time.Minute)
		keep(series("ended"), 10*time.Second, 2*time.Minute)
		if err := d.Keep(t.Context(), sample.Round{Source: "ended", At: time.Now().Add(-110 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		const old = "the newest sample of "
		for expr, want := range map[string]string{
			`sum(goes_on)`:                         "",
			`rate(goes_on[5m])`:                    "",
			`seldom`:                               "", // two of its pauses are no reason for worry
			`stopped`:                              old + "stopped is 4m0s old",
			`sum(rate(stopped[5m])) > 0`:           old + "stopped is 4m0s old",
			`goes_on / stopped`:                    old + "stopped is 4m0s old",
			`stopped or vector(0)`:                 old + "stopped is 4m0s old",
			`avg_over_time((stopped * 2)[10m:1m])`: old + "stopped is 4m0s old",
			`goes_on - goes_on offset 10m`:         "",
			`stopped offset 5m`:                    "", // asks for the past
			`max_over_time(stopped[5m] offset 5m)`: "",
			`long_gone or vector(7)`:               "", // the language says what nothing is
			`ended or vector(7)`:                   "", // it ended, and was not lost
			`increase(ended[5m])`:                  old + "ended is 2m0s old",
			`sum(nothing)`:                         "",
			`up(`:                                  `ask up(: 1:4: parse error: unclosed left parenthesis`,
		} {
			_, err := d.Fresh(t.Context(), expr, time.Now())
			if got := ""; err != nil {
				if got = err.Error(); want == "" || !strings.HasPrefix(got, want) {
					t.Errorf("%s: %s, want %q", expr, got, want)
				}
			} else if want != "" {
				t.Errorf("%s: no error, want %s", expr, want)
			}
		}
		if got, err := d.Query(t.Context(), "stopped", time.Now()); err != nil || len(got) != 1 {
			t.Errorf("asked by somebody who looks: %v, %v", got, err)
		}
		if got, err := d.Fresh(t.Context(), "goes_on", time.Now()); err != nil || len(got) != 1 || got[0].Value != 7 {
			t.Errorf("%v, %v", got, err)
		}
	})
}
