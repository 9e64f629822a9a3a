package deploy_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/store"
)

// web is three instances of service web.
func web(version string, change func(*tender.Rollout)) deploy.Submission {
	s := submission(svc("web", version, 3, func(s *tender.Service) {
		s.Healthcheck, s.Networks = 1, []string{"shop_default"}
		if change != nil {
			change(&s.Rollout)
		}
	}))
	s.Project.Routes = []tender.Route{{Service: "web", Path: "/", Aims: []tender.Aim{{Service: "web", Weight: 1}}}}
	return s
}

func blueGreen(r *tender.Rollout) {
	r.Strategy, r.Check = tender.BlueGreen, []tender.Check{{Path: "/"}, {Path: "/health"}}
}

func canary(r *tender.Rollout) { r.Strategy, r.Pause = tender.Canary, 20*time.Second }

// last returns the newest rollout of web, or the one before and so on.
func (r *rig) last(back int) store.Rollout {
	r.Helper()
	list, err := r.loop.Rollouts(r.Context(), "shop", "web")
	if err != nil || len(list) <= back {
		r.Fatalf("rollouts: %v %v", list, err)
	}
	return list[back]
}

// accept begins something and does not wait for its end.
func (r *rig) begin(s deploy.Submission) int {
	r.Helper()
	a, err := r.loop.Accept(r.Context(), s)
	if err != nil {
		r.Fatal(err)
	}
	return a.Generation
}

// until lets time pass until the edge serves with these shares.
func (r *rig) until(split string) {
	r.Helper()
	for range 10_000 {
		if r.split() == split {
			return
		}
		after(beat)
	}
	p, _ := r.loop.Project(r.Context(), "shop")
	r.Fatalf("the edge serves %q, want %q; there is\n%s\nplan:\n%s", r.split(), split, r.there(), p.Plan)
}

func (r *rig) proof(back int) *store.Proof {
	r.Helper()
	p := r.last(back).Proof
	if p == nil {
		r.Fatal("the rollout has no proof")
	}
	return p
}

func TestRollingLosesNothing(t *testing.T) {
	withEdge(t, func(r *rig) {
		r.fake.Behave("web", enginetest.Behaviour{Warmup: 2 * time.Second})
		r.outcome(r.up(web("1", nil)), deploy.Converged)
		r.want(r.split(), "1:1000")
		r.outcome(r.up(web("2", nil)), deploy.Converged)
		r.want(r.split(), "2:1000")
		p := r.proof(0)
		if len(p.Drains) != 3 || p.Drains[0].Took < underway || p.Drains[0].Cut > 0 || len(p.Health) != 3 || p.Health[0].State != "healthy" ||
			len(p.Served) != 2 || p.Served[0].Served.Requests == 0 || p.Served[1].Served.Requests == 0 || p.Partial {
			r.Errorf("proof: %+v", p)
		}
		r.want(strings.Join(strings.Fields(p.Verdict)[:1], ""), "done;")
		r.outcome(r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 5}}), deploy.Converged)
		r.outcome(r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 2}}), deploy.Converged)
		r.outcome(r.change(deploy.Change{Verb: "restart"}), deploy.Converged)
		r.fake.Update(r.instances("web")[0].ID, func(i *tender.Instance) { i.Drift = "memory limit" })
		after(time.Minute)
		r.outcome(r.up(web("3", func(r *tender.Rollout) { r.Order = "stop-first" })), deploy.Converged)
		r.nothingLost()
		r.edge.set(func() { r.edge.idle = true })
		r.outcome(r.change(deploy.Change{Verb: "stop"}), deploy.Converged)
		r.outcome(r.change(deploy.Change{Verb: "down"}), deploy.Converged)
		r.nothingLost()
	})
}

// What is under way longer than stop_grace_period is cut, and the proof says so.
func TestDrainIsBounded(t *testing.T) {
	withEdge(t, func(r *rig) {
		one := func(version string) deploy.Submission {
			return submission(svc("web", version, 1, func(s *tender.Service) { s.Healthcheck, s.Grace = 1, 300*time.Millisecond }))
		}
		r.outcome(r.up(one("1")), deploy.Converged)
		r.outcome(r.up(one("2")), deploy.Converged)
		if d := r.proof(0).Drains; len(d) != 1 || d[0].Cut != 3 || d[0].Took < 300*time.Millisecond {
			r.Errorf("drains: %+v", d)
		}
	})
}

