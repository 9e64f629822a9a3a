package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tenderhq/tender/internal/api"
)

// part is one long-running piece of the daemon. run blocks until ctx ends and
// cleans up after itself before it returns.
type part struct {
	name  string
	run   func(context.Context) error
	vital bool          // if it stops, everything stops; otherwise it is restarted
	grace time.Duration // how long it may take to stop
}

const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// board is what tender status shows of the parts.
type board struct {
	mu    sync.Mutex
	parts []api.Part
}

func (b *board) set(name string, change func(*api.Part)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.parts {
		if b.parts[i].Name == name {
			change(&b.parts[i])
			return
		}
	}
	p := api.Part{Name: name}
	change(&p)
	b.parts = append(b.parts, p)
}

func (b *board) all() []api.Part {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]api.Part(nil), b.parts...)
}

// runParts starts parts in order. When ctx ends or a vital part stops, it
// stops them one at a time in reverse, so that each part can still use the
// ones started before it.
func runParts(ctx context.Context, log *slog.Logger, b *board, parts []part) error {
	type running struct {
		part
		cancel context.CancelFunc
		done   chan struct{}
	}
	failed := make(chan error, len(parts))
	started := make([]running, 0, len(parts))
	for _, p := range parts {
		// Not derived from ctx: a part ends when its turn comes, not before.
		pctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := running{p, cancel, make(chan struct{})}
		started = append(started, r)
		b.set(p.name, func(s *api.Part) { s.State, s.Since = "running", time.Now().UTC() }) // here, so that they stand in order
		go func() {
			defer close(r.done)
			if err := keep(pctx, log, b, p); err != nil {
				failed <- fmt.Errorf("%s: %w", p.name, err)
			}
		}()
	}

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	for i := len(started) - 1; i >= 0; i-- {
		r := started[i]
		r.cancel()
		select {
		case <-r.done:
		case <-time.After(r.grace):
			err = errors.Join(err, fmt.Errorf("%s: did not stop within %s", r.name, r.grace))
		}
	}
	return err
}

// keep runs p until ctx ends, restarting it with a growing pause if it is not
// vital. A part that ran for longer than the longest pause begins anew.
func keep(ctx context.Context, log *slog.Logger, b *board, p part) error {
	pause := firstPause
	for restarts := 0; ; restarts++ {
		begun := time.Now()
		b.set(p.name, func(s *api.Part) { s.State, s.Since, s.Restarts = "running", begun.UTC(), restarts })
		err := p.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("returned early")
		}
		if p.vital {
			return err
		}
		if time.Since(begun) > lastPause {
			pause = firstPause
		}
		b.set(p.name, func(s *api.Part) { s.State, s.Since, s.Error = "restarting", time.Now().UTC(), err.Error() })
		log.Error("part stopped, restarting", "part", p.name, "pause", pause, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}
