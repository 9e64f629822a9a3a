package deploy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/store"
)

func leading(to string, weight int, host string) tender.Route {
	return tender.Route{Service: to, Hosts: []string{host}, Path: "/", Aims: []tender.Aim{{Service: to, Port: 80, Weight: weight}, {URL: "http://old:80", Weight: 1}}}
}

func routed(s deploy.Submission, routes ...tender.Route) deploy.Submission {
	s.Project.Routes = routes
	s.Project.Spec = fmt.Appendf(s.Project.Spec, "routes: %v\n", routes)
	return s
}

func (r *rig) head() store.Generation {
	r.Helper()
	g, err := r.loop.Generation(r.Context(), "shop", 0)
	if err != nil {
		r.Fatal(err)
	}
	return g
}

func TestRoutesComeWithTheirService(t *testing.T) {
	inTime(t, func(r *rig) {
		both := func() []tender.Service { return []tender.Service{svc("api", "1", 1, nil), svc("web", "1", 1, nil)} }
		r.outcome(r.up(routed(submission(both()...), leading("web", 1, "web.example.com"), leading("api", 1, "api.example.com"))), deploy.Converged)
		before := r.instances("web")

		p, err := r.loop.Preview(r.Context(), routed(submission(both()...), leading("web", 5, "web.example.com"), leading("api", 1, "new.example.com")))
		if err != nil {
			r.Fatal(err)
		}
		r.want(fmt.Sprint(p.Routes, p.Nothing), "[{shop/web.example.com/ changed} {shop/new.example.com/ new} {shop/api.example.com/ goes}] false")

		// Asked for web alone, api keeps the route that it has.
		s := routed(submission(both()...), leading("web", 5, "web.example.com"), leading("api", 1, "new.example.com"))
		s.Services = []string{"web"}
		r.outcome(r.up(s), deploy.Converged)
		var ids []string
		for _, x := range r.head().Routes {
			ids = append(ids, fmt.Sprint(x.ID("shop"), x.Aims[0].Weight))
		}
		r.want(strings.Join(ids, " "), "shop/web.example.com/5 shop/api.example.com/1")
		if after := r.instances("web"); len(after) != 1 || after[0].ID != before[0].ID {
			r.Error("another route made another instance")
		}
		s.Services = nil
		r.outcome(r.up(s), deploy.Converged)
		if again, err := r.loop.Accept(r.Context(), s); err != nil || !again.Nothing {
			r.Errorf("the same again: %+v %v", again, err)
		}
	})
}

func TestAFileWithOtherTargetsTakesBackWhatWasShifted(t *testing.T) {
	inTime(t, func(r *rig) {
		var db *store.Store
		r.options = func(o *deploy.Options) { db = o.Store }
		r.stop()
		r.start()
		one := func(weight int) deploy.Submission {
			return routed(submission(svc("web", "1", 1, nil)), leading("web", weight, "web.example.com"))
		}
		r.outcome(r.up(one(1)), deploy.Converged)
		state := func() (out store.RouteState) {
			err := db.View(r.Context(), func(tx *store.Tx) (err error) {
				out, err = tx.RouteState("shop", "shop/web.example.com/")
				return err
			})
			if err != nil {
				r.Fatal(err)
			}
			return out
		}
		shifted := store.RouteState{Project: "shop", Route: "shop/web.example.com/", Weights: map[string]int{"web": 9}, Paused: &store.Pause{Who: "ann"}}
		if err := db.Update(r.Context(), func(tx *store.Tx) error { return tx.SetRouteState(shifted) }); err != nil {
			r.Fatal(err)
		}
		again := one(1)
		again.Recreate = true
		r.outcome(r.up(again), deploy.Converged)
		if s := state(); s.Weights["web"] != 9 || s.Paused == nil {
			r.Errorf("the same targets took back what was shifted: %+v", s)
		}
		r.outcome(r.up(one(2)), deploy.Converged)
		if s := state(); s.Weights != nil || s.Paused == nil {
			r.Errorf("other weights left what was shifted: %+v", s)
		}
		r.outcome(r.change(deploy.Change{Verb: "down"}), deploy.Converged)
		if s := state(); s.Paused != nil {
			r.Errorf("a down left %+v", s)
		}
	})
}

func TestNoTwoProjectsServeOnePlace(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(r.up(routed(submission(svc("web", "1", 1, nil)), leading("web", 1, "web.example.com"))), deploy.Converged)
		other := routed(submission(svc("web", "1", 1, nil)), leading("web", 1, "web.example.com"))
		other.Project.Name = "zoo"
		_, err := r.loop.Accept(r.Context(), other)
		if tender.KindOf(err) != tender.Conflict {
			r.Fatalf("want a conflict, got %v", err)
		}
		r.want(err.Error(), "project shop serves web.example.com at / already")
		r.outcome(r.change(deploy.Change{Verb: "down"}), deploy.Converged)
		if _, err := r.loop.Accept(r.Context(), other); err != nil {
			r.Errorf("after the down of the first: %v", err)
		}
	})
}

// hold gives the port of web to the edge where several instances would share it.
func hold(s tender.Service, held bool) (tender.Service, error) {
	if len(s.Ports) == 0 || s.Replicas < 2 && !held {
		return s, nil
	}
	s.Publish = tender.PublishProxy
	if !strings.HasSuffix(string(s.Spec), "held\n") {
		s.Spec = fmt.Appendf(slices.Clone(s.Spec), "held\n")
	}
	return s, nil
}

func TestPortsGoToTheEdgeAndStayThere(t *testing.T) {
	inTime(t, func(r *rig) {
		r.options = func(o *deploy.Options) { o.Hold = hold }
		r.stop()
		r.start()
		port := func(s *tender.Service) {
			s.Ports = []tender.Port{{HostPort: 80, Container: 80, Protocol: "tcp"}}
			s.OneAtATime = "host port 80"
		}
		web := func(n int) deploy.Submission { return submission(svc("web", "1", n, port)) }
		r.outcome(r.up(web(1)), deploy.Converged)
		first := r.head().Services[0].Service
		r.want(first.Publish, "")

		p, err := r.loop.Preview(r.Context(), web(3))
		if err != nil {
			r.Fatal(err)
		}
		if v := p.Verdicts[0]; v.Verdict != "replace" || v.Gap == "" {
			r.Errorf("a change of holder is planned with its gap: %+v", v)
		}
		r.outcome(r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 3}}), deploy.Converged)
		three := r.head().Services[0].Service
		if three.Publish != tender.PublishProxy || three.Revision == first.Revision || len(r.instances("web")) != 3 {
			r.Errorf("scaled to 3: publish %q, revision %s, was %s\n%s", three.Publish, three.Revision, first.Revision, r.there())
		}
		r.outcome(r.up(web(1)), deploy.Converged)
		if one := r.head().Services[0].Service; one.Publish != tender.PublishProxy || one.Revision != three.Revision {
			r.Errorf("back at one: publish %q, revision %s, was %s", one.Publish, one.Revision, three.Revision)
		}

		// Another project cannot have it meanwhile.
		other := web(2)
		other.Project.Name = "zoo"
		if _, err := r.loop.Accept(r.Context(), other); tender.KindOf(err) != tender.Conflict {
			r.Errorf("want a conflict, got %v", err)
		}
		// Nor can another service.
		both := submission(svc("api", "1", 2, port), svc("web", "1", 2, port))
		if _, err := r.loop.Accept(r.Context(), both); tender.KindOf(err) != tender.Invalid {
			r.Errorf("want invalid, got %v", err)
		}
	})
}
