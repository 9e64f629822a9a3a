package metrics

import (
	"testing"
	"time"

	"github.com/tenderhq/tender/internal/sample"
)

func TestKeepAndAsk(t *testing.T) {
	d, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s := &sample.Series{Name: "up", Labels: []sample.Label{{Name: "service", Value: "web"}}}
	now := time.Now()
	for i := range 3 {
		at := now.Add(time.Duration(i-2) * 10 * time.Second)
		if err := d.Keep(t.Context(), sample.Round{Source: "here", At: at, Points: []sample.Point{{Series: s, Value: float64(i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.Query(t.Context(), `sum by (service) (up)`, now)
	if err != nil || len(got) != 1 || got[0].Value != 2 || got[0].Labels["service"] != "web" {
		t.Errorf("got %v %v", got, err)
	}
}
