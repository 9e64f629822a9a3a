package deploy_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine/enginetest"
)

// answer lists the versions that answer to the name web.
func (r *rig) answer() string {
	r.Helper()
	var out []string
	for _, i := range r.instances("web") {
		if v := version(i); i.State == tender.Running && i.Found == tender.ByService && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestWhoAsksByNameGetsWhatIsProven(t *testing.T) {
	withEdge(t, func(r *rig) {
		r.fake.Behave("web", enginetest.Behaviour{Warmup: 2 * time.Second})
		r.outcome(r.up(web("1", nil)), deploy.Converged)
		moved := func() int { return r.fake.Calls()["Promote"] + r.fake.Calls()["Demote"] }
		if n := moved(); n != 0 {
			r.Errorf("%d were moved at the first deploy", n)
		}
		out := r.up(web("1", nil))
		r.outcome(out, deploy.Converged)
		r.want(r.answer(), "1")

		r.fake.Behave("web", enginetest.Behaviour{Sick: true, Warmup: 2 * time.Second})
		n := r.begin(web("2", nil))
		for range 30 {
			r.want(r.answer(), "1")
			after(beat)
		}
		r.outcome(r.follow(n), deploy.BackAgain)
		r.want(r.answer(), "1")

		r.fake.Behave("web", enginetest.Behaviour{Warmup: 2 * time.Second})
		r.outcome(r.up(web("3", nil)), deploy.Converged)
		r.want(r.answer(), "3")
		if n := moved(); n != 3 {
			r.Errorf("%d were moved for 3 newcomers", n)
		}
		after(10 * time.Minute)
		if n := moved(); n != 3 {
			r.Errorf("%d were moved afterwards", n-3)
		}
		r.nothingLost()
	})
}

func TestWhoAsksByNameIsSwitchedWithBlueAndGreen(t *testing.T) {
	withEdge(t, func(r *rig) {
		keep := func(x *tender.Rollout) { blueGreen(x); x.Keep = 10 * time.Minute }
		r.outcome(r.up(web("1", keep)), deploy.Converged)
		r.fake.Behave("web", enginetest.Behaviour{Warmup: 2 * time.Second})
		n := r.begin(web("2", keep))
		after(time.Second)
		r.want(r.answer(), "1")
		r.outcome(r.follow(n), deploy.Converged)
		r.want(r.split(), "1:0 2:1000")
		r.want(r.answer(), "2")
		r.outcome(r.change(deploy.Change{Verb: "rollback"}), deploy.Converged)
		r.want(r.answer(), "1")
		r.nothingLost()
	})
}

func TestACanaryIsNotAskedByName(t *testing.T) {
	withEdge(t, func(r *rig) {
		r.outcome(r.up(web("1", canary)), deploy.Converged)
		n := r.begin(web("2", canary))
		for _, split := range []string{"1:950 2:50", "1:500 2:500"} {
			r.until(split)
			r.want(r.answer(), "1")
		}
		r.outcome(r.follow(n), deploy.Converged)
		r.want(r.answer(), "2")
		r.nothingLost()
	})
}