func TestBlueGreen(t *testing.T) {
	withEdge(t, func(r *rig) {
		keep := func(x *tender.Rollout) { blueGreen(x); x.Keep = 10 * time.Minute }
		r.fake.Behave("web", enginetest.Behaviour{Warmup: 2 * time.Second})
		r.outcome(r.up(web("1", keep)), deploy.Converged)
		n := r.begin(web("2", keep))
		r.until("1:1000 2:0")
		r.outcome(r.follow(n), deploy.Converged)
		r.until("1:0 2:1000")
		if r.last(0).Strategy != tender.BlueGreen || len(r.edge.asked) != 2 {
			r.Errorf("%s, asked %v", r.last(0).Strategy, r.edge.asked)
		}
		if n := len(r.instances("web")); n != 6 {
			r.Errorf("%d instances while the old ones are kept", n)
		}
		if s := r.state("web"); s.State != "healthy" {
			r.Errorf("state: %+v", s)
		}
		// The way back is one swap.
		began := time.Now()
		back, err := r.loop.Change(r.Context(), "ann", "shop", deploy.Change{Verb: "rollback"})
		if err != nil {
			r.Fatal(err)
		}
		r.until("1:1000")
		if took := time.Since(began); took >= time.Second {
			r.Errorf("the way back took %s", took)
		}
		r.outcome(r.follow(back.Generation), deploy.Converged)
		r.want(r.there(), "shop-web-1 1 running healthy\nshop-web-2 1 running healthy\nshop-web-3 1 running healthy")
		// What is kept goes by itself.
		r.outcome(r.up(web("3", keep)), deploy.Converged)
		after(9 * time.Minute)
		r.want(r.split(), "1:0 3:1000")
		after(2 * time.Minute)
		r.want(r.split(), "3:1000")
		r.want(r.there(), "shop-web-1 3 running healthy\nshop-web-2 3 running healthy\nshop-web-3 3 running healthy")
		// And at the next rollout.
		r.outcome(r.up(web("4", keep)), deploy.Converged)
		r.outcome(r.up(web("5", keep)), deploy.Converged)
		after(time.Second)
		r.want(r.split(), "4:0 5:1000")
		r.nothingLost()
	})
}

func TestBlueGreenThatIsNotGoodGetsNothing(t *testing.T) {
	for name, bad := range map[string]func(r *rig){
		"a check fails":          func(r *rig) { r.edge.answers["2"] = errors.New("answered 500, want 200") },
		"the edge cannot serve":  func(r *rig) { r.edge.refuse["2"] = true },
		"one never gets healthy": func(r *rig) { r.fake.Behave("web", enginetest.Behaviour{Sick: true, Warmup: time.Second}) },
	} {
		t.Run(name, func(t *testing.T) {
			withEdge(t, func(r *rig) {
				r.outcome(r.up(web("1", blueGreen)), deploy.Converged)
				r.edge.set(func() { bad(r) })
				out := r.up(web("2", blueGreen))
				r.outcome(out, deploy.BackAgain)
				r.want(r.there(), "shop-web-1 1 running healthy\nshop-web-2 1 running healthy\nshop-web-3 1 running healthy")
				if p := r.proof(1); len(p.Served) != 2 || p.Served[1].Served.Requests > 0 || !strings.HasPrefix(p.Verdict, "rolled back: ") {
					r.Errorf("proof: %+v", p)
				}
				r.nothingLost()
			})
		})
	}
}

func TestCanaryGoesOn(t *testing.T) {
	withEdge(t, func(r *rig) {
		r.outcome(r.up(web("1", canary)), deploy.Converged)
		began := time.Now()
		n := r.begin(web("2", canary))
		for _, split := range []string{"1:950 2:50", "1:750 2:250", "1:500 2:500", "2:1000"} {
			r.until(split)
		}
		r.outcome(r.follow(n), deploy.Converged)
		if took := time.Since(began); took < time.Minute {
			r.Errorf("three steps of 20 s took %s", took)
		}
		r.want(r.there(), "shop-web-1 2 running healthy\nshop-web-2 2 running healthy\nshop-web-3 2 running healthy")
		if shifts := r.last(0).Shifts; len(shifts) != 4 {
			r.Errorf("shifts: %+v", shifts)
		}
		r.nothingLost()
	})
}

