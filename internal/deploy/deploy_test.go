package deploy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/store"
)

func healthy(s *tender.Service) { s.Healthcheck = 1 }

func TestFirstDeployInDependencyOrder(t *testing.T) {
	inTime(t, func(r *rig) {
		r.fake.Behave("db", enginetest.Behaviour{Warmup: 3 * time.Second})
		r.fake.Behave("migrate", enginetest.Behaviour{Ends: true, After: 2 * time.Second})
		out := r.up(submission(
			svc("db", "1", 1, healthy),
			svc("migrate", "1", 1, func(s *tender.Service) {
				s.Job = true
				s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Healthy, Required: true}}
			}),
			svc("web", "1", 3, func(s *tender.Service) {
				s.DependsOn = []tender.Dependency{{Service: "migrate", Condition: tender.Completed, Required: true}}
			}),
		))
		r.outcome(out, deploy.Converged)
		r.want(r.there(), `shop-db-1 1 running healthy
shop-migrate-1 1 exited
shop-web-1 1 running
shop-web-2 1 running
shop-web-3 1 running`)
		if s := r.state("migrate").State; s != "done" {
			r.Errorf("migrate is %s", s)
		}
		var order []string
		for _, line := range r.fake.History() {
			if name, _, ok := strings.Cut(strings.TrimPrefix(line, "scale "), "@"); ok {
				order = append(order, name)
			}
		}
		r.want(strings.Join(order, " "), "db migrate web")
	})
}

func TestRollingStartFirst(t *testing.T) {
	inTime(t, func(r *rig) {
		r.fake.Behave("web", enginetest.Behaviour{Warmup: 2 * time.Second})
		r.outcome(r.up(submission(svc("web", "1", 3, healthy))), deploy.Converged)
		r.outcome(r.up(submission(svc("web", "2", 3, healthy))), deploy.Converged)
		r.want(r.there(), `shop-web-1 2 running healthy
shop-web-2 2 running healthy
shop-web-3 2 running healthy`)
		list, err := r.loop.Rollouts(r.Context(), "shop", "web")
		if err != nil {
			r.Fatal(err)
		}
		if len(list) != 2 || list[0].State != store.RolloutDone || list[0].Strategy != "rolling start-first" || list[1].Strategy != "first deploy" {
			r.Errorf("rollouts: %+v", list)
		}
		full, err := r.loop.Rollout(r.Context(), list[0].ID)
		if err != nil || len(full.Steps) < 9 {
			r.Errorf("proof: %+v, %v", full.Steps, err)
		}
		a, err := r.loop.Accept(r.Context(), submission(svc("web", "2", 3, healthy)))
		if err != nil || !a.Nothing {
			r.Errorf("the same again: %+v, %v", a, err)
		}
	})
}

func TestRollingStopFirstCarriesAnonymousVolumes(t *testing.T) {
	inTime(t, func(r *rig) {
		one := submission(svc("db", "1", 1, nil))
		one.Images["db"] = tender.ImageID{Reference: "db:1", ID: "sha256:1", Volumes: []string{"/data"}}
		r.outcome(r.up(one), deploy.Converged)
		before := r.instances("db")[0].Anonymous
		two := submission(svc("db", "2", 1, nil))
		two.Images["db"] = tender.ImageID{Reference: "db:2", ID: "sha256:2", Volumes: []string{"/data"}}
		r.outcome(r.up(two), deploy.Converged)
		r.want(r.there(), "shop-db-1 2 running")
		if now := r.instances("db")[0].Anonymous; len(now) != 1 || now[0] != before[0] {
			r.Errorf("volumes %v, before %v", now, before)
		}
	})
}

func TestBadRevisionGoesBackByItself(t *testing.T) {
	for name, bad := range map[string]enginetest.Behaviour{
		"exits":            {Health: true, Warmup: 5 * time.Second, Ends: true, After: time.Second, Code: 1},
		"is unhealthy":     {Sick: true, Warmup: 10 * time.Second, Health: true},
		"cannot be made":   {ScaleErr: tender.Errorf(tender.Conflict, "port 80 is in use")},
		"never is healthy": {Health: true, Warmup: 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(r *rig) {
				r.outcome(r.up(submission(svc("web", "1", 2, healthy))), deploy.Converged)
				next := submission(svc("web", "2", 2, healthy))
				p, err := r.loop.Preview(r.Context(), next)
				if err != nil {
					r.Fatal(err)
				}
				r.fake.Behave("web@"+p.Verdicts[0].To, bad)
				r.outcome(r.up(next), deploy.BackAgain)
				r.want(r.there(), "shop-web-1 1 running healthy\nshop-web-2 1 running healthy")
				list, err := r.loop.Rollouts(r.Context(), "shop", "web")
				if err != nil {
					r.Fatal(err)
				}
				if len(list) != 3 || list[1].State != store.RolledBack || list[0].State != store.RolloutDone || !list[0].Reverse {
					r.Errorf("rollouts: %+v", list)
				}
				calls := r.fake.Calls()["Scale"]
				after(time.Hour)
				if n := r.fake.Calls()["Scale"]; n != calls {
					r.Errorf("the rejected revision was tried again: %v", r.fake.History())
				}
			})
		})
	}
}

