package deploy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/plan"
)

func scales(low, high int) func(*tender.Service) {
	return func(s *tender.Service) {
		s.Scale = &tender.Scale{Min: low, Max: high, CPU: 0.7, Cooldown: time.Minute, Window: 5 * time.Minute}
	}
}

// scaled is web as it may be scaled now.
func (r *rig) scaled() deploy.Scaled {
	r.Helper()
	all, err := r.loop.Scaling(r.Context())
	if err != nil || len(all) != 1 {
		r.Fatalf("%d services scale: %v", len(all), err)
	}
	return all[0]
}

// rescale decides for a count, and waits until it stands.
func (r *rig) rescale(n int, cause string) {
	r.Helper()
	if done, err := r.loop.Rescale(r.Context(), r.scaled(), plan.Count{N: n, Cause: cause}); err != nil || !done {
		r.Fatalf("scale to %d: %t, %v", n, done, err)
	}
	after(time.Minute)
	if s := r.state("web"); s.Ready != n || s.State != "healthy" || s.Tries > 0 || len(s.Problems) > 0 {
		r.Errorf("%d of %d are ready, %s, tried %d times: %v; there is\n%s", s.Ready, n, s.State, s.Tries, s.Problems, r.there())
	}
}

// counts lists how the count was changed, the newest first.
func (r *rig) counts() string {
	r.Helper()
	list, err := r.loop.Scalings(r.Context(), "shop", "web")
	if err != nil {
		r.Fatal(err)
	}
	var lines []string
	for _, n := range list {
		lines = append(lines, fmt.Sprintf("%d -> %d by %s: %s", n.From, n.To, n.Who, n.Cause))
	}
	return strings.Join(lines, "\n")
}

func TestDecidedCountOutlivesUpAndTheDaemon(t *testing.T) {
	inTime(t, func(r *rig) {
		file := func() deploy.Submission { return submission(svc("web", "1", 1, scales(2, 6))) }
		r.outcome(r.up(file()), deploy.Converged)
		if n := r.state("web").Wanted; n != 2 {
			t.Errorf("it begins with %d, want min", n)
		}
		generation := r.state("web").Revision
		r.rescale(4, "cpu 140 %")
		r.rescale(5, "cpu 90 %")
		var causes []string
		for _, a := range r.fake.History() {
			if strings.Contains(a, "scale") {
				causes = append(causes, a)
			}
		}
		if len(causes) != 3 {
			t.Errorf("the engine was told %d times to scale:\n%s", len(causes), strings.Join(causes, "\n"))
		}
		a, err := r.loop.Accept(r.Context(), file())
		if err != nil || !a.Nothing || a.Generation != 1 {
			t.Errorf("the same file again: %+v, %v", a, err)
		}
		r.stop()
		r.start()
		after(time.Minute)
		if s := r.scaled(); s.Wanted != 5 || s.Counted == nil || s.Counted.Cause != "cpu 90 %" || len(s.Instances) != 5 {
			t.Errorf("after a restart: %+v", s)
		}
		// Another max is obeyed at once; the revision stays.
		r.outcome(r.up(submission(svc("web", "1", 1, scales(1, 3)))), deploy.Converged)
		if s := r.state("web"); s.Wanted != 3 || s.Ready != 3 || s.Revision != generation {
			t.Errorf("with max 3: %d of %d, %s", s.Ready, s.Wanted, s.Revision)
		}
		r.want(r.counts(), "5 -> 3 by ann: between 1 and 3\n4 -> 5 by autoscale: cpu 90 %\n2 -> 4 by autoscale: cpu 140 %")
		// Without the rule the file rules.
		r.outcome(r.up(submission(svc("web", "1", 1, nil))), deploy.Converged)
		if s := r.state("web"); s.Wanted != 1 || s.Counted != nil {
			t.Errorf("without a rule: %d wanted, %+v", s.Wanted, s.Counted)
		}
		if all, err := r.loop.Scaling(r.Context()); err != nil || len(all) != 0 {
			t.Errorf("%d scale still, %v", len(all), err)
		}
	})
}

