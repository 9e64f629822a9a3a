package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/store"
)

func TestRollbackByHand(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(r.up(submission(svc("web", "1", 1, nil))), deploy.Converged)
		_, err := r.loop.Change(r.Context(), "ann", "shop", deploy.Change{Verb: "rollback"})
		if tender.KindOf(err) != tender.Conflict {
			r.Errorf("nothing to go back to: %v", err)
		}
		r.outcome(r.up(submission(svc("web", "2", 1, nil))), deploy.Converged)
		r.outcome(r.up(submission(svc("web", "3", 1, nil))), deploy.Converged)
		r.outcome(r.change(deploy.Change{Verb: "rollback", Services: []string{"web"}}), deploy.Converged)
		r.want(r.there(), "shop-web-1 2 running")
		list, err := r.loop.Rollouts(r.Context(), "shop", "web")
		if err != nil {
			r.Fatal(err)
		}
		first := list[len(list)-1].To
		r.outcome(r.change(deploy.Change{Verb: "rollback", Services: []string{"web"}, To: first[:6]}), deploy.Converged)
		r.want(r.there(), "shop-web-1 1 running")
		_, err = r.loop.Change(r.Context(), "ann", "shop", deploy.Change{Verb: "rollback", Services: []string{"web"}, To: "ffffff"})
		if tender.KindOf(err) != tender.NotFound || tender.AdviceOf(err) == "" {
			r.Errorf("an unknown revision: %v", err)
		}
		full, err := r.loop.Rollout(r.Context(), list[0].ID)
		if err != nil || !strings.Contains(full.Diff, "- web 3") || !strings.Contains(full.Diff, "+ web 2") {
			r.Errorf("diff %q, %v", full.Diff, err)
		}
	})
}

func TestPausedRolloutIsLeftUntilUp(t *testing.T) {
	inTime(t, func(r *rig) {
		pause := func(s *tender.Service) {
			s.Healthcheck = 1
			s.Rollout.Failure = "pause"
		}
		r.outcome(r.up(submission(svc("web", "1", 2, pause))), deploy.Converged)
		r.fake.Behave("web", enginetest.Behaviour{Sick: true, Warmup: time.Second})
		r.outcome(r.up(submission(svc("web", "2", 2, pause))), deploy.Failed)
		after(time.Hour)
		there := r.there()
		if strings.Count(there, " 1 running healthy") != 2 || strings.Count(there, " 2 running unhealthy") != 1 {
			r.Errorf("there is\n%s", there)
		}
		r.fake.Behave("web", enginetest.Behaviour{})
		r.outcome(r.up(submission(svc("web", "3", 2, pause))), deploy.Converged)
		r.want(r.there(), "shop-web-1 3 running healthy\nshop-web-2 3 running healthy")
	})
}

func TestJobBeforeEachRollout(t *testing.T) {
	inTime(t, func(r *rig) {
		r.fake.Behave("migrate", enginetest.Behaviour{Ends: true, After: time.Second})
		with := func(version string, replicas int) deploy.Submission {
			return submission(svc("migrate", "1", 1, func(s *tender.Service) { s.Job = true }),
				svc("web", version, replicas, func(s *tender.Service) { s.Rollout.Before = "migrate" }))
		}
		ran := func() (n int) {
			for _, line := range r.fake.History() {
				if strings.HasPrefix(line, "scale migrate") {
					n++
				}
			}
			return n
		}
		r.outcome(r.up(with("1", 1)), deploy.Converged)
		r.outcome(r.up(with("2", 1)), deploy.Converged)
		if ran() != 2 {
			r.Errorf("ran %d times: %v", ran(), r.fake.History())
		}
		r.outcome(r.up(with("2", 3)), deploy.Converged)
		r.fake.Vanish(r.instances("migrate")[0].ID)
		after(time.Hour)
		if ran() != 2 {
			r.Errorf("scale or repair repeated it: %v", r.fake.History())
		}
		r.fake.Behave("migrate", enginetest.Behaviour{Ends: true, Code: 3})
		out := r.up(with("3", 3))
		r.outcome(out, deploy.BackAgain)
		if !strings.Contains(out.Text, "migrate") {
			r.Errorf("text %q", out.Text)
		}
		for _, i := range r.instances("web") {
			if i.Image != "web:2" {
				r.Errorf("%s runs %s", i.Name, i.Image)
			}
		}
	})
}