func TestFirstDeployThatFailsIsLeftAndGivenUp(t *testing.T) {
	inTime(t, func(r *rig) {
		r.fake.Behave("web", enginetest.Behaviour{Health: true, Warmup: 5 * time.Second, Ends: true, After: time.Second, Code: 7})
		out := r.up(submission(svc("web", "1", 1, nil)))
		r.outcome(out, deploy.Failed)
		r.want(r.there(), "shop-web-1 1 exited")
		after(time.Hour)
		s := r.state("web")
		if s.State != "failed" || s.GaveUp.IsZero() || s.Tries != 10 || len(s.Problems) == 0 {
			r.Errorf("state %+v", s)
		}
		if n := r.fake.Calls()["Start"]; n != 10 {
			r.Errorf("started %d times", n)
		}
		// An explicit up tries it again.
		r.fake.Behave("web", enginetest.Behaviour{})
		r.outcome(r.up(submission(svc("web", "1", 1, nil))), deploy.Converged)
	})
}

func TestRepair(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(r.up(submission(svc("web", "1", 2, healthy))), deploy.Converged)
		whole := r.there()
		for name, harm := range map[string]func(id string){
			"killed":  r.fake.Kill,
			"removed": r.fake.Vanish,
			"drifted": func(id string) { r.fake.Update(id, func(i *tender.Instance) { i.Drift = "memory limit" }) },
			"sick": func(id string) {
				r.fake.Update(id, func(i *tender.Instance) { i.Health = tender.Unhealthy })
			},
		} {
			harm(r.instances("web")[0].ID)
			after(2 * time.Minute)
			if got := r.there(); got != whole {
				r.Errorf("%s was not repaired:\n%s", name, got)
			}
		}
		id := r.instances("web")[0].ID
		r.fake.Update(id, func(i *tender.Instance) { i.State = tender.Paused })
		after(time.Minute)
		if r.instances("web")[0].State != tender.Paused {
			r.Errorf("a paused instance was touched")
		}
	})
}

func TestScaleStopStartDown(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(r.up(submission(svc("db", "1", 1, nil), svc("web", "1", 2, func(s *tender.Service) {
			s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Started, Required: true}}
		}))), deploy.Converged)
		r.outcome(r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 4}}), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running\nshop-web-1 1 running\nshop-web-2 1 running\nshop-web-3 1 running\nshop-web-4 1 running")
		r.outcome(r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 1}}), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running\nshop-web-1 1 running")
		r.outcome(r.change(deploy.Change{Verb: "stop"}), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 exited\nshop-web-1 1 exited")
		after(time.Hour)
		r.want(r.there(), "shop-db-1 1 exited\nshop-web-1 1 exited")
		r.outcome(r.change(deploy.Change{Verb: "start", Services: []string{"web"}}), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running\nshop-web-1 1 running")
		started := r.instances("web")[0].Started
		after(time.Second)
		r.outcome(r.change(deploy.Change{Verb: "restart", Services: []string{"web"}}), deploy.Converged)
		if !r.instances("web")[0].Started.After(started) {
			r.Errorf("web was not restarted")
		}
		r.fake.AddVolume(tender.Volume{Name: "shop_data", Project: "shop", Key: "data"})
		r.outcome(r.change(deploy.Change{Verb: "down", Volumes: true}), deploy.Converged)
		r.want(r.there(), "")
		p, err := r.fake.List(r.Context())
		if err != nil || len(p.Networks) > 0 || len(p.Volumes) > 0 {
			r.Errorf("left over: %+v %v", p, err)
		}
		history := strings.Join(r.fake.History(), "\n")
		if strings.Index(history, "remove web") > strings.Index(history, "remove db") {
			r.Errorf("db went before web:\n%s", history)
		}
		r.outcome(r.up(submission(svc("db", "1", 1, nil))), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running")
	})
}

func TestEngineErrorsAndAbsence(t *testing.T) {
	inTime(t, func(r *rig) {
		r.fake.Behave("web", enginetest.Behaviour{ScaleErr: errors.New("no space left"), ScaleErrs: 2})
		r.outcome(r.up(submission(svc("web", "1", 1, nil))), deploy.Converged)
		r.fake.Break(errors.New("connection refused"))
		after(5 * time.Minute)
		r.fake.Break(nil)
		after(time.Minute)
		r.fake.Vanish(r.instances("web")[0].ID)
		after(time.Minute)
		r.want(r.there(), "shop-web-1 1 running")
	})
}

