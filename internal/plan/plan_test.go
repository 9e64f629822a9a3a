package plan_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
)

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// world is one case: services and instances of project shop.
type world struct {
	w    plan.Wanted
	seen tender.Picture
}

func shop(parts ...any) world {
	x := world{
		w:    plan.Wanted{Project: "shop", Generation: 7, Ensured: true},
		seen: tender.Picture{Taken: now},
	}
	for _, p := range parts {
		switch p := p.(type) {
		case plan.Service:
			x.w.Services = append(x.w.Services, p)
		case tender.Instance:
			x.seen.Instances = append(x.seen.Instances, p)
		case func(*world):
			p(&x)
		default:
			panic(fmt.Sprintf("%T", p))
		}
	}
	return x
}

// svc wants n instances of NAME@REVISION.
func svc(name string, n int, change ...func(*plan.Service)) plan.Service {
	name, rev, _ := strings.Cut(name, "@")
	s := plan.Service{Service: tender.Service{Name: name, Revision: rev, Replicas: n, Grace: 10 * time.Second}}
	for _, c := range change {
		c(&s)
	}
	return s
}

func open(from string) func(*plan.Service) {
	return func(s *plan.Service) {
		s.Open = &plan.Rollout{ID: 1, From: from, To: s.Revision, First: from == "", Back: from != ""}
	}
}

func healthcheck(s *plan.Service) { s.Healthcheck = 1 }

func needs(name string, c tender.Condition) func(*plan.Service) {
	return func(s *plan.Service) {
		s.DependsOn = append(s.DependsOn, tender.Dependency{Service: name, Condition: c, Required: true})
	}
}

// inst is NAME@REVISION in a slot, running and good for ten minutes.
func inst(name string, slot int, change ...func(*tender.Instance)) tender.Instance {
	name, rev, _ := strings.Cut(name, "@")
	i := tender.Instance{
		ID: fmt.Sprintf("%s-%d-%s", name, slot, rev), Name: fmt.Sprintf("shop-%s-%d", name, slot), Project: "shop", Service: name,
		Revision: rev, Slot: slot, State: tender.Running, Created: now.Add(-10 * time.Minute), Started: now.Add(-10 * time.Minute), Since: now.Add(-10 * time.Minute),
	}
	for _, c := range change {
		c(&i)
	}
	return i
}

// newcomer still has its revision in its name.
func newcomer(age time.Duration) func(*tender.Instance) {
	return func(i *tender.Instance) {
		i.Name += "-" + i.Revision
		i.Created, i.Started, i.Since = now.Add(-age), now.Add(-age), now.Add(-age)
	}
}

func health(h tender.Health) func(*tender.Instance) { return func(i *tender.Instance) { i.Health = h } }

func exited(code int) func(*tender.Instance) {
	return func(i *tender.Instance) {
		i.State, i.ExitCode, i.Finished, i.Since = tender.Exited, code, now.Add(-time.Second), now.Add(-time.Second)
	}
}

func ordered(restart string) func(*plan.Service) {
	return func(s *plan.Service) { s.Boot, s.Restart = tender.BootOrdered, restart }
}

func tried(n int, ago time.Duration) func(*plan.Service) {
	return func(s *plan.Service) {
		s.Tries = map[int]plan.Try{1: {Count: n, Last: now.Add(-ago), Reason: "it ended"}}
	}
}

// future is made and started an hour from now, says the engine: the clock was set
// back, or its own is ahead.
func future(i *tender.Instance) {
	i.Created, i.Started = i.Created.Add(time.Hour), i.Started.Add(time.Hour)
}

func ago(d time.Duration) time.Time { return now.Add(-d) }

func state(s tender.State) func(*tender.Instance) { return func(i *tender.Instance) { i.State = s } }

func foreign(i *tender.Instance) { i.Foreign, i.Revision = true, "" }

