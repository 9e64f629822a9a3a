package deploy_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/engine/enginetest"
	"github.com/tenderhq/tender/internal/store"
)

// rig is a loop on an engine in memory, in fake time.
type rig struct {
	*testing.T
	fake *enginetest.Fake
	dir  string
	loop *deploy.Loop
	kill func() // ends the loop in the middle of whatever it does
	dead <-chan struct{}
	stop func() // kills the loop and closes the store; start makes new ones

	engine  engine.Engine // what the loop talks to; nil: fake
	early   bool          // start does not wait for the first picture
	options func(*deploy.Options)
}

// inTime runs a test in fake time.
func inTime(t *testing.T, test func(*rig)) {
	t.Helper()
	dir := memory(t)
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, fake: &enginetest.Fake{}, dir: dir}
		r.start()
		defer func() { r.stop() }()
		test(r)
	})
}

// memory is a directory without a disk where there is one: each test commits a
// hundred times, and a disk that is busy makes minutes of that.
func memory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "deploy-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (r *rig) start() {
	r.Helper()
	db, err := store.Open(r.dir, store.Options{Reserve: -1})
	if err != nil {
		r.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	talk := r.engine
	if talk == nil {
		talk = r.fake
	}
	inventory := engine.NewInventory(talk, log)
	o := deploy.Options{
		Store: db, Engine: talk, Inventory: inventory, Log: log,
		Same:    bytes.Equal,
		Essence: func(spec []byte) ([]byte, error) { return spec, nil },
	}
	if r.options != nil {
		r.options(&o)
	}
	r.loop = deploy.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	r.kill, r.dead = cancel, ctx.Done()
	var all sync.WaitGroup
	all.Go(func() { _ = inventory.Run(ctx) })
	all.Go(func() {
		if err := r.loop.Run(ctx); err != nil {
			r.Errorf("run: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		cancel()
		all.Wait()
		if err := db.Close(); err != nil {
			r.Errorf("close store: %v", err)
		}
	})
	if !r.early {
		<-inventory.Ready()
	}
}

// svc makes a service; change may be nil. Version is what makes its revision.
func svc(name, version string, replicas int, change func(*tender.Service)) tender.Service {
	s := tender.Service{Name: name, Replicas: replicas, Image: name + ":" + version, Grace: 10 * time.Second, Spec: []byte(name + " " + version + "\n")}
	if change != nil {
		change(&s)
	}
	return s
}

func submission(services ...tender.Service) deploy.Submission {
	slices.SortFunc(services, func(a, b tender.Service) int { return strings.Compare(a.Name, b.Name) })
	s := deploy.Submission{Who: "ann", Project: tender.Project{Name: "shop", Services: services}, Images: map[string]tender.ImageID{}}
	s.Project.Spec = []byte("services:\n")
	for _, svc := range services {
		s.Project.Spec = fmt.Appendf(s.Project.Spec, "  %s x %d\n", strings.TrimSpace(string(svc.Spec)), svc.Replicas)
		s.Images[svc.Name] = tender.ImageID{Reference: svc.Image, ID: "sha256:" + svc.Image}
	}
	s.Project.Spec = append(s.Project.Spec, "networks:\n  default:\n"...)
	return s
}

// up accepts and follows to the end.
func (r *rig) up(s deploy.Submission) deploy.Outcome {
	r.Helper()
	a, err := r.loop.Accept(r.Context(), s)
	if err != nil {
		r.Fatalf("accept: %v", err)
	}
	return r.follow(a.Generation)
}

func (r *rig) follow(generation int) deploy.Outcome {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
	defer cancel()
	var news []string
	out, err := r.loop.Follow(ctx, "shop", generation, func(n deploy.News) { news = append(news, n.Text) })
	if err != nil {
		p, _ := r.loop.Project(r.Context(), "shop")
		r.Fatalf("follow generation %d: %v\nplan:\n%s\nnews:\n%s", generation, err, p.Plan, strings.Join(news, "\n"))
	}
	return out
}

func (r *rig) change(c deploy.Change) deploy.Outcome {
	r.Helper()
	a, err := r.loop.Change(r.Context(), "ann", "shop", c)
	if err != nil {
		r.Fatalf("%s: %v", c.Verb, err)
	}
	return r.follow(a.Generation)
}

func (r *rig) want(got, want string) {
	r.Helper()
	if got != want {
		r.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func (r *rig) outcome(o deploy.Outcome, want string) {
	r.Helper()
	if o.Outcome != want {
		r.Fatalf("outcome %q (%s), want %q; there is\n%s", o.Outcome, o.Text, want, r.there())
	}
}

// there lists the instances: name, version, state.
func (r *rig) there() string {
	r.Helper()
	p, err := r.fake.List(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	var lines []string
	for _, i := range p.Instances {
		line := fmt.Sprintf("%s %s %s", i.Name, strings.TrimPrefix(i.Image, i.Service+":"), i.State)
		if i.Health != "" {
			line += " " + string(i.Health)
		}
		if i.Foreign {
			line += " foreign"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (r *rig) instances(service string) (out []tender.Instance) {
	r.Helper()
	p, err := r.fake.List(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	for _, i := range p.Instances {
		if i.Service == service {
			out = append(out, i)
		}
	}
	return out
}

func (r *rig) state(service string) deploy.ServiceState {
	r.Helper()
	p, err := r.loop.Project(r.Context(), "shop")
	if err != nil {
		r.Fatal(err)
	}
	for _, s := range p.Services {
		if s.Name == service {
			return s
		}
	}
	r.Fatalf("no service %s", service)
	return deploy.ServiceState{}
}

// after lets fake time pass.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
