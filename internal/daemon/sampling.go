package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/sample"
)

// sampling is the part that reads what instances and their host use, and hands it to
// the store of samples.
type sampling struct {
	sampler   *sample.Sampler
	every     time.Duration
	elsewhere string // the engine's address, if its files are not this host's
	inventory *engine.Inventory
	engine    engine.Engine
	projects  func(context.Context) ([]deploy.ProjectState, error)
	keep      func(context.Context, sample.Round) error
	tell      func(problem string)

	instances []sample.Instance // of the last round, to be used again
	services  services
	placed    bool // the sampler knows the engine's folder

	mu     sync.Mutex
	disk   map[string]int64 // what the engine keeps there, in bytes by kind; nil: not known yet
	failed uint64           // rounds that were not kept
	why    string           // of the last one; "" it was
}

// openSampling opens what is read in every round; nil: nothing can be.
func openSampling(c Config, b *backend, log *slog.Logger) *sampling {
	s := &sampling{keep: b.keepSamples, every: c.Sampling, inventory: b.inventory, engine: b.engine, projects: b.loop.Projects}
	s.tell = func(problem string) { b.board.set("samples", func(p *api.Part) { p.Error = problem }) }
	s.services = services{node: nodeName(), known: map[string]*[len(instanceStates)]*sample.Series{}, disk: map[string]*sample.Series{}}
	if !strings.HasPrefix(c.Engine, "unix://") {
		s.elsewhere = c.Engine
	}
	var err error
	o := sample.Options{Node: nodeName(), ComposeLabels: c.ComposeLabels, Log: log}
	if b.metered != nil {
		o.Last = b.metered.db.Last
	}
	if s.sampler, err = sample.New(o); err != nil {
		log.Error("nothing is sampled", "err", err)
		b.board.set("samples", func(p *api.Part) { p.State, p.Since, p.Error = "failed", time.Now().UTC(), err.Error() })
		return nil
	}
	return s
}

