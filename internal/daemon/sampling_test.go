package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/sample"
)

// shown prints the points of rounds whose names begin with one of these.
func shown(rounds []sample.Round, names ...string) string {
	var out []string
	for _, r := range rounds {
		for _, p := range r.Points {
			if !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(p.Series.Name, n) }) {
				continue
			}
			var labels []string
			for _, l := range p.Series.Labels {
				if l.Name != "container" && l.Name != "node" {
					labels = append(labels, fmt.Sprintf("%s=%q", l.Name, l.Value))
				}
			}
			out = append(out, fmt.Sprintf("%s{%s} %v", p.Series.Name, strings.Join(labels, ","), p.Value))
		}
	}
	return strings.Join(out, "\n")
}

// sampledOnce runs one round against a fake engine with these instances.
func sampledOnce(t *testing.T, address string, keep func(context.Context, sample.Round) error) *sampling {
	t.Helper()
	fake := &enginetest.Fake{}
	fake.Behave("web", enginetest.Behaviour{Health: true})
	want := engine.Want{Project: "shop", Service: tender.Service{Name: "web", Revision: "7f3a"}, Slots: []int{1}}
	if err := fake.Scale(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	b := &backend{board: &board{}, engine: fake, inventory: engine.NewInventory(fake, slog.New(slog.DiscardHandler)), loop: &deploy.Loop{}, keepSamples: keep}
	s := openSampling(Config{Engine: address, Sampling: time.Second}, b, slog.New(slog.DiscardHandler))
	if s == nil {
		t.Fatal(b.board.all())
	}
	t.Cleanup(func() { s.sampler.Close() })
	s.projects = func(context.Context) ([]deploy.ProjectState, error) {
		return []deploy.ProjectState{{Name: "shop", Services: []deploy.ServiceState{
			{Name: "web", Wanted: 2, Ready: 1, State: "degraded", Instances: []tender.Instance{{State: tender.Running}}},
			{Name: "migrate", Wanted: 1, State: "done"},
			{Name: "seed", Wanted: 1, State: "failed", Job: true},
			{Name: "old", State: "foreign"},
		}}}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.inventory.Run(ctx) }()
	<-b.inventory.Ready()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	s.disk = map[string]int64{"images": 12345}
	s.round(t.Context())
	return s
}

func TestSamplingHandsRoundsOn(t *testing.T) {
	var rounds []sample.Round
	s := sampledOnce(t, "unix:///var/run/docker.sock", func(_ context.Context, r sample.Round) error {
		r.Points = slices.Clone(r.Points) // they are good until the next round
		rounds = append(rounds, r)
		return nil
	})
	want := strings.TrimSpace(`
tender_instance_running{instance="shop-web-1",project="shop",revision="7f3a",service="web"} 1
tender_service_instances{project="shop",service="web",state="wanted"} 2
tender_service_instances{project="shop",service="web",state="running"} 1
tender_service_instances{project="shop",service="web",state="ready"} 1
tender_service_instances{project="shop",service="migrate",state="wanted"} 0
tender_service_instances{project="shop",service="migrate",state="running"} 0
tender_service_instances{project="shop",service="migrate",state="ready"} 0
tender_service_instances{project="shop",service="seed",state="wanted"} 0
tender_service_instances{project="shop",service="seed",state="running"} 0
tender_service_instances{project="shop",service="seed",state="ready"} 0
tender_engine_disk_bytes{kind="images"} 12345`)
	if got := shown(rounds, "tender_instance_running", "tender_service", "tender_engine_disk"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := shown(rounds, "node_load1"); got == "" {
		t.Error("nothing of the host")
	}
	if p := s.problem(); p != "" {
		t.Errorf("problem: %s", p)
	}
	var f figures
	f.samples(s)
	wellFormed(t, f.String())
	if !strings.Contains(f.String(), "tender_samples_rounds_total 1\n") {
		t.Error(f.String())
	}
}

// The files of another host cannot be read: that is said, and what the engine itself tells is kept.
func TestSamplingOfAnEngineElsewhere(t *testing.T) {
	var rounds []sample.Round
	s := sampledOnce(t, "tcp://10.0.0.7:2376", func(_ context.Context, r sample.Round) error {
		r.Points = slices.Clone(r.Points)
		rounds = append(rounds, r)
		return nil
	})
	if got, want := s.problem(), "the engine is elsewhere (tcp://10.0.0.7:2376): what its instances use cannot be read"; got != want {
		t.Errorf("problem %q, want %q", got, want)
	}
	if got := shown(rounds, "container_"); got != "" {
		t.Errorf("made up:\n%s", got)
	}
	if got := shown(rounds, "tender_instance_health"); got == "" {
		t.Error("nothing of its health")
	}
}

func TestSamplingSaysWhatIsNotKept(t *testing.T) {
	full := errors.New("no space left on device")
	s := sampledOnce(t, "unix:///var/run/docker.sock", func(context.Context, sample.Round) error { return full })
	if got, want := s.problem(), "samples are not kept: no space left on device"; got != want {
		t.Errorf("problem %q, want %q", got, want)
	}
	s.keep = func(context.Context, sample.Round) error { return nil }
	s.round(t.Context())
	if got := s.problem(); got != "" {
		t.Errorf("problem %q after it went well", got)
	}
	var said []string
	s.tell = func(p string) { said = append(said, p) }
	ctx, cancel := context.WithCancel(t.Context())
	s.keep = func(context.Context, sample.Round) error { cancel(); return full }
	if err := s.run(ctx); err != nil || len(said) > 0 {
		t.Errorf("run ended with %v and said %v", err, said)
	}
}

// A round that panics must end the part, not leave it waiting for its other half.
func TestAPanicEndsTheSampling(t *testing.T) {
	s := sampledOnce(t, "unix:///var/run/docker.sock", func(context.Context, sample.Round) error { return nil })
	s.keep = func(context.Context, sample.Round) error { panic("boom") }
	ended := make(chan any)
	go func() {
		defer func() { ended <- recover() }()
		_ = s.run(t.Context())
	}()
	select {
	case p := <-ended:
		if p != "boom" {
			t.Errorf("panicked with %v", p)
		}
	case <-time.After(time.Minute):
		t.Error("it did not end")
	}
}
