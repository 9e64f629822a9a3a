package daemon

import (
	"context"
	"fmt"

	"github.com/tenderhq/tender/internal/metrics"
	"github.com/tenderhq/tender/internal/store"
)

// alertable writes what the built-in alerts need and no other part counts.
func (b *backend) alertable(ctx context.Context, f *figures) {
	up := 0
	if picture, _ := b.inventory.Picture(); !picture.Taken.IsZero() && picture.Stale.IsZero() {
		up = 1
	}
	f.metric("engine_up", "gauge", "1 while the engine answers.", "", up)
	if b.keeper != nil {
		b.keeper.mu.Lock()
		wanted := 0
		if b.keeper.seen.wanted {
			wanted = 1
		}
		b.keeper.mu.Unlock()
		f.metric("edge_wanted", "gauge", "1 while there is something for the edge to serve.", "", wanted)
	}
	if err := b.store.View(ctx, f.rollouts); err != nil && ctx.Err() == nil {
		b.log.Warn("rollouts are not counted", "err", err)
	}
	if b.scans != nil {
		f.findings(b.scans)
	}
	if b.rules != nil {
		f.rules(b.rules.rules.States())
	}
}

// rollouts writes when the newest of each service ended, and how, and which have not yet and are the first.
func (f *figures) rollouts(tx *store.Tx) error {
	names, err := tx.Projects()
	if err != nil {
		return err
	}
	var samples, first []any
	for _, name := range names {
		g, err := tx.Head(name)
		if err != nil {
			return err
		}
		list, err := tx.LastRollouts(name)
		if err != nil {
			return err
		}
		for _, r := range list {
			if g.Down == nil && r.Ended.IsZero() && r.First {
				first = append(first, fmt.Sprintf("{project=%q,service=%q}", r.Project, r.Service), 1)
			}
			if g.Down != nil || r.Ended.IsZero() {
				continue
			}
			outcome := r.State
			if r.Reverse && r.Who == "tender" && outcome == store.RolloutDone {
				outcome = store.RolledBack // it is the way back of one that failed
			}
			samples = append(samples, fmt.Sprintf("{project=%q,service=%q,outcome=%q}", r.Project, r.Service, outcome), r.Ended.Unix())
		}
	}
	f.metric("rollout_end_seconds", "gauge", "When the newest rollout of a service ended, in seconds since 1970.", samples...)
	f.metric("rollout_first", "gauge", "1 while a service is deployed for the first time.", first...)
	return nil
}

// rules writes how many there are and how they fare.
func (f *figures) rules(all []metrics.RuleState) {
	var failing, pending, firing int
	for _, r := range all {
		if r.Health == "err" {
			failing++
		}
		for _, a := range r.Active {
			if a.StartsAt.IsZero() {
				pending++
			} else {
				firing++
			}
		}
	}
	f.metric("rules", "gauge", "Rules that are evaluated.", "", len(all))
	f.metric("rules_failing", "gauge", "Rules whose last evaluation failed.", "", failing)
	f.metric("rule_alerts", "gauge", "Alerts of rules, by state.", `{state="pending"}`, pending, `{state="firing"}`, firing)
}
