package enginetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
)

// drop takes an instance away.
func (f *Fake) drop(i *instance) {
	i.life++
	f.end(i)
	if i.State == tender.Running || i.State == tender.Paused {
		f.happens(i, "die")
	}
	f.happens(i, "destroy")
	f.instances = slices.DeleteFunc(f.instances, func(o *instance) bool { return o == i })
}

func (f *Fake) end(i *instance) {
	select {
	case <-i.ended:
	default:
		close(i.ended)
	}
}

// start begins a life.
func (f *Fake) start(i *instance) {
	i.life++
	life := i.life
	i.b = f.behaviourOf(i.Service, i.Revision)
	// No two lives begin at one moment, not in fake time either.
	started := f.now()
	if started.Equal(i.Started) {
		started = started.Add(time.Nanosecond)
	}
	i.State, i.Started, i.Finished = tender.Running, started, time.Time{}
	i.ExitCode, i.OOM, i.stopped = 0, false, false
	i.out += i.b.Output
	f.happens(i, "start")
	select {
	case <-i.ended:
		i.ended = make(chan struct{})
	default: // who waited for one that was only created waits for this life
	}
	i.Health = ""
	if i.health || i.b.Health {
		after := tender.HealthyIs
		if i.b.Sick {
			after = tender.Unhealthy
		}
		i.Health = after
		if i.b.Warmup > 0 {
			i.Health = tender.Starting
			f.later(i, life, i.b.Warmup, func() {
				i.Health = after
				if i.b.Sick {
					i.HealthOutput = "sick"
				}
			})
		}
	}
	if i.b.Ends {
		f.later(i, life, i.b.After, func() { f.exit(i, i.b.Code, i.b.OOM) })
	}
}

// later does something in this life of i, after d.
func (f *Fake) later(i *instance, life int, d time.Duration, do func()) {
	time.AfterFunc(d, func() {
		f.change(func() {
			if i.life == life {
				do()
			}
		})
	})
}

// exit ends a life; the restart policy may begin another after a pause that
// doubles from 100 ms to a minute, as the Docker Engine's does.
func (f *Fake) exit(i *instance, code int, oom bool) {
	if i.State != tender.Running && i.State != tender.Paused {
		return
	}
	i.life++
	ran := f.now().Sub(i.Started)
	i.State, i.Health, i.ExitCode, i.OOM, i.Finished = tender.Exited, "", code, oom, f.now()
	f.end(i)
	f.happens(i, "die")
	again := i.restart == "always" || i.restart == "unless-stopped" || i.restart == "on-failure" && code != 0
	if !again || i.stopped || i.restart == "on-failure" && i.max > 0 && i.Restarts >= i.max {
		return
	}
	if ran >= 10*time.Second {
		i.Restarts = 0
	}
	i.State = tender.Restarting
	pause := min(100*time.Millisecond<<min(i.Restarts, 20), time.Minute)
	f.later(i, i.life, pause, func() {
		i.Restarts++
		f.start(i)
	})
}

// Promote implements engine.Engine.
func (f *Fake) Promote(_ context.Context, id string) error {
	return f.one("Promote", "promote ", id, func(i *instance) { f.rejoin(i, tender.ByService) })
}

// Demote implements engine.Engine.
func (f *Fake) Demote(_ context.Context, id string) error {
	return f.one("Demote", "demote ", id, func(i *instance) {
		if i.Pinned || i.Found == tender.Nowhere {
			f.rejoin(i, tender.BySlot)
		}
	})
}

func (f *Fake) rejoin(i *instance, found tender.Found) {
	if len(i.Addresses) == 0 {
		f.next++
		i.Addresses = map[string]string{i.Project + "_default": fmt.Sprintf("10.201.1.%d", f.next%250+2)}
		i.Pinned = i.health
	}
	i.Found = found
}

// Start implements engine.Engine.
func (f *Fake) Start(_ context.Context, id string) error {
	return f.one("Start", "start ", id, func(i *instance) {
		if i.State != tender.Running && i.State != tender.Paused {
			f.start(i)
		}
	})
}

// Stop implements engine.Engine.
func (f *Fake) Stop(_ context.Context, id string, _ time.Duration) error {
	return f.one("Stop", "stop ", id, func(i *instance) { f.halt(i) })
}

func (f *Fake) halt(i *instance) {
	i.stopped = true
	if i.State == tender.Restarting {
		i.life++
		i.State = tender.Exited
		return
	}
	f.exit(i, 0, false)
}

// Restart implements engine.Engine.
func (f *Fake) Restart(ctx context.Context, id string, _ time.Duration) error {
	select { // it takes some time anywhere: in fake time, too, one restart comes after the other
	case <-time.After(time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	return f.one("Restart", "restart ", id, func(i *instance) {
		f.halt(i)
		f.start(i)
	})
}

// Signal implements engine.Engine: KILL, TERM and INT end an instance.
func (f *Fake) Signal(_ context.Context, id, signal string) error {
	return f.one("Signal", "signal "+signal+" ", id, func(i *instance) {
		switch strings.TrimPrefix(strings.ToUpper(signal), "SIG") {
		case "KILL", "9":
			i.stopped = true
			f.exit(i, 137, false)
		case "TERM", "15":
			f.exit(i, 143, false)
		case "INT", "2":
			f.exit(i, 130, false)
		}
	})
}

// Pause implements engine.Engine.
func (f *Fake) Pause(_ context.Context, id string) error {
	return f.one("Pause", "pause ", id, func(i *instance) {
		if i.State == tender.Running {
			i.State = tender.Paused
		}
	})
}

// Unpause implements engine.Engine.
func (f *Fake) Unpause(_ context.Context, id string) error {
	return f.one("Unpause", "unpause ", id, func(i *instance) {
		if i.State == tender.Paused {
			i.State = tender.Running
		}
	})
}

// Remove implements engine.Engine.
func (f *Fake) Remove(_ context.Context, id string, _ time.Duration, volumes bool) error {
	if err := f.called("Remove", "remove "+id); err != nil {
		return err
	}
	f.change(func() {
		i := f.byID(id)
		if i == nil {
			return
		}
		f.drop(i)
		if volumes {
			for _, v := range i.Anonymous {
				delete(f.anonymous, v)
			}
		}
	})
	return nil
}

// one does something to one instance.
func (f *Fake) one(method, line, id string, do func(*instance)) error {
	if err := f.called(method, line+id); err != nil {
		return err
	}
	var err error
	f.change(func() {
		i := f.byID(id)
		if i == nil {
			err = notFound(id)
			return
		}
		do(i)
	})
	return err
}

func notFound(id string) error {
	return tender.Errorf(tender.NotFound, "no instance %s", id)
}
