package plan_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/plan"
)

// joins puts web into a network; roomy: its instances keep their addresses there.
func joins(s *plan.Service) { s.Networks = []string{"shop_default"} }

func network(roomy bool) func(*world) {
	return func(x *world) {
		x.seen.Networks = append(x.seen.Networks, tender.Network{ID: "n1", Name: "shop_default", Project: "shop", Key: "default", Roomy: roomy})
	}
}

func pinned(i *tender.Instance) { i.Pinned = true }

func bySlot(i *tender.Instance) { i.Found, i.Pinned = tender.BySlot, true }

func torn(i *tender.Instance) {
	i.Found, i.Drift = tender.Nowhere, "not in network shop_default"
}

func keep(d time.Duration) func(*plan.Service) {
	return func(s *plan.Service) { s.Service.Rollout.Keep = d }
}

func TestNames(t *testing.T) {
	good := health(tender.HealthyIs)
	for _, tt := range []struct {
		name  string
		in    world
		want  string
		lanes string
	}{{
		name: "a newcomer is made without the name",
		in:   shop(network(true), svc("web@r2", 2, open("r1"), healthcheck, joins), inst("web@r1", 1, good), inst("web@r1", 2, good)),
		want: "scale  web@r2  slot 1, not named yet  # replaces r1, start-first: old and new can run side by side",
	}, {
		name: "not at the first deploy",
		in:   shop(network(true), svc("web@r1", 2, open(""), healthcheck, joins)),
		want: "scale  web@r1  slots 1-2  # first deploy",
	}, {
		name: "not without a healthcheck",
		in:   shop(network(true), svc("web@r2", 1, open("r1"), joins), inst("web@r1", 1)),
		want: "scale  web@r2  slot 1  # replaces r1, start-first: old and new can run side by side",
	}, {
		name: "not where it would lose its address, and the plan says so",
		in:   shop(network(false), svc("web@r2", 1, open("r1"), healthcheck, joins), inst("web@r1", 1, good)),
		want: "scale  web@r2  slot 1  # replaces r1, start-first: old and new can run side by side; found by name at once: network shop_default has no addresses to keep",
	}, {
		name: "nor with ports that the engine publishes",
		in: shop(network(true), svc("web@r2", 2, open("r1"), healthcheck, joins, func(s *plan.Service) {
			s.Publish, s.Ports = tender.PublishEngine, []tender.Port{{Container: 80, Protocol: "tcp"}}
		}), inst("web@r1", 1, good), inst("web@r1", 2, good)),
		want: "scale  web@r2  slot 1  # replaces r1, start-first: old and new can run side by side; found by name at once: the engine publishes its ports",
	}, {
		name: "nor where nobody else would answer to the name",
		in: shop(network(true), svc("web@r2", 1, open("r1"), healthcheck, joins, func(s *plan.Service) { s.OneAtATime = "device /dev/fuse" }),
			inst("web@r1", 1, good)),
		want: "scale  web@r2  slot 1, drop shop-web-1  # replaces r1, stop-first: device /dev/fuse",
	}, {
		name: "stop-first: the others answer meanwhile",
		in: shop(network(true), svc("web@r2", 2, open("r1"), healthcheck, joins, func(s *plan.Service) { s.OneAtATime = "device /dev/fuse" }),
			inst("web@r1", 1, good), inst("web@r1", 2, good)),
		want: "scale  web@r2  slot 1, drop shop-web-1, not named yet  # replaces r1, stop-first: device /dev/fuse",
	}, {
		name: "recreate: all go at once",
		in:   shop(network(true), svc("web@r2", 2, open("r1"), healthcheck, joins, strategy("recreate")), inst("web@r1", 1, good), inst("web@r1", 2, good)),
		want: "scale  web@r2  slots 1-2, drop shop-web-1 shop-web-2  # replaces r1, recreate: all old instances go first, as strategy says",
	}, {
		name: "an unhealthy newcomer does not get it",
		in: shop(network(true), svc("web@r2", 2, open("r1"), healthcheck, joins), inst("web@r1", 1, good), inst("web@r1", 2, good),
			inst("web@r2", 1, newcomer(time.Second), bySlot, health(tender.Unhealthy))),
		want: "rollback  web@r2  # shop-web-1-r2 is unhealthy",
	}, {
		name: "a good one does, before the edge sends there and before the old one goes",
		in: shop(network(true), svc("web@r2", 2, open("r1"), healthcheck, joins, edge("web-1-r1 in", "web-2-r1 in")), inst("web@r1", 1, good), inst("web@r1", 2, good),
			inst("web@r2", 1, newcomer(time.Second), bySlot, good)),
		want: `
promote  shop-web-1-r2  # it is good: now it is found by name
`,
		lanes: `
web-1-r2 out 0
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "then the old one goes",
		in: shop(network(true), svc("web@r2", 2, open("r1"), healthcheck, joins), inst("web@r1", 1, good), inst("web@r1", 2, good),
			inst("web@r2", 1, newcomer(time.Second), pinned, good)),
		want: "remove  shop-web-1  # replaced by r2",
	}, {
		name: "one that was killed in between is mended",
		in: shop(network(true), svc("web@r2", 2, open("r1"), healthcheck, joins), inst("web@r1", 1, good), inst("web@r1", 2, good),
			inst("web@r2", 1, newcomer(time.Second), torn, good)),
		want: "promote  shop-web-1-r2  # it is not in a network of its revision",
	}, {
		name: "also one that is not good yet, without the name",
		in: shop(network(true), svc("web@r2", 2, open("r1"), healthcheck, joins), inst("web@r1", 1, good), inst("web@r1", 2, good),
			inst("web@r2", 1, newcomer(time.Second), torn, health(tender.Starting))),
		want: `
wait    web@r2         until 12:14:59  # shop-web-1-r2 is not healthy yet
demote  shop-web-1-r2                  # it is not in a network of its revision
`,
	}, {
		name: "or one that somebody has taken out",
		in:   shop(network(true), svc("web@r1", 1, joins), inst("web@r1", 1, torn)),
		want: "promote  shop-web-1  # it is not in a network of its revision",
	}, {
		name: "what cannot be mended is replaced",
		in:   shop(network(true), svc("web@r1", 1, joins, tried(3, time.Minute)), inst("web@r1", 1, torn)),
		want: "scale  web@r1  slot 1, drop shop-web-1  # drifted: not in network shop_default",
	}, {
		name: "what a rollout left unnamed gets it when it is good",
		in:   shop(network(true), svc("web@r1", 2, healthcheck, joins), inst("web@r1", 1, bySlot, good), inst("web@r1", 2, bySlot, health(tender.Starting))),
		want: `
wait     web@r1      until 12:01:00  # shop-web-2 is not healthy yet
promote  shop-web-1                  # it is good: now it is found by name
`,
	}, {
		name: "blue-green: all of it is made without the name",
		in:   named(beside(2, 0, strategy("blue-green"), joins)),
		want: "scale  web@r2  slots 1-2, not named yet  # beside r1, blue-green: as strategy says",
	}, {
		name: "blue-green: and gets it at the switch",
		in:   named(beside(2, 2, strategy("blue-green"), joins), "r2"),
		want: `
promote  shop-web-1-r2  # all of the traffic is the next step
promote  shop-web-2-r2  # all of the traffic is the next step
`,
		lanes: `
web-1-r2 in 0
web-2-r2 in 0
web-1-r1 in 1000
web-2-r1 in 1000
`,
	}, {
		name: "blue-green: then comes the switch",
		in:   named(beside(2, 2, strategy("blue-green"), joins)),
		want: "shift  web@r2  100 % of the traffic  # all of it is good beside r1",
	}, {
		name: "blue-green: and the old ones lose it before they drain",
		in:   named(beside(2, 2, strategy("blue-green"), joins, shifted(1000, time.Second))),
		want: `
demote  shop-web-1  # who asks for web by name gets r2
demote  shop-web-2  # who asks for web by name gets r2
`,
		lanes: `
web-1-r2 in 1000
web-2-r2 in 1000
web-1-r1 in 0
web-2-r1 in 0
`,
	}, {
		name: "blue-green: also those that are kept",
		in:   named(beside(1, 1, strategy("blue-green"), joins, keep(time.Hour), shifted(1000, time.Second))),
		want: "demote  shop-web-1  # who asks for web by name gets r2",
	}, {
		name: "blue-green: then the rollout is done",
		in:   named(beside(1, 1, strategy("blue-green"), joins, keep(time.Hour), shifted(1000, time.Minute)), "r1"),
		want: "finish  web@r2  # all instances are good; r1 is kept for 1h",
	}, {
		name: "blue-green: the way back is one switch",
		in:   named(beside(1, 1, strategy("blue-green"), joins, func(s *plan.Service) { s.Open.Reverse = true }), "r2"),
		want: "shift  web@r2  100 % of the traffic  # back from r1, all of it is there",
	}, {
		name: "blue-green: and the names follow it",
		in:   named(beside(1, 1, strategy("blue-green"), joins, func(s *plan.Service) { s.Open.Reverse = true }, shifted(1000, time.Second)), "r2"),
		want: `
drain    shop-web-1     # replaced by r2
promote  shop-web-1-r2  # it is good: now it is found by name
`,
	}, {
		name: "canary: its share is of the edge's traffic alone",
		in:   named(beside(4, 1, strategy("canary"), joins, shifted(50, 20*time.Second), counted("r2", 12, 0), counted("r1", 240, 1)), "r2"),
		want: `
wait  web@r2  until 12:00:40  # watched for 1m with 5 % of the traffic: 0 of 12 requests failed, too few to judge
`,
		lanes: `
web-1-r2 in 50
web-1-r1 in 950
web-2-r1 in 950
web-3-r1 in 950
web-4-r1 in 950
`,
	}, {
		name: "what an older Tender or Docker Compose made is left as it is",
		in: shop(network(false), svc("web@r1", 2, healthcheck, joins, func(s *plan.Service) { s.Adopted = map[string]string{"web-2-r1": "r1"} }),
			inst("web@r1", 1, good), inst("web@r1", 2, good, foreign)),
		want: "",
	}} {
		t.Run(tt.name, func(t *testing.T) {
			got := plan.Make(tt.in.w, tt.in.seen, now).String()
			if strings.Contains(tt.want, "\n") {
				got = "\n" + got
			} else {
				got = strings.TrimSuffix(got, "\n")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.lanes, "\n"+lanes(tt.in)); tt.lanes != "" && diff != "" {
				t.Errorf("lanes (-want +got):\n%s", diff)
			}
		})
	}
}

// named puts web's network there and lets its instances be pinned; those of the
// revisions in unnamed are found by SERVICE-N alone.
func named(x world, unnamed ...string) world {
	network(true)(&x)
	for k := range x.seen.Instances {
		i := &x.seen.Instances[k]
		i.Pinned = true
		if slices.Contains(unnamed, i.Revision) {
			i.Found = tender.BySlot
		}
	}
	return x
}

// The whole way of a rollout, as tender plan shows it.
func TestNamesOnTheWay(t *testing.T) {
	x := named(shop(svc("web@r2", 1, open("r1"), healthcheck, joins), inst("web@r1", 1, health(tender.HealthyIs))))
	want := `
scale    web@r2         slot 1, not named yet  # replaces r1, start-first: old and new can run side by side
wait     web@r2                                # shop-web-1-r2 is not healthy yet
promote  shop-web-1-r2                         # it is good: now it is found by name
remove   shop-web-1                            # replaced by r2
name     shop-web-1-r2                         # the name shop-web-1 is free
finish   web@r2                                # all instances are good
`
	if diff := cmp.Diff(want, "\n"+plan.Simulate(x.w, x.seen, now).String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
