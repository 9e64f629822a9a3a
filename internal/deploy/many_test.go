package deploy_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine/enginetest"
)

// named is a submission for another project than shop.
func named(project string, services ...tender.Service) deploy.Submission {
	s := submission(services...)
	s.Project.Name = project
	return s
}

func (r *rig) accept(s deploy.Submission) deploy.Accepted {
	r.Helper()
	a, err := r.loop.Accept(r.Context(), s)
	if err != nil {
		r.Fatalf("accept %s: %v", s.Project.Name, err)
	}
	return a
}

// A hundred projects at once, beside one all of whose actions hang: nobody waits
// for another, and at rest nothing is done for any of them.
func TestAHundredProjects(t *testing.T) {
	inTime(t, func(r *rig) {
		r.fake.Behave("hung", enginetest.Behaviour{Hang: true})
		r.fake.Behave("web", enginetest.Behaviour{Health: true, Warmup: 2 * time.Second, Slow: 200 * time.Millisecond})
		var hung []tender.Service
		for n := range 40 {
			hung = append(hung, svc(fmt.Sprintf("hung%02d", n), "1", 1, nil))
			r.fake.Behave(hung[n].Name, enginetest.Behaviour{Hang: true})
		}
		r.accept(named("hung", hung...))
		after(time.Second)

		const projects = 100
		name := func(n int) string { return fmt.Sprintf("p%02d", n) }
		began := time.Now()
		generations := make([]int, projects)
		for n := range projects {
			generations[n] = r.accept(named(name(n), svc("db", "1", 1, nil), svc("web", "1", 2, func(s *tender.Service) {
				s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Started, Required: true}}
			}))).Generation
		}
		most := runtime.NumGoroutine()
		for n := range projects {
			o, err := r.loop.Follow(r.Context(), name(n), generations[n], nil)
			if err != nil {
				r.Fatal(err)
			}
			r.outcome(o, deploy.Converged)
			most = max(most, runtime.NumGoroutine())
		}
		if took := time.Since(began); took > time.Minute {
			r.Errorf("a hundred projects took %s", took)
		}
		// A worker each, what it has begun, and no more.
		if limit := 10*projects + 200; most > limit {
			r.Errorf("%d goroutines", most)
		}

		// A repair in the last one waits for none of the others.
		began = time.Now()
		for _, i := range r.instances("db") {
			if i.Project == name(projects-1) {
				r.fake.Vanish(i.ID)
			}
		}
		after(5 * time.Second)
		o, err := r.loop.Follow(r.Context(), name(projects-1), generations[projects-1], nil)
		if err != nil || o.Outcome != deploy.Converged || time.Since(began) > 10*time.Second {
			r.Errorf("repair: %+v after %s, %v", o, time.Since(began), err)
		}

		// At rest: a picture now and then for all of them together, and nothing else.
		if _, err := r.loop.Change(r.Context(), "ann", "hung", deploy.Change{Verb: "down", Supersede: true}); err != nil {
			r.Fatal(err)
		}
		after(10 * time.Minute)
		before, idle := r.fake.Calls(), runtime.NumGoroutine()
		after(10 * time.Minute)
		for method, n := range r.fake.Calls() {
			limit := 0
			if method == "List" {
				limit = 21
			}
			if n-before[method] > limit {
				r.Errorf("%s was called %d times in ten minutes of rest", method, n-before[method])
			}
		}
		if idle > projects+50 {
			r.Errorf("%d goroutines at rest", idle)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if m.HeapAlloc > 200<<20 {
			r.Errorf("%d MiB in use", m.HeapAlloc>>20)
		}
	})
}

// The engine's disk is full: whatever it fails at, the rollout goes back with
// those words, and what runs is left alone.
func TestAFullDiskOfTheEngineTakesTheRolloutBack(t *testing.T) {
	for _, doing := range []string{
		"create shop-web-1: mkdir /var/lib/docker/overlay2/x-init: no space left on device",
		"start shop-web-1: OCI runtime create failed: mkdir /run/x: no space left on device",
	} {
		t.Run(strings.Fields(doing)[0], func(t *testing.T) {
			inTime(t, func(r *rig) {
				r.outcome(r.up(submission(svc("web", "1", 2, nil))), deploy.Converged)
				was := r.there()
				full := tender.Errorf(tender.Internal, "%w", errors.New(doing)).Hint("make room")
				a := r.accept(submission(svc("web", "2", 2, nil)))
				g, err := r.loop.Generation(r.Context(), "shop", a.Generation)
				if err != nil {
					r.Fatal(err)
				}
				r.fake.Behave("web@"+g.Services[0].Service.Revision, enginetest.Behaviour{ScaleErr: full})
				var hints []string
				o, err := r.loop.Follow(r.Context(), "shop", a.Generation, func(n deploy.News) { hints = append(hints, n.Hint) })
				if err != nil {
					r.Fatal(err)
				}
				r.outcome(o, deploy.BackAgain)
				if !strings.Contains(o.Text, doing) || !strings.Contains(strings.Join(hints, ","), "make room") {
					r.Errorf("it says %q with the hints %q", o.Text, hints)
				}
				r.want(r.there(), was)
			})
		})
	}
}
