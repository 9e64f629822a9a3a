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

// edge says what it has of instances: "web-1-r1 leaving 3" is three requests under way, for ten seconds.
func edge(flows ...string) func(*plan.Service) {
	return func(s *plan.Service) {
		s.Traffic = &plan.Traffic{Instances: map[string]plan.Flow{}, Since: now.Add(-time.Hour)}
		for _, line := range flows {
			f := plan.Flow{Since: now.Add(-10 * time.Second)}
			var id string
			fmt.Sscanf(line, "%s %s %d", &id, &f.State, &f.Open)
			if f.State == plan.Out {
				f.Since = now.Add(-time.Minute)
			}
			s.Traffic.Instances[id] = f
		}
	}
}

func edgeAway(ago time.Duration) func(*plan.Service) {
	return func(s *plan.Service) {
		s.Traffic = &plan.Traffic{Away: "connection refused", Since: now.Add(-ago)}
	}
}

func strategy(name string) func(*plan.Service) {
	return func(s *plan.Service) { s.Service.Rollout.Strategy = name }
}

func grace(d time.Duration) func(*plan.Service) { return func(s *plan.Service) { s.Grace = d } }

// restarted asks for a restart of both instances of web@r1.
func restarted(s *plan.Service) {
	s.RestartOf = map[string]time.Time{"web-1-r1": now.Add(-10 * time.Minute), "web-2-r1": now.Add(-10 * time.Minute)}
}

// shifted gives the newcomer a share, some time ago.
func shifted(mille int, ago time.Duration) func(*plan.Service) {
	return func(s *plan.Service) {
		s.Open.Shifts = append(s.Open.Shifts, plan.Shifted{At: now.Add(-ago), Share: mille})
	}
}

// counted is what the edge has counted: requests, of them failed, all within 5 ms.
func counted(rev string, requests, failed uint64) func(*plan.Service) {
	return func(s *plan.Service) {
		n := tender.Served{Requests: requests}
		n.Class[5], n.Class[2], n.Latency[2] = failed, requests-failed, requests
		if s.Traffic.Revisions == nil {
			s.Traffic.Revisions = map[string]tender.Served{}
		}
		s.Traffic.Revisions[rev] = n
	}
}

func slow(rev string) func(*plan.Service) {
	return func(s *plan.Service) {
		n := s.Traffic.Revisions[rev]
		n.Latency[2], n.Latency[10] = n.Requests-n.Requests/20, n.Requests/20
		s.Traffic.Revisions[rev] = n
		s.Service.Rollout.AbortP99 = 500 * time.Millisecond
	}
}

func checks(s *plan.Service) {
	s.Service.Rollout.Check = []tender.Check{{Path: "/health"}, {Path: "/"}}
}

func old(n int) []any {
	var all []any
	for slot := range n {
		all = append(all, inst("web@r1", slot+1))
	}
	return all
}

// beside is web@r2 with n newcomers beside n old ones, all of them good and in.
func beside(n, newcomers int, change ...func(*plan.Service)) world {
	var flows []string
	parts := old(n)
	for slot := range n {
		flows = append(flows, fmt.Sprintf("web-%d-r1 in", slot+1))
	}
	for slot := range newcomers {
		flows = append(flows, fmt.Sprintf("web-%d-r2 in", slot+1))
		parts = append(parts, inst("web@r2", slot+1, newcomer(time.Minute), health(tender.HealthyIs)))
	}
	all := append([]func(*plan.Service){open("r1"), healthcheck, edge(flows...)}, change...)
	return shop(append(parts, svc("web@r2", n, all...))...)
}

// lanes prints what each instance gets.
func lanes(x world) string {
	var b strings.Builder
	for _, l := range plan.Lanes(x.w, x.seen, now) {
		fmt.Fprintf(&b, "%s %s %d\n", l.ID, l.State, l.Share)
	}
	return b.String()
}

