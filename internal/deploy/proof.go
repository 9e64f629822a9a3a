package deploy

import (
	"fmt"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// addDrains adds how instances left the traffic to the proof of a rollout.
func addDrains(tx *store.Tx, s step) error {
	if len(s.drained) == 0 {
		return nil
	}
	_, err := tx.ChangeRollout(s.rollout, func(r *store.Rollout) {
		if r.Proof == nil {
			r.Proof = &store.Proof{}
		}
		for _, d := range s.drained {
			r.Proof.Drains = append(r.Proof.Drains, store.Drain(d))
		}
	})
	return err
}

// close writes the proof of a rollout that is about to end.
func (l *Loop) close(tx *store.Tx, open store.Rollout, verdict string) error {
	now := l.counts(open.Project, open.Service)
	seen, _ := l.o.Inventory.Picture()
	_, err := tx.ChangeRollout(open.ID, func(r *store.Rollout) {
		if r.Proof == nil {
			r.Proof = &store.Proof{}
		}
		r.Proof.Verdict = verdict
		r.Proof.Served, r.Proof.Partial = servedWhile(*r, now)
		r.Proof.Health = vitals(*r, seen, l.begun)
		if len(r.Proof.Served) > 0 {
			r.Proof.Verdict += "; " + r.Proof.Sum()
		}
	})
	return err
}

// servedWhile is what the edge has counted since the rollout began.
func servedWhile(r store.Rollout, now *store.Counts) (list []store.ServedBy, partial bool) {
	if now == nil {
		return nil, false
	}
	before := store.Counts{Counting: now.Counting}
	if r.Begin != nil {
		before = *r.Begin
	}
	for _, rev := range []struct {
		name  string
		image tender.ImageID
	}{{r.From, r.FromImage}, {r.To, r.ToImage}} {
		if rev.name == "" {
			continue
		}
		n, restarted := plan.Since(now.Revisions[rev.name], before.Revisions[rev.name], now.Counting.Equal(before.Counting))
		partial = partial || restarted
		digest := rev.image.Digest
		if digest == "" {
			digest = rev.image.ID
		}
		list = append(list, store.ServedBy{Revision: rev.name, Digest: digest, Served: n, Failed: plan.Errors(n), P99: p99(n)})
	}
	return list, partial
}

func p99(s tender.Served) time.Duration {
	return time.Duration(plan.Quantile(s, .99) * float64(time.Second))
}

// vitals says how the instances of the new revision are. What was there before
// this process began took its state before anybody here saw it.
func vitals(r store.Rollout, seen tender.Picture, begun time.Time) (list []store.Vital) {
	for _, i := range seen.Of(r.Project) {
		if i.Service != r.Service || i.Revision != r.To || i.Oneoff {
			continue
		}
		v := store.Vital{Instance: i.Name, State: string(i.State), Restarts: i.Restarts}
		switch {
		case i.State == tender.Running && i.Health != "":
			v.State = string(i.Health)
		case i.State == tender.Exited:
			v.State = fmt.Sprintf("exited with %d", i.ExitCode)
		}
		if i.Since.After(i.Started) && i.Started.After(begun) {
			v.After = i.Since.Sub(i.Started)
		}
		list = append(list, v)
	}
	return list
}
