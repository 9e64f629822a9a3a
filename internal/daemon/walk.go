package daemon

import (
	"context"
	"fmt"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
)

// enough is how many requests of a step say something about its errors.
const enough = 20

// walks takes the next step of each route whose traffic moves by itself.
func (k *keeper) walks(ctx context.Context, all []served, now time.Time) error {
	k.mu.Lock()
	seen := k.seen
	k.mu.Unlock()
	for _, s := range all {
		for _, state := range s.states {
			if state.Walk == nil || state.Walk.State != store.WalkOn || seen.away != "" {
				continue
			}
			aims := aimsOf(s.head.Routes, s.head.Project, state.Route)
			if !step(&state, aims, servedOf(seen.report, state.Route, state.Walk.Aim), now) {
				continue
			}
			err := k.store.Update(ctx, func(tx *store.Tx) error {
				is, err := tx.RouteState(state.Project, state.Route)
				if err != nil || is.Walk == nil || is.Walk.State != store.WalkOn || !is.Walk.Started.Equal(state.Walk.Started) || is.Walk.Step != s.states[state.Route].Walk.Step {
					return err // somebody has said otherwise meanwhile
				}
				is.Weights, is.Walk = state.Weights, state.Walk
				return tx.SetRouteState(is)
			})
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			k.log.Info("traffic moves", "route", state.Route, "aim", state.Walk.Aim, "state", state.Walk.State, "percent", state.Walk.Steps[state.Walk.Step], "reason", state.Walk.Reason)
			k.poke()
		}
	}
	return nil
}

// step judges the step that stands, and takes the next one or goes back. It
// reports whether state has changed.
func step(state *store.RouteState, aims []tender.Aim, is tender.Served, now time.Time) bool {
	w := *state.Walk
	state.Walk = &w
	if is.Requests < w.Served.Requests {
		// The edge began anew, or has forgotten a target that is gone: this step is judged from here on.
		w.Served = is
		return true
	}
	served := since(w.Served, is)
	failed := served.Failed + served.Class[5]
	if failed > served.Requests {
		failed = served.Requests
	}
	if served.Requests >= enough && float64(failed) > w.Errors*float64(served.Requests) {
		w.State, w.Ended = store.WalkBack, now
		w.Reason = fmt.Sprintf("%d of %d requests failed at %d %%, more than %s", failed, served.Requests, w.Steps[w.Step], percent(w.Errors))
		state.Weights = w.Before
		return true
	}
	if now.Before(w.Since.Add(w.Every)) {
		return false
	}
	if w.Step+1 == len(w.Steps) {
		w.State, w.Ended = store.WalkDone, now
		w.Reason = fmt.Sprintf("%d requests at the last step, %d failed", served.Requests, failed)
		return true
	}
	w.Step++
	w.Since, w.Served = now, is
	state.Weights = weigh(aims, state.Weights, map[string]int{w.Aim: w.Steps[w.Step]})
	return true
}

func percent(f float64) string { return fmt.Sprintf("%g %%", f*100) }

// since is what was counted between two looks.
func since(before, now tender.Served) tender.Served {
	out := tender.Served{Requests: now.Requests - before.Requests, Failed: now.Failed - min(before.Failed, now.Failed)}
	for i := range out.Class {
		out.Class[i] = now.Class[i] - min(before.Class[i], now.Class[i])
	}
	return out
}

// servedOf is what one aim of a route has served.
func servedOf(r proxy.Report, route, aim string) (out tender.Served) {
	for _, x := range r.Routes {
		if x.ID != route {
			continue
		}
		for _, t := range x.Targets {
			if t.Aim == aim {
				out = out.Plus(t.Served)
			}
		}
	}
	return out
}

func aimsOf(routes []tender.Route, project, id string) []tender.Aim {
	for _, r := range routes {
		if r.ID(project) == id {
			return r.Aims
		}
	}
	return nil
}

// weigh gives aims shares in percent; the others share the rest as they did
// before, or equally where they had nothing. weights are those that stand now;
// nil: the file's.
func weigh(aims []tender.Aim, weights map[string]int, percents map[string]int) map[string]int {
	now := weightsOf(aims, store.RouteState{Weights: weights})
	left, others, n := 100, 0, 0
	for _, a := range aims {
		if p, ok := percents[a.Name()]; ok {
			left -= p
			continue
		}
		others += now[a.Name()]
		n++
	}
	out := map[string]int{}
	for _, a := range aims {
		name := a.Name()
		p, said := percents[name]
		switch {
		case said && n == 0:
			out[name] = p
		case said && others > 0:
			out[name] = p * others
		case said:
			out[name] = p * n
		case others > 0:
			out[name] = max(left, 0) * now[name]
		default:
			out[name] = max(left, 0)
		}
	}
	return reduced(out)
}

// reduced divides weights by what all of them have in common.
func reduced(weights map[string]int) map[string]int {
	common := 0
	for _, w := range weights {
		for a, b := common, w; ; a, b = b, a%b {
			if b == 0 {
				common = a
				break
			}
		}
	}
	if common > 1 {
		for name := range weights {
			weights[name] /= common
		}
	}
	return weights
}
