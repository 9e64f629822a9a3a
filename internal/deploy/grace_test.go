package deploy_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine"
)

// graces is an engine that notes how long what it stops was given.
type graces struct {
	engine.Engine
	mu   sync.Mutex
	said []string
}

func (g *graces) say(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.said = append(g.said, fmt.Sprintf(format, args...))
}

func (g *graces) Scale(ctx context.Context, w engine.Want) error {
	if len(w.Drop) > 0 {
		in := "its own"
		if w.StopIn != nil {
			in = w.StopIn.String()
		}
		g.say("drop of %s in %s", w.Service.Name, in)
	}
	return g.Engine.Scale(ctx, w)
}

func (g *graces) Remove(ctx context.Context, id string, grace time.Duration, volumes bool) error {
	g.say("remove %s in %s", strings.Split(id, "-")[0], grace)
	return g.Engine.Remove(ctx, id, grace, volumes)
}

// up -t is for what that up replaces, and not for what goes later.
func TestGraceOfAnUp(t *testing.T) {
	inTime(t, func(r *rig) {
		g := &graces{Engine: r.fake}
		r.engine = g
		r.stop()
		r.start()
		both := func(version string, in *time.Duration) deploy.Submission {
			s := submission(svc("web", version, 1, nil), svc("db", version, 1, func(s *tender.Service) { s.OneAtATime = "it has a host port" }))
			s.StopIn = in
			return s
		}
		second := time.Second
		r.outcome(r.up(both("1", nil)), deploy.Converged)
		r.outcome(r.up(both("2", &second)), deploy.Converged)
		r.outcome(r.up(both("3", nil)), deploy.Converged)
		g.mu.Lock()
		defer g.mu.Unlock()
		slices.Sort(g.said[:len(g.said)/2])
		slices.Sort(g.said[len(g.said)/2:])
		r.want(strings.Join(g.said, "\n"), "drop of db in 1s\nremove web in 1s\ndrop of db in its own\nremove web in 10s")
	})
}
