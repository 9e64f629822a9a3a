package deploy_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/enginetest"
)

// deadly is an engine on whose n-th change the process that asked is killed:
// before it, after it, or in the middle of it.
type deadly struct {
	*enginetest.Fake
	left  atomic.Int64
	where int // 0 before, 1 in the middle, 2 after
	kill  context.CancelFunc
}

// die reports whether this is the call.
func (d *deadly) die() bool { return d.left.Add(-1) == 0 }

func (d *deadly) call(ctx context.Context, whole, part func(context.Context) error) error {
	if ctx.Err() != nil {
		return ctx.Err() // the process is dead already
	}
	if !d.die() {
		return whole(ctx)
	}
	alive := context.WithoutCancel(ctx)
	switch {
	case d.where == 0:
	case d.where == 1 && part != nil:
		_ = part(alive)
	default:
		_ = whole(alive)
	}
	d.kill()
	return context.Canceled
}

func (d *deadly) Scale(ctx context.Context, w engine.Want) error {
	return d.call(ctx, func(ctx context.Context) error { return d.Fake.Scale(ctx, w) }, func(ctx context.Context) error {
		// A part of the newcomers is there, and none of the old ones has gone.
		w.Slots, w.Drop = w.Slots[:len(w.Slots)/2], nil
		return d.Fake.Scale(ctx, w)
	})
}

func (d *deadly) Remove(ctx context.Context, id string, grace time.Duration, volumes bool) error {
	return d.call(ctx, func(ctx context.Context) error { return d.Fake.Remove(ctx, id, grace, volumes) }, func(ctx context.Context) error {
		return d.Fake.Stop(ctx, id, grace)
	})
}

func (d *deadly) Name(ctx context.Context, id string) error {
	return d.call(ctx, func(ctx context.Context) error { return d.Fake.Name(ctx, id) }, nil)
}

func (d *deadly) Promote(ctx context.Context, id string) error {
	return d.call(ctx, func(ctx context.Context) error { return d.Fake.Promote(ctx, id) }, func(context.Context) error {
		d.Tear(id)
		return nil
	})
}

func (d *deadly) Demote(ctx context.Context, id string) error {
	return d.call(ctx, func(ctx context.Context) error { return d.Fake.Demote(ctx, id) }, func(context.Context) error {
		d.Tear(id)
		return nil
	})
}

func (d *deadly) Ensure(ctx context.Context, p tender.Project) error {
	return d.call(ctx, func(ctx context.Context) error { return d.Fake.Ensure(ctx, p) }, nil)
}

func TestKilledAnywhereItConverges(t *testing.T) {
	for seed := range uint64(120) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inTime(t, func(r *rig) { killed(r, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func killed(r *rig, random *rand.Rand) {
	volumes := func(version string) tender.ImageID {
		return tender.ImageID{Reference: "db:" + version, ID: "sha256:db" + version, Volumes: []string{"/data"}}
	}
	version := func(v string) deploy.Submission {
		s := submission(
			svc("db", v, 1, nil),
			svc("migrate", v, 1, func(s *tender.Service) {
				s.Job = true
				s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Healthy, Required: true}}
			}),
			svc("web", v, 3, func(s *tender.Service) {
				s.Healthcheck, s.Networks = 1, []string{"shop_default"}
				s.DependsOn = []tender.Dependency{{Service: "migrate", Condition: tender.Completed, Required: true}}
				if random.IntN(2) == 0 {
					s.Rollout.Order = "stop-first"
				}
			}),
		)
		s.Images["db"] = volumes(v)
		return s
	}
	r.fake.Behave("web", enginetest.Behaviour{Warmup: time.Duration(random.IntN(3000)) * time.Millisecond, Slow: time.Duration(random.IntN(900)) * time.Millisecond})
	r.fake.Behave("migrate", enginetest.Behaviour{Ends: true, After: time.Second})
	r.outcome(r.up(version("1")), deploy.Converged)
	data := r.instances("db")[0].Anonymous

	next := version("2")
	bad := random.IntN(4) == 0
	preview, err := r.loop.Preview(r.Context(), next)
	if err != nil {
		r.Fatal(err)
	}
	if bad {
		for _, v := range preview.Verdicts {
			if v.Service == "web" {
				r.fake.Behave("web@"+v.To, enginetest.Behaviour{Health: true, Sick: true, Warmup: time.Second})
			}
		}
	}
	r.stop()
	d := &deadly{Fake: r.fake, where: random.IntN(3)}
	r.engine = d
	r.start()
	a, err := r.loop.Accept(r.Context(), next)
	if err != nil {
		r.Fatal(err)
	}
	for range 1 + random.IntN(3) {
		dead := r.dead
		d.kill = r.kill
		if random.IntN(3) == 0 {
			d.left.Store(0)
			select {
			case <-time.After(time.Duration(random.IntN(30_000)) * time.Millisecond):
				r.kill()
			case <-dead:
			}
		} else {
			d.left.Store(int64(1 + random.IntN(8)))
			select {
			case <-dead:
			case <-time.After(10 * time.Minute):
			}
		}
		r.stop()
		d.left.Store(0)
		r.start()
	}
	want, outcome := "2", deploy.Converged
	if bad {
		want, outcome = "1", deploy.BackAgain
	}
	r.outcome(r.follow(a.Generation), outcome)
	after(5 * time.Minute)
	r.want(r.there(), fmt.Sprintf(`shop-db-1 2 running
shop-migrate-1 2 exited
shop-web-1 %[1]s running healthy
shop-web-2 %[1]s running healthy
shop-web-3 %[1]s running healthy`, want))
	if now := r.instances("db")[0].Anonymous; !slices.Equal(now, data) || len(r.fake.AnonymousVolumes()) != 1 {
		r.Errorf("volumes %v of %v, before %v", now, r.fake.AnonymousVolumes(), data)
	}
	for _, i := range r.instances("web") {
		if i.Found != tender.ByService || len(i.Addresses) == 0 {
			r.Errorf("found under the wrong names: %+v", i)
		}
	}
	if open, _ := r.loop.Project(r.Context(), "shop"); open.State != "healthy" || len(open.Plan) > 0 {
		r.Errorf("in the end: %+v", open)
	}
}