func TestFailedJobFailsWhatNeedsIt(t *testing.T) {
	inTime(t, func(r *rig) {
		with := submission(svc("job", "1", 1, func(s *tender.Service) { s.Job = true }), svc("web", "1", 1, func(s *tender.Service) {
			s.DependsOn = []tender.Dependency{{Service: "job", Condition: tender.Completed, Required: true}}
		}))
		r.fake.Behave("job", enginetest.Behaviour{Ends: true, Code: 1})
		out := r.up(with)
		r.outcome(out, deploy.Failed)
		r.want(out.Text, "job: shop-job-1 exited with 1; web: job failed with exit 1")
		// Said again it runs again, although nothing changed.
		r.fake.Behave("job", enginetest.Behaviour{Ends: true})
		r.outcome(r.up(with), deploy.Converged)
		r.want(r.there(), "shop-job-1 1 exited\nshop-web-1 1 running")
		// After a down it has to run again.
		r.outcome(r.change(deploy.Change{Verb: "down", Volumes: true}), deploy.Converged)
		r.outcome(r.up(with), deploy.Converged)
		r.want(r.there(), "shop-job-1 1 exited\nshop-web-1 1 running")
	})
}

func TestSecretsAndConfigsMakeRevisionsAndAreDelivered(t *testing.T) {
	inTime(t, func(r *rig) {
		version, delivered := 1, map[string]int{}
		r.options = func(o *deploy.Options) {
			o.SecretVersion = func(_ context.Context, project string, f tender.SecretFile) (int, error) {
				if version == 0 {
					return 0, tender.Errorf(tender.NotFound, "secret %s is not there", f.Name).Hint("tender secret set %s", f.Name)
				}
				return version, nil
			}
			o.Deliver = func(_ context.Context, project string, s tender.Service) ([]engine.File, error) {
				if len(s.Secrets) == 0 {
					return nil, nil
				}
				delivered[s.Revision] = s.Secrets[0].Version
				return []engine.File{{Source: fmt.Sprintf("/run/%s/%s", s.Name, s.Revision), Target: "/run/secrets/key"}}, nil
			}
		}
		r.stop()
		r.start()
		with := func(sum string) deploy.Submission {
			s := submission(svc("web", "1", 1, func(s *tender.Service) {
				s.Secrets = []tender.SecretFile{{Name: "key", Source: "key", Target: "/run/secrets/key"}}
				s.Configs = []tender.ConfigFile{{Source: "conf", Target: "/conf", SHA256: sum}}
			}))
			s.Files = map[string][]byte{sum: []byte("content of " + sum)}
			return s
		}
		r.outcome(r.up(with("aa")), deploy.Converged)
		first := r.state("web").Revision
		if w, _ := r.fake.LastWant("web@" + first); len(w.Files) != 1 || delivered[first] != 1 {
			r.Errorf("want %+v, delivered %v", w.Files, delivered)
		}
		version = 2
		r.outcome(r.up(with("aa")), deploy.Converged)
		second := r.state("web").Revision
		if second == first || delivered[second] != 2 {
			r.Errorf("revisions %s %s, delivered %v", first, second, delivered)
		}
		r.outcome(r.up(with("bb")), deploy.Converged)
		if third := r.state("web").Revision; third == second {
			r.Errorf("another config is the same revision")
		}
		// A rollback brings the old version back, although the vault has a newer one.
		version = 3
		clear(delivered)
		r.outcome(r.change(deploy.Change{Verb: "rollback", Services: []string{"web"}, To: first}), deploy.Converged)
		if delivered[first] != 1 {
			r.Errorf("delivered %v", delivered)
		}
		// After a restart of the process the files are there again before anything else.
		clear(delivered)
		r.stop()
		r.start()
		after(time.Second)
		if delivered[first] != 1 {
			r.Errorf("delivered %v", delivered)
		}
		version = 0
		_, err := r.loop.Accept(r.Context(), with("aa"))
		if tender.KindOf(err) != tender.NotFound || tender.AdviceOf(err) == "" {
			r.Errorf("a missing secret: %v", err)
		}
	})
}

