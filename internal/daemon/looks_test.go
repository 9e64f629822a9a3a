package daemon

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/store"
)

// Who has just done something, with Tender or with docker, must see it when they ask: events
// of the engine come later, and in bursts.
func TestWhoAsksSeesWhatWasJustDone(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	log := slog.New(slog.DiscardHandler)
	fake := &enginetest.Fake{}
	inventory := engine.NewInventory(fake, log)
	b := &backend{
		store: st, log: log, engine: fake, inventory: inventory, keeper: &keeper{},
		loop: deploy.New(deploy.Options{Store: st, Inventory: inventory, Engine: fake, Log: log}),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = inventory.Run(ctx) })
	defer running.Wait()
	defer cancel()
	<-inventory.Ready()

	// Each of these would come by an event, a tenth of a second later.
	id := fake.Adopt(tender.Instance{Name: "shop-web-1", Project: "shop", Service: "web", Slot: 1, State: tender.Running, Started: time.Now()}, true, "")
	if list, err := b.Instances(ctx, "shop", true); err != nil || len(list) != 1 || list[0].State != "running" {
		t.Errorf("once it runs: %v %v", list, err)
	}
	fake.Crash(id, 3)
	if list, err := b.Instances(ctx, "", true); err != nil || len(list) != 1 || list[0].State != "exited" || list[0].ExitCode != 3 {
		t.Errorf("once it has exited: %+v %v", list, err)
	}
	fake.Vanish(id)
	if list, err := b.Projects(ctx); err != nil || len(list) != 0 {
		t.Errorf("once nothing is left: %+v %v", list, err)
	}
}
