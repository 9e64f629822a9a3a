package deploy_test

import (
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
)

// The image of the revision before was any prune's once its instances were gone.
func TestTheImageOfAWayBackIsKept(t *testing.T) {
	inTime(t, func(r *rig) {
		kept := func(want ...string) {
			r.Helper()
			after(time.Second)
			got := []string{}
			for _, i := range r.fake.Kept("shop") {
				got = append(got, i.Reference)
			}
			if len(got) != len(want) || len(want) == 1 && got[0] != want[0] {
				r.Errorf("kept %v, want %v", got, want)
			}
		}
		db := svc("db", "9", 1, nil)
		r.outcome(r.up(submission(svc("web", "1", 2, nil), db)), deploy.Converged)
		kept()
		a, err := r.loop.Accept(r.Context(), submission(svc("web", "2", 2, nil), db))
		if err != nil {
			t.Fatal(err)
		}
		kept("web:1") // before its instances go
		r.outcome(r.follow(a.Generation), deploy.Converged)
		kept("web:1")
		r.outcome(r.up(submission(svc("web", "3", 2, nil), db)), deploy.Converged)
		kept("web:2")
		r.change(deploy.Change{Verb: "rollback", Services: []string{"web"}})
		kept("web:1") // where the next one goes
		// Another service wants the image: its instances have it.
		other := svc("other", "1", 1, func(s *tender.Service) { s.Image = "web:1" })
		r.outcome(r.up(submission(svc("web", "2", 2, nil), db, other)), deploy.Converged)
		kept()
		r.outcome(r.up(submission(svc("web", "2", 2, nil), db)), deploy.Converged)
		r.change(deploy.Change{Verb: "down"})
		kept()
	})
}
