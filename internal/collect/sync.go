package collect

import (
	"context"
	"slices"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// syncLook is how often Sync looks whether a reader has come far enough.
const syncLook = 10 * time.Millisecond

// Follows reports whether the files of an instance are read, so that nothing of it
// is missing in the store but what Sync waits for.
func (c *Collector) Follows(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tails[id] != nil
}

// Sync returns when all that the instances have written by now is handed to the
// store, as far as their files are read, or with ctx. An entry that may go on waits
// for its end: so give it half a second more than you like.
func (c *Collector) Sync(ctx context.Context, ids []string) error {
	type aim struct {
		t  *tail
		to logs.Place
	}
	var aims []aim
	for _, t := range c.all() {
		if slices.Contains(ids, t.id) {
			t.look()
			if to, ok := t.written(); ok {
				aims = append(aims, aim{t, to})
				t.nudge()
			}
		}
	}
	tick := time.NewTicker(syncLook)
	defer tick.Stop()
	for {
		aims = slices.DeleteFunc(aims, func(a aim) bool { return a.t.reached(a.to) })
		if len(aims) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// written is the end of what there is to read.
func (t *tail) written() (logs.Place, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || len(t.chain) == 0 {
		return logs.Place{}, false
	}
	f := t.chain[len(t.chain)-1]
	return logs.Place{Seq: f.seq, Offset: f.size()}, true
}

func (t *tail) reached(to logs.Place) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended || len(t.chain) == 0 || t.handed.Seq > to.Seq || t.handed.Seq == to.Seq && t.handed.Offset >= to.Offset
}
