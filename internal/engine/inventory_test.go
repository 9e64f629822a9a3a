package engine_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/enginetest"
)

func web(slots ...int) engine.Want {
	return engine.Want{Project: "shop", Service: tender.Service{Name: "web", Revision: "r1", Healthcheck: 1}, Slots: slots}
}

// keep runs an inventory of fake for as long as body runs, in fake time.
func keep(t *testing.T, fake engine.Reader, body func(t *testing.T, v *engine.Inventory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		v := engine.NewInventory(fake, slog.New(slog.DiscardHandler))
		var running sync.WaitGroup
		running.Go(func() {
			if err := v.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		defer running.Wait()
		defer cancel()
		body(t, v)
	})
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestInventoryFollowsTheEngine(t *testing.T) {
	fake := &enginetest.Fake{}
	fake.Behave("web", enginetest.Behaviour{Warmup: 5 * time.Second})
	keep(t, fake, func(t *testing.T, v *engine.Inventory) {
		<-v.Ready()
		p, changed := v.Picture()
		if len(p.Instances) != 0 || closed(changed) {
			t.Fatalf("at first: %v", p.Instances)
		}
		must(t, fake.Scale(t.Context(), web(1, 2)))
		<-changed
		p, changed = v.Picture()
		if len(p.Instances) != 2 || p.Instances[0].Slot != 1 || p.Instances[0].Health != tender.Starting {
			t.Fatalf("after Scale: %+v", p.Instances)
		}
		<-changed
		p, _ = v.Picture()
		if p.Instances[1].Health != tender.HealthyIs {
			t.Fatalf("after the warm-up: %+v", p.Instances)
		}
		if since := time.Since(p.Instances[1].Since); since > time.Second {
			t.Errorf("healthy since %v: it must count from the change of health", since)
		}
	})
}

func TestInventorySettlesABurst(t *testing.T) {
	fake := &enginetest.Fake{}
	keep(t, fake, func(t *testing.T, v *engine.Inventory) {
		<-v.Ready()
		synctest.Wait()
		before := fake.Calls()["List"]
		for n := range 20 {
			must(t, fake.Scale(t.Context(), web(n+1)))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := fake.Calls()["List"] - before; n != 1 {
			t.Errorf("%d pictures for one burst of events", n)
		}
		if p, _ := v.Picture(); len(p.Instances) != 20 {
			t.Errorf("%d instances in the picture", len(p.Instances))
		}
	})
}

func TestInventoryTellsOnlyOfDifferences(t *testing.T) {
	fake := &enginetest.Fake{}
	must(t, fake.Scale(t.Context(), web(1)))
	keep(t, fake, func(t *testing.T, v *engine.Inventory) {
		<-v.Ready()
		first, changed := v.Picture()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		later, _ := v.Picture()
		if closed(changed) {
			t.Error("told of a change where nothing changed")
		}
		if !later.Taken.After(first.Taken) {
			t.Error("no resync in five minutes")
		}
		if !later.Instances[0].Since.Equal(first.Instances[0].Since) {
			t.Error("since moved without a change of state")
		}
	})
}

func TestInventoryOutlivesABrokenConnection(t *testing.T) {
	fake := &enginetest.Fake{}
	must(t, fake.Scale(t.Context(), web(1)))
	keep(t, fake, func(t *testing.T, v *engine.Inventory) {
		<-v.Ready()
		_, changed := v.Picture()
		broke := time.Now()
		fake.Break(errors.New("connection refused"))
		<-changed
		p, changed := v.Picture()
		if p.Stale.IsZero() || p.Stale.Before(broke) || len(p.Instances) != 1 {
			t.Fatalf("while away: stale %v, %d instances", p.Stale, len(p.Instances))
		}
		time.Sleep(time.Minute)
		if later, _ := v.Picture(); !later.Stale.Equal(p.Stale) {
			t.Error("stale since moved")
		}
		fake.Break(nil)
		must(t, fake.Scale(t.Context(), web(2)))
		<-changed
		if p, _ := v.Picture(); !p.Stale.IsZero() || len(p.Instances) != 2 {
			t.Errorf("after it came back: stale %v, %d instances", p.Stale, len(p.Instances))
		}
	})
}

func TestInventoryWaitsForAnEngineThatComesLater(t *testing.T) {
	fake := &enginetest.Fake{}
	fake.Break(errors.New("connection refused"))
	keep(t, fake, func(t *testing.T, v *engine.Inventory) {
		time.Sleep(time.Minute)
		if closed(v.Ready()) {
			t.Fatal("ready without a picture")
		}
		fake.Break(nil)
		<-v.Ready()
	})
}

func TestInventoryFreshSeesWhatWasJustDone(t *testing.T) {
	fake := &enginetest.Fake{}
	keep(t, fake, func(t *testing.T, v *engine.Inventory) {
		<-v.Ready()
		must(t, fake.Scale(t.Context(), web(1, 2, 3)))
		p, err := v.Fresh(t.Context())
		if err != nil || len(p.Instances) != 3 {
			t.Fatalf("%d instances, %v", len(p.Instances), err)
		}
		if shown, _ := v.Picture(); len(shown.Instances) != 3 {
			t.Error("Fresh did not publish its picture")
		}
		fake.Break(errors.New("connection refused"))
		if _, err := v.Fresh(t.Context()); tender.KindOf(err) != tender.Unavailable {
			t.Errorf("Fresh without an engine: %v", err)
		}
	})
}

// slow is an engine whose lists take a while.
type slow struct {
	*enginetest.Fake
	takes atomic.Int64 // nanoseconds
}

func (s *slow) List(ctx context.Context) (tender.Picture, error) {
	select {
	case <-time.After(time.Duration(s.takes.Load())):
		return s.Fake.List(ctx)
	case <-ctx.Done():
		return tender.Picture{}, ctx.Err()
	}
}

func TestInventorySinceSeesWhatWasJustDone(t *testing.T) {
	fake := &slow{Fake: &enginetest.Fake{}}
	keep(t, fake, func(t *testing.T, v *engine.Inventory) {
		<-v.Ready()
		time.Sleep(time.Millisecond)
		must(t, fake.Scale(t.Context(), web(1, 2)))
		if p := v.Since(t.Context(), time.Now(), time.Second); len(p.Instances) != 2 {
			t.Errorf("%d instances right after two were made", len(p.Instances))
		}

		// Many who ask at once share a look.
		time.Sleep(time.Second)
		fake.takes.Store(int64(100 * time.Millisecond))
		before := fake.Calls()["List"]
		var asking sync.WaitGroup
		for range 50 {
			asking.Go(func() { v.Since(t.Context(), time.Now(), time.Second) })
		}
		asking.Wait()
		if n := fake.Calls()["List"] - before; n != 1 {
			t.Errorf("50 who ask at once cost %d looks", n)
		}

		// An engine that does not answer in time is not waited for.
		const patience = 20 * time.Second
		fake.takes.Store(int64(patience))
		must(t, fake.Scale(t.Context(), web(1, 2, 3)))
		asked := time.Now()
		if p := v.Since(t.Context(), asked, time.Second); len(p.Instances) != 2 || time.Since(asked) > time.Second {
			t.Errorf("%d instances after %s", len(p.Instances), time.Since(asked))
		}
		// But what it says in the end is kept for the next who asks, however short of time.
		time.Sleep(patience)
		if p := v.Since(t.Context(), asked, time.Nanosecond); len(p.Instances) != 3 {
			t.Errorf("%d instances once it has answered", len(p.Instances))
		}
	})
}

func TestInventoryStartsSinceAnewForANewLife(t *testing.T) {
	fake := &enginetest.Fake{}
	keep(t, fake, func(t *testing.T, v *engine.Inventory) {
		<-v.Ready()
		must(t, fake.Scale(t.Context(), web(1)))
		p, err := v.Fresh(t.Context())
		must(t, err)
		time.Sleep(time.Minute)
		must(t, fake.Restart(t.Context(), p.Instances[0].ID, 0))
		p, err = v.Fresh(t.Context())
		must(t, err)
		if d := time.Since(p.Instances[0].Since); d > time.Second {
			t.Errorf("healthy for %v right after a restart", d)
		}
	})
}