func TestMake(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   world
		want string
	}{{
		name: "what is wanted is there",
		in:   shop(svc("web@r1", 2), inst("web@r1", 1), inst("web@r1", 2)),
	}, {
		name: "no picture, no plan",
		in:   shop(svc("web@r1", 2), func(x *world) { x.seen = tender.Picture{} }),
		want: "wait  shop  # there is no picture of the engine yet\n",
	}, {
		name: "nothing on a stale picture",
		in:   shop(svc("web@r1", 2), func(x *world) { x.seen.Stale = now }),
		want: "wait  shop  # the engine does not answer since 2026-05-04 12:00:00\n",
	}, {
		name: "networks come first",
		in:   shop(svc("web@r1", 1, open("")), func(x *world) { x.w.Ensured = false }),
		want: `
ensure  shop    # networks and volumes of generation 7
wait    web@r1  # networks and volumes are not there yet
`,
	}, {
		name: "a lost network is made again, and what runs goes on",
		in:   shop(svc("web@r1", 1), inst("web@r1", 1), func(x *world) { x.w.Networks = []string{"shop_default"} }),
		want: "ensure  shop  # network shop_default is missing\n",
	}, {
		name: "first deploy in parallel where nothing depends",
		in:   shop(svc("a@r1", 2, open("")), svc("b@r1", 1, open(""))),
		want: `
scale  a@r1  slots 1-2  # first deploy
scale  b@r1  slot 1     # first deploy
`,
	}, {
		name: "dependencies first, with all conditions",
		in: shop(
			svc("db@r1", 1, open(""), healthcheck), svc("job@r1", 1, open(""), func(s *plan.Service) { s.Job = true }), svc("log@r1", 1, open("")),
			svc("web@r1", 1, open(""), needs("db", tender.Healthy), needs("job", tender.Completed), needs("log", tender.Started)),
			inst("db@r1", 1, health(tender.Starting)), inst("job@r1", 1)),
		want: `
wait   db@r1   until 12:05:00  # shop-db-1 is not healthy yet
wait   job@r1                  # shop-job-1 runs
scale  log@r1  slot 1          # first deploy
wait   web@r1                  # db is not healthy yet
`,
	}, {
		name: "started is not delayed by health or hold",
		in: shop(svc("db@r1", 1, open(""), healthcheck), svc("web@r1", 1, open(""), needs("db", tender.Started)),
			inst("db@r1", 1, health(tender.Starting))),
		want: `
wait   db@r1   until 12:05:00  # shop-db-1 is not healthy yet
scale  web@r1  slot 1          # first deploy
`,
	}, {
		name: "a dependency that cannot come fails the one that needs it",
		in: shop(svc("db@r1", 1, func(s *plan.Service) { s.Failed = "exited with 1" }), svc("web@r1", 1, open(""), needs("db", tender.Healthy)),
			inst("db@r1", 1, exited(1))),
		want: `
start  shop-db-1  # shop-db-1 exited with 1
fail   web@r1     # db is not healthy and failed: exited with 1
`,
	}, {
		name: "one that is not required is gone without",
		in: shop(svc("db@r1", 1, func(s *plan.Service) { s.Stopped = true }), svc("web@r1", 1, open(""), func(s *plan.Service) {
			s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Healthy}}
		})),
		want: "scale  web@r1  slot 1  # first deploy\n",
	}, {
		name: "rolling begins with one newcomer beside the old ones",
		in:   shop(svc("web@r2", 2, open("r1")), inst("web@r1", 1), inst("web@r1", 2)),
		want: "scale  web@r2  slot 1  # replaces r1, start-first: old and new can run side by side\n",
	}, {
		name: "a newcomer without a healthcheck is held five seconds",
		in:   shop(svc("web@r2", 2, open("r1")), inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(2*time.Second))),
		want: "wait  web@r2  until 12:00:03  # shop-web-1-r2 must stay good for 5s\n",
	}, {
		name: "one with a healthcheck is not",
		in: shop(svc("web@r2", 2, open("r1"), healthcheck), inst("web@r1", 1), inst("web@r1", 2),
			inst("web@r2", 1, newcomer(time.Second), health(tender.HealthyIs))),
		want: "remove  shop-web-1  # replaced by r2\n",
	}, {
		name: "the name is taken over once it is free",
		in: shop(svc("web@r2", 2, open("r1"), healthcheck), inst("web@r1", 2),
			inst("web@r2", 1, newcomer(time.Second), health(tender.HealthyIs))),
		want: `
name   shop-web-1-r2          # the name shop-web-1 is free
scale  web@r2         slot 2  # replaces r1, start-first: old and new can run side by side
`,
	}, {
		name: "a delay lies between two batches",
		in: shop(svc("web@r2", 2, open("r1"), healthcheck, func(s *plan.Service) { s.Service.Rollout.Delay = 10 * time.Second }), inst("web@r1", 2),
			inst("web@r2", 1, health(tender.HealthyIs), func(i *tender.Instance) { i.Since = now.Add(-4 * time.Second); i.Started = i.Since })),
		want: "wait  web@r2  until 12:00:06  # delay of 10s between batches\n",
	}, {
		name: "parallelism says how many at once",
		in: shop(svc("web@r2", 3, open("r1"), func(s *plan.Service) { s.Service.Rollout.Parallel = ptr(2) }),
			inst("web@r1", 1), inst("web@r1", 2), inst("web@r1", 3)),
		want: "scale  web@r2  slots 1-2  # replaces r1, start-first: old and new can run side by side\n",
	}, {
		name: "stop-first where two cannot run side by side",
		in: shop(svc("web@r2", 2, open("r1"), func(s *plan.Service) { s.OneAtATime = "host port 80 is held by the engine" }),
			inst("web@r1", 1), inst("web@r1", 2)),
		want: "scale  web@r2  slot 1, drop shop-web-1  # replaces r1, stop-first: host port 80 is held by the engine\n",
	}, {
		name: "stop-first where an anonymous volume moves",
		in: shop(svc("db@r2", 1, open("r1")),
			inst("db@r1", 1, func(i *tender.Instance) { i.Anonymous = []string{"v"} })),
		want: "scale  db@r2  slot 1, drop shop-db-1, inherit volumes  # replaces r1, stop-first: its anonymous volume moves to the newcomer\n",
	}, {
		name: "new anonymous volumes when that is asked for",
		in: shop(svc("db@r2", 1, open("r1"), func(s *plan.Service) { s.RenewAnon = true; s.OneAtATime = "port" }),
			inst("db@r1", 1, func(i *tender.Instance) { i.Anonymous = []string{"v"} })),
		want: "scale  db@r2  slot 1, drop shop-db-1, with anonymous volumes  # replaces r1, stop-first: port\n",
	}, {
		name: "an explicit order wins",
		in: shop(svc("web@r2", 1, open("r1"), func(s *plan.Service) { s.OneAtATime = "port"; s.Service.Rollout.Order = "start-first" }),
			inst("web@r1", 1)),
		want: "scale  web@r2  slot 1  # replaces r1, start-first: as order says\n",
	}, {
		name: "a newcomer that was created and not started when somebody was killed",
		in: shop(svc("db@r2", 1, open("r1"), func(s *plan.Service) { s.OneAtATime = "port" }), inst("db@r1", 1),
			inst("db@r2", 1, newcomer(time.Second), state(tender.Created), func(i *tender.Instance) { i.Started = time.Time{} })),
		want: "scale  db@r2  slot 1, drop shop-db-1  # replaces r1, stop-first: port\n",
	}, {
		name: "recreate: all old ones go first",
		in: shop(svc("web@r2", 2, open("r1"), func(s *plan.Service) { s.Service.Rollout.Strategy = "recreate" }),
			inst("web@r1", 1), inst("web@r1", 2)),
		want: "scale  web@r2  slots 1-2, drop shop-web-1 shop-web-2  # replaces r1, recreate: all old instances go first, as strategy says\n",
	}, {
		name: "a move that also shrinks",
		in:   shop(svc("web@r2", 1, open("r1")), inst("web@r2", 1), inst("web@r1", 2), inst("web@r1", 3)),
		want: `
remove  shop-web-2  # 1 wanted
remove  shop-web-3  # 1 wanted
`,
	}, {
		name: "the end of a rollout",
		in:   shop(svc("web@r2", 1, open("r1")), inst("web@r2", 1)),
		want: "finish  web@r2  # all instances are good\n",
	}, {
		name: "a newcomer that exits goes back",
		in:   shop(svc("web@r2", 2, open("r1")), inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Second), exited(3))),
		want: "rollback  web@r2  # shop-web-1-r2 exited with 3\n",
	}, {
		name: "a newcomer that was ended together with its engine is started again",
		in:   shop(svc("web@r2", 2, open("r1")), inst("web@r1", 1, exited(255)), inst("web@r1", 2, exited(255)), inst("web@r2", 1, newcomer(time.Second), exited(255))),
		want: "start  shop-web-1-r2  # shop-web-1-r2 exited with 255\n",
	}, {
		name: "a newcomer that somebody killed is started again",
		in:   shop(svc("web@r2", 1, open("r1")), inst("web@r1", 1), inst("web@r2", 1, newcomer(time.Second), exited(137))),
		want: "start  shop-web-1-r2  # shop-web-1-r2 exited with 137\n",
	}, {
		name: "but not without end",
		in:   shop(svc("web@r2", 1, open("r1"), tried(3, time.Minute)), inst("web@r1", 1), inst("web@r2", 1, newcomer(time.Second), exited(137))),
		want: "rollback  web@r2  # shop-web-1-r2 exited with 137\n",
	}, {
		name: "one that was ended for memory goes back",
		in: shop(svc("web@r2", 1, open("r1")), inst("web@r1", 1), inst("web@r2", 1, newcomer(time.Second), exited(137), func(i *tender.Instance) {
			i.OOM = true
		})),
		want: "rollback  web@r2  # shop-web-1-r2 was ended for memory (exit 137)\n",
	}, {
		name: "an unhealthy one goes back",
		in: shop(svc("web@r2", 1, open("r1")), inst("web@r1", 1), inst("web@r2", 1, newcomer(time.Second), health(tender.Unhealthy), func(i *tender.Instance) {
			i.HealthOutput = "503"
		})),
		want: "rollback  web@r2  # shop-web-1-r2 is unhealthy: 503\n",
	}, {
		name: "one that the engine restarts again and again goes back",
		in: shop(svc("web@r2", 1, open("r1"), func(s *plan.Service) { s.Restart = "always" }), inst("web@r1", 1),
			inst("web@r2", 1, newcomer(time.Second), func(i *tender.Instance) { i.Restarts = 3 })),
		want: "rollback  web@r2  # shop-web-1-r2 was restarted 3 times\n",
	}, {
		name: "one that cannot be made goes back",
		in: shop(svc("web@r2", 1, open("r1"), func(s *plan.Service) {
			s.Tries = map[int]plan.Try{1: {Count: 3, Last: now, Reason: "port 80 is in use"}}
		}), inst("web@r1", 1)),
		want: "rollback  web@r2  # port 80 is in use\n",
	}, {
		name: "failure_action pause leaves all as it is",
		in: shop(svc("web@r2", 1, open("r1"), func(s *plan.Service) { s.Service.Rollout.Failure = "pause" }), inst("web@r1", 1),
			inst("web@r2", 1, newcomer(time.Second), exited(3))),
		want: "fail  web@r2  # shop-web-1-r2 exited with 3\n",
	}, {
		name: "a paused rollout waits for a person",
		in: shop(svc("web@r2", 1, func(s *plan.Service) { s.Halted = "exited with 3" }), inst("web@r1", 1),
			inst("web@r2", 1, newcomer(time.Second), exited(3))),
		want: "wait  web@r2  # paused: exited with 3\n",
	}, {
		name: "failure_action continue goes on",
		in: shop(svc("web@r2", 2, open("r1"), func(s *plan.Service) { s.Service.Rollout.Failure = "continue"; s.Restart = "no" }), inst("web@r1", 1), inst("web@r1", 2),
			inst("web@r2", 1, newcomer(time.Second), exited(3))),
		want: `
scale  web@r2  slot 2  # replaces r1, start-first: old and new can run side by side
wait   web@r2          # shop-web-1-r2 exited with 3, and restart is "no"
`,
	}, {
		name: "some failures are tolerated",
		in: shop(svc("web@r2", 2, open("r1"), func(s *plan.Service) { s.Service.Rollout.MaxRatio = 0.5; s.Restart = "no" }), inst("web@r1", 1), inst("web@r1", 2),
			inst("web@r2", 1, newcomer(time.Second), exited(3))),
		want: `
scale  web@r2  slot 2  # replaces r1, start-first: old and new can run side by side
wait   web@r2          # shop-web-1-r2 exited with 3, and restart is "no"
`,
	}, {
		name: "a way back that fails is left",
		in: shop(svc("web@r1", 1, func(s *plan.Service) {
			s.Open = &plan.Rollout{ID: 2, From: "r2", Reverse: true}
		}),
			inst("web@r1", 1, exited(3))),
		want: "fail  web@r1  # shop-web-1 exited with 3\n",
	}, {
		name: "the first deploy is tried again before it fails",
		in:   shop(svc("web@r1", 1, open("")), inst("web@r1", 1, exited(3))),
		want: "start  shop-web-1  # shop-web-1 exited with 3\n",
	}, {
		name: "and fails after three attempts",
		in: shop(svc("web@r1", 1, open(""), func(s *plan.Service) {
			s.Tries = map[int]plan.Try{1: {Count: 3, Last: now, Reason: "x"}}
		}), inst("web@r1", 1, exited(3))),
		want: "fail  web@r1  # shop-web-1 exited with 3\n",
	}, {
		name: "one that was restarted already has to show that it stays",
		in: shop(svc("web@r1", 1, open(""), func(s *plan.Service) { s.Restart = "always" }),
			inst("web@r1", 1, newcomer(time.Second), func(i *tender.Instance) { i.Name, i.Restarts = "shop-web-1", 1 })),
		want: "wait  web@r1  until 12:00:04  # shop-web-1 must stay good for 5s\n",
	}, {
		name: "what exited is started",
		in:   shop(svc("web@r1", 1), inst("web@r1", 1, exited(137))),
		want: "start  shop-web-1  # shop-web-1 exited with 137\n",
	}, {
		name: "pauses between attempts grow",
		in: shop(svc("web@r1", 1, func(s *plan.Service) {
			s.Tries = map[int]plan.Try{1: {Count: 4, Last: now.Add(-time.Second)}}
		}), inst("web@r1", 1, exited(137))),
		want: "wait  web@r1  until 12:00:07  # shop-web-1 exited with 137, attempt 5 follows\n",
	}, {
		name: "until it is given up",
		in: shop(svc("web@r1", 1, func(s *plan.Service) {
			s.Tries = map[int]plan.Try{1: {Count: 10, Last: now.Add(-time.Hour)}}
		}), inst("web@r1", 1, exited(137))),
		want: "wait  web@r1  # given up after 10 attempts: shop-web-1 exited with 137\n",
	}, {
		name: "never given up where Tender stands in for the engine's restart policy",
		in:   shop(svc("web@r1", 1, ordered("always"), tried(10, time.Minute)), inst("web@r1", 1, exited(137))),
		want: "start  shop-web-1  # shop-web-1 exited with 137\n",
	}, {
		name: "but as often as on-failure says",
		in:   shop(svc("web@r1", 1, ordered("on-failure"), func(s *plan.Service) { s.RestartMax = 2 }, tried(2, time.Minute)), inst("web@r1", 1, exited(1))),
		want: "wait  web@r1  # shop-web-1 exited with 1 after 2 restarts\n",
	}, {
		name: "after a boot in order",
		in: shop(
			svc("db@r1", 1, ordered("always"), healthcheck),
			svc("web@r1", 1, ordered("unless-stopped"), needs("db", tender.Healthy)),
			inst("db@r1", 1, exited(137)), inst("web@r1", 1, exited(137))),
		want: `
start  shop-db-1  # shop-db-1 exited with 137
wait   web@r1     # db is not healthy yet
`,
	}, {
		name: "after a boot in order, when the first is there",
		in: shop(
			svc("db@r1", 1, ordered("always"), healthcheck),
			svc("web@r1", 1, ordered("unless-stopped"), needs("db", tender.Healthy)),
			inst("db@r1", 1, health(tender.HealthyIs)), inst("web@r1", 1, exited(137))),
		want: "start  shop-web-1  # shop-web-1 exited with 137\n",
	}, {
		name: "exit 0 without a restart policy is done",
		in:   shop(svc("web@r1", 1), inst("web@r1", 1, exited(0))),
	}, {
		name: "exit 0 with restart always is docker stop, which is drift",
		in:   shop(svc("web@r1", 1, func(s *plan.Service) { s.Restart = "always" }), inst("web@r1", 1, exited(0))),
		want: "start  shop-web-1  # shop-web-1 exited with 0\n",
	}, {
		name: `restart "no" is left`,
		in:   shop(svc("web@r1", 1, func(s *plan.Service) { s.Restart = "no" }), inst("web@r1", 1, exited(2))),
		want: "wait  web@r1  # shop-web-1 exited with 2, and restart is \"no\"\n",
	}, {
		name: "a missing one is made",
		in:   shop(svc("web@r1", 2), inst("web@r1", 2)),
		want: "scale  web@r1  slot 1  # missing\n",
	}, {
		name: "repair does not miss what a person has stopped",
		in: shop(svc("web@r1", 1, needs("db", tender.Started)), svc("db@r1", 1, func(s *plan.Service) { s.Stopped = true }),
			inst("db@r1", 1, exited(0))),
		want: "scale  web@r1  slot 1  # missing\n",
	}, {
		name: "a dead one is replaced",
		in:   shop(svc("web@r1", 1), inst("web@r1", 1, state(tender.Dead))),
		want: "scale  web@r1  slot 1, drop shop-web-1  # shop-web-1 is dead\n",
	}, {
		name: "an unhealthy one gets time",
		in:   shop(svc("web@r1", 1, healthcheck), inst("web@r1", 1, health(tender.Unhealthy), func(i *tender.Instance) { i.Since = now.Add(-10 * time.Second) })),
		want: "wait  web@r1  until 12:00:20  # shop-web-1 is unhealthy\n",
	}, {
		name: "and is restarted then",
		in:   shop(svc("web@r1", 1, healthcheck), inst("web@r1", 1, health(tender.Unhealthy))),
		want: "restart  shop-web-1  # shop-web-1 is unhealthy\n",
	}, {
		name: "a drifted one is replaced, one at a time",
		in: shop(svc("web@r1", 2), inst("web@r1", 1, func(i *tender.Instance) { i.Drift = "memory limit" }),
			inst("web@r1", 2, func(i *tender.Instance) { i.Drift = "memory limit" })),
		want: "scale  web@r1  slot 1, drop shop-web-1  # drifted: memory limit\n",
	}, {
		name: "a paused one is left",
		in:   shop(svc("web@r1", 1), inst("web@r1", 1, state(tender.Paused))),
	}, {
		name: "a wrong revision without a rollout is moved, too",
		in:   shop(svc("web@r1", 1), inst("web@r0", 1)),
		want: "scale  web@r1  slot 1  # replaces r0, start-first: old and new can run side by side\n",
	}, {
		name: "scale down takes the highest first",
		in:   shop(svc("web@r1", 1), inst("web@r1", 1), inst("web@r1", 2), inst("web@r1", 3)),
		want: `
remove  shop-web-3  # 1 wanted
remove  shop-web-2  # 1 wanted
`,
	}, {
		name: "of two in one slot the one that serves stays",
		in: shop(svc("web@r1", 1), inst("web@r1", 1, exited(1)),
			inst("web@r1", 1, func(i *tender.Instance) { i.ID, i.Name = "twin", "shop-web-1-twin" })),
		want: "remove  shop-web-1  # doubled in slot 1\n",
	}, {
		name: "restart by request, one at a time",
		in: shop(svc("web@r1", 2, func(s *plan.Service) {
			s.RestartOf = map[string]time.Time{"web-1-r1": ago(10 * time.Minute), "web-2-r1": ago(10 * time.Minute)}
		}), inst("web@r1", 1), inst("web@r1", 2)),
		want: "restart  shop-web-1  # restarted by request\n",
	}, {
		name: "each once, whatever the engine's clock says",
		in: shop(svc("web@r1", 2, func(s *plan.Service) {
			s.RestartOf = map[string]time.Time{"web-1-r1": ago(10 * time.Minute), "web-2-r1": ago(10 * time.Minute)}
		}), inst("web@r1", 1, func(i *tender.Instance) { i.Started = ago(time.Hour) }), inst("web@r1", 2)),
		want: "restart  shop-web-2  # restarted by request\n",
	}, {
		name: "a clock that was set back makes no hold longer",
		in:   shop(svc("web@r2", 1, open("r1")), inst("web@r1", 1), inst("web@r2", 1, newcomer(6*time.Second), future)),
		want: "remove  shop-web-1  # replaced by r2\n",
	}, {
		name: "nor the wait for health",
		in:   shop(svc("web@r2", 1, open("r1")), inst("web@r1", 1), inst("web@r2", 1, newcomer(16*time.Minute), health(tender.Starting), future)),
		want: "rollback  web@r2  # shop-web-1-r2 is not healthy after 15m0s\n",
	}, {
		name: "nor what was restarted long ago sick",
		in: shop(svc("web@r1", 1, func(s *plan.Service) { s.Restart = "always" }),
			inst("web@r1", 1, future, func(i *tender.Instance) { i.Restarts = 5 })),
	}, {
		name: "nor what was begun after its dependency due for a restart",
		in: shop(svc("db@r1", 1), svc("web@r1", 1, func(s *plan.Service) {
			s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Started, Required: true, Restart: true}}
		}), inst("db@r1", 1, future, func(i *tender.Instance) { i.Begun = ago(time.Hour) }),
			inst("web@r1", 1, func(i *tender.Instance) { i.Begun = ago(time.Minute) })),
	}, {
		name: "and what depends on it with restart: true",
		in: shop(svc("db@r1", 1, func(s *plan.Service) {
			s.RestartOf = map[string]time.Time{"db-1-r1": ago(10 * time.Minute), "web-1-r1": ago(10 * time.Minute)}
		}), svc("web@r1", 1, func(s *plan.Service) {
			s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Started, Required: true, Restart: true}}
		}), inst("db@r1", 1, func(i *tender.Instance) { i.Started = ago(time.Minute) }), inst("web@r1", 1)),
		want: "restart  shop-web-1  # db was restarted\n",
	}, {
		name: "restart after a dependency was replaced",
		in: shop(svc("db@r1", 1), svc("web@r1", 1, func(s *plan.Service) {
			s.DependsOn = []tender.Dependency{{Service: "db", Condition: tender.Started, Required: true, Restart: true}}
		}), inst("db@r1", 1, func(i *tender.Instance) { i.Created = now.Add(-time.Minute); i.Started = i.Created }), inst("web@r1", 1)),
		want: "restart  shop-web-1  # db was replaced\n",
	}, {
		name: "a job runs once per revision",
		in:   shop(svc("job@r2", 1, open("r1"), func(s *plan.Service) { s.Job = true }), inst("job@r1", 1, exited(0))),
		want: "scale  job@r2  slot 1, drop shop-job-1  # a job, once per revision\n",
	}, {
		name: "its end is recorded",
		in:   shop(svc("job@r1", 1, open(""), func(s *plan.Service) { s.Job = true }), inst("job@r1", 1, exited(0))),
		want: "finish  job@r1  # completed\n",
	}, {
		name: "so is its failure",
		in:   shop(svc("job@r1", 1, open(""), func(s *plan.Service) { s.Job = true }), inst("job@r1", 1, exited(4))),
		want: "fail  job@r1  # shop-job-1 exited with 4\n",
	}, {
		name: "repair never repeats it",
		in:   shop(svc("job@r1", 1, func(s *plan.Service) { s.Job = true; s.Jobs = []plan.JobEnd{{Code: 0}} })),
	}, {
		name: "a job before a rollout comes first",
		in: shop(svc("migrate@r1", 1, func(s *plan.Service) { s.Job = true; s.Jobs = []plan.JobEnd{{For: 99}} }),
			svc("web@r2", 1, open("r1"), func(s *plan.Service) { s.Service.Rollout.Before = "migrate" }), inst("web@r1", 1)),
		want: `
scale  migrate@r1  slot 1  # before the rollout of web
wait   web@r2              # migrate runs before and has not completed yet
`,
	}, {
		name: "once for each rollout",
		in: shop(svc("migrate@r1", 1, func(s *plan.Service) { s.Job = true; s.Jobs = []plan.JobEnd{{For: 1}} }),
			svc("web@r2", 1, open("r1"), func(s *plan.Service) { s.Service.Rollout.Before = "migrate" }), inst("web@r1", 1)),
		want: "scale  web@r2  slot 1  # replaces r1, start-first: old and new can run side by side\n",
	}, {
		name: "and its failure takes the rollout back",
		in: shop(svc("migrate@r1", 1, func(s *plan.Service) { s.Job = true; s.Jobs = []plan.JobEnd{{For: 1, Code: 2}} }),
			svc("web@r2", 1, open("r1"), func(s *plan.Service) { s.Service.Rollout.Before = "migrate" }), inst("web@r1", 1)),
		want: "rollback  web@r2  # migrate, which runs before, failed with exit 2\n",
	}, {
		name: "stop in reverse order",
		in: shop(svc("db@r1", 1, func(s *plan.Service) { s.Stopped = true }), svc("web@r1", 1, func(s *plan.Service) { s.Stopped = true }, needs("db", tender.Started)),
			inst("db@r1", 1), inst("web@r1", 1)),
		want: `
wait  db@r1       # web stops first
stop  shop-web-1  # stopped by request
`,
	}, {
		name: "a stopped service is not repaired",
		in:   shop(svc("web@r1", 1, func(s *plan.Service) { s.Stopped = true }), inst("web@r1", 1, exited(137))),
	}, {
		name: "what Docker Compose made is replaced like any other",
		in:   shop(svc("web@r1", 1, open("")), inst("web", 1, foreign)),
		want: "scale  web@r1  slot 1  # replaces what Docker Compose made, start-first: old and new can run side by side\n",
	}, {
		name: "an adopted one stays",
		in:   shop(svc("web@r1", 1, func(s *plan.Service) { s.Adopted = map[string]string{"web-1-": "r1"} }), inst("web", 1, foreign)),
	}, {
		name: "an adopted one is old when something else is wanted",
		in:   shop(svc("web@r2", 1, func(s *plan.Service) { s.Adopted = map[string]string{"web-1-": "r1"} }), inst("web", 1, foreign)),
		want: "scale  web@r2  slot 1  # replaces what Docker Compose made, start-first: old and new can run side by side\n",
	}, {
		name: "one-off runs and orphans are left",
		in:   shop(svc("web@r1", 1), inst("web@r1", 1), inst("web@r1", 9, func(i *tender.Instance) { i.Oneoff = true }), inst("gone@r1", 1)),
	}, {
		name: "orphans go when that is asked for",
		in:   shop(svc("web@r1", 1), inst("web@r1", 1), inst("gone@r1", 1), func(x *world) { x.w.Orphans = true }),
		want: "remove  shop-gone-1  # service gone is not in the project any more\n",
	}, {
		name: "down in reverse order",
		in: shop(svc("db@r1", 1), svc("web@r1", 1, needs("db", tender.Started)), inst("db@r1", 1), inst("web@r1", 1),
			func(x *world) { x.w.Down = &plan.Down{} }),
		want: `
remove  shop-web-1  # down
wait    db@r1       # web goes first
`,
	}, {
		name: "down -v ends with networks and volumes",
		in: shop(svc("db@r1", 1), func(x *world) {
			x.w.Down = &plan.Down{Volumes: true}
			x.seen.Networks = []tender.Network{{ID: "n1", Name: "shop_default", Project: "shop"}, {ID: "n2", Name: "other", Project: "other"}}
			x.seen.Volumes = []tender.Volume{{Name: "shop_data", Project: "shop"}}
		}),
		want: `
remove-network  shop_default  # down
remove-volume   shop_data     # down -v
`,
	}} {
		t.Run(tt.name, func(t *testing.T) {
			got := plan.Make(tt.in.w, tt.in.seen, now).String()
			if d := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), got); d != "" {
				t.Errorf("want -, got +:\n%s", d)
			}
		})
	}
}