func TestCanaryGoesBack(t *testing.T) {
	for name, tt := range map[string]struct {
		bad  func(*edge)
		want string
	}{
		"errors":  {func(e *edge) { e.faults["2"] = .2 }, "requests failed"},
		"latency": {func(e *edge) { e.slow["2"] = 10 }, "p99 is 2.5s, above 500ms"},
	} {
		t.Run(name, func(t *testing.T) {
			withEdge(t, func(r *rig) {
				slow := func(x *tender.Rollout) { canary(x); x.AbortP99 = 500 * time.Millisecond }
				r.outcome(r.up(web("1", slow)), deploy.Converged)
				r.edge.set(func() { tt.bad(r.edge) })
				out := r.up(web("2", slow))
				r.outcome(out, deploy.BackAgain)
				if !strings.Contains(out.Text, tt.want) {
					r.Errorf("reason: %s", out.Text)
				}
				r.want(r.there(), "shop-web-1 1 running healthy\nshop-web-2 1 running healthy\nshop-web-3 1 running healthy")
				r.want(r.split(), "1:1000")
				r.nothingLost()
			})
		})
	}
}

// Both fail: the newcomer is not to blame.
func TestCanaryIsHeldAgainstTheOldRevision(t *testing.T) {
	withEdge(t, func(r *rig) {
		r.outcome(r.up(web("1", canary)), deploy.Converged)
		r.edge.set(func() { r.edge.faults["1"], r.edge.faults["2"] = .2, .2 })
		r.outcome(r.up(web("2", canary)), deploy.Converged)
		r.nothingLost()
	})
}

func TestCanaryIsHeldAndSteered(t *testing.T) {
	withEdge(t, func(r *rig) {
		r.outcome(r.up(web("1", canary)), deploy.Converged)
		next := web("2", canary)
		next.Hold = true
		n := r.begin(next)
		for _, split := range []string{"1:950 2:50", "1:750 2:250"} {
			r.until(split)
			after(10 * time.Minute)
			r.want(r.split(), split)
			if _, err := r.loop.Steer(r.Context(), "bob", r.last(0).ID, deploy.Resume); err != nil {
				r.Fatal(err)
			}
		}
		r.until("1:500 2:500")
		if _, err := r.loop.Steer(r.Context(), "bob", r.last(0).ID, deploy.Abort); err != nil {
			r.Fatal(err)
		}
		out := r.follow(n)
		r.outcome(out, deploy.BackAgain)
		if !strings.Contains(out.Text, "aborted by bob") {
			r.Errorf("reason: %s", out.Text)
		}
		r.want(r.split(), "1:1000")
		_, err := r.loop.Steer(r.Context(), "bob", r.last(1).ID, deploy.Resume)
		if tender.KindOf(err) != tender.Conflict || tender.AdviceOf(err) == "" {
			r.Errorf("steering what has ended: %v", err)
		}
		// A rollout that was not begun so can be held as well.
		n = r.begin(web("3", canary))
		r.until("1:950 3:50")
		if _, err := r.loop.Steer(r.Context(), "bob", r.last(0).ID, deploy.Hold); err != nil {
			r.Fatal(err)
		}
		after(10 * time.Minute)
		r.want(r.split(), "1:950 3:50")
		if _, err := r.loop.Steer(r.Context(), "bob", r.last(0).ID, deploy.Resume); err != nil {
			r.Fatal(err)
		}
		r.outcome(r.follow(n), deploy.Converged)
		r.nothingLost()
	})
}

func TestSupersedingACanaryRetiresIt(t *testing.T) {
	withEdge(t, func(r *rig) {
		r.outcome(r.up(web("1", canary)), deploy.Converged)
		r.begin(web("2", canary))
		r.until("1:750 2:250")
		next := web("3", canary)
		next.Supersede = true
		n := r.begin(next)
		r.until("1:950 3:50")
		if strings.Contains(r.there(), " 2 ") {
			r.Errorf("there is still\n%s", r.there())
		}
		r.outcome(r.follow(n), deploy.Converged)
		r.nothingLost()
	})
}

// failure_action pause leaves the traffic as it was.
func TestPausedCanaryKeepsItsShare(t *testing.T) {
	withEdge(t, func(r *rig) {
		paused := func(x *tender.Rollout) { canary(x); x.Failure = "pause" }
		r.outcome(r.up(web("1", paused)), deploy.Converged)
		r.edge.set(func() { r.edge.faults["2"] = .2 })
		r.outcome(r.up(web("2", paused)), deploy.Failed)
		split := r.split()
		if !strings.HasPrefix(split, "1:") || !strings.Contains(split, " 2:") {
			r.Errorf("paused at %s", split)
		}
		after(10 * time.Minute)
		r.want(r.split(), split)
		r.nothingLost()
	})
}

