package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/metrics"
	"github.com/tenderhq/tender/internal/plan"
	"github.com/tenderhq/tender/internal/store"
)

// village is one service in memory: what is wanted of it is there at once, and
// what it does is said by the test.
type village struct {
	turn     sync.Mutex
	turns    int // of the test
	service  deploy.Scaled
	log      []string
	edge     servedSince
	perTick  uint64 // requests from one look to the next
	awayEdge error
	values   map[string][]metrics.Value // answers, by what the question holds
}

func (v *village) Scaling(context.Context) ([]deploy.Scaled, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	v.service.Instances = nil
	for n := range v.service.Wanted {
		v.service.Instances = append(v.service.Instances, tender.Instance{Name: fmt.Sprintf("shop-web-%d", n+1)})
	}
	return []deploy.Scaled{v.service}, nil
}

func (v *village) Rescale(_ context.Context, s deploy.Scaled, to plan.Count) (bool, error) {
	n := store.Scaling{At: time.Now(), Who: store.Autoscale, From: s.Wanted, To: to.N, Cause: to.Cause}
	v.service.Wanted, v.service.Counted = to.N, v.service.Counted.After(n)
	v.log = append(v.log, fmt.Sprintf("%s %d -> %d: %s", time.Now().UTC().Format("04:05"), s.Wanted, to.N, to.Cause))
	return true, nil
}

func (v *village) settle(context.Context) error {
	if v.awayEdge != nil {
		return v.awayEdge
	}
	v.edge.at = time.Now()
	v.edge.requests += v.perTick
	return nil
}

func (v *village) served(string, string) (servedSince, error) { return v.edge, nil }

func (v *village) query(_ context.Context, expr string, at time.Time) ([]metrics.Value, error) {
	for part, values := range v.values {
		if strings.Contains(expr, part) {
			return values, nil
		}
	}
	return nil, nil
}

// each is the same value for instances 1 to n.
func each(n int, value float64) (out []metrics.Value) {
	for k := range n {
		out = append(out, metrics.Value{Value: value, Labels: map[string]string{"project": "shop", "service": "web", "revision": "r1", "instance": fmt.Sprintf("shop-web-%d", k+1)}})
	}
	return out
}

const halfCore = "x-tender-format: 1\nname: shop\nservices:\n  web:\n    image: x\n    deploy:\n      resources:\n        limits:\n          cpus: 0.5\n          memory: \"104857600\"\n"