func TestSimulateShowsTheWholeWay(t *testing.T) {
	in := shop(
		svc("job@r2", 1, open("r1"), func(s *plan.Service) { s.Job = true }),
		svc("web@r2", 2, open("r1"), healthcheck, needs("job", tender.Completed)),
		inst("job@r1", 1, exited(0)), inst("web@r1", 1), inst("web@r1", 2))
	want := `
scale   job@r2         slot 1, drop shop-job-1  # a job, once per revision
wait    job@r2                                  # shop-job-1 runs
wait    web@r2                                  # job has not completed yet
finish  job@r2                                  # completed
scale   web@r2         slot 1                   # replaces r1, start-first: old and new can run side by side
wait    web@r2                                  # shop-web-1-r2 is not healthy yet
remove  shop-web-1                              # replaced by r2
name    shop-web-1-r2                           # the name shop-web-1 is free
scale   web@r2         slot 2                   # replaces r1, start-first: old and new can run side by side
wait    web@r2                                  # shop-web-2-r2 is not healthy yet
remove  shop-web-2                              # replaced by r2
name    shop-web-2-r2                           # the name shop-web-2 is free
finish  web@r2                                  # all instances are good
`
	got := plan.Simulate(in.w, in.seen, now).String()
	if d := cmp.Diff(strings.TrimPrefix(want, "\n"), got); d != "" {
		t.Errorf("want -, got +:\n%s", d)
	}
}

