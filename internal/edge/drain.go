package edge

import (
	"context"
	"os"
	"sync"
	"time"
)

// drain waits for what is under way, no longer than limit.
func (e *edge) drain(ended <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ended:
		e.log.Info("ended", "drained", true)
	case <-timer.C:
		e.log.Warn("ended, what was still under way is cut", "after", limit)
	}
}

// retire drains after a hand-over, and tells the edge that has taken over what
// is still under way here, so that nobody stops an instance that still answers.
func (e *edge) retire(ctx context.Context, ended <-chan struct{}) {
	select {
	case <-e.replaced:
	case <-time.After(patience):
	}
	client := NewClient(e.config.Socket)
	tick := time.NewTicker(carryEvery)
	defer tick.Stop()
	limit := time.NewTimer(e.config.Drain)
	defer limit.Stop()
	follow, stop := context.WithCancel(context.WithoutCancel(ctx))
	var following sync.WaitGroup
	defer following.Wait()
	defer stop()
	tables := make(chan Table)
	following.Go(func() { e.hear(follow, client, tables) })
	tell := func(done bool) {
		tell, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		version, err := client.carry(tell, e.id, Carried{Report: e.proxy.Report(), PID: os.Getpid(), Ended: done})
		if err == nil && !done && version != e.version() {
			var t Table
			if t, err = client.table(tell); err == nil {
				err = e.follow(t)
			}
		}
		if err != nil {
			e.log.Debug("the edge that serves does not answer", "err", err)
		}
	}
	for {
		select {
		case <-tick.C:
			tell(false)
			continue
		case t := <-tables:
			if err := e.follow(t); err != nil {
				e.log.Warn("the table of the edge that serves is not followed", "err", err)
			}
			tell(false)
			continue
		case <-ended:
			e.log.Info("drained after the hand-over")
		case <-limit.C:
			e.log.Warn("ended, what was still under way is cut", "after", e.config.Drain)
		case <-ctx.Done():
			e.proxy.Leave(0)
			e.drain(ended, e.config.Grace)
		}
		tell(true)
		return
	}
}

// hear passes tables on as the edge that has taken over gets them.
func (e *edge) hear(ctx context.Context, client *Client, tables chan<- Table) {
	for ctx.Err() == nil {
		served := e.version()
		t, err := client.next(ctx, served)
		if err == nil && t.Proxy.Version == served {
			continue
		}
		if err == nil {
			select {
			case tables <- t:
				continue
			case <-ctx.Done():
				return
			}
		}
		// It is away, or of a version that does not tell: what is counted is told to it now and then, which finds out, too.
		select {
		case <-time.After(carryEvery):
		case <-ctx.Done():
		}
	}
}

// follow serves by the table of the edge that has taken over, so that what
// clients still ask here goes to no instance that is about to stop.
func (e *edge) follow(t Table) error {
	e.setting.Lock()
	defer e.setting.Unlock()
	return e.apply(t)
}