func TestTraffic(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   world
		want string
	}{{
		name: "rolling: a newcomer that is not good gets nothing",
		in:   shop(svc("web@r2", 2, open("r1"), healthcheck, edge("web-1-r1 in", "web-2-r1 in")), inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Second), health(tender.Starting))),
		want: `
wait  web@r2  until 12:14:59  # shop-web-1-r2 is not healthy yet
web-1-r2 out 0
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "rolling: nor one that is good and was not for long enough",
		in:   shop(svc("web@r2", 2, open("r1"), edge("web-1-r1 in", "web-2-r1 in")), inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Second))),
		want: `
wait  web@r2  until 12:00:04  # shop-web-1-r2 must stay good for 5s
web-1-r2 out 0
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "rolling: but what the edge sends to is not taken away by a daemon that has just begun",
		in: shop(svc("web@r2", 2, open("r1"), edge("web-1-r1 in", "web-2-r1 in", "web-1-r2 in")),
			inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Second))),
		want: `
wait  web@r2  until 12:00:04  # shop-web-1-r2 must stay good for 5s
web-1-r2 in 334
web-1-r1 in 666
web-2-r1 in 666
`,
	}, {
		name: "rolling: a good newcomer comes in, and the old one stays until the edge sends there",
		in:   shop(svc("web@r2", 2, open("r1"), healthcheck, edge("web-1-r1 in", "web-2-r1 in", "web-1-r2 out")), inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Second), health(tender.HealthyIs))),
		want: `
wait  web@r2  until 12:00:59  # the edge does not send to shop-web-1-r2 yet
web-1-r2 in 334
web-1-r1 in 666
web-2-r1 in 666
`,
	}, {
		name: "rolling: then the old one leaves",
		in:   shop(svc("web@r2", 2, open("r1"), healthcheck, edge("web-1-r1 in", "web-2-r1 in", "web-1-r2 in")), inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Second), health(tender.HealthyIs))),
		want: `
drain  shop-web-1  # replaced by r2
web-1-r2 in 500
web-1-r1 leaving 500
web-2-r1 in 500
`,
	}, {
		name: "rolling: and what is under way is waited for",
		in: shop(svc("web@r2", 2, open("r1"), healthcheck, grace(time.Minute), edge("web-1-r1 leaving 3", "web-2-r1 in", "web-1-r2 in")),
			inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Second), health(tender.HealthyIs))),
		want: `
drain  shop-web-1  until 12:00:50  # replaced by r2; 3 requests under way
web-1-r2 in 500
web-1-r1 leaving 500
web-2-r1 in 500
`,
	}, {
		name: "rolling: but not longer than its grace",
		in: shop(svc("web@r2", 2, open("r1"), healthcheck, edge("web-1-r1 leaving 3", "web-2-r1 in", "web-1-r2 in")),
			inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Second), health(tender.HealthyIs))),
		want: `
remove  shop-web-1  # replaced by r2, 3 requests under way after 10s
web-1-r2 in 500
web-1-r1 leaving 500
web-2-r1 in 500
`,
	}, {
		name: "rolling: nothing is under way any more",
		in: shop(svc("web@r2", 2, open("r1"), healthcheck, edge("web-1-r1 leaving", "web-2-r1 in", "web-1-r2 in")),
			inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Second), health(tender.HealthyIs))),
		want: `
remove  shop-web-1  # replaced by r2, drained in 10s
web-1-r2 in 500
web-1-r1 leaving 500
web-2-r1 in 500
`,
	}, {
		name: "rolling: a newcomer that the edge finds no service at goes back",
		in: shop(svc("web@r2", 2, open("r1"), healthcheck, edge("web-1-r1 in", "web-2-r1 in", "web-1-r2 out")),
			inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(2*time.Minute), health(tender.HealthyIs))),
		want: `
rollback  web@r2  # the edge cannot serve from shop-web-1-r2
web-1-r2 in 334
web-1-r1 in 666
web-2-r1 in 666
`,
	}, {
		name: "an edge that does not tell is waited for",
		in: shop(svc("web@r2", 2, open("r1"), healthcheck, edgeAway(20*time.Second)),
			inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Second), health(tender.HealthyIs))),
		want: `
wait  web@r2  until 12:00:59  # shop-web-1-r2 is good, and the edge does not tell: connection refused
web-1-r2 in 334
web-1-r1 in 666
web-2-r1 in 666
`,
	}, {
		name: "but not for ever",
		in: shop(svc("web@r2", 2, open("r1"), healthcheck, edgeAway(time.Minute)),
			inst("web@r1", 1), inst("web@r1", 2), inst("web@r2", 1, newcomer(time.Minute), health(tender.HealthyIs))),
		want: `
remove  shop-web-1  # replaced by r2, not drained: the edge does not tell: connection refused
web-1-r2 in 500
web-1-r1 leaving 500
web-2-r1 in 500
`,
	}, {
		name: "stop-first empties the old one first",
		in:   shop(svc("web@r2", 2, open("r1"), edge("web-1-r1 in", "web-2-r1 in"), func(s *plan.Service) { s.OneAtATime = "device /dev/fuse" }), inst("web@r1", 1), inst("web@r1", 2)),
		want: `
drain  shop-web-1  # stop-first: device /dev/fuse
web-1-r1 leaving 1000
web-2-r1 in 1000
`,
	}, {
		name: "and then takes its place",
		in:   shop(svc("web@r2", 2, open("r1"), edge("web-1-r1 leaving", "web-2-r1 in"), func(s *plan.Service) { s.OneAtATime = "device /dev/fuse" }), inst("web@r1", 1), inst("web@r1", 2)),
		want: `
scale  web@r2  slot 1, drop shop-web-1  # replaces r1, stop-first: device /dev/fuse
web-1-r1 leaving 1000
web-2-r1 in 1000
`,
	}, {
		name: "where nobody else serves, a newcomer does at once",
		in:   shop(svc("web@r2", 1, open("r1"), edge("web-1-r2 in"), func(s *plan.Service) { s.OneAtATime = "device /dev/fuse" }), inst("web@r2", 1, newcomer(time.Second))),
		want: `
name  shop-web-1-r2                  # the name shop-web-1 is free
wait  web@r2         until 12:00:04  # shop-web-1-r2 must stay good for 5s
web-1-r2 in 1000
`,
	}, {
		name: "scale down",
		in:   shop(svc("web@r1", 1, edge("web-1-r1 in", "web-2-r1 in")), inst("web@r1", 1), inst("web@r1", 2)),
		want: `
drain  shop-web-2  # 1 wanted
web-1-r1 in 1000
web-2-r1 leaving 1000
`,
	}, {
		name: "restart by request, one after the other",
		in:   shop(svc("web@r1", 2, edge("web-1-r1 in", "web-2-r1 in"), restarted), inst("web@r1", 1), inst("web@r1", 2)),
		want: `
drain  shop-web-1  # restarted by request
web-1-r1 leaving 1000
web-2-r1 in 1000
`,
	}, {
		name: "the next one once the first is back in",
		in: shop(svc("web@r1", 2, edge("web-1-r1 out", "web-2-r1 in"), restarted),
			inst("web@r1", 1, func(i *tender.Instance) { i.Started, i.Since = now.Add(-time.Second), now.Add(-time.Second) }), inst("web@r1", 2)),
		want: `
wait  web@r1  until 12:00:59  # the edge does not send to shop-web-1 yet, before the next restart
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "one that drifted",
		in: shop(svc("web@r1", 2, edge("web-1-r1 leaving", "web-2-r1 in")),
			inst("web@r1", 1, func(i *tender.Instance) { i.Drift = "memory limit" }), inst("web@r1", 2)),
		want: `
scale  web@r1  slot 1, drop shop-web-1  # drifted: memory limit
web-1-r1 leaving 1000
web-2-r1 in 1000
`,
	}, {
		name: "stop",
		in:   shop(svc("web@r1", 1, edge("web-1-r1 in"), func(s *plan.Service) { s.Stopped = true }), inst("web@r1", 1)),
		want: `
drain  shop-web-1  # stopped by request
web-1-r1 leaving 1000
`,
	}, {
		name: "down",
		in:   shop(svc("web@r1", 1, edge("web-1-r1 leaving 1"), grace(time.Minute)), inst("web@r1", 1), func(x *world) { x.w.Down = &plan.Down{} }),
		want: `
drain  shop-web-1  until 12:00:50  # down; 1 request under way
web-1-r1 leaving 1000
`,
	}, {
		name: "an unhealthy one gets nothing",
		in:   shop(svc("web@r1", 2, healthcheck, edge("web-1-r1 in", "web-2-r1 out")), inst("web@r1", 1, health(tender.HealthyIs)), inst("web@r1", 2, health(tender.Unhealthy))),
		want: `
restart  shop-web-2  # shop-web-2 is unhealthy
web-1-r1 in 1000
web-2-r1 out 1000
`,
	}, {
		name: "blue-green: the whole new revision beside the old one",
		in:   beside(2, 0, strategy("blue-green")),
		want: `
scale  web@r2  slots 1-2  # beside r1, blue-green: as strategy says
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "blue-green: what cannot stand beside goes one by one, and the plan says why",
		in:   beside(2, 0, strategy("blue-green"), func(s *plan.Service) { s.OneAtATime = "device /dev/fuse" }),
		want: `
drain  shop-web-1  # stop-first: device /dev/fuse
web-1-r1 leaving 1000
web-2-r1 in 1000
`,
	}, {
		name: "blue-green: nor what the edge does not serve",
		in:   beside(2, 0, strategy("blue-green"), func(s *plan.Service) { s.Traffic = nil }),
		want: `
scale  web@r2  slot 1  # replaces r1, start-first: not blue-green: the edge does not serve it
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "blue-green: it is asked before it gets anything",
		in:   beside(2, 2, strategy("blue-green"), checks),
		want: `
check  web@r2  /health, /  # before it gets traffic
web-1-r2 in 0
web-2-r2 in 0
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "blue-green: a bad answer is asked for again",
		in: beside(2, 2, strategy("blue-green"), checks, func(s *plan.Service) {
			s.Tries = map[int]plan.Try{plan.CheckSlot: {Count: 2, Last: now.Add(-time.Second), Reason: "check /: answered 500, want 200"}}
		}),
		want: `
wait  web@r2  until 12:00:01  # check /: answered 500, want 200, attempt 3 follows
web-1-r2 in 0
web-2-r2 in 0
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "blue-green: three of them take it back",
		in: beside(2, 2, strategy("blue-green"), checks, func(s *plan.Service) {
			s.Tries = map[int]plan.Try{plan.CheckSlot: {Count: 3, Last: now, Reason: "check /: answered 500, want 200"}}
		}),
		want: `
rollback  web@r2  # check /: answered 500, want 200
web-1-r2 in 0
web-2-r2 in 0
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "blue-green: one shift",
		in:   beside(2, 2, strategy("blue-green"), checks, func(s *plan.Service) { s.Open.Checked = true }),
		want: `
shift  web@r2  100 % of the traffic  # all of it is good beside r1
web-1-r2 in 0
web-2-r2 in 0
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "blue-green: held before it",
		in:   beside(2, 2, strategy("blue-green"), func(s *plan.Service) { s.Open.Held = "ann" }),
		want: `
wait  web@r2  # held before it gets traffic, by ann, until tender rollout resume 1
web-1-r2 in 0
web-2-r2 in 0
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "blue-green: then the old ones leave",
		in:   beside(2, 2, strategy("blue-green"), shifted(1000, time.Second)),
		want: `
drain  shop-web-1  # replaced by r2
drain  shop-web-2  # replaced by r2
web-1-r2 in 1000
web-2-r2 in 1000
web-1-r1 leaving 0
web-2-r1 leaving 0
`,
	}, {
		name: "blue-green: or stay for a while",
		in:   beside(2, 2, strategy("blue-green"), shifted(1000, time.Minute), func(s *plan.Service) { s.Service.Rollout.Keep = 10 * time.Minute }),
		want: `
finish  web@r2  # all instances are good; r1 is kept for 10m
web-1-r2 in 1000
web-2-r2 in 1000
web-1-r1 in 0
web-2-r1 in 0
`,
	}, {
		name: "blue-green: it is not done in the moment of the shift",
		in:   beside(2, 2, strategy("blue-green"), shifted(1000, time.Second), func(s *plan.Service) { s.Service.Rollout.Keep = 10 * time.Minute }),
		want: `
wait  web@r2  until 12:00:01  # it has all of the traffic for a moment
web-1-r2 in 1000
web-2-r2 in 1000
web-1-r1 in 0
web-2-r1 in 0
`,
	}, {
		name: "what is kept gets nothing and is left alone",
		in:   beside(2, 2, func(s *plan.Service) { s.Open, s.Kept = nil, plan.Kept{Revision: "r1", Until: now.Add(time.Minute)} }),
		want: `
web-1-r2 in 1000
web-2-r2 in 1000
web-1-r1 in 0
web-2-r1 in 0
`,
	}, {
		name: "until its time is over",
		in:   beside(2, 2, func(s *plan.Service) { s.Open, s.Kept = nil, plan.Kept{Revision: "r1", Until: now} }),
		want: `
drain  shop-web-1  # replaced by r2
drain  shop-web-2  # replaced by r2
web-1-r2 in 1000
web-2-r2 in 1000
web-1-r1 leaving 0
web-2-r1 leaving 0
`,
	}, {
		name: "the way back to what is kept is one shift",
		in: shop(svc("web@r1", 1, edge("web-1-r1 in", "web-1-r2 in"), strategy("canary"), func(s *plan.Service) {
			s.Open = &plan.Rollout{ID: 2, From: "r2", To: "r1", Reverse: true}
		}), inst("web@r1", 1), inst("web@r2", 1, newcomer(time.Minute))),
		want: `
shift  web@r1  100 % of the traffic  # back from r2, all of it is there
web-1-r1 in 0
web-1-r2 in 1000
`,
	}, {
		name: "canary: as many as the first step needs",
		in:   beside(4, 0, strategy("canary")),
		want: `
scale  web@r2  slot 1  # beside r1, canary: as strategy says
web-1-r1 in 1000
web-2-r1 in 1000
web-3-r1 in 1000
web-4-r1 in 1000
`,
	}, {
		name: "canary: the first step",
		in:   beside(4, 1, strategy("canary")),
		want: `
shift  web@r2  5 % of the traffic  # the first step beside r1
web-1-r2 in 0
web-1-r1 in 1000
web-2-r1 in 1000
web-3-r1 in 1000
web-4-r1 in 1000
`,
	}, {
		name: "canary: is watched",
		in:   beside(4, 1, strategy("canary"), shifted(50, 20*time.Second), counted("r2", 12, 0), counted("r1", 240, 1)),
		want: `
wait  web@r2  until 12:00:40  # watched for 1m with 5 % of the traffic: 0 of 12 requests failed, too few to judge
web-1-r2 in 50
web-1-r1 in 950
web-2-r1 in 950
web-3-r1 in 950
web-4-r1 in 950
`,
	}, {
		name: "canary: more for the next step",
		in:   beside(4, 1, strategy("canary"), shifted(50, 2*time.Minute), shifted(250, time.Minute), counted("r2", 120, 0), counted("r1", 240, 1)),
		want: `
scale  web@r2  slot 2  # beside r1, canary: as strategy says
web-1-r2 in 250
web-1-r1 in 750
web-2-r1 in 750
web-3-r1 in 750
web-4-r1 in 750
`,
	}, {
		name: "canary: the next step",
		in:   beside(4, 2, strategy("canary"), shifted(50, 2*time.Minute), shifted(250, time.Minute), counted("r2", 120, 0), counted("r1", 240, 1)),
		want: `
shift  web@r2  50 % of the traffic  # 1m with 25 % of the traffic: 0 of 120 requests failed, p99 5ms; of r1 1 of 240
web-1-r2 in 250
web-2-r2 in 250
web-1-r1 in 750
web-2-r1 in 750
web-3-r1 in 750
web-4-r1 in 750
`,
	}, {
		name: "canary: errors take it back",
		in:   beside(4, 1, strategy("canary"), shifted(50, 20*time.Second), counted("r2", 100, 3), counted("r1", 2000, 1)),
		want: `
rollback  web@r2  # with 5 % of the traffic 3 of 100 requests failed (3 %), 0.1 % of r1
web-1-r2 in 50
web-1-r1 in 950
web-2-r1 in 950
web-3-r1 in 950
web-4-r1 in 950
`,
	}, {
		name: "canary: not those that the old revision has, too",
		in:   beside(4, 1, strategy("canary"), shifted(50, 20*time.Second), counted("r2", 100, 3), counted("r1", 2000, 50)),
		want: `
wait  web@r2  until 12:00:40  # watched for 1m with 5 % of the traffic: 3 of 100 requests failed, p99 5ms; of r1 50 of 2000
web-1-r2 in 50
web-1-r1 in 950
web-2-r1 in 950
web-3-r1 in 950
web-4-r1 in 950
`,
	}, {
		name: "canary: latency takes it back",
		in:   beside(4, 1, strategy("canary"), shifted(50, 20*time.Second), counted("r2", 100, 0), counted("r1", 2000, 0), slow("r2")),
		want: `
rollback  web@r2  # with 5 % of the traffic p99 is 2.5s, above 500ms; of r1 5ms
web-1-r2 in 50
web-1-r1 in 950
web-2-r1 in 950
web-3-r1 in 950
web-4-r1 in 950
`,
	}, {
		name: "canary: where the old revision is as slow it goes on",
		in:   beside(4, 1, strategy("canary"), shifted(50, 20*time.Second), counted("r2", 100, 0), counted("r1", 2000, 0), slow("r2"), slow("r1")),
		want: `
wait  web@r2  until 12:00:40  # watched for 1m with 5 % of the traffic: 0 of 100 requests failed, p99 2.5s; of r1 0 of 2000
web-1-r2 in 50
web-1-r1 in 950
web-2-r1 in 950
web-3-r1 in 950
web-4-r1 in 950
`,
	}, {
		name: "canary: no step while the edge does not tell",
		in:   beside(4, 2, strategy("canary"), shifted(50, 2*time.Hour), shifted(250, time.Hour), edgeAway(time.Hour)),
		want: `
wait  web@r2  # 50 % of the traffic is the next step, and the edge does not tell: connection refused
web-1-r2 in 250
web-2-r2 in 250
web-1-r1 in 750
web-2-r1 in 750
web-3-r1 in 750
web-4-r1 in 750
`,
	}, {
		name: "canary: held",
		in:   beside(4, 1, strategy("canary"), shifted(50, 2*time.Minute), counted("r2", 100, 0), func(s *plan.Service) { s.Open.Held = "ann" }),
		want: `
wait  web@r2  # held with 5 % of the traffic, by ann, until tender rollout resume 1: 0 of 100 requests failed, p99 5ms; of r1 0 of 0
web-1-r2 in 50
web-1-r1 in 950
web-2-r1 in 950
web-3-r1 in 950
web-4-r1 in 950
`,
	}, {
		name: "canary: aborted",
		in:   beside(4, 1, strategy("canary"), shifted(50, 20*time.Second), func(s *plan.Service) { s.Open.Aborted = "ann" }),
		want: `
rollback  web@r2  # aborted by ann
web-1-r2 in 50
web-1-r1 in 950
web-2-r1 in 950
web-3-r1 in 950
web-4-r1 in 950
`,
	}, {
		name: "canary: what another one left goes",
		in: func() world {
			x := beside(2, 1, strategy("canary"))
			x.seen.Instances = append(x.seen.Instances, inst("web@r0", 2))
			x.w.Services[0].Traffic.Instances["web-2-r0"] = plan.Flow{State: plan.In}
			return x
		}(),
		want: `
drain  shop-web-2  # neither r1 nor r2
web-1-r2 in 0
web-1-r1 in 1000
web-2-r1 in 1000
web-2-r0 leaving 0
`,
	}, {
		name: "a paused canary keeps its share",
		in: beside(2, 1, strategy("canary"), shifted(50, time.Hour), func(s *plan.Service) {
			s.Paused, s.Open, s.Halted = s.Open, nil, "3 of 100 requests failed"
		}),
		want: `
wait  web@r2  # paused: 3 of 100 requests failed
web-1-r2 in 50
web-1-r1 in 950
web-2-r1 in 950
`,
	}} {
		t.Run(tt.name, func(t *testing.T) {
			got := plan.Make(tt.in.w, tt.in.seen, now).String() + lanes(tt.in)
			if d := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), got); d != "" {
				t.Errorf("want -, got +:\n%s", d)
			}
		})
	}
}

