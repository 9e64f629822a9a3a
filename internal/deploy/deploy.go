// Package deploy carries plans out and repeats until what is there is what is
// wanted. It accepts what people ask for as a new generation in the store, runs
// one worker per project that asks plan for the next actions and takes them on
// the engine, and tells what happens to whoever listens. The daemon knocks.
//
// It holds no progress of its own: what is wanted lies in the store, what is
// there in the engine, so a process that was killed goes on where it was. It
// never decides what comes next; that is plan's. What it alone remembers, and
// may lose, are the attempts at what does not work.
package deploy

import (
	"context"
	"log/slog"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// Options are what the loop works with. All but Log, SecretVersion and Deliver
// are needed.
type Options struct {
	Store     *store.Store
	Engine    engine.Engine
	Inventory *engine.Inventory
	Log       *slog.Logger // default: none

	// Parse reads the normal form of a project.
	Parse func(yaml []byte) (tender.Project, error)
	// Same compares two tender.Service.Spec; Essence is what a revision is made from.
	Same    func(a, b []byte) bool
	Essence func(spec []byte) ([]byte, error)
	// Hold decides who holds a service's ports, and makes it the service that this comes to; held: the edge
	// does now. nil: the engine does.
	Hold func(s tender.Service, held bool) (tender.Service, error)
	// SecretVersion is the newest version in the vault: NotFound with a hint. nil: there are no secrets.
	SecretVersion func(ctx context.Context, project string, f tender.SecretFile) (int, error)
	// Deliver puts the secrets and configs of a service at its revision on the host and says where. It
	// may be called again for the same revision. nil: there are none.
	Deliver func(ctx context.Context, project string, s tender.Service) ([]engine.File, error)

	// Edge tells what it serves. nil: there is none, and nothing is drained or shifted.
	Edge Edge

	// Home is what the engine writes on the instances that this daemon makes. With it a project that the
	// store has lost is rebuilt from them. "": nothing is.
	Home string
	// Join makes a project of specs of its services, and names those that it lacks. Needed with Home.
	Join func(specs [][]byte) (p tender.Project, absent []string, err error)
	// Salvage reads the files of a service at its revision back from the host. nil: there are none.
	Salvage func(ctx context.Context, project string, s tender.Service) (Salvaged, error)
	// Routes says which routes of a project are served, which its instances do not carry as they are now,
	// and what of them is not known. nil: those that p's specs have.
	Routes func(p tender.Project) (routes []tender.Route, lost []string)
}

// parallel is how many actions run at once over all projects, share how many of
// one: a project whose actions hang holds up no other.
const (
	parallel = 32
	share    = 16
)

// Loop brings what is there to what is wanted.
type Loop struct {
	o     Options
	log   *slog.Logger
	begun time.Time
	pool  chan struct{} // holds a token per running action
	born  chan struct{} // a project may have become known
	hub   hub

	mu      sync.Mutex
	workers map[string]*worker
	locks   map[string]chan struct{} // held while a generation of the project is made
	rounds  map[string]round
	turned  chan struct{} // closed when rounds changes
	lanes   map[string][]plan.Lane
	moved   chan struct{}        // closed when lanes changes
	later   map[string]time.Time // when to try again to rebuild a lost project

	looked chan struct{} // closed once lost projects have been looked for
}

// New makes a loop; Run lets it work.
func New(o Options) *Loop {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.SecretVersion == nil {
		o.SecretVersion = func(_ context.Context, _ string, f tender.SecretFile) (int, error) {
			return 0, tender.Errorf(tender.NotFound, "secret %s is not in the vault", f.Name).Hint("tender secret set %s", f.Name)
		}
	}
	if o.Hold == nil {
		o.Hold = func(s tender.Service, _ bool) (tender.Service, error) { return s, nil }
	}
	if o.Deliver == nil {
		o.Deliver = func(context.Context, string, tender.Service) ([]engine.File, error) { return nil, nil }
	}
	return &Loop{
		o: o, log: o.Log, begun: time.Now(),
		pool: make(chan struct{}, parallel), born: make(chan struct{}, 1),
		workers: map[string]*worker{}, locks: map[string]chan struct{}{}, rounds: map[string]round{}, turned: make(chan struct{}),
		lanes: map[string][]plan.Lane{}, moved: make(chan struct{}),
		later: map[string]time.Time{}, looked: make(chan struct{}),
	}
}

// Run works until ctx ends, and then waits for the actions that it cut off.
func (l *Loop) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-l.o.Inventory.Ready():
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	looked := sync.OnceFunc(func() { close(l.looked) })
	for {
		_, changed := l.o.Inventory.Picture()
		again, err := l.rebuild(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		looked()
		var timer <-chan time.Time
		if !again.IsZero() {
			timer = time.After(time.Until(again))
		}
		var names []string
		err = l.o.Store.View(ctx, func(tx *store.Tx) (err error) {
			names, err = tx.Projects()
			return err
		})
		if err != nil && ctx.Err() == nil {
			return err
		}
		for _, name := range names {
			if w, fresh := l.worker(name); fresh {
				all.Go(func() {
					defer l.retire(w)
					w.run(ctx)
				})
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.born:
		case <-changed:
		case <-timer:
		}
	}
}

func (l *Loop) worker(project string) (w *worker, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.workers[project]; w != nil {
		return w, false
	}
	w = newWorker(l, project)
	l.workers[project] = w
	return w, true
}

// retire takes a worker away that has ended, and looks whether its project has
// come back meanwhile.
func (l *Loop) retire(w *worker) {
	l.mu.Lock()
	delete(l.workers, w.project)
	l.mu.Unlock()
	l.guide(w.project, nil)
	close(w.done)
	l.poke("")
}

// poke tells the project's worker that the store has changed, or that one is needed.
func (l *Loop) poke(project string) {
	l.mu.Lock()
	w := l.workers[project]
	l.mu.Unlock()
	if w != nil {
		w.poke()
	}
	select {
	case l.born <- struct{}{}:
	default:
	}
}

// lock holds off other generations of a project. unlock is nil when ctx ended.
func (l *Loop) lock(ctx context.Context, project string) (unlock func(), err error) {
	l.mu.Lock()
	c := l.locks[project]
	if c == nil {
		c = make(chan struct{}, 1)
		l.locks[project] = c
	}
	l.mu.Unlock()
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// publish shows how a project stands after a look at it.
func (l *Loop) publish(project string, r round) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rounds[project] = r
	close(l.turned)
	l.turned = make(chan struct{})
}

// round returns how a project stood at the last look, and a channel that
// closes at the next look at any.
func (l *Loop) round(project string) (round, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rounds[project], l.turned
}

func (l *Loop) tell(n News) {
	n.Time = time.Now()
	l.hub.tell(n)
}

// Generation returns generation n of a project; 0: the newest.
func (l *Loop) Generation(ctx context.Context, project string, n int) (g store.Generation, err error) {
	err = l.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		if n == 0 {
			g, err = tx.Head(project)
		} else {
			g, err = tx.Generation(project, n)
		}
		return err
	})
	return g, err
}

// Rollouts returns the rollouts of a project, or of one service, the newest
// first and without their steps. NotFound when the project is not known.
func (l *Loop) Rollouts(ctx context.Context, project, service string) (list []store.Rollout, err error) {
	err = l.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		if _, err := tx.Head(project); err != nil {
			return err
		}
		list, err = tx.Rollouts(project, service)
		return err
	})
	return list, err
}

// Rollout returns one rollout with its steps.
func (l *Loop) Rollout(ctx context.Context, id int64) (r store.Rollout, err error) {
	err = l.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		r, err = tx.Rollout(id)
		return err
	})
	return r, err
}