func TestTwoUpsAtOnce(t *testing.T) {
	inTime(t, func(r *rig) {
		r.fake.Behave("web", enginetest.Behaviour{Warmup: time.Minute})
		r.outcome(r.up(submission(svc("web", "1", 2, healthy))), deploy.Converged)
		second, err := r.loop.Accept(r.Context(), submission(svc("web", "2", 2, healthy)))
		if err != nil {
			r.Fatal(err)
		}
		after(10 * time.Second)
		third := submission(svc("web", "3", 2, healthy))
		_, err = r.loop.Accept(r.Context(), third)
		if tender.KindOf(err) != tender.Conflict || !strings.Contains(err.Error(), "ann") || tender.AdviceOf(err) == "" {
			r.Fatalf("a second up: %v", err)
		}
		third.Supersede = true
		r.outcome(r.up(third), deploy.Converged)
		r.outcome(r.follow(second.Generation), deploy.Superseded)
		r.want(r.there(), "shop-web-1 3 running healthy\nshop-web-2 3 running healthy")
		list, _ := r.loop.Rollouts(r.Context(), "shop", "web")
		if list[1].State != store.RolloutSuperseded || list[0].From == list[1].To {
			r.Errorf("rollouts: %+v", list)
		}
	})
}

func TestAdoption(t *testing.T) {
	inTime(t, func(r *rig) {
		r.fake.Adopt(tender.Instance{Project: "shop", Service: "db", Foreign: true, Slot: 1, Image: "db:1"}, true, "")
		r.fake.Adopt(tender.Instance{Project: "shop", Service: "job", Foreign: true, Slot: 1, Image: "job:1", State: tender.Exited}, true, "")
		r.fake.Adopt(tender.Instance{Project: "shop", Service: "web", Foreign: true, Slot: 1, Image: "web:0"}, false, "image")
		after(time.Second)
		job := func(s *tender.Service) { s.Job = true }
		s := submission(svc("db", "1", 1, nil), svc("job", "1", 1, job), svc("web", "1", 1, nil))
		p, err := r.loop.Preview(r.Context(), s)
		if err != nil || len(p.Verdicts) != 3 || p.Verdicts[0].Verdict != "adopt" || p.Verdicts[1].Verdict != "adopt" || p.Verdicts[2].Verdict != "replace" {
			r.Fatalf("preview: %+v %v", p, err)
		}
		r.outcome(r.up(s), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running foreign\nshop-job-1 1 exited foreign\nshop-web-1 1 running")
		// What was adopted is proven: a bad successor goes back to it.
		bad := submission(svc("db", "2", 1, nil), svc("job", "1", 1, job), svc("web", "1", 1, nil))
		if p, err = r.loop.Preview(r.Context(), bad); err != nil {
			r.Fatal(err)
		}
		r.fake.Behave("db@"+p.Verdicts[0].To, enginetest.Behaviour{Ends: true, Code: 1})
		r.outcome(r.up(bad), deploy.BackAgain)
		r.want(r.there(), "shop-db-1 1 running foreign\nshop-job-1 1 exited foreign\nshop-web-1 1 running")
		r.fake.Vanish(r.instances("db")[0].ID)
		after(time.Minute)
		r.want(r.there(), "shop-db-1 1 running\nshop-job-1 1 exited foreign\nshop-web-1 1 running")
		if _, err := r.loop.Change(r.Context(), "ann", "shop", deploy.Change{Verb: "release"}); err != nil {
			r.Fatal(err)
		}
		r.fake.Vanish(r.instances("web")[0].ID)
		after(time.Hour)
		r.want(r.there(), "shop-db-1 1 running\nshop-job-1 1 exited foreign")
		r.outcome(r.up(s), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running\nshop-job-1 1 exited foreign\nshop-web-1 1 running")
	})
}

// After a down the project's name is free: what Docker Compose makes under it
// was once taken down as well, network by network.
func TestWhatComesAfterADownIsNotOurs(t *testing.T) {
	inTime(t, func(r *rig) {
		s := submission(svc("db", "1", 1, nil), svc("web", "1", 1, nil))
		r.outcome(r.up(s), deploy.Converged)
		r.outcome(r.change(deploy.Change{Verb: "down", Services: []string{"web"}}), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running")
		after(time.Second)
		r.fake.Adopt(tender.Instance{Project: "shop", Service: "web", Foreign: true, Slot: 1, Image: "web:1"}, true, "")
		after(time.Hour)
		r.want(r.there(), "shop-db-1 1 running\nshop-web-1 1 running foreign")
		r.outcome(r.change(deploy.Change{Verb: "down"}), deploy.Converged)
		r.want(r.there(), "")

		after(time.Second)
		r.fake.Adopt(tender.Instance{Project: "shop", Service: "db", Foreign: true, Slot: 1, Image: "db:1"}, true, "")
		after(time.Hour)
		r.want(r.there(), "shop-db-1 1 running foreign")
		if p, err := r.loop.Project(r.Context(), "shop"); err != nil || !p.Foreign {
			r.Errorf("the project: %+v %v", p, err)
		}
		r.outcome(r.up(s), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running foreign\nshop-web-1 1 running")
		r.outcome(r.change(deploy.Change{Verb: "down"}), deploy.Converged)
		r.want(r.there(), "")
	})
}
