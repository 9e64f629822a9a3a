package deploy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// Outcome is how a generation ended.
type Outcome struct {
	// Outcome: converged, rolled back, failed, superseded
	Outcome  string
	Services []ServiceOutcome
	Text     string
	Hint     string
}

// ServiceOutcome is how it ended for one service.
type ServiceOutcome struct {
	Service string
	State   string // as ServiceState.State
	Text    string
}

// Outcomes of a generation.
const (
	Converged  = "converged"
	BackAgain  = "rolled back"
	Failed     = "failed"
	Superseded = "superseded"
)

// Follow blocks until a generation has converged, was rolled back, has failed
// or was superseded, and reports the news of its project meanwhile. Run must be
// at work.
func (l *Loop) Follow(ctx context.Context, project string, generation int, report func(News)) (Outcome, error) {
	if report == nil {
		report = func(News) {}
	}
	in := l.hub.listen(project)
	defer l.hub.leave(in)
	for {
		round, turned := l.round(project)
		out, ended, err := l.outcome(ctx, project, generation, round)
		if err != nil || ended {
			in.report(report)
			return out, err
		}
		select {
		case <-ctx.Done():
			return Outcome{}, ctx.Err()
		case <-in.wake:
			in.report(report)
		case <-turned:
		}
	}
}

// outcome says how a generation ended, if it has.
func (l *Loop) outcome(ctx context.Context, project string, generation int, now round) (out Outcome, ended bool, err error) {
	if now.busy || now.generation < generation {
		return Outcome{}, false, nil
	}
	var r records
	var rollouts []store.Rollout
	byOthers := 0
	err = l.o.Store.View(ctx, func(tx *store.Tx) error {
		var err error
		if r, err = read(tx, project); err != nil {
			return err
		}
		if rollouts, err = tx.RolloutsSince(project, generation); err != nil {
			return err
		}
		for n := generation + 1; n <= r.head.N; n++ {
			g, err := tx.Generation(project, n)
			if err != nil && tender.KindOf(err) != tender.NotFound {
				return err
			}
			// What the loop wrote itself in answer to a failure supersedes nothing.
			if err == nil && g.Origin == 0 {
				byOthers = n
			}
		}
		return nil
	})
	if err != nil {
		return Outcome{}, false, err
	}
	if byOthers > 0 {
		return Outcome{Outcome: Superseded, Text: fmt.Sprintf("generation %d was superseded by generation %d", generation, byOthers)}, true, nil
	}
	if now.generation != r.head.N || len(r.open) > 0 {
		return Outcome{}, false, nil
	}
	var back, failed []string
	for _, o := range rollouts {
		switch o.State {
		case store.RolledBack:
			back = append(back, fmt.Sprintf("%s: %s", o.Service, o.Reason))
			out.Services = append(out.Services, ServiceOutcome{o.Service, "failed", o.Reason})
		case store.RolloutFailed:
			failed = append(failed, fmt.Sprintf("%s: %s", o.Service, o.Reason))
			out.Services = append(out.Services, ServiceOutcome{o.Service, "failed", o.Reason})
		}
	}
	if len(failed) == 0 && len(back) == 0 {
		failed = stuck(now.plan)
	}
	slices.Sort(back)
	slices.Sort(failed)
	name := ""
	if len(out.Services) > 0 {
		name = " " + out.Services[0].Service
	}
	switch {
	case len(failed) > 0:
		out.Outcome, out.Text = Failed, strings.Join(append(failed, back...), "; ")
		out.Hint = fmt.Sprintf("tender why%s -p %s", name, project)
	case len(back) > 0:
		if !now.plan.Waiting() {
			return Outcome{}, false, nil
		}
		out.Outcome, out.Text = BackAgain, "rolled back, "+strings.Join(back, "; ")
		out.Hint = fmt.Sprintf("tender why%s -p %s", name, project)
	case len(now.plan) > 0:
		return Outcome{}, false, nil
	default:
		out.Outcome, out.Text = Converged, fmt.Sprintf("generation %d of %s has converged", r.head.N, project)
		if r.head.Down != nil {
			out.Text = project + " is down"
		}
	}
	return out, true, nil
}

// stuck names what will not become good by itself: a plan that only waits for
// a person, or that has tried too often.
func stuck(p plan.Plan) (why []string) {
	if !p.Waiting() {
		return nil
	}
	for _, a := range p {
		if !a.Stuck && a.Tried < plan.Hopeless {
			continue
		}
		why = append(why, a.Service+": "+a.Cause)
	}
	return why
}
