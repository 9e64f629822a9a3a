package registry

import (
	"context"
	"sync"
)

// signing lets one at a time add signatures to a digest: who adds one reads what is there, and
// writes all. It is for all Remotes together, for a request with a login has one of its own.
var signing turns

// turns are taken by name.
type turns struct {
	mu    sync.Mutex
	names map[string]*turn
}

type turn struct {
	held  chan struct{}
	users int
}

// take waits for the turn of a name.
func (t *turns) take(ctx context.Context, name string) (release func(), err error) {
	t.mu.Lock()
	if t.names == nil {
		t.names = map[string]*turn{}
	}
	of := t.names[name]
	if of == nil {
		of = &turn{held: make(chan struct{}, 1)}
		t.names[name] = of
	}
	of.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if of.users--; of.users == 0 {
			delete(t.names, name)
		}
	}
	select {
	case of.held <- struct{}{}:
		return func() { <-of.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
