package deploy_test

import (
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine/enginetest"
)

// soon fails the test if what it does takes more than a few minutes.
func (r *rig) soon(what string, do func()) {
	r.Helper()
	began := time.Now()
	do()
	if took := time.Since(began); took > 5*time.Minute {
		r.Errorf("%s took %s", what, took)
	}
}

func TestNobodyWaitsForAClockThatWasSetBack(t *testing.T) {
	inTime(t, func(r *rig) {
		// To us, whose own time only goes forward, what the engine wrote down before its clock
		// was set back lies hours ahead.
		ahead := 3 * time.Hour
		setBack := func() { ahead -= time.Hour; r.fake.SetClock(ahead) }
		r.fake.SetClock(ahead)
		hold := 10 * time.Second
		services := func(version string) deploy.Submission {
			return submission(svc("db", "1", 1, nil), svc("web", version, 3, func(s *tender.Service) {
				s.Rollout.Hold = &hold
				s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Started, Required: true, Restart: true}}
			}))
		}
		r.outcome(r.up(services("1")), deploy.Converged)

		a, err := r.loop.Accept(r.Context(), services("2"))
		if err != nil {
			r.Fatal(err)
		}
		after(15 * time.Second) // one newcomer is held, or the next one
		setBack()
		r.soon("the rollout", func() { r.outcome(r.follow(a.Generation), deploy.Converged) })

		// Attempts in a row are counted and forgotten as ever, and pauses are as long as ever.
		r.fake.Behave("web", enginetest.Behaviour{Ends: true, After: time.Second, Code: 1})
		victim := r.instances("web")[0].ID
		r.fake.Crash(victim, 1)
		after(20 * time.Second)
		if n := r.state("web").Tries; n < 2 {
			r.Errorf("%d attempts", n)
		}
		setBack()
		r.fake.Behave("web", enginetest.Behaviour{})
		after(3 * time.Minute)
		if s := r.state("web"); s.State != "healthy" || s.Tries != 0 {
			r.Errorf("web is %s after %d attempts: %s", s.State, s.Tries, s.Detail)
		}

		setBack()
		starts := r.fake.Calls()["Restart"]
		r.soon("a restart", func() {
			r.outcome(r.change(deploy.Change{Verb: "restart", Services: []string{"db"}}), deploy.Converged)
		})
		after(10 * time.Minute)
		if n := r.fake.Calls()["Restart"] - starts; n != 4 { // db, and the three that restart with it
			r.Errorf("%d restarts: %v", n, r.fake.History())
		}
		r.soon("down", func() { r.outcome(r.change(deploy.Change{Verb: "down"}), deploy.Converged) })
	})
}

// The engine's clock may be anybody's: what is restarted, started and removed by
// request is told by its life, not by whose clock says before.
func TestTheClockOfTheEngineNeedNotBeOurs(t *testing.T) {
	for name, skew := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(r *rig) {
				r.fake.SetClock(skew)
				r.fake.Adopt(tender.Instance{Project: "shop", Service: "db", Slot: 1, Foreign: true}, true, "")
				always := func(s *tender.Service) { s.Restart = "always" }
				r.outcome(r.up(submission(svc("db", "1", 1, always), svc("web", "1", 2, nil))), deploy.Converged)
				for range 2 {
					before := r.instances("web")
					r.soon("a restart", func() { r.outcome(r.change(deploy.Change{Verb: "restart"}), deploy.Converged) })
					after(5 * time.Minute)
					for k, i := range r.instances("web") {
						if i.ID != before[k].ID || i.Started.Equal(before[k].Started) {
							r.Errorf("%s was started at %s, and at %s before", i.Name, i.Started, before[k].Started)
						}
					}
				}
				if n := r.fake.Calls()["Restart"]; n != 6 {
					r.Errorf("%d restarts", n)
				}
				r.outcome(r.change(deploy.Change{Verb: "stop"}), deploy.Converged)
				r.soon("a start", func() { r.outcome(r.change(deploy.Change{Verb: "start"}), deploy.Converged) })
				r.want(r.there(), "shop-db-1  running foreign\nshop-web-1 1 running\nshop-web-2 1 running")
				r.outcome(r.change(deploy.Change{Verb: "down"}), deploy.Converged)
				r.want(r.there(), "")
			})
		})
	}
}