func TestPreviewAndToken(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(r.up(submission(svc("web", "1", 3, healthy), svc("log", "1", 1, nil))), deploy.Converged)
		s := submission(svc("web", "2", 3, healthy), svc("log", "1", 1, nil))
		calls := fmt.Sprint(r.fake.Calls()["Scale"])
		p, err := r.loop.Preview(r.Context(), s)
		if err != nil {
			r.Fatal(err)
		}
		if got := fmt.Sprint(r.fake.Calls()["Scale"]); got != calls {
			r.Errorf("a preview acted")
		}
		text := strings.ReplaceAll(p.Plan.String(), p.Verdicts[1].To, "NEW")
		text = strings.ReplaceAll(text, p.Verdicts[1].From, "OLD")
		var lines []string
		for line := range strings.Lines(text) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		r.want(strings.Join(lines, "\n"), `scale web@NEW slot 1 # replaces OLD, start-first: old and new can run side by side
wait web@NEW # shop-web-1-NEW is not healthy yet
remove shop-web-1 # replaced by NEW
name shop-web-1-NEW # the name shop-web-1 is free
scale web@NEW slot 2 # replaces OLD, start-first: old and new can run side by side
wait web@NEW # shop-web-2-NEW is not healthy yet
remove shop-web-2 # replaced by NEW
name shop-web-2-NEW # the name shop-web-2 is free
scale web@NEW slot 3 # replaces OLD, start-first: old and new can run side by side
wait web@NEW # shop-web-3-NEW is not healthy yet
remove shop-web-3 # replaced by NEW
name shop-web-3-NEW # the name shop-web-3 is free
finish web@NEW # all instances are good`)
		names := func(there []tender.Instance) string {
			var out []string
			for _, i := range there {
				out = append(out, i.Name)
			}
			return strings.Join(out, " ")
		}
		r.want(names(p.Leaving), "shop-web-1 shop-web-2 shop-web-3")
		other := s
		other.Project.Spec = append(slices.Clone(s.Project.Spec), "volumes:\n  data:\n"...)
		if q, err := r.loop.Preview(r.Context(), other); err != nil || !strings.HasPrefix(q.Plan.String(), "ensure") {
			r.Errorf("a new volume: %v\n%s", err, q.Plan)
		}
		s.Token = p.Token
		r.fake.Vanish(r.instances("log")[0].ID)
		if _, err := r.loop.Accept(r.Context(), s); tender.KindOf(err) != tender.Conflict {
			r.Errorf("a token of another world: %v", err)
		}
		after(time.Minute)
		p, err = r.loop.Preview(r.Context(), s)
		if err != nil {
			r.Fatal(err)
		}
		s.Token = p.Token
		r.outcome(r.up(s), deploy.Converged)
		p, err = r.loop.Preview(r.Context(), submission(svc("web", "2", 3, healthy), svc("log", "1", 1, nil)))
		if err != nil || !p.Nothing || len(p.Plan) > 0 {
			r.Errorf("nothing to do: %+v %v", p, err)
		}
	})
}

