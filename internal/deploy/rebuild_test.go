package deploy_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine/enginetest"
)

// home makes a rig's daemon know its own instances; services are what specs of
// theirs are read as.
func home(r *rig, services ...tender.Service) {
	r.Helper()
	r.stop()
	r.fake.Home = "/data"
	r.options = func(o *deploy.Options) {
		o.Home = "/data"
		o.Join = func(specs [][]byte) (p tender.Project, absent []string, err error) {
			var found []tender.Service
			for _, spec := range specs {
				i := slices.IndexFunc(services, func(s tender.Service) bool { return string(s.Spec) == string(spec) })
				if i < 0 {
					return p, nil, errors.New("read spec: format 7")
				}
				found = append(found, services[i])
			}
			return submission(found...).Project, nil, nil
		}
		o.Salvage = func(_ context.Context, _ string, s tender.Service) (out deploy.Salvaged, err error) {
			out.Versions = map[string]int{}
			for _, f := range s.Secrets {
				out.Lost = append(out.Lost, "the value of secret "+f.Source+" of "+s.Name)
			}
			return out, nil
		}
	}
	r.start()
}

// lose deletes the store under a daemon that is not there.
func (r *rig) lose() {
	r.Helper()
	r.stop()
	files, _ := filepath.Glob(filepath.Join(r.dir, "tender.db*"))
	if len(files) == 0 {
		r.Fatal("there is no store to lose")
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			r.Fatal(err)
		}
	}
	r.start()
}