func TestCountByHandStandsBetweenMinAndMax(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(r.up(submission(svc("web", "1", 2, scales(2, 6)))), deploy.Converged)
		for n, hint := range map[int]string{0: "tender stop web", 1: "x-tender.scale", 7: "x-tender.scale"} {
			_, err := r.loop.Change(r.Context(), "ann", "shop", deploy.Change{Verb: "scale", Scale: map[string]int{"web": n}})
			if tender.KindOf(err) != tender.Conflict || !strings.Contains(tender.AdviceOf(err), hint) {
				t.Errorf("to %d: %v (%s)", n, err, tender.AdviceOf(err))
			}
		}
		r.outcome(r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 5}}), deploy.Converged)
		s := r.scaled()
		if s.Wanted != 5 || s.Counted == nil || s.Counted.Who != "ann" || !s.Counted.Added.Equal(s.Counted.At) {
			t.Errorf("by hand: %+v", s)
		}
		r.want(r.counts(), "2 -> 5 by ann: asked for by ann")
		r.outcome(r.change(deploy.Change{Verb: "down"}), deploy.Converged)
		r.outcome(r.up(submission(svc("web", "1", 3, scales(2, 6)))), deploy.Converged)
		if n := r.state("web").Wanted; n != 3 {
			t.Errorf("after a down it has %d, want those of the file", n)
		}
	})
}

func TestNothingIsScaledWhileItRolls(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(r.up(submission(svc("web", "1", 2, scales(2, 6)))), deploy.Converged)
		before := r.scaled()
		r.fake.Behave("web", enginetest.Behaviour{Warmup: time.Minute})
		slow := func(s *tender.Service) { scales(2, 6)(s); s.Healthcheck = 1 }
		a, err := r.loop.Accept(r.Context(), submission(svc("web", "2", 2, slow)))
		if err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		if s := r.scaled(); !strings.HasPrefix(s.Busy, "rollout ") {
			t.Errorf("busy with %q", s.Busy)
		}
		for _, s := range []deploy.Scaled{before, r.scaled()} {
			if done, err := r.loop.Rescale(r.Context(), s, plan.Count{N: 6}); done || err != nil {
				t.Errorf("scaled in a rollout: %t, %v", done, err)
			}
		}
		r.outcome(r.follow(a.Generation), deploy.Converged)
		r.fake.Behave("web", enginetest.Behaviour{})
		r.rescale(4, "cpu 140 %")
		// The way back is to a revision, not to its count.
		r.outcome(r.change(deploy.Change{Verb: "rollback", Services: []string{"web"}}), deploy.Converged)
		if s := r.scaled(); s.Wanted != 4 || s.Rule.Max != 6 || s.Busy != "" {
			t.Errorf("after the way back: %+v", s)
		}
	})
}

func TestDecidedCountIsACauseOfActions(t *testing.T) {
	inTime(t, func(r *rig) {
		r.outcome(r.up(submission(svc("web", "1", 2, scales(2, 6)))), deploy.Converged)
		var news []string
		ctx := r.Context()
		go func() {
			_ = r.loop.News(ctx, "shop", func(n deploy.News) {
				if n.Kind == deploy.NewsScaled || n.Kind == deploy.NewsBegun {
					news = append(news, n.Kind+" "+n.Text)
				}
			})
		}()
		after(time.Second)
		r.rescale(4, "cpu 140 %")
		r.rescale(3, "cpu 20 %")
		rev := r.state("web").Revision
		r.want(strings.ReplaceAll(strings.Join(news, "\n"), rev, "REV"), `scaled web goes from 2 to 4: cpu 140 %
begun scale web@REV slots 3-4: 4 wanted: cpu 140 %
scaled web goes from 4 to 3: cpu 20 %
begun remove shop-web-4: 3 wanted: cpu 20 %`)
	})
}