// run is the part.
func (s *sampling) run(ctx context.Context) error {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	defer s.sampler.Close()
	var work sync.WaitGroup
	defer work.Wait()
	measuring, stop := context.WithCancel(ctx)
	defer stop() // also if a round panics, which must not wait for the end of ctx
	work.Go(func() { s.measure(measuring) })
	said := ""
	for {
		s.round(ctx)
		if now := s.problem(); now != said && ctx.Err() == nil {
			said = now
			s.tell(said)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// How often the engine is asked what its disk holds. It walks all of that, so that
// it gets a rest of at least sixty times what it took.
const (
	firstMeasure = time.Minute
	measureEvery = 10 * time.Minute
	measureFor   = 2 * time.Minute

	placeFor = 3 * time.Second // for the engine to say where it keeps its data
)

// measure asks the engine now and then what its disk holds, and where that is.
func (s *sampling) measure(ctx context.Context) {
	for pause := firstMeasure; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		begun := time.Now()
		asking, cancel := context.WithTimeout(ctx, measureFor)
		disk, err := s.engine.Disk(asking)
		cancel()
		if err != nil {
			disk = nil // rather nothing than what is old
		}
		s.mu.Lock()
		s.disk = disk
		s.mu.Unlock()
		pause = max(measureEvery, 60*time.Since(begun))
	}
}

// place tells the sampler where the engine keeps its data, once that is known.
func (s *sampling) place(ctx context.Context) {
	if s.placed || s.elsewhere != "" {
		return
	}
	// One that hangs must not keep the files from being read.
	ctx, cancel := context.WithTimeout(ctx, placeFor)
	defer cancel()
	if info, err := s.engine.Info(ctx); err == nil && info.Root != "" {
		s.sampler.Root(info.Root)
		s.placed = true
	}
}

// round takes one and has it kept.
func (s *sampling) round(ctx context.Context) {
	picture, _ := s.inventory.Picture()
	if !picture.Taken.IsZero() && picture.Stale.IsZero() {
		s.place(ctx)
	}
	s.instances = s.instances[:0]
	for i := range picture.Instances {
		s.instances = append(s.instances, s.sampled(&picture.Instances[i]))
	}
	r := s.sampler.Take(ctx, s.instances)
	if ctx.Err() != nil {
		return // it is not whole
	}
	err := s.keep(ctx, r)
	if err == nil && !picture.Taken.IsZero() {
		var list []deploy.ProjectState
		if list, err = s.projects(ctx); err == nil {
			s.mu.Lock()
			disk := s.disk
			s.mu.Unlock()
			err = s.keep(ctx, s.services.round(r.At, list, disk))
		}
	}
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = ""
	if err != nil {
		s.failed++
		s.why = err.Error()
	}
}

// sampled turns an instance into what the sampler needs of it.
func (s *sampling) sampled(i *tender.Instance) sample.Instance {
	out := sample.Instance{
		ID: i.ID, Name: i.Name, Project: i.Project, Service: i.Service, Revision: i.Revision, Image: i.Image,
		PID: i.PID, Running: i.State == tender.Running || i.State == tender.Paused, Health: string(i.Health),
		Ended: i.State == tender.Exited || i.State == tender.Dead || i.State == tender.Restarting, ExitCode: i.ExitCode,
		Restarts: i.Restarts, OOMs: i.OOMs, Created: i.Created, Started: i.Started,
	}
	if i.Revision != "" { // a newcomer's name carries it until it has its slot
		out.Name = strings.TrimSuffix(i.Name, "-"+i.Revision)
	}
	if i.OOM {
		out.OOMs = max(out.OOMs, 1)
	}
	if s.elsewhere != "" {
		out.PID = 0 // it counts there
	}
	return out
}

// problem is what status says of the part.
func (s *sampling) problem() string {
	s.mu.Lock()
	why := s.why
	s.mu.Unlock()
	var all []string
	if why != "" {
		all = append(all, "samples are not kept: "+why)
	}
	if s.elsewhere != "" {
		all = append(all, "the engine is elsewhere ("+s.elsewhere+"): what its instances use cannot be read")
	}
	if p := s.sampler.Status().Problem; p != "" {
		all = append(all, p)
	}
	return strings.Join(all, "; ")
}

// instanceStates are those by which the instances of a service are counted.
var instanceStates = [...]string{"wanted", "running", "ready"}

// services makes rounds of how many instances each service has, and of what the
// engine keeps on its disk.
type services struct {
	node   string
	known  map[string]*[len(instanceStates)]*sample.Series
	disk   map[string]*sample.Series // by kind
	points []sample.Point
}

func (s *services) round(at time.Time, list []deploy.ProjectState, disk map[string]int64) sample.Round {
	s.points = s.points[:0]
	seen := map[string]bool{}
	for _, p := range list {
		for _, v := range p.Services {
			if v.State == "foreign" {
				continue
			}
			key := p.Name + "/" + v.Name
			seen[key] = true
			of := s.known[key]
			if of == nil {
				of = s.series(p.Name, v.Name)
				s.known[key] = of
			}
			wanted, running := v.Wanted, 0
			if v.State == "stopped" || v.State == "done" || v.Job && v.State == "failed" { // by itself it does not run again
				wanted = 0
			}
			for _, i := range v.Instances {
				if i.State == tender.Running || i.State == tender.Paused {
					running++
				}
			}
			for n, value := range [...]int{wanted, running, v.Ready} {
				s.points = append(s.points, sample.Point{Series: of[n], Value: float64(value)})
			}
		}
	}
	for key := range s.known {
		if !seen[key] {
			delete(s.known, key)
		}
	}
	for kind, n := range disk {
		of := s.disk[kind]
		if of == nil {
			of = &sample.Series{
				Name: "tender_engine_disk_bytes", Help: "What the engine keeps on its disk, asked every ten minutes.", Kind: sample.Gauge,
				Labels: []sample.Label{{Name: "kind", Value: kind}, {Name: "node", Value: s.node}},
			}
			s.disk[kind] = of
		}
		s.points = append(s.points, sample.Point{Series: of, Value: float64(n)})
	}
	return sample.Round{Source: "services", At: at, Points: s.points}
}

func (s *services) series(project, service string) *[len(instanceStates)]*sample.Series {
	of := new([len(instanceStates)]*sample.Series)
	for n, state := range instanceStates {
		of[n] = &sample.Series{
			Name: "tender_service_instances", Kind: sample.Gauge,
			Help:   "Instances of a service: wanted, running, and ready of the wanted revision.",
			Labels: []sample.Label{{Name: "node", Value: s.node}, {Name: "project", Value: project}, {Name: "service", Value: service}, {Name: "state", Value: state}},
		}
	}
	return of
}

// samples writes how the sampling fares.
func (f *figures) samples(s *sampling) {
	st := s.sampler.Status()
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	f.metric("samples_rounds_total", "counter", "Times that instances and host were looked at since the start.", "", st.Rounds)
	f.metric("samples_round_seconds", "gauge", "What the last round took.", "", fmt.Sprintf("%.6f", st.Took.Seconds()))
	f.metric("samples_points", "gauge", "Values in the last round.", "", st.Points)
	f.metric("samples_instances", "gauge", "Instances whose files were read in the last round.", "", st.Instances)
	f.metric("samples_errors_total", "counter", "Files that could not be read since the start.", "", st.Errors)
	f.metric("samples_lost_rounds_total", "counter", "Rounds that could not be kept since the start.", "", failed)
}