func TestOrphansAndChosenServices(t *testing.T) {
	inTime(t, func(r *rig) {
		need := func(s *tender.Service) {
			s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Started, Required: true}}
		}
		both := submission(svc("db", "1", 1, nil), svc("web", "1", 1, need), svc("log", "1", 1, nil))
		both.Services = []string{"web"}
		r.outcome(r.up(both), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running\nshop-web-1 1 running")
		both.Services = nil
		r.outcome(r.up(both), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running\nshop-log-1 1 running\nshop-web-1 1 running")
		less := submission(svc("db", "1", 1, nil))
		r.outcome(r.up(less), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running\nshop-log-1 1 running\nshop-web-1 1 running")
		less.Orphans = true
		r.outcome(r.up(less), deploy.Converged)
		r.want(r.there(), "shop-db-1 1 running")
		less.Services = []string{"nobody"}
		if _, err := r.loop.Accept(r.Context(), less); tender.KindOf(err) != tender.NotFound {
			r.Errorf("an unknown service: %v", err)
		}
	})
}

func TestScaleThatCannotBe(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(r.up(submission(svc("web", "1", 1, nil))), deploy.Converged)
		r.fake.Behave("web", enginetest.Behaviour{ScaleErr: errors.New("port 80 is in use")})
		began := time.Now()
		out := r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 2}})
		r.outcome(out, deploy.Failed)
		if !strings.Contains(out.Text, "port 80") || time.Since(began) > time.Minute {
			r.Errorf("after %s: %s", time.Since(began), out.Text)
		}
		r.outcome(r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 1}}), deploy.Converged)
	})
}

func TestForceRecreateAndKill(t *testing.T) {
	inTime(t, func(r *rig) {
		s := submission(svc("web", "1", 1, func(s *tender.Service) { s.OneAtATime = "host port 80 is held by the engine" }))
		r.outcome(r.up(s), deploy.Converged)
		old := r.instances("web")[0].ID
		s.Recreate = true
		r.outcome(r.up(s), deploy.Converged)
		if now := r.instances("web"); len(now) != 1 || now[0].ID == old {
			r.Errorf("not recreated: %+v", now)
		}
		if _, err := r.loop.Change(r.Context(), "ann", "shop", deploy.Change{Verb: "kill"}); err != nil {
			r.Fatal(err)
		}
		after(time.Minute)
		r.want(r.there(), "shop-web-1 1 running") // only stop means stopped
		for _, verb := range []string{"pause", "unpause"} {
			if _, err := r.loop.Change(r.Context(), "ann", "shop", deploy.Change{Verb: verb}); err != nil {
				r.Fatal(err)
			}
		}
		r.want(r.there(), "shop-web-1 1 running")
		_, err := r.loop.Change(r.Context(), "ann", "nobody", deploy.Change{Verb: "stop"})
		if tender.KindOf(err) != tender.NotFound {
			r.Errorf("an unknown project: %v", err)
		}
	})
}

func TestNewsAndSlowListeners(t *testing.T) {
	inTime(t, func(r *rig) {
		ctx, cancel := context.WithCancel(r.Context())
		var all []deploy.News
		first, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			_ = r.loop.News(ctx, "", func(n deploy.News) {
				if len(all) == 0 {
					<-first // slow
				}
				all = append(all, n)
			})
		}()
		after(time.Second)
		r.outcome(r.up(submission(svc("web", "1", 300, nil))), deploy.Converged)
		after(time.Second)
		r.outcome(r.change(deploy.Change{Verb: "restart"}), deploy.Converged)
		close(first)
		after(time.Second)
		cancel()
		<-done
		kinds := map[string]int{}
		for _, n := range all {
			kinds[n.Kind]++
			if n.Kind == deploy.NewsWarning && !strings.Contains(n.Text, "lost") {
				r.Errorf("warning %q", n.Text)
			}
		}
		if kinds[deploy.NewsWarning] != 1 || len(all) > 600 {
			r.Errorf("kinds %v", kinds)
		}
	})
}