func TestEdgeAway(t *testing.T) {
	withEdge(t, func(r *rig) {
		r.outcome(r.up(web("1", nil)), deploy.Converged)
		r.edge.set(func() { r.edge.away = "connection refused" })
		began := time.Now()
		out := r.up(web("2", nil))
		r.outcome(out, deploy.Converged)
		if took := time.Since(began); took < time.Minute || took > 10*time.Minute {
			r.Errorf("without an edge it took %s", took)
		}
		if d := r.proof(0).Drains; len(d) != 3 || !strings.Contains(d[0].Skipped, "connection refused") {
			r.Errorf("drains: %+v", d)
		}
		r.edge.set(func() { r.edge.away = "" })
		r.until("2:1000")
		// One that takes nothing over is as good as away.
		r.edge.set(func() { r.edge.deaf, r.edge.idle = true, true })
		r.outcome(r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 1}}), deploy.Converged)
		// And one that comes back in the middle is waited for.
		r.edge.set(func() { r.edge.deaf, r.edge.idle = false, false })
		r.until("2:1000")
		r.edge.set(func() { r.edge.away = "connection refused" })
		n := r.begin(web("3", nil))
		after(30 * time.Second)
		r.want(fmt.Sprint(len(r.instances("web"))), "2")
		r.edge.set(func() { r.edge.away = "" })
		r.outcome(r.follow(n), deploy.Converged)
	})
}

// Counts that began anew are called a part.
func TestProofSaysWhenItIsAPart(t *testing.T) {
	withEdge(t, func(r *rig) {
		r.outcome(r.up(web("1", canary)), deploy.Converged)
		n := r.begin(web("2", canary))
		r.until("1:750 2:250")
		r.edge.set(func() { clear(r.edge.counts); r.edge.since = time.Now() })
		r.outcome(r.follow(n), deploy.Converged)
		if p := r.proof(0); !p.Partial || !strings.Contains(p.Verdict, "a part") {
			r.Errorf("proof: %+v", p)
		}
	})
}

func TestKilledAnywhereNothingIsLost(t *testing.T) {
	strategies := map[string]func(*tender.Rollout){"rolling": func(*tender.Rollout) {}, tender.BlueGreen: blueGreen, tender.Canary: canary}
	for name, strategy := range strategies {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) {
				withEdge(t, func(r *rig) { killedWithEdge(r, strategy, rand.New(rand.NewPCG(seed, 7))) })
			})
		}
	}
}

func killedWithEdge(r *rig, strategy func(*tender.Rollout), random *rand.Rand) {
	with := func(x *tender.Rollout) {
		strategy(x)
		if random.IntN(2) == 0 && x.Strategy != "" {
			x.Keep = time.Minute
		}
	}
	r.fake.Behave("web", enginetest.Behaviour{Warmup: time.Duration(random.IntN(3000)) * time.Millisecond})
	r.outcome(r.up(web("1", with)), deploy.Converged)
	bad := random.IntN(3) == 0
	if bad {
		r.edge.set(func() {
			r.edge.faults["2"], r.edge.answers["2"], r.edge.refuse["2"] = .5, errors.New("answered 500, want 200"), random.IntN(2) == 0
		})
	}
	r.stop()
	d := &deadly{Fake: r.fake, where: random.IntN(3)}
	r.engine = d
	r.start()
	n := r.begin(web("2", with))
	for range 1 + random.IntN(3) {
		d.kill = r.kill
		d.left.Store(int64(1 + random.IntN(8)))
		select {
		case <-r.dead:
		case <-time.After(time.Duration(random.IntN(60_000)) * time.Millisecond):
			r.kill()
		}
		r.stop()
		d.left.Store(0)
		after(time.Duration(random.IntN(5000)) * time.Millisecond)
		r.start()
	}
	out := r.follow(n)
	want := out.Outcome == deploy.Converged || bad && out.Outcome == deploy.BackAgain
	after(5 * time.Minute)
	version := "2"
	if out.Outcome == deploy.BackAgain {
		version = "1"
	}
	if !want {
		r.Errorf("outcome %s: %s", out.Outcome, out.Text)
	}
	r.want(r.there(), strings.ReplaceAll("shop-web-1 X running healthy\nshop-web-2 X running healthy\nshop-web-3 X running healthy", "X", version))
	r.want(r.split(), version+":1000")
	r.nothingLost()
}
