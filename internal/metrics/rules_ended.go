package metrics

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
)

const (
	firingSeries = "ALERTS"           // 1 while an alert is pending or fires
	sinceSeries  = "ALERTS_FOR_STATE" // since when, in seconds
	stateLabel   = "alertstate"

	settleAfter = lookback / 2     // so long away, samples have to come in again before a condition that does not hold is believed
	settle      = time.Minute      // for them
	giveUp      = 30 * time.Minute // for rules that fail, or wait
)

// orphan is an alert that fired when the last process ended, and that nobody has told the end of.
type orphan struct {
	labels labels.Labels // the alert's
	last   time.Time     // when it was seen to fire
	since  time.Time
}

// orphans are read before anything is evaluated.
func (r *Rules) orphans(ctx context.Context, now time.Time) (out []orphan, err error) {
	named := func(name string) *labels.Matcher {
		return labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)
	}
	since := map[string]time.Time{}
	err = r.db.each(ctx, []*labels.Matcher{named(sinceSeries)}, now.Add(-tolerance), now, func(l labels.Labels, all []moment, ended bool) {
		if !ended && len(all) > 0 {
			since[bareAlert(l).String()] = time.Unix(int64(all[len(all)-1].value), 0)
		}
	})
	if err != nil {
		return nil, err
	}
	fires := []*labels.Matcher{named(firingSeries), labels.MustNewMatcher(labels.MatchEqual, stateLabel, "firing")}
	err = r.db.each(ctx, fires, now.Add(-tolerance), now, func(l labels.Labels, all []moment, ended bool) {
		if ended || len(all) == 0 {
			return
		}
		o := orphan{labels: bareAlert(l), last: all[len(all)-1].at}
		if o.since = since[o.labels.String()]; o.since.IsZero() {
			o.since = all[0].at
		}
		out = append(out, o)
	})
	slices.SortFunc(out, func(a, b orphan) int { return cmp.Compare(a.labels.String(), b.labels.String()) })
	return out, err
}

func bareAlert(l labels.Labels) labels.Labels {
	return labels.NewBuilder(l).Del(model.MetricNameLabel, stateLabel).Labels()
}

// tellEnds tells the end of alerts that fired when the last process ended and whose rules find
// now that they do not: who evaluates keeps in mind only what it has seen fire itself.
func (r *Rules) tellEnds(ctx context.Context, left []orphan) {
	began := time.Now()
	for len(left) > 0 && time.Since(began) < giveUp {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		now := time.Now()
		states := r.States()
		left = slices.DeleteFunc(left, func(o orphan) bool {
			if began.Sub(o.last) > settleAfter && now.Sub(began) < settle {
				return false
			}
			end, known := r.endOf(o, states, began, now)
			if known && end != nil {
				r.o.Notify(ctx, []Firing{*end})
				r.forget(ctx, o, now)
			}
			return known
		})
	}
}

// endOf is the end of an alert, nil that it goes on. known: its rules have said so.
func (r *Rules) endOf(o orphan, states []RuleState, began, now time.Time) (_ *Firing, known bool) {
	end := &Firing{Labels: o.labels.Map(), Since: o.since, StartsAt: o.since, EndsAt: now}
	found := false
	for _, s := range states {
		if s.Rule.Alert == "" || s.Rule.Alert != end.Labels[model.AlertNameLabel] {
			continue
		}
		found = true
		if !s.restored || s.Health != string(rules.HealthGood) || s.Evaluated.Before(began) {
			return nil, false
		}
		for _, a := range s.Active {
			if labels.FromMap(a.Labels).String() == o.labels.String() {
				// One that is pending may go without a word; one that fires is told of by its rule.
				return nil, !a.StartsAt.IsZero()
			}
		}
		end.Expr, end.Logs = s.Rule.Expr, s.Logs
		if end.EndsAt.Before(o.last.Add(s.Rule.KeepFiringFor)) {
			return nil, false // it is kept for a while after it has ended
		}
	}
	return end, found // one whose rule is not there, or not yet, times out
}

// forget marks the end of an alert's series, so that they are not found again.
func (r *Rules) forget(ctx context.Context, o orphan, now time.Time) {
	app := r.db.Appendable().AppenderV2(ctx)
	for _, l := range []labels.Labels{
		labels.NewBuilder(o.labels).Set(model.MetricNameLabel, firingSeries).Set(stateLabel, "firing").Labels(),
		labels.NewBuilder(o.labels).Set(model.MetricNameLabel, sinceSeries).Labels(),
	} {
		if _, err := app.Append(0, l, 0, now.UnixMilli(), stale, nil, nil, storage.AOptions{}); err != nil && !r.db.late(err) {
			r.log.Warn("the end of an alert is not kept", "alert", o.labels.String(), "err", err)
		}
	}
	if err := app.Commit(); err != nil {
		r.log.Warn("the end of an alert is not kept", "alert", o.labels.String(), "err", err)
	}
}
