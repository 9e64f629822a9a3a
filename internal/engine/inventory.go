package engine

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
)

const (
	settle   = 100 * time.Millisecond // events come in bursts: one picture for each burst
	resync   = 30 * time.Second       // a picture without any event, in case one was lost
	patience = 30 * time.Second       // how long an engine may take to answer before it counts as away
	maxPause = 2 * time.Second        // between two attempts to reach it
)

// Inventory keeps a recent picture of a Reader. It hides events, reconnecting
// and resyncing; those who read it never wait for the engine.
type Inventory struct {
	r   Reader
	log *slog.Logger

	// taking is held by whoever takes a picture, so that an older one never
	// replaces a newer one. A channel, since a List may be waited for long.
	taking chan struct{}
	ready  chan struct{}

	mu      sync.Mutex
	picture tender.Picture
	changed chan struct{}
}

// NewInventory makes one; Run takes the pictures.
func NewInventory(r Reader, log *slog.Logger) *Inventory {
	return &Inventory{
		r: r, log: log,
		taking:  make(chan struct{}, 1),
		ready:   make(chan struct{}),
		changed: make(chan struct{}),
	}
}

// Ready is closed once there is a first picture.
func (v *Inventory) Ready() <-chan struct{} { return v.ready }

// Picture returns the current picture and a channel that closes when it
// differs in more than the time it was taken. The picture must not be changed:
// all readers share it.
func (v *Inventory) Picture() (tender.Picture, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.picture, v.changed
}

// Fresh takes a new picture now and returns it: for those who have just acted.
func (v *Inventory) Fresh(ctx context.Context) (tender.Picture, error) {
	return v.take(ctx)
}

// Since returns a picture taken at t or later, so that one who has just acted, here or on the
// engine itself, sees what came, went or changed its state; of what changes within an instance
// the engine's events tell, a moment later. Askers at the same time share one look. An engine
// that is away, or that takes longer than within, is not waited for: the picture is then an
// older one, and what the look finds is there for the next who asks.
func (v *Inventory) Since(ctx context.Context, t time.Time, within time.Duration) tender.Picture {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	p, _ := v.Picture()
	if p.Taken.Before(t) && p.Stale.IsZero() && v.hold(ctx) == nil {
		looked := make(chan struct{})
		go func() {
			defer close(looked)
			defer v.free()
			// Whoever held it before may have looked late enough.
			if p, _ := v.Picture(); p.Taken.Before(t) {
				_, _ = v.look(context.WithoutCancel(ctx)) // an engine that fails is Run's to tell of
			}
		}()
		select {
		case <-looked:
		case <-ctx.Done():
		}
	}
	p, _ = v.Picture()
	return p
}

// Run watches until ctx ends, and reconnects by itself.
func (v *Inventory) Run(ctx context.Context) error {
	pause := settle
	for {
		seen, err := v.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if seen {
			pause = settle
		}
		if v.stale() {
			v.log.Warn("engine away", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// follow holds one connection: it watches and takes pictures until the
// connection or the engine fails. seen reports that there was a picture.
func (v *Inventory) follow(ctx context.Context) (seen bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	started := make(chan struct{})
	poke := make(chan struct{}, 1)
	lost := make(chan error, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		err := v.r.Watch(ctx, sync.OnceFunc(func() { close(started) }), func() {
			select {
			case poke <- struct{}{}:
			default:
			}
		})
		lost <- cmp.Or(err, errors.New("the engine ended the stream of events"))
	})
	defer watching.Wait()
	defer cancel()

	// Watch before the first List, so that nothing falls between the two.
	select {
	case <-started:
	case err := <-lost:
		return false, err
	case <-time.After(patience):
		return false, errors.New("the engine sends no events")
	}
	if _, err := v.take(ctx); err != nil {
		return false, err
	}
	tick := time.NewTicker(resync)
	defer tick.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case err := <-lost:
			return true, err
		case <-poke:
			if settled == nil {
				settled = time.After(settle)
			}
			continue
		case <-settled:
			settled = nil
		case <-tick.C:
		}
		if _, err := v.take(ctx); err != nil {
			return true, err
		}
	}
}

// take holds v and looks.
func (v *Inventory) take(ctx context.Context) (tender.Picture, error) {
	if err := v.hold(ctx); err != nil {
		return tender.Picture{}, err
	}
	defer v.free()
	return v.look(ctx)
}

func (v *Inventory) hold(ctx context.Context) error {
	select {
	case v.taking <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *Inventory) free() { <-v.taking }

// look asks the engine and publishes what it says. It needs v to be held.
func (v *Inventory) look(ctx context.Context) (tender.Picture, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	now := time.Now()
	p, err := v.r.List(ctx)
	if err != nil {
		return tender.Picture{}, err
	}
	slices.SortFunc(p.Instances, func(a, b tender.Instance) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(p.Networks, func(a, b tender.Network) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(p.Volumes, func(a, b tender.Volume) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
	})
	p.Taken, p.Stale = now, time.Time{}

	v.mu.Lock()
	defer v.mu.Unlock()
	first := v.picture.Taken.IsZero()
	known := make(map[string]*tender.Instance, len(v.picture.Instances))
	for i := range v.picture.Instances {
		known[v.picture.Instances[i].ID] = &v.picture.Instances[i]
	}
	for i := range p.Instances {
		n := &p.Instances[i]
		n.Since, n.Begun = now, now
		// A start in between is a new life, even if the state looks the same.
		if o := known[n.ID]; o != nil && o.Started.Equal(n.Started) {
			n.Begun = o.Begun
			if o.State == n.State && o.Health == n.Health {
				n.Since = o.Since
			}
		}
	}
	differs := first || !same(v.picture, p)
	v.picture = p
	if differs {
		v.tell()
	}
	if first {
		close(v.ready)
	}
	return p, nil
}

// stale marks the picture as old and reports whether it was not so before.
func (v *Inventory) stale() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.picture.Stale.IsZero() {
		return false
	}
	v.picture.Stale = time.Now()
	v.tell()
	return true
}

// tell needs v.mu.
func (v *Inventory) tell() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// same compares two pictures, but not when they were taken.
func same(a, b tender.Picture) bool {
	a.Taken, b.Taken = time.Time{}, time.Time{}
	return reflect.DeepEqual(a, b)
}
