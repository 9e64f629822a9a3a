package collect

import (
	"context"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
)

func TestSyncWaitsForWhatIsWritten(t *testing.T) {
	m, b := newMemory(t), newBox(t)
	c, stop := b.run(m)
	defer stop()
	b.write(0)
	c.See([]tender.Instance{b.instance()})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if !c.Follows(b.id) || c.Follows("another") {
		t.Fatal("whom does it follow?")
	}
	for n := 1; n <= 3; n++ {
		b.write(100)
		if n == 2 {
			b.rotate()
			b.write(50)
		}
		if err := c.Sync(ctx, []string{b.id, "another"}); err != nil {
			t.Fatal(err)
		}
		want := 100 * n
		if n >= 2 {
			want += 50
		}
		if got := len(m.rows(b.id)); got != want {
			t.Fatalf("%d rows after Sync, want %d", got, want)
		}
	}
}
