package sample

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a Sampler. Its zero value samples the host on which it runs.
type Options struct {
	Node string // the label node of all series
	Proc string // default /proc
	Sys  string // default /sys
	// ComposeLabels adds container_label_com_docker_compose_project and _service to
	// the series that cAdvisor has, for dashboards that ask for them.
	ComposeLabels bool
	NoHost        bool // instances alone
	// Last is asked once for a counter that the kernel begins anew, when its instance is met: the
	// last value that was kept of it, false: none. nil: none.
	Last func(*Series) (float64, bool)
	Log  *slog.Logger
}

// Status is how the sampling fares.
type Status struct {
	Rounds    uint64
	Took      time.Duration // the last round
	Points    int           // in the last round
	Instances int           // whose control groups were read in the last round
	Errors    uint64        // files that could not be read, since the start
	Problem   string        // of the last round; "" all could be read
}

// Source is what rounds call themselves.
const Source = "host"

// Sampler reads what instances and their host use. Take is for one goroutine.
type Sampler struct {
	o       Options
	desk    desk
	groups  hierarchies
	proc    int // folder /proc; -1: not there
	hostNet uint64
	tracked map[string]*tracked
	owners  map[uint64]*tracked // of network namespaces
	host    *host
	root    string

	round   uint64
	at      time.Time
	reading reading
	points  []Point
	name    []byte
	columns [16]uint64

	blind   uint64 // rounds in a row in which nothing of those that run was found
	problem string // of this round

	mu     sync.Mutex
	status Status
}

// New opens what is read in every round. Where there are no control groups, Take
// tells of the host alone.
func New(o Options) (*Sampler, error) {
	o.Proc, o.Sys = cmp.Or(o.Proc, "/proc"), cmp.Or(o.Sys, "/sys")
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sampler{o: o, desk: desk{most: thirdOfFiles()}, tracked: map[string]*tracked{}, owners: map[uint64]*tracked{}}
	mountinfo, err := os.ReadFile(o.Proc + "/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find the control groups: %w", err)
	}
	s.groups = readHierarchies(string(mountinfo))
	if s.proc, err = folder(o.Proc); err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Proc, err)
	}
	// That of the first process is the host's; one without rights sees its own.
	if s.hostNet = namespace(s.proc, "1/ns/net"); s.hostNet == 0 {
		s.hostNet = namespace(s.proc, "self/ns/net")
	}
	if !o.NoHost {
		s.host = newHost(s)
	}
	return s, nil
}

// Close closes all files.
func (s *Sampler) Close() error {
	for id, t := range s.tracked {
		s.leave(t)
		delete(s.tracked, id)
	}
	if s.host != nil {
		s.host.close()
	}
	if s.proc >= 0 {
		unix.Close(s.proc)
		s.proc = -1
	}
	return nil
}

// Root says where the engine keeps its data, so that the room there is told too.
func (s *Sampler) Root(path string) { s.root = path }

// Take reads what these instances and the host use now. The points are good until
// the next Take. A round that ctx has ended is not whole and must not be kept.
func (s *Sampler) Take(ctx context.Context, instances []Instance) Round {
	begun := time.Now()
	s.round++
	s.at, s.problem, s.points = begun, "", s.points[:0]
	clear(s.owners)
	lives, run := 0, 0
	for i := range instances {
		t := s.track(&instances[i])
		s.attach(t)
		if t.is.Running && t.is.PID > 0 {
			run++
		}
		if t.life != nil {
			lives++
			s.own(t)
		}
	}
	// One look may have met all of them in between.
	if s.blind++; run == 0 || lives > 0 {
		s.blind = 0
	} else if s.blind > 2 {
		s.problem = "the control groups of no instance can be found: is the engine on this host?"
	}
	for i := range instances {
		if ctx.Err() != nil {
			break
		}
		s.look(s.tracked[instances[i].ID])
	}
	if len(s.tracked) > len(instances) {
		for id, t := range s.tracked {
			if t.seen != s.round {
				s.leave(t)
				delete(s.tracked, id)
			}
		}
	}
	if s.host != nil {
		s.host.look()
	}
	s.mu.Lock()
	s.status.Rounds, s.status.Took, s.status.Points = s.round, time.Since(begun), len(s.points)
	s.status.Instances, s.status.Problem = lives, s.problem
	s.mu.Unlock()
	return Round{Source: Source, At: begun, Points: s.points}
}

// own notes whose a network is, if several instances share it: that of the one which
// was there first, since the others have joined it. That of the host is the host's.
func (s *Sampler) own(t *tracked) {
	n := t.life.netns
	if n == 0 || n == s.hostNet {
		return
	}
	if o := s.owners[n]; o == nil || t.is.Started.Before(o.is.Started) || t.is.Started.Equal(o.is.Started) && t.is.ID < o.is.ID {
		s.owners[n] = t
	}
}

// Status may be asked at any time.
func (s *Sampler) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// fail counts a file that cannot be read.
func (s *Sampler) fail(what string, err error) {
	s.mu.Lock()
	s.status.Errors++
	s.mu.Unlock()
	if s.problem == "" {
		s.problem = "read " + what + ": " + err.Error()
	}
}
