package deploy_test

import (
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/plan"
)

// ordered services with a database that takes 20 s to come.
func ordered(r *rig) deploy.Outcome {
	r.fake.Behave("db", enginetest.Behaviour{Warmup: 20 * time.Second})
	return r.up(submission(
		svc("db", "1", 1, func(s *tender.Service) { s.Healthcheck, s.Restart, s.Boot = 1, "always", tender.BootOrdered }),
		svc("web", "1", 2, func(s *tender.Service) {
			s.Restart, s.Boot = "unless-stopped", tender.BootOrdered
			s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Healthy, Required: true}}
		}),
	))
}

func TestAnOrderedBootStartsNothingBeforeItsDependency(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(ordered(r), deploy.Converged)
		boot := time.Now()
		r.fake.Reboot()
		r.want(r.there(), "shop-db-1 1 exited\nshop-web-1 1 exited\nshop-web-2 1 exited")
		time.Sleep(time.Minute)
		r.want(r.there(), "shop-db-1 1 running healthy\nshop-web-1 1 running\nshop-web-2 1 running")
		db := r.instances("db")[0].Started
		for _, i := range r.instances("web") {
			if i.Started.Before(db.Add(20 * time.Second)) {
				r.Errorf("%s was started %s after the boot, db %s", i.Name, i.Started.Sub(boot), db.Sub(boot))
			}
		}
	})
}

func TestWithoutAnOrderTheEngineBoots(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(r.up(submission(svc("web", "1", 1, func(s *tender.Service) { s.Restart = "always" }))), deploy.Converged)
		r.stop()
		r.fake.Reboot()
		r.want(r.there(), "shop-web-1 1 running")
	})
}

func TestWhatIsOrderedIsRestartedAsOftenAsItEnds(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(ordered(r), deploy.Converged)
		r.fake.Behave("db", enginetest.Behaviour{Ends: true, After: time.Second})
		starts := r.fake.Calls()["Start"]
		r.fake.Crash(r.instances("db")[0].ID, 0)
		time.Sleep(time.Hour)
		if n := r.fake.Calls()["Start"] - starts; n <= plan.GiveUp || n > 70 {
			r.Errorf("%d starts in an hour of exits", n)
		}
		r.fake.Behave("db", enginetest.Behaviour{})
		time.Sleep(2 * time.Minute)
		r.want(r.there(), "shop-db-1 1 running healthy\nshop-web-1 1 running\nshop-web-2 1 running")
	})
}
