package enginetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

func TestFakeKeepsThePromises(t *testing.T) {
	Run(t, func(testing.TB) engine.Engine {
		f := &Fake{}
		f.Behave("web", Behaviour{Output: "hello\n"})
		f.Behave("job", Behaviour{Ends: true, Code: 3})
		return f
	})
}

// fakely runs body in fake time with one instance of web in slot 1, which b and s describe.
func fakely(t *testing.T, b Behaviour, s tender.Service, body func(f *Fake, now func() tender.Instance)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &Fake{}
		f.Behave("web", b)
		s.Name, s.Revision = "web", "r1"
		if err := f.Scale(t.Context(), engine.Want{Project: "shop", Service: s, Slots: []int{1}}); err != nil {
			t.Fatal(err)
		}
		body(f, func() tender.Instance {
			synctest.Wait()
			p, err := f.List(t.Context())
			if err != nil || len(p.Instances) != 1 {
				t.Fatalf("%d instances, %v", len(p.Instances), err)
			}
			return p.Instances[0]
		})
	})
}

func TestFakeBecomesHealthyAfterItsWarmup(t *testing.T) {
	fakely(t, Behaviour{Warmup: 5 * time.Second}, tender.Service{Healthcheck: 1}, func(_ *Fake, now func() tender.Instance) {
		if i := now(); i.Health != tender.Starting {
			t.Errorf("at first %s", i.Health)
		}
		time.Sleep(5 * time.Second)
		if i := now(); i.Health != tender.HealthyIs {
			t.Errorf("after its warm-up %s", i.Health)
		}
	})
	fakely(t, Behaviour{Warmup: 5 * time.Second, Sick: true}, tender.Service{Healthcheck: 1}, func(_ *Fake, now func() tender.Instance) {
		time.Sleep(time.Minute)
		if i := now(); i.Health != tender.Unhealthy || i.HealthOutput == "" {
			t.Errorf("a sick one: %+v", i)
		}
	})
}

func TestFakeHonoursTheRestartPolicy(t *testing.T) {
	crashes := Behaviour{Ends: true, After: time.Second, Code: 1}
	fakely(t, crashes, tender.Service{Restart: "on-failure", RestartMax: 2}, func(_ *Fake, now func() tender.Instance) {
		time.Sleep(time.Second)
		if i := now(); i.State != tender.Restarting || i.ExitCode != 1 {
			t.Errorf("after the first crash: %s %d", i.State, i.ExitCode)
		}
		time.Sleep(time.Minute)
		if i := now(); i.State != tender.Exited || i.Restarts != 2 {
			t.Errorf("in the end: %s after %d restarts", i.State, i.Restarts)
		}
	})
	fakely(t, Behaviour{}, tender.Service{Restart: "always"}, func(f *Fake, now func() tender.Instance) {
		f.Crash(now().ID, 1)
		time.Sleep(time.Second)
		if i := now(); i.State != tender.Running || i.Restarts != 1 {
			t.Errorf("after a crash: %s after %d restarts", i.State, i.Restarts)
		}
		f.Kill(now().ID)
		time.Sleep(time.Minute)
		if i := now(); i.State != tender.Exited || i.ExitCode != 137 {
			t.Errorf("after docker kill: %s %d", i.State, i.ExitCode)
		}
	})
}

func TestFakeFailsAsOftenAsToldTo(t *testing.T) {
	f, gone := &Fake{}, errors.New("gone")
	f.Behave("web@r2", Behaviour{ScaleErr: gone, ScaleErrs: 2})
	w := engine.Want{Project: "shop", Service: tender.Service{Name: "web", Revision: "r2"}, Slots: []int{1}}
	for try, want := range []error{gone, gone, nil} {
		if err := f.Scale(t.Context(), w); !errors.Is(err, want) {
			t.Errorf("try %d: %v, want %v", try, err, want)
		}
	}
	if n := f.Calls()["Scale"]; n != 3 {
		t.Errorf("%d calls", n)
	}
	f.Behave("web@r2", Behaviour{Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Scale(ctx, w); !errors.Is(err, context.Canceled) {
		t.Errorf("hanging: %v", err)
	}
}