// Every way ends: whatever is wanted and there, a simulation comes to rest.
func FuzzSimulate(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Add(uint64(77), uint64(4711))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		in := dice(a, b)
		way := plan.Simulate(in.w, in.seen, now)
		if len(way) > 200 {
			t.Errorf("%d steps:\n%s", len(way), way[:60])
		}
	})
}

// dice makes a world out of two numbers.
func dice(a, b uint64) world {
	roll := func(n uint64) int {
		a = a*6364136223846793005 + 1442695040888963407 + b
		return int(a >> 33 % n)
	}
	x := shop()
	for k := range 1 + roll(4) {
		s := svc(fmt.Sprintf("s%d@r2", k), roll(4))
		if roll(2) == 0 {
			open([]string{"", "r1"}[roll(2)])(&s)
		}
		s.Healthcheck, s.Job, s.Stopped, s.Gone = roll(2), roll(6) == 0, roll(8) == 0, roll(10) == 0
		s.Restart = []string{"", "no", "always", "on-failure"}[roll(4)]
		s.Service.Rollout.Order = []string{"", "", "start-first", "stop-first"}[roll(4)]
		s.Service.Rollout.Strategy = []string{"", "", "recreate", "blue-green", "canary"}[roll(5)]
		s.Service.Rollout.Parallel = []*int{nil, ptr(0), ptr(2)}[roll(3)]
		if roll(2) == 0 {
			s.Traffic = &plan.Traffic{}
			s.Service.Rollout.Keep = []time.Duration{0, time.Minute}[roll(2)]
			if s.Open != nil && roll(3) == 0 {
				s.Open.Shifts = []plan.Shifted{{At: now, Share: []int{50, 1000}[roll(2)]}}
			}
		}
		for d := range k {
			if roll(3) == 0 {
				needs(fmt.Sprintf("s%d", d), []tender.Condition{tender.Started, tender.Healthy}[roll(2)])(&s)
			}
		}
		x.w.Services = append(x.w.Services, s)
		for range roll(5) {
			i := inst(fmt.Sprintf("s%d@r%d", k, 1+roll(2)), 1+roll(4))
			i.ID += fmt.Sprint(len(x.seen.Instances))
			i.State = []tender.State{tender.Running, tender.Exited, tender.Created, tender.Dead, tender.Paused}[roll(5)]
			if i.State == tender.Running && s.Healthcheck > 0 {
				i.Health = []tender.Health{tender.HealthyIs, tender.Starting, tender.Unhealthy}[roll(3)]
			}
			i.ExitCode = roll(2)
			x.seen.Instances = append(x.seen.Instances, i)
		}
	}
	return x
}