func (r *rig) ids() (ids []string) {
	p, err := r.fake.List(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	for _, i := range p.Instances {
		ids = append(ids, i.ID)
	}
	slices.Sort(ids)
	return ids
}

// slow is an engine that takes its time to list what it has.
type slow struct{ *enginetest.Fake }

func (s slow) List(ctx context.Context) (tender.Picture, error) {
	<-time.After(5 * time.Second)
	return s.Fake.List(ctx)
}

// Who was faster than the first picture once began the project anew.
func TestAnUpBeforeTheFirstPictureFindsWhatTheStoreHasLost(t *testing.T) {
	inTime(t, func(r *rig) {
		web := svc("web", "1", 2, nil)
		home(r, web)
		r.outcome(r.up(submission(web)), deploy.Converged)
		before := r.ids()
		r.engine, r.early = slow{r.fake}, true
		r.lose()
		r.outcome(r.up(submission(web)), deploy.Converged)
		if now := r.ids(); !slices.Equal(now, before) {
			t.Errorf("instances %v, were %v", now, before)
		}
		// The first one is lost, the second is what was found, and only then comes what was asked for.
		g, err := r.loop.Generation(r.Context(), "shop", 2)
		if err != nil || !g.Rebuilt {
			t.Errorf("generation %d, rebuilt %t, %v", g.N, g.Rebuilt, err)
		}
	})
}

func TestAStoreThatIsLostIsRebuilt(t *testing.T) {
	inTime(t, func(r *rig) {
		web := svc("web", "1", 2, nil)
		job := svc("job", "1", 1, func(s *tender.Service) { s.Job = true })
		off := svc("off", "1", 1, func(s *tender.Service) { s.Restart = "always" })
		services := []tender.Service{web, job, off}
		home(r, services...)
		r.fake.Behave("job", enginetest.Behaviour{Ends: true, After: time.Second})
		r.outcome(r.up(submission(services...)), deploy.Converged)
		r.change(deploy.Change{Verb: "scale", Scale: map[string]int{"web": 3}})
		r.change(deploy.Change{Verb: "stop", Services: []string{"off"}})
		before, was := r.ids(), r.there()
		options := r.options
		r.options = func(o *deploy.Options) {
			options(o)
			o.Routes = func(p tender.Project) ([]tender.Route, []string) {
				return []tender.Route{{Hosts: []string{p.Name + ".test"}, Path: "/"}}, []string{"a route"}
			}
		}

		r.lose()
		after(time.Hour)
		r.want(r.there(), was)
		g, err := r.loop.Generation(r.Context(), "shop", 0)
		if err != nil {
			t.Fatal(err)
		}
		if !g.Rebuilt || g.N != 3 && g.N != 2 {
			t.Errorf("generation %d, rebuilt %t", g.N, g.Rebuilt)
		}
		if len(g.Routes) != 1 || g.Routes[0].Hosts[0] != "shop.test" {
			t.Errorf("routes %+v", g.Routes)
		}
		r.want(strings.Join(g.Lost, "\n"), `a route
whether off is to run: it did not, and counts as stopped (tender start off)
how many of web are wanted: 3 are there, its file says 2`)
		if s := r.state("web"); s.Wanted != 3 || s.State != "healthy" {
			t.Errorf("web: %d wanted, %s %s", s.Wanted, s.State, s.Detail)
		}
		if s := r.state("job"); s.State != "done" {
			t.Errorf("job: %s %s", s.State, s.Detail)
		}
		p, err := r.loop.Project(r.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		r.want(p.State+": "+p.Detail, "healthy: rebuilt, run tender up in its folder; off stopped")

		// What is repaired is repaired again, and up of the same file replaces nothing.
		r.fake.Vanish(r.instances("web")[0].ID)
		after(time.Minute)
		r.want(r.there(), was)
		same := r.ids()
		r.outcome(r.up(submission(services...)), deploy.Converged)
		for _, id := range r.ids() {
			if !slices.Contains(same, id) && !strings.HasPrefix(id, "off-") {
				t.Errorf("up of the same file made %s; before the loss there were %v", id, before)
			}
		}
		if p, _ := r.loop.Project(r.Context(), "shop"); strings.Contains(p.Detail, "rebuilt") {
			t.Errorf("after up: %s", p.Detail)
		}

		// The next revision has something to go back to.
		bad := svc("web", "2", 2, func(s *tender.Service) { s.Healthcheck = 1 })
		r.fake.Behave("web", enginetest.Behaviour{Sick: true, Warmup: time.Second})
		r.outcome(r.up(submission(bad, job, off)), deploy.BackAgain)
		r.fake.Behave("web", enginetest.Behaviour{})
		after(time.Hour)
		if s := r.state("web"); s.Ready != 2 {
			t.Errorf("after a bad revision: %s %s\n%s", s.State, s.Detail, r.there())
		}
	})
}

func TestAStoreLostInARolloutIsRebuiltAsMostOfItRuns(t *testing.T) {
	inTime(t, func(r *rig) {
		one, two := svc("web", "1", 3, nil), svc("web", "2", 3, nil)
		home(r, one, two)
		r.outcome(r.up(submission(one)), deploy.Converged)
		r.fake.Behave("web", enginetest.Behaviour{Health: true, Warmup: time.Minute})
		if _, err := r.loop.Accept(r.Context(), submission(two)); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		if len(r.instances("web")) != 4 {
			t.Fatalf("no rollout runs:\n%s", r.there())
		}
		r.lose()
		after(time.Hour)
		r.want(r.there(), "shop-web-1 1 running\nshop-web-2 1 running\nshop-web-3 1 running")
		g, err := r.loop.Generation(r.Context(), "shop", 0)
		if err != nil || len(g.Lost) != 1 || !strings.HasPrefix(g.Lost[0], "which of 2 revisions of web is wanted") {
			t.Errorf("lost %q, err %v", g.Lost, err)
		}
	})
}

func TestWhatIsNotLostIsNotRebuilt(t *testing.T) {
	inTime(t, func(r *rig) {
		web := svc("web", "1", 1, nil)
		home(r, web)
		r.outcome(r.up(submission(web)), deploy.Converged)
		if _, err := r.loop.Change(r.Context(), "ann", "shop", deploy.Change{Verb: "release"}); err != nil {
			t.Fatal(err)
		}
		unknown := func(when string) {
			t.Helper()
			after(time.Hour)
			if _, err := r.loop.Generation(r.Context(), "shop", 0); tender.KindOf(err) != tender.NotFound {
				t.Errorf("%s: shop is known again (err %v)", when, err)
			}
		}
		unknown("released")
		r.stop()
		r.start()
		unknown("released, and started again")
		r.outcome(r.up(submission(web)), deploy.Converged)
		if _, err := r.loop.Generation(r.Context(), "shop", 0); err != nil {
			t.Errorf("taken back: %v", err)
		}

		// Another daemon on the same engine has a store of its own.
		r.fake.Update(r.instances("web")[0].ID, func(i *tender.Instance) { i.Home = "/elsewhere" })
		r.lose()
		unknown("another daemon's")
	})
}

func TestWhatCannotBeRebuiltIsLeftAlone(t *testing.T) {
	inTime(t, func(r *rig) {
		web := svc("web", "1", 1, nil)
		home(r) // reads no spec
		r.outcome(r.up(submission(web)), deploy.Converged)
		was := r.ids()
		r.lose()
		after(time.Hour)
		if now := r.ids(); !slices.Equal(now, was) {
			t.Errorf("instances %v, were %v", now, was)
		}
		r.outcome(r.up(submission(web)), deploy.Converged)
		if now := r.ids(); !slices.Equal(now, was) {
			t.Errorf("after up: instances %v, were %v", now, was)
		}
	})
}