func TestSimulateStrategies(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*plan.Service)
		want   string
	}{
		{"rolling", strategy(""), `
scale   web@r2         slot 1  # replaces r1, start-first: old and new can run side by side
wait    web@r2                 # shop-web-1-r2 is not healthy yet
drain   shop-web-1             # replaced by r2
remove  shop-web-1             # replaced by r2
name    shop-web-1-r2          # the name shop-web-1 is free
scale   web@r2         slot 2  # replaces r1, start-first: old and new can run side by side
wait    web@r2                 # shop-web-2-r2 is not healthy yet
drain   shop-web-2             # replaced by r2
remove  shop-web-2             # replaced by r2
name    shop-web-2-r2          # the name shop-web-2 is free
finish  web@r2                 # all instances are good
`},
		{"blue-green", func(s *plan.Service) {
			checks(s)
			s.Service.Rollout.Strategy, s.Service.Rollout.Keep, s.Open.Held = "blue-green", 10*time.Minute, "ann"
		}, `
scale   web@r2  slots 1-2             # beside r1, blue-green: as strategy says
wait    web@r2                        # shop-web-1-r2 is not healthy yet
check   web@r2  /health, /            # before it gets traffic
wait    web@r2                        # held before it gets traffic, by ann, until tender rollout resume 1
shift   web@r2  100 % of the traffic  # all of it is good beside r1
finish  web@r2                        # all instances are good; r1 is kept for 10m
`},
		{"canary", func(s *plan.Service) { s.Service.Rollout.Strategy, s.Service.Rollout.Steps = "canary", []int{10} }, `
scale   web@r2         slot 1                # beside r1, canary: as strategy says
wait    web@r2                               # shop-web-1-r2 is not healthy yet
shift   web@r2         10 % of the traffic   # the first step beside r1
wait    web@r2                               # watched for 1m with 10 % of the traffic: no worse than r1
scale   web@r2         slot 2                # beside r1, canary: as strategy says
wait    web@r2                               # shop-web-2-r2 is not healthy yet
shift   web@r2         100 % of the traffic  # 1m with 10 % of the traffic: no worse than r1
drain   shop-web-1                           # replaced by r2
drain   shop-web-2                           # replaced by r2
remove  shop-web-1                           # replaced by r2
remove  shop-web-2                           # replaced by r2
name    shop-web-1-r2                        # the name shop-web-1 is free
name    shop-web-2-r2                        # the name shop-web-2 is free
finish  web@r2                               # all instances are good
`},
		{"recreate", strategy("recreate"), `
drain   shop-web-1                                         # recreate: all old instances go first, as strategy says
drain   shop-web-2                                         # recreate: all old instances go first, as strategy says
scale   web@r2      slots 1-2, drop shop-web-1 shop-web-2  # replaces r1, recreate: all old instances go first, as strategy says
wait    web@r2                                             # shop-web-1 is not healthy yet
finish  web@r2                                             # all instances are good
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := shop(append(old(2), svc("web@r2", 2, open("r1"), healthcheck, edge(), tt.change))...)
			got := plan.Simulate(in.w, in.seen, now).String()
			if d := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), got); d != "" {
				t.Errorf("want -, got +:\n%s", d)
			}
		})
	}
}

// A count that began anew is a part, whatever it says by now.
func TestSince(t *testing.T) {
	n := func(requests uint64) tender.Served { return tender.Served{Requests: requests} }
	for _, tt := range []struct {
		now, before uint64
		same        bool
		want        uint64
		restarted   bool
	}{{10, 4, true, 6, false}, {3, 4, true, 3, true}, {10, 4, false, 10, true}, {0, 0, true, 0, false}} {
		got, restarted := plan.Since(n(tt.now), n(tt.before), tt.same)
		if got.Requests != tt.want || restarted != tt.restarted {
			t.Errorf("%+v: %d, %v", tt, got.Requests, restarted)
		}
	}
}