func BenchmarkMake200(b *testing.B) {
	x := shop()
	for k := range 200 {
		s := svc(fmt.Sprintf("s%03d@r2", k), 3, open("r1"), healthcheck)
		if k > 0 {
			needs(fmt.Sprintf("s%03d", k/2), tender.Healthy)(&s)
		}
		x.w.Services = append(x.w.Services, s)
		for slot := range 3 {
			x.seen.Instances = append(x.seen.Instances, inst(fmt.Sprintf("s%03d@r1", k), slot+1))
		}
	}
	for b.Loop() {
		plan.Make(x.w, x.seen, now)
	}
}

func BenchmarkSimulate200(b *testing.B) {
	x := shop()
	for k := range 200 {
		x.w.Services = append(x.w.Services, svc(fmt.Sprintf("s%03d@r1", k), 1, open("")))
	}
	for b.Loop() {
		plan.Simulate(x.w, x.seen, now)
	}
}

func TestWhoLeaves(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   world
		want string
	}{
		{"start-first", shop(svc("web@r2", 1, open("r1")), inst("web@r1", 1)), "shop-web-1"},
		{"stop-first", shop(svc("web@r2", 1, open("r1"), func(s *plan.Service) { s.OneAtATime = "it has a host port" }), inst("web@r1", 1)), "shop-web-1"},
		{"fewer", shop(svc("web@r1", 1), inst("web@r1", 1), inst("web@r1", 2)), "shop-web-2"},
		{"what stays, and what is restarted", shop(svc("web@r1", 1), svc("job@r1", 1), inst("web@r1", 1), inst("job@r1", 1, exited(1))), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, i := range plan.Simulate(tt.in.w, tt.in.seen, now).Leaving(tt.in.seen.Instances) {
				got = append(got, i.Name)
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("%q leave, want %q", got, tt.want)
			}
		})
	}
}
