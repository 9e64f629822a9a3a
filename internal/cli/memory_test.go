package cli

import (
	"context"
	"runtime/metrics"
	"testing"
	"testing/synctest"
	"time"
)

// What rests gives memory back, and goes on until it is told to end.
func TestMemoryIsGivenBackAtRest(t *testing.T) {
	forced := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		end := resting(ctx)
		before := forced()
		for n := 0; forced() == before; n++ { // others of this process may be busy
			if n == 10_000 {
				t.Fatal("nothing was given back")
			}
			time.Sleep(restEvery)
			synctest.Wait()
		}
		cancel()
		end()
	})
}
