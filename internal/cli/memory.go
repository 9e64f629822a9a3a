package cli

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	restEvery = 30 * time.Second
	// restBelow is how much may be allocated within restEvery by what rests: the runtime
	// would let as much lie for minutes, and under load it is taken again at once.
	restBelow = 4 << 20
)

// resting starts rest; what it returns ends it.
func resting(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { rest(ctx) })
	return func() {
		cancel()
		work.Wait()
	}
}

// rest gives memory back to the host while a process has little to do: what is left from its
// start and from its last busy minute. It ends with ctx.
func rest(ctx context.Context) {
	tick := time.NewTicker(restEvery)
	defer tick.Stop()
	for before, freed := allocated(), uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := allocated()
		if now-before < restBelow && now-freed > restBelow/16 { // there is something to free
			debug.FreeOSMemory()
			now = allocated()
			freed = now
		}
		before = now
	}
}

// allocated is what has ever been, in bytes.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