// inVillage runs a test in fake time; it looks every ten seconds.
func inVillage(t *testing.T, rule tender.Scale, test func(*village, *scaling)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v := &village{service: deploy.Scaled{Project: "shop", Service: "web", Revision: "r1", Rule: rule, Wanted: 2, Spec: []byte(halfCore)}, values: map[string][]metrics.Value{}}
		s := &scaling{
			log: slog.New(slog.DiscardHandler), every: 10 * time.Second, span: time.Minute, loop: v, edge: v, query: v.query,
			memory: func() (nodeMemory, bool) { return nodeMemory{}, false }, seen: map[scaledService]*watched{},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.run(ctx) }()
		synctest.Wait()
		test(v, s)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// elapse lets time go by, and hands over what the test has said: that both wake at a time puts nothing in order.
func (v *village) elapse(d time.Duration) {
	v.turn.Lock() // whoever locks it next sees what was written before
	v.turns++
	v.turn.Unlock()
	time.Sleep(d)
	synctest.Wait()
}

func (v *village) logged(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(v.log, "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestRequestsOfTheEdgeSetTheCount(t *testing.T) {
	rule := tender.Scale{Min: 2, Max: 6, Requests: 100, Cooldown: time.Minute, Window: 3 * time.Minute}
	inVillage(t, rule, func(v *village, s *scaling) {
		v.perTick = 1000 // 100/s
		v.elapse(10 * time.Minute)
		v.perTick = 5500
		v.elapse(10 * time.Minute)
		// The edge counts anew; what it counted before says nothing.
		v.edge = servedSince{counting: time.Now()}
		v.perTick = 1000
		v.elapse(time.Minute)
		v.awayEdge = errors.New("connection refused")
		v.elapse(10 * time.Minute)
		if s := s.scaleOf(deploy.ProjectState{Name: "shop"}, deploy.ServiceState{Name: "web", Scale: &rule}); s == nil || s.Cause != "requests is not known: connection refused" {
			t.Errorf("with the edge away: %+v", s)
		}
		v.awayEdge = nil
		v.elapse(10 * time.Minute)
		v.logged(t, "10:10 2 -> 4: 325 requests/s for 2 instances, target 100 each: 4\n"+
			"11:10 4 -> 6: 550 requests/s for 4 instances, target 100 each: 6\n"+
			"34:00 6 -> 2: 100 requests/s for 6 instances, target 100 each: 1, min is 2")
	})
}

func TestMeasuredUseSetsTheCount(t *testing.T) {
	rule := tender.Scale{Min: 1, Max: 6, CPU: 0.7, Memory: 0.8, Query: "backlog", Target: 10, Cooldown: time.Minute, Window: 3 * time.Minute}
	inVillage(t, rule, func(v *village, s *scaling) {
		// Another service's figures are none of its own.
		v.values["cpu"] = append(each(2, 0.5), metrics.Value{Value: 99, Labels: map[string]string{"project": "other", "service": "web", "revision": "r1", "instance": "shop-web-1"}})
		v.values["working_set"] = each(2, 50<<20)
		v.values["backlog"] = []metrics.Value{{Value: 10}}
		v.elapse(10 * time.Second)
		v.logged(t, "00:10 2 -> 3: cpu 100 % of 2 instances, target 70 %: 3")
		v.values["cpu"], v.values["working_set"] = each(3, 0.05), each(3, 95<<20)
		v.elapse(10 * time.Minute)
		v.logged(t, "00:10 2 -> 3: cpu 100 % of 2 instances, target 70 %: 3\n01:10 3 -> 4: memory 95 % of 3 instances, target 80 %: 4")
		v.values["backlog"] = []metrics.Value{{Value: 1}, {Value: 2}}
		v.values["working_set"] = each(4, 20<<20)
		v.elapse(10 * time.Minute)
		got := s.scaleOf(deploy.ProjectState{Name: "shop"}, deploy.ServiceState{Name: "web", Scale: &rule, Counted: v.service.Counted})
		if got == nil || !strings.HasSuffix(got.Cause, "; none goes: query is not known: its answer is 2 values, want one") || got.From != 3 || got.Who != "autoscale" {
			t.Errorf("with a question that has two answers: %+v", got)
		}
	})
}

func TestNewcomersMustFitIntoTheNode(t *testing.T) {
	rule := tender.Scale{Min: 2, Max: 6, Requests: 10, Cooldown: time.Minute, Window: 3 * time.Minute}
	inVillage(t, rule, func(v *village, s *scaling) {
		s.memory = func() (nodeMemory, bool) { return nodeMemory{Total: 4 << 30, Available: 500 << 20}, true }
		v.perTick = 600
		v.elapse(time.Minute)
		// 500 MiB less a twentieth of 4 GiB; each may take the 100 MiB of its limit.
		v.logged(t, "00:10 2 -> 4: 60 requests/s for 2 instances, target 10 each: 6; the node has memory for 2 more: 295 MiB are free, each takes 100 MiB")
		v.values["working_set"] = each(4, 25<<20) // they take less, as is measured
		v.elapse(time.Minute)
		if v.service.Wanted != 6 {
			t.Errorf("%d are wanted, want 6: %s", v.service.Wanted, s.seen[scaledService{"shop", "web"}].last.Cause)
		}
	})
}

func TestMetricsThatAreOffChangeNothing(t *testing.T) {
	rule := tender.Scale{Min: 1, Max: 6, CPU: 0.7, Query: "up", Target: 1, Cooldown: time.Minute, Window: 3 * time.Minute}
	inVillage(t, rule, func(v *village, s *scaling) {
		s.query = nil
		v.elapse(10 * time.Minute)
		v.logged(t, "")
		if got, want := s.seen[scaledService{"shop", "web"}].last.Cause, "cpu is not known: metrics are off, query is not known: metrics are off"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// stuck cannot change one of its two projects.
type stuck struct{ scaled []string }

func (*stuck) Scaling(context.Context) (all []deploy.Scaled, err error) {
	for _, project := range []string{"held", "shop"} {
		all = append(all, deploy.Scaled{Project: project, Service: "web", Revision: "r1", Rule: tender.Scale{Min: 3, Max: 6, CPU: 0.5}, Wanted: 2, Spec: []byte(halfCore)})
	}
	return all, nil
}

func (s *stuck) Rescale(ctx context.Context, v deploy.Scaled, to plan.Count) (bool, error) {
	if v.Project == "held" {
		<-ctx.Done() // somebody else changes it all the time
		return false, ctx.Err()
	}
	s.scaled = append(s.scaled, fmt.Sprintf("%s to %d", v.Project, to.N))
	return true, nil
}

func TestAProjectThatIsHeldHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop := &stuck{}
		s := &scaling{
			log: slog.New(slog.DiscardHandler), every: 10 * time.Second, span: time.Minute, loop: loop,
			memory: func() (nodeMemory, bool) { return nodeMemory{}, false }, seen: map[scaledService]*watched{},
		}
		if err := s.look(t.Context()); err != nil {
			t.Error(err)
		}
		if got := strings.Join(loop.scaled, ", "); got != "shop to 3" {
			t.Errorf("scaled: %q", got)
		}
	})
}

func TestTheNodesMemoryIsReadAsTheKernelWritesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meminfo")
	for text, want := range map[string]nodeMemory{
		"MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:   8192 kB\nHugePages_Total:       0\n": {16 << 20, 8 << 20},
		"MemTotal:       16384 kB\n":                       {},
		"MemTotal:       many kB\nMemAvailable:   8192 kB": {},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readMemory(path)
		if (err != nil) != (want == nodeMemory{}) || err == nil && got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}