func TestOldGenerationsAndRevisionsArePruned(t *testing.T) {
	inTime(t, func(r *rig) {
		for n := range store.KeepGenerations + 5 {
			r.outcome(r.up(submission(svc("web", fmt.Sprint(n), 1, nil))), deploy.Converged)
		}
		if _, err := r.loop.Generation(r.Context(), "shop", 1); tender.KindOf(err) != tender.NotFound {
			r.Errorf("generation 1: %v", err)
		}
		if _, err := r.loop.Generation(r.Context(), "shop", 10); err != nil {
			r.Errorf("generation 10: %v", err)
		}
		_, err := r.loop.Change(r.Context(), "ann", "shop", deploy.Change{Verb: "rollback"})
		if err != nil {
			r.Error(err)
		}
	})
}

// grounded is an engine that refuses the networks of every project.
type grounded struct {
	*enginetest.Fake
	err error
}

func (g *grounded) Ensure(ctx context.Context, p tender.Project) error {
	if g.err != nil {
		return g.err
	}
	return g.Fake.Ensure(ctx, p)
}

func TestNetworksThatCannotBeMadeTakeTheRolloutBack(t *testing.T) {
	inTime(t, func(r *rig) {
		g := &grounded{Fake: r.fake}
		r.stop()
		r.engine = g
		r.start()
		r.outcome(r.up(submission(svc("web", "1", 1, nil))), deploy.Converged)
		g.err = tender.Errorf(tender.Conflict, "network shop_default has another subnet")
		s := submission(svc("web", "2", 1, nil))
		s.Project.Spec = append(s.Project.Spec, "volumes:\n  data:\n"...)
		out := r.up(s)
		r.outcome(out, deploy.BackAgain)
		if !strings.Contains(out.Text, "another subnet") {
			r.Errorf("text %q", out.Text)
		}
		// What was made before holds: repair goes on.
		r.fake.Vanish(r.instances("web")[0].ID)
		after(time.Minute)
		r.want(r.there(), "shop-web-1 1 running")
	})
}

func TestOneThatCrashesDoesNotHoldUpTheNews(t *testing.T) {
	inTime(t, func(r *rig) {
		always := func(s *tender.Service) { s.Restart = "always" }
		r.outcome(r.up(submission(svc("log", "1", 1, always), svc("web", "1", 1, nil))), deploy.Converged)
		r.fake.Behave("log", enginetest.Behaviour{Ends: true, Code: 1})
		r.fake.Crash(r.instances("log")[0].ID, 1)
		after(10 * time.Minute)
		out := r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 2}})
		r.outcome(out, deploy.Failed)
		if !strings.Contains(out.Text, "log: shop-log-1") {
			r.Errorf("text %q", out.Text)
		}
		if s := r.state("web"); s.Ready != 2 {
			r.Errorf("web: %+v", s)
		}
		// Who needs it fails at once and does not wait for ever.
		r.outcome(r.up(submission(svc("log", "1", 1, always), svc("web", "2", 2, func(s *tender.Service) {
			s.DependsOn = []tender.Dependency{{Service: "log", Condition: tender.Healthy, Required: true}}
		}))), deploy.BackAgain)
		r.want(r.state("log").State, "degraded")
	})
}

func TestSecretVersionsThatTheCallerKnows(t *testing.T) {
	inTime(t, func(r *rig) {
		s := submission(svc("web", "1", 1, func(s *tender.Service) {
			s.Secrets = []tender.SecretFile{{Name: "key", Source: "key"}, {Name: "far", Source: "far", External: true}}
		}))
		s.Versions = map[string]int{"key": 4, "far": 5}
		_, err := r.loop.Preview(r.Context(), s)
		if tender.KindOf(err) != tender.NotFound || !strings.Contains(err.Error(), "far") {
			r.Errorf("an external secret is asked of the vault: %v", err)
		}
	})
}
